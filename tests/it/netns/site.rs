//! A cluster on several hosts, installed as docs/INSTALL.md says: kube-apiserver on the loopback address of its host,
//! spillway on the host's own address and the same port, with the configuration that `spillway manifest` prints.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    hosts::{Host, Switch},
    service::{SERVICE, Service},
};
use crate::{
    cluster::{Guardian, Pair, Paths, Pki, Process, binaries, tail, wait_for},
    spillway::BINARY,
};

/// For everything that starts, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
const ETCD: u8 = 5;

/// All hosts. Fields end in this order: programs, then hosts, their guardian, the directory.
pub(super) struct Site {
    pub(super) paths: Paths,
    pub(super) pki: Pki,
    _etcd: Process,
    etcd_host: Host,
    switch: Switch,
    guardian: Guardian,
    _dir: TempDir,
}

/// A control-plane host and what runs there.
pub(super) struct ControlPlane {
    pub(super) apiserver: Option<Process>,
    pub(super) spillway: Option<Process>,
    pub(super) others: Vec<Process>,
    serving: Pair,
    pub(super) host: Host,
}

/// A node: the real kubelet over a pretended runtime, and its way to the Service.
pub(super) struct Worker {
    _kubelet: Process,
    pub(super) service: Service,
    pub(super) host: Host,
}

