//! How is a TrafficPolicy written so that nothing is left to a default?
//!
//! All rules are in it, the default ones too, so it says `defaultRules: Omit`. Read again it is the same policy: a test
//! holds this and the list of keys together.

use super::tree::{Tree, list, map, maybe, some, text};
use crate::config::read_traffic::CREDENTIALS;
use crate::config::traffic::{OverloadSettings, TrafficPolicy};
use crate::flow::{ResponseBytes, WatchSettings};
use crate::policy::rollout::{Check, Guard};
use crate::policy::{Lane, LaneSettings, Match, Pattern, Rate, ResourcePattern, Rule, ServiceAccountPattern};
use crate::request::Scope;

/// Every key below `apiVersion` and `kind`.
pub(super) fn tree(policy: &TrafficPolicy) -> Tree {
    let (newcomers, rollout) = (&policy.newcomers, &policy.rollout);
    let lanes = lanes().map(|lane| (lane.to_string(), lane_settings(&policy.lanes[lane.index()]))).collect();
    map([
        ("name", (&policy.name).into()),
        (
            "enforcement",
            map([
                ("mode", text(policy.enforcement.mode)),
                ("percent", policy.enforcement.percent.into()),
                ("steps", list(&rollout.steps, |step| (*step).into())),
                ("stepInterval", rollout.step_interval.into()),
                ("guard", guard(&rollout.guard)),
            ]),
        ),
        ("lanes", Tree::Map(lanes)),
        ("overload", overload(&policy.overload)),
        (
            "newcomers",
            map([
                ("guard", newcomers.guard.into()),
                ("learning", newcomers.learning.into()),
                ("knownAfter", newcomers.known_after.into()),
                ("seats", newcomers.seats.into()),
                ("warnPercent", newcomers.warn_percent.into()),
            ]),
        ),
        ("defaultRules", text("Omit")),
        ("rules", list(&policy.rules, rule)),
    ])
}

fn lanes() -> impl Iterator<Item = Lane> {
    Lane::ALL.into_iter().filter(|lane| *lane != Lane::BreakGlass)
}

fn guard(guard: &Guard) -> Tree {
    map([
        ("interval", guard.interval.into()),
        ("failureThreshold", guard.failure_threshold.into()),
        ("checks", list(&guard.checks, check)),
    ])
}

fn check(check: &Check) -> Tree {
    let metric = ("metric", text(check.as_str()));
    match check {
        Check::UpstreamErrorRatio(hundredths) => {
            map([metric, ("max", text(format_args!("{}.{:02}%", hundredths / 100, hundredths % 100)))])
        }
        Check::ReadObjectP99(time) | Check::ProxyOverheadP99(time) => map([metric, ("max", (*time).into())]),
        Check::ShedInLane(lanes, most) => {
            map([metric, ("lanes", list(lanes, text)), ("max", (*most).into())])
        }
    }
}

fn lane_settings(lane: &LaneSettings) -> Tree {
    map([
        ("ceilingPercent", lane.ceiling_percent.into()),
        ("floorPercent", lane.floor_percent.into()),
        ("floorSeats", lane.floor_min.0.into()),
        ("wait", lane.wait.into()),
        ("queueLength", lane.queue_limit.into()),
        ("identityRate", rate(lane.identity_rate)),
    ])
}

/// No bound is written as 0 per second.
fn rate(rate: Option<Rate>) -> Tree {
    match rate {
        Some(rate) => map([("perSecond", rate.per_second.into()), ("burst", rate.burst.into())]),
        None => map([("perSecond", 0_u32.into()), ("burst", Tree::Null)]),
    }
}

fn overload(overload: &OverloadSettings) -> Tree {
    let response_bytes = match overload.memory.response_bytes {
        ResponseBytes::Auto => text("auto"),
        ResponseBytes::Fixed(bytes) => text(crate::config::quantity::show_size(bytes)),
    };
    map([
        (
            "limit",
            map([
                ("min", overload.limit.min.into()),
                ("max", overload.limit.max.into()),
                ("initial", overload.limit.initial.into()),
            ]),
        ),
        (
            "objectives",
            map([
                ("object", overload.objectives.object.into()),
                ("namespace", overload.objectives.namespace.into()),
                ("cluster", overload.objectives.cluster.into()),
            ]),
        ),
        ("memory", map([("responseBytes", response_bytes)])),
        ("watches", watches(&overload.watches)),
        ("hold", map([("longest", overload.hold.longest.into()), ("most", overload.hold.most.into())])),
        ("laws", map([("cancelWorst", overload.cancel_worst.into())])),
    ])
}

fn watches(watches: &WatchSettings) -> Tree {
    let lane = |lane: Lane| {
        let (live, starts) = (watches.per_lane[lane.index()], watches.starts[lane.index()]);
        (lane.to_string(), map([("live", live.into()), ("starts", rate(starts))]))
    };
    map([("perIdentity", watches.per_flow.into()), ("lanes", Tree::Map(lanes().map(lane).collect()))])
}

fn rule(rule: &Rule) -> Tree {
    map([
        ("name", (&rule.name).into()),
        ("match", matches(&rule.matches)),
        ("lane", text(rule.lane)),
        ("onlyLower", rule.only_lower.into()),
        ("enforcement", maybe(rule.enforcement, text)),
    ])
}

/// Only what is asked: a rule asks a few of fourteen things.
fn matches(matches: &Match) -> Tree {
    let patterns = |patterns: &[Pattern]| some(patterns, |pattern| text(pattern.as_str()));
    let word = |credential| CREDENTIALS.iter().find(|(_, known)| *known == credential).map(|(word, _)| *word);
    let asked = [
        ("users", patterns(&matches.users)),
        ("groups", patterns(&matches.groups)),
        ("serviceAccounts", some(&matches.service_accounts, account)),
        ("serviceAccountNamespaces", patterns(&matches.service_account_namespaces)),
        ("credentials", some(&matches.credentials, |credential| maybe(word(*credential), text))),
        ("verbs", some(&matches.verbs, |verb| text(verb.as_str()))),
        ("resources", some(&matches.resources, |pattern| text(resource(pattern)))),
        ("namespaces", patterns(&matches.namespaces)),
        ("paths", patterns(&matches.paths)),
        ("scope", maybe(matches.scope.and_then(scope), text)),
        ("unpaged", maybe(matches.unpaged, Tree::from)),
        ("userAgents", patterns(&matches.user_agents)),
        ("notUserAgents", patterns(&matches.not_user_agents)),
    ];
    let asked = asked.into_iter().filter(|(_, value)| *value != Tree::Null);
    Tree::Map(asked.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn account(account: &ServiceAccountPattern) -> Tree {
    text(format_args!("{}/{}", account.namespace.as_str(), account.name.as_str()))
}

const fn scope(scope: Scope) -> Option<&'static str> {
    match scope {
        Scope::Object => Some("Object"),
        Scope::Namespace => Some("Namespace"),
        Scope::Cluster => Some("Cluster"),
        Scope::NonResource => None,
    }
}

/// `deployments.apps/scale`: with its group, so `apiGroups` is not needed beside it.
fn resource(pattern: &ResourcePattern) -> String {
    let ResourcePattern { group, resource, subresource } = pattern;
    if [group, resource, subresource].into_iter().all(Pattern::is_any) {
        return "*".to_owned();
    }
    let mut text = resource.as_str().to_owned();
    for (mark, part) in [('.', group), ('/', subresource)] {
        if !part.as_str().is_empty() {
            text.push(mark);
            text.push_str(part.as_str());
        }
    }
    text
}
