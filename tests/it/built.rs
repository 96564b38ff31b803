//! spillway, the built program, in front of the fake apiserver: whatever goes wrong here is spillway's doing.
//!
//! Attacks need an upstream that costs nothing and never tires, and a proxy whose limits the test chooses: each test has
//! a stand of its own, ready in a tenth of a second.

// The test bed says what it expected by panicking, and measures real time.
#![allow(clippy::expect_used, clippy::disallowed_methods)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    apiserver::{Apiserver, Setup},
    client::Caller,
    cluster::{Credential, Guardian, Paths, Pki, Process, canary, tail, wait_for},
    spillway::{BINARY, page},
};

/// For anything that takes a moment, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// See the top of the file. Dropping it stops spillway and searches what it wrote for secrets.
pub(crate) struct Stand {
    pub(crate) apiserver: Apiserver,
    pub(crate) pki: Pki,
    pub(crate) paths: Paths,
    pub(crate) main: SocketAddr,
    pub(crate) break_glass: SocketAddr,
    pub(crate) metrics: SocketAddr,
    // Dropped in this order.
    process: Mutex<Process>,
    _guardian: Guardian,
    _dir: TempDir,
}

/// How a stand differs from the ordinary one.
#[derive(Default)]
pub(crate) struct Choice<'a> {
    /// The text of a `TrafficPolicy`; the built-in one when `None`.
    pub(crate) policy: Option<&'a str>,
    /// What a shell does before it becomes spillway: `ulimit -n 256`.
    pub(crate) before: &'a str,
    /// Where standard error goes; the log when `None`.
    pub(crate) stderr: Option<&'a Path>,
}

impl Stand {
    /// With the ordinary policy; `change` may edit the configuration.
    pub(crate) async fn start(change: impl FnOnce(&mut Value)) -> Self {
        Self::start_with(&Choice::default(), change).await
    }

    pub(crate) async fn start_with(choice: &Choice<'_>, change: impl FnOnce(&mut Value)) -> Self {
        let apiserver = Apiserver::start(Setup::default()).await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let (pki, paths) = Pki::create(dir.path());
        let write = |name: &str, bytes: &[u8]| {
            let file = dir.path().join(name);
            fs::write(&file, bytes).expect("file is written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it may hold a key");
            file
        };
        let mut config = configuration(&apiserver, &paths, write);
        if let Ok(mode) = std::env::var("SPILLWAY_TEST_RUNTIME") {
            config["runtime"] = json!({"mode": mode});
        }
        change(&mut config);
        let config = write("config.yaml", config.to_string().as_bytes());
        let policy = choice.policy.map(|policy| write("policy.yaml", policy.as_bytes()));

        let guardian = Guardian::start(None);
        let mut process = {
            let mut command = Command::new("bash");
            command.args(["-c", &script(choice), BINARY, "run", "--config"]).arg(config);
            if let Some(policy) = policy {
                command.arg("--policy").arg(policy);
            }
            Process::start("spillway", command, &paths.logs, &guardian)
        };
        let addresses = wait_for("spillway to print its addresses", PATIENCE, || {
            process.alive().unwrap_or_else(|why| panic!("expected spillway to keep running, but {why}"));
            let text = fs::read_to_string(&process.log).map_err(|e| e.to_string())?;
            let address = |name| {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<SocketAddr>().ok())
            };
            match ["main ", "break-glass ", "metrics "].map(address) {
                [Some(main), Some(break_glass), Some(metrics)] => Ok([main, break_glass, metrics]),
                _ => Err(text),
            }
        });
        let [main, break_glass, metrics] = addresses;
        Self {
            apiserver,
            pki,
            paths,
            main,
            break_glass,
            metrics,
            process: Mutex::new(process),
            _guardian: guardian,
            _dir: dir,
        }
    }

    /// The raw client of `who` for the main listener.
    pub(crate) fn caller(&self, who: &Credential) -> Caller {
        Caller::new(self.main, &self.paths.serving_ca(), who)
    }

    /// The raw client of the person with a break-glass certificate, for that listener.
    pub(crate) fn operator(&self) -> Caller {
        let who = Credential::Certificate(self.paths.break_glass.clone());
        Caller::new(self.break_glass, &self.paths.serving_ca(), &who)
    }

    /// Somebody with a certificate of the cluster's CA.
    pub(crate) fn somebody(&self, name: &str, groups: &[&str]) -> Credential {
        Credential::Certificate(self.pki.client(&name.replace([':', '/'], "-"), name, groups))
    }

    /// A page of the metrics listener.
    pub(crate) fn page(&self, path: &str) -> String {
        let (status, text) = page(self.metrics, path, PATIENCE).expect("the metrics listener answers");
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    /// The sum of a metric's series whose text holds all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.page("/metrics");
        let series = text.lines().filter_map(|line| line.split_once(' '));
        series
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the condition on a metric holds.
    pub(crate) fn until(&self, name: &str, labels: &[&str], holds: impl Fn(f64) -> bool) -> f64 {
        wait_for(&format!("{name}{labels:?} to be as expected"), PATIENCE, || {
            let value = self.metric(name, labels);
            if holds(value) { Ok(value) } else { Err(format!("it is {value}; {}", self.log())) }
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process().id()
    }

    /// File descriptors that the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).expect("spillway runs").count()
    }

    /// Bytes of its memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("spillway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Time that it has computed.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("spillway runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        // User and system time in hundredths of a second, the unit that Linux shows everywhere.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.process().log.clone()
    }

    pub(crate) fn whole_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log(&self) -> String {
        format!("the end of spillway's log:\n{}", tail(&self.log_file()))
    }

    /// Panics when a secret of the tests stands in anything that it shows to people.
    pub(crate) fn keeps_secrets(&self) {
        canary::search("spillway's log", &self.whole_log());
        for path in ["/metrics", "/status"] {
            if let Ok((_, text)) = page(self.metrics, path, Duration::from_secs(5)) {
                canary::search(path, &text);
            }
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.keeps_secrets();
        }
    }
}

