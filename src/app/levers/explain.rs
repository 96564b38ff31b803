//! What does the running proxy answer to "why"?

use super::Keeper;
use crate::admin::explained::{DecisionLines, Explain, Explained};
use crate::admin::tapped::{TapFilter, TapLine, Tapped};
use crate::admin::wire::{Problem, code};
use crate::app::explain as explanation;
use crate::clock;
use crate::config::show_duration;
use crate::gateway::{DECISIONS_MAX, LAST_MAX, Line};
use crate::telemetry::shown;

/// Lines of one answer to a watcher.
const TAPPED_MAX: usize = 1_000;

/// Lines of a list.
const LINES_MAX: usize = 50;

/// Why a request was refused.
pub(super) fn decision(keeper: &Keeper, id: &str) -> Result<Explained, Problem> {
    let id = id.trim().to_lowercase();
    let Some(shared) = keeper.shared.get() else { return Err(starting()) };
    if let Some(refusal) = shared.decisions.find(&id) {
        return Ok(explanation::happened(&refusal));
    }
    let hex = |part: &str| part.chars().all(|c| c.is_ascii_hexdigit());
    let first = id.split('-').next().unwrap_or_default();
    if first.len() != 8 || !hex(first) {
        let message =
            format!("{:?} is no decision id: expected eight digits such as 5e0c11d2", super::cut(&id));
        let help = "the refusal ends with (decision …); its header X-Spillway-Decision says the same";
        return Err(Problem::new(code::NO_REQUEST, message, help));
    }
    let extent = shared.decisions.extent();
    let reach = extent.since.and_then(|since| clock::wall().duration_since(since).ok());
    let reach = reach.map_or_else(
        || "this process has refused nothing yet".to_owned(),
        |age| {
            format!(
                "the ring reaches back {} now",
                show_duration(std::time::Duration::from_secs(age.as_secs()))
            )
        },
    );
    let mut problem = Problem::new(
        code::NO_DECISION,
        format!("no refusal with the id {first} is kept here"),
        "spillway explain lists what is kept; spillway explain --user NAME shows a client's last refusals",
    );
    problem.details = vec![
        format!(
            "kept are the last {DECISIONS_MAX} refusals, and the last one of each of {LAST_MAX} clients; {reach}"
        ),
        "a restart forgets them, and each instance knows its own: ask the one that answered".to_owned(),
        "what was let in is not kept: its line is in the access log under its audit id".to_owned(),
    ];
    Err(problem)
}

/// The latest refusals.
pub(super) fn decisions(keeper: &Keeper, user: Option<&str>) -> DecisionLines {
    let Some(shared) = keeper.shared.get() else { return DecisionLines::default() };
    let extent = shared.decisions.extent();
    let latest = shared.decisions.latest(user, LINES_MAX);
    DecisionLines {
        decisions: latest.iter().map(|refusal| explanation::line(refusal)).collect(),
        kept: extent.kept,
        ever: extent.ever,
    }
}

/// What would become of a request now.
pub(super) fn what_if(keeper: &Keeper, asked: &Explain) -> Result<Explained, Problem> {
    let Some(shared) = keeper.shared.get() else { return Err(starting()) };
    let policy = shared.policy.load_full();
    let explained = explanation::what_if(
        asked,
        &policy,
        |asker| shared.levers.look(asker),
        |arrival| keeper.parts.gate.walk(arrival),
    );
    explained.map_err(|error| Problem::new(code::NO_REQUEST, error.to_string(), "spillway explain --help"))
}

/// What passed since a watcher asked last.
pub(super) fn tap(keeper: &Keeper, filter: &TapFilter) -> Tapped {
    let Some(shared) = keeper.shared.get() else { return Tapped::default() };
    let drawn = shared.tap.draw(clock::now(), filter.after, TAPPED_MAX, |line| fits(filter, line));
    let lines = drawn.lines.iter().map(|(_, line)| tapped(line)).collect();
    Tapped { lines, last: drawn.last, lost: drawn.lost }
}

fn fits(filter: &TapFilter, line: &Line) -> bool {
    let slower = filter.slower_than_ms.is_none_or(|least| line.latency.as_millis() >= u128::from(least));
    let user = |part: &String| line.user.as_ref().is_some_and(|user| user.contains(part.as_str()));
    slower
        && (!filter.refused || line.reason.is_some())
        && filter.reason.as_ref().is_none_or(|reason| line.reason == Some(reason.as_str()))
        && filter.lane.as_ref().is_none_or(|lane| line.lane.as_str() == lane)
        && filter.verb.as_ref().is_none_or(|verb| line.verb == verb)
        && filter.path.as_ref().is_none_or(|path| line.request.contains(path.as_str()))
        && filter.user.as_ref().is_none_or(user)
}

fn tapped(line: &Line) -> TapLine {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    TapLine {
        at_ms: explanation::milliseconds(line.at),
        id: line.id.clone(),
        user: line.user.as_ref().map_or_else(|| "-".to_owned(), |user| shown(user).into_owned()),
        lane: line.lane.as_str().to_owned(),
        verb: line.verb.to_owned(),
        request: shown(&line.request).into_owned(),
        rule: line.rule.clone(),
        status: line.status,
        reason: line.reason.map(str::to_owned),
        latency_ms: milliseconds(line.latency),
        queued_ms: milliseconds(line.queued),
    }
}

fn starting() -> Problem {
    Problem::new(code::BUSY, "this spillway is still starting", "ask again in a second")
}
