//! How does a person write how long something shall last?

use std::time::Duration;

/// `90m`, `24h`, `7d`, `1d12h`: whole numbers, each with a unit, added up. Never zero.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0_u64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    // A century is more than any clock here can add to now.
    (1..=100 * 366 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_units_and_are_never_nothing() {
        for (text, seconds) in [
            ("90m", Some(5_400)),
            ("24h", Some(86_400)),
            ("1d12h", Some(129_600)),
            ("30s", Some(30)),
            ("", None),
            ("24", None),
            ("0h", None),
            ("1w", None),
            ("-1h", None),
            ("1é", None),
            ("99999999999999999999d", None),
            ("18446744073709551615s", None),
        ] {
            assert_eq!(parse(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
