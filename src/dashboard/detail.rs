//! What is there to know about one lane, or one client?

use std::fmt::Write as _;

use super::chart::{Chart, Line, as_rate, thinned};
use super::history::{CLIENT_SECONDS_MAX, LaneSlot, SECONDS_MAX};
use super::html::{Table, e, query, quoted, rate, seconds, span, target_of};
use super::look::Look;
use super::panels::{POINTS, STEP, isolate_button, marks};
use crate::policy::Lane;

/// A part: its id, its class, its HTML.
type Part = (&'static str, &'static str, String);

/// One lane.
pub(super) fn lane(look: &Look, lane: Lane) -> [Part; 4] {
    [
        ("lane-facts", "wide", lane_facts(look, lane)),
        ("lane-requests", "half", lane_chart(look, lane)),
        ("lane-seats", "half", lane_seats(look, lane)),
        ("lane-why", "wide", lane_why(look, lane)),
    ]
}

fn over_time(look: &Look, lane: Lane, of: fn(&LaneSlot) -> f32) -> Vec<f32> {
    thinned(look.history.last(SECONDS_MAX).map(|slot| of(&slot.lanes[lane.index()])), STEP)
}

fn lane_facts(look: &Look, lane: Lane) -> String {
    let status = look.status.lanes.get(lane.index()).cloned().unwrap_or_default();
    let open = if status.open { "<b class=\"ok\">● open</b>" } else { "<b class=\"bad\">✕ closed</b>" };
    let p99 = look.lately.heads[lane.index()].map_or_else(|| "–".to_owned(), seconds);
    format!(
        "<p class=\"crumb\"><a data-view href=\"?\">← overview</a></p><h2>Lane {lane}</h2><dl class=\"facts\">\
         <div><dt>let in</dt><dd>{open}</dd></div>\
         <div><dt>seats</dt><dd>{} of {}</dd></div><div><dt>always its own</dt><dd>{}</dd></div>\
         <div><dt>waiting</dt><dd>{}</dd></div><div><dt>watches</dt><dd>{}</dd></div>\
         <div><dt>served/s</dt><dd>{}</dd></div><div><dt>refused/s</dt><dd>{}</dd></div>\
         <div><dt>p99 to the head of the answer</dt><dd>{p99}</dd></div></dl>",
        status.seats,
        status.ceiling,
        status.floor,
        status.waiting,
        status.watches,
        rate(status.served_per_second),
        rate(status.shed_per_second),
    )
}

fn lane_chart(look: &Look, lane: Lane) -> String {
    Chart {
        id: "chart-lane",
        title: "Requests of this lane",
        unit: "a second",
        lines: vec![
            Line { name: "served", class: "served", values: over_time(look, lane, |slot| slot.served) },
            Line { name: "refused", class: "shed", values: over_time(look, lane, |slot| slot.shed) },
        ],
        width: POINTS,
        step: STEP,
        marks: marks(look),
        show: as_rate,
    }
    .html()
}

fn lane_seats(look: &Look, lane: Lane) -> String {
    Chart {
        id: "chart-lane-seats",
        title: "Seats and queue of this lane",
        unit: "now",
        lines: vec![
            Line { name: "seats", class: "served", values: over_time(look, lane, |slot| slot.seats) },
            Line { name: "waiting", class: "limit", values: over_time(look, lane, |slot| slot.waiting) },
        ],
        width: POINTS,
        step: STEP,
        marks: marks(look),
        show: as_rate,
    }
    .html()
}

