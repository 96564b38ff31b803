//! What stands when the play begins: a cluster full of pods, kubelets that are Ready, a telemetry DaemonSet that runs
//! on all of them, credentials for everybody; and spillway in front, or not.

use std::{cell::Cell, net::SocketAddr, path::Path, time::Duration};

use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    client::{Connection, Who},
    gauges,
    leases::Kubelets,
};
use crate::cluster::{Cluster, ClusterOptions, Credential, Front, canary};

/// Real kubelets.
pub(crate) const KUBELETS: usize = 5;
/// Pods that make a LIST of all of them expensive: 17 MB as JSON, about 200 ms of one core.
const PODS: usize = 2_000;
/// Requests on the way at once while the stage is built.
const HANDS: usize = 32;
/// For one request while the stage is built.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    /// Where the clients connect: the server, or spillway.
    pub(crate) entrance: SocketAddr,
    // Dropped before the cluster, whose guardian it needs.
    pub(crate) front: Option<Front>,
    pub(crate) cluster: Cluster,
    /// How often controllers or scheduler had to be started again.
    pub(crate) restarts: Cell<u64>,
}

impl Stage {
    /// Servers on core 0; everything else stays where the caller is.
    pub(crate) fn build(binary: Option<&Path>, pin: bool) -> Self {
        let cluster = Cluster::start(ClusterOptions { cpus: pin.then(|| vec![0]), ..Default::default() });
        let front = binary.map(|binary| cluster.start_front(binary, None, |_config| ()));
        let entrance = front.as_ref().map_or_else(|| cluster.apiserver_addr(), |front| front.main);
        let (url, ca) = (format!("https://{entrance}"), cluster.paths.server_ca.cert.clone());
        cluster.apply(OBJECTS);
        cluster.start_controllers(&url, &ca);
        cluster.start_scheduler(&url, &ca);
        cluster.start_hollow_nodes(KUBELETS, &url, &ca);
        Self { entrance, front, cluster, restarts: Cell::new(0) }
    }

    /// Does what a kubelet does for static pods, until the returned future is dropped: who has ended is started again.
    /// Controllers and scheduler end themselves when they cannot renew their leases.
    pub(crate) async fn keep_alive(&self) {
        const LOOK: Duration = Duration::from_secs(1);
        let (url, ca) = (format!("https://{}", self.entrance), &self.cluster.paths.server_ca.cert);
        loop {
            sleep(LOOK).await;
            if self.has_ended("controllers") {
                self.cluster.start_controllers(&url, ca);
            }
            if self.has_ended("scheduler") {
                self.cluster.start_scheduler(&url, ca);
            }
        }
    }

    /// Clears a program away that has ended by itself.
    fn has_ended(&self, part: &str) -> bool {
        let ended = self.cluster.pid(part).is_some_and(gauges::has_ended);
        if ended {
            self.cluster.stop(part);
            self.restarts.set(self.restarts.get() + 1);
        }
        ended
    }

    /// An administrator who goes straight to kube-apiserver.
    pub(crate) fn admin(&self) -> Who {
        let ca = &self.cluster.paths.server_ca.cert;
        Who::new(self.cluster.apiserver_addr(), ca, &self.cluster.admin())
    }

    /// Somebody who comes the way that is under test.
    pub(crate) fn client(&self, credential: &Credential) -> Who {
        Who::new(self.entrance, &self.cluster.paths.server_ca.cert, credential)
    }

    /// `count` nodes that exist by their leases alone.
    pub(crate) fn lease_writers(&self, count: usize) -> Vec<(String, Who)> {
        let names = (0..count).map(|number| format!("written-{number}"));
        names
            .map(|name| {
                let who = self.client(&Credential::Certificate(self.cluster.pki.node(&name)));
                (name, who)
            })
            .collect()
    }

    pub(crate) fn kubelets(&self) -> Kubelets {
        let names = (0..KUBELETS).map(|number| format!("hollow-{number}"));
        Kubelets::new(names.map(|name| {
            let log = self.cluster.paths.logs.join(format!("{name}.log"));
            (name, log)
        }))
    }

    /// Creates the pods.
    pub(crate) async fn fill(&self, admin: &Connection) {
        let create = |number| async move {
            let path = format!("/api/v1/namespaces/{CROWD}/pods");
            let answer = admin.ask(Method::POST, &path, Some(pod(number).to_string()), PATIENCE).await;
            let answer = answer.unwrap_or_else(|e| panic!("expected pod {number} to be created, but {e}"));
            let said = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 201, "expected pod {number} to be created, but {said}");
        };
        stream::iter(0..PODS).for_each_concurrent(HANDS, create).await;
    }

    /// `count` agents, each with a token of its own of the DaemonSet's service account.
    pub(crate) async fn agents(&self, admin: &Connection, count: usize) -> Vec<Who> {
        const PATH: &str = "/api/v1/namespaces/monitoring/serviceaccounts/otel-collector/token";
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let token = async |_number: usize| {
            let answer = admin.ask(Method::POST, PATH, Some(request.to_string()), PATIENCE).await;
            let answer = answer.unwrap_or_else(|e| panic!("expected a token, but {e}"));
            let body: Value = serde_json::from_slice(&answer.body).expect("a TokenRequest in JSON");
            let token = body["status"]["token"].as_str();
            let token = token.unwrap_or_else(|| panic!("no token in {body}"));
            canary::token(token);
            self.client(&Credential::Token(token.into()))
        };
        stream::iter(0..count).map(token).buffered(HANDS).collect().await
    }
}

/// The namespace of the pods that only lie there.
const CROWD: &str = "crowd";

/// A pod as large as ordinary ones are. Nobody schedules it, so it stays as it is.
fn pod(number: usize) -> Value {
    let variables: Vec<Value> = (0..16)
        .map(|variable| json!({"name": format!("SETTING_{variable}"), "value": format!("value-{number}-{variable}-of-an-ordinary-length")}))
        .collect();
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("registry.example/{name}:v1.{number}"),
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
            "name": format!("crowd-{number}"),
            "labels": {"app.kubernetes.io/name": "crowd", "app.kubernetes.io/instance": format!("crowd-{}", number % 50), "pod-template-hash": "5d8f7c9b6d"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        },
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [container("server"), container("sidecar")],
        },
    })
}

/// The culprit is an ordinary collector: its service account may list pods, and its pods do not say that they will.
const OBJECTS: &str = "
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
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: otel-collector, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: otel-collector}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: otel-collector}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: otel-collector}
subjects: [{kind: ServiceAccount, name: otel-collector, namespace: monitoring}]
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
      terminationGracePeriodSeconds: 1
      containers: [{name: collector, image: 'registry.example/otel-collector:v1'}]
";
