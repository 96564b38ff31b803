//! A fake apiserver: real TCP, TLS and HTTP in this process, with answers that tests steer.
//!
//! It counts what a real one would not tell: connections, and requests in flight on each of them.

// clippy.toml allows this inside #[test] functions only; this module is nothing but test.
#![allow(clippy::expect_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use spillway::upstream::{ClientCertificate, Settings, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// A body of the fake apiserver.
type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// What one connection has carried.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) http2: bool,
    pub(crate) with_certificate: bool,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    requests: AtomicUsize,
    closed: AtomicBool,
    /// Ask it to send GOAWAY.
    leave: Notify,
    paths: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight_max(&self) -> usize {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.paths.lock().clone()
    }

    /// Sends GOAWAY: no new streams, the open ones run on.
    pub(crate) fn leave(&self) {
        self.leave.notify_one();
    }
}

/// How the fake apiserver is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) streams: u32,
    pub(crate) http2: bool,
    pub(crate) manners: Manners,
}

/// How it treats what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As HTTP asks.
    Good,
    /// Resets every stream with REFUSED_STREAM.
    RefusesStreams,
    /// Answers the first request with a GOAWAY that says it has processed nothing.
    LeavesAtOnce,
    /// Answers with bytes that are not HTTP/1.1.
    Garbled,
}

impl Default for Setup {
    fn default() -> Self {
        Self { streams: 100, http2: true, manners: Manners::Good }
    }
}

/// A running fake apiserver; it stops when dropped.
pub(crate) struct Apiserver {
    pub(crate) address: SocketAddr,
    pub(crate) settings: Settings,
    authority: Authority,
    state: Arc<State>,
    stop: watch::Sender<bool>,
}

struct State {
    connections: Mutex<Vec<Arc<Seen>>>,
    /// `/hold` answers when it gets a permit from here.
    gate: Semaphore,
    /// `/drip` has handed out all it has.
    dripped: Arc<AtomicBool>,
    setup: Setup,
}

impl Apiserver {
    pub(crate) async fn start(setup: Setup) -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            connections: Mutex::default(),
            gate: Semaphore::new(0),
            dripped: Arc::default(),
            setup,
        });
        let (stop, stopped) = watch::channel(false);
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(setup.http2)));
        tokio::spawn(accept(listener, acceptor, Arc::clone(&state), stopped));
        let name = ServerName::try_from("kubernetes").expect("a valid name");
        let mut settings = Settings::new(address, name, authority.pem());
        settings.front_proxy = Some(authority.client("front-proxy-client"));
        Self { address, settings, authority, state, stop }
    }

    /// One more client certificate that it accepts.
    pub(crate) fn another_front_proxy(&self, name: &str) -> ClientCertificate {
        self.authority.client(name)
    }

    /// All connections so far, oldest first.
    pub(crate) fn connections(&self) -> Vec<Arc<Seen>> {
        self.state.connections.lock().clone()
    }

    /// Requests in flight on all connections.
    pub(crate) fn in_flight(&self) -> usize {
        self.connections().iter().map(|seen| seen.in_flight()).sum()
    }

    /// Lets `count` requests for `/hold` be answered.
    pub(crate) fn answer(&self, count: usize) {
        self.state.gate.add_permits(count);
    }

    /// Whether `/drip` has been sent to its last frame.
    pub(crate) fn has_dripped(&self) -> bool {
        self.state.dripped.load(Ordering::Relaxed)
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// A certificate authority for one test.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(vec![]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("self-signed").pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn pem(&self) -> Vec<u8> {
        self.pem.clone().into_bytes()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
        (params.signed_by(&key, &self.issuer).expect("signed"), key)
    }

    fn client(&self, name: &str) -> ClientCertificate {
        let (certificate, key) = self.issue(name);
        ClientCertificate {
            chain_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }
    }

    fn server(&self, http2: bool) -> ServerConfig {
        let (certificate, key) = self.issue("kubernetes");
        let roots = tls::roots("the test's CA", self.pem.as_bytes()).expect("a certificate");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .allow_unauthenticated()
                .build()
                .expect("a verifier");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they belong together");
        config.alpn_protocols = vec![tls::ALPN_HTTP1.to_vec()];
        if http2 {
            config.alpn_protocols.insert(0, tls::ALPN_H2.to_vec());
        }
        config
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (socket, _) = accepted.expect("accepting works");
        socket.set_nodelay(true).expect("a TCP option");
        let (acceptor, state, mut stopped) = (acceptor.clone(), Arc::clone(&state), stopped.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let session = stream.get_ref().1;
            let seen = Arc::new(Seen {
                http2: session.alpn_protocol() == Some(tls::ALPN_H2),
                with_certificate: session.peer_certificates().is_some(),
                ..Seen::default()
            });
            state.connections.lock().push(Arc::clone(&seen));
            tokio::select! {
                () = serve(stream, &state, &seen) => {}
                _ = stopped.changed() => {}
            }
            seen.closed.store(true, Ordering::Relaxed);
        });
    }
}

