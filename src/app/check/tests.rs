//! Each check on files made for it: the good case, and what it is there to find.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use super::*;
use crate::config::{self, FileChecks};

struct Place {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority("ca");
        let front = authority("front");
        let emergency = authority("emergency");
        let place = Self { dir, ca };
        place.write("ca.crt", &place.ca.pem());
        place.write("emergency.crt", &emergency.pem());
        place.serving(&["127.0.0.1"]);
        place.issue("front-proxy", &front, &[]);
        let key = KeyPair::generate().unwrap();
        place.write("sa.pub", &key.public_key_pem());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn issue(&self, name: &str, by: &CertifiedIssuer<'static, KeyPair>, ips: &[&str]) {
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(ip.parse().unwrap())));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn serving(&self, ips: &[&str]) {
        self.issue("serving", &self.ca, ips);
    }

    fn situation(&self, policy: &str) -> Situation {
        let config = self.path("spillway.yaml");
        let text = "apiVersion: config.spillway.dev/v1alpha1
kind: ProxyConfiguration
listeners: [{ name: main, address: '127.0.0.1:0', tls: { certFile: serving.crt, keyFile: serving.key } }]
authentication:
  clientCertificate: { caFile: ca.crt }
  serviceAccountToken: { issuers: [https://issuer], publicKeyFiles: [sa.pub] }
upstreams:
  servers: [{ name: local, url: 'https://127.0.0.1:1' }]
  tls: { caFile: ca.crt }
  forwardIdentity: { frontProxy: { certFile: front-proxy.crt, keyFile: front-proxy.key } }
breakGlass:
  address: 127.0.0.1:0
  clientCAFile: emergency.crt
  tls: { certFile: serving.crt, keyFile: serving.key }
metrics: { address: '127.0.0.1:0' }
state: { dir: state }
";
        fs::write(&config, text).unwrap();
        let mut files = vec![config];
        if !policy.is_empty() {
            let head = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: test\n";
            fs::write(self.path("policy.yaml"), format!("{head}{policy}")).unwrap();
            files.push(self.path("policy.yaml"));
        }
        Situation {
            loaded: config::load_with(&files, FileChecks::On),
            manifest: None,
            status: Some(Err("nobody".into())),
            socket: "/nowhere".into(),
            break_glass: None,
            expect_hash: None,
            files,
            now: crate::clock::wall(),
            window: Duration::from_millis(1),
        }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[track_caller]
fn expect(id: &str, situation: &Situation, verdict: Verdict, words: &str) {
    let check = CHECKS.iter().find(|check| check.id == id).unwrap();
    let found = check.look(situation);
    assert_eq!(found.verdict, verdict, "{id}: {found:?}");
    assert!(found.what.contains(words), "{id}: {words:?} is not in {found:?}");
    assert!(verdict == Verdict::Ok || !found.advice.is_empty(), "{id} says nothing to do: {found:?}");
}

#[test]
fn ids_are_distinct_and_grouped() {
    let ids: std::collections::BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), CHECKS.len());
    let mut groups: Vec<_> = CHECKS.iter().map(|check| check.group).collect();
    groups.dedup();
    let distinct: std::collections::BTreeSet<_> = groups.iter().collect();
    assert_eq!(distinct.len(), groups.len(), "a group stands together");
}

#[test]
fn a_good_installation_is_green_where_files_are_enough() {
    let place = Place::new();
    let situation = place.situation("");
    for check in
        CHECKS.iter().filter(|check| ["configuration", "certificates", "machine"].contains(&check.group))
    {
        let found = check.look(&situation);
        let fine = [Verdict::Ok, Verdict::Skipped].contains(&found.verdict) || check.id == "SPW-PRE-003";
        assert!(fine, "{}: {found:?}", check.id);
    }
}

#[test]
fn a_wrong_name_a_readable_key_and_a_strange_ca_are_found() {
    let place = Place::new();
    place.serving(&["10.0.0.12"]);
    expect(
        "SPW-TLS-001",
        &place.situation(""),
        Verdict::Failed,
        "is not for 127.0.0.1, where listener main is",
    );
    place.issue("serving", &authority("other"), &["127.0.0.1"]);
    expect("SPW-TLS-005", &place.situation(""), Verdict::Warning, "is not signed by");
    place.serving(&["127.0.0.1"]);
    fs::set_permissions(place.path("serving.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let situation = place.situation("");
    expect("SPW-TLS-003", &situation, Verdict::Failed, "SPW0605");
    expect("SPW-CFG-001", &situation, Verdict::Failed, "errors");
    expect("SPW-TLS-001", &situation, Verdict::Skipped, "invalid");
    place.serving(&["127.0.0.1"]);
    place.issue("front-proxy", &place.ca, &[]);
    expect("SPW-TLS-004", &place.situation(""), Verdict::Failed, "SPW0410");
}

#[test]
fn an_end_that_comes_near_is_found() {
    let place = Place::new();
    let mut situation = place.situation("");
    expect("SPW-TLS-002", &situation, Verdict::Ok, "the first to end");
    // rcgen's own certificates end in the year 4096.
    situation.now = SystemTime::UNIX_EPOCH + Duration::from_secs(67_090_000_000);
    let found = CHECKS.iter().find(|check| check.id == "SPW-TLS-002").unwrap().look(&situation);
    assert_ne!(found.verdict, Verdict::Ok, "{found:?}");
}

#[test]
fn a_policy_that_ranks_the_cluster_itself_too_low_is_found() {
    let place = Place::new();
    let low = "defaultRules: Omit\nrules: [{ name: rest, match: {}, lane: workload }]\n";
    expect(
        "SPW-CFG-003",
        &place.situation(low),
        Verdict::Warning,
        "a node's lease: workload, expected node-health",
    );
    expect("SPW-CFG-002", &place.situation(low), Verdict::Ok, "in no lane");
}

#[test]
fn configurations_are_told_apart_by_their_hash() {
    let place = Place::new();
    let mut situation = place.situation("");
    let hash = configuration::hash(&situation).unwrap();
    situation.expect_hash = Some(hash[..12].to_owned());
    expect("SPW-CFG-004", &situation, Verdict::Ok, "as expected");
    situation.expect_hash = Some(hash[..4].to_owned());
    expect("SPW-CFG-004", &situation, Verdict::Failed, "another configuration");
    fs::write(place.path("spillway.yaml"), "# changed\n").unwrap();
    situation.expect_hash = Some(hash[..12].to_owned());
    expect("SPW-CFG-004", &situation, Verdict::Failed, "another configuration");
}

#[test]
fn a_break_glass_credential_that_needs_a_provider_is_found() {
    let place = Place::new();
    let mut situation = place.situation("");
    expect("SPW-CFG-006", &situation, Verdict::Skipped, "no kubeconfig");
    let kubeconfig = "apiVersion: v1
kind: Config
current-context: x
clusters: [{ name: x, cluster: { server: 'https://10.0.0.11:6444' } }]
contexts: [{ name: x, context: { cluster: x, user: x } }]
users: [{ name: x, user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: login } } }]
";
    fs::write(place.path("kubeconfig"), kubeconfig).unwrap();
    situation.break_glass = Some(place.path("kubeconfig"));
    expect("SPW-CFG-006", &situation, Verdict::Failed, "kubeconfig");
}

#[test]
fn an_address_of_another_machine_and_a_port_that_is_taken_are_found() {
    let place = Place::new();
    let mut situation = place.situation("");
    expect("SPW-PRE-001", &situation, Verdict::Ok, "all of this machine");
    expect("SPW-PRE-002", &situation, Verdict::Ok, "free");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let loaded = situation.loaded.as_mut().unwrap();
    let proxy = loaded.proxy.as_mut().unwrap();
    proxy.listeners[0].address = taken;
    expect("SPW-PRE-002", &situation, Verdict::Failed, "taken by something on");
    let proxy = situation.loaded.as_mut().unwrap().proxy.as_mut().unwrap();
    proxy.upstreams.server.address.set_port(taken.port());
    expect("SPW-PRE-002", &situation, Verdict::Failed, "kube-apiserver, it seems");
    // TEST-NET-1 is nobody's.
    situation.loaded.as_mut().unwrap().proxy.as_mut().unwrap().listeners[0].address =
        "192.0.2.1:6443".parse().unwrap();
    expect("SPW-PRE-001", &situation, Verdict::Failed, "192.0.2.1:6443");
}

#[test]
fn an_apiserver_that_is_away_fails_once_and_skips_the_rest() {
    let place = Place::new();
    let situation = place.situation("");
    expect("SPW-API-001", &situation, Verdict::Failed, "127.0.0.1:1");
    for id in ["SPW-API-002", "SPW-API-003"] {
        expect(id, &situation, Verdict::Skipped, "gives no answer");
    }
    expect("SPW-API-005", &situation, Verdict::Skipped, "no spillway runs here");
}

fn manifest(place: &Path, flags: &[&str], host: &str) -> PathBuf {
    let command: String = flags.iter().map(|flag| format!("    - {flag}\n")).collect();
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: kube-apiserver }}
spec:
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.34.1
    command:
    - kube-apiserver
{command}    livenessProbe: {{ httpGet: {{ host: {host}, path: /livez, port: 1 }} }}
"
    );
    let file = place.join("kube-apiserver.yaml");
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_manifest_that_an_upgrade_wrote_anew_is_found() {
    let place = Place::new();
    let mut situation = place.situation("");
    situation.loaded.as_mut().unwrap().proxy.as_mut().unwrap().listeners[0].address =
        "10.0.0.11:1".parse().unwrap();
    let good = [
        "--bind-address=127.0.0.1",
        "--advertise-address=10.0.0.11",
        "--secure-port=1",
        "--service-account-issuer=https://issuer",
        "--requestheader-client-ca-file=/pki/front-proxy-ca.crt",
    ];
    situation.manifest = Some(manifest(place.dir.path(), &good, "127.0.0.1"));
    for id in ["SPW-KAD-001", "SPW-KAD-002", "SPW-KAD-003", "SPW-KAD-004"] {
        expect(id, &situation, Verdict::Ok, "");
    }
    situation.manifest = Some(manifest(place.dir.path(), &good[1..], "10.0.0.11"));
    expect("SPW-KAD-001", &situation, Verdict::Failed, "--bind-address is 0.0.0.0");
    expect("SPW-KAD-002", &situation, Verdict::Failed, "livenessProbe");
    for (flags, words) in [
        (vec!["--secure-port=6443"], "--secure-port=6443"),
        (vec!["--bind-address=127.0.0.1", "--secure-port=1"], "no --advertise-address"),
        (
            vec!["--bind-address=127.0.0.1", "--advertise-address=10.0.0.12", "--secure-port=1"],
            "no listener is there",
        ),
    ] {
        situation.manifest = Some(manifest(place.dir.path(), &flags, "127.0.0.1"));
        expect("SPW-KAD-001", &situation, Verdict::Failed, words);
    }
    let other = ["--service-account-issuer=https://other", "--client-ca-file=/pki/other-ca.crt"];
    situation.manifest = Some(manifest(place.dir.path(), &other, "127.0.0.1"));
    expect("SPW-KAD-003", &situation, Verdict::Failed, "https://other is none of");
    fs::write(place.path("kube-apiserver.yaml"), "{").unwrap();
    expect("SPW-KAD-001", &situation, Verdict::Failed, "is not YAML");
    situation.manifest = None;
    expect("SPW-KAD-001", &situation, Verdict::Skipped, "no static pod");
}