impl Site {
    /// etcd on a host of its own, so that it outlives any control-plane host.
    pub(super) fn start() -> Self {
        let parent = Path::new("/dev/shm");
        let parent = if parent.is_dir() { parent.into() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("spillway-hosts-").tempdir_in(parent).unwrap();
        let guardian = Guardian::start(Some(dir.path()));
        let (pki, paths) = Pki::create(dir.path());
        let switch = Switch::start(&paths.logs, &guardian);
        let etcd_host = switch.plug("etcd", ETCD, &paths.logs, &guardian);
        let mut command = etcd_host.command(&binaries().join("etcd"));
        let url = format!("http://{}:2379", etcd_host.address);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.arg("--data-dir").arg(paths.dir.join("etcd"));
        command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
        let etcd = Process::start("etcd", command, &paths.logs, &guardian);
        Self { paths, pki, _etcd: etcd, etcd_host, switch, guardian, _dir: dir }
    }

    pub(super) fn run(&self, name: &str, command: Command) -> Process {
        Process::start(name, command, &self.paths.logs, &self.guardian)
    }

    /// A control-plane host without programs.
    pub(super) fn control_plane(&self, name: &str, number: u8) -> ControlPlane {
        let host = self.switch.plug(name, number, &self.paths.logs, &self.guardian);
        let serving = self.pki.serving(&format!("serving-{name}"), &[host.address.into()]);
        ControlPlane { apiserver: None, spillway: None, others: Vec::new(), serving, host }
    }

    /// A worker whose kubelet, like every pod of it, knows only the Service.
    pub(super) fn worker(&self, name: &str, number: u8, endpoints: &[SocketAddr]) -> Worker {
        let host = self.switch.plug(name, number, &self.paths.logs, &self.guardian);
        let service = Service::on(&host);
        service.set(endpoints.to_vec());
        let kubeconfig = self.kubeconfig(&self.pki.node(name), &format!("https://{SERVICE}"));
        let mut command = host.command(&binaries().join("hollow-node"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command.args(["--morph=kubelet", "--use-host-image-service=false", "--name", name]);
        command.env("HOME", &self.paths.dir).env("TMPDIR", &self.paths.dir);
        let kubelet = self.run(&format!("kubelet-{name}"), command);
        Worker { _kubelet: kubelet, service, host }
    }

    /// kubectl of `who` on `host`, pointed at `server`.
    pub(super) fn kubectl(&self, host: &Host, who: &Pair, server: &str, arguments: &[&str]) -> Output {
        let mut command = host.command(&binaries().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(who, server)).args(arguments);
        command.args(["--request-timeout", "10s"]).env("HOME", &self.paths.dir);
        command.output().unwrap()
    }

    /// The same, asked until it is answered.
    pub(super) fn ask(&self, host: &Host, who: &Pair, server: &str, arguments: &[&str]) -> String {
        wait_for(&format!("kubectl {arguments:?} at {server}"), PATIENCE, || {
            let said = self.kubectl(host, who, server, arguments);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
        })
    }

    /// The same, read as JSON.
    pub(super) fn object(&self, host: &Host, server: &str, what: &[&str]) -> Value {
        let arguments: Vec<&str> = ["get"].iter().chain(what).chain(&["-o", "json"]).copied().collect();
        let text = self.ask(host, &self.paths.admin, server, &arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what:?}: {error} in {text}"))
    }

    pub(super) fn kubeconfig(&self, who: &Pair, server: &str) -> PathBuf {
        let name: String = server.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let path = who.key.with_extension(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority": self.paths.server_ca.cert}}],
            "users": [{"name": "test", "user": {"client-certificate": who.cert, "client-key": who.key}}],
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl ControlPlane {
    /// Where everybody else reaches this host's control plane.
    pub(super) fn url(&self) -> String {
        format!("https://{}:6443", self.host.address)
    }

    pub(super) fn break_glass_url(&self) -> String {
        format!("https://{}:6444", self.host.address)
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        (self.host.address, 6443).into()
    }

    /// kube-apiserver with kubeadm's flags; `bind` is what the address split changes.
    pub(super) fn start_apiserver(&mut self, site: &Site, bind: &str) {
        let paths = &site.paths;
        let mut command = self.host.command(&binaries().join("kube-apiserver"));
        command.args(FLAGS).env("HOME", &paths.dir).env("TMPDIR", &paths.dir);
        for (flag, file) in [
            ("tls-cert-file", &self.serving.cert),
            ("tls-private-key-file", &self.serving.key),
            ("client-ca-file", &paths.client_ca.cert),
            ("requestheader-client-ca-file", &paths.front_proxy_ca.cert),
            ("proxy-client-cert-file", &paths.front_proxy_client.cert),
            ("proxy-client-key-file", &paths.front_proxy_client.key),
            ("kubelet-client-certificate", &paths.kubelet_client.cert),
            ("kubelet-client-key", &paths.kubelet_client.key),
            ("service-account-key-file", &paths.service_account.cert),
            ("service-account-signing-key-file", &paths.service_account.key),
        ] {
            command.arg(format!("--{flag}={}", file.display()));
        }
        command.arg(format!("--cert-dir={}", paths.dir.join(&self.host.name).display()));
        command.arg(format!("--etcd-servers=http://{}:2379", site.etcd_host.address));
        command.arg(format!("--advertise-address={}", self.host.address));
        command.arg(format!("--bind-address={bind}"));
        self.apiserver = Some(site.run(&format!("apiserver-{}", self.host.name), command));
        // As docs/INSTALL.md has it: on loopback, before spillway comes.
        site.ask(&self.host, &paths.admin, "https://127.0.0.1:6443", &["get", "--raw", "/readyz"]);
    }

    /// spillway, with what `spillway manifest config` prints for this host; only the files lie elsewhere.
    pub(super) fn spillway_command(&self, site: &Site) -> Command {
        let etc = site.paths.dir.join(&self.host.name).join("etc");
        fs::create_dir_all(&etc).unwrap();
        let copy = |from: &Path, to: &str| {
            fs::copy(from, etc.join(to)).unwrap();
        };
        copy(&self.serving.cert, "apiserver.crt");
        copy(&self.serving.key, "apiserver.key");
        copy(&site.paths.front_proxy_client.cert, "front-proxy-client.crt");
        copy(&site.paths.front_proxy_client.key, "front-proxy-client.key");
        copy(&site.paths.service_account.cert, "sa.pub");
        copy(&site.paths.break_glass_ca.cert, "break-glass-ca.crt");
        // kubeadm has one CA for clients and servers.
        let both = [&site.paths.client_ca.cert, &site.paths.server_ca.cert].map(|ca| fs::read(ca).unwrap());
        fs::write(etc.join("ca.crt"), both.concat()).unwrap();

        let address = self.host.address.to_string();
        let printed =
            Command::new(BINARY).args(["manifest", "config", "--node-address", &address]).output().unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        let here = etc.display().to_string();
        let text = text.replace("/etc/kubernetes/pki", &here).replace("/etc/spillway", &here);
        let text = text.replace("/var/lib/spillway", &format!("{here}/state"));
        fs::create_dir_all(etc.join("state")).unwrap();
        let config = etc.join("spillway.yaml");
        fs::write(&config, format!("{text}\nadmin: {{ socket: {here}/admin.sock }}\n")).unwrap();
        let mut command = self.host.command(Path::new(BINARY));
        command.args(["run", "--config"]).arg(config);
        command
    }

    pub(super) fn start_spillway(&mut self, site: &Site) {
        let command = self.spillway_command(site);
        self.spillway = Some(site.run(&format!("spillway-{}", self.host.name), command));
        site.ask(&self.host, &site.paths.admin, &self.url(), &["get", "--raw", "/readyz"]);
    }

    /// Controllers and scheduler, through this host's spillway as kubeadm's kubeconfigs have it.
    pub(super) fn start_controllers(&mut self, site: &Site) {
        let key = site.paths.service_account.key.display().to_string();
        let ca = site.paths.server_ca.cert.display().to_string();
        for (program, who) in
            [("kube-controller-manager", &site.paths.controllers), ("kube-scheduler", &site.paths.scheduler)]
        {
            let mut command = self.host.command(&binaries().join(program));
            command.arg("--kubeconfig").arg(site.kubeconfig(who, &self.url()));
            command.args(["--leader-elect=true", "--bind-address=127.0.0.1"]).env("HOME", &site.paths.dir);
            if program == "kube-controller-manager" {
                command.arg("--use-service-account-credentials=true");
                command.args(["--service-account-private-key-file", &key, "--root-ca-file", &ca]);
            }
            self.others.push(site.run(&format!("{program}-{}", self.host.name), command));
        }
    }

    /// Requests that spillway has let through, by its own count.
    pub(super) fn passed(&self, site: &Site) -> f64 {
        let mut command = self.host.command(&binaries().join("kubectl"));
        command.args(["get", "--raw", "/metrics", "--server", "http://127.0.0.1:10270"]);
        let page = command.env("HOME", &site.paths.dir).output().unwrap();
        let text = String::from_utf8_lossy(&page.stdout).into_owned();
        assert!(page.status.success(), "{}", String::from_utf8_lossy(&page.stderr));
        let counts = text.lines().filter(|line| line.starts_with("spillway_requests_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The host loses its power: nobody hears of it, and nothing there says good-bye.
    pub(super) fn lose_power(&mut self) {
        self.host.unplug();
        let programs = [self.spillway.take(), self.apiserver.take()].into_iter().flatten();
        for mut program in programs.chain(self.others.drain(..)) {
            program.signal(rustix::process::Signal::KILL);
        }
    }

    /// The end of spillway's log, for a failure's text.
    pub(super) fn log(&self) -> String {
        self.spillway.as_ref().map(|process| tail(&process.log)).unwrap_or_default()
    }
}

/// What kubeadm writes, apart from files and addresses.
const FLAGS: &[&str] = &[
    "--secure-port=6443",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    "--requestheader-allowed-names=front-proxy-client",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    "--requestheader-uid-headers=X-Remote-Uid",
    "--http2-max-streams-per-connection=1000",
    "--allow-privileged=true",
    // The default is 70 s of farewell; here a server that is stopped has nobody left to wait for.
    "--shutdown-delay-duration=0s",
];
