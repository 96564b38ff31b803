//! Does spillway read awkward request lines as the real kube-apiserver does, and send them on byte for byte?
//!
//! One test a row of the threat model's table C. Each target is sent over HTTP/1.1 (written by hand) and HTTP/2, to
//! kube-apiserver and to spillway: the status must be equal, spillway's access log tells verb and lane, and two upstreams
//! that only write down what they get tell the request line. How every other target is read is compared in `oracle`.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::Duration,
};

use http::Response;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use spillway::request::{DecodedPath, RequestInfo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    client::{Caller, Protocol, block_on, get, within},
    cluster::{Credential, wait_for},
    spillway::{CLUSTER, Spillway, Target, needs_spillway},
};

/// For a log line to be written, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// In front of the real kube-apiserver, and logs every request.
static SPILLWAY: LazyLock<Spillway> = LazyLock::new(|| {
    Spillway::start(&CLUSTER, None, |config| {
        config["logging"] = json!({"format": "Json", "level": "Info", "access": "All"});
    })
});

/// In front of upstreams that write request lines down, one for each protocol.
static RECORDED: LazyLock<[(Recorder, Spillway); 2]> = LazyLock::new(|| {
    Protocol::BOTH.map(|protocol| {
        let recorder = Recorder::start(protocol);
        let url = format!("https://{}", recorder.address);
        let spillway =
            Spillway::start(&CLUSTER, None, |config| config["upstreams"]["servers"][0]["url"] = json!(url));
        (recorder, spillway)
    })
});

/// An upstream that answers everything with "ok" and keeps the request lines.
struct Recorder {
    address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start(protocol: Protocol) -> Self {
        let pair = &CLUSTER.paths.serving;
        let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().map(Result::unwrap).collect();
        let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
            .unwrap();
        // Probes and unverified callers come over HTTP/1.1 in any case.
        let offered: &[&str] = if protocol == Protocol::Http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
        tls.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, listener) = (Arc::clone(&lines), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        // It ends with the process, as the cluster does.
        thread::spawn(move || {
            block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(socket).await else { return };
                        match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => record_http2(stream, &kept).await,
                            _ => record_http1(stream, &kept).await,
                        }
                    });
                }
            });
        });
        Self { address, lines }
    }

    fn count(&self, line: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|kept| *kept == line).count()
    }
}

async fn record_http1(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    kept: &Mutex<Vec<String>>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let line = head.split("\r\n").next().unwrap_or_default();
        kept.lock().unwrap().push(line.to_owned());
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn record_http2(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    kept: &Mutex<Vec<String>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        // As an HTTP/1.1 request line, to compare both alike.
        kept.lock().unwrap().push(format!("{} {target} HTTP/1.1", request.method()));
        if let Ok(mut body) = respond.send_response(Response::new(()), false) {
            _ = body.send_data("ok".into(), true);
        }
    }
}

/// A message's head as text; `None` at the end of the stream.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(head.len() < HEAD_BYTES_MAX, "a head without an end");
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The status of an answer to GET; its body is not waited for, because a watch has no end.
async fn status(caller: &Caller, protocol: Protocol, target: &str) -> u16 {
    match protocol {
        Protocol::Http1 => {
            within(target, async {
                let mut stream = caller.socket(protocol).await;
                let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let head = read_head(&mut stream).await.expect("an answer");
                head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
            })
            .await
        }
        Protocol::Http2 => {
            let mut connection = caller.connect(protocol).await;
            connection.start(get(target)).await.expect("an answer").status().as_u16()
        }
    }
}

/// What a row of the table promises.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The verb that kube-apiserver sees.
    verb: &'static str,
    status: u16,
    /// The path means nothing: lowest rank of whoever is known.
    odd: bool,
}

const LIST: Row = Row { verb: "list", status: 200, odd: false };
const WATCH: Row = Row { verb: "watch", status: 200, odd: false };
const NOTHING: Row = Row { verb: "get", status: 404, odd: true };

/// Lane and verb of the last request of `user` that spillway has logged, once there are `count`.
fn logged(user: &str, count: usize) -> (String, String) {
    wait_for("the access log", PATIENCE, || {
        let log = SPILLWAY.whole_log();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_user: Vec<_> = events.filter_map(|event| fields(&event, user)).collect();
        match of_user.last() {
            Some(last) if of_user.len() >= count => Ok(last.clone()),
            _ => Err(format!("{} of {count} requests; {}", of_user.len(), SPILLWAY.log())),
        }
    })
}

