//! When should a refused client come back?
//!
//! client-go sleeps exactly the whole seconds of `Retry-After`, ten times, without jitter of its own. So the spread
//! must come from here, and the size must be one that returning clients can meet: a constant 30 s drains
//! 4,000 clients in 941 s, a draw sized by the backlog in 80 s (Monte-Carlo in the project's facts on retries).
//!
//! Per lane, a base `a` adapts every two seconds: doubled while many are refused, ×0.7 while few are; and never less
//! than what the distinct refused flows need to return at the rate at which the lane admits. A header is a
//! uniform draw from [a, 2a]. Distinct flows are counted by linear counting (Whang 1990) in a fixed bitmap.

use std::time::Duration;

use super::random::{Random, mix};
use crate::policy::Lane;
use crate::units::Instant;

/// How often the base adapts.
const PERIOD: Duration = Duration::from_secs(2);
/// Refusals a period that double the base (APF's dropped-requests tracker doubles likewise).
const MANY: u32 = 20;
/// Longest base for lanes whose clients renew leases of 10 to 40 s.
const CAP_SECONDS: f64 = 8.0;
/// Longest base for the lanes that give way first: ten tries of 30 s are within client-go's patience.
const CAP_LOW_SECONDS: f64 = 30.0;
/// Longest single header, also for a client that must wait for its own rate.
const HEADER_MAX_SECONDS: u32 = 60;
/// Periods after which the older half of the refused flows is forgotten: 14 to 28 s are remembered.
const ROTATE_PERIODS: u32 = 7;
/// Mean of a uniform draw from [a, 2a], in units of a.
const MEAN_DRAW: f64 = 1.5;

/// Bits of the distinct counter: within 5 % up to some 10,000 flows, saturating (harmlessly: the cap binds) above.
const BITS: usize = 4096;

#[derive(Clone, Debug)]
struct Distinct([u64; BITS / 64]);

impl Distinct {
    fn add(&mut self, hash: u64) {
        let bit = (mix(hash) % BITS as u64) as usize;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// How many distinct hashes both bitmaps have seen.
    fn count_with(&self, other: &Self) -> f64 {
        let set: u32 = self.0.iter().zip(&other.0).map(|(one, two)| (one | two).count_ones()).sum();
        let bits = BITS as f64;
        let unset = (bits - f64::from(set)).max(1.0);
        bits * (bits / unset).ln()
    }
}

/// The `Retry-After` of one lane.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    base: f64,
    cap: f64,
    /// What the backlog of refused flows needs.
    needed: f64,
    refused: u32,
    admitted: u32,
    admitted_per_second: f64,
    period_began: Instant,
    periods: u32,
    recent: Distinct,
    older: Distinct,
}

impl Retry {
    pub(super) fn new(lane: Lane, now: Instant) -> Self {
        Self {
            base: 1.0,
            cap: if lane >= Lane::Unknown { CAP_LOW_SECONDS } else { CAP_SECONDS },
            needed: 1.0,
            refused: 0,
            admitted: 0,
            admitted_per_second: 0.0,
            period_began: now,
            periods: 0,
            recent: Distinct([0; BITS / 64]),
            older: Distinct([0; BITS / 64]),
        }
    }

    pub(super) fn admitted(&mut self) {
        self.admitted += 1;
    }

    /// A flow is refused: the seconds to tell it.
    pub(super) fn refused(&mut self, flow: u64, random: &mut Random) -> u32 {
        self.refused += 1;
        self.recent.add(flow);
        let base = self.base.max(self.needed);
        let low = (base.floor() as u32).max(1);
        // At least three values, or a base of one second would send everybody back in two herds.
        let high = ((2.0 * base).ceil() as u32).max(low + 2);
        random.between(low, high)
    }

