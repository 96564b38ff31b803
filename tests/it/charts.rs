//! Are the Helm charts accepted by those they are for: Helm, kube-apiserver, spillway itself?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Once, OnceLock},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    built::PATIENCE,
    cluster::{Credential, tail, wait_for},
    manifests::dry_run,
    spillway::{BINARY, CLUSTER},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The Prometheus operator's kinds as far as the charts use them: kube-apiserver must know a kind to judge an object.
const OPERATOR: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: KIND.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {plural: KIND, kind: NAME}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {
      spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}
";

fn helm(arguments: &[&str]) -> Output {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let script = Path::new(ROOT).join("tests/helm/build.sh");
        let built = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
        assert!(built.status.success(), "{} built no Helm; its reason is above", script.display());
        PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
    });
    // Nothing of the caller's own Helm or Kubernetes set-up is seen.
    let home = std::env::temp_dir();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(Path::new(ROOT).join("deploy/helm")).env("HOME", home);
    command.env_remove("KUBECONFIG").output().unwrap()
}

fn rendered(arguments: &[&str]) -> String {
    let found = helm(&[&["template", "guard"], arguments].concat());
    assert!(found.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8(found.stdout).unwrap()
}

/// The values that a cluster must say: a file.
fn values(folder: &TempDir, more: Value) -> String {
    let file = folder.path().join("values.yaml");
    let mut values = json!({
        "apiserver": {"address": "10.96.0.1:443"},
        "tls": {"secretName": "spillway-tls"},
        "tokens": {"issuer": ISSUER, "jwks": r#"{"keys": []}"#},
    });
    if let (Value::Object(values), Value::Object(more)) = (&mut values, more) {
        values.extend(more);
    }
    fs::write(&file, values.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The objects of a rendered chart, read by kubectl.
fn objects(yaml: &str) -> Vec<Value> {
    let arguments = ["apply", "--dry-run=server", "-o", "json", "-f", "-"];
    let text = CLUSTER.kubectl_with_input(&CLUSTER.admin_kubeconfig(), &arguments, yaml);
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().cloned().unwrap_or_else(|| vec![list.clone()])
}

fn operator_kinds() {
    for (plural, name) in [("prometheusrules", "PrometheusRule"), ("servicemonitors", "ServiceMonitor")] {
        CLUSTER.apply(&OPERATOR.replace("KIND", plural).replace("NAME", name));
        let crd = format!("crd/{plural}.monitoring.coreos.com");
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", &crd];
        CLUSTER.kubectl_ok(&CLUSTER.admin_kubeconfig(), &wait);
        // kubectl looks the kind up in discovery, which follows a moment later.
        wait_for(&format!("{name} in discovery"), PATIENCE, || {
            let found = CLUSTER.kubectl(
                &CLUSTER.admin_kubeconfig(),
                &["get", &format!("{plural}.v1.monitoring.coreos.com")],
            );
            if found.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&found.stderr).into()) }
        });
    }
}

#[test]
fn helm_finds_nothing_to_say_about_the_charts() {
    let folder = tempfile::tempdir().unwrap();
    let values = values(&folder, json!({}));
    for arguments in [&["spillway", "-f", &values][..], &["spillway-monitoring"]] {
        let found = helm(&[&["lint", "--strict"], arguments].concat());
        let said = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(found.status.success(), "{said}{}", String::from_utf8_lossy(&found.stderr));
        assert!(!said.contains("[WARNING]"), "{said}");
    }
}

#[test]
fn kube_apiserver_accepts_what_the_gateway_chart_renders() {
    operator_kinds();
    let folder = tempfile::tempdir().unwrap();
    let plain = rendered(&["spillway", "-f", &values(&folder, json!({}))]);
    let kinds = dry_run(&plain);
    for kind in
        ["deployment.apps", "poddisruptionbudget.policy", "networkpolicy.networking.k8s.io", "serviceaccount"]
    {
        assert!(kinds.contains(&format!("{kind}/guard-spillway\n")), "{kind} is not in {kinds}");
    }
    // Whoever is not among the clients stays outside, and the rights that the chart asks for are none.
    assert!(!plain.contains("kind: Role") && !plain.contains("kind: ClusterRole"), "{plain}");

    let somebody =
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "telemetry"}}}]);
    let everything = values(
        &folder,
        json!({
            "policy": fs::read_to_string(Path::new(ROOT).join("config/policy.yaml")).unwrap(),
            "extraConfiguration": {"drain": {"gracePeriod": "10s"}, "logging": {"format": "Text"}},
            "listenAddress": "[::]",
            "networkPolicy": {"clients": somebody, "metrics": somebody},
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "imagePullSecrets": [{"name": "registry"}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"operator": "Exists"}],
            "podAnnotations": {"example.com/owner": "platform"},
        }),
    );
    let all = objects(&rendered(&["spillway", "-f", &everything]));
    let of =
        |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    assert_eq!(of("NetworkPolicy")["spec"]["ingress"].as_array().unwrap().len(), 2);
    assert_eq!(of("ServiceMonitor")["metadata"]["labels"]["release"], "prometheus");
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(pod["containers"][0]["args"].to_string().contains("policy.yaml"), "{pod}");
}

