//! Rows of the threat table that are no corpus: each says its one thing.

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    stand::Stand,
    upstream::Reply,
    wire::{self, Raw, field},
};
use crate::{
    client::{Caller, Protocol, block_on, empty, get, send, with, within},
    spillway::needs_spillway,
};

/// Everything that comes back for these bytes until the server closes.
async fn raw(caller: &Caller, bytes: &str) -> String {
    let mut socket = caller.socket(Protocol::Http1).await;
    let _ = within("the bytes to be taken", socket.write_all(bytes.as_bytes())).await;
    let mut back = Vec::new();
    let _ = within("the end", socket.read_to_end(&mut back)).await;
    String::from_utf8_lossy(&back).into_owned()
}

#[test]
fn a1_a_length_beside_chunks_is_refused_and_counted() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        let text = "POST /a1 HTTP/1.1\r\nHost: kubernetes\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let answer = raw(&stand.alice(), text).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{answer}");
        assert_eq!(stand.upstream.seen("/a1").len(), 0);
    });
    stand.until("it to be counted", |stand| stand.abuses("framing") == 1.0);
}

#[test]
fn a2_a_bare_line_feed_ends_the_connection_and_not_the_line() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        // A first request on the same connection is answered as ever.
        let text =
            "GET /a2/good HTTP/1.1\r\nHost: kubernetes\r\n\r\nGET /a2/bad HTTP/1.1\nHost: kubernetes\n\n";
        let answer = raw(&stand.alice(), text).await;
        let heads: Vec<&str> = answer.lines().filter(|line| line.contains("HTTP/1.1 ")).collect();
        assert_eq!(heads.len(), 2, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 400 "), "{answer}");
        assert_eq!((stand.upstream.seen("/a2/good").len(), stand.upstream.seen("/a2/bad").len()), (1, 0));
    });
}

#[test]
fn a3_a_request_that_is_refused_here_leaves_nothing_behind() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n";
    block_on(async {
        // Refused for what its Connection names, before anybody asks for its body.
        for framing in [
            format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
            format!("Content-Length: {}\r\n\r\n{}{hidden}", 900_000 + hidden.len(), " ".repeat(900_000)),
        ] {
            let text = format!(
                "POST /a3 HTTP/1.1\r\nHost: kubernetes\r\nConnection: Impersonate-User\r\n{framing}\
                 GET /after HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n"
            );
            let answer = raw(&stand.alice(), &text).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        // Over HTTP/2 the body is frames of a stream that is over.
        let mut connection = Raw::connect(&stand.alice()).await;
        let mut fields = wire::request("POST", "/a3");
        fields.push(field("host", "elsewhere"));
        let head = wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&fields));
        connection.send(&head).await;
        let frames = connection.end_of(1).await;
        assert_eq!(frames[0].status(), Some(400), "{frames:?}");
        connection.send(&wire::frame(wire::DATA, wire::END, 1, hidden.as_bytes())).await;
        connection.send(&wire::ask(3, &wire::request("GET", "/after"))).await;
        let frames = connection.end_of(3).await;
        assert!(frames.iter().any(|frame| frame.status() == Some(200)), "{frames:?}");
    });
    assert_eq!((stand.upstream.seen("/hidden").len(), stand.upstream.seen("/a3").len()), (0, 0));
}

#[test]
fn a5_nobody_tunnels_by_connect_or_h2c() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        for protocol in ["h2c", "websocket, h2c"] {
            let request =
                with(with(get("/a5"), "connection", "Upgrade, HTTP2-Settings"), "upgrade", protocol);
            let answer =
                stand.alice().ask(Protocol::Http1, with(request, "http2-settings", "AAMAAABk")).await;
            assert_eq!(answer.status, StatusCode::OK, "ignored, as RFC 9110 wants it: {}", answer.text());
        }
        let answer = raw(
            &stand.alice(),
            "CONNECT kubernetes:22 HTTP/1.1\r\nHost: kubernetes:22\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    });
    let seen = stand.upstream.seen("");
    for name in ["upgrade", "connection", "http2-settings"] {
        assert!(seen.iter().all(|seen| seen.values(name).is_empty()), "{name} in {seen:?}");
    }
    assert!(seen.iter().all(|seen| seen.method != "CONNECT"));
}

