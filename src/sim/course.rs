//! How did a run go, step by step? For plots.

use std::time::Duration;

use super::measure::{FAILED, Measure, PHASES};
use crate::policy::Lane;
use crate::units::Instant;

/// A run has at most this many steps.
const STEPS_MAX: u64 = 600;

/// One step of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// The middle of the step, in seconds from the run's beginning.
    pub at: f64,
    /// The limit in force, in seats or requests; none: the algorithm has none.
    pub limit: Option<f64>,
    /// p99 of node-health calls that began in the step, in ms; those that failed count as 10 s, when a kubelet gives up.
    pub lease_p99_ms: Option<f64>,
    /// Telemetry calls that ended well, a second.
    pub telemetry_per_s: f64,
}

/// A kubelet waits so long for its lease.
const GIVEN_UP_MS: f64 = 10_000.0;

/// The steps of a run that is over.
pub(super) fn course(measure: &Measure) -> Vec<Moment> {
    let whole = measure.ends[PHASES - 1].since(Instant::ORIGIN);
    let seconds = whole.as_secs().max(1);
    let step = Duration::from_secs(seconds.div_ceil(STEPS_MAX));
    let steps = usize::try_from(seconds / step.as_secs()).unwrap_or(0);
    let index = |when: Instant| (when.since(Instant::ORIGIN).as_nanos() / step.as_nanos()) as usize;
    let mut leases: Vec<Vec<f64>> = vec![Vec::new(); steps];
    let mut moments: Vec<Moment> = (0..steps)
        .map(|number| Moment { at: step.as_secs_f64() * (number as f64 + 0.5), ..Moment::default() })
        .collect();
    for sample in &measure.samples[Lane::NodeHealth.index()] {
        if let Some(of_step) = leases.get_mut(index(sample.began)) {
            of_step.push(if sample.micros == FAILED { GIVEN_UP_MS } else { f64::from(sample.micros) / 1e3 });
        }
    }
    for sample in measure.samples[Lane::Telemetry.index()].iter().filter(|sample| sample.micros != FAILED) {
        let ended = sample.began + Duration::from_micros(u64::from(sample.micros));
        if let Some(moment) = moments.get_mut(index(ended)) {
            moment.telemetry_per_s += 1.0 / step.as_secs_f64();
        }
    }
    for (when, limit) in &measure.limits {
        if let Some(moment) = moments.get_mut(index(*when)) {
            moment.limit = Some(*limit);
        }
    }
    for (moment, mut times) in moments.iter_mut().zip(leases) {
        times.sort_by(f64::total_cmp);
        let rank = (times.len() as f64 * 0.99).ceil() as usize;
        moment.lease_p99_ms = rank.checked_sub(1).and_then(|rank| times.get(rank).copied());
    }
    moments
}
