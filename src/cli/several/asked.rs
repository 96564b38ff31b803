//! Why was it refused, and by which of them? `explain` and `newcomers` of several instances.

use std::io::{self, Write};

use serde_json::json;

use super::super::Ending;
use super::super::shown::{Output, fit, for_programs, plain};
use super::super::socket::{Failure, Where};
use super::{Answer, NAME, close, each, finding, heard, name_of, object};
use crate::admin::explained::{DecisionLine, DecisionLines, Explained};
use crate::admin::wire::code;
use crate::admin::wire::newcomers::Newcomers;

/// Prints one explanation as its command does.
type Print<'a> = &'a dyn Fn(&Explained, &mut dyn Write) -> io::Result<()>;

/// `spillway explain` of one decision or of a request. Only one of them knows a decision: that the others do not is no fault.
pub(in crate::cli) fn explained(
    at: &Where,
    ask: impl Fn(&Where) -> Result<Explained, Failure> + Sync,
    output: Output,
    print: Print<'_>,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<Ending, Failure> {
    let mut answers = each(at, ask)?;
    let not_here = |answer: &Answer<Explained>| {
        answer.said.as_ref().is_err_and(|no| no.problem.code == code::NO_DECISION)
    };
    let is_known = heard(&answers).count() > 0;
    answers.retain(|answer| !(is_known && not_here(answer)));
    let printed = for_programs(output, &object(&answers, json!({})), out);
    let printed = printed.and_then(|done| {
        if done {
            return Ok(());
        }
        heard(&answers).try_for_each(|(answer, explained)| {
            writeln!(out, "== {}", plain(&answer.name))?;
            print(explained, out)
        })
    });
    // Who did not answer may be who decided, unless somebody said that it did.
    Ok(close(&answers, printed, err))
}

/// `spillway explain` without an id: the latest refusals of all.
pub(in crate::cli) fn decisions(
    at: &Where,
    query: &str,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let answers = each(at, |at| at.get::<DecisionLines>(&format!("/v1/decisions{query}")))?;
    let printed = for_programs(output, &object(&answers, json!({ "decisions": merged(&answers) })), out);
    let printed = printed.and_then(|done| if done { Ok(()) } else { refusals(&answers, out) });
    Ok(close(&answers, printed, err))
}

fn merged(answers: &[Answer<DecisionLines>]) -> Vec<(&str, &DecisionLine)> {
    let all = heard(answers)
        .flat_map(|(answer, said)| said.decisions.iter().map(|line| (answer.name.as_str(), line)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, line)| std::cmp::Reverse(line.at_ms));
    all
}

fn refusals(answers: &[Answer<DecisionLines>], out: &mut dyn Write) -> io::Result<()> {
    let all = merged(answers);
    if all.is_empty() {
        return writeln!(out, "nothing was refused");
    }
    writeln!(out, "{:<NAME$}  {:<10} {:<13} {:<14} {:<24}", "INSTANCE", "ID", "LANE", "REASON", "WHO")?;
    for (name, line) in all {
        let (name, user) = (fit(name, NAME), line.user.trim_start_matches("system:serviceaccount:"));
        let (id, lane, reason) = (fit(&line.id, 10), fit(&line.lane, 13), fit(&line.reason, 14));
        writeln!(out, "{name:<NAME$}  {id:<10} {lane:<13} {reason:<14} {}", fit(user, 24))?;
    }
    Ok(())
}

/// `spillway newcomers`.
pub(in crate::cli) fn newcomers(
    at: &Where,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let answers = each(at, |at| at.get::<Newcomers>("/v1/newcomers"))?;
    let seats: f64 =
        heard(&answers).flat_map(|(_, said)| &said.newcomers).map(|one| one.projected_seats).sum();
    let printed = for_programs(output, &object(&answers, json!({ "projectedSeats": seats })), out);
    let printed = printed.and_then(|done| if done { Ok(()) } else { new_ones(&answers, seats, out) });
    Ok(close(&answers, printed, err))
}

fn new_ones(answers: &[Answer<Newcomers>], seats: f64, out: &mut dyn Write) -> io::Result<()> {
    if heard(answers).all(|(_, said)| said.newcomers.is_empty()) {
        return writeln!(out, "nobody is new");
    }
    writeln!(out, "{:<NAME$}  {:<36} {:<12} {:>6} {:>7}", "INSTANCE", "WHO", "PROGRAM", "PLACES", "SEATS")?;
    for (answer, said) in heard(answers) {
        for one in &said.newcomers {
            let who = fit(one.user.trim_start_matches("system:serviceaccount:"), 36);
            let program = fit(&one.program, 12);
            writeln!(
                out,
                "{}  {who:<36} {program:<12} {:>6} {:>7.1}",
                name_of(answer),
                one.places,
                one.projected_seats
            )?;
        }
    }
    writeln!(out, "{:<NAME$}  {:<36} {:<12} {:>6} {seats:>7.1}", "all", "", "", "")?;
    for (answer, said) in heard(answers) {
        for one in said.newcomers.iter().filter(|one| one.warned) {
            let name = super::super::newcomers::name_of(&one.user);
            let text =
                format!("newcomer {name} would take {:.0} of {} seats", one.projected_seats, said.limit);
            let next = format!("stop its roll-out, or: spillway newcomers approve {name}");
            finding(answer, &text, &next, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answers, printed};
    use super::*;
    use crate::admin::wire::newcomers::NewcomerView;

    #[test]
    fn newcomers_and_refusals_of_several_are_their_golden_text() {
        let new = |places: usize, warned: bool| Newcomers {
            guard: true,
            limit: 100,
            newcomers: vec![NewcomerView {
                user: "system:serviceaccount:obs:node-agent".into(),
                program: "node-agent".into(),
                places,
                projected_seats: places as f64 * 4.0,
                warned,
                ..NewcomerView::default()
            }],
            ..Newcomers::default()
        };
        let new = answers([new(21, true), new(3, false)]);
        let mut text = printed(&new, |out| new_ones(&new, 96.0, out));
        let line = |id: &str, at_ms: u64| DecisionLine {
            id: id.into(),
            at_ms,
            user: "system:serviceaccount:obs:node-agent".into(),
            lane: "telemetry".into(),
            reason: "identity_rate".into(),
            request: "LIST pods".into(),
        };
        let lines = [vec![line("5e0c11d2", 10)], vec![line("77aa0001", 20)]];
        let lines = answers(lines.map(|decisions| DecisionLines { decisions, kept: 1, ever: 1 }));
        assert_eq!(merged(&lines)[0].1.id, "77aa0001");
        text += &printed(&lines, |out| refusals(&lines, out));
        super::super::super::golden::compare("several-asked", &text);
    }
}
