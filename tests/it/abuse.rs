//! What does one client get that abuses HTTP/2, and what do the others notice?
//!
//! Frames by hand against the built program. For each attack: the connection is ended or what it can do is bounded,
//! seats and streams come back, the upstream sees no more requests than were let in, memory stays where it was, and
//! somebody else's requests are answered all the time.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And what an
// attack costs is measured in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    client::{Caller, Protocol, block_on, get},
    cluster::Credential,
    framing::{
        stand::Stand,
        upstream::Reply,
        wire::{self, Raw, Received, ask, field, frame, request},
    },
    spillway::needs_spillway,
};

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 0xb;
/// What an attack may leave behind in memory, where it is not measured more closely: buffers and the allocator's spare.
const LEFTOVER_BYTES: usize = 48 << 20;
/// Connections that send header bombs, of two hundred streams each.
const BOMBERS: usize = 60;
/// How many requests of the bystander are measured before an attack.
const CALM_REQUESTS: usize = 100;
/// How much slower than in calm the bystander's typical request may be, on two cores that the attacker shares.
const SLOWER_MAX: u32 = 2;
/// Differences below this are the machine's.
const NOISE: Duration = Duration::from_millis(20);

/// Somebody else: asks all the time, and measures. The attacker is nobody, so that the bystander's lane is another: what
/// requests cost each other inside a lane is not the question here.
struct Bystander {
    caller: Caller,
    calm: Vec<Duration>,
}

impl Bystander {
    async fn before(stand: &Stand) -> Self {
        let pair = stand.pki.client("bystander", "bystander", &["platform-oncall"]);
        let caller = stand.caller(&Credential::Certificate(pair));
        let mut connection = caller.connect(Protocol::Http2).await;
        let mut calm = Vec::new();
        for _ in 0..CALM_REQUESTS {
            // The first ones open connections.
            connection.ask(get("/bystander")).await;
        }
        for _ in 0..CALM_REQUESTS {
            let asked = Instant::now();
            let answer = connection.ask(get("/bystander")).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", stand.log());
            calm.push(asked.elapsed());
        }
        Self { caller, calm }
    }

    /// Runs `attack` and asks beside it; every answer must come, and mostly soon.
    async fn during<T>(&self, what: &str, attack: impl Future<Output = T> + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        let over = Arc::new(AtomicBool::new(false));
        let (asking, told) = (self.caller.clone(), Arc::clone(&over));
        let asked = tokio::spawn(async move {
            let mut connection = asking.connect(Protocol::Http2).await;
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) || took.len() < CALM_REQUESTS {
                let asked = Instant::now();
                let answer = connection.ask(get("/bystander")).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                took.push(asked.elapsed());
            }
            took
        });
        let result = tokio::spawn(attack).await.unwrap();
        over.store(true, Ordering::Relaxed);
        let took = asked.await.unwrap();
        let (calm, beside) = (middle(&self.calm), middle(&took));
        eprintln!(
            "{what}: middle {calm:?} in calm, {beside:?} beside it; p99 {:?}, {:?}",
            p99(&self.calm),
            p99(&took)
        );
        assert!(beside < calm * SLOWER_MAX + NOISE, "{what}: {beside:?} beside it, {calm:?} in calm");
        result
    }
}

fn quantile(took: &[Duration], part: usize) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) * part / 100]
}

fn middle(took: &[Duration]) -> Duration {
    quantile(took, 50)
}

fn p99(took: &[Duration]) -> Duration {
    quantile(took, 99)
}

/// After an attack everything that it held is free, and no more was sent on than was let in.
fn settled(stand: &Stand) {
    stand.until("the seats to come back", |stand| {
        stand.metric("spillway_inflight_seats") == 0.0
            && stand.metric("spillway_lane_executing_requests") == 0.0
    });
    stand.until("the upstream's streams to end", |stand| stand.metric("spillway_upstream_streams") == 0.0);
    let (seen, forwarded) = (stand.upstream.count(), stand.forwarded());
    assert!(seen <= forwarded, "the upstream saw {seen} requests, {forwarded} were let in");
}

fn goaway(frames: &[Received]) -> Option<u32> {
    frames.iter().find(|frame| frame.kind == wire::GOAWAY).map(Received::error)
}

