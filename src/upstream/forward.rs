//! How does one request get to the apiserver and its answer back?
//!
//! [`Pools`] picks the pool by [`Route`], waits for a stream, sends, and waits for the response head. Upgrades
//! (exec, attach, port-forward) get a fresh HTTP/1.1 connection each that never returns to a pool, whatever the
//! answer: reusing one after a refused upgrade was CVE-2018-1002105. Nothing but the request head is sent on it
//! before the 101.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture as Boxed;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Semaphore;

use super::body::{RequestBody, ResponseBody};
use super::connection::Sent;
use super::dial::{Dialer, Offer, Protocol};
use super::error::{Kind, UpstreamError};
use super::pool::{Limits, Pool};
use super::settings::{Settings, UnverifiedProtocol};
use super::spare::{self, Spare, Upgradable};
use super::stall::Sweeper;
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
    /// Opened beforehand, for credentials that are kept warm.
    spares: [OnceLock<Arc<Spare>>; Via::COUNT],
    sweeper: Arc<Sweeper>,
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
            spares: Default::default(),
            sweeper: Sweeper::spawn(settings.response_stall),
            authority: own_authority(settings),
            first_byte_timeout: settings.first_byte_timeout,
            request_stall: settings.request_stall,
            dialer,
            stats,
        })
    }

    /// Opens one connection for short requests of `lane` with `via` and one for its next upgrade, and keeps both
    /// ready from now on.
    ///
    /// # Errors
    ///
    /// When the apiserver cannot be reached now; attempts go on in the background. Or when `via` needs a certificate
    /// that is not configured.
    pub async fn warm(&self, lane: Lane, via: Via) -> Result<(), UpstreamError> {
        self.dialer.check(via)?;
        let keep = || Spare::keep(Arc::clone(&self.dialer), via, Arc::clone(&self.upgrades));
        self.spares[via.index()].get_or_init(keep);
        self.pool(lane, via, Traffic::Short).warm().await
    }

    /// Whether a connection for the next upgrade with `via` is open already.
    #[must_use]
    pub fn is_upgrade_ready(&self, via: Via) -> bool {
        self.spares[via.index()].get().is_some_and(|spare| spare.is_ready())
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
                Ok(response) => {
                    let sweeper = deadline.map(|_| Arc::clone(&self.sweeper));
                    return Ok(checked(response)?.map(|body| ResponseBody::new(body, Some(slot), sweeper)));
                }
                Err(error) => error,
            };
            let Some(mut returned) = error.take_message() else {
                return Err(lost(error, slot.has_request_failed()));
            };
            returned.body_mut().travel_on(None);
            pool.retire(slot.connection());
            self.stats.request_handed_back();
            if attempt == ATTEMPTS_MAX {
                return Err(unsent(error.into_error()));
            }
            attempt += 1;
            request = returned;
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
        target::address(&mut request, Protocol::Http1, &self.authority)?;
        if let Some(spare) = self.spares[via.index()].get().and_then(|spare| spare.take()) {
            match upgrade_over(spare, request).await {
                Ok(response) => return of_one_length(response),
                Err(Refused { request: Some(unsent), .. }) => {
                    self.stats.request_handed_back();
                    request = *unsent;
                }
                Err(Refused { error, .. }) => return Err(error),
            }
        }
        let Ok(place) = Arc::clone(&self.upgrades).try_acquire_owned() else {
            let text = "as many upgraded connections as allowed are open: close some or raise the bound";
            return Err(UpstreamError::new(Kind::WaitQueueFull, text));
        };
        let dialed = self.dialer.dial(via, Offer::Http1, Some(place)).await?;
        let fresh = spare::open(dialed, None).await.map_err(unsent)?;
        upgrade_over(fresh, request).await.map_err(|refused| refused.error).and_then(of_one_length)
    }
}

/// A failed upgrade, with the request if it was not sent.
struct Refused {
    error: UpstreamError,
    request: Option<Box<Request<RequestBody>>>,
}

/// Sends `request` as the only one that its connection will ever carry.
async fn upgrade_over(
    mut sender: Upgradable,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refused> {
    match sender.try_send_request(request).await {
        Ok(response) => Ok(response.map(|body| ResponseBody::new(body, None, None))),
        Err(mut error) => {
            let request = error.take_message().map(Box::new);
            let error = if request.is_some() { unsent(error.into_error()) } else { lost(error, false) };
            Err(Refused { error, request })
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
    of_one_length(response)
}

/// A length beside chunks is read in two ways by two readers, and hyper passes both on.
fn of_one_length<B>(response: Response<B>) -> Result<Response<B>, UpstreamError> {
    let headers = response.headers();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        let text = "the apiserver's answer has both Content-Length and Transfer-Encoding";
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

/// Every connection it was given to closed before the request was on its way.
fn unsent(error: hyper::Error) -> UpstreamError {
    let text = "the apiserver closed the connection before the request was sent";
    UpstreamError::new(Kind::Unavailable, text).with_source(error)
}
