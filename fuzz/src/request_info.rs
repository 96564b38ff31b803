//! A request line, `METHOD TARGET`: what is read must stand in it, whatever way it is spelt.

use spillway::flow::{Encoding, Key};
use spillway::request::{DecodedPath, RequestInfo, Scope, Selector, Verb};

use super::{escaped, unescaped};

pub fn run(input: &[u8]) {
    let Some(space) = input.iter().position(|byte| *byte == b' ') else { return };
    let Ok(method) = http::Method::from_bytes(&input[..space]) else { return };
    // As hyper reads it.
    let Ok(uri) = http::Uri::try_from(&input[space + 1..]) else { return };
    let (method, query) = (method.as_str(), uri.query());
    let decoded = unescaped(uri.path().as_bytes(), b'+');
    let path = DecodedPath::new(uri.path());
    assert_eq!(path.is_ok(), decoded.is_some(), "a path is refused for bad escapes and nothing else");
    let (Ok(path), Some(decoded)) = (path, decoded) else { return };
    assert_eq!(path.as_str(), String::from_utf8_lossy(&decoded));
    let info = RequestInfo::new(method, &path, query);

    // Another spelling of the same path is the same path.
    let spelt = escaped(path.as_str().as_bytes());
    let other = DecodedPath::new(&spelt).expect("every byte is escaped");
    assert_eq!(RequestInfo::new(method, &other, query), info);
    // A parameter that nobody knows changes nothing.
    let more = query.map_or_else(|| "zzz=1".to_owned(), |query| format!("{query}&zzz=1"));
    if query.is_none_or(|query| query.len() < 9_000) {
        let with_more = RequestInfo::new(method, &path, Some(&more)).map(|info| format!("{info:?}"));
        assert_eq!(with_more, info.as_ref().map(|info| format!("{info:?}")).map_err(|error| *error));
    }

    let Ok(info) = info else { return };
    check(&info, method);
    for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Table, Encoding::Metadata] {
        assert_eq!(Key::of(&info, encoding), Key::of(&info.clone(), encoding));
    }
}

fn check(info: &RequestInfo<'_>, method: &str) {
    let segments: Vec<_> = info.path.trim_matches('/').split('/').collect();
    let of_path = [info.api_group, info.api_version, info.namespace, info.resource, info.subresource];
    for name in of_path {
        assert!(segments.contains(&name) || name.is_empty(), "{name} of {}", info.path);
    }
    let by_selector = info.query.selector == Selector::Name;
    assert!(segments.contains(&&*info.name) || info.name.is_empty() || by_selector, "{}", info.path);
    assert!(!info.name.contains('/'));
    assert_eq!(info.scope() == Scope::NonResource, !info.is_resource);
    if info.is_resource {
        assert!(matches!(segments[0], "api" | "apis"), "{}", info.path);
        let by_path = segments.iter().any(|segment| matches!(*segment, "watch" | "proxy"));
        let expected: &[Verb] = match method {
            _ if by_path && matches!(info.verb, Verb::Watch | Verb::Proxy) => &[Verb::Watch, Verb::Proxy],
            "GET" | "HEAD" => &[Verb::Get, Verb::List, Verb::Watch],
            "POST" => &[Verb::Create],
            "PUT" => &[Verb::Update],
            "PATCH" => &[Verb::Patch],
            "DELETE" => &[Verb::Delete, Verb::DeleteCollection],
            _ => &[Verb::None],
        };
        assert!(expected.contains(&info.verb), "{method} {} is {}", info.path, info.verb);
    } else {
        assert_eq!(of_path, [""; 5]);
        assert!(info.verb == Verb::Other || info.verb.as_str() == method.to_ascii_lowercase());
    }
    let streams = ["exec", "attach", "portforward", "log", "proxy"].contains(&info.subresource);
    assert_eq!(
        info.is_long_running(),
        matches!(info.verb, Verb::Watch | Verb::Proxy)
            || streams
            || !info.is_resource && info.path.starts_with("/debug/pprof/")
    );
    assert!(!info.is_health_probe() || !info.is_resource && !info.odd && info.verb == Verb::Get);
    let dots = segments.iter().take(3).any(|segment| matches!(*segment, "." | ".."));
    assert!(!dots || info.odd, "{}", info.path);
}
