//! `spillway config show`: the policy in force, or one that was, as it was written.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Ending, findings, moment};
use crate::admin::wire_change::{ConfigView, PolicyView};
use crate::app::KeptPolicies;
use crate::cli::shown::{Output, for_programs, plain};
use crate::cli::socket::Where;
use crate::config::DEFAULT_POLICY_YAML;

/// Prints a policy as it was written. Can be redirected into a file.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config show
  spillway config show --generation 12 > /etc/spillway/policy.yaml
  spillway config show --state /var/lib/spillway        (no proxy has to run)

The text goes to standard output, what else there is to say to standard error.")]
pub(super) struct Args {
    /// One of before: spillway config history
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// Read a state folder instead of asking a running proxy
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// How it is printed; table is the YAML text
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let view = match &args.state {
        Some(folder) => match of_folder(folder, args.generation) {
            Ok(policy) => ConfigView { policy, ..ConfigView::default() },
            Err(message) => {
                let _ = writeln!(err, "error: {}", plain(&message));
                return Ending::Failed;
            }
        },
        None => {
            let query = args.generation.map_or_else(String::new, |number| format!("?generation={number}"));
            match args.at.get(&format!("/v1/config{query}")) {
                Ok(view) => view,
                Err(failure) => return failure.tell(err),
            }
        }
    };
    match for_programs(args.output, &view, out) {
        Ok(true) => return Ending::Fine,
        Ok(false) => {}
        Err(_) => return Ending::Failed,
    }
    let PolicyView { generation, hash, at, by, file, text } = &view.policy;
    let text = text.as_deref().unwrap_or(DEFAULT_POLICY_YAML);
    if write!(out, "{}{}", text, if text.ends_with('\n') { "" } else { "\n" }).is_err() {
        return Ending::Failed;
    }
    let _ =
        writeln!(err, "# policy {generation} ({hash}) of {}, {} ({})", plain(file), moment(*at), plain(by));
    findings(&view, err);
    Ending::Fine
}

fn of_folder(folder: &std::path::Path, generation: Option<u64>) -> Result<PolicyView, String> {
    let kept = KeptPolicies::read(folder)?;
    kept.policy(generation).ok_or_else(|| match generation {
        Some(generation) => {
            format!(
                "there is no policy {generation} in {}; try spillway config history --state",
                folder.display()
            )
        }
        None => format!("there is no policy in {}", folder.display()),
    })
}
