//! How are times, sizes and bands written in a scenario?
//!
//! `250ms`, `10s`, `5m`, `24h`; `39MB`, `4GiB`; `>= 0.99`, `<= 260`, `== 0`, `0.9..1.1`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Size(pub f64);

/// What a metric must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// The least that is good.
    pub min: f64,
    /// The most that is good.
    pub max: f64,
}

impl Band {
    /// Whether a value is in the band.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        self.min <= value && value <= self.max
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min.is_finite(), self.max.is_finite()) {
            (true, true) if self.min == self.max => write!(f, "{}", self.min),
            (true, true) => write!(f, "{} to {}", self.min, self.max),
            (true, false) => write!(f, "at least {}", self.min),
            (false, true) => write!(f, "at most {}", self.max),
            (false, false) => write!(f, "anything"),
        }
    }
}

/// The longest span: beyond a month no run ends.
const SPAN_MAX: f64 = 31.0 * 86_400.0;
const SPAN_UNITS: &[(&str, f64)] = &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
const SIZE_UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];

fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let (_, factor) = units.iter().find(|(unit, _)| *unit == text[digits..].trim())?;
    Some(number * factor)
}

fn span(text: &str) -> Option<Span> {
    let seconds = quantity(text, SPAN_UNITS).filter(|seconds| *seconds <= SPAN_MAX)?;
    Some(Span(Duration::from_secs_f64(seconds)))
}

fn band(text: &str) -> Option<Band> {
    let text = text.trim();
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    if let Some(rest) = text.strip_prefix(">=") {
        return Some(Band { min: number(rest)?, max: f64::INFINITY });
    }
    if let Some(rest) = text.strip_prefix("<=") {
        return Some(Band { min: f64::NEG_INFINITY, max: number(rest)? });
    }
    if let Some(rest) = text.strip_prefix("==") {
        return number(rest).map(|exact| Band { min: exact, max: exact });
    }
    let (min, max) = text.split_once("..")?;
    Some(Band { min: number(min)?, max: number(max)? })
}

/// Reads a text with `read`, or says what was expected.
struct Text<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time with its unit, such as 250ms, 10s, 5m or 24h";
        deserializer.deserialize_str(Text { expected, read: span })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| quantity(text, SIZE_UNITS).map(Size);
        deserializer.deserialize_str(Text { expected: "a size with its unit, such as 39MB or 4GiB", read })
    }
}

impl<'de> Deserialize<'de> for Band {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a band such as \">= 0.99\", \"<= 260\", \"== 0\" or \"0.9..1.1\"";
        deserializer.deserialize_str(Text { expected, read: band })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_their_absence_is_refused() {
        assert_eq!(span("250ms"), Some(Span(Duration::from_millis(250))));
        assert_eq!(span("1.5h"), Some(Span(Duration::from_secs(5400))));
        assert_eq!(quantity("39MB", SIZE_UNITS), Some(39e6));
        for wrong in ["10", "s", "-1s", "10 parsecs", "9999h", ""] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bands_have_ends() {
        assert!(band(">= 0.99").unwrap().holds(1.0));
        assert!(!band("<= 260").unwrap().holds(261.0));
        assert!(band("== 0").unwrap().holds(0.0));
        assert!(band("0.9..1.1").unwrap().holds(1.0) && !band("0.9..1.1").unwrap().holds(1.2));
        assert_eq!(band("> 3"), None);
        assert_eq!(band("<= 3").unwrap().to_string(), "at most 3");
    }
}
