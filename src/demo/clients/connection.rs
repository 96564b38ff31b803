//! How does a client of the demo talk to an apiserver?
//!
//! Like client-go: one HTTP/2 connection over TLS that is opened when needed and replaced when broken. No session
//! resumption, as Go clients have none by default, so a reconnect costs what it costs in reality.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::demo::DemoError;
use crate::demo::pki::{Leaf, Pki};

/// Receive windows of Go's HTTP/2 client: 4 MiB a stream, 1 GiB a connection; the latter is cut to what the demo uses.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Go's dialer and handshake have 30 s and 10 s; a client that waits longer is lost to the demo.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What kubectl asks for when it prints a table.
pub(crate) const ACCEPT_TABLE: HeaderValue =
    HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
/// What agents and controllers ask for.
pub(crate) const ACCEPT_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// As whom a client calls.
#[derive(Clone)]
pub(crate) struct Credentials {
    tls: Arc<ClientConfig>,
    bearer: Option<HeaderValue>,
    user_agent: &'static str,
}

impl Credentials {
    /// Somebody with a client certificate.
    pub(crate) fn certificate(pki: &Pki, leaf: &Leaf, user_agent: &'static str) -> Result<Self, DemoError> {
        Ok(Self { tls: Arc::new(tls(pki, Some(leaf))?), bearer: None, user_agent })
    }

    /// A pod with a service-account token. Pods of one kind share `tls`; see [`Credentials::tokens_only`].
    pub(crate) fn token(tls: &Arc<ClientConfig>, token: &str, user_agent: &'static str) -> Self {
        // A token is base64 and dots: always a valid header value.
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok();
        Self { tls: Arc::clone(tls), bearer, user_agent }
    }

    /// TLS without a client certificate.
    pub(crate) fn tokens_only(pki: &Pki) -> Result<Arc<ClientConfig>, DemoError> {
        tls(pki, None).map(Arc::new)
    }
}

fn tls(pki: &Pki, leaf: Option<&Leaf>) -> Result<ClientConfig, DemoError> {
    let failed = |source| DemoError::Tls { what: "its clients", source };
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pki.serving_ca.der()).map_err(failed)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    let mut config = match leaf {
        Some(leaf) => {
            builder.with_client_auth_cert(vec![leaf.certificate.clone()], leaf.key()).map_err(failed)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// No answer came: the connection could not be opened, or broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the apiserver failed")]
pub(crate) struct Broken;

/// One request of a client.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) accept: HeaderValue,
    pub(crate) body: Bytes,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str, accept: HeaderValue) -> Self {
        Self { method: Method::GET, path, accept, body: Bytes::new() }
    }

    pub(crate) fn put(path: &'a str, body: Bytes) -> Self {
        Self { method: Method::PUT, path, accept: ACCEPT_JSON, body }
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, path, accept: ACCEPT_JSON, body: Bytes::new() }
    }
}

/// A client with its connection.
pub(crate) struct Client {
    address: SocketAddr,
    credentials: Credentials,
    /// The lock is held while connecting, so that callers share one new connection.
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Dropping the connection ends its task and closes the socket.
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, credentials: Credentials) -> Self {
        Self { address, credentials, connection: Mutex::new(None) }
    }

    /// Sends a request and returns the answer's head; its body follows in the stream.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Response<Incoming>, Broken> {
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(|_| Broken)?;
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        let uri = format!("https://{}{}", self.address, call.path);
        *request.uri_mut() = uri.parse().map_err(|_| Broken)?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, call.accept);
        headers.insert(CONTENT_TYPE, ACCEPT_JSON);
        headers.insert(USER_AGENT, HeaderValue::from_static(self.credentials.user_agent));
        headers.remove(HOST);
        if let Some(bearer) = &self.credentials.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        sender.send_request(request).await.map_err(|_| Broken)
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Reply, Broken> {
        let answer = self.send(call).await?;
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.map_err(|_| Broken)?.data_ref().map_or(0, Bytes::len);
        }
        Ok(Reply { status, retry_after, bytes })
    }

    /// Closes the connection; the next request opens another one.
    pub(crate) async fn close(&self) {
        *self.connection.lock().await = None;
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Broken> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = &*connection
            && !open.sender.is_closed()
        {
            return Ok(open.sender.clone());
        }
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let opened = opened.map_err(|_elapsed| Broken)??;
        let sender = opened.sender.clone();
        *connection = Some(opened);
        Ok(sender)
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        let socket = TcpStream::connect(self.address).await.map_err(|_| Broken)?;
        // Without it a small request waits for the peer's delayed acknowledgement; a failure costs only latency.
        let _ = socket.set_nodelay(true);
        let name = ServerName::from(self.address.ip());
        let connector = TlsConnector::from(Arc::clone(&self.credentials.tls));
        let stream = connector.connect(name, socket).await.map_err(|_| Broken)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Broken)?;
        // The connection's end shows in `sender`; its error says nothing that a client would act on.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, task })
    }
}

/// An answer that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    /// Length of the body.
    pub(crate) bytes: usize,
}

/// The `Retry-After` of an answer, read as client-go reads it: whole seconds or nothing.
pub(crate) fn retry_after<T>(answer: &Response<T>) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
