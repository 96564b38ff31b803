//! How hard is the apiserver pressed?
//!
//! Raw latency is the wrong signal: it moves with the mix of calls. So every kind of call is compared with itself:
//! slowdown = median time to first byte now / the same in calm. Pressure is the **weighted median** of the slowdowns,
//! so that one slow group (a webhook, one CRD) cannot move it. Time to first byte starts after our own queue
//! and ends at the headers: queues of ours, slow readers and long polls stay outside.
//!
//! Ratios alone are wrong too: two telemetry agents slow a lease from 3 ms to 80 ms and hurt nobody. So a
//! slowdown never exceeds what the **objective** of the call allows: with nine of ten calls inside their objective it
//! stays in the calm band, at the objective it begins to hold the limit, beyond it grows in proportion.
//! A ratio of one keeps slow-by-nature calls out of it.
//!
//! Calls that still wait for their first byte count with their age: a server that answers nobody gives no samples.
//! The `/livez` probe is a key of its own, so that the signal lives when nobody asks. Baselines are learnt only when
//! told that all is calm. Left out here, for later: keys by APF level, cached and consistent probes.

use std::time::Duration;

use super::estimate::{Estimates, Recent, approach};
use super::key::Shape;
use super::settings::Objectives;

/// Below this pressure the limit may grow: one request of queue per three served is not a queue yet.
pub const CALM: f64 = 1.35;
/// Above this pressure the limit is cut. Between the two it is held, or it would swing between them.
pub const BROWN: f64 = 1.6;
/// Below this pressure baselines are learnt; stricter than [`CALM`], which only permits growth.
pub(super) const LEARN: f64 = 1.3;
/// Pressure when calls are lost: the steep part of the limit law.
const LOSS: f64 = 3.0;
/// Weight of a new tick; the rest is memory. More than half, so that a storm is seen within two ticks.
const FRESH: f64 = 0.6;
/// Ticks for which a key's last reading counts: rarer calls would drop in and out of the median otherwise.
const READING_TICKS: u32 = 4;
/// Weight of a key is the root of its samples, at most this: one busy key is not a majority.
const WEIGHT_MAX: f64 = 10.0;
/// Weight of the `/livez` probe: as nine samples. Enough to decide alone when little else is heard.
const PROBE_WEIGHT: f64 = 3.0;
/// What a lost probe says: inside the band that holds the limit.
const LOST_PROBE: f64 = 1.5;
/// Slower than this is all the same.
const RATIO_MAX: f64 = 100.0;
/// Share of lost calls in a tick, and their number, that count as overload by themselves.
const LOST_SHARE: f64 = 0.01;
const LOST_MIN: u32 = 3;

/// What the probe of `/livez` (without its etcd check, so that it measures process and CPU) says since the last
/// tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// Nothing new.
    #[default]
    Silent,
    /// Sent this long ago, not answered yet.
    Waiting(Duration),
    /// Answered after this long.
    Answered(Duration),
    /// Given up or failed.
    Lost,
}

/// The inputs of a tick that the scheduler cannot see itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// GET `/livez` without its etcd check, 4 a second on a connection of its own: process, CPU, garbage collection.
    pub livez: Probe,
    /// GET of one small object from the watch cache (`resourceVersion=0`).
    pub cached: Probe,
    /// The same GET without a resourceVersion: it must ask etcd.
    pub consistent: Probe,
    /// What `/readyz` says; `None` where it has not been asked or did not answer.
    pub ready: Option<bool>,
}

/// Ends of calls since the last tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) ended: u32,
    pub(super) lost: u32,
}

/// What the limit law is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Signal {
    /// Times slower than calm, bounded by the objectives: harm. It decides about cuts.
    pub(super) pressure: f64,
    /// Times slower than calm, whatever the objectives: use. It decides whether heavy requests have room.
    pub(super) ratio: f64,
}

