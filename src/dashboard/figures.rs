//! Which numbers does the page show that the command line does not?
//!
//! They are read where they are counted, once a second; what only grows becomes a rate or a quantile here.

use std::collections::VecDeque;

use crate::policy::Lane;
use crate::telemetry::Durations;

/// Samples that rates and quantiles are over: a quarter of a minute, so that a p99 has something to stand on.
const SAMPLES_MAX: usize = 15;

/// What is counted, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The node's name.
    pub host: String,
    /// Name and address of the kube-apiserver behind.
    pub upstream: String,
    /// Open connections to it.
    pub connections: u64,
    /// Requests and watches on them.
    pub streams: u64,
    /// Slowdown of the three probes against their calm: process, cache, etcd; 0 is not known.
    pub probes: [f64; 3],
    /// Slowdown of calls about single objects, and of writes.
    pub objects: f64,
    #[expect(missing_docs, reason = "the line above says it")]
    pub writes: f64,
    /// Share of all work that the client makes whom the verdict names, 0 to 1.
    pub heaviest: Option<f64>,
    /// Seconds within which a call about a single object counts as calm.
    pub objective: f64,
    /// Sent to first byte, so far.
    pub first_byte: Durations,
    /// Received to the head of the answer by lane, so far.
    pub heads: [Durations; Lane::COUNT],
    /// Answers that say that it does not cope, by meaning, so far.
    pub failures: Vec<(&'static str, u64)>,
    /// Refusals by lane and reason, so far.
    pub shed: Vec<(Lane, &'static str, u64)>,
}

/// What the last quarter of a minute says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lately {
    /// p50 and p99 in seconds, sent to first byte.
    pub(super) first_byte: (Option<f64>, Option<f64>),
    /// p99 in seconds by lane.
    pub(super) heads: [Option<f64>; Lane::COUNT],
    /// A second, by meaning.
    pub(super) failures: Vec<(&'static str, f64)>,
    /// A second, by lane and reason; only what there is.
    pub(super) shed: Vec<(Lane, &'static str, f64)>,
}

/// The last samples.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Figures>);

impl Samples {
    /// Takes one, a second after the last.
    pub(super) fn take(&mut self, now: &Figures) -> Lately {
        while self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(now.clone());
        let Some(before) = self.0.front() else { return Lately::default() };
        let seconds = (self.0.len() - 1).max(1) as f64;
        let first_byte = now.first_byte.since(&before.first_byte);
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let shed_before = |lane: Lane, reason: &str| {
            let found = before.shed.iter().find(|(other, word, _)| *other == lane && *word == reason);
            found.map_or(0, |(_, _, count)| *count)
        };
        Lately {
            first_byte: (first_byte.quantile(0.5), first_byte.quantile(0.99)),
            heads: std::array::from_fn(|lane| now.heads[lane].since(&before.heads[lane]).quantile(0.99)),
            failures: now
                .failures
                .iter()
                .map(|&(meaning, count)| {
                    let found = before.failures.iter().find(|(other, _)| *other == meaning);
                    (meaning, rate(count, found.map_or(0, |(_, count)| *count)))
                })
                .collect(),
            shed: now
                .shed
                .iter()
                .map(|&(lane, reason, count)| (lane, reason, rate(count, shed_before(lane, reason))))
                .filter(|(_, _, rate)| *rate > 0.0)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_grows_becomes_a_rate_over_the_last_samples() {
        let at = |count: u64| Figures {
            failures: vec![("dropped", count)],
            shed: vec![(Lane::Telemetry, "rate", count * 10), (Lane::Unknown, "rate", 7)],
            ..Figures::default()
        };
        let mut samples = Samples::default();
        assert_eq!(samples.take(&at(0)).failures, [("dropped", 0.0)]);
        (1..40).for_each(|second| drop(samples.take(&at(second))));
        let lately = samples.take(&at(40));
        assert_eq!(samples.0.len(), SAMPLES_MAX);
        assert_eq!(lately.failures, [("dropped", 1.0)]);
        assert_eq!(lately.shed, [(Lane::Telemetry, "rate", 10.0)], "what does not happen is left out");
    }
}
