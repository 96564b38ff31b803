//! What do the command line and a running proxy say to each other?
//!
//! JSON over the admin socket. The command line and the dashboard read the same types; unknown fields are errors in
//! requests, so that a lever of a newer version is refused and not half pulled, and ignored in answers.

pub mod newcomers;

use serde::{Deserialize, Serialize};

use super::wire_change::{ConfigView, EnforcementView};

/// Bytes of a reason at most: it is repeated in every refusal.
pub const REASON_BYTES_MAX: usize = 200;
/// Clients that a preview names; the rest is counted.
pub const PREVIEW_CLIENTS_MAX: usize = 10;

/// `POST /v1/isolations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolate {
    /// `user`, `group`, `serviceaccount`, `namespace` or `cidr`.
    pub kind: String,
    /// Whom.
    pub name: String,
    /// `penalty` or `deny`.
    pub to: String,
    /// Seconds until it ends by itself: 1 to 86,400.
    pub for_seconds: u64,
    /// Why. Told to the client, 1 to 200 bytes.
    pub reason: String,
    /// Although the target is protected.
    #[serde(default)]
    pub force_protected: bool,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/lockdown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Seconds until it ends by itself: 1 to 86,400.
    pub for_seconds: u64,
    /// Why. Told to the clients, 1 to 200 bytes.
    pub reason: String,
}

/// `POST /v1/limit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldLimit {
    /// `at-most` or `exactly`.
    pub hold: String,
    /// Seats; for `exactly`, without it, what L is now.
    pub seats: Option<u32>,
    /// Seconds until it ends by itself: 1 to 86,400.
    pub for_seconds: u64,
    /// Why, 1 to 200 bytes.
    pub reason: String,
}

/// `POST /v1/isolations/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// An id, or the name of a target.
    pub which: String,
}

/// A client that was here lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientView {
    /// Its user name.
    pub user: String,
    /// The lanes of its requests, highest first.
    pub lanes: Vec<String>,
    /// Requests a second that kube-apiserver answered.
    pub served_per_second: f64,
    /// Requests a second that spillway answered itself.
    pub shed_per_second: f64,
    /// Percent of the work of the last ten seconds that it made; 0 for who makes too little to be counted.
    pub cost_percent: f64,
    /// Seconds since it was last here.
    pub idle_seconds: u64,
    /// Addresses that it connects from.
    pub addresses: usize,
}

/// Who would be affected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    /// The busiest of them.
    pub clients: Vec<ClientView>,
    /// How many there are in all.
    pub matching: usize,
    /// When there are none: the name of somebody who was here that may have been meant.
    pub near: Option<String>,
    /// Why this must not be done without force; empty when it may be.
    pub protected: Vec<String>,
}

/// An isolation that is, or would be, in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IsolationView {
    /// Its id; empty in a dry run.
    pub id: String,
    /// Kind of its target.
    pub kind: String,
    /// Name of its target.
    pub name: String,
    /// What happens to them.
    pub action: String,
    /// Seconds until it ends by itself.
    pub remaining_seconds: u64,
    /// Why.
    pub reason: String,
    /// Who set it: `uid 0`.
    pub by: String,
    /// When, in seconds since 1970.
    pub since: u64,
    /// It also touches leases and controllers.
    pub forced: bool,
    /// Requests that it refused.
    pub refused: u64,
    /// Requests that its penalty let through.
    pub passed: u64,
}

/// The answer to `POST /v1/isolations`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Isolated {
    /// What is in force now.
    pub isolation: IsolationView,
    /// Who is affected.
    pub preview: Preview,
    /// Whether and how it survives a restart.
    pub kept: Kept,
}

/// Whether a lever survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// It was written to the state folder.
    pub on_disk: bool,
    /// Why not.
    pub problem: String,
}

/// `GET /v1/isolations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Isolations {
    /// The oldest first.
    pub isolations: Vec<IsolationView>,
}

/// A lockdown or a hold that is in force, or just ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeverView {
    /// What is in force, in a few words.
    pub what: String,
    /// Seconds until it ends by itself.
    pub remaining_seconds: u64,
    /// Why.
    pub reason: String,
    /// Who set it: `uid 0`.
    pub by: String,
}

/// The answer to everything that moves a lever but an isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Moved {
    /// What is in force now, or was until now.
    pub lever: LeverView,
    /// Whether and how it survives a restart.
    pub kept: Kept,
}

