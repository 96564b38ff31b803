//! The parts that talk to kube-apiserver, each pointed at any URL: controllers, scheduler, kubelets; and the fake
//! kubelet, which kube-apiserver talks to.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::{
    Cluster, Credential, READY,
    process::{free_port, wait_for},
};

/// The node that the fake kubelet serves, and the pod in namespace `default` bound to it (container `main`).
pub(crate) const FAKE_NODE: &str = "fake-kubelet";
pub(crate) const FAKE_POD: &str = "streams";

impl Cluster {
    /// kube-controller-manager, as it is in a kubeadm cluster: leader election, one service account a controller.
    pub(crate) fn start_controllers(&self, server_url: &str, ca: &Path) {
        let who = Credential::Certificate(self.paths.controllers.clone());
        let mut command = self.program("kube-controller-manager");
        command.arg("--kubeconfig").arg(self.kubeconfig_for(&who, server_url, ca));
        command.arg("--service-account-private-key-file").arg(&self.paths.service_account.key);
        command.arg("--root-ca-file").arg(ca);
        command.args([
            "--use-service-account-credentials=true",
            "--leader-elect=true",
            "--bind-address=127.0.0.1",
        ]);
        command.args(["--secure-port", &free_port().to_string()]);
        self.keep("controllers", command);
    }

    pub(crate) fn start_scheduler(&self, server_url: &str, ca: &Path) {
        let who = Credential::Certificate(self.paths.scheduler.clone());
        let mut command = self.program("kube-scheduler");
        command.arg("--kubeconfig").arg(self.kubeconfig_for(&who, server_url, ca));
        command.args(["--leader-elect=true", "--bind-address=127.0.0.1"]);
        command.args(["--secure-port", &free_port().to_string()]);
        self.keep("scheduler", command);
    }

    /// `count` more nodes `hollow-0`, `hollow-1`, …: the real kubelet over a runtime that only pretends. About 70 MiB
    /// each. Does not wait for them.
    pub(crate) fn start_hollow_nodes(&self, count: usize, server_url: &str, ca: &Path) {
        let mut started = self.hollow_started.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for number in *started..*started + count {
            let name = format!("hollow-{number}");
            let who = Credential::Certificate(self.pki.node(&name));
            let mut command = self.program("hollow-node");
            command.arg("--kubeconfig").arg(self.kubeconfig_for(&who, server_url, ca));
            command.args(["--morph=kubelet", "--use-host-image-service=false", "--name", &name]);
            command.args(["--kubelet-port", &free_port().to_string()]);
            command.args(["--kubelet-read-only-port", &free_port().to_string()]);
            self.keep(&name, command);
        }
        *started += count;
    }

    /// Waits until `count` hollow nodes are Ready.
    pub(crate) fn wait_nodes_ready(&self, count: usize, deadline: Duration) {
        let admin = self.admin_kubeconfig();
        let args = ["get", "nodes", "-o", "json"];
        wait_for(&format!("{count} Ready nodes"), deadline, || {
            let list: Value =
                serde_json::from_str(&self.kubectl_ok(&admin, &args)).map_err(|e| e.to_string())?;
            let nodes = list["items"].as_array().into_iter().flatten();
            let ready = nodes.filter(|node| node["metadata"]["name"] != FAKE_NODE && is_ready(node)).count();
            if ready >= count { Ok(()) } else { Err(format!("{ready} are Ready")) }
        });
    }

    /// Starts the kubelet that streams, and creates [`FAKE_NODE`] and, running on it, [`FAKE_POD`]. What can be run
    /// in that pod is the table in `tests/cluster/cmd/fake-kubelet/commands.go`; its ports are 7 (echo) and 80 (HTTP).
    pub(crate) fn start_fake_kubelet(&self) {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let root = self.paths.dir.join("fake-kubelet");
        fs::create_dir_all(&root).expect("the fake pod's root is created");
        let mut command = self.program("fake-kubelet");
        command.args(["--listen", &at.to_string()]).arg("--root").arg(root);
        command.arg("--cert").arg(&self.paths.serving.cert).arg("--key").arg(&self.paths.serving.key);
        command.arg("--client-ca").arg(&self.paths.client_ca.cert);
        self.keep("fake-kubelet", command);
        self.wait_listening("fake-kubelet", at);
        self.apply(&FAKE_OBJECTS.replace("PORT", &at.port().to_string()));
        self.fake_running();
    }

    /// Says what a kubelet would say of [`FAKE_POD`]: port-forward refuses a pod that is not Running.
    fn fake_running(&self) {
        let admin = self.admin_kubeconfig();
        let args = ["patch", "pod", FAKE_POD, "--subresource=status", "--type=merge", "-p", RUNNING];
        wait_for("the fake pod's status to be written", READY, || {
            let patched = self.kubectl(&admin, &args);
            if patched.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&patched.stderr).into())
            }
        });
    }
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The taint keeps the scheduler and DaemonSets away from a node that runs nothing; the pod stays although nobody
/// renews the node's lease. The service account is named because without controllers nobody creates it.
const FAKE_OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: fake-kubelet}
spec: {taints: [{key: spillway.dev/fake, effect: NoSchedule}]}
status:
  addresses: [{type: InternalIP, address: 127.0.0.1}, {type: Hostname, address: localhost}]
  daemonEndpoints: {kubeletEndpoint: {Port: PORT}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: streams, namespace: default}
spec:
  nodeName: fake-kubelet
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: main, image: none, stdin: true, ports: [{containerPort: 7}, {containerPort: 80}]}]
";

const RUNNING: &str = r#"{"status": {"phase": "Running", "podIP": "192.0.2.10",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [{"name": "main", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}}"#;
