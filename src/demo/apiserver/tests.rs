//! Does the model answer like kube-apiserver? Real connections, one small cluster a test.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::cluster::{self, LEASE_NAMESPACE, TELEMETRY_NAME, TELEMETRY_NAMESPACE};
use super::*;
use crate::demo::clients::connection::{ACCEPT_JSON, ACCEPT_TABLE, Call, Client, Credentials};
use crate::demo::pki::{Leaf, Pki};

const NODES: usize = 3;
const PODS_PER_NODE: usize = 2;
/// Plenty: what these tests ask for must not wait.
const MACHINE: Machine = Machine { cores: 64, memory_bytes: 1 << 40 };

struct Fixture {
    pki: Arc<Pki>,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        let pki = Pki::new().expect("keys");
        let store = cluster::build(NODES, PODS_PER_NODE).expect("a cluster");
        let server = Server::start(&pki, MACHINE, Arc::new(store)).expect("a server");
        Self { pki, server }
    }

    fn operator(&self) -> Client {
        let leaf = self.pki.client_ca.client("alice", Some("platform-oncall")).expect("a certificate");
        let credentials = Credentials::certificate(&self.pki, &leaf, "test").expect("credentials");
        Client::new(self.server.address(), credentials)
    }

    fn pod(&self, token: &str) -> Client {
        let tls = Credentials::tokens_only(&self.pki).expect("TLS");
        Client::new(self.server.address(), Credentials::token(&tls, token, "test"))
    }

    /// A request with headers of the test's own, over HTTP/1.1.
    async fn raw(&self, leaf: Option<&Leaf>, headers: HeaderMap, path: &str) -> (StatusCode, Value) {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.pki.serving_ca.der()).expect("a CA");
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match leaf {
            Some(leaf) => builder
                .with_client_auth_cert(vec![leaf.certificate.clone()], leaf.key())
                .expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        let socket = tokio::net::TcpStream::connect(self.server.address()).await.expect("a connection");
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(self.server.address().ip().into(), socket).await.expect("TLS");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::new(Full::new(Bytes::new()));
        if path.ends_with("selfsubjectreviews") {
            *request.method_mut() = Method::POST;
        }
        *request.uri_mut() = path.parse().expect("a path");
        *request.headers_mut() = headers;
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        (status, json_of(answer.into_body()).await)
    }
}

async fn json_of(body: Incoming) -> Value {
    let bytes = body.collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))
}

async fn ask(client: &Client, call: Call<'_>) -> (StatusCode, Value) {
    let answer = client.send(call).await.expect("an answer");
    let status = answer.status();
    (status, json_of(answer.into_body()).await)
}

fn get(path: &str) -> Call<'_> {
    Call::get(path, ACCEPT_JSON)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn a_list_is_whole_or_in_pages() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let (status, all) = ask(&client, get("/api/v1/pods")).await;
    assert_eq!((status, &all["kind"]), (StatusCode::OK, &json!("PodList")));
    assert_eq!(names(&all).len(), NODES * PODS_PER_NODE);

    let (_, first) = ask(&client, get("/api/v1/pods?limit=4")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let path = format!("/api/v1/pods?limit=4&continue={token}");
    let (_, rest) = ask(&client, get(&path)).await;
    assert_eq!(rest["metadata"]["continue"], Value::Null);
    assert_eq!([names(&first), names(&rest)].concat(), names(&all));
}

#[tokio::test]
async fn selectors_choose_by_node_and_name() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let (_, of_node) = ask(&client, get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn001&limit=1")).await;
    assert_eq!(names(&of_node).len(), PODS_PER_NODE);
    let (_, one) = ask(&client, get("/api/v1/nodes?fieldSelector=metadata.name%3Dn002")).await;
    assert_eq!(names(&one), ["n002"]);
    let (status, refused) = ask(&client, get("/api/v1/pods?labelSelector=app%20in%20(a)")).await;
    assert_eq!((status, &refused["reason"]), (StatusCode::BAD_REQUEST, &json!("BadRequest")));
}