fn fields(event: &Value, user: &str) -> Option<(String, String)> {
    let fields = event.get("fields").unwrap_or(event);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    (text("user").as_deref() == Some(user)).then_some(())?;
    Some((text("lane")?, text("verb")?))
}

/// The status once it is no refusal of spillway's: a proxy that has just begun lets the lowest lanes in last. `asked`
/// counts the requests.
fn let_in(spillway: &Spillway, caller: &Caller, protocol: Protocol, target: &str, asked: &mut usize) -> u16 {
    wait_for(&format!("{target} to be let in over {protocol:?}"), PATIENCE, || {
        *asked += 1;
        match block_on(status(caller, protocol, target)) {
            429 => Err(spillway.log()),
            status => Ok(status),
        }
    })
}

/// Sends each target everywhere. `user` must be nobody else's.
fn check(user: &str, targets: &[&str], row: Row) {
    if !needs_spillway() {
        return;
    }
    let who = Credential::Certificate(CLUSTER.pki.client(user, user, &["system:masters"]));
    let direct = Target::direct(&CLUSTER).caller(&who);
    let spillway = SPILLWAY.caller(&who);
    let mut asked = 0;
    let mut admitted = |protocol, target: &str| {
        let status = let_in(&SPILLWAY, &spillway, protocol, target, &mut asked);
        let (lane, verb) = logged(user, asked);
        (status, lane, verb)
    };
    let (_, own_lane, _) = admitted(Protocol::Http2, "/api/v1/namespaces");
    assert_ne!(own_lane, "unknown", "the caller is known");
    for (target, protocol) in targets.iter().flat_map(|target| Protocol::BOTH.map(|how| (*target, how))) {
        let expected = block_on(status(&direct, protocol, target));
        assert_eq!(expected, row.status, "kube-apiserver itself, {target} over {protocol:?}");
        let (status, lane, verb) = admitted(protocol, target);
        assert_eq!(status, expected, "{target} over {protocol:?}");
        assert_eq!(verb, row.verb, "{target} over {protocol:?}");
        assert_eq!(lane == "unknown", row.odd, "{target} is in {lane}, /api/v1/namespaces in {own_lane}");
    }
    passes_unchanged(&who, targets);
}

/// The request line that leaves is the one that came, whatever protocol it came and leaves by.
fn passes_unchanged(who: &Credential, targets: &[&str]) {
    for (recorder, spillway) in RECORDED.iter() {
        let caller = spillway.caller(who);
        for (target, protocol) in targets.iter().flat_map(|target| Protocol::BOTH.map(|how| (target, how))) {
            let line = format!("GET {target} HTTP/1.1");
            let before = recorder.count(&line);
            assert_eq!(
                let_in(spillway, &caller, protocol, target, &mut 0),
                200,
                "{target} over {protocol:?}"
            );
            assert_eq!(recorder.count(&line), before + 1, "{line} over {protocol:?} is not what arrived");
        }
    }
}

/// Whether spillway takes a GET of `target` for a stream of this subresource.
fn streams(target: &str, subresource: &str) {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = DecodedPath::new(path).unwrap();
    let info = RequestInfo::new("GET", &path, query).unwrap();
    assert_eq!(info.subresource, subresource, "{target}");
    assert!(info.is_long_running(), "{target}");
}

#[test]
fn c1_an_escaped_slash_before_exec_is_an_exec() {
    let targets = [
        "/api/v1/namespaces/default/pods/no-such-pod%2Fexec?command=true",
        "/api/v1/namespaces/default/pods%2fno-such-pod%2f%65xec?command=true",
    ];
    targets.iter().for_each(|target| streams(target, "exec"));
    check("c1", &targets, Row { verb: "get", status: 404, odd: false });
}

#[test]
fn c2_an_escaped_slash_before_a_collection_is_its_list() {
    check(
        "c2",
        &["/api/v1%2Fnamespaces", "/api%2Fv1/namespaces", "/api/v1%2fnamespaces%2fdefault%2fpods"],
        LIST,
    );
}

#[test]
fn c3_escaped_letters_are_letters() {
    check("c3", &["/api/v1/%70ods", "/%61%70%69/v1/pods", "/api/v1/%6e%61%6Despaces?l%69mit=%35"], LIST);
}

