//! Are records whole, in order, bounded, and never waited for?

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::*;
use crate::flow::Reason;
use crate::identity::{Credential, Identity};
use crate::policy::Lane;
use crate::telemetry::{Asker, PolicyChanged};

fn settings(folder: &Path, max_bytes: u64, max_backups: u32) -> AuditSettings {
    AuditSettings { file: folder.join("trail/audit.log"), max_bytes, max_backups }
}

fn answer(number: u32) -> Answer {
    let received = SystemTime::UNIX_EPOCH + Duration::from_micros(1_764_000_000_000_001);
    Answer {
        audit_id: format!("{number:08x}-0000-4000-8000-000000000000"),
        received,
        answered: received + Duration::from_millis(3),
        identity: Some(Arc::new(Identity {
            user: "system:serviceaccount:obs:agent".to_owned(),
            uid: Some("u1".to_owned()),
            groups: vec!["system:serviceaccounts".to_owned()],
            extra: vec![("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()])],
            credential: Credential::ServiceAccountToken,
        })),
        impersonates: false,
        peer: [10, 2, 7, 31].into(),
        method: "GET".to_owned(),
        uri: "/api/v1/namespaces/shop/pods?limit=500&resourceVersion=0".to_owned(),
        user_agent: Some("agent/1 \"quoted\"\n".to_owned()),
        status: 429,
        lane: Lane::Telemetry,
        rule: "telemetry".to_owned(),
        reason: Reason::LaneConcurrency,
        is_refusal: true,
        retry_after_seconds: Some(7),
        queued_ms: 2,
        is_break_glass: false,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_refusal_is_an_audit_event_with_what_only_spillway_knows() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1 << 20, 2);
    let trail = AuditTrail::start(settings.clone()).unwrap();
    trail.answered(answer(0x5e0c_11d2));
    trail.close();
    let events = lines(&settings.file);
    let event = &events[0];
    for (pointer, expected) in [
        ("/kind", "Event"),
        ("/apiVersion", "audit.k8s.io/v1"),
        ("/level", "Metadata"),
        ("/stage", "ResponseComplete"),
        ("/auditID", "5e0c11d2-0000-4000-8000-000000000000"),
        ("/requestURI", "/api/v1/namespaces/shop/pods?limit=500&resourceVersion=0"),
        ("/verb", "list"),
        ("/user/username", "system:serviceaccount:obs:agent"),
        ("/user/groups/0", "system:serviceaccounts"),
        ("/user/extra/authentication.kubernetes.io~1node-name/0", "n1"),
        ("/sourceIPs/0", "10.2.7.31"),
        ("/userAgent", "agent/1 \"quoted\"\n"),
        ("/objectRef/resource", "pods"),
        ("/objectRef/namespace", "shop"),
        ("/objectRef/apiVersion", "v1"),
        ("/responseStatus/reason", "TooManyRequests"),
        ("/requestReceivedTimestamp", "2025-11-24T16:00:00.000001Z"),
        ("/stageTimestamp", "2025-11-24T16:00:00.003001Z"),
        ("/annotations/spillway.dev~1decision", "shed"),
        ("/annotations/spillway.dev~1decision-id", "5e0c11d2"),
        ("/annotations/spillway.dev~1lane", "telemetry"),
        ("/annotations/spillway.dev~1reason", "lane_concurrency"),
        ("/annotations/spillway.dev~1retry-after-seconds", "7"),
        ("/annotations/spillway.dev~1credential", "service_account_token"),
    ] {
        assert_eq!(event.pointer(pointer).and_then(Value::as_str), Some(expected), "{pointer} in {event:#}");
    }
    assert_eq!(event.pointer("/responseStatus/code"), Some(&429.into()));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&settings.file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_operators_do_is_in_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1 << 20, 2);
    let trail = AuditTrail::start(settings.clone()).unwrap();
    let by = Some(Asker { user: Some("alice".into()), ..Asker::default() });
    let (id, target, reason) = ("i1", "user bob", "loops");
    trail.lever(&LeverMoved {
        action: "isolate",
        id,
        target,
        to: "deny",
        seconds: 60,
        reason,
        forced: true,
        by,
    });
    trail.policy(&PolicyChanged { generation: 3, hash: "abc", file: "policy.yaml", by: "file" });
    trail.close();
    let events = lines(&settings.file);
    let note = |at: usize, key: &str| events[at]["annotations"][format!("spillway.dev/{key}")].clone();
    assert_eq!((&events[0]["user"]["username"], &events[0]["verb"]), (&"alice".into(), &"create".into()));
    assert_eq!((note(0, "reason"), note(0, "forced")), ("loops".into(), "true".into()));
    assert_eq!((note(1, "generation"), note(1, "policy-hash")), ("3".into(), "abc".into()));
    assert_ne!(events[0]["auditID"], events[1]["auditID"]);
}

#[test]
fn files_are_bounded_in_size_and_number_and_no_line_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 20_000, 3);
    for _ in 0..3 {
        let trail = AuditTrail::start(settings.clone()).unwrap();
        (0..100).for_each(|number| trail.answered(answer(number)));
        trail.close();
    }
    let mut files: Vec<_> = std::fs::read_dir(settings.file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 20_000);
        assert!(!lines(file).is_empty());
    }
    // The newest is where one looks first, and nothing between the files is missing.
    let numbers = |file: &Path| -> Vec<String> {
        lines(file).iter().map(|event| event["auditID"].as_str().unwrap()[..8].to_owned()).collect()
    };
    let (newest, before) = (numbers(&files[0]), numbers(&files[1]));
    assert_eq!(newest.last().map(String::as_str), Some("00000063"));
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    assert_eq!((number(before.last().unwrap()) + 1) % 100, number(&newest[0]));
}

#[test]
fn a_torn_line_of_a_killed_process_swallows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1 << 20, 1);
    std::fs::create_dir_all(settings.file.parent().unwrap()).unwrap();
    std::fs::write(&settings.file, "{\"kind\":\"Ev").unwrap();
    let trail = AuditTrail::start(settings.clone()).unwrap();
    trail.answered(answer(1));
    trail.close();
    let text = std::fs::read_to_string(&settings.file).unwrap();
    let last: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(last["kind"], "Event");
}

#[test]
fn a_file_that_cannot_be_written_costs_records_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trail"), "a file where the folder should be").unwrap();
    let trail = AuditTrail::start(settings(folder.path(), 1 << 20, 1)).unwrap();
    (0..50).for_each(|number| trail.answered(answer(number)));
    trail.close();
    let counts = &trail.0.as_ref().unwrap().counts;
    assert_eq!((count(&counts.failed), count(&counts.written)), (50, 0));
}

#[test]
fn more_than_fits_is_lost_and_counted_without_waiting() {
    // Nobody takes anything out of this queue.
    let (queue, _items) = sync_channel(4);
    let trail = AuditTrail(Some(Arc::new(Entry { queue, counts: Arc::default() })));
    (0..10).for_each(|number| trail.answered(answer(number)));
    let counts = &trail.0.as_ref().unwrap().counts;
    assert_eq!(count(&counts.full), 6);
    let (queue, _items) = sync_channel(100);
    let trail = AuditTrail(Some(Arc::new(Entry { queue, counts: Arc::default() })));
    let long = || Answer { uri: "x".repeat(BYTES_MAX / 3), ..answer(1) };
    (0..5).for_each(|_| trail.answered(long()));
    assert_eq!(count(&trail.0.as_ref().unwrap().counts.full), 3);
}
