//! What does one line of an audit log say about one request?
//!
//! kube-apiserver's `audit.k8s.io/v1` events, one JSON object a line, whatever its level: what a policy looks at is in
//! the metadata. A line is read without copying what needs no unescaping.

use std::borrow::Cow;

use serde::Deserialize;

/// One request, as logged.
#[derive(Debug)]
pub struct Logged<'a> {
    /// When it arrived, in microseconds since 1970.
    pub received: u64,
    /// How long it ran until this event, in microseconds.
    pub took: u64,
    /// Whether it is over; false for a stream that has begun.
    pub ended: bool,
    /// HTTP method, as far as the verb tells.
    pub method: &'static str,
    /// Path, still escaped.
    pub path: Cow<'a, str>,
    /// Everything after the `?`.
    pub query: Option<String>,
    /// Who asked.
    pub user: User<'a>,
    /// Whether it acted as somebody else.
    pub impersonates: bool,
    /// What it said it was.
    pub user_agent: Option<Cow<'a, str>>,
    /// HTTP status; 0 when none was logged.
    pub status: u16,
}

/// A caller, as kube-apiserver authenticated it.
#[derive(Debug, Default, Deserialize)]
pub struct User<'a> {
    /// User name.
    #[serde(borrow, default)]
    pub username: Cow<'a, str>,
    /// Groups.
    #[serde(borrow, default)]
    pub groups: Vec<Cow<'a, str>>,
    /// Extras; of them only the node of a bound token matters.
    #[serde(borrow, default)]
    extra: Extra<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Extra<'a> {
    #[serde(borrow, default, rename = "authentication.kubernetes.io/node-name")]
    node: Vec<Cow<'a, str>>,
}

impl User<'_> {
    /// The node that a bound token names.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.extra.node.first().map(AsRef::as_ref)
    }
}

/// Why a line tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, or not an event.
    #[error("not an audit event: {0}")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another kind.
    #[error("expected kind Event of audit.k8s.io, not {0:?}")]
    Kind(String),
    /// Times are missing or not RFC 3339.
    #[error("{field} is {text:?}, expected a time such as 2026-11-25T14:00:00.000000Z")]
    Time {
        /// Which one.
        field: &'static str,
        /// What stands there.
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    stage: Cow<'a, str>,
    #[serde(borrow, default, rename = "requestURI")]
    request_uri: Cow<'a, str>,
    #[serde(borrow, default)]
    verb: Cow<'a, str>,
    #[serde(borrow, default)]
    user: User<'a>,
    #[serde(default)]
    impersonated_user: Option<serde::de::IgnoredAny>,
    #[serde(borrow, default)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(default)]
    response_status: Status,
    #[serde(borrow, default)]
    request_received_timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    stage_timestamp: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads a line; `None` for a stage that says nothing new (`RequestReceived`).
///
/// # Errors
/// The line is not an audit event, or its times cannot be read.
pub fn read(line: &[u8]) -> Result<Option<Logged<'_>>, Unreadable> {
    let event: Event<'_> = serde_json::from_slice(line)?;
    if event.kind != "Event" {
        return Err(Unreadable::Kind(event.kind.chars().take(40).collect()));
    }
    if event.stage == "RequestReceived" {
        return Ok(None);
    }
    let received = time("requestReceivedTimestamp", &event.request_received_timestamp)?;
    let reached = time("stageTimestamp", &event.stage_timestamp)?;
    let (path, query) = split(event.request_uri);
    Ok(Some(Logged {
        received,
        took: reached.saturating_sub(received),
        ended: event.stage != "ResponseStarted",
        method: method(&event.verb),
        path,
        query,
        user: event.user,
        impersonates: event.impersonated_user.is_some(),
        user_agent: event.user_agent,
        status: event.response_status.code,
    }))
}

fn split(uri: Cow<'_, str>) -> (Cow<'_, str>, Option<String>) {
    match uri.find('?') {
        None => (uri, None),
        Some(at) => {
            let query = uri[at + 1..].to_owned();
            let path = match uri {
                Cow::Borrowed(uri) => Cow::Borrowed(&uri[..at]),
                Cow::Owned(uri) => Cow::Owned(uri[..at].to_owned()),
            };
            (path, Some(query))
        }
    }
}

/// The method that kube-apiserver must have seen. The log has the verb only.
fn method(verb: &str) -> &'static str {
    match verb {
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "GET",
    }
}

/// Microseconds since 1970 of `2026-11-25T14:00:00.123456Z`: the one form that Kubernetes writes, read by hand because
/// it is a quarter of the work of reading a line otherwise.
fn time(field: &'static str, text: &str) -> Result<u64, Unreadable> {
    let wrong = || Unreadable::Time { field, text: text.chars().take(40).collect() };
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes.last() != Some(&b'Z') {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, expected)| bytes[at] != expected) {
        return Err(wrong());
    }
    let parts = [(0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)].map(|(from, to)| number(from, to));
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)] = parts else {
        return Err(wrong());
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(wrong());
    }
    let fraction = &bytes[19..bytes.len() - 1];
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let shown = digits.iter().take(6).fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            shown * 10_u64.pow(6_u32.saturating_sub(u32::try_from(digits.len().min(6)).unwrap_or(6)))
        }
        _ => return Err(wrong()),
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(seconds * 1_000_000 + micros)
}

/// Days from 1970-01-01, after the usual trick: the year begins in March, so that leap days come last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_years = 365 * year + year / 4 - year / 100 + year / 400;
    // Days from 0000-03-01 to 1970-01-01.
    of_years + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_the_calendar_says() {
        let micros = |text| time("t", text).unwrap();
        assert_eq!(micros("1970-01-01T00:00:00Z"), 0);
        assert_eq!(micros("2000-02-29T12:00:00.5Z"), 951_825_600_500_000);
        assert_eq!(micros("2026-11-25T14:00:00.123456Z"), 1_795_615_200_123_456);
        assert_eq!(micros("2026-11-25T14:00:00.123456789Z"), 1_795_615_200_123_456);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-25 14:00:00Z",
            "2026-13-25T14:00:00Z",
            "2026-11-25T14:00:00.Z",
            "2026-11-25T14:00:00+01:00",
            "0000-11-25T14:00:00Z",
        ] {
            assert!(time("t", text).is_err(), "{text}");
        }
    }
}
