//! How is the spillway that runs here?

use super::{Found, Situation, either};
use crate::admin::wire::Status;

fn status(situation: &Situation) -> Result<&Status, Found> {
    match &situation.status {
        Some(Ok(status)) => Ok(status),
        _ => Err(Found::skip("nobody answers", "see SPW-RUN-001")),
    }
}

/// Does it answer at its socket?
pub(super) fn answers(situation: &Situation) -> Found {
    let socket = situation.socket.display();
    match &situation.status {
        Some(Ok(status)) if status.version == env!("CARGO_PKG_VERSION") => {
            Found::ok(format!("version {} at {socket}", status.version))
        }
        Some(Ok(status)) => Found::warn(
            format!("version {} runs, and this is {}", status.version, env!("CARGO_PKG_VERSION")),
            "use the command line of the same version, or restart spillway",
        ),
        Some(Err(why)) => Found::fail(
            why.clone(),
            "crictl ps -a --name spillway; systemctl status spillway; before the start: --pre",
        ),
        None => Found::skip("it was not asked", "leave --pre out"),
    }
}

/// Shall clients be sent here, and is kube-apiserver behind it?
pub(super) fn ready(situation: &Situation) -> Found {
    either((|| {
        let status = status(situation)?;
        Ok(match (status.ready, status.upstream_up) {
            (true, true) => {
                Found::ok(format!("ready, kube-apiserver answers, up for {} s", status.uptime_seconds))
            }
            (true, false) => Found::fail(
                "ready, and kube-apiserver does not answer its probes",
                "look at kube-apiserver: crictl ps -a --name kube-apiserver; curl -k https://127.0.0.1:6443/livez",
            ),
            (false, _) => Found::fail(
                "not ready: it starts or drains",
                "spillway status; wait with spillway check --wait 2m",
            ),
        })
    })())
}

/// Is anything shed?
pub(super) fn calm(situation: &Situation) -> Found {
    either((|| {
        let status = status(situation)?;
        if status.state == "normal" {
            return Ok(Found::ok(format!(
                "state normal, L {}, pressure {:.2}",
                status.limit, status.pressure
            )));
        }
        Ok(Found::warn(
            format!("state {}, {:.1}/s refused: {}", status.state, status.shed_per_second, status.diagnosis),
            "spillway status names the culprit; spillway help incident",
        ))
    })())
}

/// Would a restart forget what was pulled?
pub(super) fn levers_survive(situation: &Situation) -> Found {
    either((|| {
        let status = status(situation)?;
        if status.kept.on_disk {
            return Ok(Found::ok("levers are kept in the state folder"));
        }
        Ok(Found::warn(
            format!("levers would not survive a restart: {}", status.kept.problem),
            "spillway help SPW0551",
        ))
    })())
}

/// Is something in force by hand that somebody may have forgotten?
pub(super) fn nothing_by_hand(situation: &Situation) -> Found {
    either((|| {
        let status = status(situation)?;
        let mut force: Vec<String> = status
            .isolations
            .iter()
            .map(|isolation| format!("{} of {} {}", isolation.id, isolation.kind, isolation.name))
            .collect();
        force.extend(status.lockdown.as_ref().map(|lever| format!("lockdown ({})", lever.reason)));
        force.extend(status.held.as_ref().map(|lever| format!("L held: {} ({})", lever.what, lever.reason)));
        if force.is_empty() {
            return Ok(Found::ok("no isolation, no lockdown, L is free"));
        }
        Ok(Found::warn(
            format!("in force by hand: {}", force.join("; ")),
            "spillway isolations; spillway release ID",
        ))
    })())
}
