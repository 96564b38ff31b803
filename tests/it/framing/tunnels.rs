//! What passes before, through and after an upgrade?

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{stand::Stand, upstream::Reply};
use crate::{
    client::{Protocol, block_on, within},
    spillway::needs_spillway,
};

const UPGRADES: [(&str, &str); 2] = [("POST", "SPDY/3.1"), ("GET", "websocket")];

fn upgrade(method: &str, target: &str, protocol: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: kubernetes\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// kube CVE-2018-1002105: a connection whose upgrade was refused carried the client's next bytes as requests of the
/// proxy's own. Here what follows is a request of the client's like any other, and goes another way.
#[test]
fn a4_nothing_follows_an_upgrade_before_it_is_granted() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(false);
    for (number, answer) in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ]
    .into_iter()
    .enumerate()
    {
        stand.upstream.reply(&format!("/refused-{number}"), Reply::Raw(answer.into()));
        for (method, protocol) in UPGRADES {
            let target = format!("/refused-{number}/{method}");
            let early = format!(
                "GET /early-{number}/{method} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n"
            );
            block_on(async {
                let mut socket = stand.alice().socket(Protocol::Http1).await;
                let bytes = upgrade(method, &target, protocol) + &early;
                socket.write_all(bytes.as_bytes()).await.unwrap();
                socket.flush().await.unwrap();
                let mut back = Vec::new();
                let _ = within("the end", socket.read_to_end(&mut back)).await;
                let back = String::from_utf8_lossy(&back);
                assert!(back.starts_with(answer.lines().next().unwrap()), "{target}: {back}");
            });
            let asked = stand.upstream.seen(&target);
            assert_eq!(asked.len(), 1, "{target}: {asked:?}");
            for early in stand.upstream.seen(&format!("/early-{number}/{method}")) {
                assert_ne!(early.connection, asked[0].connection, "the upgrade's connection was used again");
                assert_eq!(early.values("x-remote-user"), ["alice"], "as itself");
            }
        }
    }
    assert_eq!(stand.upstream.findings(), Vec::<String>::new());
}

/// Nothing is sent upstream after the head until the upstream has agreed: early bytes come out of the tunnel, in order,
/// and an upgrade that carries a body is none.
#[test]
fn a4_early_bytes_wait_for_the_101_and_a_body_is_refused() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/echo", Reply::Echo);
    block_on(async {
        let mut socket = stand.alice().socket(Protocol::Http1).await;
        let early = "GET /smuggled HTTP/1.1\r\nHost: kubernetes\r\n\r\n";
        socket.write_all((upgrade("GET", "/echo", "websocket") + early).as_bytes()).await.unwrap();
        socket.flush().await.unwrap();
        let mut back = Vec::new();
        while !back.ends_with(early.as_bytes()) {
            let count = within("the echo", socket.read_buf(&mut back)).await.unwrap();
            assert_ne!(count, 0, "closed after {}", String::from_utf8_lossy(&back));
        }
        assert!(back.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&back));
        assert_eq!(stand.upstream.seen("/smuggled").len(), 0);
        assert_eq!(stand.upstream.seen("/echo").len(), 1);

        let mut socket = stand.alice().socket(Protocol::Http1).await;
        let with_body = upgrade("GET", "/echo/body", "websocket")
            .replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello");
        socket.write_all(with_body.as_bytes()).await.unwrap();
        let mut back = [0; 12];
        within("the refusal", socket.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"HTTP/1.1 400");
        assert_eq!(stand.upstream.seen("/echo/body").len(), 0);
    });
}

/// A tunnel is bytes: what would be a malformed request on either side passes as it is, both ways, and its end is
/// passed on.
#[test]
fn a13_a_tunnel_is_opaque_and_ends_with_its_client() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/echo", Reply::Echo);
    // SYN_STREAM with a length that no parser should believe, and text that no HTTP parser would take.
    let mut odd = b"\x80\x03\x00\x01\x01\xff\xff\xff\n\n GET / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: x\r\r\n\0".to_vec();
    odd.extend((0..=255).cycle().take(200_000));
    block_on(async {
        let mut socket = stand.alice().socket(Protocol::Http1).await;
        socket.write_all(upgrade("GET", "/echo", "websocket").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("the head", socket.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let (mut read, mut write) = tokio::io::split(socket);
        let mut back = vec![0; odd.len()];
        let (sent, read_back) =
            within("the echo", async { tokio::join!(write.write_all(&odd), read.read_exact(&mut back)) })
                .await;
        sent.unwrap();
        read_back.unwrap();
        assert!(back == odd, "the tunnel changed what it carried");
        assert_eq!(stand.metric("spillway_upstream_failures_total"), 0.0);
        drop((read, write));
        stand.until("the tunnel to end", |stand| stand.metric("spillway_inflight_seats") == 0.0);
    });
}
