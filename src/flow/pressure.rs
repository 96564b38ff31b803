//! How hard is the apiserver pressed, and can it be helped?
//!
//! Raw latency is the wrong signal: it moves with the mix of calls. So every kind of call is compared with itself:
//! slowdown = median time to first byte now / the same in calm. Pressure is the **weighted median** of the slowdowns,
//! so that one slow group (a webhook, one CRD) cannot move it, or **harm** (`harm`) where that is worse: a lease must
//! not be outvoted. Time to first byte starts after our own queue and ends at the headers: queues of ours, slow
//! readers and long polls stay outside.
//!
//! Ratios alone are wrong too: two telemetry agents slow a lease from 3 ms to 80 ms and hurt nobody. So a
//! slowdown never exceeds what the **objective** of the call allows: with nine of ten calls inside their objective it
//! stays in the calm band, at the objective it begins to hold the limit, beyond it grows in proportion.
//! A ratio of one keeps slow-by-nature calls out of it.
//!
//! Not all slowness is ours to cure. While the probe of the process is well, what remains slow is etcd (then the
//! consistent probe says so), a webhook (then all probes are well and only writes are slow) or one priority level
//! of the apiserver's (then leaving it out makes everything calm); that part is left out of the pressure on the limit.
//! What this cannot tell apart is left to the controllability test (`control`).
//!
//! Calls that still wait for their first byte count with their age: a server that answers nobody gives no samples.
//! Calm is learnt only when told that all is calm, or, for what has no calm yet, while the probes are well.

use super::control::Tolerance;
use super::decision::{End, Level, Outcome};
use super::diagnosis::Cause;
use super::estimate::{Estimates, Recent, Sample};
use super::harm::{Harm, Judged};
use super::key::{Reach, Shape};
use super::levels::{LevelNumber, Levels};
use super::median::{Rounded, Weights};
use super::probes::{History, Probes};
use super::settings::Objectives;
use crate::policy::Lane;

/// Below this pressure the limit may grow: one request of queue per three served is not a queue yet.
pub const CALM: f64 = 1.35;
/// Above this pressure the limit is cut. Between the two it is held, or it would swing between them.
pub const BROWN: f64 = 1.6;
/// Below this pressure baselines are learnt; stricter than [`CALM`], which only permits growth.
pub(super) const LEARN: f64 = 1.3;
/// Pressure when calls are lost: the steep part of the limit law.
const LOSS: f64 = 3.0;
/// What a refusal by one of the apiserver's levels says, and a lost probe: inside the band that holds the limit.
const MILD: f64 = 1.5;
/// Weight of a new tick; the rest is memory. More than half, so that a storm is seen within two ticks.
const FRESH: f64 = 0.6;
/// Ticks for which a key's last reading counts: rarer calls would drop in and out of the median otherwise.
const READING_TICKS: u32 = 4;
/// Weight of a key is the root of its samples, at most this: one busy key is not a majority.
const WEIGHT_MAX: f32 = 10.0;
/// Weight of the `/livez` probe: as nine samples. Enough to decide alone when little else is heard.
const PROBE_WEIGHT: f32 = 3.0;
/// Slower than this is all the same.
const RATIO_MAX: f32 = 100.0;
/// A probe below twice its calm time is well.
pub(super) const PROBE_SLOW: f64 = 2.0;
/// Below this it is also well while it takes less than a share of what the harmed calls take: a process short of CPU
/// makes its own health check wait about as long as everything else.
pub(super) const PROBE_DOUBTFUL: f64 = 4.0;
const PROBE_SHARE: f64 = 0.04;
/// Slower than calm is use, not yet a queue, while a call takes little of its objective: a ratio of two counts from here
/// on, 10 ms of 250. On one busy core 1 ms becomes 3 with nobody waiting, and a limit that was trimmed for that
/// refused 2,047 harmless LISTs of own pods at 25 % CPU (rig, scene list-own).
const ROOM_SCALE: f32 = 50.0;
/// A probe that takes less than this share of the objective of objects (5 ms of 250) is not slow. Its calm is one, and one
/// reading of five beside a webhook that hung made the process look slow: L fell from 188 to 10 (rig, `webhook`).
const PROBE_LEAST: f32 = 0.02;
/// A probe that answers within this share of the objective of objects is well enough to have a first calm learnt.
const PROBE_QUICK: f32 = 0.1;
/// A reading this close to the baseline teaches nothing: thousands of them a tick would only cost time.
const SAME: f32 = 1.01;
/// Learning upwards is this much slower for a key that takes twice its calm time: it may be use, not calm.
const DOUBTFUL: f32 = 0.06;
/// Share of lost calls, and their number, that count as overload by themselves.
const LOST_SHARE: f32 = 0.01;
const LOST_MIN: f32 = 2.5;
/// Share of timeouts, and their number, that pull the brake.
const BRAKE_SHARE: f32 = 0.2;
const BRAKE_MIN: f32 = 5.0;
/// Memory of lost calls a tick: at low rates one tick holds too few ends to speak of shares.
const LOSS_MEMORY: f32 = 0.6;
/// Above this share of all work, LISTs that reach etcd are what presses it.
const ETCD_WORK: f64 = 0.3;
/// Least weight that must remain when a level is left out: silence is not calm.
const REST_WEIGHT: f32 = 3.0;

