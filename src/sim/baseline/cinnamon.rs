//! What does Uber's Cinnamon do? A priority queue, a PI controller on a cut-off in priorities, and a limit tuned by time.
//!
//! After the three posts of 2023 (*Cinnamon: Using Century Old Tech to Build a Mean Load Shedder*, *PID Controller for
//! Cinnamon*, *Cinnamon Auto-Tuner*), written anew; figures that the posts leave open are marked. **Rejector**: a
//! priority is a tier (the lane) and a cohort in it (of 128, by hash of the user). A PI controller (KP 0.1, KI 1.4, every
//! 500 ms; open) drives the share to refuse so that as many requests enter the queue as leave it and no place in
//! flight stays free; the share becomes a cut-off by the distribution of recent priorities. **Scheduler**: highest priority
//! first, a bounded wait (open: 1 s). **Auto-tuner**: as Vegas, the median time against a target taken anew every 30
//! intervals (open), where a negative covariance of requests in flight and throughput lowers the limit first, so that
//! the target does not drift.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::dagor::{USERS, level};
use super::running::Running;
use crate::flow::{End, Probes, TICK};
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::book::Book;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Knobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct CinnamonSettings {
    pub(super) kp: f64,
    pub(super) ki: f64,
    pub(super) wait: Duration,
    pub(super) min: f64,
    /// The tuner's queue, in log10 L, below which L grows; beyond twice of it L falls.
    pub(super) alpha: f64,
}

const fn cinnamon(kp: f64, ki: f64, wait: u64, min: f64, alpha: f64) -> CinnamonSettings {
    CinnamonSettings { kp, ki, wait: Duration::from_millis(wait), min, alpha }
}

pub(super) const CINNAMON: [(&str, CinnamonSettings); 6] = [
    ("KP 0.1, KI 1.4, wait 1 s, L ≥ 10, α 3", cinnamon(0.1, 1.4, 1_000, 10.0, 3.0)),
    ("KP 0.1, KI 1.4, wait 1 s, L ≥ 2, α 3", cinnamon(0.1, 1.4, 1_000, 2.0, 3.0)),
    ("KP 0.1, KI 0.4, wait 5 s, L ≥ 2, α 3", cinnamon(0.1, 0.4, 5_000, 2.0, 3.0)),
    ("KP 0.5, KI 1.4, wait 1 s, L ≥ 4, α 1", cinnamon(0.5, 1.4, 1_000, 4.0, 1.0)),
    ("KP 0.1, KI 1.4, wait 1 s, L ≥ 2, α 1", cinnamon(0.1, 1.4, 1_000, 2.0, 1.0)),
    ("KP 0.1, KI 1.4, wait 1 s, L ≥ 20, α 6", cinnamon(0.1, 1.4, 1_000, 20.0, 6.0)),
];

const LEVELS: usize = Lane::COUNT * USERS;
/// The controller acts on every second tick.
const CONTROL: Duration = Duration::from_millis(500);
const REFUSE_MAX: f64 = 0.95;
/// Arrivals whose priorities are the recent distribution.
const RECENT: usize = 1_000;
const LIMIT_MAX: f64 = 1_000.0;
const LIMIT_START: f64 = 20.0;
/// The tuner's interval, and the samples that it needs.
const TUNE: Duration = Duration::from_secs(1);
const TUNE_SAMPLES: usize = 10;
const SMOOTHING: f64 = 0.3;
/// Intervals after which the target is taken anew, and over which the covariance is computed.
const TARGET_INTERVALS: usize = 30;

/// The whole of it.
#[derive(Debug)]
pub(super) struct Cinnamon {
    settings: CinnamonSettings,
    queue: BTreeMap<(usize, Id), (Instant, Call)>,
    /// Where in the queue who is.
    places: Book<usize>,
    /// Who waits, in the order of arrival; may hold some who are gone.
    order: VecDeque<(Instant, Id)>,
    running: Running,
    tuner: Tuner,
    recent: VecDeque<usize>,
    cut_off: usize,
    integral: f64,
    entered: u32,
    left: u32,
    control_at: Instant,
    verdicts: Vec<(Id, Answer)>,
}

/// Finds the limit.
#[derive(Debug)]
struct Tuner {
    alpha: f64,
    min: f64,
    limit: f64,
    times: Vec<f64>,
    until: Instant,
    smoothed: Option<f64>,
    target: Option<f64>,
    /// Requests in flight and throughput of recent intervals.
    intervals: Vec<(f64, f64)>,
}

impl Tuner {
    fn new(settings: &CinnamonSettings) -> Self {
        Self {
            alpha: settings.alpha,
            min: settings.min,
            limit: LIMIT_START,
            times: Vec::new(),
            until: Instant::ORIGIN + TUNE,
            smoothed: None,
            target: None,
            intervals: Vec::new(),
        }
    }

