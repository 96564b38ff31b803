//! Does `spillway check` find what is wrong around a real kube-apiserver, and nothing where all is well?

// Clippy's own exception for tests ends at the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, ClusterOptions},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

struct Checked {
    code: i32,
    json: Value,
}

impl Checked {
    #[track_caller]
    fn expect(&self, id: &str, result: &str, words: &str) {
        let checks = self.json["checks"].as_array().unwrap();
        let found = checks
            .iter()
            .find(|check| check["id"] == id)
            .unwrap_or_else(|| panic!("no {id}: {:#}", self.json));
        assert_eq!(found["result"], result, "{found:#}");
        assert!(found["what"].as_str().unwrap().contains(words), "{words:?} is not in {found:#}");
    }
}

fn check(config: &Path, socket: &Path, args: &[&str]) -> Checked {
    let mut command = Command::new(BINARY);
    command
        .args(["check", "-o", "json", "--window", "500ms", "--config"])
        .arg(config)
        .arg("--socket")
        .arg(socket);
    let Output { status, stdout, stderr } = command.args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&stderr)));
    Checked { code: status.code().unwrap(), json }
}

/// The configuration of a running spillway with the ports that it got.
fn written(folder: &Path, spillway: &Spillway, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut config = CLUSTER.front_config();
    config["listeners"][0]["address"] = spillway.main.to_string().into();
    config["breakGlass"]["address"] = spillway.break_glass.to_string().into();
    config["metrics"] = json!({ "address": spillway.metrics.to_string() });
    config["state"] = json!({ "dir": folder.join("state") });
    change(&mut config);
    let file = folder.join("spillway.yaml");
    fs::write(&file, config.to_string()).unwrap();
    file
}

#[test]
fn a_running_spillway_in_front_of_a_real_apiserver_is_green() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config["state"] = json!({ "dir": folder.path().join("state") });
    });
    let config = written(folder.path(), &spillway, |_| ());
    // Other tests use the same apiserver directly, so what arrives there is not only what passes here.
    let checked = check(&config, &spillway.socket, &["--skip", "SPW-API-005"]);
    for id in [
        "SPW-API-001",
        "SPW-API-002",
        "SPW-API-003",
        "SPW-API-004",
        "SPW-TLS-001",
        "SPW-TLS-004",
        "SPW-TLS-005",
        "SPW-RUN-001",
        "SPW-RUN-002",
    ] {
        checked.expect(id, "ok", "");
    }
    assert_eq!((checked.code, &checked.json["well"]), (0, &json!(true)), "{:#}", checked.json);
    let traffic = check(&config, &spillway.socket, &["--only", "SPW-API-005"]);
    assert_ne!(
        traffic.json["checks"][0]["result"], "skipped",
        "both sides can be counted: {:#}",
        traffic.json
    );
}

#[test]
fn another_name_another_ca_and_a_front_proxy_that_is_not_believed_are_found() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let only = ["--only", "kube-apiserver", "--only", "certificates"];
    let config = written(folder.path(), &spillway, |config| {
        config["listeners"][0]["address"] = "10.77.0.11:6443".into();
        config["upstreams"]["tls"]["serverName"] = "elsewhere.example".into();
    });
    let checked = check(&config, &spillway.socket, &only);
    checked.expect("SPW-TLS-001", "failed", "is not for 10.77.0.11");
    checked.expect("SPW-API-001", "failed", "elsewhere.example");
    checked.expect("SPW-API-002", "skipped", "no answer");
    assert_eq!(checked.code, 1);
    // A certificate of the client CA is one for clients: kube-apiserver does not take its word for others.
    let stranger = CLUSTER.pki.client("stranger", "stranger", &[]);
    let config = written(folder.path(), &spillway, |config| {
        config["upstreams"]["forwardIdentity"]["frontProxy"] =
            json!({ "certFile": stranger.cert, "keyFile": stranger.key });
    });
    let text = Command::new(BINARY)
        .args(["check", "--only", "SPW-TLS-004", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("× SPW-TLS-004") && text.contains("→ spillway help SPW-TLS-004"), "{text}");
}

#[test]
fn an_apiserver_that_listens_everywhere_is_a_way_around() {
    if !needs_spillway() {
        return;
    }
    let flags = vec!["--bind-address=0.0.0.0".to_owned()];
    let cluster = Cluster::start(ClusterOptions { apiserver_flags: flags, ..Default::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spillway.yaml");
    fs::write(&file, cluster.front_config().to_string()).unwrap();
    let nowhere = folder.path().join("none.sock");
    let checked = check(&file, &nowhere, &["--pre", "--only", "kube-apiserver"]);
    // Go makes one socket of both families out of it.
    let around = format!("around spillway: [::]:{}", cluster.apiserver_addr().port());
    checked.expect("SPW-API-004", "failed", &around);
    checked.expect("SPW-API-003", "ok", "believed");
    assert_eq!(checked.code, 1);
}
