//! Does one client's behaviour cost another anything?
//!
//! A bad credential: kube-apiserver closes the whole HTTP/2 connection on which it has answered 401 or served an
//! anonymous request (its defence against rapid resets, on by default since 1.29). A proxy that shares upstream
//! connections would end everybody's watches with it. Here one client holds 200 watches and asks 100 times a second on
//! a single connection, while others present made-up tokens, foreign certificates, or nothing.
//!
//! Slowness: clients that ask for megabytes and do not read them share upstream connections with others.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And load has to
// keep a pace in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    client::{Caller, Connection, Events, Protocol, block_on, get, send, within},
    cluster::{Credential, wait_for},
    spillway::{CLUSTER, TARGET, Target},
};

/// The bystander's pace, and how often it asks: three seconds altogether.
const PACE: Duration = Duration::from_millis(10);
const QUESTIONS: usize = 300;

const NAMESPACE: &str = "bystander";

#[test]
fn no_watch_drops_while_others_fail_to_authenticate() {
    CLUSTER.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: asked, namespace: {NAMESPACE}}}"
    ));
    // A certificate, and then a token: the two ways in which a caller is named to kube-apiserver.
    let controllers = Credential::Certificate(CLUSTER.paths.controllers.clone());
    let token = Credential::Token(CLUSTER.token(NAMESPACE, "watcher", "1h"));
    CLUSTER.apply(&BINDING.replace("NAMESPACE", NAMESPACE));
    wait_for("the token's rights to take effect", Duration::from_secs(30), || {
        let watcher = format!("--as=system:serviceaccount:{NAMESPACE}:watcher");
        let asked = CLUSTER.kubectl(
            &CLUSTER.admin_kubeconfig(),
            &["auth", "can-i", "list", "configmaps", "-n", NAMESPACE, &watcher],
        );
        if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stdout).into()) }
    });
    for (round, who) in [controllers, token].iter().enumerate() {
        block_on(bystander_keeps_its_watches(&TARGET.caller(who), round));
    }
}

async fn bystander_keeps_its_watches(bystander: &Caller, round: usize) {
    let mut connection = bystander.connect(Protocol::Http2).await;
    let watches = open_watches(&mut connection, TARGET.watches_per_connection()).await;

    let over = Arc::new(AtomicBool::new(false));
    let disturbed = Arc::new(AtomicUsize::new(0));
    let mut others = JoinSet::new();
    for (who, wanted) in strangers() {
        for protocol in Protocol::BOTH {
            others.spawn(disturb(
                TARGET.caller(&who),
                protocol,
                wanted,
                Arc::clone(&over),
                Arc::clone(&disturbed),
            ));
        }
    }
    ask_at_a_steady_pace(&mut connection).await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = within("the other clients to finish", others.join_next()).await {
        ended.unwrap();
    }
    let disturbed = disturbed.load(Ordering::Relaxed);
    assert!(disturbed > 100, "only {disturbed} requests disturbed the bystander: this proves nothing");

    let marker = format!("marker-{round}");
    let create = ["create", "configmap", &marker, "-n", NAMESPACE];
    CLUSTER.kubectl_ok(&CLUSTER.admin_kubeconfig(), &create);
    let mut dropped = Vec::new();
    for (number, mut events) in watches.into_iter().enumerate() {
        match within(&format!("the marker on watch {number}"), events.next()).await {
            Ok(Some(event)) if event["object"]["metadata"]["name"] == marker.as_str() => {}
            Ok(Some(event)) => dropped.push(format!("{number}: an unexpected event: {event}")),
            Ok(None) => dropped.push(format!("{number}: ended")),
            Err(error) => dropped.push(format!("{number}: {error}")),
        }
    }
    assert!(dropped.is_empty(), "{} watches dropped: {dropped:?}; {}", dropped.len(), TARGET.log());
    assert!(connection.is_open(), "the bystander's connection was closed; {}", TARGET.log());
}

