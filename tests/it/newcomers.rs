//! Is a roll-out by somebody never seen before noticed while it is small, through the built program and its socket?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And a load has
// to keep a pace in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    built::{Choice, PATIENCE, Stand},
    client::{Protocol, block_on, get},
    cluster::Credential,
    issuer::{Signer, seconds},
    spillway::BINARY,
};

/// Everybody is new at once, and a warning needs little.
const POLICY: &str = "\
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: newcomers
newcomers: { learning: 0s, warnPercent: 1 }
";
const NODES: usize = 30;
/// Places of the roll-out: a tenth of the nodes and a little.
const PLACES: usize = 4;

fn spillway(socket: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--socket").arg(socket).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn newcomers(socket: &Path) -> Value {
    let (code, text) = spillway(socket, &["newcomers", "-o", "json"]);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// A token of `shop/node-agent`, bound to a pod on a node.
fn token(signer: &Signer, node: usize) -> Credential {
    Credential::Token(signer.sign(&json!({
        "iss": "https://kubernetes.default.svc.cluster.local",
        "aud": ["https://kubernetes.default.svc.cluster.local"],
        "sub": "system:serviceaccount:shop:node-agent",
        "iat": seconds(), "nbf": seconds(), "exp": seconds() + 3600,
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": {"name": "node-agent", "uid": "1d4f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
            "pod": {"name": format!("node-agent-{node}"), "uid": "2d4f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
            "node": {"name": format!("node-{node}"), "uid": "3d4f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
        },
    })))
}

async fn stand(folder: &Path) -> Stand {
    stand_with(folder, POLICY).await
}

/// With its sockets and its state in a folder.
pub(crate) async fn stand_with(folder: &Path, policy: &str) -> Stand {
    let choice = Choice { policy: Some(policy), ..Choice::default() };
    Stand::start_with(&choice, |config| {
        config["admin"] = json!({"socket": folder.join("admin.sock")});
        config["state"] = json!({"dir": folder.join("state")});
    })
    .await
}

/// Nodes speak, then an agent appears on one after the other and LISTs all pods, again and again.
pub(crate) async fn roll_out(stand: &Stand) -> Vec<JoinHandle<()>> {
    for node in 0..NODES {
        let kubelet = stand.somebody(&format!("system:node:node-{node}"), &["system:nodes"]);
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-{node}");
        stand.caller(&kubelet).connect(Protocol::Http2).await.ask(get(&path)).await;
    }
    let signer = Signer::of_file(&stand.paths.service_account.key);
    let mut agents = Vec::new();
    for place in 0..PLACES {
        let agent = stand.caller(&token(&signer, place));
        agents.push(tokio::spawn(async move {
            let mut connection = agent.connect(Protocol::Http2).await;
            loop {
                connection.ask(get("/api/v1/pods")).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    agents
}

#[test]
fn a_roll_out_is_warned_of_while_nine_tenths_of_the_nodes_are_well_and_ends_with_an_approval() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    block_on(async {
        let stand = stand(folder.path()).await;
        let agents = roll_out(&stand).await;
        let mut found = Value::Null;
        for _ in 0..PATIENCE.as_secs() * 2 {
            found = tokio::task::block_in_place(|| newcomers(&socket));
            if found["newcomers"][0]["warned"] == true {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let agent = &found["newcomers"][0];
        assert_eq!(agent["warned"], true, "{found}");
        assert_eq!(agent["user"], "system:serviceaccount:shop:node-agent");
        assert_eq!((&agent["places"], &found["nodes"]), (&json!(PLACES), &json!(NODES)), "{found}");
        assert_eq!(agent["spreads"], true, "{found}");
        let (each, all) = (agent["seatsPerPlace"].as_f64(), agent["projectedSeats"].as_f64());
        if let (Some(each), Some(all)) = (each, all) {
            assert!(all >= each * NODES as f64 * 0.9, "multiplied by the nodes: {found}");
        }

        let say = |args: &[&str]| tokio::task::block_in_place(|| spillway(&socket, args));
        let (_, events) = say(&["events"]);
        assert!(events.replace("\n         ", " ").contains("newcomer shop/node-agent"), "{events}");
        let (_, status) = say(&["status"]);
        assert!(status.contains("spillway newcomers approve shop/node-agent"), "{status}");
        let (_, table) = say(&["newcomers"]);
        assert!(table.contains(&format!("on {PLACES} of {NODES} nodes")), "{table}");
        assert!(stand.metric("spillway_newcomer_warnings_total", &[]) >= 1.0);
        assert!(stand.metric("spillway_newcomers_active", &["warned"]) >= 1.0);
        let lowered = stand.metric("spillway_requests_total", &["lane=\"unknown\""]);
        assert!(lowered > 0.0, "it is a workload by the rules, and ranked lower for being new");

        let (code, text) = say(&["newcomers", "approve", "shop/node-agnet"]);
        assert!(code == 1 && text.contains("did you mean \"shop/node-agent\"?"), "{text}");
        let (code, text) = say(&["newcomers", "approve", "shop/node-agent", "--as", "workload"]);
        assert_eq!(code, 0, "{text}");
        let before = stand.metric("spillway_requests_total", &["lane=\"workload\""]);
        stand.until("spillway_requests_total", &["lane=\"workload\""], |now| now > before);
        let (_, text) = say(&["newcomers"]);
        assert!(!text.contains("node-agent"), "{text}");
        agents.iter().for_each(JoinHandle::abort);
    });
    let kept = std::fs::read_to_string(folder.path().join("state/newcomers.json")).unwrap();
    assert!(kept.contains("system:serviceaccount:shop:node-agent"), "{kept}");
    // A second process knows it from the start.
    block_on(async {
        let stand = stand(folder.path()).await;
        let signer = Signer::of_file(&stand.paths.service_account.key);
        let agent = stand.caller(&token(&signer, 1));
        agent.connect(Protocol::Http2).await.ask(get("/api/v1/pods")).await;
        assert!(stand.metric("spillway_requests_total", &["lane=\"workload\""]) >= 1.0);
        assert_eq!(tokio::task::block_in_place(|| newcomers(&socket))["newcomers"], json!([]));
        let say = |args: &[&str]| tokio::task::block_in_place(|| spillway(&socket, args));
        assert_eq!(say(&["newcomers", "doubt", "shop/node-agent"]).0, 0);
        agent.connect(Protocol::Http2).await.ask(get("/api/v1/pods")).await;
        let found = tokio::task::block_in_place(|| newcomers(&socket));
        assert_eq!(found["newcomers"][0]["user"], "system:serviceaccount:shop:node-agent", "{found}");
    });
}