#[tokio::test]
async fn what_is_missing_is_a_status() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let (status, body) = ask(&client, get("/apis/apps/v1/namespaces/monitoring/daemonsets/none")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "daemonsets.apps \"none\" not found", "reason": "NotFound", "code": 404,
    });
    assert_eq!(body, expected);
    let (status, body) = ask(&client, get("/openapi/v2")).await;
    assert_eq!((status, &body["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")));
}

#[tokio::test]
async fn kubectl_gets_its_table() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let (_, table) = ask(&client, Call::get("/api/v1/nodes?limit=500", ACCEPT_TABLE)).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| &column["name"])
        .collect();
    assert_eq!(columns, ["Name", "Status", "Roles", "Age", "Version"]);
    assert_eq!(table["rows"][1]["cells"], json!(["n001", "Ready", "<none>", "40d", "v1.34.0"]));
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let (_, table) = ask(&client, Call::get("/api/v1/namespaces/shop-00/pods", ACCEPT_TABLE)).await;
    assert_eq!(table["rows"][0]["cells"][1], "1/1");
}

#[tokio::test]
async fn objects_are_created_changed_and_deleted() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let collection = "/api/v1/namespaces/default/configmaps";
    let object = "/api/v1/namespaces/default/configmaps/c";
    let with_body = |method: Method, path: &'static str, body: Value| Call {
        method,
        path,
        accept: ACCEPT_JSON,
        body: body.to_string().into(),
    };
    let body = json!({"metadata": {"name": "c"}, "data": {"k": "1"}});
    let (status, created) = ask(&client, with_body(Method::POST, collection, body.clone())).await;
    assert_eq!((status, &created["kind"]), (StatusCode::CREATED, &json!("ConfigMap")));
    let (status, again) = ask(&client, with_body(Method::POST, collection, body)).await;
    assert_eq!((status, &again["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")));

    let mut changed = created.clone();
    changed["data"]["k"] = json!("2");
    let (status, _) = ask(&client, with_body(Method::PUT, object, changed.clone())).await;
    assert_eq!(status, StatusCode::OK);
    let (status, stale) = ask(&client, with_body(Method::PUT, object, changed)).await;
    assert_eq!((status, &stale["reason"]), (StatusCode::CONFLICT, &json!("Conflict")), "an old version");

    let (status, deleted) = ask(&client, Call::delete(object)).await;
    assert_eq!((status, &deleted["status"]), (StatusCode::OK, &json!("Success")));
    assert_eq!(deleted["details"]["uid"], created["metadata"]["uid"]);
    assert_eq!(ask(&client, get(object)).await.0, StatusCode::NOT_FOUND);
}

/// The next event of a watch.
async fn event(body: &mut Incoming) -> Value {
    let frame = body.frame().await.expect("an event").expect("a whole stream");
    serde_json::from_slice(&frame.into_data().expect("data")).expect("one JSON line")
}

#[tokio::test]
async fn a_watch_continues_from_its_version() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let (_, list) = ask(&client, get("/apis/coordination.k8s.io/v1/leases")).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path =
        format!("/apis/coordination.k8s.io/v1/leases?watch=1&resourceVersion={version}&timeoutSeconds=1");
    let mut watch = client.send(get(&path)).await.expect("a head at once").into_body();
    let store = fixture.server.store();
    let renewed = cluster::lease("n001", crate::clock::wall());
    store.replace(resources::Kind::LEASES, LEASE_NAMESPACE, "n001", renewed).expect("there");
    let seen = event(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["metadata"]["name"]), (&json!("MODIFIED"), &json!("n001")));
    let rest = watch.collect().await.expect("timeoutSeconds ends a watch cleanly");
    assert!(rest.to_bytes().is_empty());
}

#[tokio::test]
async fn a_watch_without_version_begins_with_what_is_there() {
    let fixture = Fixture::new();
    let client = fixture.operator();
    let path = "/api/v1/nodes?watch=true&fieldSelector=metadata.name=n002";
    let mut watch = client.send(get(path)).await.expect("a head").into_body();
    let seen = event(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("n002")));
    fixture.server.store().delete(resources::Kind::NODES, "", "n001").expect("there");
    fixture.server.store().delete(resources::Kind::NODES, "", "n002").expect("there");
    let seen = event(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("n002")));
}

