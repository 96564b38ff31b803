//! Which headers cross the proxy?
//!
//! Order matters: what a client may not say is refused or removed first, and the identity is asserted last. A proxy
//! that removes whatever `Connection` names *after* it has asserted an identity lets the client run as the proxy
//! (CVE-2021-31999); one that removes `Impersonate-User` because `Connection` names it runs the request as the
//! stronger caller. So such requests are refused, and only headers that are hop-by-hop by nature are ever removed
//! by name. Names compare in lower case: `HeaderName` is always lower case.

use std::fmt::Write as _;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE,
};

use crate::identity::{GROUP_AUTHENTICATED, Identity};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const X_REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const X_REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
/// Joins our log with the apiserver's audit log.
pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Protocols that a client may not switch to: another HTTP inside would pass everything that is done here by.
const NO_TUNNEL: [&str; 4] = ["h2", "h2c", "http", "tls"];

/// Why a request's headers are not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeaders {
    #[error("header Connection names {0}, which is not a hop-by-hop header; remove it from Connection")]
    ConnectionNames(String),
    #[error("header Connection is not a list of header names")]
    ConnectionUnreadable,
    #[error("header Content-Length is not one number")]
    Length,
}

/// What the client asked of this connection, and whether it impersonates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `Connection: Upgrade` with an `Upgrade` header.
    pub(super) upgrade: bool,
    /// Some `Impersonate-*` header is present.
    pub(super) impersonates: bool,
}

/// Removes what a client may not send on, and tells what it wished for. The upgrade headers stay when an upgrade
/// was asked for: they are part of that request.
pub(super) fn clean_request(headers: &mut HeaderMap) -> Result<Wishes, BadHeaders> {
    let mut wishes = Wishes::default();
    let mut names_upgrade = false;
    // h2 takes an empty one for zero, and two equal ones for one; whoever reads on need not.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !digits || lengths.next().is_some() {
            return Err(BadHeaders::Length);
        }
    }
    for value in headers.get_all(CONNECTION) {
        let list = value.to_str().map_err(|_| BadHeaders::ConnectionUnreadable)?;
        for name in
            list.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty())
        {
            names_upgrade |= name == "upgrade";
            if is_end_to_end(&name.replace('_', "-")) {
                return Err(BadHeaders::ConnectionNames(name));
            }
        }
    }
    // What is not granted is ignored, as RFC 9110 wants it: the request goes on without.
    wishes.upgrade = names_upgrade && headers.contains_key(UPGRADE) && is_tunnel(headers);

    // One pass over what is there: looking up every name that might be costs more than a decision.
    let mut removed: Vec<HeaderName> = Vec::new();
    let mut wants_trailers = false;
    for (name, value) in headers.iter() {
        match fate_of(name.as_str()) {
            Fate::Passes => {}
            Fate::Impersonates => wishes.impersonates = true,
            Fate::HopByHop if wishes.upgrade && (*name == UPGRADE || *name == CONNECTION) => {}
            Fate::HopByHop => {
                wants_trailers |= *name == TE && value.as_bytes().eq_ignore_ascii_case(b"trailers");
                removed.push(name.clone());
            }
            Fate::Removed => removed.push(name.clone()),
        }
    }
    for name in removed {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if wishes.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Ok(wishes)
}

/// Whether every protocol that `Upgrade` offers may be switched to.
fn is_tunnel(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().all(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',').all(|protocol| {
                let name = protocol.trim().split('/').next().unwrap_or_default();
                !name.is_empty() && !NO_TUNNEL.iter().any(|no| name.eq_ignore_ascii_case(no))
            })
        })
    })
}

/// What becomes of a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Passes, and lowers the caller's rank.
    Impersonates,
    /// Belongs to one connection, not to the message.
    HopByHop,
    /// Only we may say it, or we answer it ourselves.
    Removed,
}

