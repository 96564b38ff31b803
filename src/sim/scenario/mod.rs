//! What happens in a scenario, as its file says?
//!
//! A scenario is YAML: a server, groups of clients, events, three phases, and bands in which metrics must lie. Unknown
//! keys are errors, and an error names its line and column. `read` handovers text into these types, `check` says what else
//! is wrong with them, `built_in` are those that come with the binary.

mod built_in;
mod check;
mod quantity;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use built_in::{BUILT_IN, BuiltIn};
pub use quantity::{Band, Size, Span};

/// One scenario.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// Its name in tables.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The apiserver.
    #[serde(default)]
    pub server: Server,
    /// Objects by resource, where they differ from a cluster of 500 nodes and 5,000 pods.
    #[serde(default)]
    pub objects: BTreeMap<String, Objects>,
    /// Calm, storm, after: what is measured is measured by phase.
    pub phases: Phases,
    /// Who asks.
    pub clients: Vec<Group>,
    /// What happens to the apiserver.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Bands that must hold for spillway.
    #[serde(default)]
    pub expect: BTreeMap<String, Band>,
    /// Bands that must hold for `none`, or the scenario proves nothing.
    #[serde(default)]
    pub control: BTreeMap<String, Band>,
}

/// The apiserver and its etcd.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Server {
    /// Cores.
    pub cores: f64,
    /// Where the process is killed.
    pub memory: Size,
    /// API Priority and Fairness at its defaults.
    pub apf: bool,
    /// LISTs stop when their client is gone (1.33 and later).
    pub streaming: bool,
    /// Small requests wait at hand-overs behind long computations, as measured.
    pub handovers: bool,
    /// LISTs without a resourceVersion go to etcd (1.30 and earlier).
    pub lists_from_etcd: bool,
}

impl Default for Server {
    fn default() -> Self {
        let memory = Size(16.0 * 1_073_741_824.0);
        Self { cores: 16.0, memory, apf: true, streaming: true, handovers: true, lists_from_etcd: false }
    }
}

/// Objects of one resource.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Objects {
    /// How many.
    pub count: Option<u32>,
    /// JSON of one.
    pub bytes: Option<Size>,
}

/// How long each phase lasts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Before anything happens.
    pub calm: Span,
    /// While it happens.
    pub storm: Span,
    /// Afterwards.
    pub after: Span,
}

/// Clients that behave alike.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How they behave.
    pub kind: Kind,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Their lane; or give an identity, and policy decides.
    #[serde(default)]
    pub lane: Option<String>,
    /// Who they are; `{n}` stands for the client's number.
    #[serde(default)]
    pub identity: Option<Caller>,
    /// With `lane`: all are one user on many nodes, as the pods of a DaemonSet are.
    #[serde(default)]
    pub shared: bool,
    /// Their APF level, where it does not follow from the lane.
    #[serde(default)]
    pub apf: Option<String>,
    /// Request lines, such as `GET /api/v1/pods?limit=500&resourceVersion=0`; `{n}` stands for the client's number.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Answers are asked for as protobuf, not JSON.
    #[serde(default)]
    pub protobuf: bool,
    /// What a call costs, where the model must not say.
    #[serde(default)]
    pub cost: Cost,
    /// Time between the starts of two calls; none: the next follows the last.
    #[serde(default)]
    pub period: Option<Span>,
    /// Share of the period by which it varies.
    #[serde(default = "tenth")]
    pub jitter: f64,
    /// How long one try may take.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// What their library does with failures.
    #[serde(default)]
    pub retry: Retry,
    /// Pause of an ignorant loop.
    #[serde(default)]
    pub pause: Option<Span>,
    /// Bytes a second that they read.
    #[serde(default)]
    pub reads: Option<Size>,
    /// When they are there: the whole run, or a phase, or from `starts` to `stops`.
    #[serde(default)]
    pub during: During,
    /// After the beginning of the run.
    #[serde(default)]
    pub starts: Option<Span>,
    /// After the beginning of the run.
    #[serde(default)]
    pub stops: Option<Span>,
    /// The time over which they start, one after another.
    #[serde(default)]
    pub ramp: Span,
}