type TlsIo = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

async fn serve(io: TlsIo, state: &Arc<State>, seen: &Arc<Seen>) {
    match state.setup.manners {
        Manners::Good => serve_http(TokioIo::new(io), state, seen).await,
        Manners::RefusesStreams => refuse_streams(io).await,
        Manners::LeavesAtOnce => leave_at_once(io).await.expect("the client speaks HTTP/2"),
        Manners::Garbled => garble(io).await.expect("the client sends a request"),
    }
}

async fn refuse_streams(io: TlsIo) {
    let mut connection = h2::server::handshake(io).await.expect("the client speaks HTTP/2");
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
}

/// By hand, because h2 counts a stream that it has seen as processed.
async fn leave_at_once(mut io: TlsIo) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY_NOTHING_PROCESSED: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    io.read_exact(&mut [0; PREFACE_BYTES]).await?;
    io.write_all(&EMPTY_SETTINGS).await?;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        io.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == HEADERS {
            io.write_all(&GOAWAY_NOTHING_PROCESSED).await?;
            io.flush().await?;
            // Until the client has closed, so that nothing but the GOAWAY can be the reason.
            return io.read_to_end(&mut Vec::new()).await.map(|_| ()).or(Ok(()));
        }
    }
}

async fn garble(mut io: TlsIo) -> std::io::Result<()> {
    let _first_byte = io.read_u8().await?;
    io.write_all(b"HTTP/1.1 two hundred\r\n\r\n").await?;
    io.shutdown().await
}

async fn serve_http(io: TokioIo<TlsIo>, state: &Arc<State>, seen: &Arc<Seen>) {
    let service = service_fn({
        let (state, seen) = (Arc::clone(state), Arc::clone(seen));
        move |request| {
            let (state, in_flight) = (Arc::clone(&state), InFlight::count(&seen, &request));
            async move { Ok::<_, Infallible>(answer(request, &state, in_flight).await) }
        }
    });
    if seen.http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(state.setup.streams);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = seen.leave.notified() => connection.as_mut().graceful_shutdown(),
            }
        }
    }
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    let _ended = connection.with_upgrades().await;
}

/// Counts a request from its arrival until its answer has been sent or dropped.
struct InFlight(Arc<Seen>);

