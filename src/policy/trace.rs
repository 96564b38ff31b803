//! Why did each rule fit this request, or not?
//!
//! The slow twin of [`Policy::classify`], for `explain`: the same walk, and for every rule the first of its parts that
//! does not fit. A test holds the two to the same answer, so that an explanation can never tell of another decision.

use super::rule::{Hints, Match, Rule};
use super::{Class, Lane, Policy};
use crate::identity::Identity;
use crate::request::RequestInfo;

/// What one rule had to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first that fits: it chose the lane.
    Decides,
    /// It fits and lowered the lane.
    Lowers,
    /// It fits and changes nothing: the lane is as low already.
    FitsInVain,
    /// An earlier rule had decided.
    NotReached,
    /// This part of it does not fit.
    Misses(Part),
}

/// A part of a rule that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It promotes, and the caller proved nothing that this process could check.
    Proof,
    /// `credentials`.
    Credentials,
    /// `users`.
    Users,
    /// `groups`.
    Groups,
    /// `serviceAccounts` or `serviceAccountNamespaces`.
    ServiceAccounts,
    /// `verbs`.
    Verbs,
    /// `resources`.
    Resources,
    /// `paths`.
    Paths,
    /// `namespaces`.
    Namespaces,
    /// `scope`.
    Scope,
    /// `unpaged`.
    Unpaged,
    /// `userAgents` or `notUserAgents`.
    UserAgents,
}

impl Part {
    /// The key of the rule that says it, and of `proof` what it means.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proof => "it promotes, and this caller is not verified",
            Self::Credentials => "credentials",
            Self::Users => "users",
            Self::Groups => "groups",
            Self::ServiceAccounts => "serviceAccounts",
            Self::Verbs => "verbs",
            Self::Resources => "resources",
            Self::Paths => "paths",
            Self::Namespaces => "namespaces",
            Self::Scope => "scope",
            Self::Unpaged => "unpaged",
            Self::UserAgents => "userAgents",
        }
    }
}

impl Policy {
    /// The decision of [`Policy::classify`], and what each rule had to do with it, in order.
    #[must_use]
    pub fn trace(
        &self,
        identity: &Identity,
        info: &RequestInfo<'_>,
        hints: &Hints<'_>,
    ) -> (Class, Vec<Step<'_>>) {
        let class = self.classify(identity, self.subjects(identity), info, hints);
        let miss = |rule: &Rule| {
            if rule.promotes() && !lifts(rule, identity) {
                return Some(Part::Proof);
            }
            rule.matches.misses(identity, info, hints)
        };
        let misses: Vec<Option<Part>> = self.rules().iter().map(miss).collect();
        let mut fitting = self
            .rules()
            .iter()
            .zip(&misses)
            .filter(|(rule, miss)| !rule.only_lower && rule.lane != Lane::BreakGlass && miss.is_none());
        let decides: Option<&Rule> = fitting.next().map(|(rule, _)| rule);
        let mut lane = decides.map_or(Lane::Unknown, |rule| rule.lane);
        let mut decided = false;
        let mut steps = Vec::with_capacity(misses.len());
        for (rule, miss) in self.rules().iter().zip(misses) {
            let verdict = match miss {
                Some(part) => Verdict::Misses(part),
                None if rule.only_lower && rule.lane > lane => {
                    lane = rule.lane;
                    Verdict::Lowers
                }
                None if rule.only_lower => Verdict::FitsInVain,
                None if decided => Verdict::NotReached,
                None if rule.lane == Lane::BreakGlass => Verdict::FitsInVain,
                None => {
                    decided = true;
                    Verdict::Decides
                }
            };
            steps.push(Step { rule, verdict });
        }
        (class, steps)
    }
}

/// Whether the caller's proof is enough for a rule that promotes; as [`Policy::subjects`] has it.
fn lifts(rule: &Rule, identity: &Identity) -> bool {
    match rule.lane {
        Lane::NodeHealth => identity.credential.is_verified_here(),
        _ => identity.credential.is_verified(),
    }
}

impl Match {
    /// The first part that does not fit.
    fn misses(&self, identity: &Identity, info: &RequestInfo<'_>, hints: &Hints<'_>) -> Option<Part> {
        let only = |part: Part| -> Self {
            let mut one = Self::default();
            match part {
                Part::Proof => {}
                Part::Credentials => one.credentials = self.credentials.clone(),
                Part::Users => one.users = self.users.clone(),
                Part::Groups => one.groups = self.groups.clone(),
                Part::ServiceAccounts => {
                    one.service_accounts = self.service_accounts.clone();
                    one.service_account_namespaces = self.service_account_namespaces.clone();
                }
                Part::Verbs => one.verbs = self.verbs.clone(),
                Part::Resources => one.resources = self.resources.clone(),
                Part::Paths => one.paths = self.paths.clone(),
                Part::Namespaces => one.namespaces = self.namespaces.clone(),
                Part::Scope => one.scope = self.scope,
                Part::Unpaged => one.unpaged = self.unpaged,
                Part::UserAgents => {
                    one.user_agents = self.user_agents.clone();
                    one.not_user_agents = self.not_user_agents.clone();
                }
            }
            one
        };
        // One part at a time through the very functions that decide: there is no second reading that could differ.
        const PARTS: [Part; 11] = [
            Part::Credentials,
            Part::Users,
            Part::Groups,
            Part::ServiceAccounts,
            Part::Verbs,
            Part::Resources,
            Part::Paths,
            Part::Namespaces,
            Part::Scope,
            Part::Unpaged,
            Part::UserAgents,
        ];
        PARTS.into_iter().find(|part| {
            let one = only(*part);
            !(one.fits_identity(identity) && one.fits_request(info, hints))
        })
    }
}
