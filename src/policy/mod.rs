//! Which lane does this caller's request belong to, and why?
//!
//! Rules are tried in order and the first that fits gives the lane, as FlowSchemas do in API Priority and Fairness.
//! Who a rule names is decided once per identity ([`Policy::subjects`]); per request only the rules that are left
//! are looked at. Four things hold whatever the rules say:
//!
//! - a caller with a break-glass credential is in the break-glass lane, and nobody else can be;
//! - a rule that lifts above `unknown` fits verified callers only ([`crate::identity::Credential::is_verified`]), and one
//!   that lifts to `node-health` only those whose proof needed nobody else;
//! - what the client merely claims can only lower: rules that look at the user agent carry `onlyLower`, a request
//!   that impersonates ranks by its real caller and never above `operators`, and an odd path is `unknown` at most;
//! - health probes are exempt for everyone.
//!
//! `onlyLower` rules stand outside the order: each one that fits applies, and the lowest lane wins. So no mistake in
//! their place can lift anything.
//!
//! Left out: limits and state (`flow`), and reading rules from files (`config`).

mod enforcement;
mod lane;
mod pattern;
pub mod rollout;
mod rule;
mod settings;
mod trace;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use enforcement::{Enforcement, Mode, place};
pub use lane::{Lane, NotALane};
pub use pattern::Pattern;
pub use rule::{Hints, Match, ResourcePattern, Rule, ServiceAccountPattern};
pub use settings::{LaneSettings, Rate};
pub use trace::{Part, Step, Verdict};

use crate::identity::{Credential, Identity};
use crate::request::RequestInfo;

/// The most rules a policy can have: one bit each in a [`RuleSet`].
pub const RULES_MAX: usize = 128;

/// A compiled policy. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Box<[Rule]>,
    lowering: RuleSet,
    lanes: [LaneSettings; Lane::COUNT],
    seed: u64,
    id: u64,
    enforcement: Enforcement,
}

/// The rules that can fit one identity. Resolved once per connection or token; worthless under another policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(u128);

/// What was decided about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its lane. Of an exempt request: the lane whose connections it may use.
    pub lane: Lane,
    /// What gave it the lane; [`Policy::rule_name`] has its name.
    pub rule: RuleIndex,
    /// Who shares its queue: the user, and for service accounts of a DaemonSet the node as well.
    pub flow: FlowKey,
    /// Whose rate it counts against: the user.
    pub client: ClientKey,
    /// It is neither queued nor held against the limit.
    pub exempt: bool,
    /// How far it is held to what is decided about it.
    pub mode: Mode,
}

/// Who shares one queue inside a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey(pub u64);

/// One user name, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

/// A rule's place, or one of the reasons that stand outside the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleIndex(u8);

impl RuleIndex {
    /// The caller came through the break-glass listener with its credential.
    pub const BREAK_GLASS: Self = Self(251);
    /// The request is a health probe.
    pub const HEALTH_PROBE: Self = Self(252);
    /// The path has empty or dot segments.
    pub const ODD_PATH: Self = Self(253);
    /// The request impersonates.
    pub const IMPERSONATION: Self = Self(254);
    /// No rule fits.
    pub const NO_RULE: Self = Self(255);
}

// The reserved places must lie beyond every rule's.
const _: () = assert!(RULES_MAX <= RuleIndex::BREAK_GLASS.0 as usize);

/// Why rules cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There are more than fit a [`RuleSet`].
    #[error("{0} rules, but at most {RULES_MAX} are possible: name several subjects in one rule")]
    TooManyRules(usize),
    /// A rule that decides looks at the user agent.
    #[error("rule {0:?} looks at the user agent, which the client chooses: it must only lower")]
    UserAgentDecides(String),
}

impl Policy {
    /// Compiles rules and lanes. `seed` keeps flow and client keys of one process from being guessed in another.
    ///
    /// # Errors
    /// [`PolicyError`] names the rule at fault, or how many there are.
    pub fn new(rules: Vec<Rule>, lanes: [LaneSettings; Lane::COUNT], seed: u64) -> Result<Self, PolicyError> {
        if rules.len() > RULES_MAX {
            return Err(PolicyError::TooManyRules(rules.len()));
        }
        if let Some(rule) = rules.iter().find(|rule| !rule.only_lower && rule.matches.asks_user_agent()) {
            return Err(PolicyError::UserAgentDecides(rule.name.clone()));
        }
        let lowering = RuleSet::of(&rules, |rule| rule.only_lower);
        Ok(Self { rules: rules.into(), lowering, lanes, seed, id: seed, enforcement: Enforcement::default() })
    }

