//! What is one connection to the apiserver, and who may use a stream of it?
//!
//! A [`Connection`] is hyper's sender with its count of streams in flight and its limit; a [`Slot`] is the right
//! to one stream and gives it back on drop. HTTP/1.1 is the special case of one stream. The count is changed
//! only under the pool's lock; hyper is never given more requests than the limit, because above it they would
//! wait inside h2 where nobody sees or bounds them.
//!
//! The apiserver's own limit arrives in its first SETTINGS. Until then the connection takes one request, which h2
//! holds back itself (its initial limit is set to zero): so no limit is ever guessed, and none exceeded.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::RequestBody;
use super::dial::{Dialed, Io, Protocol};
use super::error::{Kind, UpstreamError};
use super::pool::Pool;
use crate::io::Boxed;

/// The apiserver's own per-stream window: one unread answer pins this much and no more.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Far more than the sum of all stream windows, which alone bound memory and keep a reader that stands still from
/// holding up its neighbours. The reason for the size is another: h2 closes a connection when its unread DATA
/// frames of less than 256 bytes lack, in sum, half of this window to that size. A single watcher of tiny events
/// that stops reading can be short of 256 KiB x 255 = 64 MiB, and must not take its neighbours along.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024 * 1024;
/// Fewer frames for large LISTs; above 64 KiB one stream would hold up its neighbours.
const FRAME_BYTES: u32 = 64 * 1024;
/// Go's default limit for headers, which the apiserver uses too.
const HEADER_LIST_BYTES: u32 = 1024 * 1024;
/// Per stream, for request bodies; objects are at most 3 MiB and mostly far smaller.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// A half-open connection is noticed after 15 s at most, also while idle.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// When a client goes away, all its watches are reset at once. h2 remembers 50 resets by default, and what the
/// apiserver still sends on a forgotten stream counts as an error of the connection.
const RESETS_REMEMBERED: usize = 1024;
/// HTTP/1.1 response head and read buffer. The apiserver's heads are small; warnings and audit headers add some.
const HTTP1_BUFFER_BYTES: usize = 256 * 1024;