impl Paths {
    fn serving_ca(&self) -> PathBuf {
        self.server_ca.cert.clone()
    }
}

/// The shell's part: `$0` is spillway, its arguments follow.
fn script(choice: &Choice<'_>) -> String {
    let before = if choice.before.is_empty() { "true" } else { choice.before };
    let stderr = choice.stderr.map_or_else(String::new, |path| format!(" 2>'{}'", path.display()));
    format!("{before} && exec \"$0\" \"$@\"{stderr}")
}

fn configuration(apiserver: &Apiserver, paths: &Paths, write: impl Fn(&str, &[u8]) -> PathBuf) -> Value {
    let front_proxy = apiserver.settings.front_proxy.as_ref().expect("the fake apiserver has one");
    let key = write("upstream-front-proxy.key", &front_proxy.key_pem);
    canary::key(&String::from_utf8_lossy(&front_proxy.key_pem));
    let serving = json!({"certFile": paths.serving.cert, "keyFile": paths.serving.key});
    json!({
        "apiVersion": "config.spillway.dev/v1alpha1",
        "kind": "ProxyConfiguration",
        "listeners": [{"name": "main", "address": "127.0.0.1:0", "tls": serving}],
        "authentication": {
            "clientCertificate": {"caFile": paths.client_ca.cert},
            "serviceAccountToken": {
                "issuers": ["https://kubernetes.default.svc.cluster.local"],
                "publicKeyFiles": [paths.service_account.cert],
            },
        },
        "upstreams": {
            "servers": [{"name": "fake", "url": format!("https://{}", apiserver.address)}],
            "tls": {"caFile": write("upstream-ca.crt", &apiserver.settings.roots_pem), "serverName": "kubernetes"},
            "forwardIdentity": {"frontProxy": {
                "certFile": write("upstream-front-proxy.crt", &front_proxy.chain_pem),
                "keyFile": key,
            }},
        },
        "breakGlass": {
            "address": "127.0.0.1:0",
            "tls": serving,
            "clientCAFile": paths.break_glass_ca.cert,
        },
        "metrics": {"address": "127.0.0.1:0"},
        "logging": {"format": "Text", "level": "Info", "access": "Shed"},
        // Whoever offends on purpose and whoever is asked about it come from one address.
        "limits": {"connectionsPerSource": 10_000},
    })
}