/// Ends of calls since the last tick, by what they reached (indexed by [`Reach`]).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) ended: f32,
    pub(super) lost: [f32; 3],
    pub(super) timed_out: [f32; 3],
    /// Refusals by a priority level that was named.
    pub(super) congested: f32,
}

impl Losses {
    /// A call ended.
    pub(super) fn add(&mut self, outcome: &Outcome, reach: Reach) {
        self.ended += 1.0;
        match outcome.end {
            End::Dropped => self.lost[reach as usize] += 1.0,
            End::TimedOut => {
                self.lost[reach as usize] += 1.0;
                self.timed_out[reach as usize] += 1.0;
            }
            // A level that is named speaks for itself; without one it is the process that has no room.
            End::Congested if outcome.level != Level::default() => self.congested += 1.0,
            End::Congested => self.lost[Reach::Cached as usize] += 1.0,
            // Warming, lagging and closing are states of their own and no congestion.
            _ => {}
        }
    }
}

/// What the limit law is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Signal {
    /// Times slower than calm, bounded by the objectives: harm. It decides about cuts.
    pub(super) pressure: f64,
    /// Times slower than calm, whatever the objectives: use. It decides whether heavy requests have room.
    pub(super) ratio: f64,
    /// The same as far as the process's own probe is slow too: more at once would only be queue. 1 where that is not
    /// known.
    pub(super) queue: f64,
    /// Times slower than calm that the probe was at its latest word: enough to stop growth, too little to cut.
    pub(super) probe: f64,
    /// So many calls got no answer at all that the brake is due.
    pub(super) brake: bool,
}

/// What pressure is without some part of the calls.
#[derive(Clone, Copy, Debug)]
struct View {
    pressure: f64,
    weight: f32,
}

/// One key's last reading, packed for a pass over thousands.
#[derive(Clone, Copy, Debug)]
struct Reading {
    weight: f32,
    slowdown: Rounded,
    ratio: Rounded,
    shape: Shape,
    reach: Reach,
    level: LevelNumber,
}

impl Reading {
    fn is_object(&self) -> bool {
        matches!(self.shape, Shape::Object | Shape::Write)
    }
}

/// What a tick brings in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    pub(super) objectives: &'a Objectives,
    pub(super) probes: &'a Probes,
    pub(super) losses: Losses,
    /// Share of all work that LISTs which reach etcd made lately: shedding them would help a slow etcd.
    pub(super) etcd_work: f64,
    pub(super) tolerance: Tolerance,
    /// All may be called calm.
    pub(super) learn: bool,
    pub(super) tick: u32,
}

/// The smoothed signal and what is behind it.
#[derive(Debug)]
pub(super) struct Pressure {
    signal: Signal,
    /// Pressure before anything was left out, smoothed alike.
    whole: f64,
    pub(super) livez: History,
    pub(super) cached: History,
    pub(super) consistent: History,
    harm: Harm,
    levels: Levels,
    losses: Losses,
    pub(super) cause: Cause,
    /// The process is well by its own probe, beside what is slow; without a probe, the median call is.
    pub(super) is_well: bool,
    /// Times slower than in calm: the median call about one object, and write; and refusals by levels, as of the last tick.
    pub(super) keys: f64,
    pub(super) writes: f64,
    pub(super) congested: u32,
    /// Scratch space, kept to spare the tick its allocations.
    readings: Vec<Reading>,
}

