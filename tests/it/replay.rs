//! Does `spillway replay` say who would have been refused, and what is wrong with a log?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::spillway::BINARY;

fn replay(arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("replay").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    if let Some(input) = input {
        // A program that ends without reading has said why.
        let _ = pipe.write_all(input.as_bytes());
    }
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// 500 agents that LIST all pods in a loop, and 100 leases a second beside them, for 20 s.
fn storm() -> String {
    let mut log = String::new();
    for n in 0..4_000_u32 {
        let (second, micros) = (n / 200, n % 200 * 5_000);
        let moment = |second: u32| format!("2026-11-25T14:00:{second:02}.{micros:06}Z");
        let (verb, uri, user, groups, took) = if n % 2 == 0 {
            let user = "system:serviceaccount:monitoring:otel-collector".to_owned();
            ("list", "/api/v1/pods", user, "system:serviceaccounts", 8)
        } else {
            let uri = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
            ("update", uri, format!("system:node:n{}", n % 500), "system:nodes", 0)
        };
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete", "requestURI": uri,
            "verb": verb, "user": {"username": user, "groups": [groups]}, "responseStatus": {"code": 200},
            "requestReceivedTimestamp": moment(second), "stageTimestamp": moment(second + took),
        });
        log.push_str(&event.to_string());
        log.push('\n');
    }
    log
}

#[test]
fn a_storm_is_told_by_lane_rule_and_user() {
    let found = replay(&["-o", "json", "-"], Some(&storm()));
    assert!(found.status.success(), "{}", said(&found.stderr));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["lanes"]["node-health"]["requests"], 2_000);
    assert_eq!(found["lanes"]["node-health"]["refused"], 0);
    assert!(found["lanes"]["telemetry"]["refused"].as_u64().unwrap() > 500, "{found:#}");
    assert_eq!(found["users"][0]["name"], "system:serviceaccount:monitoring:otel-collector");
    let table = said(&replay(&["-"], Some(&storm())).stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
    for word in ["4000 requests in", "telemetry", "node-health", "otel-collector"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

#[test]
fn a_bound_that_is_broken_fails_and_one_that_holds_does_not() {
    let log = storm();
    let held = replay(&["--fail-if", "node-health", "--fail-if", "telemetry:100%", "-"], Some(&log));
    assert_eq!(held.status.code(), Some(0), "{}", said(&held.stderr));
    let broken = replay(&["--fail-if", "telemetry:1%", "-"], Some(&log));
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        said(&broken.stderr).contains("of lane telemetry would have been refused"),
        "{}",
        said(&broken.stderr)
    );
    let unknown = replay(&["--fail-if", "telemetri", "-"], None);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown.stderr).contains("did you mean \"telemetry\"?"), "{}", said(&unknown.stderr));
}

#[test]
fn broken_lines_are_named_and_lose_nothing_else() {
    let log = storm();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    let broken = log.replacen('{', "", 1) + "\n\n{\"kind\":\"Pod\"}\n";
    std::fs::write(&file, broken).unwrap();
    let name = file.to_str().unwrap();
    let found = replay(&[name], None);
    assert!(found.status.success(), "{}", said(&found.stderr));
    let warnings = said(&found.stderr);
    assert!(warnings.contains(&format!("{name}:1: not an audit event")), "{warnings}");
    assert!(warnings.contains(&format!("{name}:4003: expected kind Event")), "{warnings}");
    let table = said(&found.stdout);
    assert!(table.contains("3999 requests in") && table.contains("2 lines that are no events"), "{table}");
}

#[test]
fn what_is_no_log_is_refused_with_what_was_expected() {
    let not_json = replay(&["-"], Some("2026-11-25 something happened\n"));
    assert_eq!(not_json.status.code(), Some(2));
    let told = said(&not_json.stderr);
    assert!(
        told.contains("standard input:1:") && told.contains("expected kube-apiserver's audit log"),
        "{told}"
    );
    let missing = replay(&["no-such-file.log"], None);
    assert_eq!(missing.status.code(), Some(2));
    assert!(said(&missing.stderr).contains("no-such-file.log"), "{}", said(&missing.stderr));
    let policy = replay(&["--policy", "no-such-policy.yaml", "-"], Some(&storm()));
    assert_eq!(policy.status.code(), Some(3));
    assert!(!Path::new("no-such-policy.yaml").exists());
}
