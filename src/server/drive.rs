//! How does an established connection run, and what ends it?
//!
//! hyper serves it; around it one timer watches over silence ([`super::activity`]) and the drain asks it to
//! finish, then cuts it off. hyper's half-close stays off, as in Go's server: a client whose sending side
//! ends in the middle of an answer is gone, and its watch with it.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, sleep_until};

use super::abuse::Abuse;
use super::activity::Silence;
use super::connection::{Connection, Protocol, Serving};
use super::service::Requests;
use super::settings::Settings;
use super::stream::Io;
use super::tally::count;
use crate::clock;
use crate::io::Boxed;

/// hyper's smallest buffer for an HTTP/1.1 head.
const HTTP1_BUFFER_MIN: usize = 8 * 1024;

/// hyper's own number of HTTP/1.1 fields; naming any number costs an allocation for each request.
const HTTP1_FIELDS_DEFAULT: usize = 100;

/// Largest HTTP/2 frame that a client may send.
const HTTP2_FRAME_BYTES: u32 = 16 * 1024;

/// What a client may have us remember of its header fields.
const HTTP2_TABLE_BYTES: u32 = 4 * 1024;

/// What an idle connection that was told to go may still take: a round trip for GOAWAY and its
/// acknowledgement.
const GOING_FOR: Duration = Duration::from_secs(5);

/// Serves requests until the connection ends.
pub(super) async fn serve(io: Io, requests: Requests, connection: &Connection, serving: &Serving) {
    let settings = &serving.settings;
    match connection.protocol {
        Protocol::Http1 => {
            let http1 = http1_builder(settings).serve_connection(io, requests).with_upgrades();
            drive(http1, connection, serving).await;
        }
        Protocol::Http2 => {
            let http2 = http2_builder(settings).serve_connection(io, requests);
            drive(http2, connection, serving).await;
        }
    }
}

fn http1_builder(settings: &Settings) -> http1::Builder {
    let limits = &settings.limits;
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Instead of it: see `activity`.
        .header_read_timeout(None)
        // The buffer's size is only looked at while a head is incomplete, and one read may bring more.
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(HTTP1_BUFFER_MIN));
    if limits.header_fields > HTTP1_FIELDS_DEFAULT {
        builder.max_headers(limits.header_fields);
    }
    builder
}

fn http2_builder(settings: &Settings) -> http2::Builder<Boxed> {
    let (limits, windows) = (&settings.limits, &settings.windows);
    let mut builder = http2::Builder::new(Boxed);
    builder
        .timer(TokioTimer::new())
        // The least that HTTP/2 allows, and its own default: nothing a client can make larger.
        .max_frame_size(HTTP2_FRAME_BYTES)
        .header_table_size(HTTP2_TABLE_BYTES)
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.provoked_resets)
        .initial_stream_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_send_buf_size(windows.send_buffer_bytes)
        .keep_alive_interval(settings.deadlines.ping_interval)
        .keep_alive_timeout(settings.deadlines.ping_timeout);
    builder
}

/// A connection that can be asked to finish what runs and to take nothing new.
trait Serves: Future<Output = hyper::Result<()>> {
    fn wind_down(self: Pin<&mut Self>);
}

impl Serves for http1::UpgradeableConnection<Io, Requests> {
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Serves for http2::Connection<Io, Requests, Boxed> {
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Why a connection is over.
enum End {
    Served(hyper::Result<()>),
    LateRequest,
    Idle,
    Drained,
}

async fn drive(serves: impl Serves, connection: &Connection, serving: &Serving) {
    match run(serves, connection, serving).await {
        End::Served(result) => {
            let found = connection.abuse.get().copied();
            let found = found.or_else(|| result.as_ref().err().and_then(Abuse::of));
            // Looked at before its answers notice that there is nobody to read them.
            let unread = || connection.activity.leaves_unread().then_some(Abuse::Unread);
            if let Some(abuse) = found.or_else(unread) {
                count(&serving.tally.abuses[abuse.index()]);
                if let Some(offenders) = &serving.offenders {
                    offenders.offended(connection.peer.ip(), clock::now());
                }
                tracing::debug!(connection = connection.id, peer = %connection.peer, abuse = abuse.as_str(), "cut off");
            } else if let Err(error) = result {
                tracing::debug!(connection = connection.id, %error, "connection failed");
            }
        }
        End::LateRequest => count(&serving.tally.late_request),
        End::Idle => count(&serving.tally.idle),
        End::Drained => count(&serving.tally.cut_off),
    }
}

/// Polls a connection until it ends by itself, by silence or by the drain.
async fn run(serves: impl Serves, connection: &Connection, serving: &Serving) -> End {
    let deadlines = &serving.settings.deadlines;
    let mut serves = pin!(serves);
    let mut timer = pin!(sleep_until(Instant::now() + deadlines.first_request));
    let (mut begun, mut expired) = (serving.drain.begun(), serving.drain.expired());
    let (mut draining, mut going_until) = (false, None);
    std::future::poll_fn(|context| {
        loop {
            if let Poll::Ready(result) = serves.as_mut().poll(context) {
                // An idle connection that was told to go and went.
                return Poll::Ready(if going_until.is_some() { End::Idle } else { End::Served(result) });
            }
            if draining && Pin::new(&mut expired).poll(context).is_ready() {
                return Poll::Ready(End::Drained);
            }
            if !draining && Pin::new(&mut begun).poll(context).is_ready() {
                draining = true;
                serves.as_mut().wind_down();
                continue;
            }
            let now = Instant::now();
            let silence = connection.activity.deadline(connection.protocol, deadlines);
            let due = match (going_until, silence) {
                (Some(until), _) if until <= now => return Poll::Ready(End::Idle),
                (Some(until), _) => until,
                // While requests run there is nothing to wait for. Look again later: the end of the last one
                // need not wake this task.
                (None, None) => now + deadlines.idle,
                (None, Some((due, _))) if due > now => due,
                (None, Some((_, Silence::Request))) => return Poll::Ready(End::LateRequest),
                (None, Some((_, Silence::Idle))) => {
                    going_until = Some(now + GOING_FOR);
                    serves.as_mut().wind_down();
                    continue;
                }
            };
            // Brought forward at once, put back only when it fires: most polls leave it alone.
            if due < timer.deadline() || timer.deadline() <= now {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}
