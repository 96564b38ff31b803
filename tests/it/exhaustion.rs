//! Can clients use up what spillway has: time, connections, descriptors, buffers?
//!
//! Rows D1 to D7 of the threats. Each attack runs against the built program with limits small enough to be met, while
//! somebody else is served, and is over without a trace when the attackers are gone.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
// And what an idle connection costs is worth a line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::print_stdout)]

use std::{
    process::{Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    apiserver::WATCHED,
    built::{Choice, PATIENCE, Stand},
    client::{Caller, Connection, Protocol, block_on, get, send, with, within},
    cluster::wait_for,
    spillway::needs_spillway,
};

/// Answered by the fake apiserver with 404, which is an answer like any other.
const PATH: &str = "/api/v1/namespaces/default/configmaps/asked";

/// Somebody who asks ten times a second while others misbehave, and must be answered every time.
struct Bystander {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Bystander {
    async fn start(caller: Caller) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut connection = caller.connect(Protocol::Http2).await;
        let (until, count) = (Arc::clone(&over), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let answer = connection.ask(with(get(PATH), "user-agent", "kubelet/v1.36.0")).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "the bystander: {}", answer.text());
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { over, answered, task }
    }

    /// Ends it; it was answered throughout.
    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        within("the bystander's end", self.task).await.expect("it was answered every time");
        assert!(self.answered.load(Ordering::Relaxed) > 0, "it never asked");
    }
}

fn node(stand: &Stand) -> Caller {
    stand.caller(&stand.somebody("system:node:one", &["system:nodes"]))
}

/// Descriptors come back to what they were, or a few more: pools keep what they opened.
fn come_back(stand: &Stand, base: usize) {
    wait_for("descriptors to come back", PATIENCE, || {
        let now = stand.descriptors();
        if now <= base + 8 { Ok(()) } else { Err(format!("{now} are open, {base} were; {}", stand.log())) }
    });
}

#[test]
fn d1_slow_clients_are_cut_and_others_are_served() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|config| {
            config["timeouts"] =
                json!({"firstByte": "1s", "handshake": "2s", "firstRequest": "2s", "headers": "2s"});
            config["limits"] = json!({"connectionsPerSource": 10_000});
        })
        .await;
        let bystander = Bystander::start(node(&stand)).await;
        let base = stand.descriptors();
        let url = format!("https://{}/api/v1/pods", stand.main);
        // More by hand: SPILLWAY_TEST_SLOW_CLIENTS=2000.
        let clients = std::env::var("SPILLWAY_TEST_SLOW_CLIENTS").unwrap_or_else(|_| "200".into());
        // Headers, bodies and ranges that never end, and answers that are hardly read.
        for mode in [
            &["-H", "-i", "1"][..],
            &["-B", "-i", "1", "-s", "8192", "-t", "POST"],
            &["-R", "-a", "10", "-b", "3000"],
            &["-X", "-r", "100", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3"],
        ] {
            let mut attack = Command::new("slowhttptest");
            attack.args(mode).args(["-c", &clients, "-r", "200", "-l", "20", "-p", "3", "-u", &url]);
            let attack = attack.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let attack = attack.expect("slowhttptest is installed (Debian: slowhttptest)");
            let said = tokio::task::spawn_blocking(|| attack.wait_with_output()).await.unwrap().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            // Its own view of the last seconds, by a probe connection.
            let available = said.rsplit("service available:").next().unwrap_or_default();
            let available = available.lines().next().unwrap_or_default();
            assert!(available.contains("YES"), "{mode:?}: {said}");
            come_back(&stand, base);
        }
        let cut = stand.metric("spillway_connections_ended_total", &[r#"reason="request""#]);
        assert!(cut >= 100.0, "{cut} connections were cut for a slow first request");
        bystander.end().await;
    });
}

