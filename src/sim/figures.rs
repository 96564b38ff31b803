//! Which numbers come out of what was written down?
//!
//! Times are of whole calls, from the client's first try to the answer, retries and waits included. *Well* means, for
//! node health, within twice its calm p99 or a quarter of a second, and for other lanes within their deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::Mark;
use super::measure::{FAILED, Measure, Sample, Share, deadline};
use super::world::World;
use crate::policy::Lane;
use crate::units::Instant;

/// Node health is well within this time, whatever its calm: the default objective of single-object calls.
const OBJECTIVE: Duration = Duration::from_millis(250);
/// What must be well for this long to count as well for good.
const STEADY: Duration = Duration::from_secs(5);
/// Share of calls that may be late while all is well: of node health, and of the lanes of a recovery.
const LATE_PROTECTED: f64 = 0.01;
const LATE_RECOVERED: f64 = 0.02;
/// Steps in which the beginning of well-being is looked for.
const STEP: Duration = Duration::from_millis(250);
/// L is judged from this long after the storm's start.
const LIMIT_SETTLES: Duration = Duration::from_secs(10);
/// A Jain index means something only if clients were served so often on average.
const JAIN_CALLS: f64 = 5.0;
/// Informers must have their first objects within this time.
const FIRST_OBJECTS: Duration = Duration::from_secs(10);
/// Fewer values have no p99.
const VALUES_MIN: usize = 5;

type Metrics = BTreeMap<String, f64>;

/// The numbers of a run that is over.
pub(super) fn figures(world: &World<'_>) -> Metrics {
    let measure = &world.measure;
    let mut metrics = Metrics::new();
    leases(measure, &mut metrics);
    sequences(measure, &mut metrics);
    informers(measure, &mut metrics);
    lanes(measure, &mut metrics);
    jain(world, &mut metrics);
    times(measure, &mut metrics);
    server(world, &mut metrics);
    limit(measure, &mut metrics);
    metrics
}

fn put(metrics: &mut Metrics, name: &str, value: f64) {
    if value.is_finite() {
        metrics.insert(name.to_owned(), value);
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Values in order, for percentiles.
fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which `part` of the sorted values lie.
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    if sorted.len() < VALUES_MIN {
        return None;
    }
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len()) - 1).copied()
}

fn put_percentiles(metrics: &mut Metrics, prefix: &str, values: Vec<f64>, parts: &[(&str, f64)]) {
    let values = sorted(values);
    for (name, part) in parts {
        if let Some(value) = percentile(&values, *part) {
            put(metrics, &format!("{prefix}{name}_ms"), value);
        }
    }
}

fn in_storm(measure: &Measure, when: Instant) -> bool {
    measure.ends[0] <= when && when < measure.ends[1]
}

