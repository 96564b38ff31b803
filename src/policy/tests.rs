//! What must hold whatever the rules say? The default rules' own cases stand beside the file that has them, in
//! `config`.

use proptest::prelude::*;

use super::*;
use crate::identity::EXTRA_NODE_NAME;
use crate::request::{DecodedPath, Scope, Verb};

fn caller(user: &str, groups: &[&str], credential: Credential) -> Identity {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Identity { user: user.into(), groups, credential, uid: None, extra: vec![] }
}

fn certificate(user: &str, groups: &[&str]) -> Identity {
    caller(user, groups, Credential::Certificate)
}

fn account(namespace: &str, name: &str) -> Identity {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    caller(&format!("system:serviceaccount:{namespace}:{name}"), &groups, Credential::ServiceAccountToken)
}

fn rule(lane: Lane, matches: Match) -> Rule {
    Rule { name: format!("to-{lane}"), matches, lane, only_lower: false, enforcement: None }
}

fn lowering(lane: Lane, matches: Match) -> Rule {
    Rule { only_lower: true, ..rule(lane, matches) }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy::new(rules, LaneSettings::defaults(), 7).unwrap()
}

fn decide(policy: &Policy, who: &Identity, request: &str, hints: Hints<'_>) -> Class {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = DecodedPath::new(path).unwrap();
    let info = RequestInfo::new(method, &path, query).unwrap();
    policy.classify(who, policy.subjects(who), &info, &hints)
}

fn lane(rules: Vec<Rule>, who: &Identity, request: &str) -> Lane {
    decide(&policy(rules), who, request, Hints::default()).lane
}

const GET: &str = "GET /api/v1/namespaces/shop/pods/p";

#[test]
fn the_first_rule_that_fits_wins() {
    let rules = vec![
        rule(Lane::Telemetry, Match { verbs: vec![Verb::Watch], ..Match::default() }),
        rule(Lane::Platform, Match { users: patterns(&["dns*"]), ..Match::default() }),
        rule(Lane::Workload, Match::default()),
    ];
    let policy = policy(rules);
    let decided = |who: &Identity, request| decide(&policy, who, request, Hints::default());
    assert_eq!(decided(&certificate("dns-1", &[]), GET).lane, Lane::Platform);
    assert_eq!(decided(&certificate("dns-1", &[]), "GET /api/v1/pods?watch").lane, Lane::Telemetry);
    let other = decided(&certificate("other", &[]), GET);
    assert_eq!((other.lane, policy.rule_name(other.rule)), (Lane::Workload, "to-workload"));
}

#[test]
fn without_a_rule_a_caller_is_unknown() {
    let policy = policy(vec![]);
    let class = decide(&policy, &certificate("alice", &[]), GET, Hints::default());
    assert_eq!((class.lane, policy.rule_name(class.rule)), (Lane::Unknown, "(no rule)"));
}

#[test]
fn only_verified_callers_are_promoted() {
    let everyone = || vec![rule(Lane::Platform, Match::default())];
    for credential in [Credential::Anonymous, Credential::UnverifiedToken] {
        assert_eq!(lane(everyone(), &caller("x", &["admins"], credential), GET), Lane::Unknown);
    }
    for credential in [Credential::Certificate, Credential::ServiceAccountToken] {
        assert_eq!(lane(everyone(), &caller("x", &[], credential), GET), Lane::Platform);
    }
    let down = vec![rule(Lane::Telemetry, Match::default())];
    assert_eq!(lane(down, &Identity::anonymous(), GET), Lane::Telemetry, "lowering needs no proof");
}

