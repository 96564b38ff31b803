//! What did the programs do in each second? Processor and memory of each, and spillway's own metrics: for people who
//! want to know why a number is what it is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    cluster::Cluster,
    gauges::{Metrics, processor_time},
    journal::{Calls, Clock, Storm},
    measure::{quantile, within},
};

const PERIOD: Duration = Duration::from_secs(1);
/// The series that says why it is slow.
pub(crate) const CAUSE: &str = "spillway_overload_cause{cause=\"";
/// Lanes in the table, highest first.
const LANES: [&str; 7] =
    ["node-health", "control-plane", "platform", "operators", "workload", "unknown", "telemetry"];

/// The programs, and how much processor time each has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) apiserver: Duration,
    pub(crate) etcd: Duration,
    pub(crate) spillway: Duration,
    pub(crate) load: Duration,
}

impl Used {
    pub(crate) fn now(cluster: &Cluster, spillway: Option<u32>) -> Self {
        let of = |pid: Option<u32>| pid.map(processor_time).unwrap_or_default();
        Self {
            apiserver: of(cluster.pid("apiserver")),
            etcd: of(cluster.pid("etcd")),
            spillway: of(spillway),
            load: of(Some(std::process::id())),
        }
    }

    /// Shares of one core since `earlier`, in the order of the fields. A program that was started anew counts from its
    /// start.
    pub(crate) fn shares(self, earlier: Self, seconds: f64) -> [f64; 4] {
        let share = |now: Duration, before: Duration| {
            now.checked_sub(before).unwrap_or(now).as_secs_f64() / seconds.max(0.001)
        };
        [
            share(self.apiserver, earlier.apiserver),
            share(self.etcd, earlier.etcd),
            share(self.spillway, earlier.spillway),
            share(self.load, earlier.load),
        ]
    }
}

/// One second.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    shares: [f64; 4],
    pub(crate) rss_mb: u64,
    pub(crate) metrics: Metrics,
}

/// Looks every second until the returned future is dropped.
pub(crate) async fn follow(
    cluster: &Cluster,
    spillway: Option<(u32, SocketAddr)>,
    clock: Clock,
    samples: &Mutex<Vec<Sample>>,
) {
    let mut seconds = interval(PERIOD);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pid = spillway.map(|(pid, _)| pid);
    let (mut before, mut then) = (Used::now(cluster, pid), Instant::now());
    loop {
        seconds.tick().await;
        let metrics = match spillway {
            Some((_, address)) => Metrics::read(address).await,
            None => Metrics::default(),
        };
        let (now, used) = (Instant::now(), Used::now(cluster, pid));
        let shares = used.shares(before, (now - then).as_secs_f64());
        (before, then) = (used, now);
        let rss_mb = cluster.pid("apiserver").map_or(0, memory_mb);
        samples.lock().push(Sample { at: clock.at(now), shares, rss_mb, metrics });
    }
}

/// Memory that a process has in use.
pub(crate) fn memory_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Lets a process's peak memory begin anew.
pub(crate) fn forget_peak(pid: u32) {
    // Where this is not allowed the peak includes the calm, which is lower.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The notes that are laid beside the samples.
pub(crate) struct Notes<'a> {
    pub(crate) leases: &'a Calls,
    pub(crate) operator: &'a Calls,
    pub(crate) storm: &'a Storm,
    /// When calm, storm and aftermath begin.
    pub(crate) parts: [f64; 3],
}

/// The table, one line a second. Latencies are those of calls that began in that second.
pub(crate) fn render(samples: &[Sample], notes: &Notes<'_>) -> String {
    let mut text = String::from(
        "second part   | apisrv etcd spill load | rss MB | lease ok/bad p50 max | operator | heavy/s | refused | level cause limit pressure seats MB held | probes: livez cached consistent | per lane: executing+waiting/ceiling seats\n",
    );
    let (leases, operator) = (notes.leases.all(), notes.operator.all());
    let (served, refused) = (notes.storm.served.lock().clone(), notes.storm.refused.lock().clone());
    for sample in samples {
        let second = sample.at.floor();
        let window = second - 1.0..second;
        let part =
            ["warm", "calm", "storm", "after"][notes.parts.iter().filter(|from| second > **from).count()];
        let (leases, operator) = (within(&leases, &window), within(&operator, &window));
        let bad = leases.iter().filter(|call| !call.ok).count();
        let heavy = served.iter().filter(|call| window.contains(&(call.at + call.took))).count();
        let refused = refused.get(window.start as usize).copied().unwrap_or(0);
        let [apiserver, etcd, spillway, load] = sample.shares.map(|share| share * 100.0);
        let _ = write!(
            text,
            "{second:6} {part:6} | {apiserver:5.0}% {etcd:3.0}% {spillway:4.0}% {load:3.0}% | {:6} | {:4}/{bad:<3} {} {} | {:>8} | {heavy:7} | {refused:7} |",
            sample.rss_mb,
            leases.len() - bad,
            time(quantile(&leases, 0.5)),
            time(quantile(&leases, 1.0)),
            operator
                .iter()
                .map(|call| if call.ok { time(Some(call.took)) } else { "lost".into() })
                .collect::<String>(),
        );
        text.push_str(&proxy(&sample.metrics));
        text.push('\n');
    }
    text
}

fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "    -".into(), |seconds| format!("{seconds:5.2}"))
}

fn proxy(metrics: &Metrics) -> String {
    if metrics.scalars().next().is_none() {
        return String::new();
    }
    let level = ["normal", "brown", "red", "cold", "ramp"];
    let level = level.get(metrics.of("spillway_overload_level") as usize).unwrap_or(&"?");
    let lanes: Vec<String> = LANES
        .iter()
        .map(|lane| {
            let of = |metric: &str| metrics.of(&format!("spillway_lane_{metric}{{lane=\"{lane}\"}}"));
            let [running, waiting, ceiling] =
                ["executing_seats", "inqueue_requests", "current_seats"].map(of);
            format!("{lane} {running}+{waiting}/{ceiling}")
        })
        .collect();
    let cause = metrics.scalars().find(|(series, value)| series.starts_with(CAUSE) && *value > 0.0);
    let cause = cause.map_or("-", |(series, _)| series[CAUSE.len()..].trim_end_matches("\"}"));
    let probe = |probe: &str| metrics.of(&format!("spillway_probe_slowdown_ratio{{probe=\"{probe}\"}}"));
    format!(
        " {level:6} {cause:6} {:5} {:8.2} {:5} {:5.0} {:4} | {:5.1} {:5.1} {:5.1} | {}",
        metrics.of("spillway_concurrency_limit"),
        metrics.of("spillway_pressure_ratio"),
        metrics.of("spillway_inflight_seats"),
        metrics.of("spillway_response_bytes_inflight") / 1e6,
        metrics.of("spillway_held_refusals"),
        probe("livez"),
        probe("cached"),
        probe("consistent"),
        lanes.join("  "),
    )
}

/// Every series of every second, one JSON object a line; series that stay at zero are left out.
pub(crate) fn dump(samples: &[Sample]) -> String {
    let lines = samples.iter().map(|sample| {
        let series: BTreeMap<&str, f64> =
            sample.metrics.scalars().filter(|(_, value)| *value != 0.0).collect();
        let line: Value =
            json!({"at": (sample.at * 100.0).round() / 100.0, "rss_mb": sample.rss_mb, "series": series});
        format!("{line}\n")
    });
    lines.collect()
}
