//! Header lines of a request: what leaves must name nobody but the caller, and lose nothing else.

use http::{HeaderMap, HeaderName, HeaderValue};
use spillway::gateway::hygiene;
use spillway::identity::{Credential, Identity};

use super::header_lines;

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub fn run(input: &[u8]) {
    let received = header_lines(input);
    let mut sent = received.clone();
    let Ok(wishes) = hygiene::clean_request(&mut sent) else {
        let refusable = ["connection", "content-length"];
        assert!(refusable.iter().any(|name| received.contains_key(*name)), "nothing else is refused");
        return;
    };
    for name in sent.keys().map(HeaderName::as_str) {
        let forged = ["x-remote-", "x_remote_", "impersonate_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(!forged, "{name} passes");
        let upgrade = wishes.upgrade && matches!(name, "connection" | "upgrade");
        assert!(upgrade || !HOP_BY_HOP.contains(&name), "{name} passes");
    }
    let names =
        |headers: &HeaderMap, prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
    assert_eq!(wishes.impersonates, names(&received, "impersonate-"));
    // Who asks to be somebody else still does, and what the message is about is as it was.
    for name in received.keys().filter(|name| is_end_to_end(name.as_str())) {
        assert!(received.get_all(name).iter().eq(sent.get_all(name).iter()), "{name} changed");
    }
    assert!(sent.keys().all(|name| received.contains_key(name)), "nothing is added");
    assert_eq!(sent.get_all("connection").iter().count(), usize::from(wishes.upgrade));
    assert!(sent.get("te").is_none_or(|value| value == "trailers"));
    let mut again = sent.clone();
    assert_eq!(hygiene::clean_request(&mut again), Ok(wishes), "what is clean stays as it is");
    assert_eq!(again, sent);

    let mut answer = received;
    hygiene::clean_response(&mut answer, false);
    assert!(answer.keys().all(|name| !HOP_BY_HOP.contains(&name.as_str())));
    assert_identity(input, sent);
}

fn is_end_to_end(name: &str) -> bool {
    name.starts_with("impersonate-")
        || ["authorization", "content-type", "content-length", "host", "accept", "user-agent", "cookie"]
            .contains(&name)
}

/// Whatever the names are: a header carries them unchanged, or there is no request.
fn assert_identity(input: &[u8], mut sent: HeaderMap) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let identity = Identity {
        user: next(),
        uid: Some(next()),
        groups: vec![next(), next()],
        extra: vec![(next(), vec![next()])],
        credential: Credential::Certificate,
    };
    let count = |headers: &HeaderMap, name: &str| headers.get_all(name).iter().count();
    if hygiene::assert_identity(&identity, &mut sent).is_err() {
        return;
    }
    let only = |name: &str| {
        assert_eq!(count(&sent, name), 1);
        sent.get(name).map(HeaderValue::as_bytes)
    };
    assert_eq!(only("x-remote-user"), Some(identity.user.as_bytes()));
    assert_eq!(only("x-remote-uid"), identity.uid.as_deref().map(str::as_bytes));
    assert!(count(&sent, "x-remote-group") <= 2);
    assert!(!sent.contains_key("authorization"), "with a certificate, the token is not asked");
    let asserted = sent.keys().filter(|name| name.as_str().starts_with("x-remote-"));
    assert!(asserted.count() <= 4, "nobody else is named");
    assert!(
        sent.values().all(|value| !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)))
    );
}
