//! Where does chance come from? From a seed, never from the machine: equal inputs give equal traces.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): one addition and one mix a draw, good enough for jitter, and the mix
//! alone serves as a hash finaliser. Nothing here is secret, so nothing here needs to be unpredictable.

/// The golden ratio in 64 bits: the increment of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads every bit of `value` over the whole word.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A seeded stream of draws.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A whole number in `low..=high`; `low` when the range is empty.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        let width = u64::from(high.saturating_sub(low)) + 1;
        // Multiply and shift: the bias is below width / 2^32, which no client can notice.
        let offset = ((self.next() >> 32) * width) >> 32;
        low + u32::try_from(offset).unwrap_or(0)
    }

    /// A fraction in `-1.0..1.0`.
    pub(super) fn signed_unit(&mut self) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        unit * 2.0 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cover_their_range_and_repeat_with_the_seed() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let mut seen = [0u32; 3];
        for _ in 0..3000 {
            let draw = one.between(1, 3);
            assert_eq!(draw, two.between(1, 3));
            seen[draw as usize - 1] += 1;
        }
        assert!(seen.iter().all(|&count| count > 800), "{seen:?}");
        assert_eq!(Random::new(1).between(5, 5), 5);
    }
}
