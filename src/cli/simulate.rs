//! `spillway simulate SCENARIO…`: what would this policy, or another algorithm, do under that load?
//!
//! Scenarios, algorithms and seeds are played in parallel, each run by itself in virtual time; what is printed depends on
//! the seeds alone. Bands that a scenario expects are judged for every seed.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::simulate_report;
use super::simulate_search;
use super::simulated::{self, Played};
use super::{Ending, Output};
use crate::app;
use crate::config::{self, Colour, FileChecks, TrafficPolicy};
use crate::flow::Settings;
use crate::policy::Policy;
use crate::sim::scenario::BUILT_IN;
use crate::sim::{self, Run, Scenario, algorithm};

/// Plays scenarios against a modelled apiserver, in virtual time, with spillway and with other algorithms.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway simulate one-core
  spillway simulate one-core cold-restart --algorithms none,spillway --seeds 10
  spillway simulate my-scenario.yaml --policy my-policy.yaml -o json > result.json
  spillway simulate --search --tries 2000 --write found
  spillway simulate --list

A scenario is the name of one that comes with spillway, or a YAML file; tests/scenarios/ has them all to copy from.
Equal seeds give equal results, to the last bit. Exit code 0: every band that the scenarios expect holds, for every
seed; 1: at least one does not.

A search makes scenarios of its own: servers of half a core to sixteen, culprits of any identity, call and manner, slow
etcd, lost cores. It looks for the worst case of each rule of the project (operators get through, the process lives,
leases are renewed, work gets done, nobody is refused without need), beside an oracle that knows true cost and
capacity, and keeps what three seeds confirm. A try takes about a second of one processor. Exit code 0: no rule is broken;
1: at least one is. The files that --write writes expect what did not hold, so playing one ends with 1 until it is mended.")]
pub struct Args {
    /// Names of scenarios, or files; `all` for every one that comes with spillway
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["list", "report", "search"])]
    scenarios: Vec<String>,
    /// Traffic policy to simulate, instead of the default one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Algorithms to compare
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "none,spillway")]
    algorithms: Vec<String>,
    /// How many seeds: 1, 2, … N
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Compare all algorithms, their settings and our ablations (about 20 minutes) and write DIR/OVERLOAD.md
    #[arg(long, value_name = "DIR", conflicts_with_all = ["algorithms", "seeds", "output"])]
    report: Option<PathBuf>,
    /// Search for the worst case among generated scenarios
    #[arg(long, conflicts_with_all = ["algorithms", "seeds", "report", "list"])]
    search: bool,
    /// How many scenarios a search plays
    #[arg(long, value_name = "N", requires = "search", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=TRIES_MAX))]
    tries: u32,
    /// Where a search begins: equal seeds find the same
    #[arg(long, value_name = "N", requires = "search", default_value_t = 1)]
    seed: u64,
    /// Write each worst case that a search finds to DIR/found-RULE.yaml
    #[arg(long, value_name = "DIR", requires = "search")]
    write: Option<PathBuf>,
    /// Name the scenarios, algorithms and metrics there are
    #[arg(long)]
    list: bool,
}

/// A thousand seeds are beyond any claim that is worth making.
const SEEDS_MAX: u64 = 1000;
/// A search of this many scenarios takes a day.
const TRIES_MAX: i64 = 100_000;
/// A scenario file of this size is a mistake.
const FILE_MAX: u64 = 1 << 20;

/// What cannot be played, and how the command ends therefore.
pub(super) struct Wrong(pub(super) Ending, pub(super) String);

