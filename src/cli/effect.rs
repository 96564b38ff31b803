//! What changed after a lever was pulled?
//!
//! An operator who sees nothing happen pulls the next lever. So each command shows the rates of before beside those of
//! three seconds later: rates are taken over up to that time, and clients that were told to wait are quiet by then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use super::Ending;
use super::isolate::ended;
use super::shown::{Output, for_programs, plain};
use super::socket::{Failure, Where};
use crate::admin::wire::{Kept, Status, code};

/// How long after the lever the effect is measured.
const AFTER: Duration = Duration::from_secs(3);
/// How often the bar moves.
const STEP: Duration = Duration::from_millis(100);

/// Whether to wait for the effect.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(super) struct Watch {
    /// Do not wait three seconds to show what changed
    #[arg(long, global = true)]
    no_wait: bool,
}

/// How things were and how they are.
#[derive(Debug, Serialize)]
pub(super) struct Effect {
    before: Moment,
    after: Moment,
}

/// The numbers that a lever is meant to move.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moment {
    state: String,
    served_per_second: f64,
    shed_per_second: f64,
    pressure: f64,
    limit: u32,
    seats: u32,
}

impl Moment {
    fn of(status: &Status) -> Self {
        Self {
            state: status.state.clone(),
            served_per_second: status.served_per_second,
            shed_per_second: status.shed_per_second,
            pressure: status.pressure,
            limit: status.limit,
            seats: status.seats,
        }
    }
}

impl Watch {
    /// Waits, asks again, and says what changed; nothing when it was not wanted.
    pub(super) fn effect(self, at: &Where, before: &Status) -> Result<Option<Effect>, Failure> {
        if self.no_wait {
            return Ok(None);
        }
        wait("to see what it changes");
        let after: Status = at.get("/v1/status")?;
        Ok(Some(Effect { before: Moment::of(before), after: Moment::of(&after) }))
    }
}

impl Effect {
    /// Before and after, beside each other.
    pub(super) fn render(&self, out: &mut dyn Write) -> io::Result<()> {
        let (before, after) = (&self.before, &self.after);
        writeln!(out, "               BEFORE     3s LATER")?;
        writeln!(out, "served/s   {:>10.1}   {:>10.1}", before.served_per_second, after.served_per_second)?;
        writeln!(out, "refused/s  {:>10.1}   {:>10.1}", before.shed_per_second, after.shed_per_second)?;
        writeln!(out, "pressure   {:>10.2}   {:>10.2}", before.pressure, after.pressure)?;
        writeln!(out, "limit      {:>10}   {:>10}", before.limit, after.limit)?;
        writeln!(out, "in use     {:>10}   {:>10}", before.seats, after.seats)?;
        writeln!(out, "state      {:>10}   {:>10}", before.state, after.state)
    }
}

/// What every command that moves a lever has to say afterwards.
pub(super) struct Told<'a> {
    pub(super) before: &'a Status,
    pub(super) kept: &'a Kept,
    /// For programs; the effect is added.
    pub(super) object: Value,
    /// For people, one line.
    pub(super) text: String,
    /// How to undo it.
    pub(super) let_go: Option<String>,
}

impl Told<'_> {
    /// Warns, waits for the effect where that is wanted, and prints.
    pub(super) fn tell(
        mut self,
        watch: Watch,
        at: &Where,
        output: Output,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<Ending, Failure> {
        warn_not_kept(self.kept, err);
        let effect = watch.effect(at, self.before)?;
        self.object["effect"] = json!(effect);
        let printed = for_programs(output, &self.object, out).and_then(|done| {
            if done {
                return Ok(());
            }
            writeln!(out, "{}", self.text)?;
            if let Some(effect) = &effect {
                effect.render(out)?;
            }
            self.let_go.iter().try_for_each(|how| writeln!(out, "let go with: {how}"))
        });
        Ok(ended(printed))
    }
}

/// Says that a lever would not survive a restart, if so.
pub(super) fn warn_not_kept(kept: &Kept, err: &mut dyn Write) {
    if !kept.on_disk {
        let problem = plain(&kept.problem);
        // A closed terminal cannot be told anything.
        let _ = writeln!(
            err,
            "warning[{}]: in force, but it would not survive a restart of spillway: {problem}",
            code::NOT_KEPT
        );
    }
}

fn wait(why: &str) {
    let steps = (AFTER.as_millis() / STEP.as_millis()) as u64;
    let bar = if io::stderr().is_terminal() { ProgressBar::new(steps) } else { ProgressBar::hidden() };
    // The template is a constant: should it be wrong, the default style shows the same.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bar:20} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(format!("waiting 3 s {why}"));
    for _ in 0..steps {
        std::thread::sleep(STEP);
        bar.inc(1);
    }
    bar.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_and_after_stand_beside_each_other() {
        let before = super::super::status::tests::storm();
        let after =
            Status { state: "normal".into(), pressure: 1.04, shed_per_second: 12.0, ..before.clone() };
        let effect = Effect { before: Moment::of(&before), after: Moment::of(&after) };
        let mut out = Vec::new();
        effect.render(&mut out).unwrap();
        super::super::golden::compare("effect", &String::from_utf8(out).unwrap());
    }
}
