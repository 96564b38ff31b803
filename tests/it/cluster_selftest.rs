//! Does the test bed itself work, before spillway stands in it?

// Clippy's own exception for tests ends at the functions marked as tests; their helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::cluster::{Cluster, ClusterOptions, Credential, FAKE_POD, free_port, wait_for};

#[test]
fn every_credential_is_who_it_says_it_is() {
    let cluster = Cluster::start(ClusterOptions { audit: true, ..Default::default() });
    let ca = &cluster.paths.server_ca.cert;
    let whoami = |who: &Credential| cluster.whoami(&cluster.kubeconfig_for(who, &cluster.url(), ca));
    let has = |groups: &[String], group: &str| groups.iter().any(|g| g == group);

    let (name, groups) = whoami(&cluster.admin()).unwrap();
    assert!(name == "admin" && has(&groups, "system:masters"), "{name} {groups:?}");
    let (name, groups) = whoami(&cluster.alice()).unwrap();
    assert!(
        name == "alice" && has(&groups, "platform-oncall") && has(&groups, "platform-viewers"),
        "{groups:?}"
    );
    let (name, groups) = whoami(&Credential::Certificate(cluster.pki.node("n1"))).unwrap();
    assert!(name == "system:node:n1" && has(&groups, "system:nodes"), "{name} {groups:?}");
    let token = cluster.token("telemetry", "agent", "1h");
    let (name, groups) = whoami(&Credential::Token(token)).unwrap();
    assert!(name == "system:serviceaccount:telemetry:agent", "{name} {groups:?}");

    // kube-apiserver alone does not believe the break-glass CA, a foreign CA, or a made-up token.
    let strangers = [
        cluster.break_glass(),
        Credential::Certificate(cluster.paths.wrong_admin.clone()),
        Credential::Token("made-up".into()),
    ];
    for stranger in strangers {
        let refusal = whoami(&stranger).unwrap_err();
        assert!(refusal.contains("Unauthorized") || refusal.contains("logged in"), "{stranger:?}: {refusal}");
    }
    // A server of another CA is not believed either.
    let wrong_ca = cluster.kubeconfig_for(&cluster.admin(), &cluster.url(), &cluster.paths.wrong_ca.cert);
    assert!(cluster.whoami(&wrong_ca).unwrap_err().contains("unknown authority"));

    let log = std::fs::read_to_string(cluster.audit_log().unwrap()).unwrap();
    assert!(log.contains(r#""username":"alice""#), "alice's review is not in the audit log");
}

#[test]
fn kubectl_reads_and_writes_and_the_server_comes_back_with_its_objects() {
    let cluster = Cluster::start(ClusterOptions { cpus: Some(vec![0]), ..Default::default() });
    let alice = cluster.kubeconfig_for(&cluster.alice(), &cluster.url(), &cluster.paths.server_ca.cert);
    let version = cluster.kubectl_ok(&alice, &["version"]);
    assert!(version.contains("Server Version: v1.34.4"), "{version}");
    assert!(cluster.kubectl_ok(&alice, &["get", "flowschemas"]).contains("probes"), "APF is off");

    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}");
    let read = ["get", "configmap", "kept", "-o", "jsonpath={.data.a}"];
    assert_eq!(cluster.kubectl_ok(&alice, &read), "b");

    cluster.stop("apiserver");
    assert!(!cluster.kubectl(&alice, &read).status.success(), "a stopped server answered");
    cluster.start_apiserver();
    assert_eq!(cluster.kubectl_ok(&alice, &read), "b");
}

#[test]
fn streams_reach_the_fake_kubelet_and_come_back() {
    let cluster = Cluster::start(ClusterOptions { fake_kubelet: true, ..Default::default() });
    let admin = cluster.admin_kubeconfig();
    for web_sockets in ["true", "false"] {
        exec(&cluster, &admin, web_sockets);
        attach(&cluster, &admin, web_sockets);
        port_forward(&cluster, &admin, web_sockets);
    }
    copy(&cluster, &admin);
    logs(&cluster, &admin);
}

/// `kubectl exec` over WebSocket (today's default) and over SPDY.
fn exec(cluster: &Cluster, kubeconfig: &Path, web_sockets: &str) {
    let run = |args: &[&str]| {
        let mut command = cluster.kubectl_command(kubeconfig);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", web_sockets);
        command.args(["exec", "-i", FAKE_POD, "--"]).args(args);
        command
    };
    let said = run(&["echo", "a", "b"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "a b\n", "{said:?}");
    assert_eq!(run(&["exit", "42"]).output().unwrap().status.code(), Some(42));
    assert_eq!(run(&["sh", "-c", "true"]).output().unwrap().status.code(), Some(127));
    let long = run(&["bytes", "3000000"]).output().unwrap();
    assert_eq!(long.stdout.len(), 3_000_000, "WebSocket: {web_sockets}, {:?}", long.status);

    repeats_each_line(&mut run(&["cat"]));
}

fn attach(cluster: &Cluster, kubeconfig: &Path, web_sockets: &str) {
    let mut command = cluster.kubectl_command(kubeconfig);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", web_sockets);
    repeats_each_line(command.args(["attach", "-i", "-q", FAKE_POD]));
}

/// Each line comes back before the next is sent: both directions are open at once.
fn repeats_each_line(command: &mut Command) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for line in ["first\n", "second\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let mut back = String::new();
        output.read_line(&mut back).unwrap();
        assert_eq!(back, line);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn copy(cluster: &Cluster, kubeconfig: &Path) {
    let dir = &cluster.paths.dir;
    std::fs::create_dir_all(dir.join("out/sub")).unwrap();
    std::fs::write(dir.join("out/sub/file"), vec![7; 300_000]).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    cluster.kubectl_ok(kubeconfig, &["cp", &path("out"), &format!("{FAKE_POD}:/in")]);
    cluster.kubectl_ok(kubeconfig, &["cp", &format!("{FAKE_POD}:/in"), &path("back")]);
    assert_eq!(std::fs::read(dir.join("back/sub/file")).unwrap(), vec![7; 300_000]);
}

fn logs(cluster: &Cluster, kubeconfig: &Path) {
    let tail = cluster.kubectl_ok(kubeconfig, &["logs", FAKE_POD, "--tail=2"]);
    assert_eq!(tail, "line 9\nline 10\n");
    let mut command = cluster.kubectl_command(kubeconfig);
    let mut follow = command.args(["logs", "-f", FAKE_POD]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines().take(15);
    let last = lines.map(Result::unwrap).last().unwrap();
    end(follow);
    assert_eq!(last, "line 15");
}

fn port_forward(cluster: &Cluster, kubeconfig: &Path, web_sockets: &str) {
    let (echo, web) = (free_port(), free_port());
    let mut command = cluster.kubectl_command(kubeconfig);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", web_sockets);
    command.args(["port-forward", FAKE_POD, &format!("{echo}:7"), &format!("{web}:80")]);
    let forward = command.stdout(Stdio::null()).spawn().unwrap();
    let exchange = |port: u16, sent: &str| {
        let mut socket = wait_for("port-forward to listen", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())
        });
        socket.write_all(sent.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        socket.read_to_string(&mut back).unwrap();
        back
    };
    assert_eq!(exchange(echo, "there and back"), "there and back");
    let page = exchange(web, "GET /hello HTTP/1.0\r\n\r\n");
    assert!(page.contains("GET /hello"), "{page}");
    end(forward);
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_daemon_set_runs_on_hollow_nodes_and_is_deleted() {
    let cluster = Cluster::start(ClusterOptions {
        with_controllers: true,
        with_scheduler: true,
        hollow_nodes: 3,
        ..Default::default()
    });
    cluster.wait_nodes_ready(3, Duration::from_secs(120));
    let admin = cluster.admin_kubeconfig();
    cluster.apply(DAEMON_SET);
    // Not `rollout status`: it is content with the controller's first look, which may have seen no node yet.
    let running = ["get", "pods", "-l", "app=agent", "--field-selector=status.phase=Running", "-o", "name"];
    wait_for("three Running pods", Duration::from_secs(120), || {
        let pods = cluster.kubectl_ok(&admin, &running);
        if pods.lines().count() == 3 { Ok(()) } else { Err(format!("only these run: {pods}")) }
    });
    cluster.kubectl_ok(&admin, &["delete", "daemonset", "agent", "--timeout=120s", "--cascade=foreground"]);
    let left = cluster.kubectl_ok(&admin, &["get", "pods", "-l", "app=agent", "-o", "name"]);
    assert_eq!(left, "");
}

const DAEMON_SET: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: default}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: agent, image: 'registry.k8s.io/pause:3.10'}]}
";

