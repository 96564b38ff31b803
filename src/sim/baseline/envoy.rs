//! What do Envoy's two filters do? Adaptive concurrency (a gradient against a least time that is measured anew) and
//! admission control (chance by the success rate).
//!
//! From Envoy's documentation of both filters, written anew. Gradient: every 100 ms L ← L · g + √L with
//! g = (least · (1 + buffer)) / median, clamped to 0.5..2; every 60 s (with 15 % jitter), and after five updates at the
//! least limit, L is pinned to 3 until 50 requests have shown what a quiet server takes. Buffer 25 %, at most 1000.
//! Success rate: over 30 s, refuse with chance ((n − s / threshold) / (n + 1))^(1 / aggression), threshold 95 %,
//! aggression 1, at most 80 %.

use std::collections::VecDeque;
use std::time::Duration;

use super::law::{Ending, Law};
use super::running::Running;
use crate::flow::{End, Probes};
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::chance::Chance;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Knobs of the gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientSettings {
    pub(super) buffer: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) measure_every: Duration,
}

const fn gradient(buffer: f64, min: f64, max: f64, seconds: u64) -> GradientSettings {
    GradientSettings { buffer, min, max, measure_every: Duration::from_secs(seconds) }
}

pub(super) const GRADIENT: [(&str, GradientSettings); 6] = [
    ("buffer 25 %, 3..1000, 60 s", gradient(0.25, 3.0, 1000.0, 60)),
    ("buffer 100 %, 3..1000, 60 s", gradient(1.0, 3.0, 1000.0, 60)),
    ("buffer 25 %, 20..1000, 60 s", gradient(0.25, 20.0, 1000.0, 60)),
    ("buffer 100 %, 10..200, 600 s", gradient(1.0, 10.0, 200.0, 600)),
    ("buffer 300 %, 10..200, 600 s", gradient(3.0, 10.0, 200.0, 600)),
    ("buffer 300 %, 3..100, 600 s", gradient(3.0, 3.0, 100.0, 600)),
];

const UPDATE: Duration = Duration::from_millis(100);
const JITTER: f64 = 0.15;
const MEASURE_SAMPLES: usize = 50;
const AT_LEAST_MAX: u32 = 5;

/// The adaptive concurrency filter's limit.
#[derive(Debug)]
pub(super) struct Gradient {
    settings: GradientSettings,
    limit: f64,
    /// What it returns to after a measurement.
    before: f64,
    least: f64,
    measuring: bool,
    measure_at: Instant,
    update_at: Instant,
    at_least: u32,
    /// Times since the last update, in seconds.
    times: Vec<f64>,
    chance: Chance,
}

impl Gradient {
    pub(super) fn new(settings: GradientSettings, seed: u64) -> Self {
        Self {
            limit: settings.min,
            before: settings.min,
            least: 0.0,
            // It begins with a measurement.
            measuring: true,
            measure_at: Instant::ORIGIN,
            update_at: Instant::ORIGIN + UPDATE,
            at_least: 0,
            times: Vec::new(),
            chance: Chance::new(seed, 0xE0),
            settings,
        }
    }

    fn measure(&mut self) {
        self.measuring = true;
        self.before = self.limit;
        self.limit = self.settings.min;
        self.times.clear();
        self.at_least = 0;
    }

    fn measured(&mut self, now: Instant) {
        self.least = median(&mut self.times);
        self.times.clear();
        self.measuring = false;
        self.limit = self.before;
        self.update_at = now + UPDATE;
        let every = self.settings.measure_every;
        self.measure_at = now + every + every.mul_f64(JITTER * self.chance.unit());
    }

    fn update(&mut self) {
        if self.times.is_empty() {
            return;
        }
        let median = median(&mut self.times);
        self.times.clear();
        let ratio = (self.least * (1.0 + self.settings.buffer) / median).clamp(0.5, 2.0);
        let limit = self.limit * ratio;
        self.limit = (limit + limit.sqrt()).clamp(self.settings.min, self.settings.max);
        let at_least = self.limit <= self.settings.min;
        self.at_least = if at_least { self.at_least + 1 } else { 0 };
    }
}

fn median(times: &mut [f64]) -> f64 {
    let middle = times.len() / 2;
    *times.select_nth_unstable_by(middle, f64::total_cmp).1
}

impl Law for Gradient {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn ended(&mut self, now: Instant, ending: Ending) {
        self.times.push(ending.took.as_secs_f64());
        if self.measuring && self.times.len() >= MEASURE_SAMPLES {
            self.measured(now);
        }
    }

    fn at(&mut self, now: Instant) {
        if self.measuring {
            return;
        }
        if now >= self.measure_at || self.at_least >= AT_LEAST_MAX {
            self.measure();
        } else if now >= self.update_at {
            self.update_at = now + UPDATE;
            self.update();
        }
    }
}

/// Knobs of the success rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuccessSettings {
    pub(super) threshold: f64,
    pub(super) aggression: f64,
    pub(super) most: f64,
    pub(super) window: Duration,
}

const fn success(threshold: f64, aggression: f64, most: f64, seconds: u64) -> SuccessSettings {
    SuccessSettings { threshold, aggression, most, window: Duration::from_secs(seconds) }
}

