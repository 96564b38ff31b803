//! Does spillway understand the real kube-apiserver's refusals, and do they pass unchanged?
//!
//! Each is provoked on the real server; what spillway made of it is in its metrics.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use http::{Method, StatusCode};

use crate::{
    client::{Answer, Protocol, block_on, get, send},
    cluster::{Credential, wait_for},
    spillway::{CLUSTER, Spillway, needs_spillway},
};

/// For a change to APF's objects to be in force, on a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// A level without seats: whoever is in it is always refused.
const NO_SEATS: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: no-seats}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: no-seats}
spec:
  matchingPrecedence: 5
  priorityLevelConfiguration: {name: no-seats}
  rules:
  - subjects: [{kind: User, user: {name: congested}}]
    resourceRules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*'], namespaces: ['*'], clusterScope: true}]
";

/// Nobody updates its status in this cluster, so it never allows an eviction.
const BUDGET: &str = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: meaning}
spec: {minAvailable: 1, selector: {}}
";

fn counted(spillway: &Spillway, meaning: &str) -> f64 {
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    let name = format!("spillway_upstream_failures_total{{meaning=\"{meaning}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{page}"))
}

fn ask(spillway: &Spillway, who: &Credential, method: Method, target: &str, body: &str) -> Answer {
    let request = || match method {
        Method::GET => get(target),
        _ => send(method.clone(), target, body.to_owned()),
    };
    block_on(async {
        let mut connection = spillway.caller(who).connect(Protocol::Http2).await;
        connection.ask(request()).await
    })
}

#[test]
fn a_refusal_by_a_priority_level_is_congestion() {
    if !needs_spillway() {
        return;
    }
    CLUSTER.apply(NO_SEATS);
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let who = Credential::Certificate(CLUSTER.pki.client("congested", "congested", &["platform-oncall"]));
    let answer = wait_for("the apiserver to take the new level over", TAKEN_OVER, || {
        let answer = ask(&spillway, &who, Method::GET, "/api/v1/namespaces/default/pods", "");
        if answer.status == StatusCode::TOO_MANY_REQUESTS { Ok(answer) } else { Err(answer.text()) }
    });
    assert_eq!(answer.text(), "Too many requests, please try again later.\n");
    assert!(!answer.header("x-kubernetes-pf-prioritylevel-uid").is_empty());
    assert!(counted(&spillway, "congested") >= 1.0);
}

#[test]
fn a_resource_version_from_the_future_is_a_cache_that_lags() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let target = "/api/v1/namespaces/default/configmaps?resourceVersion=999999999";
    let answer = ask(&spillway, &CLUSTER.admin(), Method::GET, target, "");
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(answer.json()["message"].as_str().unwrap().contains("Too large resource version"));
    assert_eq!((counted(&spillway, "lagging"), counted(&spillway, "timed_out")), (1.0, 0.0));
}

#[test]
fn an_eviction_that_a_budget_forbids_says_nothing_about_the_apiserver() {
    if !needs_spillway() {
        return;
    }
    CLUSTER.apply(BUDGET);
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let target = "/api/v1/namespaces/default/pods/streams/eviction?dryRun=All";
    let body =
        r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"streams","namespace":"default"}}"#;
    let answer = ask(&spillway, &CLUSTER.admin(), Method::POST, target, body);
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    assert!(answer.json()["message"].as_str().unwrap().contains("disruption budget"), "{}", answer.text());
    for meaning in ["congested", "dropped", "warming", "timed_out"] {
        assert_eq!(counted(&spillway, meaning).to_bits(), 0.0_f64.to_bits(), "{meaning}");
    }
}
