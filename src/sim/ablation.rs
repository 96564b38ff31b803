//! What is each part of spillway good for? The production scheduler with one part taken away.
//!
//! Nothing in `flow` knows of this file: a part is taken away by a setting, or by an adapter that changes what the
//! scheduler is told (no probes, one key for all, one lane for all) or what it says (`Retry-After`). `without-floors` is
//! spillway without floors, and so on.

use std::time::Duration;

use super::guard::{Answer, Call, Ended, Guard, Id};
use super::spillway::Spillway;
use crate::flow::{Encoding, Key, Probe, Probes, ResponseBytes, Settings};
use crate::policy::Lane;
use crate::request::{DecodedPath, RequestInfo};
use crate::units::{Instant, Seats};

/// All ablations: name, and what is taken away.
pub const ABLATIONS: &[(&str, &str)] = &[
    ("without-probes", "the three probes are silent: calls alone tell how the apiserver is"),
    ("without-keys", "one key for all calls: one baseline for everything, and a seat is a request"),
    ("without-priority", "one lane for everybody"),
    ("without-adaptive-retry", "`Retry-After` is always 1 s"),
    ("without-retry-jitter", "`Retry-After` as computed, but rounded to powers of two instead of spread"),
    ("without-floors", "no lane has a floor"),
    ("without-queues", "nobody waits: admit or refuse"),
    ("without-ceilings", "fixed shares of L for each lane instead of ceilings on the total"),
    ("without-heavy-budget", "heavy requests may take all of L"),
    ("without-client-cap", "one client may fill its lane"),
    ("without-controllability", "cuts are never undone"),
    ("without-seat-discount", "a call that only waits keeps its seats"),
    ("without-cancel", "nothing that runs is reset"),
    ("without-cohorts", "telemetry is shed by request, not by client"),
    ("without-memory-budget", "bytes of answers in flight have no bound"),
    ("without-objectives", "objectives of 1 ms: ratios alone make pressure"),
    ("without-hold", "refusals go out at once, whoever ignores them"),
];

/// The ablation of that name.
#[must_use]
pub(super) fn by_name(name: &str, settings: &Settings, seed: u64) -> Option<Box<dyn Guard>> {
    let (settings, twist) = taken_away(name, settings.clone())?;
    Some(Box::new(Ablated { inner: Spillway::new(settings, seed), twist }))
}

/// What the adapter changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Twist {
    Nothing,
    SilentProbes,
    OneKey(Key),
    OneLane,
    RetryAfterOne,
    RetryAfterRounded,
}

/// Shares of L by lane, in percent, where ceilings are taken away: what the competitors' partitions get.
const SHARES: [u32; Lane::COUNT] = super::baseline::PARTITIONS;

fn taken_away(name: &str, mut settings: Settings) -> Option<(Settings, Twist)> {
    let mut twist = Twist::Nothing;
    match name {
        "without-probes" => twist = Twist::SilentProbes,
        "without-keys" => twist = Twist::OneKey(plain_key()?),
        "without-priority" => twist = Twist::OneLane,
        "without-adaptive-retry" => twist = Twist::RetryAfterOne,
        "without-retry-jitter" => twist = Twist::RetryAfterRounded,
        "without-floors" => {
            for lane in &mut settings.lanes {
                (lane.floor_percent, lane.floor_min) = (0, Seats::ZERO);
            }
        }
        "without-queues" => {
            for lane in &mut settings.lanes {
                (lane.wait, lane.queue_limit) = (Duration::ZERO, 0);
            }
        }
        "without-ceilings" => {
            for (lane, share) in settings.lanes.iter_mut().zip(SHARES) {
                (lane.ceiling_percent, lane.floor_percent) = (share, share);
            }
        }
        "without-heavy-budget" => settings.heavy_percent = 100,
        "without-client-cap" => settings.client_percent = 100,
        "without-controllability" => settings.laws.controllability = false,
        "without-seat-discount" => settings.laws.seat_discount = false,
        "without-cancel" => settings.laws.cancel_worst = false,
        "without-cohorts" => settings.laws.cohorts = false,
        "without-memory-budget" => settings.memory.response_bytes = ResponseBytes::Fixed(0),
        "without-objectives" => {
            let tiny = Duration::from_millis(1);
            let objectives = &mut settings.objectives;
            (objectives.object, objectives.namespace_list, objectives.cluster_list) = (tiny, tiny, tiny);
        }
        "without-hold" => (settings.hold.longest, settings.hold.most) = (Duration::ZERO, 0),
        _ => return None,
    }
    Some((settings, twist))
}

