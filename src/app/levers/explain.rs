//! What does the running proxy answer to "why"?

use super::Keeper;
use crate::admin::explained::{DecisionLines, Explain, Explained};
use crate::admin::wire::{Problem, code};
use crate::app::explain as explanation;
use crate::clock;
use crate::config::show_duration;
use crate::gateway::{DECISIONS_MAX, LAST_MAX};

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

fn starting() -> Problem {
    Problem::new(code::BUSY, "this spillway is still starting", "ask again in a second")
}
