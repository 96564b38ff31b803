//! Does a rehearsal find what an incident would find, and does it change nothing?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    cluster::{FAKE_POD, wait_for},
    lane::{Office, metric, said, start, url},
    spillway::{CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// One drill: its exit code, and by step what became of it and what it said.
struct Played {
    code: i32,
    json: Value,
    steps: BTreeMap<String, Value>,
}

impl Played {
    fn of(office: &Office, spillway: &Spillway, user: &str, more: &[&str]) -> Self {
        let (kubeconfig, socket) = (format!("{user}.kubeconfig"), spillway.socket.display().to_string());
        let metrics = spillway.metrics.to_string();
        let args =
            ["break-glass", "drill", "--kubeconfig", &kubeconfig, "-o", "json", "--audit-dir", "state"];
        let at = ["--socket", &socket, "--metrics", &metrics];
        let done = office.run(&[&args[..], &at, more].concat());
        let json: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", said(&done)));
        let steps = json["steps"].as_array().unwrap().iter();
        let steps: BTreeMap<_, _> =
            steps.map(|step| (step["step"].as_str().unwrap().to_owned(), step.clone())).collect();
        assert_eq!(steps.len(), 21, "each step is told once: {json:#}");
        Self { code: done.status.code().unwrap(), json, steps }
    }

    fn verdict(&self, step: &str) -> &str {
        self.steps[step]["verdict"].as_str().unwrap()
    }

    /// Whatever is not good says what to do.
    fn next(&self) {
        for step in
            self.steps.values().filter(|step| step["verdict"] != "ok" && step["verdict"] != "left out")
        {
            assert!(step["next"].as_str().is_some_and(|next| next.len() > 10), "{step}");
        }
    }
}

fn put_daemon_set() {
    CLUSTER.apply(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: rehearsed, namespace: default}\nspec:\n  \
         selector: {matchLabels: {app: rehearsed}}\n  template:\n    metadata: {labels: {app: rehearsed}}\n    \
         spec: {containers: [{name: main, image: none}]}",
    );
}

fn daemon_set() -> String {
    let admin = CLUSTER.admin_kubeconfig();
    let version = ["-o", "jsonpath={.metadata.resourceVersion}"];
    CLUSTER.kubectl_ok(&admin, &[&["get", "daemonset", "rehearsed"][..], &version].concat())
}

#[test]
fn a_good_installation_passes_every_step_and_is_not_changed() {
    if !needs_spillway() {
        return;
    }
    CLUSTER.apply(include_str!("../../deploy/break-glass/flowschema.yaml"));
    put_daemon_set();
    let office = Office::new();
    let issue =
        ["break-glass", "issue", "--ca", "ca", "--passphrase-file", "passphrase", "--user", "drill-cp-1"];
    office.ok(&[&issue[..], &["--drill", "--ttl", "300d", "--out", "drill"]].concat());
    let spillway = start(&office, |config| {
        config["breakGlass"]["arming"] = json!("TwoPerson");
        config["breakGlass"]["drill"] =
            json!({"certFile": office.path("drill.crt"), "keyFile": office.path("drill.key")});
        config["breakGlass"]["onUse"] = json!({"command": ["/bin/sh", "-c", "cat"]});
    });
    office.kubeconfig("ada@corp", &url(&spillway));
    office.kubeconfig("bob@corp", &url(&spillway));
    wait_for("a self-probe that gets through", PATIENCE, || {
        let last = metric(&spillway, "spillway_break_glass_probe_last_success_timestamp_seconds");
        if last > 1.6e9 { Ok(()) } else { Err(spillway.log()) }
    });
    let before = daemon_set();
    let pod = format!("default/{FAKE_POD}");
    let chosen = ["--daemonset", "default/rehearsed", "--pod", &pod, "--ticket", "GAME-7"];
    let second = ["--second", "bob@corp.kubeconfig", "--report", "drill.md"];
    let played = Played::of(&office, &spillway, "ada@corp", &[&chosen[..], &second].concat());
    assert_eq!(played.code, 0, "{:#}\n{}", played.json, spillway.log());
    assert!(played.steps.values().all(|step| step["verdict"] == "ok"), "{:#}", played.json);
    assert!(played.steps["arm"]["what"].as_str().unwrap().contains("two people"), "{:#}", played.json);
    assert_eq!(played.json["ready"], true);
    assert_eq!(daemon_set(), before, "dry runs change nothing");

    let report = fs::read_to_string(office.path("drill.md")).unwrap();
    assert!(report.contains("ready for an incident") && report.contains("| delete | ok |"), "{report}");
    let isolations = office.ok(&["isolations", "--socket", spillway.socket.to_str().unwrap()]);
    assert_eq!(isolations, "nobody is isolated\n");
    let armed = metric(&spillway, "spillway_break_glass_armed");
    assert!(armed < 0.5, "it disarms what it armed: {armed}");

    // A second time at once nobody is told again: not proven is not passed.
    let again = Played::of(
        &office,
        &spillway,
        "ada@corp",
        &[&chosen[..], &second[..2], &["--skip", "logs"]].concat(),
    );
    assert_eq!((again.code, again.verdict("logs")), (0, "left out"), "arming tells again: {:#}", again.json);
}

