//! How do numbers over time look?
//!
//! Small SVG drawings made here, for three reasons: the page without JavaScript shows the same ones, style sheets colour
//! them for light, dark and forced colours, and no library of others runs in a page that can isolate clients. Lines are
//! told apart by their dashes and not by colour alone; the numbers stand beside them as text. What a pointer or the arrow
//! keys read out is computed in the page from the very points that are drawn.

use std::fmt::Write as _;

use super::html::{e, rate};

/// Height of a drawing in its own units; widths are the numbers of points.
const HEIGHT: f32 = 100.0;

/// One line.
pub(super) struct Line<'a> {
    /// What it is.
    pub(super) name: &'a str,
    /// Its class: the style sheet knows colour and dashes.
    pub(super) class: &'a str,
    /// The oldest first; not a number is a gap.
    pub(super) values: Vec<f32>,
}

/// Means of every `step` values, so that a chart has few points. What is drawn last is whole, too.
pub(super) fn thinned(values: impl ExactSizeIterator<Item = f32>, step: usize) -> Vec<f32> {
    let values: Vec<f32> = values.collect();
    let mean = |chunk: &[f32]| {
        let known: Vec<f32> = chunk.iter().copied().filter(|value| value.is_finite()).collect();
        if known.is_empty() { f32::NAN } else { known.iter().sum::<f32>() / known.len() as f32 }
    };
    // From the end on, so that the newest point is of the newest seconds.
    let mut means: Vec<f32> = values.rchunks(step).map(mean).collect();
    means.reverse();
    means
}

/// A round number that is not below.
fn round_up(most: f32) -> f32 {
    let most = most.max(1e-3);
    let scale = 10f32.powf(most.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0];
    steps.into_iter().map(|step| step * scale).find(|step| *step >= most).unwrap_or(most)
}

/// The `points` of as many polylines as there are stretches without a gap.
fn stretches(values: &[f32], width: usize, most: f32) -> Vec<String> {
    let mut lines = vec![String::new()];
    let start = width - values.len();
    for (at, value) in values.iter().enumerate() {
        if !value.is_finite() {
            lines.push(String::new());
            continue;
        }
        let y = HEIGHT - (value / most).clamp(0.0, 1.0) * HEIGHT;
        if let Some(line) = lines.last_mut() {
            let _ = write!(line, "{},{y:.1} ", start + at);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// A chart with its legend. `width` points wide; `step` seconds a point; `marks` are seconds before now.
pub(super) struct Chart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) lines: Vec<Line<'a>>,
    pub(super) width: usize,
    pub(super) step: usize,
    /// When an operator did something.
    pub(super) marks: Vec<u64>,
    /// How a value is written.
    pub(super) show: fn(f64) -> String,
}

impl Chart<'_> {
    pub(super) fn html(&self) -> String {
        let all = self.lines.iter().flat_map(|line| &line.values).copied().filter(|value| value.is_finite());
        let highest = all.fold(0.0f32, f32::max);
        let most = round_up(highest);
        let right = (self.width - 1) as f32;
        let mut svg = String::new();
        for ago in &self.marks {
            let x = right - *ago as f32 / self.step as f32;
            if x >= 0.0 {
                let _ = write!(
                    svg,
                    "<line class=\"mark\" x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"0\" y2=\"{HEIGHT}\"/>"
                );
            }
        }
        let (mut legend, mut said) = (String::new(), String::new());
        for line in &self.lines {
            for points in stretches(&line.values, self.width, most) {
                let _ = write!(svg, "<polyline class=\"{}\" points=\"{}\"/>", line.class, points.trim_end());
            }
            let now = line.values.last().copied().filter(|value| value.is_finite());
            let now = now.map_or_else(|| "–".to_owned(), |value| (self.show)(f64::from(value)));
            let _ = write!(
                legend,
                "<li><svg class=\"key\" viewBox=\"0 0 20 6\" aria-hidden=\"true\"><polyline class=\"{}\" points=\"0,3 20,3\"/></svg>{} <b>{}</b></li>",
                line.class,
                e(line.name),
                e(&now),
            );
            let peak = line.values.iter().copied().filter(|value| value.is_finite()).fold(0.0f32, f32::max);
            let _ = write!(said, "; {} now {now}, at most {}", line.name, (self.show)(f64::from(peak)));
        }
        let minutes = self.width * self.step / 60;
        format!(
            "<figure class=\"chart\" id=\"{id}\"><figcaption>{title} <span class=\"unit\">{unit}</span></figcaption>\
             <ul class=\"legend\">{legend}</ul>\
             <div class=\"plot\"><span class=\"top\">{top}</span>\
             <svg role=\"img\" tabindex=\"0\" viewBox=\"0 0 {right} {HEIGHT}\" preserveAspectRatio=\"none\" \
             aria-label=\"{said}\" data-most=\"{most}\" data-step=\"{step}\">\
             <line class=\"base\" x1=\"0\" x2=\"{right}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>{svg}</svg></div>\
             <p class=\"axis\"><span>−{minutes} min</span><output></output><span>now</span></p></figure>",
            id = self.id,
            title = e(self.title),
            unit = e(self.unit),
            top = e((self.show)(f64::from(most))),
            step = self.step,
            said = e(format!("{}, {} over the last {minutes} minutes{said}", self.title, self.unit)),
        )
    }
}

/// A line of two minutes in a table's cell; the number beside it says what it shows.
pub(super) fn spark(lines: &[(&str, Vec<f32>)], width: usize) -> String {
    let all = lines.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
    let most = all.fold(1.0f32, f32::max);
    let mut svg = format!(
        "<svg class=\"spark\" viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        width - 1
    );
    for (class, values) in lines {
        for points in stretches(values, width, most) {
            let _ = write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end());
        }
    }
    svg + "</svg>"
}

/// How full something is.
pub(super) fn bar(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"whole\" width=\"100\" height=\"8\"/><rect class=\"part\" width=\"{share:.0}\" height=\"8\"/></svg>"
    )
}

/// For [`Chart::show`].
pub(super) fn as_rate(value: f64) -> String {
    rate(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_gaps_where_nothing_is_known_and_ends_at_the_right() {
        let lines = stretches(&[1.0, f32::NAN, 2.0, 4.0], 5, 4.0);
        assert_eq!(lines, ["1,75.0 ", "3,50.0 4,0.0 "]);
        assert_eq!(thinned([1.0, 3.0, f32::NAN, 5.0, 6.0].into_iter(), 2), [1.0, 3.0, 5.5]);
        assert!([0.0, 0.7, 11.0, 1_840.0].into_iter().all(|most| round_up(most) >= most));
        assert_eq!(round_up(1_840.0), 2_000.0);
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let line = |name, class, values| Line { name, class, values };
        let chart = Chart {
            id: "requests",
            title: "Requests",
            unit: "a second",
            lines: vec![line("served", "served", vec![1.0, 20.0]), line("refused", "shed", vec![])],
            width: 150,
            step: 4,
            marks: vec![8, 9_999],
            show: as_rate,
        };
        let html = chart.html();
        assert!(
            html.contains(
                "Requests, a second over the last 10 minutes; served now 20, at most 20; refused now –"
            ),
            "{html}"
        );
        assert_eq!(html.matches("class=\"mark\"").count(), 1, "what is older than the chart is not in it");
        assert!(html.contains("x1=\"147\""));
    }
}
