//! The numbers of one run, and whether they are what was promised.

use std::{collections::BTreeMap, ops::Range, sync::atomic::Ordering};

use serde::Serialize;

use super::{
    journal::Call,
    measure::{Renewals, protected, quantile, renewals, within},
    mode::Mode,
    play::Notes,
    scene::{Event, Scene, Target},
    starters,
    timeline::{self, Sample},
};

/// Percent of harmless agents' requests that may be refused when shedding them would not help.
const HARMLESS_REFUSED: f64 = 5.0;

/// What one run came to. Times are in seconds, shares of 1.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scene: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) storm_seconds: f64,
    pub(crate) renewals: Renewals,
    /// Single tries to renew.
    pub(crate) lease: Latency,
    /// Whole sequences.
    pub(crate) operator: Latency,
    pub(crate) leader_losses: u64,
    /// Nodes and DNS servers that started in the storm; `slowest` of those that got everything.
    pub(crate) starters: Latency,
    pub(crate) agents: Agents,
    /// Refusals that others than agents got.
    pub(crate) others_refused: BTreeMap<&'static str, u64>,
    /// spillway's refusals by lane and reason, from the storm's begin to the end of the run.
    pub(crate) shed: BTreeMap<String, u64>,
    pub(crate) apiserver_peak_mb: u64,
    pub(crate) processor: Processor,
    /// From the storm's begin until leases and operator are within their objectives and stay so.
    pub(crate) protected_after: Option<f64>,
    /// The same from the storm's end on.
    pub(crate) recovered_after: Option<f64>,
    /// Seconds of the storm in which spillway named this cause of the pressure.
    pub(crate) causes: BTreeMap<String, u64>,
    /// What the scene's event adds.
    pub(crate) event: BTreeMap<String, String>,
    /// Why calls failed.
    pub(crate) failures: Vec<String>,
    /// Promises that were not kept; empty for runs without spillway, to which nothing is promised.
    pub(crate) missed: Vec<String>,
    #[serde(skip)]
    pub(crate) timeline: String,
    #[serde(skip)]
    pub(crate) metrics: String,
}

/// Calls that began in the storm. Quantiles are of those that succeeded.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) asked: u64,
    pub(crate) ok: u64,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) slowest: Option<f64>,
    /// Of the calm before.
    pub(crate) p99_calm: Option<f64>,
}

/// What the storm's agents got in the storm.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Agents {
    pub(crate) asked: u64,
    /// Whole answers: LISTs, or the initial events of watches.
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) answer_p50: Option<f64>,
    /// Agents with at least one whole answer.
    pub(crate) served: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

/// Shares of one core in the storm.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Processor {
    pub(crate) apiserver: f64,
    pub(crate) etcd: f64,
    pub(crate) spillway: f64,
    pub(crate) load: f64,
}

pub(crate) fn of(scene: &Scene, mode: Mode, notes: &Notes, peak_mb: u64) -> Outcome {
    let clock = notes.clock;
    let [calm, storm, after, end] = [notes.times.calm, notes.times.storm, notes.times.after, notes.times.end]
        .map(|moment| clock.at(moment));
    let (before, window) = (calm..storm, storm..after);
    let (leases, operator) = (notes.kubelets.calls.all(), notes.operator.calls.all());
    let samples = notes.samples.lock().clone();
    let sampled = samples.iter().filter(|sample| sample.at >= storm).map(|sample| sample.rss_mb).max();
    let beside = timeline::Notes {
        leases: &notes.kubelets.calls,
        operator: &notes.operator.calls,
        storm: &notes.storm,
        parts: [calm, storm, after],
    };
    let mut outcome = Outcome {
        scene: scene.name,
        mode: mode.name(),
        storm_seconds: after - storm,
        renewals: renewals(&notes.kubelets.nodes(), &window, end),
        lease: latency(&leases, &before, &window),
        operator: latency(&operator, &before, &window),
        leader_losses: notes.electors.lost(),
        starters: latency(&notes.starters.calls.all(), &before, &window),
        agents: agents(notes, &window),
        others_refused: others(notes),
        shed: shed(notes),
        apiserver_peak_mb: peak_mb.max(sampled.unwrap_or(0)),
        processor: processor(notes, after - storm),
        protected_after: protected(&leases, &operator, &window, mode.objective()),
        recovered_after: protected(&leases, &operator, &(after..end), mode.objective()),
        causes: causes(&samples, &window),
        event: event(notes, mode, &window, &leases, &operator),
        failures: failures(notes),
        missed: Vec::new(),
        timeline: timeline::render(&samples, &beside),
        metrics: timeline::dump(&samples),
    };
    if !mode.is_direct() {
        outcome.missed = missed(&outcome, scene, mode);
    }
    outcome
}

