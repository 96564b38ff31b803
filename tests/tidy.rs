//! The rules of the house, executable: who may import whom, how long a file or function may be, what every module
//! must say first, which words are not names, and that every metric is documented.
//!
//! A single crate does not keep layers by itself; this test does. The table is `docs/ARCHITECTURE.md`'s.

#![allow(clippy::expect_used, reason = "a rule that cannot read the sources must fail, whoever calls it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Files in `deploy/monitoring/grafana`.
const DASHBOARDS: [&str; 2] = ["overview", "tuning"];
/// Non-test lines a source file may have.
const FILE_LINES_MAX: usize = 600;
/// Lines a function may have.
const FUNCTION_LINES_MAX: usize = 70;

/// Module → modules it may import. What is not listed may not be imported.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("identity", &["units"]),
    ("request", &["units"]),
    ("policy", &["request", "identity", "units"]),
    ("flow", &["policy", "request", "identity", "units"]),
    ("sim", &["flow", "policy", "request", "identity", "units"]),
    ("replay", &["flow", "policy", "request", "identity", "units"]),
    ("clock", &["units"]),
    ("config", &["clock", "flow", "policy", "request", "identity", "units"]),
    ("telemetry", &["clock", "flow", "policy", "request", "identity", "units"]),
    ("io", &["clock", "units"]),
    ("upstream", &["io", "telemetry", "config", "clock", "flow", "policy", "units"]),
    ("authn", &["io", "telemetry", "config", "clock", "identity", "units", "upstream"]),
    ("server", &["authn", "io", "telemetry", "config", "clock", "identity", "units"]),
    (
        "breakglass",
        &[
            "server",
            "authn",
            "upstream",
            "io",
            "telemetry",
            "config",
            "clock",
            "flow",
            "policy",
            "request",
            "identity",
            "units",
        ],
    ),
    (
        "gateway",
        &[
            "breakglass",
            "server",
            "authn",
            "upstream",
            "io",
            "telemetry",
            "config",
            "clock",
            "flow",
            "policy",
            "request",
            "identity",
            "units",
        ],
    ),
    ("admin", &["telemetry", "config", "clock", "flow", "policy", "units"]),
    // It judges certificates, and its address is served with the same handshake as all others.
    (
        "dashboard",
        &["admin", "server", "authn", "identity", "telemetry", "config", "clock", "flow", "policy", "units"],
    ),
    ("demo", &["config", "clock", "policy", "request", "identity", "units"]),
    (
        "app",
        &[
            "admin",
            "dashboard",
            "server",
            "gateway",
            "breakglass",
            "authn",
            "upstream",
            "io",
            "telemetry",
            "config",
            "clock",
            "flow",
            "policy",
            "request",
            "identity",
            "units",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "admin",
            "dashboard",
            "breakglass",
            "demo",
            "sim",
            "replay",
            "config",
            "telemetry",
            "policy",
            "flow",
            "request",
            "identity",
            "units",
            "clock",
        ],
    ),
];

/// The pure core decides; it does not wait, log, count or read a clock.
const PURE: &[&str] = &["units", "identity", "request", "policy", "flow", "sim", "replay"];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "rustls",
    "tracing",
    "prometheus",
    "std::net",
    "std::fs",
    "std::thread",
    "SystemTime",
    "rand::",
];

/// The rows of docs/THREATS.md: a letter, and how many.
const THREATS: &[(char, usize)] = &[('a', 14), ('b', 12), ('c', 10), ('d', 14)];

/// Words that name nothing (docs/GLOSSARY.md says why).
const NOT_NAMES: &[&str] = &["manager", "helper", "util", "utils", "misc", "admission"];

#[test]
fn modules_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(allowed) = table.get(module.as_str()) else {
            if !["lib", "main"].contains(&module.as_str()) {
                wrong.push(format!("{}: module {module} is not in the import table", source.name));
            }
            continue;
        };
        for (number, line) in source.code() {
            for target in imported_modules(line) {
                if target != module && !allowed.contains(&target.as_str()) {
                    wrong.push(format!("{}:{number}: {module} may not import {target}", source.name));
                }
            }
        }
    }
    assert_none(&wrong, "the import table of docs/ARCHITECTURE.md");
}

