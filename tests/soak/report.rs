//! What does a reader see? One table over all runs, and beside it everything as JSON, and a time line of each run.

use std::{fmt::Write as _, fs, io, path::Path};

use super::{outcome::Outcome, starters};

/// The table's columns: a title, and what stands below it.
type Column = (&'static str, fn(&Outcome) -> String);

const COLUMNS: &[Column] = &[
    ("scene", |run| run.scene.into()),
    ("mode", |run| run.mode.into()),
    ("renewals on time, of due", |run| share(run.renewals.on_time, run.renewals.due)),
    ("lease p50", |run| seconds(run.lease.p50)),
    ("lease p99", |run| seconds(run.lease.p99)),
    ("longest gap", |run| format!("{:.0} s", run.renewals.longest_gap)),
    ("NotReady", |run| run.renewals.not_ready.to_string()),
    ("operator ok", |run| share(run.operator.ok, run.operator.asked)),
    ("operator p99", |run| seconds(run.operator.p99)),
    ("leader losses", |run| run.leader_losses.to_string()),
    ("starters", |run| {
        format!("{} of {}, {}", run.starters.ok, starters::COUNT, seconds(run.starters.slowest))
    }),
    ("heavy/s", |run| format!("{:.2}", run.agents.answers_per_second)),
    ("agents served", |run| run.agents.served.to_string()),
    ("refused", |run| run.agents.refused.to_string()),
    ("others refused", |run| run.others_refused.values().sum::<u64>().to_string()),
    ("apiserver peak", |run| format!("{} MB", run.apiserver_peak_mb)),
    ("apiserver cpu", |run| percent(run.processor.apiserver)),
    ("spillway, load cpu", |run| {
        format!("{}, {}", percent(run.processor.spillway), percent(run.processor.load))
    }),
    ("protected after", |run| run.protected_after.map_or_else(|| "never".into(), |s| format!("{s:.1} s"))),
    ("recovered after", |run| run.recovered_after.map_or_else(|| "later".into(), |s| format!("{s:.1} s"))),
];

/// The table as Markdown.
pub(crate) fn table(runs: &[Outcome]) -> String {
    let mut text = String::new();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(COLUMNS.iter().map(|(title, _)| (*title).into()).collect()));
    text.push_str(&line(COLUMNS.iter().map(|_| "---".into()).collect()));
    for run in runs {
        text.push_str(&line(COLUMNS.iter().map(|(_, cell)| cell(run)).collect()));
    }
    text
}

/// One run, for those who wait in front of a terminal.
pub(crate) fn summary(run: &Outcome) -> String {
    let mut text = format!("{} / {}:\n", run.scene, run.mode);
    for (title, cell) in &COLUMNS[2..] {
        let _ = writeln!(text, "    {title:<26} {}", cell(run));
    }
    let _ = writeln!(
        text,
        "    calm: lease p99 {}, operator p99 {}; heavy p50 {}; operator p50 {}",
        seconds(run.lease.p99_calm),
        seconds(run.operator.p99_calm),
        seconds(run.agents.answer_p50),
        seconds(run.operator.p50),
    );
    text.push_str(&details(run, "    "));
    text
}

fn details(run: &Outcome, indent: &str) -> String {
    let mut text = String::new();
    for (what, value) in &run.event {
        let _ = writeln!(text, "{indent}{what}: {value}");
    }
    if !run.causes.is_empty() {
        let _ = writeln!(text, "{indent}causes that spillway named, seconds: {:?}", run.causes);
    }
    for (labels, number) in &run.shed {
        let _ = writeln!(text, "{indent}refused by spillway {labels}: {number}");
    }
    for (who, number) in &run.others_refused {
        let _ = writeln!(text, "{indent}refused: {who} {number} times");
    }
    for failure in &run.failures {
        let _ = writeln!(text, "{indent}failed: {failure}");
    }
    for promise in &run.missed {
        let _ = writeln!(text, "{indent}MISSED {promise}");
    }
    text
}

/// Everything so far. Called after each run, so that an interrupted evening keeps what it has.
pub(crate) fn write(out: &Path, rig: &str, runs: &[Outcome]) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let mut text = format!("# kube-apiserver under storms\n\n{rig}\n\n{}", table(runs));
    for run in runs {
        let details = details(run, "- ");
        if !details.is_empty() {
            let _ = write!(text, "\n## {}, {}\n\n{details}", run.scene, run.mode);
        }
    }
    fs::write(out.join("results.md"), text)?;
    fs::write(out.join("results.json"), serde_json::to_string_pretty(runs)? + "\n")?;
    if let Some(run) = runs.last() {
        let name = format!("{}-{}", run.scene, run.mode);
        fs::write(out.join(format!("{name}.timeline.txt")), &run.timeline)?;
        if !run.metrics.contains("\"series\":{}") {
            fs::write(out.join(format!("{name}.metrics.jsonl")), &run.metrics)?;
        }
    }
    Ok(())
}

fn share(of: u64, all: u64) -> String {
    percent(of as f64 / all.max(1) as f64)
}

/// Rounded, but what is not all of it does not look like all of it.
fn percent(share: f64) -> String {
    let digits = usize::from((0.99..1.0).contains(&share));
    format!("{:.digits$} %", share * 100.0)
}

fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value < 0.1 => format!("{:.0} ms", value * 1_000.0),
        Some(value) => format!("{value:.2} s"),
    }
}
