//! `spillway status`: one screen that says how things are, why, and what to do next.

use std::io::{self, Write};

use clap::Args as ClapArgs;

use super::Ending;
use super::several;
use super::shown::{self, Output, coloured, fit, span, target_of, wrapped};
use super::socket::Where;
use crate::admin::wire::{ClientView, IsolationView, LeverView, Status};
use crate::config::Colour;

mod changes;

/// Shows how the proxy and its kube-apiserver are.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway status
  spillway status -o json | jq .limit
  watch -n1 spillway status

Asks the proxy on this machine over its admin socket: it answers when kube-apiserver, DNS and every other listener are
dead. Lines that begin with ! want something done; the command stands behind the arrow.
Exit codes: 0 shown, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    if args.at.is_several() {
        let shown = several::status(&args.at, args.output, out, err, colour);
        return shown.unwrap_or_else(|failure| failure.tell(err));
    }
    let status: Status = match args.at.get("/v1/status") {
        Ok(status) => status,
        Err(failure) => return failure.tell(err),
    };
    let printed = match shown::for_programs(args.output, &status, out) {
        Ok(false) => render(&status, out, colour),
        other => other.map(|_| ()),
    };
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

/// The screen.
fn render(status: &Status, out: &mut dyn Write, colour: Colour) -> io::Result<()> {
    let (word, ansi) = verdict(status);
    let first = wrapped(&format!("{word}: {}", status.diagnosis), "    ");
    writeln!(out, "{}", first.replacen(word, &coloured(word, ansi, colour), 1))?;
    writeln!(
        out,
        "spillway {}, up {}; limit {} seats ({} to {}), {} in use; pressure {:.2}",
        status.version,
        span(status.uptime_seconds),
        status.limit,
        status.limit_min,
        status.limit_max,
        status.seats,
        status.pressure,
    )?;
    writeln!(out)?;
    writeln!(out, "LANE           SEATS/CEILING  FLOOR  QUEUE  WATCHES  SERVED/s  REFUSED/s")?;
    for lane in &status.lanes {
        let seats = format!("{}/{}", lane.seats, lane.ceiling);
        let closed = if lane.open { "" } else { "  closed" };
        writeln!(
            out,
            "{:<14} {:>13}  {:>5}  {:>5}  {:>7}  {:>8.1}  {:>9.1}{closed}",
            fit(&lane.name, 14),
            seats,
            lane.floor,
            lane.waiting,
            lane.watches,
            lane.served_per_second,
            lane.shed_per_second,
        )?;
    }
    writeln!(
        out,
        "{:<14} {:>13}  {:>5}  {:>5}  {:>7}  {:>8.1}  {:>9.1}",
        "all", status.seats, "", "", "", status.served_per_second, status.shed_per_second,
    )?;
    let findings = findings(status);
    if !findings.is_empty() {
        writeln!(out)?;
    }
    for (finding, next) in &findings {
        writeln!(out, "{}", wrapped(&format!("! {finding}"), "  "))?;
        writeln!(out, "  → {next}")?;
    }
    Ok(())
}

/// How things are in one word, and its colour.
pub(super) fn verdict(status: &Status) -> (&'static str, &'static str) {
    match status.state.as_str() {
        "cold" => ("AWAY", "31"),
        "red" => ("BRAKING", "31"),
        "ramp" => ("RETURNING", "33"),
        "brown" => ("SHEDDING", "33"),
        _ if status.lockdown.is_some() => ("LOCKDOWN", "33"),
        _ => ("OK", "32"),
    }
}

/// What is not well, and what to do.
pub(super) fn findings(status: &Status) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if !status.ready {
        found.push(("starting or draining: not ready".to_owned(), "spillway status".to_owned()));
    }
    if !status.upstream_up {
        let next = "crictl ps -a --name kube-apiserver; then use the break-glass kubeconfig";
        found.push(("kube-apiserver does not answer".to_owned(), next.to_owned()));
    }
    found.extend(changes::of(status));
    if let Some(lane) = status.lanes.iter().find(|lane| lane.name == "break-glass")
        && (lane.seats > 0 || lane.watches > 0 || lane.served_per_second > 0.0 || lane.shed_per_second > 0.0)
    {
        let rate = lane.served_per_second + lane.shed_per_second;
        let finding = format!("break-glass in use: {rate:.1}/s, {} of {} seats", lane.seats, lane.ceiling);
        found.push((finding, "grep break-glass in the proxy's log: who, and why".to_owned()));
    }
    if let Some(lockdown) = &status.lockdown {
        found.push((lever("LOCKDOWN", lockdown), "spillway lockdown --off".to_owned()));
    }
    if let Some(held) = &status.held {
        found.push((lever("limit held", held), "spillway limit unpin".to_owned()));
    }
    for isolation in status.isolations.iter().take(5) {
        found.push((isolated(isolation), format!("spillway release {}", shown::quoted(&isolation.id))));
    }
    if status.isolations.len() > 5 {
        let more = format!("{} more isolations", status.isolations.len() - 5);
        found.push((more, "spillway isolations".to_owned()));
    }
    for client in status.most_refused.iter().filter(|client| !is_isolated(status, client)) {
        let finding = format!("refused most: {} {:.0}/s", client.user, client.shed_per_second);
        let next = format!("spillway isolate {} --to penalty --for 30m --reason …", target_of(&client.user));
        found.push((finding, next));
    }
    for newcomer in &status.newcomers_warned {
        let name = super::newcomers::name_of(&newcomer.user);
        let finding = format!(
            "newcomer {name} in {} places would take {:.0} of {} seats",
            newcomer.places, newcomer.projected_seats, status.limit
        );
        found.push((finding, format!("stop its roll-out, or: spillway newcomers approve {name}")));
    }
    let has_levers = status.lockdown.is_some() || status.held.is_some() || !status.isolations.is_empty();
    if has_levers && !status.kept.on_disk {
        let finding = format!("levers would not survive a restart: {}", status.kept.problem);
        found.push((finding, "df -h; ls -ld the folder state.dir of the configuration".to_owned()));
    }
    found
}

