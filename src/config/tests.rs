//! Are mistakes reported as an operator needs them, and do the shipped files say what the code does?
//!
//! Every `tests/golden/config/NAME.yaml` has the findings it gives beside it, as `NAME.txt`. With
//! `SPILLWAY_UPDATE_GOLDEN=1` they are written anew, to be read in the diff.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::flow::CeilingSettings;
use crate::identity::{Credential, Identity};
use crate::policy::{Hints, Lane, LaneSettings, Policy};
use crate::request::{DecodedPath, RequestInfo};

const GOLDEN: &str = "tests/golden/config";

/// Findings of one file. Whether a key is readable by all depends on how the repository was checked out.
fn findings(path: &Path) -> Diagnostics {
    let mut found = match load(&[path.to_owned()]) {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    found.0.retain(|found| found.code != Code::KeyExposed);
    found
}

fn golden_inputs() -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() > 10);
    paths
}

#[test]
fn findings_read_as_their_golden_texts() {
    let update = std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some();
    for path in golden_inputs() {
        let (text, golden) = (findings(&path).to_string(), path.with_extension("txt"));
        if update {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap(), "{}", golden.display());
    }
}

#[test]
fn every_code_has_a_golden_text() {
    let mut seen: BTreeSet<_> =
        golden_inputs().iter().flat_map(|path| findings(path).0).map(|found| found.code).collect();
    // These need files that a repository cannot hold; tests below make them.
    seen.extend([Code::KeyExposed, Code::FileTooLarge, Code::FrontProxyOfClientCa]);
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn findings_for_programs_carry_place_and_help() {
    let found = json(&findings(&Path::new(GOLDEN).join("unknown-lane.yaml")));
    let expected = serde_json::json!({
        "code": "SPW0204", "severity": "error", "message": "lane \"telemtry\" is not defined",
        "file": "tests/golden/config/unknown-lane.yaml", "line": 7, "column": 11, "endLine": 7, "endColumn": 19,
        "label": "unknown lane", "help": "did you mean \"telemetry\"?",
        "related": ["defined lanes: node-health, control-plane, platform, operators, workload, unknown, telemetry"],
    });
    assert_eq!(found[0], expected);
}

/// What a text gives, without looking at the files that it names.
fn read(text: &str) -> Result<Loaded, Diagnostics> {
    read_in(tempfile::tempdir().unwrap().path(), text)
}

fn read_in(folder: &Path, text: &str) -> Result<Loaded, Diagnostics> {
    let path = folder.join("config.yaml");
    std::fs::write(&path, text).unwrap();
    load_with(&[path], FileChecks::Off)
}

/// The shipped example with its commented defaults put in force.
fn spelled_out(text: &str) -> String {
    text.replace("#: ", "")
}

#[test]
fn the_shipped_files_are_valid_without_warnings() {
    let files = ["config/spillway.yaml", "config/policy.yaml"].map(PathBuf::from);
    let loaded = load_with(&files, FileChecks::Off).unwrap();
    assert_eq!(loaded.warnings, Diagnostics::default());
    assert!(loaded.proxy.is_some());
    assert_eq!(loaded.policy, default_policy().unwrap());
}

#[test]
fn the_defaults_in_the_example_are_those_of_the_code() {
    let text = std::fs::read_to_string("config/spillway.yaml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let proxy = |text: &str| read_in(folder.path(), text).unwrap().proxy.unwrap();
    assert_ne!(spelled_out(&text), text);
    assert_eq!(proxy(&spelled_out(&text)), proxy(&text));
}

#[test]
fn the_shipped_files_mention_every_key() {
    let proxy = spelled_out(&std::fs::read_to_string("config/spillway.yaml").unwrap());
    let mentioned = format!("{proxy}\n{DEFAULT_POLICY_YAML}");
    // Conditions that no default rule needs; the golden files use them.
    let in_rules = ["apiGroups", "credentials", "namespaces", "paths", "unpaged", "userAgents"];
    let all = findings(&Path::new(GOLDEN).join("every-section.yaml"));
    let keys =
        all.0.iter().flat_map(|found| &found.notes).filter_map(|note| note.strip_prefix("known keys: "));
    for key in keys.flat_map(|keys| keys.split(", ")).filter(|key| !in_rules.contains(key)) {
        assert!(mentioned.contains(&format!("{key}:")), "{key}");
    }
}

#[test]
fn the_embedded_policy_repeats_the_defaults_of_enforcement() {
    let policy = default_policy().unwrap();
    assert_eq!((policy.enforcement, policy.rollout), Default::default());
}

#[test]
fn the_policy_to_begin_with_is_valid_and_refuses_nothing() {
    let loaded = load(&[PathBuf::from("config/first-policy.yaml")]).unwrap();
    assert_eq!(loaded.warnings, Diagnostics::default());
    assert_eq!(loaded.policy.enforcement.mode, crate::policy::Mode::Shadow);
    assert_eq!(loaded.policy.rollout.steps, [1, 5, 25, 50, 100]);
}

#[test]
fn what_is_installed_first_begins_in_shadow_wherever_it_stands() {
    let values = std::fs::read_to_string("deploy/helm/spillway/values.yaml").unwrap();
    let values: serde_json::Value = serde_saphyr::from_str(&values).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("policy.yaml");
    std::fs::write(&chart, values["policy"].as_str().unwrap()).unwrap();
    for file in [chart, PathBuf::from("deploy/kustomize/base/policy.yaml")] {
        let loaded = load(std::slice::from_ref(&file)).unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(loaded.warnings, Diagnostics::default(), "{}", file.display());
        assert_eq!(loaded.policy.enforcement.mode, crate::policy::Mode::Shadow, "{}", file.display());
        assert_eq!(loaded.policy.rollout.steps, [1, 5, 25, 50, 100], "{}", file.display());
    }
}

#[test]
fn the_embedded_policy_repeats_the_defaults_of_the_lanes() {
    let policy = default_policy().unwrap();
    assert_eq!(policy.lanes(), LaneSettings::defaults());
    assert_eq!(policy.overload, OverloadSettings::default());
}

#[test]
fn the_break_glass_lane_defaults_to_its_ceiling() {
    let ceiling = CeilingSettings::default();
    assert_eq!(BreakGlass::SEATS, ceiling.seats.0);
    assert_eq!((BreakGlass::RATE, BreakGlass::BURST), (ceiling.rate.per_second, ceiling.rate.burst));
}

#[test]
fn own_rules_come_first_and_lanes_are_merged() {
    let text = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: mine\n\
        lanes: { telemetry: { identityRate: { perSecond: 0 } }, workload: { wait: 1s } }\n\
        rules: [{ name: mine, match: { users: [a] }, lane: platform }]\n";
    let default = default_policy().unwrap();
    let appended = read(text).unwrap().policy;
    assert_eq!(appended.rules[0].name, "mine");
    assert_eq!(appended.rules[1..], default.rules);
    assert_eq!(appended.lanes[Lane::Telemetry.index()].identity_rate, None);
    let workload = appended.lanes[Lane::Workload.index()];
    assert_eq!(workload.wait.as_secs(), 1);
    assert_eq!(workload.ceiling_percent, LaneSettings::default_of(Lane::Workload).ceiling_percent);
    let alone = read(&format!("{text}defaultRules: Omit\n")).unwrap().policy;
    assert_eq!(alone.rules.len(), 1);
}

#[test]
fn api_groups_apply_to_resources_without_a_group() {
    let text = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: mine\ndefaultRules: Omit\nrules:\n\
        - { name: a, match: { apiGroups: [apps, ''], resources: [deployments, nodes/status, leases.coordination.k8s.io] }, lane: unknown }\n\
        - { name: b, match: { apiGroups: ['*.example.com'] }, lane: unknown }\n";
    let rules = read(text).unwrap().policy.rules;
    let shown = |at: usize| -> Vec<_> {
        let resources = &rules[at].matches.resources;
        resources.iter().map(|r| format!("{}|{}|{}", r.group, r.resource, r.subresource)).collect()
    };
    assert_eq!(
        shown(0),
        [
            "apps|deployments|",
            "|deployments|",
            "apps|nodes|status",
            "|nodes|status",
            "coordination.k8s.io|leases|"
        ]
    );
    assert_eq!(shown(1), ["*.example.com|*|*"]);
}

#[test]
fn too_many_rules_and_too_large_files_are_refused() {
    let rules: String = (0..120)
        .map(|at| format!("- {{ name: r{at}, match: {{ users: [u{at}] }}, lane: unknown }}\n"))
        .collect();
    let head = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: many\nrules:\n";
    let found = read(&format!("{head}{rules}")).unwrap_err();
    assert_eq!(found.0.iter().map(|found| found.code).collect::<Vec<_>>(), [Code::TooMany]);
    let found = read(&format!("{head}{}", " ".repeat(2 << 20))).unwrap_err();
    assert_eq!(found.0[0].code, Code::FileTooLarge);
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(GOLDEN).join("every-section.yaml")).unwrap();
    let copy = |name: &str| {
        std::fs::copy(Path::new(GOLDEN).join("files").join(name), folder.path().join("files").join(name))
            .unwrap();
    };
    std::fs::create_dir(folder.path().join("files")).unwrap();
    ["tls.crt", "tls.key", "ca.crt", "break-glass-ca.crt", "sa.pub", "jwks.json"].into_iter().for_each(copy);
    let config = folder.path().join("spillway.yaml");
    // Without the unknown keys the file is a valid one.
    let text =
        text.lines().filter(|line| !line.trim_start().starts_with("x: 1")).collect::<Vec<_>>().join("\n");
    std::fs::write(&config, text.replace("x: 1, ", "").replace("{ x: 1 }", "{}").replace("- x: 1\n   ", "-"))
        .unwrap();
    let key = folder.path().join("files/tls.key");
    let found = |mode| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        match load(std::slice::from_ref(&config)) {
            Ok(loaded) => loaded.warnings.0,
            Err(found) => found.0,
        }
    };
    // Tests may not run as root, whose group may be given a key to read.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&key).unwrap()) == 0;
    for (mode, allowed) in
        [(0o600, true), (0o400, true), (0o640, root), (0o660, false), (0o644, false), (0o602, false)]
    {
        let found = found(mode);
        assert_eq!(found.is_empty(), allowed, "{mode:o}: {found:?}");
        assert!(found.iter().all(|found| found.code == Code::KeyExposed), "{mode:o}: {found:?}");
        let help = format!("chmod 0600 {}", key.display());
        assert!(found.iter().all(|found| found.help.as_ref().is_some_and(|text| text.starts_with(&help))));
    }
}

