//! What does `docs/OVERLOAD.md` say? Method, verdict, losses, targets, the full table, grids and ablations.

use std::fmt::Write as _;

use super::judge::{self, OURS, short};
use super::statistics::{interval, median};
use super::study::{SEEDS, Study, points_of, useful_work};
use crate::sim::{ablation, baseline};

/// Columns of the full table: title, metric.
const COLUMNS: [(&str, &str); 16] = [
    ("renewals", "renewals_ok"),
    ("lease p50", "lease_p50_ms"),
    ("lease p99", "lease_p99_ms"),
    ("oper. ok", "operator_ok"),
    ("oper. p99", "operator_p99_ms"),
    ("NotReady", "not_ready"),
    ("starts ok", "started_ok"),
    ("telem./s", "telemetry.served_per_s"),
    ("workl. goodput", "workload.goodput"),
    ("protect s", "protect_s"),
    ("recover s", "recover_s"),
    ("false shed", "false_shed"),
    ("tries/succ.", "telemetry.attempts_per_success"),
    ("Jain", "telemetry.jain"),
    ("CV of L", "limit_cv"),
    ("died", "deaths"),
];

/// The published algorithms with their defaults and at their best points, the control first. Experts' files and the
/// oracle are no published algorithms.
pub(super) fn rivals(study: &Study<'_>) -> Vec<(String, String)> {
    let mut rivals = vec![("none (APF alone)".to_owned(), "none".to_owned())];
    for &name in baseline::NAMES.iter().filter(|name| !is_apart(name)) {
        rivals.push((format!("{name}, defaults"), name.to_owned()));
        let best = study.best_point(name);
        if best != name {
            rivals.push((format!("{name}, tuned"), best));
        }
    }
    rivals
}

fn is_apart(name: &str) -> bool {
    name.starts_with("hand-") || name == "oracle"
}