#[test]
fn the_break_glass_lane_is_entered_by_credential_alone() {
    let person = caller("alice", &[], Credential::BreakGlass);
    let down = vec![lowering(Lane::Telemetry, Match::default()), rule(Lane::Telemetry, Match::default())];
    let hints = Hints { user_agent: Some("agent"), impersonates: true };
    let class = decide(&policy(down), &person, "GET /healthz/../x", hints);
    assert_eq!((class.lane, class.exempt), (Lane::BreakGlass, false));
    let door = vec![rule(Lane::BreakGlass, Match::default()), rule(Lane::Workload, Match::default())];
    assert_eq!(lane(door, &certificate("alice", &["system:masters"]), GET), Lane::Workload);
}

#[test]
fn lowering_rules_apply_wherever_they_stand_and_never_raise() {
    let heavy = || lowering(Lane::Workload, Match { scope: Some(Scope::Cluster), ..Match::default() });
    let agents =
        || lowering(Lane::Telemetry, Match { user_agents: patterns(&["agent/*"]), ..Match::default() });
    let platform = || rule(Lane::Platform, Match::default());
    let who = certificate("x", &[]);
    for rules in [vec![heavy(), agents(), platform()], vec![platform(), agents(), heavy()]] {
        let policy = policy(rules);
        let lane = |request, agent| {
            decide(&policy, &who, request, Hints { user_agent: Some(agent), impersonates: false }).lane
        };
        assert_eq!(lane(GET, "kubectl/1"), Lane::Platform);
        assert_eq!(lane("GET /api/v1/pods", "kubectl/1"), Lane::Workload);
        assert_eq!(lane("GET /api/v1/pods", "agent/1"), Lane::Telemetry);
    }
    let raise = vec![lowering(Lane::NodeHealth, Match::default()), rule(Lane::Telemetry, Match::default())];
    assert_eq!(lane(raise, &who, GET), Lane::Telemetry);
    assert_eq!(lane(vec![lowering(Lane::Platform, Match::default())], &who, GET), Lane::Unknown);
}

#[test]
fn a_request_without_a_user_agent_is_not_the_one_that_is_expected() {
    let kubelet =
        lowering(Lane::Telemetry, Match { not_user_agents: patterns(&["kubelet/*"]), ..Match::default() });
    let policy = policy(vec![kubelet, rule(Lane::Platform, Match::default())]);
    let lane = |user_agent| {
        decide(&policy, &certificate("n", &[]), GET, Hints { user_agent, impersonates: false }).lane
    };
    assert_eq!(lane(Some("kubelet/v1.34.0")), Lane::Platform);
    assert_eq!(lane(Some("curl/8")), Lane::Telemetry);
    assert_eq!(lane(None), Lane::Telemetry);
}

#[test]
fn impersonation_lowers_to_operators_and_never_raises() {
    for (given, expected) in [
        (Lane::NodeHealth, Lane::Operators),
        (Lane::ControlPlane, Lane::Operators),
        (Lane::Operators, Lane::Operators),
        (Lane::Workload, Lane::Workload),
        (Lane::Telemetry, Lane::Telemetry),
    ] {
        let policy = policy(vec![rule(given, Match::default())]);
        let hints = Hints { user_agent: None, impersonates: true };
        assert_eq!(decide(&policy, &certificate("x", &[]), GET, hints).lane, expected);
    }
}

#[test]
fn an_odd_path_is_unknown_at_most() {
    for (given, expected) in [(Lane::NodeHealth, Lane::Unknown), (Lane::Telemetry, Lane::Telemetry)] {
        let rules = vec![rule(given, Match::default())];
        assert_eq!(lane(rules, &certificate("x", &[]), "GET /api//v1/pods"), expected);
    }
}

#[test]
fn health_probes_are_exempt_for_everyone() {
    let policy = policy(vec![rule(Lane::Telemetry, Match::default())]);
    let class = |request| decide(&policy, &Identity::anonymous(), request, Hints::default());
    assert!(class("GET /livez").exempt);
    assert_eq!(policy.rule_name(class("GET /readyz/etcd").rule), "(health probe)");
    assert!(!class("POST /livez").exempt);
    assert!(!class("GET /livez/../api/v1/pods").exempt);
    assert_eq!(class("GET /metrics").lane, Lane::Telemetry);
}

