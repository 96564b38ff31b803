//! What stands in each panel of the overview?
//!
//! One function a panel. Every status is a word before it is a colour, and what is not green ends with what to do.

use std::fmt::Write as _;

use super::chart::{Chart, Line, as_rate, bar, spark, thinned};
use super::history::{CLIENT_SECONDS_MAX, SECONDS_MAX, Slot};
use super::html::{Table, clock, e, query, quoted, rate, seconds, span, target_of, thousands};
use super::look::Look;
use crate::admin::wire::{ClientView, IsolationView, LeverView, Status};
use crate::policy::Lane;

/// Seconds a point of a chart, and points.
pub(super) const STEP: usize = 4;
pub(super) const POINTS: usize = SECONDS_MAX / STEP;
/// The same of the lines in tables.
const SPARK_STEP: usize = 2;
pub(super) const SPARK_POINTS: usize = CLIENT_SECONDS_MAX / SPARK_STEP;
/// Clients in the table.
const TALKERS_MAX: usize = 12;
/// Isolations that are shown; the rest is counted.
const ISOLATIONS_SHOWN_MAX: usize = 12;
/// Events that are shown.
const EVENTS_SHOWN_MAX: usize = 30;
/// A probe or a call this many times slower than in calm is worth a word.
const SLOW: f64 = 3.0;
/// Slower than calm, but not yet slow.
const SLOWISH: f64 = 1.6;

/// The state in one word, since when, and why in a sentence.
pub(super) fn verdict(look: &Look) -> String {
    let (word, mark, class) = look.word();
    let status = &look.status;
    let since = span(look.at.saturating_sub(look.since));
    // Where etcd, a webhook or a level of its own is slow, containing the busiest client would not help.
    let culprit = match status.cause.as_str() {
        "client" | "cpu" | "memory" => status.client.as_deref(),
        "none" => status.most_refused.first().map(|client| client.user.as_str()),
        _ => None,
    };
    let next = match (word, culprit) {
        ("AWAY", _) => "crictl ps -a --name kube-apiserver; then use the break-glass kubeconfig".to_owned(),
        ("LOCKDOWN", _) => "spillway lockdown --off".to_owned(),
        (_, Some(user)) if is_isolated(look, user) => "spillway isolations".to_owned(),
        (_, Some(user)) => {
            let (kind, name) = target_of(user);
            format!("spillway isolate {kind} {} --to penalty --for 30m --reason …", quoted(&name))
        }
        ("OK", None) => String::new(),
        _ => "spillway help incident".to_owned(),
    };
    let button = culprit.map(|user| isolate_button(look, user, "Isolate it…")).unwrap_or_default();
    let next = match next.as_str() {
        "" => String::new(),
        next => format!("<p class=\"next\"><span>Next:</span> <code>{}</code> {button}</p>", e(next)),
    };
    format!(
        "<h2 class=\"off\">State and verdict</h2><p class=\"state {class}\"><span class=\"mark\" aria-hidden=\"true\">{mark}</span> <b>{word}</b> <span class=\"since\">for {since}</span></p>\
         <div class=\"said\"><p class=\"sentence\">{sentence}</p>{next}</div>\
         <dl class=\"facts\"><div><dt>served/s</dt><dd>{served}</dd></div><div><dt>refused/s</dt><dd>{shed}</dd></div>\
         <div><dt>seats</dt><dd>{seats} of {limit}</dd></div><div><dt>pressure</dt><dd>{pressure:.1}×</dd></div>\
         <div><dt>time</dt><dd>{time} UTC</dd></div></dl>",
        sentence = e(sentence(look)),
        served = rate(status.served_per_second),
        shed = rate(status.shed_per_second),
        seats = status.seats,
        limit = status.limit,
        pressure = status.pressure,
        time = clock(look.at),
    )
}

