//! What do clients send that is worth counting, beside requests?
//!
//! What their connections were ended for, heads that were refused before anything else was looked at, and bytes through
//! tunnels. Labels come from closed sets of the callers.

use prometheus::{IntCounter, IntCounterVec};

use super::metrics::Register;
use super::overload::raise;

/// Which side of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelSide {
    /// Whoever asked for it.
    Client = 0,
    /// kube-apiserver, and what stands behind it.
    Apiserver = 1,
}

/// Counters of what clients send.
pub struct Clients {
    abuses: IntCounterVec,
    heads_refused: IntCounterVec,
    tunnelled: [IntCounter; 2],
}

impl Clients {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let tunnelled = register.counters("tunnel_bytes_total", "bytes through tunnels", &["from"])?;
        Ok(Self {
            abuses: register.counters(
                "connections_abusive_total",
                "client connections ended for what was sent on them",
                &["reason"],
            )?,
            heads_refused: register.counters(
                "heads_refused_total",
                "requests refused for the size of their heads, before anything else",
                &["reason"],
            )?,
            tunnelled: ["client", "apiserver"].map(|from| tunnelled.with_label_values(&[from])),
        })
    }

    /// Sets how many client connections were ended for what was sent on them, for one reason of a closed set.
    pub fn abusive_connections(&self, reason: &'static str, total: u64) {
        raise(&self.abuses.with_label_values(&[reason]), total);
    }

    /// Sets how many requests were refused for their heads, for one reason of a closed set.
    pub fn heads_refused(&self, reason: &'static str, total: u64) {
        raise(&self.heads_refused.with_label_values(&[reason]), total);
    }

    /// Counts bytes that came from one side of a tunnel.
    pub fn tunnelled(&self, from: TunnelSide, bytes: u64) {
        self.tunnelled[from as usize].inc_by(bytes);
    }
}
