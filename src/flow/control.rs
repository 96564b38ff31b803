//! Is this slowness ours to cure?
//!
//! A latency signal needs a proof that cutting helps. A cut remembers where it began: the capacity let in, the work
//! rate and the peak pressure. When half of the capacity is gone and what was above it has drained, there are three
//! ends: pressure fell (the cut works), work held (the server does as much with less at a time: capacity was really
//! lost, the cut is right), or **work fell and pressure did not**: then the latency comes from somewhere else, the
//! cut is undone, and pressure up to this height is tolerated from then on, less and less.
//!
//! The idea is the covariance test of Uber's Cinnamon; latency alone as the test was harmful in simulation, the work
//! term is necessary. Tolerance never covers the `/livez` probe unless that was as slow itself: the process's own
//! witness must be heard whatever a webhook did before.
//!
//! A delay of all answers needs no cut to half: it shows as soon as times stay the same beside fewer in flight (`delay`),
//! before the cut reaches the lanes that it is there to protect.

use super::delay::Delay;
use super::pressure::{BROWN, CALM};

/// The test is made once capacity fell to this share of where the cut began.
const HALF: f64 = 0.5;
/// Pressure above this share of its peak has not fallen.
const SAME_PRESSURE: f64 = 0.8;
/// Work below this share of what it was has fallen.
const LESS_WORK: f64 = 0.8;
/// Ticks on end that the rest must hold at half the capacity: the smoothed work rate follows.
const SETTLE_TICKS: u32 = 6;
/// In-flight work that shrinks by less than this in a tick has drained as far as it will.
const DRAINING: f64 = 0.95;
/// How much the time of the probe may vary to be called the same.
const STEADY: f64 = 1.2;
/// What is tolerated, in units of the pressure that could not be cured.
const TOLERANCE: f64 = 1.3;
/// Tolerance beyond one that is lost a tick: half of it is gone after a minute.
const DECAY: f64 = 0.003;
/// Never tolerated beyond this.
const TOLERANCE_MAX: f64 = 20.0;
/// Weight of a tick in the work rate: the last two seconds count.
const WORK_FRESH: f64 = 0.15;
/// Calm ticks that end an episode: pressure fell, or it was a dip between two LISTs.
const OVER_TICKS: u32 = 8;

/// What a tick looks like to the test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Pressure as the law sees it.
    pub(super) pressure: f64,
    /// The capacity let in: L, times the duty of heavy requests.
    pub(super) capacity: f64,
    /// Seats in use.
    pub(super) used: f64,
    /// Work of the calls that ended in this tick, in seat-seconds of calm.
    pub(super) work: f64,
    /// Pressure of the `/livez` probe, and how many times slower than in calm it is.
    pub(super) livez: (f64, f64),
    /// Its time in microseconds, by the middle of the last three; and where it was answered since the last tick, that one's.
    pub(super) livez_micros: f64,
    pub(super) answered: Option<f64>,
    /// The process is slow by its own probe.
    pub(super) saturated: bool,
    /// As little is let in as ever.
    pub(super) least: bool,
}

/// By what slowness is divided before it counts, because it could not be cured; 1 is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    /// Pressure of calls.
    pub(super) calls: f64,
    /// Pressure of the `/livez` probe.
    pub(super) livez: f64,
    /// How many times slower than in calm the `/livez` probe was: only beyond that it is a witness again.
    pub(super) witness: f64,
}

impl Tolerance {
    pub(super) const NONE: Self = Self { calls: 1.0, livez: 1.0, witness: 1.0 };

    fn decay(&mut self) {
        for tolerance in [&mut self.calls, &mut self.livez, &mut self.witness] {
            *tolerance = 1.0 + (*tolerance - 1.0) * (1.0 - DECAY);
        }
    }
}

/// A cut from its beginning.
#[derive(Clone, Copy, Debug)]
struct Episode {
    capacity: f64,
    work: f64,
    peak: f64,
    settled: u32,
    calm: u32,
    /// Time of the `/livez` probe when it settled.
    livez_micros: f64,
}

