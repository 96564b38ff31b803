//! How is a spillway now, for somebody who waits for it to be well?
//!
//! Asked over the admin socket on the same machine, or read from the metrics of one that runs elsewhere. Metrics hold no
//! sentence about the cause, and refusals only as counts: those of a lane are a rate between two looks.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::HOST;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Ending;
use super::socket::{Failure, Where};
use crate::admin::wire::{Problem, Status, code};
use crate::clock;
use crate::units::Instant;

/// Bytes of a page with metrics.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// The states, from well to away, as `spillway_overload_level` numbers them.
pub(super) const STATES: [&str; 5] = ["normal", "brown", "red", "cold", "ramp"];

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// Where.
    pub(super) from: String,
    pub(super) pressure: f64,
    /// One of [`STATES`].
    pub(super) state: String,
    pub(super) upstream_up: bool,
    /// Requests a second that were refused, by lane.
    pub(super) shed: BTreeMap<String, f64>,
    /// The cause in one sentence; empty when nobody says it.
    pub(super) diagnosis: String,
}

/// Where to look.
pub(super) enum Source {
    /// The admin socket.
    Socket(Where),
    /// A page with metrics, and what its counters were.
    Metrics { url: Uri, timeout: Duration, before: Option<(Instant, BTreeMap<String, f64>)> },
}

impl Source {
    /// Looks once.
    ///
    /// # Errors
    /// When nobody answers, or with something else.
    pub(super) fn look(&mut self) -> Result<Observed, Failure> {
        match self {
            Self::Socket(at) => at.get("/v1/status").map(|status: Status| of_status(at, status)),
            Self::Metrics { url, timeout, before } => {
                let page = fetch(url, *timeout)?;
                let (mut seen, counts) = read(&page).ok_or_else(|| {
                    let message = format!("{url} answers, and not with spillway's metrics");
                    let help = "expected spillway's metrics.address, such as http://10.0.0.11:10270/metrics";
                    Failure::new(Ending::Failed, Problem::new(code::MALFORMED, message, help))
                })?;
                let now = clock::now();
                if let Some((then, earlier)) = before.replace((now, counts.clone())) {
                    seen.shed = rates(&earlier, &counts, now.since(then));
                }
                seen.from = url.to_string();
                Ok(seen)
            }
        }
    }
}

fn of_status(at: &Where, status: Status) -> Observed {
    Observed {
        from: at.socket.display().to_string(),
        pressure: status.pressure,
        state: status.state,
        upstream_up: status.upstream_up,
        shed: status.lanes.into_iter().map(|lane| (lane.name, lane.shed_per_second)).collect(),
        diagnosis: status.diagnosis,
    }
}

/// A counter that fell was set back by a restart: all of it is new.
fn rates(
    earlier: &BTreeMap<String, f64>,
    now: &BTreeMap<String, f64>,
    span: Duration,
) -> BTreeMap<String, f64> {
    let seconds = span.as_secs_f64().max(0.001);
    let rate = |(lane, count): (&String, &f64)| {
        let before = earlier.get(lane).copied().filter(|before| before <= count).unwrap_or(0.0);
        (lane.clone(), (count - before) / seconds)
    };
    now.iter().map(rate).collect()
}

/// What a page with metrics says, and the refusals counted so far, by lane.
fn read(page: &str) -> Option<(Observed, BTreeMap<String, f64>)> {
    let (mut pressure, mut level, mut up) = (None, None, None);
    let mut shed = BTreeMap::<String, f64>::new();
    for line in page.lines().filter(|line| line.starts_with("spillway_")) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        match name {
            "spillway_pressure_ratio" => pressure = Some(value),
            "spillway_overload_level" => {
                level = STATES.iter().enumerate().find(|(at, _)| (*at as f64 - value).abs() < 0.5)
            }
            "spillway_upstream_up" => up = Some(value > 0.5),
            "spillway_shed_total" => {
                let lane = labels.split_once("lane=\"").and_then(|(_, rest)| rest.split('"').next());
                *shed.entry(lane.unwrap_or("unknown").to_owned()).or_default() += value;
            }
            _ => {}
        }
    }
    let (_, state) = level?;
    let (state, from) = ((*state).to_owned(), String::new());
    let seen = Observed { from, pressure: pressure?, state, upstream_up: up?, ..Observed::default() };
    Some((seen, shed))
}

fn fetch(url: &Uri, timeout: Duration) -> Result<String, Failure> {
    let unreachable = |why: String| {
        let help = "is spillway running there, and its metrics.address reachable from here? try curl with the same URL";
        Failure::new(
            Ending::Unreachable,
            Problem::new(code::UNREACHABLE, format!("nobody answers at {url}: {why}"), help),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unreachable(error.to_string()))?;
    let answer = runtime.block_on(async { tokio::time::timeout(timeout, exchange(url)).await });
    match answer {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(why)) => Err(unreachable(why)),
        Err(_elapsed) => {
            let problem = Problem::new(
                code::BUSY,
                format!("no answer at {url} within {timeout:?}"),
                "ask again, or with --timeout 60s",
            );
            Err(Failure::new(Ending::TimedOut, problem))
        }
    }
}

async fn exchange(url: &Uri) -> Result<String, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp =
        TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(|error| words(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(tcp)).await.map_err(|error| words(&error))?;
    let driven = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, url.authority().map_or("spillway", |authority| authority.as_str()))
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| words(&error))?;
    let response = sender.send_request(request).await.map_err(|error| words(&error))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()));
    }
    let page = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    driven.abort();
    Ok(String::from_utf8_lossy(&page.map_err(|error| error.to_string())?.to_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE spillway_pressure_ratio gauge
spillway_pressure_ratio 1.25
spillway_overload_level 1
spillway_upstream_up 1
spillway_shed_total{lane=\"telemetry\",reason=\"identity_rate\"} 10
spillway_shed_total{lane=\"telemetry\",reason=\"queue_full\"} 5
spillway_shed_total{lane=\"workload\",reason=\"queue_full\"} 0
";

    #[test]
    fn a_page_of_metrics_says_how_it_is_and_its_counts_are_added_by_lane() {
        let (seen, shed) = read(PAGE).unwrap();
        assert_eq!((seen.pressure, seen.state.as_str(), seen.upstream_up), (1.25, "brown", true));
        assert_eq!(shed, BTreeMap::from([("telemetry".into(), 15.0), ("workload".into(), 0.0)]));
        assert!(read("up 1\n").is_none() && read("").is_none());
        assert!(read(&PAGE.replace("level 1", "level 9")).is_none());
    }

    #[test]
    fn refusals_are_a_rate_and_a_restart_is_no_negative_one() {
        let at = |count: f64| BTreeMap::from([("telemetry".to_owned(), count)]);
        let rate = |earlier, now| rates(&at(earlier), &at(now), Duration::from_secs(2))["telemetry"];
        assert_eq!((rate(10.0, 30.0), rate(10.0, 10.0), rate(10.0, 4.0)), (10.0, 0.0, 2.0));
    }
}