#[tokio::test]
async fn callers_are_who_their_credentials_say() {
    let fixture = Fixture::new();
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let user = |answer: &(StatusCode, Value)| answer.1["status"]["userInfo"].clone();

    let leaf = fixture.pki.client_ca.client("alice", Some("platform-oncall")).expect("a certificate");
    let alice = fixture.raw(Some(&leaf), HeaderMap::new(), review).await;
    assert_eq!(user(&alice)["username"], "alice");
    assert_eq!(user(&alice)["groups"], json!(["platform-oncall", "system:authenticated"]));

    let mut asserted = HeaderMap::new();
    asserted.insert("x-remote-user", HeaderValue::from_static("bob"));
    asserted.append("x-remote-group", HeaderValue::from_static("a"));
    asserted.append("x-remote-group", HeaderValue::from_static("b"));
    let front_proxy = fixture.raw(Some(&fixture.pki.front_proxy), asserted.clone(), review).await;
    assert_eq!(user(&front_proxy)["username"], "bob");
    assert_eq!(user(&front_proxy)["groups"], json!(["a", "b", "system:authenticated"]));
    let spoofed = fixture.raw(Some(&leaf), asserted, review).await;
    assert_eq!(user(&spoofed)["username"], "alice", "only the front proxy may assert");
    let (status, _) = fixture.raw(Some(&fixture.pki.front_proxy), HeaderMap::new(), review).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the front proxy is nobody itself");

    let token = fixture.pki.tokens.token(TELEMETRY_NAMESPACE, TELEMETRY_NAME, "n001").expect("a token");
    let mut bearer = HeaderMap::new();
    let value = format!("Bearer {token}").parse().expect("a header value");
    bearer.insert("authorization", value);
    let agent = fixture.raw(None, bearer, review).await;
    assert_eq!(user(&agent)["username"], "system:serviceaccount:monitoring:otel-collector");
    assert_eq!(user(&agent)["extra"][crate::identity::EXTRA_NODE_NAME], json!(["n001"]));
}

#[tokio::test]
async fn bad_and_missing_credentials_cost_the_connection_but_not_the_answer() {
    let fixture = Fixture::new();
    let client = fixture.pod("made.up.token");
    let (status, body) = ask(&client, get("/api/v1/pods")).await;
    assert_eq!((status, &body["reason"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    let (status, _) = ask(&client, get("/livez")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a bad token is refused everywhere, over a new connection");
    let nobody = HeaderMap::new;
    assert_eq!(fixture.raw(None, nobody(), "/readyz").await, (StatusCode::OK, json!("ok")));
    assert_eq!(fixture.raw(None, nobody(), "/version").await.0, StatusCode::OK);
    assert_eq!(fixture.raw(None, nobody(), "/api/v1/pods").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_full_server_refuses_reads_as_kube_apiserver_does() {
    let pki = Pki::new().expect("keys");
    let store = cluster::build(NODES, PODS_PER_NODE).expect("a cluster");
    // Each LIST of this machine takes hours: what is in flight stays there.
    let slow = Machine { cores: 1, memory_bytes: 1 };
    let server = Server::start(&pki, slow, Arc::new(store)).expect("a server");
    let fixture = Fixture { pki, server };
    let clients: Vec<Client> = (0..5).map(|_| fixture.operator()).collect();
    let mut lists = tokio::task::JoinSet::new();
    for client in clients {
        let client = Arc::new(client);
        for _ in 0..90 {
            let client = Arc::clone(&client);
            lists.spawn(async move { client.call(get("/api/v1/pods")).await });
        }
    }
    // 450 requests for 400 places.
    let first = lists.join_next().await.expect("some answer").expect("no panic").expect("an answer");
    assert_eq!(first.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(first.retry_after, Some(Duration::from_secs(1)));
    drop(fixture);
}