impl Pressure {
    pub(super) fn new() -> Self {
        Self {
            signal: Signal { pressure: 1.0, ratio: 1.0, queue: 1.0, probe: 1.0, brake: false },
            whole: 1.0,
            livez: History::default(),
            cached: History::default(),
            consistent: History::default(),
            harm: Harm::new(),
            levels: Levels::default(),
            losses: Losses::default(),
            cause: Cause::None,
            is_well: true,
            keys: 1.0,
            writes: 1.0,
            congested: 0,
            readings: Vec::with_capacity(4096),
        }
    }

    /// 1 is calm; times slower than calm, bounded by the objectives, without what shedding cannot help.
    pub(super) fn value(&self) -> f64 {
        self.signal.pressure
    }

    /// Whether calls that reach this far are slow without any fault of the process, so that they only wait.
    pub(super) fn is_waiting(&self, reach: Reach) -> bool {
        self.cause == Cause::ApfLevel || excused(self.cause)(reach)
    }

    /// All of the signal.
    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    /// As [`Pressure::value`], with everything.
    pub(super) fn whole(&self) -> f64 {
        self.whole
    }

    pub(super) fn level(&mut self, level: Level) -> LevelNumber {
        self.levels.number(level)
    }

    /// A call about a single object from a protected lane is judged by itself, once its key's calm is known; before
    /// that it counts only in the median, for slow may be its nature.
    pub(super) fn judge(
        &mut self,
        lane: Lane,
        sample: Sample,
        baseline: Option<f32>,
        (objectives, tick): (&Objectives, u32),
    ) {
        if !matches!(sample.shape, Shape::Object | Shape::Write) || baseline.is_none() {
            return;
        }
        let micros = sample.micros as f32;
        let slowdown = slowdown(ratio(baseline, micros), micros, objectives.of(sample.shape));
        let level = sample.level.unwrap_or_default();
        self.harm.add(lane, Judged { slowdown: Rounded::of(slowdown), reach: sample.reach, level, tick });
    }

    /// Reads the windows of a tick.
    pub(super) fn tick(&mut self, estimates: &mut Estimates, inputs: &Inputs<'_>) -> Signal {
        self.hear(inputs);
        let quick = self.is_well(&self.livez, inputs.objectives, CALM) == Some(true)
            && self.is_well(&self.consistent, inputs.objectives, CALM) != Some(false);
        let (slowdowns, ratios) = self.read(estimates, inputs, quick);
        self.remember_losses(inputs.losses);
        let whole = self.judge_all(inputs, slowdowns, |_, _| true);
        let (cause, now) = self.find(inputs, whole);
        self.cause = cause;
        self.congested = inputs.losses.congested as u32;
        let excused = excused(cause);
        let mut ratio = ratios.median().unwrap_or(1.0);
        if cause != Cause::None {
            // The numbers behind the finding, and the queue without what it excuses.
            let one = |value: Option<f64>| value.unwrap_or(1.0);
            self.keys = one(self.median(|reading| reading.is_object().then_some(reading.ratio)));
            self.writes =
                one(self.median(|reading| (reading.reach == Reach::Write).then_some(reading.ratio)));
            ratio = one(self.median(|reading| (!excused(reading.reach)).then_some(reading.ratio)));
        }
        self.whole += (whole.pressure - self.whole) * FRESH;
        self.signal.pressure += (now - self.signal.pressure) * FRESH;
        self.signal.ratio += (ratio - self.signal.ratio) * FRESH;
        self.is_well =
            self.is_well(&self.livez, inputs.objectives, whole.pressure).unwrap_or(ratio < PROBE_SLOW);
        // Without a probe that is slow too, it is not the process that is slow.
        let witness = self.livez.slowdown().map_or(1.0, |slowdown| slowdown / inputs.tolerance.witness);
        self.signal.queue = self.signal.ratio.min(witness).max(1.0);
        let latest = self.livez.latest().map_or(1.0, |micros| {
            felt(f64::from(ratio_of(self.livez.baseline(), micros)), micros, inputs.objectives)
        });
        let probe = self
            .livez
            .slowdown()
            .map_or(latest, |slowdown| latest.max(felt(slowdown, self.livez.middle(), inputs.objectives)));
        self.signal.probe = (probe / inputs.tolerance.witness).max(1.0);
        let timed_out = counted(&self.losses.timed_out, excused);
        self.signal.brake = timed_out >= BRAKE_MIN && timed_out > BRAKE_SHARE * self.losses.ended;
        self.signal
    }

