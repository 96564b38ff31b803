//! The request path: from a client's request head to the last byte of its answer.
//!
//! `Path::serve` tells the order (DESIGN section 4): clean → authenticate → understand → classify → decide →
//! forward → answer. Each step lives in a file of its own and can only refuse or pass on. The decision is one
//! explicit call that returns a guard, not a tower layer: a layer that reserves in `poll_ready` leaks what it
//! reserved when the caller goes away.

mod body;
mod contain;
mod decisions;
mod exchange;
mod forward;
mod gate;
mod headers;
#[doc(hidden)]
pub mod hygiene;
mod levers;
mod mark;
mod meaning;
mod names;
mod newcomers;
mod outgoing;
mod permit;
mod recent;
mod refuse;
mod resolved;
mod tap;
mod target;
mod tunnel;
mod turn;

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use self::body::Body;
use self::exchange::Exchange;
use self::gate::Entered;
use self::headers::Wishes;
use self::levers::PenaltyTurn;
use self::resolved::Resolved;
use crate::authn::{self, Authenticator, Caller, Judgement};
use crate::clock;
use crate::flow::{Arrival, Encoding, Key, Kind, Reason};
use crate::policy::{Class, Hints, Policy};
use crate::request::{DecodedPath, RequestInfo, Verb};
use crate::server::{self, Connection, Drain, Handler, ServerBody};
use crate::telemetry::{AccessLog, Answerer, AuditTrail, Metrics};
use crate::upstream::{Forward, Traffic};

pub use self::decisions::{DECISIONS_MAX, Decisions, Extent, FAILURES_MAX, LAST_MAX, Refusal};
pub use self::gate::{Gate, View};
pub use self::levers::{Hits, Lever, Levers};
pub use self::names::Names;
pub use self::newcomers::Newcomers;
pub use self::recent::{CLIENTS_MAX, Client, Counts, Recent};
pub use self::tap::{Drawn, Line, Tap};
pub use self::turn::{Entrance, Reserve, ReserveUsage};

/// What every shard's gateway shares.
pub struct Shared {
    /// Who is calling?
    pub authenticator: Arc<Authenticator>,
    /// Which lane? Swapped whole when the policy changes.
    pub policy: ArcSwap<Policy>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Which requests get a log line.
    pub access_log: AccessLog,
    /// Tells streams when to end at shutdown.
    pub drain: Drain,
    /// What verified clients are called.
    pub names: Arc<Names>,
    /// What operators put in force by hand.
    pub levers: Arc<Levers>,
    /// Who was here lately.
    pub recent: Arc<Recent>,
    /// Who was never here before.
    pub newcomers: Arc<Newcomers>,
    /// What was refused lately.
    pub decisions: Arc<Decisions>,
    /// What passes, while somebody watches.
    pub tap: Arc<Tap>,
    /// Where refusals are written down.
    pub trail: AuditTrail,
}

/// One shard's request path.
pub struct Gateway(Arc<Path>);

struct Path {
    shared: Arc<Shared>,
    entrance: Entrance,
    upstream: Arc<dyn Forward>,
}

/// What a request turned out to be.
struct Understood {
    verb: Verb,
    class: Class,
    traffic: Traffic,
    /// A watch that begins with everything there is.
    initial_events: bool,
    arrival: Arrival,
}

/// An answer of our own, before anything went upstream.
struct Refused {
    reason: Reason,
    response: Response<Body>,
}

impl Gateway {
    /// A gateway that lets requests in by `entrance` and forwards them over `upstream`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, entrance: Entrance, upstream: Arc<dyn Forward>) -> Self {
        Self(Arc::new(Path { shared, entrance, upstream }))
    }
}

impl Path {
    async fn serve(&self, connection: &Arc<Connection>, mut request: Request<Incoming>) -> Response<Body> {
        let mut exchange = Exchange::new(connection, &request);
        let body_comes = server::is_coming(request.headers());
        let response = match self.prepare(&mut exchange, &mut request).await {
            Ok((mut understood, resolved)) => match self.contain(&mut exchange, &mut understood) {
                Ok(penalty) => {
                    self.introduce(&mut exchange, &mut understood);
                    let request = (request, body_comes);
                    self.decide(&mut exchange, request, &resolved, &understood, penalty).await
                }
                Err(response) => {
                    server::throw_away(request, body_comes).await;
                    response
                }
            },
            Err(refused) => {
                exchange.answerer = Answerer::Failed(refused.reason);
                server::throw_away(request, body_comes).await;
                refused.response
            }
        };
        exchange.tell(&self.shared, response.status());
        exchange.keep(&self.shared, self.entrance.is_break_glass(), &response);
        response
    }

    /// Lets it in when its turn comes, or says when to come back.
    async fn decide(
        &self,
        exchange: &mut Exchange,
        (request, body_comes): (Request<Incoming>, bool),
        resolved: &Resolved,
        understood: &Understood,
        penalty: Option<PenaltyTurn>,
    ) -> Response<Body> {
        match self.entrance.enter(exchange.arrived, &understood.arrival, understood.class.mode).await {
            Ok(Entered { mut turn, waited, would }) => {
                (exchange.queued, exchange.would) = (waited, would);
                turn.carry(penalty);
                self.forward(exchange, turn, request, resolved, understood).await
            }
            Err(refusal) => {
                exchange.answerer = Answerer::Refused(refusal.reason);
                exchange.refused.by_scheduler(&refusal, self.entrance.numbers(exchange.lane));
                server::throw_away(request, body_comes).await;
                refuse::shed(&refusal, &exchange.audit_id)
            }
        }
    }