#[test]
fn a_gateway_with_the_charts_configuration_passes_tokens_on() {
    let folder = tempfile::tempdir().unwrap();
    let admin = CLUSTER.admin_kubeconfig();
    let jwks = CLUSTER.kubectl_ok(&admin, &["get", "--raw", "/openid/v1/jwks"]);
    let address = CLUSTER.apiserver_addr().to_string();
    let more = json!({"apiserver": {"address": address}, "tokens": {"issuer": ISSUER, "jwks": jwks}});
    let map =
        objects(&rendered(&["spillway", "-f", &values(&folder, more), "-s", "templates/configmap.yaml"]));
    let part = |name: &str| map[0]["data"][name].as_str().unwrap_or_default().to_owned();

    // The files lie elsewhere than in the pod, and ports are of the kernel's choice; the rest is as rendered.
    let here = folder.path().display().to_string();
    let paths = &CLUSTER.paths;
    for (from, to) in
        [(&paths.serving.cert, "tls.crt"), (&paths.serving.key, "tls.key"), (&paths.server_ca.cert, "ca.crt")]
    {
        fs::copy(from, folder.path().join(to)).unwrap();
    }
    fs::write(folder.path().join("jwks.json"), part("jwks.json")).unwrap();
    let mut text = part("spillway.yaml");
    for (pod, test) in [
        ("/etc/spillway/config", &*here),
        ("/etc/spillway/tls", &here),
        ("/etc/spillway/cluster", &here),
        ("/var/lib/spillway", &here),
        ("/run/spillway", &here),
        ("0.0.0.0:6443", "127.0.0.1:0"),
        ("0.0.0.0:10270", "127.0.0.1:0"),
    ] {
        assert!(text.contains(pod), "{pod} is not in\n{text}");
        text = text.replace(pod, test);
    }
    let config = folder.path().join("spillway.yaml");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--config"]).arg(&config);
    let mut gateway = CLUSTER.run("gateway", command);
    let main: SocketAddr = wait_for("the gateway to print its address", PATIENCE, || {
        gateway.alive().unwrap_or_else(|why| panic!("{why}"));
        let log = fs::read_to_string(&gateway.log).map_err(|error| error.to_string())?;
        let line = log.lines().find_map(|line| line.strip_prefix("main ")?.parse().ok());
        line.ok_or_else(|| tail(&gateway.log))
    });

    let token = CLUSTER.token("telemetry", "agent", "1h");
    let agent =
        CLUSTER.kubeconfig_for(&Credential::Token(token), &format!("https://{main}"), &paths.server_ca.cert);
    let (name, _) = CLUSTER.whoami(&agent).unwrap_or_else(|why| panic!("{why}\n{}", tail(&gateway.log)));
    assert_eq!(name, "system:serviceaccount:telemetry:agent");
    // kube-apiserver, not the gateway, is who judges.
    let nobody = Credential::Token("made-up".into());
    let nobody = CLUSTER.kubeconfig_for(&nobody, &format!("https://{main}"), &paths.server_ca.cert);
    assert!(CLUSTER.whoami(&nobody).is_err());
}

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = [
        (json!({"tls": {}}), "secretName"),
        (json!({"tokens": {"issuer": "kubernetes", "jwks": "{\"keys\": []}"}}), "issuer"),
        (json!({"apiserver": {"address": "kubernetes.default.svc:443"}}), "address"),
        // Nothing can be looked up without a cluster.
        (json!({"apiserver": {}}), "kubectl get service kubernetes"),
        (json!({"replicas": 0}), "replicas"),
        (json!({"replica": 3}), "replica"),
        (json!({"extraConfiguration": {"listeners": []}}), "listeners"),
    ];
    for (more, named) in wrong {
        let found = helm(&["template", "guard", "spillway", "-f", &values(&folder, more.clone())]);
        let said = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(!found.status.success() && said.contains(named), "{more}: {said}");
    }
}

