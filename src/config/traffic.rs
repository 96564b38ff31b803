//! Who goes first, and how much may each take? The types behind `kind: TrafficPolicy`.
//!
//! All of it is hot: a new file takes effect for the next request. Lanes that a file does not mention keep their
//! defaults, and its rules come before the default rules unless it says otherwise.

use std::time::Duration;

use crate::flow::newcomers::NewcomerSettings;
use crate::flow::{self, HoldSettings, Laws, LimitSettings, MemorySettings, WatchSettings};
use crate::policy::rollout::RolloutSettings;
use crate::policy::{Enforcement, Lane, LaneSettings, Policy, PolicyError, Rule};

/// The embedded default: the lanes and rules a cluster gets when nobody says anything.
pub const DEFAULT_POLICY_YAML: &str = include_str!("../../config/policy.yaml");

/// Lanes, rules and the limit's bounds, complete: defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Its name in metrics and logs.
    pub name: String,
    /// What each lane may use, by [`Lane::index`].
    pub lanes: [LaneSettings; Lane::COUNT],
    /// First match wins. At most 128, default rules included.
    pub rules: Vec<Rule>,
    /// The limit and what counts as calm.
    pub overload: OverloadSettings,
    /// Whom it holds already. `mode`: `Disabled`, `Shadow` or `Enforce`, the default; `percent` of the identities, default
    /// 100, range 0 to 100.
    pub enforcement: Enforcement,
    /// How it comes into force by `spillway rollout`. `steps`: percent, rising, 1 to 100, default none; `stepInterval`: how
    /// long each must have been judged good, default 30 m, range 1 s to 7 d. `guard`: `interval`, default 60 s, range 1 s to
    /// 1 h; `failureThreshold`, default 3, range 1 to 100; `checks`, at most 8.
    pub rollout: RolloutSettings,
    /// Who was never here before. `guard`: default true. `learning` after the first start, in which everybody becomes known:
    /// default 1 h, range 0 s to 720 h. `knownAfter` without a warning: default 24 h, range 1 min to 720 h. `seats` that one
    /// takes on average before it ranks as telemetry: default 2, range 1 to 1,000. `warnPercent` of L: default 25, range 1 to
    /// 1,000.
    pub newcomers: NewcomerSettings,
}

impl TrafficPolicy {
    /// What each lane may use, by [`Lane::index`].
    #[must_use]
    pub const fn lanes(&self) -> [LaneSettings; Lane::COUNT] {
        self.lanes
    }

    /// The policy in the form that decides. `seed` keeps flow keys of this process from being guessed.
    ///
    /// # Errors
    /// None for a policy that [`super::load()`] accepted; one built by hand may break a rule of [`Policy::new`].
    pub fn compile(&self, seed: u64) -> Result<Policy, PolicyError> {
        Ok(Policy::new(self.rules.clone(), self.lanes, seed)?.under(self.enforcement))
    }
}

/// Whether the embedded default rules follow a file's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultRules {
    /// They come after the file's own.
    #[default]
    Append,
    /// The file's rules are all there are.
    Omit,
}

/// The limit, what counts as calm, and the other bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadSettings {
    /// Bounds of the limit L.
    pub limit: LimitBounds,
    /// Times to first byte below which a request counts as calm, however slow it is against its own baseline.
    pub objectives: Objectives,
    /// `memory.responseBytes`: estimated bytes of answers in flight at most. Default `auto`: for an apiserver on this
    /// host a quarter of its memory, at five bytes of it for each byte of an answer; for another one 192 MiB.
    /// A number instead: 1 MiB to 1 TiB; 0: no bound.
    pub memory: MemorySettings,
    /// Bounds of watches. `perIdentity` (a user name; on a node, for bound tokens): default 1,000, range 1 to 100,000,
    /// 0: no bound. By lane, `live`: default 0, no bound; `starts`: per second and at once, default 100/400 for
    /// workload, 50/200 for unknown, 10/50 for telemetry; `perSecond` 0: no bound.
    pub watches: WatchSettings,
    /// Refusals kept back, for clients that return before they were told to. `longest`: default 3 s, range 0 s to
    /// 10 s, 0: never. `most` at a time: default 1,000, range 0 to 100,000.
    pub hold: HoldSettings,
    /// `laws.cancelWorst`: in Red, reset the largest telemetry LISTs that still run. Default true.
    pub cancel_worst: bool,
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self {
            limit: LimitBounds::default(),
            objectives: Objectives::default(),
            memory: MemorySettings::default(),
            watches: WatchSettings::default(),
            hold: HoldSettings::default(),
            cancel_worst: Laws::default().cancel_worst,
        }
    }
}

/// Bounds of L, the seats that may be in use at kube-apiserver at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitBounds {
    /// L never falls below. Default 10, range 1 to 10,000. The lanes' floors are what protects at this point.
    pub min: u32,
    /// L never rises above. Default 1,000, range `min` to 10,000. kube-apiserver's own in-flight limits are 400 + 200.
    pub max: u32,
    /// L at start, before anything is learnt. Default 64, range `min` to `max`.
    pub initial: u32,
}

impl Default for LimitBounds {
    fn default() -> Self {
        let LimitSettings { min, max, start } = LimitSettings::default();
        Self { min: min.0, max: max.0, initial: start.0 }
    }
}

/// Times to first byte that count as calm. Range of each: 10 ms to 120 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// Requests for one object. Default 250 ms.
    pub object: Duration,
    /// Lists of one namespace. Default 2 s.
    pub namespace: Duration,
    /// Lists of the whole cluster. Default 10 s.
    pub cluster: Duration,
}

impl Default for Objectives {
    fn default() -> Self {
        let flow::Objectives { object, namespace_list, cluster_list } = flow::Objectives::default();
        Self { object, namespace: namespace_list, cluster: cluster_list }
    }
}
