//! What the commands print, as golden texts.

use super::side::{NoSide, Side, of_files, of_policy};
use super::{Ending, diff, findings, history, rollback, show};
use crate::admin::wire_change::{ConfigHistory, ConfigView, PolicyView, ReloadProblem};
use crate::cli::golden;

fn policy(generation: u64, hash: &str, by: &str) -> PolicyView {
    PolicyView {
        generation,
        hash: hash.into(),
        at: 1_790_000_000 + generation,
        by: by.into(),
        file: "/etc/spillway/policy.yaml".into(),
        text: None,
    }
}

fn text(print: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    print(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn history_is_its_golden_text() {
    let policies = vec![
        policy(11, "0f3a9c1d22be", "start"),
        policy(12, "9b17aa01c3d4", "file"),
        policy(13, "0f3a9c1d22be", "rollback to 11 by uid 0"),
    ];
    let printed = text(|out| history::table(&ConfigHistory { policies }, out).unwrap());
    golden::compare("config-history", &printed);
}

#[test]
fn a_rollback_says_what_it_did_and_what_is_left_to_do() {
    let view = ConfigView {
        policy: policy(13, "0f3a9c1d22be", "rollback to 11 by uid 0"),
        before: Some(policy(12, "9b17aa01c3d4", "file")),
        files: vec!["/etc/spillway/spillway.yaml".into(), "/etc/spillway/policy.yaml".into()],
        problem: Some(ReloadProblem {
            at: 1_790_000_100,
            findings: vec![
                "/etc/spillway/policy.yaml:61:11: error[SPW0204]: lane \"telemtry\" is not defined".into(),
            ],
        }),
        restart: vec!["listeners".into(), "timeouts".into()],
        withdrawn: true,
    };
    let printed = text(|out| {
        rollback::text(&view, out).unwrap();
        findings(&view, out);
    });
    golden::compare("config-rollback", &printed);
    let wants = printed.lines().filter(|line| line.starts_with("! ")).count();
    assert_eq!((wants, printed.matches("  → ").count()), (3, 3), "each finding has its command");
}

const OLD: &str = "\
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: shop
enforcement: { mode: Shadow }
rules:
  - { name: scrapers, match: { serviceAccounts: [obs/*] }, lane: telemetry }
  - { name: batch, match: { groups: [batch] }, lane: workload }
  - { name: on-call, match: { groups: [on-call] }, lane: operators }
";

const NEW: &str = "\
# What is spelled out here and a default is no difference.
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: shop
defaultRules: Append
enforcement:
  mode: Enforce
  percent: 100
lanes:
  telemetry: { queueLength: 7 }
rules:
  - { name: on-call, match: { groups: [on-call, sre] }, lane: operators }
  - { name: scrapers, match: { serviceAccounts: [obs/*] }, lane: telemetry }
  - { name: tenants, match: { apiGroups: [apps], resources: [deployments] }, lane: workload }
";

fn kept(text: &str) -> Side {
    let policy = PolicyView { text: Some(text.into()), ..policy(12, "9b17aa01c3d4", "file") };
    of_policy(&policy, true).unwrap_or_else(|why| panic!("{why:?}"))
}

fn compared(old: &Side, new: &Side, origin: bool) -> String {
    let compared = diff::compared(old, new).unwrap_or_else(|why| panic!("{why:?}"));
    text(|out| diff::print(&compared, origin, out).unwrap())
}

#[test]
fn a_diff_says_what_a_policy_means_and_not_how_it_is_written() {
    let (old, new) = (kept(OLD), kept(NEW));
    let mut printed = compared(&old, &new, false);
    printed.push_str(&compared(&old, &new, true));
    golden::compare("config-diff", &printed);
    assert!(compared(&old, &old, true).ends_with("\nNo difference.\n"));
}

#[test]
fn a_diff_of_plumbing_marks_what_waits_for_a_restart_and_kinds_that_one_side_has_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let shipped = std::fs::read_to_string("config/spillway.yaml").unwrap();
    let old = of_files(&[write("spillway.yaml", &shipped)]).unwrap();
    let changed = format!("{shipped}\ntimeouts: {{ headers: 5s }}\n");
    let new = of_files(&[write("new.yaml", &changed), write("policy.yaml", OLD)]).unwrap();
    let printed = compared(&old, &new, false);
    assert!(printed.contains("~ timeouts.headers: 10s → 5s   restart\n"), "{printed}");
    assert!(!printed.contains("rules["), "{printed}");
    let mut err = Vec::new();
    let ending = diff::compared(&old, &kept(OLD)).unwrap_err().tell(&mut err);
    let err = String::from_utf8(err).unwrap();
    assert!(ending == Ending::Usage && err.starts_with("error[SPW0471]"), "{err}");
    let broken = of_files(&[write("broken.yaml", &OLD.replace("telemetry", "telemtry"))]).unwrap_err();
    assert!(matches!(&broken, NoSide::Invalid(_)) && broken.tell(&mut Vec::new()) == Ending::Config);
}

#[test]
fn origins_name_the_line_or_say_default() {
    let printed = text(|out| show::origins(&kept(NEW).documents[0], out).unwrap());
    let line = |path: &str| printed.lines().find(|line| line.starts_with(path)).unwrap();
    assert!(line("enforcement.percent: 100 ").ends_with("# /etc/spillway/policy.yaml:8:3"), "{printed}");
    assert!(line("rules[tenants].match.resources: [deployments.apps] ").ends_with(":14:50"), "{printed}");
    assert!(line("lanes.telemetry.wait").ends_with("# default"), "{printed}");
}
