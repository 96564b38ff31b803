//! `spillway` alone: how is this machine, and what would somebody type next?

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ending;
use super::isolate::ended;
use super::shown::wrapped;
use super::socket::Where;
use crate::admin::wire::Status;
use crate::config::Admin;

/// Longer than a busy proxy takes, shorter than somebody waits for a screen of help.
const WITHIN: Duration = Duration::from_secs(2);
/// What a control-plane node of kubeadm has.
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// Asks the proxy of this machine, if there is one, and names three commands.
pub(super) fn run(out: &mut dyn Write) -> Ending {
    let at = Where::socket(PathBuf::from(Admin::SOCKET), WITHIN);
    let status: Option<Status> = at.get("/v1/status").ok();
    ended(print(status.as_ref(), Path::new(MANIFEST).exists(), out))
}

fn print(status: Option<&Status>, is_control_plane: bool, out: &mut dyn Write) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let next: [(&str, &str); 3] = match status {
        Some(status) => {
            let text = format!(
                "spillway {} runs here, state {}: {}",
                status.version, status.state, status.diagnosis
            );
            writeln!(out, "{}", wrapped(&text, "  "))?;
            match status.state.as_str() {
                "normal" => [
                    ("spillway status", "lanes, seats, who is refused"),
                    ("spillway check", "is everything as it should be?"),
                    ("spillway top", "who asks most"),
                ],
                _ => [
                    ("spillway status", "the culprit, and the command against it"),
                    ("spillway explain", "why requests are refused"),
                    ("spillway help incident", "one page for three in the morning"),
                ],
            }
        }
        None if is_control_plane => {
            writeln!(out, "spillway {version}; none answers here, beside a kube-apiserver")?;
            [
                ("spillway check --pre", "what is missing before it can start"),
                ("spillway config init --from-kubeadm", "a first configuration"),
                ("spillway help install", "step by step, with the way back"),
            ]
        }
        None => {
            writeln!(out, "spillway {version}; none answers here")?;
            [
                ("spillway demo", "a storm with and without it, on this machine"),
                ("spillway replay --help", "what would it have done with your audit logs?"),
                ("spillway help install", "step by step, with the way back"),
            ]
        }
    };
    for (command, what) in next {
        writeln!(out, "  → {command:<37} {what}")?;
    }
    writeln!(out, "All commands: spillway --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_machine_gets_its_golden_text() {
        let status = |state: &str, diagnosis: &str| Status {
            version: "0.1.0".into(),
            state: state.into(),
            diagnosis: diagnosis.into(),
            ..Status::default()
        };
        let mut out = Vec::new();
        let brown =
            status("brown", "system:serviceaccount:obs:node-agent takes 94 % of the work: LISTs of all pods");
        print(Some(&status("normal", "nothing presses kube-apiserver")), true, &mut out).unwrap();
        print(Some(&brown), true, &mut out).unwrap();
        print(None, true, &mut out).unwrap();
        print(None, false, &mut out).unwrap();
        super::super::golden::compare("hello", &String::from_utf8(out).unwrap());
    }
}
