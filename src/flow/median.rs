//! What is the middle of thousands of weighted slowdowns, in some microseconds?
//!
//! Slowdowns between 1 and 100 are sorted into buckets by the top bits of their float, 32 to the octave, so that a
//! weighted median is one pass over the values and one over the buckets, without sorting. The answer is
//! the middle of a bucket, within 1.6 % of the truth: a twentieth of the band that holds the limit.

/// Mantissa bits that a bucket keeps: 32 buckets an octave.
const BITS: u32 = 5;
const SHIFT: u32 = f32::MANTISSA_DIGITS - 1 - BITS;
/// Where 1.0, the least slowdown, lies.
const ONE: u32 = 1.0f32.to_bits() >> SHIFT;
/// Eight octaves: slowdowns up to 255.
const BUCKETS: usize = 256;

/// A slowdown, rounded to its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rounded(u8);

impl Rounded {
    /// Less than one counts as one.
    pub(super) fn of(slowdown: f32) -> Self {
        let bucket = (slowdown.max(1.0).to_bits() >> SHIFT) - ONE;
        Self(bucket.min(BUCKETS as u32 - 1) as u8)
    }

    /// The middle of the bucket; exactly 1 for the lowest, which holds everything that is calm.
    pub(super) fn value(self) -> f64 {
        match self.0 {
            0 => 1.0,
            bucket => f64::from(f32::from_bits(((u32::from(bucket) + ONE) << SHIFT) | (1 << (SHIFT - 1)))),
        }
    }
}

/// Weights by bucket.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    buckets: [f32; BUCKETS],
    total: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { buckets: [0.0; BUCKETS], total: 0.0 }
    }
}

impl Weights {
    pub(super) fn add(&mut self, value: Rounded, weight: f32) {
        self.buckets[value.0 as usize] += weight;
        self.total += weight;
    }

    pub(super) fn total(&self) -> f32 {
        self.total
    }

    /// The value at which half of the weight lies at or below; `None` without any weight.
    pub(super) fn median(&self) -> Option<f64> {
        let mut below = 0.0;
        let bucket = self.buckets.iter().position(|weight| {
            below += weight;
            *weight > 0.0 && below >= self.total / 2.0 * 0.999_999
        })?;
        Some(Rounded(bucket as u8).value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(values: &[(f32, f32)]) -> Option<f64> {
        let mut weights = Weights::default();
        values.iter().for_each(|&(value, weight)| weights.add(Rounded::of(value), weight));
        weights.median()
    }

    #[test]
    fn one_slow_group_does_not_move_the_median() {
        let found = median(&[(40.0, 5.0), (1.0, 3.0), (1.1, 3.0)]).unwrap();
        assert!((1.08..1.12).contains(&found), "{found}");
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[(1.0, 2.0), (0.3, 2.0), (90.0, 3.9)]), Some(1.0));
    }

    #[test]
    fn rounding_stays_within_two_percent() {
        for step in 0..1_000 {
            let value = 1.0 + step as f32 * 0.1;
            let rounded = Rounded::of(value).value();
            assert!(
                (rounded / f64::from(value) - 1.0).abs() < 0.02 || value < 1.04,
                "{value} became {rounded}"
            );
        }
        assert_eq!(Rounded::of(1e9), Rounded(255));
        assert_eq!(Rounded::of(f32::NAN), Rounded(0));
    }
}
