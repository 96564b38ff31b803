//! What does an operator read whose configuration is wrong, and does anything run then?
//!
//! Each case changes one thing in a configuration that works, and compares what is printed with a text in
//! `tests/golden/bad_input/`. `SPILLWAY_UPDATE_GOLDEN=1` writes the texts anew; read them before committing: they are the
//! product at its least convenient moment.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
// And a test bed measures real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeSet,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{Caller, Protocol, block_on, get},
    cluster::{Credential, POLL, Pair, Pki, free_port, wait_for},
    spillway::{BINARY, CLUSTER, needs_spillway},
};

/// From start to a complaint.
const PATIENCE: Duration = Duration::from_secs(30);
/// "The configuration or a file it names is wrong; nothing was started."
const CONFIG: i32 = 3;

/// A folder with a configuration that works as soon as a kube-apiserver does, and the ports it names.
struct Desk {
    dir: tempfile::TempDir,
    ports: [u16; 4],
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Pki::create(dir.path());
        Self { dir, ports: [(); 4].map(|()| free_port()) }
    }

    /// The same with the certificates, and the address, of a real cluster.
    fn before_the_cluster() -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(CLUSTER.paths.dir.join("pki"), dir.path().join("pki")).unwrap();
        let ports = [free_port(), free_port(), free_port(), CLUSTER.apiserver_addr().port()];
        Self { dir, ports }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `text` with this desk's ports in it.
    fn write(&self, name: &str, text: &str) {
        let text = self.ports.iter().enumerate().fold(text.to_owned(), |text, (number, port)| {
            text.replace(&format!("PORT{number}"), &port.to_string())
        });
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes the configuration with one thing changed.
    fn change(&self, from: &str, to: &str) {
        assert_eq!(GOOD.matches(from).count(), 1, "the test changes one thing: {from}");
        self.write("spillway.yaml", &GOOD.replace(from, to));
    }

    fn start(&self, more: &[&str]) -> Child {
        let output = |name: &str| fs::File::create(self.path(name)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--config", "spillway.yaml"]).args(more).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
        command.spawn().unwrap()
    }

    /// What it has said so far.
    fn text(&self, output: &str) -> String {
        fs::read_to_string(self.path(output)).unwrap()
    }

    /// Runs spillway to its end, which must be a refusal that begins nothing, and compares its words.
    fn refused(&self, golden: &str, more: &[&str]) {
        let taken: Vec<_> = self.addresses().filter(|at| TcpStream::connect(at).is_ok()).collect();
        let mut child = self.start(more);
        let mut begun = Vec::new();
        let ended = Ended::when(&mut child, || {
            let free = self.addresses().filter(|at| !taken.contains(at));
            begun.extend(free.filter(|at| TcpStream::connect(at).is_ok()));
            None::<()>
        });
        let Ended::With(status) = ended else {
            panic!(
                "{golden}: expected a refusal within {PATIENCE:?}:\n{}{}",
                self.text("stdout"),
                self.text("stderr")
            )
        };
        assert_eq!(status.code(), Some(CONFIG), "{golden}: {}", self.text("stderr"));
        assert_eq!(self.text("stdout"), "", "{golden}: it says that it has begun");
        assert_eq!(begun, [], "{golden}: somebody could connect before it gave up");
        for at in self.addresses().filter(|at| !taken.contains(at)) {
            drop(TcpListener::bind(at).unwrap_or_else(|e| panic!("{golden}: {at} is still taken: {e}")));
        }
        self.compare(golden, &self.text("stderr"));
    }

    /// Where spillway was to listen.
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports[..3].iter().map(|&port| (Ipv4Addr::LOCALHOST, port).into())
    }

    fn compare(&self, golden: &str, said: &str) {
        let said = self.ports.iter().enumerate().fold(said.to_owned(), |text, (number, port)| {
            text.replace(&port.to_string(), &format!("PORT{number}"))
        });
        let said = said.replace(&self.dir.path().display().to_string(), "DIR");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/bad_input/{golden}.txt"));
        if env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &said).unwrap();
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(said, wanted, "{golden}: what it says (left) and {}", file.display());
    }
}

/// What came first.
enum Ended<T> {
    /// The process ended.
    With(ExitStatus),
    /// What was looked for.
    Other(T),
    /// The end of patience; the process was killed.
    Late,
}