/// Why, and who: also while kube-apiserver is well because somebody is refused.
fn sentence(look: &Look) -> String {
    let status = &look.status;
    let Some(client) = status.most_refused.first().filter(|_| status.cause == "none") else {
        return status.diagnosis.clone();
    };
    let share = look.figures.heaviest.filter(|_| status.client.as_deref() == Some(&client.user));
    let work =
        share.map_or_else(String::new, |share| format!(" and makes {:.0} % of the work", share * 100.0));
    format!(
        "{} {} requests a second are refused, so that it stays so: {} is refused most{work}.",
        status.diagnosis,
        rate(status.shed_per_second),
        client.user
    )
}

/// Can I still get in, and who else is in?
pub(super) fn glass(look: &Look) -> String {
    let title = "<h2>Break-glass</h2>";
    let Some(lane) = look.status.lanes.first().filter(|lane| lane.ceiling > 0) else {
        return format!(
            "{title}<p class=\"warn\"><b>▲ NONE</b> there is no break-glass lane: when kube-apiserver drowns, operators have no way in of their own. <span class=\"next\">docs/BREAK_GLASS.md</span></p>"
        );
    };
    let people: Vec<&ClientView> = look
        .clients
        .iter()
        .filter(|client| {
            client.idle_seconds < 60 && client.lanes.iter().any(|lane| lane == Lane::BreakGlass.as_str())
        })
        .collect();
    let is_used = lane.seats > 0 || lane.watches > 0 || lane.served_per_second + lane.shed_per_second > 0.0;
    let link = format!("<a data-view href=\"?lane={0}\">details</a>", Lane::BreakGlass);
    if !is_used && people.is_empty() {
        return format!(
            "{title}<p><b class=\"ok\">● READY</b> nobody uses it; 0 of {} seats. {link}</p>",
            lane.ceiling
        );
    }
    let mut names = String::new();
    for client in &people {
        let _ = write!(names, " <b>{}</b> ({} s ago)", e(&client.user), client.idle_seconds);
    }
    let mut html = format!(
        "{title}<p role=\"alert\" class=\"warn\"><b>▲ IN USE</b></p><p>{} of {} seats, {}/s served, {}/s refused, {} watches.{names} {link}</p>",
        lane.seats,
        lane.ceiling,
        rate(lane.served_per_second),
        rate(lane.shed_per_second),
        lane.watches,
    );
    let _ =
        write!(html, "<p class=\"next\"><span>Who and why:</span> <code>spillway audit verify</code></p>");
    html
}

/// What did somebody put in force by hand?
pub(super) fn levers(look: &Look) -> String {
    let status = &look.status;
    let mut html = "<h2>In force by hand</h2>".to_owned();
    let nothing = status.isolations.is_empty() && status.lockdown.is_none() && status.held.is_none();
    if nothing {
        html.push_str("<p>Nothing: no isolation, no lockdown, the limit is free.</p>");
        return html + &offers(status);
    }
    html.push_str("<ul class=\"levers\">");
    for (what, lever, path, command) in [
        ("Lockdown", &status.lockdown, "v1/lockdown/release", "spillway lockdown --off"),
        ("Limit held", &status.held, "v1/limit/release", "spillway limit unpin"),
    ] {
        let Some(LeverView { what: effect, remaining_seconds, reason, by }) = lever else { continue };
        let _ = write!(
            html,
            "<li id=\"lever-{id}\"><b class=\"warn\">◆ {what}</b> {}: {} <span class=\"dim\">({}, {} left)</span> \
             <button type=\"button\" class=\"act admin\" data-act=\"do\" data-title=\"End: {what}\" data-text=\"It is over at once.\" data-path=\"{path}\" data-body=\"{{}}\" data-command=\"{command}\">End it…</button></li>",
            e(effect),
            e(reason),
            e(by),
            span(*remaining_seconds),
            id = path.len(),
        );
    }
    for view in status.isolations.iter().take(ISOLATIONS_SHOWN_MAX) {
        html.push_str(&isolation(view));
    }
    html.push_str("</ul>");
    if status.isolations.len() > ISOLATIONS_SHOWN_MAX {
        let more = status.isolations.len() - ISOLATIONS_SHOWN_MAX;
        let _ = write!(html, "<p>and {more} more: <code>spillway isolations</code></p>");
    }
    if !status.kept.on_disk {
        let _ = write!(
            html,
            "<p class=\"warn\"><b>▲ NOT KEPT</b> levers would not survive a restart: {}</p>",
            e(&status.kept.problem)
        );
    }
    html + &offers(status)
}

