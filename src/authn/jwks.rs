//! How do a provider's keys get here from its address?
//!
//! The control thread fetches them, every five minutes and soon after a token has named a key that is not there; a
//! request never waits for it. What was fetched last stays in use while the provider does not answer, for a day: long
//! enough for an outage of the identity provider not to be one of the cluster, short enough for a withdrawn key to be
//! forgotten. HTTPS only, by the CAs that the configuration names; redirects are not followed.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::keys::{self, KeyError, PublicKey};
use super::{Material, MaterialError};
use crate::clock;
use crate::upstream::tls::{self, ALPN_HTTP1, TlsError};

/// Between two fetches. Providers rotate keys over hours and publish them before they sign with them.
const REFRESH: Duration = Duration::from_secs(300);

/// Between two attempts, whatever tokens ask for: whoever invents key ids causes six fetches a minute.
const PAUSE: Duration = Duration::from_secs(10);

/// Look-up, handshake and answer together.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

/// How long keys are used after they were fetched last.
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a key set: twenty keys with certificates have 60 KiB.
const BYTES_MAX: usize = 1 << 20;

/// Where a key set is, and who may answer for that name.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host, as in its certificate.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// PEM bundle of the CAs that may have signed its certificate. Read for every fetch.
    pub ca: Material,
}

/// A key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the host is neither a DNS name nor an IP address")]
    Name,
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}, expected 200; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer broke off or has more than {BYTES_MAX} bytes")]
    Body,
    #[error("the path cannot be asked for: {0}")]
    Path(#[from] http::Error),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("no answer within {} s", FETCH_WITHIN.as_secs())]
    Late,
}

/// The keys of one provider, as they were fetched last.
pub(super) struct RemoteKeys {
    endpoint: Endpoint,
    held: ArcSwap<Held>,
    wanted: Notify,
}

#[derive(Default)]
struct Held {
    keys: Arc<Vec<PublicKey>>,
    /// What they were read from, to tell a change.
    text: Bytes,
    fetched: Option<SystemTime>,
}

impl RemoteKeys {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, held: ArcSwap::default(), wanted: Notify::new() }
    }

    /// The keys that may be used at `now`.
    pub(super) fn at(&self, now: SystemTime) -> Arc<Vec<PublicKey>> {
        let held = self.held.load();
        let fresh = held.fetched.is_some_and(|fetched| now <= fetched + STALE_MAX);
        if fresh { Arc::clone(&held.keys) } else { Arc::default() }
    }

    /// A token named a key that is not there.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Fetches for ever. `told` hears how each fetch ended and whether other keys came of it.
    pub(super) async fn keep_fresh(self: Arc<Self>, told: impl Fn(Fetched) + Send) {
        let mut failing = false;
        loop {
            let fetched = match timeout(FETCH_WITHIN, self.fetch()).await {
                Ok(Ok(true)) => Fetched::Changed,
                Ok(Ok(false)) => Fetched::Same,
                Ok(Err(error)) => self.failed(&error, &mut failing),
                Err(_) => self.failed(&FetchError::Late, &mut failing),
            };
            if fetched != Fetched::Failed && std::mem::take(&mut failing) {
                tracing::info!(host = self.endpoint.host, "an identity provider's keys are fetched again");
            }
            told(fetched);
            sleep(PAUSE).await;
            if !failing {
                // Neither answer matters: it is time either way.
                let _ = timeout(REFRESH - PAUSE, self.wanted.notified()).await;
            }
        }
    }

    fn failed(&self, error: &FetchError, failing: &mut bool) -> Fetched {
        if !*failing {
            let Endpoint { host, path, .. } = &self.endpoint;
            tracing::warn!(
                host, path, %error,
                "an identity provider's keys cannot be fetched; the last ones stay in use for a day"
            );
        }
        *failing = true;
        Fetched::Failed
    }

    /// Whether the keys are others now.
    async fn fetch(&self) -> Result<bool, FetchError> {
        let text = self.get().await?;
        let fetched = Some(clock::wall());
        let held = self.held.load_full();
        if held.text == text {
            self.held.store(Arc::new(Held { keys: Arc::clone(&held.keys), text, fetched }));
            return Ok(false);
        }
        let keys =
            Arc::new(keys::key_set(&text, &format!("https://{}{}", self.endpoint.host, self.endpoint.path))?);
        self.held.store(Arc::new(Held { keys, text, fetched }));
        Ok(true)
    }

    async fn get(&self) -> Result<Bytes, FetchError> {
        let Endpoint { host, port, path, ca } = &self.endpoint;
        let roots = tls::roots("certificateAuthorityFile", &ca.read("the CA of an identity provider")?)?;
        let config = tls::client_config(roots, None, &[ALPN_HTTP1])?;
        let name = ServerName::try_from(host.clone()).map_err(|_| FetchError::Name)?;
        let socket = TcpStream::connect((host.as_str(), *port)).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("spillway/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes()).map_err(|_| FetchError::Body)
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            ended = connection => Err(ended.err().map_or(FetchError::Body, FetchError::Http)),
        }
    }
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// There are other keys than before.
    Changed,
    /// The same.
    Same,
    /// There was no usable answer.
    Failed,
}
