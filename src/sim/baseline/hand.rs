//! What do configurations do that experts write by hand for one storm, one culprit and one server?
//!
//! The three that held a storm on the reference rig (one core, 5,000 pods, a LIST of all pods is 39 MB and 0.36 CPU-seconds)
//! best, with the numbers found for it: they are right for that content and that server, and do not follow when either
//! changes. `hand-haproxy-named`: whoever LISTs everything (their identities rewritten into one name) gets one such LIST a
//! second, one at a time; others wait in line for 3 s and are refused then. `hand-haproxy-unnamed`: two such LISTs at a time, whoever asks.
//! `hand-envoy-limits`: rate limits by class (one LIST of everything a second, other telemetry 50/s), operators apart.
//! Operators, break-glass and controllers were excepted in all three. A LIST of everything is recognised as an expert
//! would, by its path; here by an answer of more than 1 MB.

use std::time::Duration;

use super::line::Lines;
use super::running::Running;
use crate::flow::Probes;
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandSettings {
    /// Starts of big LISTs a second; none: no rate.
    pub(super) big_per_second: Option<f64>,
    /// Big LISTs at a time; none: no bound.
    pub(super) big_at_once: Option<u32>,
    /// Other telemetry a second; none: no rate.
    pub(super) telemetry_per_second: Option<f64>,
    /// How long a big LIST waits for its turn before it is refused.
    pub(super) wait: Duration,
}

pub(super) const HAPROXY_NAMED: HandSettings = HandSettings {
    big_per_second: Some(1.0),
    big_at_once: Some(1),
    telemetry_per_second: None,
    wait: Duration::from_secs(3),
};
pub(super) const HAPROXY_UNNAMED: HandSettings = HandSettings {
    big_per_second: None,
    big_at_once: Some(2),
    telemetry_per_second: None,
    wait: Duration::from_secs(3),
};
pub(super) const ENVOY_LIMITS: HandSettings = HandSettings {
    big_per_second: Some(1.0),
    big_at_once: None,
    telemetry_per_second: Some(50.0),
    wait: Duration::ZERO,
};

/// An answer of more bytes is that of a LIST of everything.
const BIG_BYTES: u64 = 1_000_000;

/// A token bucket of one second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: f64) -> Self {
        Self { per_second, tokens: per_second.max(1.0), at: Instant::ORIGIN }
    }

    fn refill(&mut self, now: Instant) {
        self.tokens += now.since(self.at).as_secs_f64() * self.per_second;
        self.tokens = self.tokens.min(self.per_second.max(1.0));
        self.at = now;
    }

    /// When there will be a token.
    fn next(&self) -> Instant {
        self.at + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.per_second)
    }

    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        // A millionth is the rounding of a wake-up's time.
        let has = self.tokens >= 1.0 - 1e-6;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

/// A configuration by hand.
#[derive(Debug)]
pub(super) struct Hand {
    settings: HandSettings,
    big: Option<Bucket>,
    telemetry: Option<Bucket>,
    running: Running,
    lines: Lines,
    verdicts: Vec<(Id, Answer)>,
}

/// The line in which all big LISTs wait.
const LINE: Lane = Lane::Telemetry;

impl Hand {
    pub(super) fn new(settings: HandSettings) -> Self {
        Self {
            big: settings.big_per_second.map(Bucket::new),
            telemetry: settings.telemetry_per_second.map(Bucket::new),
            running: Running::new(1),
            lines: Lines::default(),
            verdicts: Vec::new(),
            settings,
        }
    }

    fn is_full(&self) -> bool {
        self.settings.big_at_once.is_some_and(|most| self.running.total() >= most)
    }

