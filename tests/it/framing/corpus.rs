//! Hostile requests over HTTP/1.1: a few ways to say each thing wrongly, multiplied.
//!
//! Each has a target of its own, so that the upstream's records say which one reached it; whatever is smuggled behind
//! it asks for `/smuggled`, which must never be seen at all.

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Never seen by the upstream; the client is told so, or closed.
    Refused,
    /// Seen once, without whatever was wrong with it.
    Cleaned,
    /// Its head may have been seen, its body never ends there.
    BrokenOff,
}

/// One hostile request.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The row of the threat table, and what is wrong.
    pub(crate) name: String,
    pub(crate) fate: Fate,
    /// The bytes, with a place for the target.
    bytes: Vec<u8>,
}

/// Where a case's own target goes.
const TARGET: &str = "TARGET";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: kubernetes\r\n\r\n";

/// No request: what makes a server close that has kept the connection after a refusal.
const CLOSING: &str = "\u{1}\r\n\r\n";

impl Case {
    fn new(row: &str, what: &str, fate: Fate, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: format!("{row} {}", what.escape_debug()), fate, bytes: bytes.into() }
    }

    /// The bytes that ask for `target`.
    pub(crate) fn bytes(&self, target: &str) -> Vec<u8> {
        let Some(at) = self.bytes.windows(TARGET.len()).position(|part| part == TARGET.as_bytes()) else {
            return self.bytes.clone();
        };
        [&self.bytes[..at], target.as_bytes(), &self.bytes[at + TARGET.len()..]].concat()
    }
}

/// All of them, always in the same order.
pub(crate) fn http1() -> Vec<Case> {
    [lengths(), encodings(), both(), chunks(), heads(), methods(), targets(), identities(), connections()]
        .concat()
}

/// A POST with these header lines and this body, which asks for the connection to be closed.
fn post(lines: &str, body: &str) -> String {
    format!("POST TARGET HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n{lines}\r\n{body}")
}

fn lengths() -> Vec<Case> {
    const ODD: [&str; 20] = [
        "+5",
        "-5",
        "0x5",
        "5,5",
        "5, 5",
        "5 5",
        "5.0",
        "5e0",
        "",
        " ",
        "5;",
        "\"5\"",
        "'5'",
        "5\t5",
        "five",
        "0b101",
        "5_0",
        "99999999999999999999",
        "18446744073709551616",
        "\u{0665}",
    ];
    let mut cases: Vec<Case> = ODD
        .iter()
        .map(|value| {
            let text = post(&format!("Content-Length: {value}\r\n"), &format!("hello{SMUGGLED}"));
            Case::new("a1", &format!("Content-Length: {value:?}"), Fate::Refused, text)
        })
        .collect();
    for (first, second) in [("0", "5"), ("5", "0"), ("5", "5"), ("5", "+5"), ("05", "5"), ("5", "")] {
        for name in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
            let lines = format!("Content-Length: {first}\r\n{name}: {second}\r\n");
            let text = post(&lines, &format!("hello{SMUGGLED}"));
            cases.push(Case::new(
                "a1",
                &format!("lengths {first} and {second}, {name}"),
                Fate::Refused,
                text,
            ));
        }
    }
    cases
}

