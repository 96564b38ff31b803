//! What does an answer of the apiserver say about the apiserver?
//!
//! Its 429 alone has six meanings, of which two are congestion; a 503 may be its own, an aggregated server's or its
//! farewell; a 504 may be a cache that lags. Plain text is told apart by its head; a JSON `Status` needs a look at its
//! words, which are kube-apiserver's own and stable over the releases (read in the sources of 1.34, proven against the
//! real one). What is not recognised counts as what it looks like at worst for one request, never for the whole.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::response::Parts;

use crate::flow::{End, Level};

/// Which of the apiserver's priority levels served or refused the request. On every answer that APF classified.
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// What the apiserver says while it shuts down: 429 before its handlers, 503 from its wait group.
const CLOSING: &str = "shutting down";
/// The watch cache of a resource is being filled.
const WARMING: &str = "storage is (re)initializing";
/// A read or watch asks for a resourceVersion that the watch cache has not seen yet.
const LAGGING: &str = "Too large resource version";
/// An aggregated server is away: the apiserver itself is well. The second is said by its reverse proxy.
const AGGREGATED: [&str; 2] = ["service unavailable", "error trying to reach service"];

/// Seconds that the apiserver tells everybody while it shuts down; its other plain refusals say 1.
const CLOSING_RETRY: u32 = 5;
/// What a client waits for a warming cache where the answer does not say.
const WARMING_RETRY: u32 = 1;

/// What is known from an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Enough.
    Is(End),
    /// Its body tells: see [`of_body`].
    InBody,
}

/// The priority level that an answer names.
pub(super) fn level(headers: &HeaderMap) -> Level {
    Level(headers.get(PRIORITY_LEVEL).map_or(0, |uid| fnv(uid.as_bytes()).max(1)))
}

/// What an answer's head says. `level` is what [`level`] found in it.
pub(super) fn of_head(head: &Parts, level: Level) -> Meaning {
    match head.status.as_u16() {
        429 if is_plain_text(&head.headers) => {
            let leaves = level == Level::default()
                && (closes(&head.headers) || retry_after(&head.headers) == Some(CLOSING_RETRY));
            Meaning::Is(if leaves { End::Closing } else { End::Congested })
        }
        429 | 503 | 504 => Meaning::InBody,
        // A 500 is a webhook's or an aggregated server's far more often than its own.
        400..=599 => Meaning::Is(End::Ignored),
        _ => Meaning::Is(End::Success),
    }
}

/// What an answer whose head left it open says with its body, of which `start` is known.
pub(super) fn of_body(head: &Parts, start: &[u8]) -> End {
    let says = |words: &str| start.windows(words.len()).any(|part| part == words.as_bytes());
    if says(WARMING) {
        return End::Warming { retry_after_seconds: retry_after(&head.headers).unwrap_or(WARMING_RETRY) };
    }
    if says(LAGGING) {
        return End::Lagging;
    }
    match head.status.as_u16() {
        503 if says(CLOSING) || closes(&head.headers) => End::Closing,
        503 if is_plain_text(&head.headers) && AGGREGATED.iter().any(|words| says(words)) => End::Ignored,
        503 => End::Dropped,
        // Its own deadline for the request: it did not cope.
        504 => End::TimedOut,
        // An eviction that a disruption budget forbids, or a webhook's 429: business answers.
        _ => End::Ignored,
    }
}

fn is_plain_text(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

/// Over HTTP/2 the header becomes a GOAWAY, and the wait of five seconds is what remains to be seen.
fn closes(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim().parse().ok()
}

/// FNV-1a: the UIDs are the apiserver's own, so nobody aims at collisions.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
    const JSON: (&str, &str) = ("content-type", "application/json");
    const SCHEMA: (&str, &str) = ("x-kubernetes-pf-flowschema-uid", "6f2e2ad4-9f5a-4f2e-9d0a-0d6c6a6a2f11");
    const UID: (&str, &str) = ("x-kubernetes-pf-prioritylevel-uid", "1b5a2f0e-58e3-4a39-8a43-4e0a0d8a9c77");

    fn end_of(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> End {
        let mut answer = http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let (head, ()) = answer.body(()).unwrap().into_parts();
        match of_head(&head, level(&head.headers)) {
            Meaning::Is(end) => end,
            Meaning::InBody => of_body(&head, body.as_bytes()),
        }
    }

    fn status(code: u16, reason: &str, message: &str) -> String {
        format!(
            r#"{{"kind":"Status","status":"Failure","message":"{message}","reason":"{reason}","code":{code}}}"#
        )
    }

    #[test]
    fn the_six_meanings_of_429_are_told_apart() {
        let full = "Too many requests, please try again later.\n";
        let warming = status(429, "TooManyRequests", "storage is (re)initializing");
        let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
        let budget = status(429, "TooManyRequests", budget);
        let leaving = "The apiserver is shutting down, please try again later.\n";
        let lagging = status(429, "TooManyRequests", "Too large resource version: 9, current: 8");
        let table: [(&[_], &str, End); 7] = [
            (&[TEXT, SCHEMA, UID, ("retry-after", "5")], full, End::Congested),
            (&[TEXT, ("retry-after", "1")], full, End::Congested),
            (&[JSON, UID, ("retry-after", "3")], &warming, End::Warming { retry_after_seconds: 3 }),
            (&[TEXT, ("retry-after", "5")], leaving, End::Closing),
            (&[TEXT, ("retry-after", "1"), ("connection", "close")], leaving, End::Closing),
            (&[JSON, UID, ("retry-after", "1")], &lagging, End::Lagging),
            (&[JSON, UID, ("retry-after", "10")], &budget, End::Ignored),
        ];
        for (headers, body, end) in table {
            assert_eq!(end_of(429, headers, body), end, "{body}");
        }
    }

    #[test]
    fn of_503_and_504_only_the_apiservers_own_failure_counts_against_it() {
        let table = [
            (503, JSON, status(503, "ServiceUnavailable", "apiserver is shutting down"), End::Closing),
            (503, TEXT, "service unavailable\n".to_owned(), End::Ignored),
            (503, TEXT, "error trying to reach service: dial tcp: refused\n".to_owned(), End::Ignored),
            (503, JSON, status(503, "ServiceUnavailable", "etcdserver: leader changed"), End::Dropped),
            (504, JSON, status(504, "Timeout", "Too large resource version: 9, current: 8"), End::Lagging),
            (504, JSON, status(504, "Timeout", "request did not complete in time"), End::TimedOut),
            (500, JSON, status(500, "InternalError", "failed calling webhook"), End::Ignored),
            (404, JSON, String::new(), End::Ignored),
            (200, JSON, String::new(), End::Success),
        ];
        for (code, kind, body, end) in table {
            assert_eq!(end_of(code, &[kind], &body), end, "{code} {body}");
        }
    }

    #[test]
    fn a_warming_cache_without_a_time_is_asked_again_after_a_second() {
        let body = status(429, "TooManyRequests", "storage is (re)initializing");
        assert_eq!(end_of(429, &[JSON], &body), End::Warming { retry_after_seconds: 1 });
    }

    #[test]
    fn levels_differ_by_their_uid_and_none_is_zero() {
        let of = |uid: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(PRIORITY_LEVEL, HeaderValue::from_static(uid));
            level(&headers)
        };
        assert_eq!(level(&HeaderMap::new()), Level::default());
        assert_ne!(of(UID.1), Level::default());
        assert_eq!(of(UID.1), of(UID.1));
        assert_ne!(of(UID.1), of(SCHEMA.1));
    }
}
