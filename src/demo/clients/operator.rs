//! Can the person on call still work?
//!
//! `kubectl`, again and again: every command is a new process and therefore a new connection. It obeys `Retry-After`
//! as client-go does, up to ten times, and the person gives up on a command after five seconds. At a fixed moment of
//! the storm the person knows the culprit and deletes the DaemonSet, and tries again until that works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::connection::{ACCEPT_JSON, ACCEPT_TABLE, Call, Client, Credentials};
use crate::clock;
use crate::demo::ledger::{Command, Ledger, Who};
use crate::units::Instant;

/// How long a person waits for a command during an incident. Not compressed: people are as slow as they are.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two commands.
const PAUSE: Duration = Duration::from_millis(250);
/// client-go retries this often on 429.
const RETRIES_MAX: u32 = 10;

const CULPRIT: &str = "/apis/apps/v1/namespaces/monitoring/daemonsets/otel-collector";

/// What an on-call looks at, over and over.
static ROUND: [(&str, HeaderValue); 5] = [
    ("/api/v1/nodes?limit=500", ACCEPT_TABLE),
    ("/api/v1/namespaces/monitoring/pods?limit=500", ACCEPT_TABLE),
    ("/apis/apps/v1/daemonsets?limit=500", ACCEPT_TABLE),
    ("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy", ACCEPT_JSON),
    ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n000", ACCEPT_TABLE),
];

/// When the operator knows the culprit; told during the storm.
pub(crate) type Insight = tokio::sync::watch::Receiver<Option<Instant>>;

/// Works until dropped.
pub(crate) async fn work(
    address: SocketAddr,
    credentials: Credentials,
    ledger: Arc<Ledger>,
    insight: Insight,
) {
    for (path, accept) in ROUND.iter().cycle() {
        let knows = insight.borrow().is_some_and(|from| clock::now() >= from);
        let delete = knows && ledger.culprit_deleted_at().is_none();
        let call = || if delete { Call::delete(CULPRIT) } else { Call::get(path, accept.clone()) };
        let started = clock::now();
        // A new process each time: nothing is kept open.
        let client = Client::new(address, credentials.clone());
        let succeeded =
            tokio::time::timeout(PATIENCE, command(&client, call, &ledger)).await.unwrap_or(false);
        let now = clock::now();
        ledger.command(Command { started, took: now.since(started), succeeded });
        if delete && succeeded {
            ledger.culprit_deleted(now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn command<'a>(client: &Client, call: impl Fn() -> Call<'a>, ledger: &Ledger) -> bool {
    for _ in 0..=RETRIES_MAX {
        // kubectl ends with an error when the connection fails.
        let Ok(reply) = client.call(call()).await else { return false };
        match (reply.status, reply.retry_after) {
            (StatusCode::TOO_MANY_REQUESTS, Some(wait)) => {
                ledger.refused(clock::now(), Who::Operator);
                tokio::time::sleep(wait).await;
            }
            (status, _) => return status.is_success(),
        }
    }
    false
}
