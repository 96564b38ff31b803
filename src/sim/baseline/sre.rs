//! What does the client throttling of Google's SRE book do, with the proxy as the client?
//!
//! *Site Reliability Engineering*, chapter 21: over two minutes a client counts its requests and those that the backend
//! accepted, by criticality, and drops a request itself with chance (requests − K · accepts) / (requests + 1), K = 2. The
//! lanes are the criticalities. An accept is whatever the apiserver answered in time and without refusing.

use std::collections::VecDeque;
use std::time::Duration;

use super::running::Running;
use crate::flow::{End, Probes};
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::chance::Chance;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Knobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct SreSettings {
    pub(super) k: f64,
    pub(super) window: Duration,
    /// Answers later than this are no accepts; none: only refusals and losses are.
    pub(super) late: Option<Duration>,
}

const fn sre(k: f64, seconds: u64, late: Option<u64>) -> SreSettings {
    let late = match late {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    SreSettings { k, window: Duration::from_secs(seconds), late }
}

pub(super) const SRE: [(&str, SreSettings); 5] = [
    ("K 2, 120 s", sre(2.0, 120, None)),
    ("K 1.1, 120 s", sre(1.1, 120, None)),
    ("K 1.1, 30 s", sre(1.1, 30, None)),
    ("K 1.1, 10 s, late after 1 s", sre(1.1, 10, Some(1))),
    ("K 2, 10 s, late after 1 s", sre(2.0, 10, Some(1))),
];

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    at: u64,
    requests: [u32; Lane::COUNT],
    accepts: [u32; Lane::COUNT],
}

/// Client throttling.
#[derive(Debug)]
pub(super) struct Sre {
    settings: SreSettings,
    seconds: VecDeque<Second>,
    /// Sums over `seconds`.
    requests: [u32; Lane::COUNT],
    accepts: [u32; Lane::COUNT],
    running: Running,
    chance: Chance,
}

impl Sre {
    pub(super) fn new(settings: SreSettings, seed: u64) -> Self {
        Self {
            settings,
            seconds: VecDeque::new(),
            requests: [0; Lane::COUNT],
            accepts: [0; Lane::COUNT],
            running: Running::new(1),
            chance: Chance::new(seed, 0x5E),
        }
    }

    fn second(&mut self, now: Instant) -> Option<&mut Second> {
        let now = now.since(Instant::ORIGIN).as_secs();
        let oldest = now.saturating_sub(self.settings.window.as_secs());
        while let Some(front) = self.seconds.front().filter(|second| second.at < oldest) {
            for lane in 0..Lane::COUNT {
                self.requests[lane] -= front.requests[lane];
                self.accepts[lane] -= front.accepts[lane];
            }
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|second| second.at < now) {
            self.seconds.push_back(Second { at: now, ..Second::default() });
        }
        self.seconds.back_mut()
    }

    fn refusal(&self, lane: Lane) -> f64 {
        let (requests, accepts) =
            (f64::from(self.requests[lane.index()]), f64::from(self.accepts[lane.index()]));
        ((requests - self.settings.k * accepts) / (requests + 1.0)).max(0.0)
    }
}

impl Guard for Sre {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        if call.exempt {
            self.running.start_free(now, id, call);
            return Answer::Admit;
        }
        let lane = call.lane.index();
        let Some(second) = self.second(now) else { return PLAIN_RETRY_AFTER };
        second.requests[lane] += 1;
        let refusal = self.refusal(call.lane);
        self.requests[lane] += 1;
        if self.chance.unit() < refusal {
            return PLAIN_RETRY_AFTER;
        }
        self.running.start(now, id, call, (0, 1));
        Answer::Admit
    }

    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}

    /// A watch that begins to deliver is accepted; its end may be ten minutes away.
    fn burst_done(&mut self, now: Instant, id: Id) {
        if self.running.burst_done(id) {
            let lane = self.running.finish(id).map(|run| run.lane);
            self.accept(now, lane);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        let Some(run) = self.running.finish(id).filter(|run| run.seats > 0) else { return };
        let late = self.settings.late.is_some_and(|late| ended.latency > late);
        if !ended.end.is_loss() && ended.end != End::Ignored && !late {
            self.accept(now, Some(run.lane));
        }
    }

    fn cancel(&mut self, _now: Instant, id: Id) {
        self.running.finish(id);
    }

    fn tick(&mut self, _now: Instant, _probes: &Probes) {}

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}

    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}
}

impl Sre {
    fn accept(&mut self, now: Instant, lane: Option<Lane>) {
        let Some(lane) = lane.map(Lane::index) else { return };
        if let Some(second) = self.second(now) {
            second.accepts[lane] += 1;
            self.accepts[lane] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;

    #[test]
    fn twice_what_is_accepted_goes_through_and_each_criticality_counts_alone() {
        let mut sre = Sre::new(SRE[0].1, 1);
        let mut forwarded = 0;
        // The backend accepts one in ten.
        for id in 0..20_000 {
            let now = at(u64::from(id) * 5);
            if sre.arrive(now, id, &call(Lane::Telemetry, 1)) == Answer::Admit {
                forwarded += 1;
                let end = if forwarded % 10 == 0 { End::Success } else { End::Congested };
                sre.finish(now, id, Ended { end, ..ended(1) });
            }
        }
        assert!(sre.refusal(Lane::Telemetry) > 0.7, "{}", sre.refusal(Lane::Telemetry));
        assert_eq!(sre.refusal(Lane::NodeHealth), 0.0);
        assert_eq!(sre.arrive(at(100_000), 20_000, &call(Lane::NodeHealth, 2)), Answer::Admit);
        let _ = sre.second(at(300_000));
        assert_eq!(sre.refusal(Lane::Telemetry), 0.0, "forgotten after two minutes");
    }

    #[test]
    fn a_backend_that_accepts_more_than_half_is_not_throttled_with_k_of_two() {
        let (mut sre, mut forwarded) = (Sre::new(SRE[0].1, 1), 0);
        for id in 0..2_000 {
            let admitted = sre.arrive(at(u64::from(id)), id, &call(Lane::Workload, 1)) == Answer::Admit;
            if admitted {
                forwarded += 1;
                let end = if forwarded % 5 < 3 { End::Success } else { End::Congested };
                sre.finish(at(u64::from(id)), id, Ended { end, ..ended(1) });
            }
        }
        assert_eq!(sre.refusal(Lane::Workload), 0.0);
    }
}
