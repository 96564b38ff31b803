//! How is one connection to the apiserver opened?
//!
//! TCP, then TLS with the credential the route asks for, then the layers of [`crate::io`]: a read buffer below
//! rustls and deferred flushes above it. ALPN decides the protocol. One deadline covers all of it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{Kind, UpstreamError};
use super::rotation::Rotation;
use super::settings::Settings;
use super::stats::{OpenConnection, Stats, Via};
use super::tls::{self, ALPN_H2, ALPN_HTTP1, TlsError};
use crate::io::{Deferred, Flusher, ReadAhead};

/// TCP keep-alive: a dead peer is noticed after 10 + 3 x 5 s on connections that carry no HTTP/2 PING, which is
/// what exec sessions and port-forwards are.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What hyper reads from and writes to.
pub(super) type Io = TokioIo<Deferred<TlsStream<ReadAhead<Socket>>>>;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Which protocols we are ready to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Http2,
    Http1,
}

/// An open connection that has carried nothing yet.
pub(super) struct Dialed {
    pub(super) io: Io,
    pub(super) protocol: Protocol,
    /// See [`Dialer::generation`].
    pub(super) generation: u64,
}

/// Opens connections for all pools of one shard.
pub(super) struct Dialer {
    address: SocketAddr,
    server_name: ServerName<'static>,
    timeout: Duration,
    bare: Configs,
    front_proxy: Option<Configs>,
    rotation: Option<Rotation>,
    flusher: Arc<Flusher>,
    stats: Arc<Stats>,
}

/// TLS configurations that differ in ALPN only.
struct Configs {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl Configs {
    fn new(settings: &Settings, identity: Option<&tls::ClientCertificate>) -> Result<Self, TlsError> {
        let roots = tls::roots("the apiserver's CA bundle", &settings.roots_pem)?;
        Ok(Self {
            http2: Arc::new(tls::client_config(roots.clone(), identity, &[ALPN_H2, ALPN_HTTP1])?),
            http1: Arc::new(tls::client_config(roots, identity, &[ALPN_HTTP1])?),
        })
    }

    fn rotating(settings: &Settings, rotation: &Rotation) -> Result<Self, TlsError> {
        let roots = tls::roots("the apiserver's CA bundle", &settings.roots_pem)?;
        Ok(Self {
            http2: Arc::new(tls::rotating_config(roots.clone(), rotation, &[ALPN_H2, ALPN_HTTP1])?),
            http1: Arc::new(tls::rotating_config(roots, rotation, &[ALPN_HTTP1])?),
        })
    }
}

impl Dialer {
    pub(super) fn new(
        settings: &Settings,
        flusher: Arc<Flusher>,
        stats: Arc<Stats>,
    ) -> Result<Self, TlsError> {
        let front_proxy = match (&settings.rotation, &settings.front_proxy) {
            (Some(rotation), _) => Some(Configs::rotating(settings, rotation)?),
            (None, Some(identity)) => Some(Configs::new(settings, Some(identity))?),
            (None, None) => None,
        };
        Ok(Self {
            address: settings.address,
            server_name: settings.server_name.clone(),
            timeout: settings.connect_timeout,
            bare: Configs::new(settings, None)?,
            front_proxy,
            rotation: settings.rotation.clone(),
            flusher,
            stats,
        })
    }

    /// Fails when no connection with `via` can ever be opened.
    pub(super) fn check(&self, via: Via) -> Result<(), UpstreamError> {
        self.configs(via).map(|_| ())
    }

    /// Which of several client certificates a connection with `via` shows if it is opened now.
    pub(super) fn generation(&self, via: Via) -> u64 {
        match (via, &self.rotation) {
            (Via::FrontProxy, Some(rotation)) => rotation.generation(),
            _ => 0,
        }
    }

    fn configs(&self, via: Via) -> Result<&Configs, UpstreamError> {
        match via {
            Via::Bearer | Via::Unverified => Ok(&self.bare),
            Via::FrontProxy => self.front_proxy.as_ref().ok_or_else(|| {
                let text = "no front-proxy client certificate is configured, so certificate users cannot be \
                            forwarded: set the upstream's front-proxy certificate and key";
                UpstreamError::new(Kind::NotConfigured, text)
            }),
        }
    }

    /// Opens a connection; `permit` is held until it is closed.
    pub(super) async fn dial(
        &self,
        via: Via,
        offer: Offer,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Dialed, UpstreamError> {
        let dialed = self.connect(via, offer, permit).await;
        if dialed.is_err() {
            self.stats.dial_failed();
        }
        dialed
    }

    async fn connect(
        &self,
        via: Via,
        offer: Offer,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Dialed, UpstreamError> {
        let configs = self.configs(via)?;
        let config = match offer {
            Offer::Http2 => &configs.http2,
            Offer::Http1 => &configs.http1,
        };
        // Before the handshake: if the certificate is replaced meanwhile, this connection counts as an old one.
        let generation = self.generation(via);
        let handshake = async {
            let socket =
                TcpStream::connect(self.address).await.map_err(|error| self.failed("connect to", error))?;
            prepare(&socket).map_err(|error| self.failed("set socket options towards", error))?;
            let socket = Socket { socket, _permit: permit, _open: OpenConnection::count(&self.stats, via) };
            TlsConnector::from(Arc::clone(config))
                .connect(self.server_name.clone(), ReadAhead::new(socket, self.flusher.read_buffers()))
                .await
                .map_err(|error| self.failed("complete a TLS handshake with", error))
        };
        let Ok(stream) = tokio::time::timeout(self.timeout, handshake).await else {
            return Err(self.failed("reach", io::ErrorKind::TimedOut.into()));
        };
        let stream = stream?;
        let negotiated = stream.get_ref().1.alpn_protocol();
        let protocol = if negotiated == Some(ALPN_H2) { Protocol::Http2 } else { Protocol::Http1 };
        Ok(Dialed { io: TokioIo::new(Deferred::new(stream, &self.flusher)), protocol, generation })
    }

    fn failed(&self, what: &str, error: io::Error) -> UpstreamError {
        UpstreamError::new(Kind::Unavailable, format!("cannot {what} the apiserver at {}", self.address))
            .with_source(error)
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Deferred flushing already gathers what belongs together; Nagle would only add delayed-ACK pauses.
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// A TCP connection that is counted for as long as it exists, wherever hyper moves it.
#[derive(Debug)]
pub(super) struct Socket {
    socket: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
    _open: OpenConnection,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
