//! What really happens, seen from the side: two watches by an administrator on one connection straight to
//! kube-apiserver, which weigh nothing.

use std::{collections::BTreeSet, time::Instant};

use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    client::{Connection, Failure, Who},
    leases::Kubelets,
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?watch=true";
const AGENTS: &str = "/api/v1/namespaces/monitoring/pods?watch=true";

pub(crate) struct Observer {
    pub(crate) kubelets: Mutex<Kubelets>,
    /// Pods of the telemetry DaemonSet: how many there are, and since when.
    agents: watch::Sender<(usize, Instant)>,
}

impl Observer {
    pub(crate) fn new(kubelets: Kubelets) -> Self {
        Self { kubelets: Mutex::new(kubelets), agents: watch::Sender::new((0, Instant::now())) }
    }

    /// Watches until the returned future is dropped.
    pub(crate) async fn run(&self, admin: &Who) {
        let connection = admin.connect().await.expect("the apiserver takes an administrator's connection");
        let mut pods = BTreeSet::new();
        let leases = follow(&connection, LEASES, |_, lease| {
            self.kubelets.lock().observe(lease, Instant::now());
        });
        let agents = follow(&connection, AGENTS, |kind, pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if kind == "DELETED" {
                pods.remove(&name)
            } else {
                pods.insert(name)
            };
            let now = pods.len();
            self.agents.send_if_modified(|(count, since)| {
                let changed = *count != now;
                if changed {
                    (*count, *since) = (now, Instant::now());
                }
                changed
            });
        });
        let (leases, agents) = tokio::join!(leases, agents);
        panic!("expected the watches to last, but: {leases:?}, {agents:?}");
    }

    /// Waits until the DaemonSet has `count` pods.
    pub(crate) async fn agents(&self, count: usize) {
        let mut receiver = self.agents.subscribe();
        receiver.wait_for(|(now, _)| *now == count).await.expect("the sender is ours");
    }

    /// When the last of its pods was gone, if none is left.
    pub(crate) fn agents_gone(&self) -> Option<Instant> {
        let (count, since) = *self.agents.borrow();
        (count == 0).then_some(since)
    }
}

/// Hands every event of a watch to `see`, until it ends.
async fn follow(
    connection: &Connection,
    path: &str,
    mut see: impl FnMut(&str, &Value),
) -> Result<(), Failure> {
    let mut body = connection.open(Method::GET, path, None).await?.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::Broken(e.to_string()))?;
        pending.extend_from_slice(frame.data_ref().map_or(&[], |part| part));
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("a watch sends JSON");
            see(event["type"].as_str().unwrap_or_default(), &event["object"]);
        }
    }
    Ok(())
}
