//! What do floods leave behind: invented names, logs, metrics, seats, and spillway's own memory?
//!
//! Rows D8, D10, D11, D13, D14, B10 and E1 of the threats, on the built program.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{collections::BTreeSet, fs::OpenOptions, process::Command, time::Duration};

use http::{Method, Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    built::{Choice, PATIENCE, Stand},
    client::{Answer, Body, Caller, Protocol, block_on, empty, get, with, within},
    cluster::{Credential, canary},
    spillway::needs_spillway,
};

const PATH: &str = "/api/v1/namespaces/default/configmaps/asked";

/// Signs tokens of service accounts that nobody has ever heard of.
struct Mint(EncodingKey);

impl Mint {
    fn of(stand: &Stand) -> Self {
        let key = std::fs::read(&stand.paths.service_account.key).unwrap();
        Self(EncodingKey::from_ec_pem(&key).unwrap())
    }

    fn token(&self, namespace: &str, name: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let claims = json!({
            "iss": issuer,
            "aud": [issuer],
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": now,
            "nbf": now,
            "exp": now + 3_600,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u-1"}},
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.0).unwrap()
    }
}

fn bearing(request: Request<Body>, token: &str) -> Request<Body> {
    with(request, "authorization", &format!("Bearer {token}"))
}

fn anybody(stand: &Stand) -> Caller {
    stand.caller(&Credential::None)
}

/// Attack traffic: as many identities as asked for, each with a verb, a path and a user agent of its own invention.
async fn invent(stand: &Stand, identities: std::ops::Range<usize>) {
    const VERBS: [&str; 6] = ["GET", "PUT", "DELETE", "PATCH", "BREW", "PROPFIND"];
    let mint = Mint::of(stand);
    let mut tasks = JoinSet::new();
    let step = identities.len().div_ceil(4);
    for start in identities.clone().step_by(step) {
        let tokens: Vec<_> = (start..(start + step).min(identities.end))
            .map(|number| (number, mint.token(&format!("ns-{number}"), &format!("agent-{number}"))))
            .collect();
        let caller = anybody(stand);
        tasks.spawn(async move {
            let mut connection = caller.connect(Protocol::Http2).await;
            for (number, token) in tokens {
                let verb = Method::from_bytes(VERBS[number % VERBS.len()].as_bytes()).unwrap();
                let path = format!(
                    "/apis/group{number}.example/v{number}/namespaces/n{number}/things{number}/x{number}"
                );
                let request = with(empty(verb, &path), "user-agent", &format!("agent/{number}"));
                if connection.try_ask(bearing(request, &token)).await.is_err() {
                    connection = caller.connect(Protocol::Http2).await;
                }
            }
        });
    }
    within("the end of the flood", async { while tasks.join_next().await.transpose().unwrap().is_some() {} })
        .await;
}

#[test]
fn d8_d10_ten_thousand_invented_identities_make_no_series_and_little_memory() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        invent(&stand, 0..2_000).await;
        let (warm, series) =
            (stand.resident(), stand.page("/metrics").lines().filter(|l| !l.starts_with('#')).count());
        invent(&stand, 2_000..10_000).await;
        let grown = stand.resident().saturating_sub(warm);
        assert!(grown <= 24 << 20, "{grown} bytes more for 8,000 identities more");
        let page = stand.page("/metrics");
        let after = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!(after <= 5_000, "{after} series");
        assert!(after <= series + 200, "series grow with the traffic: {series}, then {after}");
        assert!(page.len() < 1 << 20, "a scrape of {} bytes", page.len());
        for word in ["agent-", "ns-", "group1", "things1", "agent/"] {
            assert!(!page.contains(word), "{word} stands in a label");
        }
        let status = stand.page("/status");
        assert!(status.len() < 64 << 10, "a status of {} bytes", status.len());
        // Whoever was there before is still served.
        let node = stand.caller(&stand.somebody("system:node:one", &["system:nodes"]));
        assert_eq!(
            node.ask(Protocol::Http2, get(PATH)).await.status,
            StatusCode::NOT_FOUND,
            "{}",
            stand.log()
        );
    });
}

/// One request a second for whoever comes to the telemetry lane.
const STARVED: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: starved
overload: {hold: {longest: 0}}
lanes:
  telemetry: {identityRate: {perSecond: 1, burst: 1}}
rules:
- {name: starved, match: {users: ['starved-*']}, lane: telemetry}
";

async fn storm(caller: &Caller, requests: usize) -> Vec<Answer> {
    let mut connection = caller.connect(Protocol::Http2).await;
    let mut answers = Vec::new();
    for _ in 0..requests {
        // Without it a node's certificate counts as borrowed.
        answers.push(connection.ask(with(get(PATH), "user-agent", "kubelet/v1.36.0")).await);
    }
    answers
}

