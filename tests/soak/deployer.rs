//! Who creates 50 pods a second behind a webhook that never answers? A controller without patience: it does not wait
//! for one answer before it asks for the next.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Method;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::{
    client::{Connection, Failure, Who},
    journal::Calls,
    measure::{quantile, within},
    play::Notes,
};

const PODS: &str = "/api/v1/namespaces/hooked/pods";
const PERIOD: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections over which the requests are spread: kube-apiserver takes 100 streams on one.
const CONNECTIONS: usize = 16;

pub(crate) struct Deployer {
    who: Who,
    calls: Calls,
}

impl Deployer {
    pub(crate) fn new(who: Who) -> Self {
        Self { who, calls: Calls::default() }
    }

    /// Creates pods throughout the storm.
    pub(crate) async fn run(&self, notes: &Notes) {
        sleep_until((notes.times.storm + Duration::from_millis(500)).into()).await;
        let mut connections: Vec<Option<Connection>> = (0..CONNECTIONS).map(|_| None).collect();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut open = FuturesUnordered::new();
        for number in 0_usize.. {
            while Instant::now() < notes.times.after {
                tokio::select! {
                    _ = ticks.tick() => break,
                    Some(()) = open.next() => {}
                }
            }
            if Instant::now() >= notes.times.after {
                break;
            }
            let slot = &mut connections[number % CONNECTIONS];
            if slot.is_none() {
                *slot = self.who.connect().await.ok();
            }
            if let Some(connection) = slot {
                open.push(self.create(connection.another(), number, notes));
            }
        }
        while open.next().await.is_some() {}
        std::future::pending().await
    }

    async fn create(&self, connection: Connection, number: usize, notes: &Notes) {
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"hooked-{number}"}},"spec":{{"automountServiceAccountToken":false,"schedulerName":"nobody","containers":[{{"name":"main","image":"none"}}]}}}}"#
        );
        let began = Instant::now();
        let outcome = match connection.ask(Method::POST, PODS, Some(pod), PATIENCE).await {
            Ok(answer) if answer.status == 201 => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(Failure::Timeout) => Err("30 s are over".into()),
            Err(Failure::Broken(why)) => Err(why),
        };
        self.calls.note(notes.clock, began, outcome);
    }

    pub(crate) fn report(&self, notes: &Notes) {
        let clock = notes.clock;
        let all = within(&self.calls.all(), &(clock.at(notes.times.storm)..clock.at(notes.times.after)));
        let mut took = all.clone();
        took.iter_mut().for_each(|call| call.ok = true);
        let median = quantile(&took, 0.5).unwrap_or_default();
        notes
            .happened
            .note("pods asked for", format!("{}, half of them answered within {median:.1} s", all.len()));
        notes.happened.note("pods: answers", self.calls.reasons().join(", "));
    }
}
