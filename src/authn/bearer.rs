//! Which bearer token does a request carry, by kube-apiserver's own rules?
//!
//! The rules are odd (two blanks after the scheme mean no token at all), and a proxy that reads a header
//! otherwise than the server behind it can be talked into a rank that the server does not see. So they are
//! copied to the letter from `authentication/request/bearertoken` and `websocket` of kubernetes/apiserver.
//! One departure: two `Authorization` headers are refused; the server takes the first, others on the way may
//! take the last.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

use super::Refused;

/// The WebSocket sub-protocol that smuggles a token past browsers, which cannot set headers.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Go's decoder does not mind bits that are left over in the last character.
const BASE64URL_AS_GO: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

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

/// The token offered as a WebSocket sub-protocol, beside which another must be offered: the server takes the token
/// out and has to answer with one that is left. Malformed offers yield a token that nobody can verify rather than
/// none: the server refuses them, and must be the one who does.
fn from_protocol(headers: &HeaderMap) -> Option<String> {
    if !is_websocket(headers) {
        return None;
    }
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let (mut tokens, mut others) = (Vec::new(), false);
    for offer in offers {
        match offer.trim().strip_prefix(PROTOCOL_PREFIX) {
            Some(encoded) => tokens.push(encoded),
            None => others = true,
        }
    }
    let nobodys = Some(String::new());
    match tokens.as_slice() {
        [] => None,
        [encoded] => match BASE64URL_AS_GO.decode(encoded).map(String::from_utf8) {
            Ok(Ok(token)) if token.is_empty() => None,
            Ok(Ok(token)) if others => Some(token),
            _ => nobodys,
        },
        _ => nobodys,
    }
}

/// The server looks at the first `Upgrade` header only, and `Connection` was reduced to `Upgrade` before it gets there.
fn is_websocket(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    let named =
        |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().windows(7).any(|w| w == b"upgrade");
    headers.get(UPGRADE).is_some_and(is) && headers.get_all(CONNECTION).iter().any(named)
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

    #[test]
    fn b5_a_websocket_token_counts_exactly_where_the_apiserver_counts_it() {
        const ENCODED: &str = "base64url.bearer.authorization.k8s.io.dG9r";
        let read = |protocols: &str| token(&websocket(protocols)).unwrap().map(Cow::into_owned);
        let nobodys = Some(String::new());
        assert_eq!(read(ENCODED), nobodys, "no other protocol is left to answer with");
        assert_eq!(read(&format!("{ENCODED}, ")), Some("tok".to_owned()), "an empty offer counts there, too");
        assert_eq!(read("v4.channel.k8s.io, base64url.bearer.authorization.k8s.io."), None, "an empty token");
        assert_eq!(read("v4, base64url.bearer.authorization.k8s.io.%%%"), nobodys);
        assert_eq!(read("v4, base64url.bearer.authorization.k8s.io._w"), nobodys, "not UTF-8");
        assert_eq!(
            read("v4, base64url.bearer.authorization.k8s.io.dG9rZR"),
            Some("toke".to_owned()),
            "as Go"
        );
        assert_eq!(read(&format!("v4, {}", ENCODED.to_uppercase())), None, "the prefix has one spelling");

        let both = |authorization: &str| {
            let mut map = websocket(&format!("v4, {ENCODED}"));
            map.insert(AUTHORIZATION, authorization.parse().unwrap());
            token(&map).unwrap().map(Cow::into_owned)
        };
        assert_eq!(both("Bearer first"), Some("first".to_owned()), "the header comes first");
        assert_eq!(both("Basic abc"), Some("tok".to_owned()), "what is no bearer token is nothing");

        for upgrade in ["websocket, h2c", "spdy/3.1", "websockets"] {
            let mut map = websocket(&format!("v4, {ENCODED}"));
            map.insert("upgrade", upgrade.parse().unwrap());
            assert_eq!(token(&map).unwrap(), None, "{upgrade}");
        }
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
