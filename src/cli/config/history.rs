//! `spillway config history`: which policies were in force, since when, and what brought them?

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Ending, moment};
use crate::admin::wire_change::ConfigHistory;
use crate::app::KeptPolicies;
use crate::cli::shown::{Output, fit, for_programs, plain};
use crate::cli::socket::Where;

/// Lists the policies that were in force, the newest last.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config history
  spillway config history --state /var/lib/spillway     (no proxy has to run)
  spillway config show --generation 12

The last 20 are kept in state.dir. Equal hashes are equal policies, also between instances. Times are UTC.")]
pub(super) struct Args {
    /// Read a state folder instead of asking a running proxy
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let history = match &args.state {
        Some(folder) => match KeptPolicies::read(folder) {
            Ok(kept) => kept.history(),
            Err(message) => {
                let _ = writeln!(err, "error: {}", plain(&message));
                return Ending::Failed;
            }
        },
        None => match args.at.get("/v1/config/history") {
            Ok(history) => history,
            Err(failure) => return failure.tell(err),
        },
    };
    let printed = match for_programs(args.output, &history, out) {
        Ok(false) => table(&history, out),
        other => other.map(|_| ()),
    };
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

pub(super) fn table(history: &ConfigHistory, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "GENERATION  HASH          SINCE                 FILE                      BY")?;
    for policy in &history.policies {
        writeln!(
            out,
            "{:>10}  {:<12}  {:<20}  {:<24}  {}",
            policy.generation,
            fit(&policy.hash, 12),
            moment(policy.at),
            fit(&policy.file, 24),
            plain(&policy.by),
        )?;
    }
    if let Some(last) = history.policies.last() {
        writeln!(out, "In force: {}. Back to another one: spillway config rollback NUMBER", last.generation)?;
    }
    Ok(())
}
