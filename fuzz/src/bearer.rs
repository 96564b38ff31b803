//! Header lines of a request: the token must be the one that kube-apiserver would take.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use spillway::authn::bearer;

use super::header_lines;

const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

pub fn run(input: &[u8]) {
    let headers = header_lines(input);
    let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
    let found = bearer::token(&headers);
    if values.len() > 1 {
        assert!(found.is_err(), "of two Authorization headers others may take the other one");
        return;
    }
    let found = found.expect("nothing else is refused").map(std::borrow::Cow::into_owned);
    let value = values.first().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match value.as_deref().and_then(go) {
        Some(token) => assert_eq!(found.as_deref(), Some(token)),
        None => assert!(found.is_none() || offers_protocol(&headers)),
    }
    if let Ok(text) = std::str::from_utf8(input) {
        assert_eq!(bearer::from_value(text), go(text));
    }
}

/// As Go has it: trim, split at each blank, the scheme in any case, the second field not empty.
fn go(value: &str) -> Option<&str> {
    let parts: Vec<&str> = value.trim().split(' ').collect();
    let is_token = parts.len() > 1 && parts[0].eq_ignore_ascii_case("bearer") && !parts[1].is_empty();
    is_token.then(|| parts[1])
}

fn offers_protocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    headers.contains_key("upgrade")
        && headers.contains_key("connection")
        && offers.flat_map(|value| value.split(',')).any(|offer| offer.trim().starts_with(PROTOCOL))
}
