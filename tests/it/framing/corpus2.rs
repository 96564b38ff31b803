//! Hostile requests over HTTP/2, as header blocks that no library would write.

use super::corpus::Fate;
use super::wire::{self, Field, field};

/// One hostile request: a header block, and what follows it on its stream.
#[derive(Clone, Debug)]
pub(crate) struct Case2 {
    pub(crate) name: String,
    pub(crate) fate: Fate,
    pub(crate) fields: Vec<Field>,
    /// Whether the headers end the stream.
    pub(crate) ends: bool,
    /// DATA that follows, the last of it ending the stream.
    pub(crate) body: Vec<Vec<u8>>,
    pub(crate) trailers: Vec<Field>,
}

impl Case2 {
    fn new(row: &str, what: impl std::fmt::Debug, fate: Fate, fields: Vec<Field>) -> Self {
        let name = format!("{row} {what:?}");
        Self { name, fate, fields, ends: true, body: vec![], trailers: vec![] }
    }

    fn with_body(mut self, body: &[&[u8]]) -> Self {
        self.ends = false;
        self.body = body.iter().map(|part| part.to_vec()).collect();
        self
    }

    /// The frames that ask for `target` on `stream`.
    pub(crate) fn bytes(&self, stream: u32, target: &str) -> Vec<u8> {
        let fields: Vec<Field> = self
            .fields
            .iter()
            .map(|(name, value)| {
                (name.clone(), if value == b"TARGET" { target.into() } else { value.clone() })
            })
            .collect();
        let flags = wire::END_HEADERS | if self.ends { wire::END } else { 0 };
        let mut bytes = wire::frame(wire::HEADERS, flags, stream, &wire::block(&fields));
        for (number, part) in self.body.iter().enumerate() {
            let last = number + 1 == self.body.len() && self.trailers.is_empty();
            bytes.extend(wire::frame(wire::DATA, if last { wire::END } else { 0 }, stream, part));
        }
        if !self.trailers.is_empty() {
            let block = wire::block(&self.trailers);
            bytes.extend(wire::frame(wire::HEADERS, wire::END | wire::END_HEADERS, stream, &block));
        }
        bytes
    }
}

/// All of them, always in the same order.
pub(crate) fn http2() -> Vec<Case2> {
    [pseudo(), authorities(), fields(), bodies(), identities()].concat()
}

fn get() -> Vec<Field> {
    wire::request("GET", "TARGET")
}

/// An ordinary request with these fields added.
fn with(more: &[(&str, &str)]) -> Vec<Field> {
    let mut fields = get();
    fields.extend(more.iter().map(|(name, value)| field(name, value)));
    fields
}

/// The same request with one pseudo-header of another value.
fn replaced(name: &str, value: &[u8]) -> Vec<Field> {
    let mut fields = get();
    for known in &mut fields {
        if known.0 == name.as_bytes() {
            known.1 = value.to_vec();
        }
    }
    fields
}

fn pseudo() -> Vec<Case2> {
    let mut cases = Vec::new();
    for missing in [":method", ":scheme", ":path"] {
        let fields = get().into_iter().filter(|(name, _)| name != missing.as_bytes()).collect();
        cases.push(Case2::new("a6", format!("no {missing}"), Fate::Refused, fields));
    }
    for twice in [":method", ":scheme", ":path", ":authority"] {
        let mut fields = get();
        let again = fields.iter().find(|(name, _)| name == twice.as_bytes()).cloned();
        fields.extend(again);
        cases.push(Case2::new("a6", format!("{twice} twice"), Fate::Refused, fields));
    }
    for (name, value) in [(":status", "200"), (":unknown", "a"), (":", "a"), (":Path", "/a")] {
        cases.push(Case2::new("a6", (name, value), Fate::Refused, with(&[(name, value)])));
    }
    let mut late = get();
    let path = late.pop();
    late.push(field("x-early", "a"));
    late.extend(path);
    cases.push(Case2::new("a6", ":path after a header", Fate::Refused, late));
    for path in [
        &b""[..],
        b"api/v1/pods",
        b"*",
        b"/a b",
        b"/a\r\nx: y",
        b"/a\nx: y",
        b"/a\0b",
        b"/a\x7f",
        b"https://kubernetes/a",
        b"?a",
        b"/a HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled",
    ] {
        cases.push(Case2::new(
            "a6",
            (":path", path.escape_ascii().to_string()),
            Fate::Refused,
            replaced(":path", path),
        ));
    }
    for method in [&b""[..], b"G T", b"GET\r\n", b"GET /smuggled HTTP/1.1", b"G\0T", b"(GET)"] {
        cases.push(Case2::new(
            "a6",
            (":method", method.escape_ascii().to_string()),
            Fate::Refused,
            replaced(":method", method),
        ));
    }
    for scheme in [&b""[..], b"ht tp", b"https\r\n", b"1http", b"https:"] {
        cases.push(Case2::new(
            "a6",
            (":scheme", scheme.escape_ascii().to_string()),
            Fate::Refused,
            replaced(":scheme", scheme),
        ));
    }
    cases.push(Case2::new(
        "a5",
        "CONNECT",
        Fate::Refused,
        vec![field(":method", "CONNECT"), field(":authority", "kubernetes:22")],
    ));
    cases.push(Case2::new("a5", "CONNECT with a path", Fate::Refused, replaced(":method", b"CONNECT")));
    for protocol in ["websocket", "connect-udp", ""] {
        let mut fields = replaced(":method", b"CONNECT");
        fields.push(field(":protocol", protocol));
        cases.push(Case2::new("a5", ("extended CONNECT", protocol), Fate::Refused, fields));
    }
    cases.push(Case2::new("a5", ":protocol with GET", Fate::Refused, with(&[(":protocol", "websocket")])));
    cases
}

