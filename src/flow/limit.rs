//! How many seats may be in use now?
//!
//! One law a tick, on pressure P: far above calm the limit falls by a quarter, above it by up to an eighth, just
//! above it is held, and in calm it grows by 4 % if somebody wanted more. Cuts are seven times faster than
//! growth, which with the hold band keeps it from cycling (asymmetric gains as in AIMD; the +25 % buffer that Envoy
//! had to add to its gradient is the hold band here). The cut is jittered, so that several proxies in front of one
//! etcd do not move in step.
//!
//! Not here: the controllability test, pacing below one heavy request, tolerance. They get their place in `step`.

use super::pressure::{BROWN, CALM, Signal};
use super::random::Random;
use super::settings::LimitSettings;
use crate::units::Seats;

/// Pressure beyond which the limit falls steeply.
const STEEP: f64 = 3.0;
/// The steep cut: from 400 to 20 seats in 2.6 s.
const STEEP_CUT: f64 = 0.25;
/// The most that the mild cut takes.
const MILD_CUT: f64 = 0.12;
/// Growth a tick: doubling in 4.5 s.
const GROWTH: f64 = 0.04;
/// Calm ticks before growth begins.
const CALM_TICKS: u32 = 2;
/// Share of the limit that must have been in use to make it grow: an unused limit proves nothing.
const USED_SHARE: f64 = 0.6;
/// Heavy requests make the limit grow only while calls take less than twice their calm time. Light ones need no
/// such proof: they are cheap, and a constant delay would otherwise hold down a server that has room. But heavy
/// ones that wait for each other gain nothing from more of them, and each one takes memory of the apiserver.
const ROOM: f64 = 2.0;
/// A cut starts at no more than this many times the seats that were in use: unused head-room is not capacity.
const HEAD_ROOM: f64 = 2.0;
/// Jitter of a cut.
const JITTER: f64 = 0.1;

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
}

impl Limit {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        let mut limit =
            Self { value: f64::from(settings.start.0), bounds: (0.0, 0.0), start: 0.0, calm_ticks: 0 };
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

    pub(super) fn set(&mut self, value: f64) {
        self.value = value.clamp(self.bounds.0, self.bounds.1);
    }

    pub(super) fn set_min(&mut self) {
        self.value = self.bounds.0;
        self.calm_ticks = 0;
    }

    /// One tick of the law.
    pub(super) fn step(&mut self, signal: Signal, demand: Demand, random: &mut Random) -> Step {
        let Signal { pressure, ratio } = signal;
        if pressure < CALM {
            self.calm_ticks += 1;
            return self.grow(ratio, demand);
        }
        self.calm_ticks = 0;
        if pressure <= BROWN {
            return Step::Hold;
        }
        let cut = if pressure > STEEP { STEEP_CUT } else { MILD_CUT * (pressure / BROWN - 1.0).min(1.0) };
        let base = self.value.min(HEAD_ROOM * f64::from(demand.peak.0)).max(self.bounds.0);
        self.set(base * (1.0 - cut * (1.0 + JITTER * random.signed_unit())));
        Step::Cut
    }

    fn grow(&mut self, ratio: f64, demand: Demand) -> Step {
        // Refusals count as demand: telemetry alone may fill no more than its own 60 %, and a limit that waits
        // for more than that would hold it down on a server with room.
        let is_used = |peak: Seats| f64::from(peak.0) > USED_SHARE * self.value;
        let light = demand.light_unmet || is_used(demand.light_peak);
        let heavy = demand.heavy_unmet || is_used(demand.peak);
        // Below its start L returns without demand, or the first burst after a quiet storm's end would be refused.
        let wanted = light || heavy && ratio < ROOM || self.value < self.start;
        if self.calm_ticks < CALM_TICKS || !wanted {
            return Step::Hold;
        }
        self.set(self.value + (self.value * GROWTH).max(1.0));
        Step::Grow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(start: u32) -> Limit {
        Limit::new(&LimitSettings { start: Seats(start), ..LimitSettings::default() })
    }

    fn demand(peak: u32, light_unmet: bool) -> Demand {
        Demand { peak: Seats(peak), light_peak: Seats(peak), light_unmet, heavy_unmet: false }
    }

    fn signal(pressure: f64) -> Signal {
        Signal { pressure, ratio: pressure }
    }

    #[test]
    fn heavy_demand_needs_room_and_light_demand_does_not() {
        let (mut limit, mut random) = (limit(100), Random::new(1));
        let heavy = Demand { heavy_unmet: true, ..Demand::default() };
        let mut step = |ratio, demand| limit.step(Signal { pressure: 1.0, ratio }, demand, &mut random);
        step(1.0, heavy);
        assert_eq!(step(1.0, heavy), Step::Grow);
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
        assert_eq!(limit.seats(), Seats(108));
    }

    #[test]
    fn a_cut_forgets_head_room_that_nobody_used() {
        let (mut limit, mut random) = (limit(1000), Random::new(1));
        limit.step(signal(2.0), demand(40, false), &mut random);
        assert!(limit.seats() <= Seats(80), "{}", limit.seats());
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
}
