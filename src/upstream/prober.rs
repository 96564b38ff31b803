//! Is the apiserver there, and how quickly does it answer when it has nothing to do?
//!
//! Four questions, each asked by a task of its own over connections of its own, so that one that hangs delays no
//! other: `/livez` without its etcd check (exempt from API Priority and Fairness, needs no credential, touches neither
//! etcd nor the watch cache: CPU, memory and garbage collection alone); one small object from the watch cache; the
//! same object in a way that must ask etcd; and `/readyz`, also without etcd, which says whether a server that has
//! just started knows its own rules yet. An answer that has not come by the next turn is reported as outstanding with
//! its age: an apiserver that hangs must not look like its last good answer.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::body::RequestBody;
use super::error::{Kind, UpstreamError};
use super::forward::{Forward as _, Pools, Route, Traffic};
use super::settings::{ProbeIdentity, Settings};
use super::stats::Via;
use super::tls::TlsError;
use crate::clock;
use crate::io::Flusher;
use crate::policy::Lane;
use crate::units;

/// Four readings a second, which is what the overload controller's tick needs.
const INTERVAL: Duration = Duration::from_millis(250);
/// Readiness changes at starts and ends only.
const READY_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that takes longer is as good as none.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// The probes begin this much apart, so that they do not measure each other.
const STAGGER: Duration = Duration::from_millis(60);

/// `/livez` with the one check left out that depends on etcd.
const LIVEZ: &str = "/livez?exclude=etcd";
/// `/readyz` with both checks left out that depend on etcd: a slow etcd is another probe's finding.
const READYZ: &str = "/readyz?exclude=etcd&exclude=etcd-readiness";

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer came. Refusals count as answers; 5xx do too, but not as healthy.
    Answered {
        /// From sending to the end of the answer.
        latency: Duration,
        /// The status was below 500.
        healthy: bool,
    },
    /// The apiserver did not do what was asked (401, 403, 404, 429): its time says nothing.
    Refused(StatusCode),
    /// No answer yet after this time: at least this slow.
    Outstanding(Duration),
    /// No connection, or no answer within five seconds.
    Lost,
}

/// The latest finding and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What was found.
    pub outcome: Outcome,
    /// When.
    pub at: units::Instant,
}

impl Reading {
    /// Whether the apiserver answers at all.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Answered { healthy: true, .. } | Outcome::Refused(_) | Outcome::Outstanding(_)
        )
    }
}

/// A running probe. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Prober {
    readings: watch::Receiver<Option<Reading>>,
}

/// All four.
#[derive(Clone, Debug)]
pub struct Probers {
    /// The process itself.
    pub livez: Prober,
    /// The watch cache; absent without a front-proxy certificate, because the object needs an identity.
    pub cached: Option<Prober>,
    /// etcd; absent with `cached`.
    pub consistent: Option<Prober>,
    /// Whether it is ready.
    pub ready: Prober,
}

/// What is asked, by whom and how often.
#[derive(Clone, Debug)]
struct Question {
    /// For the log.
    name: &'static str,
    target: String,
    /// The identity that is asserted; without one the question is anonymous.
    identity: Option<ProbeIdentity>,
    interval: Duration,
    delay: Duration,
    /// Anonymous paths are answered whatever the status; an object is not read by a refusal.
    refusal_counts: bool,
}

impl Probers {
    /// Starts probing on the current tokio runtime, whose `flusher` it must be.
    ///
    /// # Errors
    ///
    /// When a certificate or key in `settings` cannot be used.
    pub fn spawn(settings: &Settings, flusher: &Arc<Flusher>) -> Result<Self, TlsError> {
        let spawn = |question| Prober::ask(settings, Arc::clone(flusher), question);
        let (mut cached, mut consistent) = (None, None);
        if settings.front_proxy.is_some() {
            let object = format!("/api/v1/namespaces/{}", settings.probe.namespace);
            let of = |name, target, turn| Question {
                name,
                target,
                identity: Some(settings.probe.clone()),
                interval: INTERVAL,
                delay: STAGGER * turn,
                refusal_counts: false,
            };
            cached = Some(spawn(of("cached", format!("{object}?resourceVersion=0"), 1))?);
            consistent = Some(spawn(of("consistent", object, 2))?);
        } else {
            tracing::info!(
                "no front-proxy certificate: slow etcd and slow watch cache cannot be told apart by probes"
            );
        }
        let ready = Question {
            name: "readyz",
            target: READYZ.to_owned(),
            identity: None,
            interval: READY_INTERVAL,
            delay: STAGGER * 3,
            refusal_counts: false,
        };
        Ok(Self { livez: spawn(Question::livez())?, cached, consistent, ready: spawn(ready)? })
    }
}

impl Question {
    fn livez() -> Self {
        Self {
            name: "livez",
            target: LIVEZ.to_owned(),
            identity: None,
            interval: INTERVAL,
            delay: Duration::ZERO,
            refusal_counts: true,
        }
    }

