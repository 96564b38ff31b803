//! How does a storm look? One small figure a scenario: node health, telemetry and the limit over time.
//!
//! Three panels with a common axis of time; spillway and two others, the best published algorithm of the scenario and the
//! control. SVG by hand: a few hundred points need no library.

use std::fmt::Write as _;

use super::judge::{OURS, score};
use super::statistics::median;
use super::study::Study;
use super::text::{has_figure, rivals};
use crate::sim::course::Moment;

const WIDTH: f64 = 720.0;
const PANEL: f64 = 110.0;
const GAP: f64 = 26.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 40.0;
/// Blue, orange and grey keep apart for everybody; dashes help where colours do not.
const STYLES: [(&str, &str); 3] = [("#0b5fa5", ""), ("#c95f00", "6 3"), ("#777777", "2 3")];

/// One panel: title, what is drawn, whether its axis is logarithmic.
type Panel = (&'static str, fn(&Moment) -> Option<f64>, bool);

const PANELS: [Panel; 3] = [
    ("lease p99, ms (log)", |moment| moment.lease_p99_ms, true),
    ("telemetry answered, per s", |moment| Some(moment.telemetry_per_s), false),
    ("limit L (log)", |moment| moment.limit, true),
];

/// Names and texts of all figures.
#[must_use]
pub fn figures(study: &Study<'_>) -> Vec<(String, String)> {
    let drawn = (0..study.scenarios.len()).filter(|&place| has_figure(study, place));
    drawn.map(|place| (format!("{}.svg", study.scenarios[place].name), figure(study, place))).collect()
}

/// Ours, the best published one of the scenario, and the control.
fn shown(study: &Study<'_>, place: usize) -> Vec<String> {
    let scored = rivals(study).into_iter().skip(1).filter_map(|(_, rival)| {
        let scores: Vec<f64> = study.runs_of(place, &rival).map(|run| score(study, place, run)).collect();
        Some((median(&scores)?, rival))
    });
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let names = [Some(OURS.to_owned()), best.map(|(_, name)| name), Some("none".to_owned())];
    names.into_iter().flatten().collect()
}

fn figure(study: &Study<'_>, place: usize) -> String {
    let scenario = &study.scenarios[place];
    let seconds = |span: crate::sim::scenario::Span| span.0.as_secs_f64();
    let (calm, storm) = (seconds(scenario.phases.calm), seconds(scenario.phases.storm));
    let end = calm + storm + seconds(scenario.phases.after);
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"14\" font-size=\"13\">{}</text>\n",
        escaped(&scenario.about)
    );
    let names = shown(study, place);
    for (number, (name, (colour, dashes))) in names.iter().zip(STYLES).enumerate() {
        let x = LEFT + 210.0 * number as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"26\" x2=\"{}\" y2=\"26\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{}\" y=\"30\">{}</text>",
            x + 24.0,
            x + 30.0,
            escaped(name)
        );
    }
    let courses: Vec<&[Moment]> = names
        .iter()
        .map(|name| study.run(place, name, 1).map_or(&[] as &[Moment], |run| &run.course))
        .collect();
    for (number, panel) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        draw(&mut svg, panel, (top, end), (calm, calm + storm), &courses);
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn draw(svg: &mut String, panel: &Panel, (top, end): (f64, f64), storm: (f64, f64), courses: &[&[Moment]]) {
    let (title, value, log) = *panel;
    let values = courses.iter().flat_map(|course| course.iter().filter_map(value));
    let (low, high) =
        values.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if log { (low.clamp(0.5, 1e4), high.max(2.0)) } else { (0.0, high.max(1.0)) };
    let scale = |value: f64| if log { value.max(low).ln() } else { value };
    let (bottom, top_value) = (scale(low), scale(high));
    let y = |value: f64| {
        top + PANEL - PANEL * ((scale(value) - bottom) / (top_value - bottom).max(1e-9)).clamp(0.0, 1.0)
    };
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / end);
    let _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f3e9d8\"/>\n\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#333\">{title}</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#333\">{end:.0} s</text>",
        x(storm.0),
        x(storm.1) - x(storm.0),
        WIDTH - LEFT - RIGHT,
        top + PANEL + 13.0,
        LEFT - 5.0,
        top + 9.0,
        tick(high),
        LEFT - 5.0,
        top + PANEL,
        tick(low),
        WIDTH - RIGHT,
        top + PANEL + 13.0,
    );
    for (course, (colour, dashes)) in courses.iter().zip(STYLES).rev() {
        let points: Vec<String> = course
            .iter()
            .filter_map(|moment| value(moment).map(|value| format!("{:.1},{:.1}", x(moment.at), y(value))))
            .collect();
        if points.len() > 1 {
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-dasharray=\"{dashes}\"/>",
                points.join(" ")
            );
        }
    }
}

fn tick(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