#[test]
fn a_revoked_certificate_missing_rights_and_a_lane_that_is_off_are_found() {
    if !needs_spillway() {
        return;
    }
    put_daemon_set();
    let office = Office::new();
    let spillway = start(&office, |config| {
        config["breakGlass"]["groups"] = json!(["spillway:break-glass", "spillway:nobody"]);
    });
    office.kubeconfig("eve@corp", &url(&spillway));
    office.ok(&["break-glass", "revoke", "eve@corp", "--ca", "ca"]);
    wait_for("the deny list to be read", PATIENCE, || {
        let denied = metric(&spillway, "spillway_break_glass_denied_certificates");
        if denied > 0.5 { Ok(()) } else { Err(spillway.log()) }
    });
    let revoked = Played::of(&office, &spillway, "eve@corp", &[]);
    revoked.next();
    assert_eq!((revoked.code, revoked.verdict("arm")), (1, "fail"), "{:#}", revoked.json);
    assert!(revoked.steps["arm"]["what"].as_str().unwrap().contains("was revoked"), "{:#}", revoked.json);
    for step in ["nodes", "patch", "delete", "watch", "priority", "alert", "audit"] {
        assert_eq!(revoked.verdict(step), "not tried", "{:#}", revoked.json);
    }
    assert_eq!(revoked.verdict("lever"), "ok", "levers need no lane: {:#}", revoked.json);

    // A group of the lane to which nobody has bound any rights.
    let (ca, server) = (CLUSTER.paths.server_ca.cert.display().to_string(), url(&spillway));
    let issue =
        ["break-glass", "issue", "--ca", "ca", "--passphrase-file", "passphrase", "--user", "mia@corp"];
    let to = ["--group", "spillway:nobody", "--kubeconfig", "mia@corp.kubeconfig", "--server", &server];
    office.ok(&[&issue[..], &to, &["--cluster-ca", &ca]].concat());
    let powerless = Played::of(&office, &spillway, "mia@corp", &["--daemonset", "default/rehearsed"]);
    powerless.next();
    assert_eq!((powerless.code, powerless.verdict("rights")), (1, "fail"), "{:#}", powerless.json);
    assert!(
        powerless.steps["rights"]["next"].as_str().unwrap().contains("rbac.yaml"),
        "{:#}",
        powerless.json
    );
    for (step, verdict) in
        [("identity", "ok"), ("nodes", "fail"), ("delete", "fail"), ("priority", "not tried")]
    {
        assert_eq!(powerless.verdict(step), verdict, "{step}: {:#}", powerless.json);
    }

    let without = Spillway::start(&CLUSTER, None, |config| {
        config.as_object_mut().unwrap().remove("breakGlass");
    });
    office.kubeconfig("ada@corp", &url(&without));
    let off = Played::of(&office, &without, "ada@corp", &[]);
    off.next();
    assert_eq!(
        (off.code, off.verdict("connect"), off.verdict("tls")),
        (1, "fail", "not tried"),
        "{:#}",
        off.json
    );
    assert_eq!((off.verdict("socket"), off.verdict("expiry")), ("ok", "not tried"), "{:#}", off.json);
}
