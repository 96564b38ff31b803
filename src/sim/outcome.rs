//! What came out of one run? Numbers with stable names.
//!
//! All are of the storm phase unless their name or text says otherwise. A number that does not apply (no operators, too
//! few calls) is absent, never zero.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::policy::Lane;

/// One run's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The algorithm's name.
    pub algorithm: String,
    /// The run's seed.
    pub seed: u64,
    /// Hash of everything that happened: equal seeds give equal traces.
    pub trace: String,
    /// Numbers by name; see [`METRICS`].
    pub metrics: BTreeMap<String, f64>,
}

impl Outcome {
    /// One number.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }
}

/// Whether more of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
    /// Neither.
    Neutral,
}

/// A number that runs give.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it means, with its unit.
    pub about: &'static str,
    /// Which way is better.
    pub better: Better,
}

const fn metric(name: &'static str, better: Better, about: &'static str) -> Metric {
    Metric { name, about, better }
}

/// Numbers about the whole.
pub const METRICS: &[Metric] = &[
    metric("renewals_ok", Better::More, "lease renewals within 10 s, share of those due"),
    metric("lease_p50_ms", Better::Less, "median time of renewals that worked, ms"),
    metric("lease_p99_ms", Better::Less, "p99 of renewals that worked, ms"),
    metric("lease_p999_ms", Better::Less, "p99.9 of renewals that worked, ms"),
    metric("lease_calm_p99_ms", Better::Neutral, "p99 of renewals in the calm phase, ms"),
    metric("operator_ok", Better::More, "operators' sequences that worked within 10 s, share"),
    metric("operator_p50_ms", Better::Less, "median time of sequences that worked, ms"),
    metric("operator_p99_ms", Better::Less, "p99 of sequences that worked, ms"),
    metric("operator_p999_ms", Better::Less, "p99.9 of sequences that worked, ms"),
    metric("not_ready", Better::Less, "nodes whose lease was not renewed for 40 s, storm and after"),
    metric("leader_losses", Better::Less, "leaders that could not renew for 10 s, storm and after"),
    metric("started_ok", Better::More, "protected informers with objects within 10 s, share of those begun"),
    metric("started_p99_s", Better::Less, "p99 of the time to their first objects, s"),
    metric("protect_s", Better::Less, "from the storm's start until node health is well for good, s"),
    metric("detect_s", Better::Less, "from the storm's start to the first refusal by the algorithm, s"),
    metric("recover_s", Better::Less, "from the storm's end until all protected lanes are well, s"),
    metric("recovered", Better::More, "1 if they are well by the end of the run, else 0"),
    metric(
        "false_shed",
        Better::Less,
        "refused while nobody would have been late without, share, all phases",
    ),
    metric("shed", Better::Neutral, "attempts refused by the algorithm, share, all phases"),
    metric("wasted", Better::Less, "work for clients that were gone, share of the work done"),
    metric("utilisation", Better::Neutral, "cores in use, share"),
    metric("limit_cv", Better::Less, "variation of L from 10 s after the storm's start, relative"),
    metric("memory_peak_mib", Better::Less, "the server's most memory, whole run, MiB"),
    metric("deaths", Better::Less, "times the server's process died, whole run"),
    metric("etcd_lists", Better::Less, "LISTs that read everything from etcd, whole run"),
];

/// Numbers that each lane has, with the lane's name and a dot before them.
pub const LANE_METRICS: &[Metric] = &[
    metric("served_per_s", Better::More, "calls that worked, per second"),
    metric("goodput", Better::More, "calls within the lane's deadline, share of those begun"),
    metric("work_per_s", Better::Neutral, "work of calls that worked, in cores"),
    metric("p50_ms", Better::Less, "median time of calls that worked, ms"),
    metric("p99_ms", Better::Less, "p99 of calls that worked, ms"),
    metric("attempts_per_s", Better::Neutral, "tries that reached the algorithm, per second"),
    metric("attempts_per_success", Better::Less, "tries for each call that worked"),
    metric("shed", Better::Neutral, "tries that the algorithm refused, share"),
    metric("jain", Better::More, "Jain index of work served to the clients of the largest group"),
];

/// Whether runs can give a number of this name.
#[must_use]
pub fn is_metric(name: &str) -> bool {
    find(name).is_some()
}

/// The description of a number.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    match name.split_once('.') {
        None => METRICS.iter().find(|metric| metric.name == name),
        Some((lane, name)) if lane.parse::<Lane>().is_ok() => {
            LANE_METRICS.iter().find(|metric| metric.name == name)
        }
        Some(_) => None,
    }
}
