//! How sure is a difference? Medians, and bootstrap intervals over seeds.
//!
//! The percentile bootstrap (Efron 1979): values of equal seeds are subtracted, the differences are drawn with
//! replacement, and the middle 95 % of the means of the draws are the interval. With few seeds it is narrow-minded: it
//! knows no difference that no seed showed.

use crate::sim::chance::Chance;

/// Draws of a bootstrap.
const DRAWS: usize = 1_000;
/// Its seed: the report must not change by itself.
const SEED: u64 = 0xB007;

/// The middle value.
pub(in crate::sim) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which `part` of the values lie, interpolated.
pub(super) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = part * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// Low and high end of the 95 % interval of the mean.
pub(super) fn interval(values: &[f64]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let mut chance = Chance::new(SEED, values.len() as u64);
    let count = values.len();
    let means: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let sum: f64 = (0..count).map(|_| values[(chance.unit() * count as f64) as usize % count]).sum();
            sum / count as f64
        })
        .collect();
    Some((quantile(&means, 0.025)?, quantile(&means, 0.975)?))
}

/// What can be said about ours against theirs, seed by seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Difference {
    /// Ours minus theirs. `None` when there is no seed with both.
    pub(super) fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let differences: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
        let (low, high) = interval(&differences)?;
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        Some(Self { mean, low, high })
    }

    /// The interval excludes zero, on the upper side.
    pub(super) fn is_above(&self) -> bool {
        self.low > 0.0
    }

    /// The interval excludes zero, on the lower side.
    pub(super) fn is_below(&self) -> bool {
        self.high < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(quantile(&[0.0, 10.0], 0.95), Some(9.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn an_interval_excludes_zero_only_when_the_seeds_agree() {
        let clear = Difference::of(&[5.0, 6.0, 5.5, 6.2, 5.1], &[1.0, 1.5, 0.9, 1.1, 1.2]).unwrap();
        assert!(clear.is_above() && clear.low <= clear.mean && clear.mean <= clear.high);
        let unclear = Difference::of(&[5.0, 1.0, 4.0, 2.0, 3.0], &[3.0, 3.0, 3.0, 3.0, 3.1]).unwrap();
        assert!(!unclear.is_above() && !unclear.is_below());
        assert_eq!(Difference::of(&[1.0], &[]), None);
        assert_eq!(interval(&[2.0, 4.0, 9.0]), interval(&[2.0, 4.0, 9.0]), "the same draws each time");
    }
}
