//! What becomes of telemetry's LIST that runs when kube-apiserver goes under?
//!
//! The server is frozen with the request inside. Once the brake has held for two seconds, the scheduler gives the LIST
//! up: its client hears 429 and when to come back, instead of nothing for a minute.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use http::StatusCode;
use rustix::process::Signal;

use crate::{
    client::{Protocol, block_on, get},
    cluster::{Cluster, ClusterOptions, Credential, wait_for},
    spillway::{Spillway, needs_spillway},
};

const LIST: &str = "/api/v1/pods";

#[test]
fn a_running_list_of_telemetry_is_given_up_when_the_brake_holds() {
    if !needs_spillway() {
        return;
    }
    let cluster = Cluster::start(ClusterOptions::default());
    let agent = Credential::Token(cluster.token("obs", "agent", "1h"));
    let spillway = Spillway::start(&cluster, None, |_| ());
    let answer = block_on(async {
        let mut connection = spillway.caller(&agent).connect(Protocol::Http2).await;
        // It may not list pods; what matters is that its lane has a connection now.
        assert_eq!(connection.ask(get(LIST)).await.status, StatusCode::FORBIDDEN, "{}", spillway.log());
        cluster.signal("apiserver", Signal::STOP);
        connection.ask(get(LIST)).await
    });
    cluster.signal("apiserver", Signal::CONT);
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", spillway.log());
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!((10..=20).contains(&seconds), "{seconds}");
    wait_for("the refusal's line in the log", Duration::from_secs(10), || {
        let log = spillway.whole_log();
        let told = log.contains("reason=cancelled") || log.contains("reason=\"cancelled\"");
        if told { Ok(()) } else { Err(log) }
    });
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    let shed = r#"spillway_shed_total{lane="telemetry",reason="cancelled"} 1"#;
    assert!(page.contains(shed) && page.contains("spillway_resets_total 1"), "{page}");
}
