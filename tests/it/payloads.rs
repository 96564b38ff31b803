//! Does every kind of payload pass as it is?
//!
//! The same request goes to kube-apiserver directly and through spillway, over HTTP/1.1 and over HTTP/2: status, headers
//! and body must be the same. Objects lie in a namespace of the test, and LISTs are of one exact resourceVersion, so
//! that even compressed bytes can be compared.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{Answer, Body, Caller, Events, Protocol, block_on, empty, get, send, with, within},
    cluster::Credential,
    spillway::{CLUSTER, TARGET, Target},
};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// kube-apiserver's limit for the body of a write.
const BODY_MAX: usize = 3 << 20;

static DIRECT: LazyLock<Target> = LazyLock::new(|| Target::direct(&CLUSTER));

/// Enough ConfigMaps to be worth compressing (from 128 KiB on), and the resourceVersion at which all exist.
static LISTED: LazyLock<String> = LazyLock::new(|| {
    let mut list = json!({"apiVersion": "v1", "kind": "List", "items": []});
    let filling = "what is repeated can be compressed ".repeat(120);
    for number in 0..60 {
        list["items"].as_array_mut().unwrap().push(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("c{number:02}"), "namespace": "listed"},
            "data": {"filling": filling, "number": number.to_string()},
        }));
    }
    namespace("listed");
    CLUSTER.apply(&list.to_string());
    let last = ["get", "configmap", "c59", "-n", "listed", "-o", "jsonpath={.metadata.resourceVersion}"];
    CLUSTER.kubectl_ok(&CLUSTER.admin_kubeconfig(), &last)
});

fn namespace(name: &str) {
    CLUSTER.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}"));
}

/// The LIST whose answer never changes.
fn list_path() -> String {
    format!("/api/v1/namespaces/listed/configmaps?resourceVersion={}&resourceVersionMatch=Exact", *LISTED)
}

/// Both ways to the server, for one person.
struct Both {
    direct: Caller,
    through: Caller,
}

impl Both {
    fn of(who: &Credential) -> Self {
        Self { direct: DIRECT.caller(who), through: TARGET.caller(who) }
    }

    /// Asks both ways over both protocols, all at once; returns one answer, which is like the others.
    async fn same(&self, what: &str, request: impl Fn() -> Request<Body>) -> Answer {
        let [h1, h2] = Protocol::BOTH;
        let (direct1, through1, direct2, through2) = tokio::join!(
            Box::pin(self.direct.ask(h1, request())),
            Box::pin(self.through.ask(h1, request())),
            Box::pin(self.direct.ask(h2, request())),
            Box::pin(self.through.ask(h2, request())),
        );
        assert_same(&format!("{what} over HTTP/1.1"), &through1, &direct1);
        assert_same(&format!("{what} over HTTP/2"), &through2, &direct2);
        through2
    }
}

fn assert_same(what: &str, through: &Answer, direct: &Answer) {
    let short = |answer: &Answer| answer.text().chars().take(2_000).collect::<String>();
    assert_eq!(
        through.status,
        direct.status,
        "{what}: status through spillway (left) and directly, with {:?} and {:?}; {}",
        short(through),
        short(direct),
        TARGET.log()
    );
    assert_eq!(
        comparable(&through.headers),
        comparable(&direct.headers),
        "{what}: headers through spillway (left)"
    );
    assert!(
        stable(&through.body) == stable(&direct.body),
        "{what}: the body through spillway is not the direct one:\n{}\n{}",
        short(through),
        short(direct)
    );
    assert_eq!(through.trailers, direct.trailers, "{what}: trailers through spillway (left)");
    let numbered = |answer: &Answer| !answer.header("audit-id").is_empty();
    assert!(numbered(through) || !numbered(direct), "{what}: no Audit-ID");
}

/// Headers that must be the same: all but the time, the request's number, and those of the connection. A length may
/// be missing where the protocols frame a body differently, but what is said must be true.
fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    const OWN: [&str; 5] = ["date", "audit-id", "connection", "transfer-encoding", "content-length"];
    let mut pairs: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    pairs.sort();
    pairs
}

