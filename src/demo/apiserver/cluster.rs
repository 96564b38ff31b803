//! What is in the modelled cluster before anything happens?
//!
//! Nodes with their leases, pods spread over application namespaces, CoreDNS' services and endpoint slices. Objects are smaller than
//! real ones (a pod is about 0.6 kB instead of 7.8 kB): they cost what real ones cost, but two cores have to send
//! them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::resources::Kind;
use super::store::{Refused, Store};
use crate::clock;

/// Namespace of the node leases.
pub(crate) const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Where the cluster's own services and slices live that CoreDNS watches.
pub(crate) const SERVICE_NAMESPACE: &str = "shop-00";
/// The service whose endpoints change all the time.
pub(crate) const BUSY_SLICE: &str = "checkout-x7k2p";
/// The telemetry DaemonSet, its namespace and its service account. The default policy knows the account by name.
pub(crate) const TELEMETRY_NAMESPACE: &str = "monitoring";
/// Name of the telemetry DaemonSet and of its service account.
pub(crate) const TELEMETRY_NAME: &str = "otel-collector";

/// Application namespaces; services are one each.
const APP_NAMESPACES: usize = 20;
/// The cluster looks 40 days old.
const AGE: Duration = Duration::from_secs(40 * 86_400);

/// `n042`.
pub(crate) fn node_name(index: usize) -> String {
    format!("n{index:03}")
}

/// A new store with `nodes` nodes of `pods_per_node` pods.
pub(crate) fn build(nodes: usize, pods_per_node: usize) -> Result<Store, Refused> {
    let store = Store::new();
    let created = clock::wall() - AGE;
    let add = |kind: Kind, namespace: &str, object: Value| store.create_at(kind, namespace, object, created);
    for namespace in ["default", "kube-system", "kube-public", LEASE_NAMESPACE, TELEMETRY_NAMESPACE] {
        add(Kind::NAMESPACES, "", json!({"metadata": {"name": namespace}, "status": {"phase": "Active"}}))?;
    }
    for index in 0..APP_NAMESPACES {
        let namespace = app_namespace(index);
        add(Kind::NAMESPACES, "", json!({"metadata": {"name": namespace}, "status": {"phase": "Active"}}))?;
        let service =
            json!({"metadata": {"name": "checkout"}, "spec": {"clusterIP": format!("10.96.1.{index}")}});
        add(Kind::SERVICES, &namespace, service)?;
        add(Kind::ENDPOINT_SLICES, &namespace, slice(&[]))?;
    }
    let ca = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "modelled"}});
    add(Kind::CONFIG_MAPS, "kube-system", ca)?;
    for name in ["kube-proxy", "cni-node"] {
        add(Kind::DAEMON_SETS, "kube-system", daemon_set(name, nodes))?;
    }
    for index in 0..nodes {
        fill_node(&store, index, pods_per_node, created)?;
    }
    Ok(store)
}

fn fill_node(store: &Store, index: usize, pods: usize, created: SystemTime) -> Result<(), Refused> {
    let node = node_name(index);
    store.create_at(Kind::NODES, "", node_object(&node), created)?;
    store.create_at(Kind::LEASES, LEASE_NAMESPACE, lease(&node, created), created)?;
    for number in 0..pods {
        let namespace = app_namespace((index * pods + number) % APP_NAMESPACES);
        let name = format!("checkout-7d9f8b6c54-{index:03}{number:02}");
        store.create_at(Kind::PODS, &namespace, pod(&name, &node, "checkout"), created)?;
    }
    Ok(())
}

fn app_namespace(index: usize) -> String {
    format!("shop-{index:02}")
}

fn node_object(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {"kubeletVersion": "v1.34.0", "osImage": "Model", "containerRuntimeVersion": "model://1"},
        },
    })
}

/// A node's lease as its kubelet writes it.
pub(crate) fn lease(node: &str, renewed: SystemTime) -> Value {
    json!({
        "metadata": {"name": node, "namespace": LEASE_NAMESPACE},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": 40,
            "renewTime": super::timestamp_micros(renewed),
        },
    })
}

/// A running pod.
pub(crate) fn pod(name: &str, node: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": app,
            "containers": [{"name": app, "image": format!("registry.example/{app}:1.0")}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.9",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": app, "ready": true, "restartCount": 0}],
        },
    })
}

/// A DaemonSet that is scheduled on `nodes` nodes.
pub(crate) fn daemon_set(name: &str, nodes: usize) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"serviceAccountName": name, "containers": [{"name": name, "image": "registry.example/agent:1"}]},
            },
        },
        "status": daemon_set_status(nodes, nodes),
    })
}

/// The status of a DaemonSet with `current` of `desired` pods.
pub(crate) fn daemon_set_status(current: usize, desired: usize) -> Value {
    json!({
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": current,
        "updatedNumberScheduled": current,
        "numberReady": current,
        "numberAvailable": current,
        "numberMisscheduled": 0,
    })
}

/// The endpoints behind a service.
pub(crate) fn slice(addresses: &[String]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": BUSY_SLICE, "labels": {"kubernetes.io/service-name": "checkout"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}
