//! `spillway config`: how one begins, what is in force, what was, and the way back. One file a subcommand.

mod apf;
mod diff;
mod history;
mod init;
mod rollback;
mod schema;
mod show;
mod side;

use std::io::Write;

use clap::{Args as ClapArgs, Subcommand};
use time::OffsetDateTime;
use time::macros::format_description;

use super::Ending;
use super::shown::plain;
use crate::admin::wire_change::ConfigView;

/// The codes of problems.
mod code {
    /// Two configurations without a kind of document that both have.
    pub(super) const NOTHING_TO_COMPARE: &str = "SPW0471";
}

/// A first configuration, the schema of any, the policy in force and those before it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config show
  spillway config diff
  spillway config diff policy.yaml
  spillway config history
  spillway config rollback
  spillway config init --from-kubeadm > /etc/spillway/spillway.yaml
  spillway config init --from-apf apf.yaml > /etc/spillway/policy.yaml
  spillway config schema > /etc/spillway/spillway.schema.json

A changed TrafficPolicy takes effect by itself within seconds; one that is broken changes nothing.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a first configuration, from kubeadm's files or from API Priority and Fairness
    Init(init::Args),
    /// Print the JSON Schema that editors complete and check with
    Schema(schema::Args),
    /// Print the policy that is in force, or one that was
    Show(show::Args),
    /// What would change: in force against files, files against files, before against now
    Diff(diff::Args),
    /// List the policies that were in force
    History(history::Args),
    /// Put a policy of before in force again
    Rollback(rollback::Args),
    /// Read the files again now
    Reload(rollback::ReloadArgs),
}

/// Does it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    match &args.command {
        Command::Init(args) => init::run(args, out, err),
        Command::Schema(args) => schema::run(args, out),
        Command::Show(args) => show::run(args, out, err),
        Command::Diff(args) => diff::run(args, out, err),
        Command::History(args) => history::run(args, out, err),
        Command::Rollback(args) => rollback::run(args, out, err),
        Command::Reload(args) => rollback::reload(args, out, err),
    }
}

/// `2026-11-25 18:00:03Z`.
fn moment(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| format!("{seconds} s"))
}

/// What is not well, each with the next command.
fn findings(view: &ConfigView, err: &mut dyn Write) {
    // A closed terminal cannot be told anything.
    if let Some(problem) = &view.problem {
        let _ = writeln!(err, "! changed files cannot be used since {}:", moment(problem.at));
        for finding in &problem.findings {
            let _ = writeln!(err, "    {}", plain(finding));
        }
        let _ = writeln!(err, "  → spillway validate {}", plain(&view.files.join(" ")));
    }
    if view.withdrawn {
        let _ = writeln!(err, "! the files still have the policy that was gone back from; an edit ends this");
        let _ = writeln!(err, "  → spillway config show > {}", plain(&view.policy.file));
    }
    if !view.restart.is_empty() {
        let _ = writeln!(err, "! changed in the files, waits for a restart: {}", view.restart.join(", "));
        let _ =
            writeln!(err, "  → systemctl restart spillway, or move the static pod's manifest away and back");
    }
}

#[cfg(test)]
mod tests;
