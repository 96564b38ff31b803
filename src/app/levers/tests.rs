//! The keeper as a whole: what it refuses, what it keeps, and what ends by itself.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::*;
use crate::flow::{Scheduler, Settings};
use crate::server::Drain;

const ROOT: Asker = Asker { uid: Some(0), pid: Some(7), user: None };

fn keeper(folder: Option<&Path>) -> Arc<Keeper> {
    Keeper::new(Parts {
        trail: AuditTrail::default(),
        gate: Gate::new(Scheduler::new(Settings::default(), 1, clock::now()), Drain::new()),
        levers: Arc::default(),
        recent: Arc::default(),
        names: Arc::default(),
        newcomers: Newcomers::new(Default::default(), clock::now()),
        metrics: Arc::new(Metrics::new().unwrap()),
        folder: folder.map(Path::to_owned),
        break_glass: vec!["spillway:break-glass".into()],
        limits: Arc::new(Mutex::new((Seats(10), Seats(1_000)))),
        ready: Arc::default(),
        audit_metrics: None,
    })
}

fn request(kind: &str, name: &str) -> Isolate {
    Isolate {
        kind: kind.into(),
        name: name.into(),
        to: "deny".into(),
        for_seconds: 600,
        reason: "a loop".into(),
        force_protected: false,
        dry_run: false,
    }
}

fn refused(request: &Isolate) -> Problem {
    keeper(None).isolate(request, ROOT).unwrap_err()
}

#[test]
fn each_mistake_is_refused_with_its_code_and_what_to_do() {
    let good = request("serviceaccount", "obs/agent");
    for (bad, code) in [
        (Isolate { reason: "  ".into(), ..good.clone() }, code::REASON),
        (Isolate { reason: "x".repeat(201), ..good.clone() }, code::REASON),
        (Isolate { reason: "a\u{1b}[2J".into(), ..good.clone() }, code::REASON),
        (Isolate { for_seconds: 0, ..good.clone() }, code::TTL),
        (Isolate { for_seconds: 86_401, ..good.clone() }, code::TTL),
        (Isolate { for_seconds: u64::MAX, ..good.clone() }, code::TTL),
        (Isolate { to: "ban".into(), ..good.clone() }, code::ACTION),
        (Isolate { name: "agent".into(), ..good.clone() }, code::TARGET),
        (request("serviceacount", "obs/agent"), code::TARGET),
        (request("group", "system:nodes"), code::PROTECTED),
        (request("group", "spillway:break-glass"), code::PROTECTED),
    ] {
        let problem = refused(&bad);
        assert_eq!(problem.code, code, "{bad:?}: {problem:?}");
        assert!(!problem.help.is_empty(), "{problem:?}");
    }
    assert_eq!(refused(&request("serviceacount", "a/b")).help, "did you mean \"serviceaccount\"?");
    assert_eq!(refused(&request("group", "system:nodes")).details, ["group system:nodes is every kubelet"]);
}

#[test]
fn force_isolates_what_is_protected_and_a_dry_run_nothing() {
    let keeper = keeper(None);
    let masters = request("group", "system:masters");
    let dry = Isolate { dry_run: true, ..masters.clone() };
    let preview = keeper.isolate(&dry, ROOT).unwrap();
    assert_eq!((preview.preview.protected.len(), preview.isolation.id.as_str()), (1, ""));
    assert!(keeper.isolations().is_empty());
    let forced = Isolate { force_protected: true, ..masters };
    assert!(keeper.isolate(&forced, ROOT).unwrap().isolation.forced);
    assert_eq!(keeper.isolations().len(), 1);
}

#[test]
fn one_target_is_isolated_once_and_released_by_id_or_name() {
    let keeper = keeper(None);
    let first = keeper.isolate(&request("namespace", "obs"), ROOT).unwrap().isolation;
    let again = Isolate { to: "penalty".into(), for_seconds: 60, ..request("namespace", "obs") };
    let second = keeper.isolate(&again, ROOT).unwrap().isolation;
    assert_eq!((&second.id, second.action.as_str(), keeper.isolations().len()), (&first.id, "penalty", 1));
    keeper.isolate(&request("user", "obs"), ROOT).unwrap();

    let release = |which: &str| keeper.release(&Release { which: which.into() }, ROOT);
    let ambiguous = release("obs").unwrap_err();
    assert_eq!((ambiguous.code.as_str(), ambiguous.details.len()), (code::AMBIGUOUS, 2));
    assert_eq!(release("user obs").unwrap().kind, "user");
    let unknown = release("obz").unwrap_err();
    assert_eq!((unknown.code.as_str(), unknown.help.as_str()), (code::NOT_IN_FORCE, "did you mean \"obs\"?"));
    assert_eq!(release(&first.id).unwrap().id, first.id);
    assert!(keeper.isolations().is_empty());
}

#[test]
fn there_are_no_more_isolations_than_the_bound() {
    let keeper = keeper(None);
    for number in 0..ISOLATIONS_MAX {
        keeper.isolate(&request("user", &format!("user-{number}")), ROOT).unwrap();
    }
    assert_eq!(keeper.isolate(&request("user", "one-more"), ROOT).unwrap_err().code, code::TOO_MANY);
    keeper.isolate(&request("user", "user-3"), ROOT).unwrap();
    assert_eq!(keeper.isolations().len(), ISOLATIONS_MAX);
}