    fn ended(&mut self, now: Instant, took: Duration, in_flight: u32) {
        self.times.push(took.as_secs_f64());
        if now < self.until || self.times.len() < TUNE_SAMPLES {
            return;
        }
        let middle = self.times.len() / 2;
        let median = *self.times.select_nth_unstable_by(middle, f64::total_cmp).1;
        let length = now.since(self.until).as_secs_f64() + TUNE.as_secs_f64();
        self.intervals.push((f64::from(in_flight), self.times.len() as f64 / length));
        self.times.clear();
        self.until = now + TUNE;
        let smoothed = self.smoothed.map_or(median, |old| old + (median - old) * SMOOTHING);
        self.smoothed = Some(smoothed);
        self.tune(smoothed, in_flight);
    }

    fn tune(&mut self, took: f64, in_flight: u32) {
        let Some(target) = self.target.filter(|&target| target <= took) else {
            self.target = Some(took);
            return;
        };
        if self.intervals.len() >= TARGET_INTERVALS {
            if covariance(&self.intervals) < 0.0 {
                // More in flight gave less throughput: the target must not be taken up here.
                self.limit *= 0.9;
            } else {
                self.target = Some(took);
            }
            self.intervals.clear();
        }
        let log = self.limit.log10().max(1.0);
        let queue = self.limit * (1.0 - target / took);
        if queue > 2.0 * self.alpha * log {
            self.limit -= log;
        } else if queue < self.alpha * log && f64::from(in_flight) * 2.0 >= self.limit {
            self.limit += log;
        }
        self.limit = self.limit.clamp(self.min, LIMIT_MAX);
    }
}

fn covariance(pairs: &[(f64, f64)]) -> f64 {
    let count = pairs.len() as f64;
    let (mean_x, mean_y) =
        pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / count, y + pair.1 / count));
    pairs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / count
}

impl Cinnamon {
    pub(super) fn new(settings: CinnamonSettings) -> Self {
        Self {
            tuner: Tuner::new(&settings),
            settings,
            queue: BTreeMap::new(),
            places: Book::default(),
            order: VecDeque::new(),
            running: Running::new(1),
            recent: VecDeque::new(),
            cut_off: LEVELS,
            integral: 0.0,
            entered: 0,
            left: 0,
            control_at: Instant::ORIGIN + CONTROL,
            verdicts: Vec::new(),
        }
    }

    fn has_place(&self) -> bool {
        f64::from(self.running.total()) < self.tuner.limit.floor().max(1.0)
    }

    fn control(&mut self) {
        let free = (self.tuner.limit - f64::from(self.running.total())).max(0.0);
        let capacity = (f64::from(self.left) + free).max(1.0);
        let error = ((f64::from(self.entered) - capacity) / capacity).clamp(-1.0, 1.0);
        (self.entered, self.left) = (0, 0);
        let step = CONTROL.as_secs_f64();
        // The integral is bounded to what it can do, or it would take minutes to unwind.
        self.integral = (self.integral + error * step).clamp(0.0, REFUSE_MAX / self.settings.ki);
        let share = (self.settings.kp * error + self.settings.ki * self.integral).clamp(0.0, REFUSE_MAX);
        self.cut_off = self.cut_off_for(share);
    }

    /// The cut-off that would have refused `share` of the recent arrivals.
    fn cut_off_for(&self, share: f64) -> usize {
        let refuse = (share * self.recent.len() as f64).round() as usize;
        if refuse == 0 {
            return LEVELS;
        }
        let mut levels: Vec<usize> = self.recent.iter().copied().collect();
        let from = levels.len() - refuse;
        *levels.select_nth_unstable(from).1
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.order.front() {
            let known = self.places.contains_key(&id);
            if known && now.since(since) < self.settings.wait {
                return;
            }
            self.order.pop_front();
            if let Some(level) = self.places.remove(&id) {
                self.queue.remove(&(level, id));
                self.left += 1;
                self.verdicts.push((id, PLAIN_RETRY_AFTER));
            }
        }
    }

    fn serve(&mut self, now: Instant) {
        self.expire(now);
        while self.has_place() {
            let Some(((_, id), (_, call))) = self.queue.pop_first() else { return };
            self.places.remove(&id);
            self.left += 1;
            self.running.start(now, id, &call, (0, 1));
            self.verdicts.push((id, Answer::Admit));
        }
    }
}

