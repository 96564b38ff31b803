//! Does `spillway check`, on the host itself, find what goes wrong there: order, names, ways around, upgrades?

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    thread,
};

use serde_json::Value;

use super::{
    service::enter,
    site::{ControlPlane, Site},
};
use crate::spillway::BINARY;

/// What kubeadm writes, as far as it is looked at: with the flags and probes of the patch, or as it is without.
struct Pod<'a> {
    version: &'a str,
    bind: Option<&'a str>,
    advertise: &'a str,
    services: &'a str,
    probes: &'a str,
}

const SPLIT: Pod<'static> = Pod {
    version: "v1.34.4",
    bind: Some("127.0.0.1"),
    advertise: "10.99.0.11",
    services: "10.96.0.0/16",
    probes: "127.0.0.1",
};
const UNPATCHED: Pod<'static> = Pod { bind: None, probes: "10.99.0.11", ..SPLIT };

/// `check`'s answers, and whether it was content.
struct Checked {
    code: Option<i32>,
    json: Value,
}

impl Checked {
    #[track_caller]
    fn expect(&self, id: &str, result: &str, words: &str) {
        let checks = self.json["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["id"] == id);
        let found = found.unwrap_or_else(|| panic!("no {id}: {:#}", self.json));
        assert_eq!(found["result"], result, "{found:#}");
        assert!(found["what"].as_str().unwrap().contains(words), "{words:?} is not in {found:#}");
        // Whoever is told of something wrong is told what to do.
        assert!(result == "ok" || !found["advice"].as_str().unwrap().is_empty(), "{found:#}");
    }
}

fn etc(site: &Site, host: &ControlPlane) -> PathBuf {
    site.paths.dir.join(&host.host.name).join("etc")
}

/// `spillway check`, on this host, beside this static pod.
fn check(site: &Site, host: &ControlPlane, pod: &Pod<'_>, words: &[&str]) -> Checked {
    let etc = etc(site, host);
    let shown = etc.display();
    let Pod { version, bind, advertise, services, probes } = pod;
    let bind = bind.map_or_else(String::new, |bind| format!("    - --bind-address={bind}\n"));
    let probe = format!("{{httpGet: {{host: {probes}, path: /livez, port: 6443, scheme: HTTPS}}}}");
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: kube-apiserver, namespace: kube-system}}
spec:
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:{version}
    command:
    - kube-apiserver
    - --advertise-address={advertise}
    - --secure-port=6443
    - --client-ca-file={shown}/ca.crt
    - --requestheader-client-ca-file={shown}/front-proxy-ca.crt
    - --service-account-issuer=https://kubernetes.default.svc.cluster.local
    - --service-account-key-file={shown}/sa.pub
    - --service-cluster-ip-range={services}
{bind}    livenessProbe: {probe}
    readinessProbe: {probe}
    startupProbe: {probe}
"
    );
    let manifest = etc.join("kube-apiserver.yaml");
    fs::write(&manifest, text).unwrap();
    let mut command = host.host.command(BINARY.as_ref());
    command.args(["check", "-o", "json", "--window", "500ms", "--config"]).arg(etc.join("spillway.yaml"));
    command.arg("--manifest").arg(manifest).arg("--socket").arg(etc.join("admin.sock")).args(words);
    let said = command.output().unwrap();
    let json = serde_json::from_slice(&said.stdout).unwrap_or_else(|error| {
        let text = [&said.stdout[..], &said.stderr].concat();
        panic!("{error}: {}", String::from_utf8_lossy(&text))
    });
    Checked { code: said.status.code(), json }
}

#[test]
fn check_names_what_is_wrong_with_a_host_before_and_after_the_start() {
    let site = Site::start();
    let mut host = site.control_plane("cp-1", 11);
    // Writes the files; it is started later.
    drop(host.spillway_command(&site));
    before_the_start(&site, &mut host);
    host.start_spillway(&site);
    while_it_runs(&site, &host);
    after_an_upgrade(&site, &host);
}