/// One lane in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaneStatus {
    /// Its name.
    pub name: String,
    /// Whether it is let in at all.
    pub open: bool,
    /// Seats in use, up to which total it is let in, and how many are always its own.
    pub seats: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub ceiling: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub floor: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Live watches.
    pub watches: u32,
    /// Requests a second that were let in, over the last seconds.
    pub served_per_second: f64,
    /// Requests a second that were refused, over the last seconds.
    pub shed_per_second: f64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Of the proxy.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Whether clients should be sent here; false while it starts or drains.
    pub ready: bool,
    /// `normal`, `brown`, `red`, `cold` or `ramp`.
    pub state: String,
    /// One of the causes, and the sentence that explains it.
    pub cause: String,
    #[expect(missing_docs, reason = "the line above says it")]
    pub diagnosis: String,
    /// The client that the cause speaks of.
    pub client: Option<String>,
    /// The limit L and its bounds, in seats.
    pub limit: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub limit_min: u32,
    #[expect(missing_docs, reason = "the line above says it")]
    pub limit_max: u32,
    /// Seats in use.
    pub seats: u32,
    /// How many times slower than calm.
    pub pressure: f64,
    /// Whether kube-apiserver answers probes.
    pub upstream_up: bool,
    /// Requests a second let in and refused, in all lanes.
    pub served_per_second: f64,
    #[expect(missing_docs, reason = "the line above says it")]
    pub shed_per_second: f64,
    /// The lanes, highest first.
    pub lanes: Vec<LaneStatus>,
    /// Those who are refused most, at most three.
    pub most_refused: Vec<ClientView>,
    /// What is in force by hand.
    pub isolations: Vec<IsolationView>,
    #[expect(missing_docs, reason = "the line above says it")]
    pub lockdown: Option<LeverView>,
    #[expect(missing_docs, reason = "the line above says it")]
    pub held: Option<LeverView>,
    /// Whether the levers survive a restart.
    pub kept: Kept,
    /// The policy in force, and what is not right with its files.
    pub config: ConfigView,
    /// How far it is in force.
    pub enforcement: EnforcementView,
    /// Newcomers whose cost would be too much, the dearest first, at most three.
    pub newcomers_warned: Vec<newcomers::NewcomerView>,
}

/// `GET /v1/clients?by=cost`, `asked`, `served` or `refused`, with `like=` only those who have it in their name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Clients {
    /// The first of them, at most 20.
    pub clients: Vec<ClientView>,
    /// How many were here lately.
    pub known: usize,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventView {
    /// Its number in this process, from 1.
    pub number: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// `lever`, `overload` or `newcomer`.
    pub kind: String,
    /// What.
    pub text: String,
}

/// `GET /v1/events?after=NUMBER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Events {
    /// The oldest first, at most 256.
    pub events: Vec<EventView>,
    /// The number of the last one.
    pub last: u64,
}

/// An answer that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// `SPW` and four digits; `docs/LEVERS.md` lists them.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub help: String,
    /// What it concerns, one a line.
    pub details: Vec<String>,
}

impl Problem {
    /// A problem without details.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), help: help.into(), details: vec![] }
    }
}

/// The codes of problems.
pub mod code {
    /// The request is not one.
    pub const MALFORMED: &str = "SPW0541";
    /// No reason, or one that cannot be shown.
    pub const REASON: &str = "SPW0542";
    /// The time is outside its range.
    pub const TTL: &str = "SPW0543";
    /// The target is no target.
    pub const TARGET: &str = "SPW0544";
    /// There is no such action.
    pub const ACTION: &str = "SPW0545";
    /// The target is protected.
    pub const PROTECTED: &str = "SPW0546";
    /// Too many isolations.
    pub const TOO_MANY: &str = "SPW0547";
    /// Nothing of this name is in force.
    pub const NOT_IN_FORCE: &str = "SPW0548";
    /// Several things of this name are in force.
    pub const AMBIGUOUS: &str = "SPW0549";
    /// The seats are outside their range.
    pub const SEATS: &str = "SPW0550";
    /// In force, but it would not survive a restart.
    pub const NOT_KEPT: &str = "SPW0551";
    /// Too many ask at a time, or it takes too long.
    pub const BUSY: &str = "SPW0552";
    /// Nobody answers at the socket.
    pub const UNREACHABLE: &str = "SPW0553";
    /// The socket may not be opened.
    pub const FORBIDDEN: &str = "SPW0554";
    /// The state file of the levers is not believed, or cannot be read.
    pub const STATE: &str = "SPW0555";
    /// The socket cannot be made.
    pub const SOCKET: &str = "SPW0556";
    /// No refusal is kept under this id.
    pub const NO_DECISION: &str = "SPW0780";
    /// What is asked about is no request.
    pub const NO_REQUEST: &str = "SPW0781";
    /// A confirmation is needed, and nobody can be asked.
    pub const CONFIRM: &str = "SPW0557";
    /// The terminal cannot be used as a screen.
    pub const SCREEN: &str = "SPW0580";
    /// The file of instances cannot be used.
    pub const INSTANCES: &str = "SPW0581";
    /// Several instances are meant, and the command asks one.
    pub const ONE: &str = "SPW0582";
    /// Some of several instances did not answer.
    pub const SOME: &str = "SPW0583";
    /// Nobody can be approved for that lane.
    pub const NEWCOMER_LANE: &str = "SPW0860";
    /// The file of who is known is not believed.
    pub const NEWCOMERS_STATE: &str = "SPW0861";
}
