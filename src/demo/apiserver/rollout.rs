//! How does the telemetry DaemonSet reach every node, and leave it again?
//!
//! The part of kube-controller-manager that the demo needs: one pod a node while the DaemonSet exists, none once it
//! is deleted, at a limited pace. It works on the store directly: its own calls would drown too in an
//! overloaded cluster, so the model is kinder than reality here.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use super::cluster::{TELEMETRY_NAME, TELEMETRY_NAMESPACE, daemon_set_status, node_name, pod};
use super::resources::Kind;
use super::store::Store;

/// How often the controller looks.
const STEP: Duration = Duration::from_millis(100);
/// A roll-out or removal takes this many steps: 4 s. Real ones took minutes at OpenAI; the demo's time runs faster.
const STEPS: usize = 40;

/// Runs as long as the server does.
pub(crate) async fn run(store: &Store) {
    let mut ticks = tokio::time::interval(STEP);
    loop {
        ticks.tick().await;
        step(store);
    }
}

/// Moves the pods one step towards what the DaemonSet asks for.
fn step(store: &Store) {
    let wanted = store.get(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, TELEMETRY_NAME).is_some();
    let nodes = store.count(Kind::NODES, None);
    let pods = store.page(Kind::PODS, Some(TELEMETRY_NAMESPACE), None, usize::MAX).objects;
    let pace = nodes.div_ceil(STEPS);
    if wanted && pods.len() < nodes {
        let running: HashSet<&str> = pods.iter().filter_map(|pod| pod.node.as_deref()).collect();
        let missing = (0..nodes).map(node_name).filter(|node| !running.contains(node.as_str()));
        for node in missing.take(pace) {
            let pod = pod(&format!("{TELEMETRY_NAME}-{node}"), &node, TELEMETRY_NAME);
            // A name that is taken belongs to this node's pod already.
            let _ = store.create(Kind::PODS, TELEMETRY_NAMESPACE, pod);
        }
        report(store, (pods.len() + pace).min(nodes), nodes);
    } else if !wanted {
        for pod in pods.iter().take(pace) {
            // Somebody else deleted it: fine.
            let _ = store.delete(Kind::PODS, TELEMETRY_NAMESPACE, &pod.name);
        }
    }
}

fn report(store: &Store, current: usize, desired: usize) {
    // Deleted in this very moment: there is no status to write.
    let _ = store.modify(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, TELEMETRY_NAME, |daemon_set| {
        let mut value = daemon_set.value();
        value["status"] = daemon_set_status(current, desired);
        value["metadata"]["resourceVersion"] = json!("");
        value
    });
}

/// The nodes on which the telemetry agent runs.
pub(crate) fn nodes_with_agent(store: &Store) -> HashSet<String> {
    let pods = store.page(Kind::PODS, Some(TELEMETRY_NAMESPACE), None, usize::MAX).objects;
    pods.iter().filter_map(|pod| pod.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cluster;
    use super::*;

    #[test]
    fn agents_come_with_the_daemon_set_and_go_with_it() {
        let store = cluster::build(50, 1).expect("a cluster");
        step(&store);
        assert!(nodes_with_agent(&store).is_empty());
        let daemon_set = cluster::daemon_set(TELEMETRY_NAME, 0);
        store.create(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, daemon_set).expect("new");
        step(&store);
        assert_eq!(nodes_with_agent(&store).len(), 2, "50 nodes in 40 steps are 2 a step");
        for _ in 0..STEPS {
            step(&store);
        }
        assert_eq!(nodes_with_agent(&store).len(), 50);
        let daemon_set = store.get(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, TELEMETRY_NAME).expect("there");
        assert_eq!(daemon_set.value()["status"]["numberReady"], 50);
        store.delete(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, TELEMETRY_NAME).expect("there");
        for _ in 0..STEPS {
            step(&store);
        }
        assert!(nodes_with_agent(&store).is_empty());
    }
}
