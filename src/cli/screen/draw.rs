//! How does the overview look: the verdict, the lanes, who hurts, what happened?
//!
//! Lines are made for the width and height there is, down to 40 columns. State is a word and a mark before it is a colour,
//! so nothing is lost without colours. What was true some seconds ago and may not be any more is grey.

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::events::clock_of;
use super::super::shown::{fit, plain, span, wrapped_to};
use super::super::status;
use super::layout::{self, Parts};
use super::model::{Model, View};
use super::panels;
use crate::admin::wire::{ClientView, LaneStatus};
use crate::config::Colour;
use crate::policy::Lane;
use crate::units::Instant;

/// Below this everything that can be left out is.
pub(super) const NARROW: usize = 72;

/// Draws the whole screen.
pub(super) fn draw(model: &Model, now: Instant, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let lines = match &model.view {
        View::Overview => overview(model, now, width, height),
        View::Keys => panels::keys(width),
        View::Detail(user) => panels::detail(model, user, now, width),
        View::Isolate(dialog) => panels::isolate(model, dialog, now, width),
    };
    // What is too long ends before its last line: that one says how to leave.
    let last = lines.len().saturating_sub(1);
    let kept = last.min(height.saturating_sub(1));
    for (row, line) in (area.y..area.bottom()).zip(lines[..kept].iter().chain(lines.last())) {
        frame.buffer_mut().set_line(area.x, row, line, area.width);
    }
}

/// Styles, with or without colours.
#[derive(Clone, Copy)]
pub(super) struct Paint(Colour);

impl Paint {
    pub(super) const fn of(model: &Model) -> Self {
        Self(model.colour)
    }

    const fn coloured(self, style: Style, colour: Color) -> Style {
        match self.0 {
            Colour::Always => style.fg(colour),
            Colour::Never => style,
        }
    }

    pub(super) const fn bad(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Red)
    }

    pub(super) const fn warn(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Yellow)
    }

    pub(super) const fn good(self) -> Style {
        self.coloured(Style::new(), Color::Green)
    }

    pub(super) const fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) const fn marked(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of some time ago.
    pub(super) const fn old(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::DIM), Color::DarkGray)
    }

    fn verdict(self, model: &Model) -> (&'static str, &'static str, Style) {
        let (word, ansi) = status::verdict(&model.status);
        match ansi {
            "31" => ("✕", word, self.bad()),
            "33" => ("▲", word, self.warn()),
            _ => ("●", word, self.good()),
        }
    }
}

/// A line in one style, no longer than there is room.
pub(super) fn line(text: &str, width: usize, style: Style) -> Line<'static> {
    Line::styled(fit(text, width), style)
}

/// The lines over every page: that nobody answers, or that it stands still.
pub(super) fn warnings(model: &Model, now: Instant, width: usize) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let mut lines = Vec::new();
    if let Some(age) = model.stale(now) {
        let why = model.lost.as_deref().unwrap_or("the proxy takes its time");
        let text = format!("✕ NO ANSWER for {}: {why}; asking again every second", span(age.as_secs()));
        lines.extend(
            wrapped_to(&text, "  ", width).into_iter().take(3).map(|text| Line::styled(text, paint.bad())),
        );
    }
    if model.is_paused {
        let text = format!("‖ PAUSED: figures of {} UTC, p goes on", clock_of(model.at));
        lines.push(line(&text, width, paint.warn()));
    }
    lines
}

fn overview(model: &Model, now: Instant, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = warnings(model, now, width);
    let above = lines.len();
    lines.extend(head(model, now, width));
    let rows = model.rows();
    // One line for the keys.
    let parts = layout::divide(height, lines.len() + 1, model.findings.len(), rows.len(), model.events.len());
    lines.extend(findings(model, width, parts.findings));
    if parts.lanes > 0 {
        lines.extend(lanes(model, width));
    }
    lines.extend(clients(model, &rows, width, parts));
    lines.extend(events(model, width, parts.events));
    if model.stale(now).is_some() {
        let old = Paint::of(model).old();
        lines.iter_mut().skip(above).for_each(|line| grey(line, old));
    }
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::default());
    lines.push(foot(model, width));
    lines
}