#[test]
fn what_runs_is_judged_by_what_it_says() {
    let place = Place::new();
    let mut situation = place.situation("");
    expect("SPW-RUN-001", &situation, Verdict::Failed, "nobody");
    expect("SPW-RUN-002", &situation, Verdict::Skipped, "nobody answers");
    let well = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        ready: true,
        upstream_up: true,
        state: "normal".into(),
        kept: crate::admin::wire::Kept { on_disk: true, problem: String::new() },
        ..Status::default()
    };
    let with = |status: Status| Situation { status: Some(Ok(status)), ..place.situation("") };
    for id in ["SPW-RUN-001", "SPW-RUN-002", "SPW-RUN-003", "SPW-RUN-004", "SPW-RUN-005", "SPW-PRE-002"] {
        expect(id, &with(well.clone()), Verdict::Ok, "");
    }
    situation = with(Status {
        version: "9.9.9".into(),
        upstream_up: false,
        state: "brown".into(),
        diagnosis: "obs/agent takes 94 % of the work".into(),
        kept: crate::admin::wire::Kept::default(),
        lockdown: Some(crate::admin::wire::LeverView { reason: "INC-481".into(), ..Default::default() }),
        ..well.clone()
    });
    expect("SPW-RUN-001", &situation, Verdict::Warning, "9.9.9");
    expect("SPW-RUN-002", &situation, Verdict::Failed, "does not answer");
    expect("SPW-RUN-003", &situation, Verdict::Warning, "obs/agent");
    expect("SPW-RUN-004", &situation, Verdict::Warning, "survive");
    expect("SPW-RUN-005", &situation, Verdict::Warning, "INC-481");
    expect("SPW-RUN-002", &with(Status { ready: false, ..well }), Verdict::Failed, "not ready");
}
