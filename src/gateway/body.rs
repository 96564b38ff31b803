//! How long does an answer hold its turn?
//!
//! Frames pass through as they come: nothing is buffered, so a slow client slows only its own stream. The permit
//! lives in the body, because the body is what hyper drops when a client resets, a connection dies or a task
//! panics: in every one of these cases the seats come back. A request that the scheduler gives up ends here with an
//! error: over HTTP/2 its stream is reset, over HTTP/1.1 its connection closed.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::levers::Contained;
use super::mark::Search;
use super::permit::Reset;
use super::turn::Turn;
use crate::flow::{End, Level};
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
    /// What was read already to understand the answer.
    ahead: VecDeque<Frame<Bytes>>,
    body: ResponseBody,
    /// The seats. Given back when the body ends, when it is dropped, or when nobody reads it for too long.
    turn: Arc<Mutex<Option<Turn>>>,
    /// What the end of this answer tells the estimates.
    told: Told,
    /// A watch: gives its seats back after its first burst, and is ended by us when the process drains.
    watch: Option<Watching>,
    /// Resolves when the scheduler gives the request up.
    reset: Option<Reset>,
    bytes: u64,
}

/// What an answer's head said about the apiserver.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) end: End,
    pub(super) level: Level,
    /// Bytes that the apiserver held for each byte of the body: more than one where it compressed.
    pub(super) inflation: u64,
}

/// What only watches have.
pub(super) struct Watching {
    burst: Burst,
    /// Resolves when this stream shall end because the process drains.
    drained: Moment,
    /// Resolves when this stream shall end because an operator denied its client.
    contained: Contained,
}

/// How the end of a watch's first burst is recognised.
enum Burst {
    /// The first pause.
    UntilPause,
    /// The bookmark after the initial events.
    UntilMark(Search),
    /// Over; what was delivered since and not told yet, in bytes.
    Over(u64),
}

/// What a watch delivers after its burst is told in pieces of this size: one seat's worth of bytes.
const DELIVERY: u64 = 100_000;

/// Why an answer breaks off.
#[derive(Debug)]
struct GivenUp(h2::Error);

impl Watching {
    /// A watch that has just begun; with `initial_events` it begins as a LIST does.
    pub(super) fn new(initial_events: bool, drained: Moment, contained: Contained) -> Self {
        let burst = if initial_events { Burst::UntilMark(Search::default()) } else { Burst::UntilPause };
        Self { burst, drained, contained }
    }

    /// Whether this stream shall end.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        Pin::new(&mut self.drained).poll(context).is_ready()
            || self.contained.as_mut().poll(context).is_ready()
    }

    /// What the scheduler should know when this frame has passed.
    fn passed(&mut self, frame: &[u8]) -> Option<News> {
        match &mut self.burst {
            Burst::UntilPause => None,
            Burst::UntilMark(search) => search.found_in(frame).then(|| self.burst_is_over()),
            Burst::Over(delivered) => {
                *delivered += frame.len() as u64;
                (*delivered >= DELIVERY).then(|| News::Delivered(std::mem::take(delivered)))
            }
        }
    }

    /// What the scheduler should know when nothing more is ready.
    fn paused(&mut self) -> Option<News> {
        matches!(self.burst, Burst::UntilPause).then(|| self.burst_is_over())
    }

    fn burst_is_over(&mut self) -> News {
        self.burst = Burst::Over(0);
        News::BurstDone
    }
}

/// What a watch has to tell.
enum News {
    BurstDone,
    /// So many bytes more.
    Delivered(u64),
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
    /// `ahead` and then `body`; it holds `turn` until it ends, and `told` is what its end says about the apiserver.
    pub(super) fn new(
        ahead: VecDeque<Frame<Bytes>>,
        mut body: ResponseBody,
        mut turn: Turn,
        told: Told,
        watch: Option<Watching>,
    ) -> Self {
        let reset = turn.take_reset();
        let turn = Arc::new(Mutex::new(Some(turn)));
        if !body.is_end_stream() {
            // A client that stops reading keeps its own stream, but not seats that others wait for.
            let held = Arc::clone(&turn);
            body.when_stalled(move || drop(held.lock().take()));
        }
        Self { ahead, body, turn, told, watch, reset, bytes: 0 }
    }

    fn finished(&mut self) {
        let turn = self.turn.lock().take();
        if let Some(turn) = turn {
            turn.finish(self.told.end, self.bytes.saturating_mul(self.told.inflation), self.told.level);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body.is_end_stream()
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(watch) = &mut self.watch
            && watch.is_over(context)
        {
            // A clean end of stream: the client resumes from the last resourceVersion it saw.
            self.finished();
            return Poll::Ready(None);
        }
        if self.is_given_up(context) {
            // Dropping the turn tells the scheduler; dropping this body, which hyper does next, the apiserver.
            drop(self.turn.lock().take());
            if self.watch.is_some() {
                // A watch hears no error after its 200, or its client would LIST everything at once.
                return Poll::Ready(None);
            }
            return Poll::Ready(Some(Err(Box::new(GivenUp::new()))));
        }
        let polled = match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(context).map_err(BodyError::from),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.passed(frame);
                if self.is_end_stream() {
                    self.finished();
                }
            }
            Poll::Ready(None) => self.finished(),
            Poll::Ready(Some(Err(_))) => {
                self.told.end = End::Dropped;
                self.finished();
            }
            Poll::Pending => {
                let news = self.watch.as_mut().and_then(Watching::paused);
                self.tell(news);
            }
        }
        polled
    }

    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        let Some(reset) = &mut self.reset else { return false };
        match Pin::new(reset).poll(context) {
            Poll::Pending => false,
            Poll::Ready(told) => {
                self.reset = None;
                told.is_ok()
            }
        }
    }

    fn passed(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        self.bytes += data.len() as u64;
        let news = self.watch.as_mut().and_then(|watch| watch.passed(data));
        self.tell(news);
    }

    fn tell(&self, news: Option<News>) {
        let Some(news) = news else { return };
        if let Some(turn) = &*self.turn.lock() {
            match news {
                News::BurstDone => turn.burst_done(),
                News::Delivered(bytes) => turn.delivered(bytes),
            }
        }
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        // hyper does not ask again once it knows the end; a body dropped before its end is a client that left,
        // and the turn counts that by itself.
        if self.is_end_stream() {
            self.finished();
        }
    }
}

impl GivenUp {
    /// HTTP/2 has a word for it; Go and Rust clients take it as an ordinary failed request, not as one to repeat at
    /// once (which `REFUSED_STREAM` would be).
    fn new() -> Self {
        Self(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM))
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this answer was given up because kube-apiserver is overloaded: ask for less, with limit")
    }
}

impl std::error::Error for GivenUp {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
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
            Inner::Flowing(flowing) => flowing.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            // What was read ahead is missing from the rest's hint, so nothing is promised then; the answer's own
            // Content-Length, which passes, says it anyway.
            Inner::Flowing(flowing) if flowing.ahead.is_empty() => flowing.body.size_hint(),
            Inner::Flowing(_) => SizeHint::default(),
        }
    }
}
