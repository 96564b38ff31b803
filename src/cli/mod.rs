//! What can be typed? One file a command.
//!
//! Commands write to the streams they are handed and return how they ended; only `main` ends the process. Examples
//! stand first in every help text: they are what people read at three in the morning.

pub mod audit;
pub mod break_glass;
pub mod check;
pub mod config;
pub mod dashboard;
pub mod demo;
#[cfg(test)]
mod document;
pub mod drill;
mod effect;
mod endpoint;
pub mod events;
pub mod explain;
pub mod gate;
#[cfg(test)]
mod golden;
mod hello;
mod help;
pub mod incident;
pub mod isolate;
pub mod limit;
pub mod lockdown;
pub mod manifest;
pub mod newcomers;
mod observed;
mod redact;
pub mod replay;
mod replayed;
pub mod rollout;
pub mod run;
mod sarif;
mod screen;
mod several;
pub mod shell;
mod shown;
pub mod simulate;
mod simulate_report;
mod simulate_search;
mod simulated;
mod socket;
pub mod status;
pub mod sysdump;
pub mod tap;
pub mod top;
pub mod validate;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

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
    /// Nobody answers at the endpoint.
    Unreachable = 4,
    /// The endpoint is there, and not for this user.
    Forbidden = 5,
    /// No answer in time.
    TimedOut = 6,
}

/// A guard in front of kube-apiserver: operators keep access, telemetry is shed first.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, max_term_width = 100)]
#[command(after_help = "\
In an incident: spillway help incident
A code, a reason or an alert: spillway help SPW0204, help identity_rate, help topics")]
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
    /// Is this installation as it should be, before it starts and while it runs?
    Check(check::Args),
    /// Play a telemetry storm without and with spillway, on this machine, no cluster needed
    Demo(demo::Args),
    /// Break a modelled apiserver on purpose, and see whether spillway keeps its promises
    Drill(drill::Args),
    /// Certificates for the emergency lane, and proof that it works
    BreakGlass(break_glass::Args),
    /// Is the record of who used the emergency lane whole?
    Audit(audit::Args),
    /// Play a scenario in virtual time, with this policy or another algorithm in front of a modelled apiserver
    Simulate(simulate::Args),
    /// Play audit logs through a policy: who would have been refused?
    Replay(replay::Args),
    /// The policy in force and those before it, a first configuration, the schema of any
    Config(config::Args),
    /// Print what an installation needs: static pod, kubeadm patch, systemd unit, configuration
    Manifest(manifest::Args),
    /// Show how the running proxy is, why, and what to do next
    Status(status::Args),
    /// Bring the policy into force step by step
    Rollout(rollout::Args),
    /// The live screen: who hurts most, who is refused most, and what can be done
    Top(top::Args),
    /// Open the same in a browser: who hurts, why, and what to do
    Dashboard(dashboard::Args),
    /// Show what happened lately
    Events(events::Args),
    /// Show who was never here before, and what it would cost on every node
    Newcomers(newcomers::Args),
    /// Why was this refused, and what would become of that request?
    Explain(explain::Args),
    /// Wait, and fail at once when kube-apiserver is not well: for roll-outs in phases
    Gate(gate::Args),
    /// Show requests as they are answered
    Tap(tap::Args),
    /// Collect a support bundle without secrets
    Sysdump(sysdump::Args),
    /// Contain one client now
    Isolate(isolate::Args),
    /// End an isolation
    Release(isolate::ReleaseArgs),
    /// Show what is isolated
    Isolations(isolate::ListArgs),
    /// Let only in what keeps the cluster alive
    Lockdown(lockdown::Args),
    /// Show, bound or fix the limit L
    Limit(limit::Args),
    /// Print a completion script for bash, zsh or fish
    Completion(shell::CompletionArgs),
    /// Print or write manual pages
    Man(shell::ManArgs),
    /// Print the version
    Version(shell::VersionArgs),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people: tables that fit a terminal.
    Table,
    /// For programs: one JSON object with everything.
    Json,
}

/// Runs the command line `arguments`, the program's name first.
pub fn dispatch(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() == 1 {
        return hello::run(out);
    }
    // clap's own help knows commands alone, and not what a code or an alert means.
    if arguments.get(1).is_some_and(|word| word == "help")
        && let Some(ending) = help::page(&arguments[2..], out, err)
    {
        return ending;
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // clap colours by itself, and knows that --help is not an error.
            let ending = if message.use_stderr() { Ending::Usage } else { Ending::Fine };
            // A closed terminal cannot be told anything.
            let _ = message.print();
            return ending;
        }
    };
    execute(cli.command, out, err)
}

/// Reads the command line. Called as `kubectl-spillway` it is a plugin, and its help says what is typed then.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let called = arguments.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    let mut command = Cli::command();
    if called.is_some_and(|name| name == "kubectl-spillway") {
        command = command.bin_name("kubectl spillway");
    }
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn execute(command: Command, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colour = if terminal { Colour::Always } else { Colour::Never };
    match command {
        Command::Run(args) => run::run(&args, out, err, colour),
        Command::Validate(args) => match validate::run(&args, out, err, colour) {
            Ok(validate::VALID) => Ending::Fine,
            Ok(_) => Ending::Config,
            // Its reader has closed the pipe: nobody is left to tell.
            Err(_) => Ending::Failed,
        },
        Command::Check(args) => check::run(&args, out, err, shown_colour()),
        Command::Demo(args) => demo::run(&args, out, err),
        Command::Drill(args) => drill::run(&args, out, err),
        Command::Audit(args) => audit::run(&args, out, err),
        Command::BreakGlass(args) => break_glass::run(&args, out, err),
        Command::Simulate(args) => simulate::run(&args, out, err, colour),
        Command::Config(args) => config::run(&args, out, err),
        Command::Manifest(args) => manifest::run(&args, out, err),
        Command::Replay(args) => replay::run(&args, out, err, colour),
        Command::Status(args) => status::run(&args, out, err, shown_colour()),
        Command::Rollout(args) => rollout::run(&args, out, err),
        Command::Top(args) => top::run(&args, out, err, shown_colour()),
        Command::Dashboard(args) => dashboard::run(&args, out, err),
        Command::Events(args) => events::run(&args, out, err),
        Command::Newcomers(args) => newcomers::run(&args, out, err),
        Command::Explain(args) => explain::run(&args, out, err),
        Command::Gate(args) => gate::run(&args, out, err),
        Command::Tap(args) => tap::run(&args, out, err),
        Command::Sysdump(args) => sysdump::run(&args, out, err),
        Command::Isolate(args) => isolate::run(&args, out, err),
        Command::Release(args) => isolate::release(&args, out, err),
        Command::Isolations(args) => isolate::list(&args, out, err),
        Command::Lockdown(args) => lockdown::run(&args, out, err),
        Command::Limit(args) => limit::run(&args, out, err),
        Command::Completion(args) => shell::completion(&args, out),
        Command::Man(args) => shell::man(&args, out, err),
        Command::Version(args) => shell::version(&args, out, err),
    }
}

/// Whether what is shown may have colours.
fn shown_colour() -> Colour {
    let terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if terminal { Colour::Always } else { Colour::Never }
}
