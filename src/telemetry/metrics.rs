//! Which numbers does a scrape show?
//!
//! Names and labels are in `docs/METRICS.md`; `tests/tidy.rs` holds both together. Histogram buckets are those of
//! kube-apiserver (request duration) and of APF (queue wait), so that both can be drawn in one panel.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, TextEncoder,
};

use super::audit::AuditCounters;
use super::change::Changes;
use super::clients::Clients;
use super::credentials::Credentials;
use super::enforcement::Shadowed;
use super::guard::{GuardCounts, Guarded};
use super::levers::{LeverGauges, Levers};
use super::newcomers::Newcomers;
use super::overload::{GateGauges, Overload, raise};
use super::own::{Own, OwnScrape};
use super::register::{Described, Register};
use super::samples::Samples;
use super::{Answered, Answerer, LaneMetrics};
use crate::flow::levers::Action;
use crate::flow::newcomers::Counts;
use crate::flow::{Diagnosis, End, Reason, Snapshot, Would};
use crate::policy::{Enforcement, Lane};
use crate::request::Verb;

/// kube-apiserver's own buckets for request duration, seconds.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// APF's buckets for `request_wait_duration_seconds`, seconds.
const WAIT_BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// Our own share of a request, seconds: 25 µs to 25 ms.
const OVERHEAD_BUCKETS: [f64; 10] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025];

/// Statuses with a series of their own; every other one counts as its class (`2xx` …), so that an upstream cannot
/// make series up.
const CODES: [u16; 22] = [
    101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 409, 410, 413, 422, 429, 503,
    504,
];
const CODE_CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];
const CODE_SLOTS: usize = CODES.len() + CODE_CLASSES.len();
const VERB_LABELS: [&str; 11] = [
    "GET",
    "LIST",
    "WATCH",
    "POST",
    "PUT",
    "PATCH",
    "APPLY",
    "DELETE",
    "DELETECOLLECTION",
    "CONNECT",
    "OTHER",
];

/// What an answer that is none can mean, in the order of [`Metrics::upstream_ended`].
pub(super) const FAILURES: [&str; 6] = ["dropped", "timed_out", "congested", "warming", "lagging", "closing"];

/// State of the connections towards kube-apiserver, read at a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpstreamGauges {
    /// Whether the last probe was answered.
    pub up: bool,
    /// Open connections.
    pub connections: u64,
    /// Requests and watches now on them.
    pub streams: u64,
    /// Connections opened since the start.
    pub opened: u64,
}

/// Everything that is read at the moment of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// The scheduler's numbers.
    pub flow: &'a Snapshot,
    /// Why the apiserver is slow.
    pub diagnosis: &'a Diagnosis,
    /// The gate's numbers.
    pub gate: GateGauges,
    /// What operators put in force by hand.
    pub levers: LeverGauges,
    /// Who is new.
    pub newcomers: Counts,
    /// The connections.
    pub upstream: UpstreamGauges,
    /// What spillway itself takes.
    pub own: OwnScrape<'a>,
}

/// Every metric of one proxy, with a registry of its own: several proxies can live in one process.
pub struct Metrics {
    registry: Registry,
    /// What there is, for the document.
    catalogue: Vec<Described>,
    requests: IntCounterVec,
    request_slots: Vec<OnceLock<IntCounter>>,
    pub(super) request_duration: [Histogram; Lane::COUNT],
    queue_wait: [Histogram; Lane::COUNT],
    pub(super) upstream_duration: Histogram,
    overhead: Histogram,
    shed: IntCounterVec,
    pub(super) failures: [IntCounter; FAILURES.len()],
    gauges: Gauges,
    overload: Overload,
    credentials: Credentials,
    levers: Levers,
    newcomers: Newcomers,
    own: Own,
    lane: Arc<LaneMetrics>,
    breakglass_requests: IntCounterVec,
    clients: Clients,
    changes: Changes,
    audit: AuditCounters,
    shadowed: Shadowed,
    guarded: Guarded,
    /// Which refusals get a log line.
    pub(super) samples: Samples,
}

