//! How does a check ask kube-apiserver something?
//!
//! One connection a question, HTTP/1.1, every phase bounded. With the front-proxy certificate it speaks as a user of its
//! own, as spillway does for everybody: that this works is itself one of the questions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Found;
use crate::config::ProxyConfiguration;
use crate::upstream::{ClientCertificate, tls};

/// TCP, TLS and answer together.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer: `/metrics` of a large cluster has some ten.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// As whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// Nobody.
    Anonymous,
    /// `spillway:check`, by the front-proxy certificate, in these groups.
    Checker(&'static [&'static str]),
}

/// The name of [`As::Checker`].
pub(super) const CHECKER: &str = "spillway:check";

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) date: Option<String>,
    pub(super) body: Bytes,
}

/// Asks kube-apiserver.
pub(super) fn ask(
    proxy: &ProxyConfiguration,
    who: As,
    method: Method,
    path: &str,
    body: &'static str,
) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let asked = exchange(proxy, who, method, path, body);
    match runtime.block_on(async { tokio::time::timeout(WITHIN, asked).await }) {
        Ok(answer) => answer,
        Err(_elapsed) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

async fn exchange(
    proxy: &ProxyConfiguration,
    who: As,
    method: Method,
    path: &str,
    body: &'static str,
) -> Result<Answer, String> {
    let text = |error: &dyn std::error::Error| crate::app::chain(error);
    let ca = std::fs::read(&proxy.upstreams.tls.ca_file).map_err(|error| text(&error))?;
    let roots = tls::roots("upstreams.tls.caFile", &ca).map_err(|error| text(&error))?;
    let identity = match who {
        As::Anonymous => None,
        As::Checker(_) => Some(front_proxy(proxy)?),
    };
    let config =
        tls::client_config(roots, identity.as_ref(), &[tls::ALPN_HTTP1]).map_err(|error| text(&error))?;
    let name = ServerName::try_from(proxy.upstreams.tls.server_name.clone()).map_err(|error| text(&error))?;
    let socket = TcpStream::connect(proxy.upstreams.server.address).await.map_err(|error| text(&error))?;
    let socket =
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| text(&error))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, proxy.upstreams.server.address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("spillway-check/", env!("CARGO_PKG_VERSION")));
    if let As::Checker(groups) = who {
        request = request.header("x-remote-user", CHECKER);
        for group in groups {
            request = request.header("x-remote-group", *group);
        }
    }
    let request =
        request.body(Full::new(Bytes::from_static(body.as_bytes()))).map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status, date, body })
}

fn front_proxy(proxy: &ProxyConfiguration) -> Result<ClientCertificate, String> {
    let files = proxy.upstreams.forward_identity.front_proxy.as_ref();
    let files = files.ok_or_else(|| "there is no front proxy in the configuration".to_owned())?;
    let read =
        |file: &std::path::Path| std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    Ok(ClientCertificate { chain_pem: read(&files.cert_file)?, key_pem: read(&files.key_file)? })
}

/// A page of spillway's own metrics listener, over plain HTTP on this machine.
///
/// # Errors
/// Why there is none.
pub fn own_page(address: SocketAddr, path: &str) -> Result<String, String> {
    use std::io::{Read as _, Write as _};
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let page = || {
        let mut socket = std::net::TcpStream::connect_timeout(&address, WITHIN)?;
        socket.set_read_timeout(Some(WITHIN))?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        socket.take(ANSWER_BYTES_MAX as u64).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    page().map_err(|error| format!("{address}: {error}"))
}

/// Nobody answered.
pub(super) fn unanswered(proxy: &ProxyConfiguration, why: &str) -> Found {
    let address = proxy.upstreams.server.address;
    Found::skip(format!("kube-apiserver at {address} gives no answer: {why}"), "see SPW-API-001")
}
