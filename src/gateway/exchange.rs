//! What has to be remembered about one request until it is answered?
//!
//! The request itself moves upstream; these few fields stay, so that its log line and its metrics can be written
//! when the answer's head is known. Clones are of reference-counted bytes.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::header::{HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use uuid::Uuid;

use super::Shared;
use super::body::Body;
use super::decisions::{self, Refusal};
use super::recent::Client;
use super::tap::Line;
use crate::authn::Caller;
use crate::clock;
use crate::flow::Would;
use crate::flow::{self, Numbers};
use crate::policy::{ClientKey, Lane, Policy, RuleIndex};
use crate::request::Verb;
use crate::server::Connection;
use crate::telemetry::{Answered, Answerer, AuditAnswer};
use crate::units::Instant;

/// One request and what became of it so far.
pub(super) struct Exchange {
    pub(super) arrived: Instant,
    pub(super) connection: Arc<Connection>,
    pub(super) audit_id: HeaderValue,
    path: Option<PathAndQuery>,
    user_agent: Option<HeaderValue>,
    pub(super) caller: Option<Arc<Caller>>,
    /// Its entry among those who were here lately.
    pub(super) client: Option<Arc<Client>>,
    pub(super) verb: Verb,
    pub(super) lane: Lane,
    /// The policy that was in force, and what in it chose the lane.
    pub(super) rule: Option<(Arc<Policy>, RuleIndex)>,
    pub(super) queued: Duration,
    /// What would have become of it, were it held to the policy.
    pub(super) would: Option<Would>,
    /// How long kube-apiserver was asked about its token.
    pub(super) reviewed: Duration,
    pub(super) upstream: Duration,
    /// When the apiserver's head arrived.
    pub(super) answered: Option<Instant>,
    pub(super) answerer: Answerer,
    method: Method,
    pub(super) refused: Refused,
}

/// What a refusal keeps for `explain`.
#[derive(Default)]
pub(super) struct Refused {
    pub(super) impersonates: bool,
    pub(super) client: Option<ClientKey>,
    /// What was told of a lever.
    pub(super) lever: Option<String>,
    numbers: Option<Numbers>,
    held: Duration,
}

impl Refused {
    /// The scheduler refused, and the lane was like this.
    pub(super) fn by_scheduler(&mut self, refusal: &flow::Refusal, numbers: Option<Numbers>) {
        self.numbers = numbers;
        self.held = refusal.hold;
    }
}

impl Exchange {
    /// A request that has just arrived.
    pub(super) fn new(connection: &Arc<Connection>, request: &Request<Incoming>) -> Self {
        Self {
            arrived: clock::now(),
            connection: Arc::clone(connection),
            audit_id: new_audit_id(),
            path: request.uri().path_and_query().cloned(),
            user_agent: request.headers().get(USER_AGENT).cloned(),
            caller: None,
            client: None,
            verb: Verb::Other,
            lane: Lane::Unknown,
            rule: None,
            queued: Duration::ZERO,
            would: None,
            reviewed: Duration::ZERO,
            upstream: Duration::ZERO,
            answered: None,
            answerer: Answerer::Upstream,
            method: request.method().clone(),
            refused: Refused::default(),
        }
    }

    /// Whether it says that it is kubectl.
    pub(super) fn is_kubectl(&self) -> bool {
        self.user_agent.as_ref().is_some_and(|value| value.as_bytes().starts_with(b"kubectl/"))
    }

