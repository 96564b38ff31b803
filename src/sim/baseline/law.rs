//! What moves a limit of requests in flight? The common border of all laws that do, and the limiter that obeys one.
//!
//! Plain, a request is refused when the limit is reached, whoever sends it. With **partitions** each lane has a share of
//! the limit that binds only when the whole limit is reached, as in Netflix' `AbstractPartitionedLimiter`: an idle
//! share is lent, and cannot be called back before its requests end. Refused requests are told to return after one
//! second: the libraries answer a bare 429, to which an expert adds what the apiserver itself says when it is full.

use std::time::Duration;

use super::running::Running;
use crate::flow::{End, Probes};
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// One request that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Its whole time at the apiserver.
    pub(super) took: Duration,
    /// Requests in flight when it was forwarded, with it.
    pub(super) beside: u32,
    /// It failed for want of capacity.
    pub(super) dropped: bool,
}

/// A law that moves a limit.
pub(super) trait Law: std::fmt::Debug {
    /// Requests that may be in flight now.
    fn limit(&self) -> f64;
    /// A request ended.
    fn ended(&mut self, now: Instant, ending: Ending);
    /// Time passes: called at least at every tick and every arrival.
    fn at(&mut self, _now: Instant) {}
}

/// Shares of the lanes in percent of the limit; they sum to 100. Leases and controllers are given what keeps a cluster
/// alive, telemetry what the facts' own simulation gave it.
pub(in crate::sim) const PARTITIONS: [u32; Lane::COUNT] = [5, 25, 15, 15, 10, 15, 5, 10];

/// Forwards while fewer requests than the law's limit are in flight.
#[derive(Debug)]
pub(super) struct Limiter {
    law: Box<dyn Law>,
    partitions: Option<[u32; Lane::COUNT]>,
    running: Running,
}

impl Limiter {
    /// Everybody alike.
    pub(super) fn plain(law: impl Law + 'static) -> Self {
        Self { law: Box::new(law), partitions: None, running: Running::new(Lane::COUNT) }
    }

    /// With shares by lane.
    pub(super) fn by_lane(law: impl Law + 'static) -> Self {
        Self { partitions: Some(PARTITIONS), ..Self::plain(law) }
    }

    fn fits(&self, lane: Lane) -> bool {
        let limit = self.law.limit().floor().max(1.0);
        if f64::from(self.running.total()) < limit {
            return true;
        }
        let Some(partitions) = &self.partitions else { return false };
        let share = (limit * f64::from(partitions[lane.index()]) / 100.0).ceil().max(1.0);
        f64::from(self.running.pool(lane.index())) < share
    }

    fn over(&mut self, now: Instant, id: Id, took: Duration, end: End) {
        let Some(run) = self.running.finish(id) else { return };
        let says_something = end == End::Success || end.is_loss();
        if let Some(took) = run.timed(took).filter(|_| says_something) {
            self.law.ended(now, Ending { took, beside: run.beside, dropped: end.is_loss() });
        }
    }
}

impl Guard for Limiter {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.law.at(now);
        if call.exempt {
            self.running.start_free(now, id, call);
        } else if self.fits(call.lane) {
            self.running.start(now, id, call, (call.lane.index(), 1));
        } else {
            return PLAIN_RETRY_AFTER;
        }
        Answer::Admit
    }

    fn first_byte(&mut self, _now: Instant, id: Id, _level: u64) {
        self.running.first_byte(id);
    }

    fn burst_done(&mut self, _now: Instant, id: Id) {
        self.running.burst_done(id);
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        self.over(now, id, ended.latency, ended.end);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        self.over(now, id, Duration::ZERO, End::Ignored);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        self.law.at(now);
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}

    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}

    fn limit(&self) -> Option<f64> {
        Some(self.law.limit())
    }
}

/// Gathers what ended in a second, as Netflix' `WindowedLimit` does for laws that want one sample a second.
#[derive(Debug, Default)]
pub(super) struct Window {
    until: Instant,
    count: u32,
    sum: Duration,
    beside: u32,
    dropped: bool,
}

/// A window is at least, and at most, this long.
const WINDOW: Duration = Duration::from_secs(1);
/// Samples that a window needs.
const SAMPLES_MIN: u32 = 10;
/// Shorter times are noise.
const TOOK_MIN: Duration = Duration::from_micros(100);

impl Window {
    /// Adds an ending; gives the window's mean when it is complete.
    pub(super) fn add(&mut self, now: Instant, ending: Ending) -> Option<Ending> {
        if !ending.dropped && ending.took < TOOK_MIN {
            return None;
        }
        self.beside = self.beside.max(ending.beside);
        self.dropped |= ending.dropped;
        if !ending.dropped {
            self.count += 1;
            self.sum += ending.took;
        }
        if now < self.until || self.count < SAMPLES_MIN {
            return None;
        }
        let whole = Ending { took: self.sum / self.count, beside: self.beside, dropped: self.dropped };
        *self = Self { until: now + WINDOW, ..Self::default() };
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;

    #[derive(Debug)]
    struct Fixed(f64);

    impl Law for Fixed {
        fn limit(&self) -> f64 {
            self.0
        }
        fn ended(&mut self, _now: Instant, _ending: Ending) {}
    }

    #[test]
    fn a_plain_limit_refuses_whoever_comes_last() {
        let mut limiter = Limiter::plain(Fixed(3.0));
        for id in 0..3 {
            assert_eq!(limiter.arrive(at(0), id, &call(Lane::Telemetry, 1)), Answer::Admit);
        }
        assert_eq!(limiter.arrive(at(0), 3, &call(Lane::NodeHealth, 2)), PLAIN_RETRY_AFTER);
        limiter.finish(at(1), 0, ended(1));
        assert_eq!(limiter.arrive(at(1), 4, &call(Lane::NodeHealth, 2)), Answer::Admit);
    }

    #[test]
    fn a_partition_is_lent_while_the_limit_is_not_reached_and_kept_when_it_is() {
        let mut limiter = Limiter::by_lane(Fixed(20.0));
        for id in 0..20 {
            assert_eq!(limiter.arrive(at(0), id, &call(Lane::Telemetry, 1)), Answer::Admit, "lent");
        }
        assert_eq!(limiter.arrive(at(0), 20, &call(Lane::Telemetry, 1)), PLAIN_RETRY_AFTER);
        for id in 21..26 {
            assert_eq!(limiter.arrive(at(0), id, &call(Lane::NodeHealth, 2)), Answer::Admit, "25 % of 20");
        }
        assert_eq!(limiter.arrive(at(0), 26, &call(Lane::NodeHealth, 2)), PLAIN_RETRY_AFTER);
    }

    #[test]
    fn a_window_needs_a_second_and_ten_samples() {
        let mut window = Window { until: at(1000), ..Window::default() };
        let ending = |millis| Ending { took: Duration::from_millis(millis), beside: 1, dropped: false };
        for sample in 0..9 {
            assert!(window.add(at(1500 + sample), ending(10)).is_none());
        }
        assert_eq!(window.add(at(1600), ending(20)).map(|whole| whole.took), Some(Duration::from_millis(11)));
        for _ in 0..20 {
            assert!(window.add(at(1700), ending(10)).is_none());
        }
    }
}
