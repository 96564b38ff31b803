//! Do the nodes stay Ready? Every kubelet renews its lease, or the cluster takes the node for dead.
//!
//! Real kubelets renew every 10 s with a timeout of 10 s, retry up to five times a round, and a node is NotReady after
//! 40 s without success. The demo's time runs four times faster for this, so that a storm of 20 s covers as many
//! rounds as one of 80 s. `Retry-After` is whole seconds and stays as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::connection::{Call, Client, Credentials};
use crate::clock;
use crate::demo::apiserver::cluster::{LEASE_NAMESPACE, lease, node_name};
use crate::demo::ledger::{Ledger, Renewal, Who};
use crate::demo::seed::Seed;

/// How much faster than reality the nodes live.
pub(crate) const COMPRESSION: u32 = 4;
/// Time between two renewals, and the time a renewal may take: 10 s in reality.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(2_500);
/// Time without a renewal after which a node is NotReady: 40 s in reality.
pub(crate) const NOT_READY_AFTER: Duration = Duration::from_secs(10);
/// A kubelet tries this often in one round.
const ATTEMPTS_MAX: u32 = 5;

/// Renews one node's lease until dropped.
pub(crate) async fn renew(
    index: usize,
    address: SocketAddr,
    credentials: Credentials,
    ledger: Arc<Ledger>,
    mut seed: Seed,
) {
    let node = node_name(index);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases/{node}");
    let client = Client::new(address, credentials);
    let mut due = Instant::now() + seed.between(Duration::ZERO, RENEW_EVERY);
    loop {
        tokio::time::sleep_until(due).await;
        let started = clock::now();
        let round = attempts(&client, &path, &node, &ledger);
        let renewed = tokio::time::timeout_at(due + RENEW_EVERY, round).await.unwrap_or(false);
        let took = clock::now().since(started);
        ledger.renewal(Renewal { node: index, due: started, took, renewed });
        if !renewed {
            // A kubelet whose heartbeats fail closes its connections: the cause may be a dead one.
            client.close().await;
        }
        due += RENEW_EVERY;
    }
}

async fn attempts(client: &Client, path: &str, node: &str, ledger: &Ledger) -> bool {
    for _ in 0..ATTEMPTS_MAX {
        let body = Bytes::from(lease(node, clock::wall()).to_string());
        let Ok(reply) = client.call(Call::put(path, body)).await else { continue };
        match reply.status {
            StatusCode::OK => return true,
            StatusCode::TOO_MANY_REQUESTS => {
                ledger.refused(clock::now(), Who::Node);
                tokio::time::sleep(reply.retry_after.unwrap_or_default()).await;
            }
            _ => {}
        }
    }
    false
}