impl InFlight {
    fn count(seen: &Arc<Seen>, request: &Request<Incoming>) -> Self {
        seen.requests.fetch_add(1, Ordering::Relaxed);
        seen.paths.lock().push(request.uri().to_string());
        let now = seen.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        seen.in_flight_max.fetch_max(now, Ordering::Relaxed);
        Self(Arc::clone(seen))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(request: Request<Incoming>, state: &State, in_flight: InFlight) -> Response<Counted> {
    let path = request.uri().path().to_owned();
    let mut response = match path.as_str() {
        "/hold" => {
            state.gate.acquire().await.expect("never closed").forget();
            Response::new(text("done"))
        }
        "/echo" => Response::new(request.into_body().map_err(|_| unreachable_body()).boxed_unsync()),
        // A head and one event, and then silence.
        "/watch" => Response::new(
            Events { first: Some(Bytes::from_static(b"{\"type\":\"ADDED\"}\n")) }.boxed_unsync(),
        ),
        // Sixty thousand frames of one byte, and then silence.
        "/drip" => {
            let silent = Some(Arc::clone(&state.dripped));
            Response::new(Frames { frame: Bytes::from_static(b"."), left: 60_000, silent }.boxed_unsync())
        }
        "/large" => {
            let frame = vec![b'x'; 64 << 10].into();
            Response::new(Frames { frame, left: 64, silent: None }.boxed_unsync())
        }
        "/trailers" => {
            let sent = request.into_body().collect().await.expect("a body");
            let trailers = sent.trailers().cloned().unwrap_or_default();
            Response::new(text("t").with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync())
        }
        "/tunnel" => tunnel(request),
        "/refused" => status(StatusCode::FORBIDDEN, "you may not exec"),
        "/switch" => status(StatusCode::SWITCHING_PROTOCOLS, ""),
        "/livez" | "/readyz" => Response::new(text("ok")),
        // The cache answers at once, etcd when it gets a permit.
        "/api/v1/namespaces/slow-etcd" => {
            if request.uri().query().is_none() {
                state.gate.acquire().await.expect("never closed").forget();
            }
            Response::new(text("{}"))
        }
        // Answered, with an error, when there is a permit.
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            state.gate.acquire().await.expect("never closed").forget();
            status(StatusCode::INTERNAL_SERVER_ERROR, "no verdict")
        }
        // The answer comes although nobody reads the request's body.
        "/early" => status(StatusCode::TOO_MANY_REQUESTS, "later"),
        _ => status(StatusCode::NOT_FOUND, "no such path"),
    };
    if path == "/trailers" {
        response.headers_mut().insert("trailer", "x-checksum".parse().expect("a value"));
    }
    response.map(|body| Counted { body, in_flight: Some(in_flight) })
}

fn unreachable_body() -> Infallible {
    panic!("the proxy cut a request body that the test expected to arrive")
}

fn text(text: &'static str) -> Answer {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}

fn status(status: StatusCode, body: &'static str) -> Response<Answer> {
    let mut response = Response::new(if body.is_empty() { Empty::new().boxed_unsync() } else { text(body) });
    *response.status_mut() = status;
    response
}

/// Switches protocols and sends back in capitals what it receives, until the client closes its side.
fn tunnel(mut request: Request<Incoming>) -> Response<Answer> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut part = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            part[..count].make_ascii_uppercase();
            if stream.write_all(&part[..count]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        let _closed = stream.shutdown().await;
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS, "");
    response.headers_mut().insert(CONNECTION, "Upgrade".parse().expect("a value"));
    response.headers_mut().insert(UPGRADE, "SPDY/3.1".parse().expect("a value"));
    response
}

/// One event and then nothing for ever.
struct Events {
    first: Option<Bytes>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.first.take() {
            Some(event) => Poll::Ready(Some(Ok(Frame::data(event)))),
            None => Poll::Pending,
        }
    }
}

/// The same frame many times over.
struct Frames {
    frame: Bytes,
    left: u32,
    /// Set after the last one, and then silence; without it, the end.
    silent: Option<Arc<AtomicBool>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left > 0 {
            self.left -= 1;
            return Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))));
        }
        let Some(silent) = &self.silent else { return Poll::Ready(None) };
        silent.store(true, Ordering::Relaxed);
        Poll::Pending
    }
}

/// An answer that counts as in flight until its last frame is handed over, or it is dropped. Not until the drop alone:
/// that may come after the frame has left, when its client has long begun the next request.
struct Counted {
    body: Answer,
    in_flight: Option<InFlight>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.in_flight = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Trailers with one field.
pub(crate) fn checksum() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "42".parse().expect("a value"));
    trailers
}
