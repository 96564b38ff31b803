//! What a test talks to: spillway in front of the cluster's kube-apiserver, or that server itself.
//!
//! With `SPILLWAY_TEST_DIRECT=1` the tests talk to kube-apiserver itself: what fails then is the test, not spillway.
//! Tests of what only spillway has ask [`needs_spillway`] first. `SPILLWAY_TEST_RUNTIME=Shared` runs them all on the other
//! kind of runtime.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used, clippy::print_stderr)]

use std::{
    env,
    io::{Error, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    cluster::{Cluster, ClusterOptions, Credential, Front, tail},
};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spillway");

/// The cluster of all tests that neither stop kube-apiserver nor need it undisturbed. Its processes end with this one.
pub(crate) static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start(ClusterOptions { audit: true, fake_kubelet: true, ..Default::default() })
});

/// The target of all tests that neither stop spillway nor need settings of their own.
pub(crate) static TARGET: LazyLock<Target> = LazyLock::new(|| Target::start(&CLUSTER, None, |_| ()));

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
    pub(crate) fn start(cluster: &Cluster, policy: Option<&str>, change: impl FnOnce(&mut Value)) -> Self {
        if is_direct() {
            Self::direct(cluster)
        } else {
            Self::Spillway(Box::new(Spillway::start(cluster, policy, change)))
        }
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
            Self::Spillway(spillway) => spillway.log(),
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
    pub(crate) break_glass: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// The admin socket.
    pub(crate) socket: PathBuf,
    /// The dashboard's socket.
    pub(crate) page: PathBuf,
    ca: PathBuf,
    front: Mutex<Front>,
}

impl Spillway {
    /// How long the metrics listener may take to answer.
    const ANSWER: Duration = Duration::from_secs(30);

    /// Ready when this returns. `change` may edit the configuration first.
    pub(crate) fn start(cluster: &Cluster, policy: Option<&str>, change: impl FnOnce(&mut Value)) -> Self {
        let front = cluster.start_front(Path::new(BINARY), policy, |config| {
            config["logging"] = json!({"format": "Text", "level": "Info", "access": "Shed"});
            // All tests come from one address, and some offend on purpose: nobody is slowed down for it.
            config["limits"] = json!({"connectionsPerSource": 10_000});
            if let Ok(mode) = env::var("SPILLWAY_TEST_RUNTIME") {
                config["runtime"] = json!({"mode": mode});
            }
            change(config);
        });
        Self {
            main: front.main,
            break_glass: front.break_glass,
            metrics: front.metrics,
            socket: front.socket.clone(),
            page: front.page.clone(),
            ca: cluster.paths.server_ca.cert.clone(),
            front: Mutex::new(front),
        }
    }

    /// The raw client of `who` for the main listener.
    pub(crate) fn caller(&self, who: &Credential) -> Caller {
        Caller::new(self.main, &self.ca, who)
    }

    /// The raw client of `who` for the break-glass listener.
    pub(crate) fn break_glass_caller(&self, who: &Credential) -> Caller {
        Caller::new(self.break_glass, &self.ca, who)
    }

    /// Asks it to end, as a kubelet does.
    pub(crate) fn terminate(&self) {
        self.front().process.signal(Signal::TERM);
    }

    /// Ends it at once, as the OOM killer does.
    pub(crate) fn kill(&self) {
        self.front().process.signal(Signal::KILL);
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.front().process.ended()
    }

    /// Status and body of a GET from the metrics listener.
    pub(crate) fn metrics_page(&self, path: &str) -> std::io::Result<(u16, String)> {
        page(self.metrics, path, Self::ANSWER)
    }

    /// The end of its log, for a failure's text.
    pub(crate) fn log(&self) -> String {
        format!("the end of spillway's log:\n{}", tail(&self.front().process.log))
    }

    /// All of its log.
    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(&self.front().process.log).unwrap_or_default()
    }

    /// Panics when a secret of the tests stands in anything that it shows to people.
    pub(crate) fn keeps_secrets(&self) {
        self.front().keeps_secrets();
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Status and body of a GET over plain HTTP.
pub(crate) fn page(address: SocketAddr, path: &str, patience: Duration) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status.ok_or_else(|| Error::other(format!("not an HTTP answer: {answer}")))?, body.into()))
}