/// Sends `batch(n)` until the server ends the connection, at most `most` times; the frames it sent, and whether it ended.
async fn flood(mut raw: Raw, most: u32, mut batch: impl FnMut(u32) -> Vec<u8>) -> (Vec<Received>, bool) {
    let mut frames = Vec::new();
    for number in 0..most {
        let taken = raw.try_send(&batch(number), Duration::from_secs(10)).await;
        while let Some(received) = raw.next_within(Duration::from_millis(1)).await {
            frames.push(received);
        }
        if !taken || goaway(&frames).is_some() {
            frames.extend(raw.rest().await);
            return (frames, true);
        }
    }
    (frames, false)
}

#[test]
fn a8_rapid_reset_ends_the_connection_and_leaves_no_seat_behind() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/held", Reply::Never);
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        let attacker = stand.nobody();
        // As fast as the socket takes it: ten thousand requests, a hundred a write.
        let attack = async move {
            flood(Raw::connect(&attacker).await, 100, |batch| {
                let stream = |number: u32| (batch * 100 + number) * 2 + 1;
                (0..100)
                    .flat_map(|number| {
                        let id = stream(number);
                        [ask(id, &request("GET", "/held")), frame(wire::RST_STREAM, 0, id, &[0, 0, 0, 8])]
                            .concat()
                    })
                    .collect()
            })
            .await
        };
        let (frames, ended) = bystander.during("rapid reset", attack).await;
        assert!(ended, "ten thousand resets were taken");
        assert_eq!(goaway(&frames).unwrap_or(CALM), CALM, "{frames:?}");
    });
    settled(&stand);
    assert!(stand.abuses("resets") >= 1.0, "{}", stand.log());
}

/// Slowly enough that each request has gone upstream when it is reset: what the limiter lets in is what arrives.
#[test]
fn a8_a_request_that_is_reset_upstream_is_reset_there_once() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/held", Reply::Never);
    block_on(async {
        let mut raw = Raw::connect(&stand.alice()).await;
        for number in 0..20_u32 {
            let id = number * 2 + 1;
            raw.send(&ask(id, &request("GET", &format!("/held/{number}")))).await;
            stand.until("it to arrive", |stand| stand.upstream.seen(&format!("/held/{number}")).len() == 1);
            raw.send(&frame(wire::RST_STREAM, 0, id, &[0, 0, 0, 8])).await;
        }
        stand.until("the resets to arrive", |stand| stand.metric("spillway_upstream_streams") == 0.0);
        raw.send(&ask(101, &request("GET", "/after"))).await;
        let frames = raw.end_of(101).await;
        assert_eq!(frames[0].status(), Some(200), "an honest number of resets: {frames:?}");
    });
    settled(&stand);
    assert_eq!(stand.upstream.seen("/held").len(), 20, "none was sent twice");
}

/// The frame that breaks the protocol on a stream.
type Provoke = fn(u32) -> Vec<u8>;

#[test]
fn a9_resets_that_the_client_provokes_end_the_connection() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/held", Reply::Never);
    let ways: [(&str, Provoke); 3] = [
        ("an increment of zero", |id| frame(wire::WINDOW_UPDATE, 0, id, &[0; 4])),
        ("a window beyond its limit", |id| frame(wire::WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])),
        ("data after the end", |id| frame(wire::DATA, wire::END, id, b"more")),
    ];
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        for (what, provoke) in ways {
            let attacker = stand.nobody();
            let attack = async move {
                flood(Raw::connect(&attacker).await, 50, |batch| {
                    (0..20)
                        .flat_map(|number| {
                            let id = (batch * 20 + number) * 2 + 1;
                            [ask(id, &request("GET", "/held")), provoke(id)].concat()
                        })
                        .collect()
                })
                .await
            };
            let (frames, ended) = bystander.during(what, attack).await;
            assert!(ended, "{what}: a thousand provoked resets were taken");
            assert!(goaway(&frames).is_none_or(|error| error != 0), "{what}: {frames:?}");
        }
    });
    settled(&stand);
    assert!(stand.abuses("stream_errors") + stand.abuses("protocol") >= 3.0, "{}", stand.log());
}