#[test]
fn a_daemon_set_is_pointed_at_the_gateway_and_keeps_its_own_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    let agent = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"serviceAccountName": "agent", "containers": [{"name": "agent", "image": "agent:1"}]},
            },
        },
    });
    fs::write(&file, agent.to_string()).unwrap();
    let patch = Path::new(ROOT).join("deploy/gateway/point-daemonset.yaml");
    let (file, patch) = (file.to_str().unwrap(), patch.to_str().unwrap());
    let arguments = ["patch", "--local", "-f", file, "--type=strategic", "--patch-file", patch, "-o", "yaml"];
    let patched = CLUSTER.kubectl_ok(&CLUSTER.admin_kubeconfig(), &arguments);
    let pod = objects(&patched)[0]["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "agent:1");
    assert_eq!(container["env"][0]["name"], "KUBERNETES_SERVICE_HOST");
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(pod["serviceAccountName"], "agent");
    // No audience: the apiserver's own, so that it takes the token.
    assert_eq!(pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"], Value::Null);
}

#[test]
fn the_monitoring_chart_holds_every_rule_and_the_dashboard() {
    operator_kinds();
    let all =
        objects(&rendered(&["spillway-monitoring", "--set", "prometheusRule.labels.release=prometheus"]));
    let of =
        |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let rule = of("PrometheusRule");
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let text = ["alerts.yaml", "recording.yaml"]
        .map(|file| fs::read_to_string(Path::new(ROOT).join("deploy/monitoring").join(file)).unwrap())
        .concat();
    let count = |name: &str| text.lines().filter(|line| line.trim_start().starts_with(name)).count();
    let rules: Vec<&Value> = rule["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(rules.len() > 10, "{}", rules.len());
    assert_eq!(rules.len(), count("- alert:") + count("- record:"));
    for (file, uid) in
        [("spillway-overview.json", "spillway-overview"), ("spillway-tuning.json", "spillway-tuning")]
    {
        let dashboard = of("ConfigMap")["data"][file].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(dashboard).unwrap()["uid"], uid);
    }

    let plain = objects(&rendered(&["spillway-monitoring", "--set", "prometheusRule.enabled=false"]));
    let mounted = plain.iter().find_map(|object| object["data"]["alerts.yaml"].as_str()).unwrap();
    assert_eq!(mounted, fs::read_to_string(Path::new(ROOT).join("deploy/monitoring/alerts.yaml")).unwrap());
}

/// kustomize's namespace, made by the first test that needs it.
fn namespace() {
    static MADE: Once = Once::new();
    MADE.call_once(|| CLUSTER.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: spillway}"));
}

#[test]
fn kustomize_makes_the_pod_and_the_configuration_of_the_chart() {
    namespace();
    let base = Path::new(ROOT).join("deploy/kustomize/base");
    let admin = CLUSTER.admin_kubeconfig();
    let built = objects(&CLUSTER.kubectl_ok(&admin, &["kustomize", base.to_str().unwrap()]));
    let folder = tempfile::tempdir().unwrap();
    let values = values(&folder, json!({"policy": "kind: TrafficPolicy"}));
    let chart = objects(&rendered(&["spillway", "-f", &values]));
    let of = |all: &[Value], kind: &str| {
        let found = all
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] != "spillway-metrics");
        found.cloned().unwrap_or_else(|| panic!("no {kind}"))
    };

    let name = of(&built, "ConfigMap")["metadata"]["name"].as_str().unwrap().to_owned();
    let pod = |all: &[Value]| {
        let text = of(all, "Deployment")["spec"]["template"]["spec"].to_string();
        let mut pod: Value =
            serde_json::from_str(&text.replace(&name, "CONFIG").replace("guard-spillway", "spillway"))
                .unwrap();
        // Chart and kustomize tell their pods from others by different labels.
        pod["topologySpreadConstraints"].take();
        pod["volumes"][0]["configMap"]["name"].take();
        pod
    };
    assert_eq!(pod(&built), pod(&chart));
    for kind in ["PodDisruptionBudget", "NetworkPolicy"] {
        let spec = |all: &[Value]| {
            let mut spec = of(all, kind)["spec"].take();
            for labels in ["selector", "podSelector"] {
                spec[labels].take();
            }
            spec
        };
        assert_eq!(spec(&built), spec(&chart), "{kind}");
    }
    let configuration = |all: &[Value]| -> Value {
        serde_saphyr::from_str(of(all, "ConfigMap")["data"]["spillway.yaml"].as_str().unwrap()).unwrap()
    };
    assert_eq!(configuration(&built), configuration(&chart));

    let files = ["spillway.yaml", "policy.yaml"].map(|file| base.join(file));
    let valid = Command::new(BINARY).args(["validate", "--skip-files"]).args(files).output().unwrap();
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stderr));
}