    fn begins(&mut self, now: Instant) -> bool {
        !self.is_full() && self.big.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    fn serve(&mut self, now: Instant) {
        while let Some(late) = self.lines.take_late(now, LINE, self.settings.wait) {
            self.verdicts.push((late.id, PLAIN_RETRY_AFTER));
        }
        while self.lines.oldest(LINE).is_some() && self.begins(now) {
            let Some(next) = self.lines.take_oldest(LINE) else { return };
            self.running.start(now, next.id, &next.call, (0, 1));
            self.verdicts.push((next.id, Answer::Admit));
        }
    }

    fn big(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        if self.lines.len(LINE) == 0 && self.begins(now) {
            self.running.start(now, id, call, (0, 1));
            return Answer::Admit;
        }
        if self.settings.wait.is_zero() {
            return PLAIN_RETRY_AFTER;
        }
        self.lines.push(now, id, LINE, call);
        Answer::Wait
    }
}

impl Guard for Hand {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        let excepted = call.exempt
            || matches!(
                call.lane,
                Lane::BreakGlass | Lane::NodeHealth | Lane::ControlPlane | Lane::Operators
            );
        if !excepted && call.list && call.truth.bytes > BIG_BYTES {
            return self.big(now, id, call);
        }
        let limited = self.telemetry.as_mut().filter(|_| !excepted && call.lane >= Lane::Unknown);
        if limited.is_some_and(|bucket| !bucket.take(now)) {
            return PLAIN_RETRY_AFTER;
        }
        self.running.start_free(now, id, call);
        Answer::Admit
    }

    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}

    fn burst_done(&mut self, now: Instant, id: Id) {
        self.running.burst_done(id);
        self.serve(now);
    }

    fn finish(&mut self, now: Instant, id: Id, _ended: Ended) {
        self.running.finish(id);
        self.serve(now);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        if !self.lines.leave(id) {
            self.running.finish(id);
        }
        self.serve(now);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        self.serve(now);
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        let late = self.lines.first_late(LINE, self.settings.wait)?;
        let token = self.big.as_ref().filter(|_| !self.is_full()).map(Bucket::next);
        Some(token.map_or(late, |token| token.min(late)))
    }

    fn wake(&mut self, now: Instant) {
        self.serve(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.verdicts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;
    use crate::sim::guard::Truth;

    fn list(lane: Lane) -> Call {
        let truth = Truth { bytes: 39_000_000, ..Truth::default() };
        Call { list: true, truth, ..call(lane, 1) }
    }

    fn admits(hand: &mut Hand, now: u64, id: Id, call: &Call) -> bool {
        hand.arrive(at(now), id, call) == Answer::Admit
    }

    #[test]
    fn the_named_culprit_gets_one_list_a_second_one_at_a_time_and_waits_for_its_refusal() {
        let mut hand = Hand::new(HAPROXY_NAMED);
        assert!(admits(&mut hand, 0, 1, &list(Lane::Telemetry)));
        assert_eq!(hand.arrive(at(1_500), 2, &list(Lane::Platform)), Answer::Wait, "one is running");
        assert_eq!(hand.arrive(at(1_501), 3, &list(Lane::Telemetry)), Answer::Wait);
        hand.finish(at(1_600), 1, ended(1_600));
        hand.finish(at(1_700), 2, ended(100));
        assert_eq!(hand.next_wake(), Some(at(2_600)), "not before a second is over");
        hand.wake(at(2_600));
        assert_eq!(hand.arrive(at(2_601), 4, &list(Lane::Telemetry)), Answer::Wait);
        hand.wake(at(5_601));
        let mut verdicts = Vec::new();
        hand.verdicts(&mut verdicts);
        assert_eq!(verdicts, [(2, Answer::Admit), (3, Answer::Admit), (4, PLAIN_RETRY_AFTER)]);
        assert!(admits(&mut hand, 6_000, 5, &list(Lane::Operators)));
        assert!(admits(&mut hand, 6_000, 6, &call(Lane::Telemetry, 1)));
    }

    #[test]
    fn unnamed_two_big_lists_run_at_a_time() {
        let mut hand = Hand::new(HAPROXY_UNNAMED);
        let admitted = (0..10).filter(|&id| admits(&mut hand, 0, id, &list(Lane::Workload))).count();
        assert_eq!(admitted, 2);
        hand.cancel(at(1), 0);
        let mut verdicts = Vec::new();
        hand.verdicts(&mut verdicts);
        assert_eq!(verdicts, [(2, Answer::Admit)]);
    }

    #[test]
    fn envoy_limits_rates_and_nothing_else() {
        let mut hand = Hand::new(ENVOY_LIMITS);
        let small = (0..100).filter(|&id| admits(&mut hand, 0, id, &call(Lane::Telemetry, 1))).count();
        assert_eq!(small, 50);
        let big =
            (0..40).filter(|&n| admits(&mut hand, n * 250, 200 + n as Id, &list(Lane::Telemetry))).count();
        assert_eq!(big, 10, "one a second, however long each takes");
    }
}
