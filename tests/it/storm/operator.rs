//! Can a person still work? Alice, with her everyday certificate, as kubectl would: a fresh connection each time.

use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::{Failure, Who};

/// How long a person waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(1);
/// What she looks at every second.
const LOOKS: [&str; 2] =
    ["/api/v1/namespaces/kube-system/pods?limit=500", "/apis/apps/v1/namespaces/monitoring/daemonsets"];
/// What she removes, and the pods' own removal with it.
const CULPRIT: &str =
    "/apis/apps/v1/namespaces/monitoring/daemonsets/otel-collector?propagationPolicy=Background";

/// What one window of time saw of her work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Requests sent.
    pub(crate) asked: u64,
    /// How long the answered ones took, connection included.
    pub(crate) answered: Vec<Duration>,
    /// Why the first of the others failed.
    pub(crate) first_failure: Option<String>,
}

impl Work {
    /// The latency that this share of the answers stayed below.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.answered.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some(sorted[(last as f64 * share).round() as usize])
    }
}

pub(crate) struct Operator {
    who: Who,
    seen: Mutex<Work>,
}

impl Operator {
    pub(crate) fn new(who: Who) -> Self {
        Self { who, seen: Mutex::default() }
    }

    /// Looks around every second until `enough`. What she has asked she waits for.
    pub(crate) async fn look_around(&self, enough: impl Fn() -> bool) {
        let mut seconds = interval(PERIOD);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !enough() {
            seconds.tick().await;
            for path in LOOKS {
                self.ask(Method::GET, path, &[200]).await;
            }
        }
    }

    /// Deletes the culprit, again every second until the apiserver has said yes, or until `enough`.
    pub(crate) async fn delete(&self, enough: impl Fn() -> bool) {
        // 404: an earlier try whose answer was lost.
        while !self.ask(Method::DELETE, CULPRIT, &[200, 202, 404]).await && !enough() {
            sleep(PERIOD).await;
        }
    }

    async fn ask(&self, method: Method, path: &str, good: &[u16]) -> bool {
        let started = Instant::now();
        let asked = timeout(PATIENCE, async {
            self.who.connect().await?.ask(method.clone(), path, None, PATIENCE).await
        });
        let outcome = match asked.await.unwrap_or(Err(Failure::Timeout)) {
            Ok(answer) if good.contains(&answer.status.as_u16()) => Ok(started.elapsed()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(failure) => Err(failure.to_string()),
        };
        let mut seen = self.seen.lock();
        seen.asked += 1;
        match outcome {
            Ok(latency) => seen.answered.push(latency),
            Err(why) => {
                let took = started.elapsed();
                seen.first_failure.get_or_insert_with(|| format!("{method} {path}: {why} after {took:.1?}"));
                return false;
            }
        }
        true
    }

    /// Ends a window of time and begins the next.
    pub(crate) fn take(&self) -> Work {
        std::mem::take(&mut *self.seen.lock())
    }
}