#[tokio::test]
async fn levers_survive_a_restart_and_a_broken_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let first = keeper(Some(folder.path()));
    let isolation = first.isolate(&request("namespace", "obs"), ROOT).unwrap().isolation;
    first.lock(&Lock { for_seconds: 60, reason: "INC-1".into() }, ROOT).unwrap();
    let hold = HoldLimit { hold: "at-most".into(), seats: Some(20), for_seconds: 60, reason: "etcd".into() };
    first.hold_limit(&hold, ROOT).unwrap();
    assert_eq!(first.keep().await, Kept { on_disk: true, problem: String::new() });

    let second = keeper(Some(folder.path()));
    assert_eq!(second.isolations()[0].id, isolation.id);
    assert!((595..=600).contains(&second.isolations()[0].remaining_seconds));
    let status = second.status();
    assert_eq!((status.limit, status.lockdown.is_some(), status.held.is_some()), (20, true, true));
    let judged = second.parts.levers.gauges();
    assert_eq!((judged.isolations, judged.lockdown), ([0, 1], true), "in force, not only listed");

    let file = folder.path().join(NAME);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("obs", "abc")).unwrap();
    assert!(keeper(Some(folder.path())).isolations().is_empty());
    let aside = fs::read_dir(folder.path()).unwrap().any(|entry| {
        entry.unwrap().file_name().to_str().is_some_and(|name| name.starts_with("levers.json.corrupt-"))
    });
    assert!(aside && !file.exists());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_changes_nothing_about_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be: not even root can write below it.
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let keeper = keeper(Some(&blocked));
    keeper.isolate(&request("namespace", "obs"), ROOT).unwrap();
    let kept = keeper.keep().await;
    assert!(!kept.on_disk && kept.problem.contains("levers.json"), "{kept:?}");
    assert_eq!(keeper.parts.levers.gauges().isolations, [0, 1]);
    assert_eq!(keeper.status().kept, kept);

    fs::remove_file(&blocked).unwrap();
    for _ in 0..AGAIN_ROUNDS {
        keeper.sweep().await;
    }
    assert!(keeper.status().kept.on_disk, "it is tried again");
}

#[tokio::test]
async fn ends_come_by_themselves_and_leave_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(Some(folder.path()));
    keeper.isolate(&Isolate { for_seconds: 1, ..request("namespace", "obs") }, ROOT).unwrap();
    keeper.lock(&Lock { for_seconds: 1, reason: "INC-1".into() }, ROOT).unwrap();
    let hold = HoldLimit { hold: "exactly".into(), seats: None, for_seconds: 1, reason: "etcd".into() };
    keeper.hold_limit(&hold, ROOT).unwrap();
    keeper.keep().await;
    keeper.sweep().await;
    assert_eq!(keeper.isolations().len(), 1);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    keeper.sweep().await;
    let status = keeper.status();
    assert!(status.isolations.is_empty() && status.lockdown.is_none() && status.held.is_none());
    let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
    assert!(!text.contains("obs"), "{text}");
}

#[test]
fn the_limit_is_held_within_the_bounds_of_the_policy() {
    let keeper = keeper(None);
    let hold = |hold: &str, seats| {
        let request = HoldLimit { hold: hold.into(), seats, for_seconds: 60, reason: "test".into() };
        keeper.hold_limit(&request, ROOT)
    };
    for seats in [0, 9, 1_001, u32::MAX] {
        assert_eq!(hold("exactly", Some(seats)).unwrap_err().code, code::SEATS);
    }
    assert_eq!(hold("about", Some(50)).unwrap_err().code, code::ACTION);
    assert_eq!(hold("exactly", None).unwrap().what, "exactly 64 seats");
    assert_eq!(hold("at-most", Some(12)).unwrap().what, "at most 12 seats");
    assert_eq!(keeper.status().limit, 12);
    keeper.free_limit(ROOT).unwrap();
    assert_eq!(keeper.free_limit(ROOT).unwrap_err().code, code::NOT_IN_FORCE);
    assert_eq!(keeper.unlock(ROOT).unwrap_err().code, code::NOT_IN_FORCE);
}

#[test]
fn an_address_that_a_kubelet_came_from_is_protected() {
    let keeper = keeper(None);
    let mut kubelet = (*crate::identity::Identity::anonymous()).clone();
    (kubelet.user, kubelet.groups) = ("system:node:worker-1".into(), vec!["system:nodes".into()]);
    let peer = IpAddr::from([10, 1, 2, 3]);
    keeper.parts.recent.learn(crate::policy::ClientKey(1), &kubelet, peer);
    let problem = keeper.isolate(&request("cidr", "10.1.2.0/24"), ROOT).unwrap_err();
    assert_eq!(problem.details, ["system:node:worker-1 is among those here lately: a kubelet"]);
    assert!(keeper.isolate(&request("cidr", "10.1.3.0/24"), ROOT).is_ok());
}

