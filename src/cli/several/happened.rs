//! What happened, and where? `events` of several instances in one timeline.

use std::collections::HashMap;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::super::Ending;
use super::super::events::clock_of;
use super::super::shown::{COLUMNS, Output, fit, for_programs, plain, wrapped_to};
use super::super::socket::{Failure, Where};
use super::{Answer, NAME, close, each, heard, object};
use crate::admin::wire::{EventView, Events};

/// How often a follower asks.
const EVERY: Duration = Duration::from_secs(1);

/// `spillway events`, once or again and again.
pub(in crate::cli) fn events(
    at: &Where,
    is_followed: bool,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut silent: Vec<String> = Vec::new();
    let mut is_first = true;
    loop {
        let answers = each(at, |at| {
            let after = last.get(&at.said()).copied().unwrap_or(0);
            at.get::<Events>(&format!("/v1/events?after={after}"))
        });
        // Who follows wants to see them come back.
        let answers = match answers {
            Err(failure) if is_first => return Err(failure),
            Err(_) => {
                thread::sleep(EVERY);
                continue;
            }
            Ok(answers) => answers,
        };
        for (answer, events) in heard(&answers) {
            last.insert(answer.at.said(), events.last);
        }
        let is_new = heard(&answers).any(|(_, events)| !events.events.is_empty());
        if is_first || is_new {
            let printed = for_programs(output, &object(&answers, json!({ "events": merged(&answers) })), out);
            let printed = printed.and_then(|done| if done { Ok(()) } else { timeline(&answers, out) });
            let printed = printed.and_then(|()| out.flush());
            if printed.is_err() || !is_followed {
                return Ok(close(&answers, printed, err));
            }
        }
        if is_followed {
            tell_silent(&answers, &mut silent, err);
        }
        is_first = false;
        thread::sleep(EVERY);
    }
}

/// Once when one falls silent, and not every second.
fn tell_silent(answers: &[Answer<Events>], known: &mut Vec<String>, err: &mut dyn Write) {
    let silent: Vec<String> =
        answers.iter().filter(|answer| answer.said.is_err()).map(|answer| answer.name.clone()).collect();
    for name in silent.iter().filter(|name| !known.contains(name)) {
        let _ = writeln!(err, "! {} does not answer any more", plain(name));
    }
    for name in known.iter().filter(|name| !silent.contains(name)) {
        let _ = writeln!(err, "{} answers again", plain(name));
    }
    *known = silent;
}

/// All of them by time, each with where it happened.
fn merged(answers: &[Answer<Events>]) -> Vec<(&str, &EventView)> {
    let all = heard(answers)
        .flat_map(|(answer, said)| said.events.iter().map(|event| (answer.name.as_str(), event)));
    let mut all: Vec<_> = all.collect();
    // A stable sort: what one instance says keeps its order.
    all.sort_by_key(|(_, event)| event.at);
    all
}

fn timeline(answers: &[Answer<Events>], out: &mut dyn Write) -> io::Result<()> {
    for (name, event) in merged(answers) {
        let indent = " ".repeat(9 + NAME + 1);
        let text = format!("{} {}", event.kind, event.text);
        let room = wrapped_to(&text, "", COLUMNS - 2 - indent.len());
        let mut lines = room.into_iter();
        let first = lines.next().unwrap_or_default();
        writeln!(out, "{} {:<NAME$} {first}", clock_of(event.at), fit(name, NAME))?;
        for line in lines {
            writeln!(out, "{indent}{line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answers, printed};
    use super::*;

    #[test]
    fn events_of_several_are_one_timeline() {
        let event = |number: u64, at: u64, text: &str| EventView {
            number,
            at: 1_790_000_000 + at,
            kind: "overload".into(),
            text: text.into(),
        };
        let one = vec![
            event(
                1,
                10,
                "normal -> brown, limit 64: system:serviceaccount:obs:node-agent takes 94 % of the work",
            ),
            event(2, 30, "brown -> normal"),
        ];
        let two = vec![event(1, 20, "normal -> red\u{1b}[2J")];
        let answers = answers([one, two].map(|events| Events { events, last: 2 }));
        let times: Vec<u64> = merged(&answers).iter().map(|(_, event)| event.at - 1_790_000_000).collect();
        assert_eq!(times, [10, 20, 30]);
        super::super::super::golden::compare(
            "several-events",
            &printed(&answers, |out| timeline(&answers, out)),
        );
    }

    #[test]
    fn one_that_falls_silent_is_told_once_and_so_is_its_return() {
        let mut known = Vec::new();
        let mut err = Vec::new();
        let mut answers = answers([Events::default(), Events::default()]);
        tell_silent(&answers, &mut known, &mut err);
        tell_silent(&answers, &mut known, &mut err);
        answers.pop();
        tell_silent(&answers, &mut known, &mut err);
        assert_eq!(String::from_utf8(err).unwrap(), "! cp-3 does not answer any more\ncp-3 answers again\n");
    }
}