    /// The probes: what they say, and whether it may be learnt.
    fn hear(&mut self, inputs: &Inputs<'_>) {
        let quick = PROBE_QUICK * inputs.objectives.of(Shape::Object);
        let Probes { livez, cached, consistent, .. } = *inputs.probes;
        let calm = |slowdown: Option<f64>| slowdown.is_none_or(|slowdown| slowdown < PROBE_SLOW);
        let learn = inputs.learn && calm(self.livez.slowdown());
        for (history, probe) in
            [(&mut self.livez, livez), (&mut self.cached, cached), (&mut self.consistent, consistent)]
        {
            let Some(micros) = history.hear(probe) else { continue };
            let slowdown =
                slowdown(ratio_of(history.baseline(), micros), micros, inputs.objectives.of(Shape::Object));
            // Quicker than ever is no luck, and a first answer that is quick is calm enough to begin with.
            let better = micros < history.baseline() || history.is_new() && micros < quick;
            if better || learn && f64::from(slowdown) < LEARN {
                history.teach(micros);
            }
        }
    }

    /// The windows: readings for further medians, and those of all slowdowns and ratios.
    fn read(&mut self, estimates: &mut Estimates, inputs: &Inputs<'_>, quick: bool) -> (Weights, Weights) {
        let (mut slowdowns, mut ratios) = (Weights::default(), Weights::default());
        let (objectives, learn) = (inputs.objectives, inputs.learn);
        let saturated = self.signal.queue >= PROBE_SLOW;
        let readings = &mut self.readings;
        readings.clear();
        estimates.pass(
            (inputs.tick, READING_TICKS),
            |recent, baseline, reading| {
                let objective = objectives.of(recent.shape);
                let ratio = ratio(baseline, reading.median);
                let slowdown = slowdown(ratio, reading.high, objective);
                let ratio = ratio.min((ROOM_SCALE * reading.median / objective).max(1.0));
                (recent.ratio, recent.slowdown) = (Rounded::of(ratio), Rounded::of(slowdown));
                recent.weight = (reading.samples as f32).sqrt().min(WEIGHT_MAX);
                learnt(baseline, reading.median, (learn && f64::from(slowdown) < LEARN && !saturated, quick))
            },
            |recent| {
                let Recent { weight, slowdown, ratio, shape, reach, level, .. } = *recent;
                readings.push(Reading { weight, slowdown, ratio, shape, reach, level });
                slowdowns.add(slowdown, weight);
                ratios.add(ratio, weight);
            },
        );
        (slowdowns, ratios)
    }

    /// What presses, and the pressure that is left once what shedding cannot help is left out.
    fn find(&self, inputs: &Inputs<'_>, whole: View) -> (Cause, f64) {
        if whole.pressure < CALM {
            return (Cause::None, whole.pressure);
        }
        let well = |history| self.is_well(history, inputs.objectives, whole.pressure);
        if well(&self.livez) != Some(true) {
            return (Cause::Cpu, whole.pressure);
        }
        let consistent = well(&self.consistent);
        if let Some((level, rest)) = self.without_one_level(inputs) {
            let is_webhook = consistent == Some(true) && self.are_writes_alone(inputs, level);
            return (if is_webhook { Cause::Webhook } else { Cause::ApfLevel }, rest.pressure);
        }
        match consistent {
            Some(false) => {
                let rest = self.view(inputs, |reach, _| !reach.is_etcd());
                // Shedding LISTs that reach etcd does help it.
                let ours = inputs.etcd_work > ETCD_WORK;
                (Cause::Etcd, if ours { whole.pressure } else { rest.pressure })
            }
            Some(true) => {
                let rest = self.view(inputs, |reach, _| reach != Reach::Write);
                let cause = if rest.pressure < CALM { Cause::Webhook } else { Cause::Cpu };
                (cause, rest.pressure)
            }
            None => (Cause::Cpu, whole.pressure),
        }
    }

