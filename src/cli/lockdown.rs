//! `spillway lockdown`: let only in what keeps the cluster alive, for some minutes.
//!
//! In 2024 the network was cut to get the apiserver back, and the operators cut themselves off with it. This is the
//! same move, reversible, with an end, and it never locks break-glass out.

use std::io::Write;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;

use super::Ending;
use super::effect::{Told, Watch};
use super::isolate::confirmed;
use super::shown::{Output, span, whole_seconds, wrapped};
use super::socket::{Failure, Where, parse_time};
use crate::admin::wire::{Lock, Moved, Status};

/// Lets only the lanes in that keep the cluster alive.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway lockdown --for 10m --reason \"INC-481: apiserver does not recover\"
  spillway lockdown --off

Let in: break-glass, node-health, control-plane, platform. Everybody else is told 429 with a Retry-After, operators
with their everyday credentials too: use the break-glass kubeconfig. Running watches go on.
Exit codes: 0 in force, 1 refused, 2 usage, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    /// When it ends by itself, 1s to 24h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, required_unless_present = "off")]
    ttl: Option<Duration>,
    /// Why; told to the clients, at most 200 bytes
    #[arg(long, required_unless_present = "off")]
    reason: Option<String>,
    /// End it now
    #[arg(long, conflicts_with_all = ["ttl", "reason"])]
    off: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks, locks or unlocks, shows the effect.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    lockdown(args, out, err).unwrap_or_else(|failure| failure.tell(err))
}

fn lockdown(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ending, Failure> {
    let before: Status = args.at.get("/v1/status")?;
    let moved: Moved = match (args.ttl, &args.reason) {
        (Some(ttl), Some(reason)) if !args.off => {
            if !args.yes {
                // A closed terminal cannot be asked; then the answer is no.
                let _ = writeln!(err, "{}", wrapped(&loss(&before), "  "));
                confirmed("Lock the cluster down?", err)?;
            }
            let request = Lock { for_seconds: whole_seconds(ttl), reason: reason.clone() };
            args.at.post("/v1/lockdown", &request)?
        }
        _ => args.at.post("/v1/lockdown/release", &())?,
    };
    let left = span(moved.lever.remaining_seconds);
    let text = if args.off {
        "the lockdown is over".to_owned()
    } else {
        wrapped(&format!("LOCKDOWN for {left}: {}", moved.lever.what), "  ")
    };
    let told = Told {
        before: &before,
        kept: &moved.kept,
        object: json!({ "lockdown": moved.lever, "inForce": !args.off }),
        text,
        let_go: (!args.off).then(|| "spillway lockdown --off".to_owned()),
    };
    told.tell(args.watch, &args.at, args.output, out, err)
}

/// What it would cost, by what is served now.
pub(super) fn loss(status: &Status) -> String {
    let lost: f64 = status
        .lanes
        .iter()
        .filter(|lane| ["operators", "workload", "unknown", "telemetry"].contains(&lane.name.as_str()))
        .map(|lane| lane.served_per_second)
        .sum();
    format!(
        "refuses operators, workload, unknown and telemetry: {lost:.0} of {:.0} requests/s that are served now",
        status.served_per_second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_it_costs() {
        let loss = loss(&super::super::status::tests::storm());
        assert!(loss.contains("660 of 1320 requests/s"), "{loss}");
    }
}
