//! How do the other pages look: the keys, one client, and an isolation that is being made?

use ratatui::style::Style;
use ratatui::text::Line;

use super::super::events::clock_of;
use super::super::shown::{plain, quoted, span, wrapped_to};
use super::super::top::isolate_command;
use super::command;
use super::dialog::{Dialog, Field, Step};
use super::draw::{NARROW, Paint, grey, line, short, warnings};
use super::model::Model;
use crate::admin::wire::{ClientView, Isolated};
use crate::units::Instant;

/// Events of one client that are shown.
const EVENTS_MAX: usize = 8;
/// Addresses that the proxy counts.
const ADDRESSES_MAX: usize = 16;
/// Clients of a preview.
const PREVIEW_MAX: usize = 5;

/// A page that grows downwards.
struct Page {
    width: usize,
    lines: Vec<Line<'static>>,
}

impl Page {
    fn text(&mut self, text: &str, style: Style) {
        self.lines
            .extend(wrapped_to(text, "  ", self.width).into_iter().map(|text| Line::styled(text, style)));
    }

    fn plain(&mut self, text: &str) {
        self.text(text, Style::new());
    }

    fn gap(&mut self) {
        self.lines.push(Line::default());
    }

    /// A name or what else has no spaces to break at.
    fn long(&mut self, text: &str, style: Style) {
        let text: Vec<char> = plain(text).chars().collect();
        let lines =
            text.chunks(self.width.max(1)).map(|part| Line::styled(part.iter().collect::<String>(), style));
        self.lines.extend(lines);
    }

    /// A word or two, and what belongs to it behind.
    fn row(&mut self, title: &str, width: usize, text: &str, style: Style) {
        let indent = " ".repeat(width + 2);
        let text = wrapped_to(text, "", self.width.saturating_sub(width + 2).max(10));
        for (row, text) in text.into_iter().enumerate() {
            let before = if row == 0 { format!("{title:<width$}  ") } else { indent.clone() };
            self.lines.push(Line::styled(before + &text, style));
        }
    }

    /// A command that can be copied off the screen ([`command::broken`]).
    fn command(&mut self, command: &str) {
        self.lines.extend(command::broken(command, self.width).into_iter().map(Line::from));
    }
}

/// What each key does.
pub(super) fn keys(width: usize) -> Vec<Line<'static>> {
    let rows = [
        ("j k ↓ ↑", "mark the next, the one before"),
        ("PgDn PgUp g G", "ten rows, first, last"),
        ("s", "sort by cost, asked, served, refused"),
        ("/", "only names with these letters in them"),
        ("Enter", "all about the marked client"),
        ("i", "isolate it: asks for everything first"),
        ("p Space", "hold the figures still, go on"),
        ("q Ctrl-C", "leave"),
    ];
    let mut page = Page { width, lines: vec![line("KEYS", width, Style::new())] };
    rows.iter().for_each(|(key, what)| page.row(key, 13, what, Style::new()));
    page.gap();
    page.plain(
        "COST% is the share of kube-apiserver's work of the last ten seconds; a refused request costs next to none. \
         ◆ marks who is isolated. The proxy is asked once a second.",
    );
    page.gap();
    page.plain("any key goes back");
    page.lines
}

fn facts(model: &Model, client: Option<&ClientView>, page: &mut Page) {
    let Some(client) = client else {
        return page.plain("not among those who are listed now: it asks less, or is gone");
    };
    let mut row = |title: &str, text: &str| page.row(title, 8, text, Style::new());
    row("cost", &format!("{:.1} % of the work of the last ten seconds", client.cost_percent));
    let (served, shed) = (client.served_per_second, client.shed_per_second);
    let last = span(client.idle_seconds);
    row("requests", &format!("{served:.1}/s served, {shed:.1}/s refused; last {last} ago"));
    row("lanes", &client.lanes.join(", "));
    let or_more = if client.addresses >= ADDRESSES_MAX { " or more" } else { "" };
    row("from", &format!("{}{or_more} addresses", client.addresses));
    if let Some(isolation) = model.isolation(&client.user) {
        page.text(
            &format!(
                "◆ {}, {} left, {} refused: {} ({})",
                isolation.action,
                span(isolation.remaining_seconds),
                isolation.refused,
                isolation.reason,
                isolation.by
            ),
            Paint::of(model).warn(),
        );
    }
}

/// One client.
pub(super) fn detail(model: &Model, user: &str, now: Instant, width: usize) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let mut page = Page { width, lines: warnings(model, now, width) };
    let above = page.lines.len();
    page.long(user, paint.heading());
    facts(model, model.client(user), &mut page);
    page.gap();
    match model.isolation(user) {
        Some(isolation) => {
            page.plain("let it go:");
            page.command(&format!("spillway release {}{}", quoted(&isolation.id), model.said));
        }
        None => {
            page.plain("contain it, after a look at whom it hits (i does it here):");
            page.command(&isolate_command(user, "penalty", "30m", "…", &model.said));
        }
    }
    page.plain("why is it refused:");
    page.command(&format!("spillway explain --user {}{}", quoted(user), model.said));
    page.gap();
    page.text("EVENTS ABOUT IT", paint.heading());
    let name = short(user);
    let name = name.strip_prefix("sa ").unwrap_or(&name);
    let about = model.events.iter().filter(|event| event.text.contains(name)).take(EVENTS_MAX);
    let mut found = 0;
    for event in about {
        page.plain(&format!("{} {} {}", clock_of(event.at), event.kind, event.text));
        found += 1;
    }
    if found == 0 {
        page.plain("none of late");
    }
    page.gap();
    page.text("Esc back · i isolate · Ctrl-C leave", paint.old());
    if model.stale(now).is_some() {
        page.lines.iter_mut().skip(above).for_each(|line| grey(line, paint.old()));
    }
    page.lines
}

