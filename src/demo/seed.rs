//! Where does the demo's chance come from?
//!
//! Every jitter in the demo is drawn from one seed, so that two runs play the same storm. `SplitMix64` (Steele,
//! Lea, Flood 2014) is enough for spreading clients over time; nothing secret is drawn here: keys come from the
//! cryptographic library.

use std::time::Duration;

/// A reproducible stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for client `label`: what one client draws does not shift the others.
    pub(crate) fn fork(&self, label: u64) -> Self {
        let mut fork = Self(self.0 ^ label.wrapping_mul(0xA24B_AED4_963E_E407));
        fork.next();
        fork
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A duration from `[low, high)`, in whole microseconds; `low` when the range is empty.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        low + Duration::from_micros(self.next().checked_rem(span).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_and_forks_differ() {
        let (mut a, mut b) = (Seed::new(7), Seed::new(7));
        assert_eq!(a.next(), b.next());
        assert_ne!(Seed::new(7).fork(1).next(), Seed::new(7).fork(2).next());
    }

    #[test]
    fn a_duration_stays_in_its_range() {
        let mut seed = Seed::new(1);
        for _ in 0..1000 {
            let drawn = seed.between(Duration::from_millis(5), Duration::from_millis(9));
            assert!(drawn >= Duration::from_millis(5) && drawn < Duration::from_millis(9));
        }
        assert_eq!(seed.between(Duration::from_secs(1), Duration::from_secs(1)), Duration::from_secs(1));
    }
}