#[test]
fn a10_a_header_block_in_many_pieces_is_cut_short() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        let attacker = stand.nobody();
        let attack = async move {
            let mut raw = Raw::connect(&attacker).await;
            raw.send(&frame(wire::HEADERS, 0, 1, &wire::block(&request("GET", "/a10")))).await;
            flood(raw, 64, |_| frame(wire::CONTINUATION, 0, 1, &[])).await
        };
        let (frames, ended) = bystander.during("continuations", attack).await;
        assert!(ended, "64 empty pieces were taken");
        assert_eq!(goaway(&frames), Some(CALM), "{frames:?}");

        // One that is left unfinished does not keep its connection, whatever else runs there.
        let mut raw = Raw::connect(&stand.alice()).await;
        stand.upstream.reply("/held", Reply::Never);
        raw.send(&ask(1, &request("GET", "/held"))).await;
        raw.send(&frame(wire::HEADERS, 0, 3, &wire::block(&request("GET", "/a10")))).await;
        raw.rest().await;
    });
    settled(&stand);
    assert!(stand.abuses("continuations") >= 1.0, "{}", stand.log());
    assert_eq!(stand.upstream.seen("/a10").len(), 0);
}

/// A block of `count` references to one field of the table, after the pseudo-headers and the field itself.
fn bomb(path: &str, count: usize, first: bool) -> Vec<u8> {
    let mut block = wire::block(&request("POST", path));
    if first {
        // Literal, and added to the table.
        block.extend_from_slice(b"\x40\x01a\x00");
    }
    block.extend(std::iter::repeat_n(0xbe, count));
    block
}

#[test]
fn a11_fields_and_cookie_crumbs_are_counted_before_they_cost_anything() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    block_on(async {
        // Four pseudo-headers are no fields; a hundred are served, one more is refused, far more end the connection.
        for (name, count, expected) in [
            ("x-a", 100, Some(200)),
            ("x-a", 101, Some(431)),
            ("cookie", 100, Some(200)),
            ("cookie", 101, Some(431)),
        ] {
            let mut raw = Raw::connect(&stand.alice()).await;
            let mut fields = request("GET", "/a11");
            fields.extend((0..count).map(|crumb| field(name, format!("c={crumb}"))));
            raw.send(&ask(1, &fields)).await;
            let frames = raw.end_of(1).await;
            assert_eq!(frames[0].status(), expected, "{count} of {name}: {frames:?}");
        }
        for ends in [true, false] {
            let mut raw = Raw::connect(&stand.alice()).await;
            let flags = if ends { wire::END_HEADERS } else { 0 };
            raw.send(&frame(wire::HEADERS, flags, 1, &bomb("/a11/bomb", 2_000, true))).await;
            let frames = raw.rest().await;
            assert!(goaway(&frames).is_some_and(|error| error != 0), "whole: {ends}: {frames:?}");
        }
        stand.until("both to be counted", |stand| stand.abuses("header_fields") == 2.0);

        // Bytes: beyond 64 KiB 431, far beyond it the end of the connection.
        for (kilobytes, status) in [(48, Some(200)), (80, Some(431)), (400, None)] {
            let mut raw = Raw::connect(&stand.alice()).await;
            let mut fields = request("GET", "/a11/long");
            fields.push(field("x-long", "x".repeat(kilobytes << 10)));
            let block = wire::block(&fields);
            let mut pieces = block.chunks(16_384).enumerate().peekable();
            while let Some((number, piece)) = pieces.next() {
                let kind = if number == 0 { wire::HEADERS } else { wire::CONTINUATION };
                let last = if pieces.peek().is_none() { wire::END_HEADERS } else { 0 };
                let ends = if number == 0 { wire::END } else { 0 };
                raw.try_send(&frame(kind, last | ends, 1, piece), Duration::from_secs(10)).await;
            }
            let frames = raw.end_of(1).await;
            let head = frames.iter().find_map(Received::status);
            assert_eq!(head, status, "{kilobytes} KiB: {frames:?}");
        }
    });
    settled(&stand);
}

