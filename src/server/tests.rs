use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::*;
use super::*;

/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(50);

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[tokio::test]
async fn both_protocols_are_served_on_shards_and_on_a_shared_runtime() {
    for mode in [Mode::Sharded, Mode::Shared] {
        let site = Site::start_with(Settings::default(), Threads { mode, count: 2, name: "shard" });
        let response = site.http1().await.send_request(get("/")).await.unwrap();
        assert_eq!(text(response).await, "Http1 nobody", "{mode:?}");
        let response = site.http2().await.send_request(get("/")).await.unwrap();
        assert_eq!(text(response).await, "Http2 nobody", "{mode:?}");
        site.server.close(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_judged_and_never_fails_the_handshake() {
    let site = Site::start(Settings::default());
    let stranger = Authority::new("other").client("mallory");
    for (pair, expected) in [(site.authority.client("ada"), "Http2 ada"), (stranger, "Http2 unverifiable")] {
        let stream = connect(site.address, site.config(Protocol::Http2, Some(&pair))).await;
        let response = http2_over(stream).await.send_request(get("/")).await.unwrap();
        assert_eq!(text(response).await, expected);
    }
}

#[tokio::test]
async fn a_resumed_session_is_still_the_same_caller() {
    let site = Site::start(Settings::default());
    let pair = site.authority.client("ada");
    let config = site.config(Protocol::Http1, Some(&pair));
    for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let stream = connect(site.address, Arc::clone(&config)).await;
        let kind = stream.get_ref().1.handshake_kind();
        // The answer comes after the tickets, so that the next connection has one.
        let response = http1_over(stream).await.send_request(get("/")).await.unwrap();
        assert_eq!(text(response).await, "Http1 ada");
        assert_eq!(kind, Some(expected));
    }
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let site = Site::start(Settings::default());
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    // No session, one cipher suite (ECDHE-ECDSA-AES128-SHA), no compression.
    hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0]);
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(socket.read_to_end(&mut answer)).await;
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    site.until(|tally| tally.failed_handshake == 1).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let site = Site::start(settings(|settings| settings.deadlines.first_byte = SOON));
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    closed(&mut socket).await;
    site.until(|tally| tally.late_first_byte == 1 && tally.closed == 1).await;
}

#[tokio::test]
async fn half_a_handshake_is_closed() {
    let site = Site::start(settings(|settings| settings.deadlines.handshake = SOON));
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    closed(&mut socket).await;
    site.until(|tally| tally.late_handshake == 1).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_on_both_protocols() {
    let site = Site::start(settings(|settings| settings.deadlines.first_request = SOON));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        closed(&mut connect(site.address, site.config(protocol, None)).await).await;
    }
    site.until(|tally| tally.late_request == 2).await;
}

