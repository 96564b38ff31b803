//! What a test talks to: spillway in front of the cluster's kube-apiserver, or that server itself.
//!
//! The handle writes a configuration, starts the real binary, learns its addresses from what it prints, and waits
//! until `/readyz` is answered through it. With `SPILLWAY_TEST_DIRECT=1` the tests talk to kube-apiserver itself: what
//! fails then is the test, not spillway. Tests of what only spillway has begin with [`needs_spillway`].

// The test bed measures real time, and says what it expected by panicking.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    cluster::{Cluster, ClusterOptions, Credential, Process, tail, wait_for},
};

/// How long spillway may take to answer `/readyz`, on a busy machine. It takes far less than a second on a calm one.
const READY: Duration = Duration::from_secs(60);

/// The cluster of all tests that neither stop kube-apiserver nor need it undisturbed. Its processes end with this one.
pub(crate) static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::start(ClusterOptions { audit: true, fake_kubelet: true, ..Default::default() }));

/// The target of all tests that neither stop spillway nor need settings of their own.
pub(crate) static TARGET: LazyLock<Target> = LazyLock::new(|| Target::start(&CLUSTER, Options::default()));

/// What differs from one test's spillway to the next.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// A `TrafficPolicy`; the embedded one when `None`.
    pub(crate) policy: Option<String>,
    /// From SIGTERM to the end.
    pub(crate) drain_seconds: u32,
    /// Most client connections of the main listener.
    pub(crate) connections: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { policy: None, drain_seconds: 5, connections: 10_000 }
    }
}

/// See the top of the file.
pub(crate) enum Target {
    Direct { address: SocketAddr, ca: PathBuf },
    Spillway(Box<Spillway>),
}

impl Target {
    /// kube-apiserver itself.
    pub(crate) fn direct(cluster: &Cluster) -> Self {
        Self::Direct { address: cluster.apiserver_addr(), ca: cluster.paths.server_ca.cert.clone() }
    }

    /// Spillway in front of `cluster`, unless the tests themselves are being tested.
    pub(crate) fn start(cluster: &Cluster, options: Options) -> Self {
        if is_direct() { Self::direct(cluster) } else { Self::Spillway(Box::new(Spillway::start(cluster, &options))) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Direct { address, .. } => *address,
            Self::Spillway(spillway) => spillway.main,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The CA of the certificate that clients see.
    pub(crate) fn ca(&self) -> &Path {
        match self {
            Self::Direct { ca, .. } => ca,
            Self::Spillway(spillway) => &spillway.ca,
        }
    }

    /// A kubeconfig of `who` for this target.
    pub(crate) fn kubeconfig(&self, cluster: &Cluster, who: &Credential) -> PathBuf {
        cluster.kubeconfig_for(who, &self.url(), self.ca())
    }

    /// The raw client of `who` for this target.
    pub(crate) fn caller(&self, who: &Credential) -> Caller {
        Caller::new(self.address(), self.ca(), who)
    }

    /// Watches that one HTTP/2 connection may have open beside a few requests: spillway allows 250 streams,
    /// kube-apiserver 100.
    pub(crate) fn watches_per_connection(&self) -> usize {
        match self {
            Self::Direct { .. } => 80,
            Self::Spillway(_) => 200,
        }
    }

    /// The end of spillway's log, for a failure's text.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Direct { .. } => "no spillway in this run".into(),
            Self::Spillway(spillway) => format!("the end of spillway's log:\n{}", tail(&spillway.log)),
        }
    }
}

/// Whether the tests themselves are being tested.
pub(crate) fn is_direct() -> bool {
    env::var_os("SPILLWAY_TEST_DIRECT").is_some_and(|value| !value.is_empty())
}

/// Whether to go on; false, with a line of explanation, when there is no spillway to test.
pub(crate) fn needs_spillway() -> bool {
    if is_direct() {
        eprintln!("skipped: SPILLWAY_TEST_DIRECT is set, and this is about spillway alone");
    }
    !is_direct()
}

/// A running `spillway run`. Dropping it stops it.
pub(crate) struct Spillway {
    pub(crate) main: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) break_glass: SocketAddr,
    pub(crate) log: PathBuf,
    ca: PathBuf,
    process: Mutex<Process>,
}

