//! `spillway top`: who hurts most, who asks most, and who is refused most?

use std::io::{self, IsTerminal, Write};

use clap::{Args as ClapArgs, ValueEnum};

use super::Ending;
use super::isolate::ended;
use super::screen;
use super::several;
use super::shown::{COLUMNS, Output, fit, for_programs, target_of};
use super::socket::{Failure, Where};
use crate::admin::wire::{ClientView, Clients};
use crate::config::Colour;

/// Shows the busiest clients.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway top
  spillway top --once --by refused
  spillway top --once -o json

At a terminal it is a screen: verdict, lanes, clients and events, once a second, with keys to sort, to filter, to look at one
client and to isolate it; ? names them. Elsewhere, or with --once, it is a table of the clients alone.
COST% is the share of kube-apiserver's work of the last ten seconds. Of the 2,048 clients that were here lately. Only verified
clients have a name; all others are one.
Exit codes: 0 shown, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    /// A table, once
    #[arg(long)]
    once: bool,
    /// Who comes first
    #[arg(long, value_enum, default_value_t)]
    by: By,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Who comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Who makes most of the work.
    #[default]
    Cost,
    /// Who asks most, served or refused.
    Asked,
    /// Who is served most.
    Served,
    /// Who is refused most.
    Refused,
}

impl By {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Asked => "asked",
            Self::Served => "served",
            Self::Refused => "refused",
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::Cost => Self::Asked,
            Self::Asked => Self::Served,
            Self::Served => Self::Refused,
            Self::Refused => Self::Cost,
        }
    }
}

/// The screen at a terminal, else a table.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    let can_draw = io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let shown = if args.at.is_several() {
        several::top(&args.at, args.by, args.output, out, err)
    } else if !args.once && args.output == Output::Table && can_draw {
        screen::run(&args.at, args.by, colour)
    } else {
        once(args, out)
    };
    shown.unwrap_or_else(|failure| failure.tell(err))
}

fn once(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let clients: Clients = args.at.get(&format!("/v1/clients?by={}", args.by.as_str()))?;
    let printed = for_programs(args.output, &clients, out);
    Ok(ended(printed.and_then(|done| if done { Ok(()) } else { table(&clients, columns(), out) })))
}

/// The command that contains a user; `said` is what it needs to reach the same proxy.
pub(super) fn isolate_command(user: &str, to: &str, ttl: &str, reason: &str, said: &str) -> String {
    format!("spillway isolate {} --to {to} --for {ttl} --reason {reason}{said}", target_of(user))
}

/// How wide the terminal is; as wide as everything is made for where nobody can say.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// Two lines a client where one would break: a phone, or a pane beside another.
fn narrow(clients: &Clients, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    for client in &clients.clients {
        let lane = client.lanes.last().map_or("", String::as_str);
        writeln!(out, "{}", fit(&client.user, columns))?;
        let ClientView { cost_percent, served_per_second, shed_per_second, .. } = client;
        let text =
            format!("  {cost_percent:.1}%, {served_per_second:.1}/s ok, {shed_per_second:.1}/s no, {lane}");
        writeln!(out, "{}", fit(&text, columns))?;
    }
    writeln!(out, "{}", fit(&format!("{} of {} clients", clients.clients.len(), clients.known), columns))
}

fn table(clients: &Clients, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    if columns < COLUMNS {
        return narrow(clients, columns, out);
    }
    writeln!(
        out,
        "{:<37} {:>6} {:>8} {:>9}  {:<9}  IDLE",
        "CLIENT", "COST%", "SERVED/s", "REFUSED/s", "LANE"
    )?;
    for client in &clients.clients {
        let ClientView {
            user, lanes, cost_percent, served_per_second, shed_per_second, idle_seconds, ..
        } = client;
        let lane = fit(lanes.last().map_or("", String::as_str), 9);
        let user = fit(user, 37);
        writeln!(
            out,
            "{user:<37} {cost_percent:>6.1} {served_per_second:>8.1} {shed_per_second:>9.1}  {lane:<9}  {:>4}",
            idle(*idle_seconds)
        )?;
    }
    writeln!(out, "{} of {} clients that were here lately", clients.clients.len(), clients.known)?;
    let worst = clients.clients.iter().find(|client| client.shed_per_second > 0.0);
    worst.map_or(Ok(()), |client| {
        writeln!(out, "  → {}", isolate_command(&client.user, "penalty", "30m", "…", ""))
    })
}

fn idle(seconds: u64) -> String {
    if seconds < 100 { format!("{seconds}s") } else { format!("{}m", seconds / 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_its_golden_text() {
        let client = |user: &str, shed| ClientView {
            user: user.into(),
            lanes: vec!["node-health".into(), "telemetry".into()],
            served_per_second: 12.0,
            cost_percent: 61.4,
            shed_per_second: shed,
            idle_seconds: 130,
            addresses: 4,
        };
        let clients = Clients {
            clients: vec![
                client("system:serviceaccount:observability:opentelemetry-node-agent", 1_790.4),
                client("alice\u{1b}[2J", 0.0),
            ],
            known: 812,
        };
        let mut out = Vec::new();
        table(&clients, COLUMNS, &mut out).unwrap();
        writeln!(out, "--- 40 columns").unwrap();
        let begun = out.len();
        table(&clients, 40, &mut out).unwrap();
        let narrow = String::from_utf8_lossy(&out[begun..]).into_owned();
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        super::super::golden::compare("top", &String::from_utf8(out).unwrap());
    }
}
