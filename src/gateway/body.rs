//! How long does an answer hold its turn?
//!
//! Frames pass through as they come: nothing is buffered, so a slow client slows only its own stream. The permit
//! lives in the body, because the body is what hyper drops when a client resets, a connection dies or a task
//! panics: in every one of these cases the seats come back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::turn::Turn;
use crate::flow::End;
use crate::server::{BodyError, Moment};
use crate::upstream::ResponseBody;

/// The body of an answer: either our own few bytes or what the apiserver sends.
pub(super) struct Body(Inner);

enum Inner {
    Full(Option<Bytes>),
    Flowing(Box<Flowing>),
}

/// An answer on its way from the apiserver to the client.
pub(super) struct Flowing {
    body: ResponseBody,
    /// The seats. Given back when the body ends, when it is dropped, or when nobody reads it for too long.
    turn: Arc<Mutex<Option<Turn>>>,
    /// What the end of this answer tells the estimates.
    end: End,
    /// A watch: gives its seats back after its first burst, and is ended by us when the process drains.
    watch: Option<Watching>,
    bytes: u64,
}

/// What only watches have.
pub(super) struct Watching {
    /// The first burst is over.
    pub(super) quiet: bool,
    /// Resolves when this stream shall end because the process drains.
    pub(super) drained: Moment,
}

impl Body {
    /// A body of our own.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self(Inner::Full(Some(bytes)))
    }

    /// A body from the apiserver.
    pub(super) fn flowing(flowing: Flowing) -> Self {
        Self(Inner::Flowing(Box::new(flowing)))
    }
}

impl Flowing {
    /// `body` holds `turn` until it ends; `end` is what its end says about the apiserver.
    pub(super) fn new(mut body: ResponseBody, turn: Turn, end: End, watch: Option<Watching>) -> Self {
        let turn = Arc::new(Mutex::new(Some(turn)));
        if !body.is_end_stream() {
            // A client that stops reading keeps its own stream, but not seats that others wait for.
            let held = Arc::clone(&turn);
            body.when_stalled(move || drop(held.lock().take()));
        }
        Self { body, turn, end, watch, bytes: 0 }
    }

    fn finished(&mut self) {
        let turn = self.turn.lock().take();
        if let Some(turn) = turn {
            turn.finish(self.end, self.bytes);
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(watch) = &mut self.watch
            && Pin::new(&mut watch.drained).poll(context).is_ready()
        {
            // A clean end of stream: the client resumes from the last resourceVersion it saw.
            self.finished();
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context).map_err(BodyError::from);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.body.is_end_stream() {
                    self.finished();
                }
            }
            Poll::Ready(None) => self.finished(),
            Poll::Ready(Some(Err(_))) => {
                self.end = End::Dropped;
                self.finished();
            }
            Poll::Pending => self.paused(),
        }
        polled
    }

    /// The apiserver has nothing more to say for now: for a watch, the end of its first burst.
    fn paused(&mut self) {
        if let Some(watch) = &mut self.watch
            && !watch.quiet
        {
            watch.quiet = true;
            if let Some(turn) = &*self.turn.lock() {
                turn.burst_done();
            }
        }
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        // hyper does not ask again once it knows the end; a body dropped before its end is a client that left,
        // and the turn counts that by itself.
        if self.body.is_end_stream() {
            self.finished();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Flowing(flowing) => flowing.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Flowing(flowing) => flowing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Flowing(flowing) => flowing.body.size_hint(),
        }
    }
}
