//! How does spillway itself ask the lane something: the self-probe, `test`, `arm`?
//!
//! One connection, one request, no retries, and an error that says how far it got: in an emergency "it does not work" is
//! no help, but "TCP is fine and the certificate of the lane is not from this CA" is. Every phase has its bound.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Access;
use crate::authn::signatures_are_checked;
use crate::clock;
use crate::upstream::ClientCertificate;
use crate::upstream::tls;

/// For name resolution and TCP together, and for the TLS handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// From the request to the end of its answer: as long as an overloaded apiserver may take for a small one.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const JSON: &str = "application/json";

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Certificates, key and address fit together.
    Files,
    /// TCP.
    Connect,
    /// The handshake.
    Tls,
    /// Request and answer.
    Request,
}

/// It did not work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// Up to there.
    pub stage: Stage,
    message: String,
}

/// The lane, and the certificate to go there with.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// What came back, and how long each phase took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Name resolution and TCP.
    pub connect: Duration,
    /// TLS.
    pub tls: Duration,
    /// Request to the end of its answer.
    pub answer: Duration,
}

fn fail(stage: Stage, message: impl Display) -> ClientError {
    ClientError { stage, message: message.to_string() }
}

impl ClientError {
    /// What is needed to connect cannot be used.
    pub(super) fn files(why: &dyn Display) -> Self {
        fail(Stage::Files, why)
    }
}

impl Target {
    /// What a kubeconfig describes.
    ///
    /// # Errors
    /// When its certificates or address cannot be used.
    pub fn of(access: &Access) -> Result<Self, ClientError> {
        let files = |error: tls::TlsError| fail(Stage::Files, error);
        let authority: http::uri::Authority = access
            .server
            .trim_start_matches("https://")
            .trim_end_matches('/')
            .parse()
            .map_err(|_| fail(Stage::Files, "the server is not https://HOST:PORT"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = access.server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name)
            .map_err(|_| fail(Stage::Files, "the server's name is neither a DNS name nor an IP address"))?;
        let identity = ClientCertificate {
            chain_pem: access.certificate_pem.clone().into_bytes(),
            key_pem: access.key_pem.clone().into_bytes(),
        };
        let roots = tls::roots("certificate-authority", access.cluster_ca_pem.as_bytes()).map_err(files)?;
        let config = tls::client_config(roots, Some(&identity), &[tls::ALPN_HTTP1]).map_err(files)?;
        Ok(Self { host, port: authority.port_u16().unwrap_or(443), name, tls: Arc::new(config) })
    }

    /// The lane of this process, which must show exactly `serving`.
    pub(super) fn own(
        address: SocketAddr,
        serving: CertificateDer<'static>,
        identity: &ClientCertificate,
    ) -> Result<Self, ClientError> {
        let files = |error: tls::TlsError| fail(Stage::Files, error);
        let mut config =
            tls::client_config(rustls::RootCertStore::empty(), Some(identity), &[tls::ALPN_HTTP1])
                .map_err(files)?;
        let algorithms = tls::provider().signature_verification_algorithms;
        config.dangerous().set_certificate_verifier(Arc::new(Exactly { serving, algorithms }));
        let mut address = address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let name = ServerName::from(address.ip());
        Ok(Self { host: address.ip().to_string(), port: address.port(), name, tls: Arc::new(config) })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// One request over a connection of its own; `body` is JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Result<Answer, ClientError> {
        self.ask_as(method, path, body, JSON).await
    }

    /// The same with a body of another type.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask_as(
        &self,
        method: Method,
        path: &str,
        body: &str,
        content_type: &'static str,
    ) -> Result<Answer, ClientError> {
        let begun = clock::now();
        let tcp = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| fail(Stage::Connect, format!("no connection within {CONNECT:?}")))?
            .map_err(|error| fail(Stage::Connect, error))?;
        // Else the request waits 40 ms for the peer to acknowledge the end of the handshake; a failure only costs that.
        let _ = tcp.set_nodelay(true);
        let connected = clock::now();
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = timeout(CONNECT, connector.connect(self.name.clone(), tcp))
            .await
            .map_err(|_| fail(Stage::Tls, format!("no TLS handshake within {CONNECT:?}")))?
            .map_err(|error| fail(Stage::Tls, error))?;
        let secured = clock::now();
        let request = self.request(method, path, body, content_type)?;
        let exchange = async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| fail(Stage::Request, error))?;
            // It ends with the sender; what goes wrong is told to the sender.
            let driver = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| fail(Stage::Request, error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| fail(Stage::Request, error))?
                .to_bytes();
            driver.abort();
            Ok((status, headers, body))
        };
        let (status, headers, body) = timeout(ANSWER, exchange)
            .await
            .map_err(|_| fail(Stage::Request, format!("no answer within {ANSWER:?}")))??;
        Ok(Answer {
            status,
            headers,
            body,
            connect: connected.since(begun),
            tls: secured.since(connected),
            answer: clock::now().since(secured),
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: &str,
        content_type: &'static str,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| fail(Stage::Request, "the path is not one"))?;
        let host = HeaderValue::try_from(self.address()).map_err(|error| fail(Stage::Files, error))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("spillway/", env!("CARGO_PKG_VERSION"))),
        );
        // The log of a container is no JSON, and kube-apiserver refuses to call it that.
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*"));
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(request)
    }
}

/// Trusts one certificate: that of our own listener, whatever names are in it.
#[derive(Debug)]
struct Exactly {
    serving: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.serving {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "the lane shows another certificate than breakGlass.tls names".to_owned(),
            ))
        }
    }

    signatures_are_checked!();
}
