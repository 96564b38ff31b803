//! Does a change take effect whole or not at all, and is the way back what an operator expects?

use std::path::Path;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::*;
use crate::app::settings;
use crate::authn::{Anonymous, Authenticator};
use crate::flow::Scheduler;
use crate::gateway::Newcomers;
use crate::policy::rollout::Readings;
use crate::policy::{Lane, Mode};
use crate::server::Drain;
use crate::telemetry::{AccessLog, AuditTrail, Metrics};

const ROOT: Asker = Asker { uid: Some(0), pid: Some(7), user: None };

/// A keeper over files in a folder.
struct Desk {
    folder: tempfile::TempDir,
    policies: Arc<Policies>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
}

const PLUMBING: &str = include_str!("../../../config/spillway.yaml");

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn policy_text(name: &str, ceiling: u32) -> String {
    format!(
        "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: {name}\nlanes:\n  telemetry:\n    ceilingPercent: {ceiling}\n"
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    vec![folder.join("spillway.yaml"), folder.join("policy.yaml")]
}

fn desk_in(folder: tempfile::TempDir) -> Desk {
    let files = files(folder.path());
    let loaded = config::load_with(&files, FileChecks::Off).unwrap();
    let proxy = loaded.proxy.unwrap();
    let beginning = begin(&proxy, &loaded.policy, loaded.policy_text.as_ref());
    let drain = Drain::new();
    let scheduler = Scheduler::new(settings::flow(&beginning.policy), 1, clock::now());
    let gate = Gate::new(scheduler, drain.clone());
    let authn = crate::authn::Settings {
        client_ca: None,
        denied: None,
        service_accounts: None,
        providers: vec![],
        reviews: None,
        anonymous: Anonymous::Anywhere,
    };
    let compiled = beginning.policy.compile(1).unwrap().numbered(beginning.generation);
    let compiled = compiled.under(beginning.enforcement());
    let shared = Arc::new(Shared {
        authenticator: Arc::new(Authenticator::new(&authn).unwrap()),
        policy: ArcSwap::from_pointee(compiled),
        metrics: Arc::new(Metrics::new().unwrap()),
        access_log: AccessLog::None,
        drain,
        names: Arc::default(),
        levers: Arc::default(),
        recent: Arc::default(),
        newcomers: Newcomers::new(beginning.policy.newcomers, clock::now()),
        decisions: Arc::default(),
        tap: Arc::default(),
        trail: AuditTrail::default(),
    });
    let parts = Parts {
        shared: Arc::clone(&shared),
        gate: Arc::clone(&gate),
        timeline: Arc::default(),
        limits: Arc::new(Mutex::new((Seats(0), Seats(0)))),
        files,
        proxy,
        seed: 1,
    };
    Desk { policies: Policies::new(parts, beginning), folder, shared, gate }
}

fn desk() -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let plumbing = PLUMBING.replace("/var/lib/spillway", &state.display().to_string());
    assert!(plumbing.contains(&state.display().to_string()), "the example has a state folder");
    write(folder.path(), "spillway.yaml", &plumbing);
    write(folder.path(), "policy.yaml", &policy_text("first", 50));
    desk_in(folder)
}

impl Desk {
    fn edit(&self, text: &str) -> Result<(), ReloadProblem> {
        write(self.folder.path(), "policy.yaml", text);
        self.policies.read_again("file")
    }

    /// The telemetry lane's ceiling, as rules and as the scheduler have it.
    fn ceilings(&self) -> (u32, u32) {
        let limit = self.gate.view().snapshot.limit.0;
        let seats = self.gate.view().snapshot.lane(Lane::Telemetry).ceiling.0;
        (self.shared.policy.load().lane(Lane::Telemetry).ceiling_percent, seats * 100 / limit)
    }

    fn generation(&self) -> u64 {
        self.policies.config(None).unwrap().policy.generation
    }

    /// The same folder, after a restart.
    fn restarted(self) -> Desk {
        drop(self.policies);
        desk_in(self.folder)
    }

    fn scrape(&self) -> String {
        self.shared.metrics.registered()
    }
}

#[test]
fn an_edit_is_in_force_in_rules_and_scheduler_and_requests_before_it_keep_theirs() {
    let desk = desk();
    assert_eq!((desk.ceilings(), desk.generation()), ((50, 50), 1));
    let before = desk.shared.policy.load_full();
    desk.edit(&policy_text("second", 25)).unwrap();
    assert_eq!((desk.ceilings(), desk.generation()), ((25, 25), 2));
    assert_eq!(
        before.lane(Lane::Telemetry).ceiling_percent,
        50,
        "whoever holds the old one sees the old one"
    );
    assert_ne!(before.id(), desk.shared.policy.load().id(), "what was resolved under it is resolved anew");
    let history = desk.policies.history().policies;
    let told: Vec<_> = history.iter().map(|policy| (policy.generation, policy.by.as_str())).collect();
    assert_eq!(told, [(1, "start"), (2, "file")]);
    let hash = &history[1].hash;
    let line = format!("spillway_config_info{{generation=\"2\",hash=\"{hash}\"}} 1");
    assert_eq!(desk.scrape().matches("spillway_config_info{").count(), 1, "one series");
    assert!(desk.scrape().contains(&line), "{line}");
}

