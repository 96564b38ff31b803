//! `spillway top`: who asks most, and who is refused most?

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::Ending;
use super::isolate::ended;
use super::shown::{COLUMNS, Output, fit, for_programs, target_of};
use super::socket::{Failure, Where};
use crate::admin::wire::{ClientView, Clients};

/// How often the screen is drawn anew.
const EVERY: Duration = Duration::from_secs(2);
/// Moves to the upper left corner and clears what is below.
const REDRAW: &str = "\u{1b}[H\u{1b}[J";

/// Shows the busiest clients.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway top
  spillway top --once --by refused
  spillway top --once -o json

Of the 2,048 clients that were here lately, over the last seconds. Only verified clients have a name; all others are one.
At a terminal it is drawn anew every two seconds until Ctrl-C.")]
pub struct Args {
    /// Once, and not again and again
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
enum By {
    /// Who asks most, served or refused.
    #[default]
    Asked,
    /// Who is served most.
    Served,
    /// Who is refused most.
    Refused,
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Served => "served",
            Self::Refused => "refused",
        }
    }
}

/// Asks and prints, once or again and again.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let again = !args.once && args.output == Output::Table && io::stdout().is_terminal();
    loop {
        let clients: Result<Clients, Failure> = args.at.get(&format!("/v1/clients?by={}", args.by.as_str()));
        let clients = match clients {
            Ok(clients) => clients,
            Err(failure) => return failure.tell(err),
        };
        let printed = if again { write!(out, "{REDRAW}") } else { Ok(()) };
        let printed = printed
            .and_then(|()| for_programs(args.output, &clients, out))
            .and_then(|done| if done { Ok(()) } else { table(&clients, columns(), out) })
            .and_then(|()| out.flush());
        if printed.is_err() || !again {
            return ended(printed);
        }
        std::thread::sleep(EVERY);
    }
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
        let text = format!(
            "  {:.1}/s served, {:.1}/s refused, {lane}",
            client.served_per_second, client.shed_per_second
        );
        writeln!(out, "{}", fit(&text, columns))?;
    }
    writeln!(out, "{}", fit(&format!("{} of {} clients", clients.clients.len(), clients.known), columns))
}

fn table(clients: &Clients, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    if columns < COLUMNS {
        return narrow(clients, columns, out);
    }
    writeln!(out, "{:<44} {:>8} {:>9}  {:<9}  IDLE", "CLIENT", "SERVED/s", "REFUSED/s", "LANE")?;
    for client in &clients.clients {
        let ClientView { user, lanes, served_per_second, shed_per_second, idle_seconds, .. } = client;
        let lane = fit(lanes.last().map_or("", String::as_str), 9);
        let user = fit(user, 44);
        writeln!(
            out,
            "{user:<44} {served_per_second:>8.1} {shed_per_second:>9.1}  {lane:<9}  {:>4}",
            idle(*idle_seconds)
        )?;
    }
    writeln!(out, "{} of {} clients that were here lately", clients.clients.len(), clients.known)?;
    let worst = clients.clients.iter().find(|client| client.shed_per_second > 0.0);
    worst.map_or(Ok(()), |client| {
        writeln!(out, "  → spillway isolate {} --to penalty --for 30m --reason …", target_of(&client.user))
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
