//! What is in the cluster: nodes, pods of an ordinary size, those who may read them, and the culprit.

use serde_json::{Value, json};

/// The namespace of the pods that only lie there.
pub(crate) const CROWD: &str = "crowd";

/// All node names have the same length, and so have all pod names: copies need that.
pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number:04}")
}

pub(crate) fn pod_name(number: usize) -> String {
    format!("crowd-{number:05}")
}

/// A node object as large as a small cluster's: conditions, addresses, some labels, images.
pub(crate) fn node(number: usize) -> Value {
    let name = node_name(number);
    let images: Vec<Value> = (0..10)
        .map(|image| {
            json!({
                "names": [format!("registry.example/team-{image}/service@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")],
                "sizeBytes": 73_400_320 + image,
            })
        })
        .collect();
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "KubeletIsFine", "message": "kubelet has nothing to complain about",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
                "node.kubernetes.io/instance-type": "standard-16",
            },
        },
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 128 + number / 256, number % 256)},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": format!("192.0.2.{}", number % 250 + 1)},
                {"type": "Hostname", "address": name},
            ],
            "capacity": {"cpu": "16", "memory": "65536Mi", "pods": "110"},
            "allocatable": {"cpu": "15", "memory": "61440Mi", "pods": "110"},
            "conditions": [
                condition("Ready", "True"), condition("MemoryPressure", "False"),
                condition("DiskPressure", "False"), condition("PIDPressure", "False"),
            ],
            "nodeInfo": {
                "machineID": "9f86d081884c7d65", "systemUUID": "9f86d081884c7d65", "bootID": "9f86d081884c7d65",
                "kernelVersion": "6.1.0", "osImage": "an ordinary one", "containerRuntimeVersion": "containerd://2.0.0",
                "kubeletVersion": "v1.34.4", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
            "images": images,
        },
    })
}

/// The first pod, on the first node: 7.8 kB as JSON, so that a LIST of 5,000 has 39 MB. The others are copies.
pub(crate) fn pod() -> Value {
    let variables: Vec<Value> = (0..VARIABLES)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("value-{number}-{DIFFERENT}")}))
        .collect();
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("registry.example/{name}:v1.27.3"),
            "args": ["--listen=0.0.0.0:8080", "--log-level=info", "--shutdown-grace=30s"],
            "env": variables,
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
            "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 10},
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(0),
            "labels": {"app.kubernetes.io/name": "crowd", "app.kubernetes.io/part-of": "crowd", "pod-template-hash": "5d8f7c9b6d"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        },
        "spec": {
            "nodeName": node_name(0),
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [container("server"), container("sidecar")],
        },
    })
}

/// Stands for 16 characters that are others in every place of every copy: pods that are all alike would compress far
/// better than pods do.
pub(crate) const DIFFERENT: &str = "QQQQQQQQQQQQQQQQ";

/// Variables of each of a pod's two containers: what makes it as large as it is.
const VARIABLES: usize = 14;

/// A Secret of 512 kB, for the scene about memory.
pub(crate) fn large_secret(number: usize) -> Value {
    // Base64 of anything: 512 KiB of zeros would do, but would not be true to size if anybody compressed it.
    let mut seed = number as u64 + 1;
    let text: String = (0..512 * 1024 / 3 * 4)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(seed >> 58) as usize],
            )
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("large-{number}"), "namespace": "vault"},
        "type": "Opaque",
        "data": {"content": text},
    })
}

/// A DaemonSet that somebody has to delete.
pub(crate) fn daemon_set(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "agent", "image": "registry.example/agent:v1"}]},
            },
        },
    })
}

/// A service and its endpoints, for those who serve DNS.
pub(crate) fn services(count: usize) -> String {
    (0..count)
        .map(|number| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: service-{number}, namespace: crowd}}\n\
                 spec: {{selector: {{app: crowd}}, ports: [{{port: 80}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: service-{number}-a, namespace: crowd, labels: {{kubernetes.io/service-name: service-{number}}}}}\n\
                 addressType: IPv4\nports: [{{port: 8080}}]\n\
                 endpoints: [{{addresses: [10.0.0.1]}}, {{addresses: [10.0.0.2]}}]\n"
            )
        })
        .collect()
}

/// Those who take part, and what they may do. The culprit is an ordinary collector.
pub(crate) const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: crowd}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: crowd}
---
apiVersion: v1
kind: Namespace
metadata: {name: hooked, labels: {hooked: 'true'}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: hooked}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: deployer, namespace: hooked}
---
apiVersion: v1
kind: Namespace
metadata: {name: vault}
---
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: otel-collector, namespace: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: node-inspector, namespace: kube-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: soak-reader}
rules: [{apiGroups: [''], resources: [pods, nodes, secrets], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: soak-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: soak-reader}
subjects:
- {kind: ServiceAccount, name: otel-collector, namespace: monitoring}
- {kind: ServiceAccount, name: node-inspector, namespace: kube-system}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: inspectors}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:nodes'}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: soak-dns}
rules:
- {apiGroups: [''], resources: [services, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: soak-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: soak-dns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: soak-deployer}
rules: [{apiGroups: [''], resources: [pods], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: soak-deployer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: soak-deployer}
subjects: [{kind: ServiceAccount, name: deployer, namespace: hooked}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: otel-collector, namespace: monitoring}
spec:
  selector: {matchLabels: {app: otel-collector}}
  template:
    metadata: {labels: {app: otel-collector}}
    spec:
      serviceAccountName: otel-collector
      containers: [{name: collector, image: 'registry.example/otel-collector:v1'}]
";
