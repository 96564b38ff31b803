//! `spillway config init`: a first configuration, from what is there already.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::apf;
use crate::cli::Ending;
use crate::cli::isolate::ended;
use crate::cli::manifest::node_config;
use crate::cli::shown::plain;

/// Prints a first configuration; nothing is written.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples, on a kubeadm control-plane node:
  spillway config init --from-kubeadm > /etc/spillway/spillway.yaml
  spillway manifest policy > /etc/spillway/policy.yaml
or, instead of the second line, with the rules that you have for API Priority and Fairness:
  kubectl get flowschemas,prioritylevelconfigurations -o yaml > apf.yaml
  spillway config init --from-apf apf.yaml > /etc/spillway/policy.yaml
and then:
  spillway check --pre

--from-kubeadm reads address, certificates, issuer and keys out of kube-apiserver's static pod. --from-apf turns
FlowSchemas into rules; their lanes are proposals, and what cannot be kept stands as a comment.
Both policies begin in Shadow: they count what they would refuse, and `spillway rollout start` is the way on.
Exit codes: 0 printed, 2 usage, 3 what is there cannot be read.")]
pub(super) struct Args {
    /// kubeadm's folder
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "/etc/kubernetes", conflicts_with = "from_apf", required_unless_present = "from_apf")]
    from_kubeadm: Option<PathBuf>,
    /// FlowSchemas and PriorityLevelConfigurations as kubectl prints them
    #[arg(long, value_name = "FILE")]
    from_apf: Option<PathBuf>,
}

/// Prints it.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let made = match (&args.from_kubeadm, &args.from_apf) {
        (_, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| error.to_string())
            .and_then(|text| apf::policy(&text))
            .map_err(|why| {
                (file.clone(), why, "kubectl get flowschemas,prioritylevelconfigurations -o yaml")
            }),
        (Some(folder), None) => {
            let file = folder.join("manifests/kube-apiserver.yaml");
            let made = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            let made = made.and_then(|text| of_kubeadm(&text));
            made.map_err(|why| (file, why, "spillway manifest config --node-address IP makes one without it"))
        }
        (None, None) => return Ending::Usage,
    };
    match made {
        Ok(text) => ended(out.write_all(text.as_bytes())),
        Err((file, why, help)) => {
            // A closed terminal cannot be told anything; the exit code still says it.
            let file = plain(&file.display().to_string());
            let _ = writeln!(err, "error[SPW0470]: {file}: {}\nhelp: {help}", plain(&why));
            Ending::Config
        }
    }
}