/// The body without what differs from one dry run to the next.
fn stable(body: &Bytes) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for key in ["uid", "creationTimestamp", "resourceVersion", "managedFields"] {
            metadata.remove(key);
        }
    }
    Bytes::from(value.to_string())
}

/// A ConfigMap of exactly `length` bytes: blanks between JSON values cost nothing but their transport.
fn padded(name: &str, length: usize) -> Bytes {
    let head = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}"#);
    Bytes::from(format!("{head}{}}}", " ".repeat(length - head.len() - 1)))
}

#[test]
fn lists_in_every_encoding() {
    let path = list_path();
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        let plain = alice.same("a JSON LIST", || get(&path)).await;
        assert_eq!(plain.json()["items"].as_array().map(Vec::len), Some(60));

        let gzip = alice.same("a gzip LIST", || with(get(&path), "accept-encoding", "gzip")).await;
        assert_eq!(gzip.header("content-encoding"), "gzip");
        assert!(
            gzip.body.starts_with(&[0x1f, 0x8b]) && gzip.body.len() * 4 < plain.body.len(),
            "not compressed"
        );

        let protobuf = alice.same("a protobuf LIST", || with(get(&path), "accept", PROTOBUF)).await;
        assert_eq!(protobuf.header("content-type"), PROTOBUF);
        assert!(protobuf.body.starts_with(b"k8s\0"));

        let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
        let paged = format!("{path}&limit=7");
        let table = alice.same("a page as a table", || with(get(&paged), "accept", table)).await;
        assert_eq!(table.json()["kind"], "Table");
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        alice.same("metadata alone", || with(get(&path), "accept", metadata)).await;
        alice.same("an encoding nobody knows", || with(get(&path), "accept", "text/csv")).await;
    });
}

#[test]
fn watches_in_every_encoding() {
    namespace("rewatched");
    let admin = CLUSTER.admin_kubeconfig();
    let version = ["get", "namespace", "rewatched", "-o", "jsonpath={.metadata.resourceVersion}"];
    let version = CLUSTER.kubectl_ok(&admin, &version);
    for step in 0..5 {
        let value = format!("--from-literal=step={step}");
        CLUSTER.kubectl_ok(&admin, &["create", "configmap", &format!("w{step}"), "-n", "rewatched", &value]);
    }
    // The past is replayed, then the server ends the stream: the whole of it can be compared.
    let path =
        format!("/api/v1/namespaces/rewatched/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=1");
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        let plain = alice.same("a JSON watch", || get(&path)).await;
        assert_eq!(plain.text().lines().count(), 5);
        let protobuf = alice.same("a protobuf watch", || with(get(&path), "accept", PROTOBUF)).await;
        assert_eq!(protobuf.header("content-type"), "application/vnd.kubernetes.protobuf;stream=watch");
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        alice.same("a watch of metadata", || with(get(&path), "accept", metadata)).await;
        let old = "/api/v1/namespaces/rewatched/configmaps?watch=1&resourceVersion=1&timeoutSeconds=1";
        alice.same("a watch of a version long gone", || get(old)).await;
    });
}

#[test]
fn a_silent_watch_has_its_head_at_once_and_each_event_as_it_comes() {
    namespace("silent");
    let admin = CLUSTER.admin_kubeconfig();
    block_on(async {
        for protocol in Protocol::BOTH {
            let mut connection = TARGET.caller(&CLUSTER.alice()).connect(protocol).await;
            let watch = "/api/v1/namespaces/silent/configmaps?watch=1&fieldSelector=metadata.name%21%3Dkube-root-ca.crt";
            let head = connection.start(get(watch)).await.unwrap_or_else(|e| panic!("no head: {e}"));
            let mut events = Events::new(head);
            for kind in ["create", "delete"] {
                let name = format!("{protocol:?}").to_lowercase();
                CLUSTER.kubectl_ok(&admin, &[kind, "configmap", &name, "-n", "silent"]);
                let event = within("the event", events.next()).await.unwrap().unwrap();
                assert_eq!(event["object"]["metadata"]["name"], name.as_str(), "{event}");
            }
        }
    });
}

