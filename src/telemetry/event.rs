//! What is worth telling about one answered request?

use std::net::SocketAddr;
use std::time::Duration;

use super::lines::BREAK_GLASS;
use super::text::shown;
use super::{AccessLog, Metrics};
use crate::clock;
use crate::flow::{Reason, Would};
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
    /// What would have become of it, were it held to the policy.
    pub would: Option<Would>,
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

/// The access log's line: the same fields whatever its target is, which must be known at compile time.
macro_rules! line {
    ($target:expr, $event:expr, $decision:expr, $reason:expr, $suppressed:expr) => {
        tracing::info!(
            target: $target,
            verb = $event.verb.as_str(),
            URI = &*shown($event.path),
            latency = format_args!("{:.1}ms", $event.latency.as_secs_f64() * 1e3),
            resp = $event.status,
            userAgent = &*shown($event.user_agent.unwrap_or_default()),
            "audit-ID" = $event.audit_id,
            srcIP = %$event.peer,
            user = &*shown($event.user),
            lane = $event.lane.as_str(),
            rule = $event.rule,
            decision = $decision,
            reason = $reason,
            upstreamLatency = format_args!("{:.1}ms", $event.upstream.as_secs_f64() * 1e3),
            queueWait = format_args!("{:.1}ms", $event.queued.as_secs_f64() * 1e3),
            suppressed = $suppressed,
            "HTTP"
        )
    };
}

impl Answered<'_> {
    /// Counts it, and logs it where the access log wants it. Refusals beyond a rate are left out, but for break-glass.
    pub fn emit(&self, metrics: &Metrics, access: AccessLog) {
        metrics.answered(self);
        let logged = match access {
            AccessLog::None => false,
            AccessLog::Shed => self.answerer != Answerer::Upstream || self.would.is_some(),
            AccessLog::All => true,
        };
        if logged {
            self.log(metrics);
        }
    }

    #[cold]
    fn log(&self, metrics: &Metrics) {
        let (decision, reason) = match (self.answerer, self.would) {
            (Answerer::Upstream, None) => ("forwarded", None),
            (Answerer::Upstream, Some(Would::Shed(reason))) => ("would-shed", Some(reason)),
            // It would have waited at most as long as its lane allows.
            (Answerer::Upstream, Some(Would::Wait)) => ("would-wait", Some(Reason::QueueTimeout)),
            (Answerer::Refused(reason), _) => ("shed", Some(reason)),
            (Answerer::Failed(reason), _) => ("failed", Some(reason)),
        };
        let word = match self.would {
            Some(Would::Wait) => "",
            _ => reason.map_or("", Reason::as_str),
        };
        if self.lane == Lane::BreakGlass {
            line!(BREAK_GLASS, self, decision, word, None::<u64>);
            return;
        }
        let left_out = match reason {
            None => 0,
            Some(reason) => match metrics.samples.take(reason, clock::now()) {
                Some(left_out) => left_out,
                None => return,
            },
        };
        line!(module_path!(), self, decision, word, (left_out > 0).then_some(left_out));
    }
}
