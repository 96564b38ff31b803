//! Do the recording rules, the alerts and the dashboard say something in a real Prometheus that scrapes a real spillway?
//!
//! promtool (deploy/monitoring/tests.yaml) judges expressions by series that somebody made up. Here Debian's Prometheus
//! scrapes the built program and the kube-apiserver behind it, through calm and a storm of one telemetry agent, so that a
//! label that nobody exports, or a counter that is born too late to have an increase, is found.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{Caller, Protocol, block_on, get},
    cluster::{Cluster, Credential, Guardian, Process, free_port, tail, wait_for},
    spillway::{CLUSTER, Spillway, needs_spillway},
};

/// For what takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One agent may ask five times a second; it will ask as often as it can.
const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: scraped
lanes:
  telemetry: {identityRate: {perSecond: 5, burst: 5}}
rules:
- {name: agents, match: {users: ['storm-agent']}, lane: telemetry}
- {name: people, match: {groups: ['platform-oncall']}, lane: operators}
";

/// Expressions of the dashboard that may have nothing to show here, and why.
const MAY_BE_EMPTY: [(&str, &str); 2] = [
    (
        r#"spillway_overload_cause{cluster=~"$cluster",instance=~"$instance",cause!="none"}"#,
        "nothing presses",
    ),
    ("apiserver_flowcontrol_rejected_requests_total", "APF refuses nobody: spillway does so before it"),
];

/// Alerts that a loaded test machine, or traffic of other tests past this spillway, may cause by itself.
const OF_THE_MACHINE: [&str; 6] = [
    "SpillwayOverloadLevelHigh",
    "SpillwayPressureWithoutShedding",
    "SpillwayLimitAtMinimum",
    "SpillwayOverheadHigh",
    "SpillwayMemoryShort",
    "SpillwayBypassDetected",
];

#[test]
fn a_real_prometheus_fills_every_rule_and_panel_and_its_alerts_follow_a_storm() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, Some(POLICY), |_| ());
    let prometheus = Prometheus::start(spillway.metrics, &CLUSTER);
    let alice = spillway.caller(&CLUSTER.alice());
    let certificate = CLUSTER.pki.client("storm-agent", "storm-agent", &[]);
    let agent = spillway.caller(&Credential::Certificate(certificate));
    let traffic = Traffic::default();
    thread::scope(|scope| {
        // Ends with the scope's closure, a panic included.
        let _ends = Ends(&traffic);
        scope.spawn(|| traffic.calm(&alice));

        prometheus.until("both targets", "sum(up)", |value| value == 2.0);
        prometheus.until("calm traffic", "sum(lane:spillway_requests:rate5m)", |value| value > 1.0);
        let calm: BTreeSet<String> = prometheus.active();
        let wrong: Vec<_> = calm.iter().filter(|alert| !OF_THE_MACHINE.contains(&alert.as_str())).collect();
        assert!(wrong.is_empty(), "alerts in calm: {wrong:?}");

        prometheus.what_may_increase_is_there_before();
        // One request, the first of this process.
        let somebody = spillway.break_glass_caller(&CLUSTER.break_glass());
        assert_eq!(block_on(somebody.ask(Protocol::Http2, get("/version"))).status, StatusCode::OK);
        prometheus.until_firing("SpillwayBreakGlassInUse");

        traffic.storm.store(true, Ordering::Relaxed);
        scope.spawn(|| traffic.storm(&agent));
        prometheus.until_firing("SpillwayShedding");
        prometheus.all_have_samples();
        traffic.storm.store(false, Ordering::Relaxed);
        wait_for("SpillwayShedding to be resolved", PATIENCE, || {
            let active = prometheus.active();
            if active.contains("SpillwayShedding") { Err(format!("{active:?}")) } else { Ok(()) }
        });
    });
    let refused = traffic.refused.lock().unwrap();
    assert!(refused.is_empty(), "alice was refused beside the storm: {refused:?}");
    // Only telemetry was refused, and the rules could tell.
    let critical = r#"ALERTS{alertname="SpillwayCriticalLaneShedding"}"#;
    assert_eq!(prometheus.samples(&format!("count_over_time({critical}[10m])")), [] as [f64; 0]);
    prometheus.no_rule_has_failed();
}

