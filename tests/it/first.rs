//! Is a first installation harmless, and does the emergency brake hold in it all the same?
//!
//! The policy is the one that `spillway manifest policy` prints. kube-apiserver is frozen until spillway calls that Red.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    change::command,
    client::{Protocol, block_on, get},
    cluster::{Cluster, ClusterOptions, Credential, wait_for},
    spillway::{Spillway, needs_spillway},
};

/// For something to happen on a busy machine.
const SEEN: Duration = Duration::from_secs(90);
const LIST: &str = "/api/v1/pods";

fn becomes(spillway: &Spillway, wanted: impl Fn(&str) -> bool) {
    wait_for("the state", SEEN, || {
        let (_, page) = spillway.metrics_page("/status").map_err(|error| format!("{error:?}"))?;
        let status: Value = serde_json::from_str(&page).map_err(|error| error.to_string())?;
        let state = status["state"].as_str().unwrap_or_default();
        if wanted(state) { Ok(()) } else { Err(page) }
    });
}

#[test]
fn the_policy_to_begin_with_refuses_nothing_until_the_brake_holds_and_nothing_after_it() {
    if !needs_spillway() {
        return;
    }
    let policy = command(&["manifest", "policy"], None).fine();
    let cluster = Cluster::start(ClusterOptions::default());
    let agent = Credential::Token(cluster.token("obs", "agent", "1h"));
    let spillway = Spillway::start(&cluster, Some(&policy), |_| ());
    let ask = || block_on(async { spillway.caller(&agent).ask(Protocol::Http2, get(LIST)).await });
    // It may not list pods: the apiserver's own answer.
    assert_eq!(ask().status, StatusCode::FORBIDDEN, "{}", spillway.log());
    let status = command(&["status"], Some(&spillway.socket)).out;
    assert!(status.contains("Shadow"), "{status}");

    cluster.signal("apiserver", Signal::STOP);
    becomes(&spillway, |state| state == "red");
    let refused = ask();
    cluster.signal("apiserver", Signal::CONT);
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", spillway.log());
    assert!(refused.header("retry-after").parse::<u32>().is_ok(), "{}", spillway.log());

    becomes(&spillway, |state| state != "red");
    wait_for("the apiserver's own answer", SEEN, || {
        let status = ask().status;
        if status == StatusCode::FORBIDDEN { Ok(()) } else { Err(status.to_string()) }
    });
}
