//! How many seats may be in use now?
//!
//! One law a tick, on pressure P: far above calm the limit falls by a quarter, above it by up to an eighth, just
//! above it is held, and in calm it grows by 4 % if somebody wanted more. Cuts are several times faster than
//! growth, which with the hold band keeps it from cycling (asymmetric gains as in AIMD; the +25 % buffer that Envoy
//! had to add to its gradient is the hold band here). The cut is jittered, so that several proxies in front of one
//! etcd do not move in step.
//!
//! Two things keep L still under a constant load, where AIMD would saw. A cut waits until what was let in before it has
//! drained. And the height of the last cut is remembered: near it growth is a quarter as fast, beyond it
//! it is free again (the plateau of CUBIC, with a band in place of the curve).
//!
//! **Trim**: a saturated process (its own probe says so) does the same work with three requests a core as with thirty,
//! only the waiting differs. While somebody is refused anyway, the limit is trimmed to where calls take two to
//! three times their calm time, harm or not: it costs no work and spares the protected lanes the queue.
//!
//! **Duty**: at its least L still lets one heavy request run after another. Where even that is too much, the limit
//! goes on falling as the share of time in which heavy requests may run; in calm this share returns first.
//!
//! **Floors**: ten light requests at once may be nine too many, where each takes 20 ms of the only core. At the least L the
//! floors of the lower lanes are what lets them in, so these shrink then as duty does, and return before L grows.

use super::levers::{Held, LimitHold};
use super::pressure::{BROWN, CALM, PROBE_DOUBTFUL, Signal};
use super::random::Random;
use super::settings::LimitSettings;
use crate::units::{Instant, Seats};

/// Pressure beyond which the limit falls steeply.
const STEEP: f64 = 3.0;
/// The steep cut: from 400 to 20 seats in 2.6 s.
const STEEP_CUT: f64 = 0.25;
/// The most that the mild cut takes.
const MILD_CUT: f64 = 0.12;
/// Growth a tick: doubling in 4.5 s.
const GROWTH: f64 = 0.04;
/// Growth a tick for light requests while the process is well by its own probe: what refuses them is no want of it.
const GROWTH_WELL: f64 = 0.08;
/// Growth a tick while calls are as quick as ever and somebody is refused: a server that has not even noticed is far from
/// full, and doubles of its load still are.
const GROWTH_IDLE: f64 = 0.25;
/// Times slower than calm up to which that holds ...
const IDLE: f64 = 1.2;
/// ... for so many ticks: one such tick between two LISTs is luck.
const IDLE_TICKS: u32 = 3;
/// Growth a tick near the height of the last cut.
const GROWTH_NEAR: f64 = 0.01;
/// What counts as near: this far below the height of the last cut, and this far above.
const NEAR: (f64, f64) = (0.85, 1.1);
/// Ticks for which the height of a cut is remembered: half a minute, servers change.
const HEIGHT_TICKS: u32 = 120;
/// Calm ticks before growth begins.
const CALM_TICKS: u32 = 2;
/// Share of the limit that must have been in use to make it grow: an unused limit proves nothing.
const USED_SHARE: f64 = 0.6;
/// Heavy requests make the limit grow only while calls take less than this many times their calm time, light ones too where the
/// process is saturated. Elsewhere light ones need no such proof: they are cheap, and a constant delay would otherwise
/// hold down a server that has room. But heavy ones that wait for each other gain nothing from more of them, and
/// each one takes memory of the apiserver.
const ROOM: f64 = 1.7;
/// Heavy requests that are refused are short of seats only if, with one more of them, this share of L was in use: a little
/// less than what the lowest lanes may have.
const HEAVY_SHARE: f64 = 0.25;
/// A saturated process is trimmed while calls take more than this many times their calm time.
const QUEUE: f64 = 3.0;
/// A process whose queue is longer than this many times that has lost its processors: what is in use is cut at once
/// to what its queue says, instead of a quarter a tick.
const DEEP: f64 = 2.0;
/// The most that a deep cut takes: three quarters, for two ticks may be a pause of the garbage collector.
const DEEP_FACTOR: f64 = 0.25;
/// A steep cut starts at no more than this many times the seats that were in use: unused head-room is not capacity.
const HEAD_ROOM: f64 = 2.0;
/// A mild one leaves that, or this share of the limit where that is more: it may be noise.
const MILD_HEAD_ROOM: f64 = 0.7;
/// While more than this many times L is in use, the last cut has not had its effect ...
const DRAINED: f64 = 1.1;
/// ... but it is waited for no longer than this: floors may keep more than L in use for good.
const DRAIN_TICKS: u32 = 3;
/// Ticks of room before heavy requests make the limit grow beyond its start: one such tick between two LISTs is none.
const ROOM_TICKS: u32 = 8;
/// Jitter of a cut.
const JITTER: f64 = 0.1;
/// Below this the lowest lane has room for one of the largest requests at a time (it may fill 30 % with heavy ones), so
/// that only duty can go on from there.
const SINGLE: f64 = 107.0;
/// Heavy requests may always run a twentieth of the time: one whose turn it is must be served.
const DUTY_MIN: f64 = 0.05;
/// Weight of a tick in the pressure that duty follows: the last two seconds count.
const SLOW: f64 = 0.12;
/// What a tick takes from duty at the least, and what more at twice the pressure.
const DUTY_CUT: (f64, f64) = (0.06, 0.2);
/// Below this it gains: a narrower band than that of L, for its pressure is a mean already.
const DUTY_CALM: f64 = 1.45;
/// What a calm tick gives it back.
const DUTY_GROWTH: f64 = 0.03;
/// The floors that shrink keep a sixteenth, and one request each.
const FLOORS_MIN: f64 = 0.0625;
/// What a tick takes from them.
const FLOORS_CUT: f64 = 0.12;
/// What a calm tick gives them back.
const FLOORS_GROWTH: f64 = 0.03;