/// What could be put in force beside it.
fn offers(status: &Status) -> String {
    let mut html = "<p class=\"offers\">".to_owned();
    for (is_free, kind, title) in [
        (status.lockdown.is_none(), "lockdown", "Lock down…"),
        (status.held.is_none(), "limit", "Hold the limit…"),
    ] {
        if is_free {
            let _ = write!(
                html,
                "<button type=\"button\" class=\"act admin\" data-act=\"lever\" data-kind=\"{kind}\">{title}</button> "
            );
        }
    }
    html + "</p>"
}

fn isolation(view: &IsolationView) -> String {
    let forced = if view.forced { " <b>forced</b>" } else { "" };
    format!(
        "<li id=\"{id}\"><b class=\"warn\">◆ Isolated</b> {kind} <b>{name}</b> → {action}{forced}: {reason} \
         <span class=\"dim\">({by}, {left} left, {refused} refused, {passed} let through, {id})</span> \
         <button type=\"button\" class=\"act\" data-act=\"release\" data-id=\"{id}\" data-name=\"{kind} {name}\">Release…</button></li>",
        id = e(&view.id),
        kind = e(&view.kind),
        name = e(&view.name),
        action = e(&view.action),
        reason = e(&view.reason),
        by = e(&view.by),
        left = span(view.remaining_seconds),
        refused = thousands(view.refused),
        passed = thousands(view.passed),
    )
}

fn over_time(look: &Look, of: fn(&Slot) -> f32) -> Vec<f32> {
    thinned(look.history.last(SECONDS_MAX).map(of), STEP)
}

/// Seconds ago at which operators moved a lever.
pub(super) fn marks(look: &Look) -> Vec<u64> {
    let levers = look.events.iter().filter(|event| event.kind == "lever");
    levers.map(|event| look.at.saturating_sub(event.at)).collect()
}

/// How much is asked, and how much of it is refused?
pub(super) fn requests(look: &Look) -> String {
    Chart {
        id: "chart-requests",
        title: "Requests",
        unit: "a second",
        lines: vec![
            Line { name: "served", class: "served", values: over_time(look, |slot| slot.served) },
            Line { name: "refused", class: "shed", values: over_time(look, |slot| slot.shed) },
        ],
        width: POINTS,
        step: STEP,
        marks: marks(look),
        show: as_rate,
    }
    .html()
}

/// How much of kube-apiserver is in use, and how much may be?
pub(super) fn seats(look: &Look) -> String {
    Chart {
        id: "chart-seats",
        title: "Seats at kube-apiserver",
        unit: "in use now",
        lines: vec![
            Line { name: "in use", class: "served", values: over_time(look, |slot| slot.seats) },
            Line { name: "limit L", class: "limit", values: over_time(look, |slot| slot.limit) },
        ],
        width: POINTS,
        step: STEP,
        marks: marks(look),
        show: as_rate,
    }
    .html()
}

/// How long does kube-apiserver take, against what it should?
pub(super) fn slowness(look: &Look) -> String {
    let p99 = over_time(look, |slot| slot.p99);
    let target = look.figures.objective as f32;
    Chart {
        id: "chart-slowness",
        title: "Time to first byte, p99",
        unit: "last 15 s, watches and LISTs included",
        lines: vec![
            Line { name: "target of single objects", class: "limit", values: vec![target; p99.len()] },
            Line { name: "p99", class: "served", values: p99 },
        ],
        width: POINTS,
        step: STEP,
        marks: marks(look),
        show: seconds,
    }
    .html()
}

