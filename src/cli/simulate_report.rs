//! `spillway simulate --report DIR`: the whole comparison, as a document with figures.
//!
//! Every scenario with every algorithm, their grids and our ablations, from fixed seeds: equal versions write equal
//! bytes. `make overload-report` calls it for `docs/`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::Ending;
use super::simulate::{Stage, Task, Wrong};
use crate::sim::report::{Part, Study, figures, markdown};
use crate::sim::{Run, Scenario};

/// The algorithm without which nothing can be called a needless refusal.
const SHADOW: &str = "none";

/// Plays the study and writes `DIR/OVERLOAD.md` and `DIR/overload/*.svg`.
pub(super) fn write(stage: &Stage, directory: &Path, out: &mut dyn Write) -> Result<Ending, Wrong> {
    let version = format!("spillway {}.", env!("CARGO_PKG_VERSION"));
    let mut study = Study::new(&stage.scenarios, &version);
    for part in [Part::Main, Part::Best] {
        play(stage, &mut study, part)?;
    }
    let failed = |error: io::Error| Wrong(Ending::Failed, format!("{}: {error}", directory.display()));
    let pictures = directory.join("overload");
    fs::create_dir_all(&pictures).map_err(failed)?;
    for (name, picture) in figures(&study) {
        fs::write(pictures.join(&name), picture).map_err(failed)?;
    }
    let document = directory.join("OVERLOAD.md");
    fs::write(&document, markdown(&study)).map_err(failed)?;
    writeln!(out, "wrote {}", document.display()).map_err(failed)?;
    Ok(Ending::Fine)
}

/// Plays a part: the control first, because refusals are judged beside it.
fn play(stage: &Stage, study: &mut Study<'_>, part: Part) -> Result<(), Wrong> {
    let scenarios: &[Scenario] = &stage.scenarios;
    let wanted = study.wants(part);
    let (shadows, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, name, _)| name == SHADOW);
    let task = |(place, name, seed): &(usize, String, u64)| Task {
        scenario: &scenarios[*place],
        algorithm: name.clone(),
        seed: *seed,
    };
    let mut controls: Vec<Run> = stage.play_tasks(&shadows.iter().map(task).collect::<Vec<_>>())?;
    // Batches of one scenario each: the seconds of thousands of runs at a time would not fit into memory.
    for (place, scenario) in scenarios.iter().enumerate() {
        let wanted: Vec<_> = others.iter().filter(|(of, ..)| *of == place).map(task).collect();
        if wanted.is_empty() {
            continue;
        }
        let name = &scenario.name;
        if part == Part::Best {
            let seeds: std::collections::BTreeSet<u64> = wanted.iter().map(|task| task.seed).collect();
            let again: Vec<_> =
                seeds.into_iter().map(|seed| task(&(place, SHADOW.to_owned(), seed))).collect();
            controls = stage.play_tasks(&again)?;
        }
        for mut run in stage.play_tasks(&wanted)? {
            let shadow = controls.iter().find(|control| {
                control.outcome.scenario == *name && control.outcome.seed == run.outcome.seed
            });
            if let Some(shadow) = shadow {
                run.judge_sheds(shadow);
            }
            study.add(run);
        }
    }
    if part == Part::Main {
        controls.into_iter().for_each(|run| study.add(run));
    }
    Ok(())
}
