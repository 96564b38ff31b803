//! What does kubeadm itself make of our patches and of the flags that stand in them?
//!
//! The real program writes the manifest of kube-apiserver, in a directory that it takes for the root of a host. Needs the
//! right to chroot.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    manifests::dry_run,
    spillway::{BINARY, CLUSTER},
};

const SETTINGS: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
patches: {directory: /patches}
localAPIEndpoint: {advertiseAddress: 10.99.0.11, bindPort: 6443}
nodeRegistration: {name: cp-1, criSocket: 'unix:///run/containerd/containerd.sock'}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.34.4
";

fn printed(form: &str) -> String {
    let found = Command::new(BINARY).args(["manifest", form]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

/// The flags as the patch's first lines tell people to write them into kubeadm-config.
fn flags() -> String {
    let patch = printed("kubeadm-patch");
    let lines = patch.lines().filter_map(|line| line.strip_prefix("#   "));
    let told: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(told.starts_with("apiServer:\n"), "{told}");
    told
}

/// kube-apiserver's pod as kubeadm writes it with these patches.
fn pod(patches: &[(&str, &str)]) -> (String, Value) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubeadm/build.sh");
    let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "tests/kubeadm/build.sh built no kubeadm; its reason is above");

    let host = tempfile::tempdir().unwrap();
    for folder in ["etc", "tmp", "patches"] {
        fs::create_dir(host.path().join(folder)).unwrap();
    }
    fs::write(host.path().join("kubeadm.yaml"), format!("{SETTINGS}{}", flags())).unwrap();
    for (file, form) in patches {
        fs::write(host.path().join("patches").join(file), printed(form)).unwrap();
    }
    let mut kubeadm = Command::new(String::from_utf8_lossy(&built.stdout).trim());
    kubeadm.args(["init", "phase", "control-plane", "apiserver", "--config", "/kubeadm.yaml", "--rootfs"]);
    let said = kubeadm.arg(host.path()).output().unwrap();
    assert!(
        said.status.success(),
        "kubeadm (it needs root, for --rootfs): {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let text = fs::read_to_string(host.path().join("etc/kubernetes/manifests/kube-apiserver.yaml")).unwrap();
    let arguments = ["apply", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
    let read = CLUSTER.kubectl_with_input(&CLUSTER.admin_kubeconfig(), &arguments, &text);
    (text, serde_json::from_str(&read).unwrap())
}

fn is_split(pod: &Value) {
    let apiserver = &pod["spec"]["containers"][0];
    assert_eq!(apiserver["name"], "kube-apiserver", "who asks for this pod's logs means kube-apiserver");
    let command = apiserver["command"].to_string();
    for flag in ["--bind-address=127.0.0.1", "--advertise-address=10.99.0.11", "--secure-port=6443"] {
        assert!(command.contains(flag), "{flag} is not in {command}");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(apiserver[probe]["httpGet"]["host"], "127.0.0.1", "{probe}");
        // kubeadm's own values stay.
        assert_eq!(apiserver[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
        assert_eq!(apiserver[probe]["timeoutSeconds"], 15, "{probe}");
    }
}

#[test]
fn kubeadm_moves_kube_apiserver_to_loopback_and_leaves_its_advertised_address() {
    let (text, pod) = pod(&[("kube-apiserver0+strategic.yaml", "kubeadm-patch")]);
    is_split(&pod);
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(dry_run(&text), "pod/kube-apiserver\n");
}

#[test]
fn kubeadm_puts_the_sidecar_behind_kube_apiserver() {
    let (text, pod) = pod(&[
        ("kube-apiserver0+strategic.yaml", "kubeadm-patch"),
        ("kube-apiserver1+strategic.yaml", "sidecar-patch"),
    ]);
    is_split(&pod);
    let spillway = &pod["spec"]["containers"][1];
    assert_eq!(spillway["name"], "spillway");
    assert_eq!(spillway["livenessProbe"]["httpGet"]["port"], 10270);
    assert_eq!(dry_run(&text), "pod/kube-apiserver\n");
}

#[test]
fn without_the_patch_kubeadm_asks_the_nodes_address_again() {
    // What docs/UPGRADE.md warns of: the flags are stored in the cluster, the patch is not.
    let (_, pod) = pod(&[]);
    let apiserver = &pod["spec"]["containers"][0];
    assert!(apiserver["command"].to_string().contains("--bind-address=127.0.0.1"));
    assert_eq!(apiserver["livenessProbe"]["httpGet"]["host"], "10.99.0.11");
}