    fn request(&self) -> Result<Request<RequestBody>, UpstreamError> {
        let mut request = Request::get(&self.target);
        if let Some(identity) = &self.identity {
            request = request.header("x-remote-user", &identity.user);
            for group in &identity.groups {
                request = request.header("x-remote-group", group);
            }
        }
        request.body(RequestBody::empty()).map_err(|error| {
            UpstreamError::new(Kind::BadRequest, "the probe is not a request").with_source(error)
        })
    }

    fn outcome(&self, status: StatusCode, latency: Duration) -> Outcome {
        if status.is_client_error() && !self.refusal_counts {
            return Outcome::Refused(status);
        }
        Outcome::Answered { latency, healthy: status < StatusCode::INTERNAL_SERVER_ERROR }
    }
}

impl Prober {
    /// Starts the probe of `/livez` alone, on the current tokio runtime, whose `flusher` it must be.
    ///
    /// # Errors
    ///
    /// When a certificate or key in `settings` cannot be used.
    pub fn spawn(settings: &Settings, flusher: Arc<Flusher>) -> Result<Self, TlsError> {
        Self::ask(settings, flusher, Question::livez())
    }

    fn ask(settings: &Settings, flusher: Arc<Flusher>, question: Question) -> Result<Self, TlsError> {
        let pools = Pools::new(settings, flusher)?;
        let (publish, readings) = watch::channel(None);
        tokio::spawn(Box::pin(probe(pools, question, publish)));
        Ok(Self { readings })
    }

    /// The latest reading; `None` before the first.
    #[must_use]
    pub fn latest(&self) -> Option<Reading> {
        *self.readings.borrow()
    }

    /// Waits for the next reading; `None` when probing has ended with its runtime.
    pub async fn next(&mut self) -> Option<Reading> {
        self.readings.changed().await.ok()?;
        *self.readings.borrow_and_update()
    }
}

async fn probe(pools: Pools, question: Question, publish: watch::Sender<Option<Reading>>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + question.delay, question.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    while !publish.is_closed() {
        ticks.tick().await;
        let started = Instant::now();
        let exchange = ask(&pools, &question);
        tokio::pin!(exchange);
        let outcome = loop {
            tokio::select! {
                answer = &mut exchange => {
                    let outcome = match &answer {
                        Ok(status) => question.outcome(*status, started.elapsed()),
                        Err(_unreachable) => Outcome::Lost,
                    };
                    told.log_change(&question, &outcome, answer.as_ref().err());
                    break outcome;
                }
                _ = ticks.tick() => {
                    let age = started.elapsed();
                    if age >= LOST_AFTER {
                        break Outcome::Lost;
                    }
                    announce(&publish, Outcome::Outstanding(age));
                }
            }
        };
        announce(&publish, outcome);
    }
}

/// What the log knows of a probe: each change is told once, because requests that fail meanwhile say so themselves.
#[derive(Debug, Default)]
struct Told {
    away: bool,
    refused: Option<StatusCode>,
}

impl Told {
    fn log_change(&mut self, question: &Question, outcome: &Outcome, error: Option<&UpstreamError>) {
        let probe = question.name;
        match error {
            Some(error) if !self.away => {
                let error = error.with_causes();
                tracing::warn!(probe, error, "the apiserver does not answer; the probe goes on trying");
            }
            None if self.away => tracing::info!(probe, "the apiserver answers again"),
            _ => {}
        }
        self.away = error.is_some();
        let refused = match outcome {
            Outcome::Refused(status) => Some(*status),
            _ if error.is_some() => self.refused,
            _ => None,
        };
        // Too many requests come and go; what is wrong with a right or a name stays until somebody mends it.
        if let Some(status) = refused.filter(|status| *status != StatusCode::TOO_MANY_REQUESTS)
            && self.refused != refused
        {
            let status = status.as_u16();
            let user = question.identity.as_ref().map_or("system:anonymous", |identity| &identity.user);
            let target = &question.target;
            tracing::warn!(
                probe,
                status,
                user,
                target,
                "the apiserver refuses a probe, which stays silent until it is allowed: deploy/probe.yaml has the rights"
            );
        }
        self.refused = refused;
    }
}

fn announce(publish: &watch::Sender<Option<Reading>>, outcome: Outcome) {
    publish.send_replace(Some(Reading { outcome, at: clock::now() }));
}

/// One probe; the connection is kept by the pool for the next one.
async fn ask(pools: &Pools, question: &Question) -> Result<StatusCode, UpstreamError> {
    let via = if question.identity.is_some() { Via::FrontProxy } else { Via::Unverified };
    let route = Route { lane: Lane::NodeHealth, via, traffic: Traffic::Short };
    let response = pools.forward(question.request()?, route).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| {
            UpstreamError::new(Kind::ConnectionLost, "the probe's answer broke off").with_source(error)
        })?;
    }
    Ok(status)
}
