//! The query of a list: what it asks for must be what its first values say, whatever way they are spelt.

use spillway::request::{DecodedPath, Query, RequestInfo, ResourceVersion, Selector, Verb};

use super::{escaped, unescaped};

/// From here on the number of parameters may matter.
const LONG: usize = 9_000;

pub fn run(input: &[u8]) {
    let Ok(uri) = http::Uri::try_from([b"/api/v1/pods?", input].concat()) else { return };
    let Some(query) = uri.query() else { return };
    let found = read("GET", query);
    if query.len() >= LONG {
        return;
    }
    let pairs = pairs(query);
    let spelt: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    let spelt = spelt.join("&");
    if spelt.len() < LONG {
        assert_eq!(read("GET", &spelt), found, "another spelling: {spelt}");
        assert_eq!(read("GET", &format!("{spelt}&{spelt}")), found, "the first value counts: {spelt}");
        assert_eq!(
            read("GET", &format!("watch=1;&{spelt}")),
            found,
            "a pair with a semicolon counts for nothing"
        );
    }
    check(&pairs, &found);
    // A deletion narrows down by the same options, a legacy watch too, and neither takes its name from them.
    assert_eq!(read("DELETE", query).1.limit, found.1.limit);
    assert_eq!(read("DELETE", query).2, "");
}

fn read(method: &str, query: &str) -> (Verb, Query, String) {
    let path = DecodedPath::new("/api/v1/pods").unwrap();
    let info = RequestInfo::new(method, &path, Some(query)).unwrap();
    (info.verb, info.query, info.name.into_owned())
}

/// What counts of a query, decoded.
fn pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.contains(&b';'));
    pairs
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(equals + 1..).unwrap_or_default();
            Some((unescaped(&pair[..equals], b' ')?, unescaped(value, b' ')?))
        })
        .collect()
}

fn check(pairs: &[(Vec<u8>, Vec<u8>)], (verb, query, name): &(Verb, Query, String)) {
    let first = |key: &str| {
        pairs.iter().find(|(found, _)| found == key.as_bytes()).map(|(_, value)| value.as_slice())
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    assert!(matches!(verb, Verb::List | Verb::Watch));
    match first("watch") {
        None => assert_eq!(*verb, Verb::List),
        Some(value) if value == b"0" || value.eq_ignore_ascii_case(b"false") => assert_eq!(*verb, Verb::List),
        Some(value) if value.is_ascii() => assert_eq!(*verb, Verb::Watch),
        Some(_) => {}
    }
    let limit = first("limit").and_then(number).and_then(|limit| u64::try_from(limit).ok());
    assert_eq!(query.limit, limit.filter(|limit| *limit > 0));
    let version = match first("resourceVersion") {
        None | Some(b"") => ResourceVersion::Unset,
        Some(b"0") => ResourceVersion::Any,
        Some(_) => ResourceVersion::Exact,
    };
    assert_eq!(query.resource_version, version);
    assert_eq!(query.continues, first("continue").is_some_and(|value| !value.is_empty()));
    let field = first("fieldSelector").unwrap_or_default();
    let label = first("labelSelector").unwrap_or_default();
    match query.selector {
        Selector::None => assert!(field.is_empty() && label.is_empty()),
        Selector::Label => assert!(field.is_empty() && !label.is_empty()),
        Selector::Field => assert!(!field.is_empty() && name.is_empty()),
        Selector::Name => {
            assert!(!name.is_empty() && !name.contains(['/', '%']) && name != "." && name != "..");
            assert!(field.windows(14).any(|part| part == b"metadata.name="), "{name}");
            for option in ["limit", "timeoutSeconds"] {
                assert!(
                    first(option).is_none_or(|text| number(text).is_some()),
                    "{option} cannot be decoded"
                );
            }
        }
    }
    assert_eq!(name.is_empty(), query.selector != Selector::Name);
}