#[test]
fn the_pure_core_has_no_side_effects() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| PURE.contains(&source.module().as_str())) {
        for (number, line) in source.code() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| code.contains(*word)) {
                wrong.push(format!("{}:{number}: {word} in the pure core", source.name));
            }
            if code.contains("governor") && !source.name.ends_with("flow/rate.rs") {
                wrong.push(format!("{}:{number}: governor belongs to flow/rate.rs alone", source.name));
            }
        }
    }
    assert_none(&wrong, "a pure core");
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.name));
        }
        for (number, name, length) in source.functions() {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{}:{number}: fn {name} has {length} lines, at most {FUNCTION_LINES_MAX}",
                    source.name
                ));
            }
        }
    }
    assert_none(&wrong, "size limits (split by meaning, not by number)");
}

#[test]
fn every_file_says_first_which_question_it_answers() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not start with a module header", source.name))
        .collect();
    assert_none(&wrong, "module headers");
}

#[test]
fn names_mean_something() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            let code = line.split("//").next().unwrap_or_default();
            let outside_strings: String = code.split('"').step_by(2).collect();
            for word in identifier_words(&outside_strings) {
                if NOT_NAMES.contains(&word.as_str()) {
                    wrong.push(format!("{}:{number}: the word {word:?} in a name", source.name));
                }
            }
        }
    }
    assert_none(&wrong, "names (docs/GLOSSARY.md)");
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let root = root();
    let code: String = sources_below("src/telemetry").into_iter().map(|source| source.text).collect();
    let document = fs::read_to_string(root.join("docs/METRICS.md")).expect("docs/METRICS.md");
    let registered: BTreeSet<String> = registered_metrics(&code);
    assert!(registered.len() > 10, "the scan for metrics found only {registered:?}");
    let documented: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `spillway_"))
        .filter_map(|rest| rest.split('`').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(registered, documented, "left: in the code; right: in docs/METRICS.md");
}

/// Rust's own maps are seeded anew in every process. A fixed hash lets somebody who chooses keys choose collisions, so
/// it is only for keys that are hashes under a seed already.
#[test]
fn d9_only_flow_has_maps_without_a_seed() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| !source.name.starts_with("src/sim/")) {
        for (number, line) in source.code() {
            let fixed = ["BuildHasherDefault", "ahash", "FxHash", "with_hasher("]
                .iter()
                .any(|word| line.contains(word));
            if fixed && source.name != "src/flow/clients.rs" {
                wrong.push(format!("{}:{number}: a map with a fixed hash", source.name));
            }
        }
    }
    assert_none(&wrong, "seeded maps");
}

#[test]
fn every_alert_has_a_page_and_every_metric_it_asks_for_exists() {
    let read =
        |name: &str| fs::read_to_string(root().join(name)).expect("a file of deploy/monitoring or docs");
    let (alerts, recording, pages) = (
        read("deploy/monitoring/alerts.yaml"),
        read("deploy/monitoring/recording.yaml"),
        read("docs/RUNBOOKS.md"),
    );
    let named = |text: &str, before: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.trim_start().strip_prefix(before)).map(str::to_owned).collect()
    };
    let known = named(&alerts, "- alert: ");
    assert!(known.len() > 10, "the scan for alerts found only {known:?}");
    assert_eq!(known, named(&pages, "### "), "left: alerts; right: docs/RUNBOOKS.md");
    for alert in &known {
        let page = format!("runbook: docs/RUNBOOKS.md#{}", alert.to_lowercase());
        assert!(alerts.contains(&page), "{alert} does not point to its page");
    }
    let documented = read("docs/METRICS.md");
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':';
    let boards = DASHBOARDS.map(|name| read(&format!("deploy/monitoring/grafana/{name}.json"))).concat();
    let wrong: Vec<String> = [alerts, recording, boards]
        .iter()
        .flat_map(|text| text.split(word))
        .filter(|name| name.starts_with("spillway_"))
        // A recording rule's name begins with its level, so it never gets here.
        .map(|name| ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end)))
        .filter(|name| !documented.contains(&format!("| `{name}`")))
        .map(str::to_owned)
        .collect();
    assert_none(&wrong, "metrics in deploy/monitoring that docs/METRICS.md does not have");
}

