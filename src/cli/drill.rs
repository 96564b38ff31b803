//! `spillway drill`: break something on purpose, and see whether the promises hold.
//!
//! Always against a modelled apiserver and a spillway that are started for it on the loopback address: there is no way to
//! point it at a cluster. For a real one there are `deploy/chaos/` and `docs/DRILLS.md`.

use std::io::Write;

use clap::Args as ClapArgs;
use serde_json::json;

use super::{Ending, demo};
use crate::app;
use crate::demo::{DemoError, DrillReport, Options, Scenario, drill};

/// Plays a fault against a modelled apiserver with spillway in front, and reports which promises were kept.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway drill --list
  spillway drill --scenario dead-apiserver
  spillway drill --all -o markdown > drill.md
  spillway drill --scenario etcd-stall --nodes 200 --seed 7 -o json

Needs no cluster and touches none: everything listens on 127.0.0.1 with keys made for this run, half a minute a scenario. To break
a real cluster on purpose: deploy/chaos/. Exit codes: 0 every promise was kept, 1 one was not, 2 usage.")]
pub struct Args {
    /// What breaks; --list says what there is
    #[arg(long, value_name = "NAME", value_parser = scenario, required_unless_present_any = ["list", "all"])]
    scenario: Option<Scenario>,
    /// Every scenario in turn
    #[arg(long, conflicts_with_all = ["scenario", "list"])]
    all: bool,
    /// Show the scenarios
    #[arg(long, conflicts_with = "scenario")]
    list: bool,
    /// Seed of all jitter
    #[arg(long, value_name = "N", default_value_t = Options::default().seed)]
    seed: u64,
    /// Modelled nodes, 50 to 500
    #[arg(long, value_name = "N", default_value_t = 100)]
    nodes: usize,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For a terminal.
    #[default]
    Table,
    /// For a ticket or a wiki.
    Markdown,
    /// For programs: one JSON object, with everything that was measured.
    Json,
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let known = Scenario::ALL.map(Scenario::as_str);
    let found = Scenario::ALL.into_iter().find(|scenario| scenario.as_str() == text);
    found.ok_or_else(|| format!("expected one of {}", known.join(", ")))
}

/// Plays, prints and judges.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.list {
        return print(&list(args.output), true, out);
    }
    let chosen = if args.all { Scenario::ALL.to_vec() } else { args.scenario.into_iter().collect() };
    let mut reports = Vec::new();
    for scenario in chosen {
        match drill(&demo::start, scenario, args.seed, args.nodes) {
            Ok(report) => reports.push(report),
            Err(error) => {
                let _ = writeln!(err, "error: {}", app::chain(&error));
                return match error {
                    DemoError::OutOfRange { .. } => Ending::Usage,
                    _ => Ending::Failed,
                };
            }
        }
    }
    print(&render(&reports, args.output), reports.iter().all(|report| report.passed), out)
}

fn print(text: &str, fine: bool, out: &mut dyn Write) -> Ending {
    match (write!(out, "{text}").and_then(|()| out.flush()), fine) {
        (Ok(()), true) => Ending::Fine,
        _ => Ending::Failed,
    }
}

fn list(form: Form) -> String {
    match form {
        Form::Json => {
            let all =
                Scenario::ALL.map(|scenario| json!({ "name": scenario, "description": scenario.describe() }));
            format!("{:#}\n", json!({ "scenarios": all }))
        }
        Form::Table | Form::Markdown => Scenario::ALL
            .map(|scenario| format!("{:<18}  {}\n", scenario.as_str(), scenario.describe()))
            .concat(),
    }
}

fn render(reports: &[DrillReport], form: Form) -> String {
    match form {
        Form::Json => format!("{:#}\n", json!({ "drills": reports })),
        Form::Markdown => reports.iter().map(DrillReport::markdown).collect::<Vec<_>>().join("\n"),
        Form::Table => {
            let mut text = reports.iter().map(DrillReport::render).collect::<Vec<_>>().join("\n");
            if let Some(broken) = reports.iter().find(|report| !report.passed) {
                text.push_str(&format!(
                    "next: spillway drill --scenario {} --seed {} -o json      # the same again, with every number\n",
                    broken.scenario.as_str(),
                    broken.seed
                ));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::drill_sample as sample;

    #[test]
    fn the_list_and_the_reports_are_their_golden_texts() {
        let text = [list(Form::Table), render(&[sample()], Form::Table), render(&[sample()], Form::Markdown)];
        super::super::golden::compare("drill", &text.join("\n"));
        let json: serde_json::Value = serde_json::from_str(&render(&[sample()], Form::Json)).unwrap();
        assert_eq!(json["drills"][0]["scenario"], "dead-apiserver");
        assert_eq!(json["drills"][0]["promises"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_name_that_is_none_is_told_what_there_is() {
        assert!(scenario("storm").unwrap_err().contains("telemetry-rollout, slow-apiserver"));
        assert!(Scenario::ALL.into_iter().all(|known| scenario(known.as_str()) == Ok(known)));
    }
}
