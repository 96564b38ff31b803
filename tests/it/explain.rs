//! Does `spillway explain` find the refusal that a client was told of, and say why?

// Clippy's own exception for tests ends at the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{
    client::{Protocol, block_on, get},
    cluster::Credential,
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

/// Three requests of one user, and no more: the rate is one in a while.
const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: explained
lanes:
  operators: { identityRate: { perSecond: 1, burst: 3 } }
rules:
  - { name: the-curious, match: { users: [explain-*] }, lane: operators }
";

fn spillway(spillway: &Spillway, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--socket").arg(&spillway.socket).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout) + &text(stderr))
}

#[test]
fn the_id_that_a_client_is_told_explains_its_refusal() {
    if !needs_spillway() {
        return;
    }
    let running = Spillway::start(&CLUSTER, Some(POLICY), |_| ());
    let person = Credential::Certificate(CLUSTER.pki.client("explain-me", "explain-me", &["some-team"]));
    let caller = running.caller(&person);
    let refused = block_on(async {
        let mut connection = caller.connect(Protocol::Http2).await;
        loop {
            let answer = connection.ask(get("/api/v1/namespaces/kube-system")).await;
            if answer.status == http::StatusCode::TOO_MANY_REQUESTS {
                break answer;
            }
        }
    });
    let id = refused.headers["x-spillway-decision"].to_str().unwrap();
    let (code, text) = spillway(&running, &["explain", id]);
    assert_eq!(code, 0, "{text}");
    for told in [
        id,
        "SHED identity_rate",
        "explain-me",
        "the-curious → lane operators",
        "identity rate: stop",
        "→ spillway top",
    ] {
        assert!(text.contains(told), "{told} is missing in\n{text}");
    }
    let audit_id = refused.headers["audit-id"].to_str().unwrap();
    let (_, json) = spillway(&running, &["explain", audit_id, "-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["reason"], &json["lane"]), (&"identity_rate".into(), &"operators".into()), "{json}");

    let (code, text) = spillway(&running, &["explain", "--user", "explain-me"]);
    assert!(code == 0 && text.contains(id), "{text}");
    let (code, text) = spillway(&running, &["explain", "00000000"]);
    assert!(code == 1 && text.contains("error[SPW0780]") && text.contains("4096 refusals"), "{code} {text}");
    let (code, text) = spillway(&running, &["explain", "what"]);
    assert!(code == 2 && text.contains("error[SPW0781]"), "{code} {text}");

    // Asked about now, its bucket is still empty, and asking takes nothing from anybody's.
    let (_, text) =
        spillway(&running, &["explain", "--as", "explain-me", "--path", "/api/v1/namespaces/kube-system"]);
    assert!(text.contains("would: ") && text.contains("identity rate: "), "{text}");
    for _ in 0..9 {
        let asked = ["explain", "--as", "explain-other", "--path", "/api/v1/pods", "--verb", "list"];
        let (code, text) = spillway(&running, &asked);
        assert!(code == 0 && text.contains("would: ADMIT"), "{text}");
    }
}