/// Plays, prints and judges.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    if args.list {
        // A closed terminal cannot be told anything.
        return if simulated::list(out).is_ok() { Ending::Fine } else { Ending::Failed };
    }
    match prepare(args, colour).and_then(|stage| match &args.report {
        Some(directory) => simulate_report::write(&stage, directory, out).map(Err),
        None if args.search => simulate_search::run(&stage, &args.wanted(), out).map(Err),
        None => Ok(Ok((stage.play()?, stage))),
    }) {
        Ok(Err(ending)) => ending,
        Ok(Ok((runs, stage))) => {
            let played = Played { scenarios: &stage.scenarios, algorithms: &stage.algorithms, runs: &runs };
            let broken = played.broken_bands();
            let printed = match args.output {
                Output::Table => played.table(out),
                Output::Json => played.json(out),
            };
            for line in &broken {
                let _ = writeln!(err, "{line}");
            }
            if broken.is_empty() && printed.is_ok() { Ending::Fine } else { Ending::Failed }
        }
        Err(Wrong(ending, message)) => {
            let _ = writeln!(err, "error: {message}");
            ending
        }
    }
}

impl Args {
    fn wanted(&self) -> simulate_search::Wanted<'_> {
        simulate_search::Wanted {
            tries: self.tries as usize,
            seed: self.seed,
            write: self.write.as_ref(),
            output: self.output,
        }
    }
}

/// Everything that is needed to play.
pub(super) struct Stage {
    pub(super) scenarios: Vec<Scenario>,
    algorithms: Vec<String>,
    seeds: u64,
    policy: Policy,
    settings: Settings,
}

/// The policy's own seed: simulated flow keys are of no use to anybody.
const POLICY_SEED: u64 = 1;

fn prepare(args: &Args, colour: Colour) -> Result<Stage, Wrong> {
    // Not a conflict in clap's sense: beside one it would forget that --tries needs --search.
    if args.search && !args.scenarios.is_empty() {
        return Err(Wrong(Ending::Usage, "--search makes its own scenarios: name none beside it".to_owned()));
    }
    let policy = read_policy(args.policy.as_deref(), colour)?;
    let settings = app::flow_settings(&policy);
    let compiled = policy.compile(POLICY_SEED).map_err(|error| Wrong(Ending::Config, error.to_string()))?;
    let mut scenarios = Vec::new();
    let all = ["all".to_owned()];
    let named = if args.scenarios.is_empty() { &all[..] } else { &args.scenarios };
    for name in named {
        if name == "all" {
            for built_in in BUILT_IN {
                scenarios.push(parse(built_in.name, built_in.yaml)?);
            }
        } else {
            scenarios.push(read_scenario(name)?);
        }
    }
    for name in &args.algorithms {
        if algorithm::by_name(name, &settings, 0).is_none() {
            let hint = did_you_mean(name, algorithm::names());
            let message = format!("there is no algorithm {name:?}{hint}; spillway simulate --list names all");
            return Err(Wrong(Ending::Usage, message));
        }
    }
    Ok(Stage {
        scenarios,
        algorithms: args.algorithms.clone(),
        seeds: args.seeds,
        policy: compiled,
        settings,
    })
}

pub(super) fn read_policy(file: Option<&Path>, colour: Colour) -> Result<TrafficPolicy, Wrong> {
    let found = |found: config::Diagnostics| Wrong(Ending::Config, config::human(&found, colour));
    let Some(file) = file else { return config::default_policy().map_err(found) };
    Ok(config::load_with(&[file.to_owned()], FileChecks::Off).map_err(found)?.policy)
}