/// Who asks for what.
#[derive(Default)]
struct Traffic {
    ended: AtomicBool,
    storm: AtomicBool,
    /// Answers to alice that spillway made itself.
    refused: Mutex<Vec<StatusCode>>,
}

impl Traffic {
    /// Ten requests a second of somebody who looks at Pods.
    fn calm(&self, alice: &Caller) {
        block_on(async {
            let mut connection = alice.connect(Protocol::Http2).await;
            while !self.ended.load(Ordering::Relaxed) {
                let answer = connection.ask(get("/api/v1/namespaces/default/pods?limit=10")).await;
                if answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error() {
                    self.refused.lock().unwrap().push(answer.status);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Eight loops that never wait. spillway holds the refusals of whoever comes back too early, so it is no flood.
    fn storm(&self, agent: &Caller) {
        block_on(async {
            let loops = (0..8).map(|_| async {
                let mut connection = agent.connect(Protocol::Http2).await;
                while self.storm.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed) {
                    if connection.try_ask(get("/api/v1/pods")).await.is_err() {
                        connection = agent.connect(Protocol::Http2).await;
                    }
                }
            });
            futures_util::future::join_all(loops).await;
        });
    }
}

/// Tells the traffic to end when dropped.
struct Ends<'a>(&'a Traffic);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// A running Prometheus; it stops when dropped.
struct Prometheus {
    address: SocketAddr,
    // Dropped in this order.
    process: Mutex<Process>,
    _guardian: Guardian,
    _dir: TempDir,
}

impl Prometheus {
    fn start(spillway: SocketAddr, cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["recording.yaml", "alerts.yaml"] {
            fs::write(dir.path().join(file), hurried(&deployed(file))).unwrap();
        }
        let paths = &cluster.paths;
        // kube-apiserver has some megabytes to tell, so it is asked less often.
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [recording.yaml, alerts.yaml]
scrape_configs:
- job_name: spillway
  static_configs: [{{targets: ['{spillway}'], labels: {{cluster: test}}}}]
- job_name: apiserver
  scrape_interval: 3s
  scrape_timeout: 3s
  scheme: https
  tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}
  static_configs: [{{targets: ['{}'], labels: {{cluster: test}}}}]
",
            paths.server_ca.cert.display(),
            paths.admin.cert.display(),
            paths.admin.key.display(),
            cluster.apiserver_addr(),
        );
        fs::write(dir.path().join("prometheus.yaml"), config).unwrap();

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yaml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let guardian = Guardian::start(None);
        let process = Process::start("prometheus", command, dir.path(), &guardian);
        let prometheus = Self { address, process: Mutex::new(process), _guardian: guardian, _dir: dir };
        wait_for("prometheus to be ready", PATIENCE, || {
            prometheus.process.lock().unwrap().alive().unwrap_or_else(|why| panic!("{why}"));
            prometheus.page("/-/ready").map(drop)
        });
        prometheus
    }

    /// A page, by HTTP/1.0: its answers have no chunks.
    fn page(&self, path: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(self.address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            write!(socket, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if head.split(' ').nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(answer) }
    }

    fn api(&self, path: &str) -> Value {
        let text = self
            .page(path)
            .unwrap_or_else(|answer| panic!("{path}: {answer}\n{}", tail(&self.process.lock().unwrap().log)));
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"].take()
    }

    /// The numbers that an expression has now; what is not a number (a quantile of nothing) is left out.
    fn samples(&self, expression: &str) -> Vec<f64> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("/api/v1/query?query={encoded}"));
        let series = answer["result"].as_array().unwrap().iter();
        let values = series.filter_map(|one| one["value"][1].as_str()?.parse::<f64>().ok());
        values.filter(|value| value.is_finite()).collect()
    }