/// What the law did in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// L fell, or would have if it were not at its least.
    Cut,
    /// L stayed.
    Hold,
    /// L grew.
    Grow,
}

/// How much of the limit was asked for in a tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// The most seats in use at once.
    pub(super) peak: Seats,
    /// The most seats that light requests used at once.
    pub(super) light_peak: Seats,
    /// Seats in use at the end of the tick.
    pub(super) used: Seats,
    /// Whether a light request waited or was refused for want of seats.
    pub(super) light_unmet: bool,
    /// Whether a heavy one did.
    pub(super) heavy_unmet: bool,
}

/// The limit L. Its fraction of a seat is kept, or small limits could not grow by 4 %.
#[derive(Debug)]
pub(super) struct Limit {
    value: f64,
    bounds: (f64, f64),
    /// Where L returns to by itself.
    start: f64,
    calm_ticks: u32,
    room_ticks: u32,
    idle_ticks: u32,
    /// Where the last cut began, and the ticks since.
    height: Option<(f64, u32)>,
    /// Pressure over some seconds: what duty follows.
    slow: f64,
    /// Share of the time in which heavy requests may run.
    duty: f64,
    /// Share of their floors that the lower lanes keep.
    floors: f64,
    /// What an operator wants it to be.
    hold: Option<LimitHold>,
}

