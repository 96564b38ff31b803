//! What do the command line and a running proxy say to each other about newcomers?

use serde::{Deserialize, Serialize};

/// `GET /v1/newcomers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Newcomers {
    /// Whether anybody is a newcomer here: `newcomers.guard` of the policy.
    pub guard: bool,
    /// Seconds for which everybody who comes is still known at once.
    pub learns_for_seconds: u64,
    /// Who is new, the dearest first.
    pub newcomers: Vec<NewcomerView>,
    /// How many are known.
    pub known: usize,
    /// Nodes of the cluster that were heard of.
    pub nodes: usize,
    /// The limit L, in seats, and from which projection on is warned.
    pub limit: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub warned_from: f64,
    /// Requests of newcomers beyond the 64 that are measured.
    pub not_measured: u64,
    /// Whether it survives a restart.
    pub kept: super::Kept,
}

/// Somebody who is new.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewcomerView {
    /// Its user name; `system:nodes` for whoever uses nodes' credentials.
    pub user: String,
    /// The program it says it is; empty where that is not told apart.
    pub program: String,
    /// Seconds since it came, or since a warning was over.
    pub new_for_seconds: u64,
    /// Seconds since its last request.
    pub idle_seconds: u64,
    /// Places (nodes, or addresses) that it was seen in.
    pub places: usize,
    /// Places that were added each second, over the last minute.
    pub growth_per_second: f64,
    /// Whether it is on its way to every node.
    pub spreads: bool,
    /// Seats that one place takes; null until that is known.
    pub seats_per_place: Option<f64>,
    /// Seat-seconds that one start costs.
    pub seat_seconds_per_start: f64,
    /// Seats that it would take: on all nodes if it spreads, else where it is.
    pub projected_seats: f64,
    /// Whether that is warned of.
    pub warned: bool,
    /// Whether it is ranked as telemetry, because its budget is used up.
    pub over_budget: bool,
    /// Requests that it made.
    pub requests: u64,
}

/// `POST /v1/newcomers/approve` and `/doubt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approve {
    /// The user name, or `NAMESPACE/NAME` of a service account.
    pub name: String,
    /// One program of it; all that are new now, without.
    #[serde(default)]
    pub program: String,
    /// Ranked no higher than this: `workload`, `unknown` or `telemetry`.
    #[serde(default)]
    pub lane: Option<String>,
    /// Why, for those who read the events; at most 200 bytes, and it may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The answer to both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Approved {
    /// The user name.
    pub user: String,
    /// How many of its programs it concerned.
    pub count: usize,
    /// Whether it survives a restart.
    pub kept: super::Kept,
}