fn encodings() -> Vec<Case> {
    const ODD: [&str; 24] = [
        "xchunked",
        "chunkedx",
        "chunk",
        "identity",
        "gzip",
        "x",
        "",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked,",
        ", chunked",
        "chunked\t,",
        "\u{b}chunked",
        "chunked\u{b}",
        "chunked\u{c}",
        "ch unked",
        "chunked\u{a0}",
        "[chunked]",
    ];
    const NAMES: [&str; 10] = [
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "Transfer-Encoding\t",
        "\tTransfer-Encoding",
        "Transfer-Encoding\0",
        "\u{b}Transfer-Encoding",
        "Transfer-\r\n Encoding",
        "Transfer-Encoding\r\n ",
        "Transfer Encoding",
        "\"Transfer-Encoding\"",
    ];
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let mut cases: Vec<Case> = ODD
        .iter()
        .map(|value| {
            let text = post(&format!("Transfer-Encoding: {value}\r\n"), &body);
            Case::new("a1", &format!("Transfer-Encoding: {value:?}"), Fate::Refused, text)
        })
        .collect();
    for name in NAMES {
        let text = post(&format!("{name}: chunked\r\n"), &body);
        cases.push(Case::new("a1", &format!("{name:?}: chunked"), Fate::Refused, text));
    }
    for (first, second) in [
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("identity", "chunked"),
        ("chunked", "x"),
        ("x", "chunked"),
        ("chunked", "cow"),
        ("gzip", "chunked"),
    ] {
        let text = post(&format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n"), &body);
        cases.push(Case::new("a1", &format!("two encodings, {first} and {second}"), Fate::Refused, text));
    }
    for value in ["chunked", "Chunked", "identity"] {
        let text = post(&format!("Transfer-Encoding: {value}\r\n"), &body)
            .replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost");
        cases.push(Case::new("a1", &format!("HTTP/1.0 with {value}"), Fate::Refused, text));
    }
    cases
}

/// A length beside chunks: every order, every spelling, each of the two bodies.
fn both() -> Vec<Case> {
    let mut cases = Vec::new();
    let encodings = [
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "Transfer-Encoding:\tCHUNKED",
        "Transfer-Encoding: chunked ",
    ];
    for encoding in encodings {
        for length in ["0", "5", "6", "57"] {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                for length_first in [true, false] {
                    let length_line = format!("Content-Length: {length}");
                    let lines = if length_first {
                        format!("{length_line}\r\n{encoding}\r\n")
                    } else {
                        format!("{encoding}\r\n{length_line}\r\n")
                    };
                    let text = post(&lines, &format!("0\r\n\r\n{SMUGGLED}"))
                        .replace("POST TARGET", &format!("{method} TARGET"));
                    let name = format!(
                        "{method} with length {length} and {encoding:?}, length first: {length_first}"
                    );
                    cases.push(Case::new("a1", &name, Fate::Refused, text));
                }
            }
        }
    }
    cases
}

fn chunks() -> Vec<Case> {
    let long = format!("5;{}", "x".repeat(20_000));
    let many = format!("0\r\n{}\r\n", "X-T: y\r\n".repeat(100_000));
    let bodies: Vec<(&str, String)> = vec![
        ("blank after the size", "5 \r\nhello\r\n0\r\n\r\n".into()),
        ("blank before the size", " 5\r\nhello\r\n0\r\n\r\n".into()),
        ("tab after the size", "5\t\r\nhello\r\n0\r\n\r\n".into()),
        ("hexadecimal mark", "0x5\r\nhello\r\n0\r\n\r\n".into()),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n".into()),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n".into()),
        ("no size", "\r\nhello\r\n0\r\n\r\n".into()),
        ("not hexadecimal", "g\r\nhello\r\n0\r\n\r\n".into()),
        ("line feed after the size", "5\nhello\r\n0\r\n\r\n".into()),
        ("carriage return after the size", "5\rhello\r\n0\r\n\r\n".into()),
        ("two carriage returns", "5\r\r\nhello\r\n0\r\n\r\n".into()),
        ("overflow of 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n".into()),
        ("overflow by zeros", "00000000000000005\r\nhello\r\n0\r\n\r\n".into()),
        ("underscore", "5_0\r\nhello\r\n0\r\n\r\n".into()),
        ("point", "5.0\r\nhello\r\n0\r\n\r\n".into()),
        ("comma", "5,5\r\nhello\r\n0\r\n\r\n".into()),
        ("too long a body", "5\r\nhello!\r\n0\r\n\r\n".into()),
        ("line feed after the body", "5\r\nhello\n0\r\n\r\n".into()),
        ("nothing after the body", "5\r\nhello0\r\n\r\n".into()),
        ("line feed in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n".into()),
        ("carriage return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n".into()),
        ("zero byte in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n".into()),
        ("line feed in the last size", "0\n\r\n".into()),
        ("blank in the last size", "0 \r\n\r\n".into()),
        ("folded trailer", "0\r\nX-T: a\r\n b\r\n\r\n".into()),
        ("line feed after a trailer", "0\r\nX-T: a\n\r\n".into()),
        ("zero byte in a trailer", "0\r\nX-T: a\0\r\n\r\n".into()),
        ("nameless trailer", "0\r\n: a\r\n\r\n".into()),
        ("line feed as the end", "0\r\n\n".into()),
        ("an extension of 20,000 bytes", format!("{long}\r\nhello\r\n0\r\n\r\n")),
        ("100,000 trailers", many),
    ];
    bodies
        .into_iter()
        .map(|(what, body)| {
            let text = post("Transfer-Encoding: chunked\r\n", &format!("{body}{SMUGGLED}"));
            Case::new("a2", what, Fate::BrokenOff, text)
        })
        .collect()
}

