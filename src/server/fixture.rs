//! A server with a small handler, and clients for it, for tests over real sockets on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::authn::{ClientAuthority, Material, Verdict};
use crate::identity::Credential;

/// Longer than anything takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Certificate and key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A CA for servers and clients alike.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn server(&self) -> Pair {
        self.sign(CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
    }

    pub(crate) fn client(&self, user: &str) -> Pair {
        self.member(user, None)
    }

    /// A client certificate, with `group` in its O if there is one.
    pub(crate) fn member(&self, user: &str, group: Option<&str>) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// The same, with something more in it.
    pub(crate) fn member_with(
        &self,
        user: &str,
        group: Option<&str>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

pub(crate) fn memory(pem: &str) -> Material {
    Material::Bytes(pem.as_bytes().to_vec())
}

pub(crate) fn tls_settings(pair: &Pair) -> TlsSettings {
    TlsSettings {
        certificate: memory(&pair.certificate),
        key: memory(&pair.key),
        min_version: MinVersion::Tls12,
        resumption: Resumption::Tickets,
    }
}

/// Says who asked; streams, upgrades or panics where the path says so.
pub(crate) struct Echo {
    pub(crate) drain: Drain,
}

pub(crate) fn full(text: String) -> ServerBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

impl Handler for Echo {
    fn handle(
        &self,
        connection: Arc<Connection>,
        mut request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        let drain = self.drain.clone();
        async move {
            match request.uri().path() {
                "/panic" => panic!("asked to"),
                "/stream" => Response::new(streaming(Some(drain))),
                "/endless" => Response::new(streaming(None)),
                "/upgrade" => {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let mut tunnel = TokioIo::new(upgrade.await.unwrap());
                        let mut bytes = [0; 4];
                        while tunnel.read_exact(&mut bytes).await.is_ok() {
                            tunnel.write_all(&bytes).await.unwrap();
                            tunnel.flush().await.unwrap();
                        }
                    });
                    let mut response = Response::new(full(String::new()));
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
                    response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
                    response
                }
                _ => Response::new(full(who(&connection))),
            }
        }
        .boxed()
    }
}

fn who(connection: &Connection) -> String {
    let verdict = connection.certificate.verdict(crate::clock::wall());
    let user = match &verdict {
        Verdict::Nothing => "nobody",
        Verdict::Verified(caller) => &caller.identity.user,
        Verdict::Unverifiable(_) => "unverifiable",
    };
    format!("{:?} {user}", connection.protocol)
}

/// One chunk, then nothing until the drain says so, or for ever.
fn streaming(drain: Option<Drain>) -> ServerBody {
    let first = stream::once(async { Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"event"))) });
    let end = drain.map(|drain| drain.deadline_for_stream());
    let rest = stream::once(async move {
        match end {
            Some(end) => end.await,
            None => std::future::pending().await,
        }
        Ok(Frame::data(Bytes::new()))
    });
    StreamBody::new(stream::StreamExt::chain(first, rest)).boxed_unsync()
}

/// A running server and everything to reach it.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) tls: Arc<Tls>,
    pub(crate) drain: Drain,
}

impl Site {
    pub(crate) fn start(settings: Settings) -> Self {
        Self::start_with(settings, Threads { mode: Mode::Sharded, count: 2, name: "shard" })
    }

    pub(crate) fn start_with(settings: Settings, threads: Threads) -> Self {
        let authority = Authority::new("test");
        let clients =
            ClientAuthority::from_pem(&memory(&authority.certificate), Credential::Certificate).unwrap();
        let tls = Arc::new(Tls::new(&tls_settings(&authority.server()), Arc::new(clients)).unwrap());
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind("test", any, settings, Arc::clone(&tls), Placement::OwnThread).unwrap();
        let address = listener.address();
        let drain = Drain::new();
        let for_handlers = drain.clone();
        let factory: HandlerFactory =
            Arc::new(move |_| -> Arc<dyn Handler> { Arc::new(Echo { drain: for_handlers.clone() }) });
        let server = Server::start(threads, vec![listener], &drain, &factory).unwrap();
        Self { server, address, authority, tls, drain }
    }

    pub(crate) fn config(&self, protocol: Protocol, client: Option<&Pair>) -> Arc<ClientConfig> {
        client_config(&self.authority, protocol, client)
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.server.tallies()[0].1)
    }

    pub(crate) async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        http1_over(connect(self.address, self.config(Protocol::Http1, None)).await).await
    }

    pub(crate) async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        http2_over(connect(self.address, self.config(Protocol::Http2, None)).await).await
    }

    /// Waits for a condition on the server's counters.
    pub(crate) async fn until(&self, reached: impl Fn(TallySnapshot) -> bool) {
        let tally = self.tally();
        until(|| reached(tally.snapshot())).await;
    }
}

pub(crate) fn client_config(
    authority: &Authority,
    protocol: Protocol,
    client: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Arc::new(config)
}

pub(crate) async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(config).connect(name, socket)).await.unwrap()
}

pub(crate) async fn http1_over(stream: TlsStream<TcpStream>) -> http1::SendRequest<Empty<Bytes>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) async fn http2_over(stream: TlsStream<TcpStream>) -> http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).header("host", "localhost").body(Empty::new()).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits until the server has closed the connection.
pub(crate) async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // However it is closed: in peace, without a goodbye, or reset.
    let _ = within(stream.read_to_end(&mut rest)).await;
}

/// Waits for a condition.
pub(crate) async fn until(mut reached: impl FnMut() -> bool) {
    within(async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the test waited too long")
}
