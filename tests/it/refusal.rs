//! What does a client get that is told to come back later, and can it turn that into something else?
//!
//! The policy here gives its victims one request per second, so that a refusal is a matter of asking twice.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, process::Stdio, sync::LazyLock};

use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{Answer, Body, Caller, Protocol, block_on, empty, get, send, with, within},
    cluster::Credential,
    spillway::{CLUSTER, Spillway, needs_spillway},
};

const POLICY: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: starved
lanes:
  telemetry: {identityRate: {perSecond: 1, burst: 1}}
rules:
- {name: starved, match: {users: ['starved-*']}, lane: telemetry}
";

static SPILLWAY: LazyLock<Spillway> = LazyLock::new(|| Spillway::start(&CLUSTER, Some(POLICY), |_| ()));

/// Attempts at getting something refused: the second is, unless the machine was so busy that a second went by.
const ATTEMPTS: usize = 20;

/// Somebody who may do everything, once a second.
fn starved(name: &str) -> Credential {
    let name = format!("starved-{name}");
    Credential::Certificate(CLUSTER.pki.client(&name, &name, &["platform-oncall"]))
}

/// Asks until refused.
async fn refused(caller: &Caller, protocol: Protocol, request: impl Fn() -> Request<Body>) -> Answer {
    let mut connection = caller.connect(protocol).await;
    for _ in 0..ATTEMPTS {
        let answer = connection.ask(request()).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            // Nobody is sent away for being sent away: the next request uses the same connection.
            assert_eq!(connection.ask(get("/version")).await.status, StatusCode::OK, "{}", SPILLWAY.log());
            return answer;
        }
    }
    panic!("expected 429 within {ATTEMPTS} requests; {}", SPILLWAY.log())
}