#[test]
fn c4_empty_and_dot_segments_rank_lowest_and_pass_unchanged() {
    let targets = [
        "/api/v1//pods/.",
        "/api/v1/./pods",
        "/api/v1/../v1/pods",
        "/api/v1/%2e%2e/pods",
        "/api/v1/namespaces/a%2F..%2Fx/pods",
    ];
    // As resources they have verbs of their own; what counts is that nobody is lifted.
    for (number, target) in targets.iter().enumerate() {
        let path = DecodedPath::new(target).unwrap();
        let verb = RequestInfo::new("GET", &path, None).unwrap().verb.as_str();
        check(&format!("c4-{number}"), &[target], Row { verb, ..NOTHING });
    }
    check("c4-paths", &["/healthz/../api/v1/pods", "//api/v1/pods/x"], NOTHING);
    check("c4-case", &["/API/v1/pods", "/Healthz"], Row { odd: false, ..NOTHING });
}

#[test]
fn c5_a_trailing_slash_on_a_collection_changes_nothing() {
    check("c5", &["/api/v1/pods/", "/api/v1/namespaces/default/pods/"], LIST);
}

#[test]
fn c6_any_value_but_zero_and_false_is_a_watch() {
    let targets = [
        "w%61tch=1",
        "watch",
        "watch=",
        "watch=t",
        "watch=yes",
        "watch=no",
        "watch=True",
        "watch=%zz&watch=1",
    ];
    let targets = targets.map(|query| format!("/api/v1/pods?{query}"));
    check("c6", &targets.each_ref().map(String::as_str), WATCH);
}

#[test]
fn c7_zero_false_and_what_go_drops_is_a_list() {
    let targets = [
        "watch=false",
        "watch=FALSE",
        "watch=0",
        "WATCH=1",
        "watch=0&watch=1",
        "watch=false;timeoutSeconds=1",
        "watch=1;x=1",
        "watch=fal%C5%BFe",
    ];
    let targets = targets.map(|query| format!("/api/v1/pods?{query}"));
    check("c7", &targets.each_ref().map(String::as_str), LIST);
}

#[test]
fn c8_the_first_of_two_values_counts() {
    check("c8", &["/api/v1/pods?watch=1&watch=0", "/api/v1/pods?watch=no&watch=false"], WATCH);
}

#[test]
fn c9_the_legacy_watch_prefix_is_a_watch_whatever_the_query_says() {
    let targets = [
        "/api/v1/watch/pods",
        "/api/v1/watch/pods?watch=0",
        "/api/v1/watch/namespaces/default/pods?watch=false",
    ];
    check("c9", &targets, WATCH);
}

/// Whatever the method: a GET that asks for an upgrade can run commands in a container.
#[test]
fn c10_an_upgrade_of_exec_attach_portforward_or_proxy_is_a_stream() {
    let targets = ["exec", "attach", "portforward", "proxy"].map(|subresource| {
        let target = format!("/api/v1/namespaces/default/pods/no-such-pod/{subresource}");
        streams(&target, subresource);
        target
    });
    streams("/api/v1/nodes/no-such-node/proxy/run/default/pod/container?cmd=true", "proxy");
    check("c10", &targets.each_ref().map(String::as_str), Row { verb: "get", status: 404, odd: false });
}

/// The form of CONNECT's targets, and what HTTP libraries take for it.
#[test]
fn a_target_that_is_no_path_is_refused() {
    if !needs_spillway() {
        return;
    }
    let who = CLUSTER.admin();
    let direct = Target::direct(&CLUSTER).caller(&who);
    block_on(async {
        for target in [";", "example.com", "api"] {
            for caller in [&direct, &SPILLWAY.caller(&who), &RECORDED[0].1.caller(&who)] {
                assert_eq!(status(caller, Protocol::Http1, target).await, 400, "{target}");
            }
        }
    });
}

/// No client sends a fragment. hyper would cut it off before anybody reads the target, so it is refused before hyper.
#[test]
fn a_fragment_is_refused_before_anybody_reads_it() {
    if !needs_spillway() {
        return;
    }
    let (recorder, spillway) = &RECORDED[0];
    let who = Credential::Certificate(CLUSTER.pki.client("fragment", "fragment", &["system:masters"]));
    let target = "/api/v1/fragments#/../exec?watch=1";
    block_on(async {
        assert_eq!(status(&spillway.caller(&who), Protocol::Http1, target).await, 400);
    });
    assert_eq!(recorder.count("GET /api/v1/fragments HTTP/1.1"), 0);
}
