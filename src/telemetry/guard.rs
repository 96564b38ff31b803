//! What does the guard of a rollout judge by?
//!
//! Counts of this process, ever growing: whoever judges keeps those of the last time. Nothing outside is asked, because
//! whoever collects metrics is a victim of the very trouble that must be noticed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::Metric as _;
use prometheus::{Histogram, IntCounterVec};

use super::register::Register;
use super::{Answered, Answerer};
use crate::flow::Reason;
use crate::policy::Lane;
use crate::policy::rollout::{Readings, Step};
use crate::request::Verb;

/// Finer than kube-apiserver's below a second: it is judged by its 99th percentile.
const READ_BUCKETS: [f64; 16] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0];

/// The counts.
pub struct Guarded {
    reads: Histogram,
    steps: IntCounterVec,
    answers: AtomicU64,
    errors: AtomicU64,
    shed: [AtomicU64; Lane::COUNT],
}

/// The counts of one moment.
#[derive(Clone, Debug, Default)]
pub struct GuardCounts {
    answers: u64,
    errors: u64,
    shed: [u64; Lane::COUNT],
    reads: Buckets,
    overheads: Buckets,
}

/// A histogram: upper bounds in seconds with all counts up to them, and the count of everything.
#[derive(Clone, Debug, Default)]
struct Buckets {
    bounds: Vec<(f64, u64)>,
    all: u64,
}

impl Guarded {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let guarded = Self {
            reads: register.histogram(
                "read_object_duration_seconds",
                "reads of one object that kube-apiserver answered, queue included: what a rollout's guard \
                 judges",
                &READ_BUCKETS,
            )?,
            steps: register.counters(
                "rollout_steps_total",
                "judged intervals of a rollout: `advanced`, `held`, `rolled_back` (alert)",
                &["result"],
            )?,
            answers: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            shed: Default::default(),
        };
        // From the beginning: what appears with 1 has not grown, and nobody would hear of it.
        for step in [Step::Advanced, Step::Held, Step::RolledBack] {
            guarded.steps.with_label_values(&[step.as_str()]).inc_by(0);
        }
        Ok(guarded)
    }

    pub(super) fn answered(&self, event: &Answered<'_>) {
        let add = |count: &AtomicU64, by: bool| {
            count.fetch_add(u64::from(by), Ordering::Relaxed);
        };
        match event.answerer {
            Answerer::Upstream => {
                add(&self.answers, true);
                add(&self.errors, event.status >= 500);
                if event.verb == Verb::Get {
                    self.reads.observe(event.latency.as_secs_f64());
                }
            }
            // What an operator refuses by hand is not the policy's doing.
            Answerer::Refused(Reason::Isolated | Reason::Lockdown) => {}
            Answerer::Refused(_) => add(&self.shed[event.lane.index()], true),
            Answerer::Failed(Reason::UpstreamUnavailable | Reason::Deadline) => {
                add(&self.answers, true);
                add(&self.errors, true);
            }
            Answerer::Failed(_) => {}
        }
    }

    /// An interval was judged.
    pub fn stepped(&self, step: Step) {
        self.steps.with_label_values(&[step.as_str()]).inc();
    }

    pub(super) fn counts(&self, overhead: &Histogram) -> GuardCounts {
        GuardCounts {
            answers: self.answers.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            shed: std::array::from_fn(|lane| self.shed[lane].load(Ordering::Relaxed)),
            reads: Buckets::of(&self.reads),
            overheads: Buckets::of(overhead),
        }
    }
}

impl GuardCounts {
    /// What happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Readings {
        Readings {
            answers: self.answers.saturating_sub(before.answers),
            errors: self.errors.saturating_sub(before.errors),
            reads: self.reads.p99_since(&before.reads),
            overheads: self.overheads.p99_since(&before.overheads),
            shed: std::array::from_fn(|lane| self.shed[lane].saturating_sub(before.shed[lane])),
        }
    }
}

impl Buckets {
    fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        Self {
            bounds: histogram
                .get_bucket()
                .iter()
                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                .collect(),
            all: histogram.get_sample_count(),
        }
    }

    /// How many came since `before`, and how long 99 of 100 took at most: between the bounds of a bucket as if they were
    /// spread evenly, and a minute beyond the last one.
    fn p99_since(&self, before: &Self) -> (u64, Duration) {
        let all = self.all.saturating_sub(before.all);
        if all == 0 {
            return (0, Duration::ZERO);
        }
        let rank = all as f64 * 0.99;
        let (mut lower, mut below) = (0.0, 0.0);
        for (at, (upper, count)) in self.bounds.iter().enumerate() {
            let old = before.bounds.get(at).map_or(0, |(_, count)| *count);
            let count = count.saturating_sub(old) as f64;
            if count >= rank && upper.is_finite() {
                let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
                let seconds: f64 = lower + (upper - lower) * part;
                return (all, Duration::from_secs_f64(seconds.max(0.0)));
            }
            (lower, below) = (*upper, count);
        }
        (all, Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn an_interval_is_what_came_since_the_last_one() {
        let metrics = Metrics::new().unwrap();
        (0..1_000).for_each(|_| metrics.overhead(Duration::from_millis(20)));
        let before = metrics.guard_counts();
        (0..990).for_each(|_| metrics.overhead(Duration::from_micros(60)));
        (0..10).for_each(|_| metrics.overhead(Duration::from_secs(1)));
        let (count, p99) = metrics.guard_counts().since(&before).overheads;
        assert_eq!((count, p99), (1_000, Duration::from_micros(100)), "the slow ones of before do not count");
        metrics.overhead(Duration::from_secs(1));
        let (_, p99) = metrics.guard_counts().since(&before).overheads;
        assert_eq!(p99, Duration::from_secs(60), "beyond the last bound nobody knows how long");
        let now = metrics.guard_counts();
        assert_eq!(now.since(&now), Readings::default());
    }
}