/// The configuration for the node whose static pod this is.
fn of_kubeadm(text: &str) -> Result<String, String> {
    let pod: Value = serde_saphyr::from_str(text).map_err(|error| format!("it is not YAML: {error}"))?;
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let container = containers.into_iter().find(|container| container["name"] == "kube-apiserver");
    let container = container.ok_or_else(|| "there is no container kube-apiserver in it".to_owned())?;
    let words: Vec<&str> = ["command", "args"]
        .iter()
        .filter_map(|key| container[*key].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let flag = |name: &str| {
        let prefix = format!("--{name}=");
        words.iter().rev().find_map(|word| word.strip_prefix(&prefix))
    };
    let address = flag("advertise-address").ok_or_else(|| "it has no --advertise-address".to_owned())?;
    let address: IpAddr =
        address.parse().map_err(|_| format!("--advertise-address={address} is no IP address"))?;
    let mut config = node_config(address);
    for (name, default) in [
        ("tls-cert-file", "/etc/kubernetes/pki/apiserver.crt"),
        ("tls-private-key-file", "/etc/kubernetes/pki/apiserver.key"),
        ("client-ca-file", "/etc/kubernetes/pki/ca.crt"),
        ("service-account-key-file", "/etc/kubernetes/pki/sa.pub"),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        // kubeadm's pair; kube-apiserver uses it towards aggregated servers, and believes it itself.
        ("proxy-client-cert-file", "/etc/kubernetes/pki/front-proxy-client.crt"),
        ("proxy-client-key-file", "/etc/kubernetes/pki/front-proxy-client.key"),
    ] {
        if let Some(value) = flag(name) {
            let fits = !value.is_empty()
                && !value.chars().any(|c| c.is_control() || c.is_whitespace() || "\"'#{}[],".contains(c));
            if !fits {
                return Err(format!("--{name} is {value:?}, which is neither a path nor an address"));
            }
            config = config.replace(default, value);
        }
    }
    let port = flag("secure-port").unwrap_or("6443");
    if port != "6443" {
        port.parse::<u16>().map_err(|_| format!("--secure-port={port} is no port"))?;
        config = config.replace(":6443", &format!(":{port}"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{FileChecks, load_with};
    use crate::policy::{Lane, Mode};

    const MANIFEST: &str = "apiVersion: v1
kind: Pod
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --advertise-address=10.1.2.3
    - --secure-port=8443
    - --client-ca-file=/pki/clients.crt
    - --service-account-issuer=https://issuer.example
    - --service-account-key-file=/pki/sa.pub
    - --tls-cert-file=/pki/apiserver.crt
    - --tls-private-key-file=/pki/apiserver.key
";

    const APF: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: flowcontrol.apiserver.k8s.io/v1
  kind: FlowSchema
  metadata: { name: system-nodes, annotations: { apf.kubernetes.io/autoupdate-spec: "true" } }
  spec: { matchingPrecedence: 500, priorityLevelConfiguration: { name: system } }
- apiVersion: flowcontrol.apiserver.k8s.io/v1
  kind: FlowSchema
  metadata: { name: scrapers }
  spec:
    distinguisherMethod: { type: ByNamespace }
    matchingPrecedence: 900
    priorityLevelConfiguration: { name: few }
    rules:
    - subjects:
      - { kind: ServiceAccount, serviceAccount: { namespace: obs, name: "*" } }
      - { kind: Group, group: { name: scrapers } }
      resourceRules:
      - { verbs: [list, watch], apiGroups: [""], resources: [pods, nodes], namespaces: ["*"], clusterScope: true }
      - { verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: [shop] }
      nonResourceRules:
      - { verbs: [get], nonResourceURLs: [/metrics, /livez] }
- apiVersion: flowcontrol.apiserver.k8s.io/v1
  kind: FlowSchema
  metadata: { name: Everyone.Else }
  spec:
    matchingPrecedence: 9000
    priorityLevelConfiguration: { name: workload-low }
    rules:
    - subjects: [{ kind: User, user: { name: "*" } }]
      resourceRules:
      - { verbs: ["*"], apiGroups: [apps], resources: ["*"], clusterScope: true }
      nonResourceRules:
      - { verbs: ["*"], nonResourceURLs: [/healthz] }
- apiVersion: flowcontrol.apiserver.k8s.io/v1
  kind: PriorityLevelConfiguration
  metadata: { name: few }
  spec: { type: Limited, limited: { nominalConcurrencyShares: 5, limitResponse: { type: Queue, queuing: { queues: 16 } } } }
"#;

    #[test]
    fn what_kubeadm_has_is_a_configuration_that_can_be_read() {
        let text = of_kubeadm(MANIFEST).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spillway.yaml");
        std::fs::write(&file, &text).unwrap();
        let loaded = load_with(&[file], FileChecks::Off).unwrap_or_else(|found| panic!("{found}"));
        let proxy = loaded.proxy.unwrap();
        assert_eq!(proxy.listeners[0].address.to_string(), "10.1.2.3:8443");
        assert_eq!(proxy.upstreams.server.address.to_string(), "127.0.0.1:8443");
        assert_eq!(proxy.authentication.client_certificate.unwrap().ca_file, Path::new("/pki/clients.crt"));
        assert_eq!(proxy.authentication.service_account_token.unwrap().issuers, ["https://issuer.example"]);
        assert!(text.contains("spillway manifest policy > /etc/spillway/policy.yaml"), "{text}");
        assert_eq!(proxy.listeners[0].tls.key_file, Path::new("/pki/apiserver.key"));
    }

    #[test]
    fn a_manifest_that_is_none_is_told() {
        for (text, words) in [
            ("{", "not YAML"),
            ("kind: Pod", "no container"),
            ("spec: { containers: [{ name: kube-apiserver, command: [x] }] }", "no --advertise-address"),
            (
                "spec: { containers: [{ name: kube-apiserver, command: [--advertise-address=node-1] }] }",
                "no IP address",
            ),
            (
                "spec: { containers: [{ name: kube-apiserver, command: [--advertise-address=10.0.0.1, '--client-ca-file=a b'] }] }",
                "neither a path",
            ),
        ] {
            let error = of_kubeadm(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn flow_schemas_become_rules_that_can_be_read_and_what_is_lost_is_said() {
        let text = apf::policy(APF).unwrap();
        crate::cli::golden::compare("config-init-apf", &text);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, &text).unwrap();
        let loaded = load_with(&[file], FileChecks::Off).unwrap_or_else(|found| panic!("{found}\n{text}"));
        let lanes: Vec<(&str, Lane)> = loaded
            .policy
            .rules
            .iter()
            .take_while(|rule| rule.name.starts_with("apf-"))
            .map(|rule| (rule.name.as_str(), rule.lane))
            .collect();
        assert_eq!(loaded.policy.enforcement.mode, Mode::Shadow, "nobody has tried it here");
        assert_eq!(lanes[0], ("apf-scrapers", Lane::Telemetry), "a level of five shares");
        assert!(lanes.contains(&("apf-everyone-else", Lane::Workload)), "{lanes:?}");
        assert!(
            text.contains("not kept: distinguisherMethod ByNamespace") && text.contains("system-nodes"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_apf_is_told() {
        assert!(apf::policy("kind: Pod").unwrap_err().contains("no FlowSchema"));
        assert!(apf::policy("a: [").unwrap_err().contains("not YAML"));
        assert!(apf::policy("").unwrap_err().contains("no FlowSchema"));
    }
}