/// Are nodes, DNS and leader election safe?
pub(super) fn lanes(look: &Look) -> String {
    let mut table = Table::new(
        "Lanes, highest first",
        &[
            ("lane", "name"),
            ("2 min", "spark"),
            ("served/s", "num"),
            ("refused/s", "num"),
            ("seats", "num"),
            ("use", "bar"),
            ("waiting", "num"),
            ("watches", "num"),
            ("p99", "num"),
            ("fate", "fate"),
        ],
    );
    for (lane, status) in Lane::ALL.into_iter().zip(&look.status.lanes) {
        let index = lane.index();
        let slots = look.history.last(CLIENT_SECONDS_MAX);
        let served = thinned(slots.clone().map(|slot| slot.lanes[index].served), SPARK_STEP);
        let shed = thinned(slots.map(|slot| slot.lanes[index].shed), SPARK_STEP);
        let (fate, class) = match status {
            status if lane == Lane::BreakGlass && status.ceiling == 0 => ("○ off", "dim"),
            status if !status.open => ("✕ CLOSED", "bad"),
            status if status.shed_per_second > 0.0 => ("▲ SHED", "warn"),
            status if status.waiting > 0 => ("◔ waits", "warn"),
            _ => ("● 0 shed", "ok"),
        };
        let row = [
            format!("<a data-view href=\"?lane={lane}\">{lane}</a>"),
            spark(&[("served", served), ("shed", shed)], SPARK_POINTS),
            rate(status.served_per_second),
            rate(status.shed_per_second),
            format!("{}/{}", status.seats, status.ceiling),
            bar(f64::from(status.seats), f64::from(status.ceiling)),
            thousands(u64::from(status.waiting)),
            thousands(u64::from(status.watches)),
            look.lately.heads[index].map_or_else(|| "–".to_owned(), seconds),
            format!("<b class=\"{class}\">{fate}</b>"),
        ];
        table.row(&format!("lane-{lane}"), "", &row);
    }
    table.end()
}

/// A slowdown in a word.
fn slow(times: f64) -> String {
    match times {
        times if times <= 0.0 => "<span class=\"dim\">○ not known</span>".to_owned(),
        times if times >= SLOW => format!("<b class=\"bad\">■ SLOW</b> {times:.1}× calm"),
        times if times >= SLOWISH => format!("<b class=\"warn\">▲ slower</b> {times:.1}× calm"),
        times => format!("<b class=\"ok\">● calm</b> {times:.1}×"),
    }
}

/// Is it kube-apiserver, etcd, a webhook?
pub(super) fn health(look: &Look) -> String {
    let (figures, lately) = (&look.figures, &look.lately);
    let [process, cache, etcd] = figures.probes;
    let up =
        if look.status.upstream_up { "<b class=\"ok\">● UP</b>" } else { "<b class=\"bad\">✕ AWAY</b>" };
    let known = |quantile: Option<f64>| quantile.map_or_else(|| "–".to_owned(), seconds);
    let against = match lately.first_byte.1 {
        Some(p99) if p99 > figures.objective => "<b class=\"warn\">▲ OVER</b>",
        Some(_) => "<b class=\"ok\">● within</b>",
        None => "<span class=\"dim\">no answers</span>",
    };
    let failing: Vec<String> = lately
        .failures
        .iter()
        .filter(|(_, rate)| *rate > 0.0)
        .map(|(meaning, per_second)| format!("{meaning} {}/s", rate(*per_second)))
        .collect();
    let failing = if failing.is_empty() { "none".to_owned() } else { failing.join(", ") };
    format!(
        "<h2>kube-apiserver</h2><dl class=\"pairs\">\
         <div><dt>{}</dt><dd>{up}</dd></div>\
         <div><dt>processor and memory (livez)</dt><dd>{}</dd></div>\
         <div><dt>its cache</dt><dd>{}</dd></div>\
         <div><dt>etcd</dt><dd>{}</dd></div>\
         <div><dt>single objects</dt><dd>{}</dd></div>\
         <div><dt>writes (webhooks)</dt><dd>{}</dd></div>\
         <div><dt>first byte p50 / p99</dt><dd>{} / {}</dd></div>\
         <div><dt>p99 against {}</dt><dd>{against}</dd></div>\
         <div><dt>does not cope</dt><dd>{}</dd></div>\
         <div><dt>connections, streams</dt><dd>{}, {}</dd></div></dl>",
        e(&figures.upstream),
        slow(process),
        slow(cache),
        slow(etcd),
        slow(figures.objects),
        slow(figures.writes),
        known(lately.first_byte.0),
        known(lately.first_byte.1),
        seconds(figures.objective),
        e(failing),
        figures.connections,
        figures.streams,
    )
}

