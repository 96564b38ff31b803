//! Can somebody use kubectl through spillway without noticing it?
//!
//! The same commands are given to kube-apiserver directly and through spillway, and must print the same, whoever asks.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{Credential, wait_for},
    spillway::{CLUSTER, TARGET},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// One person's two ways to the server.
struct Both {
    direct: PathBuf,
    through: PathBuf,
}

impl Both {
    fn of(who: &Credential) -> Self {
        Self {
            direct: CLUSTER.kubeconfig_for(who, &CLUSTER.url(), &CLUSTER.paths.server_ca.cert),
            through: TARGET.kubeconfig(&CLUSTER, who),
        }
    }

    /// What kubectl prints both ways; the server's address is the only thing that may differ.
    fn same(&self, args: &[&str]) -> String {
        let said = |kubeconfig: &Path, server: String| {
            let output = CLUSTER.kubectl(kubeconfig, args);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&server, "SERVER");
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let direct = said(&self.direct, CLUSTER.apiserver_addr().to_string());
        let through = said(&self.through, TARGET.address().to_string());
        assert_eq!(
            through,
            direct,
            "kubectl {args:?} through spillway (left) and directly; {}",
            TARGET.log()
        );
        direct.1 + &direct.2
    }
}

#[test]
fn reads_print_the_same_as_directly() {
    let alice = Both::of(&CLUSTER.alice());
    CLUSTER.apply(&objects("reads", 7));

    assert!(alice.same(&["version"]).contains("Server Version: v1.34"));
    let groups = alice.same(&["api-resources", "--api-group=apps"]);
    assert!(groups.contains("daemonsets"), "{groups}");
    assert!(alice.same(&["api-resources", "--namespaced=false", "--api-group="]).contains("nodes"));
    // Twelve-second-old objects may turn thirteen between the two calls, so ages are not printed.
    let table = alice.same(&["get", "configmaps", "-n", "reads", "-o", "custom-columns=NAME:.metadata.name"]);
    assert!(table.lines().count() >= 8, "{table}");
    assert!(alice.same(&["get", "configmaps", "-n", "reads", "-o", "yaml"]).contains("key: value"));
    assert!(alice.same(&["get", "configmap", "c3", "-n", "reads", "-o", "json"]).contains("\"c3\""));
    assert!(alice.same(&["get", "configmaps", "-n", "reads", "-l", "part=1", "-o", "name"]).contains("c1"));
    let paged = ["get", "configmaps", "-n", "reads", "--chunk-size=2", "-o", "name"];
    assert_eq!(alice.same(&paged).lines().count(), 7);
    alice.same(&["get", "configmap", "nobody-made-this", "-n", "reads"]);
    alice.same(&["get", "no-such-things"]);
    alice.same(&["get", "--raw", "/api/v1/namespaces/reads/configmaps/c1"]);
    alice.same(&["explain", "pod.spec.containers"]);
    alice.same(&["auth", "can-i", "--list", "-n", "reads"]);
}

#[test]
fn tables_are_the_servers_own() {
    let alice = Both::of(&CLUSTER.alice());
    CLUSTER.apply(&objects("tables", 2));
    for kind in ["nodes", "pods", "configmaps"] {
        for format in [&["-o", "wide"][..], &[]] {
            let args = [&["get", kind, "-A"], format].concat();
            let (direct, through) =
                (CLUSTER.kubectl_ok(&alice.direct, &args), CLUSTER.kubectl_ok(&alice.through, &args));
            let columns = |text: &str| text.lines().next().map(str::to_owned);
            assert_eq!(columns(&through), columns(&direct), "kubectl {args:?}");
            assert!(through.contains("AGE"), "not the server's table: {through}");
        }
    }
}

