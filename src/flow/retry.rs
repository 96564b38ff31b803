//! When should a refused client come back?
//!
//! client-go sleeps exactly the whole seconds of `Retry-After`, ten times, without jitter of its own. So the spread
//! must come from here, and the size must be one that returning clients can meet: a constant 30 s drains
//! 4,000 clients in 941 s, a draw sized by the backlog in 80 s (Monte-Carlo in the project's facts on retries).
//!
//! A refusal is an **appointment**. Per lane and weight class a book counts the clients that were told to come back and
//! have not been due yet, and the rate at which such requests are let in; the next one is told to come when
//! all before it have had their turn: backlog / rate, a fifth earlier or later. So clients return as fast as
//! they can be served: each costs one refusal a success, and no herd forms, however many came at once. Who returns
//! early is in the book already and does not count again (`returns`).
//!
//! The rate is what the lane was seen to admit, or what it could (`spare`), whichever is more: a rate that is too
//! high costs another refusal, one that is too low leaves seats idle.

use std::time::Duration;

use super::random::Random;
use crate::policy::Lane;

/// Longest time told by the lanes whose clients renew leases of 10 to 40 s.
const CAP_HIGH: f64 = 8.0;
/// The same for their LISTs, of which the high lanes have few, and for other work.
const CAP_MIDDLE: f64 = 30.0;
/// Longest for light requests of the lanes that give way first.
const CAP_LOW: f64 = 60.0;
/// And for their LISTs: 500 agents that want 0.36 core-seconds each keep one core busy for three minutes.
const CAP_LOW_LISTS: f64 = 120.0;
/// Longest single header for a client that must wait for its own rate.
const HEADER_MAX_SECONDS: u32 = 60;
/// How far a time told is spread, each way: whole seconds alone would make small herds.
const SPREAD: f64 = 0.2;
/// Seconds over which the admitted rate is averaged.
const RATE_SECONDS: f64 = 4.0;
/// A lane is never taken to admit fewer than these a second, light and heavy: the first storm finds no history.
const RATE_MIN: [f64; 2] = [5.0, 0.2];
/// Between these the booked part of the rate moves: up while seats idle, down when an appointment is not met.
const BOOKED: (f64, f64) = (0.8, 1.1);
const BOOK_MORE: f64 = 0.02;
const BOOK_LESS: f64 = 0.01;
/// While its lane is closed, a client is told a time between an eighth and half of the cap: no rate is known.
const CLOSED: (f64, f64) = (0.125, 0.5);

/// One weight class of one lane.
#[derive(Clone, Copy, Debug)]
struct Book {
    /// Clients told to come that are not due yet.
    backlog: f64,
    /// Admitted a second.
    rate: f64,
    /// What could be admitted a second, where that is known.
    spare: f64,
    least: f64,
    cap: f64,
    /// The part of that rate that is given to appointments. Clients without one fill gaps, and when many do, an
    /// appointment meets a full lane; when none does, gaps stay.
    booked: f64,
    admitted: u32,
}

impl Book {
    fn new(cap: f64, least: f64) -> Self {
        Self { backlog: 0.0, rate: 0.0, spare: 0.0, least, cap, booked: 1.0, admitted: 0 }
    }

    fn served(&self) -> f64 {
        self.rate.max(self.spare).max(self.least) * self.booked
    }

    fn tick(&mut self, passed: f64, spare: f64) {
        let weight = (passed / RATE_SECONDS).min(1.0);
        self.rate += (f64::from(std::mem::take(&mut self.admitted)) / passed - self.rate) * weight;
        self.spare = spare;
        let served = self.served();
        self.backlog = (self.backlog - served * passed).clamp(0.0, self.cap * served);
    }

    fn book(&mut self, by: f64) {
        self.booked = (self.booked + by).clamp(BOOKED.0, BOOKED.1);
    }

    fn appointment(&mut self, is_booked: bool, random: &mut Random) -> u32 {
        let served = self.served();
        if !is_booked {
            self.backlog = (self.backlog + 1.0).min(self.cap * served);
        }
        let wait = self.backlog / served;
        let low = ((1.0 - SPREAD) * wait) as u32;
        let high = ((1.0 + SPREAD) * wait).min(self.cap).ceil() as u32;
        // At least three values, or a wait of one second would send everybody back in two herds.
        random.between(low.max(1), high.max(low.max(1) + 2))
    }
}

/// When a refused client may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// When its appointment comes.
    Book,
    /// When its own rate, or somebody else's state, allows it: then or later.
    Rate(Duration),
    /// When its turn comes, exactly then.
    Turn(Duration),
}

/// How a refused client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It gets an appointment.
    New,
    /// It kept one, in vain, and gets another.
    InVain,
    /// It has one, came early, and is told a new time in its place.
    Again,
    /// Its lane is closed.
    Closed,
}

/// The `Retry-After` of one lane.
#[derive(Clone, Debug)]
pub(super) struct Retry([Book; 2]);

impl Retry {
    pub(super) fn new(lane: Lane) -> Self {
        let [light, heavy] = match lane {
            Lane::Unknown | Lane::Telemetry => [CAP_LOW, CAP_LOW_LISTS],
            Lane::Workload => [CAP_HIGH, CAP_LOW],
            Lane::Platform => [CAP_HIGH, CAP_MIDDLE],
            _ => [CAP_HIGH, CAP_HIGH],
        };
        Self([Book::new(light, RATE_MIN[0]), Book::new(heavy, RATE_MIN[1])])
    }

