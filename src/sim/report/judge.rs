//! What is better? The score that chooses settings, the pass rule, and the targets.
//!
//! **Score** of a run, the same for everybody: (the least of renewals on time, operators' sequences and starts that worked)
//! × (half + half × useful work against the oracle's, at most 1), halved when the server died more often than under the
//! oracle. **Pass rule**: better than X in a scenario when the 95 % interval of the difference of scores over equal seeds
//! lies above zero; better than X when that holds in 80 % of the scenarios in which one of them scores worse than the other,
//! and in no scenario node health or operators fare worse by more than 5 %.

use super::statistics::{Difference, median, quantile};
use super::study::{Study, useful_work};
use crate::sim::Run;

/// Ours.
pub(super) const OURS: &str = "spillway";
/// Share of the scenarios that must be won.
const WON_MIN: f64 = 0.8;
/// Worse by more than this is a loss.
const WORSE: f64 = 0.05;
/// Differences of times below this are nobody's harm, in ms: a fifth of the tightest objective anybody would set.
const TIME_FLOOR_MS: f64 = 20.0;

/// See the head of this file.
pub(super) fn score(study: &Study<'_>, scenario: usize, run: &Run) -> f64 {
    let share = |name: &str| run.outcome.metric(name).unwrap_or(1.0);
    let kept = share("renewals_ok").min(share("operator_ok")).min(share("started_ok"));
    let useful = study.oracle_work(scenario).map_or(1.0, |oracle| (useful_work(run) / oracle).min(1.0));
    let deaths = run.outcome.metric("deaths").unwrap_or(0.0);
    let dies = deaths > study.median(scenario, "oracle", "deaths").unwrap_or(0.0);
    kept * (0.5 + 0.5 * useful) * if dies { 0.5 } else { 1.0 }
}

/// How a scenario ended against a rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Even,
    Worse,
}

/// The difference of scores in one scenario.
pub(super) fn compare(study: &Study<'_>, scenario: usize, rival: &str) -> Option<(Verdict, Difference)> {
    let scores = |name: &str| -> Vec<f64> {
        study.runs_of(scenario, name).map(|run| score(study, scenario, run)).collect()
    };
    let difference = Difference::of(&scores(OURS), &scores(rival))?;
    let verdict = match difference {
        _ if difference.is_above() => Verdict::Better,
        _ if difference.is_below() => Verdict::Worse,
        _ => Verdict::Even,
    };
    Some((verdict, difference))
}

/// A number in which a rival is surely better than we are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss {
    pub(super) scenario: usize,
    pub(super) rival: String,
    pub(super) metric: &'static str,
    pub(super) ours: f64,
    pub(super) theirs: f64,
}

/// What counts as a loss: metric, whether more is better, whether it is about the lanes that must not suffer.
const WATCHED: [(&str, bool, bool); 6] = [
    ("renewals_ok", true, true),
    ("lease_p99_ms", false, true),
    ("operator_ok", true, true),
    ("operator_p99_ms", false, true),
    ("useful work, cores", true, false),
    ("deaths", false, true),
];

/// Numbers in which `rival` is better by more than 5 %, with an interval that excludes zero.
pub(super) fn losses(study: &Study<'_>, rival: &str, protected_only: bool) -> Vec<Loss> {
    let mut losses = Vec::new();
    for scenario in 0..study.scenarios.len() {
        for (metric, more, protected) in WATCHED {
            if protected_only && !protected {
                continue;
            }
            let values = |name: &str| match metric {
                "useful work, cores" => study.runs_of(scenario, name).map(useful_work).collect(),
                _ => study.values(scenario, name, metric),
            };
            let (ours, theirs) = (values(OURS), values(rival));
            let Some(difference) = Difference::of(&ours, &theirs) else { continue };
            let is_worse = if more { difference.is_below() } else { difference.is_above() };
            let (Some(ours), Some(theirs)) = (median(&ours), median(&theirs)) else { continue };
            let floor = if metric.ends_with("_ms") { TIME_FLOOR_MS } else { 0.0 };
            if is_worse && (ours - theirs).abs() > (WORSE * theirs.abs()).max(floor) {
                losses.push(Loss { scenario, rival: rival.to_owned(), metric, ours, theirs });
            }
        }
    }
    losses
}

/// The pass rule against one rival.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) better: usize,
    pub(super) even: usize,
    pub(super) worse: usize,
    pub(super) harmed: usize,
    pub(super) passed: bool,
}

pub(super) fn pass(study: &Study<'_>, rival: &str) -> Passed {
    let verdicts: Vec<Verdict> = (0..study.scenarios.len())
        .filter_map(|scenario| compare(study, scenario, rival))
        .map(|(verdict, _)| verdict)
        .collect();
    let count = |wanted: Verdict| verdicts.iter().filter(|&&verdict| verdict == wanted).count();
    let (better, even, worse) = (count(Verdict::Better), count(Verdict::Even), count(Verdict::Worse));
    let decided = better + worse;
    let harmed = losses(study, rival, true).len();
    let passed = decided > 0 && better as f64 >= WON_MIN * decided as f64 && harmed == 0;
    Passed { better, even, worse, harmed, passed }
}

