//! When may the next heavy request start?
//!
//! A count of requests in flight cannot go below one, and on a small server one heavy request after the other is
//! already too much: each takes a third of a core-second, and a lease that meets it waits. So heavy requests
//! have a **duty** besides their count, the part of the time during which they may run: after one that ran for t, none
//! starts for t · (1/duty − 1), and while the duty is below one they run one at a time. A quick one pauses the others
//! briefly, so a stranger whose LIST turns out small costs nobody a turn. The limit law sets the duty (1: no pause).
//!
//! A watch that goes on streaming pays here too, for what it delivers.

use std::time::Duration;

use crate::units::{Instant, Seats};

/// The longest pause that lies ahead at any moment: whatever ran, and however long, somebody goes after this.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The least duty that is believed: a twentieth is 0.14 LISTs of a third of a second a second.
const DUTY_MIN: f64 = 0.05;
/// Apiserver time for each byte that a watch delivers, in nanoseconds (10 ms a megabyte: facts on serialisation).
const NANOS_PER_BYTE: u64 = 10;

/// How long a heavy request is taken to run, and on how many seats, before one did: a LIST of 5,000 pods.
const FIRST: (f64, f64) = (0.4, 10.0);
/// Weight of the latest in both means.
const FRESH: f64 = 1.0 / 16.0;

/// The pauses between heavy requests.
#[derive(Debug)]
pub(super) struct Pace {
    duty: f64,
    opens: Instant,
    /// Mean time in seconds that heavy requests ran, and mean seats.
    mean: (f64, f64),
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { duty: 1.0, opens: Instant::ORIGIN, mean: FIRST }
    }

    /// The part of the time during which heavy requests may run, in (0, 1].
    pub(super) fn set_duty(&mut self, duty: f64) {
        // Written so that a number that is none counts as one.
        self.duty = if duty < 1.0 { duty.max(DUTY_MIN) } else { 1.0 };
        if !self.is_paced() {
            self.opens = Instant::ORIGIN;
        }
    }

    pub(super) fn duty(&self) -> f64 {
        self.duty
    }

    /// Whether heavy requests run one at a time.
    pub(super) fn is_paced(&self) -> bool {
        self.duty < 1.0
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        now >= self.opens
    }

    /// When the pause is over; a time in the past means that there is none.
    pub(super) fn opens(&self) -> Instant {
        self.opens
    }

    /// How many heavy requests a second `share` seats can serve.
    pub(super) fn rate(&self, share: Seats) -> f64 {
        let (seconds, seats) = self.mean;
        let side_by_side = if self.is_paced() { 1.0 } else { (f64::from(share.0) / seats).max(1.0) };
        side_by_side * self.duty / seconds.max(0.001)
    }

    /// A heavy request ended that ran for `time` on `seats`.
    pub(super) fn ran(&mut self, now: Instant, time: Duration, seats: Seats) {
        self.mean.0 += (time.min(PAUSE_MAX).as_secs_f64() - self.mean.0) * FRESH;
        self.mean.1 += (f64::from(seats.0) - self.mean.1) * FRESH;
        self.pause(now, time.min(PAUSE_MAX).mul_f64(1.0 / self.duty - 1.0));
    }

    /// A watch delivered `bytes` beyond its first burst: work that no pause has followed and no count has bounded.
    pub(super) fn delivered(&mut self, now: Instant, bytes: u64) {
        let time = Duration::from_nanos(bytes.saturating_mul(NANOS_PER_BYTE)).min(PAUSE_MAX);
        self.pause(now, time.div_f64(self.duty));
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        if self.is_paced() {
            self.opens = (self.opens.max(now) + pause.min(PAUSE_MAX)).min(now + PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEATS: Seats = Seats(10);

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    #[test]
    fn a_quarter_of_the_time_means_three_times_the_run_as_pause() {
        let mut pace = Pace::new();
        pace.set_duty(0.25);
        pace.ran(at(1_000), Duration::from_millis(400), SEATS);
        assert!(!pace.is_open(at(2_199)) && pace.is_open(at(2_200)));
        // What was quick pauses briefly.
        pace.ran(at(3_000), Duration::from_millis(4), SEATS);
        assert!(pace.is_open(at(3_012)));
    }

    #[test]
    fn a_full_duty_never_pauses_and_ends_the_pause_that_lasts() {
        let mut pace = Pace::new();
        pace.ran(at(1_000), Duration::from_secs(9), SEATS);
        pace.delivered(at(1_000), 100_000_000);
        assert!(pace.is_open(at(1_000)));
        pace.set_duty(0.5);
        pace.ran(at(1_000), Duration::from_secs(2), SEATS);
        assert!(!pace.is_open(at(2_000)));
        pace.set_duty(1.0);
        assert!(pace.is_open(at(2_000)));
    }

    #[test]
    fn no_pause_is_longer_than_its_bound_and_no_duty_is_nothing() {
        let mut pace = Pace::new();
        for duty in [0.0, -1.0, f64::MIN_POSITIVE] {
            pace.set_duty(duty);
            (0..10).for_each(|_| pace.ran(at(1_000), Duration::from_secs(600), SEATS));
            assert_eq!(pace.opens(), at(6_000));
        }
        pace.set_duty(f64::NAN);
        assert!(!pace.is_paced());
    }

    #[test]
    fn what_a_watch_streams_pauses_the_others() {
        let mut pace = Pace::new();
        pace.set_duty(0.5);
        pace.delivered(at(0), 10_000_000);
        assert_eq!(pace.opens(), at(200), "100 ms of work at half of the time");
    }

    #[test]
    fn the_rate_follows_what_ran() {
        let mut pace = Pace::new();
        assert!((pace.rate(Seats(5)) - 2.5).abs() < 0.01, "one at a time, 0.4 s each");
        assert!((pace.rate(Seats(40)) - 10.0).abs() < 0.01, "four side by side");
        (0..200).for_each(|_| pace.ran(at(0), Duration::from_millis(200), SEATS));
        assert!((pace.rate(Seats(5)) - 5.0).abs() < 0.1);
        pace.set_duty(0.5);
        assert!((pace.rate(Seats(40)) - 2.5).abs() < 0.1, "paced: one at a time, half of the time");
    }
}
