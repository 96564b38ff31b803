//! `spillway tap`: what passes right now?

use std::io::{self, Write};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::Ending;
use super::explain::clock_time;
use super::isolate::ended;
use super::shown::{COLUMNS, Output, fit};
use super::socket::{Failure, Where, parse_time};
use crate::admin::tapped::{TapFilter, TapLine, Tapped};
use crate::clock;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Shows requests as they are answered.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway tap --refused
  spillway tap --user node-agent --verb list
  spillway tap --lane operators --slower-than 1s --for 30s
  spillway tap -o json --for 10s | jq -r .user | sort | uniq -c | sort -n

Until Ctrl-C, or for a while. The proxy never waits for it: what does not fit is lost, and the loss is said. With json
each request is one line. A request's body is never shown.")]
pub struct Args {
    /// Only users whose name contains this
    #[arg(long, value_name = "TEXT")]
    user: Option<String>,
    /// Only this lane
    #[arg(long)]
    lane: Option<crate::policy::Lane>,
    /// Only this verb
    #[arg(long)]
    verb: Option<String>,
    /// Only requests whose path or query contains this
    #[arg(long, value_name = "TEXT")]
    path: Option<String>,
    /// Only what spillway answered itself
    #[arg(long)]
    refused: bool,
    /// Only what was refused for this reason (spillway help reasons)
    #[arg(long)]
    reason: Option<String>,
    /// Only what took longer until the head of its answer
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    slower_than: Option<Duration>,
    /// End after so long
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    duration: Option<Duration>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints, again and again.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let mut filter = TapFilter {
        after: None,
        user: args.user.clone(),
        lane: args.lane.map(|lane| lane.as_str().to_owned()),
        verb: args.verb.clone(),
        path: args.path.clone(),
        refused: args.refused,
        reason: args.reason.clone(),
        slower_than_ms: args.slower_than.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    let begun = clock::now();
    loop {
        let tapped: Result<Tapped, Failure> = args.at.post("/v1/tap", &filter);
        let tapped = match tapped {
            Ok(tapped) => tapped,
            Err(failure) => return failure.tell(err),
        };
        if tapped.lost > 0 {
            // A closed terminal cannot be told anything.
            let _ = writeln!(
                err,
                "! {} requests are not shown: narrow it with --user, --lane or --refused",
                tapped.lost
            );
        }
        let printed = tapped.lines.iter().try_for_each(|line| print(line, args.output, out));
        let over = args.duration.is_some_and(|duration| clock::now().since(begun) >= duration);
        let printed = printed.and_then(|()| out.flush());
        if printed.is_err() || over {
            return ended(printed);
        }
        filter.after = Some(tapped.last);
        std::thread::sleep(EVERY);
    }
}

fn print(line: &TapLine, output: Output, out: &mut dyn Write) -> io::Result<()> {
    if output != Output::Table {
        // One line each, whatever it is called: a stream is no document.
        serde_json::to_writer(&mut *out, line)?;
        return writeln!(out);
    }
    let TapLine { at_ms, id, user, lane, status, reason, latency_ms, queued_ms, .. } = line;
    let reason = reason.as_deref().unwrap_or("-");
    let queued = if *queued_ms > 0 { format!(" ({queued_ms} queued)") } else { String::new() };
    writeln!(out, "{} {id} {status} {lane:<13} {reason:<16} {latency_ms} ms{queued}", clock_time(*at_ms))?;
    writeln!(out, "             {}", fit(&format!("{user} {}", line.request), COLUMNS - 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_their_golden_text() {
        let line = |reason: Option<&str>, queued_ms| TapLine {
            at_ms: 1_790_000_000_118,
            id: "5e0c11d2".into(),
            user: "system:serviceaccount:obs:node-agent\u{1b}[2J".into(),
            lane: "telemetry".into(),
            verb: "list".into(),
            request: "GET /api/v1/pods?limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEi".into(),
            rule: "telemetry-namespaces".into(),
            status: if reason.is_some() { 429 } else { 200 },
            reason: reason.map(str::to_owned),
            latency_ms: 412,
            queued_ms,
        };
        let mut out = Vec::new();
        for line in [line(None, 0), line(None, 300), line(Some("overload_level"), 0)] {
            print(&line, Output::Table, &mut out).unwrap();
        }
        print(&line(Some("identity_rate"), 0), Output::Json, &mut out).unwrap();
        super::super::golden::compare("tap", &String::from_utf8(out).unwrap());
    }
}