    fn until(&self, what: &str, expression: &str, holds: impl Fn(f64) -> bool) {
        wait_for(what, PATIENCE, || {
            let samples = self.samples(expression);
            if samples.iter().any(|&value| holds(value)) { Ok(()) } else { Err(format!("{samples:?}")) }
        });
    }

    /// The alerts that are pending or firing.
    fn active(&self) -> BTreeSet<String> {
        let alerts = self.api("/api/v1/alerts");
        let names = alerts["alerts"].as_array().unwrap().iter();
        names.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn until_firing(&self, alert: &str) {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        wait_for(&format!("{alert} to fire"), PATIENCE, || {
            if self.samples(&firing).is_empty() { Err(format!("{:?}", self.active())) } else { Ok(()) }
        });
    }

    /// Panics with every recording rule and every panel that does not get a sample in time.
    fn all_have_samples(&self) {
        let recording = deployed("recording.yaml");
        let names = recording.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
        let mut missing: Vec<String> = names.map(str::to_owned).collect();
        assert!(missing.len() >= 9, "the scan for recording rules found only {missing:?}");
        let panels = expressions(&serde_json::from_str(&deployed("grafana/overview.json")).unwrap());
        assert!(panels.len() >= 35, "the scan of the dashboard found only {panels:?}");
        for (text, why) in MAY_BE_EMPTY {
            assert!(panels.iter().any(|panel| panel.contains(text)), "no panel has {text}, left out: {why}");
        }
        let has_to = |panel: &String| !MAY_BE_EMPTY.iter().any(|(text, _)| panel.contains(text));
        // "All" of the dashboard's two choices.
        let all = |panel: String| panel.replace("$cluster", ".*").replace("$instance", ".*");
        missing.extend(panels.into_iter().filter(has_to).map(all));
        wait_for("every rule and panel to have a sample", PATIENCE, || {
            missing.retain(|expression| self.samples(expression).is_empty());
            if missing.is_empty() { Ok(()) } else { Err(format!("none for {missing:#?}")) }
        });
    }

    /// A counter that is born with its first event has no increase then, and the alert that waits for it is silent.
    fn what_may_increase_is_there_before(&self) {
        let alerts = deployed("alerts.yaml");
        let counters: BTreeSet<&str> =
            alerts.split("increase(").skip(1).filter_map(|rest| rest.split('[').next()).collect();
        assert!(counters.len() >= 4, "the scan for increase() found only {counters:?}");
        let unborn: Vec<_> =
            counters.into_iter().filter(|counter| self.samples(counter).is_empty()).collect();
        assert!(unborn.is_empty(), "no increase from nothing: {unborn:?}");
    }

    /// Labels that do not match, for one, are found only when a rule is evaluated.
    fn no_rule_has_failed(&self) {
        let answer = self.api("/api/v1/rules");
        let groups = answer["groups"].as_array().unwrap().iter();
        let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
        assert!(rules.len() > 30, "{} rules", rules.len());
        let failed: Vec<_> = rules.into_iter().filter(|rule| rule["health"] != "ok").collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// A file of deploy/monitoring.
fn deployed(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring");
    fs::read_to_string(folder.join(file)).unwrap()
}

/// The rules with minutes made seconds, so that a storm and its end fit into a test: rules are evaluated each second, an
/// alert waits one second instead of its `for`, and rates are taken over eight seconds. Nothing else differs.
fn hurried(rules: &str) -> String {
    let line = |line: &str| {
        let (indent, word) = line.split_at(line.len() - line.trim_start().len());
        match word.split_once(": ") {
            Some(("for", _)) => format!("{indent}for: 1s\n"),
            Some(("interval", _)) => format!("{indent}interval: 1s\n"),
            _ => format!("{}\n", line.replace("[1m]", "[8s]").replace("[5m]", "[8s]")),
        }
    };
    rules.lines().map(line).collect()
}

/// Every `expr` in a dashboard.
fn expressions(dashboard: &Value) -> Vec<String> {
    match dashboard {
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}
