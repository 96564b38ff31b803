//! What if a client stops reading its answer half-way?
//!
//! The apiserver has no write timeout: a reader that stands still would hold its stream, and the apiserver's work
//! for it, for ever. Nobody polls the body of such an answer, so it cannot look at a clock itself. A sweep over
//! all answers that came in more than one frame cuts those whose reader has owed the next poll for too long. An
//! answer that waits for the apiserver is never cut: its reader has asked.
//!
//! Watches are not swept; their silence is normal, and their windows bound what they can pin.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::body::BodyError;
use super::connection::Slot;

/// An answer is cut between the limit and a quarter more.
const SWEEPS_PER_LIMIT: u32 = 4;

/// What the caller wants to be done when its answer is cut, for instance to give back a permit.
pub(super) type Release = Box<dyn FnOnce() + Send>;

/// All answers of one shard that may stall.
pub(super) struct Sweeper {
    /// Bounded by the streams of all pools; entries of ended answers leave at the next sweep.
    answers: Mutex<Vec<Weak<Watched>>>,
    limit: Duration,
}

impl Sweeper {
    /// A sweeper with its task on the current tokio runtime; the task ends with the sweeper.
    pub(super) fn spawn(limit: Duration) -> Arc<Self> {
        let sweeper = Arc::new(Self { answers: Mutex::default(), limit });
        tokio::spawn(sweep(Arc::downgrade(&sweeper), limit / SWEEPS_PER_LIMIT));
        sweeper
    }

    /// Watches over an answer whose first frame has just been handed out.
    pub(super) fn watch(
        &self,
        incoming: Incoming,
        slot: Option<Arc<Slot>>,
        release: Option<Release>,
    ) -> Arc<Watched> {
        let answer = Answer { incoming: Some(incoming), slot, owing: true, sweeps: 0, release };
        let watched = Arc::new(Watched { answer: Mutex::new(answer), limit: self.limit });
        self.answers.lock().push(Arc::downgrade(&watched));
        watched
    }

    fn sweep(&self) {
        let mut stalled = Vec::new();
        self.answers.lock().retain(|answer| match answer.upgrade() {
            None => false,
            Some(watched) if watched.is_stalled() => {
                stalled.push(watched);
                false
            }
            Some(_) => true,
        });
        // Outside the lock: this frees streams and calls strangers.
        for watched in stalled {
            watched.cut();
        }
    }
}

async fn sweep(sweeper: Weak<Sweeper>, period: Duration) {
    // A zero limit would mean no patience at all; a timer cannot express it.
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        let Some(sweeper) = sweeper.upgrade() else { return };
        sweeper.sweep();
    }
}

/// An answer that is watched over.
pub(super) struct Watched {
    answer: Mutex<Answer>,
    limit: Duration,
}

struct Answer {
    /// `None` once cut.
    incoming: Option<Incoming>,
    slot: Option<Arc<Slot>>,
    /// The reader has been given a frame and has not asked for the next one.
    owing: bool,
    /// Sweeps since then.
    sweeps: u32,
    release: Option<Release>,
}

impl Watched {
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut answer = self.answer.lock();
        let Some(incoming) = &mut answer.incoming else {
            return Poll::Ready(Some(Err(BodyError::NotRead(self.limit))));
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = matches!(polled, Poll::Ready(None)) || incoming.is_end_stream();
        answer.owing = polled.is_ready();
        answer.sweeps = 0;
        let finished = if ended { answer.slot.take() } else { None };
        drop(answer);
        if let Some(slot) = finished {
            slot.response_ended();
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.answer.lock().incoming.as_ref().is_some_and(Incoming::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.answer.lock().incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }

    pub(super) fn when_stalled(&self, release: Release) {
        self.answer.lock().release = Some(release);
    }

    /// Counts one sweep; true when that was one too many.
    fn is_stalled(&self) -> bool {
        let mut answer = self.answer.lock();
        if !answer.owing || answer.slot.is_none() {
            return false;
        }
        answer.sweeps += 1;
        answer.sweeps > SWEEPS_PER_LIMIT
    }

    fn cut(&self) {
        let mut answer = self.answer.lock();
        // The stream is reset before its place is given away.
        let (incoming, slot, release) = (answer.incoming.take(), answer.slot.take(), answer.release.take());
        drop(answer);
        drop(incoming);
        drop(slot);
        if let Some(release) = release {
            release();
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}