/// Certificates of two authorities, of which the first signs clients.
fn signed(folder: &Path) -> impl Fn(&str, &str) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), issuer.pem()).unwrap();
        issuer
    };
    let authorities = [authority("clients"), authority("proxies")];
    let folder = folder.to_owned();
    move |file, by| {
        let issuer = &authorities[usize::from(by == "proxies")];
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.join(format!("{file}.crt")), params.signed_by(&key, issuer).unwrap().pem())
            .unwrap();
        let path = folder.join(format!("{file}.key"));
        std::fs::write(&path, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn b12_a_front_proxy_of_the_client_ca_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sign = signed(folder.path());
    sign("serving", "clients");
    let config = folder.path().join("spillway.yaml");
    let text = "apiVersion: config.spillway.dev/v1alpha1\nkind: ProxyConfiguration\n\
        listeners: [{ name: main, address: 10.0.0.11:6443, tls: { certFile: serving.crt, keyFile: serving.key } }]\n\
        authentication: { clientCertificate: { caFile: clients.crt } }\n\
        upstreams:\n  servers: [{ name: local, url: https://127.0.0.1:6443 }]\n  tls: { caFile: clients.crt }\n\
        \x20 forwardIdentity: { frontProxy: { certFile: front.crt, keyFile: front.key } }\n\
        breakGlass: { address: 10.0.0.11:6444, clientCAFile: GLASS.crt, tls: { certFile: serving.crt, keyFile: serving.key } }\n";
    let errors = |front: &str, glass: &str| {
        sign("front", front);
        std::fs::write(&config, text.replace("GLASS", glass)).unwrap();
        let found = match load(std::slice::from_ref(&config)) {
            Ok(_) => Diagnostics::default(),
            Err(found) => found,
        };
        let errors = found.0.into_iter().filter(|found| found.severity() == Severity::Error);
        errors.map(|found| (found.code, found.place.unwrap().line)).collect::<Vec<_>>()
    };
    let glass = rcgen::generate_simple_self_signed(vec!["glass".to_owned()]).unwrap();
    std::fs::write(folder.path().join("glass.crt"), glass.cert.pem()).unwrap();
    assert_eq!(errors("proxies", "glass"), []);
    assert_eq!(errors("clients", "glass"), [(Code::FrontProxyOfClientCa, 8)]);
    assert_eq!(errors("proxies", "proxies"), [(Code::FrontProxyOfClientCa, 8)], "nor of the break-glass CA");
    // The same CA under another file name.
    std::fs::copy(folder.path().join("clients.crt"), folder.path().join("copy.crt")).unwrap();
    assert_eq!(errors("proxies", "copy"), [(Code::BreakGlassClientCa, 9)]);
}

