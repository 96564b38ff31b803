//! Numbers from outside the programs: spillway's metrics, and how much of its core each program used.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

/// Clock ticks a second in `/proc`: what every Linux of today says.
const TICKS_PER_SECOND: f64 = 100.0;

/// Every series and its value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads `/metrics` once; nothing when it does not answer soon.
    pub(crate) async fn read(address: SocketAddr) -> Self {
        let text = timeout(Duration::from_secs(5), fetch(address)).await;
        let text = text.map_or_else(|_| String::new(), Result::unwrap_or_default);
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// All series but the buckets of histograms.
    #[allow(dead_code, reason = "two binaries share this module, and one of them does not need this")]
    pub(crate) fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        let all = self.0.iter().map(|(series, value)| (series.as_str(), *value));
        all.filter(|(series, _)| !series.contains("_bucket{"))
    }

    pub(crate) fn of(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// By how much each labelled series of this counter grew since `earlier`; those that did, by their labels.
    pub(crate) fn growth(&self, earlier: &Self, metric: &str) -> BTreeMap<String, u64> {
        let own = self.0.iter().filter_map(|(series, value)| {
            let labels = series.strip_prefix(metric).filter(|labels| labels.starts_with('{'))?;
            Some((labels.to_owned(), (value - earlier.of(series)).round() as u64))
        });
        own.filter(|(_, growth)| *growth > 0).collect()
    }
}

async fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    Ok(text)
}

/// One line a second about what spillway sees, until the returned future is dropped.
pub(crate) async fn follow(address: SocketAddr, lines: &mut Vec<String>) {
    let mut seconds = interval(Duration::from_secs(1));
    for second in 0.. {
        seconds.tick().await;
        let now = Metrics::read(address).await;
        let level = ["normal", "brown", "red", "cold", "ramp"];
        let level = level.get(now.of("spillway_overload_level") as usize).unwrap_or(&"?");
        let lane = |lane: &str, metric: &str| now.of(&format!("spillway_lane_{metric}{{lane=\"{lane}\"}}"));
        lines.push(format!(
            "{second:3} s  {level:6}  limit {:4}  pressure {:5.2}  seats {:3}  telemetry {:2} seats of {:3}  waiting: node-health {}, operators {}, control-plane {}, platform {}",
            now.of("spillway_concurrency_limit"),
            now.of("spillway_pressure_ratio"),
            now.of("spillway_inflight_seats"),
            lane("telemetry", "executing_seats"),
            lane("telemetry", "current_seats"),
            lane("node-health", "inqueue_requests"),
            lane("operators", "inqueue_requests"),
            lane("control-plane", "inqueue_requests"),
            lane("platform", "inqueue_requests"),
        ));
    }
}

/// Processor time that a process has used.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// The most memory that a process has had in use.
pub(crate) fn memory_peak_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Whether a child of ours has ended and only waits to be asked how.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