    /// What it says that it is.
    pub(super) fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_ref().and_then(|value| value.to_str().ok())
    }

    /// The answer's head is known: counts and logs it.
    pub(super) fn tell(&self, shared: &Shared, status: StatusCode) {
        let event = Answered {
            lane: self.lane,
            verb: self.verb,
            status: status.as_u16(),
            answerer: self.answerer,
            would: self.would,
            rule: self.rule.as_ref().map_or("", |(policy, rule)| policy.rule_name(*rule)),
            latency: self.answered.unwrap_or_else(clock::now).since(self.arrived),
            queued: self.queued,
            upstream: self.upstream,
            user: self.caller.as_ref().map_or("", |caller| caller.identity.user.as_str()),
            path: self.path.as_ref().map_or("", PathAndQuery::path),
            user_agent: self.user_agent(),
            audit_id: self.audit_id.to_str().unwrap_or_default(),
            peer: self.connection.peer,
        };
        event.emit(&shared.metrics, shared.access_log);
        if let Some(client) = &self.client {
            client.count(self.lane, matches!(self.answerer, Answerer::Refused(_)), self.arrived);
        }
    }

    /// What a watcher sees of it.
    fn line(&self, status: StatusCode) -> Line {
        let path = self.path.as_ref().map_or("", |path| path.as_str());
        let audit_id = self.audit_id.to_str().unwrap_or_default();
        Line {
            at: clock::wall(),
            id: audit_id.split('-').next().unwrap_or_default().to_owned(),
            user: self.caller.as_ref().map(|caller| decisions::target(&caller.identity.user)),
            lane: self.lane,
            verb: self.verb.as_str(),
            request: decisions::target(&format!("{} {path}", self.method)),
            rule: self.rule.as_ref().map_or("", |(policy, rule)| policy.rule_name(*rule)).to_owned(),
            status: status.as_u16(),
            reason: match self.answerer {
                Answerer::Upstream => None,
                Answerer::Refused(reason) | Answerer::Failed(reason) => Some(reason.as_str()),
            },
            latency: self.answered.unwrap_or_else(clock::now).since(self.arrived),
            queued: self.queued,
        }
    }

    /// Keeps a refusal for `explain`; a request that went on costs one look.
    pub(super) fn keep(&self, shared: &Shared, is_break_glass: bool, response: &Response<Body>) {
        if shared.tap.is_on(self.arrived) {
            shared.tap.pour(self.line(response.status()));
        }
        let (reason, is_refusal) = match self.answerer {
            Answerer::Upstream => return,
            Answerer::Refused(reason) => (reason, true),
            Answerer::Failed(reason) => (reason, false),
        };
        let waited = clock::now().since(self.arrived).saturating_sub(self.refused.held);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let told = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        let refusal = Refusal {
            audit_id: self.audit_id.to_str().unwrap_or_default().to_owned(),
            at: clock::wall(),
            caller: self.caller.clone(),
            peer: self.connection.peer.ip().to_canonical(),
            method: decisions::user_agent(self.method.as_str()),
            target: self.path.as_ref().map_or_else(String::new, |path| decisions::target(path.as_str())),
            user_agent: agent.map(decisions::user_agent),
            impersonates: self.refused.impersonates,
            lane: self.lane,
            rule: self.rule.clone(),
            reason,
            is_refusal,
            status: response.status().as_u16(),
            retry_after_seconds: told.and_then(|seconds| seconds.parse().ok()),
            waited_ms: milliseconds(waited),
            held_ms: milliseconds(self.refused.held),
            numbers: self.refused.numbers,
            lever: self.refused.lever.clone(),
            is_break_glass,
        };
        if shared.trail.is_on() {
            shared.trail.answered(self.answer(&refusal));
        }
        shared.decisions.keep(self.refused.client, refusal);
    }

    /// What the audit trail is told of a refusal.
    fn answer(&self, refusal: &Refusal) -> AuditAnswer {
        AuditAnswer {
            audit_id: refusal.audit_id.clone(),
            received: refusal.at - clock::now().since(self.arrived),
            answered: refusal.at,
            identity: refusal.caller.as_ref().map(|caller| Arc::clone(&caller.identity)),
            impersonates: refusal.impersonates,
            peer: refusal.peer,
            method: refusal.method.clone(),
            uri: refusal.target.clone(),
            user_agent: refusal.user_agent.clone(),
            status: refusal.status,
            lane: refusal.lane,
            rule: refusal
                .rule
                .as_ref()
                .map_or_else(String::new, |(policy, rule)| policy.rule_name(*rule).to_owned()),
            reason: refusal.reason,
            is_refusal: refusal.is_refusal,
            retry_after_seconds: refusal.retry_after_seconds,
            queued_ms: u64::try_from(self.queued.as_millis()).unwrap_or(u64::MAX),
            is_break_glass: refusal.is_break_glass,
        }
    }
}

/// A client's own Audit-ID is not taken over: two requests could then share one in the apiserver's audit log.
fn new_audit_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    // A UUID is visible ASCII.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
