//! Which connection of a pool takes the next request, and what if none can?
//!
//! The first one, in order of age, that has a stream free: packing keeps few connections busy instead of many
//! half idle. If none has, one more is opened (one attempt at a time over HTTP/2, since its first SETTINGS tell
//! how much it will take) up to the pool's bound, and the request waits in a first-come queue that is bounded in
//! length and time. A connection that is going away takes nothing new and finishes what it has; how many of
//! those may linger is bounded too, or a peer that keeps closing could pin descriptors without end.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::connection::{Connection, Slot};
use super::dial::{Dialer, Offer, Protocol};
use super::error::{Kind, UpstreamError};
use super::stats::{Stats, Via};

/// Attempts to connect at the same time when every request needs a connection of its own.
const HTTP1_DIALS_MAX: usize = 4;
/// Connections that only finish their last streams, beyond the pool's bound. The apiserver ends a watch after 5
/// to 10 minutes, so this allows a GOAWAY every half minute.
const RETIRED_MAX: usize = 16;
/// Before an idle connection that was lost is replaced: an apiserver that accepts and closes at once would
/// otherwise be met by handshakes without pause.
const REWARM_DELAY: Duration = Duration::from_millis(100);
/// How long an HTTP/1.1 connection may take to finish its exchange after the response's end: the request body
/// may still be on its way.
const REUSE_WAIT: Duration = Duration::from_secs(1);

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// HTTP/2 connections.
    pub(super) connections: u32,
    /// Connections when the apiserver speaks HTTP/1.1 only.
    pub(super) http1_connections: u32,
    /// Streams on one connection.
    pub(super) streams: u32,
    /// Waiting requests.
    pub(super) waiting: u32,
    /// How long one may wait.
    pub(super) wait: Duration,
    /// How long an HTTP/1.1 connection may lie unused.
    pub(super) http1_idle: Duration,
}

/// The connections for one lane, credential and kind of traffic.
pub(super) struct Pool {
    via: Via,
    offer: Offer,
    limits: Limits,
    dialer: Arc<Dialer>,
    stats: Arc<Stats>,
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    /// Oldest first.
    open: Vec<Arc<Connection>>,
    /// Taken out of `open` with streams still in flight.
    retired: Vec<Weak<Connection>>,
    dialing: usize,
    /// What the apiserver chose last.
    protocol: Protocol,
    waiting: VecDeque<Waiter>,
    backoff: Backoff,
    /// One connection is kept open although nobody asks.
    warm: bool,
    /// An attempt to become warm again is due.
    warming: bool,
}

type Waiter = oneshot::Sender<Result<Arc<Slot>, UpstreamError>>;

impl Pool {
    /// A pool without connections on the current tokio runtime.
    pub(super) fn new(
        via: Via,
        offer: Offer,
        limits: Limits,
        dialer: Arc<Dialer>,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        let protocol = match offer {
            Offer::Http1 => Protocol::Http1,
            Offer::Http2 => Protocol::Http2,
        };
        let state = State {
            open: Vec::new(),
            retired: Vec::new(),
            dialing: 0,
            protocol,
            waiting: VecDeque::new(),
            backoff: Backoff::default(),
            warm: false,
            warming: false,
        };
        Arc::new(Self {
            via,
            offer,
            limits,
            dialer,
            stats,
            runtime: Handle::current(),
            state: Mutex::new(state),
        })
    }

