//! Is every answer late by the same time, however few are in flight?
//!
//! A queue is as long as what stands in it: with fewer in flight it gets shorter. A delay that somebody else makes (an
//! authenticator, a network, a neighbour) does not. So the time of the `/livez` probe is kept beside the seats that were
//! in use while it was under way. A time that stays the same while those seats vary is no queue of ours, and no cut
//! cures it. This is the covariance of Cinnamon's auto-tuner, taken between times and what is in flight, and said only
//! where it is beyond doubt: one time that fell with the cut, and nothing is said until all was quick again.
//!
//! The seats vary by themselves when the delay begins (each call is in flight longer), and by the cut.

use super::tick::TICK;

/// How much the times may vary to be called the same: a machine with work to do adds some milliseconds to each.
const STEADY: f64 = 1.2;
/// By how much what was in flight must have varied. A queue that it makes would vary by as much.
const VARIED: f64 = 1.25;
/// Times that must be the same: one and a half seconds of them.
const READINGS: u32 = 6;
/// Times outside the band, one after another, that are believed: one may be a pause of the garbage collector.
const BELIEVED: u32 = 2;
/// Quick times, one after another, after which all that was seen is over: two seconds.
const OVER: u32 = 8;
/// Ticks whose seats are kept: a probe that takes longer than two seconds is the brake's business.
const KEPT: usize = 8;

/// What the probe took since it became slow, and what was in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Delay {
    /// Seats in use at the last ticks, the latest first.
    used: [f64; KEPT],
    /// How many of them there were.
    ticks: usize,
    readings: u32,
    /// The quickest and the slowest of the times that are the same, in microseconds.
    band: (f64, f64),
    /// The two smallest numbers of seats beside them, and the two largest: one alone may be chance.
    fewest: [f64; 2],
    most: [f64; 2],
    /// Times outside the band, below and above it, on end.
    outside: (u32, u32),
    quick: u32,
    /// The time fell with the cut.
    follows: bool,
}

impl Delay {
    /// A tick: seats in use, the time of a probe that was answered since the last one, and whether that is slow.
    pub(super) fn tick(&mut self, used: f64, answered: Option<f64>, slow: bool) {
        self.used.rotate_right(1);
        self.used[0] = used;
        self.ticks = (self.ticks + 1).min(KEPT);
        let Some(micros) = answered else { return };
        self.quick = if slow { 0 } else { self.quick + 1 };
        if self.quick >= OVER {
            *self = Self { used: self.used, ticks: self.ticks, quick: OVER, ..Self::default() };
        }
        if self.readings == 0 {
            if slow {
                self.begin(micros);
            }
            return;
        }
        let (quickest, slowest) = (self.band.0.min(micros), self.band.1.max(micros));
        if slow && slowest <= STEADY * quickest {
            self.band = (quickest, slowest);
            self.outside = (0, 0);
            self.note(micros);
            return;
        }
        self.outside = match micros < self.band.0 {
            true => (self.outside.0 + 1, 0),
            false => (0, self.outside.1 + 1),
        };
        self.follows |= self.outside.0 >= BELIEVED;
        if self.outside.1 >= BELIEVED {
            self.begin(micros);
        }
    }

    /// Whether the time is the same whatever is in flight.
    pub(super) fn is_constant(&self) -> bool {
        // One more on both sides: the probe itself.
        let varied = self.most[1] + 1.0 >= VARIED * (self.fewest[1] + 1.0);
        !self.follows && self.readings >= READINGS && varied
    }

    fn begin(&mut self, micros: f64) {
        (self.readings, self.band, self.outside) = (0, (micros, micros), (0, 0));
        (self.fewest, self.most) = ([f64::INFINITY; 2], [0.0; 2]);
        self.note(micros);
    }

    /// A time that is the same, with the mean of what was in flight while its probe was under way.
    fn note(&mut self, micros: f64) {
        let ticks = (micros / TICK.as_micros() as f64).ceil() as usize + 1;
        let life = &self.used[..ticks.clamp(1, self.ticks.max(1))];
        let seats = life.iter().sum::<f64>() / life.len() as f64;
        if seats < self.fewest[1] {
            self.fewest = [self.fewest[0].min(seats), self.fewest[0].max(seats)];
        }
        if seats > self.most[1] {
            self.most = [self.most[0].max(seats), self.most[0].min(seats)];
        }
        self.readings = self.readings.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tick at which a delay is called constant, when each tick has `(seats, milliseconds)`.
    fn called(ticks: impl IntoIterator<Item = (f64, f64)>) -> Option<usize> {
        let mut delay = Delay::default();
        ticks.into_iter().position(|(used, millis)| {
            delay.tick(used, Some(millis * 1e3), millis >= 250.0);
            delay.is_constant()
        })
    }

    #[test]
    fn the_same_time_with_fewer_in_flight_is_a_delay() {
        let ticks = (0..40).map(|tick| (if tick < 8 { 16.0 } else { 12.0 }, 400.0 + f64::from(tick % 3)));
        assert!(called(ticks).is_some_and(|tick| (8..14).contains(&tick)));
    }

    #[test]
    fn a_delay_that_has_just_begun_shows_while_its_calls_pile_up() {
        let ticks = (0..40).map(|tick| (f64::from(tick).min(20.0), 400.0));
        assert!(called(ticks).is_some_and(|tick| tick < 8));
    }

    #[test]
    fn the_same_time_with_the_same_in_flight_says_nothing() {
        assert_eq!(called((0..400).map(|tick| (16.0 + f64::from(tick % 3), 400.0))), None);
    }

    #[test]
    fn a_queue_that_gets_shorter_with_the_cut_is_none_and_stays_none() {
        // 100 readers at 6 ms each, cut to ten; then cheap calls come and go beside them at an unchanged time.
        let cut = (0..30)
            .map(|tick| 100.0 * 0.85f64.powi(tick))
            .map(|used| (used.max(10.0), 30.0 * used.max(10.0)));
        let steady = (0..400).map(|tick| (if tick % 8 < 4 { 10.0 } else { 15.0 }, 300.0));
        assert_eq!(called(cut.chain(steady)), None);
    }

    #[test]
    fn a_wait_for_processors_varies() {
        let ticks = (0..400)
            .map(|tick| (if tick % 2 == 0 { 10.0 } else { 20.0 }, 260.0 + f64::from(tick * 37 % 300)));
        assert_eq!(called(ticks), None);
    }

    #[test]
    fn one_time_outside_is_chance_and_what_was_seen_ends_with_calm() {
        let odd = |tick: i32| if tick == 5 { 900.0 } else { 400.0 };
        assert!(called((0..40).map(|tick| (if tick < 8 { 16.0 } else { 12.0 }, odd(tick)))).is_some());
        let mut delay = Delay::default();
        let mut play = |used: f64, millis: f64, ticks: u32| {
            (0..ticks).for_each(|_| delay.tick(used, Some(millis * 1e3), millis >= 250.0));
            delay.is_constant()
        };
        assert!(!play(100.0, 900.0, 8) && !play(40.0, 400.0, 8), "it fell");
        assert!(!play(5.0, 2.0, OVER), "calm");
        assert!(!play(16.0, 400.0, 4) && play(8.0, 400.0, 6), "a delay of another day");
    }
}
