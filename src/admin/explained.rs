//! What does an explanation consist of?
//!
//! The types behind `spillway explain`, over the socket and offline: one answer for a refusal that happened and for a
//! request that somebody asks about.

use serde::{Deserialize, Serialize};

/// `POST /v1/explain`: what would become of this request?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Explain {
    /// The caller's name.
    pub user: String,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How it is proven: the words of `Credential`.
    pub credential: String,
    /// Whence it comes, for isolations of networks.
    #[serde(default)]
    pub from: Option<String>,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What the client says it is.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// It asks to act as somebody else.
    #[serde(default)]
    pub impersonates: bool,
}

/// One rule of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleStep {
    /// Its place, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// The lane it gives.
    pub lane: String,
    /// `decides`, `lowers`, `fits`, `not-reached` or `misses`.
    pub verdict: String,
    /// Of one that misses: which part of it.
    pub misses: Option<String>,
}

/// One gate after the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GateStep {
    /// Its name.
    pub name: String,
    /// `pass`, `full`, `stop` or `not-asked`.
    pub answer: String,
    /// The reason behind `full` and `stop`.
    pub reason: Option<String>,
    /// The numbers.
    pub detail: String,
}

/// Why something became of a request, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explained {
    /// The decision's id; none of a request that nobody has sent.
    pub id: Option<String>,
    /// The request's audit id.
    pub audit_id: Option<String>,
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: Option<u64>,
    /// With the numbers of a running proxy; else those of an idle one.
    pub live: bool,
    /// `admit`, `wait`, `shed` or `failed`.
    pub outcome: String,
    /// Why it was shed or failed: a closed set of words.
    pub reason: Option<String>,
    /// Who asked.
    pub user: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// How it was proven.
    pub credential: String,
    /// Whether that is enough for rules that promote.
    pub verified: bool,
    /// From where.
    pub peer: Option<String>,
    /// Through which listener: `main` or `break-glass`.
    pub entrance: String,
    /// What the client says it is.
    pub user_agent: Option<String>,
    /// The request as it was sent.
    pub request: String,
    /// The request as kube-apiserver reads it.
    pub reads_as: String,
    /// Its lane and what chose it.
    pub lane: String,
    #[expect(missing_docs, reason = "the line above says it")]
    pub rule: String,
    /// How far the policy holds this caller: `Enforce`, `Shadow` or `Disabled`; empty of a request that was refused.
    pub mode: String,
    /// Every rule, in order.
    pub rules: Vec<RuleStep>,
    /// Every gate, in order.
    pub gates: Vec<GateStep>,
    /// The numbers of the lane at that moment, in a few words.
    pub numbers: Option<String>,
    /// What the client was told.
    pub told: Option<String>,
    /// What whoever runs the client can do.
    pub client_can: Option<String>,
    /// What an operator can do.
    pub operator_can: Option<String>,
    /// Commands that go on from here.
    pub next: Vec<String>,
}

/// One line of `GET /v1/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionLine {
    /// Its id.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub user: String,
    /// Its lane.
    pub lane: String,
    /// Why.
    pub reason: String,
    /// What.
    pub request: String,
}

/// `GET /v1/decisions?user=NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionLines {
    /// The newest first.
    pub decisions: Vec<DecisionLine>,
    /// How many are kept.
    pub kept: usize,
    /// How many there were since the start.
    pub ever: u64,
}
