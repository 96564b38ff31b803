//! What was measured?
//!
//! Clients write down what they saw, with times; the report reads spans of it afterwards. Nothing here knows whether
//! spillway was in between.

use std::time::Duration;

use parking_lot::Mutex;

use crate::units::Instant;

/// Entries of one kind that are kept: several hours of `--hold`. Later ones are not written down.
const ENTRIES_MAX: usize = 500_000;

/// Who was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A kubelet renewing its lease.
    Node,
    /// The controller that writes endpoints.
    Controller,
    /// CoreDNS.
    Dns,
    /// The person on call.
    Operator,
    /// The telemetry agents.
    Telemetry,
}

/// One round of a lease renewal, with all its attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) node: usize,
    pub(crate) due: Instant,
    pub(crate) took: Duration,
    pub(crate) renewed: bool,
}

/// One command of the operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) succeeded: bool,
}

/// The age of what DNS knew at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staleness {
    pub(crate) at: Instant,
    pub(crate) age: Duration,
}

/// One answer that a telemetry agent got, or did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Served,
    Refused,
    Failed,
}

#[derive(Debug, Default)]
struct Entries {
    renewals: Vec<Renewal>,
    commands: Vec<Command>,
    staleness: Vec<Staleness>,
    lists: Vec<(Instant, Listed)>,
    refusals: Vec<(Instant, Who)>,
    culprit_deleted: Option<Instant>,
}

/// The measurements of one half of the demo.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

/// A stretch of time: from its start up to, not including, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl Span {
    pub(crate) fn contains(self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }

    pub(crate) fn length(self) -> Duration {
        self.end.since(self.start)
    }
}

fn push<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() < ENTRIES_MAX {
        entries.push(entry);
    }
}

impl Ledger {
    pub(crate) fn renewal(&self, renewal: Renewal) {
        push(&mut self.0.lock().renewals, renewal);
    }

    pub(crate) fn command(&self, command: Command) {
        push(&mut self.0.lock().commands, command);
    }

    pub(crate) fn staleness(&self, staleness: Staleness) {
        push(&mut self.0.lock().staleness, staleness);
    }

    pub(crate) fn listed(&self, at: Instant, listed: Listed) {
        push(&mut self.0.lock().lists, (at, listed));
    }

    pub(crate) fn refused(&self, at: Instant, who: Who) {
        push(&mut self.0.lock().refusals, (at, who));
    }

    pub(crate) fn culprit_deleted(&self, at: Instant) {
        self.0.lock().culprit_deleted.get_or_insert(at);
    }

    /// When the operator's deletion of the DaemonSet was answered.
    pub(crate) fn culprit_deleted_at(&self) -> Option<Instant> {
        self.0.lock().culprit_deleted
    }

    /// Renewals that were due in the span.
    pub(crate) fn renewals(&self, span: Span) -> Vec<Renewal> {
        self.0.lock().renewals.iter().filter(|renewal| span.contains(renewal.due)).copied().collect()
    }

    /// Commands that began in the span.
    pub(crate) fn commands(&self, span: Span) -> Vec<Command> {
        self.0.lock().commands.iter().filter(|command| span.contains(command.started)).copied().collect()
    }

    /// The ages of DNS' knowledge in the span.
    pub(crate) fn ages(&self, span: Span) -> Vec<Duration> {
        let entries = self.0.lock();
        entries.staleness.iter().filter(|sample| span.contains(sample.at)).map(|sample| sample.age).collect()
    }

    /// How many LISTs of the telemetry agents ended so in the span.
    pub(crate) fn lists(&self, span: Span, wanted: Listed) -> usize {
        let entries = self.0.lock();
        entries.lists.iter().filter(|(at, listed)| span.contains(*at) && *listed == wanted).count()
    }

    /// How many requests of `who` were answered with 429 in the span.
    pub(crate) fn refusals(&self, span: Span, who: Who) -> usize {
        let entries = self.0.lock();
        entries.refusals.iter().filter(|(at, refused)| span.contains(*at) && *refused == who).count()
    }

    /// The first 429 that `who` got in the span.
    pub(crate) fn first_refusal(&self, span: Span, who: Who) -> Option<Instant> {
        let entries = self.0.lock();
        entries
            .refusals
            .iter()
            .filter(|(at, refused)| span.contains(*at) && *refused == who)
            .map(|(at, _)| *at)
            .min()
    }
}

/// The value below which `percent` of the samples lie (nearest rank); `None` without samples.
///
/// Of ten samples, the 99th percentile is the largest: a report of few samples errs on the bad side.
pub(crate) fn percentile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&samples, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&samples[..10], 99), Some(Duration::from_millis(10)));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn a_span_ends_before_its_end() {
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        let span = Span { start: at(1), end: at(2) };
        let ledger = Ledger::default();
        for second in 0..4 {
            ledger.refused(at(second), Who::Telemetry);
            ledger.listed(at(second), Listed::Refused);
        }
        assert_eq!(ledger.refusals(span, Who::Telemetry), 1);
        assert_eq!(ledger.refusals(span, Who::Node), 0);
        assert_eq!(ledger.lists(span, Listed::Refused), 1);
        assert_eq!(ledger.first_refusal(span, Who::Telemetry), Some(at(1)));
    }
}
