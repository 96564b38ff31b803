//! What has to be remembered about one request until it is answered?
//!
//! The request itself moves upstream; these few fields stay, so that its log line and its metrics can be written
//! when the answer's head is known. Clones are of reference-counted bytes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use uuid::Uuid;

use super::Shared;
use super::recent::Client;
use crate::authn::Caller;
use crate::clock;
use crate::policy::{Lane, Policy, RuleIndex};
use crate::request::Verb;
use crate::server::Connection;
use crate::telemetry::{Answered, Answerer};
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
    /// How long kube-apiserver was asked about its token.
    pub(super) reviewed: Duration,
    pub(super) upstream: Duration,
    /// When the apiserver's head arrived.
    pub(super) answered: Option<Instant>,
    pub(super) answerer: Answerer,
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
            reviewed: Duration::ZERO,
            upstream: Duration::ZERO,
            answered: None,
            answerer: Answerer::Upstream,
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
}

/// A client's own Audit-ID is not taken over: two requests could then share one in the apiserver's audit log.
fn new_audit_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    // A UUID is visible ASCII.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