/// A target of the issue, and what was reached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) wanted: String,
    /// What was reached, worst first; empty: nothing could be measured.
    pub(super) reached: String,
    pub(super) hit: bool,
}

/// Bounds of one number in some scenarios: (text, metric, scenarios, low, high).
type Bound = (&'static str, &'static str, &'static [&'static str], f64, f64);

const STORMS: &[&str] = &[
    "one-core",
    "one-core-ignorant",
    "one-core-nodes",
    "one-core-pods",
    "one-core-watches",
    "one-core-halved",
    "one-core-doubled",
    "rollout-2000",
    "rollout-5000",
    "ignorant",
    "worst-minute",
];
const ALL: &[&str] = &[];
const INFINITE: f64 = f64::INFINITY;

const BOUNDS: [Bound; 15] = [
    (
        "lease p99 in a roll-out and with 16→3 cores, ms",
        "lease_p99_ms",
        &["rollout-2000", "rollout-5000", "ignorant", "lost-cores"],
        0.0,
        50.0,
    ),
    (
        "renewals on time in every storm of the one-core rig",
        "renewals_ok",
        &["one-core", "one-core-ignorant", "one-core-nodes", "one-core-watches"],
        0.99,
        1.0,
    ),
    (
        "lease p99 in list storms of the one-core rig, ms",
        "lease_p99_ms",
        &["one-core", "one-core-ignorant", "one-core-nodes"],
        0.0,
        260.0,
    ),
    (
        "operator p99 there, ms",
        "operator_p99_ms",
        &["one-core", "one-core-ignorant", "one-core-nodes"],
        0.0,
        740.0,
    ),
    (
        "telemetry LISTs a second there",
        "telemetry.served_per_s",
        &["one-core", "one-core-ignorant"],
        2.0,
        INFINITE,
    ),
    ("lease p99 in the watch storm of the rig, ms", "lease_p99_ms", &["one-core-watches"], 0.0, 160.0),
    ("operator p99 in the watch storm of the rig, ms", "operator_p99_ms", &["one-core-watches"], 0.0, 550.0),
    ("nodes NotReady in storms", "not_ready", STORMS, 0.0, 0.0),
    ("leaders lost in storms", "leader_losses", STORMS, 0.0, 0.0),
    ("false shed, steady day", "false_shed", &["steady-day"], 0.0, 0.0001),
    ("false shed, mix shift", "false_shed", &["mix-shift"], 0.0, 0.001),
    ("false shed, slow etcd or webhook", "false_shed", &["slow-etcd", "slow-webhook"], 0.0, 0.005),
    ("recovery after a storm, s", "recover_s", STORMS, 0.0, 3.0),
    ("attempts per success of telemetry in storms", "telemetry.attempts_per_success", STORMS, 0.0, 2.0),
    ("variation of L from 10 s on", "limit_cv", ALL, 0.0, 0.1),
];

/// All targets that the simulator can judge.
pub(super) fn targets(study: &Study<'_>) -> Vec<Target> {
    let mut targets = vec![protection(study), operators(study)];
    targets.extend(BOUNDS.iter().map(|bound| bounded(study, bound)));
    targets.extend([cold(study), goodput(study), against_best(study), fairness(study)]);
    targets
}

fn places(study: &Study<'_>, names: &[&str]) -> Vec<usize> {
    (0..study.scenarios.len())
        .filter(|&place| names.is_empty() || names.contains(&study.scenarios[place].name.as_str()))
        .collect()
}

/// Numbers by scenario in one line, those that miss only; all hit: the worst of them.
fn listed(
    study: &Study<'_>,
    values: &[(usize, f64)],
    hits: impl Fn(f64) -> bool,
    more: bool,
) -> (String, bool) {
    let mut values = values.to_vec();
    values.sort_by(|one, two| if more { one.1.total_cmp(&two.1) } else { two.1.total_cmp(&one.1) });
    let missed: Vec<_> = values.iter().filter(|(_, value)| !hits(*value)).copied().collect();
    let shown = if missed.is_empty() { values.iter().take(1).copied().collect() } else { missed.clone() };
    let text =
        shown.iter().map(|&(place, value)| format!("{} {}", study.scenarios[place].name, short(value)));
    (text.collect::<Vec<_>>().join(", "), missed.is_empty() && !values.is_empty())
}

/// A number with three digits that matter.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