fn latency(calls: &[Call], calm: &Range<f64>, window: &Range<f64>) -> Latency {
    let stormy = within(calls, window);
    Latency {
        asked: stormy.len() as u64,
        ok: stormy.iter().filter(|call| call.ok).count() as u64,
        p50: quantile(&stormy, 0.5),
        p99: quantile(&stormy, 0.99),
        slowest: quantile(&stormy, 1.0),
        p99_calm: quantile(&within(calls, calm), 0.99),
    }
}

/// Answers that were whole in `part`.
fn answers(served: &[Call], part: &Range<f64>) -> usize {
    served.iter().filter(|call| part.contains(&(call.at + call.took))).count()
}

fn agents(notes: &Notes, window: &Range<f64>) -> Agents {
    let storm = &notes.storm;
    let served = storm.served.lock().clone();
    let answers = answers(&served, window);
    Agents {
        asked: storm.asked.load(Ordering::Relaxed),
        answers: answers as u64,
        answers_per_second: answers as f64 / (window.end - window.start),
        answer_p50: quantile(&served, 0.5),
        served: storm.by_agent.lock().iter().filter(|answers| **answers > 0).count() as u64,
        refused: storm.refusals(),
        failed: storm.failed.all().len() as u64,
    }
}

fn processor(notes: &Notes, seconds: f64) -> Processor {
    let [apiserver, etcd, spillway, load] = match notes.used.lock()[..] {
        [before, after] => after.shares(before, seconds),
        _ => [0.0; 4],
    };
    Processor { apiserver, etcd, spillway, load }
}

/// What the event wrote down; and where the world changed, how it was before and after that.
fn event(
    notes: &Notes,
    mode: Mode,
    window: &Range<f64>,
    leases: &[Call],
    operator: &[Call],
) -> BTreeMap<String, String> {
    let mut facts = notes.happened.facts();
    let Some(changed) = *notes.happened.changed.lock() else { return facts };
    let served = notes.storm.served.lock().clone();
    for (name, part) in
        [("before the change", window.start..changed), ("after the change", changed..window.end)]
    {
        let heavy = answers(&served, &part);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2} s"));
        let text = format!(
            "lease p99 {}, operator p99 {}, {:.2} heavy/s, within objectives after {}",
            shown(quantile(&within(leases, &part), 0.99)),
            shown(quantile(&within(operator, &part), 0.99)),
            heavy as f64 / (part.end - part.start).max(1.0),
            shown(protected(leases, operator, &part, mode.objective())),
        );
        facts.insert(name.into(), text);
    }
    facts
}

/// How long spillway blamed whom.
fn causes(samples: &[Sample], window: &Range<f64>) -> BTreeMap<String, u64> {
    let mut causes = BTreeMap::new();
    for sample in samples.iter().filter(|sample| window.contains(&sample.at)) {
        for (series, value) in sample.metrics.scalars().filter(|(_, value)| *value > 0.0) {
            let labels = series.strip_prefix(timeline::CAUSE);
            if let Some(cause) = labels.and_then(|rest| rest.split('"').next()) {
                *causes.entry(cause.to_owned()).or_default() += value as u64;
            }
        }
    }
    causes
}

fn others(notes: &Notes) -> BTreeMap<&'static str, u64> {
    [
        ("kubelets", &notes.kubelets.calls),
        ("operator", &notes.operator.calls),
        ("electors", &notes.electors.calls),
        ("starters", &notes.starters.calls),
    ]
    .into_iter()
    .map(|(who, calls)| (who, calls.refusals()))
    .filter(|(_, refused)| *refused > 0)
    .collect()
}