impl Spillway {
    /// Ready when this returns.
    pub(crate) fn start(cluster: &Cluster, options: &Options) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("spillway-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let file = |kind: &str, text: &str| {
            let path = cluster.paths.dir.join(format!("{name}-{kind}.yaml"));
            fs::write(&path, text).expect("configuration is written");
            path
        };
        let mut command = command();
        command.arg("run").arg("--config").arg(file("config", &configuration(cluster, options).to_string()));
        if let Some(policy) = &options.policy {
            command.arg("--policy").arg(file("policy", policy));
        }
        let mut process = cluster.run(&name, command);
        let log = process.log.clone();
        let [main, metrics, break_glass] = wait_for("spillway to print its addresses", READY, || {
            process.alive()?;
            let text = fs::read_to_string(&log).map_err(|e| e.to_string())?;
            let address = |name| printed(&text, name).ok_or_else(|| format!("no line `{name} ADDRESS` in:\n{text}"));
            Ok([address("main")?, address("metrics")?, address("break-glass")?])
        });
        let ca = cluster.paths.server_ca.cert.clone();
        let spillway = Self { main, metrics, break_glass, log, ca, process: Mutex::new(process) };
        spillway.wait_ready(cluster);
        spillway
    }

    fn wait_ready(&self, cluster: &Cluster) {
        let admin = cluster.kubeconfig_for(&cluster.admin(), &format!("https://{}", self.main), &self.ca);
        wait_for("/readyz through spillway", READY, || {
            self.process().alive()?;
            let answer = cluster.kubectl(&admin, &["get", "--raw", "/readyz"]);
            let why = || format!("{}\n{}", String::from_utf8_lossy(&answer.stderr), tail(&self.log));
            if answer.status.success() { Ok(()) } else { Err(why()) }
        });
    }

    /// Asks it to end, as a kubelet does.
    pub(crate) fn terminate(&self) {
        self.process().signal(Signal::TERM);
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.process().ended()
    }

    /// The body of a GET from the metrics listener, and its status.
    pub(crate) fn metrics_page(&self, path: &str) -> std::io::Result<(u16, String)> {
        use std::io::{Error, Read, Write};
        let mut socket = std::net::TcpStream::connect(self.metrics)?;
        socket.set_read_timeout(Some(READY))?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.metrics)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok((status.ok_or_else(|| Error::other(format!("not an HTTP answer: {answer}")))?, body.into()))
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The binary under test, ready for arguments.
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_spillway"))
}

/// The address in a line `NAME ADDRESS`.
fn printed(text: &str, name: &str) -> Option<SocketAddr> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A `ProxyConfiguration` for `cluster` on ports of the kernel's choice. JSON is YAML, and can be changed by key.
pub(crate) fn configuration(cluster: &Cluster, options: &Options) -> Value {
    let paths = &cluster.paths;
    let serving = json!({"certFile": paths.serving.cert, "keyFile": paths.serving.key});
    json!({
        "apiVersion": "config.spillway.dev/v1alpha1",
        "kind": "ProxyConfiguration",
        "listeners": [{"name": "main", "address": "127.0.0.1:0", "tls": serving}],
        "limits": {"connections": options.connections, "connectionsPerSource": options.connections},
        "authentication": {
            "clientCertificate": {"caFile": paths.client_ca.cert},
            "serviceAccountToken": {
                "issuers": ["https://kubernetes.default.svc.cluster.local"],
                "publicKeyFiles": [paths.service_account.cert],
            },
        },
        "upstreams": {
            "servers": [{"name": "local", "url": cluster.url()}],
            "tls": {"caFile": paths.server_ca.cert, "serverName": "kubernetes"},
            "forwardIdentity": {
                "frontProxy": {
                    "certFile": paths.front_proxy_client.cert,
                    "keyFile": paths.front_proxy_client.key,
                },
            },
        },
        "breakGlass": {
            "address": "127.0.0.1:0",
            "tls": serving,
            "clientCaFile": paths.break_glass_ca.cert,
        },
        "metrics": {"address": "127.0.0.1:0"},
        "logging": {"format": "Text", "level": "info", "access": "Shed"},
        "drain": {"gracePeriod": format!("{}s", options.drain_seconds)},
    })
}