#[test]
fn a_refusal_says_why_and_when_to_come_back() {
    if !needs_spillway() {
        return;
    }
    let exec = "/api/v1/namespaces/default/pods/streams/exec?command=true&stdout=true";
    let upgrade = || with(with(empty(Method::POST, exec), "connection", "Upgrade"), "upgrade", "SPDY/3.1");
    let requests: [(&str, &[Protocol], &dyn Fn() -> Request<Body>); 4] = [
        ("GET", &Protocol::BOTH, &|| get("/api/v1/namespaces/default/pods")),
        ("POST", &Protocol::BOTH, &|| send(Method::POST, "/api/v1/namespaces/default/pods?dryRun=All", "{}")),
        ("WATCH", &Protocol::BOTH, &|| get("/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1")),
        ("UPGRADE", &[Protocol::Http1], &upgrade),
    ];
    let caller = SPILLWAY.caller(&starved("shape"));
    block_on(async {
        for (what, protocols, request) in requests {
            for &protocol in protocols {
                let answer = refused(&caller, protocol, request).await;
                assert_well_formed(&format!("{what} over {protocol:?}"), &answer);
            }
        }
    });
    let (status, metrics) = SPILLWAY.metrics_page("/metrics").unwrap();
    let shed = metrics.lines().find(|line| line.contains("shed") && line.contains(r#"lane="telemetry""#));
    assert!(status == 200 && shed.is_some(), "no refusal of the telemetry lane in the metrics:\n{metrics}");
}

fn assert_well_formed(what: &str, answer: &Answer) {
    let seconds: u64 =
        answer.header("retry-after").parse().unwrap_or_else(|e| panic!("{what}: Retry-After: {e}"));
    assert!((1..=60).contains(&seconds), "{what}: Retry-After: {seconds}");
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    assert_eq!(answer.header("cache-control"), "no-cache, private", "{what}");
    let number = answer.header("audit-id");
    assert_eq!(number.len(), 36, "{what}: Audit-ID: {number:?}");
    let decision = answer.header("x-spillway-decision");
    assert!(!decision.is_empty(), "{what}: no X-Spillway-Decision");

    let status = answer.json();
    let field = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(field("/kind"), "Status", "{what}: {status}");
    assert_eq!(field("/apiVersion"), "v1", "{what}: {status}");
    assert_eq!(field("/status"), "Failure", "{what}: {status}");
    assert_eq!(field("/reason"), "TooManyRequests", "{what}: {status}");
    assert_eq!(field("/code"), 429, "{what}: {status}");
    assert_eq!(field("/details/retryAfterSeconds"), seconds, "{what}: {status}");
    let message = field("/message");
    assert!(message.as_str().is_some_and(|text| text.contains(decision)), "{what}: {status}");
    // client-go drains this much to keep the connection.
    assert!(answer.body.len() < 2048, "{what}: {} bytes", answer.body.len());

    let log = fs::read_to_string(CLUSTER.audit_log().unwrap()).unwrap();
    assert!(!log.contains(number), "{what}: kube-apiserver has seen the refused request {number}");
}

#[test]
fn kubectl_comes_back_by_itself() {
    if !needs_spillway() {
        return;
    }
    let url = format!("https://{}", SPILLWAY.main);
    let kubeconfig = CLUSTER.kubeconfig_for(&starved("kubectl"), &url, &CLUSTER.paths.server_ca.cert);
    let kubectls: Vec<_> = (0..3)
        .map(|_| {
            let mut command = CLUSTER.kubectl_command(&kubeconfig);
            command.args(["get", "--raw", "/api/v1/namespaces/default/pods", "--request-timeout=60s"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for kubectl in kubectls {
        let output = kubectl.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}; {}", SPILLWAY.log());
    }
}

/// What must never be taken for requests: `/version` is answered to everybody and outside all lanes, so each one that
/// was understood shows in the answers.
const SMUGGLED: &str =
    "GET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\nGET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\n";

/// A refused POST whose body is itself requests, once as it comes from a hurried client (all at once), once from
/// one that sends its body only when it has seen the answer.
#[test]
fn a3_the_body_of_a_refused_request_is_never_a_request() {
    if !needs_spillway() {
        return;
    }
    let fixed = format!("Content-Length: {}\r\n\r\n", SMUGGLED.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n".to_owned();
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let padded = " ".repeat(600_000) + SMUGGLED;
    let long = format!("Content-Length: {}\r\n\r\n", padded.len());
    let cases =
        [("fixed", &fixed, SMUGGLED.to_owned()), ("chunked", &chunked, chunk), ("long", &long, padded)];
    block_on(async {
        for (what, framing, body) in cases {
            for (pause, continues) in
                [("at once", ""), ("after the answer", ""), ("after the answer", "Expect: 100-continue\r\n")]
            {
                let caller = SPILLWAY.caller(&starved(&format!("smuggler-{what}")));
                let head = format!("{POST}{continues}{framing}");
                smuggle(&format!("{what} {pause} {continues:?}"), &caller, &head, &body, pause == "at once")
                    .await;
            }
        }
    });
}

const POST: &str = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: kubernetes\r\nContent-Type: application/json\r\n";
const LAST: &str = "GET /readyz HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n";

async fn smuggle(what: &str, caller: &Caller, head: &str, body: &str, at_once: bool) {
    for _ in 0..ATTEMPTS {
        refused(caller, Protocol::Http2, || get("/api/v1/namespaces/default/pods")).await;
        let mut socket = caller.socket(Protocol::Http1).await;
        let first = if at_once { format!("{head}{body}") } else { head.to_owned() };
        // The server may answer and close while this is still being sent.
        let _ = within("the request to be taken", socket.write_all(first.as_bytes())).await;
        let mut answers = Vec::new();
        while !answers.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = within(&format!("{what}: the answer"), socket.read_buf(&mut answers)).await;
            assert!(
                read.is_ok_and(|bytes| bytes > 0),
                "{what}: closed without an answer; {}",
                SPILLWAY.log()
            );
        }
        if !answers.starts_with(b"HTTP/1.1 429 ") {
            // A second had gone by: this one was let in.
            continue;
        }
        let rest = if at_once { LAST.to_owned() } else { format!("{body}{LAST}") };
        let _ = within("the rest to be taken", socket.write_all(rest.as_bytes())).await;
        // Closed in the middle of what was sent is an end, too.
        let _ = within(&format!("{what}: the end"), socket.read_to_end(&mut answers)).await;
        let text = String::from_utf8_lossy(&answers);
        assert!(!text.contains("gitVersion"), "{what}: the body was executed:\n{text}\n{}", SPILLWAY.log());
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
        assert!(
            heads.len() == 1 || heads.len() == 2 && heads[1] == "HTTP/1.1 200 OK" && text.ends_with("ok"),
            "{what}: expected one answer, and at most one more to the request that follows, not {heads:?}:\n{text}"
        );
        return;
    }
    panic!("{what}: expected 429 within {ATTEMPTS} attempts; {}", SPILLWAY.log())
}
