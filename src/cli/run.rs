//! `spillway run`: start the proxy and keep it until it is told to stop.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Ending;
use crate::app;
use crate::config::{self, Colour};
use crate::telemetry;

/// Starts the proxy. Every bound address is printed; SIGTERM and SIGINT drain it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway run --config /etc/spillway/spillway.yaml
  spillway run --config spillway.yaml --policy policy.yaml

Without --policy the embedded default policy is used. On SIGTERM new connections are refused, watches end spread over
drain.gracePeriod, and the process exits 0. Exit code 3: the configuration is wrong, nothing was started.")]
pub struct Args {
    /// ProxyConfiguration file (may also hold the TrafficPolicy)
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// TrafficPolicy file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// Runs until a signal ends it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    let files: Vec<PathBuf> = args.config.iter().chain(&args.policy).cloned().collect();
    let loaded = match config::load(&files) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            // A closed standard error cannot be told anything; the exit code still says it.
            let _ = write!(err, "{}", config::human(&diagnostics, colour));
            return Ending::Config;
        }
    };
    let _ = write!(err, "{}", config::human(&loaded.warnings, colour));
    let Some(proxy) = &loaded.proxy else {
        let _ = writeln!(
            err,
            "error: no ProxyConfiguration in {}; config/spillway.yaml is an example",
            names(&files)
        );
        return Ending::Config;
    };
    let log = telemetry::install_log(app::log_format(proxy.logging.format), proxy.logging.level.as_str());
    let running = match app::start(proxy, &loaded.policy) {
        Ok(running) => running,
        Err(error) => {
            // What was logged on the way is read before the reason.
            drop(log);
            let _ = writeln!(err, "error: {}", app::chain(&error));
            return Ending::Config;
        }
    };
    let _ = write!(out, "{}", running.addresses());
    let _ = out.flush();
    match running.until_signal() {
        Ok(()) => Ending::Fine,
        Err(error) => {
            let _ = writeln!(err, "error: {}", app::chain(&error));
            Ending::Failed
        }
    }
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