    /// A client has to wait for its own rate: that long, and up to as long again.
    pub(super) fn refused_for(wait: Duration, random: &mut Random) -> u32 {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let low = seconds.clamp(1, HEADER_MAX_SECONDS / 2);
        random.between(low, 2 * low + 1)
    }

    /// Adapts when a period is over.
    pub(super) fn tick(&mut self, now: Instant) {
        let passed = now.since(self.period_began);
        if passed < PERIOD {
            return;
        }
        let factor = if self.refused > MANY { 2.0 } else { 0.7 };
        self.base = (self.base * factor).clamp(1.0, self.cap);
        let rate = f64::from(self.admitted) / passed.as_secs_f64();
        self.admitted_per_second = 0.5 * (self.admitted_per_second + rate);
        let distinct = self.recent.count_with(&self.older);
        self.needed = (distinct / (MEAN_DRAW * self.admitted_per_second.max(0.1))).clamp(1.0, self.cap);
        self.periods += 1;
        if self.periods.is_multiple_of(ROTATE_PERIODS) {
            self.older = std::mem::replace(&mut self.recent, Distinct([0; BITS / 64]));
        }
        (self.refused, self.admitted, self.period_began) = (0, 0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// Refuses `flows` every tick for `seconds` and returns the last headers.
    fn storm(
        retry: &mut Retry,
        random: &mut Random,
        seconds: u32,
        flows: u64,
        now: &mut Instant,
    ) -> Vec<u32> {
        let mut headers = Vec::new();
        for _ in 0..seconds * 4 {
            *now = *now + TICK;
            headers = (0..flows).map(|flow| retry.refused(flow, random)).collect();
            retry.tick(*now);
        }
        headers
    }

    #[test]
    fn a_first_refusal_is_short_and_spread() {
        let mut random = Random::new(1);
        let mut retry = Retry::new(Lane::Telemetry, Instant::ORIGIN);
        let headers: Vec<u32> = (0..300).map(|flow| retry.refused(flow, &mut random)).collect();
        for value in 1..=3 {
            assert!(headers.iter().filter(|&&header| header == value).count() > 60, "{value} is drawn often");
        }
        assert!(headers.iter().all(|header| (1..=3).contains(header)));
    }

    #[test]
    fn the_base_grows_in_a_storm_up_to_the_lanes_cap_and_falls_after_it() {
        let (mut random, mut now) = (Random::new(2), Instant::ORIGIN);
        let mut low = Retry::new(Lane::Telemetry, now);
        let headers = storm(&mut low, &mut random, 60, 500, &mut now);
        assert!(headers.iter().all(|header| (30..=60).contains(header)), "{headers:?}");
        storm(&mut low, &mut random, 60, 0, &mut now);
        assert!(low.refused(1, &mut random) <= 3);

        let mut high = Retry::new(Lane::Workload, now);
        let headers = storm(&mut high, &mut random, 60, 500, &mut now);
        assert!(headers.iter().all(|header| (8..=16).contains(header)), "{headers:?}");
    }

    #[test]
    fn the_backlog_of_distinct_flows_sizes_the_wait() {
        let (mut random, mut now) = (Random::new(3), Instant::ORIGIN);
        let mut retry = Retry::new(Lane::Telemetry, now);
        // Eight new flows a second, refused rarely enough that the base alone would stay at 1; 10 are admitted a second.
        for tick in 0..80 {
            now = now + TICK;
            retry.admitted();
            retry.admitted();
            retry.admitted();
            retry.refused(2 * tick, &mut random);
            retry.refused(2 * tick + 1, &mut random);
            retry.tick(now);
        }
        let header = retry.refused(0, &mut random);
        assert!((7..=20).contains(&header), "some 150 flows at 12/s need about 8 s, told {header}");
    }

    #[test]
    fn an_own_rate_is_waited_for() {
        let mut random = Random::new(4);
        let header = Retry::refused_for(Duration::from_millis(2500), &mut random);
        assert!((3..=7).contains(&header));
    }
}