fn authorities() -> Vec<Case2> {
    let odd = [
        "",
        "a b",
        "a,b",
        "user@kubernetes",
        "user:password@kubernetes",
        "kubernetes:99999",
        "kubernetes:x",
        "kubernetes:",
        "[::1",
        "kubernetes/path",
        "https://kubernetes",
        "kubernetes?a",
        "kubernetes\\a",
        "kubernetes\r\nx: y",
        "kubernetes\0",
        "kubernetes#a",
        "<kubernetes>",
    ];
    let mut cases: Vec<Case2> = odd
        .iter()
        .map(|value| {
            Case2::new("a7", (":authority", value), Fate::Refused, replaced(":authority", value.as_bytes()))
        })
        .collect();
    for host in ["elsewhere", "kubernetes:443", "", "kubernetes, elsewhere"] {
        cases.push(Case2::new("a7", ("another host", host), Fate::Refused, with(&[("host", host)])));
    }
    cases.push(Case2::new(
        "a7",
        "two hosts",
        Fate::Refused,
        with(&[("host", "kubernetes"), ("host", "kubernetes")]),
    ));
    cases.push(Case2::new("a7", "the same host", Fate::Cleaned, with(&[("host", "kubernetes")])));
    cases
}

fn fields() -> Vec<Case2> {
    let mut cases = Vec::new();
    for (name, value) in [
        ("connection", "close"),
        ("connection", "impersonate-user"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ] {
        cases.push(Case2::new("a6", (name, value), Fate::Refused, with(&[(name, value)])));
    }
    for name in ["X-Upper", "x upper", "x\r\ny", "x\0", "x:y", "", "x\u{7f}", "x(y)", "x\u{e4}", "a: b\r\nx"]
    {
        cases.push(Case2::new("a6", ("name", name), Fate::Refused, with(&[(name, "a")])));
    }
    for value in
        ["a\r\nx-remote-user: admin", "a\nb", "a\rb", "a\0b", "\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"]
    {
        cases.push(Case2::new("a6", ("value", value), Fate::Refused, with(&[("x-value", value)])));
    }
    for (first, second) in [("0", "5"), ("5", "0"), ("5", "6")] {
        let fields = with(&[("content-length", first), ("content-length", second)]);
        cases.push(Case2::new("a1", ("two lengths", first, second), Fate::Refused, fields));
    }
    for value in ["+5", "-5", "0x5", "5,5", "five", "", " 5", "99999999999999999999"] {
        cases.push(Case2::new(
            "a1",
            ("content-length", value),
            Fate::Refused,
            with(&[("content-length", value)]),
        ));
    }
    cases
}

fn bodies() -> Vec<Case2> {
    let post = |more: &[(&str, &str)]| {
        let mut fields = with(more);
        fields[0] = field(":method", "POST");
        fields
    };
    let mut cases =
        vec![Case2::new("a6", "a length without a body", Fate::Refused, post(&[("content-length", "5")]))];
    for (length, body) in
        [("5", &b"hello!"[..]), ("5", b"hell"), ("0", b"hello"), ("4", b"GET /smuggled HTTP/1.1\r\n\r\n")]
    {
        let case = Case2::new(
            "a6",
            ("a body of another length", length),
            Fate::BrokenOff,
            post(&[("content-length", length)]),
        );
        cases.push(case.with_body(&[body]));
    }
    for trailer in [":status", "connection", "X-Upper", "transfer-encoding"] {
        let mut case =
            Case2::new("a6", ("a trailer", trailer), Fate::BrokenOff, post(&[])).with_body(&[b"hello"]);
        case.trailers = vec![field(trailer, "a")];
        cases.push(case);
    }
    // h2 throws pseudo-headers of a trailer away by itself.
    for trailer in [":path", "x-remote-user", "impersonate-user", "authorization", "content-length", "host"] {
        let mut case =
            Case2::new("b1", ("a trailer", trailer), Fate::Cleaned, post(&[])).with_body(&[b"hello"]);
        case.trailers = vec![field(trailer, "5"), field("x-checksum", "1")];
        cases.push(case);
    }
    cases
}

fn identities() -> Vec<Case2> {
    let mut cases = Vec::new();
    for name in
        ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-scopes", "x-remote-anything"]
    {
        for values in [&["system:masters"][..], &["", "system:masters"], &["a", "b", "c"]] {
            let more: Vec<(&str, &str)> = values.iter().map(|value| (name, *value)).collect();
            cases.push(Case2::new("b1", (name, values), Fate::Cleaned, with(&more)));
        }
    }
    for name in [
        "x_remote_user",
        "impersonate_user",
        "content_length",
        "x-remote_user",
        "transfer_encoding",
        "http2-settings",
    ] {
        cases.push(Case2::new("b2", name, Fate::Cleaned, with(&[(name, "0")])));
    }
    cases
}