impl Limit {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        let mut limit = Self {
            value: f64::from(settings.start.0),
            bounds: (0.0, 0.0),
            start: 0.0,
            calm_ticks: 0,
            room_ticks: 0,
            idle_ticks: 0,
            height: None,
            slow: 1.0,
            duty: 1.0,
            floors: 1.0,
            hold: None,
        };
        limit.rebound(settings);
        limit
    }

    /// Takes new bounds; L stays where they allow.
    pub(super) fn rebound(&mut self, settings: &LimitSettings) {
        let min = f64::from(settings.min.0.max(1));
        self.bounds = (min, f64::from(settings.max.0).max(min));
        self.start = f64::from(settings.start.0);
        self.set(self.value);
    }

    pub(super) fn seats(&self) -> Seats {
        Seats(self.value as u32)
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// The share of time in which heavy requests may run, above 0 and at most 1; below 1 only where L lets in one at a
    /// time.
    pub(super) fn heavy_duty(&self) -> f64 {
        self.duty
    }

    /// The share of their floors that lower lanes keep, above 0 and at most 1; below 1 only where L is at its least.
    pub(super) fn floors(&self) -> f64 {
        self.floors
    }

    /// What is let in: seats, and below one heavy request at a time its share of the time.
    pub(super) fn capacity(&self) -> f64 {
        self.value * self.duty
    }

    /// Whether as little is let in as ever.
    pub(super) fn is_least(&self) -> bool {
        self.value <= self.bounds.0
    }

    pub(super) fn set(&mut self, value: f64) {
        let wanted = value.clamp(self.bounds.0, self.bounds.1);
        self.value = match self.hold.map(|hold| hold.seats) {
            Some(Held::Exactly(seats)) => f64::from(seats.0.max(1)),
            Some(Held::AtMost(seats)) => wanted.min(f64::from(seats.0.max(1))),
            None => wanted,
        };
    }

    pub(super) fn set_min(&mut self) {
        self.set(self.bounds.0);
        self.calm_ticks = 0;
    }

    /// Puts an operator's hold in force, or ends it: L then moves on from where it is.
    pub(super) fn hold(&mut self, hold: Option<LimitHold>) {
        self.hold = hold;
        self.set(self.value);
    }

    /// Ends a hold whose time is over; whether there was one.
    pub(super) fn end_hold(&mut self, now: Instant) -> bool {
        let is_over = self.hold.is_some_and(|hold| hold.until <= now);
        if is_over {
            self.hold(None);
        }
        is_over
    }

    /// What an operator wants it to be.
    pub(super) fn held(&self) -> Option<LimitHold> {
        self.hold
    }

    /// Undoes a cut.
    pub(super) fn restore(&mut self, capacity: f64) {
        self.set(capacity);
        self.duty = (capacity / self.value).clamp(DUTY_MIN, 1.0);
        (self.height, self.slow, self.floors) = (None, 1.0, 1.0);
    }

    /// One tick of the law.
    pub(super) fn step(&mut self, signal: Signal, demand: Demand, random: &mut Random) -> Step {
        self.height =
            self.height.filter(|(_, age)| *age < HEIGHT_TICKS).map(|(height, age)| (height, age + 1));
        self.slow += (signal.pressure - self.slow) * SLOW;
        self.set_duty(signal.pressure, demand);
        self.set_floors(demand);
        let count = |ticks: u32, holds: bool| if holds { ticks + 1 } else { 0 };
        self.room_ticks = count(self.room_ticks, signal.ratio < ROOM);
        self.idle_ticks = count(self.idle_ticks, signal.ratio < IDLE && signal.probe < ROOM);
        // One heavy request at a time is no queue that a lower limit could shorten.
        let heavy_peak = demand.peak.saturating_sub(demand.light_peak);
        let unmet = demand.light_unmet || demand.heavy_unmet && heavy_peak > Seats::MAX_PER_REQUEST;
        // A ratio of QUEUE weighs as much as the pressure at which cuts begin.
        let queue = if unmet { BROWN * signal.queue / QUEUE } else { 1.0 };
        if signal.pressure < CALM {
            self.calm_ticks += 1;
            return match self.trim(queue, demand, random) {
                Some(step) => step,
                None => self.grow(signal, demand),
            };
        }
        self.calm_ticks = 0;
        let pressure = signal.pressure.max(queue);
        if pressure <= BROWN || pressure <= STEEP && !self.is_drained(demand) {
            return Step::Hold;
        }
        self.cut(pressure, queue, demand, random);
        Step::Cut
    }

    /// The share of the time for heavy requests. One that runs alone may be harm by itself, and each is; then what can
    /// be had is that it is rare, so duty follows the mean of some seconds and only the highest peaks.
    fn set_duty(&mut self, pressure: f64, demand: Demand) {
        if pressure > STEEP && demand.heavy_unmet && self.value < SINGLE {
            self.duty = (self.duty * (1.0 - STEEP_CUT)).max(DUTY_MIN);
        } else if self.slow > BROWN && demand.heavy_unmet && self.value < SINGLE {
            let cut = DUTY_CUT.0 + DUTY_CUT.1 * (self.slow / BROWN - 1.0).min(1.0);
            self.duty = (self.duty * (1.0 - cut)).max(DUTY_MIN);
        } else if self.slow < DUTY_CALM {
            self.duty = (self.duty * (1.0 + DUTY_GROWTH)).min(1.0);
        }
    }

    /// The share of their floors for the lower lanes, by the same mean as duty: light requests that are harm one by one.
    fn set_floors(&mut self, demand: Demand) {
        if self.slow > BROWN && demand.light_unmet && self.is_least() {
            self.floors = (self.floors * (1.0 - FLOORS_CUT)).max(FLOORS_MIN);
        } else if self.slow < DUTY_CALM {
            self.floors = (self.floors * (1.0 + FLOORS_GROWTH)).min(1.0);
        }
    }

    fn cut(&mut self, pressure: f64, queue: f64, demand: Demand, random: &mut Random) {
        let (cut, kept) = if queue > DEEP * BROWN {
            (1.0 - (DEEP * BROWN / queue).max(DEEP_FACTOR), f64::from(demand.used.0))
        } else if pressure > STEEP {
            (STEEP_CUT, HEAD_ROOM * f64::from(demand.peak.0))
        } else {
            let kept = (HEAD_ROOM * f64::from(demand.peak.0)).max(MILD_HEAD_ROOM * self.value);
            (MILD_CUT * (pressure / BROWN - 1.0).min(1.0), kept)
        };
        if self.value <= self.bounds.0 {
            return;
        }
        let factor = 1.0 - cut * (1.0 + JITTER * random.signed_unit());
        let base = self.value.min(kept).max(self.bounds.0);
        self.height = Some((base, 0));
        self.set(base * factor);
    }

    /// Takes seats from the queue of a saturated process; `None` where there is nothing to take.
    fn trim(&mut self, queue: f64, demand: Demand, random: &mut Random) -> Option<Step> {
        if queue <= BROWN {
            return None;
        }
        if !self.is_drained(demand) {
            return Some(Step::Hold);
        }
        self.cut(queue, queue, demand, random);
        Some(Step::Cut)
    }

    /// Whether what was let in before the last cut is through.
    fn is_drained(&self, demand: Demand) -> bool {
        let is_recent = self.height.is_some_and(|(_, age)| age <= DRAIN_TICKS);
        !is_recent || f64::from(demand.used.0) <= DRAINED * self.value + 1.0
    }

    fn grow(&mut self, signal: Signal, demand: Demand) -> Step {
        // Refusals count as demand: telemetry alone may fill no more than its own 60 %, and a limit that waits
        // for more than that would hold it down on a server with room.
        let is_used = |peak: Seats| f64::from(peak.0) > USED_SHARE * self.value;
        let has_room = signal.queue < ROOM && signal.probe < PROBE_DOUBTFUL;
        let light = (demand.light_unmet || is_used(demand.light_peak)) && has_room;
        // Where memory refuses them, more seats would let in nobody.
        let is_short = f64::from((demand.peak + Seats::MAX_PER_REQUEST).0) > HEAVY_SHARE * self.value;
        let has_room =
            (self.room_ticks >= ROOM_TICKS || self.idle_ticks >= IDLE_TICKS) && signal.probe < PROBE_DOUBTFUL;
        let heavy = (demand.heavy_unmet && is_short || is_used(demand.peak)) && has_room;
        // Below its start L returns without demand, or the first burst after a quiet storm's end would be refused.
        let returns = self.value < self.start && has_room;
        if self.calm_ticks < CALM_TICKS {
            return Step::Hold;
        }
        if self.duty < 1.0 || self.floors < 1.0 {
            return Step::Hold;
        }
        if !(light || heavy || returns) {
            return Step::Hold;
        }
        let unmet = demand.light_unmet && light || demand.heavy_unmet && is_short;
        let (growth, least) = match is_near(self.height, self.value) {
            true => (GROWTH_NEAR, 0.25),
            false if unmet && self.idle_ticks >= IDLE_TICKS => (GROWTH_IDLE, 1.0),
            false if demand.light_unmet && light => (GROWTH_WELL, 1.0),
            false => (GROWTH, 1.0),
        };
        self.set(self.value + (self.value * growth).max(least));
        Step::Grow
    }
}

