//! `spillway newcomers`: who was never here before, what do they cost, and may they stay?

use std::io::{self, Write};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::Ending;
use super::effect::warn_not_kept;
use super::isolate::ended;
use super::several;
use super::shown::{self, Output, fit, quoted, span, wrapped};
use super::socket::Where;
use crate::admin::wire::newcomers::{Approve, Approved, NewcomerView, Newcomers};

/// Shows who was never here before and what it would cost on every node; approves it, or doubts it again.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway newcomers
  spillway newcomers approve obs/node-agent
  spillway newcomers approve obs/node-agent --as telemetry --reason \"INC-481: two nodes at a time\"
  spillway newcomers doubt obs/node-agent
  spillway newcomers -o json | jq '.newcomers[] | select(.warned)'

Who is new is ranked \"unknown\", and as telemetry beyond a budget of two seats on average; nobody is refused for being
new. SEATS is what it would take on all nodes if it spreads, else where it is. After a day without a warning it is known.
Exit codes: 0 shown or done, 1 no such newcomer, 2 usage, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make somebody known
    Approve {
        /// A user, or NAMESPACE/NAME of a service account
        name: String,
        /// One program of it; without, all that are new now
        #[arg(long, default_value = "")]
        program: String,
        /// Rank it no higher than this; without, as the rules say
        #[arg(long = "as", value_enum)]
        lane: Option<AsLane>,
        /// Why, for those who read the events; at most 200 bytes
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Make somebody new again
    Doubt {
        /// A user, or NAMESPACE/NAME of a service account
        name: String,
        /// One program of it
        #[arg(long, default_value = "")]
        program: String,
        /// Why, for those who read the events; at most 200 bytes
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AsLane {
    Workload,
    Unknown,
    Telemetry,
}

/// Asks and prints.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.at.is_several() && args.what.is_none() {
        let shown = several::newcomers(&args.at, args.output, out, err);
        return shown.unwrap_or_else(|failure| failure.tell(err));
    }
    let done = match &args.what {
        None => args.at.get("/v1/newcomers").map(|newcomers: Newcomers| {
            let printed = shown::for_programs(args.output, &newcomers, out);
            printed.and_then(|done| if done { Ok(()) } else { table(&newcomers, out) })
        }),
        Some(What::Approve { name, program, lane, reason }) => {
            let lane = lane.and_then(|lane| lane.to_possible_value()).map(|lane| lane.get_name().to_owned());
            let request =
                Approve { name: name.clone(), program: program.clone(), lane, reason: reason.clone() };
            args.at.post("/v1/newcomers/approve", &request).map(|approved: Approved| {
                warn_not_kept(&approved.kept, err);
                moved(args, "known", &approved, out)
            })
        }
        Some(What::Doubt { name, program, reason }) => {
            let request =
                Approve { name: name.clone(), program: program.clone(), lane: None, reason: reason.clone() };
            args.at.post("/v1/newcomers/doubt", &request).map(|approved: Approved| {
                warn_not_kept(&approved.kept, err);
                moved(args, "new again", &approved, out)
            })
        }
    };
    done.map_or_else(|failure| failure.tell(err), ended)
}

fn moved(args: &Args, word: &str, approved: &Approved, out: &mut dyn Write) -> io::Result<()> {
    if shown::for_programs(args.output, approved, out)? {
        return Ok(());
    }
    let programs =
        if approved.count == 1 { String::new() } else { format!(" ({} programs)", approved.count) };
    writeln!(out, "{}{programs} is {word}", name_of(&approved.user))
}

/// `obs/node-agent` of a service account, as it can be typed again.
pub(super) fn name_of(user: &str) -> String {
    let account = user.strip_prefix("system:serviceaccount:");
    quoted(&account.map_or_else(|| user.to_owned(), |account| account.replacen(':', "/", 1)))
}