    /// The pressure without the priority level that makes it, where leaving out one makes all the rest calm.
    fn without_one_level(&self, inputs: &Inputs<'_>) -> Option<(LevelNumber, View)> {
        self.levels.known().find_map(|left_out| {
            let rest = self.view(inputs, |_, level| level != left_out);
            (rest.pressure < CALM && rest.weight >= REST_WEIGHT).then_some((left_out, rest))
        })
    }

    /// Whether only writes are slow in a slow level: its reads are well, or it has none. A queue makes all wait.
    fn are_writes_alone(&self, inputs: &Inputs<'_>, slow: LevelNumber) -> bool {
        self.view(inputs, |reach, level| level == slow && reach != Reach::Write).pressure < CALM
    }

    /// Pressure over the part of the calls that `counts`.
    fn view(&self, inputs: &Inputs<'_>, counts: impl Fn(Reach, LevelNumber) -> bool) -> View {
        let mut weights = Weights::default();
        for reading in &self.readings {
            if counts(reading.reach, reading.level) {
                weights.add(reading.slowdown, reading.weight);
            }
        }
        self.judge_all(inputs, weights, counts)
    }

    /// The same, where the slowdowns are known already.
    fn judge_all(
        &self,
        inputs: &Inputs<'_>,
        mut weights: Weights,
        counts: impl Fn(Reach, LevelNumber) -> bool,
    ) -> View {
        let weight = weights.total();
        let Tolerance { calls, livez, .. } = inputs.tolerance;
        if let Some(slowdown) = self.livez_slowdown(inputs.objectives) {
            weights.add(Rounded::of(slowdown * (calls / livez) as f32), PROBE_WEIGHT);
        }
        // Nothing heard and nothing in flight: nobody asks, and that is calm.
        let median = weights.median().unwrap_or(1.0);
        let harm = self.harm.value(inputs.tick, |judged| counts(judged.reach, judged.level));
        let lost: f32 = Reach::ALL
            .into_iter()
            .filter(|&reach| counts(reach, LevelNumber::default()))
            .map(|reach| self.losses.lost[reach as usize])
            .sum();
        let share = LOST_SHARE * self.losses.ended;
        let lost = if lost >= LOST_MIN && lost > share { LOSS } else { 1.0 };
        let congested = self.losses.congested;
        let refused = if congested >= LOST_MIN && congested > share { MILD } else { 1.0 };
        View { pressure: (median.max(harm).max(lost).max(refused) / calls).max(1.0), weight }
    }

    /// The middle of what `value` takes from the readings.
    fn median(&self, value: impl Fn(&Reading) -> Option<Rounded>) -> Option<f64> {
        let mut weights = Weights::default();
        for reading in &self.readings {
            if let Some(value) = value(reading) {
                weights.add(value, reading.weight);
            }
        }
        weights.median()
    }

    /// What the `/livez` probe says, as pressure.
    pub(super) fn livez_slowdown(&self, objectives: &Objectives) -> Option<f32> {
        let micros = self.livez.latest()?;
        if self.livez.is_lost() {
            // One lost probe may be the network's: it holds the limit. Two in a row are the brake's business.
            return Some(MILD as f32);
        }
        Some(slowdown(ratio_of(self.livez.baseline(), micros), micros, objectives.of(Shape::Object)))
    }

    /// Whether a probe is well beside calls that are pressed this much; `None` where it has not been heard enough.
    fn is_well(&self, probe: &History, objectives: &Objectives, pressure: f64) -> Option<bool> {
        let slowdown = felt(probe.slowdown()?, probe.middle(), objectives);
        let harmed = f64::from(objectives.of(Shape::Object)) * pressure / CALM;
        let is_small = slowdown < PROBE_DOUBTFUL && f64::from(probe.middle()) < PROBE_SHARE * harmed;
        Some(slowdown < PROBE_SLOW || is_small)
    }