fn leases(measure: &Measure, metrics: &mut Metrics) {
    let (mut due, mut times, mut calm) = (0u32, Vec::new(), Vec::new());
    let (mut not_ready, mut losses, mut has_leases) = (0u32, 0u32, false);
    for (when, mark) in &measure.marks {
        match mark {
            Mark::Renewal { due: at, took } => {
                has_leases = true;
                if in_storm(measure, *at) {
                    due += 1;
                    times.extend(took.map(millis));
                } else if *at < measure.ends[0] {
                    calm.extend(took.map(millis));
                }
            }
            Mark::NotReady => not_ready += 1,
            Mark::LeaderLost if *when >= measure.ends[0] => losses += 1,
            _ => {}
        }
    }
    if has_leases {
        put(metrics, "renewals_ok", times.len() as f64 / f64::from(due));
        put(metrics, "not_ready", f64::from(not_ready));
        put_percentiles(metrics, "lease_", times, &[("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]);
        put_percentiles(metrics, "lease_calm_", calm, &[("p99", 0.99)]);
    }
    put(metrics, "leader_losses", f64::from(losses));
}

fn sequences(measure: &Measure, metrics: &mut Metrics) {
    let (mut begun, mut times) = (0u32, Vec::new());
    for (_, mark) in &measure.marks {
        if let Mark::Sequence { began, took } = mark
            && in_storm(measure, *began)
        {
            begun += 1;
            times.extend(took.map(millis));
        }
    }
    put(metrics, "operator_ok", times.len() as f64 / f64::from(begun));
    put_percentiles(metrics, "operator_", times, &[("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]);
}

fn informers(measure: &Measure, metrics: &mut Metrics) {
    let mut times = Vec::new();
    let (mut begun, mut good) = (0u32, 0u32);
    for (_, mark) in &measure.marks {
        if let Mark::FirstObjects { began, took } = mark
            && in_storm(measure, *began)
        {
            begun += 1;
            good += u32::from(took.is_some_and(|took| took <= FIRST_OBJECTS));
            times.extend(took.map(|took| took.as_secs_f64()));
        }
    }
    put(metrics, "started_ok", f64::from(good) / f64::from(begun));
    if let Some(p99) = percentile(&sorted(times), 0.99) {
        put(metrics, "started_p99_s", p99);
    }
}

fn lanes(measure: &Measure, metrics: &mut Metrics) {
    let seconds = measure.ends[1].since(measure.ends[0]).as_secs_f64();
    let (mut all_made, mut all_shed) = (0u64, 0u64);
    for lane in Lane::ALL {
        let storm: Vec<&Sample> =
            measure.samples[lane.index()].iter().filter(|sample| in_storm(measure, sample.began)).collect();
        let tries = measure.tries[lane.index()];
        all_made += tries.iter().map(|tries| tries.made).sum::<u64>();
        all_shed += tries.iter().map(|tries| tries.shed).sum::<u64>();
        let served = measure.served[lane.index()];
        let made = tries[1].made as f64;
        if made == 0.0 && storm.is_empty() {
            continue;
        }
        let name = |metric: &str| format!("{lane}.{metric}");
        let limit = deadline(lane).as_micros() as f64;
        let good = storm.iter().filter(|sample| f64::from(sample.micros) <= limit).count();
        put(metrics, &name("served_per_s"), f64::from(served.calls) / seconds);
        put(metrics, &name("work_per_s"), served.work / 1e6 / seconds);
        put(metrics, &name("goodput"), good as f64 / storm.len() as f64);
        put(metrics, &name("attempts_per_s"), made / seconds);
        put(metrics, &name("attempts_per_success"), made / f64::from(served.calls));
        put(metrics, &name("shed"), tries[1].shed as f64 / made);
        let worked = storm.iter().filter(|sample| sample.micros != FAILED);
        let times = worked.map(|sample| f64::from(sample.micros) / 1e3).collect();
        put_percentiles(metrics, &name(""), times, &[("p50", 0.5), ("p99", 0.99)]);
    }
    put(metrics, "shed", all_shed as f64 / all_made as f64);
}

/// Fairness among clients that want the same: the largest group of each lane.
fn jain(world: &World<'_>, metrics: &mut Metrics) {
    let mut groups: BTreeMap<(Lane, usize), Vec<Share>> = BTreeMap::new();
    for ((role, _, place), share) in world.roles_of_clients().zip(&world.measure.shares) {
        groups.entry((place.lane, role)).or_default().push(*share);
    }
    for lane in Lane::ALL {
        let largest = groups.iter().filter(|((of, _), _)| *of == lane).max_by_key(|(_, shares)| shares.len());
        let Some((_, shares)) = largest.filter(|(_, shares)| shares.len() > 1) else { continue };
        let calls: f64 = shares.iter().map(|share| f64::from(share.calls)).sum();
        if calls / (shares.len() as f64) < JAIN_CALLS {
            continue;
        }
        let sum: f64 = shares.iter().map(|share| share.work).sum();
        let squares: f64 = shares.iter().map(|share| share.work * share.work).sum();
        put(metrics, &format!("{lane}.jain"), sum * sum / (shares.len() as f64 * squares));
    }
}

fn times(measure: &Measure, metrics: &mut Metrics) {
    let [storm, after, end] = measure.ends;
    if let Some(first) = measure.first_shed {
        put(metrics, "detect_s", first.since(storm).as_secs_f64());
    }
    let calm_p99 = metrics.get("lease_calm_p99_ms").copied().unwrap_or(0.0);
    let well = Duration::from_secs_f64(2.0 * calm_p99 / 1e3).max(OBJECTIVE);
    let health = measure.samples[Lane::NodeHealth.index()].iter().map(|sample| (sample, well));
    let health: Vec<(&Sample, Duration)> = health.collect();
    if !health.is_empty() && after > storm {
        let protect = steady(health.iter().copied(), (storm, after), LATE_PROTECTED);
        put(metrics, "protect_s", protect.unwrap_or_else(|| after.since(storm)).as_secs_f64());
    }
    let lanes = [Lane::ControlPlane, Lane::Platform, Lane::Operators, Lane::Workload];
    let others = lanes
        .into_iter()
        .flat_map(|lane| measure.samples[lane.index()].iter().map(move |sample| (sample, deadline(lane))));
    if end > after {
        let recover = steady(health.into_iter().chain(others), (after, end), LATE_RECOVERED);
        put(metrics, "recovered", f64::from(u8::from(recover.is_some())));
        put(metrics, "recover_s", recover.unwrap_or_else(|| end.since(after)).as_secs_f64());
    }
}

/// How long after `from` it takes until no more than `late` of the calls that begin within [`STEADY`] are late.
fn steady<'a>(
    samples: impl Iterator<Item = (&'a Sample, Duration)>,
    (from, to): (Instant, Instant),
    late: f64,
) -> Option<Duration> {
    let steps = (to.since(from).as_millis() / STEP.as_millis()) as usize;
    let mut counts = vec![(0u32, 0u32); steps];
    for (sample, well) in samples.filter(|(sample, _)| from <= sample.began && sample.began < to) {
        let step = (sample.began.since(from).as_millis() / STEP.as_millis()) as usize;
        if let Some((all, bad)) = counts.get_mut(step) {
            *all += 1;
            *bad += u32::from(f64::from(sample.micros) > well.as_micros() as f64);
        }
    }
    let window = (STEADY.as_millis() / STEP.as_millis()) as usize;
    let is_well = |from: usize| {
        let counts = &counts[from..(from + window).min(steps)];
        let (all, bad) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        // Silence is not well-being.
        all > 0 && f64::from(bad) <= late * f64::from(all)
    };
    // The first step must be well itself, or a moment before the end of a bad time would count.
    (0..steps.saturating_sub(window - 1))
        .find(|&step| counts[step].1 == 0 && is_well(step))
        .map(|step| STEP * u32::try_from(step).unwrap_or(0))
}

fn server(world: &World<'_>, metrics: &mut Metrics) {
    let [calm, storm, whole] = world.usages;
    let cpu = storm.cpu - calm.cpu;
    put(metrics, "utilisation", cpu / (storm.capacity - calm.capacity));
    put(metrics, "wasted", (storm.wasted - calm.wasted) / cpu.max(1.0));
    put(metrics, "memory_peak_mib", whole.memory_peak / 1_048_576.0);
    put(metrics, "deaths", f64::from(whole.deaths));
    put(metrics, "etcd_lists", f64::from(whole.etcd_lists));
}

fn limit(measure: &Measure, metrics: &mut Metrics) {
    let from = measure.ends[0] + LIMIT_SETTLES;
    let values: Vec<f64> = measure
        .limits
        .iter()
        .filter(|(when, _)| from <= *when && *when < measure.ends[1])
        .map(|(_, limit)| *limit)
        .collect();
    if values.len() < VALUES_MIN {
        return;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    put(metrics, "limit_cv", variance.sqrt() / mean);
}
