//! How do the storm's clients talk? HTTP/2 over TLS, one connection a client, as real agents, kubelets and operators
//! do, and nothing in between that could retry or wait on its own.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_rustls::TlsConnector;

use crate::cluster::Credential;

/// Windows of Go's HTTP/2 client: smaller ones would make a big LIST slower than agents make it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// How kubectl patches objects whose kinds it knows.
const PATCH: &str = "application/strategic-merge-patch+json";

/// Who asks, and where.
#[derive(Clone)]
pub(crate) struct Who {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// The value of `Authorization`, for those without a certificate.
    bearer: Option<Arc<str>>,
    /// The value of `User-Agent`.
    agent: &'static str,
    /// Whether large answers may come compressed.
    gzip: bool,
}

/// One connection. Dropping it closes it, with everything on it.
pub(crate) struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    who: Who,
    driver: JoinHandle<()>,
}

/// What came back, with its body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// No answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Neither connection nor request got anywhere.
    Broken(String),
    /// The client's patience ended.
    Timeout,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Timeout => f.write_str("the client's timeout"),
        }
    }
}

fn broken(error: impl fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

impl Who {
    /// `credential` at `address`, whose certificate is checked against the PEM file `ca`.
    pub(crate) fn new(address: SocketAddr, ca: &Path, credential: &Credential) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("a CA in PEM")).expect("a usable CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default TLS versions")
            .with_root_certificates(roots);
        let mut tls = match credential {
            Credential::Certificate(pair) => {
                let certificate = CertificateDer::from_pem_file(&pair.cert).expect("a certificate in PEM");
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key in PEM");
                config.with_client_auth_cert(vec![certificate], key).expect("certificate and key fit")
            }
            Credential::Token(_) | Credential::None => config.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        // Agents, kubelets and kubectl are programs that start anew: none has a session of an earlier one.
        tls.resumption = Resumption::disabled();
        let bearer = match credential {
            Credential::Token(token) => Some(format!("Bearer {token}").into()),
            _ => None,
        };
        Self { address, tls: Arc::new(tls), bearer, agent: "storm/1", gzip: false }
    }

    /// The same, under another name.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn called(mut self, agent: &'static str) -> Self {
        self.agent = agent;
        self
    }

    /// The same, asking for compressed answers as every client written in Go does; whoever wants to read them must
    /// ask for small ones.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn compressed(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// The same place and name, with a token instead.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { bearer: Some(format!("Bearer {token}").into()), ..self.clone() }
    }

    /// A fresh connection.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let socket = TcpStream::connect(self.address).await.map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await.map_err(broken)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(async move {
            // How it ended is what the requests on it tell.
            let _ = connection.await;
        });
        Ok(Connection { sender, who: self.clone(), driver })
    }
}

impl Connection {
    /// Another hand on the same connection, for requests at the same time. The first hand closes it for both.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn another(&self) -> Self {
        let driver = tokio::spawn(std::future::ready(()));
        Self { sender: self.sender.clone(), who: self.who.clone(), driver }
    }

    /// Whether no further request can be sent on it.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The head of the answer; the caller reads the body.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let content = if method == Method::PATCH { PATCH } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.who.address))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, self.who.agent);
        if self.who.gzip {
            request = request.header(header::ACCEPT_ENCODING, "gzip");
        }
        if let Some(bearer) = &self.who.bearer {
            request = request.header(header::AUTHORIZATION, &**bearer);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let request = request.body(Full::from(body.unwrap_or_default())).map_err(broken)?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(broken)?;
        sender.send_request(request).await.map_err(broken)
    }

    /// The whole answer, within `patience`.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        let whole = async {
            let response = self.open(method, path, body).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok(Answer { status: head.status, body })
        };
        timeout(patience, whole).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// The whole seconds of `Retry-After`.
pub(crate) fn retry_after(response: &Response<Incoming>) -> Option<u64> {
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// Reads a body to its end and keeps nothing of it.
pub(crate) async fn swallow(mut body: Incoming) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(broken)?.data_ref().map_or(0, |part| part.len() as u64);
    }
    Ok(bytes)
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
