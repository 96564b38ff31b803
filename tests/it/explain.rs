//! Does `spillway explain` find the refusal that a client was told of, and say why?

// Clippy's own exception for tests ends at the functions marked as tests.
// And a watcher has to be given time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{
    client::{Protocol, block_on, get},
    cluster::{Credential, canary},
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

#[test]
fn who_watches_sees_requests_pass_and_a_bundle_holds_no_secret() {
    if !needs_spillway() {
        return;
    }
    let running = Spillway::start(&CLUSTER, Some(POLICY), |_| ());
    let person = Credential::Certificate(CLUSTER.pki.client("explain-tap", "explain-tap", &["some-team"]));
    let caller = running.caller(&person);
    let mut command = Command::new(BINARY);
    command
        .args(["tap", "--user", "explain-tap", "--for", "4s", "-o", "json", "--socket"])
        .arg(&running.socket);
    let watching = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // Until the watcher has arrived, nobody's requests are kept; some come after that.
    block_on(async {
        let mut connection = caller.connect(Protocol::Http2).await;
        for _ in 0..30 {
            connection.ask(get("/api/v1/namespaces/kube-system")).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let seen = watching.wait_with_output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    let lines: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "nothing was seen");
    assert!(lines.iter().all(|line| line["user"] == "explain-tap" && line["lane"] == "operators"), "{seen}");
    assert!(lines.iter().any(|line| line["reason"] == "identity_rate" && line["status"] == 429), "{seen}");

    let folder = tempfile::tempdir().unwrap();
    let (log, dump) = (folder.path().join("log"), folder.path().join("dump.tar"));
    std::fs::write(&log, running.whole_log()).unwrap();
    let args = ["sysdump", "--file", dump.to_str().unwrap(), "--log", log.to_str().unwrap()];
    let (code, text) = spillway(&running, &args);
    assert_eq!(code, 0, "{text}");
    let bytes = std::fs::read(&dump).unwrap();
    let bytes = String::from_utf8_lossy(&bytes);
    canary::search("a support bundle", &bytes);
    for kept in ["explain-tap", "identity_rate", "SPW-RUN-001", "\"limitMax\""] {
        assert!(bytes.contains(kept), "{kept} is not in the bundle");
    }
}
