//! A raw HTTP client: one connection, one protocol, and nothing in a request that the test did not put there.
//!
//! kubectl and client-go retry, fall back and decode, which is what hides a proxy's mistakes. This client shows them:
//! it never retries, keeps every header and byte, and says how a body ended. Every wait is bounded by [`within`].

// The test bed measures real time, and says what it expected by panicking.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::{
    convert::Infallible,
    fmt, fs,
    future::Future,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::cluster::Credential;

/// What a request carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How long one exchange may take on a busy machine; a real answer takes milliseconds.
const EXCHANGE: Duration = Duration::from_secs(60);

/// The protocol of a connection, offered alone in ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Http1 => b"http/1.1".to_vec(),
            Self::Http2 => b"h2".to_vec(),
        }
    }
}

/// Whom to call, and as whom.
#[derive(Clone)]
pub(crate) struct Caller {
    address: SocketAddr,
    tls: ClientConfig,
    authorization: Option<HeaderValue>,
    /// The address it comes from, where that matters.
    source: Option<IpAddr>,
}

impl Caller {
    /// A caller of `address`, whose certificate is checked against the PEM file `ca`.
    pub(crate) fn new(address: SocketAddr, ca: &Path, who: &Credential) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca) {
            roots.add(certificate).expect("the test's CA is one");
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let tls = match who {
            Credential::Certificate(pair) => {
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("the test's key is PEM");
                tls.with_client_auth_cert(certificates(&pair.cert), key)
                    .expect("certificate and key are a pair")
            }
            Credential::Token(_) | Credential::None => tls.with_no_client_auth(),
        };
        let authorization = match who {
            Credential::Token(token) => {
                Some(HeaderValue::try_from(format!("Bearer {token}")).expect("ASCII token"))
            }
            Credential::Certificate(_) | Credential::None => None,
        };
        Self { address, tls, authorization, source: None }
    }

    /// A TLS connection for whoever wants to write the bytes of a request by hand.
    pub(crate) async fn socket(&self, protocol: Protocol) -> TlsStream<TcpStream> {
        self.try_socket(protocol).await.unwrap_or_else(|e| panic!("expected TLS with {}: {e}", self.address))
    }

    /// The same, where being turned away is an answer.
    pub(crate) async fn try_socket(&self, protocol: Protocol) -> std::io::Result<TlsStream<TcpStream>> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![protocol.alpn()];
        within("a TLS connection", async {
            let tcp = self.tcp().await?;
            tcp.set_nodelay(true)?;
            let stream =
                TlsConnector::from(Arc::new(tls)).connect(ServerName::from(self.address.ip()), tcp).await?;
            let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(agreed, Some(protocol.alpn()), "ALPN with {}", self.address);
            Ok(stream)
        })
        .await
    }

    async fn tcp(&self) -> std::io::Result<TcpStream> {
        let Some(source) = self.source else { return TcpStream::connect(self.address).await };
        let socket = TcpSocket::new_v4()?;
        // Ports of an address of one's own run out otherwise: closed connections keep them for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(self.address).await
    }

    /// The same, who comes from `source`.
    #[allow(dead_code, reason = "not every program that shares this has sources")]
    pub(crate) fn from(mut self, source: [u8; 4]) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Connects.
    pub(crate) async fn connect(&self, protocol: Protocol) -> Connection {
        let connection = self.try_connect(protocol).await;
        connection.unwrap_or_else(|e| panic!("expected a connection with {}: {e}", self.address))
    }

    /// Connects, where being turned away is an answer.
    pub(crate) async fn try_connect(&self, protocol: Protocol) -> Result<Connection, String> {
        let io = TokioIo::new(self.try_socket(protocol).await.map_err(|e| e.to_string())?);
        let (sender, task) = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(|e| e.to_string())?;
                let task = tokio::spawn(async move { connection.with_upgrades().await });
                (Sender::Http1(sender), task)
            }
            Protocol::Http2 => {
                let mut settings = http2::Builder::new(TokioExecutor::new());
                let handshake = settings.max_header_list_size(1 << 20).handshake(io).await;
                let (sender, connection) = handshake.map_err(|e| e.to_string())?;
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        let authorization = self.authorization.clone();
        Ok(Connection { sender, task, authority: self.address.to_string(), authorization })
    }

    /// One request over a connection of its own.
    pub(crate) async fn ask(&self, protocol: Protocol, request: Request<Body>) -> Answer {
        let mut connection = self.connect(protocol).await;
        connection.ask(request).await
    }
}

