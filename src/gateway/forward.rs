//! How does an admitted request become an answer?
//!
//! Sent on, waited for, understood, dressed. The turn goes into the answer's body, or into the tunnel. A refusal of
//! the apiserver's is read before it is passed on, because its few bytes tell what it means; everything else flows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{Body, Flowing, Told, Watching};
use super::exchange::Exchange;
use super::headers::{self, AUDIT_ID};
use super::levers::Contained;
use super::meaning::{self, Meaning};
use super::permit::Reset;
use super::resolved::Resolved;
use super::turn::Turn;
use super::{Path, Understood, outgoing, refuse, tunnel};
use crate::clock;
use crate::flow::{End, Level, Reason, Refusal};
use crate::request::Verb;
use crate::server::Tunnel;
use crate::telemetry::Answerer;
use crate::upstream::{self, ResponseBody, Route, Traffic, UpstreamError};

/// Bytes of a refusal that are read to understand it: a `Status` has some hundred.
const LOOK_BYTES: usize = 8 << 10;
/// How long its body may take to come; it is sent together with its head.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of objects for each byte of a compressed answer. Go's clients ask for gzip, so a LIST of 40 MB passes as 3.4 MB
/// (measured: pods as JSON, 11.8 times), and what the apiserver holds is the 40. Contents that compress badly
/// are taken for more than they are, which costs a turn and not a server.
const GZIP_INFLATION: u64 = 10;
/// A request that was reset is told to come back after this many seconds at least, and at most twice as many: the
/// brake holds for five seconds after the last sign of trouble.
const RESET_RETRY: u32 = 10;

impl Path {
    /// Sends an admitted request on and dresses its answer.
    pub(super) async fn forward(
        &self,
        exchange: &mut Exchange,
        mut turn: Turn,
        mut request: Request<Incoming>,
        resolved: &Resolved,
        understood: &Understood,
    ) -> Response<Body> {
        let traffic = understood.traffic;
        let client_upgrade = (traffic == Traffic::Upgrade).then(|| hyper::upgrade::on(&mut request));
        let outgoing = outgoing::build(request, exchange, resolved);
        let sent = clock::now();
        let waited = exchange.queued + exchange.reviewed;
        self.shared.metrics.overhead(sent.since(exchange.arrived).saturating_sub(waited));
        let route = Route { lane: exchange.lane, via: resolved.via, traffic };
        let mut reset = turn.take_reset();
        let answered = tokio::select! {
            answered = self.upstream.forward(outgoing, route) => answered,
            () = given_up(&mut reset) => return refuse_reset(exchange),
        };
        turn.keep_reset(reset);
        match answered {
            Ok(response) => {
                let answered = clock::now();
                exchange.upstream = answered.since(sent);
                exchange.answered = Some(answered);
                self.answer(exchange, response, turn, understood, client_upgrade).await
            }
            Err(error) => {
                let end = meaning_of_failure(&error);
                self.shared.metrics.upstream_ended(end);
                turn.finish(end, 0, Level::default());
                exchange.answerer = Answerer::Failed(match error.kind {
                    upstream::Kind::FirstByteTimeout => Reason::Deadline,
                    upstream::Kind::BadRequest | upstream::Kind::RequestBody => Reason::Malformed,
                    _ => Reason::UpstreamUnavailable,
                });
                refuse::upstream_failed(&error, exchange.verb == Verb::Watch, &exchange.audit_id)
            }
        }
    }

    /// The apiserver's answer as the client gets it.
    async fn answer(
        &self,
        exchange: &Exchange,
        response: Response<ResponseBody>,
        turn: Turn,
        understood: &Understood,
        client_upgrade: Option<OnUpgrade>,
    ) -> Response<Body> {
        let (mut parts, mut body) = response.into_parts();
        let level = meaning::level(&parts.headers);
        let (ahead, end) = match meaning::of_head(&parts, level) {
            Meaning::Is(end) => (VecDeque::new(), end),
            Meaning::InBody => look_into(&parts, &mut body).await,
        };
        self.shared.metrics.upstream_ended(end);
        let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::clean_response(&mut parts.headers, switched);
        parts.headers.entry(AUDIT_ID).or_insert_with(|| exchange.audit_id.clone());
        if parts.status == StatusCode::UNAUTHORIZED
            && let Some(key) = exchange.caller.as_ref().and_then(|caller| caller.token_key.as_ref())
        {
            self.shared.authenticator.demote(key, clock::wall());
        }
        if end == End::Success {
            turn.first_byte(exchange.answered.unwrap_or(exchange.arrived), level);
        }
        if switched {
            self.join(exchange, &mut parts, turn, client_upgrade);
            return Response::from_parts(parts, Body::full(Bytes::new()));
        }
        parts.extensions.clear();
        let inflation = inflation(&parts.headers);
        let watch = (understood.traffic == Traffic::Watch).then(|| {
            let drained = self.shared.drain.deadline_for_stream();
            Watching::new(understood.initial_events, drained, self.when_denied(exchange))
        });
        let told = Told { end, level, inflation };
        Response::from_parts(parts, Body::flowing(Flowing::new(ahead, body, turn, told, watch)))
    }