    /// A free stream, at once or after waiting.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Arc<Slot>, UpstreamError> {
        let granted = match self.acquire_now()? {
            Ok(slot) => return Ok(slot),
            Err(waiting) => waiting,
        };
        self.stats.request_waited();
        match tokio::time::timeout(self.limits.wait, granted).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_dropped)) => Err(UpstreamError::new(Kind::Unavailable, "the connection pool was closed")),
            Err(_elapsed) => Err(UpstreamError::new(
                Kind::WaitTimeout,
                format!("no stream to the apiserver became free within {} ms", self.limits.wait.as_millis()),
            )),
        }
    }

    #[allow(clippy::type_complexity, reason = "either a slot or the promise of one, used once")]
    fn acquire_now(
        self: &Arc<Self>,
    ) -> Result<Result<Arc<Slot>, oneshot::Receiver<Result<Arc<Slot>, UpstreamError>>>, UpstreamError> {
        let mut state = self.state.lock();
        if state.waiting.is_empty()
            && let Some(slot) = self.place(&mut state)
        {
            return Ok(Ok(slot));
        }
        if state.open.is_empty()
            && state.dialing == 0
            && let Some(error) = state.backoff.refuses(Instant::now())
        {
            return Err(error.clone());
        }
        if state.waiting.len() >= self.limits.waiting as usize {
            state.waiting.retain(|waiter| !waiter.is_closed());
        }
        if state.waiting.len() >= self.limits.waiting as usize {
            return Err(UpstreamError::new(
                Kind::WaitQueueFull,
                format!("{} requests already wait for a stream to the apiserver", self.limits.waiting),
            ));
        }
        let (waiter, granted) = oneshot::channel();
        state.waiting.push_back(waiter);
        self.grow(&mut state);
        Ok(Err(granted))
    }

    /// The first connection with a free stream.
    fn place(self: &Arc<Self>, state: &mut State) -> Option<Arc<Slot>> {
        let generation = self.dialer.generation(self.via);
        let mut index = 0;
        while let Some(connection) = state.open.get(index) {
            if connection.is_outdated(generation) {
                // It ends with its last stream. Not counted as retired: that bound is against a peer that keeps closing,
                // and would keep the watches of these connections from coming back on new ones.
                state.open.remove(index);
            } else if !connection.has_room() {
                index += 1;
            } else if connection.is_stale(self.limits.http1_idle) {
                state.open.remove(index);
            } else {
                self.stats.stream_taken();
                return Some(Arc::new(Slot::new(Arc::clone(self), Arc::clone(connection))));
            }
        }
        None
    }

    /// Starts as many attempts to connect as the waiting requests need and the bounds allow.
    fn grow(self: &Arc<Self>, state: &mut State) {
        if !state.backoff.remaining(Instant::now()).is_zero() {
            return;
        }
        state.retired.retain(|connection| connection.strong_count() > 0);
        let (connections_max, dials_max) = match state.protocol {
            Protocol::Http1 => {
                (self.limits.http1_connections as usize, HTTP1_DIALS_MAX.min(state.waiting.len()))
            }
            // A connection whose limit is not known yet may still take everyone who waits.
            Protocol::Http2 => (self.limits.connections as usize, 1),
        };
        let unsettled = state.open.iter().filter(|connection| !connection.is_settled()).count();
        while state.dialing + unsettled < dials_max
            && state.open.len() + state.dialing < connections_max
            && state.open.len() + state.dialing + state.retired.len() < connections_max + RETIRED_MAX
        {
            state.dialing += 1;
            self.runtime.spawn(Arc::clone(self).dial());
        }
    }

    async fn dial(self: Arc<Self>) {
        let opened = match self.dialer.dial(self.via, self.offer, None).await {
            Ok(dialed) => Connection::open(dialed, self.limits.streams, Arc::downgrade(&self)).await,
            Err(error) => Err(error),
        };
        let mut state = self.state.lock();
        state.dialing -= 1;
        match opened {
            Ok(connection) => {
                state.protocol = connection.protocol;
                state.backoff.succeeded();
                state.open.push(connection);
                drop(state);
                self.serve_waiting();
            }
            Err(error) => {
                tracing::debug!(via = self.via.as_str(), %error, "no connection to the apiserver");
                let salt = Arc::as_ptr(&self) as usize as u64;
                state.backoff.failed(Instant::now(), salt, error.clone());
                // With connections left, a stream may still become free in time.
                let hopeless = state.open.is_empty() && state.dialing == 0;
                let failed = if hopeless { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
                self.stay_warm(&mut state);
                drop(state);
                for waiter in failed {
                    // A waiter that has given up no longer wants to know.
                    waiter.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Gives free streams to those who wait, in order, and opens connections for the rest.
    pub(super) fn serve_waiting(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                state.waiting.pop_front();
            }
            if state.waiting.is_empty() {
                return;
            }
            let Some(slot) = self.place(&mut state) else {
                self.grow(&mut state);
                return;
            };
            let waiter = state.waiting.pop_front();
            drop(state);
            // Outside the lock: a slot that comes back is released here and serves the next one.
            drop(waiter.map(|waiter| waiter.send(Ok(slot))));
        }
    }

    /// A stream has ended. `clean` says that an HTTP/1.1 connection can serve again.
    pub(super) fn release(self: &Arc<Self>, connection: &Arc<Connection>, clean: bool) {
        self.stats.stream_freed();
        if connection.protocol == Protocol::Http2 {
            return self.free(connection);
        }
        if !clean {
            return self.retire(connection);
        }
        let (pool, connection) = (Arc::clone(self), Arc::clone(connection));
        // hyper learns that the exchange is over only when its task runs again.
        self.runtime.spawn(async move {
            let reusable = std::future::poll_fn(|cx| connection.poll_reusable(cx));
            match tokio::time::timeout(REUSE_WAIT, reusable).await {
                Ok(Ok(())) => pool.free(&connection),
                Ok(Err(_)) | Err(_) => pool.retire(&connection),
            }
        });
    }

    fn free(self: &Arc<Self>, connection: &Connection) {
        let state = self.state.lock();
        connection.give_back();
        let waits = !state.waiting.is_empty();
        drop(state);
        if waits {
            self.serve_waiting();
        }
    }

    /// The connection takes no new requests; it closes when its last stream ends.
    pub(super) fn retire(self: &Arc<Self>, connection: &Arc<Connection>) {
        let mut state = self.state.lock();
        let Some(index) = state.open.iter().position(|open| Arc::ptr_eq(open, connection)) else { return };
        let retired = state.open.remove(index);
        state.retired.push(Arc::downgrade(&retired));
        self.stay_warm(&mut state);
        drop(state);
        drop(retired);
        self.serve_waiting();
    }

    /// Keeps one connection open from now on, and returns when it is.
    pub(super) async fn warm(self: &Arc<Self>) -> Result<(), UpstreamError> {
        self.state.lock().warm = true;
        let slot = self.acquire().await?;
        // Nothing was sent, so the connection is as good as new.
        slot.response_ended();
        Ok(())
    }

    fn stay_warm(self: &Arc<Self>, state: &mut State) {
        if state.warm && !state.warming && state.open.is_empty() && state.dialing == 0 {
            state.warming = true;
            let delay = state.backoff.remaining(Instant::now()).max(REWARM_DELAY);
            self.runtime.spawn(Arc::clone(self).warm_again(delay));
        }
    }

    async fn warm_again(self: Arc<Self>, delay: Duration) {
        tokio::time::sleep(delay).await;
        {
            let mut state = self.state.lock();
            state.warming = false;
            if !state.open.is_empty() || state.dialing > 0 {
                return;
            }
            state.dialing += 1;
        }
        self.dial().await;
    }

    /// How many connections take requests now.
    pub(super) fn open(&self) -> usize {
        self.state.lock().open.len()
    }
}