/// The test and what is tolerated.
#[derive(Clone, Debug)]
pub(super) struct Control {
    episode: Option<Episode>,
    work: f64,
    tolerance: Tolerance,
    /// Seats in use and capacity as of the last tick.
    used: f64,
    capacity: f64,
    delay: Delay,
    /// How often a cut was undone.
    pub(super) undone: u32,
}

impl Control {
    pub(super) fn new() -> Self {
        let (tolerance, delay) = (Tolerance::NONE, Delay::default());
        Self { episode: None, work: 0.0, tolerance, used: 0.0, capacity: 0.0, delay, undone: 0 }
    }

    /// What is tolerated now.
    pub(super) fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// After each tick of the law: the capacity to go back to, where the cut was in vain.
    pub(super) fn tick(&mut self, moment: &Moment) -> Option<f64> {
        let (pressed, calm) = (moment.pressure > BROWN, moment.pressure < CALM);
        let before = self.work;
        self.work += (moment.work - self.work) * WORK_FRESH;
        self.tolerance.decay();
        self.delay.tick(moment.used, moment.answered, moment.livez.0 >= CALM);
        let used = std::mem::replace(&mut self.used, moment.used);
        let capacity = std::mem::replace(&mut self.capacity, moment.capacity).max(moment.capacity);
        let Some(episode) = &mut self.episode else {
            if pressed {
                let peak = moment.pressure;
                self.episode =
                    Some(Episode { capacity, work: before, peak, settled: 0, calm: 0, livez_micros: 0.0 });
            }
            return None;
        };
        episode.calm = if calm { episode.calm + 1 } else { 0 };
        if episode.calm >= OVER_TICKS {
            self.episode = None;
            return None;
        }
        if pressed && self.delay.is_constant() {
            return self.undo(moment);
        }
        if moment.capacity > HALF * episode.capacity {
            episode.peak = episode.peak.max(moment.pressure);
            // Work that the storm itself brought is what a cut would take away again.
            episode.work = episode.work.max(self.work);
            episode.settled = 0;
            return None;
        }
        // What was let in before the cut is not yet its effect.
        let drained = moment.used <= HALF * episode.capacity + 1.0 || moment.used >= DRAINING * used;
        let same = pressed && moment.pressure > SAME_PRESSURE * episode.peak;
        // A process that lost half of its processors does less work and is still ours to spare. Only when as little is
        // let in as ever, and its own probe takes the same long time again and again, is the reason another: a wait
        // for processors varies.
        if episode.settled == 0 {
            episode.livez_micros = moment.livez_micros;
        }
        let change = moment.livez_micros / episode.livez_micros.max(1.0);
        let proven = !moment.saturated || moment.least && (1.0 / STEADY..STEADY).contains(&change);
        episode.settled = if drained && same && proven { episode.settled + 1 } else { 0 };
        if episode.settled < SETTLE_TICKS || self.work >= LESS_WORK * episode.work {
            return None;
        }
        self.undo(moment)
    }