#[test]
fn a6_a_line_end_in_an_http2_header_never_becomes_one() {
    if !needs_spillway() {
        return;
    }
    for http2 in [true, false] {
        let stand = Stand::start(http2);
        block_on(async {
            let mut connection = Raw::connect(&stand.alice()).await;
            let mut fields = wire::request("GET", "/a6");
            fields.push(field("x-a", "b\r\nx-remote-user: system:admin"));
            connection.send(&wire::ask(1, &fields)).await;
            let frames = connection.end_of(1).await;
            assert!(frames.iter().all(|frame| frame.kind != wire::HEADERS), "{frames:?}");
        });
        assert_eq!(stand.upstream.seen("/a6").len(), 0);
    }
}

#[test]
fn a7_a_request_has_one_server_and_the_tls_name_is_not_it() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        // The connection was made to an address; the name inside is the client's affair.
        let answer =
            stand.alice().ask(Protocol::Http1, with(get("/a7/named"), "host", "api.example.com")).await;
        assert_eq!(answer.status, StatusCode::OK);
        for text in [
            "GET /a7 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET https://a/a7 HTTP/1.1\r\nHost: b\r\n\r\n",
            "GET /a7 HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        ] {
            let text = text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            let answer = raw(&stand.alice(), &text).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("BadRequest"),
                "{text:?}: {answer}"
            );
        }
    });
    assert_eq!(stand.upstream.seen("/a7").len(), 1);
    assert_eq!(stand.upstream.seen("/a7/named")[0].values("host"), ["api.example.com"]);
}

/// What an upstream may say that is no answer.
const MALFORMED: [&str; 18] = [
    "",
    "\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/1.1 two hundred\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-Remote: \u{7f}\r\n\r\n",
    "HTTP/1.1 200 OK\r\n(X): a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
];

#[test]
fn a14_a_malformed_answer_is_502_and_the_end_of_its_connection() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(false);
    for (number, answer) in MALFORMED.iter().enumerate() {
        stand.upstream.reply(&format!("/malformed-{number}/"), Reply::Raw(answer.as_bytes().to_vec()));
        if answer.trim().is_empty() || !answer.contains("\r\n\r\n") {
            stand.upstream.reply(&format!("/malformed-{number}/"), Reply::Last(answer.as_bytes().to_vec()));
        }
    }
    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(1_000) + "Content-Length: 0\r\n\r\n";
    stand.upstream.reply("/malformed-many/", Reply::Raw(many.into_bytes()));
    let names = (0..MALFORMED.len()).map(|number| number.to_string()).chain(["many".to_owned()]);
    block_on(async {
        for name in names {
            for protocol in Protocol::BOTH {
                let target = format!("/malformed-{name}/{protocol:?}");
                let answer = stand.alice().ask(protocol, get(&target)).await;
                assert_eq!(
                    answer.status,
                    StatusCode::BAD_GATEWAY,
                    "{target}: {}; {}",
                    answer.text(),
                    stand.log()
                );
                assert_eq!(answer.json()["kind"], "Status", "{target}");
                let next = stand.alice().ask(protocol, get(&format!("/next-{name}/{protocol:?}"))).await;
                assert_eq!(next.status, StatusCode::OK, "{target}: {}", next.text());
                let connection = |target: &str| stand.upstream.seen(target)[0].connection;
                assert_ne!(
                    connection(&target),
                    connection(&format!("/next-{name}/{protocol:?}")),
                    "{target}: its connection was used again"
                );
            }
        }
    });
}

/// Bytes after an answer are nobody's answer, and any number of interim ones is not the answer.
#[test]
fn a14_an_answer_too_many_goes_to_nobody() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(false);
    let two =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    stand.upstream.reply("/two", Reply::Raw(two.into()));
    let storm = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(5_000)
        + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    stand.upstream.reply("/storm", Reply::Raw(storm.into_bytes()));
    block_on(async {
        for protocol in Protocol::BOTH {
            for round in 0..10 {
                for target in ["/two", "/innocent", "/storm"] {
                    let answer = stand.alice().ask(protocol, get(target)).await;
                    assert_eq!(answer.text(), "{}", "{target} over {protocol:?}, round {round}");
                }
            }
        }
    });
}