struct Gauges {
    executing_seats: GaugeVec,
    executing_requests: GaugeVec,
    waiting: GaugeVec,
    current_seats: GaugeVec,
    watches: GaugeVec,
    limit: Gauge,
    inflight: Gauge,
    pressure: Gauge,
    overload: Gauge,
    upstream_up: Gauge,
    upstream_connections: Gauge,
    upstream_streams: Gauge,
    upstream_opened: IntCounter,
}

impl Metrics {
    /// A fresh registry with every metric of `docs/METRICS.md`.
    ///
    /// # Errors
    /// When two metrics collide by name: a defect that the first test finds.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("spillway".to_owned()), None)?;
        let register = Register::new(&registry);
        let requests = register.counters(
            "requests_total",
            "requests answered, by the apiserver or by spillway",
            &["lane", "verb", "code"],
        )?;
        let request_duration = register.histograms(
            "request_duration_seconds",
            "from the request's arrival to the head of its answer; the apiserver's own buckets",
            &DURATION_BUCKETS,
        )?;
        let queue_wait = register.histograms(
            "queue_wait_seconds",
            "time in the lane's queue, of requests that were forwarded; APF's buckets",
            &WAIT_BUCKETS,
        )?;
        let metrics = Self {
            request_slots: (0..Lane::COUNT * VERB_LABELS.len() * CODE_SLOTS)
                .map(|_| OnceLock::new())
                .collect(),
            request_duration: per_lane(&request_duration),
            queue_wait: per_lane(&queue_wait),
            upstream_duration: register.histogram(
                "upstream_duration_seconds",
                "from sending a request on to the apiserver's first byte",
                &DURATION_BUCKETS,
            )?,
            overhead: register.histogram(
                "overhead_seconds",
                "spillway's own time before forwarding, queue and token reviews excluded",
                &OVERHEAD_BUCKETS,
            )?,
            shed: register.counters(
                "shed_total",
                "answered by spillway instead of the apiserver, by why",
                &["lane", "reason"],
            )?,
            failures: upstream_failures(&register)?,
            gauges: Gauges::register(&register)?,
            overload: Overload::register(&register)?,
            credentials: Credentials::register(&register)?,
            levers: Levers::register(&register)?,
            newcomers: Newcomers::register(&register)?,
            lane: Arc::new(LaneMetrics::register(&register)?),
            breakglass_requests: breakglass_requests(&register)?,
            own: Own::register(&register)?,
            samples: Samples::new(),
            clients: Clients::register(&register)?,
            changes: Changes::register(&register)?,
            audit: AuditCounters::register(&register)?,
            shadowed: Shadowed::register(&register)?,
            guarded: Guarded::register(&register)?,
            requests,
            registry: registry.clone(),
            catalogue: Vec::new(),
        };
        register.build_info()?;
        Ok(Self { catalogue: register.catalogue(), ..metrics })
    }

    /// Counts an answered request.
    pub(super) fn answered(&self, event: &Answered<'_>) {
        self.request_counter(event.lane, event.verb, event.status).inc();
        self.request_duration[event.lane.index()].observe(event.latency.as_secs_f64());
        match event.answerer {
            Answerer::Upstream => {
                self.upstream_duration.observe(event.upstream.as_secs_f64());
                self.queue_wait[event.lane.index()].observe(event.queued.as_secs_f64());
            }
            Answerer::Refused(reason) | Answerer::Failed(reason) => self.refused(event.lane, reason),
        }
        self.guarded.answered(event);
        if let Some(would) = event.would {
            self.would(event.lane, event.rule, would);
        }
        if event.lane == Lane::BreakGlass {
            self.breakglass_requests.with_label_values(&[code_label(code_slot(event.status))]).inc();
        }
    }

    /// Counts our own part of a request that is about to be forwarded.
    pub fn overhead(&self, own: Duration) {
        self.overhead.observe(own.as_secs_f64());
    }

    /// Counts what an answer, or its lack, said about the apiserver.
    pub fn upstream_ended(&self, end: End) {
        let place = match end {
            End::Success | End::Ignored => return,
            End::Dropped => 0,
            End::TimedOut => 1,
            End::Congested => 2,
            End::Warming { .. } => 3,
            End::Lagging => 4,
            End::Closing => 5,
        };
        self.failures[place].inc();
    }

    /// Counts a request that was refused because an operator isolated its client.
    pub fn isolated(&self, action: Action) {
        self.levers.isolated(action);
    }

    /// What is counted about clients and what they send.
    #[must_use]
    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Counts a request that was let in although the policy would not.
    pub(super) fn would(&self, lane: Lane, rule: &str, would: Would) {
        self.shadowed.count(lane, rule, would);
    }

    /// What the guard of a rollout judges by, up to now.
    #[must_use]
    pub fn guard_counts(&self) -> GuardCounts {
        self.guarded.counts(&self.overhead)
    }

    /// What became of judged intervals.
    #[must_use]
    pub const fn guarded(&self) -> &Guarded {
        &self.guarded
    }

    /// Sets how far the policy is in force.
    pub fn enforcement(&self, enforcement: Enforcement) {
        self.shadowed.in_force(enforcement);
    }

    /// Which policy is in force, and what became of changes.
    #[must_use]
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Counts a file that changed, or a key set that was fetched: `what` it is, and whether it could be used.
    pub fn credential_reloaded(&self, what: &'static str, worked: bool) {
        self.credentials.reloaded(what, worked);
    }

    /// Sets when a certificate ends. `certificate` comes from the configuration.
    pub fn certificate_ends(&self, certificate: &str, end: SystemTime) {
        self.credentials.ends(certificate, end);
    }

    /// Raises the counts of token reviews to these.
    pub fn tokens_reviewed(&self, results: &[(&'static str, u64)]) {
        self.credentials.reviewed(results);
    }

    /// Those that the break-glass lane writes.
    #[must_use]
    pub fn lane(&self) -> Arc<LaneMetrics> {
        Arc::clone(&self.lane)
    }

    fn refused(&self, lane: Lane, reason: Reason) {
        self.shed.with_label_values(&[lane.as_str(), reason.as_str()]).inc();
    }

    fn request_counter(&self, lane: Lane, verb: Verb, status: u16) -> &IntCounter {
        let (verb, code) = (verb_slot(verb), code_slot(status));
        let slot = (lane.index() * VERB_LABELS.len() + verb) * CODE_SLOTS + code;
        self.request_slots[slot].get_or_init(|| {
            self.requests.with_label_values(&[lane.as_str(), VERB_LABELS[verb], code_label(code)])
        })
    }

    /// What there is, in the order of the document.
    #[must_use]
    pub fn catalogue(&self) -> &[Described] {
        &self.catalogue
    }

    /// The text a scrape gets. Gauges are read from the scheduler and the connection pools at this moment.
    pub fn render(&self, scrape: &Scrape<'_>) -> String {
        self.gauges.set(scrape.flow, scrape.upstream);
        self.overload.set(scrape.flow, scrape.diagnosis, scrape.gate);
        self.own.set(&scrape.own, self.samples.suppressed());
        self.levers.set(scrape.levers);
        self.audit.set();
        self.newcomers.set(scrape.newcomers);
        self.registered()
    }

    /// Those of the audit trail.
    pub const fn audit(&self) -> &AuditCounters {
        &self.audit
    }

    /// Those of newcomers.
    pub const fn newcomers(&self) -> &Newcomers {
        &self.newcomers
    }

    /// The text of everything as it was counted, with gauges of the last scrape.
    pub fn registered(&self) -> String {
        let mut text = Vec::new();
        // The encoder fails only when the writer does, and a Vec does not.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Gauges {
    fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let lane = &["lane"];
        Ok(Self {
            executing_seats: register.gauges("lane_executing_seats", "seats in use", lane)?,
            executing_requests: register.gauges(
                "lane_executing_requests",
                "requests forwarded and not done",
                lane,
            )?,
            waiting: register.gauges("lane_inqueue_requests", "requests waiting", lane)?,
            current_seats: register.gauges(
                "lane_current_seats",
                "seats in use, of all lanes together, up to which this lane is let in",
                lane,
            )?,
            watches: register.gauges("watches_active", "live watches", lane)?,
            limit: register.gauge("concurrency_limit", "the limit L: seats that may be in use now")?,
            inflight: register.gauge("inflight_seats", "seats in use, all lanes")?,
            pressure: register.gauge(
                "pressure_ratio",
                "how many times slower than its calm baseline the apiserver answers",
            )?,
            overload: register.gauge(
                "overload_level",
                "0 normal, 1 brown (shedding), 2 red (brake), 3 cold (apiserver away), 4 ramp (coming \
                 back)",
            )?,
            upstream_up: register.gauge("upstream_up", "1 while the apiserver answers probes")?,
            upstream_connections: register
                .gauge("upstream_connections", "open connections to the apiserver")?,
            upstream_streams: register
                .gauge("upstream_streams", "requests and watches on those connections")?,
            upstream_opened: register.counter(
                "upstream_connections_opened_total",
                "connections opened; a steep slope means something closes them",
            )?,
        })
    }

    fn set(&self, flow: &Snapshot, upstream: UpstreamGauges) {
        for lane in Lane::ALL {
            let now = flow.lane(lane);
            let label = &[lane.as_str()];
            self.executing_seats.with_label_values(label).set(f64::from(now.seats.0));
            self.executing_requests.with_label_values(label).set(f64::from(now.executing));
            self.waiting.with_label_values(label).set(f64::from(now.waiting));
            self.current_seats.with_label_values(label).set(f64::from(now.ceiling.0));
            self.watches.with_label_values(label).set(f64::from(now.watches));
        }
        self.limit.set(f64::from(flow.limit.0));
        self.inflight.set(f64::from(flow.used.0));
        self.pressure.set(flow.pressure);
        self.overload.set(f64::from(flow.state as u8));
        self.upstream_up.set(if upstream.up { 1.0 } else { 0.0 });
        self.upstream_connections.set(gauge(upstream.connections as usize));
        self.upstream_streams.set(gauge(upstream.streams as usize));
        raise(&self.upstream_opened, upstream.opened);
    }
}

fn upstream_failures(register: &Register<'_>) -> Result<[IntCounter; FAILURES.len()], prometheus::Error> {
    let failures = register.counters(
        "upstream_failures_total",
        "answers, or missing ones, that say something about the apiserver: `congested` (it \
                 refused for load), `dropped` (no answer, 503), `timed_out`, `warming` (its watch cache \
                 is being filled), `lagging` (its cache is behind etcd), `closing` (it shuts down)",
        &["meaning"],
    )?;
    Ok(FAILURES.map(|meaning| failures.with_label_values(&[meaning])))
}

/// Every code begins at 0. A counter that is born with its first request has no increase that an alert could see, and the
/// first request of the lane is the one that matters.
fn breakglass_requests(register: &Register<'_>) -> Result<IntCounterVec, prometheus::Error> {
    let requests = register.counters(
        "breakglass_requests_total",
        "requests on the break-glass listener; alert on any",
        &["code"],
    )?;
    for slot in 0..CODE_SLOTS {
        requests.with_label_values(&[code_label(slot)]).inc_by(0);
    }
    Ok(requests)
}

fn per_lane(metric: &HistogramVec) -> [Histogram; Lane::COUNT] {
    Lane::ALL.map(|lane| metric.with_label_values(&[lane.as_str()]))
}

fn gauge(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn code_slot(status: u16) -> usize {
    CODES
        .iter()
        .position(|code| *code == status)
        .unwrap_or_else(|| CODES.len() + usize::from(status / 100).min(CODE_CLASSES.len() - 1))
}

fn code_label(slot: usize) -> &'static str {
    const LABELS: [&str; CODES.len()] = [
        "101", "200", "201", "202", "204", "206", "301", "302", "304", "307", "400", "401", "403", "404",
        "405", "409", "410", "413", "422", "429", "503", "504",
    ];
    LABELS.get(slot).copied().unwrap_or_else(|| CODE_CLASSES[slot - CODES.len()])
}

/// The SLO dashboards' words for verbs, as kube-apiserver's metrics use them.
const fn verb_slot(verb: Verb) -> usize {
    match verb {
        Verb::Get | Verb::Head => 0,
        Verb::List => 1,
        Verb::Watch => 2,
        Verb::Create | Verb::Post => 3,
        Verb::Update | Verb::Put => 4,
        Verb::Patch => 5,
        Verb::Delete => 7,
        Verb::DeleteCollection => 8,
        Verb::Proxy => 9,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document's part between two texts.
    fn replace(document: &str, (from, to): (&str, &str), part: &str) -> String {
        let (before, rest) = document.split_once(from).unwrap();
        let (_, after) = rest.split_once(to).unwrap();
        format!("{before}{from}{part}{to}{after}")
    }

    /// `SPILLWAY_UPDATE_GOLDEN=1` writes it.
    #[test]
    fn the_document_of_the_metrics_is_current() {
        let metrics = Metrics::new().unwrap();
        let (mut table, mut stable) = (String::new(), std::collections::BTreeSet::new());
        for Described { name, kind, labels, help } in &metrics.catalogue {
            let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
            let (promise, text) = help.split_once(' ').unwrap();
            table += &format!("| `spillway_{name}` | {kind} | {labels} | {text} |\n");
            if promise == "[STABLE]" {
                stable.insert(format!("`spillway_{name}`"));
            }
        }
        let reasons: Vec<String> =
            Reason::ALL.iter().map(|reason| format!("`{}`", reason.as_str())).collect();
        let lines = |words: Vec<String>| {
            words.into_iter().fold((String::new(), 0), |(text, length), word| match length + word.len() + 1 {
                0..=120 if length > 0 => (format!("{text} {word}"), length + word.len() + 1),
                _ if text.is_empty() => (word.clone(), word.len()),
                _ => (format!("{text}\n{word}"), word.len()),
            })
        };
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let expected = replace(
            &document,
            ("| name | type | labels | meaning |\n|---|---|---|---|\n", "\nReasons of"),
            &table,
        );
        let part = lines(reasons).0.replace("` `", "`, `").replace("`\n", "`,\n");
        let expected = replace(&expected, ("Reasons of `shed_total`:\n", ".\n\n## Stability"), &part);
        let part = format!("{}\n", lines(stable.into_iter().collect()).0);
        let expected = replace(&expected, ("`[STABLE]` are:\n\n", "\nAll others"), &part);
        if std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "docs/METRICS.md");
    }

    #[test]
    fn every_status_has_a_label_and_unknown_ones_share_their_class() {
        assert_eq!(code_label(code_slot(429)), "429");
        assert_eq!(code_label(code_slot(418)), "4xx");
        assert_eq!(code_label(code_slot(999)), "5xx");
        for status in 0..1000 {
            assert!(code_slot(status) < CODE_SLOTS, "status {status} has no slot");
        }
    }

    #[test]
    fn the_label_of_each_code_slot_is_that_code() {
        for code in CODES {
            assert_eq!(code_label(code_slot(code)), code.to_string());
        }
    }

    #[test]
    fn r7_the_first_break_glass_request_is_an_increase_whatever_its_code() {
        let metrics = Metrics::new().unwrap();
        let mut text = Vec::new();
        TextEncoder::new().encode(&metrics.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for code in (0..CODE_SLOTS).map(code_label) {
            let line = format!("spillway_breakglass_requests_total{{code=\"{code}\"}} 0\n");
            assert!(text.contains(&line), "{line}");
        }
    }

    #[test]
    fn help_of_every_metric_begins_with_its_promise() {
        let families = Metrics::new().unwrap().registry.gather();
        assert!(families.len() > 40, "{} families", families.len());
        let up = families.iter().find(|family| family.name() == "spillway_upstream_up").unwrap();
        assert!(up.help().starts_with("[STABLE] "), "{}", up.help());
        let silent = families.iter().filter(|family| {
            !["[STABLE] ", "[ALPHA] "].iter().any(|promise| family.help().starts_with(promise))
        });
        assert_eq!(silent.map(|family| family.name()).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn d10_with_every_label_there_can_be_there_are_fewer_than_five_thousand_series() {
        let metrics = Metrics::new().unwrap();
        let verbs = [
            Verb::Get,
            Verb::List,
            Verb::Watch,
            Verb::Create,
            Verb::Update,
            Verb::Patch,
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Proxy,
            Verb::Other,
        ];
        for lane in Lane::ALL {
            for status in 0..1000 {
                for verb in verbs {
                    metrics.request_counter(lane, verb, status).inc();
                }
                metrics.breakglass_requests.with_label_values(&[code_label(code_slot(status))]).inc();
            }
            for reason in Reason::ALL {
                metrics.refused(lane, reason);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&metrics.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        // What is missing are gauges by lane, and ten counters for each of at most 17 listeners.
        assert!((2_500..4_000).contains(&series), "{series} series");
    }
}
