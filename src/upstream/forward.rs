//! How does one request get to the apiserver and its answer back?
//!
//! [`Pools`] picks the pool by [`Route`], waits for a stream, sends, and waits for the response head. Upgrades
//! (exec, attach, port-forward) get a fresh HTTP/1.1 connection each that never returns to a pool, whatever the
//! answer: reusing one after a refused upgrade was CVE-2018-1002105. Nothing but the request head is sent on it
//! before the 101.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture as Boxed;
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Semaphore;

use super::body::{RequestBody, ResponseBody};
use super::connection::{Sent, http1_builder};
use super::dial::{Dialer, Offer, Protocol};
use super::error::{Kind, UpstreamError};
use super::pool::{Limits, Pool};
use super::settings::{Settings, UnverifiedProtocol};
use super::stats::{Stats, Via};
use super::target;
use super::tls::TlsError;
use crate::io::Flusher;
use crate::policy::Lane;

/// The future [`Forward`] returns.
pub type BoxFuture<'a, T> = Boxed<'a, T>;

/// A request that hyper hands back unsent goes to another connection this many times in all.
const ATTEMPTS_MAX: u32 = 2;

/// What kind of exchange, as far as connections are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// Answered and over.
    Short,
    /// Answered for minutes: watches, followed logs.
    Watch,
    /// Becomes a tunnel: exec, attach, port-forward.
    Upgrade,
}

/// Which connections a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The lane it was put in. Unverified callers share their connections across lanes.
    pub lane: Lane,
    /// The credential it travels with.
    pub via: Via,
    /// The kind of exchange.
    pub traffic: Traffic,
}

/// Sends a request to the apiserver.
pub trait Forward: Send + Sync {
    /// The response head with a body that still flows; for [`Traffic::Upgrade`] and status 101 the extensions hold
    /// hyper's `OnUpgrade`. Dropping the future or the body cancels the exchange.
    fn forward(
        &self,
        request: Request<RequestBody>,
        route: Route,
    ) -> BoxFuture<'_, Result<Response<ResponseBody>, UpstreamError>>;
}

/// All connections of one shard to the apiserver.
pub struct Pools {
    /// By lane, then credential (front-proxy, bearer), then traffic (short, watch).
    verified: Vec<Arc<Pool>>,
    unverified_short: Arc<Pool>,
    unverified_watch: Arc<Pool>,
    upgrades: Arc<Semaphore>,
    dialer: Arc<Dialer>,
    stats: Arc<Stats>,
    authority: Authority,
    first_byte_timeout: Duration,
    request_stall: Duration,
}

