//! Does the lane for emergencies work when nothing else does, and only for those it is meant for?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    client::{Protocol, block_on, empty, get, send, with, within},
    cluster::Credential,
    spillway::{CLUSTER, Spillway, needs_spillway},
};

/// Client connections of the main listener, all of which a test takes.
const CONNECTIONS: usize = 32;

/// What lets nobody in: one request a second for whoever comes, and every connection can be taken.
const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: closed
lanes:
  operators: {identityRate: {perSecond: 1, burst: 1}}
";

fn start() -> Spillway {
    Spillway::start(&CLUSTER, Some(POLICY), |config| {
        config["limits"] = json!({
            "connections": CONNECTIONS, "connectionsPerSource": CONNECTIONS, "connectionsPerUser": CONNECTIONS,
        });
    })
}

fn kubeconfig(spillway: &Spillway, who: &Credential) -> PathBuf {
    CLUSTER.kubeconfig_for(who, &format!("https://{}", spillway.break_glass), &CLUSTER.paths.server_ca.cert)
}

fn configmap(name: &str) {
    CLUSTER
        .apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}"));
}

#[test]
fn it_works_while_the_main_listener_is_full() {
    if !needs_spillway() {
        return;
    }
    let spillway = start();
    configmap("culprit");
    let operator = kubeconfig(&spillway, &CLUSTER.break_glass());
    block_on(async {
        // A connection that the server has closed at once is no connection: it is full when one is turned away.
        let caller = spillway.caller(&CLUSTER.alice());
        let mut taken = Vec::new();
        let full = loop {
            assert!(taken.len() <= CONNECTIONS, "the limit of {CONNECTIONS} connections does not hold");
            let mut connection = match caller.try_connect(Protocol::Http2).await {
                Ok(connection) => connection,
                Err(error) => break error,
            };
            match connection.try_ask(get("/version")).await {
                Ok(_) => taken.push(connection),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(taken.len(), CONNECTIONS, "turned away too early: {full}; {}", spillway.log());

        tokio::task::spawn_blocking(move || {
            let said = CLUSTER.kubectl_ok(&operator, &["get", "configmap", "culprit", "-o", "name"]);
            assert_eq!(said, "configmap/culprit\n");
            CLUSTER.kubectl_ok(&operator, &["delete", "configmap", "culprit"]);
            let who = CLUSTER
                .kubectl_ok(&operator, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
            assert_eq!(who, "alice@corp");
        })
        .await
        .unwrap();
        assert!(taken.iter().all(|connection| connection.is_open()), "{}", spillway.log());
    });
}

#[test]
fn it_does_not_share_the_lanes_limits() {
    if !needs_spillway() {
        return;
    }
    let spillway = start();
    block_on(async {
        let path = "/api/v1/namespaces/default/configmaps?limit=1";
        let mut shut = spillway.caller(&CLUSTER.alice()).connect(Protocol::Http2).await;
        let mut open = spillway.break_glass_caller(&CLUSTER.break_glass()).connect(Protocol::Http2).await;
        let mut refused = 0;
        for number in 0..20 {
            refused += usize::from(shut.ask(get(path)).await.status == StatusCode::TOO_MANY_REQUESTS);
            let answer = open.ask(get(path)).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "request {number}: {}; {}",
                answer.text(),
                spillway.log()
            );
        }
        assert!(refused > 0, "the main listener refused nothing: this proves nothing");

        // It has a ceiling of its own: 20 requests a second, 40 at once.
        let mut limited = None;
        for _ in 0..2_000 {
            let answer = open.ask(get(path)).await;
            if answer.status != StatusCode::OK {
                limited = Some(answer);
                break;
            }
        }
        let limited = limited.unwrap_or_else(|| panic!("no ceiling was met; {}", spillway.log()));
        assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "{}", limited.text());
        assert!(limited.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    });
}

#[test]
fn only_certificates_of_its_own_authority_and_group_open_it() {
    if !needs_spillway() {
        return;
    }
    let spillway = start();
    let unnamed = Credential::Certificate(CLUSTER.pki.break_glass("bg-no-group", "mallory@corp", &["other"]));
    let token = Credential::Token(CLUSTER.token("break-glass", "agent", "1h"));
    let outsiders = [
        ("an operator of the cluster", CLUSTER.alice()),
        ("the cluster's administrator", CLUSTER.admin()),
        ("an administrator of a foreign CA", Credential::Certificate(CLUSTER.paths.wrong_admin.clone())),
        ("the front proxy", Credential::Certificate(CLUSTER.paths.front_proxy_client.clone())),
        ("a service account", token),
        ("nobody", Credential::None),
        ("break-glass without the group", unnamed),
    ];
    block_on(async {
        let mut refused = 0;
        for (what, who) in outsiders {
            for protocol in Protocol::BOTH {
                let mut connection = spillway.break_glass_caller(&who).connect(protocol).await;
                for path in ["/api/v1/namespaces/default/configmaps", "/version", "/readyz"] {
                    let answer = connection.ask(with(get(path), "x-remote-user", "system:admin")).await;
                    // After the fifth failure from here, all that is said is that it was too often.
                    let often = answer.status == StatusCode::TOO_MANY_REQUESTS;
                    let expected = if often { "TooManyRequests" } else { "Unauthorized" };
                    assert!(
                        often || answer.status == StatusCode::UNAUTHORIZED,
                        "{what}: GET {path}: {}",
                        answer.text()
                    );
                    assert_eq!(answer.json()["reason"], expected, "{what}: GET {path}");
                    assert!(!often || refused >= 5, "throttled after {refused}");
                    refused += 1;
                }
            }
        }
        // The other way round: its certificate is nobody at the main listener.
        let answer = spillway.caller(&CLUSTER.break_glass()).ask(Protocol::Http2, get("/api/v1/pods")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
        // A token beside the certificate changes nothing, neither way.
        let operator = spillway.break_glass_caller(&CLUSTER.break_glass());
        let answer = operator.ask(Protocol::Http2, with(who_am_i(), "authorization", "Bearer made-up")).await;
        assert_eq!(answer.json()["status"]["userInfo"]["username"], "alice@corp", "{}", answer.text());
    });
}

fn who_am_i() -> http::Request<crate::client::Body> {
    let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    send(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
}

#[test]
fn it_streams() {
    if !needs_spillway() {
        return;
    }
    let spillway = start();
    let operator = kubeconfig(&spillway, &CLUSTER.break_glass());
    let said = CLUSTER.kubectl_ok(&operator, &["exec", crate::cluster::FAKE_POD, "--", "echo", "in"]);
    assert_eq!(said, "in\n");
    block_on(async {
        let caller = spillway.break_glass_caller(&CLUSTER.break_glass());
        let path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
        let answer = within("a watch", caller.ask(Protocol::Http2, get(path))).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(caller.ask(Protocol::Http1, empty(Method::HEAD, "/version")).await.body.is_empty());
    });
}
