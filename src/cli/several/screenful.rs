//! How are they all, and who hurts them? `status` and `top` of several instances.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::super::Ending;
use super::super::shown::{Output, coloured, fit, for_programs, span};
use super::super::socket::{Failure, Where};
use super::super::status::{findings, verdict};
use super::super::top::{By, isolate_command};
use super::{Answer, close, each, finding, heard, name_of, object};
use crate::admin::wire::{ClientView, Clients, LaneStatus, Status};
use crate::config::Colour;

/// Findings of one instance; `spillway status` there shows the rest.
const FINDINGS_MAX: usize = 4;
/// Clients in the list.
const CLIENTS_MAX: usize = 20;

/// `spillway status`.
pub(in crate::cli) fn status(
    at: &Where,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
    colour: Colour,
) -> Result<Ending, Failure> {
    let answers = each(at, |at| at.get::<Status>("/v1/status"))?;
    let total = json!({
        "limit": heard(&answers).map(|(_, status)| status.limit).sum::<u32>(),
        "seats": heard(&answers).map(|(_, status)| status.seats).sum::<u32>(),
        "servedPerSecond": heard(&answers).map(|(_, status)| status.served_per_second).sum::<f64>(),
        "shedPerSecond": heard(&answers).map(|(_, status)| status.shed_per_second).sum::<f64>(),
    });
    let printed = for_programs(output, &object(&answers, total), out);
    let printed = printed.and_then(|done| if done { Ok(()) } else { show(&answers, colour, out) });
    Ok(close(&answers, printed, err))
}

fn show(answers: &[Answer<Status>], colour: Colour, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "INSTANCE      STATE      UP       SEATS/LIMIT  PRESSURE  SERVED/s  REFUSED/s")?;
    let mut sum = Status::default();
    let mut lanes: Vec<LaneStatus> = Vec::new();
    for answer in answers {
        let Ok(status) = &answer.said else {
            writeln!(out, "{}  {}", name_of(answer), coloured("NO ANSWER", "31", colour))?;
            continue;
        };
        let (word, ansi) = verdict(status);
        let word = coloured(&format!("{word:<9}"), ansi, colour);
        row(&format!("{}  {word}  {:<7}", name_of(answer), span(status.uptime_seconds)), status, true, out)?;
        sum.seats += status.seats;
        sum.limit += status.limit;
        sum.served_per_second += status.served_per_second;
        sum.shed_per_second += status.shed_per_second;
        add(&mut lanes, &status.lanes);
    }
    let heard = heard(answers).count();
    row(&format!("{:<32}", format!("all, {heard} of {} answered", answers.len())), &sum, false, out)?;
    writeln!(out)?;
    writeln!(out, "LANE           SEATS  QUEUE  WATCHES  SERVED/s  REFUSED/s  OPEN")?;
    for lane in &lanes {
        let LaneStatus { name, seats, waiting, watches, served_per_second, shed_per_second, floor, .. } =
            lane;
        let name = fit(name, 14);
        writeln!(
            out,
            "{name:<14} {seats:>5}  {waiting:>5}  {watches:>7}  {served_per_second:>8.1}  {shed_per_second:>9.1}  \
             {floor} of {heard}"
        )?;
    }
    differences(answers, out)?;
    for (answer, status) in super::heard(answers) {
        for (text, next) in findings(status).iter().take(FINDINGS_MAX) {
            finding(answer, text, next, out)?;
        }
    }
    Ok(())
}

fn row(before: &str, status: &Status, has_pressure: bool, out: &mut dyn Write) -> io::Result<()> {
    let seats = format!("{}/{}", status.seats, status.limit);
    let pressure = if has_pressure { format!("{:.2}", status.pressure) } else { String::new() };
    let (served, shed) = (status.served_per_second, status.shed_per_second);
    writeln!(out, "{before}  {seats:>11}  {pressure:>8}  {served:>8.1}  {shed:>9.1}")
}

/// Lanes added up; the floor counts those that are open.
fn add(sum: &mut Vec<LaneStatus>, lanes: &[LaneStatus]) {
    for lane in lanes {
        let at = sum.iter().position(|known| known.name == lane.name).unwrap_or_else(|| {
            sum.push(LaneStatus { name: lane.name.clone(), ..LaneStatus::default() });
            sum.len() - 1
        });
        let known = &mut sum[at];
        known.seats += lane.seats;
        known.waiting += lane.waiting;
        known.watches += lane.watches;
        known.served_per_second += lane.served_per_second;
        known.shed_per_second += lane.shed_per_second;
        known.floor += u32::from(lane.open);
    }
}

/// Something of a status in one word.
type Word = fn(&Status) -> &str;

/// Instances that do not agree are a finding of their own.
fn differences(answers: &[Answer<Status>], out: &mut dyn Write) -> io::Result<()> {
    let of = |what: Word| -> BTreeMap<String, Vec<&str>> {
        let mut by = BTreeMap::<String, Vec<&str>>::new();
        for (answer, status) in heard(answers) {
            by.entry(what(status).chars().take(12).collect()).or_default().push(&answer.name);
        }
        by
    };
    let kinds: [(&str, Word, &str); 3] = [
        ("policies", |status| &status.config.policy.hash, "spillway config show --endpoint URL, on each"),
        ("modes", |status| &status.enforcement.mode, "spillway rollout status --endpoint URL, on each"),
        ("versions", |status| &status.version, "finish the upgrade, docs/UPGRADE.md"),
    ];
    writeln!(out)?;
    for (name, what, next) in kinds {
        let by = of(what);
        if by.len() > 1 {
            let who: Vec<String> =
                by.iter().map(|(value, names)| format!("{value} on {}", names.join(", "))).collect();
            let text = format!("! the {name} differ: {}", who.join("; "));
            writeln!(out, "{}", super::wrapped(&text, "  "))?;
            writeln!(out, "  → {next}")?;
        }
    }
    Ok(())
}