fn heads() -> Vec<Case> {
    let good = "GET TARGET HTTP/1.1\r\nHost: kubernetes\r\nX-A: b\r\nConnection: close\r\n\r\n";
    let mut cases = Vec::new();
    // Each line end, in each wrong way.
    for (number, (at, _)) in good.match_indices("\r\n").enumerate() {
        for (what, end) in
            [("a bare line feed", "\n"), ("a bare carriage return", "\r"), ("two carriage returns", "\r\r\n")]
        {
            let text = format!("{}{end}{}", &good[..at], &good[at + 2..]);
            cases.push(Case::new(
                "a2",
                &format!("{what} as line end {number}"),
                Fate::Refused,
                format!("{text}{SMUGGLED}"),
            ));
        }
    }
    // A control character in each part of the head.
    for byte in [0, 1, 7, 8, 11, 12, 14, 27, 31, 127] {
        for (what, place) in [
            ("method", "GET"),
            ("version", "HTTP/1.1"),
            ("name", "X-A"),
            ("value", ": b"),
            ("host", "kubernetes"),
        ] {
            let end = good.find(place).unwrap_or_default() + place.len();
            let mut bytes = good.as_bytes().to_vec();
            bytes.insert(end, byte);
            cases.push(Case::new("a2", &format!("byte {byte} in the {what}"), Fate::Refused, bytes));
        }
    }
    let lines = [
        ("a folded header", "X-B: a\r\n b\r\n"),
        ("a header folded by a tab", "X-B: a\r\n\tb\r\n"),
        ("a header folded from the first", " X-B: a\r\n"),
        ("a blank before the colon", "X-B : a\r\n"),
        ("a tab before the colon", "X-B\t: a\r\n"),
        ("no colon", "X-B\r\n"),
        ("no name", ": a\r\n"),
        ("a blank in a name", "X B: a\r\n"),
        ("brackets in a name", "X(B): a\r\n"),
        ("quotes in a name", "\"X-B\": a\r\n"),
        ("a slash in a name", "X/B: a\r\n"),
        ("letters beyond ASCII in a name", "X-\u{e4}: a\r\n"),
    ];
    for (what, line) in lines {
        let text = format!("GET TARGET HTTP/1.1\r\nHost: kubernetes\r\n{line}\r\n{SMUGGLED}");
        cases.push(Case::new("a2", what, Fate::Refused, text));
    }
    cases
}

fn methods() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "GET TARGET\r\n\r\n",
        "GET TARGET \r\n\r\n",
        "GET TARGET HTTP\r\n\r\n",
        "GET TARGET HTTP/1\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/0.9\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.1x\r\nHost: a\r\n\r\n",
        "GET TARGET FTP/1.1\r\nHost: a\r\n\r\n",
        "GET TARGET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\tTARGET\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET TARGET HTTP/1.1 \r\nHost: a\r\n\r\n",
        " GET TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{e4}T TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "\"GET\" TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET: TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET TARGET#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET TARGET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET *TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET @TARGET HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .into_iter()
    .map(|text| {
        Case::new("a2", text.lines().next().unwrap_or_default(), Fate::Refused, format!("{text}{SMUGGLED}"))
    })
    .collect();
    for target in ["kubernetes:443", "10.0.0.1:22", "TARGET", "https://kubernetes/TARGET"] {
        let text =
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n{SMUGGLED}");
        cases.push(Case::new("a5", &format!("CONNECT {target}"), Fate::Refused, text));
    }
    for upgrade in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "h2c, websocket"] {
        let text = format!(
            "GET TARGET HTTP/1.1\r\nHost: kubernetes\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        );
        cases.push(Case::new("a5", &format!("Upgrade: {upgrade}"), Fate::Cleaned, text));
    }
    cases
}

