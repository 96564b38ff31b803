//! A real Kubernetes control plane for tests: etcd and kube-apiserver on loopback ports, ready in a few seconds, and on
//! demand controller manager, scheduler, kubelets over a fake runtime, and one kubelet that streams.
//!
//! The programs are built once by `tests/cluster/build.sh` (Go 1.24 or newer). Everything here is blocking, so a test
//! may use it from any runtime, and panics with the end of the log when a program does not do what was expected.
//!
//! ```text
//! let cluster = Cluster::start(ClusterOptions::default());
//! let alice = cluster.kubeconfig_for(&cluster.alice(), &cluster.url(), &cluster.paths.server_ca.cert);
//! cluster.kubectl_ok(&alice, &["get", "pods", "-A"]);
//! ```
//!
//! The parts that talk to the apiserver can be pointed at any URL: at the server, or at spillway in front of it.
//! `SPILLWAY_KEEP=1` leaves the directory with keys, logs and kubeconfigs behind.

// Two binaries share this module, and neither uses all of it.
#![allow(dead_code)]
// A test bed measures real time, and says what it expected by panicking.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

pub(crate) mod canary;
mod client;
mod front;
mod parts;
mod pki;
mod process;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

#[allow(unused_imports)]
pub(crate) use self::{
    client::Credential,
    front::Front,
    parts::{FAKE_NODE, FAKE_POD},
    pki::{Pair, Paths, Pki},
    process::{Guardian, POLL, Process, free_port, tail, wait_for},
};
use process::{FAREWELL, stop_all};

/// How long etcd and kube-apiserver may take, on a busy machine.
const READY: Duration = Duration::from_secs(90);

/// What the cluster consists of from the start. The same parts can be started later, against any URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterOptions {
    /// Cores for etcd and kube-apiserver (`taskset`), so that a storm hurts. All cores when `None`.
    pub(crate) cpus: Option<Vec<usize>>,
    /// More flags for kube-apiserver. They come last, so they win.
    pub(crate) apiserver_flags: Vec<String>,
    /// More environment for kube-apiserver: `GOMAXPROCS`, `GOMEMLIMIT`.
    pub(crate) apiserver_env: Vec<(String, String)>,
    /// Write an audit log of every request, level Metadata, stages RequestReceived and ResponseComplete.
    pub(crate) audit: bool,
    pub(crate) with_controllers: bool,
    pub(crate) with_scheduler: bool,
    pub(crate) hollow_nodes: usize,
    pub(crate) fake_kubelet: bool,
}

/// A running control plane. Dropping it stops every program it started and removes its directory.
pub(crate) struct Cluster {
    pub(crate) paths: Paths,
    pub(crate) pki: Pki,
    options: ClusterOptions,
    apiserver_port: u16,
    etcd_port: u16,
    hollow_started: Mutex<usize>,
    // Dropped in this order: programs, their guardian, their directory.
    processes: Mutex<Vec<Process>>,
    guardian: Guardian,
    _dir: Option<TempDir>,
}

impl Cluster {
    /// etcd and kube-apiserver are ready when this returns, and so is what `options` asks for besides (nodes may
    /// still be on their way to Ready: [`Cluster::wait_nodes_ready`]).
    pub(crate) fn start(options: ClusterOptions) -> Self {
        binaries();
        let parent = Path::new("/dev/shm");
        let parent = if parent.is_dir() { parent.into() } else { env::temp_dir() };
        let temporary = tempfile::Builder::new()
            .prefix("spillway-cluster-")
            .tempdir_in(parent)
            .expect("temporary directory");
        let (dir, kept) = if env::var_os("SPILLWAY_KEEP").is_some() {
            (temporary.keep(), None)
        } else {
            (temporary.path().to_path_buf(), Some(temporary))
        };

        let (pki, paths) = Pki::create(&dir);
        let cluster = Self {
            guardian: Guardian::start(kept.is_some().then_some(&*dir)),
            apiserver_port: free_port(),
            etcd_port: free_port(),
            hollow_started: Mutex::new(0),
            processes: Mutex::default(),
            paths,
            pki,
            options,
            _dir: kept,
        };
        cluster.start_etcd();
        cluster.start_apiserver();
        cluster.apply(BINDINGS);
        // As an operator would: what spillway's own probes need.
        cluster.apply(include_str!("../../../deploy/probe.yaml"));
        // And what people with break-glass certificates need.
        cluster.apply(include_str!("../../../deploy/break-glass/rbac.yaml"));
        cluster.start_optional_parts();
        cluster
    }

