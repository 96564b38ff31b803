//! Can a person still work? Each second, whatever became of the last one: GET nodes, GET and PATCH of the culprit's
//! DaemonSet, on a fresh connection, as three runs of kubectl in a script would; ok when all is done within 10 s.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Method;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    client::Who,
    journal::{Calls, Clock},
    manners::{Body, Client},
};

pub(crate) const AGENT: &str = "kubectl/v1.34.4 (linux/amd64) kubernetes/soak";
const NODES: &str = "/api/v1/nodes?limit=500";
const CULPRIT: &str = "/apis/apps/v1/namespaces/monitoring/daemonsets/otel-collector";
const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Operator {
    who: Who,
    clock: Clock,
    step: AtomicU64,
    /// Whole sequences.
    pub(crate) calls: Calls,
}

impl Operator {
    pub(crate) fn new(who: Who, clock: Clock) -> Self {
        Self { who, clock, step: AtomicU64::new(0), calls: Calls::default() }
    }

    /// Works until the returned future is dropped.
    pub(crate) async fn run(&self) {
        let mut seconds = interval(PERIOD);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At most ten are open, because each ends within ten seconds.
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = seconds.tick() => open.push(self.work()),
                Some(()) = open.next() => {}
            }
        }
    }

    async fn work(&self) {
        let began = Instant::now();
        let outcome = timeout(PATIENCE, self.sequence()).await;
        self.calls.note(self.clock, began, outcome.unwrap_or_else(|_| Err("10 s are over".into())));
    }

    async fn sequence(&self) -> Result<(), String> {
        let mut client = Client::new(&self.who, &self.calls.refused);
        client.get(NODES, Body::Drain, PATIENCE).await?;
        client.get(CULPRIT, Body::Drain, PATIENCE).await?;
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        let patch = format!(r#"{{"metadata":{{"annotations":{{"soak/step":"{step}"}}}}}}"#);
        let answer = client.call(Method::PATCH, CULPRIT, Some(&patch), Body::Drain, PATIENCE).await?;
        if answer.status == 200 { Ok(()) } else { Err(format!("PATCH: status {}", answer.status)) }
    }
}