impl Guard for Cinnamon {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.serve(now);
        if call.exempt {
            self.running.start_free(now, id, call);
            return Answer::Admit;
        }
        let level = level(now, call);
        self.recent.push_back(level);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        if level >= self.cut_off {
            return PLAIN_RETRY_AFTER;
        }
        self.entered += 1;
        if self.queue.is_empty() && self.has_place() {
            self.left += 1;
            self.running.start(now, id, call, (0, 1));
            return Answer::Admit;
        }
        self.queue.insert((level, id), (now, call.clone()));
        self.places.insert(id, level);
        self.order.push_back((now, id));
        Answer::Wait
    }

    fn first_byte(&mut self, now: Instant, id: Id, _level: u64) {
        if self.running.first_byte(id) {
            self.serve(now);
        }
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        if self.running.burst_done(id) {
            self.serve(now);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        let in_flight = self.running.total();
        if let Some(run) = self.running.finish(id)
            && ended.end == End::Success
            && let Some(took) = run.timed(ended.latency)
        {
            self.tuner.ended(now, took, in_flight);
        }
        self.serve(now);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        if let Some(level) = self.places.remove(&id) {
            self.queue.remove(&(level, id));
            self.left += 1;
        } else {
            self.running.finish(id);
        }
        self.serve(now);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        self.serve(now);
        if now + TICK > self.control_at {
            self.control_at = now + CONTROL;
            self.control();
        }
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        self.order.front().map(|&(since, _)| since + self.settings.wait)
    }

    fn wake(&mut self, now: Instant) {
        self.serve(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.verdicts);
    }

    fn limit(&self) -> Option<f64> {
        Some(self.tuner.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;

    #[test]
    fn the_highest_priority_leaves_the_queue_first() {
        let mut cinnamon = Cinnamon::new(CINNAMON[0].1);
        for id in 0..20 {
            assert_eq!(cinnamon.arrive(at(0), id, &call(Lane::Telemetry, u64::from(id))), Answer::Admit);
        }
        assert_eq!(cinnamon.arrive(at(1), 20, &call(Lane::Telemetry, 1)), Answer::Wait);
        assert_eq!(cinnamon.arrive(at(2), 21, &call(Lane::NodeHealth, 1)), Answer::Wait);
        cinnamon.finish(at(3), 0, ended(3));
        cinnamon.wake(at(1001));
        let mut verdicts = Vec::new();
        cinnamon.verdicts(&mut verdicts);
        assert_eq!(verdicts, [(21, Answer::Admit), (20, PLAIN_RETRY_AFTER)]);
    }

    /// Ten places at 100 ms each and 200 arrivals a second of which half are telemetry: twice what can be served. Gives
    /// the calls, and those served, of platform and telemetry after `settled`.
    fn overload(cinnamon: &mut Cinnamon, settled: u64, until: u64) -> [(u32, u32); 2] {
        let mut counts = [(0, 0); 2];
        let mut ends: VecDeque<(u64, Id)> = VecDeque::new();
        let mut verdicts = Vec::new();
        for now in (0..until).step_by(5) {
            while ends.front().is_some_and(|&(end, _)| end <= now) {
                let Some((_, id)) = ends.pop_front() else { break };
                cinnamon.finish(at(now), id, ended(100));
            }
            // The tuner has its own test.
            cinnamon.tuner.limit = 10.0;
            let id = (now / 5) as Id;
            let lane = [Lane::Platform, Lane::Telemetry][id as usize % 2];
            let answer = cinnamon.arrive(at(now), id, &call(lane, u64::from(id)));
            counts[id as usize % 2].0 += u32::from(now >= settled);
            verdicts.push((id, answer));
            if now % 250 == 0 {
                cinnamon.tick(at(now), &Probes::default());
            }
            cinnamon.verdicts(&mut verdicts);
            for (id, answer) in verdicts.drain(..) {
                if answer == Answer::Admit {
                    ends.push_back((now + 100, id));
                    counts[id as usize % 2].1 += u32::from(now >= settled);
                }
            }
        }
        counts
    }

    #[test]
    fn the_controller_settles_at_the_share_that_cannot_be_served_and_takes_it_from_below() {
        let mut cinnamon = Cinnamon::new(CINNAMON[0].1);
        let [(high, served), (low, low_served)] = overload(&mut cinnamon, 20_000, 30_000);
        assert!(f64::from(served) > 0.9 * f64::from(high), "{served} of {high}");
        assert!(f64::from(low_served) < 0.2 * f64::from(low), "{low_served} of {low}");
        let waiting = cinnamon.queue.len();
        assert!(waiting < 50, "the queue is short, though all lows would fit their wait: {waiting}");
    }

    #[test]
    fn a_negative_covariance_lowers_the_limit_before_a_new_target_is_taken() {
        assert!(covariance(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) < 0.0);
        let mut tuner = Tuner::new(&CINNAMON[0].1);
        tuner.limit = 100.0;
        tuner.target = Some(0.010);
        tuner.intervals = (0..30).map(|step| (f64::from(step), -f64::from(step))).collect();
        tuner.tune(0.011, 100);
        assert_eq!(tuner.target, Some(0.010), "the target does not drift up");
        assert!(tuner.limit < 95.0, "{}", tuner.limit);
    }
}
