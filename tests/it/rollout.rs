//! Can something be rolled out in phases that stop by themselves, and do the files for that, and for breaking things on
//! purpose, fit the programs that they are for?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And a load has
// to keep a pace in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    client::{Caller, Protocol, block_on, get},
    cluster::{Cluster, ClusterOptions, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

/// For something to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// So many nodes that the steps differ.
const NODES: usize = 4;

/// Who is refused more than once a second.
const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: narrow
lanes:
  operators: {identityRate: {perSecond: 1, burst: 1}}
";

/// A cluster of its own: other people's CRDs have no business in the one that all tests share.
static EXTENDED: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start(ClusterOptions {
        with_controllers: true,
        with_scheduler: true,
        hollow_nodes: NODES,
        ..Default::default()
    })
});

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// `spillway gate ARGS…`, and the verdict as JSON.
fn gate(args: &[&str]) -> (Option<i32>, Value, String) {
    let done = Command::new(BINARY)
        .args([&["gate", "-o", "json", "--every", "100ms"], args].concat())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or_default(), text(&done.stderr))
}

/// Asks far too often until told not to.
async fn flood(caller: Caller, over: Arc<AtomicBool>) {
    let mut connection = caller.connect(Protocol::Http2).await;
    while !over.load(Ordering::Relaxed) {
        let status = connection.ask(get("/api/v1/namespaces/kube-system")).await.status;
        assert!([StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&status), "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn the_gate_passes_a_calm_spillway_fails_one_that_refuses_and_says_when_there_is_none() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, Some(POLICY), |_| ());
    let socket = spillway.socket.to_str().unwrap().to_owned();
    let page = format!("http://{}/metrics", spillway.metrics);
    // What is on trial is how it looks, not how calm this machine is.
    let lenient = ["--max-pressure", "900", "--max-state", "red"];
    let ways = [["--socket", socket.as_str()], ["--metrics", page.as_str()]];
    for way in ways {
        let (code, verdict, err) =
            gate(&[&way[..], &lenient, &["--for", "1s", "--no-shed", "operators"]].concat());
        assert_eq!((code, &verdict["passed"]), (Some(0), &json!(true)), "{verdict}{err}{}", spillway.log());
        assert!(verdict["looks"].as_u64() > Some(1), "{verdict}");
    }
    let over = Arc::new(AtomicBool::new(false));
    block_on(async {
        let load = tokio::spawn(flood(spillway.caller(&CLUSTER.alice()), Arc::clone(&over)));
        for way in ways {
            let args: Vec<String> = [&way[..], &lenient, &["--for", "2m", "--no-shed", "operators"]]
                .concat()
                .iter()
                .map(|arg| (*arg).to_owned())
                .collect();
            let (code, verdict, err) = tokio::task::spawn_blocking(move || {
                gate(&args.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .await
            .unwrap();
            assert_eq!(code, Some(1), "{verdict}{err}");
            let why = verdict["why"].as_str().unwrap_or_default();
            assert!(why.starts_with("lane operators is refused"), "{verdict}");
        }
        over.store(true, Ordering::Relaxed);
        load.await.unwrap();
    });
    spillway.kill();
    wait_for("spillway to be gone", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));
    for way in ways {
        let (code, _, err) = gate(&[&way[..], &["--for", "5s"]].concat());
        assert_eq!(code, Some(4), "{err}");
        assert!(err.contains("SPW0553"), "{err}");
    }
}

/// The script of `deploy/rollout/`, as its first lines say, with a gate that looks at `spillway`.
fn roll_out(spillway: &Spillway, more: &[&str], gate: &[&str]) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.arg(Path::new(ROOT).join("deploy/rollout/by-node-percentage.sh"));
    command.args(["-n", "monitoring", "otel-collector"]).args(more).arg("--");
    command.args(["--socket", spillway.socket.to_str().unwrap()]).args(gate);
    command.env_clear().env("PATH", path).env("SPILLWAY", BINARY).env("HOME", EXTENDED.paths.dir.as_os_str());
    let kubectl = EXTENDED.kubectl_command(Path::new("unused")).get_program().to_owned();
    command.env("KUBECTL", kubectl).env("KUBECONFIG", EXTENDED.admin_kubeconfig());
    command.stdin(Stdio::null()).output().unwrap()
}

fn running() -> usize {
    let list = ["get", "pods", "-n", "monitoring", "--field-selector=status.phase=Running", "-o", "name"];
    EXTENDED.kubectl_ok(&EXTENDED.admin_kubeconfig(), &list).lines().count()
}

fn labelled() -> usize {
    let list = ["get", "nodes", "-l", "rollout.spillway.dev/otel-collector=on", "-o", "name"];
    EXTENDED.kubectl_ok(&EXTENDED.admin_kubeconfig(), &list).lines().count()
}

#[test]
fn a_daemon_set_is_rolled_out_by_node_percentage_and_stops_by_itself() {
    if !needs_spillway() {
        return;
    }
    EXTENDED.wait_nodes_ready(NODES, PATIENCE);
    let spillway = Spillway::start(&EXTENDED, Some(POLICY), |_| ());
    let lenient = ["--max-pressure", "900", "--max-state", "red", "--for", "1s", "--no-shed", "operators"];

    // One that would run on every node at once is not touched.
    let everywhere = file("deploy/rollout/telemetry.yaml").replace(
        "      nodeSelector: { rollout.spillway.dev/otel-collector: \"on\" }\n",
        "      nodeSelector: { never: here }\n",
    );
    EXTENDED.apply(&everywhere);
    let refused = roll_out(&spillway, &[], &lenient);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("nodeSelector: {\"rollout.spillway.dev/otel-collector\""));
    EXTENDED.apply(&file("deploy/rollout/telemetry.yaml"));

    // Somebody is refused as soon as the second node has it: the first one keeps it, the second gives it back.
    let over = Arc::new(AtomicBool::new(false));
    let (script, watcher) = (Arc::clone(&over), spillway.caller(&EXTENDED.alice()));
    let stopped = block_on(async {
        let load = tokio::spawn(async move {
            while !script.load(Ordering::Relaxed) {
                let labelled = tokio::task::spawn_blocking(labelled).await.unwrap();
                if labelled >= 2 {
                    return flood(watcher, script).await;
                }
            }
        });
        let spillway = &spillway;
        let done = tokio::task::block_in_place(|| {
            roll_out(
                spillway,
                &[],
                &["--max-pressure", "900", "--max-state", "red", "--for", "8s", "--no-shed", "operators"],
            )
        });
        over.store(true, Ordering::Relaxed);
        load.await.unwrap();
        done
    });
    let said = text(&stopped.stdout);
    assert_eq!(stopped.status.code(), Some(1), "{said}{}{}", text(&stopped.stderr), spillway.log());
    assert!(said.contains("failed after") && said.contains("lane operators is refused"), "{said}");
    assert!(said.contains("STOPPED at 50 %: taken back from 1 nodes; 1 keep it"), "{said}");
    assert_eq!(labelled(), 1, "{said}");

    // Calm again: it goes on where it stopped. What is told of a lane is of its last seconds.
    let socket = ["--socket", spillway.socket.to_str().unwrap()];
    wait_for("the refusals to be over", PATIENCE, || {
        let (code, verdict, err) = gate(&[&socket[..], &lenient].concat());
        if code == Some(0) { Ok(()) } else { Err(format!("{verdict}{err}")) }
    });
    let done = roll_out(&spillway, &[], &lenient);
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{said}{}{}", text(&done.stderr), spillway.log());
    assert!(
        said.contains("50 %: 2 of 4 nodes, 1 new") && said.ends_with("rollout: done: all 4 nodes\n"),
        "{said}"
    );
    wait_for("a pod on every node", PATIENCE, || match running() {
        NODES => Ok(()),
        other => Err(format!("{other} run")),
    });
    let undone = roll_out(&spillway, &["--undo"], &[]);
    assert!(undone.status.success(), "{}", text(&undone.stderr));
    assert_eq!(labelled(), 0);
}

/// Real CRDs, installed in the cluster of this file.
fn install(module: &str, crds: &[&str]) {
    let done = Command::new(Path::new(ROOT).join("tests/cluster/crds.sh")).arg(module).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let folder = text(&done.stdout);
    for crd in crds {
        let path = Path::new(folder.trim()).join(crd);
        // A copy of such a CRD in an annotation would be too long: so server-side.
        let args = ["apply", "--server-side", "-f", path.to_str().unwrap()];
        EXTENDED.kubectl_ok(&EXTENDED.admin_kubeconfig(), &args);
    }
}

/// What kube-apiserver says to a file, without keeping anything: unknown fields are errors.
fn dry_run(text: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.yaml");
    fs::write(&path, text).unwrap();
    let args = ["apply", "--dry-run=server", "--validate=strict", "-o", "name", "-f", path.to_str().unwrap()];
    let done = EXTENDED.kubectl(&EXTENDED.admin_kubeconfig(), &args);
    if done.status.success() { Ok(self::text(&done.stdout)) } else { Err(self::text(&done.stderr)) }
}

/// Discovery of new kinds takes a moment.
fn accepted(name: &str, kinds: usize) {
    let said = wait_for(&format!("kube-apiserver to accept {name}"), PATIENCE, || dry_run(&file(name)));
    assert_eq!(said.lines().count(), kinds, "{name}: {said}");
}

#[test]
fn the_files_for_chaos_mesh_are_accepted_by_its_crds_and_select_what_is_there() {
    let crds =
        ["podchaos", "networkchaos", "stresschaos", "physicalmachinechaos", "physicalmachines", "workflows"]
            .map(|kind| format!("config/crd/bases/chaos-mesh.org_{kind}.yaml"));
    install("chaos-mesh", &crds.each_ref().map(String::as_str));
    EXTENDED.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: chaos-mesh}");
    let mut seen = 0;
    for (name, objects) in
        [("pods", 3), ("network", 2), ("stress", 2), ("machines", 6), ("workflow", 1), ("readyz", 3)]
    {
        accepted(&format!("deploy/chaos/{name}.yaml"), objects);
        seen += 1;
    }
    let files = fs::read_dir(Path::new(ROOT).join("deploy/chaos")).unwrap();
    let yaml =
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "yaml"));
    assert_eq!(seen, yaml.count(), "a file of deploy/chaos is not checked");
    // The check would notice: a mistyped field, and a word that Chaos Mesh does not know.
    for (right, wrong) in [("containerNames", "containerName"), ("action: container-kill", "action: kill")] {
        let text = file("deploy/chaos/pods.yaml").replace(right, wrong);
        assert!(dry_run(&text).is_err(), "{wrong} was accepted");
    }

    // Pods with the labels that kubeadm and deploy/static-pod/ give.
    let pod = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system, labels: {{{labels}}}}}\n\
             spec: {{nodeName: none, containers: [{{name: main, image: none}}]}}\n"
        )
    };
    EXTENDED.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: kube-system}");
    EXTENDED.apply(&pod("kube-apiserver-cp-1", "component: kube-apiserver, tier: control-plane"));
    EXTENDED.apply(&pod("etcd-cp-1", "component: etcd, tier: control-plane"));
    EXTENDED.apply(&pod("coredns-1", "k8s-app: kube-dns"));
    EXTENDED.apply(&file("deploy/static-pod/spillway.yaml"));
    let mut selected = 0;
    for name in ["pods", "network", "stress", "workflow"] {
        for line in file(&format!("deploy/chaos/{name}.yaml")).lines() {
            let Some((_, labels)) = line.split_once("labelSelectors: {") else { continue };
            let labels = labels.split('}').next().unwrap().replace(' ', "").replace(':', "=");
            if labels.starts_with("spillway.dev/chaos") {
                continue;
            }
            let list = ["get", "pods", "-n", "kube-system", "-l", labels.as_str(), "-o", "name"];
            let found = EXTENDED.kubectl_ok(&EXTENDED.admin_kubeconfig(), &list);
            assert!(!found.trim().is_empty(), "{name}: {labels} selects nothing");
            selected += 1;
        }
    }
    assert!(selected >= 8, "only {selected} selectors were found");
}

#[test]
fn the_files_for_argo_rollouts_and_flagger_are_accepted_by_their_crds() {
    install("argo-rollouts", &["manifests/crds/cluster-analysis-template-crd.yaml"]);
    install("flagger", &["artifacts/flagger/crd.yaml"]);
    EXTENDED.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: flagger-system}");
    accepted("deploy/rollout/argo-rollouts.yaml", 1);
    accepted("deploy/rollout/flagger.yaml", 3);
    let wrong = file("deploy/rollout/flagger.yaml").replace("  query:", "  querry:");
    assert!(dry_run(&wrong).is_err());
    // What they ask for is what spillway says.
    let metrics = file("docs/METRICS.md");
    for name in ["deploy/rollout/argo-rollouts.yaml", "deploy/rollout/flagger.yaml"] {
        let text = file(name);
        let asked = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("spillway_"));
        for metric in asked.filter(|metric| *metric != "spillway_request_duration_seconds") {
            assert!(metrics.contains(&format!("`{metric}`")), "{name}: {metric} is none of ours");
        }
    }
}