#[test]
fn each_part_of_a_match_is_asked_and_any_entry_will_do() {
    let fits = |matches: Match, who: &Identity, request: &str| {
        lane(vec![rule(Lane::Platform, matches)], who, request) == Lane::Platform
    };
    let groups = || Match { groups: patterns(&["blue", "green"]), ..Match::default() };
    assert!(fits(groups(), &certificate("a", &["red", "green"]), GET));
    assert!(!fits(groups(), &certificate("a", &["red"]), GET));
    assert!(!fits(Match { users: patterns(&["b"]), ..groups() }, &certificate("a", &["green"]), GET));

    let dns = || Match {
        service_accounts: vec![ServiceAccountPattern::parse("kube-system/core*").unwrap()],
        ..Match::default()
    };
    assert!(fits(dns(), &account("kube-system", "coredns"), GET));
    assert!(!fits(dns(), &account("shop", "coredns"), GET));
    assert!(!fits(dns(), &certificate("coredns", &[]), GET));

    let namespaces = || Match { service_account_namespaces: patterns(&["kube-*"]), ..Match::default() };
    assert!(fits(namespaces(), &account("kube-system", "x"), GET));
    assert!(!fits(namespaces(), &account("shop", "kube-system"), GET));

    let in_shop = || Match { namespaces: patterns(&["shop"]), ..Match::default() };
    assert!(fits(in_shop(), &certificate("a", &[]), GET));
    assert!(!fits(in_shop(), &certificate("a", &[]), "GET /api/v1/pods"));

    let metrics = || Match { paths: patterns(&["/metrics*"]), ..Match::default() };
    assert!(fits(metrics(), &certificate("a", &[]), "GET /metrics/slis"));
    assert!(!fits(metrics(), &certificate("a", &[]), GET));

    let unpaged = || Match { unpaged: Some(true), ..Match::default() };
    assert!(fits(unpaged(), &certificate("a", &[]), "GET /api/v1/pods"));
    assert!(!fits(unpaged(), &certificate("a", &[]), "GET /api/v1/pods?limit=500"));

    let tokens = || Match { credentials: vec![Credential::ServiceAccountToken], ..Match::default() };
    assert!(fits(tokens(), &account("a", "b"), GET));
    assert!(!fits(tokens(), &certificate("a", &[]), GET));
}

