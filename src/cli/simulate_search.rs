//! `spillway simulate --search`: which load is the worst for this policy?
//!
//! Plays the generations of `sim::search`, with the scheduler, the oracle and nobody, and prints the worst case of each
//! rule that is broken. What is printed depends on policy, tries and seed alone, not on how many plays go on side by side.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use indicatif::ProgressBar;
use serde_json::json;

use super::simulate::{Stage, Task, Wrong, progress};
use super::{Ending, Output};
use crate::sim::Run;
use crate::sim::search::{Candidate, SEEDS, Search, Trial, Worst};

/// Who plays each scenario: ours, the bound, the control.
const PLAYERS: [&str; 3] = ["spillway", "oracle", "none"];
/// Columns that a scenario's line may take, and how far it is moved in.
const WIDTH: usize = 100;
const INDENT: usize = 4;

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) tries: usize,
    pub(super) seed: u64,
    pub(super) write: Option<&'a PathBuf>,
    pub(super) output: Output,
}

impl Wanted<'_> {
    fn origin(&self) -> String {
        format!("spillway simulate --search --tries {} --seed {}", self.tries, self.seed)
    }
}

/// Searches, prints and writes.
pub(super) fn run(stage: &Stage, wanted: &Wanted<'_>, out: &mut dyn Write) -> Result<Ending, Wrong> {
    let mut search = Search::new(wanted.seed);
    let bar = progress(wanted.tries * PLAYERS.len());
    let mut played = 0;
    while played < wanted.tries {
        let candidates = search.generation(wanted.tries - played);
        let candidates = candidates.map_err(|error| Wrong(Ending::Failed, error.to_string()))?;
        played += candidates.len();
        play(stage, &mut search, &candidates, &bar)?;
        bar.set_prefix(format!("{} rules broken, ", search.worst().count()));
    }
    bar.finish_and_clear();
    let worst: Vec<&Worst> = search.worst().collect();
    let closed = |error: io::Error| Wrong(Ending::Failed, error.to_string());
    match wanted.output {
        Output::Table => table(&worst, wanted, out).map_err(closed)?,
        Output::Json => print_json(&worst, wanted, out).map_err(closed)?,
    }
    if let Some(directory) = wanted.write {
        let failed = |error: io::Error| Wrong(Ending::Failed, format!("{}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(failed)?;
        for worst in &worst {
            let file = directory.join(format!("{}.yaml", worst.name()));
            fs::write(&file, worst.yaml(&wanted.origin())).map_err(failed)?;
            if wanted.output == Output::Table {
                writeln!(out, "wrote {}", file.display()).map_err(closed)?;
            }
        }
    }
    Ok(if worst.is_empty() { Ending::Fine } else { Ending::Failed })
}

/// One generation: everybody with the first seed, and with the others those who may be worse than what was found.
fn play(
    stage: &Stage,
    search: &mut Search,
    candidates: &[Candidate],
    bar: &ProgressBar,
) -> Result<(), Wrong> {
    let all: Vec<usize> = (0..candidates.len()).collect();
    let first = seeds(stage, candidates, &all, &SEEDS[..1], bar)?;
    let promising: Vec<usize> =
        all.into_iter().filter(|&place| search.is_promising(&trial(&first[place]))).collect();
    bar.inc_length((promising.len() * (SEEDS.len() - 1) * PLAYERS.len()) as u64);
    let others = seeds(stage, candidates, &promising, &SEEDS[1..], bar)?;
    for (&place, others) in promising.iter().zip(others.chunks(SEEDS.len() - 1)) {
        let trials: Vec<Trial<'_>> = std::iter::once(&first[place]).chain(others).map(trial).collect();
        search.rate(&candidates[place], &trials);
    }
    Ok(())
}

fn trial([spillway, oracle, none]: &[Run; 3]) -> Trial<'_> {
    Trial { spillway, oracle, none }
}

/// Plays the candidates at `places` with these seeds; candidate by candidate, seed by seed.
fn seeds(
    stage: &Stage,
    candidates: &[Candidate],
    places: &[usize],
    seeds: &[u64],
    bar: &ProgressBar,
) -> Result<Vec<[Run; 3]>, Wrong> {
    let tasks: Vec<Task<'_>> = places
        .iter()
        .flat_map(|&place| seeds.iter().map(move |&seed| (&candidates[place].scenario, seed)))
        .flat_map(|(scenario, seed)| {
            PLAYERS.map(|algorithm| Task { scenario, algorithm: algorithm.to_owned(), seed })
        })
        .collect();
    let mut runs = stage.play_on(bar, &tasks)?.into_iter();
    let mut trials = Vec::new();
    while let (Some(mut spillway), Some(oracle), Some(none)) = (runs.next(), runs.next(), runs.next()) {
        spillway.judge_sheds(&none);
        trials.push([spillway, oracle, none]);
    }
    Ok(trials)
}

fn table(worst: &[&Worst], wanted: &Wanted<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (tries, seed, seeds) = (wanted.tries, wanted.seed, SEEDS.len());
    if worst.is_empty() {
        return writeln!(out, "{tries} generated scenarios (search seed {seed}): no rule is broken");
    }
    writeln!(
        out,
        "The worst of {tries} generated scenarios (search seed {seed}), medians of {seeds} seeds:\n"
    )?;
    writeln!(out, "{:52} {:>9} {:>9} {:>9} {:>9}", "rule", "bound", "spillway", "oracle", "none")?;
    for worst in worst {
        let found = &worst.found;
        let cells = [Some(found.bound), Some(found.ours), found.oracle, worst.none].map(number);
        let title = format!("{}: {}", worst.rule.as_str(), worst.rule.about());
        writeln!(out, "{title:52} {:>9} {:>9} {:>9} {:>9}", cells[0], cells[1], cells[2], cells[3])?;
        for line in wrapped(&worst.about, WIDTH - INDENT) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(())
}

fn print_json(worst: &[&Worst], wanted: &Wanted<'_>, out: &mut dyn Write) -> io::Result<()> {
    let found: Vec<_> = worst
        .iter()
        .map(|worst| {
            json!({
                "rule": worst.rule.as_str(),
                "about": worst.rule.about(),
                "bound": worst.found.bound,
                "spillway": worst.found.ours,
                "oracle": worst.found.oracle,
                "none": worst.none,
                "severity": worst.found.severity,
                "scenario": worst.yaml(&wanted.origin()),
            })
        })
        .collect();
    let whole = json!({ "tries": wanted.tries, "seed": wanted.seed, "found": found });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value == value.round() || value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// Lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