#[test]
fn a_broken_edit_changes_nothing_and_says_where_it_is_broken() {
    let desk = desk();
    let broken = policy_text("second", 25).replace("telemetry", "telemtry");
    let problem = desk.edit(&broken).unwrap_err();
    assert_eq!((desk.ceilings(), desk.generation()), ((50, 50), 1));
    let finding = &problem.findings[0];
    assert!(
        finding.contains("policy.yaml:5:3: error[SPW0204]: lane \"telemtry\" is not defined"),
        "{finding}"
    );
    assert_eq!(desk.policies.config(None).unwrap().problem, Some(problem));
    let scrape = desk.scrape();
    assert!(scrape.contains("spillway_config_reloads_total{status=\"failure\"} 1"), "{scrape}");
    desk.edit(&policy_text("second", 25)).unwrap();
    assert_eq!((desk.ceilings(), desk.policies.config(None).unwrap().problem), ((25, 25), None));
    assert!(desk.scrape().contains("spillway_config_reloads_total{status=\"success\"} 1"));
}

#[test]
fn a_file_that_is_gone_or_no_text_changes_nothing() {
    let desk = desk();
    std::fs::remove_file(desk.folder.path().join("policy.yaml")).unwrap();
    assert!(desk.policies.read_again("file").unwrap_err().findings[0].contains("SPW0601"));
    std::fs::write(desk.folder.path().join("policy.yaml"), [0xff, 0xfe, 0]).unwrap();
    assert!(desk.policies.read_again("file").unwrap_err().findings[0].contains("SPW0901"));
    assert_eq!(desk.generation(), 1);
}

#[test]
fn a_comment_is_no_change_of_the_policy() {
    let desk = desk();
    desk.edit(&format!("# why\n{}", policy_text("first", 50))).unwrap();
    assert_eq!(desk.generation(), 1);
}

#[test]
fn what_needs_a_restart_is_named_and_the_policy_of_the_same_edit_is_taken() {
    let desk = desk();
    let path = desk.folder.path().join("spillway.yaml");
    let plumbing = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, plumbing.replace("10.0.0.11:6443", "10.0.0.12:6443")).unwrap();
    desk.edit(&policy_text("second", 25)).unwrap();
    assert_eq!(desk.ceilings(), (25, 25));
    assert_eq!(desk.policies.config(None).unwrap().restart, ["listeners"]);
    std::fs::write(&path, plumbing).unwrap();
    desk.policies.read_again("file").unwrap();
    assert_eq!(desk.policies.config(None).unwrap().restart, Vec::<String>::new(), "it was taken back");
}

#[test]
fn a_rollback_holds_over_a_restart_until_the_file_says_something_else() {
    let desk = desk();
    desk.edit(&policy_text("second", 25)).unwrap();
    let back = desk.policies.rollback(&Rollback { generation: None }, ROOT).unwrap();
    assert_eq!((back.policy.generation, back.withdrawn), (3, true));
    assert_eq!(back.before.unwrap().generation, 2);
    assert_eq!(back.policy.by, "rollback to 1 by uid 0");
    assert_eq!(desk.ceilings(), (50, 50));
    // The file still has what was gone back from: reading it again is no reason to take it.
    desk.policies.read_again("signal").unwrap();
    assert_eq!(desk.ceilings(), (50, 50));
    let desk = desk.restarted();
    assert_eq!((desk.ceilings(), desk.generation()), ((50, 50), 3));
    assert!(desk.policies.config(None).unwrap().withdrawn);
    desk.edit(&policy_text("third", 75)).unwrap();
    assert_eq!((desk.ceilings(), desk.generation()), ((75, 75), 4));
    assert!(!desk.policies.config(None).unwrap().withdrawn);
    let desk = desk.restarted();
    assert_eq!((desk.ceilings(), desk.generation()), ((75, 75), 4), "a restart is no new generation");
}

#[test]
fn each_impossible_rollback_says_what_to_do() {
    let desk = desk();
    for (generation, code) in
        [(None, code::NOTHING_BEFORE), (Some(1), code::NOTHING_BEFORE), (Some(99), code::GENERATION)]
    {
        let problem = desk.policies.rollback(&Rollback { generation }, ROOT).unwrap_err();
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(!problem.help.is_empty());
    }
    assert_eq!(desk.policies.config(Some(99)).unwrap_err().code, code::GENERATION);
    assert_eq!(desk.policies.config(Some(1)).unwrap().policy.text, Some(policy_text("first", 50)));
}