fn bounded(study: &Study<'_>, &(what, metric, scenarios, low, high): &Bound) -> Target {
    let values: Vec<(usize, f64)> = places(study, scenarios)
        .into_iter()
        .filter_map(|place| Some((place, study.median(place, OURS, metric)?)))
        .collect();
    let more = high == INFINITE || low > 0.0;
    let (reached, hit) = listed(study, &values, |value| low <= value && value <= high, more);
    let wanted = if more { format!("at least {}", short(low)) } else { format!("at most {}", short(high)) };
    Target { what: what.to_owned(), wanted, reached, hit }
}

fn protection(study: &Study<'_>) -> Target {
    let all: Vec<f64> =
        places(study, STORMS).iter().flat_map(|&place| study.values(place, OURS, "protect_s")).collect();
    let (half, most) = (median(&all).unwrap_or(INFINITE), quantile(&all, 0.95).unwrap_or(INFINITE));
    Target {
        what: "time to protect node health in a storm, s".to_owned(),
        wanted: "median at most 1, p95 at most 2".to_owned(),
        reached: format!("median {}, p95 {}", short(half), short(most)),
        hit: half <= 1.0 && most <= 2.0,
    }
}

fn operators(study: &Study<'_>) -> Target {
    let values: Vec<(usize, f64)> = places(study, ALL)
        .into_iter()
        // While the server is away nobody is served by anybody.
        .filter(|&place| study.scenarios[place].events.iter().all(|event| event.kill.is_none()))
        .filter_map(|place| Some((place, study.median(place, OURS, "operator_ok")?)))
        .collect();
    let (reached, hit) = listed(study, &values, |value| value >= 1.0, true);
    let what = "operators' sequences that worked, but while the server is away".to_owned();
    Target { what, wanted: "all".to_owned(), reached, hit }
}

fn cold(study: &Study<'_>) -> Target {
    let values: Vec<(usize, f64)> = places(study, &["cold-restart"])
        .into_iter()
        .filter_map(|place| Some((place, study.median(place, OURS, "recover_s")?)))
        .collect();
    let deaths =
        places(study, &["cold-restart"]).into_iter().filter_map(|place| study.median(place, OURS, "deaths"));
    let once = deaths.fold(0.0, f64::max) <= 1.0;
    let (reached, hit) = listed(study, &values, |value| value <= 30.0, false);
    Target {
        what: "recovery after a cold restart, s".to_owned(),
        wanted: "at most 30, no second outage".to_owned(),
        reached: format!("{reached}{}", if once { "" } else { ", and a second outage" }),
        hit: hit && once,
    }
}

fn goodput(study: &Study<'_>) -> Target {
    let values: Vec<(usize, f64)> = places(study, ALL)
        .into_iter()
        .filter_map(|place| {
            let works: Vec<f64> = study.runs_of(place, OURS).map(useful_work).collect();
            Some((place, median(&works)? / study.oracle_work(place)?))
        })
        .collect();
    let (reached, hit) = listed(study, &values, |value| value >= 0.95, true);
    Target {
        what: "useful work against the oracle".to_owned(),
        wanted: "at least 0.95".to_owned(),
        reached,
        hit,
    }
}

/// In the scenario where the best rival scores lowest: our score against it.
fn against_best(study: &Study<'_>) -> Target {
    let scores = |place: usize, name: &str| -> Option<f64> {
        let scores: Vec<f64> = study.runs_of(place, name).map(|run| score(study, place, run)).collect();
        median(&scores)
    };
    let worst = places(study, ALL)
        .into_iter()
        .filter_map(|place| {
            let rivals = super::text::rivals(study);
            let rivals = rivals.iter().filter_map(|(_, rival)| Some((scores(place, rival)?, rival.clone())));
            let best = rivals.max_by(|one, two| one.0.total_cmp(&two.0))?;
            Some((place, scores(place, OURS)? / best.0.max(1e-3), best))
        })
        .min_by(|one, two| one.2.0.total_cmp(&two.2.0));
    let (reached, hit) = worst.map_or((String::new(), false), |(place, ratio, (score, rival))| {
        let text = format!(
            "{}: {} times the best published algorithm ({rival}, score {})",
            study.scenarios[place].name,
            short(ratio),
            short(score)
        );
        (text, ratio >= 1.5)
    });
    Target {
        what: "score against the best published algorithm where that one does worst".to_owned(),
        wanted: "at least 1.5 times".to_owned(),
        reached,
        hit,
    }
}

fn fairness(study: &Study<'_>) -> Target {
    let lanes = ["workload.jain", "unknown.jain", "telemetry.jain", "platform.jain"];
    let values: Vec<(usize, f64)> = places(study, ALL)
        .into_iter()
        .flat_map(|place| {
            lanes.iter().filter_map(move |lane| Some((place, study.median(place, OURS, lane)?)))
        })
        .collect();
    let (reached, hit) = listed(study, &values, |value| value >= 0.95, true);
    Target { what: "Jain index within a lane".to_owned(), wanted: "at least 0.95".to_owned(), reached, hit }
}
