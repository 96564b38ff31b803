//! How is what was simulated shown, and does it keep what its scenarios expect?
//!
//! Tables show medians over seeds and fit 100 columns; JSON has every run. Bands are judged for each seed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use crate::sim::outcome::{Better, LANE_METRICS, METRICS, Metric};
use crate::sim::scenario::{BUILT_IN, Band};
use crate::sim::{Run, Scenario, algorithm};

/// Runs in the order of scenarios, algorithms and seeds; every pair has as many seeds.
pub(super) struct Played<'a> {
    pub(super) scenarios: &'a [Scenario],
    pub(super) algorithms: &'a [String],
    pub(super) runs: &'a [Run],
}

/// How a number is written.
#[derive(Clone, Copy)]
enum Style {
    Share,
    Millis,
    Seconds,
    Count,
    Rate,
}

/// Columns: title in two lines, metric, style.
const COLUMNS: &[(&str, &str, &str, Style)] = &[
    ("renewals", "on time", "renewals_ok", Style::Share),
    ("lease", "p99", "lease_p99_ms", Style::Millis),
    ("operator", "ok", "operator_ok", Style::Share),
    ("operator", "p99", "operator_p99_ms", Style::Millis),
    ("Not", "Ready", "not_ready", Style::Count),
    ("leader", "losses", "leader_losses", Style::Count),
    ("telem.", "per s", "telemetry.served_per_s", Style::Rate),
    ("protect", "after", "protect_s", Style::Seconds),
    ("recover", "after", "recover_s", Style::Seconds),
    ("false", "shed", "false_shed", Style::Share),
    ("died", "", "deaths", Style::Count),
];
const NAME_WIDTH: usize = 15;

fn width(title: &(&str, &str, &str, Style)) -> usize {
    title.0.len().max(title.1.len()).max(6)
}

fn written(value: Option<f64>, style: Style) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match style {
        Style::Share if value > 0.0 && value < 0.001 => format!("{:.3}%", value * 100.0),
        Style::Share if value > 0.999 && value < 1.0 => "99.9%".to_owned(),
        Style::Share => format!("{:.1}%", value * 100.0),
        Style::Millis if value >= 10_000.0 => format!("{:.0} s", value / 1e3),
        Style::Millis if value >= 1_000.0 => format!("{:.1} s", value / 1e3),
        Style::Millis => format!("{value:.0} ms"),
        Style::Seconds => format!("{value:.1} s"),
        Style::Count => format!("{value:.0}"),
        Style::Rate if value >= 100.0 => format!("{value:.0}"),
        Style::Rate => format!("{value:.2}"),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        count if count % 2 == 1 => values.get(count / 2).copied(),
        count => Some(f64::midpoint(values[count / 2 - 1], values[count / 2])),
    }
}