/// Whether a value is near where the last cut began.
fn is_near(height: Option<(f64, u32)>, value: f64) -> bool {
    height.is_some_and(|(height, _)| (NEAR.0 * height..NEAR.1 * height).contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(start: u32) -> Limit {
        Limit::new(&LimitSettings { start: Seats(start), ..LimitSettings::default() })
    }

    fn demand(peak: u32, light_unmet: bool) -> Demand {
        Demand { peak: Seats(peak), light_peak: Seats(peak), light_unmet, ..Demand::default() }
    }

    fn signal(pressure: f64) -> Signal {
        Signal { pressure, ratio: pressure.max(1.3), queue: 1.0, probe: 1.0, brake: false }
    }

    #[test]
    fn an_operator_bounds_or_fixes_the_limit_until_the_end() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        let until = Instant::from_nanos(1_000);
        limit.hold(Some(LimitHold { seats: Held::AtMost(Seats(40)), until }));
        assert_eq!(limit.seats(), Seats(40));
        (0..40).for_each(|_| _ = limit.step(signal(1.0), demand(40, true), &mut random));
        assert_eq!(limit.seats(), Seats(40), "it does not grow beyond");
        limit.step(signal(5.0), demand(40, true), &mut random);
        assert_eq!(limit.seats().0.cmp(&40), std::cmp::Ordering::Less, "and may still be cut");
        limit.hold(Some(LimitHold { seats: Held::Exactly(Seats(70)), until }));
        for pressure in [1.0, 2.0, 9.0] {
            limit.step(signal(pressure), demand(70, true), &mut random);
            assert_eq!(limit.seats(), Seats(70));
        }
        limit.set_min();
        assert_eq!(limit.seats(), Seats(70), "not even by the brake");
        assert!(!limit.end_hold(Instant::from_nanos(999)));
        assert!(limit.end_hold(until) && !limit.end_hold(until));
        assert_eq!(limit.seats(), Seats(70), "it goes on from where it is");
        limit.step(signal(5.0), demand(70, true), &mut random);
        assert!(limit.seats() < Seats(70));
    }

    #[test]
    fn heavy_demand_needs_room_and_light_demand_does_not() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        let heavy = Demand { heavy_unmet: true, peak: Seats(20), ..Demand::default() };
        let mut step = |ratio, demand| limit.step(Signal { ratio, ..signal(1.0) }, demand, &mut random);
        (1..ROOM_TICKS).for_each(|_| assert_eq!(step(1.5, heavy), Step::Hold));
        assert_eq!(step(1.5, heavy), Step::Grow);
        assert_eq!(
            step(9.0, heavy),
            Step::Hold,
            "nobody is harmed, but more LISTs at once would not be faster"
        );
        assert_eq!(step(9.0, demand(100, false)), Step::Grow);
    }

    #[test]
    fn a_storm_brings_four_hundred_seats_down_to_twenty_in_three_seconds() {
        let (mut limit, mut random) = (limit(400), Random::new(1));
        for _ in 0..12 {
            limit.step(signal(5.0), demand(1000, true), &mut random);
        }
        assert!(limit.seats() <= Seats(20), "{}", limit.seats());
        for _ in 0..100 {
            limit.step(signal(5.0), demand(1000, true), &mut random);
        }
        assert_eq!(limit.seats(), Seats(10), "and never below its least");
    }

    #[test]
    fn the_hold_band_holds() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        for pressure in [1.36, 1.45, 1.59] {
            assert_eq!(limit.step(signal(pressure), demand(100, true), &mut random), Step::Hold);
        }
        assert_eq!(limit.seats(), Seats(100));
    }

    #[test]
    fn growth_needs_calm_and_demand() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        assert_eq!(
            limit.step(signal(1.0), demand(100, false), &mut random),
            Step::Hold,
            "one calm tick is not calm"
        );
        assert_eq!(limit.step(signal(1.0), demand(100, false), &mut random), Step::Grow);
        assert_eq!(limit.step(signal(1.0), demand(10, false), &mut random), Step::Hold, "nobody needs it");
        assert_eq!(
            limit.step(signal(1.0), demand(10, true), &mut random),
            Step::Grow,
            "somebody was refused"
        );
        assert_eq!(limit.seats(), Seats(112));
    }

    #[test]
    fn a_steep_cut_forgets_head_room_that_nobody_used() {
        let (mut limit, mut random) = (limit(1000), Random::new(1));
        limit.step(signal(4.0), demand(40, false), &mut random);
        assert!(limit.seats() <= Seats(80), "{}", limit.seats());
    }

    #[test]
    fn a_mild_cut_takes_an_eighth_of_what_is_in_use_and_a_third_of_what_is_not() {
        let cut = |peak| {
            let (mut limit, mut random) = (limit(200), Random::new(1));
            assert_eq!(limit.step(signal(2.0), demand(peak, true), &mut random), Step::Cut);
            limit.value()
        };
        assert!((190.0..200.0).contains(&cut(200)), "{}", cut(200));
        assert!((130.0..140.0).contains(&cut(20)), "{}", cut(20));
    }

    #[test]
    fn cuts_are_faster_than_growth() {
        let (mut limit, mut random) = (limit(400), Random::new(1));
        let mut cuts = 0;
        while limit.seats() > Seats(100) {
            limit.step(signal(4.0), demand(1000, true), &mut random);
            cuts += 1;
        }
        let mut growths = 0;
        while limit.seats() < Seats(400) {
            limit.step(signal(1.0), demand(1000, true), &mut random);
            growths += 1;
        }
        assert!(growths >= 7 * cuts, "{cuts} cuts, {growths} growths");
    }

    #[test]
    fn a_cut_waits_until_the_one_before_has_drained() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        let full = Demand { used: Seats(200), ..demand(200, true) };
        let mut steps = |pressure| limit.step(signal(pressure), full, &mut random);
        assert_eq!([steps(2.0), steps(2.0), steps(2.0)], [Step::Cut, Step::Hold, Step::Hold]);
        assert_eq!(steps(5.0), Step::Cut, "unless it is urgent");
        assert_eq!(
            [steps(2.0), steps(2.0), steps(2.0), steps(2.0)],
            [Step::Hold, Step::Hold, Step::Hold, Step::Cut]
        );
        let drained = Demand { used: Seats(20), ..full };
        assert_eq!(limit.step(signal(2.0), drained, &mut random), Step::Cut);
    }

    #[test]
    fn growth_is_slow_near_the_last_cut_and_free_beyond_it() {
        let (mut limit, mut random) = (limit(200), Random::new(1));
        limit.step(signal(2.0), demand(200, true), &mut random);
        let mut ticks = [0, 0];
        while limit.value() < 300.0 {
            limit.step(signal(1.0), demand(200, true), &mut random);
            ticks[usize::from(limit.value() > 220.0)] += 1;
        }
        assert!(ticks[0] > 6 && ticks[1] < 10, "{ticks:?}");
    }

    #[test]
    fn a_saturated_process_is_trimmed_to_its_queue_where_somebody_is_refused_anyway() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        let full = Signal { ratio: 10.0, queue: 10.0, probe: 10.0, ..signal(1.0) };
        assert_eq!(limit.step(full, demand(100, false), &mut random), Step::Hold, "nobody is refused");
        assert_eq!(limit.step(full, demand(100, true), &mut random), Step::Cut);
        let delayed = Signal { queue: 1.0, probe: 1.0, ..full };
        assert_eq!(limit.step(delayed, demand(100, true), &mut random), Step::Grow, "the process is well");
        let busy = Signal { queue: 2.5, probe: 2.5, ..full };
        assert_eq!(
            limit.step(busy, demand(100, true), &mut random),
            Step::Hold,
            "a full server is held there"
        );
    }

    #[test]
    fn below_one_heavy_request_at_a_time_they_pause_and_return_before_the_limit_grows() {
        let (mut limit, mut random) = (limit(10), Random::new(1));
        let heavy = Demand { heavy_unmet: true, ..demand(10, true) };
        (0..80).for_each(|_| _ = limit.step(signal(2.5), heavy, &mut random));
        assert_eq!((limit.seats(), limit.heavy_duty()), (Seats(10), DUTY_MIN));
        let mut grown = 0;
        while limit.heavy_duty() < 1.0 {
            assert_eq!(limit.seats(), Seats(10));
            limit.step(signal(1.0), heavy, &mut random);
            grown += 1;
        }
        assert!((80..150).contains(&grown), "{grown} ticks");
        limit.step(signal(1.0), heavy, &mut random);
        assert!(limit.value() > 10.0);
    }

    #[test]
    fn floors_shrink_only_at_the_least_limit_and_return_before_it_grows() {
        let (mut limit, mut random) = (limit(400), Random::new(1));
        let busy = demand(400, true);
        while !limit.is_least() {
            assert_eq!(limit.floors(), 1.0, "L falls first");
            limit.step(signal(2.5), busy, &mut random);
        }
        (0..40).for_each(|_| _ = limit.step(signal(2.5), demand(10, false), &mut random));
        assert_eq!(limit.floors(), 1.0, "nobody light waits: floors are not what hurts");
        (0..40).for_each(|_| _ = limit.step(signal(2.5), demand(10, true), &mut random));
        assert_eq!(limit.floors(), FLOORS_MIN);
        let mut grown = 0;
        while limit.floors() < 1.0 {
            assert!(limit.is_least(), "floors return first");
            limit.step(signal(1.0), demand(10, true), &mut random);
            grown += 1;
        }
        assert!((90..150).contains(&grown), "{grown} ticks");
        limit.step(signal(1.0), demand(10, true), &mut random);
        assert!(!limit.is_least());
    }

    /// Each heavy request is harm while it runs. Expected: they run about a third to a half of the time, not never.
    #[test]
    fn duty_settles_where_mean_pressure_is_in_the_band() {
        let (mut limit, mut random) = (limit(10), Random::new(1));
        let heavy = Demand { heavy_unmet: true, ..demand(10, false) };
        let mut mean = 0.0;
        for tick in 0..800 {
            // A run of two ticks, then the pause that duty asks for.
            let is_running = f64::from(tick % 8) < 8.0 * limit.heavy_duty();
            limit.step(signal(if is_running { 2.2 } else { 1.0 }), heavy, &mut random);
            mean += if tick >= 400 { limit.heavy_duty() / 400.0 } else { 0.0 };
        }
        assert!((0.25..0.6).contains(&mean), "{mean}");
    }

    #[test]
    fn a_server_that_notices_nothing_is_filled_quickly() {
        let (mut limit, mut random) = (limit(64), Random::new(1));
        let idle = Signal { ratio: 1.0, ..signal(1.0) };
        let heavy = Demand { heavy_unmet: true, ..demand(30, false) };
        (0..IDLE_TICKS).for_each(|_| _ = limit.step(idle, heavy, &mut random));
        let before = limit.value();
        limit.step(idle, heavy, &mut random);
        assert!(limit.value() > 1.2 * before);
    }

    #[test]
    fn a_process_that_lost_its_processors_is_cut_to_its_queue_at_once() {
        let (mut limit, mut random) = (limit(900), Random::new(1));
        let lost = Signal { ratio: 50.0, queue: 50.0, ..signal(2.0) };
        let full = Demand { used: Seats(470), ..demand(470, true) };
        limit.step(lost, full, &mut random);
        assert!(limit.value() < 150.0, "{}", limit.value());
    }
}