#[test]
fn resources_name_group_and_subresource() {
    for (text, request, fits) in [
        ("pods", GET, true),
        ("pods", "GET /api/v1/namespaces/n/pods/p/log", false),
        ("pods/*", "GET /api/v1/namespaces/n/pods/p/log", true),
        ("pods/log", "GET /api/v1/namespaces/n/pods/p/log", true),
        ("pods", "GET /apis/metrics.k8s.io/v1beta1/pods", false),
        ("pods.metrics.k8s.io", "GET /apis/metrics.k8s.io/v1beta1/pods", true),
        ("*.metrics.k8s.io", "GET /apis/metrics.k8s.io/v1beta1/nodes", true),
        ("nodes/status", "PATCH /api/v1/nodes/n/status", true),
        ("nodes/status", "PATCH /api/v1/nodes/n", false),
        ("deployments.apps/scale", "PUT /apis/apps/v1/namespaces/n/deployments/d/scale", true),
        ("leases.coordination.k8s.io", "PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l", true),
        ("*", "GET /apis/a.b/v1/namespaces/n/c/d/e", true),
        ("*", "GET /metrics", false),
    ] {
        let resources = vec![ResourcePattern::parse(text).unwrap()];
        let rules = vec![rule(Lane::Platform, Match { resources, ..Match::default() })];
        assert_eq!(
            lane(rules, &certificate("a", &[]), request) == Lane::Platform,
            fits,
            "{text} on {request}"
        );
    }
    for wrong in ["", "/", "pods/", "/status", "pods.", ".apps", "a/b/c", "pods/log.v1"] {
        assert_eq!(ResourcePattern::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn nodes_of_one_daemon_set_are_flows_of_one_client() {
    let policy = policy(vec![]);
    let on = |node: &str| {
        let mut who = account("obs", "agent");
        who.extra.push((EXTRA_NODE_NAME.into(), vec![node.into()]));
        decide(&policy, &who, GET, Hints::default())
    };
    assert_eq!(on("n1").client, on("n2").client);
    assert_ne!(on("n1").flow, on("n2").flow);
    assert_ne!(on("n1").client, decide(&policy, &account("obs", "b"), GET, Hints::default()).client);
    let reseeded = Policy::new(vec![], LaneSettings::defaults(), 8).unwrap();
    assert_ne!(
        decide(&reseeded, &account("obs", "b"), GET, Hints::default()).client,
        decide(&policy, &account("obs", "b"), GET, Hints::default()).client
    );
}

#[test]
fn the_hundred_and_twenty_ninth_rule_is_refused() {
    let rules =
        |count| vec![rule(Lane::Workload, Match { users: patterns(&["nobody"]), ..Match::default() }); count];
    let mut most = rules(RULES_MAX - 1);
    most.push(rule(Lane::Platform, Match::default()));
    assert_eq!(lane(most, &certificate("a", &[]), GET), Lane::Platform);
    assert_eq!(
        Policy::new(rules(RULES_MAX + 1), LaneSettings::defaults(), 7).unwrap_err(),
        PolicyError::TooManyRules(129)
    );
}

#[test]
fn a_rule_that_decides_cannot_look_at_the_user_agent() {
    for matches in [
        Match { user_agents: patterns(&["kubectl/*"]), ..Match::default() },
        Match { not_user_agents: patterns(&["kubelet/*"]), ..Match::default() },
    ] {
        let error =
            Policy::new(vec![rule(Lane::Workload, matches)], LaneSettings::defaults(), 7).unwrap_err();
        assert_eq!(error, PolicyError::UserAgentDecides("to-workload".into()));
    }
}

fn any_lane() -> impl Strategy<Value = Lane> {
    proptest::sample::select(Lane::ALL.to_vec())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let verbs = proptest::collection::vec(proptest::sample::select(vec![Verb::Get, Verb::List]), 0..2);
    let users = proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*"]), 0..2);
    let agents = proptest::collection::vec(proptest::sample::select(vec!["a*", "*b", "*"]), 0..2);
    (any_lane(), any::<bool>(), verbs, users, agents).prop_map(|(lane, only_lower, verbs, users, agents)| {
        let user_agents = if only_lower { patterns(&agents) } else { vec![] };
        let matches = Match { users: patterns(&users), verbs, user_agents, ..Match::default() };
        Rule { only_lower, ..rule(lane, matches) }
    })
}

proptest! {
    #[test]
    fn no_policy_lifts_an_unproven_caller(rules in proptest::collection::vec(any_rule(), 0..12), token: bool) {
        let credential = if token { Credential::UnverifiedToken } else { Credential::Anonymous };
        let lane = lane(rules, &caller("a", &[], credential), GET);
        prop_assert!(lane >= Lane::Unknown);
    }

    #[test]
    fn a_claim_never_raises(rules in proptest::collection::vec(any_rule(), 0..12), agent in "[a-z/]{0,6}", impersonates: bool) {
        let policy = policy(rules);
        let who = certificate("a", &[]);
        let plain = decide(&policy, &who, GET, Hints::default()).lane;
        let claimed = decide(&policy, &who, GET, Hints { user_agent: Some(&agent), impersonates }).lane;
        prop_assert!(claimed >= plain);
        prop_assert!(plain != Lane::BreakGlass);
    }
}
