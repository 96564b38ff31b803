//! Which load is the worst for us?
//!
//! A (1+λ) evolution: of each generation a part is drawn anew from the space of scenarios (`space`), the rest are mutants
//! of the worst found so far, and what is worse than that takes its place. Each rule (`rules`) has a worst case of its own,
//! so that one bad corner does not hide the others. A find must prove itself: its number is the median of three seeds, the
//! same that `spillway simulate` plays its file with, or the search would find lucky draws.
//!
//! The caller plays: [`Search::generation`] says what, [`Search::rate`] takes the runs. Equal seeds, tries and versions find the
//! same, however many plays go on side by side.

mod rules;
mod space;

use std::collections::BTreeSet;

pub use rules::{Found, Rule, Trial};
use space::Genes;

use super::chance::Chance;
use super::report::median;
use super::scenario::{Scenario, ScenarioError};

/// Scenarios of a generation.
const GENERATION: usize = 16;
/// Of these so many are drawn anew.
const FRESH: usize = 6;
/// Seeds of a find: the first rates a scenario, the others confirm it.
pub const SEEDS: [u64; 3] = [1, 2, 3];

/// A scenario to be played.
#[derive(Clone, Debug)]
pub struct Candidate {
    genes: Genes,
    /// What to play.
    pub scenario: Scenario,
}

/// The worst scenario of a rule.
#[derive(Clone, Debug)]
pub struct Worst {
    /// The rule.
    pub rule: Rule,
    /// Medians over [`SEEDS`].
    pub found: Found,
    /// What nobody's guard makes of it.
    pub none: Option<f64>,
    /// The scenario in a line.
    pub about: String,
    genes: Genes,
}

/// The state of a search.
#[derive(Debug)]
pub struct Search {
    chance: Chance,
    seen: BTreeSet<Genes>,
    worst: [Option<Worst>; Rule::ALL.len()],
    parent: usize,
}

impl Search {
    /// A search of which nothing was played.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed, 0x5EA), seen: BTreeSet::new(), worst: Default::default(), parent: 0 }
    }

    /// The next generation, of at most `most` scenarios that were not played before.
    ///
    /// # Errors
    /// Never, as long as every choice of the space gives a scenario, which a test asserts.
    pub fn generation(&mut self, most: usize) -> Result<Vec<Candidate>, ScenarioError> {
        let mut candidates = Vec::new();
        while candidates.len() < most.min(GENERATION) {
            let parents: Vec<Genes> = self
                .worst
                .iter()
                .flatten()
                .filter(|worst| worst.found.severity > 0.0)
                .map(|worst| worst.genes)
                .collect();
            let genes = if candidates.len() < FRESH || parents.is_empty() {
                Genes::random(&mut self.chance)
            } else {
                self.parent = (self.parent + 1) % parents.len();
                parents[self.parent].mutated(&mut self.chance)
            };
            if self.seen.insert(genes) {
                let scenario = Scenario::read(&genes.yaml("try", &[], None))?;
                candidates.push(Candidate { genes, scenario });
            }
        }
        Ok(candidates)
    }

    /// Whether the run of the first seed is worse, by any rule, than what was found: then the others are worth playing.
    #[must_use]
    pub fn is_promising(&self, first: &Trial<'_>) -> bool {
        Rule::ALL.iter().zip(&self.worst).any(|(&rule, worst)| {
            judged(rule, &[*first]).is_some_and(|found| is_worse(&found, worst.as_ref()))
        })
    }

    /// Takes the trials of all seeds: the candidate becomes the worst of the rules that it breaks most.
    pub fn rate(&mut self, candidate: &Candidate, trials: &[Trial<'_>]) {
        for (rule, worst) in Rule::ALL.into_iter().zip(&mut self.worst) {
            let Some(found) = judged(rule, trials).filter(|found| is_worse(found, worst.as_ref())) else {
                continue;
            };
            let none = middle(trials, |trial| rule.figure(trial.none));
            let (genes, about) = (candidate.genes, candidate.genes.about());
            *worst = Some(Worst { rule, found, none, about, genes });
        }
    }

    /// The worst of each rule that is broken, the most important rule first.
    pub fn worst(&self) -> impl Iterator<Item = &Worst> {
        self.worst.iter().flatten().filter(|worst| worst.found.is_broken())
    }
}