#[tokio::test]
async fn slow_headers_are_closed_but_a_pause_between_requests_is_not() {
    let site = Site::start(settings(|settings| settings.deadlines.headers = SOON));
    let mut stream = connect(site.address, site.config(Protocol::Http1, None)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // Another connection's slow head ends first, although its wait began later.
    let mut slow = connect(site.address, site.config(Protocol::Http1, None)).await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    within(slow.read_exact(&mut answer)).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    closed(&mut slow).await;
    site.until(|tally| tally.late_request == 1).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    let _ = within(stream.read_to_string(&mut rest)).await;
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let site = Site::start(settings(|settings| settings.deadlines.idle = SOON));
    let mut busy = site.http2().await;
    let mut watch = busy.send_request(get("/endless")).await.unwrap().into_body();
    assert!(within(watch.frame()).await.is_some());
    let mut idle1 = site.http1().await;
    text(idle1.send_request(get("/")).await.unwrap()).await;
    let mut idle2 = site.http2().await;
    text(idle2.send_request(get("/")).await.unwrap()).await;
    until(|| idle1.is_closed() && idle2.is_closed()).await;
    site.until(|tally| tally.idle == 2).await;
    assert_eq!(text(busy.send_request(get("/")).await.unwrap()).await, "Http2 nobody");
}

fn with_fields(count: usize) -> Request<Empty<Bytes>> {
    let mut request = get("/");
    // The host is one of them.
    for number in 1..count {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().insert(name, "1".parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_hundred_header_fields_are_served_and_one_more_is_refused() {
    let site = Site::start(Settings::default());
    for (count, expected) in [(100, StatusCode::OK), (101, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)] {
        let response = site.http1().await.send_request(with_fields(count)).await.unwrap();
        assert_eq!(response.status(), expected, "HTTP/1.1, {count}");
        let response = site.http2().await.send_request(with_fields(count)).await.unwrap();
        assert_eq!(response.status(), expected, "HTTP/2, {count}");
    }
}

#[tokio::test]
async fn headers_beyond_the_byte_limit_are_refused() {
    let site = Site::start(Settings::default());
    let mut request = get("/");
    request.headers_mut().insert("x-long", "x".repeat(70 * 1024).parse().unwrap());
    let response = site.http2().await.send_request(request.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    // Over HTTP/1.1 the server may close before the client has sent everything: no answer is as good.
    if let Ok(response) = site.http1().await.send_request(request).await {
        assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
}

#[tokio::test]
async fn connect_is_refused() {
    let site = Site::start(Settings::default());
    let connect = Request::builder().method(Method::CONNECT).uri("localhost:443").body(Empty::new()).unwrap();
    let response = site.http2().await.send_request(connect).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_until_one_ends() {
    for (per_source, refused) in [(10, (1, 0)), (2, (0, 1))] {
        let site = Site::start(settings(|settings| {
            settings.limits.connections = if per_source == 2 { 10 } else { 2 };
            settings.limits.connections_per_source = per_source;
        }));
        let first = TcpStream::connect(site.address).await.unwrap();
        let _second = TcpStream::connect(site.address).await.unwrap();
        let mut third = TcpStream::connect(site.address).await.unwrap();
        closed(&mut third).await;
        site.until(|tally| (tally.refused_full, tally.refused_source) == refused).await;
        drop(first);
        site.until(|tally| tally.closed == 1).await;
        let response = site.http2().await.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn clients_that_come_back_at_once_are_refused_at_a_bounded_pace_while_it_is_full() {
    let site = Site::start(settings(|settings| settings.limits.connections = 1));
    let first = TcpStream::connect(site.address).await.unwrap();
    site.until(|tally| tally.accepted == 1).await;
    let began = crate::clock::now();
    let insistent: Vec<_> = (0..64)
        .map(|_| {
            let address = site.address;
            tokio::spawn(async move {
                loop {
                    if let Ok(mut socket) = TcpStream::connect(address).await {
                        // Until it is closed.
                        let _ = socket.read(&mut [0]).await;
                    }
                }
            })
        })
        .collect();
    site.until(|tally| tally.refused_full >= 300).await;
    let (refused, took) = (site.tally().snapshot().refused_full, crate::clock::now().since(began));
    // 16, then 10 ms of rest: whatever the machine, no more than that.
    let most = 16 * (u64::try_from(took.as_millis()).unwrap() / 10 + 2);
    assert!(refused <= most, "{refused} in {took:?}, {most} allowed");
    insistent.into_iter().for_each(|task| task.abort());
    drop(first);
}

#[tokio::test]
async fn a_panic_is_one_requests_500() {
    let site = Site::start(Settings::default());
    let mut sender = site.http2().await;
    let response = sender.send_request(get("/panic")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text(response).await.contains(r#""reason":"InternalError""#));
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await, "Http2 nobody");
    assert_eq!(site.tally().snapshot().panicked, 1);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_and_counts_as_an_open_connection() {
    let site = Site::start(Settings::default());
    let mut sender = site.http1().await;
    let mut request = get("/upgrade");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    within(tunnel.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ping");
    assert_eq!(site.tally().snapshot().closed, 0);
    drop((tunnel, sender));
    site.until(|tally| tally.closed == 1).await;
}

#[tokio::test]
async fn a_drain_ends_streams_cleanly_within_the_grace_time() {
    for mode in [Mode::Sharded, Mode::Shared] {
        let site = Site::start_with(Settings::default(), Threads { mode, count: 2, name: "shard" });
        let (mut over1, mut over2) = (site.http1().await, site.http2().await);
        let mut watches = vec![over1.send_request(get("/stream")).await.unwrap().into_body()];
        for _ in 0..10 {
            watches.push(over2.send_request(get("/stream")).await.unwrap().into_body());
        }
        for watch in &mut watches {
            assert!(within(watch.frame()).await.unwrap().unwrap().is_data());
        }
        let tally = site.tally();
        let grace = Duration::from_millis(500);
        let ends = futures_util::future::join_all(watches.into_iter().map(BodyExt::collect));
        let (ends, ()) = within(async { tokio::join!(ends, site.server.close(grace)) }).await;
        assert!(ends.iter().all(Result::is_ok), "{mode:?}: a stream broke");
        let snapshot = tally.snapshot();
        assert_eq!((snapshot.accepted, snapshot.closed, snapshot.cut_off), (2, 2, 0), "{mode:?}");
        TcpStream::connect(site.address).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_when_the_grace_time_is_over() {
    let site = Site::start(Settings::default());
    let mut sender = site.http2().await;
    let watch = sender.send_request(get("/endless")).await.unwrap().into_body();
    within(site.server.close(SOON)).await;
    assert!(within(watch.collect()).await.is_err());
    assert!(site.drain.has_begun());
}

#[tokio::test]
async fn a_new_serving_certificate_is_for_new_connections() {
    let site = Site::start(Settings::default());
    let serving = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let config = site.config(Protocol::Http2, None);
    let old = connect(site.address, Arc::clone(&config)).await;
    let before = serving(&old);
    let mut sender = http2_over(old).await;
    let nobody = || Arc::new(crate::authn::ClientAuthority::nobody());
    site.tls.reload(&tls_settings(&site.authority.server()), nobody()).unwrap();
    let broken = Pair { certificate: String::new(), ..site.authority.server() };
    let error = site.tls.reload(&tls_settings(&broken), nobody()).unwrap_err().to_string();
    assert!(error.starts_with("memory holds no usable certificate: "), "{error}");
    let mixed = Pair { certificate: site.authority.server().certificate, ..site.authority.server() };
    let error = site.tls.reload(&tls_settings(&mixed), nobody()).unwrap_err().to_string();
    assert!(error.contains("check that they are a pair"), "{error}");
    assert_ne!(serving(&connect(site.address, config).await), before);
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await, "Http2 nobody");
}

#[tokio::test]
async fn a_port_in_use_names_the_address_the_listener_and_a_way_out() {
    let site = Site::start(Settings::default());
    let bound = Listener::bind(
        "main",
        site.address,
        Settings::default(),
        Arc::clone(&site.tls),
        Placement::OwnThread,
    );
    let error = bound.err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot listen on {} for main: ", site.address)), "{error}");
    assert!(error.contains("ss -ltnp"), "{error}");
}
