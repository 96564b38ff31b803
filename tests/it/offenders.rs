//! How soon is somebody let back in who was cut off?
//!
//! The built program with the limits that it has by itself. Whoever floods comes from an address of its own, which is
//! what spillway remembers; others come from there too, and from elsewhere.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And what is
// forgotten is forgotten in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::{
    client::{Caller, Connection, Protocol, block_on, get},
    framing::{
        stand::Stand,
        upstream::Reply,
        wire::{self, Raw, ask, frame, request},
    },
    spillway::needs_spillway,
};

/// Where the abuser comes from.
const ABUSER: [u8; 4] = [127, 0, 0, 2];
/// How often an abuser comes back at most until it is turned away: many times what it gets.
const TRIES: usize = 500;
/// Somebody behind the abuser's address tries again and again for so long, with so much between.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Comes and floods until it is cut off; `false` when it is not even let in.
async fn offend(abuser: &Caller) -> bool {
    let Ok(mut raw) = Raw::try_connect_with(abuser, &[]).await else { return false };
    raw.send(&frame(wire::PING, 0, 0, b"12345678").repeat(4_000)).await;
    raw.rest().await;
    true
}

async fn works(connection: &mut Connection) {
    let answer = connection.ask(get("/version")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

fn turned_away(stand: &Stand) -> f64 {
    stand.metric("spillway_connections_ended_total{listener=\"main\",reason=\"offender\"}")
}

#[test]
fn a12_who_was_cut_off_comes_back_slowly_and_nobody_else_does() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::with_own_limits(true);
    block_on(async {
        let abuser = stand.nobody().from(ABUSER);
        let neighbour = stand.alice().from(ABUSER);
        let mut open = neighbour.connect(Protocol::Http2).await;
        works(&mut open).await;
        let mut came = 0;
        while came < TRIES && offend(&abuser).await {
            came += 1;
        }
        assert!((2..TRIES).contains(&came), "it came {came} times\n{}", stand.log());
        // Other addresses are not slowed down, in the middle of it.
        for _ in 0..20 {
            offend(&abuser).await;
            works(&mut stand.alice().connect(Protocol::Http2).await).await;
        }
        // Nor are the connections that the same address has.
        works(&mut open).await;
        stand.until("it to be counted", |stand| turned_away(stand) > 0.0);
        // And a new one of the same address gets in, though it may have to try again.
        let until = Instant::now() + PATIENCE;
        let mut new = loop {
            match neighbour.try_connect(Protocol::Http2).await {
                Ok(connection) => break connection,
                Err(why) => assert!(Instant::now() < until, "{why}\n{}", stand.log()),
            }
            tokio::time::sleep(PAUSE).await;
        };
        works(&mut new).await;
    });
}

/// A load balancer may hide every client behind one address; whoever has one says so by the limit for a source.
#[test]
fn a12_where_one_source_may_hold_all_connections_nobody_is_slowed() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        let abuser = stand.nobody().from(ABUSER);
        for _ in 0..20 {
            assert!(offend(&abuser).await, "{}", stand.log());
        }
        stand.until("all to be cut off", |stand| stand.abuses("pings") >= 20.0);
        assert!(turned_away(&stand) < 1.0);
    });
}

/// Asks for `path` so often that nobody means it, takes `window` bytes of each answer, waits until something of each has
/// come, and goes; `false` when it is not let in.
async fn ask_and_go(who: &Caller, path: &str, window: u32) -> bool {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let Ok(mut raw) = Raw::try_connect_with(who, &[(4, window)]).await else { return false };
    let asks: Vec<u8> = (0..ASKED).flat_map(|n| ask(n * 2 + 1, &request("GET", path))).collect();
    raw.send(&asks).await;
    let (mut heads, mut bytes) = (0, 0);
    while heads < ASKED || bytes < ASKED * window.min(GREETING.len() as u32) {
        let received = raw.next().await.expect("an answer");
        heads += u32::from(received.kind == wire::HEADERS);
        bytes += if received.kind == wire::DATA { received.payload.len() as u32 } else { 0 };
    }
    true
}

const ASKED: u32 = 10;
const GREETING: &[u8] = b"hello";

/// Not reading is as good as a flood: the answers were worked for. Someone who reads all that there is has done nothing,
/// also when the answers are watches that never end.
#[test]
fn a12_who_goes_with_many_answers_unread_comes_back_slowly() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::with_own_limits(false);
    stand.upstream.reply("/large", Reply::Bytes(256 << 10));
    let started = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n", GREETING, b"\r\n"].concat();
    stand.upstream.reply("/watched", Reply::Raw(started));
    block_on(async {
        for _ in 0..5 {
            assert!(ask_and_go(&stand.alice(), "/watched", 1 << 16).await, "{}", stand.log());
        }
        let abuser = stand.alice().from(ABUSER);
        let mut came = 0;
        while came < TRIES && ask_and_go(&abuser, "/large", 1).await {
            came += 1;
        }
        assert!((2..TRIES).contains(&came), "it came {came} times\n{}", stand.log());
        stand.until("each to be counted", |stand| stand.abuses("unread") >= came as f64);
        assert!(stand.abuses("unread") < came as f64 + 1.0, "and nothing else");
        works(&mut stand.alice().connect(Protocol::Http2).await).await;
    });
}