fn lane_why(look: &Look, lane: Lane) -> String {
    let mut table = Table::new(
        "Why requests of this lane were refused, last 15 s",
        &[("reason", "name"), ("a second", "num")],
    );
    let mut rows = 0;
    for (_, reason, per_second) in look.lately.shed.iter().filter(|(of, _, _)| *of == lane) {
        table.row(
            &format!("reason-{reason}"),
            "",
            &[format!("<code>{}</code>", e(reason)), rate(*per_second)],
        );
        rows += 1;
    }
    let why = if rows == 0 {
        "<h2>Why</h2><p><b class=\"ok\">● 0 shed</b> nothing was refused in the last 15 s.</p>".to_owned()
    } else {
        table.end()
    };
    let mut who = String::new();
    for client in
        look.clients.iter().filter(|client| client.lanes.iter().any(|name| name == lane.as_str())).take(10)
    {
        let _ = write!(
            who,
            "<li><a data-view href=\"?client={}\">{}</a> <span class=\"dim\">{}/s served, {}/s refused</span></li>",
            query(&client.user),
            e(&client.user),
            rate(client.served_per_second),
            rate(client.shed_per_second),
        );
    }
    let who = if who.is_empty() { "<li>nobody among the busiest</li>".to_owned() } else { who };
    format!("{why}<h2>Who of the busiest is in it</h2><ul class=\"plain\">{who}</ul>")
}

/// One client.
pub(super) fn client(look: &Look, user: &str) -> [Part; 3] {
    [
        ("client-facts", "wide", client_facts(look, user)),
        ("client-requests", "wide", client_chart(look, user)),
        ("client-events", "wide", client_events(look, user)),
    ]
}

fn client_facts(look: &Look, user: &str) -> String {
    let (kind, name) = target_of(user);
    let head = format!("<p class=\"crumb\"><a data-view href=\"?\">← overview</a></p><h2>{}</h2>", e(user));
    let command =
        format!("spillway isolate {kind} {} --dry-run --to penalty --for 30m --reason …", quoted(&name));
    let next = format!(
        "<p class=\"next\"><span>Look first:</span> <code>{}</code> {}</p>",
        e(command),
        isolate_button(look, user, "Isolate…")
    );
    let Some(client) = look.clients.iter().find(|client| client.user == user) else {
        return format!(
            "{head}<p>It is not among the busiest now: who asks less is not listed here.</p>{next}"
        );
    };
    let share = look.figures.heaviest.filter(|_| look.status.client.as_deref() == Some(user));
    let share = share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
    format!(
        "{head}<dl class=\"facts\"><div><dt>served/s</dt><dd>{}</dd></div><div><dt>refused/s</dt><dd>{}</dd></div>\
         <div><dt>share of the work</dt><dd>{share}</dd></div><div><dt>lanes</dt><dd>{}</dd></div>\
         <div><dt>addresses</dt><dd>{}{}</dd></div><div><dt>last seen</dt><dd>{} ago</dd></div></dl>{next}",
        rate(client.served_per_second),
        rate(client.shed_per_second),
        e(client.lanes.join(", ")),
        client.addresses,
        if client.addresses >= 16 { " or more" } else { "" },
        span(client.idle_seconds),
    )
}

fn client_chart(look: &Look, user: &str) -> String {
    let Some(rates) = look.history.client(user) else {
        return "<p>Nothing is remembered of it: only who stood in a list lately has a line.</p>".to_owned();
    };
    let line = |of: fn(&(f32, f32)) -> f32| thinned(rates.iter().map(of), 1);
    Chart {
        id: "chart-client",
        title: "Requests of this client",
        unit: "a second",
        lines: vec![
            Line { name: "served", class: "served", values: line(|rates| rates.0) },
            Line { name: "refused", class: "shed", values: line(|rates| rates.1) },
        ],
        width: CLIENT_SECONDS_MAX,
        step: 1,
        marks: marks(look),
        show: as_rate,
    }
    .html()
}

fn client_events(look: &Look, user: &str) -> String {
    let (_, name) = target_of(user);
    let mut html = "<h2>What happened to it</h2><ol class=\"events\">".to_owned();
    let about = look.events.iter().filter(|event| event.text.contains(&name)).take(10);
    let mut rows = 0;
    for event in about {
        let _ = write!(
            html,
            "<li id=\"event-{}\"><time>{}</time> <span>{}</span></li>",
            event.number,
            super::html::clock(event.at),
            e(&event.text)
        );
        rows += 1;
    }
    html.push_str("</ol>");
    if rows == 0 {
        return "<h2>What happened to it</h2><p>Nothing among the last events.</p>".to_owned();
    }
    html
}