impl<T> Ended<T> {
    fn when(child: &mut Child, mut look: impl FnMut() -> Option<T>) -> Self {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return Self::With(status);
            }
            if let Some(found) = look() {
                return Self::Other(found);
            }
            std::thread::sleep(POLL);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        Self::Late
    }
}

/// Errors in this text: what is one mistake must be one error.
fn errors(golden: &str) -> usize {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/bad_input/{golden}.txt"));
    fs::read_to_string(file).unwrap().lines().filter(|line| line.starts_with("error")).count()
}

#[test]
fn mistakes_in_the_configuration() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::new();
    let cases = [
        ("unknown_key", "metrics: { address: ", "metrics: { adress: "),
        ("missing_key_file", "keyFile: pki/serving.key }\n    http2", "keyFile: pki/gone.key }\n    http2"),
        (
            "key_of_another_certificate",
            "keyFile: pki/serving.key }\n    http2",
            "keyFile: pki/admin.key }\n    http2",
        ),
        ("missing_front_proxy_certificate", "certFile: pki/front-proxy-client.crt", "certFile: pki/gone.crt"),
        ("not_a_ca", "tls: { caFile: pki/server-ca.crt }", "tls: { caFile: pki/server-ca.key }"),
        (
            "upstream_by_name",
            "url: \"https://127.0.0.1:PORT3\"",
            "url: \"https://kubernetes.default.svc:443\"",
        ),
        ("not_yaml", "authentication:\n", "authentication: }\n"),
        (
            "two_mistakes",
            "http2: { maxConcurrentStreams: 250 }",
            "http2: { maxConcurrentStreams: many }\n    tsl: {}",
        ),
    ];
    for (golden, from, to) in cases {
        desk.change(from, to);
        desk.refused(golden, &[]);
        assert_eq!(errors(golden), if golden == "two_mistakes" { 2 } else { 1 }, "errors in {golden}.txt");
    }
    desk.write("spillway.yaml", "");
    desk.refused("empty_configuration", &[]);
    fs::remove_file(desk.path("spillway.yaml")).unwrap();
    desk.refused("missing_configuration", &[]);
}

/// Rows B12 and "bad input": what would make every client an administrator, or every process a client.
#[test]
fn b12_circles_of_trust_that_touch_and_keys_that_others_may_read() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::new();
    let pair = |name: &str| format!("certFile: pki/{name}.crt\n      keyFile: pki/{name}.key");
    let cases = [
        ("front_proxy_of_the_client_ca", pair("front-proxy-client"), pair("alice")),
        ("front_proxy_of_the_break_glass_ca", pair("front-proxy-client"), pair("break-glass")),
        (
            "break_glass_of_the_client_ca",
            "clientCAFile: pki/break-glass-ca.crt".to_owned(),
            "clientCAFile: pki/copy.crt".to_owned(),
        ),
    ];
    fs::copy(desk.path("pki/client-ca.crt"), desk.path("pki/copy.crt")).unwrap();
    for (golden, from, to) in &cases {
        desk.change(from, to);
        desk.refused(golden, &[]);
        assert_eq!(errors(golden), 1, "errors in {golden}.txt");
    }
    desk.write("spillway.yaml", GOOD);
    fs::set_permissions(desk.path("pki/front-proxy-client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    desk.refused("exposed_key", &[]);
    assert_eq!(errors("exposed_key"), 1);
}

#[test]
fn mistakes_in_the_policy() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::new();
    desk.write("spillway.yaml", GOOD);
    desk.refused("missing_policy", &["--policy", "policy.yaml"]);
    fs::create_dir(desk.path("policies")).unwrap();
    desk.refused("unreadable_policy", &["--policy", "policies"]);
    desk.write("policy.yaml", POLICY);
    desk.refused("unknown_lane", &["--policy", "policy.yaml"]);
    fs::write(desk.path("policy.yaml"), b"apiVersion: \xff\xfe").unwrap();
    desk.refused("policy_of_other_bytes", &["--policy", "policy.yaml"]);
    for golden in ["missing_policy", "unreadable_policy", "unknown_lane", "policy_of_other_bytes"] {
        assert_eq!(errors(golden), 1, "errors in {golden}.txt");
    }
}

#[test]
fn ports_that_somebody_else_has() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::new();
    desk.write("spillway.yaml", GOOD);
    for (golden, port) in
        [("main_port_in_use", 0), ("metrics_port_in_use", 1), ("break_glass_port_in_use", 2)]
    {
        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, desk.ports[port])).unwrap();
        desk.refused(golden, &[]);
        assert_eq!(errors(golden), 1, "errors in {golden}.txt");
        drop(somebody);
    }
}

