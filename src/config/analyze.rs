//! Does the policy do what its author probably meant?
//!
//! A rule can be well formed and still be a mistake: it never matches, or it lifts more callers than its author had
//! in mind. What surely harms is an error, what may be meant is a warning.

use super::diagnostic::{Code, Diagnostic};
use super::read_traffic::PlacedRule;
use super::section::Field;
use crate::identity::GROUP_AUTHENTICATED;
use crate::policy::{Lane, LaneSettings, Match, Pattern, ResourcePattern, Rule, ServiceAccountPattern};
use crate::request::is_health_path;

/// The group of every service account; with `:NAMESPACE` behind it, those of one namespace.
const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Floors are promises against the same limit, so together they cannot exceed it.
pub(super) fn floors(lanes: &[LaneSettings; Lane::COUNT], field: &Field<'_>) {
    let promised: u32 = lanes.iter().map(|lane| lane.floor_percent).sum();
    if promised <= 100 {
        return;
    }
    let message = format!("the lanes' floors add up to {promised} % of the limit");
    field.report_with(Code::FloorsExceedLimit, message, "expected at most 100 %", |diagnostic| {
        let each = Lane::ALL.into_iter().zip(lanes).filter(|(_, settings)| settings.floor_percent > 0);
        let each: Vec<_> =
            each.map(|(lane, settings)| format!("{lane} {} %", settings.floor_percent)).collect();
        diagnostic.note(format!("defaults included: {}", each.join(", ")))
    });
}

/// A lane whose floor is nothing and whose ceiling rounds to nothing is not shed but shut, once the limit is low.
pub(super) fn lanes_without_seats(lanes: &[LaneSettings; Lane::COUNT], limit_min: u32, field: &Field<'_>) {
    let shut = |settings: &LaneSettings| {
        settings.floor_percent == 0 && settings.floor_min.0 == 0 && settings.ceiling_percent * limit_min < 100
    };
    for (lane, settings) in Lane::ALL.into_iter().zip(lanes) {
        if lane == Lane::BreakGlass || !shut(settings) {
            continue;
        }
        let ceiling = settings.ceiling_percent;
        let message =
            format!("lane {:?} has no seat once the limit is at its least, {limit_min}", lane.as_str());
        let label = format!("no floor, and a ceiling of {ceiling} % of {limit_min} seats");
        field.report_with(Code::LaneWithoutSeats, message, label, |diagnostic| {
            diagnostic.help("give it `floorPercent: 1` or a higher ceiling, or raise `overload.limit.min`")
        });
    }
}

/// Whether a path pattern is there to name a health check, rather than to catch everything.
pub(super) fn names_health_path(pattern: &Pattern) -> bool {
    let literal = pattern.as_str().split('*').next().unwrap_or("");
    let catch_all = literal.len() <= 1;
    let names_one = ["/livez", "/readyz", "/healthz", "/version"].iter().any(|path| pattern.matches(path));
    !catch_all && (names_one || is_health_path(literal.trim_end_matches('/')))
}

/// Warns when a rule lifts whoever installs something, rather than whom its author knows.
pub(super) fn promotion(rule: &Rule, lane: &Field<'_>) {
    let Match { users, groups, service_accounts, service_account_namespaces, resources, paths, .. } =
        &rule.matches;
    // The lanes down to operators are those that others give way to.
    if rule.only_lower || rule.lane >= Lane::Workload || !resources.is_empty() || !paths.is_empty() {
        return;
    }
    let nobody_named = users.is_empty()
        && groups.iter().all(|group| group.is_any() || group.as_str() == GROUP_AUTHENTICATED)
        && service_accounts.is_empty()
        && service_account_namespaces.is_empty();
    if nobody_named {
        let message = format!("rule {:?} lifts everyone to {:?}", rule.name, rule.lane.as_str());
        lane.report_with(Code::EveryonePromoted, message, "also the next telemetry agent", |diagnostic| {
            diagnostic.help("name users, groups or service accounts, or the resources that matter")
        });
        return;
    }
    let whole_namespace = service_accounts.is_empty() && !service_account_namespaces.is_empty()
        || service_accounts.iter().any(|account| account.name.is_any())
        || groups.iter().any(|group| group.as_str().starts_with(GROUP_SERVICE_ACCOUNTS));
    if whole_namespace {
        let message = format!(
            "rule {:?} lifts every service account of a namespace to {:?}",
            rule.name,
            rule.lane.as_str()
        );
        lane.report_with(
            Code::NamespacePromoted,
            message,
            "also agents that are installed there later",
            |diagnostic| {
                diagnostic.help("name the service accounts: `serviceAccounts: [kube-system/coredns]`")
            },
        );
    }
}

