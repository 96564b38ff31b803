//! How does `kind: TrafficPolicy` become its type?
//!
//! Each rule is checked here for what it says by itself; what rules do to each other is [`super::analyze`]'s.

use std::time::Duration;

use super::analyze;
use super::diagnostic::{Code, Diagnostic};
use super::section::{Field, Section};
use super::source::Place;
use super::traffic::{DefaultRules, OverloadSettings};
use super::{read_enforcement, read_newcomers, read_overload};
use crate::flow::newcomers::NewcomerSettings;
use crate::identity::Credential;
use crate::policy::rollout::RolloutSettings;
use crate::policy::{
    Enforcement, Lane, LaneSettings, Match, Pattern, RULES_MAX, Rate, ResourcePattern, Rule,
    ServiceAccountPattern,
};
use crate::request::{Scope, Verb};
use crate::units::Seats;

/// Entries of one list in a rule. Long enough for every telemetry agent known by name.
const LIST_MAX: usize = 256;
/// Bytes of a name or pattern: a service account's full user name has at most 341.
const TEXT_MAX: usize = 512;

/// One file's policy, before the default rules are added.
pub(super) struct ReadPolicy {
    pub(super) name: String,
    pub(super) lanes: [LaneSettings; Lane::COUNT],
    /// The lanes that the file mentions.
    pub(super) lanes_set: usize,
    pub(super) rules: Vec<PlacedRule>,
    pub(super) default_rules: DefaultRules,
    pub(super) overload: OverloadSettings,
    pub(super) enforcement: (Enforcement, RolloutSettings),
    pub(super) newcomers: NewcomerSettings,
}

/// A rule and where it stands.
pub(super) struct PlacedRule {
    pub(super) rule: Rule,
    /// Its name's place.
    pub(super) place: Place,
}

/// Reads everything below `apiVersion` and `kind`.
pub(super) fn read(section: &mut Section<'_>) -> Option<ReadPolicy> {
    let name = section.need("name", Field::name);
    let mut lanes = LaneSettings::defaults();
    let lanes_field = section.field("lanes");
    let lanes_set = lanes_field.clone().and_then(|field| read_lanes(field, &mut lanes)).unwrap_or(0);
    let rules = section.or("rules", vec![], |field| field.list(0..=RULES_MAX, rule));
    let default_rules = section.or("defaultRules", DefaultRules::default(), |field| {
        field.choice(&[("Append", DefaultRules::Append), ("Omit", DefaultRules::Omit)])
    });
    let enforcement =
        section.or("enforcement", Default::default(), |field| field.section(read_enforcement::enforcement));
    let overload_field = section.field("overload");
    let overload =
        section.or("overload", OverloadSettings::default(), |field| field.section(read_overload::overload));
    let newcomers = section
        .or("newcomers", NewcomerSettings::default(), |field| field.section(read_newcomers::newcomers));
    if let Some(field) = &lanes_field {
        analyze::floors(&lanes, field);
    }
    if let Some(field) = lanes_field.or(overload_field) {
        analyze::lanes_without_seats(&lanes, overload.limit.min, &field);
    }
    Some(ReadPolicy { name: name?, lanes, lanes_set, rules, default_rules, overload, enforcement, newcomers })
}

fn read_lanes(field: Field<'_>, lanes: &mut [LaneSettings; Lane::COUNT]) -> Option<usize> {
    let entries = field.entries()?;
    let count = entries.len();
    for (field, name, place) in entries {
        match name.parse() {
            Ok(Lane::BreakGlass) => field.report_at(
                Diagnostic::new(
                    Code::BreakGlassByRule,
                    "the break-glass lane has its own limits, outside this table",
                )
                .label("not set here")
                .help("set `breakGlass.seats`, `rate` and `burst` in the ProxyConfiguration"),
                place,
            ),
            Ok(lane) => {
                let settings = &mut lanes[lane.index()];
                *settings =
                    field.section(|section| Some(lane_settings(section, *settings))).unwrap_or(*settings);
            }
            Err(_) => field.report_at(unknown_lane(name), place),
        }
    }
    Some(count)
}

pub(super) fn unknown_lane(name: &str) -> Diagnostic {
    let lanes: Vec<_> =
        Lane::ALL.into_iter().filter(|lane| *lane != Lane::BreakGlass).map(Lane::as_str).collect();
    Diagnostic::new(Code::UnknownLane, format!("lane {name:?} is not defined"))
        .label("unknown lane")
        .note(format!("defined lanes: {}", lanes.join(", ")))
        .did_you_mean(name, lanes.iter().copied())
}

