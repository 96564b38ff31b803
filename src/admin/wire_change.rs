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
    /// One finding a line: `file:line:column: error[SPW0000]: …`.
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
}
