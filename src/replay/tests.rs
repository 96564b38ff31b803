use std::fmt::Write as _;
use std::time::Duration;

use super::{Replay, Report, Unreadable, read};
use crate::flow::Reason;
use crate::policy::Lane;

const BEGIN: u64 = 1_795_615_200_000_000;

/// One event of a request that arrived `at` and took `took` microseconds.
fn event(at: u64, took: u64, verb: &str, uri: &str, user: &str, groups: &[&str]) -> String {
    let moment = |micros: u64| {
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap();
        at.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "x",
        "stage": "ResponseComplete", "requestURI": uri, "verb": verb,
        "user": {"username": user, "groups": groups}, "userAgent": "test/1", "sourceIPs": ["10.0.0.1"],
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": moment(BEGIN + at), "stageTimestamp": moment(BEGIN + at + took),
    })
    .to_string()
}

fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Report {
    let policy = crate::config::default_policy().unwrap();
    let settings = crate::app::flow_settings(&policy);
    let mut replay = Replay::new(policy.compile(1).unwrap(), settings, 1);
    for line in lines {
        replay.take(&read(line.as_bytes()).unwrap().unwrap());
    }
    replay.finish()
}

fn lane(report: &Report, lane: Lane) -> (u64, u64) {
    let (_, count) = report.lanes.iter().find(|(of, _)| *of == lane).unwrap();
    (count.all(), count.refused())
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

#[test]
fn a_calm_log_is_let_through_whole() {
    let lines: Vec<String> = (0..600)
        .map(|n| {
            event(
                n * 100_000,
                3_000,
                "update",
                LEASE,
                "system:node:n1",
                &["system:nodes", "system:authenticated"],
            )
        })
        .collect();
    let report = replay(lines.iter().map(String::as_str));
    assert_eq!(lane(&report, Lane::NodeHealth), (600, 0));
    assert_eq!((report.requests, report.span, report.begin), (600, Duration::from_micros(59_900_000), BEGIN));
}

/// Everybody LISTs everything at once and each LIST takes long: not all of them would have been let in, and nothing of
/// the nodes would have been refused for it.
#[test]
fn a_storm_is_refused_and_the_nodes_beside_it_are_not() {
    let mut lines = Vec::new();
    for n in 0..2_000_u64 {
        let user = format!("system:serviceaccount:monitoring:otel-collector-{}", n % 500);
        let groups = ["system:serviceaccounts", "system:serviceaccounts:monitoring", "system:authenticated"];
        lines.push(event(n * 10_000, 5_000_000, "list", "/api/v1/pods", &user, &groups));
        let node = format!("system:node:n{}", n % 200);
        lines.push(event(n * 10_000 + 1, 20_000, "update", LEASE, &node, &["system:nodes"]));
    }
    let report = replay(lines.iter().map(String::as_str));
    assert_eq!(lane(&report, Lane::NodeHealth), (2_000, 0));
    let (asked, refused) = lane(&report, Lane::Telemetry);
    assert_eq!(asked, 2_000);
    assert!(refused > 1_000, "{refused} of {asked}");
    assert_eq!(report.rules[0].1, Lane::Telemetry);
    assert!(report.users[0].0.starts_with("system:serviceaccount:monitoring:"), "{:?}", report.users[0]);
    assert!(report.users[0].1.main_reason().is_some_and(|reason| reason != Reason::Malformed));
}

/// kube-apiserver logs what ends first: the order of lines says nothing about the order of arrival.
#[test]
fn the_order_of_lines_does_not_matter_within_the_window() {
    let lines: Vec<String> = (0..3_000)
        .map(|n| {
            let user = format!("system:serviceaccount:monitoring:otel-collector-{}", n % 300);
            event(n * 5_000, 2_000_000, "list", "/api/v1/pods", &user, &["system:serviceaccounts"])
        })
        .collect();
    let forwards = replay(lines.iter().map(String::as_str));
    let backwards = replay(lines.iter().rev().map(String::as_str));
    assert_eq!(forwards.lanes.len(), backwards.lanes.len());
    for (one, other) in forwards.lanes.iter().zip(&backwards.lanes) {
        // Places in the log break ties, so single decisions may differ; arrivals do not.
        assert_eq!(one.1.all(), other.1.all(), "{}", one.0);
    }
    let (_, refused) = lane(&forwards, Lane::Telemetry);
    assert!(refused > 0);
}

#[test]
fn what_is_no_event_says_what_it_is() {
    assert!(matches!(read(b"{"), Err(Unreadable::Json(_))));
    assert!(matches!(read(br#"{"kind":"Pod"}"#), Err(Unreadable::Kind(kind)) if kind == "Pod"));
    let late = br#"{"kind":"Event","stage":"ResponseComplete","requestReceivedTimestamp":"soon"}"#;
    assert!(matches!(read(late), Err(Unreadable::Time { field: "requestReceivedTimestamp", .. })));
    let begun = br#"{"kind":"Event","stage":"RequestReceived"}"#;
    assert!(read(begun).unwrap().is_none());
}

#[test]
fn users_without_end_are_counted_together() {
    let mut lines = String::new();
    for n in 0..super::CALLERS_MAX as u64 + 100 {
        let user = format!("user-{n}");
        writeln!(lines, "{}", event(n * 1_000, 1_000, "get", "/api/v1/namespaces/a/pods/b", &user, &[]))
            .unwrap();
    }
    let report = replay(lines.lines());
    assert_eq!(report.users.len(), super::CALLERS_MAX + 1);
    let others = report.users.iter().find(|(name, _)| name == "(others)").map(|(_, count)| count.all());
    assert_eq!(others, Some(100));
}