/// `x-remote-*` is ours alone to say. Names with an underscore that would identify or frame, were it a dash, mean
/// nothing to kube-apiserver, but another layer could map them: they do not pass either. `expect` is answered by us, once the request has been let in.
fn fate_of(name: &str) -> Fate {
    match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authorization"
        | "proxy-authenticate"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings" => Fate::HopByHop,
        "expect" | "forwarded" | "x-real-ip" => Fate::Removed,
        _ if name.starts_with("impersonate-") => Fate::Impersonates,
        _ if name.starts_with("x-remote-") => Fate::Removed,
        _ if name.contains('_') && is_end_to_end(&name.replace('_', "-")) => Fate::Removed,
        _ => Fate::Passes,
    }
}

/// Headers that identify, authenticate or frame: naming one of them in `Connection` is an attack or a defect.
fn is_end_to_end(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "authorization",
        "content-length",
        "transfer-encoding",
        "host",
        "audit-id",
        "cookie",
        "x-real-ip",
        "forwarded",
    ];
    const PREFIXES: [&str; 3] = ["impersonate-", "x-remote-", "x-forwarded-"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes the hop-by-hop headers of an answer; those of a granted upgrade stay.
pub(super) fn clean_response(headers: &mut HeaderMap, upgraded: bool) {
    let passes = |name: &HeaderName| {
        fate_of(name.as_str()) != Fate::HopByHop || (upgraded && (*name == UPGRADE || *name == CONNECTION))
    };
    let removed: Vec<HeaderName> = headers.keys().filter(|name| !passes(name)).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Whether a trailer may say `name`. None of them is read by kube-apiserver; what would identify, frame or steer as a
/// header does not travel as a trailer either (RFC 9110, 6.5.1).
pub(super) fn is_trailer(name: &HeaderName) -> bool {
    fate_of(name.as_str()) == Fate::Passes && !is_end_to_end(name.as_str())
}

/// The headers that tell kube-apiserver who a verified certificate belongs to. Built once per identity.
#[derive(Debug, Default)]
pub(super) struct Assertion(Vec<(HeaderName, HeaderValue)>);

/// A name that cannot stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity's {what} cannot be written in a header")]
pub(super) struct Unassertable {
    what: &'static str,
}

impl Assertion {
    /// The front-proxy headers for `identity`.
    ///
    /// `system:authenticated` is left out: kube-apiserver adds it itself, in the place where it would stand had the
    /// client come directly.
    pub(super) fn of(identity: &Identity) -> Result<Self, Unassertable> {
        let value = |text: &str, what| {
            let clean = !text.bytes().any(|byte| byte.is_ascii_control());
            let value = clean.then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten();
            value.ok_or(Unassertable { what })
        };
        let mut headers = vec![(X_REMOTE_USER, value(&identity.user, "user name")?)];
        for group in identity.groups.iter().filter(|group| *group != GROUP_AUTHENTICATED) {
            headers.push((X_REMOTE_GROUP, value(group, "group")?));
        }
        if let Some(uid) = &identity.uid {
            headers.push((X_REMOTE_UID, value(uid, "UID")?));
        }
        for (key, values) in &identity.extra {
            let name = format!("x-remote-extra-{}", escape_extra_key(key));
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unassertable { what: "extra key" })?;
            for text in values {
                headers.push((name.clone(), value(text, "extra value")?));
            }
        }
        Ok(Self(headers))
    }

    /// Adds the identity, and takes away the token that would be judged beside it: with both a certificate and a
    /// token, kube-apiserver goes by the certificate.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Keys of extras travel in a header name: bytes outside RFC 7230's token set, and `%` itself, are percent-encoded;
/// kube-apiserver lower-cases the name and decodes it.
fn escape_extra_key(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len() + 8);
    for byte in key.bytes() {
        let token = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if token {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}

/// The address that kube-apiserver's audit log shall show. A client's own value is a claim: it is replaced.
pub(super) fn set_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    headers.insert(X_FORWARDED_FOR, peer.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Credential;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn connection_that_names_an_identity_is_refused() {
        for name in
            ["Impersonate-User", "x-remote-user", "Authorization", "content-length", "X-Forwarded-For"]
        {
            let mut map = headers(&[("connection", &format!("close, {name}"))]);
            let refused = clean_request(&mut map);
            assert_eq!(refused, Err(BadHeaders::ConnectionNames(name.to_ascii_lowercase())));
        }
    }

    #[test]
    fn hop_by_hop_headers_do_not_pass() {
        let mut map = headers(&[
            ("connection", "keep-alive, x-private"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("accept", "*/*"),
        ]);
        assert_eq!(clean_request(&mut map), Ok(Wishes::default()));
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te"]);
    }

    #[test]
    fn nobody_switches_to_another_http() {
        for protocol in ["h2c", "H2C", "websocket, h2c", "h2", "HTTP/2.0", "TLS/1.0", "", "websocket,,"] {
            let mut map = headers(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", protocol)]);
            map.insert("http2-settings", HeaderValue::from_static("AAMAAABk"));
            assert_eq!(clean_request(&mut map), Ok(Wishes::default()), "{protocol:?}");
            assert!(map.is_empty(), "{protocol:?}: {map:?}");
        }
        let mut two = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]);
        assert_eq!(clean_request(&mut two), Ok(Wishes::default()));
    }

    #[test]
    fn a_length_is_one_number() {
        assert!(clean_request(&mut headers(&[("content-length", "17")])).is_ok());
        for lengths in [&["", ""][..1], &["+1"], &["1,1"], &["1 "], &["1", "1"], &["1", "2"]] {
            let pairs: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            assert_eq!(clean_request(&mut headers(&pairs)), Err(BadHeaders::Length), "{lengths:?}");
        }
    }

    #[test]
    fn an_underscore_is_no_way_around() {
        let mut map = headers(&[
            ("x_remote_user", "a"),
            ("X-Remote_Group", "a"),
            ("impersonate_user", "a"),
            ("content_length", "7"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded-for", "a"),
            ("x_request_id", "a"),
        ]);
        assert_eq!(clean_request(&mut map), Ok(Wishes::default()));
        let left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x_request_id"]);
        let mut map = headers(&[("connection", "impersonate_user")]);
        assert!(clean_request(&mut map).is_err());
    }

    #[test]
    fn trailers_identify_nobody() {
        let passes = |name: &'static str| is_trailer(&HeaderName::from_static(name));
        assert!(passes("x-checksum") && passes("grpc-status"));
        for name in ["x-remote-user", "impersonate-user", "authorization", "content-length", "host", "te"] {
            assert!(!passes(name), "{name}");
        }
    }

    #[test]
    fn an_upgrade_keeps_its_two_headers() {
        let mut map = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert!(clean_request(&mut map).unwrap().upgrade);
        assert_eq!(map[CONNECTION], "Upgrade");
        assert_eq!(map[UPGRADE], "SPDY/3.1");
    }

    #[test]
    fn forged_identities_are_dropped_and_impersonation_is_kept() {
        let mut map = headers(&[
            ("X-Remote-User", "system:admin"),
            ("x-remote-extra-scopes", "all"),
            ("x_remote_user", "root"),
            ("Impersonate-User", "bob"),
        ]);
        assert!(clean_request(&mut map).unwrap().impersonates);
        let left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["impersonate-user"]);
    }

    #[test]
    fn an_assertion_carries_user_groups_uid_and_escaped_extras() {
        let identity = Identity {
            user: "alice".into(),
            uid: Some("42".into()),
            groups: vec!["a".into(), "b,c".into(), GROUP_AUTHENTICATED.into()],
            extra: vec![("authentication.kubernetes.io/credential-id".into(), vec!["X509SHA256=00".into()])],
            credential: Credential::Certificate,
        };
        let mut map = headers(&[("authorization", "Bearer stolen")]);
        Assertion::of(&identity).unwrap().apply(&mut map);
        assert!(!map.contains_key(AUTHORIZATION));
        assert_eq!(map["x-remote-user"], "alice");
        assert_eq!(map["x-remote-uid"], "42");
        let groups: Vec<_> = map.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["a", "b,c"]);
        assert_eq!(map["x-remote-extra-authentication.kubernetes.io%2fcredential-id"], "X509SHA256=00");
    }

    #[test]
    fn a_name_with_a_line_feed_cannot_be_asserted() {
        let mut identity = (*Identity::anonymous()).clone();
        identity.user = "alice\r\nx-remote-group: system:masters".into();
        assert!(Assertion::of(&identity).is_err());
    }
}