#[test]
fn a_name_that_nobody_has_is_compared_with_those_who_were_here() {
    let keeper = keeper(None);
    let mut agent = (*crate::identity::Identity::anonymous()).clone();
    (agent.user, agent.groups) = ("system:serviceaccount:obs:node-agent".into(), vec!["agents".into()]);
    keeper.parts.recent.learn(crate::policy::ClientKey(1), &agent, IpAddr::from([10, 1, 2, 3]));
    let near = |kind: &str, name: &str| {
        let dry = Isolate { dry_run: true, ..request(kind, name) };
        let preview = keeper.isolate(&dry, ROOT).unwrap().preview;
        (preview.matching, preview.near)
    };
    assert_eq!(near("serviceaccount", "obs/node-agnet"), (0, Some("obs/node-agent".into())));
    assert_eq!(near("namespace", "osb"), (0, Some("obs".into())));
    assert_eq!(near("group", "agent"), (0, Some("agents".into())));
    assert_eq!(near("user", "somebody-else"), (0, None));
    assert_eq!(near("serviceaccount", "obs/node-agent"), (1, None));
}

#[tokio::test]
async fn every_lever_is_a_record_of_the_chain_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = crate::breakglass::audit::Settings {
        folder: folder.path().to_owned(),
        key_folder: folder.path().to_owned(),
        rotate_bytes: 1 << 20,
        host: "cp-1".into(),
        config_hash: "0123".into(),
    };
    // A busy machine may need longer for them than an answer waits.
    let records = |count: usize| -> Vec<serde_json::Value> {
        let began = clock::now();
        loop {
            let text = fs::read_to_string(folder.path().join("break-glass-audit.jsonl")).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let found: Vec<_> =
                lines.filter(|record: &serde_json::Value| record["event"] == "lever").collect();
            if found.len() >= count || clock::now().since(began) > Duration::from_secs(60) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let moves = |records: &[serde_json::Value]| -> Vec<String> {
        records.iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect()
    };
    let first = keeper(Some(folder.path()));
    let audit = Audit::start(&settings).unwrap();
    first.write_down(audit.clone());
    let id = first.isolate(&request("namespace", "obs"), ROOT).unwrap().isolation.id;
    first.isolate(&Isolate { dry_run: true, ..request("namespace", "web") }, ROOT).unwrap();
    first.lock(&Lock { for_seconds: 60, reason: "INC-1".into() }, ROOT).unwrap();
    first.unlock(ROOT).unwrap();
    let hold = HoldLimit { hold: "at-most".into(), seats: Some(20), for_seconds: 60, reason: "etcd".into() };
    first.hold_limit(&hold, ROOT).unwrap();
    first.free_limit(ROOT).unwrap();
    first.keep().await;
    let written = records(5);
    assert_eq!(moves(&written), ["isolate", "lockdown", "lockdown-off", "limit", "limit-off"]);
    let isolation = &written[0];
    assert_eq!((isolation["lever"].as_str(), isolation["to"].as_str()), (Some(&*id), Some("deny")));
    assert_eq!(
        (isolation["reason"].as_str(), isolation["target"].as_str()),
        (Some("a loop"), Some("namespace obs"))
    );
    assert_eq!((isolation["actor"]["uid"].as_u64(), isolation["actor"]["pid"].as_u64()), (Some(0), Some(7)));
    audit.close();

    // The next process says what it found, and goes on in the same chain.
    let second = keeper(Some(folder.path()));
    let audit = Audit::start(&settings).unwrap();
    second.write_down(audit.clone());
    second.release(&Release { which: "obs".into() }, ROOT).unwrap();
    second.keep().await;
    assert_eq!(moves(&records(7)[5..]), ["recalled", "release"]);
    assert!(records(7)[5]["actor"].is_null(), "nobody moved it");
    audit.close();
    let (files, key) = (
        [folder.path().join("break-glass-audit.jsonl")],
        fs::read_to_string(folder.path().join("break-glass-audit.pub")).unwrap(),
    );
    let key = crate::breakglass::audit::parse_public_key(&key).unwrap();
    let question = crate::breakglass::audit::Question { files: &files, public_key: Some(&key), from: 1 };
    let verdict = crate::breakglass::audit::verify(&question).unwrap();
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!(
        (verdict.events.get("lever"), verdict.head),
        (Some(&7), crate::breakglass::audit::Head::Signed)
    );
}

#[test]
fn what_break_glass_goes_past_is_known_without_asking_the_gate() {
    let keeper = keeper(None);
    assert!(keeper.load().shown(clock::now()).is_null(), "nobody has looked yet");
    keeper.lock(&Lock { for_seconds: 60, reason: "INC-1".into() }, ROOT).unwrap();
    let now = clock::now();
    keeper.load.look(now, &keeper.parts.gate.view(), keeper.parts.levers.gauges());
    let shown = keeper.load().shown(now + Duration::from_millis(1_500));
    assert_eq!((shown["lockdown"].as_bool(), shown["age_ms"].as_u64()), (Some(true), Some(1_500)), "{shown}");
    assert!(shown["limit"].as_u64().is_some_and(|limit| limit > 0), "{shown}");
}