fn shed(notes: &Notes) -> BTreeMap<String, u64> {
    let read = notes.metrics.lock();
    match (read.first(), read.last()) {
        (Some(first), Some(last)) => last.growth(first, "spillway_shed_total"),
        _ => BTreeMap::new(),
    }
}

fn failures(notes: &Notes) -> Vec<String> {
    [
        ("kubelets", &notes.kubelets.calls),
        ("operator", &notes.operator.calls),
        ("electors", &notes.electors.calls),
        ("starters", &notes.starters.calls),
        ("agents", &notes.storm.failed),
    ]
    .into_iter()
    .flat_map(|(who, calls)| calls.reasons().into_iter().map(move |reason| format!("{who}: {reason}")))
    .collect()
}

/// The promises of a run through spillway that this one has not kept.
fn missed(seen: &Outcome, scene: &Scene, mode: Mode) -> Vec<String> {
    let (mut missed, target) = (Vec::new(), scene.target);
    let mut hold = |kept: bool, what: &str, value: String| {
        if !kept {
            missed.push(format!("{what}: {value}"));
        }
    };
    let below = |value: Option<f64>, most: f64| value.is_some_and(|value| value <= most);
    let shown = |value: Option<f64>| value.map_or_else(|| "never".into(), |value| format!("{value:.2} s"));
    if target == Target::Shown {
        return missed;
    }
    let percent = |of: u64, all: u64| 100.0 * of as f64 / all.max(1) as f64;
    let on_time = percent(seen.renewals.on_time, seen.renewals.due);
    let operator = percent(seen.operator.ok, seen.operator.asked);
    hold(on_time >= 99.0, "renewals on time >= 99 %", format!("{on_time:.1} %"));
    hold(operator >= 100.0, "operator 100 %", format!("{operator:.0} %"));
    hold(seen.renewals.not_ready == 0, "0 nodes NotReady", seen.renewals.not_ready.to_string());
    hold(seen.leader_losses == 0, "0 leader losses", seen.leader_losses.to_string());
    hold(seen.starters.ok == starters::COUNT as u64, "14 starters served", seen.starters.ok.to_string());
    if target == Target::Harmless {
        hold(seen.agents.refused == 0, "nobody refused", seen.agents.refused.to_string());
    }
    if matches!(scene.event, Event::EtcdPauses | Event::WebhookHole) {
        let refused = percent(seen.agents.refused, seen.agents.asked);
        hold(refused <= HARMLESS_REFUSED, "harmless telemetry goes on", format!("{refused:.0} % refused"));
    }
    if scene.event == Event::EtcdPauses {
        hold(seen.causes.contains_key("etcd"), "the cause is etcd", format!("{:?}", seen.causes));
    }
    let (lease, operator, rate) = match (target, mode) {
        (Target::Lists, Mode::Spillway100ms) => (0.12, 0.40, 0.9),
        // Half a core for half of the time.
        (Target::Lists, _) if matches!(scene.event, Event::Halved | Event::Doubled) => (0.26, 0.74, 1.0),
        (Target::Lists, _) => (0.26, 0.74, 2.0),
        (Target::Watches, _) => (0.16, 0.55, 0.0),
        _ => return missed,
    };
    hold(below(seen.lease.p99, lease), &format!("lease p99 <= {lease} s"), shown(seen.lease.p99));
    hold(
        below(seen.operator.p99, operator),
        &format!("operator p99 <= {operator} s"),
        shown(seen.operator.p99),
    );
    hold(
        seen.agents.answers_per_second >= rate,
        &format!("heavy answers >= {rate}/s"),
        format!("{:.2}/s", seen.agents.answers_per_second),
    );
    hold(seen.apiserver_peak_mb <= 1229, "apiserver <= 1.2 GiB", format!("{} MB", seen.apiserver_peak_mb));
    hold(below(seen.protected_after, 2.0), "protected within 2 s", shown(seen.protected_after));
    hold(below(seen.recovered_after, 2.0), "recovered within 2 s", shown(seen.recovered_after));
    missed
}
