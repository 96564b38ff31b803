//! What the commands print, as golden texts.

use super::{findings, history, rollback};
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