/// Grafana shows a panel without a unit or a data source all the same, only wrongly, and nobody is told.
#[test]
fn every_dashboard_has_its_choices_and_every_panel_a_unit_and_a_question() {
    let mut wrong = Vec::new();
    for name in DASHBOARDS {
        let text = fs::read_to_string(root().join(format!("deploy/monitoring/grafana/{name}.json")));
        let board: Value = serde_json::from_str(&text.expect("a dashboard")).expect("a dashboard is JSON");
        assert_eq!(board["uid"], format!("spillway-{name}"));
        let choices = board["templating"]["list"].as_array().expect("the choices of a dashboard");
        let choices: Vec<&Value> = choices.iter().map(|choice| &choice["name"]).collect();
        assert_eq!(choices, ["datasource", "cluster", "instance"], "{name}");
        let panels = board["panels"].as_array().expect("the panels of a dashboard");
        assert!(panels.len() > 30, "{name} has only {} panels", panels.len());
        let ids: BTreeSet<Option<u64>> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: two panels have the same id");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap_or("a panel without a title");
            wrong.extend(lacks(panel).into_iter().map(|what| format!("{name}: {title}: {what}")));
        }
    }
    assert_none(&wrong, "panels that say what they answer, in which unit, and for whom");
}

/// What a panel should have and has not.
fn lacks(panel: &Value) -> Vec<&'static str> {
    let mut lacks = Vec::new();
    if !panel["description"].as_str().is_some_and(|text| text.contains('?')) {
        lacks.push("its description asks no question");
    }
    if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none() {
        lacks.push("no unit");
    }
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    if targets.is_empty() {
        lacks.push("nothing is asked");
    }
    for target in targets {
        if target["datasource"]["uid"] != "${datasource}" {
            lacks.push("not of the chosen data source");
        }
        let asked = target["expr"].as_str().unwrap_or_default();
        // Every series that is selected, be it one of several in a line.
        let chosen = asked.matches("cluster=~\"$cluster\"").count();
        if chosen == 0 || chosen != asked.matches('{').count() {
            lacks.push("not of the chosen cluster");
        }
    }
    lacks
}

#[test]
fn the_document_names_the_stable_metrics_and_alerts_ask_for_no_others() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("a file of the repository");
    let code = read("src/telemetry/stability.rs");
    let list = code.split("const STABLE").nth(1).and_then(|rest| rest.split("];").next()).unwrap_or_default();
    let stable: BTreeSet<String> =
        list.split('"').skip(1).step_by(2).map(|name| format!("spillway_{name}")).collect();
    assert!(stable.len() > 20, "the scan of stability.rs found only {stable:?}");

    let metrics = read("docs/METRICS.md");
    let section = metrics.split("`[STABLE]` are:").nth(1).and_then(|rest| rest.split("All others").next());
    let promised: BTreeSet<String> =
        section.unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(stable, promised, "left: in the code; right: in docs/METRICS.md, section Stability");
    let unknown: Vec<String> =
        stable.iter().filter(|name| !metrics.contains(&format!("| `{name}` |"))).cloned().collect();
    assert_none(&unknown, "stable metrics that do not exist");

    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':';
    // What follows a colon is a name of a recording rule; descriptions and comments name no alpha metric either.
    let asked: Vec<String> =
        [read("deploy/monitoring/alerts.yaml"), read("deploy/monitoring/recording.yaml")]
            .iter()
            .flat_map(|text| text.split(word))
            .filter(|name| name.starts_with("spillway_"))
            .map(|name| {
                ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end))
            })
            .filter(|name| !stable.contains(*name))
            .map(str::to_owned)
            .collect();
    assert_none(&asked, "metrics of alerts and recording rules that are not stable");
}