/// spillway before kube-apiserver has moved: its port is taken, and everybody gets in beside it.
fn before_the_start(site: &Site, host: &mut ControlPlane) {
    host.start_apiserver(site, "0.0.0.0");
    let early = check(site, host, &UNPATCHED, &["--pre"]);
    early.expect("SPW-PRE-002", "failed", "10.99.0.11:6443 is taken: kube-apiserver, it seems");
    early.expect("SPW-API-004", "failed", "around spillway: [::]:6443");
    early.expect("SPW-KAD-001", "failed", "--bind-address is 0.0.0.0");
    early.expect("SPW-KAD-002", "failed", "livenessProbe, readinessProbe, startupProbe");
    assert_eq!(early.code, Some(1));

    host.apiserver = None;
    host.start_apiserver(site, "127.0.0.1");
    let moved = check(site, host, &SPLIT, &["--pre"]);
    for id in
        ["PRE-001", "PRE-002", "TLS-001", "KAD-001", "KAD-002", "KAD-003", "KAD-004", "API-003", "API-004"]
    {
        moved.expect(&format!("SPW-{id}"), "ok", "");
    }
    assert_eq!((moved.code, &moved.json["well"]), (Some(0), &true.into()), "{:#}", moved.json);
}

/// A certificate for another node; and a second door to kube-apiserver's port.
fn while_it_runs(site: &Site, host: &ControlPlane) {
    let well = check(site, host, &SPLIT, &[]);
    for id in ["RUN-001", "RUN-002", "API-001", "API-004", "TLS-001"] {
        well.expect(&format!("SPW-{id}"), "ok", "");
    }
    assert_eq!(well.code, Some(0), "{:#}", well.json);

    let certificate = etc(site, host).join("apiserver.crt");
    let own = fs::read(&certificate).unwrap();
    let other = site.pki.serving("serving-other", &["10.99.0.12".parse().unwrap()]);
    fs::copy(&other.cert, &certificate).unwrap();
    let wrong = check(site, host, &SPLIT, &["--only", "SPW-TLS-001"]);
    fs::write(&certificate, own).unwrap();
    wrong.expect("SPW-TLS-001", "failed", "is not for 10.99.0.11");
    assert_eq!(wrong.code, Some(1));

    let second: IpAddr = "10.99.0.77".parse().unwrap();
    host.host.add_local_address(second);
    let door = door(host, (second, 6443).into());
    let around = check(site, host, &SPLIT, &["--only", "SPW-API-004"]);
    drop(door);
    around.expect("SPW-API-004", "failed", "around spillway: 10.99.0.77:6443");
    check(site, host, &SPLIT, &["--only", "SPW-API-004"]).expect("SPW-API-004", "ok", "");
}

/// Somebody who listens on the host.
fn door(host: &ControlPlane, address: SocketAddr) -> TcpListener {
    let namespace = host.host.namespace();
    let inside = thread::spawn(move || {
        enter(&namespace).unwrap();
        TcpListener::bind(address).unwrap()
    });
    inside.join().unwrap()
}

/// What kubeadm wrote anew, or wrote differently, is seen while everything still runs as before.
fn after_an_upgrade(site: &Site, host: &ControlPlane) {
    let only = ["--only", "kubeadm"];
    // The flag is stored in the cluster, the patch is not.
    let no_patch = check(site, host, &Pod { probes: "10.99.0.11", ..SPLIT }, &only);
    no_patch.expect("SPW-KAD-001", "ok", "");
    no_patch.expect("SPW-KAD-002", "failed", "do not ask 127.0.0.1");
    let nothing_kept = check(site, host, &UNPATCHED, &only);
    nothing_kept.expect("SPW-KAD-001", "failed", "--bind-address is 0.0.0.0");
    assert_eq!((no_patch.code, nothing_kept.code), (Some(1), Some(1)));

    let older = check(site, host, &Pod { version: "v1.27.16", ..SPLIT }, &only);
    older.expect("SPW-KAD-004", "warning", "before 1.29");

    let both = Pod { services: "10.96.0.0/16,fd00:96::/108", ..SPLIT };
    check(site, host, &both, &only).expect("SPW-KAD-004", "ok", "dual stack");
    // The Service leads to the other family, where nobody listens.
    let other_family = Pod { advertise: "fd00:99::11", ..both };
    check(site, host, &other_family, &only).expect(
        "SPW-KAD-001",
        "failed",
        "pods are sent to [fd00:99::11]:6443, and no listener is there",
    );
}
