//! `spillway break-glass …`: who may use the lane for emergencies, and does it work?
//!
//! Everything here works without a cluster, a proxy or a network, apart from `test`, `drill`, `arm`, `confirm` and `disarm`,
//! which are requests to the lane itself. Secrets are read from a terminal or a file, never from an argument.

mod arm;
mod ca;
mod drill;
mod drill_lane;
mod drill_node;
mod drill_report;
mod grant;
mod issue;
mod list;
mod passphrase;
mod revoke;
mod test;
mod ttl;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::Value;

use super::Ending;
use crate::breakglass::IssueError;

/// Certificates for the lane, and proof that it works.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass ca init --out bg-ca                       # once, on a machine that is offline
  spillway break-glass issue --ca bg-ca --user alice@corp --ttl 24h \\
      --kubeconfig alice.kubeconfig --server https://10.0.0.11:6444 --cluster-ca /etc/kubernetes/pki/ca.crt
  spillway break-glass test --kubeconfig alice.kubeconfig        # before it is needed
  sudo spillway break-glass drill --kubeconfig alice.kubeconfig  # the whole incident, once a quarter
  kubectl --kubeconfig alice.kubeconfig get nodes

In an incident: spillway help incident")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the CA that signs break-glass certificates
    #[command(subcommand)]
    Ca(CaCommand),
    /// Sign a certificate for one person
    Issue(issue::Args),
    /// Make a kubeconfig from a certificate
    Kubeconfig(issue::KubeconfigArgs),
    /// Show which certificates there are
    List(list::Args),
    /// Put certificates on the deny list
    Revoke(revoke::Args),
    /// Prove that the lane works for a person: connection, TLS, identity, rights, latency
    Test(test::Args),
    /// Rehearse an incident on this installation, change nothing, and write a report
    Drill(drill::Args),
    /// Open the lane for yourself by a reason and a ticket, or by a signed grant, where the lane asks for them
    Arm(arm::Args),
    /// Make the key that signs grants
    GrantKey(grant::KeyArgs),
    /// Sign that somebody may use the lane for a while, offline
    Grant(grant::Args),
    /// Be the second person who opens the lane for somebody, where breakGlass.arming is TwoPerson
    Confirm(arm::ConfirmArgs),
    /// Close the lane again for yourself
    Disarm(arm::DisarmArgs),
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make a new CA
    Init(ca::Args),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object.
    Json,
}

/// The folder of a CA, for the commands that need one.
#[derive(Debug, ClapArgs)]
struct CaFolder {
    /// Folder of the CA, as `ca init --out` made it
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
}

/// Runs one of the commands.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let done = match &args.command {
        Command::Ca(CaCommand::Init(args)) => ca::init(args, out),
        Command::Issue(args) => issue::issue(args, out),
        Command::Kubeconfig(args) => issue::kubeconfig(args, out),
        Command::List(args) => list::list(args, out),
        Command::Revoke(args) => revoke::revoke(args, out),
        Command::Test(args) => test::test(args, out),
        Command::Drill(args) => drill::drill(args, out),
        Command::Arm(args) => arm::arm(args, out),
        Command::GrantKey(args) => grant::make_key(args, out),
        Command::Grant(args) => grant::grant(args, out),
        Command::Confirm(args) => arm::confirm(args, out),
        Command::Disarm(args) => arm::disarm(args, out),
    };
    done.unwrap_or_else(|failure| {
        // A closed standard error cannot be told anything; the exit code still says it.
        let _ = writeln!(err, "error: {}", failure.message);
        failure.ending
    })
}

/// Why a command did not do what it was asked.
struct Failure {
    message: String,
    ending: Ending,
}

impl Failure {
    /// It ran and failed.
    fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), ending: Ending::Failed }
    }

    /// It was asked for something that cannot be.
    fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), ending: Ending::Usage }
    }
}

impl From<crate::breakglass::LedgerError> for Failure {
    fn from(error: crate::breakglass::LedgerError) -> Self {
        Self::new(error)
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Name { .. } | IssueError::Ttl { .. } => Self::usage(error),
            _ => Self::new(error),
        }
    }
}

impl From<std::io::Error> for Failure {
    /// The reader of our output has closed the pipe.
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

/// Prints `json` or `text`.
fn print(out: &mut dyn Write, output: Output, json: &Value, text: &str) -> Result<Ending, Failure> {
    match output {
        Output::Json => writeln!(out, "{json:#}")?,
        Output::Text => write!(out, "{text}")?,
    }
    out.flush()?;
    Ok(Ending::Fine)
}

/// A time with a unit, as clap reads one.
fn time(text: &str) -> Result<Duration, String> {
    ttl::parse(text).ok_or_else(|| "expected a time with a unit, such as 30m, 24h or 7d".to_owned())
}
