//! Can a request mean one thing to spillway and another to kube-apiserver?
//!
//! A corpus of hostile requests goes through the built program to an upstream that writes down what it sees. For each
//! one: it never arrives, or it arrives once and clean; nothing that was hidden in it ever arrives; the next client is
//! served as if nothing had been. Tests of single rows of the threat table stand in `rows` and `tunnels`.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod corpus;
mod corpus2;
mod haproxy;
mod rows;
pub(crate) mod stand;
mod tunnels;
pub(crate) mod upstream;
pub(crate) mod wire;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::{
    corpus::{Case, Fate},
    corpus2::Case2,
    stand::Stand,
    upstream::Seen,
    wire::Raw,
};
use crate::{
    client::{Caller, Protocol, block_on, get, within},
    spillway::needs_spillway,
};

/// How many there are at least.
const CORPUS_MIN: usize = 300;

#[test]
fn a1_a2_a5_a7_b1_b2_b3_the_corpus_over_http1_to_both_kinds_of_upstream() {
    if !needs_spillway() {
        return;
    }
    let cases = corpus::http1();
    assert!(cases.len() >= CORPUS_MIN, "{} cases", cases.len());
    for http2 in [true, false] {
        let stand = Stand::start(http2);
        block_on(play(&stand, &cases, |case| case.fate, |case| &case.name, send_http1));
    }
}

#[test]
fn a5_a6_a7_b1_b2_the_corpus_over_http2_to_both_kinds_of_upstream() {
    if !needs_spillway() {
        return;
    }
    let cases = corpus2::http2();
    for http2 in [true, false] {
        let stand = Stand::start(http2);
        block_on(play(&stand, &cases, |case| case.fate, |case| &case.name, send_http2));
    }
}

/// What the client saw of its request.
#[derive(Debug)]
enum Answer {
    /// The connection or stream ended without one.
    None,
    Status(u16),
    /// One whose status this test cannot read.
    Some,
}

impl Answer {
    /// Whether this is a way to be refused.
    fn refuses(&self) -> bool {
        match self {
            Self::None => true,
            Self::Status(status) => [400, 405, 414, 431, 501, 505].contains(status),
            Self::Some => false,
        }
    }
}

/// Sends each case, then an innocent request; compares what the upstream has seen with what it must have.
async fn play<C>(
    stand: &Stand,
    cases: &[C],
    fate: impl Fn(&C) -> Fate,
    name: impl Fn(&C) -> &str,
    send: impl AsyncFn(&Caller, &C, &str) -> Answer,
) {
    let alice = stand.alice();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let target = format!("/api/v1/namespaces/case-{number}/configmaps");
        let (forwarded, seen) = (stand.forwarded(), stand.upstream.count());
        let answer = send(&alice, case, &target).await;
        let arrived = stand.upstream.seen(&format!("/case-{number}/"));
        let fate = fate(case);
        let (sent, counted) = (stand.forwarded() - forwarded, stand.upstream.count() - seen);
        let right = match fate {
            Fate::Refused => answer.refuses() && counted == 0 && sent == 0,
            Fate::Cleaned => arrived.len() == 1 && counted == 1 && sent == 1 && is_clean(&arrived[0]),
            // One that is over before its head was sent on is let in, and not seen.
            Fate::BrokenOff => {
                answer.refuses() && counted <= sent && sent <= 1 && arrived.iter().all(|seen| !seen.complete)
            }
        };
        if !right {
            let arrived: Vec<_> = arrived.iter().map(Seen::line).collect();
            wrong.push(format!(
                "{}: {answer:?}, {fate:?} expected, {sent} sent on, {counted} seen, {arrived:#?}",
                name(case)
            ));
        }
        let protocol = Protocol::BOTH[number % 2];
        let innocent = alice.ask(protocol, get(&format!("/innocent/{number}"))).await;
        assert_eq!(
            innocent.status,
            StatusCode::OK,
            "after {}: {}; {}",
            name(case),
            innocent.text(),
            stand.log()
        );
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}\n{}", wrong.len(), cases.len(), wrong.join("\n"), stand.log());
    assert_eq!(
        stand.upstream.findings(),
        Vec::<String>::new(),
        "what the upstream could not read in one way"
    );
    assert_eq!(stand.upstream.seen("smuggled").len(), 0, "what was hidden in other requests");
    let innocents = stand.upstream.seen("/innocent/");
    assert_eq!(innocents.len(), cases.len());
    assert!(innocents.iter().all(|seen| seen.complete && seen.body.is_empty() && is_clean(seen)));
}

/// Whether nothing of a client's claims is left, and alice is who she is.
fn is_clean(seen: &Seen) -> bool {
    const OURS: [&str; 3] =
        ["x-remote-user", "x-remote-group", "x-remote-extra-authentication.kubernetes.io%2fcredential-id"];
    const NEVER: [&str; 9] = [
        "connection",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "x-real-ip",
        "forwarded",
    ];
    let names = || seen.headers.iter().map(|(name, _)| name.as_str());
    let trailers = || seen.trailers.iter().map(|(name, _)| name.as_str());
    seen.values("x-remote-user") == ["alice"]
        && seen.values("x-remote-group") == ["platform-oncall", "platform-viewers"]
        && names().filter(|name| name.starts_with("x-remote-")).all(|name| OURS.contains(&name))
        && names().all(|name| !NEVER.contains(&name) && !name.contains('_'))
        && trailers().all(|name| name == "x-checksum")
        && seen.values("audit-id").len() == 1
        && seen.values("x-forwarded-for") == ["127.0.0.1"]
}

async fn send_http1(caller: &Caller, case: &Case, target: &str) -> Answer {
    let mut socket = caller.socket(Protocol::Http1).await;
    // The server may answer and close while this is still being sent.
    let bytes = case.bytes(target);
    let (mut read, mut write) = tokio::io::split(&mut socket);
    let mut back = Vec::new();
    let sending = async {
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
    };
    let end = format!("an end of {}", case.name);
    let reading = within(&end, read.read_to_end(&mut back));
    let _ = tokio::join!(sending, reading);
    match back.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()) {
        Some(status) => Answer::Status(status),
        None => Answer::None,
    }
}

async fn send_http2(caller: &Caller, case: &Case2, target: &str) -> Answer {
    let mut raw = Raw::connect(caller).await;
    raw.send(&case.bytes(1, target)).await;
    let frames = raw.end_of(1).await;
    match frames.iter().find(|frame| frame.kind == wire::HEADERS) {
        Some(head) => head.status().map_or(Answer::Some, Answer::Status),
        None => Answer::None,
    }
}
