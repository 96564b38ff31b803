//! How many bytes of answers may be in flight, so that the apiserver's memory lasts?
//!
//! kube-apiserver needs about five times the bytes of a LIST while it answers it, on top of its caches. The policy
//! says how many bytes may be in flight, or leaves it to this file: then it is a share of what the server has, where
//! that can be known (spillway runs on the same host), else what a small control-plane node can spare. A fixed
//! default must be small enough for 4 GiB, and then a server of 64 GiB serves two LISTs at a time.
//!
//! **A death teaches**: nobody here sees a memory limit of the apiserver's own, its caches, or the neighbour that
//! fills the host. When the server is lost without a word while much was in flight, half of that is the budget from
//! now on, down to what an unknown server gets, and it doubles again with every ten minutes that pass well. A shutdown that was announced teaches nothing.
//! While a server comes back, its caches fill beside the answers: then the budget is that of an unknown server.

use std::time::Duration;

use super::settings::{MemorySettings, ResponseBytes};
use crate::units::Instant;

/// Memory that the apiserver takes for each byte of an answer while it builds it (KEP-3157).
const MEMORY_PER_BYTE: u64 = 5;
/// Part of the server's memory that answers may take; the rest is its caches, etcd, and the node's own. A quarter is what
/// [`UNKNOWN`] is of 4 GiB. With 40 % modelled servers still lived, but 13 LISTs of 156 MB at once on 16 cores
/// made leases wait 0.23 s (`simulate rollout-2000`); with a quarter nobody notices, and telemetry gets two thirds of it.
const SHARE: u64 = 4;
/// Where nothing is known, in bytes: 192 MiB of answers are about 1 GB in the apiserver, what a control-plane node of
/// 4 GiB can spare.
const UNKNOWN: u64 = 192 << 20;
/// However small the server is, in bytes: one LIST of 5,000 pods.
const LEAST: u64 = 40 << 20;
/// However large it is, in bytes: a number from somebody else's file must not be unbounded.
const MOST: u64 = 16 << 30;
/// A death shows itself late, when three probes are lost: what was in flight within one to two of these counts.
const REMEMBERED: Duration = Duration::from_secs(5);
/// A budget that was halved doubles after this long.
const HEALS_AFTER: Duration = Duration::from_secs(600);

impl MemorySettings {
    /// Bytes of answers in flight at most; 0: no bound.
    ///
    /// ```
    /// use spillway::flow::{MemorySettings, ResponseBytes};
    ///
    /// let nothing_known = MemorySettings::default();
    /// assert_eq!(nothing_known.budget(), 192 << 20);
    /// let on_its_host = MemorySettings { server: Some(20 << 30), ..nothing_known };
    /// assert_eq!(on_its_host.budget(), 1 << 30, "a quarter of 20 GiB, at five bytes of memory for each");
    /// let said = MemorySettings { response_bytes: ResponseBytes::Fixed(1 << 30), ..on_its_host };
    /// assert_eq!(said.budget(), 1 << 30);
    /// ```
    #[must_use]
    pub fn budget(&self) -> u64 {
        match (self.response_bytes, self.server) {
            (ResponseBytes::Fixed(bytes), _) => bytes,
            (ResponseBytes::Auto, None) => UNKNOWN,
            (ResponseBytes::Auto, Some(memory)) => (memory / SHARE / MEMORY_PER_BYTE).clamp(LEAST, MOST),
        }
    }
}

/// The budget in force.
#[derive(Debug)]
pub(super) struct Budget {
    settings: MemorySettings,
    /// What deaths taught, and when it was changed last.
    taught: Option<(u64, Instant)>,
    /// The most in flight in this stretch of time and in the one before, and when this one began.
    peaks: (u64, u64, Instant),
    /// The server comes back: its caches fill beside the answers.
    is_returning: bool,
}

impl Budget {
    pub(super) fn new(settings: MemorySettings) -> Self {
        Self { settings, taught: None, peaks: (0, 0, Instant::ORIGIN), is_returning: false }
    }

    pub(super) fn reconfigure(&mut self, settings: MemorySettings) {
        self.settings = settings;
        if settings.response_bytes != ResponseBytes::Auto {
            self.taught = None;
        }
    }

    /// Bytes; 0: no bound.
    pub(super) fn bytes(&self) -> u64 {
        let given = self.settings.budget();
        let safe = if self.is_returning && self.is_auto() { given.min(UNKNOWN) } else { given };
        self.taught.map_or(safe, |(taught, _)| taught.min(safe))
    }

    fn is_auto(&self) -> bool {
        self.settings.response_bytes == ResponseBytes::Auto
    }

