//! Is a configuration with every default filled in the same configuration, and does every key know where it comes from?

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::learn::kinds;
use crate::config::{FileChecks, load_with};

const ALL: &str = "tests/golden/effective/all.yaml";

fn written(documents: &[Effective]) -> String {
    let text = |document| serde_saphyr::to_string(document).unwrap();
    documents.iter().map(text).collect::<Vec<_>>().join("---\n")
}

/// What was read, written with its defaults and read again. Paths stay what they are: they are joined to the same folder.
#[track_caller]
fn read_again(paths: &[PathBuf]) -> (Loaded, Loaded) {
    let first = load_with(paths, FileChecks::Off).unwrap_or_else(|found| panic!("{found}"));
    let text = written(&effective(paths).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("effective.yaml");
    let rooted =
        |text: &str| text.replace("tests/golden/effective/", &format!("{}/", folder.path().display()));
    std::fs::write(&file, rooted(&text)).unwrap();
    let mut second = load_with(&[file], FileChecks::Off).unwrap_or_else(|found| panic!("{found}\n{text}"));
    let back =
        format!("{:?}", second.proxy).replace(&folder.path().display().to_string(), "tests/golden/effective");
    assert_eq!(format!("{:?}", first.proxy), back);
    second.proxy = None;
    (first, second)
}

#[test]
fn read_again_it_is_the_same_configuration() {
    let (first, second) = read_again(&[ALL.into()]);
    assert_eq!(first.policy, second.policy);
    let (first, second) = read_again(&["config/spillway.yaml".into(), "config/policy.yaml".into()]);
    assert_eq!(first.policy, second.policy);
    let (first, second) = read_again(&["config/first-policy.yaml".into()]);
    assert_eq!(first.policy, second.policy);
}

/// `listeners[main].name` as readers call it: `listeners[].name`.
fn plain(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |way, part| format!("{way}[]{}", part.split_once(']').map_or("", |(_, rest)| rest)))
}

#[test]
fn every_key_that_can_be_read_is_written() {
    let documents = effective(&[ALL.into()]).unwrap();
    for (kind, learned) in kinds() {
        let document = documents.iter().find(|document| document.kind == kind).unwrap();
        let written: BTreeSet<String> = document.tree.leaves().iter().map(|(path, _)| plain(path)).collect();
        // A message is for people, and groups of APIs are part of the resources.
        let unsaid = ["authentication.jwt[].claimValidationRules[].message", "rules[].match.apiGroups"];
        let is_leaf = |path: &&String| {
            !path.ends_with(']')
                && !learned.keys().any(|other| {
                    other.starts_with(&format!("{path}.")) || other.starts_with(&format!("{path}[]."))
                })
        };
        let missing: Vec<_> = learned
            .keys()
            .filter(is_leaf)
            .filter(|path| !written.contains(*path) && !unsaid.contains(&path.as_str()))
            .collect();
        assert!(missing.is_empty(), "src/config/effective writes no {missing:?}");
    }
}

#[test]
fn every_value_knows_the_key_that_set_it() {
    let documents = effective(&[ALL.into()]).unwrap();
    let policy = documents.iter().find(|document| document.kind == POLICY).unwrap();
    let line = |path: &str| policy.origins.get(path).map(|place| (place.line, place.column));
    let text = std::fs::read_to_string(ALL).unwrap();
    let at = |word: &str| text.lines().position(|line| line.contains(word)).map(|at| at + 1);
    assert_eq!(line("lanes.telemetry.wait"), at("wait: 250ms").map(|line| (line, 5)));
    assert_eq!(line("rules[whom].match.users"), at("users: [alice]").map(|line| (line, 7)));
    assert_eq!(
        line("rules[what].match.resources"),
        at("name: what").map(|line| (line, 28)),
        "by its apiGroups"
    );
    assert_eq!(line("lanes.telemetry.identityRate.burst").map(|(line, _)| line), at("perSecond: 3"));
    assert_eq!(line("lanes.operators.wait"), None, "a default");
    assert!(policy.tree.leaves().iter().any(|(path, _)| path == "lanes.operators.wait"));
    let rules = policy.tree.leaves().iter().filter(|(path, _)| path.ends_with("].lane")).count();
    assert!(rules > 4 && policy.origins.keys().filter(|path| path.ends_with("].lane")).count() == 4);
}

#[test]
fn a_kept_policy_and_the_embedded_one_can_be_shown() {
    let embedded = effective_policy(None).unwrap();
    assert!(embedded.origins.is_empty() && !embedded.waits_for_restart());
    let text = std::fs::read_to_string("config/policy.yaml").unwrap();
    let kept = PolicyText { file: "policy.yaml".into(), text };
    let kept = effective_policy(Some(&kept)).unwrap();
    assert_eq!(compare(&embedded.tree, &kept.tree), []);
    assert!(!kept.origins.is_empty());
    assert!(Path::new(ALL).exists());
}