#[test]
fn no_error_text_shows_a_private_key() {
    let secret = "bm90IGEgcmVhbCBQUklWQVRFIEtFWSw";
    let key = std::fs::read_to_string(Path::new(GOLDEN).join("files/tls.key")).unwrap();
    assert!(key.contains(secret));
    let folder = tempfile::tempdir().unwrap();
    for broken in [
        key.replace("END", "EMD"),
        key.replace("KEY-----\n", "KEY-----\n%"),
        key.replace("PRIVATE", "PRIVAT"),
    ] {
        std::fs::write(folder.path().join("tls.key"), broken).unwrap();
        let config = folder.path().join("c.yaml");
        std::fs::write(&config, "apiVersion: config.spillway.dev/v1alpha1\nkind: ProxyConfiguration\nlisteners:\n- { name: a, address: 127.0.0.1:1, tls: { certFile: a, keyFile: tls.key } }\n").unwrap();
        let found = load(&[config]).unwrap_err();
        assert!(found.0.iter().any(|found| found.code == Code::FileContent), "{found}");
        assert!(!found.to_string().contains(&secret[..12]), "{found}");
    }
}

// --- the default rules ---------------------------------------------------------------------------------------------

fn certificate(user: &str, groups: &[&str]) -> Identity {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Identity { user: user.into(), groups, credential: Credential::Certificate, uid: None, extra: vec![] }
}