#[test]
fn writes_arrive() {
    let alice = TARGET.kubeconfig(&CLUSTER, &CLUSTER.alice());
    let run = |args: &[&str]| CLUSTER.kubectl_ok(&alice, &[&["-n", "writes"], args].concat());
    let apply = |args: &[&str], yaml: &str| {
        CLUSTER.kubectl_with_input(&alice, &[&["-n", "writes", "apply"], args, &["-f", "-"]].concat(), yaml)
    };
    run(&["create", "namespace", "writes"]);
    run(&["create", "configmap", "made", "--from-literal=a=1"]);
    let made = |path: &str| run(&["get", "configmap", "made", "-o", &format!("jsonpath={{{path}}}")]);
    assert_eq!(made(".data.a"), "1");

    // With kubectl's own validation, which fetches /openapi/v3.
    apply(&[], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '1'}");
    let again = apply(&[], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '2'}");
    assert!(again.contains("configured"), "{again}");
    let by_server = apply(
        &["--server-side", "--field-manager=acceptance", "--force-conflicts"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\ndata: {b: '2'}",
    );
    assert!(by_server.contains("serverside-applied"), "{by_server}");
    assert_eq!((made(".data.a"), made(".data.b")), ("1".into(), "2".into()));
    assert!(made(".metadata.managedFields[*].manager").contains("acceptance"));

    run(&["patch", "configmap", "made", "--type=merge", "-p", r#"{"data":{"c":"3"}}"#]);
    run(&["patch", "configmap", "made", "--type=json", "-p", r#"[{"op":"remove","path":"/data/a"}]"#]);
    run(&["patch", "configmap", "made", "--type=strategic", "-p", r#"{"data":{"d":"4"}}"#]);
    assert_eq!(made(".data"), r#"{"b":"2","c":"3","d":"4"}"#);
    run(&["label", "configmap", "made", "team=platform"]);
    run(&["annotate", "configmap", "made", "note=two words"]);
    assert_eq!(made(".metadata.labels.team") + &made(".metadata.annotations.note"), "platformtwo words");

    run(&["delete", "configmap", "made", "applied"]);
    assert_eq!(
        run(&[
            "get",
            "configmaps",
            "-o",
            "name",
            "--ignore-not-found",
            "--field-selector=metadata.name=made"
        ]),
        ""
    );
}

#[test]
fn a_watch_shows_changes_as_they_happen() {
    CLUSTER.apply(&objects("watched", 1));
    let mut command = CLUSTER.kubectl_command(&TARGET.kubeconfig(&CLUSTER, &CLUSTER.alice()));
    command.args(["get", "configmaps", "-n", "watched", "--watch", "--output-watch-events"]);
    // Not a table: kubectl holds those back until it knows their columns.
    command.args(["-o", r#"jsonpath={.type} {.object.metadata.name} {.object.data.step}{"\n"}"#]);
    let mut kubectl = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
    let (seen, shown) = mpsc::sync_channel(100);
    let reader = thread::spawn(move || {
        // Ends with kubectl, or when the test no longer listens.
        let _ = lines.map_while(Result::ok).try_for_each(|line| seen.send(line));
    });
    let expect = |event: &str| {
        let line = shown.recv_timeout(PATIENCE);
        assert_eq!(line.as_deref(), Ok(event), "what kubectl showed (left); {}", TARGET.log());
    };
    expect("ADDED c0 0");
    let admin = CLUSTER.admin_kubeconfig();
    for step in ["1", "2", "3"] {
        let patch = format!(r#"{{"data":{{"step":"{step}"}}}}"#);
        CLUSTER
            .kubectl_ok(&admin, &["patch", "configmap", "c0", "-n", "watched", "--type=merge", "-p", &patch]);
        expect(&format!("MODIFIED c0 {step}"));
    }
    CLUSTER.kubectl_ok(&admin, &["delete", "configmap", "c0", "-n", "watched"]);
    expect("DELETED c0 3");
    kubectl.kill().unwrap();
    kubectl.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_new_kind_can_be_defined_and_used() {
    let alice = TARGET.kubeconfig(&CLUSTER, &CLUSTER.alice());
    CLUSTER.kubectl_with_input(&alice, &["apply", "-f", "-"], CUSTOM_KIND);
    CLUSTER.kubectl_ok(&alice, &["wait", "--for=condition=Established", "crd/floodgates.test.spillway.dev"]);
    let gate =
        "apiVersion: test.spillway.dev/v1\nkind: Floodgate\nmetadata: {name: north}\nspec: {open: true}";
    // The definition is established a moment before the server serves it everywhere.
    wait_for("a custom resource to be created", PATIENCE, || {
        let mut apply = CLUSTER.kubectl_command(&alice);
        let file = CLUSTER.paths.dir.join("floodgate.yaml");
        std::fs::write(&file, gate).unwrap();
        let output = apply.args(["apply", "-f"]).arg(file).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    });
    let open = CLUSTER.kubectl_ok(&alice, &["get", "floodgate", "north", "-o", "jsonpath={.spec.open}"]);
    assert_eq!(open, "true");
    CLUSTER.kubectl_ok(&alice, &["delete", "crd", "floodgates.test.spillway.dev", "--wait=false"]);
}

#[test]
fn everybody_is_who_they_are_directly() {
    let token = CLUSTER.token("whoami", "agent", "1h");
    let client = |file: &str, name: &str, groups: &[&str]| {
        Credential::Certificate(CLUSTER.pki.client(file, name, groups))
    };
    let people = [
        ("a certificate with two groups", CLUSTER.alice()),
        ("an administrator", CLUSTER.admin()),
        ("a node", Credential::Certificate(CLUSTER.pki.node("whoami"))),
        ("a service account", Credential::Token(token)),
        ("a name that headers and URLs dislike", client("odd", "cn=zoë/50%25, \"q\"", &["a,b", "ops/é %41"])),
        ("a name with spaces around", client("spaces", "two  words", &["one group"])),
    ];
    for (what, who) in people {
        let both = Both::of(&who);
        let review = |kubeconfig: &Path| -> Value {
            let output = CLUSTER.kubectl(kubeconfig, &["auth", "whoami", "-o", "json"]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "whoami of {what}: {error}; {}", TARGET.log());
            let review: Value = serde_json::from_slice(&output.stdout).unwrap();
            review["status"]["userInfo"].clone()
        };
        let (direct, through) = (review(&both.direct), review(&both.through));
        assert!(direct["username"].as_str().is_some_and(|name| !name.is_empty()), "{direct}");
        assert_eq!(through, direct, "{what}: who they are through spillway (left) and directly");
    }
}

#[test]
fn nobody_in_particular_is_refused_as_directly() {
    // Without any credential kubectl asks for a user name. A blank token is none to kube-apiserver.
    let anonymous = Both::of(&Credential::Token(" ".into()));
    anonymous.same(&["auth", "whoami"]);
    let said = anonymous.same(&["get", "--raw", "/api/v1/pods"]);
    assert!(said.contains("User \"system:anonymous\" cannot list"), "{said}");
    assert!(anonymous.same(&["get", "--raw", "/version"]).contains("gitVersion"));
    assert_eq!(anonymous.same(&["get", "--raw", "/readyz"]), "ok");

    let strangers = [
        Credential::Certificate(CLUSTER.paths.wrong_admin.clone()),
        CLUSTER.break_glass(),
        Credential::Token("made-up".into()),
        Credential::Token("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06YWRtaW4ifQ.".into()),
    ];
    for stranger in strangers {
        let said = Both::of(&stranger).same(&["get", "--raw", "/api/v1/pods"]);
        assert!(
            said.contains("Unauthorized") || said.contains("provide credentials"),
            "{stranger:?}: {said}"
        );
    }
}

#[test]
fn impersonation_needs_rights_and_uses_them() {
    let alice = Both::of(&CLUSTER.alice());
    let said =
        alice.same(&["auth", "whoami", "-o", "jsonpath={.status.userInfo}", "--as=bob", "--as-group=crew"]);
    assert!(said.contains(r#""username":"bob""#) && said.contains("crew"), "{said}");
    let said = alice.same(&["get", "nodes", "--as=bob"]);
    assert!(said.contains("User \"bob\" cannot list resource \"nodes\""), "{said}");

    let token = CLUSTER.token("impersonation", "agent", "1h");
    let viewer = Credential::Certificate(CLUSTER.pki.client("viewer", "victor", &["platform-viewers"]));
    for who in [Credential::Token(token), viewer] {
        let said = Both::of(&who).same(&[
            "get",
            "--raw",
            "/api/v1/nodes",
            "--as=system:admin",
            "--as-group=system:masters",
        ]);
        assert!(said.contains("cannot impersonate"), "{said}");
    }
    // A group without a user is a mistake that only the server may name.
    alice.same(&["get", "--raw", "/api/v1/nodes", "--as-group=crew"]);
}

/// A namespace with `count` ConfigMaps `c0`, `c1`, ….
fn objects(namespace: &str, count: usize) -> String {
    let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    for number in 0..count {
        yaml += &format!(
            "---\napiVersion: v1\nkind: ConfigMap\ndata: {{key: value, step: '0'}}\n\
             metadata: {{name: c{number}, namespace: {namespace}, labels: {{part: '{number}'}}}}\n"
        );
    }
    yaml
}

const CUSTOM_KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: floodgates.test.spillway.dev}
spec:
  group: test.spillway.dev
  scope: Cluster
  names: {kind: Floodgate, plural: floodgates, singular: floodgate}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {open: {type: boolean}}}}
";