/// What facts call the HTTP/2 bomb: many streams, each held open, each a hundred fields for a hundred bytes.
#[test]
fn a11_header_memory_is_bounded_whatever_the_number_of_connections() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/held", Reply::Never);
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        let before = stand.resident_bytes();
        let attacker = stand.nobody();
        let (held, sent) = bystander
            .during("header bombs", async move {
                let (mut held, mut sent) = (Vec::new(), 0);
                for _ in 0..BOMBERS {
                    let mut raw = Raw::connect(&attacker).await;
                    let mut bytes = Vec::new();
                    for number in 0..200_u32 {
                        let block = bomb("/held", 95, number == 0);
                        // Without an end: the request's body is still to come.
                        bytes.extend(frame(wire::HEADERS, wire::END_HEADERS, number * 2 + 1, &block));
                    }
                    sent += bytes.len();
                    raw.send(&bytes).await;
                    // Until they have all been looked at.
                    raw.send(&frame(wire::PING, 0, 0, b"are they")).await;
                    while let Some(received) = raw.next_within(Duration::from_secs(10)).await {
                        if received.kind == wire::PING && received.flags & wire::END != 0 {
                            break;
                        }
                    }
                    held.push(raw);
                }
                // What is held stays, what was only passing through goes.
                tokio::time::sleep(Duration::from_secs(1)).await;
                (held, sent)
            })
            .await;
        let grown = stand.resident_bytes().saturating_sub(before);
        eprintln!("header bombs: {sent} bytes sent, {grown} more resident: {}:1", grown / sent);
        assert!(grown <= 40 * sent, "{sent} bytes sent, {grown} more resident");
        assert!(stand.metric("spillway_heads_refused_total{reason=\"memory\"}") > 0.0, "{}", stand.log());
        drop(held);
    });
    settled(&stand);
}

#[test]
fn a12_floods_of_frames_that_cost_nothing_end_the_connection() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/held", Reply::Never);
    let open = || frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&request("POST", "/held")));
    let floods: [(&str, &str, Vec<u8>); 8] = [
        ("PING", "pings", frame(wire::PING, 0, 0, b"12345678")),
        ("SETTINGS", "settings", frame(wire::SETTINGS, 0, 0, &[])),
        ("changing SETTINGS", "settings", frame(wire::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PRIORITY", "priorities", frame(wire::PRIORITY, 0, 5, &[0, 0, 0, 3, 16])),
        ("WINDOW_UPDATE", "window_updates", frame(wire::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", "unknown_frames", frame(0xfe, 0, 0, b"grease")),
        ("empty DATA", "tiny_frames", frame(wire::DATA, 0, 1, &[])),
        ("tiny DATA", "tiny_frames", frame(wire::DATA, 0, 1, b"x")),
    ];
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        let before = stand.resident_bytes();
        for (what, reason, one) in floods {
            let (attacker, counted) = (stand.nobody(), stand.abuses(reason));
            let (first, one) = (open(), one.repeat(100));
            let attack = async move {
                let mut raw = Raw::connect(&attacker).await;
                raw.send(&first).await;
                flood(raw, 1_000, |_| one.clone()).await
            };
            let (frames, ended) = bystander.during(what, attack).await;
            assert!(ended, "{what}: 100,000 frames were taken");
            assert_eq!(goaway(&frames).unwrap_or(CALM), CALM, "{what}");
            stand.until("it to be counted", |stand| stand.abuses(reason) > counted);
        }
        let grown = stand.resident_bytes().saturating_sub(before);
        assert!(grown < LEFTOVER_BYTES, "{grown} bytes more after the floods");
    });
    settled(&stand);
}

/// Asks for megabytes and reads nothing.
#[test]
fn a12_answers_that_nobody_reads_are_not_collected() {
    if !needs_spillway() {
        return;
    }
    let stand = Stand::start(true);
    stand.upstream.reply("/megabytes", Reply::Bytes(4 << 20));
    block_on(async {
        let bystander = Bystander::before(&stand).await;
        let before = stand.resident_bytes();
        let attacker = stand.nobody();
        let held = bystander
            .during("closed windows", async move {
                let mut held = Vec::new();
                for _ in 0..5 {
                    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
                    let mut raw = Raw::connect_with(&attacker, &[(4, 0)]).await;
                    for number in 0..20_u32 {
                        raw.send(&ask(number * 2 + 1, &request("GET", "/megabytes"))).await;
                    }
                    held.push(raw);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                held
            })
            .await;
        let grown = stand.resident_bytes().saturating_sub(before);
        let asked = stand.upstream.seen("/megabytes").len() * (4 << 20);
        eprintln!("closed windows: {asked} bytes asked for, {grown} more resident");
        assert!(grown < LEFTOVER_BYTES + asked / 4, "{asked} bytes asked for, {grown} more resident");
        drop(held);
    });
    settled(&stand);
}
