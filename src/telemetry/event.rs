//! What is worth telling about one answered request?

use std::net::SocketAddr;
use std::time::Duration;

use super::{AccessLog, Metrics};
use crate::flow::Reason;
use crate::policy::Lane;
use crate::request::Verb;

/// Who gave the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// kube-apiserver.
    Upstream,
    /// spillway refused, for this reason.
    Refused(Reason),
    /// spillway could not forward, or would not accept the request at all.
    Failed(Reason),
}

/// A request was answered: its head has left towards the client.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The lane it was in.
    pub lane: Lane,
    /// Kubernetes verb.
    pub verb: Verb,
    /// HTTP status of the answer.
    pub status: u16,
    /// Who answered.
    pub answerer: Answerer,
    /// Name of the rule that chose the lane.
    pub rule: &'a str,
    /// From the request's arrival to the answer's head.
    pub latency: Duration,
    /// How much of the latency the request waited in its lane's queue.
    pub queued: Duration,
    /// How much of the latency kube-apiserver took to its first byte; zero when it was not asked.
    pub upstream: Duration,
    /// User name, as verified. Logged, never a label.
    pub user: &'a str,
    /// Path without its query: queries may carry selectors that name customers.
    pub path: &'a str,
    /// What the client says it is. Logged, never trusted.
    pub user_agent: Option<&'a str>,
    /// Joins our log with the apiserver's audit log.
    pub audit_id: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
}

/// Longest piece of client-chosen text that a log line repeats, in bytes.
const LOGGED_TEXT_BYTES_MAX: usize = 256;

impl Answered<'_> {
    /// Counts it, and logs it where the access log wants it.
    pub fn emit(&self, metrics: &Metrics, access: AccessLog) {
        metrics.answered(self);
        let logged = match access {
            AccessLog::None => false,
            AccessLog::Shed => self.answerer != Answerer::Upstream,
            AccessLog::All => true,
        };
        if logged {
            self.log();
        }
    }

    #[cold]
    fn log(&self) {
        let (decision, reason) = match self.answerer {
            Answerer::Upstream => ("forwarded", ""),
            Answerer::Refused(reason) => ("shed", reason.as_str()),
            Answerer::Failed(reason) => ("failed", reason.as_str()),
        };
        tracing::info!(
            verb = self.verb.as_str(),
            URI = cut(self.path),
            latency = format_args!("{:.1}ms", self.latency.as_secs_f64() * 1e3),
            resp = self.status,
            userAgent = cut(self.user_agent.unwrap_or_default()),
            "audit-ID" = self.audit_id,
            srcIP = %self.peer,
            user = cut(self.user),
            lane = self.lane.as_str(),
            rule = self.rule,
            decision,
            reason,
            upstreamLatency = format_args!("{:.1}ms", self.upstream.as_secs_f64() * 1e3),
            queueWait = format_args!("{:.1}ms", self.queued.as_secs_f64() * 1e3),
            "HTTP"
        );
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LOGGED_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