pub(super) const SUCCESS: [(&str, SuccessSettings); 5] = [
    ("95 %, aggression 1, ≤ 80 %, 30 s", success(0.95, 1.0, 0.8, 30)),
    ("99 %, aggression 1, ≤ 80 %, 30 s", success(0.99, 1.0, 0.8, 30)),
    ("95 %, aggression 2, ≤ 99 %, 30 s", success(0.95, 2.0, 0.99, 30)),
    ("95 %, aggression 2, ≤ 99 %, 5 s", success(0.95, 2.0, 0.99, 5)),
    ("80 %, aggression 1, ≤ 99 %, 10 s", success(0.8, 1.0, 0.99, 10)),
];

/// The admission control filter.
#[derive(Debug)]
pub(super) struct SuccessRate {
    settings: SuccessSettings,
    /// Second, requests that ended, and those of them that worked.
    seconds: VecDeque<(u64, u32, u32)>,
    running: Running,
    chance: Chance,
}

impl SuccessRate {
    pub(super) fn new(settings: SuccessSettings, seed: u64) -> Self {
        Self { settings, seconds: VecDeque::new(), running: Running::new(1), chance: Chance::new(seed, 0xAC) }
    }

    fn forget(&mut self, now: Instant) {
        let oldest = second(now).saturating_sub(self.settings.window.as_secs());
        while self.seconds.front().is_some_and(|&(then, ..)| then <= oldest) {
            self.seconds.pop_front();
        }
    }

    /// With which chance a request is refused.
    pub(super) fn refusal(&self) -> f64 {
        let (ended, worked) = self
            .seconds
            .iter()
            .fold((0.0, 0.0), |(n, s), &(_, ended, worked)| (n + f64::from(ended), s + f64::from(worked)));
        let excess = (ended - worked / self.settings.threshold) / (ended + 1.0);
        excess.max(0.0).powf(1.0 / self.settings.aggression).min(self.settings.most)
    }
}

fn second(now: Instant) -> u64 {
    now.since(Instant::ORIGIN).as_secs()
}

impl Guard for SuccessRate {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.forget(now);
        if !call.exempt && self.chance.unit() < self.refusal() {
            return PLAIN_RETRY_AFTER;
        }
        self.running.start_free(now, id, call);
        Answer::Admit
    }

    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}

    fn burst_done(&mut self, _now: Instant, _id: Id) {}

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        if self.running.finish(id).is_none() || ended.end == End::Ignored {
            return;
        }
        let now = second(now);
        if self.seconds.back().is_none_or(|&(then, ..)| then < now) {
            self.seconds.push_back((now, 0, 0));
        }
        if let Some(last) = self.seconds.back_mut() {
            last.1 += 1;
            last.2 += u32::from(!ended.end.is_loss());
        }
    }

    /// A client that gave up is counted by nobody: Envoy sees a reset by the client as no answer.
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

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;
    use crate::policy::Lane;

    fn feed(gradient: &mut Gradient, from: u64, millis: u64, took: u64) {
        for now in (from..from + millis).step_by(10) {
            gradient.at(at(now));
            let took = Duration::from_millis(took);
            gradient.ended(at(now), Ending { took, beside: 1, dropped: false });
        }
    }

    #[test]
    fn it_begins_pinned_to_three_until_fifty_requests_were_measured() {
        let mut envoy = Gradient::new(GRADIENT[0].1, 1);
        feed(&mut envoy, 0, 490, 10);
        assert_eq!(envoy.limit(), 3.0);
        feed(&mut envoy, 490, 2_000, 10);
        assert!(envoy.limit() > 100.0, "{}", envoy.limit());
    }

    #[test]
    fn a_healthy_server_is_pinned_again_every_minute() {
        let mut envoy = Gradient::new(GRADIENT[0].1, 1);
        feed(&mut envoy, 0, 59_000, 10);
        assert_eq!(envoy.limit(), 1000.0);
        // 15 % jitter: within 69 s of the first measurement's end.
        feed(&mut envoy, 59_000, 11_000, 10);
        let before = envoy.measure_at;
        assert!(before > at(100_000), "it was measured a second time");
    }

    #[test]
    fn a_least_time_measured_in_a_storm_opens_the_limit() {
        let mut envoy = Gradient::new(GRADIENT[0].1, 1);
        feed(&mut envoy, 0, 10_000, 10);
        feed(&mut envoy, 10_000, 1_500, 1_000);
        assert!(envoy.limit() < 20.0, "the gradient cuts: {}", envoy.limit());
        feed(&mut envoy, 11_500, 60_000, 1_000);
        assert!(envoy.limit() > 500.0, "until it took a second for normal: {}", envoy.limit());
    }

    #[test]
    fn refusals_follow_the_published_formula() {
        let mut filter = SuccessRate::new(SUCCESS[0].1, 1);
        for id in 0..100 {
            let _ = filter.arrive(at(0), id, &call(Lane::Workload, 1));
            let end = if id < 50 { End::Success } else { End::TimedOut };
            filter.finish(at(0), id, Ended { end, ..ended(1) });
        }
        // (100 - 50 / 0.95) / 101
        assert!((filter.refusal() - 0.469).abs() < 0.05, "{}", filter.refusal());
        filter.forget(at(31_000));
        assert_eq!(filter.refusal(), 0.0, "forgotten after thirty seconds");
    }
}
