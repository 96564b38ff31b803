//! How is a text shown that a client chose?
//!
//! Escaped and cut. A line feed forges a line, `ESC [` and its one-character form U+009B move the cursor of whoever reads
//! the log in a terminal, and marks of writing direction turn a path around before the reader's eyes (RUSTSEC-2025-0055,
//! CVE-2021-42574). What is left is at most [`SHOWN_BYTES_MAX`] bytes of what the client sent.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest piece of client-chosen text that is shown, in bytes; its escapes may make it longer, six times at most.
pub(super) const SHOWN_BYTES_MAX: usize = 256;

/// The text as it may be shown.
///
/// Bytes that are not UTF-8 are replaced before: see [`String::from_utf8_lossy`].
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether it does something other than being seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn b10_what_moves_a_cursor_or_forges_a_line_is_escaped() {
        assert_eq!(shown("kubelet/v1.36.0 (linux/amd64)"), "kubelet/v1.36.0 (linux/amd64)");
        assert_eq!(shown("a\r\nlevel=error"), r"a\u{d}\u{a}level=error");
        assert_eq!(shown("\u{1b}[2J\u{9b}2J\u{7f}"), r"\u{1b}[2J\u{9b}2J\u{7f}");
        assert_eq!(shown("/api/\u{202e}sdop"), r"/api/\u{202e}sdop");
        assert_eq!(shown(&String::from_utf8_lossy(b"\xff\xfeok")), "\u{fffd}\u{fffd}ok");
        assert_eq!(shown(&"ü".repeat(1 << 19)).len(), SHOWN_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn b10_nothing_hidden_and_nothing_long_is_left(text in "(?s).{0,600}") {
            let shown = shown(&text);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert!(shown.len() <= SHOWN_BYTES_MAX * 6);
        }
    }
}
