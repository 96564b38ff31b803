//! What may a client do to a listener, and for how long?
//!
//! Every default has its reason beside it; the configuration file speaks about the same fields. All limits
//! are safe as shipped: a listener without a configuration survives a hostile client.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Limits and deadlines of one listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits on what one connection may ask for.
    pub limits: Limits,
    /// How long a client may take.
    pub deadlines: Deadlines,
    /// Flow control towards HTTP/2 clients.
    pub windows: Windows,
    /// Whom the listener turns away before the handshake.
    pub door: Option<Door>,
    /// Whether handlers get to see the client's certificate as it is, and not only the identity in it: a kilobyte a
    /// connection, so for a listener with few of them.
    pub keep_leaf: bool,
}

/// Says whether a source may connect now. Asked for every connection, on the accepting thread: it must be quick.
#[derive(Clone)]
pub struct Door(pub Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// Limits on connections and request heads.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections of all listeners of one server. 5,000 nodes hold one or two each; every one may pin
    /// [`Windows::connection_bytes`], so this is also a memory limit.
    pub connections: usize,
    /// Open connections from one source address. Behind a load balancer that hides addresses this must be
    /// raised to [`Limits::connections`].
    pub connections_per_source: usize,
    /// Open connections of one verified certificate's user, wherever they come from: half, so that nobody takes them all.
    /// Some distributions give every node the same certificate, so it cannot be few.
    pub connections_per_user: usize,
    /// Whether a source whose connections were ended for abuse gets new ones slowly for a while. Not where one source may
    /// hold all connections: there, sources are not told apart.
    pub slow_offenders: bool,
    /// Bytes of a request's head. Go clients with OIDC tokens need more than hyper's 16 KiB; the apiserver
    /// takes 1 MiB. HTTP/1.1 cannot go below 8 KiB.
    pub header_bytes: u32,
    /// Header fields of a request, cookie crumbs counted one by one: what stops HPACK bombs, where a byte
    /// limit alone lets one reference byte stand for a whole field.
    pub header_fields: usize,
    /// Concurrent HTTP/2 streams. kubelets hold one watch per secret and config map; the apiserver itself
    /// offers 100 and Go clients open another connection when that is not enough.
    pub streams: u32,
    /// Resets by the client that hyper has not yet seen before the connection is closed (Rapid Reset).
    pub pending_resets: usize,
    /// Resets that the client provoked by its own protocol errors before the connection is closed
    /// (MadeYouReset).
    pub provoked_resets: usize,
}

/// How long a client may take. Nothing here ends a request that is running.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// From accept to the first byte. A TLS client speaks first, so only the network delays it.
    pub first_byte: Duration,
    /// From the first byte to the end of the handshake. Go clients give up after the same 10 s.
    pub handshake: Duration,
    /// From the handshake to the first complete request head. Neither hyper nor h2 limits this.
    pub first_request: Duration,
    /// From the first byte of a later HTTP/1.1 head to its end.
    pub headers: Duration,
    /// Without any request before the connection is closed. Go's clients close after 90 s; being later than
    /// they are avoids closing a connection that is about to be used.
    pub idle: Duration,
    /// Between PINGs on HTTP/2, and how long one may go unanswered: dead clients leave after 45 s.
    pub ping_interval: Duration,
    /// See [`Deadlines::ping_interval`].
    pub ping_timeout: Duration,
}

/// Flow control towards HTTP/2 clients, in bytes.
#[derive(Clone, Debug)]
pub struct Windows {
    /// What a client may send on one stream before it was forwarded. Bodies of more than 3 MiB are refused by
    /// the apiserver, so this costs a round trip at most.
    pub stream_bytes: u32,
    /// The same for the whole connection; times [`Limits::connections`] this is the worst case of memory.
    pub connection_bytes: u32,
    /// What one stream may have waiting to be sent. With 250 streams that do not read: 16 MiB a connection.
    pub send_buffer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits {
                connections: 10_000,
                connections_per_source: 1_000,
                connections_per_user: 5_000,
                slow_offenders: true,
                header_bytes: 64 * 1024,
                header_fields: 100,
                streams: 250,
                pending_resets: 20,
                provoked_resets: 256,
            },
            deadlines: Deadlines {
                first_byte: Duration::from_secs(5),
                handshake: Duration::from_secs(10),
                first_request: Duration::from_secs(10),
                headers: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                ping_interval: Duration::from_secs(30),
                ping_timeout: Duration::from_secs(15),
            },
            windows: Windows {
                stream_bytes: 256 * 1024,
                connection_bytes: 1024 * 1024,
                send_buffer_bytes: 64 * 1024,
            },
            door: None,
            keep_leaf: false,
        }
    }
}

/// Handshakes that may compute at the same time on one shard: 64 at 137 µs each delay an established stream
/// by 9 ms when a whole cluster reconnects.
pub(super) const HANDSHAKES_PER_SHARD: usize = 64;

/// How long a handshake keeps its place among [`HANDSHAKES_PER_SHARD`]. One that waits for its client
/// computes nothing, and 64 silent clients must not keep everybody else out.
pub(super) const HANDSHAKE_PLACE_HELD: Duration = Duration::from_millis(500);