#[test]
fn d1_a_connection_is_cut_in_every_phase_in_which_it_can_stand_still() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|config| {
            config["timeouts"] = json!({"firstByte": "300ms", "handshake": "300ms", "firstRequest": "300ms"});
        })
        .await;
        let base = stand.descriptors();
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(stand.main).await.unwrap());
            let mut half = TcpStream::connect(stand.main).await.unwrap();
            half.write_all(&[0x16, 3, 1, 2]).await.unwrap();
            silent.push(half);
        }
        for socket in &mut silent {
            let _ = within("the end of a silent connection", socket.read_to_end(&mut Vec::new())).await;
        }
        for reason in ["first_byte", "handshake"] {
            let label = format!("reason=\"{reason}\"");
            stand.until("spillway_connections_ended_total", &[&label], |count| count >= 50.0);
        }
        let caller = node(&stand);
        for protocol in Protocol::BOTH {
            let mut socket = caller.socket(protocol).await;
            let _ = within("the end of an idle session", socket.read_to_end(&mut Vec::new())).await;
        }
        stand.until("spillway_connections_ended_total", &[r#"reason="request""#], |count| count >= 2.0);
        drop(silent);
        come_back(&stand, base);
    });
}

/// A body that gives `bytes` every `every`, for ever.
fn dripping(bytes: usize, every: Duration) -> Request<crate::client::Body> {
    let drops = futures_util::stream::unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((Ok(Frame::data(Bytes::from(vec![b'x'; bytes]))), ()))
    });
    let body = StreamBody::new(drops).boxed_unsync();
    Request::builder().method(Method::POST).uri("/sink").body(body).unwrap()
}

#[test]
fn d1_a_body_of_a_few_bytes_a_second_is_cut_and_one_that_makes_progress_is_not() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let caller = node(&stand);
        let slow = Protocol::BOTH.map(|protocol| {
            let caller = caller.clone();
            tokio::spawn(async move {
                let mut connection = caller.connect(protocol).await;
                connection.try_ask(dripping(10, Duration::from_millis(500))).await
            })
        });
        let steady = tokio::spawn({
            let caller = caller.clone();
            async move {
                let mut connection = caller.connect(Protocol::Http2).await;
                connection.start(dripping(600, Duration::from_millis(500))).await.map(|_| ())
            }
        });
        for slow in slow {
            // An answer or a reset: either way it is over, long before the client would have ended it.
            if let Ok(answer) = within("the end of a slow body", slow).await.unwrap() {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
            }
        }
        assert!(!steady.is_finished(), "a body that makes progress was cut");
        steady.abort();
        stand.until("spillway_inflight_seats", &[], |seats| seats == 0.0);
    });
}

#[test]
fn d2_readers_that_stand_still_cost_a_bounded_part_of_memory_and_no_neighbour() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let bystander = Bystander::start(node(&stand)).await;
        let before = stand.resident();
        let (mut connections, mut answers) = (Vec::new(), Vec::new());
        for number in 0..4 {
            let who = stand.somebody(&format!("system:node:reader-{number}"), &["system:nodes"]);
            let mut connection = stand.caller(&who).connect(Protocol::Http2).await;
            for _ in 0..8 {
                // A gigabyte each, of which nobody reads a byte.
                let answer = connection.start(get("/zeros")).await.unwrap();
                if answer.status() == StatusCode::OK {
                    answers.push(answer);
                }
            }
            connections.push(connection);
        }
        assert!(answers.len() >= 8, "only {} answers began; {}", answers.len(), stand.log());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let grown = stand.resident().saturating_sub(before);
        // The stream's window towards the apiserver, hyper's send buffer, and what the allocator rounds up: not the gigabyte.
        let each = grown / answers.len() as u64;
        println!("d2: {each} bytes for each reader that stands still");
        assert!(each <= 1 << 20, "{grown} bytes for {} readers that stand still", answers.len());
        bystander.end().await;
        drop((answers, connections));
        stand.until("spillway_inflight_seats", &[], |seats| seats == 0.0);
        stand.until("spillway_upstream_streams", &[], |streams| streams <= 4.0);
    });
}

/// No rate bounds it.
const VERSION: &str = "/version";