impl Worst {
    /// Its name, and that of its file without `.yaml`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("found-{}", self.rule.as_str())
    }

    /// The scenario as a file, with the band that does not hold. `origin` says which search found it.
    #[must_use]
    pub fn yaml(&self, origin: &str) -> String {
        let Found { ours, bound, oracle, .. } = self.found;
        let least = if self.rule.wants_more() { "at least" } else { "at most" };
        let number = |value: Option<f64>| {
            value.map_or_else(|| "not measured".to_owned(), |value| format!("{:.4}", value))
        };
        let head = [
            format!("Found by {origin}."),
            format!(
                "{}: {ours:.4} in the median of seeds 1 to 3, should be {least} {bound:.4}.",
                self.rule.about()
            ),
            format!("The oracle: {}; without any guard: {}.", number(oracle), number(self.none)),
        ];
        let sign = if self.rule.wants_more() { ">=" } else { "<=" };
        let band = self.rule.metric().map(|metric| format!("{metric}: \"{sign} {bound:.4}\""));
        self.genes.yaml(&self.name(), &head, band.as_deref())
    }
}

fn middle(trials: &[Trial<'_>], figure: impl Fn(&Trial<'_>) -> Option<f64>) -> Option<f64> {
    median(&trials.iter().filter_map(figure).collect::<Vec<_>>())
}

fn judged(rule: Rule, trials: &[Trial<'_>]) -> Option<Found> {
    let ours = middle(trials, |trial| rule.figure(trial.spillway))?;
    rule.judge(ours, middle(trials, |trial| rule.figure(trial.oracle)))
}

fn is_worse(found: &Found, than: Option<&Worst>) -> bool {
    than.is_none_or(|worst| found.severity > worst.found.severity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Outcome, Run};

    fn run(metrics: &[(&str, f64)]) -> Run {
        let metrics = metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let outcome = Outcome {
            scenario: String::new(),
            algorithm: String::new(),
            seed: 1,
            trace: String::new(),
            metrics,
        };
        Run { outcome, seconds: Vec::new(), course: Vec::new() }
    }

    /// The worst lease time of `tries` scenarios in which leases take as long as the agents are many.
    fn worst(seed: u64, tries: usize) -> (f64, String) {
        let mut search = Search::new(seed);
        let mut played = 0;
        while played < tries {
            for candidate in search.generation(tries - played).unwrap() {
                let clients: u32 = candidate.scenario.clients.iter().map(|group| group.count).sum();
                let ours = run(&[("lease_p99_ms", 0.3 * f64::from(clients))]);
                let oracle = run(&[("lease_p99_ms", 5.0)]);
                let trial = Trial { spillway: &ours, oracle: &oracle, none: &ours };
                if search.is_promising(&trial) {
                    search.rate(&candidate, &[trial; 3]);
                }
                played += 1;
            }
        }
        let worst = search.worst().next().unwrap();
        assert_eq!(worst.rule, Rule::LeaseTime);
        (worst.found.severity, worst.yaml("a test"))
    }

    #[test]
    fn a_search_climbs_and_is_the_same_for_equal_seeds() {
        let ends: Vec<f64> = (1..=5).map(|seed| worst(seed, 400).0).collect();
        let starts: Vec<f64> = (1..=5).map(|seed| worst(seed, 16).0).collect();
        assert!(ends.iter().zip(&starts).all(|(end, start)| end >= start), "{starts:?} {ends:?}");
        // Two groups of a thousand beside two thousand nodes are the most that the space holds.
        assert!(ends.iter().all(|&end| end > 0.3 * 4_000.0 / 260.0), "{ends:?}");
        assert_eq!(worst(7, 100), worst(7, 100));
        assert_ne!(worst(7, 100).1, worst(8, 100).1);
    }

    #[test]
    fn a_file_says_what_it_shows_and_expects_what_does_not_hold() {
        let (_, text) = worst(1, 50);
        assert!(text.starts_with("# Found by a test.\n# p99 of lease renewals, ms: "), "{text}");
        let scenario = Scenario::read(&text).unwrap();
        assert_eq!(scenario.name, "found-lease-time");
        assert!(
            !scenario.expect["lease_p99_ms"].holds(261.0) && scenario.expect["lease_p99_ms"].holds(260.0)
        );
    }
}
