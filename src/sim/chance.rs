//! Where does the model's chance come from? From the run's seed, by a stream for each part, so that a change in one
//! part does not shuffle the others.
//!
//! `SplitMix64` (Steele, Lea, Flood 2014) is enough for arrivals and jitter.

use std::time::Duration;

/// A seeded stream of draws.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The stream `part` of the run `seed`.
    #[must_use]
    pub(super) fn new(seed: u64, part: u64) -> Self {
        Self(mix(seed ^ mix(part.wrapping_add(1))))
    }

    /// 64 even bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// An even draw from `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An even draw from `low..high`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// An even draw from a span of time.
    pub(super) fn time(&mut self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64(self.unit())
    }

    /// An exponential draw with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A sum of `steps` exponential draws, scaled to mean 1: the time to pass as many queues one after another.
    pub(super) fn erlang(&mut self, steps: u32) -> f64 {
        (0..steps).map(|_| self.exponential()).sum::<f64>() / f64::from(steps.max(1))
    }
}

/// Spreads every bit over the whole word.
#[must_use]
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