#[test]
fn d11_a_flood_of_refusals_is_sampled_in_the_log_and_counted_in_full() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let choice = Choice { policy: Some(STARVED), ..Choice::default() };
        let stand = Stand::start_with(&choice, |_| ()).await;
        let caller = stand.caller(&stand.somebody("starved-one", &[]));
        let started = std::time::Instant::now();
        let answers = storm(&caller, 3_000).await;
        let seconds = started.elapsed().as_secs() + 2;
        let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count();
        assert!(refused > 2_000, "only {refused} were refused: this proves nothing");
        let counted = stand.metric("spillway_shed_total", &[r#"reason="identity_rate""#]);
        assert_eq!(counted, refused as f64, "the metric counts all");
        let suppressed =
            stand.until("spillway_log_lines_suppressed_total", &[], |lines| lines > 0.0) as usize;
        // The writer has a thread of its own; a page later it has long written what was logged before.
        let _ = stand.page("/metrics");
        let logged = stand.whole_log().lines().filter(|line| line.contains("identity_rate")).count();
        assert!(logged as u64 <= 20 * seconds, "{logged} lines within {seconds} s");
        assert_eq!(logged + suppressed, refused, "each is either in the log or counted as left out");

        // Break-glass: every refusal has its line.
        let mut connection = stand.operator().connect(Protocol::Http2).await;
        let mut refused = 0;
        for _ in 0..400 {
            refused += usize::from(connection.ask(get(PATH)).await.status == StatusCode::TOO_MANY_REQUESTS);
        }
        assert!(refused > 40, "only {refused} were refused: this proves nothing");
        let logged = crate::cluster::wait_for("all lines of break-glass", PATIENCE, || {
            let lines = stand.whole_log().lines().filter(|line| line.contains("lane_rate")).count();
            if lines >= refused { Ok(lines) } else { Err(format!("{lines} of {refused}")) }
        });
        assert_eq!(logged, refused);
    });
}

#[test]
fn d11_a_standard_error_that_stands_still_stops_nobody() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("stderr");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Held open for reading and writing, and never read: its 64 KiB are soon full.
        let held = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let choice = Choice { stderr: Some(&pipe), ..Choice::default() };
        let stand = Stand::start_with(&choice, |config| {
            config["logging"]["access"] = json!("All");
        })
        .await;
        let caller = stand.caller(&stand.somebody("system:node:one", &["system:nodes"]));
        let mut connection = caller.connect(Protocol::Http2).await;
        for _ in 0..12_000 {
            // No rate bounds it.
            assert_eq!(connection.ask(get("/version")).await.status, StatusCode::NOT_FOUND);
        }
        stand.until("spillway_log_lines_dropped_total", &[], |lines| lines > 0.0);
        let answer = stand.operator().ask(Protocol::Http2, get(PATH)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        drop(held);
    });
}

#[test]
fn d13_lanes_give_way_while_spillways_own_memory_is_short() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let ordinary = Stand::start(|_| ()).await;
        assert_eq!(ordinary.metric("spillway_memory_step", &[]), 0.0);
        let resident = ordinary.resident();
        let shown = ordinary.until("spillway_resident_bytes", &[], |bytes| bytes > 0.0);
        assert!((shown / resident as f64 - 1.0).abs() < 0.3, "{shown} is shown, {resident} are in use");
        // The same program with a limit that it exceeds from the start, or nearly.
        for (part, served, refused) in [
            (0.50, &["system:node:one"][..], &["agent", "robot", "ada"][..]),
            (1.2, &["system:node:one", "ada", "robot"], &["agent"]),
        ] {
            let limit = ((resident as f64 * part) as u64).max(33 << 20);
            let stand = Stand::start_with(&Choice { policy: Some(LANES), ..Choice::default() }, |config| {
                config["limits"] = json!({"memory": limit});
            })
            .await;
            if resident * 100 / limit < 80 {
                continue;
            }
            stand.until("spillway_memory_step", &[], |step| step > 0.0);
            // The server's own memory grows a little with its first requests, on a busy machine into the next step.
            let mut grown = 0;
            for name in served {
                let groups: &[&str] = if name.starts_with("system:node") { &["system:nodes"] } else { &[] };
                // A node's certificate without a kubelet behind it is somebody else's.
                let request = with(get(PATH), "user-agent", "kubelet/v1.36.0");
                let answer = stand.caller(&stand.somebody(name, groups)).ask(Protocol::Http2, request).await;
                if groups.is_empty() && stand.metric("spillway_memory_step", &[]) > 1.0 {
                    grown += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
                    continue;
                }
                assert_eq!(
                    answer.status,
                    StatusCode::NOT_FOUND,
                    "{name}: {}; {}",
                    answer.text(),
                    stand.log()
                );
            }
            for name in refused {
                let answer = stand.caller(&stand.somebody(name, &[])).ask(Protocol::Http2, get(PATH)).await;
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{name}: {}", answer.text());
                assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
            }
            let shed = stand.metric("spillway_shed_total", &[r#"reason="own_memory""#]);
            assert_eq!(shed, (refused.len() + grown) as f64, "{}", stand.log());
            assert!(stand.whole_log().contains("own memory is short"), "{}", stand.log());
            let answer = stand.operator().ask(Protocol::Http2, get(PATH)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "break-glass: {}", answer.text());
        }
    });
}

