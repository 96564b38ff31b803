//! How do clients reach the model? One thread, one runtime, one listener.
//!
//! The model lives on a thread of its own so that it is never in the way of the clients that measure it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::capacity::{Capacity, InFlight};
use super::fault::Faults;
use super::identify::{Authenticator, Peer};
use super::processor::{Machine, Usage};
use super::rollout;
use super::store::Store;
use super::{Model, costs, handle};
use crate::demo::DemoError;
use crate::demo::pki::Pki;

/// Connections at a time; further ones wait in the kernel's queue. Five a node of the largest demo.
const CONNECTIONS_MAX: usize = 5_000;
/// kube-apiserver's default `--http2-max-streams-per-connection`.
const STREAMS_MAX: u32 = 100;
/// kube-apiserver's `MaxHeaderBytes`.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// Go's `http.Server` has 10 s for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// kube-apiserver's `ReadHeaderTimeout`.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(32);

/// A running model. Dropping it ends the server and its thread.
pub(crate) struct Server {
    address: SocketAddr,
    model: Arc<Model>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of the loopback address.
    pub(crate) fn start(pki: &Pki, machine: Machine, store: Arc<Store>) -> Result<Self, DemoError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls(pki)?));
        let failed = |source| DemoError::Io { what: "open the apiserver model's listener", source };
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let model = Arc::new(Model {
            store,
            capacity: Capacity::new(machine),
            in_flight: InFlight::default(),
            authenticator: Authenticator::new(pki.tokens.verifying()),
            faults: Faults::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&model);
        let run = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(listener, acceptor, &served) => {}
                    () = served.capacity.drive() => {}
                    () = rollout::run(&served.store) => {}
                    // Told to stop, or the owner is gone.
                    _ = stopped => {}
                }
            });
        };
        let spawned = std::thread::Builder::new().name("demo-apiserver".to_owned()).spawn(run);
        Ok(Self { address, model, stop: Some(stop), thread: Some(spawned.map_err(failed)?) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its objects, without the API between.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.model.store
    }

    /// What is wrong with it.
    pub(crate) fn faults(&self) -> &Faults {
        &self.model.faults
    }

    /// Use of its machine since the start.
    pub(crate) fn usage(&self) -> Usage {
        self.model.capacity.usage()
    }

    /// Requests on its machine at this moment.
    pub(crate) fn running(&self) -> usize {
        self.model.capacity.running()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the thread has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed by then; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn tls(pki: &Pki) -> Result<ServerConfig, DemoError> {
    let failed = |source| DemoError::Tls { what: "the apiserver model", source };
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pki.client_ca.der()).map_err(failed)?;
    roots.add(pki.front_proxy_ca.der()).map_err(failed)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier
        .allow_unauthenticated()
        .build()
        .map_err(|error| DemoError::ClientVerifier { message: error.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pki.serving.certificate.clone()], pki.serving.key())
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(listener: StdListener, acceptor: TlsAcceptor, model: &Arc<Model>) {
    // The listener was made non-blocking, the one condition of this call.
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        // A failed accept is that client's (reset before accept) or passes (out of descriptors): go on.
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if model.faults.is_dead() {
            continue;
        }
        let (acceptor, model) = (acceptor.clone(), Arc::clone(model));
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = serve(socket, &acceptor, &model) => {}
                () = model.faults.death() => {}
            }
        });
    }
}

/// One connection from handshake to end. Errors are the peer's going away: there is nothing to do about them.
async fn serve(socket: TcpStream, acceptor: &TlsAcceptor, model: &Arc<Model>) {
    let _ = socket.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await else {
        return;
    };
    model.capacity.run(costs::HANDSHAKE).await;
    let session = stream.get_ref().1;
    let peer = Peer::of(session.peer_certificates().map(<[CertificateDer<'_>]>::as_ref));
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    if is_http2 { http2(stream, model, peer).await } else { http1(stream, model, peer).await }
}

async fn http1(stream: TlsStream<TcpStream>, model: &Arc<Model>, peer: Peer) {
    let service = service_fn(|request| answer(model, &peer, request, None));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn http2(stream: TlsStream<TcpStream>, model: &Arc<Model>, peer: Peer) {
    // Since 1.29 kube-apiserver closes an HTTP/2 connection gracefully after a 401 or an anonymous request.
    let closing = Arc::new(Notify::new());
    let service = {
        let (model, closing, peer) = (Arc::clone(model), Arc::clone(&closing), Arc::new(peer));
        service_fn(move |request| {
            let (model, closing, peer) = (Arc::clone(&model), Arc::clone(&closing), Arc::clone(&peer));
            async move { answer(&model, &peer, request, Some(&closing)).await }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(
    model: &Arc<Model>,
    peer: &Peer,
    request: Request<Incoming>,
    closing: Option<&Notify>,
) -> Result<super::answer::Answer, Infallible> {
    let version = request.version();
    let anonymous =
        matches!(peer, Peer::Nobody) && !request.headers().contains_key(http::header::AUTHORIZATION);
    let answer = handle::handle(model, peer, request).await;
    let unauthenticated = anonymous || answer.status() == StatusCode::UNAUTHORIZED;
    if let Some(closing) = closing
        && unauthenticated
        && version == Version::HTTP_2
    {
        closing.notify_one();
    }
    Ok(answer)
}
