//! How do clients connect? Sockets, TLS, deadlines, drain.
//!
//! Life of a connection: an accept thread takes the socket, holds it to the caps and hands it to the least
//! loaded shard; the shard does TLS and HTTP under deadlines for every phase, and gives each request to its
//! [`Handler`]. Addresses are bound first and reported back, threads start afterwards, so that a port in use
//! leaves nothing half-started. The same code serves the main listener and the break-glass lane, with
//! different settings. Left out: verbs, identities of tokens, and everything that happens to a request after
//! the handler has it.

mod abuse;
mod accept;
mod activity;
mod connection;
mod drain;
mod drive;
mod frames;
mod framing;
mod handler;
mod heads;
mod hpack;
mod offenders;
mod places;
mod rest;
mod service;
mod settings;
mod shard;
mod stream;
mod tally;
mod tls;
mod turn;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use self::abuse::Abuse;
pub use self::accept::{BindError, Listener, Placement};
pub use self::connection::{Connection, Protocol};
pub use self::drain::{Drain, Moment};
pub use self::handler::{BodyError, Handler, HandlerFactory, ServerBody, Tunnel, TunnelBytes, failure};
pub use self::rest::{is_coming, throw_away};
pub use self::settings::{Deadlines, Door, Limits, Settings, Windows};
pub use self::shard::{Mode, ShardContext, Threads};
pub use self::tally::{Tally, TallySnapshot};
pub use self::tls::{MinVersion, Resumption, Tls, TlsError, TlsSettings};

use self::offenders::Offenders;
use self::places::Places;
use self::shard::{Shards, Worker};

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start the {name} threads: {source}; check the limits on threads (ulimit -u) and open files (ulimit -n)"
)]
pub struct StartError {
    name: &'static str,
    source: io::Error,
}

impl StartError {
    /// Threads called `name` cannot be created.
    pub(crate) const fn new(name: &'static str, source: io::Error) -> Self {
        Self { name, source }
    }
}

/// A running server: its shards and the listeners that feed them. Dropping it cuts everything off at once;
/// [`Server::close`] ends it in peace.
pub struct Server {
    shards: Shards,
    accepting: Vec<Worker>,
    addresses: Vec<(&'static str, SocketAddr)>,
    drain: Drain,
    tallies: Vec<(&'static str, Arc<Tally>)>,
    /// Closed when the last connection is gone; nothing is ever sent.
    gone: mpsc::Receiver<()>,
    alive: mpsc::Sender<()>,
}

impl Server {
    /// Starts the shards' threads, makes their handlers and begins to accept on all listeners.
    ///
    /// # Errors
    /// A thread or its runtime cannot be created.
    pub fn start(
        threads: Threads,
        listeners: Vec<Listener>,
        drain: &Drain,
        factory: &HandlerFactory,
    ) -> Result<Self, StartError> {
        let shards = Shards::start(threads, factory)?;
        let (alive, gone) = mpsc::channel(1);
        let addresses = listeners.iter().map(|listener| (listener.name(), listener.address())).collect();
        // The caps are about the process, so listeners share them; they are configured alike.
        let limits = listeners.first().map_or_else(|| Settings::default().limits, |one| one.limits().clone());
        let places = Places::new(&limits);
        let offenders = limits.slow_offenders.then(Arc::<Offenders>::default);
        let (mut accepting, mut tallies) = (Vec::new(), Vec::new());
        for listener in listeners {
            let tally = Arc::new(Tally::default());
            tallies.push((listener.name(), Arc::clone(&tally)));
            let acceptor = accept::Acceptor {
                shards: shards.list(),
                places: Arc::clone(&places),
                offenders: offenders.clone(),
                drain: drain.clone(),
                tally,
                alive: alive.clone(),
            };
            accepting.extend(acceptor.start(listener)?);
        }
        Ok(Self { shards, accepting, addresses, drain: drain.clone(), tallies, gone, alive })
    }

    /// Name and bound address of every listener.
    #[must_use]
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// What happened to connections so far, by listener.
    #[must_use]
    pub fn tallies(&self) -> &[(&'static str, Arc<Tally>)] {
        &self.tallies
    }

    /// Drains for at most `grace`, then cuts off what is left and ends the threads.
    pub async fn close(self, grace: Duration) {
        let Self { shards, accepting, drain, mut gone, alive, .. } = self;
        drain.begin(grace);
        drop(alive);
        tokio::select! {
            _ = gone.recv() => {}
            () = drain.expired() => {}
        }
        // Ending a runtime waits for its thread; that must not block the caller's runtime.
        let ended = tokio::task::spawn_blocking(move || {
            accepting.into_iter().for_each(Worker::end);
            shards.end();
        });
        // It fails only by a panic on a thread, which was reported where it happened.
        let _ = ended.await;
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