/// Clients that ask for much and read nothing share upstream connections with others of their lane and kind.
#[test]
fn slow_readers_do_not_stall_their_neighbours() {
    const SLOW: usize = 8;
    bulky_objects();
    let list = "/api/v1/namespaces/bulky/configmaps";
    let who = Credential::Certificate(CLUSTER.paths.controllers.clone());
    block_on(async {
        let mut slow = Vec::new();
        for query in ["", "?watch=1&resourceVersion=0"] {
            for _ in 0..SLOW {
                let mut connection = TARGET.caller(&who).connect(Protocol::Http2).await;
                let head = connection.start(get(&format!("{list}{query}"))).await;
                slow.push((head.unwrap_or_else(|e| panic!("{query}: {e}; {}", TARGET.log())), connection));
            }
        }
        let neighbour = async {
            let mut connection = TARGET.caller(&who).connect(Protocol::Http2).await;
            for _ in 0..20 {
                let answer = connection.ask(get(&format!("{list}/bulky-0"))).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", TARGET.log());
            }
            let all = connection.ask(get(list)).await;
            assert_eq!(all.json()["items"].as_array().map(Vec::len), Some(BULKY), "{}", TARGET.log());
            let watch = connection.start(get(&format!("{list}?watch=1&resourceVersion=0"))).await.unwrap();
            let mut events = Events::new(watch);
            for _ in 0..BULKY {
                assert!(events.next().await.unwrap().is_some(), "{}", TARGET.log());
            }
            all.json()["items"].clone()
        };
        let all = tokio::time::timeout(NEIGHBOUR, neighbour).await;
        let all =
            all.unwrap_or_else(|_| panic!("a neighbour was stalled for {NEIGHBOUR:?}; {}", TARGET.log()));

        // Whoever comes back to reading finds everything in place.
        for (head, connection) in slow.drain(..SLOW) {
            let body = within("a slow reader's list", head.into_body().collect()).await;
            let body =
                body.unwrap_or_else(|e| panic!("a slow reader's list: {e}; {}", TARGET.log())).to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert!(body["items"] == all, "a slow reader got another list");
            drop(connection);
        }
    });
}

/// Objects in namespace `bulky`, of 500 KiB each: far more than the windows and buffers of any connection.
const BULKY: usize = 16;

/// What takes a second or two when nobody is in the way.
const NEIGHBOUR: Duration = Duration::from_secs(30);

fn bulky_objects() {
    CLUSTER.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: bulky}");
    let filling = "x".repeat(500 << 10);
    block_on(async {
        let mut admin = Target::direct(&CLUSTER).caller(&CLUSTER.admin()).connect(Protocol::Http2).await;
        for number in 0..BULKY {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("bulky-{number}")}, "data": {"filling": filling},
            });
            let create = send(Method::POST, "/api/v1/namespaces/bulky/configmaps", object.to_string());
            assert_eq!(admin.ask(create).await.status, StatusCode::CREATED);
        }
    });
}

/// Watches that show nothing until something new happens.
async fn open_watches(connection: &mut Connection, count: usize) -> Vec<Events> {
    let list = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let now = connection.ask(get(&list)).await.json()["metadata"]["resourceVersion"].clone();
    let path = format!("{list}?watch=1&resourceVersion={}", now.as_str().unwrap());
    let mut watches = Vec::new();
    for number in 0..count {
        let head = connection.start(get(&path)).await;
        let head = head.unwrap_or_else(|e| panic!("watch {number} of {count}: {e}; {}", TARGET.log()));
        assert_eq!(head.status(), StatusCode::OK, "watch {number} of {count}; {}", TARGET.log());
        watches.push(Events::new(head));
    }
    watches
}

async fn ask_at_a_steady_pace(connection: &mut Connection) {
    let mut pace = tokio::time::interval(PACE);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/asked");
    for number in 0..QUESTIONS {
        pace.tick().await;
        let answer = connection.try_ask(get(&path)).await;
        let answer = answer.unwrap_or_else(|e| panic!("request {number}: {e}; {}", TARGET.log()));
        assert_eq!(answer.status, StatusCode::OK, "request {number}: {}; {}", answer.text(), TARGET.log());
    }
}

/// Who is nobody, and what they are told.
fn strangers() -> Vec<(Credential, StatusCode)> {
    vec![
        (Credential::None, StatusCode::FORBIDDEN),
        (Credential::Token("made-up".into()), StatusCode::UNAUTHORIZED),
        // Well formed, and signed by nobody.
        (Credential::Token("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln".into()), StatusCode::UNAUTHORIZED),
        (Credential::Certificate(CLUSTER.paths.wrong_admin.clone()), StatusCode::UNAUTHORIZED),
    ]
}

/// Asks as fast as the answers come, on a new connection whenever the server has closed the last.
async fn disturb(
    who: Caller,
    protocol: Protocol,
    wanted: StatusCode,
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) {
    let mut connection = who.connect(protocol).await;
    while !over.load(Ordering::Relaxed) {
        match connection.try_ask(get("/api/v1/pods")).await {
            Ok(answer) => {
                // One that is nobody may also be told to come back later: that, too, goes nowhere near the watches.
                let refused = answer.status == StatusCode::TOO_MANY_REQUESTS;
                assert!(answer.status == wanted || refused, "{}: {}", answer.status, answer.text());
                count.fetch_add(usize::from(!refused), Ordering::Relaxed);
            }
            Err(_) => connection = who.connect(protocol).await,
        }
    }
}

/// A service account may watch only what it was given.
const BINDING: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watcher, namespace: NAMESPACE}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watcher, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watcher}
subjects: [{kind: ServiceAccount, name: watcher, namespace: NAMESPACE}]
";
