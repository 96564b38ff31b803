//! Which bearer token does a request carry, by kube-apiserver's own rules?
//!
//! The rules are odd (two blanks after the scheme mean no token at all), and a proxy that reads a header
//! otherwise than the server behind it can be talked into a rank that the server does not see. So they are
//! copied to the letter from `authentication/request/bearertoken` and `websocket` of kubernetes/apiserver.
//! One departure: two `Authorization` headers are refused; the server takes the first, others on the way may
//! take the last.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

use super::Refused;

/// The WebSocket sub-protocol that smuggles a token past browsers, which cannot set headers.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token, if there is one.
///
/// # Errors
/// There is more than one `Authorization` header.
pub fn token(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = values.next() else { return Ok(from_protocol(headers).map(Cow::Owned)) };
    let more = values.count();
    if more > 0 {
        return Err(Refused::SeveralAuthorizations(more + 1));
    }
    let found = match String::from_utf8_lossy(first.as_bytes()) {
        Cow::Borrowed(value) => from_value(value).map(Cow::Borrowed),
        Cow::Owned(value) => from_value(&value).map(|token| Cow::Owned(token.to_owned())),
    };
    Ok(found.or_else(|| from_protocol(headers).map(Cow::Owned)))
}

/// The token in the value of an `Authorization` header.
///
/// ```
/// use spillway::authn::bearer::from_value;
///
/// assert_eq!(from_value("bEaReR abc"), Some("abc"));
/// assert_eq!(from_value("Bearer abc ignored"), Some("abc"));
/// assert_eq!(from_value("Bearer  abc"), None, "two blanks: the second field is empty");
/// assert_eq!(from_value("Basic abc"), None);
/// ```
#[must_use]
pub fn from_value(value: &str) -> Option<&str> {
    let mut fields = value.trim().split(' ');
    let scheme = fields.next()?;
    let token = fields.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token offered as a WebSocket sub-protocol. Malformed offers yield a token that nobody can verify
/// rather than none: the server refuses them, and must be the one who does.
fn from_protocol(headers: &HeaderMap) -> Option<String> {
    if !is_websocket(headers) {
        return None;
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut offered = protocols
        .flat_map(|value| value.split(','))
        .filter_map(|protocol| protocol.trim().strip_prefix(PROTOCOL_PREFIX));
    let encoded = offered.next()?;
    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match (decoded, offered.next()) {
        (Some(token), None) => Some(token),
        _ => Some(String::new()),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let names = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    names(CONNECTION, "upgrade") && names(UPGRADE, "websocket")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn websocket(protocols: &str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn the_authorization_header_is_read_as_the_apiserver_reads_it() {
        let table = [
            ("Bearer t", Some("t")),
            ("  Bearer t  ", Some("t")),
            ("bearer t", Some("t")),
            ("BEARER t u", Some("t")),
            ("Bearer  t", None),
            ("Bearer\tt", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic dXNlcjpwdw==", None),
            ("t", None),
        ];
        for (value, expected) in table {
            let headers = headers(&[("authorization", value)]);
            assert_eq!(token(&headers).unwrap().as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn two_authorization_headers_are_refused() {
        let two = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]);
        assert_eq!(token(&two), Err(Refused::SeveralAuthorizations(2)));
    }

    #[test]
    fn a_websocket_protocol_carries_a_token() {
        let good = websocket("base64url.bearer.authorization.k8s.io.dG9r, v4.channel.k8s.io");
        assert_eq!(token(&good).unwrap().as_deref(), Some("tok"));
        let mut plain = good;
        plain.remove("upgrade");
        assert_eq!(token(&plain).unwrap(), None, "not an upgrade");
        let twice = websocket(
            "base64url.bearer.authorization.k8s.io.dG9r,base64url.bearer.authorization.k8s.io.dG9r",
        );
        assert_eq!(token(&twice).unwrap().as_deref(), Some(""), "for the server to refuse");
    }

    proptest! {
        #[test]
        fn any_header_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                map.insert(AUTHORIZATION, value);
                let _ = token(&map);
            }
        }
    }
}
