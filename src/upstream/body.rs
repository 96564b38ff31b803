//! What carries a request's and a response's body between the two sides?
//!
//! Frames pass through as they come, trailers included; nothing is collected. Each body holds a share of the
//! stream it travels on, so that the stream counts as used until both directions have ended, and dropping a
//! response body early resets the stream towards the apiserver. A request body that stands still is cut off:
//! without that limit a client could hold a stream for ever by never finishing its upload.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::connection::Slot;

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
}

/// The body of a request on its way to the apiserver.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
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
        Self { source: Source::Fixed(None), stall: None, slot: None }
    }

    /// A body that is known already.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self { source: Source::Fixed(Some(bytes).filter(|bytes| !bytes.is_empty())), stall: None, slot: None }
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
        Self { source: Source::Incoming(incoming), stall: None, slot: None }
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
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
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

/// The body of the apiserver's answer. Holds its stream until it ends or is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    // Before the slot: the stream must be reset before somebody else may count on its place.
    incoming: Incoming,
    slot: Option<Arc<Slot>>,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, slot: Option<Arc<Slot>>) -> Self {
        let mut body = Self { incoming, slot };
        body.free_if_ended();
        body
    }

    fn free_if_ended(&mut self) {
        if self.incoming.is_end_stream() {
            self.free();
        }
    }

    /// The body has ended as it should: the connection can be used again.
    fn free(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.response_ended();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match &frame {
            // Whoever sends this on may ask `is_end_stream` instead of polling once more.
            Some(Ok(_)) => this.free_if_ended(),
            None => this.free(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