    /// This much is in flight now.
    pub(super) fn saw(&mut self, in_flight: u64) {
        self.peaks.0 = self.peaks.0.max(in_flight);
    }

    /// Time passes, with `in_flight` bytes; `is_returning` while the server comes back.
    pub(super) fn tick(&mut self, now: Instant, in_flight: u64, is_returning: bool) {
        self.is_returning = is_returning;
        if now.since(self.peaks.2) >= REMEMBERED {
            self.peaks = (in_flight, self.peaks.0, now);
        }
        let given = self.settings.budget();
        self.taught = self.taught.and_then(|(taught, at)| match now.since(at) >= HEALS_AFTER {
            false => Some((taught, at)),
            true => Some((taught.saturating_mul(2), now)).filter(|(taught, _)| *taught < given),
        });
    }

    /// The server is gone, and had not announced it.
    pub(super) fn lost(&mut self, now: Instant) {
        let in_flight = self.peaks.0.max(self.peaks.1);
        if self.is_auto() && in_flight > UNKNOWN {
            self.taught = Some(((in_flight / 2).max(UNKNOWN).min(self.bytes()), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(memory: u64) -> MemorySettings {
        MemorySettings { server: Some(memory), ..MemorySettings::default() }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn the_budget_follows_the_server_within_bounds() {
        assert_eq!(of(0).budget(), LEAST);
        assert_eq!(of(u64::MAX).budget(), MOST);
        let sizes = [1, 2, 4, 8, 16, 64, 512].map(|gib| of(gib * GIB).budget());
        assert!(sizes.is_sorted() && sizes[0] > LEAST && sizes[6] == MOST, "{sizes:?}");
        let none = MemorySettings { response_bytes: ResponseBytes::Fixed(0), ..of(GIB) };
        assert_eq!(none.budget(), 0, "no bound is no bound, whatever the host has");
    }

    #[test]
    fn a_death_halves_what_was_in_flight_and_time_heals() {
        let mut budget = Budget::new(of(20 * GIB));
        let whole = budget.bytes();
        budget.saw(800 << 20);
        budget.tick(at(6), 0, false);
        budget.lost(at(8));
        assert_eq!(budget.bytes(), 400 << 20, "what was in flight a moment ago counts");
        budget.tick(at(100), 0, false);
        budget.lost(at(101));
        budget.tick(at(200), 0, false);
        budget.lost(at(201));
        assert_eq!(budget.bytes(), 400 << 20, "nothing was in flight: something else killed it");
        budget.tick(at(700), 0, false);
        assert_eq!(budget.bytes(), 800 << 20);
        budget.tick(at(1_400), 0, false);
        assert_eq!(budget.bytes(), whole);
    }

    #[test]
    fn what_the_policy_says_no_death_changes() {
        let fixed = MemorySettings { response_bytes: ResponseBytes::Fixed(GIB), ..of(GIB) };
        let mut budget = Budget::new(fixed);
        budget.saw(GIB);
        budget.lost(at(1));
        assert_eq!(budget.bytes(), GIB);
        budget.reconfigure(of(20 * GIB));
        budget.lost(at(2));
        assert_eq!(budget.bytes(), GIB / 2);
        budget.reconfigure(fixed);
        assert_eq!(budget.bytes(), GIB, "a number ends what was learnt");
    }

    #[test]
    fn a_server_that_comes_back_counts_as_unknown() {
        let mut budget = Budget::new(of(64 * GIB));
        budget.tick(at(1), 0, true);
        assert_eq!(budget.bytes(), UNKNOWN);
        budget.tick(at(2), 0, false);
        assert_eq!(budget.bytes(), of(64 * GIB).budget());
        let fixed = MemorySettings { response_bytes: ResponseBytes::Fixed(GIB), ..of(GIB) };
        budget.reconfigure(fixed);
        budget.tick(at(3), 0, true);
        assert_eq!(budget.bytes(), GIB, "a number is a number");
    }

    #[test]
    fn repeated_deaths_stop_at_what_an_unknown_server_gets() {
        let mut budget = Budget::new(of(20 * GIB));
        for second in 0..20 {
            budget.saw(budget.bytes());
            budget.lost(at(second * 30));
            budget.tick(at(second * 30 + 10), 0, false);
            budget.tick(at(second * 30 + 20), 0, false);
        }
        assert_eq!(budget.bytes(), UNKNOWN);
        let mut small = Budget::new(of(2 * GIB));
        small.saw(GIB);
        small.lost(at(1));
        assert_eq!(small.bytes(), of(2 * GIB).budget(), "never more than before");
    }
}
