//! What is the life of one connection?
//!
//! First byte, handshake, certificate judged, protocol by ALPN, then requests (`drive`). Both waits before
//! that have a deadline. Nothing is sniffed: a client that does not speak ALPN speaks HTTP/1.1.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::abuse::Abuse;
use super::activity::Activity;
use super::drain::Drain;
use super::drive;
use super::heads::Budget;
use super::offenders::Offenders;
use super::places::Place;
use super::service::Requests;
use super::settings::{HANDSHAKE_PLACE_HELD, Settings};
use super::shard::Shard;
use super::stream::{self, Accepted};
use super::tally::{Tally, count};
use super::tls::Tls;
use crate::authn::{PeerCertificate, Verdict};
use crate::clock;
use crate::io::ReadAhead;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1; the only one that upgrades.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A client's connection, shared by its requests and by what they become.
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// The listener it came in by.
    pub listener: &'static str,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its IP address as a header says it.
    pub peer_header: HeaderValue,
    /// The protocol chosen in the handshake.
    pub protocol: Protocol,
    /// What the client's certificate is worth.
    pub certificate: PeerCertificate,
    /// The certificate itself, where the listener keeps it ([`super::Settings::keep_leaf`]). Nothing of it is believed
    /// beyond what `certificate` says.
    pub leaf: Option<CertificateDer<'static>>,
    /// Version and cipher suite of the TLS session, by their registered names.
    pub session: (&'static str, &'static str),
    pub(super) activity: Activity,
    /// Why its client was cut off, once it was.
    pub(super) abuse: OnceLock<Abuse>,
    /// Requests refused because their heads are too many together, since its reader last looked.
    pub(super) refused_heads: AtomicU32,
    _open: Open,
}

/// What all connections of a listener share.
pub(super) struct Serving {
    pub(super) listener: &'static str,
    pub(super) settings: Settings,
    pub(super) tls: Arc<Tls>,
    pub(super) drain: Drain,
    pub(super) tally: Arc<Tally>,
    pub(super) heads: Arc<Budget>,
    /// Where sources are told apart; shared by all listeners of the server.
    pub(super) offenders: Option<Arc<Offenders>>,
}

/// An open connection, counted until this is dropped. The last to hold it may be a tunnel.
pub(super) struct Open {
    place: Place,
    shard: Arc<Shard>,
    tally: Arc<Tally>,
    _alive: mpsc::Sender<()>,
}

impl Open {
    /// The shard's count was raised when it was chosen.
    pub(super) const fn new(
        place: Place,
        shard: Arc<Shard>,
        tally: Arc<Tally>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        Self { place, shard, tally, _alive: alive }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shard.connections.fetch_sub(1, Ordering::Relaxed);
        count(&self.tally.closed);
    }
}

/// Names, not numbers: they end up in front of people.
fn session_names(session: &rustls::ServerConnection) -> (&'static str, &'static str) {
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS1.2",
        _ => "",
    };
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    (version, cipher.unwrap_or_default())
}

/// An IPv4 client of a dual-stack socket is written as IPv4.
fn peer_header(peer: SocketAddr) -> HeaderValue {
    let text = peer.ip().to_canonical().to_string();
    // Digits, letters, dots and colons: always a header value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Serves one socket from its first byte to its end.
pub(super) async fn serve(
    socket: std::net::TcpStream,
    peer: SocketAddr,
    mut open: Open,
    serving: Arc<Serving>,
) {
    let shard = Arc::clone(&open.shard);
    let current = serving.tls.current();
    let Some(tls) = handshake(socket, &shard, &serving, TlsAcceptor::from(Arc::clone(&current.config))).await
    else {
        return;
    };
    let (_, session) = tls.get_ref();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let chain = session.peer_certificates().unwrap_or_default();
    let certificate = current.authority.judge(chain, clock::wall());
    if let Verdict::Verified(caller) = certificate.verdict(clock::wall())
        && !open.place.belongs_to(&caller.identity.user)
    {
        count(&serving.tally.refused_user);
        return;
    }
    let kept = serving.settings.keep_leaf.then(|| chain.first().cloned().map(CertificateDer::into_owned));
    let connection = Arc::new(Connection {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        listener: serving.listener,
        peer,
        peer_header: peer_header(peer),
        protocol,
        certificate,
        leaf: kept.flatten(),
        session: session_names(session),
        activity: Activity::new(),
        abuse: OnceLock::new(),
        refused_heads: AtomicU32::new(0),
        _open: open,
    });
    let requests = Requests {
        connection: Arc::clone(&connection),
        handler: Arc::clone(&shard.handler),
        tally: Arc::clone(&serving.tally),
        fields_max: serving.settings.limits.header_fields,
        heads: Budget::of_connection(),
        all_heads: Arc::clone(&serving.heads),
    };
    let io = stream::wrap(tls, &shard.flusher, Arc::clone(&connection), &serving.settings.limits);
    drive::serve(io, requests, &connection, &serving).await;
}

async fn handshake(
    socket: std::net::TcpStream,
    shard: &Shard,
    serving: &Serving,
    acceptor: TlsAcceptor,
) -> Option<Accepted> {
    let deadlines = &serving.settings.deadlines;
    let socket = TcpStream::from_std(socket).ok()?;
    match timeout(deadlines.first_byte, socket.peek(&mut [0])).await {
        Err(_) => {
            count(&serving.tally.late_first_byte);
            return None;
        }
        // Connected and gone: a health check, a port scan.
        Ok(Err(_) | Ok(0)) => return None,
        Ok(Ok(_)) => {}
    }
    let handshake = async {
        let place = shard.handshakes.acquire().await;
        let mut accepting = pin!(acceptor.accept(ReadAhead::new(socket, shard.flusher.read_buffers())));
        let quick = timeout(HANDSHAKE_PLACE_HELD, &mut accepting).await;
        drop(place);
        match quick {
            Ok(result) => result,
            Err(_) => accepting.await,
        }
    };
    match timeout(deadlines.handshake, handshake).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            count(&serving.tally.failed_handshake);
            tracing::debug!(listener = serving.listener, %error, "handshake failed");
            None
        }
        Err(_) => {
            count(&serving.tally.late_handshake);
            None
        }
    }
}