/// A test that proves a row has the row in its name, so that neither can be lost without the other.
#[test]
fn every_threat_has_tests_and_its_document_names_them() {
    let document = fs::read_to_string(root().join("docs/THREATS.md")).expect("docs/THREATS.md");
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let row = cells.get(1).copied().unwrap_or_default().to_lowercase();
        let tests = cells.iter().rev().nth(1).copied().unwrap_or_default().split('`').skip(1).step_by(2);
        told.entry(row).or_default().extend(tests.map(str::to_owned));
    }
    let mut proven: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources_below("src").into_iter().chain(sources_below("tests")) {
        for name in source.text.lines().filter_map(|line| function_name(line.trim_start())) {
            if let Some(row) = threat(&name) {
                proven.entry(row).or_default().insert(name);
            }
        }
    }
    let rows = THREATS.iter().flat_map(|(letter, last)| (1..=*last).map(move |row| format!("{letter}{row}")));
    let wrong: Vec<String> = rows
        .filter(|row| proven.get(row).is_none_or(BTreeSet::is_empty) || proven.get(row) != told.get(row))
        .map(|row| format!("{row}: tests {:?}, documented {:?}", proven.get(&row), told.get(&row)))
        .collect();
    assert_none(&wrong, "a test for every row of docs/THREATS.md, and no other name in it");
}

/// The row that a test's name begins with: `b3` of `b3_connection_header_that_…`.
fn threat(name: &str) -> Option<String> {
    let row = name.split_once('_')?.0;
    let (letter, number) = row.split_at_checked(1)?;
    let letter = letter.chars().next().filter(|letter| THREATS.iter().any(|(known, _)| known == letter))?;
    number.parse::<usize>().ok().map(|number| format!("{letter}{number}"))
}

#[test]
fn nothing_is_switched_off() {
    let mut wrong = Vec::new();
    for source in
        sources_below("src").into_iter().chain(sources_below("tests")).chain(sources_below("benches"))
    {
        if source.name.ends_with("tests/tidy.rs") {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            for mark in ["#[ignore", "todo!(", "unimplemented!(", "FIXME", "XXX"] {
                if line.contains(mark) {
                    wrong.push(format!("{}:{}: {mark}", source.name, number + 1));
                }
            }
        }
    }
    assert_none(&wrong, "finished work");
}

struct Source {
    /// Path from the repository's root.
    name: String,
    text: String,
}

impl Source {
    /// The top-level module this file belongs to.
    fn module(&self) -> String {
        let inner = self.name.trim_start_matches("src/");
        inner.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
    }

    /// Numbered lines before the file's tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }

    /// Start line, name and length of every function, by indentation: rustfmt has put its closing brace under the
    /// line where it began.
    fn functions(&self) -> Vec<(usize, String, usize)> {
        let lines: Vec<&str> = self.code().map(|(_, line)| line).collect();
        let mut found = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let Some(name) = function_name(line.trim_start()) else { continue };
            let close = format!("{}}}", " ".repeat(indent));
            let body = lines[index..].iter().position(|line| *line == close);
            if let Some(length) = body {
                found.push((index + 1, name, length + 1));
            }
        }
        found
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line;
    for word in ["pub ", "pub(super) ", "pub(crate) ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

fn imported_modules(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        let names = part.strip_prefix('{').map_or_else(
            || vec![part],
            |list| list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
        );
        for name in names {
            let module: String =
                name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !module.is_empty() && module.chars().next().is_some_and(char::is_lowercase) {
                found.push(module);
            }
        }
    }
    found
}

fn identifier_words(code: &str) -> Vec<String> {
    let mut words = Vec::new();
    for identifier in code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        // Crates of others may be called what they like.
        if ["hyper_util", "http_body_util", "tokio_util", "futures_util"].contains(&identifier) {
            continue;
        }
        let mut word = String::new();
        for c in identifier.chars() {
            if (c == '_' || c.is_ascii_uppercase()) && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if c != '_' {
                word.push(c.to_ascii_lowercase());
            }
        }
        words.push(word);
    }
    words
}

fn registered_metrics(code: &str) -> BTreeSet<String> {
    let flat = code.replace('\n', " ");
    let mut names = BTreeSet::new();
    for call in [".counters(", ".counter(", ".gauges(", ".gauge(", ".histograms(", ".histogram("] {
        for part in flat.split(call).skip(1) {
            if let Some(name) = part.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// Sources of the product; files of tests have names of their own.
fn sources() -> Vec<Source> {
    sources_below("src").into_iter().filter(|source| !source.name.ends_with("tests.rs")).collect()
}

fn sources_below(folder: &str) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    files.sort();
    files
        .into_iter()
        .map(|path| Source {
            name: path.strip_prefix(&root).expect("below the root").display().to_string(),
            text: fs::read_to_string(&path).expect("a readable source file"),
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "against {rule}:\n{}", wrong.join("\n"));
}
