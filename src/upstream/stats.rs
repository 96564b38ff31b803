//! How many connections and streams towards the apiserver are there?
//!
//! Plain counters that the metrics side reads when it is scraped; nothing here decides anything. Totals only
//! grow, gauges are differences of totals so that one atomic addition is all an event costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// With which credential a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Via {
    /// With the front-proxy client certificate: identities are asserted in `X-Remote-*` headers.
    FrontProxy = 0,
    /// Without a client certificate: the client's own bearer token speaks for it.
    Bearer = 1,
    /// Without a client certificate, apart from everybody else: anonymous and unverifiable callers.
    Unverified = 2,
}

impl Via {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::FrontProxy, Self::Bearer, Self::Unverified];

    /// An index into per-credential tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A label for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FrontProxy => "front-proxy",
            Self::Bearer => "bearer",
            Self::Unverified => "unverified",
        }
    }
}

/// Counters of one shard's connections.
#[derive(Debug, Default)]
pub struct Stats {
    opened: [AtomicU64; Via::COUNT],
    closed: [AtomicU64; Via::COUNT],
    streams_taken: AtomicU64,
    streams_freed: AtomicU64,
    dial_failures: AtomicU64,
    handed_back: AtomicU64,
    waited: AtomicU64,
}

impl Stats {
    /// Connections whose TLS handshake succeeded, since the start.
    #[must_use]
    pub fn opened(&self, via: Via) -> u64 {
        self.opened[via.index()].load(Ordering::Relaxed)
    }

    /// Connections that ended, since the start.
    #[must_use]
    pub fn closed(&self, via: Via) -> u64 {
        self.closed[via.index()].load(Ordering::Relaxed)
    }

    /// Connections that are open now, those that only finish their last streams included.
    #[must_use]
    pub fn open(&self, via: Via) -> u64 {
        let closed = self.closed(via);
        self.opened(via).saturating_sub(closed)
    }

    /// Streams in use now.
    #[must_use]
    pub fn streams(&self) -> u64 {
        let freed = self.streams_freed.load(Ordering::Relaxed);
        self.streams_taken.load(Ordering::Relaxed).saturating_sub(freed)
    }

    /// Attempts to connect that failed, since the start.
    #[must_use]
    pub fn dial_failures(&self) -> u64 {
        self.dial_failures.load(Ordering::Relaxed)
    }

    /// Requests that came back unsent from a closing connection and went to another one, since the start.
    #[must_use]
    pub fn handed_back(&self) -> u64 {
        self.handed_back.load(Ordering::Relaxed)
    }

    /// Requests that had to wait for a stream, since the start.
    #[must_use]
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    pub(super) fn stream_taken(&self) {
        self.streams_taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_freed(&self) {
        self.streams_freed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dial_failed(&self) {
        self.dial_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_handed_back(&self) {
        self.handed_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_waited(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one connection from now until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    stats: Arc<Stats>,
    via: Via,
}

impl OpenConnection {
    pub(super) fn count(stats: &Arc<Stats>, via: Via) -> Self {
        stats.opened[via.index()].fetch_add(1, Ordering::Relaxed);
        Self { stats: Arc::clone(stats), via }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.closed[self.via.index()].fetch_add(1, Ordering::Relaxed);
    }
}
