//! What do the command line and a running proxy say to each other about policies and how they come into force?

use serde::{Deserialize, Serialize};

/// A policy that is, or was, in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyView {
    /// Its number.
    pub generation: u64,
    /// Hash of what it says: equal on instances with equal policies.
    pub hash: String,
    /// Since when, in seconds since 1970.
    pub at: u64,
    /// What brought it: `start`, `file`, `signal`, `uid 0`, `rollback to 3 by uid 0`.
    pub by: String,
    /// Where it stands, or stood.
    pub file: String,
    /// Its text, where it was asked for; nothing when it is the embedded one.
    pub text: Option<String>,
}

/// Why changed files are not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReloadProblem {
    /// When, in seconds since 1970.
    pub at: u64,
    /// One finding a line: `file:line:column: error[SPW0204]: …`.
    pub findings: Vec<String>,
}

/// `GET /v1/config`, and the answer to what changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigView {
    /// What is in force.
    pub policy: PolicyView,
    /// What it was before, in the answer to a change that changed it.
    pub before: Option<PolicyView>,
    /// The files that are followed.
    pub files: Vec<String>,
    /// Why they are not in force as they are.
    pub problem: Option<ReloadProblem>,
    /// Sections of the ProxyConfiguration that have changed in the files and wait for a restart.
    pub restart: Vec<String>,
    /// The files still have the policy that an operator went back from.
    pub withdrawn: bool,
}

/// `GET /v1/config/history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigHistory {
    /// The oldest first, at most 20; without their texts.
    pub policies: Vec<PolicyView>,
}

/// `POST /v1/config/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollback {
    /// To which; without it, to the one before.
    pub generation: Option<u64>,
}

/// How far the policy is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnforcementView {
    /// `Disabled`, `Shadow` or `Enforce`; empty where it is not known.
    pub mode: String,
    /// Percent of the identities that it is enforced for; counts in `Enforce`.
    pub percent: u32,
    /// How it comes into force.
    pub rollout: RolloutView,
    /// Requests that were let in since the start although the policy would not have, by lane; those with none left out.
    pub shadow: Vec<ShadowLane>,
}

/// What would have become of a lane's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShadowLane {
    /// Its name.
    pub lane: String,
    /// Would have been refused.
    pub would_shed: u64,
    /// Would have waited.
    pub would_wait: u64,
}

/// `GET /v1/rollout`, and the answer to what moves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutView {
    /// `idle`, `running`, `paused`, `done`, `aborted` or `fell-back`.
    pub stage: String,
    /// The mode in force, and for how much of the identities.
    pub mode: String,
    #[expect(missing_docs, reason = "the line above says it")]
    pub percent: u32,
    /// The steps, in percent, and which one it is at, from 1; 0 before the first.
    pub steps: Vec<u32>,
    #[expect(missing_docs, reason = "the line above says it")]
    pub step: usize,
    /// Seconds of this step that were judged good, of how many.
    pub passed_seconds: u64,
    #[expect(missing_docs, reason = "the line above says it")]
    pub step_seconds: u64,
    /// Fails in a row, of how many that put everything back.
    pub failures: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub failure_threshold: u32,
    /// How the last interval was judged: `pass`, `fail` or `inconclusive`; empty before the first.
    pub judgement: String,
    /// Check by check.
    pub checks: Vec<CheckView>,
}

/// One check of the guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckView {
    /// Its word in the policy.
    pub check: String,
    /// `pass`, `fail` or `inconclusive`.
    pub judgement: String,
    /// What was measured, and what is allowed.
    pub text: String,
}

/// `POST /v1/rollout`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutOrder {
    /// `start`, `pause`, `resume`, `promote` or `abort`.
    pub order: String,
}

/// The codes of problems.
pub mod code {
    /// Changed files cannot be used: what was in force stays.
    pub const NOT_RELOADED: &str = "SPW0740";
    /// There is no such generation.
    pub const GENERATION: &str = "SPW0741";
    /// There is nothing to go back to.
    pub const NOTHING_BEFORE: &str = "SPW0742";
    /// The proxy was started without files.
    pub const NO_FILES: &str = "SPW0743";
    /// The policy of a file is not in force, because an operator went back from it.
    pub const WITHDRAWN: &str = "SPW0744";
    /// Sections of the ProxyConfiguration wait for a restart.
    pub const RESTART: &str = "SPW0745";
    /// The policy has no steps.
    pub const NO_STEPS: &str = "SPW0760";
    /// The rollout is not at a stage in which that can be done.
    pub const STAGE: &str = "SPW0761";
    /// There is nothing to roll out: all is enforced, or the policy is Disabled.
    pub const NOTHING_TO_DO: &str = "SPW0762";
    /// The guard went back to shadow.
    pub const FELL_BACK: &str = "SPW0763";
}
