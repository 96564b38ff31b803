//! What can be typed? One file a command.
//!
//! Commands write to the streams they are handed and return how they ended; only `main` ends the process. Examples
//! stand first in every help text: they are what people read at three in the morning.

pub mod demo;
pub mod run;
pub mod simulate;
mod simulate_report;
mod simulate_search;
mod simulated;
pub mod validate;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use clap::{Parser, Subcommand};

use crate::config::Colour;

/// How a command ended; the number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// Done.
    Fine = 0,
    /// It ran, and what it found or did is not good.
    Failed = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// The configuration or a file it names is wrong; nothing was started.
    Config = 3,
}

/// A guard in front of kube-apiserver: operators keep access, telemetry is shed first.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the proxy
    Run(run::Args),
    /// Check configuration and policy files without starting anything
    Validate(validate::Args),
    /// Play a telemetry storm without and with spillway, on this machine, no cluster needed
    Demo(demo::Args),
    /// Play a scenario in virtual time, with this policy or another algorithm in front of a modelled apiserver
    Simulate(simulate::Args),
}

/// Runs the command line `arguments`, the program's name first.
pub fn dispatch(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // clap colours by itself, and knows that --help is not an error.
            let ending = if message.use_stderr() { Ending::Usage } else { Ending::Fine };
            // A closed terminal cannot be told anything.
            let _ = message.print();
            return ending;
        }
    };
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colour = if terminal { Colour::Always } else { Colour::Never };
    match cli.command {
        Command::Run(args) => run::run(&args, out, err, colour),
        Command::Validate(args) => match validate::run(&args, out, err, colour) {
            Ok(validate::VALID) => Ending::Fine,
            Ok(_) => Ending::Config,
            // Its reader has closed the pipe: nobody is left to tell.
            Err(_) => Ending::Failed,
        },
        Command::Demo(args) => demo::run(&args, out, err),
        Command::Simulate(args) => simulate::run(&args, out, err, colour),
    }
}