/// The smoothed signal.
#[derive(Debug)]
pub(super) struct Pressure {
    signal: Signal,
    probe_baseline: f32,
    /// The probe's last slowdown and the ticks since.
    probe: Option<(f64, u32)>,
    /// Scratch space for the median, kept to spare the tick its allocations.
    slowdowns: Vec<(f64, f64)>,
    ratios: Vec<(f64, f64)>,
}

impl Pressure {
    pub(super) fn new() -> Self {
        Self {
            signal: Signal { pressure: 1.0, ratio: 1.0 },
            probe_baseline: 0.0,
            probe: None,
            slowdowns: Vec::with_capacity(4096),
            ratios: Vec::with_capacity(4096),
        }
    }

    /// 1 is calm; times slower than calm, bounded by the objectives.
    pub(super) fn value(&self) -> f64 {
        self.signal.pressure
    }

    /// Reads the windows of a tick. `learn` says that this may be called calm.
    pub(super) fn tick(
        &mut self,
        estimates: &mut Estimates,
        objectives: &Objectives,
        probe: Probe,
        losses: Losses,
        (tick, learn): (u32, bool),
    ) -> Signal {
        self.read_windows(estimates, objectives, tick, learn);
        self.read_probe(probe, objectives, learn);
        if let Some((slowdown, age)) = self.probe
            && age < READING_TICKS
        {
            self.slowdowns.push((slowdown, PROBE_WEIGHT));
        }
        // Nothing heard and nothing in flight: nobody asks, and that is calm.
        let mut now = weighted_median(&mut self.slowdowns).unwrap_or(1.0);
        let lost = f64::from(losses.lost) > LOST_SHARE * f64::from(losses.ended);
        if losses.lost >= LOST_MIN && lost {
            now = now.max(LOSS);
        }
        let ratio = weighted_median(&mut self.ratios).unwrap_or(1.0);
        self.signal.pressure += (now - self.signal.pressure) * FRESH;
        self.signal.ratio += (ratio - self.signal.ratio) * FRESH;
        self.signal
    }

    fn read_windows(&mut self, estimates: &mut Estimates, objectives: &Objectives, tick: u32, learn: bool) {
        self.slowdowns.clear();
        self.ratios.clear();
        for position in 0..estimates.active().len() {
            let place = estimates.active()[position];
            let baseline = estimates.baseline(place);
            let recent = estimates.recent(place);
            if let Some(reading) = recent.window.take(tick) {
                let objective = objectives.of(recent.shape);
                recent.ratio = ratio(baseline, reading.median as f32);
                recent.slowdown = slowdown(recent.ratio, reading.high as f32, objective);
                recent.weight = f64::from(reading.samples).sqrt().min(WEIGHT_MAX);
                recent.read = Some(tick);
                if learn && recent.slowdown < LEARN {
                    estimates.teach(place, reading.median as f32);
                }
            }
            let recent = estimates.recent(place);
            if is_fresh(recent, tick) {
                self.slowdowns.push((recent.slowdown, recent.weight));
                self.ratios.push((recent.ratio, recent.weight));
            }
        }
        estimates.retain(|recent| is_fresh(recent, tick) || !recent.window.is_empty());
    }

    fn read_probe(&mut self, probe: Probe, objectives: &Objectives, learn: bool) {
        if let Some((_, age)) = &mut self.probe {
            *age += 1;
        }
        let (time, complete) = match probe {
            Probe::Silent => return,
            Probe::Waiting(time) => (time, false),
            Probe::Answered(time) => (time, true),
            // One lost probe may be the network's: it holds the limit. Two in a row are the brake's business.
            Probe::Lost => return self.probe = Some((LOST_PROBE, 0)),
        };
        let micros = time.as_micros() as f32;
        let baseline = (self.probe_baseline > 0.0).then_some(self.probe_baseline);
        let slowdown = slowdown(ratio(baseline, micros), micros, objectives.of(Shape::Object));
        // An answer that is still awaited can only make it worse than it was.
        if !complete && slowdown < CALM {
            return;
        }
        self.probe = Some((slowdown, 0));
        if learn && complete && slowdown < LEARN {
            self.probe_baseline = approach(self.probe_baseline, micros);
        }
    }
}