impl Pools {
    /// Pools without connections, on the current tokio runtime, whose `flusher` it must be.
    ///
    /// # Errors
    ///
    /// When a certificate or key in `settings` cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(settings: &Settings, flusher: Arc<Flusher>) -> Result<Self, TlsError> {
        let stats = Arc::new(Stats::default());
        let dialer = Arc::new(Dialer::new(settings, flusher, Arc::clone(&stats))?);
        let pool =
            |via, offer, limits| Pool::new(via, offer, limits, Arc::clone(&dialer), Arc::clone(&stats));
        let verified = Lane::ALL.into_iter().flat_map(|lane| {
            let short = limits(settings, settings.short_connections_max[lane.index()]);
            let watch = limits(settings, settings.watch_connections_max[lane.index()]);
            [(Via::FrontProxy, short), (Via::FrontProxy, watch), (Via::Bearer, short), (Via::Bearer, watch)]
        });
        let verified = verified.map(|(via, limits)| pool(via, Offer::Http2, limits)).collect();
        let offer = match settings.unverified_protocol {
            UnverifiedProtocol::Http1 => Offer::Http1,
            UnverifiedProtocol::Http2 => Offer::Http2,
        };
        let mut few = limits(settings, settings.unverified_connections_max);
        few.http1_connections = settings.unverified_connections_max;
        Ok(Self {
            verified,
            unverified_short: pool(Via::Unverified, offer, few),
            unverified_watch: pool(Via::Unverified, offer, few),
            upgrades: Arc::new(Semaphore::new(settings.upgrades_max as usize)),
            authority: own_authority(settings),
            first_byte_timeout: settings.first_byte_timeout,
            request_stall: settings.request_stall,
            dialer,
            stats,
        })
    }

    /// Opens one connection for short requests of `lane` with `via`, and keeps one open from now on.
    ///
    /// # Errors
    ///
    /// When the apiserver cannot be reached now; attempts go on in the background.
    pub async fn warm(&self, lane: Lane, via: Via) -> Result<(), UpstreamError> {
        self.pool(lane, via, Traffic::Short).warm().await
    }

    /// Counters of these connections.
    #[must_use]
    pub const fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// How many connections of a route's pool take requests now; upgrades have no pool.
    #[must_use]
    pub fn open(&self, route: Route) -> usize {
        match route.traffic {
            Traffic::Upgrade => 0,
            traffic => self.pool(route.lane, route.via, traffic).open(),
        }
    }

    fn pool(&self, lane: Lane, via: Via, traffic: Traffic) -> &Arc<Pool> {
        let watch = usize::from(traffic == Traffic::Watch);
        match via {
            Via::Unverified if watch == 1 => &self.unverified_watch,
            Via::Unverified => &self.unverified_short,
            Via::FrontProxy => &self.verified[lane.index() * 4 + watch],
            Via::Bearer => &self.verified[lane.index() * 4 + 2 + watch],
        }
    }

    async fn send_pooled(
        &self,
        mut request: Request<RequestBody>,
        route: Route,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let pool = self.pool(route.lane, route.via, route.traffic);
        let deadline = match route.traffic {
            Traffic::Short => Some(self.first_byte_timeout),
            // A followed log sends its head with its first line, which may take hours.
            Traffic::Watch | Traffic::Upgrade => None,
        };
        if route.traffic == Traffic::Short {
            request.body_mut().stall_after(self.request_stall);
        }
        let mut attempt = 1;
        loop {
            let slot = pool.acquire().await?;
            target::address(&mut request, slot.connection().protocol, &self.authority)?;
            request.body_mut().travel_on(Some(Arc::clone(&slot)));
            let mut error = match within(deadline, slot.connection().send(request)).await? {
                Ok(response) => return Ok(checked(response)?.map(|body| ResponseBody::new(body, Some(slot)))),
                Err(error) => error,
            };
            let Some(mut unsent) = error.take_message() else {
                return Err(lost(error, slot.has_request_failed()));
            };
            unsent.body_mut().travel_on(None);
            pool.retire(slot.connection());
            self.stats.request_handed_back();
            if attempt == ATTEMPTS_MAX {
                let text = "the apiserver closed two connections in a row before the request was sent";
                return Err(UpstreamError::new(Kind::Unavailable, text).with_source(error.into_error()));
            }
            attempt += 1;
            request = unsent;
        }
    }

    async fn send_upgrade(
        &self,
        mut request: Request<RequestBody>,
        via: Via,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        if !request.body().is_end_stream() {
            let text = "a request that asks for an upgrade must not carry a body";
            return Err(UpstreamError::new(Kind::BadRequest, text));
        }
        let Ok(permit) = Arc::clone(&self.upgrades).try_acquire_owned() else {
            let text = "as many upgraded connections as allowed are open: close some or raise upgrades_max";
            return Err(UpstreamError::new(Kind::WaitQueueFull, text));
        };
        target::address(&mut request, Protocol::Http1, &self.authority)?;
        let dialed = self.dialer.dial(via, Offer::Http1, Some(permit)).await?;
        let (mut sender, driver) =
            http1_builder().handshake(dialed.io).await.map_err(UpstreamError::after_sending)?;
        tokio::spawn(driver.with_upgrades());
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| ResponseBody::new(body, None))),
            Err(error) => Err(lost(error, false)),
        }
    }
}

impl Forward for Pools {
    fn forward(
        &self,
        request: Request<RequestBody>,
        route: Route,
    ) -> BoxFuture<'_, Result<Response<ResponseBody>, UpstreamError>> {
        match route.traffic {
            Traffic::Upgrade => Box::pin(self.send_upgrade(request, route.via)),
            Traffic::Short | Traffic::Watch => Box::pin(self.send_pooled(request, route)),
        }
    }
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").field("stats", &self.stats).finish_non_exhaustive()
    }
}

fn limits(settings: &Settings, connections: u32) -> Limits {
    Limits {
        connections,
        http1_connections: settings.http1_connections_max,
        streams: settings.streams_max,
        waiting: settings.waiting_max,
        wait: settings.wait,
        http1_idle: settings.http1_idle,
    }
}

/// What stands in for a missing Host: the name in the certificate, else the address.
fn own_authority(settings: &Settings) -> Authority {
    let named = format!("{}:{}", settings.server_name.to_str(), settings.address.port());
    named
        .parse()
        .or_else(|_| settings.address.to_string().parse())
        .unwrap_or_else(|_| Authority::from_static("kubernetes"))
}

async fn within(deadline: Option<Duration>, sent: impl Future<Output = Sent>) -> Result<Sent, UpstreamError> {
    let Some(deadline) = deadline else { return Ok(sent.await) };
    tokio::time::timeout(deadline, sent).await.map_err(|_elapsed| {
        let text = format!("the apiserver sent no response head within {} s", deadline.as_secs());
        UpstreamError::new(Kind::FirstByteTimeout, text)
    })
}

/// The upstream is only half trusted: a tunnel nobody asked for is refused.
fn checked(response: Response<Incoming>) -> Result<Response<Incoming>, UpstreamError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let text = "the apiserver switched protocols although no upgrade was asked for";
        return Err(UpstreamError::new(Kind::Malformed, text));
    }
    Ok(response)
}

fn lost(error: TrySendError<Request<RequestBody>>, request_failed: bool) -> UpstreamError {
    if request_failed {
        let text = "the client's request body broke off or stood still while it was forwarded";
        return UpstreamError::new(Kind::RequestBody, text).with_source(error.into_error());
    }
    UpstreamError::after_sending(error.into_error())
}
