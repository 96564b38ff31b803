//! Is a client still using its connection, and until when may it stay silent?
//!
//! Requests, ends of answers and read bytes leave marks; the connection's task asks for the one deadline that
//! applies now. hyper's own header timeout is not used, because it also counts the pause between two
//! requests, where a kept-alive connection may rest for minutes; and neither hyper nor h2 limits the time to
//! the first request.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Protocol;
use super::settings::Deadlines;

/// No head is being read.
const NO_HEAD: u64 = u64::MAX;

/// The marks of one connection. Times are nanoseconds since `start`.
pub(super) struct Activity {
    start: Instant,
    any_request: AtomicBool,
    running: AtomicUsize,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    /// HTTP/2: a header block has begun and not ended.
    block_since: AtomicU64,
    switched: AtomicBool,
    /// Answers over HTTP/2 whose next bytes wait for the client, not for us.
    unread: AtomicUsize,
}

/// Answers that a client may leave unread when it goes. Someone whose process is killed while it reads leaves a few, and
/// then comes back over a connection or two, which is not too many for an offender either ([`super::offenders`]).
const UNREAD_MAX: usize = 8;

/// Which silence a deadline ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// No request yet, or half a head.
    Request,
    /// Nothing at all.
    Idle,
}

impl Activity {
    /// The connection can carry requests from now on.
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            any_request: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NO_HEAD),
            block_since: AtomicU64::new(NO_HEAD),
            switched: AtomicBool::new(false),
            unread: AtomicUsize::new(0),
        }
    }

    /// Both sides speak another protocol from now on.
    pub(super) fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    /// An answer has bytes that its client does not take yet.
    pub(super) fn answer_waits(&self) {
        self.unread.fetch_add(1, Ordering::Relaxed);
    }

    /// It took them, or nobody will.
    pub(super) fn answer_goes_on(&self) {
        self.unread.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the client leaves more answers unread than anybody does who means to read them.
    pub(super) fn leaves_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed) >= UNREAD_MAX
    }

    /// Whether a header block is unfinished, which it must not be for long: h2 waits for its end for ever, whatever
    /// else runs on the connection.
    pub(super) fn block_unfinished(&self, unfinished: bool) {
        let known = self.block_since.load(Ordering::Relaxed) != NO_HEAD;
        if unfinished != known {
            let since = if unfinished { self.elapsed() } else { NO_HEAD };
            self.block_since.store(since, Ordering::Relaxed);
        }
    }

    pub(super) fn request_began(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NO_HEAD, Ordering::Relaxed);
        self.any_request.store(true, Ordering::Relaxed);
    }

    pub(super) fn request_ended(&self) {
        self.idle_since.store(self.elapsed(), Ordering::Relaxed);
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes came in; while nothing runs they are the beginning of a head. Half a head that came together
    /// with the previous request is not seen: that connection ends with the idle time.
    pub(super) fn bytes_read(&self) {
        if self.running.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == NO_HEAD {
            self.head_since.store(self.elapsed(), Ordering::Relaxed);
        }
    }

    /// When the connection must be given up unless something happens; `None` while requests run.
    pub(super) fn deadline(&self, protocol: Protocol, deadlines: &Deadlines) -> Option<(Instant, Silence)> {
        let block_since = self.block_since.load(Ordering::Relaxed);
        if block_since != NO_HEAD {
            return Some((self.at(block_since) + deadlines.headers, Silence::Request));
        }
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if !self.any_request.load(Ordering::Relaxed) {
            return Some((self.start + deadlines.first_request, Silence::Request));
        }
        // On HTTP/2 bytes without a request are mostly PINGs.
        let head_since = self.head_since.load(Ordering::Relaxed);
        if protocol == Protocol::Http1 && head_since != NO_HEAD {
            return Some((self.at(head_since) + deadlines.headers, Silence::Request));
        }
        let idle_since = self.idle_since.load(Ordering::Relaxed);
        Some((self.at(idle_since) + deadlines.idle, Silence::Idle))
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(NO_HEAD - 1)
    }

    fn at(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::server::Settings;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline() {
        let deadlines = Settings::default().deadlines;
        let start = Instant::now();
        let activity = Activity::new();
        let deadline = || activity.deadline(Protocol::Http1, &deadlines);
        assert_eq!(deadline(), Some((start + SECOND * 10, Silence::Request)));

        activity.bytes_read();
        advance(SECOND).await;
        assert_eq!(deadline(), Some((start + SECOND * 10, Silence::Request)), "trickling does not extend it");

        activity.request_began();
        assert_eq!(deadline(), None);
        activity.bytes_read();
        activity.request_ended();
        assert_eq!(deadline(), Some((start + SECOND * 121, Silence::Idle)), "body bytes are not a head");

        advance(SECOND * 50).await;
        activity.bytes_read();
        advance(SECOND).await;
        activity.bytes_read();
        assert_eq!(deadline(), Some((start + SECOND * 61, Silence::Request)));
        let http2 = activity.deadline(Protocol::Http2, &deadlines);
        assert_eq!(http2, Some((start + SECOND * 121, Silence::Idle)), "a PING is not a head");

        let http2 = || activity.deadline(Protocol::Http2, &deadlines);
        activity.request_began();
        activity.block_unfinished(true);
        advance(SECOND).await;
        activity.block_unfinished(true);
        assert_eq!(http2(), Some((start + SECOND * 62, Silence::Request)), "whatever else runs");
        activity.block_unfinished(false);
        assert_eq!(http2(), None);
    }
}
