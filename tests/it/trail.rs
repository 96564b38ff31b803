//! Does the audit trail hold what kube-apiserver never saw, in a form that its readers read?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    client::{Protocol, block_on, get},
    cluster::{Credential, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A client with a rate of three at once, and then hardly any.
const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: trailed
lanes:
  operators: { identityRate: { perSecond: 1, burst: 3 } }
rules:
  - { name: the-curious, match: { users: [trail-*] }, lane: operators }
";

fn command(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap()
}

fn events(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn refusals_and_levers_are_audit_events_that_replay_reads() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trail/audit.log");
    let spillway = Spillway::start(&CLUSTER, Some(POLICY), |config| config["audit"] = json!({"file": file}));
    let person = Credential::Certificate(CLUSTER.pki.client("trail-me", "trail-me", &["some-team"]));
    let caller = spillway.caller(&person);
    let path = "/api/v1/namespaces/kube-system/pods?limit=7";
    let refused = block_on(async {
        let mut connection = caller.connect(Protocol::Http2).await;
        loop {
            let answer = connection.ask(get(path)).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                break answer;
            }
        }
    });
    let socket = spillway.socket.to_str().unwrap();
    let ends = ["--for", "5m", "--reason", "INC-7", "--no-wait", "--yes", "--socket", socket];
    assert!(
        command(&[&["isolate", "user", "trail-nobody", "--to", "deny"][..], &ends].concat()).status.success()
    );

    let audit_id = refused.headers["audit-id"].to_str().unwrap();
    let find = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        wait_for(what, PATIENCE, || events(&file).into_iter().find(holds).ok_or_else(|| spillway.log()))
    };
    let event = find("the refusal in the trail", &|event| event["auditID"] == audit_id);
    let note = |event: &Value, key: &str| event["annotations"][format!("spillway.dev/{key}")].clone();
    assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&event["verb"], &event["requestURI"]), (&json!("list"), &json!(path)));
    assert_eq!(
        (&event["user"]["username"], &event["responseStatus"]["code"]),
        (&json!("trail-me"), &json!(429))
    );
    assert_eq!(
        (note(&event, "rule"), note(&event, "reason")),
        (json!("the-curious"), json!("identity_rate"))
    );
    let told = refused.headers["retry-after"].to_str().unwrap();
    assert_eq!(note(&event, "retry-after-seconds"), json!(told));
    let lever = find("the isolation in the trail", &|event| note(event, "decision") == "lever");
    assert_eq!(
        (note(&lever, "target"), note(&lever, "reason")),
        (json!("user trail-nobody"), json!("INC-7"))
    );

    spillway.terminate();
    wait_for("spillway to end", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));
    // Nothing was answered by kube-apiserver that would be in here.
    assert!(
        events(&file)
            .iter()
            .all(|event| event["user"]["username"] != "trail-me" || event["responseStatus"]["code"] == 429)
    );
    let replayed = command(&["replay", file.to_str().unwrap(), "-o", "json"]);
    let text = String::from_utf8(replayed.stdout).unwrap();
    assert!(text.contains("trail-me"), "{text} {}", String::from_utf8_lossy(&replayed.stderr));
}