#[test]
fn large_and_small_bodies() {
    namespace("bodies");
    let create = "/api/v1/namespaces/bodies/configmaps?dryRun=All";
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        let post = |body: Bytes| move || send(Method::POST, create, body.clone());
        let made = alice.same("3 MiB", post(padded("large", BODY_MAX))).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let refused = alice.same("3 MiB and one byte", post(padded("larger", BODY_MAX + 1))).await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        alice.same("no body", post(Bytes::new())).await;
        alice.same("a broken body", post(Bytes::from_static(b"{\"kind\": "))).await;
        let patch = r#"{"data": {"a": "b"}}"#;
        let path = "/api/v1/namespaces/listed/configmaps/c00?dryRun=All";
        LazyLock::force(&LISTED);
        let merge = || {
            let mut request = send(Method::PATCH, path, patch);
            request
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/merge-patch+json"));
            request
        };
        alice.same("a patch", merge).await;
        alice.same("a patch without its type", || send(Method::PATCH, path, patch)).await;
        alice
            .same("a DELETE with a body", || {
                send(Method::DELETE, path, r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}"#)
            })
            .await;
    });
}

#[test]
fn a_body_of_unknown_length_with_trailers() {
    namespace("chunks");
    let request = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("17"));
        let whole = padded("chunked", 100_000);
        let frames = (0..whole.len()).step_by(30_000).map(|at| whole.slice(at..whole.len().min(at + 30_000)));
        let frames: Vec<_> = frames.map(Frame::data).chain([Frame::trailers(trailers)]).map(Ok).collect();
        let request =
            Request::builder().method(Method::POST).uri("/api/v1/namespaces/chunks/configmaps?dryRun=All");
        let request = request.header("content-type", "application/json").header("trailer", "x-checksum");
        request.body(StreamBody::new(stream::iter(frames)).boxed_unsync()).unwrap()
    };
    block_on(async {
        let made = Both::of(&CLUSTER.alice()).same("chunks with trailers", request).await;
        assert_eq!(made.status, StatusCode::CREATED);
    });
}

#[test]
fn heads_have_no_bodies() {
    let paths =
        ["/version", "/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/nowhere", "/no/such/path"];
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        for path in paths {
            let answer = alice.same(&format!("HEAD {path}"), || empty(Method::HEAD, path)).await;
            assert!(answer.body.is_empty(), "{path}");
        }
        // What follows on the same connection is not taken for a body, nor the other way round.
        for protocol in Protocol::BOTH {
            let mut connection = TARGET.caller(&CLUSTER.alice()).connect(protocol).await;
            for path in paths {
                assert!(connection.ask(empty(Method::HEAD, path)).await.body.is_empty());
                assert!(!connection.ask(get(path)).await.body.is_empty());
            }
        }
    });
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        for (path, accept) in [
            ("/openapi/v3/api/v1", "application/json"),
            ("/openapi/v3/apis/apps/v1", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"),
        ] {
            let first = alice.same(path, || with(get(path), "accept", accept)).await;
            let etag = first.header("etag").to_owned();
            assert!(first.status == StatusCode::OK && etag.len() > 2, "{:?}", first.headers);
            let conditional = || with(with(get(path), "accept", accept), "if-none-match", &etag);
            let second = alice.same("a conditional GET", conditional).await;
            assert_eq!((second.status, second.body.len()), (StatusCode::NOT_MODIFIED, 0));
        }
    });
}

