//! `spillway config`: how a configuration begins, and what may stand in one. One file a subcommand.

mod apf;
mod init;
mod schema;

use std::io::Write;

use clap::{Args as ClapArgs, Subcommand};

use super::Ending;

/// A first configuration, and the schema of any.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config init --from-kubeadm > /etc/spillway/spillway.yaml
  spillway config init --from-apf apf.yaml > /etc/spillway/policy.yaml
  spillway config schema > /etc/spillway/spillway.schema.json")]
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
}

/// Does it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    match &args.command {
        Command::Init(args) => init::run(args, out, err),
        Command::Schema(args) => schema::run(args, out),
    }
}