/// Whatever it was coloured like.
pub(super) fn grey(line: &mut Line<'static>, old: Style) {
    line.style = old;
    line.spans.iter_mut().for_each(|span| span.style = old);
}

/// The verdict and the four numbers.
fn head(model: &Model, now: Instant, width: usize) -> Vec<Line<'static>> {
    let (mark, word, style) = Paint::of(model).verdict(model);
    let status = &model.status;
    let lasted = span(model.lasted(now).as_secs());
    let word = format!("{mark} {word} {lasted}");
    let text = wrapped_to(&format!("{word}: {}", status.diagnosis), "  ", width);
    let mut lines: Vec<Line<'static>> = text.iter().take(2).cloned().map(Line::from).collect();
    if let Some(first) = lines.first_mut()
        && let Some(rest) = text.first().and_then(|first| first.strip_prefix(&word))
    {
        *first = Line::from(vec![Span::styled(word, style), Span::raw(rest.to_owned())]);
    }
    if text.len() > 2
        && let Some(last) = lines.last_mut()
    {
        *last = Line::from(fit(&format!("{} …", text[1]), width));
    }
    let seats = format!("{} of {} seats", status.seats, status.limit);
    let bounds = format!("({} to {})", status.limit_min, status.limit_max);
    let rates = format!("{:.1}/s served, {:.1}/s refused", status.served_per_second, status.shed_per_second);
    if width < NARROW {
        lines.push(line(&format!("{seats}, pressure {:.2}", status.pressure), width, Style::new()));
        lines.push(line(&rates, width, Style::new()));
    } else {
        let text = format!("{seats} {bounds}, pressure {:.2}; {rates}", status.pressure);
        lines.push(line(&text, width, Style::new()));
    }
    lines
}

fn findings(model: &Model, width: usize, room: usize) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let more = model.findings.len().saturating_sub(room);
    let mut lines: Vec<String> =
        model.findings.iter().take(room).map(|(finding, _)| format!("! {finding}")).collect();
    if more > 0
        && let Some(last) = lines.last_mut()
    {
        let rest = format!(" (+{more}: spillway status)");
        *last = format!("{}{rest}", fit(last, width.saturating_sub(rest.chars().count())));
    }
    lines.iter().map(|text| line(text, width, paint.warn())).collect()
}

/// A bar of `width` characters.
fn gauge(of: u32, most: u32, width: usize) -> String {
    let full = if most == 0 { 0 } else { (of as usize * width).div_ceil(most as usize).min(width) };
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

fn lanes(model: &Model, width: usize) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let is_narrow = width < NARROW;
    let heading = if is_narrow {
        format!("{:<13} {:<6} {:>7}  {:>9}", "LANE", "", "SEATS", "REFUSED/s")
    } else {
        format!(
            "{:<14} {:<14} {:>11} {:>6} {:>8} {:>9} {:>10}",
            "LANE", "", "SEATS/CEIL", "QUEUE", "WATCHES", "SERVED/s", "REFUSED/s"
        )
    };
    let mut lines = vec![line(&heading, width, paint.heading())];
    // Every lane has its line, also before the first answer.
    let none = LaneStatus::default();
    for at in 0..Lane::COUNT {
        let lane = model.status.lanes.get(at).unwrap_or(&none);
        let seats = format!("{}/{}", lane.seats, lane.ceiling);
        let (name, bar_width) = (fit(&lane.name, 14), if is_narrow { 6 } else { 14 });
        let bar = if lane.open {
            gauge(lane.seats, lane.ceiling, bar_width)
        } else {
            format!("{:<bar_width$}", "closed")
        };
        let text = if is_narrow {
            format!("{name:<13} {bar} {seats:>7}  {:>9.1}", lane.shed_per_second)
        } else {
            format!(
                "{name:<14} {bar} {seats:>11} {:>6} {:>8} {:>9.1} {:>10.1}",
                lane.waiting, lane.watches, lane.served_per_second, lane.shed_per_second
            )
        };
        // The first four keep the cluster and its people alive: a refusal there is another matter than one of telemetry.
        let style = match (lane.shed_per_second > 0.0, at < 4) {
            (false, _) => Style::new(),
            (true, true) => paint.bad(),
            (true, false) => paint.warn(),
        };
        lines.push(line(&text, width, style));
    }
    lines
}