    pub(super) fn admitted(&mut self, heavy: bool) {
        self.0[usize::from(heavy)].admitted += 1;
    }

    /// A request is refused for want of seats: the seconds to tell its client.
    pub(super) fn refused(&mut self, heavy: bool, told: Told, random: &mut Random) -> u32 {
        let book = &mut self.0[usize::from(heavy)];
        match told {
            Told::New => book.appointment(false, random),
            Told::InVain => {
                book.book(-BOOK_LESS);
                book.appointment(false, random)
            }
            Told::Again => book.appointment(true, random),
            Told::Closed => {
                let (low, high) = (CLOSED.0 * book.cap, CLOSED.1 * book.cap);
                random.between(low.max(1.0) as u32, high.max(3.0) as u32)
            }
        }
    }

    /// A client has to wait for its own rate: that long, and up to as long again.
    pub(super) fn refused_for(wait: Duration, random: &mut Random) -> u32 {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let low = seconds.clamp(1, HEADER_MAX_SECONDS / 2);
        random.between(low, 2 * low + 1)
    }

    /// Seats for heavy requests idle, and nobody waits for them.
    pub(super) fn idles(&mut self) {
        self.0[1].book(BOOK_MORE);
    }

    /// A client's turn comes after `wait`.
    pub(super) fn refused_until(wait: Duration, random: &mut Random) -> u32 {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).min(HEADER_MAX_SECONDS) + 1;
        random.between(seconds, seconds + 2)
    }

    /// `passed` is over, and the lane could admit `spare` heavy requests a second. Returns how many it did.
    pub(super) fn tick(&mut self, passed: Duration, spare: f64) -> f64 {
        let passed = passed.as_secs_f64();
        if passed > 0.0 {
            self.0[0].tick(passed, 0.0);
            self.0[1].tick(passed, spare);
        }
        self.0[1].rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    fn lane(lane: Lane) -> (Retry, Random) {
        (Retry::new(lane), Random::new(1))
    }

    #[test]
    fn a_first_refusal_is_short_and_spread() {
        let mut seen = [0; 4];
        for seed in 0..300 {
            let header = Retry::new(Lane::Telemetry).refused(false, Told::New, &mut Random::new(seed));
            seen[header as usize] += 1;
        }
        assert!(seen[1..].iter().all(|&count| count > 60), "{seen:?}");
    }

    #[test]
    fn who_comes_at_once_is_told_to_return_one_after_the_other() {
        let (mut retry, mut random) = lane(Lane::Telemetry);
        retry.tick(TICK, 5.0);
        let headers: Vec<_> = (0..400).map(|_| retry.refused(true, Told::New, &mut random)).collect();
        for tenth in 0..8u32 {
            let due =
                headers.iter().filter(|&&header| (10 * tenth..10 * tenth + 10).contains(&header)).count();
            assert!(
                (25..=80).contains(&due),
                "{due} of 400 in ten seconds that serve 50, from {tenth}0 s on"
            );
        }
    }

    #[test]
    fn the_backlog_shrinks_as_its_appointments_pass_and_never_exceeds_the_cap() {
        let (mut retry, mut random) = lane(Lane::Platform);
        (0..10_000).for_each(|_| {
            let header = retry.refused(false, Told::New, &mut random);
            assert!((1..=9).contains(&header), "{header}");
        });
        (0..40).for_each(|_| _ = retry.tick(TICK, 0.0));
        assert!(retry.refused(false, Told::New, &mut random) <= 3);
    }

    #[test]
    fn early_returns_do_not_lengthen_the_wait_of_others() {
        let (mut retry, mut random) = lane(Lane::Telemetry);
        (0..10_000).for_each(|_| _ = retry.refused(true, Told::Again, &mut random));
        assert!(retry.refused(true, Told::New, &mut random) <= 8);
    }

    #[test]
    fn the_rate_that_is_seen_sizes_the_wait() {
        let (mut retry, mut random) = lane(Lane::Telemetry);
        for _ in 0..80 {
            (0..5).for_each(|_| retry.admitted(false));
            retry.tick(TICK, 0.0);
        }
        (0..200).for_each(|_| _ = retry.refused(false, Told::New, &mut random));
        let header = retry.refused(false, Told::New, &mut random);
        assert!((8..=13).contains(&header), "201 at 20 a second: {header}");
    }

    #[test]
    fn a_closed_lane_knows_no_rate() {
        let (mut retry, mut random) = lane(Lane::Telemetry);
        let headers: Vec<_> = (0..1_000).map(|_| retry.refused(false, Told::Closed, &mut random)).collect();
        assert!(headers.iter().all(|header| (7..=30).contains(header)), "{headers:?}");
        assert!(retry.refused(false, Told::New, &mut random) <= 3, "no appointment was made");
    }

    #[test]
    fn an_own_rate_is_waited_for() {
        let mut random = Random::new(4);
        let header = Retry::refused_for(Duration::from_millis(2500), &mut random);
        assert!((3..=7).contains(&header));
    }
}