/// Three people in three lanes.
const LANES: &str = "
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: lanes
rules:
- {name: nodes, match: {users: ['system:node:*']}, lane: node-health}
- {name: people, match: {users: ['ada']}, lane: operators}
- {name: robots, match: {users: ['robot']}, lane: workload}
- {name: agents, match: {users: ['agent']}, lane: telemetry}
";

#[test]
fn d14_a_storm_of_retries_is_told_when_to_come_back_and_never_a_5xx() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let choice = Choice { policy: Some(STARVED), ..Choice::default() };
        let stand = Stand::start_with(&choice, |_| ()).await;
        let mut told = BTreeSet::new();
        for number in 0..8 {
            let caller = stand.caller(&stand.somebody(&format!("starved-{number}"), &[]));
            for answer in storm(&caller, 60).await {
                if answer.status == StatusCode::NOT_FOUND {
                    continue;
                }
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
                let seconds: u32 = answer.header("retry-after").parse().expect("whole seconds");
                assert!(seconds >= 1, "Retry-After: 0 is an invitation");
                told.insert(seconds);
            }
        }
        assert!(told.len() > 1, "everybody was told to come back in the same second: {told:?}");
    });
}

#[test]
fn b10_what_clients_call_themselves_cannot_forge_or_fill_the_log() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        for format in ["Json", "Text"] {
            let stand = Stand::start(|config| {
                config["logging"] = json!({"format": format, "level": "Trace", "access": "All"});
            })
            .await;
            let name = format!("evil\u{202e}{}", "n".repeat(600));
            let mint = Mint::of(&stand);
            let token = mint.token("default", "evil-\u{9b}2J-agent");
            canary::token(&token);
            let agents: [&[u8]; 4] = [b"\xff\xfe\x9b2J", "ü\u{202e}".as_bytes(), &[b'a'; 20_000], b"\ttab"];
            for agent in agents {
                let mut request = bearing(get("/api/v1/pods/%0a%1b%5b2J%e2%80%ae"), &token);
                request.headers_mut().insert("user-agent", http::HeaderValue::from_bytes(agent).unwrap());
                let _ = anybody(&stand).ask(Protocol::Http2, request).await;
                let long = get(&format!("/api/v1/namespaces/{}", "p".repeat(30_000)));
                let _ = stand.caller(&stand.somebody(&name[..60], &[])).ask(Protocol::Http1, long).await;
            }
            let log = crate::cluster::wait_for("the log's lines", PATIENCE, || {
                let log = stand.whole_log();
                if log.matches("HTTP").count() >= 8 { Ok(log) } else { Err(log) }
            });
            for (number, line) in log.lines().enumerate() {
                let hidden = line.chars().find(|&c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
                assert_eq!(hidden, None, "{format}, line {number}: {line}");
                assert!(line.len() < 4_096, "{format}, line {number} has {} bytes", line.len());
            }
            stand.keeps_secrets();
        }
    });
}

#[test]
fn e1_seats_come_back_from_requests_that_are_dropped_at_any_moment() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let stand = Stand::start(|_| ()).await;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut tasks = JoinSet::new();
        for number in 0..600 {
            // A different moment each: before the request is out, while it waits, while its answer comes.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let patience = Duration::from_micros(random >> 44 & 0x7fff);
            let who = ["system:node:one", "alice", "agent"][number % 3];
            let caller =
                stand.caller(&stand.somebody(who, if number % 3 == 0 { &["system:nodes"] } else { &[] }));
            let path = ["/large", "/hold", "/watch", "/api/v1/pods", "/api/v1/pods?watch=1"][number % 5];
            let protocol = Protocol::BOTH[number % 2];
            tasks.spawn(async move {
                let ask = async {
                    let mut connection = caller.try_connect(protocol).await.ok()?;
                    connection.try_ask(get(path)).await.ok()
                };
                let _ = tokio::time::timeout(patience + Duration::from_millis(3), ask).await;
            });
            if number % 20 == 19 {
                within("twenty clients", async { while tasks.join_next().await.is_some() {} }).await;
            }
        }
        stand.until("spillway_inflight_seats", &[], |seats| seats == 0.0);
        stand.until("spillway_lane_executing_requests", &[], |requests| requests == 0.0);
        stand.until("spillway_lane_inqueue_requests", &[], |requests| requests == 0.0);
        stand.until("spillway_watches_active", &[], |watches| watches == 0.0);
        stand.until("spillway_connections_active", &[r#"listener="main""#], |open| open == 0.0);
        let answer = stand.caller(&stand.somebody("alice", &[])).ask(Protocol::Http2, get(PATH)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", stand.log());
    });
}