/// `NAMESPACE/NAME` as a service account, anything else as a certificate with the groups behind the `@`.
fn caller(who: &str) -> Identity {
    if let Some((namespace, name)) = who.split_once('/') {
        let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let user = format!("system:serviceaccount:{namespace}:{name}");
        return Identity {
            user,
            groups,
            credential: Credential::ServiceAccountToken,
            uid: None,
            extra: vec![],
        };
    }
    let (user, group) = who.split_once('@').unwrap_or((who, "none"));
    certificate(user, &[group])
}

fn default_rules() -> Policy {
    default_policy().unwrap().compile(1).unwrap()
}

fn lane(policy: &Policy, who: &Identity, request: &str, user_agent: &str) -> Lane {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = DecodedPath::new(path).unwrap();
    let info = RequestInfo::new(method, &path, query).unwrap();
    let hints = Hints { user_agent: Some(user_agent), impersonates: false };
    policy.classify(who, policy.subjects(who), &info, &hints).lane
}

const LIST_PODS: &str = "GET /api/v1/pods";
const LEASE: &str = "PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l";
const TOKEN_REVIEW: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEW: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";

#[test]
fn every_family_of_callers_gets_its_lane_by_default() {
    let policy = default_rules();
    for (lane_expected, request, callers) in [
        (Lane::NodeHealth, LEASE, "system:node:n1@system:nodes"),
        (Lane::NodeHealth, "PATCH /api/v1/nodes/n1/status", "system:node:n1@system:nodes"),
        (Lane::NodeHealth, "POST /api/v1/nodes", "system:node:n1@system:nodes"),
        (
            Lane::NodeHealth,
            "GET /api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1",
            "system:node:n1@system:nodes",
        ),
        (
            Lane::NodeHealth,
            LEASE,
            "system:kube-controller-manager system:kube-scheduler cert-manager/cert-manager ops/own-operator",
        ),
        (
            Lane::ControlPlane,
            LIST_PODS,
            "system:kube-controller-manager system:kube-scheduler system:cloud-controller-manager",
        ),
        (
            Lane::ControlPlane,
            LIST_PODS,
            "kube-system/generic-garbage-collector kube-system/node-controller kube-system/aws-cloud-controller-manager",
        ),
        (Lane::ControlPlane, TOKEN_REVIEW, "system:node:n1@system:nodes istio-system/istiod ops/webhook"),
        (Lane::ControlPlane, ACCESS_REVIEW, "kube-system/metrics-server ops/webhook"),
        (Lane::Platform, LIST_PODS, "system:node:n1@system:nodes system:kube-proxy"),
        (Lane::Platform, "GET /api/v1/nodes", "system:node:n1@system:nodes"),
        (
            Lane::Platform,
            LIST_PODS,
            "kube-system/coredns kube-system/kube-proxy kube-system/cilium kube-system/aws-node",
        ),
        (
            Lane::Platform,
            LIST_PODS,
            "calico-system/calico-node kube-system/ebs-csi-node-sa kube-system/csi-azuredisk-node-sa",
        ),
        (
            Lane::Platform,
            LIST_PODS,
            "kube-system/metrics-server kube-system/node-problem-detector kube-system/cluster-autoscaler",
        ),
        (Lane::Platform, LIST_PODS, "cert-manager/cert-manager istio-system/istiod"),
        (
            Lane::Operators,
            LIST_PODS,
            "alice@platform-oncall admin@kubeadm:cluster-admins root@system:masters",
        ),
        (
            Lane::Workload,
            LIST_PODS,
            "shop/default argocd/argocd-application-controller flux-system/helm-controller",
        ),
        (
            Lane::Workload,
            LIST_PODS,
            "dynatrace/dynatrace-operator kube-system/new-agent opentelemetry-operator-system/manager",
        ),
        (Lane::Unknown, LIST_PODS, "bob@developers kubernetes-dashboard/kubernetes-dashboard"),
        (Lane::Telemetry, LIST_PODS, "monitoring/prometheus-k8s mon/rel-kube-prometheus-stack-prometheus"),
        (
            Lane::Telemetry,
            LIST_PODS,
            "kube-system/kube-state-metrics kube-system/fluentd kube-system/elastic-agent kube-system/hubble-relay",
        ),
        (
            Lane::Telemetry,
            LIST_PODS,
            "obs/node-agent datadog/anything x/my-opentelemetry-collector-agent x/datadog-cluster-agent",
        ),
        (Lane::Telemetry, LEASE, "obs/node-agent kube-system/ama-metrics-operator"),
        (Lane::Telemetry, TOKEN_REVIEW, "monitoring/node-exporter"),
    ] {
        for who in callers.split(' ') {
            assert_eq!(
                lane(&policy, &caller(who), request, "kubelet/v1.34.1"),
                lane_expected,
                "{who} {request}"
            );
        }
    }
}

