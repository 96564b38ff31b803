//! Does everything that operators do past the ordinary way stand in one log, with and without a break-glass lane?

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
    cluster::{FAKE_POD, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn command(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap()
}

fn lever(spillway: &Spillway, args: &[&str]) -> String {
    let socket = spillway.socket.to_str().unwrap();
    let done = command(&[args, &["--socket", socket]].concat());
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn pull_and_let_go(spillway: &Spillway) {
    let ends = ["--for", "5m", "--reason", "INC-7", "--no-wait"];
    lever(spillway, &[&["isolate", "user", "audited-nobody", "--to", "deny", "--yes"][..], &ends].concat());
    lever(spillway, &["release", "audited-nobody", "--no-wait"]);
    lever(spillway, &[&["limit", "set", "50"][..], &ends].concat());
    lever(spillway, &["limit", "unpin", "--no-wait"]);
    assert!(lever(spillway, &["events"]).contains("release"), "events show what is written down");
}

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("break-glass-audit.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Ends it and verifies what it wrote, with its key.
fn verified(spillway: &Spillway, folder: &Path) -> Value {
    spillway.terminate();
    wait_for("spillway to end", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));
    let (log, key) = (folder.join("break-glass-audit.jsonl"), folder.join("break-glass-audit.pub"));
    let files = [log.to_str().unwrap(), "--public-key", key.to_str().unwrap(), "-o", "json"];
    let done = command(&[&["audit", "verify"][..], &files].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn levers_and_requests_of_the_lane_are_one_chain_that_says_what_was_gone_past() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, None, |config| config["state"] = json!({"dir": folder.path()}));
    pull_and_let_go(&spillway);
    lever(&spillway, &["lockdown", "--for", "5m", "--reason", "INC-7", "--yes", "--no-wait"]);
    let seen = || records(folder.path()).into_iter().find(|record| record["bypassed"]["lockdown"] == true);
    let used = wait_for("a request that says that it went past a lockdown", PATIENCE, || {
        let caller = spillway.break_glass_caller(&CLUSTER.break_glass());
        let answer = block_on(caller.ask(Protocol::Http2, get("/api/v1/namespaces/default")));
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(300));
        seen().ok_or_else(|| spillway.log())
    });
    assert!(used["bypassed"]["limit"].as_u64().is_some_and(|limit| limit > 0), "{used}");
    assert!(used["tls"]["version"].as_str().is_some_and(|version| version.starts_with("TLS1.")), "{used}");
    let end = wait_for("the record of its end", PATIENCE, || {
        let is_end = |record: &Value| record["event"] == "end" && record["request_id"] == used["request_id"];
        records(folder.path()).into_iter().find(is_end).ok_or_else(|| spillway.log())
    });
    assert!(end["bytes"]["out"].as_u64().is_some_and(|bytes| bytes > 100), "{end}");
    assert_eq!((end["outcome"].as_str(), end["actor"] == used["actor"]), (Some("complete"), true), "{end}");
    let url = format!("https://{}", spillway.break_glass);
    let operator = CLUSTER.kubeconfig_for(&CLUSTER.break_glass(), &url, &CLUSTER.paths.server_ca.cert);
    let words = CLUSTER.kubectl_ok(&operator, &["exec", FAKE_POD, "--", "echo", "audited"]);
    assert_eq!(words, "audited\n");
    let session = wait_for("the record of the session's end", PATIENCE, || {
        let is_end = |record: &Value| record["event"] == "end" && record["class"]["subresource"] == "exec";
        records(folder.path()).into_iter().find(is_end).ok_or_else(|| spillway.log())
    });
    assert_eq!(session["outcome"], "over", "{session}");
    assert!(session["bytes"]["out"].as_u64().is_some_and(|bytes| bytes >= 8), "{session}");
    let verdict = verified(&spillway, folder.path());
    assert_eq!((&verdict["events"]["lever"], &verdict["head"]), (&json!(5), &json!("signed")), "{verdict}");
}

#[test]
fn without_a_lane_levers_are_written_down_all_the_same() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config.as_object_mut().unwrap().remove("breakGlass");
        config["state"] = json!({"dir": folder.path()});
    });
    pull_and_let_go(&spillway);
    wait_for("the log's numbers to be shown", PATIENCE, || {
        let seq = crate::lane::metric(&spillway, "spillway_break_glass_audit_seq");
        if seq >= 4.0 { Ok(()) } else { Err(format!("{seq}; {}", spillway.log())) }
    });
    let verdict = verified(&spillway, folder.path());
    assert_eq!(verdict["events"]["lever"], 4, "{verdict}");
    let first = records(folder.path()).into_iter().find(|record| record["event"] == "lever").unwrap();
    assert_eq!((first["action"].as_str(), first["reason"].as_str()), (Some("isolate"), Some("INC-7")));
    assert!(first["actor"]["uid"].is_u64(), "the kernel says who it was: {first}");

    // And where there is no folder at all, the same record is in the log.
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config.as_object_mut().unwrap().remove("breakGlass");
    });
    pull_and_let_go(&spillway);
    let log = spillway.whole_log();
    assert!(
        log.contains("audit record: there is no folder for it") && log.contains("audited-nobody"),
        "{log}"
    );
}