#[test]
fn a_broken_policy_at_a_start_has_a_last_good_one() {
    let desk = desk();
    desk.edit(&policy_text("second", 25)).unwrap();
    let folder = desk.folder.path();
    write(folder, "policy.yaml", "kind: [");
    // The files that the example names are not on this machine, so only the text is asked for here.
    let kept = Kept::read(&folder.join("state")).unwrap();
    let last = kept.policy(None).unwrap();
    assert_eq!((last.generation, last.text), (2, Some(policy_text("second", 25))));
    assert_eq!(kept.history().policies.len(), 2);
    assert_eq!(kept.policy(Some(7)), None);
    assert!(Kept::read(&folder.join("nowhere")).unwrap_err().contains("config-history.json"));
}

fn with_steps(name: &str, more: &str) -> String {
    format!(
        "{}enforcement:\n  mode: Shadow\n  steps: [5, 100]\n  stepInterval: 2s\n  guard: {{ interval: 1s, failureThreshold: 2 }}\n{more}",
        policy_text(name, 50)
    )
}

fn good() -> Readings {
    Readings {
        answers: 100,
        reads: (100, Duration::ZERO),
        overheads: (100, Duration::ZERO),
        ..Readings::default()
    }
}

fn order(desk: &Desk, word: &str) -> Result<String, Problem> {
    desk.policies.obey(&RolloutOrder { order: word.into() }, &ROOT).map(|view| view.stage)
}

fn in_force(desk: &Desk) -> (Mode, u32) {
    let Enforcement { mode, percent } = desk.shared.policy.load().enforcement();
    (mode, percent)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_rollout_goes_on_over_a_restart_and_its_guard_falls_back() {
    let desk = desk();
    desk.edit(&with_steps("steps", "")).unwrap();
    assert_eq!(in_force(&desk), (Mode::Shadow, 100));
    let id = desk.shared.policy.load().id();
    assert_eq!(order(&desk, "start").unwrap(), "running");
    assert_eq!(in_force(&desk), (Mode::Enforce, 5));
    desk.policies.judged(SECOND, &good());
    let desk = desk.restarted();
    assert_eq!(in_force(&desk), (Mode::Enforce, 5), "where it was");
    desk.policies.judged(SECOND, &good());
    assert_eq!(in_force(&desk), (Mode::Enforce, 100), "one second had passed before the restart");
    assert_eq!(desk.shared.policy.load().id(), id, "who was resolved under it stays so");
    let bad = Readings { errors: 50, ..good() };
    desk.policies.judged(SECOND, &bad);
    assert_eq!(in_force(&desk), (Mode::Enforce, 100), "once is no trend");
    desk.policies.judged(SECOND, &bad);
    assert_eq!(in_force(&desk), (Mode::Shadow, 100));
    let view = desk.policies.rollout();
    assert_eq!((view.stage.as_str(), view.judgement.as_str()), ("fell-back", "fail"));
    assert!(view.checks.iter().any(|check| check.text == "50 errors of 100, at most 1 %"), "{view:?}");
    let scrape = desk.scrape();
    for line in [
        "spillway_rollout_steps_total{result=\"rolled_back\"} 1",
        "spillway_enforcement_ratio 0",
        "spillway_enforcement_mode{mode=\"Shadow\"} 1",
    ] {
        assert!(scrape.contains(line), "{line} is not in\n{scrape}");
    }
    let desk = desk.restarted();
    assert_eq!(in_force(&desk), (Mode::Shadow, 100), "a restart is no second try");
}

#[test]
fn another_edit_leaves_a_rollout_alone_unless_it_is_about_it() {
    let desk = desk();
    desk.edit(&with_steps("steps", "")).unwrap();
    order(&desk, "start").unwrap();
    desk.edit(&with_steps("renamed", "")).unwrap();
    assert_eq!(in_force(&desk), (Mode::Enforce, 5));
    desk.edit(&with_steps("renamed", "").replace("mode: Shadow", "mode: Disabled")).unwrap();
    assert_eq!(in_force(&desk), (Mode::Disabled, 100), "the file has the last word");
    assert_eq!(desk.policies.rollout().stage, "idle");
}

#[test]
fn each_impossible_order_has_its_code_and_what_to_do() {
    let desk = desk();
    for (word, code) in [
        ("start", code::NO_STEPS),
        ("pause", code::STAGE),
        ("promote", code::STAGE),
        ("strat", crate::admin::wire::code::MALFORMED),
    ] {
        let problem = order(&desk, word).unwrap_err();
        assert_eq!(problem.code, code, "{word}");
        assert!(!problem.help.is_empty(), "{word}");
    }
    desk.edit(&with_steps("steps", "").replace("Shadow", "Disabled")).unwrap();
    assert_eq!(order(&desk, "start").unwrap_err().code, code::NOTHING_TO_DO);
}
