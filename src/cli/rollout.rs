//! `spillway rollout`: bring a policy into force step by step, judged by the proxy itself.

use std::io::{self, Write};

use clap::{Args as ClapArgs, Subcommand};

use super::Ending;
use super::shown::{Output, for_programs, plain, span};
use super::socket::Where;
use crate::admin::wire_change::{RolloutOrder, RolloutView};

/// Brings the policy into force step by step.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway rollout status
  spillway rollout start
  spillway rollout pause
  spillway rollout abort           (back to Shadow: nothing is refused any more)

The steps, and what judges them, stand in the policy: enforcement.steps, stepInterval, guard. A step is over when it was
judged good for stepInterval; several bad judgements in a row go back to Shadow; too little traffic to say holds.
docs/ROLLOUT.md has the whole way. Exit codes: 0 done, 1 not possible now, 4 nobody answers.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Show where it is, and how the last interval was judged
    Status,
    /// Begin with the first step
    Start,
    /// Stay at this step; the guard still falls back
    Pause,
    /// Go on from this step
    Resume,
    /// Take the next step now
    Promote,
    /// Go back to Shadow now
    Abort,
}

/// Does it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let order = |order: &str| args.at.post("/v1/rollout", &RolloutOrder { order: order.to_owned() });
    let answer = match args.command {
        Command::Status => args.at.get("/v1/rollout"),
        Command::Start => order("start"),
        Command::Pause => order("pause"),
        Command::Resume => order("resume"),
        Command::Promote => order("promote"),
        Command::Abort => order("abort"),
    };
    let view: RolloutView = match answer {
        Ok(view) => view,
        Err(failure) => return failure.tell(err),
    };
    let printed = match for_programs(args.output, &view, out) {
        Ok(false) => text(&view, out),
        other => other.map(|_| ()),
    };
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

fn text(view: &RolloutView, out: &mut dyn Write) -> io::Result<()> {
    let in_force = match view.mode.as_str() {
        "Enforce" => format!("enforced for {} % of the identities", view.percent),
        "Shadow" => "in Shadow: nothing is refused".to_owned(),
        _ => "Disabled: nothing is decided".to_owned(),
    };
    writeln!(out, "Rollout {}; the policy is {in_force}", view.stage)?;
    if !view.steps.is_empty() {
        let steps: Vec<String> = view.steps.iter().map(|step| format!("{step} %")).collect();
        let at = if view.step == 0 { String::new() } else { format!(" (at {})", view.step) };
        writeln!(out, "Steps   {}{at}", steps.join(" → "))?;
    }
    let is_under_way = matches!(view.stage.as_str(), "running" | "paused");
    if is_under_way {
        let (passed, all) = (span(view.passed_seconds), span(view.step_seconds));
        writeln!(out, "Good    {passed} of {all}; {} of {} fails", view.failures, view.failure_threshold)?;
    }
    if !view.judgement.is_empty() {
        writeln!(out, "Guard   {}", view.judgement)?;
        for check in &view.checks {
            writeln!(out, "  {:<13} {:<19} {}", check.judgement, check.check, plain(&check.text))?;
        }
    }
    let (finding, next) = match view.stage.as_str() {
        "running" if view.judgement == "inconclusive" => {
            ("too little to judge by: the step holds", "spillway rollout promote, if you know better")
        }
        "running" | "done" => return Ok(()),
        "paused" => ("it stays at this step", "spillway rollout resume"),
        "fell-back" => ("the guard went back to Shadow", "spillway events; then spillway rollout start"),
        "aborted" => ("somebody went back to Shadow", "spillway rollout start"),
        _ if view.mode == "Enforce" && view.percent >= 100 => return Ok(()),
        _ if view.steps.is_empty() => {
            ("there are no steps", "add steps: [1, 5, 25, 50, 100] to enforcement in the policy's file")
        }
        _ => ("not started", "spillway rollout start"),
    };
    writeln!(out, "! {finding}\n  → {next}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire_change::CheckView;

    fn view(stage: &str, mode: &str, percent: u32) -> RolloutView {
        let check = |check: &str, judgement: &str, text: &str| CheckView {
            check: check.into(),
            judgement: judgement.into(),
            text: text.into(),
        };
        RolloutView {
            stage: stage.into(),
            mode: mode.into(),
            percent,
            steps: vec![1, 5, 25, 50, 100],
            step: 3,
            passed_seconds: 660,
            step_seconds: 1_800,
            failures: 1,
            failure_threshold: 3,
            judgement: "fail".into(),
            checks: vec![
                check("UpstreamErrorRatio", "pass", "3 errors of 81,204, at most 1 %"),
                check("ReadObjectP99", "fail", "1.3s of 4012 reads, at most 1s"),
                check("ProxyOverheadP99", "inconclusive", "0.0ns of 4 requests, at most 2ms"),
            ],
        }
    }

    #[test]
    fn each_stage_reads_as_its_golden_text() {
        let mut shown = Vec::new();
        let idle =
            RolloutView { step: 0, judgement: String::new(), checks: vec![], ..view("idle", "Shadow", 0) };
        let without = RolloutView { steps: vec![], ..idle.clone() };
        for view in [
            without,
            idle,
            view("running", "Enforce", 25),
            view("paused", "Enforce", 25),
            view("fell-back", "Shadow", 0),
            RolloutView { checks: vec![], judgement: "pass".into(), ..view("done", "Enforce", 100) },
        ] {
            text(&view, &mut shown).unwrap();
            shown.push(b'\n');
        }
        super::super::golden::compare("rollout", &String::from_utf8(shown).unwrap());
    }
}