    /// Both sides speak another protocol from now on.
    fn join(&self, exchange: &Exchange, parts: &mut Parts, turn: Turn, client: Option<OnUpgrade>) {
        if let (Some(client), Some(upstream)) = (client, parts.extensions.remove::<OnUpgrade>()) {
            let ends = tunnel::Ends { client, upstream };
            let (drained, denied) = (self.shared.drain.deadline_for_stream(), self.when_denied(exchange));
            let over = async move {
                tokio::select! {
                    () = drained => {}
                    () = denied => {}
                }
            };
            let metrics = Arc::clone(&self.shared.metrics);
            let told = Arc::new(Tunnel::default());
            parts.extensions.insert(Arc::clone(&told));
            tokio::spawn(tunnel::join(ends, turn, over, metrics, (told, Arc::clone(&exchange.connection))));
        }
    }

    /// Resolves once an operator denies the caller of a stream.
    fn when_denied(&self, exchange: &Exchange) -> Contained {
        match &exchange.caller {
            Some(caller) if !self.entrance.is_break_glass() => {
                let peer = exchange.connection.peer.ip();
                self.shared.levers.when_denied(Arc::clone(caller), peer, exchange.lane)
            }
            _ => Box::pin(std::future::pending()),
        }
    }
}

/// Reads the beginning of a small body, and says what it means. What was read is passed on before the rest.
async fn look_into(parts: &Parts, body: &mut ResponseBody) -> (VecDeque<Frame<Bytes>>, End) {
    let (mut ahead, mut start) = (VecDeque::new(), Vec::new());
    let read = async {
        while start.len() < LOOK_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Some(data) = frame.data_ref() {
                start.extend_from_slice(&data[..data.len().min(LOOK_BYTES - start.len())]);
            }
            ahead.push_back(frame);
        }
    };
    // What has not come by then is passed on like any other body; what has, must do.
    let _ = tokio::time::timeout(LOOK_WITHIN, read).await;
    (ahead, meaning::of_body(parts, &start))
}

/// Resolves when the scheduler gives the request up.
async fn given_up(reset: &mut Option<Reset>) {
    if let Some(told) = reset
        && told.await.is_ok()
    {
        return;
    }
    // Nobody can give it up any more, and what has resolved must not be asked again.
    *reset = None;
    std::future::pending().await
}

/// Nothing of an answer was sent yet, and only reads are given up: the client may simply come back.
fn refuse_reset(exchange: &mut Exchange) -> Response<Body> {
    exchange.answerer = Answerer::Refused(Reason::Cancelled);
    // Spread by the moment of arrival: requests that are given up together came one after the other.
    let spread = u32::try_from(exchange.arrived.as_nanos() % u64::from(RESET_RETRY + 1)).unwrap_or(0);
    refuse::shed(&Refusal::now(Reason::Cancelled, RESET_RETRY + spread), &exchange.audit_id)
}

fn meaning_of_failure(error: &UpstreamError) -> End {
    match (error.kind, error.side) {
        (upstream::Kind::FirstByteTimeout, _) => End::TimedOut,
        (_, upstream::Side::Upstream) => End::Dropped,
        (_, upstream::Side::Client | upstream::Side::Spillway) => End::Ignored,
    }
}

/// How many bytes the apiserver held for each byte that it sends.
fn inflation(headers: &http::HeaderMap) -> u64 {
    let compressed = headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
    if compressed { GZIP_INFLATION } else { 1 }
}
