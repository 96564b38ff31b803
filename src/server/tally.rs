//! What happened to connections, in numbers?
//!
//! Counters that the listeners write and the metrics read. Closed set, no labels from clients.

use std::sync::atomic::{AtomicU64, Ordering};

use super::abuse::Abuse;

/// Monotonic counters of one server.
#[derive(Debug, Default)]
pub struct Tally {
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_source: AtomicU64,
    pub(super) refused_user: AtomicU64,
    pub(super) refused_offender: AtomicU64,
    pub(super) accept_failed: AtomicU64,
    pub(super) late_first_byte: AtomicU64,
    pub(super) late_handshake: AtomicU64,
    pub(super) failed_handshake: AtomicU64,
    pub(super) late_request: AtomicU64,
    pub(super) idle: AtomicU64,
    pub(super) cut_off: AtomicU64,
    pub(super) too_many_fields: AtomicU64,
    pub(super) heads_refused: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) abuses: [AtomicU64; Abuse::COUNT],
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Sockets accepted and within the caps.
    pub accepted: u64,
    /// Of these, the ones that have ended; the difference is what is open.
    pub closed: u64,
    /// Refused because the listener was full.
    pub refused_full: u64,
    /// Refused because one source address held too many.
    pub refused_source: u64,
    /// Closed after the handshake because the certificate's user held too many.
    pub refused_user: u64,
    /// Closed before the handshake because connections of their source were ended for abuse lately.
    pub refused_offender: u64,
    /// `accept` itself failed: most likely out of file descriptors.
    pub accept_failed: u64,
    /// Closed for not sending a first byte in time.
    pub late_first_byte: u64,
    /// Closed for not finishing the handshake in time.
    pub late_handshake: u64,
    /// Handshakes that failed.
    pub failed_handshake: u64,
    /// Closed for not sending a first request, or the rest of a head, in time.
    pub late_request: u64,
    /// Closed for being idle.
    pub idle: u64,
    /// Cut off at the end of the drain.
    pub cut_off: u64,
    /// Requests refused with 431 for their number of header fields.
    pub too_many_fields: u64,
    /// Requests refused with 429 because the heads of others hold as much memory as they may.
    pub heads_refused: u64,
    /// Requests answered with 500 because their handler panicked.
    pub panicked: u64,
    /// Connections ended for what their client sent, by [`Abuse::index`].
    pub abuses: [u64; Abuse::COUNT],
}

impl Tally {
    /// Reads all counters, each by itself: they may be a few events apart.
    #[must_use]
    pub fn snapshot(&self) -> TallySnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TallySnapshot {
            accepted: read(&self.accepted),
            closed: read(&self.closed),
            refused_full: read(&self.refused_full),
            refused_source: read(&self.refused_source),
            refused_user: read(&self.refused_user),
            refused_offender: read(&self.refused_offender),
            accept_failed: read(&self.accept_failed),
            late_first_byte: read(&self.late_first_byte),
            late_handshake: read(&self.late_handshake),
            failed_handshake: read(&self.failed_handshake),
            late_request: read(&self.late_request),
            idle: read(&self.idle),
            cut_off: read(&self.cut_off),
            too_many_fields: read(&self.too_many_fields),
            heads_refused: read(&self.heads_refused),
            panicked: read(&self.panicked),
            abuses: std::array::from_fn(|place| read(&self.abuses[place])),
        }
    }
}

impl TallySnapshot {
    /// Connections that are open now.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.accepted.saturating_sub(self.closed)
    }

    /// Connections that the server refused or ended, by why: a closed set of words for metrics.
    #[must_use]
    pub const fn ended(&self) -> [(&'static str, u64); 11] {
        [
            ("full", self.refused_full),
            ("source", self.refused_source),
            ("user", self.refused_user),
            ("offender", self.refused_offender),
            ("accept", self.accept_failed),
            ("first_byte", self.late_first_byte),
            ("handshake", self.late_handshake),
            ("handshake_failed", self.failed_handshake),
            ("request", self.late_request),
            ("idle", self.idle),
            ("drained", self.cut_off),
        ]
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