    fn start_optional_parts(&self) {
        let (url, ca) = (self.url(), self.paths.server_ca.cert.clone());
        if self.options.with_controllers {
            self.start_controllers(&url, &ca);
        }
        if self.options.with_scheduler {
            self.start_scheduler(&url, &ca);
        }
        if self.options.hollow_nodes > 0 {
            self.start_hollow_nodes(self.options.hollow_nodes, &url, &ca);
        }
        if self.options.fake_kubelet {
            self.start_fake_kubelet();
        }
    }

    /// Where kube-apiserver itself listens.
    pub(crate) fn apiserver_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.apiserver_port).into()
    }

    /// Where etcd listens for its clients, without TLS.
    pub(crate) fn etcd_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.etcd_port).into()
    }

    /// `https://127.0.0.1:PORT` of kube-apiserver itself.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.apiserver_addr())
    }

    /// The audit log, one JSON event a line, when the options asked for it.
    pub(crate) fn audit_log(&self) -> Option<PathBuf> {
        self.options.audit.then(|| self.paths.dir.join("audit.log"))
    }

    /// Starts any program as a part of this cluster: in its process group, its output in `logs/NAME.log`, stopped when
    /// the returned guard is dropped and at the latest with the cluster's process.
    pub(crate) fn run(&self, name: &str, command: Command) -> Process {
        Process::start(name, command, &self.paths.logs, &self.guardian)
    }

    /// Stops all parts of this name (`etcd`, `apiserver`, `controllers`, `scheduler`, `hollow-0`, `fake-kubelet`).
    pub(crate) fn stop(&self, name: &str) {
        let mut processes = self.processes();
        let (mut gone, stay) = processes.drain(..).partition::<Vec<_>, _>(|p| p.name == name);
        *processes = stay;
        drop(processes);
        assert!(!gone.is_empty(), "expected a running part called {name}");
        stop_all(&mut gone, FAREWELL);
    }

    /// Sends a signal to the part: `STOP` and `CONT` freeze and thaw it, `KILL` plays the OOM killer.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        let mut processes = self.processes();
        let part = processes.iter_mut().find(|p| p.name == name);
        part.unwrap_or_else(|| panic!("expected a running part called {name}")).signal(signal);
    }

    /// The process id of a part, for `/proc`.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.processes().iter().find(|p| p.name == name).map(Process::id)
    }

    /// Starts kube-apiserver and waits until it is ready. Public because a test may [`Cluster::stop`] it and start it
    /// again: it keeps its port.
    pub(crate) fn start_apiserver(&self) {
        self.launch_apiserver();
        self.wait_listening("apiserver", self.apiserver_addr());

        let admin = self.admin_kubeconfig();
        wait_for("kube-apiserver to be ready", READY, || {
            self.alive("apiserver");
            let ready = self.kubectl(&admin, &["get", "--raw", "/readyz"]);
            if ready.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ready.stderr).into()) }
        });
    }

    /// Starts kube-apiserver and leaves it to itself.
    pub(crate) fn launch_apiserver(&self) {
        let mut command = self.pinned("kube-apiserver");
        command.args(self.apiserver_flags()).args(&self.options.apiserver_flags);
        command.envs(self.options.apiserver_env.iter().map(|(k, v)| (k, v)));
        self.keep("apiserver", command);
    }

    fn start_etcd(&self) {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = self.pinned("etcd");
        command.arg("--data-dir").arg(self.paths.dir.join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args([
            "--initial-cluster",
            &format!("default={peer}"),
            "--quota-backend-bytes",
            "8589934592",
        ]);
        // Nothing here outlives the process, so waiting for the disk buys nothing.
        command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
        self.keep("etcd", command);
        self.wait_listening("etcd", (Ipv4Addr::LOCALHOST, self.etcd_port).into());
    }

    fn apiserver_flags(&self) -> Vec<String> {
        let paths = &self.paths;
        let mut flags: Vec<String> = APISERVER_FLAGS.iter().map(|&flag| flag.into()).collect();
        let mut add = |name: &str, value: &dyn std::fmt::Display| flags.push(format!("--{name}={value}"));
        let mut file = |name: &str, path: &Path| add(name, &path.display());
        file("tls-cert-file", &paths.serving.cert);
        file("tls-private-key-file", &paths.serving.key);
        file("client-ca-file", &paths.client_ca.cert);
        file("requestheader-client-ca-file", &paths.front_proxy_ca.cert);
        file("proxy-client-cert-file", &paths.front_proxy_client.cert);
        file("proxy-client-key-file", &paths.front_proxy_client.key);
        file("kubelet-client-certificate", &paths.kubelet_client.cert);
        file("kubelet-client-key", &paths.kubelet_client.key);
        file("service-account-key-file", &paths.service_account.cert);
        file("service-account-signing-key-file", &paths.service_account.key);
        file("cert-dir", &paths.dir.join("apiserver"));
        if let Some(log) = self.audit_log() {
            let policy = paths.dir.join("audit-policy.yaml");
            fs::write(&policy, AUDIT_POLICY).expect("audit policy is written");
            file("audit-policy-file", &policy);
            file("audit-log-path", &log);
        }
        add("secure-port", &self.apiserver_port);
        add("etcd-servers", &format!("http://127.0.0.1:{}", self.etcd_port));
        flags
    }

    /// A program of the control plane, on the cores the options give it.
    fn pinned(&self, program: &str) -> Command {
        let Some(cpus) = &self.options.cpus else { return self.program(program) };
        let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        let mut command = self.program("taskset");
        command.args(["-c", &list.join(",")]).arg(binaries().join(program));
        command
    }

    /// `kubectl`, `etcd` and so on from the build; anything else from the path. Temporary files and caches stay in
    /// the cluster's directory, and nothing of the caller's own Kubernetes set-up is seen.
    fn program(&self, name: &str) -> Command {
        let built = binaries().join(name);
        let mut command = Command::new(if built.exists() { built } else { name.into() });
        command.env("TMPDIR", &self.paths.dir).env("HOME", &self.paths.dir).env_remove("KUBECONFIG");
        command.current_dir(&self.paths.dir);
        command
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn keep(&self, name: &str, command: Command) {
        let process = self.run(name, command);
        self.processes().push(process);
    }

    /// Panics with the end of its log when the part has ended.
    fn alive(&self, name: &str) {
        let state = self.processes().iter_mut().filter(|p| p.name == name).try_for_each(Process::alive);
        state.unwrap_or_else(|why| panic!("expected {name} to keep running, but {why}"));
    }

    fn wait_listening(&self, name: &str, at: SocketAddr) {
        wait_for(&format!("{name} to listen on {at}"), READY, || {
            self.alive(name);
            TcpStream::connect(at).map(drop).map_err(|e| e.to_string())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // kube-apiserver would wait for its watchers; but what it keeps is about to be removed.
        stop_all(&mut self.processes(), Duration::from_millis(200));
    }
}

/// The directory with the real programs. The first caller builds them if nobody has: minutes once, then nothing.
pub(crate) fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/build.sh");
        let built = Command::new(script).stderr(Stdio::inherit()).output().expect("bash runs build.sh");
        assert!(
            built.status.success(),
            "expected {script} to build the Kubernetes programs; its reason is above"
        );
        PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
    })
}

/// Apart from files and ports. Leases of the `kubernetes` Service are left out: nobody here reads it.
const APISERVER_FLAGS: &[&str] = &[
    "--bind-address=127.0.0.1",
    // Loopback is refused here; this one is reserved for documentation, so nobody answers on it.
    "--advertise-address=192.0.2.1",
    "--endpoint-reconciler-type=none",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    "--requestheader-allowed-names=front-proxy-client",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    "--requestheader-uid-headers=X-Remote-Uid",
    "--kubelet-preferred-address-types=InternalIP,Hostname",
    "--allow-privileged=true",
    // The default minute of patience with open watches would be spent by every test that stops the server.
    "--shutdown-send-retry-after=false",
    "--shutdown-delay-duration=0s",
];

const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

/// What the people in the certificates may do.
const BINDINGS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: platform-oncall}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: platform-oncall}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: platform-viewers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: platform-viewers}]
";