fn is_isolated(status: &Status, client: &ClientView) -> bool {
    let name = target_of(&client.user);
    status
        .isolations
        .iter()
        .any(|isolation| format!("{} {}", isolation.kind, shown::quoted(&isolation.name)) == name)
}

fn lever(what: &str, lever: &LeverView) -> String {
    let LeverView { what: effect, remaining_seconds, reason, by } = lever;
    format!("{what}, {} left: {effect}; {reason} ({by})", span(*remaining_seconds))
}

fn isolated(isolation: &IsolationView) -> String {
    format!(
        "isolated: {} {} ({}), {} left, {} refused: {} ({})",
        isolation.kind,
        isolation.name,
        isolation.action,
        span(isolation.remaining_seconds),
        isolation.refused,
        isolation.reason,
        isolation.by,
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::wire::newcomers::NewcomerView;
    use crate::admin::wire::{Kept, LaneStatus};
    use crate::admin::wire_change::{ConfigView, EnforcementView};
    use crate::policy::Lane;

    /// A storm with every lever pulled.
    pub(in crate::cli) fn storm() -> Status {
        Status {
            version: "0.1.0".into(),
            uptime_seconds: 4_000,
            ready: true,
            state: "brown".into(),
            cause: "client".into(),
            diagnosis:
                "system:serviceaccount:obs:node-agent takes 94 % of the work, and the apiserver is slow for \
                        want of processors; everybody else would be well served"
                    .into(),
            client: Some("system:serviceaccount:obs:node-agent".into()),
            limit: 40,
            limit_min: 10,
            limit_max: 1_000,
            seats: 38,
            pressure: 3.1,
            upstream_up: true,
            served_per_second: 1_319.6,
            shed_per_second: 1_840.2,
            lanes: Lane::ALL
                .into_iter()
                .map(|lane| LaneStatus {
                    name: lane.as_str().into(),
                    open: lane != Lane::Telemetry,
                    seats: 5,
                    ceiling: 40,
                    floor: 4,
                    waiting: 2,
                    watches: 12_345,
                    served_per_second: 164.9,
                    shed_per_second: 230.0,
                })
                .collect(),
            most_refused: vec![ClientView {
                user: "system:serviceaccount:obs:node-agent".into(),
                lanes: vec!["telemetry".into()],
                shed_per_second: 1_790.4,
                ..ClientView::default()
            }],
            isolations: vec![IsolationView {
                id: "iso-3f2a".into(),
                kind: "namespace".into(),
                name: "ci\u{1b}[2J".into(),
                action: "penalty".into(),
                remaining_seconds: 1_798,
                reason: "a runaway pipeline".into(),
                by: "uid 0".into(),
                refused: 12,
                ..IsolationView::default()
            }],
            lockdown: Some(LeverView {
                what: "only break-glass, node-health, control-plane and platform are let in".into(),
                remaining_seconds: 590,
                reason: "INC-481".into(),
                by: "uid 0".into(),
            }),
            held: None,
            kept: Kept { on_disk: false, problem: "/var/lib/spillway/levers.json: no space left".into() },
            config: ConfigView::default(),
            enforcement: EnforcementView::default(),
            newcomers_warned: vec![NewcomerView {
                user: "system:serviceaccount:obs:node-agent".into(),
                places: 21,
                projected_seats: 120.0,
                warned: true,
                ..NewcomerView::default()
            }],
        }
    }

    fn rendered(status: &Status, colour: Colour) -> String {
        let mut out = Vec::new();
        render(status, &mut out, colour).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_screen_of_a_storm_is_its_golden_text() {
        super::super::golden::compare("status-storm", &rendered(&storm(), Colour::Never));
    }

    #[test]
    fn every_line_fits_and_nothing_in_it_is_obeyed() {
        let text = rendered(&storm(), Colour::Never);
        // A command is never broken: it is there to be copied.
        let mut lines = text.lines().filter(|line| !line.starts_with("  → "));
        assert!(lines.all(|line| line.chars().count() <= shown::COLUMNS), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert!(text.starts_with("SHEDDING: "));
        let wants = text.lines().filter(|line| line.starts_with("! ")).count();
        assert_eq!((wants, text.matches("  → ").count()), (6, 6), "each finding has its command");
    }

    #[test]
    fn colour_marks_the_verdict_and_a_calm_screen_wants_nothing() {
        assert!(rendered(&storm(), Colour::Always).starts_with("\u{1b}[33mSHEDDING\u{1b}[0m"));
        let calm = Status { state: "normal".into(), ready: true, upstream_up: true, ..Status::default() };
        let text = rendered(&calm, Colour::Never);
        assert!(text.starts_with("OK") && !text.contains('!'), "{text}");
    }
}