impl Objectives {
    /// The objective of a shape in microseconds.
    pub(super) fn of(&self, shape: Shape) -> f32 {
        let objective = match shape {
            Shape::Object | Shape::Write => self.object,
            Shape::NamespaceList => self.namespace_list,
            Shape::ClusterList | Shape::Untimed => self.cluster_list,
        };
        (objective.as_micros() as f32).max(1.0)
    }
}

/// Times slower than calm; without a baseline as slow as can be, so that the objective alone decides.
fn ratio(baseline: Option<f32>, median: f32) -> f64 {
    baseline.map_or(RATIO_MAX, |baseline| f64::from(median / baseline).min(RATIO_MAX))
}

/// A ratio, at most what the objective makes of it, which is never less than one: far inside its objective a call is
/// calm, not a hundred times better than calm, and the average starts to rise from there.
fn slowdown(ratio: f64, high: f32, objective: f32) -> f64 {
    ratio.min((CALM * f64::from(high / objective)).max(1.0))
}

fn is_fresh(recent: &Recent, tick: u32) -> bool {
    recent.read.is_some_and(|read| tick.wrapping_sub(read) < READING_TICKS)
}

/// The value at which half of the weight lies below.
fn weighted_median(values: &mut [(f64, f64)]) -> Option<f64> {
    values.sort_unstable_by(|one, two| one.0.total_cmp(&two.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for &(value, weight) in values.iter() {
        below += weight;
        if below >= half {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_group_does_not_move_the_median() {
        let mut values = [(1.0, 3.0), (1.1, 3.0), (40.0, 5.0)];
        assert_eq!(weighted_median(&mut values), Some(1.1));
        assert_eq!(weighted_median(&mut []), None);
    }

    #[test]
    fn objectives_bound_ratios_and_ratios_bound_objectives() {
        let objective = 250_000.0;
        // 27 times slower, and nobody hurt.
        assert!(slowdown(ratio(Some(3_000.0), 80_000.0), 90_000.0, objective) < CALM);
        // As quick as in calm is calm, however far inside the objective.
        assert!((slowdown(ratio(Some(3_000.0), 3_000.0), 4_000.0, objective) - 1.0).abs() < 1e-6);
        // At the objective the limit is held, at twice it is cut.
        assert!((slowdown(ratio(Some(3_000.0), 200_000.0), 250_000.0, objective) - CALM).abs() < 1e-6);
        assert!(slowdown(ratio(Some(3_000.0), 400_000.0), 500_000.0, objective) > BROWN);
        // Slow by nature.
        assert!(slowdown(ratio(Some(400_000.0), 420_000.0), 600_000.0, objective) < CALM);
        // Unknown: the objective alone decides.
        assert!(slowdown(ratio(None, 400_000.0), 500_000.0, objective) > BROWN);
    }

    #[test]
    fn a_probe_alone_carries_the_signal() {
        let (mut pressure, mut estimates) = (Pressure::new(), Estimates::new());
        let objectives = Objectives::default();
        for tick in 0..8 {
            let probe = Probe::Answered(Duration::from_millis(2));
            pressure.tick(&mut estimates, &objectives, probe, Losses::default(), (tick, true));
        }
        assert!(pressure.value() < 1.01);
        for tick in 8..11 {
            let probe = Probe::Waiting(Duration::from_millis(400 + 250 * u64::from(tick - 8)));
            pressure.tick(&mut estimates, &objectives, probe, Losses::default(), (tick, false));
        }
        assert!(pressure.value() > BROWN, "{}", pressure.value());
    }

    #[test]
    fn lost_calls_are_pressure_even_when_the_others_are_quick() {
        let (mut pressure, mut estimates) = (Pressure::new(), Estimates::new());
        let losses = Losses { ended: 100, lost: 5 };
        for tick in 0..4 {
            pressure.tick(&mut estimates, &Objectives::default(), Probe::Silent, losses, (tick, false));
        }
        assert!(pressure.value() > BROWN);
    }
}