/// Bytes of memory for each more of something, from sizes at two numbers of them.
struct Slope {
    number: usize,
    resident: u64,
}

impl Slope {
    fn at(stand: &Stand, number: usize) -> Self {
        Self { number, resident: stand.resident() }
    }

    fn each(&self, stand: &Stand, number: usize) -> u64 {
        stand.resident().saturating_sub(self.resident) / (number - self.number) as u64
    }
}

/// What one more connection costs that has been answered once, or that holds one watch.
async fn idle(protocol: Protocol, path: &str) -> u64 {
    const WARM: usize = 500;
    const ALL: usize = 2_000;
    let stand = Stand::start(|config| {
        let all = ALL + 10;
        config["limits"] =
            json!({"connections": all, "connectionsPerSource": all, "connectionsPerUser": all});
    })
    .await;
    // As many as their rates need.
    let nodes: Vec<_> = (0..100)
        .map(|number| stand.caller(&stand.somebody(&format!("system:node:n{number}"), &["system:nodes"])))
        .collect();
    let mut connections: Vec<Connection> = Vec::new();
    let mut watches = Vec::new();
    let mut slope = None;
    let start = stand.resident();
    for number in 0..ALL {
        if number == WARM {
            slope = Some(Slope::at(&stand, WARM));
        }
        let mut connection = nodes[number % nodes.len()].connect(protocol).await;
        let request = with(get(path), "user-agent", "kubelet/v1.36.0");
        let answer = connection.start(request).await.unwrap();
        if path == VERSION {
            answer.into_body().collect().await.unwrap();
        } else {
            assert_eq!(answer.status(), StatusCode::OK, "watch {number}; {}", stand.log());
            watches.push(answer);
        }
        connections.push(connection);
    }
    let each = slope.expect("it was warm").each(&stand, ALL);
    println!("d3: {protocol:?} {path}: {each} bytes each");
    // And it is given back, once there is traffic again: else whoever is refused for memory would stay so.
    let most = stand.resident();
    drop((watches, connections));
    stand.until("spillway_connections_active", &[r#"listener="main""#], |open| open == 0.0);
    let mut rounds = 0;
    while stand.resident() > (start + most) / 2 {
        rounds += 1;
        assert!(rounds <= 20, "{} bytes of {most} are still in use, {start} were before", stand.resident());
        for caller in &nodes {
            caller.ask(protocol, get(VERSION)).await;
        }
    }
    each
}

#[test]
fn d3_an_idle_connection_takes_little_memory_and_the_cap_on_them_holds() {
    if !needs_spillway() {
        return;
    }
    let watch = format!("{WATCHED}?watch=1&fieldSelector=spec.nodeName%3Dn");
    block_on(async {
        for (protocol, path, most) in [
            (Protocol::Http1, VERSION, 48 << 10),
            (Protocol::Http2, VERSION, 64 << 10),
            (Protocol::Http2, &watch, 96 << 10),
        ] {
            let each = idle(protocol, path).await;
            assert!(each <= most, "{each} bytes for each connection over {protocol:?} with {path}");
        }

        let stand = Stand::start(|config| {
            config["limits"] = json!({"connections": 100, "connectionsPerSource": 100});
        })
        .await;
        let mut sockets = Vec::new();
        for _ in 0..200 {
            sockets.push(TcpStream::connect(stand.main).await.unwrap());
        }
        stand.until("spillway_connections_ended_total", &[r#"reason="full""#], |count| count >= 100.0);
        assert!(stand.metric("spillway_connections_active", &[r#"listener="main""#]) <= 100.0);
        let answer = stand.operator().ask(Protocol::Http2, get(PATH)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "break-glass has connections of its own");
    });
}

#[test]
fn d4_break_glass_is_served_when_clients_have_taken_every_descriptor_they_may() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let choice = Choice { before: "ulimit -n 256", ..Choice::default() };
        let stand = Stand::start_with(&choice, |config| {
            config["timeouts"] = json!({"firstByte": "60s"});
        })
        .await;
        assert!(stand.whole_log().contains("limits.connections is lowered"), "{}", stand.log());
        let base = stand.descriptors();
        let mut sockets = Vec::new();
        for _ in 0..400 {
            sockets.push(TcpStream::connect(stand.main).await.unwrap());
        }
        stand.until("spillway_connections_ended_total", &[r#"reason="full""#], |count| count >= 300.0);
        let (open, limit) =
            (stand.metric("spillway_descriptors_open", &[]), stand.metric("spillway_descriptors_limit", &[]));
        assert_eq!(limit, 256.0);
        assert!(open <= limit - 64.0, "{open} of {limit} are in use: the reserve is gone");
        assert_eq!(stand.metric("spillway_connections_ended_total", &[r#"reason="accept""#]), 0.0);
        for _ in 0..20 {
            let answer = stand.operator().ask(Protocol::Http2, get(PATH)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}; {}", answer.text(), stand.log());
        }
        drop(sockets);
        come_back(&stand, base);
        let answer = node(&stand).ask(Protocol::Http2, get(PATH)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "it recovers alone; {}", stand.log());
    });
}

#[test]
fn d4_without_descriptors_accept_waits_instead_of_spinning_and_recovers_alone() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let mut kept = node(&stand).connect(Protocol::Http2).await;
        assert_eq!(kept.ask(get(PATH)).await.status, StatusCode::NOT_FOUND);
        let limit = |limit: &str| {
            let mut command = Command::new("prlimit");
            command.args(["--pid", &stand.id().to_string(), &format!("--nofile={limit}")]);
            assert!(command.status().unwrap().success());
        };
        // Nobody may open anything any more, and 50 clients knock.
        limit("16:");
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(TcpStream::connect(stand.main).await.unwrap());
        }
        let before = stand.cpu();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let used = stand.cpu() - before;
        assert!(used < Duration::from_millis(1_500), "{used:?} of CPU in 3 s: accept spins; {}", stand.log());
        assert_eq!(kept.ask(get(PATH)).await.status, StatusCode::NOT_FOUND, "who is inside is served");
        limit("4096:");
        let answer = node(&stand).ask(Protocol::Http2, get(PATH)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "it recovers alone; {}", stand.log());
        let failed = stand.metric("spillway_connections_ended_total", &[r#"reason="accept""#]);
        assert!((1.0..100.0).contains(&failed), "{failed} failures of accept");
    });
}

#[test]
fn d4_silent_connections_to_the_metrics_listener_keep_neither_descriptors_nor_probes() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let base = stand.descriptors();
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(stand.metrics).await.unwrap());
        }
        assert!(stand.page("/livez").contains("ok"));
        let taken = stand.descriptors().saturating_sub(base);
        assert!(taken <= 40, "{taken} descriptors are held by silent connections");
        // The oldest had to go.
        let oldest = within("the end of the oldest", silent[0].read_to_end(&mut Vec::new())).await;
        assert!(oldest.is_err() || oldest.is_ok_and(|bytes| bytes == 0));
    });
}

#[test]
fn d5_one_user_cannot_take_all_connections() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|config| {
            config["limits"] = json!({"connectionsPerUser": 5});
        })
        .await;
        let robot = stand.caller(&stand.somebody("robot", &["platform-oncall"]));
        let mut held = Vec::new();
        for _ in 0..5 {
            let mut connection = robot.connect(Protocol::Http2).await;
            assert_eq!(connection.ask(get(PATH)).await.status, StatusCode::NOT_FOUND);
            held.push(connection);
        }
        let turned_away = async {
            let mut connection = robot.try_connect(Protocol::Http2).await?;
            connection.try_ask(get(PATH)).await.map_err(|error| error.to_string())
        };
        assert!(turned_away.await.is_err(), "a sixth connection was served");
        stand.until("spillway_connections_ended_total", &[r#"reason="user""#], |count| count >= 1.0);
        let person = stand.caller(&stand.somebody("ada", &["platform-oncall"]));
        assert_eq!(person.ask(Protocol::Http2, get(PATH)).await.status, StatusCode::NOT_FOUND);
        drop(held);
        stand.until("spillway_connections_active", &[r#"listener="main""#], |open| open == 0.0);
        assert_eq!(robot.ask(Protocol::Http2, get(PATH)).await.status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn d6_large_heads_are_refused_with_the_status_that_says_so() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let caller = node(&stand);
        let long = |bytes: usize| format!("{PATH}?labelSelector={}", "x".repeat(bytes));
        let many = |count: usize| {
            let mut request = get(PATH);
            for number in 0..count {
                let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
                request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
            }
            request
        };
        let wide = || {
            let mut request = get(PATH);
            request.headers_mut().insert("x-wide", "x".repeat(1 << 20).parse().unwrap());
            request
        };
        for protocol in Protocol::BOTH {
            let status = |request| {
                let caller = caller.clone();
                async move {
                    let mut connection = caller.connect(protocol).await;
                    connection.try_ask(request).await.map(|answer| answer.status.as_u16())
                }
            };
            assert_eq!(status(get(&long(8_000))).await.unwrap(), 404, "a long selector passes");
            for (what, request) in [("fields", many(500)), ("head", wide())] {
                // The server may close before the client has sent everything: no answer is as good.
                let answer = status(request).await;
                assert!(
                    answer.as_ref().map_or(true, |status| *status == 431),
                    "{protocol:?} {what}: {answer:?}"
                );
            }
            let answer = status(many(101)).await;
            assert!(answer.as_ref().is_ok_and(|status| *status == 431), "{protocol:?}: {answer:?}");
        }
        // By hand, because no client library sends such a target.
        let mut socket = caller.socket(Protocol::Http1).await;
        let _ =
            socket.write_all(format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", long(65_600)).as_bytes()).await;
        let mut answer = Vec::new();
        let _ = within("an answer to a long target", socket.read_to_end(&mut answer)).await;
        let head = String::from_utf8_lossy(&answer);
        assert!(head.starts_with("HTTP/1.1 414") || head.starts_with("HTTP/1.1 431"), "{head:?}");
        let seen = stand.apiserver.connections().iter().flat_map(|seen| seen.paths()).collect::<Vec<_>>();
        assert!(seen.iter().all(|path| path.len() < 9_000), "a refused request reached the apiserver");
    });
}

#[test]
fn d7_a_gigabyte_passes_both_ways_and_memory_stays_flat() {
    if !needs_spillway() {
        return;
    }
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 4 << 10;
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let who = stand.caller(&stand.somebody("alice", &["platform-oncall"]));
        let mut connection = who.connect(Protocol::Http2).await;
        let before = stand.resident();
        let mut body = connection.start(get("/zeros")).await.unwrap().into_body();
        let (mut read, mut most) = (0_u64, 0);
        while let Some(frame) = within("the next frame", body.frame()).await {
            let before = read >> 26;
            read += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
            if read >> 26 != before {
                most = most.max(stand.resident());
            }
        }
        assert_eq!(read, 1 << 30);
        // A quarter of that upwards, labelled as something that would explode if anybody unpacked it.
        let piece = Bytes::from(vec![0; PIECE]);
        let pieces = futures_util::stream::iter((0..PIECES).map(move |_| Ok(Frame::data(piece.clone()))));
        let upload = Request::builder().method(Method::POST).uri("/sink").header("content-encoding", "gzip");
        let upload = upload.body(StreamBody::new(pieces).boxed_unsync()).unwrap();
        let answer = connection.ask(upload).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, (PIECE * PIECES).to_string()));
        let grown = most.max(stand.resident()).saturating_sub(before);
        assert!(grown <= 24 << 20, "{grown} bytes more while a gigabyte passed");
        let answer = connection.ask(send(Method::POST, "/sink", "not gzip at all")).await;
        assert_eq!(answer.text(), "15", "bodies are not looked into");
    });
}
