//! Which callers and requests does one rule name?
//!
//! A [`Match`] has three parts. *Who* is decided once per identity and kept in a [`super::RuleSet`]; *what* and the
//! *hints* are decided per request. Within a list any entry will do; every part that is given must fit. An empty
//! match fits everything.

use super::{Lane, Mode, Pattern};
use crate::identity::{Credential, Identity};
use crate::request::{RequestInfo, Scope, Verb};

/// One line of the policy: callers and requests, and the lane they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in `explain` and logs.
    pub name: String,
    /// Whom and what it names.
    pub matches: Match,
    /// The lane it gives.
    pub lane: Lane,
    /// It only lowers: it never decides by itself, and whatever lane was found becomes at most this one.
    pub only_lower: bool,
    /// How far its requests are held to what is decided; else as all others are.
    pub enforcement: Option<Mode>,
}

impl Rule {
    /// Whether it can lift a caller above [`Lane::Unknown`]. Only a verified credential may be lifted.
    #[must_use]
    pub fn promotes(&self) -> bool {
        !self.only_lower && self.lane < Lane::Unknown
    }
}

/// Whom and what a rule names. Each list: any entry will do; empty: not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// User names.
    pub users: Vec<Pattern>,
    /// Groups, one of which the caller must be in.
    pub groups: Vec<Pattern>,
    /// Service accounts.
    pub service_accounts: Vec<ServiceAccountPattern>,
    /// Namespaces of service accounts.
    pub service_account_namespaces: Vec<Pattern>,
    /// How the caller was proven.
    pub credentials: Vec<Credential>,
    /// Verbs.
    pub verbs: Vec<Verb>,
    /// Resources; a rule with resources never fits a plain path.
    pub resources: Vec<ResourcePattern>,
    /// Namespaces that the request is for; cluster-wide requests have none and fit only `*`.
    pub namespaces: Vec<Pattern>,
    /// Plain paths; a rule with paths never fits a resource.
    pub paths: Vec<Pattern>,
    /// How much the request can touch.
    pub scope: Option<Scope>,
    /// Only requests that read a collection whole (`true`), or only others (`false`).
    pub unpaged: Option<bool>,
    /// User agents, one of which must fit. The client chooses this text, so it may only lower.
    pub user_agents: Vec<Pattern>,
    /// User agents, none of which may fit; a request without one fits none. May only lower, too.
    pub not_user_agents: Vec<Pattern>,
}

/// A service account: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountPattern {
    /// Its namespace.
    pub namespace: Pattern,
    /// Its name.
    pub name: Pattern,
}

/// A resource with its group and subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePattern {
    /// API group; empty for the core group.
    pub group: Pattern,
    /// Resource, plural.
    pub resource: Pattern,
    /// Subresource; empty for the resource itself.
    pub subresource: Pattern,
}

/// What the client says of itself. Nobody checks it, so it may only lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints<'a> {
    /// The `User-Agent` header.
    pub user_agent: Option<&'a str>,
    /// It asks to act as somebody else (`Impersonate-User`).
    pub impersonates: bool,
}

fn fits_any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
}

impl Match {
    /// Whether *who* fits.
    #[must_use]
    pub fn fits_identity(&self, identity: &Identity) -> bool {
        (self.credentials.is_empty() || self.credentials.contains(&identity.credential))
            && fits_any(&self.users, &identity.user)
            && (self.groups.is_empty() || identity.groups.iter().any(|group| fits_any(&self.groups, group)))
            && self.fits_service_account(identity)
    }

    fn fits_service_account(&self, identity: &Identity) -> bool {
        if self.service_accounts.is_empty() && self.service_account_namespaces.is_empty() {
            return true;
        }
        let Some((namespace, name)) = identity.service_account() else { return false };
        fits_any(&self.service_account_namespaces, namespace)
            && (self.service_accounts.is_empty()
                || self.service_accounts.iter().any(|account| account.matches(namespace, name)))
    }

    /// Whether *what* and the hints fit.
    #[must_use]
    pub fn fits_request(&self, info: &RequestInfo<'_>, hints: &Hints<'_>) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&info.verb))
            && (self.resources.is_empty() || self.resources.iter().any(|resource| resource.matches(info)))
            && (self.paths.is_empty() || !info.is_resource && fits_any(&self.paths, info.path))
            && (self.namespaces.is_empty() || info.is_resource && fits_any(&self.namespaces, info.namespace))
            && self.scope.is_none_or(|scope| scope == info.scope())
            && self.unpaged.is_none_or(|unpaged| unpaged == info.is_unpaged())
            && self.fits_user_agent(hints.user_agent.unwrap_or(""))
    }

    /// Whether it looks at the user agent.
    #[must_use]
    pub fn asks_user_agent(&self) -> bool {
        !self.user_agents.is_empty() || !self.not_user_agents.is_empty()
    }

    fn fits_user_agent(&self, user_agent: &str) -> bool {
        fits_any(&self.user_agents, user_agent)
            && !self.not_user_agents.iter().any(|pattern| pattern.matches(user_agent))
    }
}

impl ServiceAccountPattern {
    /// Reads `NAMESPACE/NAME`; `None` without the slash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let named = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        named.then(|| Self { namespace: Pattern::new(namespace), name: Pattern::new(name) })
    }

    fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.matches(namespace) && self.name.matches(name)
    }
}

impl ResourcePattern {
    /// Reads `RESOURCE[.GROUP][/SUBRESOURCE]`: `pods`, `nodes/status`, `leases.coordination.k8s.io`,
    /// `deployments.apps/scale`. Without a group the core group is meant; `*` alone is every resource and
    /// subresource of every group.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::any_in(Pattern::new("*")));
        }
        let (resource, subresource) = text.split_once('/').unwrap_or((text, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let named = !resource.is_empty() && !text.ends_with(['/', '.']) && !subresource.contains(['/', '.']);
        named.then(|| Self {
            group: Pattern::new(group),
            resource: Pattern::new(resource),
            subresource: Pattern::new(subresource),
        })
    }

    /// Every resource and subresource of a group.
    #[must_use]
    pub fn any_in(group: Pattern) -> Self {
        Self { group, resource: Pattern::new("*"), subresource: Pattern::new("*") }
    }

    fn matches(&self, info: &RequestInfo<'_>) -> bool {
        info.is_resource
            && self.resource.matches(info.resource)
            && self.group.matches(info.api_group)
            && self.subresource.matches(info.subresource)
    }
}
