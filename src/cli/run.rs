//! `spillway run`: start the proxy and keep it until it is told to stop.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Ending;
use crate::admin::wire_change::PolicyView;
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
drain.gracePeriod, and the process exits 0. Exit code 3: the configuration is wrong, nothing was started.
While it runs, a changed TrafficPolicy takes effect within seconds, or at once on SIGHUP; one that is broken changes
nothing. What was in force: spillway config history; back: spillway config rollback.")]
pub struct Args {
    /// ProxyConfiguration file (may also hold the TrafficPolicy)
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// TrafficPolicy file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// When the policy is broken, start with the one that was in force last (kept in state.dir)
    #[arg(long)]
    last_good: bool,
}

/// Runs until a signal ends it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    let files: Vec<PathBuf> = args.config.iter().chain(&args.policy).cloned().collect();
    let loaded = match config::load(&files) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            // A closed standard error cannot be told anything; the exit code still says it.
            let _ = write!(err, "{}", config::human(&diagnostics, colour));
            match instead(args, &files, err) {
                Some(loaded) => loaded,
                None => return Ending::Config,
            }
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
    let origin = app::Origin { files, policy_text: loaded.policy_text.clone() };
    let running = match app::start_from(proxy, &loaded.policy, origin) {
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

/// What to start with although a file is broken, if that is wanted; else how to.
fn instead(args: &Args, files: &[PathBuf], err: &mut dyn Write) -> Option<config::Loaded> {
    let (loaded, kept) = app::last_good(files)?;
    let state = loaded.proxy.as_ref()?.state.as_ref()?.dir.display();
    let PolicyView { generation, file, .. } = kept;
    if args.last_good {
        let _ = writeln!(
            err,
            "warning: starting with policy {generation} ({file}), the last that was in force; the files are followed,\n\
             and taken as soon as they can be used"
        );
        return Some(loaded);
    }
    let _ = writeln!(
        err,
        "note: nothing was started. Policy {generation} ({file}) was in force last and is kept in {state}\n  \
         start with it now:  spillway run … --last-good\n  \
         write it back:      spillway config show --state {state} --generation {generation} > {file}"
    );
    None
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