    /// The cut was in vain: what presses now is tolerated from now on.
    fn undo(&mut self, moment: &Moment) -> Option<f64> {
        let tolerate = |pressure: f64| (TOLERANCE * pressure).clamp(1.0, TOLERANCE_MAX);
        let calls = self.tolerance.calls.max(tolerate(moment.pressure * self.tolerance.calls));
        let (livez, witness) =
            if moment.livez.0 > CALM { (tolerate(moment.livez.0), moment.livez.1) } else { (1.0, 1.0) };
        self.tolerance = Tolerance { calls, livez, witness };
        self.undone += 1;
        self.episode.take().map(|episode| episode.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut that halves capacity every four ticks; `effect` gives pressure and work at a capacity.
    fn cut(control: &mut Control, effect: impl Fn(f64) -> (f64, f64)) -> Option<f64> {
        let mut capacity = 64.0;
        for _ in 0..40 {
            control.tick(&moment(1.0, 64.0, effect(64.0).1));
        }
        for _ in 0..60 {
            let (pressure, work) = effect(capacity);
            if let Some(back) = control.tick(&moment(pressure, capacity, work)) {
                return Some(back);
            }
            capacity = (capacity * 0.84).max(10.0);
        }
        None
    }

    fn moment(pressure: f64, capacity: f64, work: f64) -> Moment {
        Moment {
            pressure,
            capacity,
            used: capacity,
            work,
            livez: (1.0, 1.0),
            livez_micros: 1e3,
            answered: None,
            saturated: false,
            least: false,
        }
    }

    #[test]
    fn a_cut_that_lowers_work_and_not_pressure_is_undone_and_tolerated() {
        let mut control = Control::new();
        assert_eq!(cut(&mut control, |capacity| (4.0, capacity)), Some(64.0));
        let tolerance = control.tolerance();
        assert!(4.0 / tolerance.calls < 1.0 && tolerance.livez == 1.0, "{tolerance:?}");
        for _ in 0..4 * 600 {
            control.tick(&moment(1.0, 64.0, 64.0));
        }
        assert!(control.tolerance().calls < 1.2, "{:?}", control.tolerance());
    }

    #[test]
    fn a_cut_that_lowers_pressure_stands() {
        assert_eq!(cut(&mut Control::new(), |capacity| (capacity / 10.0, capacity)), None);
    }

    #[test]
    fn a_cut_at_the_same_work_stands_because_capacity_was_really_lost() {
        assert_eq!(cut(&mut Control::new(), |_| (4.0, 8.0)), None);
    }

    #[test]
    fn what_still_drains_is_not_judged() {
        let mut control = Control::new();
        (0..40).for_each(|_| _ = control.tick(&moment(1.0, 64.0, 10.0)));
        for tick in 0..30 {
            let capacity = (64.0 * 0.84f64.powi(tick)).max(10.0);
            let draining = Moment { used: 400.0 * 0.92f64.powi(tick), ..moment(5.0, capacity, 1.0) };
            assert_eq!(control.tick(&draining), None, "tick {tick}");
        }
    }

    #[test]
    fn a_slow_process_is_spared_unless_it_is_slow_by_the_same_again_and_again() {
        let mut control = Control::new();
        (0..40).for_each(|_| _ = control.tick(&moment(1.0, 64.0, 64.0)));
        let slow = |tick: i32, livez_micros| {
            let capacity = (64.0 * 0.84f64.powi(tick)).max(10.0);
            Moment { saturated: true, least: capacity <= 10.0, livez_micros, ..moment(4.0, capacity, 5.0) }
        };
        for tick in 0..100 {
            // Between 20 and 70 ms: it waits for processors.
            let livez_micros = 20_000.0 + 10_000.0 * f64::from(tick * 7 % 6);
            assert_eq!(control.tick(&slow(tick, livez_micros)), None);
        }
        let back = (100..120).find_map(|tick| control.tick(&slow(tick, 500_000.0)));
        assert_eq!(back, Some(64.0));
    }
    #[test]
    fn a_delay_of_every_answer_is_tolerated_before_the_cut_reaches_its_least() {
        let mut control = Control::new();
        (0..40).for_each(|_| _ = control.tick(&moment(1.0, 64.0, 1.0)));
        // 40 leases a second, each 400 ms late: 16 in flight, and the cut begins to hold some back.
        let late = |tick: i32| {
            let capacity = (64.0 * 0.84f64.powi(tick)).max(10.0);
            Moment {
                used: capacity.min(16.0),
                saturated: true,
                livez: (2.2, 100.0),
                livez_micros: 400_000.0,
                answered: Some(400_000.0),
                ..moment(2.2, capacity, 1.0)
            }
        };
        let undone = (0..40).find_map(|tick| control.tick(&late(tick)).map(|back| (tick, back)));
        assert!(undone.is_some_and(|(tick, back)| tick < 14 && back == 64.0), "{undone:?}");
        let tolerance = control.tolerance();
        assert!(2.2 / tolerance.calls < 1.0 && 100.0 / tolerance.witness <= 1.0, "{tolerance:?}");
    }
}
