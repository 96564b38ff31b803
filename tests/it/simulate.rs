//! What does `spillway simulate` print, and how does it end?
//!
//! The simulator itself is tested beside its code; here it is the command: names, files, formats and exit codes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

use crate::spillway::BINARY;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("simulate").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A storm of ten seconds, with the band that it is to keep.
fn scenario(band: &str) -> String {
    format!(
        "name: short\nabout: a short storm\nserver: {{ cores: 1 }}\n\
         phases: {{ calm: 5s, storm: 10s, after: 5s }}\nclients:\n\
         - {{ name: leases, kind: kubelet, count: 50, lane: node-health }}\n\
         - name: agents\n  kind: loop\n  count: 50\n  identity: {{ user: \"system:serviceaccount:logging:fluent-bit\", node: \"n{{n}}\" }}\n  \
         during: storm\n  calls: [ \"GET /api/v1/pods?limit=500&resourceVersion=0\" ]\nexpect: {{ {band} }}\n"
    )
}

#[test]
fn a_table_fits_a_hundred_columns_and_names_both_algorithms() {
    let played = simulate(&["one-core-own-pods", "--seeds", "2"]);
    let (out, err) = (text(&played.stdout), text(&played.stderr));
    assert_eq!(played.status.code(), Some(0), "{out}{err}");
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    assert!(out.starts_with("one-core-own-pods: "), "{out}");
    for algorithm in ["none", "spillway"] {
        assert!(out.lines().any(|line| line.starts_with(algorithm)), "{out}");
    }
    assert!(out.contains("all hold"), "{out}");
    assert_eq!(err, "", "no progress bar where there is no terminal");
}

#[test]
fn a_file_is_played_equal_seeds_agree_and_the_policy_decides_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("short.yaml");
    fs::write(&file, scenario("renewals_ok: \">= 0.9\"")).unwrap();
    let file = file.to_str().unwrap();
    let [one, two] = [(); 2].map(|()| simulate(&[file, "--seeds", "2", "-o", "json"]));
    assert_eq!(one.status.code(), Some(0), "{}", text(&one.stderr));
    assert_eq!(one.stdout, two.stdout);
    let report: Value = serde_json::from_slice(&one.stdout).unwrap();
    let runs = &report["scenarios"][0]["algorithms"][1]["runs"];
    assert_eq!(runs[0]["algorithm"], "spillway");
    assert_eq!(runs[1]["seed"], 2);
    // The default policy has fluent-bit of any namespace among telemetry.
    let lanes = runs[0]["metrics"].as_object().unwrap();
    assert!(lanes.contains_key("telemetry.attempts_per_s"), "{lanes:?}");

    // Another policy, another lane.
    let policy = dir.path().join("policy.yaml");
    let rules =
        "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: mine\ndefaultRules: Omit\n";
    fs::write(&policy, rules).unwrap();
    let played = simulate(&[file, "--seeds", "1", "-o", "json", "--policy", policy.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&played.stdout).unwrap();
    let lanes = report["scenarios"][0]["algorithms"][1]["runs"][0]["metrics"].as_object().unwrap();
    assert!(lanes.contains_key("unknown.attempts_per_s"), "{lanes:?}");
}

#[test]
fn a_band_that_does_not_hold_is_one_and_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("short.yaml");
    fs::write(&file, scenario("telemetry.served_per_s: \">= 1000\"")).unwrap();
    let played = simulate(&[file.to_str().unwrap(), "--seeds", "2"]);
    assert_eq!(played.status.code(), Some(1));
    let err = text(&played.stderr);
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.starts_with("short with spillway, seed 1: telemetry.served_per_s is "), "{err}");
    assert!(err.contains(", expected at least 1000\n"), "{err}");
}

#[test]
fn mistakes_are_two_and_say_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.yaml");
    fs::write(&file, scenario("renewals_ok: \">= 0.9\"").replace("cores:", "coers:")).unwrap();
    let wrong = file.to_str().unwrap();
    for (arguments, expected) in [
        (&["one-cor"][..], "did you mean \"one-core\"?"),
        (&["one-core", "--algorithms", "spilway"], "did you mean \"spillway\"?"),
        (&[wrong], "(line 3, column "),
        (&["one-core", "--seeds", "0"], "0 is not in 1..=1000"),
        (&[], "SCENARIO"),
    ] {
        let played = simulate(arguments);
        let err = text(&played.stderr);
        assert_eq!(played.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn everything_there_is_can_be_listed() {
    let listed = simulate(&["--list"]);
    assert_eq!(listed.status.code(), Some(0));
    let out = text(&listed.stdout);
    for name in ["one-core", "cold-restart", "spillway", "none", "renewals_ok", "LANE.goodput"] {
        assert!(out.contains(name), "{name} in\n{out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
}

/// A search that is small enough for a test; this seed finds something.
const SEARCH: [&str; 5] = ["--search", "--tries", "2", "--seed", "24"];

#[test]
fn a_search_finds_the_same_again_and_its_files_play_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("found");
    let json = [&SEARCH[..], &["-o", "json", "--write", folder.to_str().unwrap()]].concat();
    let found = simulate(&json);
    assert_eq!(found.status.code(), Some(1), "a rule is broken: {}", text(&found.stderr));
    assert_eq!(text(&found.stderr), "", "no progress bar where there is no terminal");
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&report["tries"], &report["seed"]), (&2.into(), &24.into()));
    let found = report["found"].as_array().unwrap();
    assert!(!found.is_empty());

    let table = simulate(&SEARCH);
    let out = text(&table.stdout);
    assert!(
        out.starts_with("The worst of 2 generated scenarios (search seed 24), medians of 3 seeds:\n"),
        "{out}"
    );
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    for worst in found {
        assert!(out.contains(worst["rule"].as_str().unwrap()), "{worst} in\n{out}");
    }

    // The first one with a band of its own: its file says the same, and its median is the number that was printed.
    let bands = [("operators", "operator_ok"), ("renewals", "renewals_ok"), ("lease-time", "lease_p99_ms")];
    let find = |(rule, metric): &(&str, &str)| {
        Some((found.iter().find(|worst| worst["rule"] == *rule)?, (*metric).to_owned()))
    };
    let (worst, metric) = bands.iter().find_map(find).unwrap();
    let file = folder.join(format!("found-{}.yaml", worst["rule"].as_str().unwrap()));
    assert_eq!(fs::read_to_string(&file).unwrap(), worst["scenario"].as_str().unwrap());
    let played = simulate(&[file.to_str().unwrap(), "-o", "json"]);
    assert_eq!(played.status.code(), Some(1), "the band that does not hold");
    let report: Value = serde_json::from_slice(&played.stdout).unwrap();
    assert_eq!(report["scenarios"][0]["algorithms"][1]["medians"][&metric], worst["spillway"]);
}

#[test]
fn a_search_and_a_scenario_exclude_each_other() {
    for (arguments, expected) in [
        (&["--search", "one-core"][..], "makes its own scenarios"),
        (&["--search", "--seeds", "2"], "cannot be used with"),
        (&["one-core", "--tries", "5"], "--search"),
        (&["--search", "--tries", "0"], "0 is not in 1..=100000"),
    ] {
        let played = simulate(arguments);
        let err = text(&played.stderr);
        assert_eq!(played.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}