#[test]
fn kustomize_overlays_differ_from_the_base_in_the_policy_alone() {
    namespace();
    let admin = CLUSTER.admin_kubeconfig();
    let built = |overlay: &str| {
        let folder = Path::new(ROOT).join("deploy/kustomize").join(overlay);
        let all = objects(&CLUSTER.kubectl_ok(&admin, &["kustomize", folder.to_str().unwrap()]));
        let map = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let name = map["metadata"]["name"].as_str().unwrap().to_owned();
        let files = map["data"].as_object().unwrap().clone();
        let others: Vec<String> = all
            .iter()
            .filter(|object| object["kind"] != "ConfigMap")
            .map(|object| {
                let mut object = object.clone();
                // Times and ids of a dry run.
                object["metadata"].as_object_mut().unwrap().retain(|key, _| key == "name" || key == "labels");
                // The addresses of a Service are given anew each time.
                let spec = if object["kind"] == "Service" {
                    &object["spec"]["ports"][0]["name"]
                } else {
                    &object["spec"]
                };
                format!("{} {} {spec}", object["kind"], object["metadata"]).replace(&name, "CONFIG")
            })
            .collect();
        (name, files, others)
    };
    let (base, base_files, base_others) = built("base");
    assert!(base_others.iter().any(|text| text.contains("CONFIG")), "the pods read the map: {base_others:?}");
    let mut names = vec![base];
    for (overlay, mode) in [("shadow", "Shadow"), ("enforce", "Enforce")] {
        let (name, mut files, others) = built(overlay);
        let policy = files.insert("policy.yaml".into(), base_files["policy.yaml"].clone()).unwrap();
        assert_eq!(files, base_files, "{overlay}");
        assert_eq!(others, base_others, "{overlay}");
        // Another content is another name: applying an overlay rolls the pods.
        assert!(!names.contains(&name), "{overlay}: {names:?}");
        names.push(name);

        let policy = policy.as_str().unwrap();
        let read: Value = serde_saphyr::from_str(policy).unwrap();
        assert_eq!(read["enforcement"]["mode"], mode, "{overlay}");
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let config = file("spillway.yaml", files["spillway.yaml"].as_str().unwrap());
        let policy = file("policy.yaml", policy);
        let valid =
            Command::new(BINARY).args(["validate", "--skip-files"]).args([config, policy]).output().unwrap();
        assert!(valid.status.success(), "{overlay}: {}", String::from_utf8_lossy(&valid.stderr));
    }
}