fn table(newcomers: &Newcomers, out: &mut dyn Write) -> io::Result<()> {
    if !newcomers.guard {
        let text = "nobody is a newcomer here: newcomers.guard is false in the TrafficPolicy";
        return writeln!(out, "{}", wrapped(text, "  "));
    }
    if newcomers.learns_for_seconds > 0 {
        let left = span(newcomers.learns_for_seconds);
        let text =
            format!("spillway is new here itself: for {left} more, everybody who comes is known at once");
        writeln!(out, "{}", wrapped(&text, "  "))?;
    }
    if newcomers.newcomers.is_empty() {
        writeln!(out, "nobody is new; {} are known", newcomers.known)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<34} {:<14} {:>6} {:>7} {:>7}  {:>6}",
        "WHO", "PROGRAM", "PLACES", "SEATS", "NEW FOR", "IDLE"
    )?;
    for one in &newcomers.newcomers {
        let NewcomerView { user, program, places, projected_seats, .. } = one;
        writeln!(
            out,
            "{:<34} {:<14} {places:>6} {projected_seats:>7.1} {:>7}  {:>6}",
            fit(&name_of(user), 34),
            fit(if program.is_empty() { "-" } else { program }, 14),
            span(one.new_for_seconds),
            span(one.idle_seconds),
        )?;
        for line in remarks(one, newcomers) {
            writeln!(out, "  {}", wrapped(&line, "    "))?;
        }
        if one.warned {
            writeln!(out, "  → stop its roll-out, or: spillway newcomers approve {}", name_of(user))?;
        }
    }
    writeln!(
        out,
        "{} known, {} nodes, limit {} seats; warned of from {:.0} seats on",
        newcomers.known, newcomers.nodes, newcomers.limit, newcomers.warned_from
    )
}

fn remarks(one: &NewcomerView, newcomers: &Newcomers) -> Vec<String> {
    let mut remarks = Vec::new();
    if one.spreads {
        let each = one.seats_per_place.map_or_else(
            || format!("{:.1} seat-seconds a start", one.seat_seconds_per_start),
            |seats| format!("{seats:.2} seats each"),
        );
        let mark = if one.warned { "! " } else { "" };
        remarks.push(format!(
            "{mark}spreading: on {} of {} nodes, {:.1} more each second, {each}: on all of them {:.0} of {} seats",
            one.places, newcomers.nodes, one.growth_per_second, one.projected_seats, newcomers.limit,
        ));
    } else if one.warned {
        remarks
            .push(format!("! it takes {:.1} of {} seats where it is", one.projected_seats, newcomers.limit));
    }
    if one.over_budget {
        remarks.push("its budget is used up: ranked as telemetry".to_owned());
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_its_golden_text() {
        let agent = NewcomerView {
            user: "system:serviceaccount:observability:opentelemetry-node-agent".into(),
            program: "otelcol-contrib".into(),
            new_for_seconds: 95,
            idle_seconds: 0,
            places: 34,
            growth_per_second: 1.9,
            spreads: true,
            seats_per_place: Some(0.36),
            seat_seconds_per_start: 3.6,
            projected_seats: 726.0,
            warned: true,
            over_budget: true,
            requests: 410,
        };
        let controller = NewcomerView {
            user: "alice".into(),
            program: String::new(),
            new_for_seconds: 7_200,
            idle_seconds: 61,
            places: 1,
            projected_seats: 0.1,
            ..NewcomerView::default()
        };
        let newcomers = Newcomers {
            guard: true,
            newcomers: vec![agent, controller],
            known: 212,
            nodes: 2_000,
            limit: 64,
            warned_from: 16.0,
            ..Newcomers::default()
        };
        let mut out = Vec::new();
        table(&newcomers, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        // A command is never broken: it is there to be copied.
        let mut lines = text.lines().filter(|line| !line.starts_with("  → "));
        assert!(lines.all(|line| line.chars().count() <= shown::COLUMNS), "{text}");
        super::super::golden::compare("newcomers", &text);
        let mut out = Vec::new();
        let young = Newcomers { learns_for_seconds: 3_000, newcomers: vec![], ..newcomers };
        table(&young, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("for 50m more") && text.contains("nobody is new; 212 are known"), "{text}");
    }
}