/// One connection of a pool.
pub(super) struct Connection {
    pub(super) protocol: Protocol,
    /// Which client certificate it shows.
    generation: u64,
    sender: Mutex<Sender>,
    in_flight: AtomicU32,
    limit: AtomicU32,
    /// The apiserver's stream limit is known.
    settled: AtomicBool,
    /// When it last became unused; HTTP/1.1 only.
    idle_since: Mutex<Instant>,
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// The answer of hyper, or its error with the request if that was never sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Connection {
    /// Speaks HTTP over `dialed` for `pool`, with at most `streams_max` streams at a time.
    pub(super) async fn open(
        dialed: Dialed,
        streams_max: u32,
        pool: Weak<Pool>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let generation = dialed.generation;
        match dialed.protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1_builder().handshake(dialed.io).await.map_err(not_opened)?;
                let connection = Arc::new(Self::new(Protocol::Http1, generation, Sender::Http1(sender)));
                let watched = Arc::downgrade(&connection);
                tokio::spawn(async move {
                    // Its requests learn the reason themselves; here only its end matters.
                    let _ended = driver.await;
                    retire(&pool, &watched);
                });
                Ok(connection)
            }
            Protocol::Http2 => {
                let builder = http2_builder();
                let (sender, driver) = builder.handshake(dialed.io).await.map_err(not_opened)?;
                let connection = Arc::new(Self::new(Protocol::Http2, generation, Sender::Http2(sender)));
                let watched = Arc::downgrade(&connection);
                tokio::spawn(Box::pin(drive(driver, streams_max, pool, watched)));
                Ok(connection)
            }
        }
    }

    fn new(protocol: Protocol, generation: u64, sender: Sender) -> Self {
        Self {
            protocol,
            generation,
            sender: Mutex::new(sender),
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(1),
            settled: AtomicBool::new(protocol == Protocol::Http1),
            idle_since: Mutex::new(Instant::now()),
        }
    }

    /// Hands `request` to hyper. The caller holds a [`Slot`] of this connection.
    pub(super) fn send(&self, request: Request<RequestBody>) -> impl Future<Output = Sent> + Send + use<> {
        match &mut *self.sender.lock() {
            Sender::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Sender::Http2(sender) => Either::Right(sender.try_send_request(request)),
        }
    }

    /// Ready when an HTTP/1.1 connection has finished its exchange; an error when it has closed instead.
    pub(super) fn poll_reusable(&self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match &mut *self.sender.lock() {
            Sender::Http1(sender) => sender.poll_ready(cx),
            Sender::Http2(sender) => sender.poll_ready(cx),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// It shows another client certificate than the one in force.
    pub(super) const fn is_outdated(&self, generation: u64) -> bool {
        self.generation != generation
    }

    /// Unused HTTP/1.1 for longer than `limit`: the apiserver may be closing it at this very moment.
    pub(super) fn is_stale(&self, limit: Duration) -> bool {
        self.protocol == Protocol::Http1 && self.idle_since.lock().elapsed() > limit
    }

    pub(super) fn take(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self) {
        if self.protocol == Protocol::Http1 {
            *self.idle_since.lock() = Instant::now();
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes over the apiserver's limit; true when it has changed.
    fn settle(&self, limit: u32) -> bool {
        let changed = self.limit.swap(limit, Ordering::Relaxed) != limit;
        !self.settled.swap(true, Ordering::Relaxed) || changed
    }
}

/// Runs an HTTP/2 connection until it takes no more requests, and passes on the apiserver's stream limit.
async fn drive(
    mut driver: http2::Connection<Io, RequestBody, Boxed>,
    streams_max: u32,
    pool: Weak<Pool>,
    connection: Weak<Connection>,
) {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut driver).poll(cx);
        // Zero is what we started with: the first SETTINGS have not arrived.
        let theirs = driver.current_max_send_streams();
        if theirs > 0
            && let Some(connection) = connection.upgrade()
            && connection.settle(streams_max.min(u32::try_from(theirs).unwrap_or(u32::MAX)))
            && let Some(pool) = pool.upgrade()
        {
            pool.serve_waiting();
        }
        ready!(polled).ok();
        Poll::Ready(())
    })
    .await;
    retire(&pool, &connection);
}

fn retire(pool: &Weak<Pool>, connection: &Weak<Connection>) {
    if let (Some(pool), Some(connection)) = (pool.upgrade(), connection.upgrade()) {
        pool.retire(&connection);
    }
}

fn not_opened(error: hyper::Error) -> UpstreamError {
    UpstreamError::new(Kind::Unavailable, "cannot start HTTP on a new connection to the apiserver")
        .with_source(error)
}

/// HTTP/1.1 as every part of this module speaks it.
pub(super) fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Applications behind pods/proxy may care about the case of header names.
    builder.max_buf_size(HTTP1_BUFFER_BYTES).preserve_header_case(true);
    builder
}

fn http2_builder() -> http2::Builder<Boxed> {
    let mut builder = http2::Builder::new(Boxed);
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    builder
}

/// The right to one stream of a connection. Shared by the two bodies of an exchange; the last one frees it.
pub(super) struct Slot {
    pool: Arc<Pool>,
    connection: Arc<Connection>,
    response_ended: AtomicBool,
    request_failed: AtomicBool,
}

impl Slot {
    /// Takes a stream; called under the pool's lock.
    pub(super) fn new(pool: Arc<Pool>, connection: Arc<Connection>) -> Self {
        connection.take();
        Self {
            pool,
            connection,
            response_ended: AtomicBool::new(false),
            request_failed: AtomicBool::new(false),
        }
    }

    pub(super) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The response has been read to its end, or nothing was sent at all.
    pub(super) fn response_ended(&self) {
        self.response_ended.store(true, Ordering::Relaxed);
    }

    /// The client's body broke off; what happens to the stream after that is not the apiserver's fault.
    pub(super) fn request_failed(&self) {
        self.request_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_request_failed(&self) -> bool {
        self.request_failed.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.release(&self.connection, *self.response_ended.get_mut());
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("protocol", &self.connection.protocol).finish_non_exhaustive()
    }
}