/// All of it.
#[must_use]
pub fn markdown(study: &Study<'_>) -> String {
    let mut text = String::new();
    head(&mut text, study);
    verdicts(&mut text, study);
    losses(&mut text, study);
    targets(&mut text, study);
    ablations(&mut text, study);
    tables(&mut text, study);
    grids(&mut text, study);
    text
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

/// `writeln!` into a `String` cannot fail.
macro_rules! say {
    ($text:expr, $($content:tt)*) => {{ let _ = writeln!($text, $($content)*); }};
}

fn head(text: &mut String, study: &Study<'_>) {
    say!(text, "# Overload control: spillway beside everything that was published\n");
    say!(text, "Made by `make overload-report`; do not edit. {}", study.version);
    say!(
        text,
        "\nEvery number is of a **model**: the production scheduler, as it is, and {} other algorithms in front of a modelled \
         apiserver in virtual time (`spillway simulate`, seeds 1 to {SEEDS}; the steady day, grids: seed 1; ablations: 3 \
         seeds). The model was fitted to a real kube-apiserver 1.34 on one core; what it reproduces is asserted by the \
         simulator's own tests. It leaves out network, TLS, several apiservers and the watch cache's own memory. spillway \
         knows of the modelled server what it knows of a real one on its own host: how much memory there is.\n",
        baseline::NAMES.len() + 1
    );
    line(text, "## Method");
    line(
        text,
        "\n- All algorithms stand over the modelled apiserver's own API Priority and Fairness, at its defaults; `none` is APF \
         alone. `apf-count` and `apf-size` are APF *once more*, in the proxy, with our lanes as levels.\n\
         - Each published algorithm is played with its published defaults and at the best of a grid of 3 to 6 settings, chosen \
         by the score below over all scenarios (seed 1). Where its source has no priorities, it has none; `-lanes` is the \
         library's partitioning with a share for each lane.\n\
         - `hand-…` are configurations that experts wrote for the one-core rig, its content and its culprit. `oracle` knows the true \
         cost of each call and the true capacity: the bound, of which we take its best point in each scenario.\n\
         - **Score** of a run: the least of (renewals on time, operators' sequences, protected starts) × (½ + ½ × useful work \
         against the oracle's, at most 1), halved if the server died more often than under the oracle.\n\
         - **Pass rule**: better than X in a scenario when the bootstrap 95 % interval (1,000 draws, seeded) of the difference of \
         scores over equal seeds excludes zero; better than X when that holds in at least 80 % of the scenarios that are \
         decided, and nowhere renewals, lease p99, operators or deaths are surely worse by more than 5 % (times: and 20 ms).\n\
         - Medians over seeds. Renewals are counted against those due; times are of calls that worked, retries and waits \
         included; telemetry's deadline is 60 s.",
    );
}

fn verdicts(text: &mut String, study: &Study<'_>) {
    line(text, "\n## Verdict\n");
    line(text, "| spillway against | better | undecided | worse | lanes 1–2 worse | passes |");
    line(text, "|---|---|---|---|---|---|");
    let apart = baseline::NAMES.iter().filter(|name| name.starts_with("hand-"));
    let all = rivals(study).into_iter().chain(apart.map(|&name| (name.to_owned(), name.to_owned())));
    for (label, rival) in all {
        let passed = judge::pass(study, &rival);
        say!(
            text,
            "| {label} | {} | {} | {} | {} | {} |",
            passed.better,
            passed.even,
            passed.worse,
            passed.harmed,
            if passed.passed { "yes" } else { "**no**" }
        );
    }
    line(
        text,
        "\nScore by scenario, median and 95 % interval of the mean; in bold the best but the oracle:\n",
    );
    scores(text, study);
}

fn scores(text: &mut String, study: &Study<'_>) {
    line(text, "| scenario | spillway | best published | none | best by hand | oracle |");
    line(text, "|---|---|---|---|---|---|");
    let hands: Vec<String> = baseline::NAMES
        .iter()
        .filter(|name| name.starts_with("hand-"))
        .map(|&name| name.to_owned())
        .collect();
    let published: Vec<String> = rivals(study).into_iter().skip(1).map(|(_, rival)| rival).collect();
    for (place, scenario) in study.scenarios.iter().enumerate() {
        let values = |name: &str| -> Vec<f64> {
            study.runs_of(place, name).map(|run| judge::score(study, place, run)).collect()
        };
        let score = |name: &str| median(&values(name));
        let best = |names: &[String]| -> Option<(f64, String)> {
            let scored = names.iter().filter_map(|name| Some((score(name)?, name.clone())));
            scored.reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        let ours = score(OURS);
        let named = |best: Option<(f64, String)>| {
            best.map_or_else(|| "–".to_owned(), |(score, name)| format!("{score:.3} {name}"))
        };
        let with_interval =
            interval(&values(OURS)).map_or_else(String::new, |(low, high)| format!(" ({low:.3}–{high:.3})"));
        let (published, hand, none) = (best(&published), best(&hands), score("none"));
        let highest = [&published, &hand]
            .into_iter()
            .flatten()
            .map(|(score, _)| *score)
            .fold(none.unwrap_or(0.0), f64::max);
        let bold = if ours.is_some_and(|ours| ours >= highest) { "**" } else { "" };
        say!(
            text,
            "| {} | {bold}{}{bold}{with_interval} | {} | {} | {} | {} |",
            scenario.name,
            ours.map_or_else(|| "–".to_owned(), |ours| format!("{ours:.3}")),
            named(published),
            none.map_or_else(|| "–".to_owned(), |none| format!("{none:.3}")),
            named(hand),
            named(score("oracle").map(|score| (score, String::new()))).trim_end()
        );
    }
}

fn losses(text: &mut String, study: &Study<'_>) {
    line(text, "\n## Where we lose\n");
    line(
        text,
        "Scenarios and numbers in which a rival is surely better (interval excludes zero) by more than 5 %; for each scenario and \
         number the best of them:\n",
    );
    let apart = baseline::NAMES.iter().filter(|name| name.starts_with("hand-")).map(|&name| name.to_owned());
    let names = rivals(study).into_iter().map(|(_, rival)| rival).chain(apart);
    let mut all: Vec<judge::Loss> = names.flat_map(|rival| judge::losses(study, &rival, false)).collect();
    let badness = |loss: &judge::Loss| (loss.ours - loss.theirs).abs();
    all.sort_by(|one, two| {
        (one.scenario, one.metric)
            .cmp(&(two.scenario, two.metric))
            .then(badness(two).total_cmp(&badness(one)))
            .then(one.rival.cmp(&two.rival))
    });
    let counts: Vec<usize> = all
        .iter()
        .map(|loss| {
            all.iter().filter(|other| (other.scenario, other.metric) == (loss.scenario, loss.metric)).count()
        })
        .collect();
    let mut shown = None;
    line(text, "| scenario | number | spillway | best rival | rivals that are better |");
    line(text, "|---|---|---|---|---|");
    for (loss, count) in all.iter().zip(counts) {
        if shown == Some((loss.scenario, loss.metric)) {
            continue;
        }
        shown = Some((loss.scenario, loss.metric));
        say!(
            text,
            "| {} | {} | {} | {} {} | {count} |",
            study.scenarios[loss.scenario].name,
            loss.metric,
            short(loss.ours),
            short(loss.theirs),
            loss.rival
        );
    }
    if all.is_empty() {
        line(text, "| – | nowhere | | | |");
    }
}

fn targets(text: &mut String, study: &Study<'_>) {
    line(text, "\n## Targets\n");
    line(text, "| target | wanted | reached (misses only, else the worst) | |");
    line(text, "|---|---|---|---|");
    for target in judge::targets(study) {
        let mark = if target.hit { "hit" } else { "**miss**" };
        say!(text, "| {} | {} | {} | {mark} |", target.what, target.wanted, target.reached);
    }
    line(text, "| cost of a decision | at most 300 ns median, no allocation | see BENCHMARKS.md | |");
}

fn ablations(text: &mut String, study: &Study<'_>) {
    line(text, "\n## Ablations\n");
    line(
        text,
        "spillway with one part taken away: change of the score over the scenarios, and the scenario that suffers, and the one \
         that gains, most. The first three seeds of each. A part that gains nothing in any scenario has yet to prove itself.\n",
    );
    line(text, "| without | what that means | mean change | suffers most | gains most |");
    line(text, "|---|---|---|---|---|");
    for (name, about) in ablation::ABLATIONS {
        let mut changes: Vec<(f64, usize)> = Vec::new();
        for place in 0..study.scenarios.len() {
            let scores = |name: &str| -> Vec<f64> {
                study.runs_of(place, name).take(3).map(|run| judge::score(study, place, run)).collect()
            };
            if let (Some(without), Some(with)) = (median(&scores(name)), median(&scores(OURS))) {
                changes.push((without - with, place));
            }
        }
        changes.sort_by(|one, two| one.0.total_cmp(&two.0));
        let mean = changes.iter().map(|(change, _)| change).sum::<f64>() / changes.len().max(1) as f64;
        let shown = |change: Option<&(f64, usize)>, wanted: fn(f64) -> bool| {
            change.filter(|(change, _)| wanted(*change)).map_or_else(
                || "–".to_owned(),
                |&(change, place)| format!("{} {change:+.3}", study.scenarios[place].name),
            )
        };
        say!(
            text,
            "| {} | {about} | {mean:+.3} | {} | {} |",
            name.trim_start_matches("without-"),
            shown(changes.first(), |change| change < -0.005),
            shown(changes.last(), |change| change > 0.005)
        );
    }
}

fn tables(text: &mut String, study: &Study<'_>) {
    line(text, "\n## Everything\n");
    line(text, "Times in ms unless said otherwise. `oracle` is its best point's share of useful work.\n");
    for (place, scenario) in study.scenarios.iter().enumerate() {
        say!(text, "### {}\n\n{}. ", scenario.name, scenario.about);
        if has_figure(study, place) {
            say!(text, "![{0}](overload/{0}.svg)\n", scenario.name);
        }
        table(text, study, place);
    }
}

/// Storms are drawn: scenarios in which telemetry or others come for the storm alone.
pub(super) fn has_figure(study: &Study<'_>, place: usize) -> bool {
    let run = study.run(place, OURS, 1);
    let is_short = study.scenarios[place].phases.storm.0.as_secs() < 3_600;
    is_short && run.is_some_and(|run| run.course.iter().any(|moment| moment.lease_p99_ms.is_some()))
}

fn table(text: &mut String, study: &Study<'_>, place: usize) {
    let titles: Vec<&str> = COLUMNS.iter().map(|(title, _)| *title).collect();
    say!(text, "| algorithm | score | work/oracle | {} |", titles.join(" | "));
    say!(text, "|---|---|---|{}", "---|".repeat(titles.len()));
    let apart =
        baseline::NAMES.iter().filter(|name| is_apart(name)).map(|&name| (name.to_owned(), name.to_owned()));
    let all = std::iter::once((format!("**{OURS}**"), OURS.to_owned())).chain(rivals(study)).chain(apart);
    for (label, name) in all {
        let scores: Vec<f64> =
            study.runs_of(place, &name).map(|run| judge::score(study, place, run)).collect();
        let works: Vec<f64> = study.runs_of(place, &name).map(useful_work).collect();
        let Some(score) = median(&scores) else { continue };
        let work = median(&works).zip(study.oracle_work(place)).map(|(work, oracle)| work / oracle);
        let cells: Vec<String> =
            COLUMNS.iter().map(|(_, metric)| cell(study.median(place, &name, metric))).collect();
        say!(text, "| {label} | {score:.3} | {} | {} |", cell(work), cells.join(" | "));
    }
    text.push('\n');
}

fn cell(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) if value == value.round() => format!("{value:.0}"),
        Some(value) => short(value),
    }
}

fn grids(text: &mut String, study: &Study<'_>) {
    line(
        text,
        "## Grids\n\nThe points of each grid, the published default first, with their mean score (seed 1); in bold the one above.\n",
    );
    line(text, "| algorithm | points |\n|---|---|");
    for &name in baseline::NAMES.iter().filter(|name| !baseline::points(name).is_empty()) {
        let best = study.best_point(name);
        let points = points_of(name).into_iter().zip(baseline::points(name)).map(|(point, label)| {
            let scores: Vec<f64> = (0..study.scenarios.len())
                .filter_map(|place| Some(judge::score(study, place, study.run(place, &point, 1)?)))
                .collect();
            let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
            let bold = if point == best { "**" } else { "" };
            format!("{bold}{label}: {mean:.3}{bold}")
        });
        say!(text, "| {name} | {} |", points.collect::<Vec<_>>().join(" · "));
    }
}
