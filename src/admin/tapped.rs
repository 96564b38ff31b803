//! What does somebody see who watches requests pass?

use serde::{Deserialize, Serialize};

/// `POST /v1/tap`: what to see, since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TapFilter {
    /// After the line of this number; from now on without one.
    #[serde(default)]
    pub after: Option<u64>,
    /// Only users whose name contains this.
    #[serde(default)]
    pub user: Option<String>,
    /// Only this lane.
    #[serde(default)]
    pub lane: Option<String>,
    /// Only this verb.
    #[serde(default)]
    pub verb: Option<String>,
    /// Only requests whose method, path and query contain this.
    #[serde(default)]
    pub path: Option<String>,
    /// Only what spillway answered itself.
    #[serde(default)]
    pub refused: bool,
    /// Only what was refused for this reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// Only what took at least so many milliseconds.
    #[serde(default)]
    pub slower_than_ms: Option<u64>,
}

/// One request that was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TapLine {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The decision's id.
    pub id: String,
    /// Who.
    pub user: String,
    /// In which lane.
    pub lane: String,
    /// Kubernetes verb.
    pub verb: String,
    /// What.
    pub request: String,
    /// What chose the lane.
    pub rule: String,
    /// Status.
    pub status: u16,
    /// Why spillway answered itself.
    pub reason: Option<String>,
    /// Milliseconds to the head of the answer, and those of them in a queue.
    pub latency_ms: u64,
    /// See `latency_ms`.
    pub queued_ms: u64,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tapped {
    /// The oldest first.
    pub lines: Vec<TapLine>,
    /// Ask for those after this one next.
    pub last: u64,
    /// Lines since the last question that are lost: the watcher is too slow, the proxy is not.
    pub lost: u64,
}