#[test]
fn no_protected_account_is_taken_for_telemetry() {
    let policy = default_rules();
    let names = policy.rules().iter().filter(|rule| rule.lane < Lane::Workload && !rule.only_lower);
    let accounts =
        names.flat_map(|rule| rule.matches.service_accounts.iter().map(move |account| (rule, account)));
    for (rule, account) in accounts {
        let plain = |pattern: &crate::policy::Pattern| pattern.as_str().replace('*', "");
        let who = caller(&format!("{}/{}", plain(&account.namespace), plain(&account.name)));
        assert_eq!(lane(&policy, &who, LIST_PODS, ""), rule.lane, "{}", who.user);
    }
}

#[test]
fn whoever_cannot_be_verified_is_unknown_by_default() {
    let policy = default_rules();
    for who in [Identity::anonymous(), Identity::unverified()] {
        for request in [LIST_PODS, LEASE, TOKEN_REVIEW] {
            assert_eq!(lane(&policy, &who, request, "kubelet/v1.34.1"), Lane::Unknown, "{request}");
        }
    }
}

#[test]
fn agents_with_a_nodes_credential_are_telemetry_but_leases_keep_the_node_alive() {
    let policy = default_rules();
    let node = caller("system:node:n1@system:nodes");
    let lane = |request, agent| lane(&policy, &node, request, agent);
    for agent in ["otelcol-contrib/0.1", "Go-http-client/2.0", "", "kubelet-agent"] {
        assert_eq!(lane(LIST_PODS, agent), Lane::Telemetry, "{agent}");
        assert_eq!(lane(LEASE, agent), Lane::NodeHealth, "{agent}");
    }
    for agent in ["kubelet/v1.34.1 (linux/amd64) kubernetes/93248f9", "k3s/v1.33.4+k3s1", "kubelite/v1.33.4"]
    {
        assert_eq!(lane(LIST_PODS, agent), Lane::Platform, "{agent}");
    }
}