/// Names the file into which a second process of this test writes what it holds.
const HOLDER_FILE: &str = "SPILLWAY_TEST_IDS";

/// What the second process does: it holds a cluster until it is killed.
fn hold_a_cluster(file: &std::ffi::OsStr) -> ! {
    let cluster = Cluster::start(ClusterOptions::default());
    let ids = ["etcd", "apiserver"].map(|part| cluster.pid(part).unwrap());
    std::fs::write(file, format!("{ids:?} {}", cluster.paths.dir.display())).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_is_left_of_a_cluster_whose_process_is_killed() {
    if let Some(file) = std::env::var_os(HOLDER_FILE) {
        hold_a_cluster(&file);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ids");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster_selftest::nothing_is_left_of_a_cluster_whose_process_is_killed"])
        .env(HOLDER_FILE, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ids = wait_for("the other process to hold a cluster", Duration::from_secs(120), || {
        std::fs::read_to_string(&file).ok().filter(|ids| ids.contains('/')).ok_or("no cluster yet".into())
    });
    holder.kill().unwrap();
    holder.wait().unwrap();

    let (numbers, directory) = ids.split_once("] ").unwrap();
    let numbers: Vec<&str> = numbers.trim_start_matches('[').split(", ").collect();
    wait_for("every program and the directory to be gone", Duration::from_secs(20), || {
        let running = numbers.iter().filter(|id| Path::new(&format!("/proc/{id}/cmdline")).exists());
        match (running.count(), Path::new(directory).exists()) {
            (0, false) => Ok(()),
            state => Err(format!("running, directory there: {state:?}")),
        }
    });
}
