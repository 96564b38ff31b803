//! spillway between a test's bytes and an upstream that writes them down.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::upstream::Upstream;
use crate::{
    client::Caller,
    cluster::{Credential, Guardian, Paths, Pki, Process, tail, wait_for},
    spillway::BINARY,
};

/// From the start to a first answer, on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// What spillway has without a configuration.
const CONNECTIONS: usize = 10_000;

/// What a test sends shall not fail because it sends much of it.
const OPEN: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: open
lanes:
  operators: {identityRate: {perSecond: 0}}
  unknown: {identityRate: {perSecond: 0}}
";

/// One upstream, one spillway, and everything to reach it. Dropped, both are gone.
pub(crate) struct Stand {
    pub(crate) upstream: Upstream,
    pub(crate) main: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) paths: Paths,
    pub(crate) pki: Pki,
    process: Process,
    /// What else runs here.
    others: Mutex<Vec<Process>>,
    guardian: Guardian,
    _dir: tempfile::TempDir,
}

impl Stand {
    /// With an upstream that speaks HTTP/2 where spillway may choose, or not at all.
    pub(crate) fn start(http2: bool) -> Self {
        Self::start_with(http2, |_| ())
    }

    /// The same; `change` may edit the configuration first.
    pub(crate) fn start_with(http2: bool, change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pki, paths) = Pki::create(dir.path());
        let upstream = Upstream::start(&paths, http2);
        let mut config = config(&paths, upstream.address);
        if let Ok(mode) = env::var("SPILLWAY_TEST_RUNTIME") {
            config["runtime"] = json!({"mode": mode});
        }
        change(&mut config);
        let file = dir.path().join("spillway.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(BINARY);
        fs::write(dir.path().join("policy.yaml"), OPEN).unwrap();
        command.args(["run", "--policy", "policy.yaml", "--config"]).arg(&file).current_dir(dir.path());
        let guardian = Guardian::start(None);
        let mut process = Process::start("spillway", command, &paths.logs, &guardian);
        let [main, metrics] = wait_for("spillway to print its addresses", READY, || {
            process.alive().unwrap_or_else(|why| panic!("{why}"));
            let text = fs::read_to_string(&process.log).map_err(|e| e.to_string())?;
            let address = |name: &str| {
                let found =
                    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
                found.ok_or_else(|| format!("no address of {name} in:\n{text}"))
            };
            Ok([address("main")?, address("metrics")?])
        });
        let stand = Self {
            upstream,
            main,
            metrics,
            paths,
            pki,
            process,
            others: Mutex::default(),
            guardian,
            _dir: dir,
        };
        wait_for("the upstream to be up", READY, || {
            if stand.metric("spillway_upstream_up") == 1.0 { Ok(()) } else { Err(stand.log()) }
        });
        stand
    }

    /// With the limits that spillway has by itself.
    pub(crate) fn with_own_limits(http2: bool) -> Self {
        Self::start_with(http2, |config| {
            config.as_object_mut().expect("a configuration").remove("limits");
        })
    }

    /// Runs another program until the stand goes.
    pub(crate) fn keep(&self, name: &str, command: Command) {
        self.others.lock().push(Process::start(name, command, &self.paths.logs, &self.guardian));
    }

    /// Somebody with a certificate: asserted to the upstream, over HTTP/2 where it speaks that.
    pub(crate) fn alice(&self) -> Caller {
        self.caller(&Credential::Certificate(self.paths.alice.clone()))
    }

    /// Nobody: reaches the upstream over HTTP/1.1.
    pub(crate) fn nobody(&self) -> Caller {
        self.caller(&Credential::None)
    }

    pub(crate) fn caller(&self, who: &Credential) -> Caller {
        Caller::new(self.main, &self.paths.server_ca.cert, who)
    }

    /// The end of spillway's log.
    pub(crate) fn log(&self) -> String {
        format!("the end of spillway's log:\n{}", tail(&self.process.log))
    }

    /// Waits for something to become true.
    pub(crate) fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        wait_for(what, READY, || {
            if reached(self) {
                return Ok(());
            }
            let page = self.page();
            let told = page.lines().filter(|line| !line.contains("_bucket") && !line.ends_with(" 0"));
            let told: Vec<_> = told.filter(|line| !line.starts_with('#')).collect();
            Err(format!("{}\n{}", told.join("\n"), self.log()))
        });
    }

    /// The sum of all series that begin with `name`, which may go on with labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.page();
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with([' ', '{']) || name.ends_with('}')).then_some(())?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.sum()
    }

    /// How many connections were ended for this reason.
    pub(crate) fn abuses(&self, reason: &str) -> f64 {
        self.metric(&format!("spillway_connections_abusive_total{{reason=\"{reason}\"}}"))
    }

    /// Requests that were let in and sent on.
    pub(crate) fn forwarded(&self) -> usize {
        self.metric("spillway_overhead_seconds_count") as usize
    }

    /// Resident memory of spillway, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
    }

    /// Processor time that all its threads have had.
    #[allow(dead_code, reason = "tests/it/neighbours measures")]
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        // Nanoseconds on a processor come first. A thread that has ended since it was listed has no file.
        let files = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        let nanos = files.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
        Duration::from_nanos(nanos.sum())
    }

    fn page(&self) -> String {
        let mut socket = TcpStream::connect(self.metrics).unwrap();
        socket.set_read_timeout(Some(READY)).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    }
}

fn config(paths: &Paths, upstream: SocketAddr) -> Value {
    json!({
        "apiVersion": "config.spillway.dev/v1alpha1",
        "kind": "ProxyConfiguration",
        "listeners": [{
            "name": "main",
            "address": "127.0.0.1:0",
            "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
        }],
        "authentication": {"clientCertificate": {"caFile": paths.client_ca.cert}},
        "upstreams": {
            "servers": [{"name": "fake", "url": format!("https://{upstream}")}],
            "tls": {"caFile": paths.server_ca.cert, "serverName": "kubernetes"},
            "forwardIdentity": {"frontProxy": {
                "certFile": paths.front_proxy_client.cert,
                "keyFile": paths.front_proxy_client.key,
            }},
        },
        // A test offends again and again from one address. `offenders` is about who is slowed down for it.
        "limits": {"connections": CONNECTIONS, "connectionsPerSource": CONNECTIONS},
        "metrics": {"address": "127.0.0.1:0"},
        "logging": {"format": "Text", "level": "Info", "access": "None"},
    })
}