/// The button that opens the drawer for a user.
pub(super) fn isolate_button(look: &Look, user: &str, title: &str) -> String {
    let (kind, name) = target_of(user);
    if is_isolated(look, user) {
        return "<b class=\"warn\">◆ isolated</b>".to_owned();
    }
    format!(
        "<button type=\"button\" class=\"act\" data-act=\"isolate\" data-kind=\"{kind}\" data-name=\"{}\">{title}<span class=\"off\"> {0}</span></button>",
        e(&name)
    )
}

fn is_isolated(look: &Look, user: &str) -> bool {
    let (kind, name) = target_of(user);
    look.status.isolations.iter().any(|view| view.kind == kind && view.name == name)
}

/// Who is it?
pub(super) fn talkers(look: &Look) -> String {
    let mut table = Table::new(
        "Top talkers, over the last seconds",
        &[
            ("client", "name"),
            ("2 min", "spark"),
            ("asked/s", "num"),
            ("served/s", "num"),
            ("refused/s", "num"),
            ("work", "num"),
            ("addresses", "num"),
            ("lane", "lane"),
            ("action", "action"),
        ],
    );
    for client in look.clients.iter().take(TALKERS_MAX) {
        let asked = client.served_per_second + client.shed_per_second;
        let share = look.figures.heaviest.filter(|_| look.status.client.as_deref() == Some(&client.user));
        let lane = client.lanes.last().map_or("", String::as_str);
        let row = [
            format!("<a data-view href=\"?client={}\">{}</a>", query(&client.user), e(&client.user)),
            client_spark(look, &client.user),
            rate(asked),
            rate(client.served_per_second),
            rate(client.shed_per_second),
            share.map_or_else(String::new, |share| format!("<b>{:.0} %</b>", share * 100.0)),
            // The table keeps the last sixteen of each.
            if client.addresses >= 16 { "16+".to_owned() } else { client.addresses.to_string() },
            format!("<a data-view href=\"?lane={0}\">{0}</a>", e(lane)),
            isolate_button(look, &client.user, "Isolate…"),
        ];
        table.row(&format!("client-{}", client.user), "talker", &row);
    }
    let shown = look.clients.len().min(TALKERS_MAX);
    format!(
        "<p class=\"tools js\"><label>Filter <input type=\"search\" id=\"filter\" autocomplete=\"off\" spellcheck=\"false\"></label> <kbd>/</kbd></p>\
         {}<p class=\"dim\">{shown} of {} clients that were here lately · <code>spillway top</code></p>",
        table.end(),
        look.known
    )
}

pub(super) fn client_spark(look: &Look, user: &str) -> String {
    let Some(rates) = look.history.client(user) else { return String::new() };
    let line = |of: fn(&(f32, f32)) -> f32| thinned(rates.iter().map(of), SPARK_STEP);
    spark(&[("served", line(|rates| rates.0)), ("shed", line(|rates| rates.1))], SPARK_POINTS)
}

/// What was decided and done, and when?
pub(super) fn timeline(look: &Look) -> String {
    let mut html = "<h2>Timeline, newest first</h2>".to_owned();
    if look.events.is_empty() {
        html.push_str("<p>Nothing happened since the start.</p>");
        return html;
    }
    html.push_str(
        "<div class=\"scroll\" role=\"log\" aria-live=\"off\" aria-label=\"Timeline\" tabindex=\"0\"><ol class=\"events\">",
    );
    for event in look.events.iter().take(EVENTS_SHOWN_MAX) {
        let (mark, word) = match event.kind.as_str() {
            "lever" => ("◆", "operator"),
            "overload" => ("▲", "controller"),
            other => ("•", other),
        };
        let _ = write!(
            html,
            "<li id=\"event-{}\"><time>{}</time> <span class=\"kind\">{mark} {}</span> <span>{}</span></li>",
            event.number,
            clock(event.at),
            e(word),
            e(&event.text),
        );
    }
    html.push_str("</ol></div>");
    html
}
