//! How does text become HTML that nobody can break out of?
//!
//! Names come from certificates and tokens. Everything that is shown goes through [`e`], which leaves neither markup nor
//! characters that would reorder or hide what stands beside them.

use std::fmt::{self, Display, Write as _};

use time::OffsetDateTime;

/// Characters of a text that are shown; the rest is an ellipsis.
const SHOWN_MAX: usize = 400;

/// A text as HTML shows it, in an element or in a quoted attribute.
pub(super) fn e(text: impl Display) -> Escaped {
    let text = text.to_string();
    let mut safe = String::with_capacity(text.len() + 8);
    for (at, c) in text.chars().enumerate() {
        if at >= SHOWN_MAX {
            safe.push('…');
            break;
        }
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() || is_invisible(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    Escaped(safe)
}

/// Characters that change the direction of text, or that nobody sees.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
}

/// A text that [`e`] made safe.
pub(super) struct Escaped(String);

impl Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value in the query of an address.
pub(super) fn query(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A rate as one reads it at a glance.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => thousands(rate.round() as u64),
    }
}

/// `12,345`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as people say them: `35 ms`, `4.8 s`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1_000.0) } else { format!("{seconds:.1} s") }
}

/// `1h30m`, `29m58s`, `12s`.
pub(super) fn span(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    }
}

/// `14:05:07` of a time in seconds since 1970, UTC.
pub(super) fn clock(at: u64) -> String {
    let of_day = at % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// `2026-11-26` of a time in seconds since 1970, UTC.
pub(super) fn day(at: u64) -> String {
    let moment = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    moment.map_or_else(|| format!("{at} s"), |moment| moment.date().to_string())
}

/// A table with a caption, whose cells say what they are also where they stand below one another.
pub(super) struct Table {
    html: String,
    heads: &'static [(&'static str, &'static str)],
}

impl Table {
    /// `heads`: title and class of each column.
    pub(super) fn new(caption: &str, heads: &'static [(&'static str, &'static str)]) -> Self {
        let mut html = format!(
            "<table role=\"table\"><caption>{}</caption><thead role=\"rowgroup\"><tr role=\"row\">",
            e(caption)
        );
        for (title, class) in heads {
            let _ = write!(html, "<th role=\"columnheader\" scope=\"col\" class=\"{class}\">{title}</th>");
        }
        html.push_str("</tr></thead><tbody role=\"rowgroup\">");
        Self { html, heads }
    }

    /// A row; its first cell names it. `cells` are HTML.
    pub(super) fn row(&mut self, id: &str, class: &str, cells: &[String]) {
        let _ = write!(self.html, "<tr role=\"row\" id=\"{}\" class=\"{class}\">", e(id));
        for (at, (cell, (title, class))) in cells.iter().zip(self.heads).enumerate() {
            if at == 0 {
                let _ =
                    write!(self.html, "<th role=\"rowheader\" scope=\"row\" class=\"{class}\">{cell}</th>");
            } else {
                let _ = write!(
                    self.html,
                    "<td role=\"cell\" class=\"{class}\" data-label=\"{title}\">{cell}</td>"
                );
            }
        }
        self.html.push_str("</tr>");
    }

    pub(super) fn end(self) -> String {
        self.html + "</tbody></table>"
    }
}

/// Kind and name by which a lever names a user.
pub(super) fn target_of(user: &str) -> (&'static str, String) {
    match user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) {
        Some((namespace, name)) => ("serviceaccount", format!("{namespace}/{name}")),
        None => ("user", user.to_owned()),
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_out_or_hides_anything() {
        let name = "<img src=x onerror=\"a('&')\">\u{202e}gpj\u{0}";
        let safe = e(name).to_string();
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{202e}', '\u{0}']), "{safe}");
        assert_eq!(e("&lt;").to_string(), "&amp;lt;");
        assert_eq!(e("x".repeat(5_000)).to_string().chars().count(), SHOWN_MAX + 1);
    }

    #[test]
    fn numbers_read_at_a_glance() {
        assert_eq!([0.0, 3.25, 1_790.4].map(rate), ["0", "3.2", "1,790"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.035, 4.81].map(seconds), ["35 ms", "4.8 s"]);
        assert_eq!([5, 60, 5_400].map(span), ["5s", "1m00s", "1h30m"]);
        assert_eq!(clock(1_733_954_707), "22:05:07");
        assert_eq!([day(1_733_954_707), day(u64::MAX)], ["2024-12-11", "18446744073709551615 s"]);
        assert_eq!(target_of("system:serviceaccount:obs:agent"), ("serviceaccount", "obs/agent".to_owned()));
        assert_eq!(quoted("it's me"), "'it'\\''s me'");
    }
}