    fn remember_losses(&mut self, new: Losses) {
        let add = |old: &mut f32, new: f32| *old = *old * LOSS_MEMORY + new;
        add(&mut self.losses.ended, new.ended);
        add(&mut self.losses.congested, new.congested);
        for reach in 0..3 {
            add(&mut self.losses.lost[reach], new.lost[reach]);
            add(&mut self.losses.timed_out[reach], new.timed_out[reach]);
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
fn ratio(baseline: Option<f32>, median: f32) -> f32 {
    baseline.map_or(RATIO_MAX, |baseline| (median / baseline).min(RATIO_MAX))
}

/// The same of a probe, whose baseline is 0 where it is not known.
fn ratio_of(baseline: f32, micros: f32) -> f32 {
    ratio((baseline > 0.0).then_some(baseline), micros)
}

/// A probe's slowdown as far as it can be felt: below [`PROBE_LEAST`] of the objective it is never slow.
fn felt(slowdown: f64, micros: f32, objectives: &Objectives) -> f64 {
    let least = PROBE_LEAST * objectives.of(Shape::Object);
    slowdown.min(PROBE_SLOW * f64::from(micros / least))
}

/// A ratio, at most what the objective makes of it, which is never less than one: far inside its objective a call is
/// calm, not a hundred times better than calm, and the average starts to rise from there.
fn slowdown(ratio: f32, high: f32, objective: f32) -> f32 {
    ratio.min((CALM as f32 * high / objective).max(1.0))
}

/// What a reading teaches. In calm everything; while the probes are well also what has no calm yet, or a call that is
/// slow by nature would press for ever because it presses; and a quicker time always, which cannot be luck.
fn learnt(baseline: Option<f32>, median: f32, (learn, quick): (bool, bool)) -> Option<f32> {
    let Some(baseline) = baseline else { return (learn || quick).then_some(median) };
    if median <= baseline {
        return (median < baseline / SAME).then_some(median);
    }
    // Far above the baseline this may be use and not calm: it is believed, but slowly.
    if median < baseline * SAME {
        return None;
    }
    let doubtful = median > PROBE_SLOW as f32 * baseline;
    learn.then_some(if doubtful { baseline + (median - baseline) * DOUBTFUL } else { median })
}

/// Which calls a cause excuses: their losses are not the process's.
fn excused(cause: Cause) -> fn(Reach) -> bool {
    match cause {
        Cause::Etcd => Reach::is_etcd,
        Cause::Webhook => |reach| reach == Reach::Write,
        _ => |_| false,
    }
}

fn counted(by_reach: &[f32; 3], excused: fn(Reach) -> bool) -> f32 {
    Reach::ALL.into_iter().filter(|&reach| !excused(reach)).map(|reach| by_reach[reach as usize]).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::probes::Probe;
    use super::super::tests::{cluster_list, key, object};
    use super::*;
    use crate::flow::Key;

    /// Pressure, the table of keys and time.
    struct Bench {
        pressure: Pressure,
        estimates: Estimates,
        objectives: Objectives,
        tick: u32,
        learn: bool,
        etcd_work: f64,
    }

    const WELL: u64 = 2;

    impl Bench {
        fn new() -> Self {
            let (pressure, estimates) = (Pressure::new(), Estimates::new());
            Self {
                pressure,
                estimates,
                objectives: Objectives::default(),
                tick: 0,
                learn: true,
                etcd_work: 0.0,
            }
        }

        fn call(&mut self, lane: Lane, key: &Key, millis: u64, level: u64) {
            self.estimates.succeeded(key, None, self.tick);
            let level = Some(self.pressure.level(Level(level)));
            let sample = Sample { shape: key.shape, reach: key.reach, level, micros: millis as u32 * 1_000 };
            let place = self.estimates.place_or_shape(key);
            self.estimates.sample(place, sample, self.tick);
            let baseline = self.estimates.baseline(place);
            self.pressure.judge(lane, sample, baseline, (&self.objectives, self.tick));
        }

        /// A tick with probes of so many milliseconds.
        fn tick(&mut self, [livez, cached, consistent]: [u64; 3], losses: Losses) -> Signal {
            let answered = |millis| Probe::Answered(Duration::from_millis(millis));
            let probes = Probes {
                livez: answered(livez),
                cached: answered(cached),
                consistent: answered(consistent),
                ready: None,
            };
            self.tick += 1;
            let inputs = Inputs {
                objectives: &self.objectives,
                probes: &probes,
                losses,
                etcd_work: self.etcd_work,
                tolerance: Tolerance::NONE,
                learn: self.learn,
                tick: self.tick,
            };
            self.pressure.tick(&mut self.estimates, &inputs)
        }

        /// Some ticks of traffic in which every call and probe takes what `times` and `probes` say.
        fn run(&mut self, ticks: u32, times: impl Fn(&Key) -> u64, probes: [u64; 3]) -> Signal {
            let mut signal = None;
            for _ in 0..ticks {
                for (lane, key, level) in traffic() {
                    (0..6).for_each(|_| self.call(lane, &key, times(&key), level));
                }
                signal = Some(self.tick(probes, Losses::default()));
            }
            signal.unwrap()
        }
    }

    fn lease() -> Key {
        key("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "")
    }

    fn cached() -> Key {
        key("GET", "/api/v1/namespaces/shop/configmaps/one", "resourceVersion=0")
    }

    /// Leases, reads from etcd and from the cache, and LISTs, each in a lane and priority level of its own.
    fn traffic() -> Vec<(Lane, Key, u64)> {
        let list = key("GET", "/api/v1/pods", "resourceVersion=0");
        let other = key("GET", "/api/v1/nodes", "resourceVersion=0");
        vec![
            (Lane::NodeHealth, lease(), 1),
            (Lane::Platform, object("pods"), 2),
            (Lane::Platform, cached(), 2),
            (Lane::Workload, list, 3),
            (Lane::Telemetry, other, 4),
        ]
    }

    fn calm() -> Bench {
        let mut bench = Bench::new();
        let signal = bench.run(12, |_| WELL, [WELL; 3]);
        assert!(signal.pressure < 1.01);
        bench.learn = false;
        bench
    }

    #[test]
    fn objectives_bound_ratios_and_ratios_bound_objectives() {
        let objective = 250_000.0;
        let calm = CALM as f32;
        // 27 times slower, and nobody hurt.
        assert!(slowdown(ratio(Some(3_000.0), 80_000.0), 90_000.0, objective) < calm);
        // As quick as in calm is calm, however far inside the objective.
        assert!((slowdown(ratio(Some(3_000.0), 3_000.0), 4_000.0, objective) - 1.0).abs() < 1e-6);
        // At the objective the limit is held, at twice it is cut.
        assert!((slowdown(ratio(Some(3_000.0), 200_000.0), 250_000.0, objective) - calm).abs() < 1e-6);
        assert!(slowdown(ratio(Some(3_000.0), 400_000.0), 500_000.0, objective) > BROWN as f32);
        // Slow by nature.
        assert!(slowdown(ratio(Some(400_000.0), 420_000.0), 600_000.0, objective) < calm);
        // Unknown: the objective alone decides.
        assert!(slowdown(ratio(None, 400_000.0), 500_000.0, objective) > BROWN as f32);
    }

    #[test]
    fn a_slow_process_presses_and_is_called_cpu() {
        let mut bench = calm();
        let signal = bench.run(4, |_| 600, [500, 500, 500]);
        assert!(signal.pressure > BROWN && signal.queue > 3.0, "{signal:?}");
        assert_eq!(bench.pressure.cause, Cause::Cpu);
    }

    #[test]
    fn a_lease_that_hurts_is_not_outvoted_by_calm_keys() {
        let mut bench = calm();
        for number in 0..20 {
            let quick = object(&format!("kind{number}"));
            (0..9).for_each(|_| bench.call(Lane::Telemetry, &quick, WELL, 4));
        }
        let signal = bench.run(4, |key| if *key == lease() { 500 } else { WELL }, [100, 100, 100]);
        assert!(signal.pressure > BROWN, "{signal:?}");
    }

    #[test]
    fn slow_etcd_is_named_and_does_not_press_unless_lists_make_it_slow() {
        let mut bench = calm();
        let times = |key: &Key| if key.reach.is_etcd() { 600 } else { WELL };
        let signal = bench.run(4, times, [WELL, WELL, 600]);
        assert!(signal.pressure < CALM, "{signal:?}");
        assert_eq!(bench.pressure.cause, Cause::Etcd);
        bench.etcd_work = 0.7;
        assert!(bench.run(4, times, [WELL, WELL, 600]).pressure > BROWN, "shedding them helps");
    }

    #[test]
    fn a_slow_webhook_is_named_and_does_not_press() {
        let mut bench = calm();
        let times = |key: &Key| if key.reach == Reach::Write { 2_000 } else { WELL };
        let signal = bench.run(4, times, [WELL; 3]);
        assert!(signal.pressure < CALM, "{signal:?}");
        assert_eq!(bench.pressure.cause, Cause::Webhook);
        assert!(bench.pressure.writes > 5.0);
    }

    #[test]
    fn one_priority_level_that_queues_is_named_and_does_not_press() {
        let mut bench = calm();
        let signal = bench.run(
            4,
            |key| if *key == object("pods") || *key == cached() { 900 } else { WELL },
            [WELL; 3],
        );
        assert!(signal.pressure < CALM, "{signal:?}");
        assert_eq!(bench.pressure.cause, Cause::ApfLevel);
    }

    #[test]
    fn a_probe_alone_carries_the_signal() {
        let mut bench = Bench::new();
        for _ in 0..8 {
            bench.tick([WELL; 3], Losses::default());
        }
        assert!(bench.pressure.value() < 1.01);
        for _ in 0..3 {
            bench.tick([600, 600, 600], Losses::default());
        }
        assert!(bench.pressure.value() > BROWN, "{}", bench.pressure.value());
    }

    #[test]
    fn lost_calls_are_pressure_even_when_the_others_are_quick() {
        let mut bench = calm();
        for _ in 0..4 {
            bench.tick([WELL; 3], Losses { ended: 100.0, lost: [5.0, 0.0, 0.0], ..Losses::default() });
        }
        assert!(bench.pressure.value() > BROWN);
    }

    #[test]
    fn refusals_by_a_level_hold_and_timeouts_brake() {
        let mut bench = calm();
        let losses = Losses { ended: 100.0, congested: 9.0, ..Losses::default() };
        let mut signal = bench.tick([WELL; 3], losses);
        for _ in 0..6 {
            signal = bench.tick([WELL; 3], losses);
        }
        assert!((CALM..BROWN).contains(&signal.pressure) && !signal.brake, "{signal:?}");
        let mut bench = calm();
        let losses =
            Losses { ended: 20.0, timed_out: [6.0, 0.0, 0.0], lost: [6.0, 0.0, 0.0], ..Losses::default() };
        assert!(bench.tick([WELL; 3], losses).brake);
    }

    #[test]
    fn a_webhook_that_was_slow_from_the_first_second_is_learnt_while_the_probes_are_well() {
        let mut bench = Bench::new();
        bench.learn = false;
        let times = |key: &Key| if key.reach == Reach::Write { 400 } else { WELL };
        let signal = bench.run(20, times, [WELL; 3]);
        assert!(signal.pressure < 1.1, "{signal:?}");
        assert_eq!(bench.pressure.cause, Cause::None);
    }

    #[test]
    fn calm_is_not_learnt_from_a_saturated_process() {
        let mut bench = calm();
        bench.learn = true;
        let before = bench.estimates.baseline(
            bench
                .estimates
                .place(&cluster_list("pods"))
                .unwrap_or_else(|| bench.estimates.place_or_shape(&lease())),
        );
        // Thirty times slower and inside every objective.
        bench.run(200, |_| 60, [60, 60, 60]);
        let place = bench.estimates.place_or_shape(&lease());
        let after = bench.estimates.baseline(place).unwrap();
        assert!(after < before.unwrap_or(2_000.0) * 1.05, "{before:?} {after}");
    }
}
