//! Is the apiserver there, and how quickly does it answer when it has nothing to do?
//!
//! GET `/livez` without its etcd check, on connections of its own, every 250 ms. That path is exempt from API
//! Priority and Fairness, needs no credential, and touches neither etcd nor the watch cache, so its latency shows
//! CPU, memory and garbage collection alone. An answer that has not come by the next tick is reported as
//! outstanding with its age: an apiserver that hangs must not look like its last good answer.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::body::RequestBody;
use super::error::{Kind, UpstreamError};
use super::forward::{Forward as _, Pools, Route, Traffic};
use super::settings::Settings;
use super::stats::Via;
use super::tls::TlsError;
use crate::clock;
use crate::io::Flusher;
use crate::policy::Lane;
use crate::units;

/// Four readings a second, which is what the overload controller's tick needs.
const INTERVAL: Duration = Duration::from_millis(250);
/// An answer that takes longer is as good as none.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// `/livez` with the one check left out that depends on etcd.
const PATH: &str = "/livez?exclude=etcd";

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
        matches!(self.outcome, Outcome::Answered { healthy: true, .. } | Outcome::Outstanding(_))
    }
}

/// A running probe. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Prober {
    readings: watch::Receiver<Option<Reading>>,
}

impl Prober {
    /// Starts probing on the current tokio runtime, whose `flusher` it must be.
    ///
    /// # Errors
    ///
    /// When a certificate or key in `settings` cannot be used.
    pub fn spawn(settings: &Settings, flusher: Arc<Flusher>) -> Result<Self, TlsError> {
        let pools = Pools::new(settings, flusher)?;
        let (publish, readings) = watch::channel(None);
        tokio::spawn(Box::pin(probe(pools, publish)));
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

async fn probe(pools: Pools, publish: watch::Sender<Option<Reading>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    while !publish.is_closed() {
        ticks.tick().await;
        let started = Instant::now();
        let exchange = ask(&pools);
        tokio::pin!(exchange);
        let outcome = loop {
            tokio::select! {
                answer = &mut exchange => {
                    log_change(&mut away, answer.as_ref().err());
                    break match answer {
                        Ok(status) => {
                            let healthy = status < StatusCode::INTERNAL_SERVER_ERROR;
                            Outcome::Answered { latency: started.elapsed(), healthy }
                        }
                        Err(_unreachable) => Outcome::Lost,
                    };
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

/// One line when the apiserver goes and one when it comes back: requests that fail meanwhile say so by themselves.
fn log_change(away: &mut bool, error: Option<&UpstreamError>) {
    match error {
        Some(error) if !*away => {
            let error = error.with_causes();
            tracing::warn!(error, "the apiserver does not answer; trying again four times a second");
        }
        None if *away => tracing::info!("the apiserver answers again"),
        _ => {}
    }
    *away = error.is_some();
}

fn announce(publish: &watch::Sender<Option<Reading>>, outcome: Outcome) {
    publish.send_replace(Some(Reading { outcome, at: clock::now() }));
}

/// One probe; the connection is kept by the pool for the next one.
async fn ask(pools: &Pools) -> Result<StatusCode, UpstreamError> {
    let request = Request::get(PATH).body(RequestBody::empty()).map_err(|error| {
        UpstreamError::new(Kind::BadRequest, "the probe is not a request").with_source(error)
    })?;
    let route = Route { lane: Lane::NodeHealth, via: Via::Unverified, traffic: Traffic::Short };
    let response = pools.forward(request, route).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| {
            UpstreamError::new(Kind::ConnectionLost, "the probe's answer broke off").with_source(error)
        })?;
    }
    Ok(status)
}
