//! Are the files in `deploy/`, and what `spillway manifest` prints of them, accepted by those they are for?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::spillway::{BINARY, CLUSTER};

/// What is made for other programs than kube-apiserver, or is only a part of an object, or is rendered first
/// (`charts.rs`). Any other file is tried.
const NOT_OBJECTS: &[&str] = &[
    "deploy/monitoring/",
    // rollout.rs tries these with the CRDs they are for.
    "deploy/chaos/",
    "deploy/rollout/",
    "deploy/static-pod/kube-apiserver0",
    "deploy/sidecar/",
    "deploy/gateway/point-daemonset",
    "deploy/helm/",
    "deploy/kustomize/",
];

/// What of a kubeadm cluster's kube-apiserver manifest a patch can meet.
const KUBE_APISERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system, labels: {component: kube-apiserver, tier: control-plane}}
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.34.4
    command: [kube-apiserver, --advertise-address=10.0.0.11]
    livenessProbe: {httpGet: {host: 10.0.0.11, path: /livez, port: 6443, scheme: HTTPS}, periodSeconds: 10}
    readinessProbe: {httpGet: {host: 10.0.0.11, path: /readyz, port: 6443, scheme: HTTPS}, periodSeconds: 1}
    startupProbe: {httpGet: {host: 10.0.0.11, path: /livez, port: 6443, scheme: HTTPS}, periodSeconds: 10}
";

fn manifest(arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("manifest").args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let found = manifest(arguments);
    assert!(found.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8(found.stdout).unwrap()
}

/// Has kube-apiserver judge the objects as if it would keep them, and says which they are.
pub(crate) fn dry_run(objects: &str) -> String {
    // Made by a controller elsewhere; pods are admitted only where it exists.
    CLUSTER.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: kube-system}");
    let admin = CLUSTER.admin_kubeconfig();
    CLUSTER.kubectl_with_input(&admin, &["apply", "--dry-run=server", "-o", "name", "-f", "-"], objects)
}

fn yaml_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

#[test]
fn kube_apiserver_accepts_every_object_in_deploy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    yaml_below(&root.join("deploy"), &mut files);
    let mut seen = 0;
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if !NOT_OBJECTS.iter().any(|other| name.starts_with(other)) {
            let accepted = dry_run(&fs::read_to_string(&file).unwrap());
            assert!(!accepted.trim().is_empty(), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} files with objects were found");
}

#[test]
fn patches_fit_the_pod_that_kubeadm_writes() {
    let directory = tempfile::tempdir().unwrap();
    let pod = directory.path().join("kube-apiserver.yaml");
    fs::write(&pod, KUBE_APISERVER).unwrap();
    let mut patched = String::new();
    for form in ["kubeadm-patch", "sidecar-patch"] {
        let patch = directory.path().join(form);
        fs::write(&patch, printed(&[form])).unwrap();
        let (pod, patch) = (pod.to_str().unwrap(), patch.to_str().unwrap());
        let arguments =
            ["patch", "--local", "-f", pod, "--type=strategic", "--patch-file", patch, "-o", "yaml"];
        patched = CLUSTER.kubectl_ok(&CLUSTER.admin_kubeconfig(), &arguments);
        fs::write(pod, &patched).unwrap();
    }
    assert_eq!(patched.matches("host: 127.0.0.1").count(), 4, "{patched}");
    assert!(
        !patched.contains("host: 10.0.0.11") && patched.contains("--advertise-address=10.0.0.11"),
        "{patched}"
    );
    assert!(patched.contains("name: spillway"), "{patched}");
    assert_eq!(dry_run(&patched), "pod/kube-apiserver\n");
}

#[test]
fn the_configuration_for_a_node_is_valid_in_every_mode() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spillway.yaml");
    for (address, mode, listens, goes_to) in [
        ("192.0.2.7", "address-split", "192.0.2.7:6443", "https://127.0.0.1:6443"),
        ("192.0.2.7", "side-port", "192.0.2.7:7443", "https://192.0.2.7:6443"),
        ("2001:db8::7", "address-split", "\"[2001:db8::7]:6443\"", "https://[::1]:6443"),
    ] {
        let text = printed(&["config", "--node-address", address, "--mode", mode]);
        assert!(text.contains(&format!("address: {listens}\n")), "{text}");
        assert!(text.contains(&format!("url: {goes_to}\n")), "{text}");
        assert!(!text.contains("10.0.0.11"), "{text}");
        fs::write(&file, text).unwrap();
        let found = Command::new(BINARY).args(["validate", "--skip-files"]).arg(&file).output().unwrap();
        assert!(found.status.success(), "{address} {mode}: {}", String::from_utf8_lossy(&found.stderr));
    }
}

#[test]
fn a_kubeconfig_works_for_kubectl() {
    let alice = &CLUSTER.paths.alice;
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let kubeconfig = printed(&[
        "kubeconfig",
        "--server",
        &CLUSTER.url(),
        "--ca-file",
        &text(&CLUSTER.paths.server_ca.cert),
        "--client-certificate",
        &text(&alice.cert),
        "--client-key",
        &text(&alice.key),
    ]);
    fs::write(file.path(), kubeconfig).unwrap();
    let who =
        CLUSTER.kubectl_ok(file.path(), &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(who, "alice");
}

#[test]
fn what_could_not_be_what_was_meant_is_refused() {
    let wrong: &[(&[&str], &str)] = &[
        (&["static-pod", "--image", "a b"], "--image"),
        (&["static-pod", "--image", "a\nhostPID: true"], "--image"),
        (&["systemd", "--binary", "spillway"], "--binary"),
        (&["kubeconfig", "--server", "10.0.0.11:6443", "--ca-file", "ca.crt"], "https://"),
        (&["kubeconfig", "--server", "https://10.0.0.11:6443", "--ca-file", "no-such-file"], "no-such-file"),
        (&["config", "--node-address", "node-1"], "node-address"),
    ];
    for (arguments, named) in wrong {
        let found = manifest(arguments);
        assert_eq!(found.status.code(), Some(2), "{arguments:?}");
        let told = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(told.contains(named), "{arguments:?}: {told}");
        assert!(found.stdout.is_empty(), "{arguments:?}");
    }
}