/// A service account by what tells it apart.
pub(super) fn short(user: &str) -> String {
    let account = user.strip_prefix("system:serviceaccount:");
    plain(&account.map_or_else(|| user.to_owned(), |account| format!("sa {}", account.replacen(':', "/", 1))))
}

fn clients(model: &Model, rows: &[&ClientView], width: usize, parts: Parts) -> Vec<Line<'static>> {
    let paint = Paint::of(model);
    let Some(room) = parts.clients.checked_sub(1) else { return vec![] };
    let is_narrow = width < NARROW;
    let name_width = width.saturating_sub(if is_narrow { 20 } else { 46 });
    let name = match (model.is_typing, model.filter.is_empty()) {
        (true, _) => format!("/{}_", model.filter),
        (false, false) => format!("/{}", model.filter),
        (false, true) => format!("{} OF {} CLIENTS", rows.len(), model.known),
    };
    let sorted = |by: &str, title: &str| {
        if model.by.as_str() == by { format!("▼{title}") } else { title.to_owned() }
    };
    let (cost, refused, served) =
        (sorted("cost", "COST%"), sorted("refused", "REFUSED/s"), sorted("served", "SERVED/s"));
    let name = fit(&name, name_width);
    let heading = if is_narrow {
        format!("  {name:<name_width$} {cost:>6} {refused:>10}")
    } else {
        let lane = sorted("asked", if model.by.as_str() == "asked" { "SERVED+REFUSED" } else { "LANE" });
        format!("  {name:<name_width$} {cost:>6} {served:>9} {refused:>10}  {lane}")
    };
    let mut lines = vec![line(&heading, width, paint.heading())];
    if rows.is_empty() && room > 0 {
        let text = if model.filter.is_empty() {
            "  nobody was here lately"
        } else {
            "  nobody of this name; Esc shows all"
        };
        lines.push(line(text, width, Style::new()));
    }
    let marked = model.row_marked();
    let first = (marked + 1).saturating_sub(room);
    for (row, client) in rows.iter().enumerate().skip(first).take(room) {
        let isolation = model.isolation(&client.user);
        let mark = if row == marked { '>' } else { ' ' };
        let hand = if isolation.is_some() { '◆' } else { ' ' };
        let name = fit(&short(&client.user), name_width);
        let (cost, shed) = (client.cost_percent, client.shed_per_second);
        let text = if is_narrow {
            format!("{mark}{hand}{name:<name_width$} {cost:>6.1} {shed:>10.1}")
        } else {
            let lane = client.lanes.last().map_or("", String::as_str);
            let lane = isolation.map_or(lane, |isolation| isolation.action.as_str());
            let served = client.served_per_second;
            format!(
                "{mark}{hand}{name:<name_width$} {cost:>6.1} {served:>9.1} {shed:>10.1}  {}",
                fit(lane, 14)
            )
        };
        let style = if row == marked { paint.marked() } else { Style::new() };
        lines.push(line(&format!("{text:<width$}"), width, style));
    }
    lines
}

fn events(model: &Model, width: usize, room: usize) -> Vec<Line<'static>> {
    let Some(room) = room.checked_sub(1) else { return vec![] };
    let mut lines = vec![line("EVENTS, the newest first", width, Paint::of(model).heading())];
    if model.events.is_empty() && room > 0 {
        lines.push(line("nothing since the proxy started", width, Style::new()));
    }
    for event in model.events.iter().take(room) {
        let text = format!("{} {} {}", clock_of(event.at), event.kind, event.text);
        lines.push(line(&text, width, Style::new()));
    }
    lines
}

fn foot(model: &Model, width: usize) -> Line<'static> {
    let paint = Paint::of(model);
    if !model.notice.is_empty() {
        return line(&model.notice, width, paint.warn());
    }
    let at = clock_of(model.at);
    let text = match (model.is_typing, width < NARROW) {
        (true, _) => "type a part of the name; Enter keeps it, Esc ends it".to_owned(),
        (false, true) => format!("{at} q quit ? keys s / Enter i p"),
        (false, false) => {
            format!("{at} UTC  q quit  ? keys  s sort  / filter  Enter detail  i isolate  p pause")
        }
    };
    line(&text, width, paint.old())
}