/// `spillway top --once`.
pub(in crate::cli) fn top(
    at: &Where,
    by: By,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let answers = each(at, |at| at.get::<Clients>(&format!("/v1/clients?by={}", by.as_str())))?;
    let clients = merged(&answers, by);
    let total = json!({ "clients": clients.iter().map(|(client, _)| client).collect::<Vec<_>>() });
    let printed = for_programs(output, &object(&answers, total), out);
    let printed = printed.and_then(|done| if done { Ok(()) } else { list(&answers, &clients, at, out) });
    Ok(close(&answers, printed, err))
}

/// Each client once, over all instances, and where it is.
fn merged(answers: &[Answer<Clients>], by: By) -> Vec<(ClientView, Vec<String>)> {
    let mut all: BTreeMap<&str, (ClientView, Vec<String>)> = BTreeMap::new();
    for (answer, said) in heard(answers) {
        for client in &said.clients {
            let Some((sum, names)) = all.get_mut(client.user.as_str()) else {
                all.insert(&client.user, (client.clone(), vec![answer.name.clone()]));
                continue;
            };
            names.push(answer.name.clone());
            sum.served_per_second += client.served_per_second;
            sum.shed_per_second += client.shed_per_second;
            // A share of another apiserver's work: the worst of them is what hurts.
            sum.cost_percent = sum.cost_percent.max(client.cost_percent);
            sum.idle_seconds = sum.idle_seconds.min(client.idle_seconds);
        }
    }
    let rank = |client: &ClientView| match by {
        By::Cost => client.cost_percent,
        By::Asked => client.served_per_second + client.shed_per_second,
        By::Served => client.served_per_second,
        By::Refused => client.shed_per_second,
    };
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|(one, _), (other, _)| rank(other).total_cmp(&rank(one)));
    all.truncate(CLIENTS_MAX);
    all
}

fn list(
    answers: &[Answer<Clients>],
    clients: &[(ClientView, Vec<String>)],
    at: &Where,
    out: &mut dyn Write,
) -> io::Result<()> {
    let heard = heard(answers).count();
    writeln!(
        out,
        "{:<28} {:<12} {:>6} {:>8} {:>9}  {:<9}",
        "CLIENT", "INSTANCE", "COST%", "SERVED/s", "REFUSED/s", "LANE"
    )?;
    for (client, names) in clients {
        let ClientView { user, lanes, cost_percent, served_per_second, shed_per_second, .. } = client;
        let (user, lane) = (
            fit(user.trim_start_matches("system:serviceaccount:"), 28),
            fit(lanes.last().map_or("", String::as_str), 9),
        );
        let place = match names.as_slice() {
            [name] => fit(name, 12),
            names => format!("{} of {heard}", names.len()),
        };
        writeln!(
            out,
            "{user:<28} {place:<12} {cost_percent:>6.1} {served_per_second:>8.1} {shed_per_second:>9.1}  {lane:<9}"
        )?;
    }
    let sum = |of: fn(&ClientView) -> f64| clients.iter().map(|(client, _)| of(client)).sum::<f64>();
    let (served, shed) = (sum(|client| client.served_per_second), sum(|client| client.shed_per_second));
    let all = format!("all of the {} above", clients.len());
    let place = format!("{heard} of {}", answers.len());
    writeln!(out, "{all:<28} {place:<12} {:>6} {served:>8.1} {shed:>9.1}", "")?;
    let worst = clients.iter().find(|(client, _)| client.shed_per_second > 0.0);
    worst.map_or(Ok(()), |(client, _)| {
        writeln!(out, "  → {}", isolate_command(&client.user, "penalty", "30m", "…", &at.said()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::tests::{answers, printed};
    use super::*;

    #[test]
    fn the_status_of_three_of_which_one_is_silent_is_its_golden_text() {
        let storm = super::super::super::status::tests::storm();
        let mut calm =
            Status { state: "normal".into(), version: "0.2.0".into(), most_refused: vec![], ..storm.clone() };
        calm.lockdown = None;
        calm.isolations.clear();
        let answers = answers([storm, calm]);
        let text = printed(&answers, |out| show(&answers, Colour::Never, out));
        super::super::super::golden::compare("several-status", &text);
        let object = object(&answers, json!({}));
        assert_eq!(object["instances"][2]["problem"]["code"], "SPW0553");
        assert_eq!(object["instances"][0]["answer"]["limit"], 40);
    }

    #[test]
    fn clients_of_several_are_added_up_by_name() {
        let client = |user: &str, cost: f64, served: f64, shed: f64| ClientView {
            user: user.into(),
            lanes: vec!["telemetry".into()],
            cost_percent: cost,
            served_per_second: served,
            shed_per_second: shed,
            ..ClientView::default()
        };
        let agent = "system:serviceaccount:obs:node-agent";
        let one = Clients {
            clients: vec![client(agent, 40.0, 10.0, 900.0), client("alice", 1.0, 1.0, 0.0)],
            known: 9,
        };
        let two = Clients { clients: vec![client(agent, 61.0, 5.0, 890.5)], known: 9 };
        let answers = answers([one, two]);
        let at = Where::socket(PathBuf::from("/run/x.sock"), Duration::from_secs(1));
        for (by, first) in [(By::Cost, agent), (By::Refused, agent), (By::Served, agent)] {
            assert_eq!(merged(&answers, by)[0].0.user, first);
        }
        let clients = merged(&answers, By::Cost);
        let text = printed(&answers, |out| list(&answers, &clients, &at, out));
        super::super::super::golden::compare("several-top", &text);
    }
}
