//! How do policies and what is wrong with files look to an operator?

use std::path::PathBuf;

use super::history::Entry;
use super::{Current, FINDINGS_MAX};
use crate::admin::wire::Problem;
use crate::admin::wire_change::{ConfigView, PolicyView, ReloadProblem, code};
use crate::config::{Diagnostic, Diagnostics, ProxyConfiguration, Severity};

/// Whether a policy is shown with its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    With,
    Without,
}

pub(super) fn policy(entry: &Entry, text: Text) -> PolicyView {
    PolicyView {
        generation: entry.generation,
        hash: entry.hash.clone(),
        at: entry.at,
        by: entry.by.clone(),
        file: entry.file.clone(),
        text: entry.text.clone().filter(|_| text == Text::With),
    }
}

pub(super) fn config(files: &[PathBuf], current: &Current) -> ConfigView {
    ConfigView {
        policy: current.history.last().map(|last| policy(last, Text::Without)).unwrap_or_default(),
        before: None,
        files: files.iter().map(|file| file.display().to_string()).collect(),
        problem: current.problem.clone(),
        restart: current.restart.iter().map(|section| (*section).to_owned()).collect(),
        withdrawn: current.history.withdrawn.is_some(),
    }
}

/// What is in force now, and what it was before if that was something else.
pub(super) fn changed(files: &[PathBuf], current: &Current, before: Option<&Entry>) -> ConfigView {
    let mut view = config(files, current);
    view.before = before
        .filter(|before| before.generation != view.policy.generation)
        .map(|before| policy(before, Text::Without));
    view
}

/// One line a finding, errors first, so that an editor or `grep` finds the place.
pub(super) fn findings(found: &Diagnostics) -> Vec<String> {
    let errors: Vec<&Diagnostic> =
        found.0.iter().filter(|found| found.severity() == Severity::Error).collect();
    let mut lines: Vec<String> = errors.iter().take(FINDINGS_MAX).map(|found| line(found)).collect();
    if errors.len() > FINDINGS_MAX {
        lines.push(format!("and {} more: spillway validate has all of them", errors.len() - FINDINGS_MAX));
    }
    lines
}

fn line(found: &Diagnostic) -> String {
    let place = found.place.as_ref();
    let place =
        place.map_or_else(String::new, |place| format!("{}:{}:{}: ", place.file, place.line, place.column));
    let help = found.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
    format!("{place}error[{}]: {}{help}", found.code, found.message)
}

pub(super) fn not_reloaded(problem: &ReloadProblem) -> Problem {
    let message = "the files cannot be used: the last good policy stays in force";
    let help = "mend them, then spillway config reload; spillway validate shows each finding with its line";
    let mut told = Problem::new(code::NOT_RELOADED, message, help);
    told.details.clone_from(&problem.findings);
    told
}

pub(super) fn no_such(generation: u64) -> Problem {
    let message = format!("there is no policy {generation} in the history");
    Problem::new(code::GENERATION, message, "spillway config history lists those that are kept")
}

pub(super) fn unusable(generation: u64, found: &Diagnostics) -> Problem {
    let message = format!("this version of spillway refuses policy {generation}");
    let mut problem = Problem::new(code::GENERATION, message, "choose another: spillway config history");
    problem.details = findings(found);
    problem
}

/// The sections in which two plumbings differ; none of them is hot.
pub(super) fn changed_sections(old: &ProxyConfiguration, new: &ProxyConfiguration) -> Vec<&'static str> {
    let sections = [
        ("listeners", old.listeners != new.listeners),
        ("limits", old.limits != new.limits),
        ("timeouts", old.timeouts != new.timeouts),
        ("authentication", old.authentication != new.authentication),
        ("upstreams", old.upstreams != new.upstreams),
        ("breakGlass", old.break_glass != new.break_glass),
        ("runtime", old.runtime != new.runtime),
        ("metrics", old.metrics != new.metrics),
        ("admin", old.admin != new.admin),
        ("logging", old.logging != new.logging),
        ("drain", old.drain != new.drain),
        ("state", old.state != new.state),
    ];
    let changed: Vec<_> = sections.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    // A section that this list does not know yet is a change all the same.
    if changed.is_empty() && old != new { vec!["another section"] } else { changed }
}
