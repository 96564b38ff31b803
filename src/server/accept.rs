//! How does a socket get from the kernel to a shard?
//!
//! Each listener has one accept loop, usually on a thread of its own: a busy shard must not delay new
//! connections, and a hand-off costs one wake-up per connection, not per request. Sockets stay plain until a
//! shard's reactor takes them. A full process (no file descriptors) backs off instead of spinning; a full
//! listener closes at once, a few connections at a time, and so are offenders turned away ([`super::offenders`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::connection::{self, Serving};
use super::drain::Drain;
use super::heads::Budget;
use super::offenders::Offenders;
use super::places::{NoPlace, Place, Places};
use super::settings::{Limits, Settings};
use super::shard::{self, Shard, Worker};
use super::tally::{Tally, count};
use super::{StartError, Tls};
use crate::clock;

/// Connections the kernel keeps ready for us: a cluster of 5,000 nodes reconnects within a second. The kernel
/// cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Pause after `accept` failed for want of file descriptors or memory: they come back when connections close,
/// and until then the kernel's backlog waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A full listener, or one that offenders run against, closes so many connections in a row, and pauses for so long. Whoever
/// is cut off at once connects again at once: without the pause a few hundred such clients burn a core, beside the
/// break-glass lane, to be refused. In the backlog they wait. It delays whoever could have had a place by the pause at most;
/// 1,300 a second are still cleared. More in a row would be felt by the requests of others: each costs the kernel some
/// 15 µs, on a processor that may be a shard's.
const TURNED_AWAY_IN_A_ROW: u32 = 4;
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(3);

/// Silence on a socket before the kernel probes the peer, and between probes. HTTP/2 has PINGs; a watch over
/// HTTP/1.1 whose client vanished would otherwise be held until the next event.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Where a listener's accept loop runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On a thread of its own.
    #[default]
    OwnThread,
    /// On the first shard, which must be the only one: a lane that is one thread altogether.
    OnShard,
}

/// A bound address with everything that serves it. It accepts once a server is started with it.
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    settings: Settings,
    tls: Arc<Tls>,
    placement: Placement,
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {listener}: {source}; {}", advice(.source))]
pub struct BindError {
    listener: &'static str,
    address: SocketAddr,
    source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has the port (ss -ltnp shows which): stop it or configure another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has the address (ip address lists them)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it or use a higher port"
        }
        _ => "check the address in the configuration",
    }
}

impl Listener {
    /// Binds `address`; port 0 lets the kernel choose. `name` is what logs and errors call it.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(
        name: &'static str,
        address: SocketAddr,
        settings: Settings,
        tls: Arc<Tls>,
        placement: Placement,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { listener: name, address, source };
        let socket = bind(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { name, socket, address, settings, tls, placement })
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// What logs and errors call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The address it is bound to, with the port the kernel chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What an accept loop needs besides its listener.
pub(super) struct Acceptor {
    pub(super) shards: Arc<[Arc<Shard>]>,
    /// Shared by all listeners of the server.
    pub(super) places: Arc<Places>,
    /// Likewise, where sources are told apart.
    pub(super) offenders: Option<Arc<Offenders>>,
    pub(super) drain: Drain,
    pub(super) tally: Arc<Tally>,
    pub(super) alive: mpsc::Sender<()>,
}

impl Acceptor {
    /// Begins to accept; the answer is the thread, where the loop has one of its own.
    pub(super) fn start(self, listener: Listener) -> Result<Option<Worker>, StartError> {
        let name = listener.name;
        let failed = |source| StartError { name, source };
        match listener.placement {
            Placement::OnShard => {
                let first =
                    self.shards.first().ok_or_else(|| failed(io::Error::other("there is no shard")))?;
                let handle = first.handle.clone();
                handle.spawn(self.run(listener));
                Ok(None)
            }
            Placement::OwnThread => {
                let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
                let worker = Worker::start("accept", runtime, move |stop| async move {
                    tokio::select! {
                        () = self.run(listener) => {}
                        _ = stop => {}
                    }
                });
                worker.map(Some).map_err(failed)
            }
        }
    }

    async fn run(self, listener: Listener) {
        let Listener { name, socket, settings, tls, .. } = listener;
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = name, %error, "listener cannot be watched for connections");
                return;
            }
        };
        let serving = Arc::new(Serving {
            listener: name,
            settings,
            tls,
            drain: self.drain.clone(),
            tally: Arc::clone(&self.tally),
            heads: Budget::of_listener(),
            offenders: self.offenders.clone(),
        });
        let mut ending = self.drain.begun();
        let mut turned_away = 0;
        loop {
            tokio::select! {
                () = &mut ending => return,
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => match self.place_for(peer, &serving) {
                        Ok(place) => {
                            turned_away = 0;
                            self.hand_over(stream, peer, place, &serving);
                        }
                        Err(NoPlace::Source) => count(&self.tally.refused_source),
                        Err(NoPlace::Full) => {
                            count(&self.tally.refused_full);
                            turned_away += 1;
                        }
                        Err(NoPlace::Offender) => {
                            count(&self.tally.refused_offender);
                            turned_away += 1;
                        }
                    },
                    Err(error) => self.accept_failed(name, &error).await,
                }
            }
            if turned_away >= TURNED_AWAY_IN_A_ROW {
                turned_away = 0;
                tokio::time::sleep(TURNED_AWAY_PAUSE).await;
            }
        }
    }

    fn place_for(&self, peer: SocketAddr, serving: &Serving) -> Result<Place, NoPlace> {
        if serving.settings.door.as_ref().is_some_and(|door| !door.0(peer.ip())) {
            return Err(NoPlace::Source);
        }
        if let Some(offenders) = &self.offenders
            && !offenders.may_connect(peer.ip(), || self.places.held(peer.ip()), clock::now())
        {
            return Err(NoPlace::Offender);
        }
        self.places.take(peer.ip())
    }

    fn hand_over(&self, stream: TcpStream, peer: SocketAddr, place: Place, serving: &Arc<Serving>) {
        // It leaves this thread's reactor here and enters the shard's there.
        let stream = match prepare(&stream).and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                // The peer is gone already.
                tracing::debug!(listener = serving.listener, %error, "socket cannot be set up");
                return;
            }
        };
        let Some(shard) = shard::least_loaded(&self.shards) else { return };
        count(&self.tally.accepted);
        shard.connections.fetch_add(1, Ordering::Relaxed);
        let open =
            connection::Open::new(place, Arc::clone(shard), Arc::clone(&self.tally), self.alive.clone());
        shard.handle.spawn(connection::serve(stream, peer, open, Arc::clone(serving)));
    }

    async fn accept_failed(&self, listener: &'static str, error: &io::Error) {
        // A connection that was reset in the backlog is its client's business.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        count(&self.tally.accept_failed);
        tracing::warn!(listener, %error, "accept failed; raise the limit on open files if this persists");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Answers are small and written whole: waiting for more to send only adds the peer's delayed ACK.
    stream.set_nodelay(true)?;
    let (time, interval) = KEEPALIVE;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval))
}
