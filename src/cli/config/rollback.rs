//! `spillway config rollback` and `reload`: back to a policy of before, or forward to what the files say.

use std::io::{self, Write};

use clap::Args as ClapArgs;

use super::{Ending, findings};
use crate::admin::wire_change::{ConfigView, Rollback};
use crate::cli::shown::{Output, for_programs, plain};
use crate::cli::socket::Where;

/// Puts a policy of before in force, at once.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config rollback             (to the one before)
  spillway config rollback 12

It stays in force, also over a restart, until the policy's file says something else: then the file is taken again.
spillway never writes your files; what it prints says how to bring them in line.")]
pub(super) struct Args {
    /// Which: spillway config history
    #[arg(value_name = "GENERATION")]
    generation: Option<u64>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Reads the files again now, as SIGHUP does.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config reload

Changed files are read by themselves within seconds; this says at once what came of it.
Exit codes: 0 in force, 1 the files cannot be used and the last good policy stays in force.")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Goes back.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let request = Rollback { generation: args.generation };
    match args.at.post("/v1/config/rollback", &request) {
        Ok(view) => shown(args.output, &view, out, err),
        Err(failure) => failure.tell(err),
    }
}

/// Goes forward.
pub(super) fn reload(args: &ReloadArgs, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    match args.at.post("/v1/config/reload", &()) {
        Ok(view) => shown(args.output, &view, out, err),
        Err(failure) => failure.tell(err),
    }
}

fn shown(output: Output, view: &ConfigView, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let printed = match for_programs(output, view, out) {
        Ok(false) => {
            let printed = text(view, out);
            findings(view, err);
            printed
        }
        other => other.map(|_| ()),
    };
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

pub(super) fn text(view: &ConfigView, out: &mut dyn Write) -> io::Result<()> {
    let policy = &view.policy;
    let now = format!("policy {} ({}, {})", policy.generation, policy.hash, plain(&policy.file));
    match &view.before {
        Some(before) => {
            writeln!(out, "In force: {now}, instead of policy {} ({})", before.generation, before.hash)?;
            writeln!(out, "Back: spillway config rollback {}", before.generation)
        }
        None => writeln!(out, "In force, as before: {now}"),
    }
}
