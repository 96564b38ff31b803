//! What does a person see while the demo plays?
//!
//! On a terminal one line that moves, otherwise a plain line every few seconds, so that CI logs stay readable. Both
//! go to stderr: stdout belongs to the report.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::clock;
use crate::units::Instant;

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Where progress goes.
pub(crate) enum Progress {
    /// A line that moves.
    Bar(ProgressBar),
    /// Plain lines, and when the last one was written.
    Plain(Mutex<Option<Instant>>),
}

impl Progress {
    /// Progress for a demo of about `expected` length.
    pub(crate) fn new(expected: Duration) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain(Mutex::new(None));
        }
        let bar = ProgressBar::new(expected.as_secs());
        // The template is a constant: should it be wrong, the default style shows the same numbers.
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:20} {prefix:.bold} {wide_msg}") {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// A new part of the play begins.
    pub(crate) fn scene(&self, name: &str) {
        match self {
            Self::Bar(bar) => bar.set_prefix(name.to_owned()),
            Self::Plain(last) => {
                *last.lock() = Some(clock::now());
                plain(&format!("demo: {name}"));
            }
        }
    }

    /// How it goes, `elapsed` after the start.
    pub(crate) fn show(&self, elapsed: Duration, text: &str) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(elapsed.as_secs().min(bar.length().unwrap_or(0)));
                bar.set_message(text.to_owned());
            }
            Self::Plain(last) => {
                let now = clock::now();
                let mut last = last.lock();
                if last.is_none_or(|last| now.since(last) >= PLAIN_EVERY) {
                    *last = Some(now);
                    plain(&format!("demo:   {text}"));
                }
            }
        }
    }

    /// Clears the line: the report follows.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn plain(line: &str) {
    // A closed stderr is no reason to stop measuring.
    let _ = writeln!(std::io::stderr(), "{line}");
}