/// `/api/v1/watch`, of which kube-apiserver says that it cannot tell what is meant (500), is left out: spillway cannot
/// tell either, and says 400 itself.
#[test]
fn paths_are_not_tidied_up() {
    let paths = [
        "/api//v1/pods",
        "/api/v1/namespaces/default/pods/",
        "/api/v1/namespaces/a%2Fb/pods",
        "/api/v1/./pods",
        "/api/v1/namespaces/default/../pods",
        "/api/v1/pods?watch=0&limit=1&limit=2",
        "/api/v1/pods?labelSelector=a%3Db%2Cc",
        "/api/v1/pods?limit=abc",
        "/api/v1/pods?;=;&x=%zz",
        "/apis/nobody.example.com/v1/things",
        "/api/v1/namespaces/default/pods/none/log",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/",
    ];
    block_on(async {
        let alice = Both::of(&CLUSTER.alice());
        for path in paths {
            alice.same(path, || get(path)).await;
        }
        let long = format!(
            "/api/v1/namespaces/default/pods?labelSelector=a+in+({})",
            "value,".repeat(4_000) + "end"
        );
        alice.same("a long query", || get(&long)).await;
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    namespace("continue");
    block_on(async {
        let body = padded("later", 50_000);
        let length = body.len();
        for caller in [DIRECT.caller(&CLUSTER.alice()), TARGET.caller(&CLUSTER.alice())] {
            let mut socket = caller.socket(Protocol::Http1).await;
            let head = format!(
                "POST /api/v1/namespaces/continue/configmaps?dryRun=All HTTP/1.1\r\nHost: kubernetes\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\
                 Connection: close\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut first = [0; 25];
            within("100 Continue", socket.read_exact(&mut first)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&first), "HTTP/1.1 100 Continue\r\n\r\n");
            socket.write_all(&body).await.unwrap();
            let mut answer = Vec::new();
            within("the answer", socket.read_to_end(&mut answer)).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 201 Created\r\n"), "{}", String::from_utf8_lossy(&answer));
        }
    });
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let stranger = Credential::Certificate(CLUSTER.pki.client("no-rights", "nobody-in-particular", &[]));
    let pod =
        format!("/api/v1/namespaces/default/pods/{}/exec?command=true&stdout=true", crate::cluster::FAKE_POD);
    let none = "/api/v1/namespaces/default/pods/nobody-made-this/exec?command=true&stdout=true";
    block_on(async {
        for (what, who, method, path, protocol, status) in [
            ("no such pod, WebSocket", CLUSTER.alice(), Method::GET, none, "websocket", 404),
            ("no such pod, SPDY", CLUSTER.alice(), Method::POST, none, "SPDY/3.1", 404),
            ("no rights, WebSocket", stranger.clone(), Method::GET, &pod, "websocket", 403),
            ("no rights, SPDY", stranger, Method::POST, &pod, "SPDY/3.1", 403),
            ("a bad token", Credential::Token("made-up".into()), Method::GET, &pod, "websocket", 401),
            ("nothing to upgrade", CLUSTER.alice(), Method::GET, "/version", "websocket", 200),
        ] {
            let request = || {
                let request =
                    with(with(empty(method.clone(), path), "connection", "Upgrade"), "upgrade", protocol);
                let request = with(
                    with(request, "sec-websocket-version", "13"),
                    "sec-websocket-key",
                    "AAAAAAAAAAAAAAAAAAAAAA==",
                );
                let request = with(request, "sec-websocket-protocol", "v5.channel.k8s.io");
                with(request, "x-stream-protocol-version", "v4.channel.k8s.io")
            };
            let both = Both::of(&who);
            let direct = both.direct.ask(Protocol::Http1, request()).await;
            let mut connection = both.through.connect(Protocol::Http1).await;
            let through = connection.ask(request()).await;
            assert_same(what, &through, &direct);
            assert_eq!(through.status, status, "{what}");
            // It is no tunnel: the connection is either closed or speaks HTTP.
            if let Ok(next) = connection.try_ask(get("/version")).await {
                assert!(next.text().contains("gitVersion") || next.status == 401, "{what}: {}", next.text());
            }
        }
    });
}

#[test]
fn a_watch_over_a_websocket() {
    LazyLock::force(&LISTED);
    let path =
        format!("{}&watch=1&timeoutSeconds=1", "/api/v1/namespaces/listed/configmaps?resourceVersion=0");
    block_on(async {
        for caller in [DIRECT.caller(&CLUSTER.alice()), TARGET.caller(&CLUSTER.alice())] {
            let mut socket = caller.socket(Protocol::Http1).await;
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: kubernetes\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: https://kubernetes\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            // The server ends the stream without a TLS farewell; what counts is what came before.
            let _ = within("the end of the stream", socket.read_to_end(&mut all)).await;
            let text = String::from_utf8_lossy(&all);
            assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
            assert_eq!(text.matches(r#"{"type":"ADDED""#).count(), 60, "{} bytes", all.len());
        }
    });
}
