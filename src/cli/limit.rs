//! `spillway limit`: see the limit L, bound it, or fix it, for a while.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::Ending;
use super::effect::{Told, Watch};
use super::isolate::ended;
use super::shown::{self, Output, span, whole_seconds, wrapped};
use super::socket::{Failure, Where, parse_time};
use crate::admin::wire::{HoldLimit, Moved, Status};

/// Shows the limit L, bounds it, or fixes it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway limit show
  spillway limit set 40 --for 15m --reason \"etcd compaction\"
  spillway limit pin 120 --for 10m --reason \"the law is wrong: INC-481\"
  spillway limit unpin

set: L is at most SEATS; overload control may still cut it. pin: L is exactly SEATS, whatever overload control says.
Exit codes: 0 in force, 1 refused, 2 usage, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show L, its bounds and what holds it
    Show,
    /// L is at most SEATS for a while
    Set {
        /// Seats
        seats: u32,
        #[command(flatten)]
        why: Why,
    },
    /// L is exactly SEATS for a while
    Pin {
        /// Seats; what L is now when left out
        seats: Option<u32>,
        #[command(flatten)]
        why: Why,
    },
    /// Let L go
    Unpin,
}

#[derive(Debug, ClapArgs)]
struct Why {
    /// When it ends by itself, 1s to 24h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    ttl: Duration,
    /// Why, at most 200 bytes
    #[arg(long)]
    reason: String,
}

impl Why {
    fn hold(&self, hold: &str, seats: Option<u32>) -> HoldLimit {
        HoldLimit {
            hold: hold.to_owned(),
            seats,
            for_seconds: whole_seconds(self.ttl),
            reason: self.reason.clone(),
        }
    }
}

/// Shows or holds, and shows the effect.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    limit(args, out, err).unwrap_or_else(|failure| failure.tell(err))
}

fn limit(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ending, Failure> {
    let before: Status = args.at.get("/v1/status")?;
    let moved: Moved = match &args.command {
        Command::Show => {
            let object = json!({
                "limit": before.limit,
                "min": before.limit_min,
                "max": before.limit_max,
                "seats": before.seats,
                "pressure": before.pressure,
                "held": before.held,
            });
            let printed = shown::for_programs(args.output, &object, out);
            return Ok(ended(printed.and_then(|done| if done { Ok(()) } else { show(&before, out) })));
        }
        Command::Set { seats, why } => args.at.post("/v1/limit", &why.hold("at-most", Some(*seats)))?,
        Command::Pin { seats, why } => args.at.post("/v1/limit", &why.hold("exactly", *seats))?,
        Command::Unpin => args.at.post("/v1/limit/release", &())?,
    };
    let is_over = matches!(args.command, Command::Unpin);
    let lever = &moved.lever;
    let text = if is_over {
        format!("L is free again; it was held at {}", lever.what)
    } else {
        format!("L is held at {} for {}", lever.what, span(lever.remaining_seconds))
    };
    let told = Told {
        before: &before,
        kept: &moved.kept,
        object: json!({ "hold": lever, "inForce": !is_over }),
        text,
        let_go: (!is_over).then(|| "spillway limit unpin".to_owned()),
    };
    told.tell(args.watch, &args.at, args.output, out, err)
}

fn show(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "L is {} seats (policy: {} to {}), {} in use, pressure {:.2}",
        status.limit, status.limit_min, status.limit_max, status.seats, status.pressure
    )?;
    let Some(held) = &status.held else { return writeln!(out, "nobody holds it") };
    let text = format!(
        "held at {}, {} left: {} ({})",
        held.what,
        span(held.remaining_seconds),
        held.reason,
        held.by
    );
    writeln!(out, "{}", wrapped(&text, "  "))?;
    writeln!(out, "  → spillway limit unpin")
}
