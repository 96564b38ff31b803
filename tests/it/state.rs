//! Does spillway still know after a restart what it had learnt, and does a broken file keep it from starting?
//!
//! The state belongs to a folder, not to an address: the second proxy here is another process on other ports.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    client::{Protocol, block_on, get},
    cluster::wait_for,
    spillway::{CLUSTER, Spillway, needs_spillway},
};

/// A drain of nothing, and the writing of a small file, on a busy machine.
const ENDED: Duration = Duration::from_secs(30);
/// For something to be in the log or on the metrics page, on a busy machine.
const SEEN: Duration = Duration::from_secs(60);

fn start(folder: &Path) -> Spillway {
    Spillway::start(&CLUSTER, None, |config| {
        config["state"] = json!({ "dir": folder });
        config["drain"] = json!({ "gracePeriod": "1s" });
    })
}

fn end(spillway: &Spillway) {
    spillway.terminate();
    let status = wait_for("spillway to end", ENDED, || spillway.ended().ok_or_else(|| spillway.log()));
    assert!(status.success(), "{status}; {}", spillway.log());
}

#[test]
fn what_was_learnt_is_written_at_the_end_and_taken_over_by_the_next_process() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/by/spillway");
    let first = start(&folder);
    assert!(first.whole_log().contains("no state file: starts cold"), "{}", first.log());
    block_on(async {
        let mut connection = first.caller(&CLUSTER.admin()).connect(Protocol::Http2).await;
        for _ in 0..20 {
            let answer = connection.ask(get("/api/v1/namespaces/kube-system")).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
    });
    end(&first);

    let file = folder.join("state.json");
    let text = fs::read_to_string(&file).expect("a state file");
    let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(head["sha256"].as_str().is_some_and(|sum| sum.len() == 64), "{head}");
    let body: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let calls = body["calls"].as_array().unwrap().len();

    let second = start(&folder);
    let log = second.whole_log();
    assert!(log.contains("what calls cost was taken over"), "{log}");
    assert!(
        calls == 0 || !log.contains("calls=0 "),
        "{calls} calls were written, none was taken over:\n{log}"
    );
    end(&second);
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // The break-glass lane keeps its audit log in the same folder, and policies and newcomers have files of their own.
    let others = ["break-glass-audit.", "config-history.json", "newcomers.json"];
    let names: Vec<_> = names.filter(|name| !others.iter().any(|other| name.starts_with(other))).collect();
    assert_eq!(names, ["state.json"], "nothing is left beside the file");
}

#[test]
fn a_broken_state_file_is_set_aside_and_the_proxy_starts() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state.json"), "{\"layout\":1}\nnonsense\n").unwrap();
    let spillway = start(folder.path());
    let log = spillway.whole_log();
    assert!(log.contains("the state file is not believed"), "{log}");
    let aside = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("state.json.corrupt-"))
        .unwrap_or_else(|| panic!("nothing was set aside:\n{log}"));
    let kept = fs::read_to_string(folder.path().join(aside)).unwrap();
    assert_eq!(kept, "{\"layout\":1}\nnonsense\n", "somebody may want to see what it was");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_once_and_harms_nothing() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be: not even root can write below it.
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let spillway = start(&blocked.join("state"));
    end(&spillway);
    let log = spillway.whole_log();
    assert_eq!(log.matches("state cannot be written").count(), 1, "{log}");
}

/// The rights in `deploy/probe.yaml` suffice, and both questions arrive as what they are.
#[test]
fn probes_are_answered_by_the_real_apiserver() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let object = "/api/v1/namespaces/kube-system";
    wait_for("both probes of the object in the audit log, answered 200", SEEN, || {
        let log = fs::read_to_string(CLUSTER.audit_log().unwrap()).map_err(|error| error.to_string())?;
        let answered = |target: &str| {
            log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|event| {
                event["user"]["username"] == "spillway:probe"
                    && event["requestURI"] == target
                    && event["responseStatus"]["code"] == 200
            })
        };
        let both = answered(object) && answered(&format!("{object}?resourceVersion=0"));
        if both { Ok(()) } else { Err(spillway.log()) }
    });
    assert!(!spillway.whole_log().contains("refuses a probe"), "{}", spillway.log());
}

#[test]
fn status_says_in_one_object_how_things_are() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let (code, page) = spillway.metrics_page("/status").unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(code, 200);
    assert!(page["state"].is_string() && page["limit"].as_u64().is_some_and(|limit| limit > 0), "{page:#}");
    assert!(page["lanes"]["node-health"]["floor"].as_u64().is_some_and(|floor| floor > 0), "{page:#}");
    assert!(page["diagnosis"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{page:#}");
    // The apiserver is on this host: its memory is known.
    assert!(page["responseBudget"].as_u64().is_some_and(|bytes| bytes > 0), "{page:#}");
    let log = spillway.whole_log();
    assert!(log.contains("the memory of the apiserver's host"), "{log}");
}

#[test]
fn a_probe_without_rights_says_once_what_it_needs() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config["upstreams"]["probe"] = json!({ "user": "spillway:stranger" });
    });
    let refused = |log: &str| log.matches("the apiserver refuses a probe").count();
    let log = wait_for("both probes to be refused", SEEN, || {
        let log = spillway.whole_log();
        if refused(&log) == 2 { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("spillway:stranger") && log.contains("deploy/probe.yaml"), "{log}");
    // Each of them asks four times a second: by the time livez was asked again, a second line would be there.
    wait_for("the apiserver to count as up", SEEN, || {
        let (_, page) = spillway.metrics_page("/metrics").map_err(|error| error.to_string())?;
        if page.contains("spillway_upstream_up 1") { Ok(()) } else { Err(page) }
    });
    assert_eq!(refused(&spillway.whole_log()), 2);
}