/// One open connection.
pub(crate) struct Connection {
    sender: Sender,
    task: JoinHandle<hyper::Result<()>>,
    authority: String,
    authorization: Option<HeaderValue>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Sends a request whose URI is only path and query; the answer's body has yet to be read.
    pub(crate) async fn start(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let (mut parts, body) = request.into_parts();
        if let Some(value) = &self.authorization {
            parts.headers.entry(AUTHORIZATION).or_insert_with(|| value.clone());
        }
        let what = format!("an answer to {} {}", parts.method, parts.uri);
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    let host = HeaderValue::try_from(self.authority.as_str()).expect("an address is ASCII");
                    parts.headers.entry(HOST).or_insert(host);
                    sender.ready().await?;
                    sender.send_request(Request::from_parts(parts, body)).await
                }
                Sender::Http2(sender) => {
                    let mut uri = parts.uri.into_parts();
                    uri.scheme = Some(http::uri::Scheme::HTTPS);
                    uri.authority = Some(self.authority.parse().expect("an address is an authority"));
                    parts.uri = Uri::from_parts(uri).expect("a path has a slash");
                    sender.ready().await?;
                    sender.send_request(Request::from_parts(parts, body)).await
                }
            }
        };
        within(&what, answer).await.map_err(Failed)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn try_ask(&mut self, request: Request<Body>) -> Result<Answer, Failed> {
        let (head, body) = self.start(request).await?.into_parts();
        let collected = within("the whole body", body.collect()).await.map_err(Failed)?;
        let trailers = collected.trailers().cloned();
        Ok(Answer { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
    }

    /// The same, where anything but an answer is a defect.
    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_ask(request).await.unwrap_or_else(|e| panic!("expected an answer to {what}, but {e}"))
    }

    /// Whether the connection still takes requests.
    pub(crate) fn is_open(&self) -> bool {
        !self.task.is_finished()
    }
}

/// There was no complete answer.
#[derive(Debug)]
pub(crate) struct Failed(hyper::Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as JSON; panics with its text if it is something else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("expected JSON, but {e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The header's value, empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A JSON watch: one event a line.
pub(crate) struct Events {
    body: Incoming,
    unread: BytesMut,
}

impl Events {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK, "status of a watch");
        Self { body: response.into_body(), unread: BytesMut::new() }
    }

    /// The next event; `None` is a clean end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failed> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line = self.unread.split_to(end);
                self.unread.advance(1);
                return Ok(Some(serde_json::from_slice(&line).expect("an event is JSON")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.unread.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(Failed(error)),
                None => {
                    assert!(self.unread.is_empty(), "the stream ended in the middle of an event");
                    return Ok(None);
                }
            }
        }
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Body> {
    empty(Method::GET, path)
}

/// A request without a body.
pub(crate) fn empty(method: Method, path: &str) -> Request<Body> {
    let body = Empty::new().boxed_unsync();
    Request::builder().method(method).uri(path).body(body).expect("the test's request is valid")
}

/// A request with a JSON body of known length.
pub(crate) fn send(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
    let body = Full::new(body.into()).boxed_unsync();
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(body).expect("the test's request is valid")
}

/// The request with one more header.
pub(crate) fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request
        .headers_mut()
        .append(name, HeaderValue::try_from(value).expect("the test's header value is valid"));
    request
}

/// The answer of `future`; panics with what was awaited when it takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(EXCHANGE, future).await;
    answer.unwrap_or_else(|_| panic!("expected {what} within {EXCHANGE:?}"))
}

/// Runs a test's asynchronous part. Two threads, so that a blocking kubectl beside it does not stop the connections.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime for the test").block_on(future)
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let pem = fs::read(path).expect("the test's certificates can be read");
    CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.expect("the test's certificates are PEM"))
        .collect()
}