    /// Everything before the decision: clean, authenticate, understand, classify.
    async fn prepare(
        &self,
        exchange: &mut Exchange,
        request: &mut Request<Incoming>,
    ) -> Result<(Understood, Arc<Resolved>), Refused> {
        let malformed = |exchange: &Exchange, message: &str| Refused {
            reason: Reason::Malformed,
            response: refuse::bad_request(message, &exchange.audit_id),
        };
        let unauthorized = |exchange: &Exchange| Refused {
            reason: Reason::Unauthenticated,
            response: refuse::unauthorized(&exchange.audit_id),
        };
        let refused = |exchange: &Exchange, refused: &authn::Refused| match refused.status() {
            StatusCode::UNAUTHORIZED => unauthorized(exchange),
            _ => malformed(exchange, &refused.to_string()),
        };
        target::check(request.method(), request.uri(), request.headers())
            .map_err(|message| malformed(exchange, message))?;
        let wishes = headers::clean_request(request.headers_mut())
            .map_err(|error| malformed(exchange, &error.to_string()))?;
        exchange.refused.impersonates = wishes.impersonates;
        let authenticator = &self.shared.authenticator;
        let judged = authenticator.judge(&exchange.connection.certificate, request.headers(), clock::wall());
        let caller = match judged.map_err(|error| refused(exchange, &error))? {
            Judgement::Caller(caller) => caller,
            // Boxed, because hardly any request waits for a verdict and all would carry its size.
            pending @ Judgement::Pending(..) => {
                let begun = clock::now();
                let caller = Box::pin(pending.settled()).await;
                exchange.reviewed = clock::now().since(begun);
                caller
            }
        };
        if let Ok(path) = DecodedPath::new(request.uri().path()) {
            authenticator
                .admit_anonymous(&caller, path.as_str())
                .map_err(|error| refused(exchange, &error))?;
        }
        let policy = self.shared.policy.load_full();
        let resolved = resolved::of(&caller, &policy).map_err(|_| unauthorized(exchange))?;
        let understood = self.understand(&policy, &caller, &resolved, request, wishes);
        exchange.caller = Some(caller);
        let understood = understood.map_err(|message| malformed(exchange, message))?;
        exchange.lane = understood.class.lane;
        exchange.verb = understood.verb;
        if !self.entrance.is_break_glass()
            && let Some(caller) = &exchange.caller
        {
            let peer = exchange.connection.peer.ip();
            exchange.client =
                Some(resolved.client(&self.shared.recent, understood.class.client, &caller.identity, peer));
        }
        exchange.refused.client = Some(understood.class.client);
        exchange.rule = Some((policy, understood.class.rule));
        Ok((understood, resolved))
    }

    fn understand(
        &self,
        policy: &Policy,
        caller: &Caller,
        resolved: &Resolved,
        request: &Request<Incoming>,
        wishes: Wishes,
    ) -> Result<Understood, &'static str> {
        if request.method() == Method::CONNECT {
            return Err("CONNECT is not a Kubernetes request; kubectl port-forward uses pods/portforward");
        }
        // `GET example.com`: a name and no path, which Go's server refuses too.
        if !request.uri().path().starts_with('/') && request.uri().path() != "*" {
            return Err("the request target is not a path");
        }
        let path =
            DecodedPath::new(request.uri().path()).map_err(|_| "the path has a malformed percent escape")?;
        let info = RequestInfo::new(request.method().as_str(), &path, request.uri().query())
            .map_err(|_| "the path ends where kube-apiserver expects a resource")?;
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        let hints = Hints { user_agent, impersonates: wishes.impersonates };
        let class = policy.classify(&caller.identity, resolved.subjects, &info, &hints);
        resolved.name(&self.shared.names, class.client, &caller.identity);
        let (traffic, kind) = if wishes.upgrade {
            (Traffic::Upgrade, Kind::Streaming)
        } else if info.verb == Verb::Watch {
            (Traffic::Watch, Kind::Watch)
        } else if info.is_long_running() {
            // `logs -f` and proxied streams share the long-lived connections with watches.
            (Traffic::Watch, Kind::Streaming)
        } else {
            (Traffic::Short, Kind::Short)
        };
        let key = Key::of(&info, encoding(request.headers()));
        let arrival = Arrival {
            lane: class.lane,
            flow: class.flow.0,
            client: class.client.0,
            key,
            kind,
            exempt: class.exempt,
        };
        let initial_events = kind == Kind::Watch && info.query.send_initial_events;
        Ok(Understood { verb: info.verb, class, traffic, initial_events, arrival })
    }
}

/// How the answer will be written, as far as it changes the cost.
fn encoding(headers: &HeaderMap) -> Encoding {
    let accept = headers.get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    let says = |word: &[u8]| accept.windows(word.len()).any(|part| part == word);
    if says(b"as=Table") {
        Encoding::Table
    } else if says(b"as=PartialObjectMetadata") {
        Encoding::Metadata
    } else if accept.starts_with(b"application/vnd.kubernetes.protobuf") {
        Encoding::Protobuf
    } else {
        Encoding::Json
    }
}

impl Handler for Gateway {
    fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        let path = Arc::clone(&self.0);
        Box::pin(async move { path.serve(&connection, request).await.map(ServerBody::new) })
    }
}