fn read_scenario(name: &str) -> Result<Scenario, Wrong> {
    if let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.name == name) {
        return parse(name, built_in.yaml);
    }
    let usage = |message: String| Wrong(Ending::Usage, message);
    let path = Path::new(name);
    let size = std::fs::metadata(path).map_err(|error| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        let hint = did_you_mean(stem, BUILT_IN.iter().map(|built_in| built_in.name));
        usage(format!("no scenario is called {name:?}, and as a file: {error}{hint}"))
    })?;
    if size.len() > FILE_MAX {
        return Err(usage(format!("{name}: {} bytes are too many for a scenario", size.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{name}: {error}")))?;
    parse(name, &text)
}

fn parse(name: &str, text: &str) -> Result<Scenario, Wrong> {
    Scenario::read(text).map_err(|error| Wrong(Ending::Usage, format!("{name}: {error}")))
}

fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    config::nearest(given, known).map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

/// One run: a scenario, an algorithm, a seed.
#[derive(Clone)]
pub(super) struct Task<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) algorithm: String,
    pub(super) seed: u64,
}

/// The algorithm without which nothing can be called a needless refusal.
const SHADOW: &str = "none";

impl Stage {
    /// Plays everything; runs come back in the order of scenarios, algorithms and seeds.
    fn play(&self) -> Result<Vec<Run>, Wrong> {
        let shadowed: Vec<&str> = std::iter::once(SHADOW)
            .chain(self.algorithms.iter().map(String::as_str).filter(|name| *name != SHADOW))
            .collect();
        let tasks: Vec<Task<'_>> = self
            .scenarios
            .iter()
            .flat_map(|scenario| {
                shadowed.iter().flat_map(move |algorithm| {
                    (1..=self.seeds).map(move |seed| Task {
                        scenario,
                        algorithm: (*algorithm).to_owned(),
                        seed,
                    })
                })
            })
            .collect();
        let mut done = self.play_tasks(&tasks)?;
        let seeds = usize::try_from(self.seeds).unwrap_or(usize::MAX);
        let mut runs = Vec::new();
        for played in done.chunks_mut(seeds * shadowed.len()) {
            let (shadows, others) = played.split_at_mut(seeds);
            for algorithms in others.chunks_mut(seeds) {
                for (run, shadow) in algorithms.iter_mut().zip(&*shadows) {
                    run.judge_sheds(shadow);
                }
            }
            for name in &self.algorithms {
                let place = shadowed.iter().position(|other| other == name).unwrap_or(0);
                runs.extend_from_slice(&played[place * seeds..(place + 1) * seeds]);
            }
        }
        Ok(runs)
    }

    /// Plays in parallel; runs come back in the order of the tasks.
    pub(super) fn play_tasks(&self, tasks: &[Task<'_>]) -> Result<Vec<Run>, Wrong> {
        let bar = progress(tasks.len());
        let runs = self.play_on(&bar, tasks);
        bar.finish_and_clear();
        runs
    }

    /// The same as a part of what `bar` shows.
    pub(super) fn play_on(&self, bar: &ProgressBar, tasks: &[Task<'_>]) -> Result<Vec<Run>, Wrong> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Result<Run, sim::RunError>>>> =
            tasks.iter().map(|_| Mutex::new(None)).collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(tasks.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((index, task)) = take(&next, tasks) {
                        bar.set_message(format!("{} {}", task.scenario.name, task.algorithm));
                        let run =
                            sim::run(task.scenario, &self.policy, &self.settings, &task.algorithm, task.seed);
                        *results[index].lock() = Some(run);
                        bar.inc(1);
                    }
                });
            }
        });
        let run = |result: Mutex<Option<Result<Run, sim::RunError>>>| match result.into_inner() {
            Some(Ok(run)) => Ok(run),
            Some(Err(error)) => Err(Wrong(Ending::Usage, error.to_string())),
            // The scope has joined every worker, and workers stop when no task is left.
            None => Err(Wrong(Ending::Failed, "a run was not played".to_owned())),
        };
        results.into_iter().map(run).collect()
    }
}

fn take<'a, 'b>(next: &AtomicUsize, tasks: &'b [Task<'a>]) -> Option<(usize, &'b Task<'a>)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    tasks.get(index).map(|task| (index, task))
}

pub(super) fn progress(tasks: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(tasks as u64);
    // The template is a constant: should it be wrong, the default style shows the same numbers.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:30} {pos}/{len} {prefix}{wide_msg}") {
        bar.set_style(style);
    }
    bar
}