fn lane_settings(section: &mut Section<'_>, default: LaneSettings) -> LaneSettings {
    let ceiling_percent = section.or("ceilingPercent", default.ceiling_percent, |field| {
        field.integer(1..=LaneSettings::CEILING_PERCENT_MAX)
    });
    let floor_field = section.field("floorPercent");
    let floor_percent =
        floor_field.clone().and_then(|field| field.integer(0..=100)).unwrap_or(default.floor_percent);
    if let Some(field) = floor_field
        && floor_percent > ceiling_percent
    {
        let message = format!("`{}` is more than the lane's ceiling, {ceiling_percent} %", field.path());
        field.report(Code::Contradiction, message, format!("expected at most {ceiling_percent}"));
    }
    LaneSettings {
        ceiling_percent,
        floor_percent,
        floor_min: Seats(section.or("floorSeats", default.floor_min.0, |field| field.integer(0..=1_000))),
        wait: section
            .or("wait", default.wait, |field| field.duration(Duration::ZERO..=Duration::from_secs(60))),
        queue_limit: section.or("queueLength", default.queue_limit, |field| field.integer(0..=100_000)),
        identity_rate: match section.field("identityRate") {
            None => default.identity_rate,
            Some(field) => field.section(|section| Some(rate(section))).flatten(),
        },
    }
}

pub(super) fn rate(section: &mut Section<'_>) -> Option<Rate> {
    let per_second = section.need("perSecond", |field| field.integer(0..=1_000_000));
    let burst = section.maybe("burst", |field| field.integer(1..=1_000_000));
    let per_second = per_second.filter(|per_second| *per_second > 0)?;
    Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
}

fn rule(field: Field<'_>) -> Option<PlacedRule> {
    field.clone().section(|section| {
        let name_field = section.field("name");
        let name = section.need("name", Field::name);
        let matches_field = section.field("match");
        let matches = section.or("match", Match::default(), |field| field.section(read_match));
        let lane_field = section.field("lane");
        let lane = section.need("lane", lane);
        let only_lower = section.or("onlyLower", false, Field::boolean);
        let (lane_field, name_field) = (lane_field?, name_field?);
        let enforcement = section.maybe("enforcement", read_enforcement::mode);
        let rule = Rule { name: name?, matches, lane: lane?, only_lower, enforcement };
        check_rule(&rule, &lane_field, matches_field.as_ref().unwrap_or(&name_field));
        Some(PlacedRule { rule, place: name_field.place() })
    })
}

fn lane(field: Field<'_>) -> Option<Lane> {
    let text = field.clone().text()?;
    match text.parse() {
        Ok(Lane::BreakGlass) => {
            let message = "no rule can give the break-glass lane: only its own listener and credential do";
            field.report_with(Code::BreakGlassByRule, message, "not possible", |diagnostic| {
                diagnostic.help("for on-call people with everyday credentials, use the lane \"operators\"")
            });
            None
        }
        Ok(lane) => Some(lane),
        Err(_) => {
            field.report_at(unknown_lane(text), field.place());
            None
        }
    }
}

fn check_rule(rule: &Rule, lane: &Field<'_>, matches: &Field<'_>) {
    if rule.matches.asks_user_agent() && !rule.only_lower {
        let message = "a user agent may only lower: the client chooses it";
        matches.report_with(
            Code::UserAgentRaises,
            message,
            "this rule decides by the user agent",
            |diagnostic| {
                diagnostic
                    .note(format!(
                        "rule {:?} would give the lane {:?} to whoever sends that text",
                        rule.name,
                        rule.lane.as_str()
                    ))
                    .help("add `onlyLower: true`")
            },
        );
    }
    if let Some(path) = rule.matches.paths.iter().find(|path| analyze::names_health_path(path)) {
        let message = format!("rule {:?} gives the health check {path} a lane", rule.name);
        lane.report_with(
            Code::HealthPathInLane,
            message,
            "health checks are exempt from every lane",
            |diagnostic| {
                diagnostic
                    .note("a load balancer that misses its health checks takes the whole node out")
                    .help("remove the path from the rule")
            },
        );
    }
    analyze::promotion(rule, lane);
}

