//! `spillway events`: what happened lately, and what happens now.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args as ClapArgs;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Ending;
use super::isolate::ended;
use super::several;
use super::shown::{Output, for_programs, wrapped};
use super::socket::Where;
use crate::admin::wire::{EventView, Events};

/// How often a follower asks.
const EVERY: Duration = Duration::from_secs(1);

/// Shows what operators did and what overload control changed its mind about.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway events
  spillway events -f
  spillway events -o json | jq -r '.events[].text'

The last 256 events since the start of the proxy, the oldest first. Times are UTC.")]
pub struct Args {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    at: Where,
    /// How it is printed; with -f, json is one object a second that has something new
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints, once or again and again.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.at.is_several() {
        let shown = several::events(&args.at, args.follow, args.output, out, err);
        return shown.unwrap_or_else(|failure| failure.tell(err));
    }
    let mut last = 0;
    loop {
        let events: Events = match args.at.get(&format!("/v1/events?after={last}")) {
            Ok(events) => events,
            Err(failure) => return failure.tell(err),
        };
        if last == 0 || !events.events.is_empty() {
            let printed = print(&events, args.output, out).and_then(|()| out.flush());
            if printed.is_err() || !args.follow {
                return ended(printed);
            }
        }
        last = events.last;
        std::thread::sleep(EVERY);
    }
}

fn print(events: &Events, output: Output, out: &mut dyn Write) -> io::Result<()> {
    if for_programs(output, events, out)? {
        return Ok(());
    }
    events.events.iter().try_for_each(|event| writeln!(out, "{}", line(event)))
}

fn line(event: &EventView) -> String {
    wrapped(&format!("{} {} {}", clock_of(event.at), event.kind, event.text), "         ")
}

/// `14:05:02`, UTC, of seconds since 1970.
pub(super) fn clock_of(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let format = format_description!("[hour]:[minute]:[second]");
    at.and_then(|at| at.format(format).ok()).unwrap_or_else(|| "--:--:--".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_their_golden_text() {
        let event = |number: u64, kind: &str, text: &str| EventView {
            number,
            at: 1_790_000_000 + number,
            kind: kind.into(),
            text: text.into(),
        };
        let events = Events {
            events: vec![
                event(
                    1,
                    "overload",
                    "normal -> brown, limit 64: system:serviceaccount:obs:node-agent takes 94 % of the work",
                ),
                event(2, "lever", "isolate iso-3f2a serviceaccount obs/node-agent: deny; INC-481 (uid 0)"),
            ],
            last: 2,
        };
        let mut out = Vec::new();
        print(&events, Output::Table, &mut out).unwrap();
        super::super::golden::compare("events", &String::from_utf8(out).unwrap());
    }
}