fn one() -> u32 {
    1
}

fn tenth() -> f64 {
    0.1
}

/// How clients behave.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Renews a node's lease every ten seconds.
    Kubelet,
    /// Renews a leader-election lease every two seconds.
    Leader,
    /// Makes its calls in turn, each as one sequence that must work within ten seconds.
    Operator,
    /// LIST, then WATCH: its calls are these two.
    Informer,
    /// Makes its calls in turn, every period or at once.
    Loop,
}

/// What a client's library does with failures.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// Ten tries more, after the whole seconds of Retry-After.
    #[default]
    ClientGo,
    /// Fifteen, by Retry-After or exponentially.
    KubeRs,
    /// Again after `pause`, whatever the server says.
    Ignorant,
    /// Not at all.
    Once,
}

/// When clients are there.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum During {
    /// From beginning to end.
    #[default]
    Run,
    /// In the calm phase alone.
    Calm,
    /// In the storm alone.
    Storm,
    /// From the beginning of the storm to the end of the run.
    FromStorm,
}

/// Who a client is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// User name, such as `system:serviceaccount:obs:agent` or `system:node:node-{n}`.
    pub user: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The node of a bound token.
    #[serde(default)]
    pub node: Option<String>,
}

/// Costs of a call.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Cost {
    /// Time of one core.
    pub cpu: Option<Span>,
    /// Time of one etcd server.
    pub etcd: Option<Span>,
    /// Bytes of the answer.
    pub bytes: Option<Size>,
}

/// Something that happens to the apiserver; exactly one thing is named.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Event {
    /// After the beginning of the run.
    pub at: Span,
    /// It has this many cores from now on.
    pub cores: Option<f64>,
    /// Every request to etcd takes this much longer from now on.
    pub etcd_delay: Option<Span>,
    /// etcd answers nobody for this long...
    pub etcd_stall: Option<Span>,
    /// ... again and again with this period...
    pub every: Option<Span>,
    /// ... until then.
    pub until: Option<Span>,
    /// Writes of a resource wait for a webhook.
    pub webhook: Option<Webhook>,
    /// The process is killed and away for this long.
    pub kill: Option<Span>,
    /// A resource has this many objects from now on.
    pub objects: Option<Changed>,
}

/// A webhook on writes of one resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Such as `pods`.
    pub resource: String,
    /// Time that each write waits; from ten seconds on it fails.
    pub delay: Span,
}

/// New objects.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Such as `pods`.
    pub resource: String,
    /// How many there are now.
    pub count: u32,
}

/// Why a text is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("{message} (line {line}, column {column})")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where, from 1; 0 where unknown.
        line: u64,
        /// Where, from 1; 0 where unknown.
        column: u64,
    },
    /// It can be read and makes no sense.
    #[error("{place}: {message}")]
    Sense {
        /// Which part, such as `clients "agents"`.
        place: String,
        /// What is wrong and what to try.
        message: String,
    },
}

/// The longest text: the largest scenario that comes with the binary is a hundredth of it.
const TEXT_MAX: usize = 1 << 20;

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`] with the place of the first mistake.
    pub fn read(text: &str) -> Result<Self, ScenarioError> {
        if text.len() > TEXT_MAX {
            let message = format!("a scenario of {} bytes; at most {TEXT_MAX} are read", text.len());
            return Err(ScenarioError::Syntax { message, line: 0, column: 0 });
        }
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        let scenario: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
            let message = error.without_snippet().to_string();
            let suffix = format!(" at line {line}, column {column}");
            let message = message.strip_suffix(&suffix).unwrap_or(&message).to_owned();
            ScenarioError::Syntax { message, line, column }
        })?;
        scenario.check()?;
        Ok(scenario)
    }
}