fn read_match(section: &mut Section<'_>) -> Option<Match> {
    let groups = section.maybe("apiGroups", patterns);
    let resources = section
        .maybe("resources", |field| field.list(1..=LIST_MAX, |entry| resource(entry, groups.as_deref())));
    let matches = Match {
        users: section.or("users", vec![], patterns),
        groups: section.or("groups", vec![], patterns),
        service_accounts: section.or("serviceAccounts", vec![], |field| {
            field.list(1..=LIST_MAX, |entry| {
                entry.parsed(
                    "NAMESPACE/NAME, where * stands for any run of characters",
                    ServiceAccountPattern::parse,
                )
            })
        }),
        service_account_namespaces: section.or("serviceAccountNamespaces", vec![], patterns),
        credentials: section.or("credentials", vec![], |field| {
            field.list(1..=CREDENTIALS.len(), |entry| entry.choice(&CREDENTIALS))
        }),
        verbs: section.or("verbs", vec![], |field| field.list(1..=Verb::ALL.len(), verb)),
        resources: match (resources, groups) {
            (Some(resources), _) => resources.into_iter().flatten().collect(),
            (None, Some(groups)) => groups.into_iter().map(ResourcePattern::any_in).collect(),
            (None, None) => vec![],
        },
        namespaces: section.or("namespaces", vec![], patterns),
        paths: section.or("paths", vec![], |field| {
            field.list(1..=LIST_MAX, |entry| {
                entry.parsed("a path that begins with / or *", |text| {
                    text.starts_with(['/', '*']).then(|| Pattern::new(text))
                })
            })
        }),
        scope: section.maybe("scope", |field| {
            field.choice(&[
                ("Object", Scope::Object),
                ("Namespace", Scope::Namespace),
                ("Cluster", Scope::Cluster),
            ])
        }),
        unpaged: section.maybe("unpaged", Field::boolean),
        user_agents: section.or("userAgents", vec![], patterns),
        not_user_agents: section.or("notUserAgents", vec![], patterns),
    };
    check_paths(&matches, section);
    Some(matches)
}

/// A request is for a plain path or for a resource, never for both.
fn check_paths(matches: &Match, section: &mut Section<'_>) {
    let of_resources = !matches.resources.is_empty()
        || !matches.namespaces.is_empty()
        || matches.scope.is_some()
        || matches.unpaged.is_some();
    if !matches.paths.is_empty()
        && of_resources
        && let Some(field) = section.field("paths")
    {
        let message = "no request is for a path and for a resource at once: this rule never matches";
        let label = "with `resources`, `apiGroups`, `namespaces`, `scope` or `unpaged`";
        field.report_with(Code::NeverMatches, message, label, |diagnostic| {
            diagnostic.help("make it two rules")
        });
    }
}

/// The credentials that a rule can ask for; the break-glass one never meets a rule.
pub(super) const CREDENTIALS: [(&str, Credential); 6] = [
    ("Certificate", Credential::Certificate),
    ("ServiceAccountToken", Credential::ServiceAccountToken),
    ("OidcToken", Credential::OidcToken),
    ("ReviewedToken", Credential::ReviewedToken),
    ("UnverifiedToken", Credential::UnverifiedToken),
    ("Anonymous", Credential::Anonymous),
];

fn patterns(field: Field<'_>) -> Option<Vec<Pattern>> {
    field.list(1..=LIST_MAX, |entry| {
        entry.parsed("a name of at most 512 bytes, where * stands for any run of characters", |text| {
            (text.len() <= TEXT_MAX).then(|| Pattern::new(text))
        })
    })
}

fn verb(field: Field<'_>) -> Option<Verb> {
    let words: Vec<_> =
        Verb::ALL.into_iter().filter(|verb| *verb != Verb::None).map(|verb| (verb.as_str(), verb)).collect();
    field.choice(&words)
}

/// A resource, in each of the API groups that the rule lists unless it names its own.
fn resource(field: Field<'_>, groups: Option<&[Pattern]>) -> Option<Vec<ResourcePattern>> {
    let pattern = field.parsed(
        "a resource such as pods, nodes/status, leases.coordination.k8s.io or *",
        ResourcePattern::parse,
    )?;
    let has_group = !pattern.group.as_str().is_empty() && !pattern.group.is_any();
    Some(match groups {
        Some(groups) if !has_group => {
            groups.iter().map(|group| ResourcePattern { group: group.clone(), ..pattern.clone() }).collect()
        }
        _ => vec![pattern],
    })
}
