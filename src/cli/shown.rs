//! How do answers look in a terminal of 80 columns, and in a script?
//!
//! Names come from certificates and tokens, and a terminal obeys control characters: they are shown as what they are.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::config::Colour;

/// Columns that are enough everywhere.
pub(super) const COLUMNS: usize = 80;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Prints an object for programs; false when it is for people.
pub(super) fn for_programs(output: Output, object: &impl Serialize, out: &mut dyn Write) -> io::Result<bool> {
    match output {
        Output::Table => return Ok(false),
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, object)?;
            writeln!(out)?;
        }
        Output::Yaml => {
            let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
            writeln!(out, "{}", text.trim_end())?;
        }
    }
    Ok(true)
}

/// Text of others, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// At most `width` characters; what is left out shows as `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Lines of at most [`COLUMNS`] less an indent of two, broken between words; all but the first begin with `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    wrapped_to(text, indent, COLUMNS - 2).join("\n")
}

/// The same for any width.
pub(super) fn wrapped_to(text: &str, indent: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let text = plain(text);
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > indent.len() && line + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else if let Some(line) = lines.last_mut() {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `1h30m`, `29m58s`, `12s`: what is left.
pub(super) fn span(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, seconds) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// Whole seconds, at least one.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

/// A word in a colour, where colours are shown; the word alone says it too.
pub(super) fn coloured(word: &str, ansi: &str, colour: Colour) -> String {
    match colour {
        Colour::Always => format!("\u{1b}[{ansi}m{word}\u{1b}[0m"),
        Colour::Never => word.to_owned(),
    }
}

/// A name as a shell takes it.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", plain(name).replace('\'', "'\\''"))
}

/// Kind and name that name one user on the command line.
pub(super) fn target_of(user: &str) -> String {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    match account {
        Some((namespace, name)) => format!("serviceaccount {}", quoted(&format!("{namespace}/{name}"))),
        None => format!("user {}", quoted(user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(target_of("system:serviceaccount:obs:agent"), "serviceaccount obs/agent");
        assert_eq!(target_of("Jane Doe"), "user 'Jane Doe'");
    }

    #[test]
    fn lines_break_between_words_and_keep_to_the_columns() {
        let text = wrapped(&"word ".repeat(60), "    ");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS && !line.ends_with(' ')));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")));
        assert_eq!(text.split_whitespace().count(), 60);
    }

    #[test]
    fn what_is_left_reads_at_a_glance() {
        let texts = [5, 60, 90, 1_798, 3_600, 5_400, 86_400].map(span);
        assert_eq!(texts, ["5s", "1m", "1m30s", "29m58s", "1h", "1h30m", "24h"]);
    }
}
