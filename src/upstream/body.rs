//! What carries a request's and a response's body between the two sides?
//!
//! Frames pass through as they come, trailers included; nothing is collected. Each body holds a share of the
//! stream it travels on, so that the stream counts as used until both directions have ended, and dropping a
//! response body early resets the stream towards the apiserver. A request body that stands still is cut off, and
//! so is an answer that is not read: without these limits a client could hold a stream for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::connection::Slot;
use super::stall::{Release, Sweeper, Watched};

/// A body that ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The client's connection failed while it sent its request body.
    #[error("the client stopped sending its request body")]
    Client(#[source] hyper::Error),
    /// The client sent nothing for this long.
    #[error("the client's request body stood still for {} s: send it faster or split it", .0.as_secs())]
    Stalled(Duration),
    /// The apiserver's connection failed while it sent its response body.
    #[error("the apiserver's response body ended early")]
    Upstream(#[source] hyper::Error),
    /// The answer was not read for this long, and was given up.
    #[error("the answer was not read for {} s: read it faster or ask for less with limit", .0.as_secs())]
    NotRead(Duration),
}

/// The body of a request on its way to the apiserver.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    /// Which trailer fields pass; all of them where nothing is said.
    trailers: Option<fn(&HeaderName) -> bool>,
    stall: Option<Stall>,
    slot: Option<Arc<Slot>>,
}

#[derive(Debug)]
enum Source {
    Incoming(Incoming),
    Fixed(Option<Bytes>),
}

#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// Armed while we wait for the client.
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { source: Source::Fixed(None), trailers: None, stall: None, slot: None }
    }

    /// A body that is known already.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        let source = Source::Fixed(Some(bytes).filter(|bytes| !bytes.is_empty()));
        Self { source, trailers: None, stall: None, slot: None }
    }

    /// Only trailer fields that `passes` names go on.
    #[must_use]
    pub fn with_trailers(mut self, passes: fn(&HeaderName) -> bool) -> Self {
        self.trailers = Some(passes);
        self
    }

    /// Fails with [`BodyError::Stalled`] when the client sends nothing for `limit`.
    pub(super) fn stall_after(&mut self, limit: Duration) {
        self.stall = Some(Stall { limit, timer: None });
    }

    /// Ties the body to the stream it travels on; `None` when the request came back unsent.
    pub(super) fn travel_on(&mut self, slot: Option<Arc<Slot>>) {
        self.slot = slot;
    }

    fn failed(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(slot) = self.slot.take() {
            slot.request_failed();
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self { source: Source::Incoming(incoming), trailers: None, stall: None, slot: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let incoming = match &mut this.source {
            Source::Fixed(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Incoming(incoming) => incoming,
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => this.failed(BodyError::Client(error)),
            Poll::Ready(frame) => {
                if let Some(stall) = &mut this.stall {
                    stall.timer = None;
                }
                let trailers = this.trailers;
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(match trailers {
                        Some(passes) => passing(frame, passes),
                        None => frame,
                    }),
                    Err(error) => Err(BodyError::Client(error)),
                }))
            }
            Poll::Pending => {
                let Some(stall) = &mut this.stall else { return Poll::Pending };
                let limit = stall.limit;
                let timer = stall.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(timer.as_mut().poll(cx));
                this.failed(BodyError::Stalled(limit))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Incoming(incoming) => incoming.is_end_stream(),
            Source::Fixed(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Incoming(incoming) => incoming.size_hint(),
            Source::Fixed(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

/// The frame, with only those trailers that pass.
fn passing(frame: Frame<Bytes>, passes: fn(&HeaderName) -> bool) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => {
            let kept = trailers.iter().filter(|(name, _)| passes(name));
            Frame::trailers(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        Err(other) => other,
    }
}

/// The body of the apiserver's answer. Holds its stream until it ends or is dropped.
#[derive(Debug)]
pub struct ResponseBody(Flow);

enum Flow {
    Direct {
        // Before the slot: the stream must be reset before somebody else may count on its place.
        incoming: Incoming,
        slot: Option<Arc<Slot>>,
        sweeper: Option<Arc<Sweeper>>,
        release: Option<Release>,
    },
    /// An answer of several frames whose reader must keep up.
    Watched(Arc<Watched>),
    /// Between two of the above; never seen.
    Moving,
}

impl ResponseBody {
    /// With a `sweeper`, an answer that is not read for too long is cut.
    pub(super) fn new(incoming: Incoming, slot: Option<Arc<Slot>>, sweeper: Option<Arc<Sweeper>>) -> Self {
        let slot = if incoming.is_end_stream() { ended(slot) } else { slot };
        Self(Flow::Direct { incoming, slot, sweeper, release: None })
    }

    /// Calls `release` when the answer of a short request is given up because nobody reads it. Only then: an
    /// answer that ends or is dropped is known to its owner.
    pub fn when_stalled(&mut self, release: impl FnOnce() + Send + 'static) {
        match &mut self.0 {
            Flow::Direct { release: place, .. } => *place = Some(Box::new(release)),
            Flow::Watched(watched) => watched.when_stalled(Box::new(release)),
            Flow::Moving => {}
        }
    }

    /// More than one frame: from now on somebody else must notice if the reader stands still.
    fn watch(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, Flow::Moving) {
            Flow::Direct { incoming, slot, sweeper: Some(sweeper), release } => {
                Flow::Watched(sweeper.watch(incoming, slot, release))
            }
            other => other,
        };
    }
}

/// The response has been read to its end, so its connection can be used again.
fn ended(slot: Option<Arc<Slot>>) -> Option<Arc<Slot>> {
    if let Some(slot) = slot {
        slot.response_ended();
    }
    None
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, slot) = match &mut self.0 {
            Flow::Direct { incoming, slot, .. } => (incoming, slot),
            Flow::Watched(watched) => return watched.poll_frame(cx),
            Flow::Moving => return Poll::Ready(None),
        };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        // Whoever sends this on may ask `is_end_stream` instead of polling once more.
        if frame.is_none() || incoming.is_end_stream() {
            *slot = ended(slot.take());
        } else if matches!(frame, Some(Ok(_))) {
            self.watch();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Flow::Direct { incoming, .. } => incoming.is_end_stream(),
            Flow::Watched(watched) => watched.is_end_stream(),
            Flow::Moving => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Flow::Direct { incoming, .. } => incoming.size_hint(),
            Flow::Watched(watched) => watched.size_hint(),
            Flow::Moving => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct { .. } => "Direct",
            Self::Watched(_) => "Watched",
            Self::Moving => "Moving",
        })
    }
}