/// With the wrong CA no request can ever be forwarded: that is a mistake in the configuration, not an apiserver that
/// is away, and is said at once instead of to each client.
#[test]
fn a_ca_that_did_not_sign_the_apiserver() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::before_the_cluster();
    desk.change("tls: { caFile: pki/server-ca.crt }", "tls: { caFile: pki/wrong-ca.crt }");
    desk.refused("wrong_upstream_ca", &[]);
    desk.change(
        "tls: { caFile: pki/server-ca.crt }",
        "tls: { caFile: pki/server-ca.crt, serverName: other.example.com }",
    );
    desk.refused("wrong_upstream_name", &[]);
    for golden in ["wrong_upstream_ca", "wrong_upstream_name"] {
        assert_eq!(errors(golden), 1, "errors in {golden}.txt");
    }
}

/// spillway has to be able to start before the apiserver does.
#[test]
fn an_apiserver_that_is_away_is_no_mistake() {
    if !needs_spillway() {
        return;
    }
    let desk = Desk::new();
    desk.write("spillway.yaml", GOOD);
    let mut child = desk.start(&[]);
    let started = Ended::when(&mut child, || {
        let started = desk.addresses().all(|at| TcpStream::connect(at).is_ok());
        if started { Some(()) } else { None }
    });
    assert!(matches!(started, Ended::Other(())), "it did not start: {}", desk.text("stderr"));

    let admin =
        Credential::Certificate(Pair { cert: desk.path("pki/admin.crt"), key: desk.path("pki/admin.key") });
    let main = desk.addresses().next().unwrap();
    let caller = Caller::new(main, &desk.path("pki/server-ca.crt"), &admin);
    block_on(async {
        for (path, status, reason) in [
            ("/api/v1/pods", 503, "ServiceUnavailable"),
            // A reflector that is told anything but 429 lists everything again.
            ("/api/v1/pods?watch=1", 429, "TooManyRequests"),
        ] {
            let answer = caller.ask(Protocol::Http2, get(path)).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert_eq!(answer.json()["reason"], reason, "{path}");
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{path}");
        }
    });
    let said = wait_for("the log to say that the apiserver is away", PATIENCE, || {
        let log = desk.text("stderr");
        let said: Vec<_> =
            log.lines().filter(|line| line.contains("the apiserver does not answer")).collect();
        if said.is_empty() { Err(log) } else { Ok(said.join("\n")) }
    });
    // Each probe says it once; how many have got to it by now depends on the machine.
    let probe = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["probe"].as_str().expect("it says which").to_owned()
    };
    let probes: BTreeSet<_> = said.lines().map(probe).collect();
    assert!(
        probes.len() == said.lines().count() && said.lines().all(|line| line.contains("onnection refused")),
        "not once by each probe, or without its cause: {said}"
    );
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    match Ended::when(&mut child, || None::<()>) {
        Ended::With(status) => assert_eq!(status.code(), Some(0), "{}", desk.text("stderr")),
        _ => panic!("expected the end within {PATIENCE:?}: {}", desk.text("stderr")),
    }
}

const GOOD: &str = r#"apiVersion: config.spillway.dev/v1alpha1
kind: ProxyConfiguration
listeners:
  - name: main
    address: 127.0.0.1:PORT0
    tls: { certFile: pki/serving.crt, keyFile: pki/serving.key }
    http2: { maxConcurrentStreams: 250 }
authentication:
  clientCertificate: { caFile: pki/client-ca.crt }
  serviceAccountToken: { issuers: [https://kubernetes.default.svc], publicKeyFiles: [pki/service-account.crt] }
upstreams:
  servers:
    - { name: local, url: "https://127.0.0.1:PORT3" }
  tls: { caFile: pki/server-ca.crt }
  forwardIdentity:
    frontProxy:
      certFile: pki/front-proxy-client.crt
      keyFile: pki/front-proxy-client.key
metrics: { address: "127.0.0.1:PORT1" }
breakGlass:
  address: 127.0.0.1:PORT2
  tls: { certFile: pki/serving.crt, keyFile: pki/serving.key }
  clientCAFile: pki/break-glass-ca.crt
admin: { socket: None }
"#;

const POLICY: &str = "apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: mistaken
rules:
  - name: agents
    match: { serviceAccountNamespaces: [agents] }
    lane: telemtry
";