#[test]
fn b1_a_client_cannot_say_who_it_is() {
    if !needs_spillway() {
        return;
    }
    for http2 in [true, false] {
        let stand = Stand::start(http2);
        block_on(async {
            for (who, caller) in [("alice", stand.alice()), ("nobody", stand.nobody())] {
                for protocol in Protocol::BOTH {
                    let mut request = get(&format!("/b1/{who}"));
                    for (name, value) in [
                        ("x-remote-user", "system:admin"),
                        ("X-Remote-User", "root"),
                        ("x-remote-group", "system:masters"),
                        ("x-remote-uid", "0"),
                        ("x-remote-extra-scopes", "all"),
                    ] {
                        request.headers_mut().append(
                            http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap(),
                            value.parse().unwrap(),
                        );
                    }
                    assert_eq!(caller.ask(protocol, request).await.status, StatusCode::OK);
                }
            }
        });
        for seen in stand.upstream.seen("/b1/alice") {
            assert_eq!(seen.values("x-remote-user"), ["alice"]);
            assert_eq!(seen.values("x-remote-group"), ["platform-oncall", "platform-viewers"]);
        }
        for seen in stand.upstream.seen("/b1/nobody") {
            assert!(!seen.http2, "{seen:?}");
            assert!(seen.headers.iter().all(|(name, _)| !name.starts_with("x-remote-")), "{seen:?}");
        }
        assert_eq!((stand.upstream.seen("/b1/alice").len(), stand.upstream.seen("/b1/nobody").len()), (2, 2));
    }
}

#[test]
fn b2_an_underscore_is_no_dash() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        for protocol in Protocol::BOTH {
            let request = with(with(get("/b2"), "x_remote_user", "root"), "impersonate_user", "root");
            let request = with(with(request, "content_length", "5"), "x_request_id", "7");
            assert_eq!(stand.alice().ask(protocol, request).await.status, StatusCode::OK);
        }
    });
    let seen = stand.upstream.seen("/b2");
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let odd: Vec<_> = seen.headers.iter().filter(|(name, _)| name.contains('_')).collect();
        assert_eq!(odd, [&("x_request_id".to_owned(), "7".to_owned())], "what identifies nobody passes");
    }
}

#[test]
fn b3_connection_header_that_names_an_identity_is_refused() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        for name in
            ["Impersonate-User", "X-Remote-User", "Authorization", "Content-Length", "Transfer-Encoding"]
        {
            let request = with(
                with(get("/b3"), "impersonate-user", "bob"),
                "connection",
                &format!("keep-alive, {name}"),
            );
            let answer = stand.alice().ask(Protocol::Http1, request).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {}", answer.text());
        }
        let harmless =
            with(with(get("/b3/harmless"), "impersonate-user", "bob"), "connection", "keep-alive, x-private");
        assert_eq!(stand.alice().ask(Protocol::Http1, harmless).await.status, StatusCode::OK);
    });
    let seen = stand.upstream.seen("/b3");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].values("impersonate-user"), ["bob"], "it is not removed on the client's word");
}

#[test]
fn b11_redirects_pass_and_are_never_followed() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(false);
    let location = format!("https://{}/followed", stand.upstream.address);
    for code in [301, 302, 303, 307, 308] {
        let text = format!("HTTP/1.1 {code} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        stand.upstream.reply(&format!("/redirect-{code}"), Reply::Raw(text.into_bytes()));
    }
    block_on(async {
        for code in [301, 302, 303, 307, 308] {
            let target = format!("/redirect-{code}");
            let upgrade =
                || with(with(empty(Method::GET, &target), "connection", "Upgrade"), "upgrade", "websocket");
            for protocol in Protocol::BOTH {
                for request in [get(&target), send(Method::POST, &target, "{}")] {
                    let answer = stand.alice().ask(protocol, request).await;
                    assert_eq!(
                        (answer.status.as_u16(), answer.header("location")),
                        (code, location.as_str())
                    );
                }
            }
            let answer = stand.alice().ask(Protocol::Http1, upgrade()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("location")),
                (code, location.as_str()),
                "an upgrade"
            );
            assert_eq!(stand.upstream.seen(&target).len(), 5);
        }
    });
    assert_eq!(stand.upstream.seen("/followed").len(), 0);
}