/// The key of a GET of one object.
fn plain_key() -> Option<Key> {
    let path = DecodedPath::new("/api/v1/namespaces/default/configmaps/any").ok()?;
    Some(Key::of(&RequestInfo::new("GET", &path, None).ok()?, Encoding::Json))
}

/// The scheduler behind the adapter.
#[derive(Debug)]
struct Ablated {
    inner: Spillway,
    twist: Twist,
}

impl Ablated {
    fn said(&self, answer: Answer) -> Answer {
        let Answer::Shed { retry_after_seconds, hold } = answer else { return answer };
        let retry_after_seconds = match self.twist {
            Twist::RetryAfterOne => 1,
            Twist::RetryAfterRounded => retry_after_seconds.next_power_of_two(),
            _ => retry_after_seconds,
        };
        Answer::Shed { retry_after_seconds, hold }
    }
}

impl Guard for Ablated {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        let answer = match self.twist {
            Twist::OneKey(key) => self.inner.arrive(now, id, &Call { key, ..call.clone() }),
            Twist::OneLane if call.lane != Lane::BreakGlass => {
                self.inner.arrive(now, id, &Call { lane: Lane::Platform, ..call.clone() })
            }
            _ => self.inner.arrive(now, id, call),
        };
        self.said(answer)
    }

    fn first_byte(&mut self, now: Instant, id: Id, level: u64) {
        self.inner.first_byte(now, id, level);
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        self.inner.burst_done(now, id);
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        self.inner.finish(now, id, ended);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        self.inner.cancel(now, id);
    }

    fn tick(&mut self, now: Instant, probes: &Probes) {
        let silent = Probes {
            livez: Probe::Silent,
            cached: Probe::Silent,
            consistent: Probe::Silent,
            ready: probes.ready,
        };
        self.inner.tick(now, if self.twist == Twist::SilentProbes { &silent } else { probes });
    }

    fn upstream_up(&mut self, now: Instant, up: bool) {
        self.inner.upstream_up(now, up);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.inner.next_wake()
    }

    fn wake(&mut self, now: Instant) {
        self.inner.wake(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        let known = into.len();
        self.inner.verdicts(into);
        for (_, answer) in into.iter_mut().skip(known) {
            *answer = self.said(*answer);
        }
    }

    fn resets(&mut self, into: &mut Vec<Id>) {
        self.inner.resets(into);
    }

    fn limit(&self) -> Option<f64> {
        self.inner.limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ablation_takes_something_away() {
        let whole = Settings::default();
        for (name, _) in ABLATIONS {
            let (settings, twist) = taken_away(name, whole.clone()).unwrap();
            assert!(settings != whole || twist != Twist::Nothing, "{name}");
            assert!(by_name(name, &whole, 1).is_some());
        }
        assert!(by_name("without-sense", &whole, 1).is_none());
    }

    #[test]
    fn retry_after_is_what_the_ablation_says_and_the_hold_stays() {
        let answer = Answer::Shed { retry_after_seconds: 5, hold: Duration::from_secs(1) };
        let said = |name: &str| {
            let (settings, twist) = taken_away(name, Settings::default()).unwrap();
            Ablated { inner: Spillway::new(settings, 1), twist }.said(answer)
        };
        let hold = Duration::from_secs(1);
        assert_eq!(said("without-adaptive-retry"), Answer::Shed { retry_after_seconds: 1, hold });
        assert_eq!(said("without-retry-jitter"), Answer::Shed { retry_after_seconds: 8, hold });
        assert_eq!(said("without-floors"), answer);
    }
}