/// Warns about each rule that an earlier one leaves nothing to.
pub(super) fn unreachable(rules: &[PlacedRule]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, later) in rules.iter().enumerate() {
        // Lowering rules stand outside the order.
        let hides = |earlier: &&PlacedRule| {
            !earlier.rule.only_lower && !later.rule.only_lower && covers_rule(&earlier.rule, &later.rule)
        };
        if let Some(earlier) = rules[..at].iter().find(hides) {
            found.push(
                Diagnostic::new(Code::UnreachableRule, format!("rule {:?} can never match", later.rule.name))
                    .at(later.place.clone())
                    .label("unreachable")
                    .note(format!(
                        "rule {:?} in line {} already takes every request it would",
                        earlier.rule.name, earlier.place.line
                    ))
                    .help("move it before that rule, or remove it"),
            );
        }
    }
    found
}

fn covers_rule(earlier: &Rule, later: &Rule) -> bool {
    // A rule that promotes passes unverified callers on to the next.
    let passes_on = earlier.promotes() && !later.promotes();
    let only_verified = !later.matches.credentials.is_empty()
        && later.matches.credentials.iter().all(|credential| credential.is_verified());
    (!passes_on || only_verified) && covers(&earlier.matches, &later.matches)
}

/// Whether `wide` fits whatever `narrow` fits; may say no where the answer is yes.
fn covers(wide: &Match, narrow: &Match) -> bool {
    let patterns = |wide: &[Pattern], narrow: &[Pattern]| all_covered(wide, narrow, Pattern::covers);
    covers_identity(wide, narrow)
        && patterns(&wide.users, &narrow.users)
        && all_covered(&wide.credentials, &narrow.credentials, PartialEq::eq)
        && all_covered(&wide.verbs, &narrow.verbs, PartialEq::eq)
        && all_covered(&wide.resources, &narrow.resources, covers_resource)
        && patterns(&wide.namespaces, &narrow.namespaces)
        && patterns(&wide.paths, &narrow.paths)
        && (wide.scope.is_none() || wide.scope == narrow.scope)
        && (wide.unpaged.is_none() || wide.unpaged == narrow.unpaged)
        && !wide.asks_user_agent()
}

fn covers_identity(wide: &Match, narrow: &Match) -> bool {
    let accounts = &narrow.service_accounts;
    let account = |wide: &ServiceAccountPattern, narrow: &ServiceAccountPattern| {
        wide.namespace.covers(&narrow.namespace) && wide.name.covers(&narrow.name)
    };
    let in_namespaces =
        |namespace: &Pattern| wide.service_account_namespaces.iter().any(|wide| wide.covers(namespace));
    let is_account = !accounts.is_empty() || !narrow.service_account_namespaces.is_empty();
    let every_account = is_account && wide.groups.iter().any(|group| group.matches(GROUP_SERVICE_ACCOUNTS));
    (every_account || all_covered(&wide.groups, &narrow.groups, Pattern::covers))
        && all_covered(&wide.service_accounts, accounts, account)
        && (all_covered(
            &wide.service_account_namespaces,
            &narrow.service_account_namespaces,
            Pattern::covers,
        ) || !accounts.is_empty() && accounts.iter().all(|account| in_namespaces(&account.namespace)))
}

fn covers_resource(wide: &ResourcePattern, narrow: &ResourcePattern) -> bool {
    wide.group.covers(&narrow.group)
        && wide.resource.covers(&narrow.resource)
        && wide.subresource.covers(&narrow.subresource)
}

/// An empty list asks nothing and covers all; another covers only lists each of whose entries it covers.
fn all_covered<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty()
        || !narrow.is_empty() && narrow.iter().all(|narrow| wide.iter().any(|wide| covers(wide, narrow)))
}
