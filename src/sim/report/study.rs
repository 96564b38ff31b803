//! Which runs make a study, and how are they looked up?
//!
//! A study is played in parts: the main table over all seeds, the grids over one seed, the best points of the
//! grids over all seeds again, and the ablations over some. Runs carry the names of scenario, algorithm and seed, so that
//! the order in which they were played does not matter.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::score;
use super::statistics::median;
use crate::sim::{Run, Scenario, ablation, algorithm, baseline};

/// Seeds of the main table.
pub(super) const SEEDS: u64 = 5;
/// Seeds of an ablation.
const ABLATION_SEEDS: u64 = 3;
/// Scenarios longer than this are left out of grids and ablations, which play everything a hundred times.
const LONG_SECONDS: u64 = 3_600;

/// A part of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All algorithms with their published defaults, over all seeds, and all points of the grids over one.
    Main,
    /// The best point of each grid, over all seeds; and the ablations. Needs the first part's runs.
    Best,
}

/// Everything that was played.
#[derive(Debug)]
pub struct Study<'a> {
    /// The scenarios, in the order of the report.
    pub scenarios: &'a [Scenario],
    /// Bytes of the simulator's and the scheduler's version, told in the report.
    pub version: &'a str,
    runs: BTreeMap<(String, String), BTreeMap<u64, Run>>,
}

/// The algorithm at a point of its grid; the published defaults have no number.
#[must_use]
pub fn points_of(name: &str) -> Vec<String> {
    let at = |point: usize| if point == 0 { name.to_owned() } else { format!("{name}:{point}") };
    (0..baseline::points(name).len().max(1)).map(at).collect()
}

impl<'a> Study<'a> {
    /// A study of which nothing was played yet.
    #[must_use]
    pub fn new(scenarios: &'a [Scenario], version: &'a str) -> Self {
        Self { scenarios, version, runs: BTreeMap::new() }
    }

    /// What must be played for `part`: scenario (by its place), algorithm, seed.
    #[must_use]
    pub fn wants(&self, part: Part) -> Vec<(usize, String, u64)> {
        let mut wanted = BTreeSet::new();
        for (place, scenario) in self.scenarios.iter().enumerate() {
            let is_long = scenario.phases.storm.0.as_secs() > LONG_SECONDS;
            let mut want = |name: &str, seeds: u64| {
                wanted.extend((1..=seeds).map(|seed| (place, name.to_owned(), seed)));
            };
            match part {
                Part::Main => {
                    let seeds = if is_long { 1 } else { SEEDS };
                    algorithm::names().for_each(|name| want(name, seeds));
                    let grids = baseline::NAMES.iter().filter(|_| !is_long);
                    grids.flat_map(|name| points_of(name)).for_each(|point| want(&point, 1));
                }
                Part::Best if is_long => {}
                Part::Best => {
                    baseline::NAMES.iter().for_each(|name| want(&self.best_point(name), SEEDS));
                    points_of("oracle").iter().for_each(|point| want(point, SEEDS));
                    ablation::ABLATIONS.iter().for_each(|(name, _)| want(name, ABLATION_SEEDS));
                }
            }
        }
        wanted.retain(|(place, name, seed)| self.run(*place, name, *seed).is_none());
        wanted.into_iter().collect()
    }

    /// Takes a run in. Its seconds are judged against the control's first, and then forgotten.
    pub fn add(&mut self, mut run: Run) {
        run.seconds = Vec::new();
        let key = (run.outcome.scenario.clone(), run.outcome.algorithm.clone());
        self.runs.entry(key).or_default().insert(run.outcome.seed, run);
    }

    fn of(&self, scenario: usize, algorithm: &str) -> Option<&BTreeMap<u64, Run>> {
        self.runs.get(&(self.scenarios.get(scenario)?.name.clone(), algorithm.to_owned()))
    }

    /// One run.
    #[must_use]
    pub fn run(&self, scenario: usize, algorithm: &str, seed: u64) -> Option<&Run> {
        self.of(scenario, algorithm)?.get(&seed)
    }

    /// A number of all seeds, in their order.
    pub(super) fn values(&self, scenario: usize, algorithm: &str, metric: &str) -> Vec<f64> {
        self.runs_of(scenario, algorithm).filter_map(|run| run.outcome.metric(metric)).collect()
    }

    pub(super) fn median(&self, scenario: usize, algorithm: &str, metric: &str) -> Option<f64> {
        median(&self.values(scenario, algorithm, metric))
    }

    pub(super) fn runs_of(&self, scenario: usize, algorithm: &str) -> impl Iterator<Item = &Run> {
        self.of(scenario, algorithm).into_iter().flat_map(BTreeMap::values)
    }

    /// What the oracle's best point reached in a scenario: the most useful work among its points that harm nobody more
    /// than the others do.
    pub(super) fn oracle_work(&self, scenario: usize) -> Option<f64> {
        let works = points_of("oracle").into_iter().filter_map(|point| {
            let lease = self.median(scenario, &point, "renewals_ok").unwrap_or(1.0);
            let works: Vec<f64> = self.runs_of(scenario, &point).map(useful_work).collect();
            (lease >= 0.99).then_some(median(&works)?)
        });
        works.max_by(f64::total_cmp).filter(|&work| work > 0.0)
    }

    /// The point of the algorithm's grid with the best score over the scenarios, of the grid's one seed.
    #[must_use]
    pub(super) fn best_point(&self, name: &str) -> String {
        let mean = |point: &String| {
            let scores: Vec<f64> = (0..self.scenarios.len())
                .filter_map(|place| Some(score(self, place, self.run(place, point, 1)?)))
                .collect();
            scores.iter().sum::<f64>() / scores.len().max(1) as f64
        };
        let scored = points_of(name).into_iter().map(|point| (mean(&point), point));
        // The first of equals: the published default.
        let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map_or_else(|| name.to_owned(), |(_, point)| point)
    }
}

/// Work of calls that were answered, over all lanes, in cores.
pub(in crate::sim) fn useful_work(run: &Run) -> f64 {
    let works = run.outcome.metrics.iter().filter(|(name, _)| name.ends_with(".work_per_s"));
    works.map(|(_, work)| work).sum()
}