impl Played<'_> {
    fn seeds(&self) -> usize {
        self.runs.len() / (self.scenarios.len() * self.algorithms.len()).max(1)
    }

    /// The runs of one scenario, by algorithm.
    fn of(&self, scenario: usize) -> impl Iterator<Item = (&str, &[Run])> {
        let (seeds, algorithms) = (self.seeds().max(1), self.algorithms.len());
        let runs = &self.runs[scenario * seeds * algorithms..(scenario + 1) * seeds * algorithms];
        self.algorithms.iter().map(String::as_str).zip(runs.chunks(seeds))
    }

    /// A table for each scenario.
    pub(super) fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        let seeds = if self.seeds() == 1 {
            "1 seed".to_owned()
        } else {
            format!("medians of {} seeds", self.seeds())
        };
        for (index, scenario) in self.scenarios.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{}: {} ({seeds})", scenario.name, scenario.about)?;
            for line in [0, 1] {
                let mut text = format!("{:NAME_WIDTH$}", if line == 0 { "" } else { "algorithm" });
                for column in COLUMNS {
                    let title = if line == 0 { column.0 } else { column.1 };
                    text.push_str(&format!(" {title:>0$}", width(column)));
                }
                writeln!(out, "{}", text.trim_end())?;
            }
            for (name, runs) in self.of(index) {
                let mut text = format!("{name:NAME_WIDTH$}");
                for column in COLUMNS {
                    let values = runs.iter().filter_map(|run| run.outcome.metric(column.2)).collect();
                    text.push_str(&format!(" {:>1$}", written(median(values), column.3), width(column)));
                }
                writeln!(out, "{}", text.trim_end())?;
            }
            let bands = scenario.expect.len() + scenario.control.len();
            let broken = self.broken_of(index).len();
            if bands > 0 {
                let judged =
                    if broken == 0 { "all hold".to_owned() } else { format!("{broken} broken, see below") };
                writeln!(out, "bands: {bands} expected, {judged}")?;
            }
        }
        Ok(())
    }

    /// Every run, and medians.
    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let scenarios: Vec<_> = self
            .scenarios
            .iter()
            .enumerate()
            .map(|(index, scenario)| {
                let algorithms: Vec<_> = self
                    .of(index)
                    .map(|(name, runs)| {
                        let outcomes: Vec<_> = runs.iter().map(|run| &run.outcome).collect();
                        json!({ "algorithm": name, "medians": medians(runs), "runs": outcomes })
                    })
                    .collect();
                json!({ "scenario": scenario.name, "about": scenario.about, "algorithms": algorithms })
            })
            .collect();
        let whole = json!({ "scenarios": scenarios, "brokenBands": self.broken_bands() });
        serde_json::to_writer_pretty(&mut *out, &whole)?;
        writeln!(out)
    }

    /// One line for each band that does not hold.
    pub(super) fn broken_bands(&self) -> Vec<String> {
        (0..self.scenarios.len()).flat_map(|index| self.broken_of(index)).collect()
    }

    fn broken_of(&self, index: usize) -> Vec<String> {
        let scenario = &self.scenarios[index];
        let mut broken = Vec::new();
        for (name, runs) in self.of(index) {
            let bands = match name {
                "spillway" => &scenario.expect,
                "none" => &scenario.control,
                _ => continue,
            };
            for run in runs {
                broken.extend(bands.iter().filter_map(|(metric, band)| judge(run, metric, *band)));
            }
        }
        broken
    }
}

fn judge(run: &Run, metric: &str, band: Band) -> Option<String> {
    let outcome = &run.outcome;
    let place = format!("{} with {}, seed {}", outcome.scenario, outcome.algorithm, outcome.seed);
    match outcome.metric(metric) {
        Some(value) if band.holds(value) => None,
        Some(value) => Some(format!("{place}: {metric} is {}, expected {band}", rounded(value))),
        None => Some(format!("{place}: {metric} was not measured, expected {band}")),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn medians(runs: &[Run]) -> BTreeMap<&str, f64> {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (name, value) in &run.outcome.metrics {
            values.entry(name).or_default().push(*value);
        }
    }
    values.into_iter().filter_map(|(name, values)| Some((name, median(values)?))).collect()
}

/// Names all scenarios, algorithms and metrics.
pub(super) fn list(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Scenarios:")?;
    for built_in in BUILT_IN {
        let about = Scenario::read(built_in.yaml).map(|scenario| scenario.about).unwrap_or_default();
        writeln!(out, "  {:24} {about}", built_in.name)?;
    }
    writeln!(out, "\nAlgorithms:")?;
    for line in algorithm::names().collect::<Vec<_>>().chunks(6) {
        writeln!(out, "  {}", line.join(", "))?;
    }
    writeln!(
        out,
        "  NAME:2 is point 2 of a competitor's grid of settings; NAME alone its published defaults"
    )?;
    writeln!(out, "\nMetrics, of the storm unless said otherwise (+ more is better, - less is better):")?;
    METRICS.iter().try_for_each(|metric| describe(metric, "", out))?;
    writeln!(out, "\nMetrics of each lane, such as telemetry.goodput:")?;
    LANE_METRICS.iter().try_for_each(|metric| describe(metric, "LANE.", out))
}

fn describe(metric: &Metric, prefix: &str, out: &mut dyn Write) -> io::Result<()> {
    let sign = match metric.better {
        Better::More => '+',
        Better::Less => '-',
        Better::Neutral => ' ',
    };
    writeln!(out, "{sign} {:26} {}", format!("{prefix}{}", metric.name), metric.about)
}
