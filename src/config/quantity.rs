//! How long is `1m30s`, and how much is `64KiB`?
//!
//! Times are written as in Kubernetes (Go's durations, `ms` to `h`), sizes as whole bytes or with a binary unit. A
//! number without a unit is no time: nobody could say whether 30 means seconds or milliseconds.

use std::time::Duration;

/// Time units, and their milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Size units, and their bytes.
const SIZE_UNITS: [(&str, u64); 2] = [("KiB", 1 << 10), ("MiB", 1 << 20)];

/// Reads `250ms`, `5s`, `1m30s`, `1h`; a bare `0` needs no unit.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut millis = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (amount, behind) = leading_number(rest)?;
        let length = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(length);
        let (_, factor) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(amount.checked_mul(factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Writes a time as [`duration`] reads it, in the largest unit that needs no fraction.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, factor) = TIME_UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| millis != 0 && millis.is_multiple_of(u128::from(*factor)))
        .unwrap_or(("s", 1_000));
    format!("{}{unit}", millis / u128::from(factor))
}

/// Reads `65536`, `64KiB` or `1MiB`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (amount, unit) = leading_number(text)?;
    let (_, factor) = SIZE_UNITS.into_iter().chain([("", 1)]).find(|(name, _)| *name == unit)?;
    amount.checked_mul(factor)
}

/// Writes a size as [`size`] reads it.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(("", 1));
    format!("{}{unit}", bytes / factor)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_need_units() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("5d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary() {
        for (text, bytes) in [
            ("65536", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1 << 20)),
            ("64KB", None),
            ("", None),
            ("KiB", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
        assert_eq!(show_size(64 << 10), "64KiB");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..10_000_000_u64, bytes in 0..10_000_000_u64) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(time)), Some(time));
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,16}") {
            let _ = (duration(&text), size(&text));
        }
    }
}