/// An isolation that is being made.
pub(super) fn isolate(model: &Model, dialog: &Dialog, now: Instant, width: usize) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let mut page = Page { width, lines: warnings(model, now, width) };
    page.long(&format!("ISOLATE {}", dialog.user), paint.heading());
    page.gap();
    match &dialog.step {
        Step::Form => form(dialog, paint, &mut page),
        Step::Waiting(doing) => page.plain(&format!("{doing} …")),
        Step::Sure(isolated, typed) => sure(dialog, isolated, typed, paint, &mut page),
        Step::Done(isolated) => done(model, dialog, isolated, &mut page),
    }
    if !dialog.wrong.is_empty() {
        page.gap();
        page.text(&format!("! {}", dialog.wrong), paint.bad());
    }
    if !matches!(dialog.step, Step::Done(_)) {
        page.gap();
        page.plain("the same as a command:");
        page.command(&dialog.command(&model.said));
    }
    page.gap();
    let keys = match dialog.step {
        Step::Form if width < NARROW => "Tab next · ← → change · Enter on · Esc",
        Step::Form => "Tab next · ← → change the action · Enter goes on · Esc leaves it, nothing changes",
        Step::Waiting(_) => "Esc stops looking; what was asked for may still be done",
        Step::Sure(..) => "Esc leaves it, nothing is changed",
        Step::Done(_) => "Enter goes back",
    };
    page.text(keys, paint.old());
    page.lines
}

fn form(dialog: &Dialog, paint: Paint, page: &mut Page) {
    let means = if dialog.deny {
        "deny: every request is refused, running watches and exec sessions are ended"
    } else {
        "penalty: one request at a time and one a second, ranked as telemetry"
    };
    let fields = [
        (Field::Action, "action", dialog.to().to_owned()),
        (Field::Ttl, "for", dialog.ttl.clone()),
        (Field::Reason, "reason", dialog.reason.clone()),
    ];
    for (field, name, value) in fields {
        let is_here = dialog.field == field;
        let (mark, end) =
            if is_here { ('>', if field == Field::Action { "" } else { "_" }) } else { (' ', "") };
        let style = if is_here { paint.heading() } else { Style::new() };
        page.row(&format!("{mark} {name}"), 8, &format!("{value}{end}"), style);
    }
    page.gap();
    page.plain(means);
}

fn sure(dialog: &Dialog, isolated: &Isolated, typed: &str, paint: Paint, page: &mut Page) {
    let preview = &isolated.preview;
    let left = span(isolated.isolation.remaining_seconds);
    page.plain(&format!("{} for {left}: {}", dialog.to(), isolated.isolation.reason));
    if preview.matching == 0 {
        page.text("! nobody of this name was here lately", paint.warn());
    } else {
        page.plain(&format!(
            "hits {} that {} here lately:",
            preview.matching,
            if preview.matching == 1 { "was" } else { "were" }
        ));
    }
    for client in preview.clients.iter().take(PREVIEW_MAX) {
        page.plain(&format!(
            "{}: {:.1}/s served, {:.1}/s refused, {:.1} % of the work",
            short(&client.user),
            client.served_per_second,
            client.shed_per_second,
            client.cost_percent
        ));
    }
    if preview.protected.is_empty() {
        page.gap();
        page.text(&format!("type {} and then Enter: {typed}_", dialog.word()), paint.warn());
        return;
    }
    for reason in &preview.protected {
        page.text(&format!("! protected: {reason}"), paint.bad());
    }
    page.plain("it is not done from here; if it must be, add --force-protected to the command");
}

fn done(model: &Model, dialog: &Dialog, isolated: &Isolated, page: &mut Page) {
    let view = &isolated.isolation;
    page.plain(&format!("in force as {}: {}, for {}", view.id, view.action, span(view.remaining_seconds)));
    if !isolated.kept.on_disk {
        let text = format!("! it would not survive a restart of spillway: {}", isolated.kept.problem);
        page.text(&text, Paint::of(model).warn());
    }
    page.gap();
    let now = model.client(&dialog.user);
    let rates = |served: f64, shed: f64| format!("{served:.1}/s served, {shed:.1}/s refused");
    if let Some((served, shed)) = dialog.before {
        page.plain(&format!("before: {}", rates(served, shed)));
    }
    page.plain(&now.map_or_else(
        || "now: not among those who are listed".to_owned(),
        |client| format!("now: {}", rates(client.served_per_second, client.shed_per_second)),
    ));
    page.plain(&format!("pressure now: {:.2}", model.status.pressure));
    page.gap();
    page.plain("let it go:");
    page.command(&format!("spillway release {}{}", quoted(&view.id), model.said));
}