fn targets() -> Vec<Case> {
    let mut cases = Vec::new();
    let hosts = [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: kubernetes\r\nhost: kubernetes\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a,b\r\n",
        "Host: a, b\r\n",
        "Host: user@kubernetes\r\n",
        "Host: user:password@kubernetes\r\n",
        "Host: kubernetes:99999\r\n",
        "Host: kubernetes:-1\r\n",
        "Host: kubernetes:https\r\n",
        "Host: kubernetes:\r\n",
        "Host: kubernetes:443:443\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: kubernetes/path\r\n",
        "Host: https://kubernetes\r\n",
        "Host: kubernetes?a\r\n",
        "Host: kubernetes\\a\r\n",
        "Host: kuber%6eetes\r\n",
        "Host: <kubernetes>\r\n",
    ];
    for host in hosts {
        let text = format!("GET TARGET HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        cases.push(Case::new("a7", &format!("{host:?}"), Fate::Refused, text));
    }
    for (target, host) in [
        ("https://elsewhereTARGET", "kubernetes"),
        ("http://elsewhere:80TARGET", "kubernetes"),
        ("https://kubernetes:443TARGET", "kubernetes"),
        ("https://kubernetesTARGET", "kubernetes:443"),
        ("https://user@kubernetesTARGET", "kubernetes"),
        ("https://kubernetes@elsewhereTARGET", "kubernetes@elsewhere"),
        ("https://a,bTARGET", "a,b"),
        ("//elsewhere", "a b"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        cases.push(Case::new("a7", &format!("{target} of {host}"), Fate::Refused, text));
    }
    for (target, host) in
        [("https://kubernetesTARGET", "kubernetes"), ("http://KUBERNETES:6443TARGET", "kubernetes:6443")]
    {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        cases.push(Case::new("a7", &format!("{target} of {host}"), Fate::Cleaned, text));
    }
    cases
}

fn identities() -> Vec<Case> {
    let mut cases = Vec::new();
    let kinds = [
        "User",
        "Group",
        "Uid",
        "Extra-Scopes",
        "Extra-Authentication.kubernetes.io%2Fnode-name",
        "Anything",
    ];
    for kind in kinds {
        for prefix in ["X-Remote-", "x-remote-", "X-REMOTE-", "x-ReMoTe-"] {
            for lines in [1, 3] {
                let line = format!("{prefix}{kind}: system:masters\r\n").repeat(lines);
                let text =
                    format!("GET TARGET HTTP/1.1\r\nHost: kubernetes\r\n{line}Connection: close\r\n\r\n");
                cases.push(Case::new("b1", &format!("{prefix}{kind}, {lines} times"), Fate::Cleaned, text));
            }
        }
    }
    for name in [
        "x_remote_user",
        "X_Remote_Group",
        "x-remote_user",
        "X_REMOTE-UID",
        "x_remote_extra_scopes",
        "impersonate_user",
        "Impersonate_Group",
        "IMPERSONATE_UID",
        "impersonate_extra_scopes",
        "content_length",
        "transfer_encoding",
        "x_forwarded_for",
        "audit_id",
        "x_real_ip",
    ] {
        let text =
            format!("GET TARGET HTTP/1.1\r\nHost: kubernetes\r\n{name}: 0\r\nConnection: close\r\n\r\n");
        cases.push(Case::new("b2", name, Fate::Cleaned, text));
    }
    cases
}

fn connections() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [
        "X-Remote-User",
        "X-Remote-Group",
        "x-remote-extra-scopes",
        "Impersonate-User",
        "impersonate-group",
        "Impersonate-Uid",
        "Authorization",
        "AUTHORIZATION",
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Audit-ID",
        "X-Forwarded-For",
        "Cookie",
        "impersonate_user",
        "x_remote_user",
    ] {
        for list in [
            name.to_owned(),
            format!("close, {name}"),
            format!("{name} , close"),
            format!(",{name},"),
            format!("close\r\nConnection: {name}"),
        ] {
            let text = format!(
                "GET TARGET HTTP/1.1\r\nHost: kubernetes\r\nImpersonate-User: bob\r\nConnection: {list}\r\n\r\n{CLOSING}"
            );
            cases.push(Case::new("b3", &format!("Connection: {list:?}"), Fate::Refused, text));
        }
    }
    cases
}
