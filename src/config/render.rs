//! How does a finding look to a person, and to a program?
//!
//! For people the shape that Rust's compiler made familiar: the line itself, with a mark under the mistake. Colour
//! is for terminals only. Text from the file is shown without control characters, which could drive the terminal.

use std::fmt::Write;

use serde::Serialize;

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::source::Place;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// With ANSI escapes, for a terminal.
    Always,
    /// Plain text.
    Never,
}

/// ANSI styles.
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[34m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

impl Colour {
    fn paint(self, style: &str, text: &str) -> String {
        match self {
            Self::Always => format!("{style}{text}{RESET}"),
            Self::Never => text.to_owned(),
        }
    }
}

/// Findings for people, one paragraph each.
#[must_use]
pub fn human(found: &Diagnostics, colour: Colour) -> String {
    found.0.iter().map(|diagnostic| one(diagnostic, colour)).collect::<Vec<_>>().join("\n")
}

fn one(diagnostic: &Diagnostic, colour: Colour) -> String {
    let style = match diagnostic.severity() {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
    };
    let head = format!("{}[{}]", diagnostic.severity().as_str(), diagnostic.code);
    let mut text =
        format!("{}: {}\n", colour.paint(style, &head), colour.paint(BOLD, &plain(&diagnostic.message)));
    let margin = diagnostic.place.as_ref().map_or(1, |place| place.line.to_string().len());
    if let Some(place) = &diagnostic.place {
        excerpt(&mut text, place, &diagnostic.label, style, margin, colour);
    }
    // Writing to a String cannot fail.
    for note in &diagnostic.notes {
        let _ = writeln!(text, "{:margin$} {} {}", "", colour.paint(BLUE, "="), plain(note));
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(text, "{}: {}", colour.paint(BOLD, "help"), plain(help));
    }
    text
}

fn excerpt(text: &mut String, place: &Place, label: &str, style: &str, margin: usize, colour: Colour) {
    let bar = colour.paint(BLUE, "│");
    let Place { file, line, column, end_column, .. } = place;
    let _ = writeln!(text, "{:margin$} {} {}:{line}:{column}", "", colour.paint(BLUE, "┌─"), plain(file));
    let _ = writeln!(text, "{} {bar} {}", colour.paint(BLUE, &line.to_string()), plain(&place.excerpt));
    let mark = "^".repeat(end_column.saturating_sub(*column).max(1));
    let marked = format!("{mark} {}", plain(label));
    let _ = writeln!(
        text,
        "{:margin$} {bar} {:indent$}{}",
        "",
        "",
        colour.paint(style, marked.trim_end()),
        indent = column - 1
    );
}

/// The text with one space or dot for each control character.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '·'
            } else {
                c
            }
        })
        .collect()
}

/// One finding as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    code: &'static str,
    severity: &'static str,
    message: &'a str,
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    label: &'a str,
    help: Option<&'a str>,
    related: &'a [String],
}

/// Findings for programs: a list of objects. Lines and columns count from 1, an end column is exclusive.
#[must_use]
pub fn json(found: &Diagnostics) -> serde_json::Value {
    let record = |diagnostic: &Diagnostic| {
        let place = diagnostic.place.as_ref();
        serde_json::to_value(Record {
            code: diagnostic.code.as_str(),
            severity: diagnostic.severity().as_str(),
            message: &diagnostic.message,
            file: place.map(|place| place.file.as_str()),
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            end_line: place.map(|place| place.line),
            end_column: place.map(|place| place.end_column),
            label: &diagnostic.label,
            help: diagnostic.help.as_deref(),
            related: &diagnostic.notes,
        })
        // A record of texts and numbers has nothing that JSON lacks.
        .unwrap_or_default()
    };
    found.0.iter().map(record).collect()
}
