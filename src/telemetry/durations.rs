//! How long did answers take lately? The histograms of a scrape, for whoever draws them in the process itself.

use prometheus::Histogram;
use prometheus::core::Metric;

use super::Metrics;
use crate::policy::Lane;

/// A histogram of durations as it was counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Upper bound in seconds, and how many took at most so long; rising.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were in all.
    pub count: u64,
}

impl Durations {
    fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let counted = metric.get_histogram();
        let buckets = counted.get_bucket().iter();
        Self {
            buckets: buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect(),
            count: counted.get_sample_count(),
        }
    }

    /// Those that were counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |at: usize| before.buckets.get(at).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().enumerate();
        Self {
            buckets: buckets.map(|(at, (most, count))| (*most, count.saturating_sub(earlier(at)))).collect(),
            count: self.count.saturating_sub(before.count),
        }
    }

    /// The time in seconds that `share` (0 to 1) of them did not exceed, by a straight line within its bucket as
    /// Prometheus does it; beyond the last bucket, its bound. Nothing without any.
    ///
    /// ```
    /// use spillway::telemetry::Durations;
    ///
    /// let durations = Durations { buckets: vec![(0.25, 90), (0.5, 100)], count: 100 };
    /// assert_eq!(durations.quantile(0.95), Some(0.375));
    /// assert_eq!(Durations::default().quantile(0.5), None);
    /// ```
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = share * self.count as f64;
        let mut below = (0.0, 0);
        for &(most, count) in &self.buckets {
            if count as f64 >= rank && count > below.1 {
                let within = (rank - below.1 as f64) / (count - below.1) as f64;
                return Some(below.0 + (most - below.0) * within.clamp(0.0, 1.0));
            }
            below = (most, count);
        }
        Some(below.0)
    }
}

impl Metrics {
    /// Received to the head of the answer, by lane; refusals count as well.
    #[must_use]
    pub fn request_durations(&self) -> [Durations; Lane::COUNT] {
        std::array::from_fn(|lane| Durations::of(&self.request_duration[lane]))
    }

    /// Sent to the apiserver's first byte.
    #[must_use]
    pub fn upstream_durations(&self) -> Durations {
        Durations::of(&self.upstream_duration)
    }

    /// Answers of the apiserver that say that it does not cope, by what they mean, so far.
    #[must_use]
    pub fn upstream_failures(&self) -> Vec<(&'static str, u64)> {
        super::metrics::FAILURES
            .into_iter()
            .zip(self.failures.iter().map(prometheus::core::GenericCounter::get))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_what_was_counted_since() {
        let before = Durations { buckets: vec![(0.1, 10), (1.0, 10)], count: 10 };
        let after = Durations { buckets: vec![(0.1, 11), (1.0, 13)], count: 14 };
        let since = after.since(&before);
        assert_eq!(since, Durations { buckets: vec![(0.1, 1), (1.0, 3)], count: 4 });
        assert_eq!(since.quantile(0.5), Some(0.55));
        assert_eq!(since.quantile(0.99), Some(1.0), "beyond the last bucket nothing is known");
        assert_eq!(after.since(&after).quantile(0.5), None);
    }
}
