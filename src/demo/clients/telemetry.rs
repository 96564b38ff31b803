//! What does the new telemetry DaemonSet do to the apiserver?
//!
//! The likeliest reading of 2024-12-11: on every node an agent LISTs all pods of the cluster, unpaged and from
//! storage, again and again; its cost grows with the cluster, and so does the number of agents. Each agent has several
//! pipelines with a pod cache of its own. The agents mean no harm: they obey `Retry-After` like client-go and
//! back off like a reflector.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;

use super::connection::{ACCEPT_JSON, Call, Client, Credentials};
use crate::clock;
use crate::demo::apiserver::cluster::node_name;
use crate::demo::apiserver::rollout;
use crate::demo::apiserver::store::Store;
use crate::demo::ledger::{Ledger, Listed, Who};
use crate::demo::seed::Seed;

/// Pipelines of one agent, each with a pod cache of its own (metrics, logs, traces).
const PIPELINES: u64 = 3;
/// Time between two LISTs of a pipeline.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_millis(700);
/// client-go retries this often on 429 within one call.
const RETRIES_MAX: u32 = 10;
/// A reflector's first back-off, doubled up to the last one.
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// How soon a node starts or stops its agent after its pod came or went.
const KUBELET_STEP: Duration = Duration::from_millis(100);

/// Unpaged, all namespaces, no `resourceVersion`: read from storage.
const EVERYTHING: &str = "/api/v1/pods";

/// Starts an agent (of `agents`, in the order of the nodes) where its pod runs and stops it where the pod is gone, as kubelets would, until dropped.
pub(crate) async fn fleet(
    store: Arc<Store>,
    address: SocketAddr,
    agents: Arc<Vec<Credentials>>,
    ledger: Arc<Ledger>,
    seed: Seed,
) {
    let mut running: HashMap<usize, JoinSet<()>> = HashMap::new();
    let mut ticks = tokio::time::interval(KUBELET_STEP);
    loop {
        ticks.tick().await;
        let wanted = rollout::nodes_with_agent(&store);
        // Dropping a set ends its tasks.
        running.retain(|index, _| wanted.contains(&node_name(*index)));
        for (index, credentials) in agents.iter().enumerate() {
            if wanted.contains(&node_name(index)) {
                running.entry(index).or_insert_with(|| {
                    let client = Arc::new(Client::new(address, credentials.clone()));
                    start(&client, &ledger, &seed.fork(index as u64))
                });
            }
        }
    }
}

fn start(client: &Arc<Client>, ledger: &Arc<Ledger>, seed: &Seed) -> JoinSet<()> {
    let mut pipelines = JoinSet::new();
    for number in 0..PIPELINES {
        pipelines.spawn(pipeline(Arc::clone(client), Arc::clone(ledger), seed.fork(number)));
    }
    pipelines
}

async fn pipeline(client: Arc<Client>, ledger: Arc<Ledger>, mut seed: Seed) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        if list(&client, &ledger).await == Listed::Served {
            backoff = BACKOFF_FIRST;
            tokio::time::sleep(seed.between(PAUSE.start, PAUSE.end)).await;
        } else {
            let jittered = seed.between(backoff, backoff * 2);
            backoff = (backoff * 2).min(BACKOFF_LAST);
            tokio::time::sleep(jittered).await;
        }
    }
}

/// One LIST with client-go's retries.
async fn list(client: &Client, ledger: &Ledger) -> Listed {
    for _ in 0..=RETRIES_MAX {
        let listed = match client.call(Call::get(EVERYTHING, ACCEPT_JSON)).await {
            Ok(reply) if reply.status == StatusCode::OK => Listed::Served,
            Ok(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => {
                let now = clock::now();
                ledger.listed(now, Listed::Refused);
                ledger.refused(now, Who::Telemetry);
                let Some(wait) = reply.retry_after else { return Listed::Refused };
                tokio::time::sleep(wait).await;
                continue;
            }
            Ok(_) | Err(_) => Listed::Failed,
        };
        ledger.listed(clock::now(), listed);
        return listed;
    }
    Listed::Refused
}
