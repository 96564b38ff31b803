//! What do clients send that is worth counting, beside requests?
//!
//! What their connections were ended for, heads that were refused before anything else was looked at, and bytes through
//! tunnels. Labels come from closed sets of the callers.

use prometheus::{IntCounter, IntCounterVec};

use super::overload::raise;
use super::register::Register;

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
        let tunnelled = register.counters(
            "tunnel_bytes_total",
            "bytes through exec, attach, port-forward and WebSockets, by who sent them: `client`, \
                 `apiserver`",
            &["from"],
        )?;
        Ok(Self {
            abuses: register.counters(
                "connections_abusive_total",
                "client connections ended for what was sent on them: `framing` (HTTP/1.1 that can be read \
                 in two ways), floods of `pings settings resets window_updates priorities tiny_frames \
                 unknown_frames`, heads with too many `header_fields`, `header_bytes` or `continuations`, \
                 `unread` (gone with eight or more answers that it had asked for over HTTP/2 and left \
                 unread), and `stream_errors`, `protocol`",
                &["reason"],
            )?,
            heads_refused: register.counters(
                "heads_refused_total",
                "requests refused for their head: more `fields` than `limits.headerFields` (431), or the \
                 heads of unanswered requests hold as much `memory` as they may (429)",
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