    /// The same policy for as much of its identities. What was resolved under it stays good.
    #[must_use]
    pub const fn under(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Whom it holds.
    #[must_use]
    pub const fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// The rules whose *who* fits `identity`. An unverified caller never gets one that promotes.
    #[must_use]
    pub fn subjects(&self, identity: &Identity) -> RuleSet {
        let credential = identity.credential;
        let lifts = |rule: &Rule| match rule.lane {
            Lane::NodeHealth => credential.is_verified_here(),
            _ => credential.is_verified(),
        };
        RuleSet::of(&self.rules, |rule| {
            (!rule.promotes() || lifts(rule)) && rule.matches.fits_identity(identity)
        })
    }

    /// The lane of one request. `subjects` must be this policy's answer for `identity`.
    #[must_use]
    pub fn classify(
        &self,
        identity: &Identity,
        subjects: RuleSet,
        info: &RequestInfo<'_>,
        hints: &Hints<'_>,
    ) -> Class {
        let exempt = identity.credential != Credential::BreakGlass && info.is_health_probe();
        let (lane, rule) = if identity.credential == Credential::BreakGlass {
            (Lane::BreakGlass, RuleIndex::BREAK_GLASS)
        } else if exempt {
            // Load balancers take a node out when its probes fail, so these ride on connections shed last.
            (Lane::NodeHealth, RuleIndex::HEALTH_PROBE)
        } else {
            self.lane_by_rules(subjects, info, hints)
        };
        let (client, flow) = self.keys(identity);
        let own = self.rules.get(usize::from(rule.0)).and_then(|rule| rule.enforcement);
        let mode = own.unwrap_or_else(|| self.enforcement.of(&identity.user));
        Class { lane, rule, flow, client, exempt, mode }
    }

    /// The name of what gave a request its lane.
    #[must_use]
    pub fn rule_name(&self, rule: RuleIndex) -> &str {
        match rule {
            RuleIndex::BREAK_GLASS => "(break-glass credential)",
            RuleIndex::HEALTH_PROBE => "(health probe)",
            RuleIndex::ODD_PATH => "(odd path)",
            RuleIndex::IMPERSONATION => "(impersonation)",
            RuleIndex(place) => self.rules.get(usize::from(place)).map_or("(no rule)", |rule| &rule.name),
        }
    }

    /// Tells this policy from every other of the process: whoever keeps a [`RuleSet`] compares it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The same policy, told apart from others of its seed by `generation`. One process keeps one seed, so that a change
    /// of the policy leaves clients the rates and histories that they have.
    #[must_use]
    pub const fn numbered(mut self, generation: u64) -> Self {
        self.id = self.seed.wrapping_add(generation);
        self
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What `lane` may use.
    #[must_use]
    pub const fn lane(&self, lane: Lane) -> &LaneSettings {
        &self.lanes[lane.index()]
    }

    fn lane_by_rules(
        &self,
        subjects: RuleSet,
        info: &RequestInfo<'_>,
        hints: &Hints<'_>,
    ) -> (Lane, RuleIndex) {
        let mut found = (Lane::Unknown, RuleIndex::NO_RULE);
        for place in subjects.without(self.lowering).places() {
            let rule = &self.rules[place];
            // The break-glass lane has no rule: were one made, it must not open the door.
            if rule.lane != Lane::BreakGlass && rule.matches.fits_request(info, hints) {
                found = (rule.lane, RuleIndex::at(place));
                break;
            }
        }
        for place in subjects.within(self.lowering).places() {
            let rule = &self.rules[place];
            if rule.lane > found.0 && rule.matches.fits_request(info, hints) {
                found = (rule.lane, RuleIndex::at(place));
            }
        }
        if hints.impersonates && found.0 < Lane::Operators {
            found = (Lane::Operators, RuleIndex::IMPERSONATION);
        }
        if info.odd && found.0 < Lane::Unknown {
            found = (Lane::Unknown, RuleIndex::ODD_PATH);
        }
        found
    }

    /// SipHash, because user names come from outside; the seed goes first, so that collisions cannot be prepared.
    fn keys(&self, identity: &Identity) -> (ClientKey, FlowKey) {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        identity.user.hash(&mut hasher);
        let client = hasher.finish();
        let flow = identity.node().map_or(client, |node| {
            node.hash(&mut hasher);
            hasher.finish()
        });
        (ClientKey(client), FlowKey(flow))
    }
}

impl RuleIndex {
    fn at(place: usize) -> Self {
        // `Policy::new` keeps every place below `RULES_MAX`, which a byte holds.
        u8::try_from(place).map_or(Self::NO_RULE, Self)
    }
}

impl RuleSet {
    fn of(rules: &[Rule], contains: impl Fn(&Rule) -> bool) -> Self {
        Self(
            rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| contains(rule))
                .fold(0, |set, (place, _)| set | 1 << place),
        )
    }

    const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The places of its rules, in order.
    fn places(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let place = left.trailing_zeros() as usize;
            (left != 0).then(|| {
                left &= left - 1;
                place
            })
        })
    }
}
