//! spillway in front of a cluster: the built program, started with a configuration that names this cluster's files.
//! Nothing here uses the library, so a test sees only what an operator would.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Cluster, canary,
    process::{Process, tail, wait_for},
};

/// From start to an answer to `/readyz`, on a busy machine. On a calm one it takes far less than a second.
const READY: Duration = Duration::from_secs(60);

/// How long a page may take when spillway is about to be stopped.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// A running spillway: stopped when dropped, after a last look for secrets in what it wrote and shows.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) main: SocketAddr,
    pub(crate) break_glass: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// The admin socket.
    pub(crate) socket: PathBuf,
    /// The dashboard's socket.
    pub(crate) page: PathBuf,
    /// The configuration it was started with; rewrite it to test a reload.
    pub(crate) config: PathBuf,
    pub(crate) process: Process,
}

impl Front {
    /// Where everybody connects.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.main)
    }

    /// Panics when a secret that this process has handed out stands in anything that it shows to people.
    pub(crate) fn keeps_secrets(&self) {
        let log = fs::read_to_string(&self.process.log).unwrap_or_default();
        canary::search("spillway's log", &log);
        for path in ["/metrics", "/status"] {
            // One that was stopped or suspended shows nothing.
            if let Some(page) = self.page(path) {
                canary::search(path, &page);
            }
        }
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect_timeout(&self.metrics, LAST_LOOK).ok()?;
        socket.set_read_timeout(Some(LAST_LOOK)).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        socket.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// Where holders of a break-glass certificate connect.
    pub(crate) fn break_glass_url(&self) -> String {
        format!("https://{}", self.break_glass)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // A program that fails says why by itself.
        if !std::thread::panicking() {
            self.keeps_secrets();
        }
    }
}

impl Cluster {
    /// Starts `binary` in front of kube-apiserver, learns its addresses from what it prints, and waits until
    /// `/readyz` is answered through it. `change` may edit the configuration first; `policy` is the text of a
    /// `TrafficPolicy`, the built-in one when `None`. Each call is one more proxy, with ports of its own.
    pub(crate) fn start_front(
        &self,
        binary: &Path,
        policy: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Front {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("spillway-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let write = |kind: &str, text: &str| {
            let file = self.paths.dir.join(format!("{name}-{kind}.yaml"));
            fs::write(&file, text).expect("configuration is written");
            file
        };
        let mut config = self.front_config();
        config["admin"] = json!({
            "socket": self.paths.dir.join(format!("{name}.sock")),
            "dashboard": {"socket": self.paths.dir.join(format!("{name}-page.sock"))},
        });
        change(&mut config);
        let has_lane = !config["breakGlass"].is_null();
        let socket = config["admin"]["socket"].as_str().unwrap_or_default().into();
        let page = config["admin"]["dashboard"]["socket"].as_str().unwrap_or_default().into();
        // JSON is YAML.
        let config = write("config", &format!("{config:#}\n"));

        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(&config);
        if let Some(policy) = policy {
            command.arg("--policy").arg(write("policy", policy));
        }
        let mut process = self.run(&name, command);
        let [main, break_glass, metrics] = wait_for("spillway to print its addresses", READY, || {
            still_runs(&mut process);
            let text = fs::read_to_string(&process.log).map_err(|e| e.to_string())?;
            let address = |name| printed(&text, name).ok_or(format!("no line `{name} ADDRESS` in:\n{text}"));
            // Without a lane, an address at which nobody listens.
            let lane = if has_lane { address("break-glass")? } else { SocketAddr::from(([127, 0, 0, 1], 1)) };
            Ok([address("main")?, lane, address("metrics")?])
        });
        let mut front = Front { main, break_glass, metrics, socket, page, config, process };
        self.wait_front_ready(&mut front);
        front
    }

    fn wait_front_ready(&self, front: &mut Front) {
        let admin = self.kubeconfig_for(&self.admin(), &front.url(), &self.paths.server_ca.cert);
        wait_for("/readyz through spillway", READY, || {
            still_runs(&mut front.process);
            let ready = self.kubectl(&admin, &["get", "--raw", "/readyz"]);
            let why = || format!("{}\n{}", String::from_utf8_lossy(&ready.stderr), tail(&front.process.log));
            if ready.status.success() { Ok(()) } else { Err(why()) }
        });
    }

    /// The `ProxyConfiguration` that stands in front of this cluster, on ports of the kernel's choice.
    pub(crate) fn front_config(&self) -> Value {
        let paths = &self.paths;
        json!({
            "apiVersion": "config.spillway.dev/v1alpha1",
            "kind": "ProxyConfiguration",
            "listeners": [{
                "name": "main",
                "address": "127.0.0.1:0",
                "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
            }],
            "authentication": {
                "clientCertificate": {"caFile": paths.client_ca.cert},
                "serviceAccountToken": {
                    "issuers": ["https://kubernetes.default.svc.cluster.local"],
                    "publicKeyFiles": [paths.service_account.cert],
                },
            },
            "upstreams": {
                "servers": [{"name": "local", "url": self.url()}],
                "tls": {"caFile": paths.server_ca.cert, "serverName": "kubernetes"},
                "forwardIdentity": {"frontProxy": {
                    "certFile": paths.front_proxy_client.cert,
                    "keyFile": paths.front_proxy_client.key,
                }},
            },
            "breakGlass": {
                "address": "127.0.0.1:0",
                "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
                "clientCAFile": paths.break_glass_ca.cert,
                "groups": ["spillway:break-glass"],
            },
            "metrics": {"address": "127.0.0.1:0"},
        })
    }
}

/// Gone is not the same as not yet there: says why at once.
fn still_runs(process: &mut Process) {
    process.alive().unwrap_or_else(|why| panic!("expected spillway to keep running, but {why}"));
}

/// The address in a line `NAME ADDRESS`.
fn printed(text: &str, name: &str) -> Option<SocketAddr> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
