//! `spillway break-glass drill`: would everything that an incident takes work here, today?
//!
//! The whole of `docs/INCIDENT.md` on a real installation, in its order: get in as a person, arm, see, patch, delete, look
//! into a pod, pull a lever and let go, and afterwards find all of it in the audit log. Nothing is changed: writes are
//! server-side dry runs, the lever names somebody who does not exist, the rest is read. What cannot be tried is said,
//! and is never called good.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::super::socket::Where;
use super::drill_report::{Report, untried};
use super::{Ending, Failure, Output, drill_lane, drill_node, print};
use crate::breakglass::write_public;

/// All steps, in their order. Those behind the first three need an answer of the lane.
pub(super) const STEPS: [&str; 21] = [
    "files", "connect", "tls", "arm", "identity", "rights", "nodes", "patch", "delete", "logs", "exec",
    "watch", "priority", "clock", "socket", "lever", "preview", "audit", "alert", "probe", "expiry",
];

/// Rehearses an incident on this installation without changing anything.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  sudo spillway break-glass drill --kubeconfig alice.kubeconfig --report drill.md
  sudo spillway break-glass drill --kubeconfig alice.kubeconfig --ticket GAME-7 --second bob.kubeconfig
  spillway break-glass drill --kubeconfig alice.kubeconfig \\
      --skip socket,lever,preview,audit,alert,probe,expiry              # from a laptop: the way in alone

Run it on a control-plane node, as root: the admin socket and the audit log are there. It patches and deletes with
dryRun=All, isolates a user that does not exist for a minute, and reads. It is a use of the lane: somebody is alerted.
Exit code 0: every step is good. 1: one failed or could not be tried; its line says what to do next.")]
pub(super) struct Args {
    /// The person's kubeconfig for the lane
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: PathBuf,
    /// Under which ticket the lane is armed, where it wants one
    #[arg(long, value_name = "ID", default_value = "DRILL")]
    pub(super) ticket: String,
    /// The second person's kubeconfig, where the lane wants two
    #[arg(long, value_name = "FILE")]
    pub(super) second: Option<PathBuf>,
    /// DaemonSet for the dry runs (default: the first there is, else one that is only made up)
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) daemonset: Option<String>,
    /// Pod whose log is read (default: the first that runs)
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) pod: Option<String>,
    /// Folder of the audit log
    #[arg(long, value_name = "DIR", default_value = "/var/lib/spillway")]
    pub(super) audit_dir: PathBuf,
    /// The audit log's public key (default: the one beside the log)
    #[arg(long, value_name = "FILE")]
    pub(super) public_key: Option<PathBuf>,
    /// The proxy's metrics listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10270")]
    pub(super) metrics: SocketAddr,
    /// Steps to leave out, by name
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(STEPS))]
    pub(super) skip: Vec<String>,
    /// Also write the report there, as Markdown; the file must not exist
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) at: Where,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

pub(super) fn drill(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(args.skip.clone());
    report.host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    // What the metrics say before somebody uses the lane, to see what that use changed.
    let before = runtime.block_on(drill_node::Page::read(args.metrics));
    let used = runtime.block_on(drill_lane::play(args, &mut report));
    // The socket's client has a runtime of its own.
    drill_node::levers(args, &mut report);
    runtime.block_on(drill_node::traces(args, &before, used.as_deref(), &mut report));
    for name in STEPS {
        if report.steps.iter().all(|step| step.name != name) && report.wants(name) {
            let next = "the first step that failed says what to do";
            report.found(name, untried("a step before it failed", next));
        }
    }
    let order = |name: &str| STEPS.iter().position(|step| *step == name);
    report.steps.sort_by_key(|step| order(step.name));
    if let Some(file) = &args.report {
        write_public(file, &report.markdown())?;
    }
    print(out, args.output, &report.json(), &report.text())?;
    Ok(if report.is_good() { Ending::Fine } else { Ending::Failed })
}

/// `NAMESPACE/NAME`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let part = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !text.is_empty() && text.len() <= 253 && text.chars().all(plain)
    };
    text.split_once('/')
        .filter(|(namespace, name)| part(namespace) && part(name))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| format!("{text:?} is not NAMESPACE/NAME"))
}

/// For how long the lane is armed, and the drill's lever would stay if it were not let go.
pub(super) const SHORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_as_kubectl_prints_it() {
        assert_eq!(pair("kube-system/node-agent"), Ok(("kube-system".to_owned(), "node-agent".to_owned())));
        for wrong in ["node-agent", "a/", "/b", "a/b?c", "a/../b"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }
}
