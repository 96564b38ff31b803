//! Connections to the apiserver: packing, isolation, loss, upgrades and bounds, over real TLS.

// clippy.toml allows this inside #[test] functions only; this module is nothing but test.
#![allow(clippy::expect_used)]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spillway::io::Flusher;
use spillway::policy::Lane;
use spillway::upstream::{
    BodyError, Forward as _, Kind, Outcome, Pools, Prober, RequestBody, ResponseBody, Route, Settings, Side,
    Traffic, UpstreamError, Via,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::apiserver::{Apiserver, Manners, Setup, checksum};

const SHORT: Route = Route { lane: Lane::Platform, via: Via::FrontProxy, traffic: Traffic::Short };
const WATCH: Route = Route { traffic: Traffic::Watch, ..SHORT };
const UPGRADE_ROUTE: Route = Route { traffic: Traffic::Upgrade, ..SHORT };
const UNVERIFIED: Route = Route { lane: Lane::Unknown, via: Via::Unverified, traffic: Traffic::Short };

type Answered = Result<Response<ResponseBody>, UpstreamError>;

fn pools(settings: &Settings) -> Arc<Pools> {
    Arc::new(Pools::new(settings, Flusher::spawn()).expect("valid settings"))
}

/// Generous bounds for waiting, so that a slow machine does not decide a test.
fn patient(mut settings: Settings) -> Settings {
    settings.wait = Duration::from_secs(60);
    settings
}

fn get(path: &str) -> Request<RequestBody> {
    Request::get(path).body(RequestBody::empty()).expect("a valid request")
}

async fn read(response: Response<ResponseBody>) -> Bytes {
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

/// Sends `count` requests at once, each in a task of its own.
fn send_many(pools: &Arc<Pools>, count: usize, path: &'static str, route: Route) -> JoinSet<Answered> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let pools = Arc::clone(pools);
        tasks.spawn(async move { pools.forward(get(path), route).await });
    }
    tasks
}

/// Sends `count` requests at once and reads each answer as soon as it comes.
fn read_many(pools: &Arc<Pools>, count: usize, path: &'static str, route: Route) -> JoinSet<Bytes> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let pools = Arc::clone(pools);
        tasks.spawn(async move { read(pools.forward(get(path), route).await.expect("an answer")).await });
    }
    tasks
}

async fn all_succeed(mut tasks: JoinSet<Answered>) -> Vec<Response<ResponseBody>> {
    let mut responses = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        responses.push(joined.expect("no panic").expect("an answer"));
    }
    responses
}

/// Waits until `done`, or fails after far longer than any machine needs.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(what, waiting).await;
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}

#[tokio::test]
async fn requests_are_packed_and_never_exceed_the_stream_limit() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let tasks = send_many(&pools, 250, "/hold", SHORT);
    eventually("all are in flight", || apiserver.in_flight() == 250).await;
    let load: Vec<_> = apiserver.connections().iter().map(|seen| seen.in_flight()).collect();
    assert_eq!(load, [90, 90, 70], "first connections are filled to our own limit");
    assert_eq!(pools.stats().streams(), 250);
    apiserver.answer(250);
    for response in all_succeed(tasks).await {
        assert_eq!(read(response).await, "done");
    }
    eventually("all streams are free", || pools.stats().streams() == 0).await;

    // With few in flight, the first connection serves them alone.
    let before: Vec<_> = apiserver.connections().iter().map(|seen| seen.requests()).collect();
    for response in all_succeed(send_many(&pools, 50, "/livez", SHORT)).await {
        read(response).await;
    }
    let after: Vec<_> = apiserver.connections().iter().map(|seen| seen.requests()).collect();
    assert_eq!(after, [before[0] + 50, before[1], before[2]]);
}

#[tokio::test]
async fn requests_of_one_tick_leave_in_one_send() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let flusher = Flusher::spawn();
    let pools =
        Pools::new(&patient(apiserver.settings.clone()), Arc::clone(&flusher)).expect("valid settings");
    let pools = Arc::new(pools);
    read(pools.forward(get("/livez"), SHORT).await.expect("an answer")).await;
    let (before, _) = flusher.drains_and_bytes();
    read_many(&pools, 80, "/livez", SHORT).join_all().await;
    let (after, _) = flusher.drains_and_bytes();
    // One for the requests, a few for what HTTP/2 acknowledges on the way; not one per request.
    assert!((1..=8).contains(&(after - before)), "{} sends", after - before);
}

#[tokio::test]
async fn a_lower_limit_of_the_apiserver_holds_from_the_first_request_on() {
    let apiserver = Apiserver::start(Setup { streams: 7, ..Setup::default() }).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let tasks = read_many(&pools, 60, "/hold", SHORT);
    // Four connections of seven streams; the others wait their turn here.
    eventually("all connections are full", || apiserver.in_flight() == 28).await;
    apiserver.answer(60);
    for body in tasks.join_all().await {
        assert_eq!(body, "done");
    }
    let connections = apiserver.connections();
    assert_eq!(connections.len(), 4);
    assert!(connections.iter().all(|seen| seen.in_flight_max() == 7), "{connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_when_threads_share_a_pool() {
    let apiserver = Apiserver::start(Setup { streams: 10, ..Setup::default() }).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    apiserver.answer(400);
    for body in read_many(&pools, 400, "/hold", SHORT).join_all().await {
        assert_eq!(body, "done");
    }
    let connections = apiserver.connections();
    assert!(
        connections.len() <= 4 && connections.iter().all(|seen| seen.in_flight_max() <= 10),
        "{connections:?}"
    );
    eventually("all streams are free", || pools.stats().streams() == 0).await;
}

#[tokio::test]
async fn goaway_lets_requests_finish_and_moves_new_ones() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let held = send_many(&pools, 5, "/hold", SHORT);
    eventually("all are in flight", || apiserver.in_flight() == 5).await;
    apiserver.connections()[0].leave();
    // Some of these meet the closing connection; none fails.
    for _ in 0..5 {
        for response in all_succeed(send_many(&pools, 5, "/livez", SHORT)).await {
            assert_eq!(read(response).await, "ok");
        }
    }
    apiserver.answer(5);
    for response in all_succeed(held).await {
        assert_eq!(read(response).await, "done");
    }
    assert_eq!(apiserver.connections().len(), 2);
    eventually("the first connection closes", || pools.stats().open(Via::FrontProxy) == 1).await;
    assert_eq!((pools.stats().opened(Via::FrontProxy), pools.stats().closed(Via::FrontProxy)), (2, 1));
}

#[tokio::test]
async fn an_apiserver_that_dies_fails_what_was_sent_and_is_found_again() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    let pools_of_dead = pools(&settings);
    let mut held = send_many(&pools_of_dead, 3, "/hold", SHORT);
    eventually("all are in flight", || apiserver.in_flight() == 3).await;
    apiserver.stop();
    while let Some(joined) = held.join_next().await {
        let error = joined.expect("no panic").expect_err("the apiserver died");
        assert_eq!((error.kind, error.side), (Kind::ConnectionLost, Side::Upstream), "{error:?}");
        assert!(error.kind.may_have_been_processed());
    }
    eventually("the connection is gone", || pools_of_dead.stats().open(Via::FrontProxy) == 0).await;
    assert_eq!(pools_of_dead.stats().streams(), 0);

    // Another one at another address: what matters is that a lost connection is replaced.
    let second = Apiserver::start(Setup::default()).await;
    settings.address = second.address;
    settings.roots_pem = second.settings.roots_pem.clone();
    settings.front_proxy = second.settings.front_proxy.clone();
    let pools = pools(&settings);
    read(pools.forward(get("/livez"), SHORT).await.expect("an answer")).await;
    second.connections()[0].leave();
    eventually("the connection is gone", || second.connections()[0].is_closed()).await;
    read(pools.forward(get("/livez"), SHORT).await.expect("an answer")).await;
    assert_eq!(second.connections().len(), 2);
}

#[tokio::test]
async fn unverified_callers_never_share_a_connection_and_are_few() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.unverified_connections_max = 8;
    let pools = pools(&settings);
    let tasks = read_many(&pools, 30, "/hold", UNVERIFIED);
    eventually("all connections are busy", || apiserver.in_flight() == 8).await;
    apiserver.answer(30);
    for body in tasks.join_all().await {
        assert_eq!(body, "done");
    }
    let connections = apiserver.connections();
    assert_eq!(connections.len(), 8, "connections are used again");
    for seen in &connections {
        assert!(!seen.http2 && !seen.with_certificate && seen.in_flight_max() == 1, "{seen:?}");
    }
    // Whatever lane it was put in, an unverified caller stays among its own.
    read(
        pools.forward(get("/livez"), Route { lane: Lane::Telemetry, ..UNVERIFIED }).await.expect("an answer"),
    )
    .await;
    assert_eq!(apiserver.connections().len(), 8);
}

#[tokio::test]
async fn lanes_and_credentials_do_not_share_connections() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    for lane in [Lane::NodeHealth, Lane::Telemetry] {
        for via in [Via::FrontProxy, Via::Bearer] {
            for _ in 0..3 {
                read(pools.forward(get("/livez"), Route { lane, via, ..SHORT }).await.expect("an answer"))
                    .await;
            }
        }
    }
    let connections = apiserver.connections();
    let with_certificate: Vec<_> =
        connections.iter().map(|seen| (seen.with_certificate, seen.requests())).collect();
    assert_eq!(with_certificate, [(true, 3), (false, 3), (true, 3), (false, 3)]);
}

#[tokio::test]
async fn a_thousand_watches_leave_the_short_requests_their_own_connection() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.waiting_max = 1000;
    let pools = pools(&settings);
    let mut watches = all_succeed(send_many(&pools, 1000, "/watch", WATCH)).await;
    for watch in &mut watches {
        let event = watch.body_mut().frame().await.expect("an event").expect("no error");
        assert!(event.is_data());
    }
    assert_eq!((apiserver.connections().len(), apiserver.in_flight()), (12, 1000));
    assert_eq!(read(pools.forward(get("/livez"), SHORT).await.expect("an answer")).await, "ok");
    let paths = apiserver.connections().last().expect("one more").paths();
    assert_eq!(paths.len(), 1, "{paths:?}");
    // When their client goes, all are cancelled at once, and the connections survive it.
    drop(watches);
    eventually("the apiserver sees them end", || apiserver.in_flight() == 0).await;
    assert_eq!(pools.stats().streams(), 0);
    read(pools.forward(get("/livez"), WATCH).await.expect("an answer")).await;
    assert!(apiserver.connections().iter().all(|seen| !seen.is_closed()));
}

#[tokio::test]
async fn a_dropped_answer_and_a_dropped_request_free_their_stream() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let watch = pools.forward(get("/watch"), SHORT).await.expect("an answer");
    assert_eq!(pools.stats().streams(), 1);
    drop(watch);
    assert_eq!(pools.stats().streams(), 0);
    eventually("the apiserver is told", || apiserver.in_flight() == 0).await;

    let mut held = send_many(&pools, 1, "/hold", SHORT);
    eventually("it is in flight", || apiserver.in_flight() == 1).await;
    held.abort_all();
    while held.join_next().await.is_some() {}
    eventually("the apiserver is told", || apiserver.in_flight() == 0).await;
    eventually("the stream is free", || pools.stats().streams() == 0).await;
    assert!(!apiserver.connections()[0].is_closed());

    // Over HTTP/1.1 there is no such thing as a cancelled request: the connection goes.
    let watch = pools.forward(get("/watch"), UNVERIFIED).await.expect("an answer");
    drop(watch);
    eventually("the connection is closed", || pools.stats().open(Via::Unverified) == 0).await;
}

fn upgrade(path: &str) -> Request<RequestBody> {
    let request = Request::post(path).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
    request.body(RequestBody::empty()).expect("a valid request")
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_on_its_own_connection() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    read(pools.forward(get("/livez"), SHORT).await.expect("an answer")).await;
    let mut response = pools.forward(upgrade("/tunnel"), UPGRADE_ROUTE).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[UPGRADE], "SPDY/3.1");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
    let mut echoed = [0; 5];
    for _ in 0..3 {
        tunnel.write_all(b"hello").await.expect("writable");
        tunnel.flush().await.expect("writable");
        in_time("the echo", tunnel.read_exact(&mut echoed)).await.expect("readable");
        assert_eq!(&echoed, b"HELLO");
    }
    let seen = &apiserver.connections()[1];
    assert!(!seen.http2 && seen.with_certificate && seen.requests() == 1, "{seen:?}");
    assert_eq!(pools.stats().open(Via::FrontProxy), 2);
    tunnel.shutdown().await.expect("closable");
    let mut rest = Vec::new();
    in_time("the other side closes", tunnel.read_to_end(&mut rest)).await.expect("readable");
    drop(tunnel);
    eventually("the tunnel no longer counts", || pools.stats().open(Via::FrontProxy) == 1).await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer_and_its_connection_is_closed() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let response = pools.forward(upgrade("/refused"), UPGRADE_ROUTE).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(read(response).await, "you may not exec");
    eventually("it is closed", || apiserver.connections()[0].is_closed()).await;
    assert_eq!(apiserver.connections()[0].requests(), 1);
    assert_eq!(pools.stats().open(Via::FrontProxy), 0);
}

#[tokio::test]
async fn upgrades_are_bounded_and_carry_no_body() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.upgrades_max = 1;
    let pools = pools(&settings);
    let with_body =
        upgrade("/tunnel").map(|_| RequestBody::full(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")));
    let error = pools.forward(with_body, UPGRADE_ROUTE).await.expect_err("refused");
    assert_eq!((error.kind, error.side), (Kind::BadRequest, Side::Client));
    assert!(apiserver.connections().is_empty(), "nothing was sent");

    let mut first = pools.forward(upgrade("/tunnel"), UPGRADE_ROUTE).await.expect("an answer");
    let tunnel = hyper::upgrade::on(&mut first).await.expect("upgraded");
    let error = pools.forward(upgrade("/tunnel"), UPGRADE_ROUTE).await.expect_err("one is allowed");
    assert_eq!(error.kind, Kind::WaitQueueFull);
    drop((first, tunnel));
    eventually("the place is free", || pools.stats().open(Via::FrontProxy) == 0).await;
    pools.forward(upgrade("/tunnel"), UPGRADE_ROUTE).await.expect("an answer");
}

#[tokio::test]
async fn a_tunnel_that_nobody_asked_for_is_refused() {
    let apiserver = Apiserver::start(Setup { http2: false, ..Setup::default() }).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    for route in [SHORT, UNVERIFIED] {
        let error = pools.forward(get("/switch"), route).await.expect_err("not asked for");
        assert_eq!(error.kind, Kind::Malformed, "{error:?}");
    }
    eventually("those connections are closed", || {
        apiserver.connections().iter().all(|seen| seen.is_closed())
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    for route in [SHORT, UNVERIFIED] {
        // Larger than every window, so that it cannot be sent to its end unless somebody reads it.
        let body = RequestBody::full(vec![b'x'; 8 << 20].into());
        let request = Request::post("/early").body(body).expect("a valid request");
        let response = in_time("the early answer", pools.forward(request, route)).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(read(response).await, "later");
        eventually("the stream is free", || pools.stats().streams() == 0).await;
        assert_eq!(read(pools.forward(get("/livez"), route).await.expect("an answer")).await, "ok");
    }
}

#[tokio::test]
async fn bodies_and_trailers_pass_in_both_directions() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    for route in [SHORT, UNVERIFIED] {
        let sent: Bytes = (0..3_000_000_u32).map(|position| (position % 251) as u8).collect();
        let request = Request::post("/echo").body(RequestBody::full(sent.clone())).expect("a valid request");
        let response = pools.forward(request, route).await.expect("an answer");
        assert!(in_time("the echo", read(response)).await == sent);
    }
    let mut front = front(&pools);
    let (body, sender) = channel_body();
    let request = Request::post("https://front/trailers").body(body).expect("a valid request");
    sender.send(Ok(Frame::data(Bytes::from_static(b"t")))).await.expect("somebody reads");
    sender.send(Ok(Frame::trailers(checksum()))).await.expect("somebody reads");
    drop(sender);
    let response = in_time("an answer", front.send_request(request)).await.expect("an answer");
    let received = in_time("trailers", response.into_body().collect()).await.expect("a whole body");
    assert_eq!(received.trailers(), Some(&checksum()));
    assert_eq!(received.to_bytes(), "t");
}

type ChannelBody = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>;
type FrameSender = tokio::sync::mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// A body that the test writes frame by frame.
fn channel_body() -> (ChannelBody, FrameSender) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (StreamBody::new(Box::pin(frames) as Pin<Box<_>>), sender)
}

/// A client of a proxy that forwards everything as a short request, without TLS and without a socket.
fn front(pools: &Arc<Pools>) -> hyper::client::conn::http2::SendRequest<ChannelBody> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pools = Arc::clone(pools);
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let pools = Arc::clone(&pools);
            async move { pools.forward(request.map(RequestBody::from), SHORT).await }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(far), service).await.ok();
    });
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let handshake = builder.handshake(TokioIo::new(near));
    // Both ends are in this process: the handshake only queues what it sends.
    let mut handshake = std::pin::pin!(handshake);
    let context = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(Ok((sender, driver))) = handshake.as_mut().poll(context) else {
        panic!("it does not wait")
    };
    tokio::spawn(driver);
    sender
}

#[tokio::test]
async fn an_upload_that_stands_still_or_breaks_off_is_the_clients_fault_and_frees_its_stream() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.request_stall = Duration::from_millis(50);
    let pools = pools(&settings);
    let (body, sender) = channel_body();
    let mut front = front(&pools);
    let stalled =
        front.send_request(Request::post("https://front/trailers").body(body).expect("a valid request"));
    sender.send(Ok(Frame::data(Bytes::from_static(b"only a part")))).await.expect("somebody reads");
    // The front resets the stream, because its service failed.
    in_time("it is cut", stalled).await.expect_err("stalled");
    eventually("the stream is free", || pools.stats().streams() == 0).await;

    let (body, sender) = channel_body();
    let broken =
        front.send_request(Request::post("https://front/trailers").body(body).expect("a valid request"));
    sender.send(Ok(Frame::data(Bytes::from_static(b"only a part")))).await.expect("somebody reads");
    eventually("it is in flight", || apiserver.in_flight() == 1).await;
    sender.send(Err(io::Error::other("the client goes"))).await.expect("somebody reads");
    in_time("it is cut", broken).await.expect_err("broken off");
    eventually("the stream is free", || pools.stats().streams() == 0 && apiserver.in_flight() == 0).await;
    assert!(!apiserver.connections()[0].is_closed(), "the others on this connection are not hit");
}

#[tokio::test]
async fn a_reader_that_stands_still_does_not_hold_up_its_neighbours() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let unread = all_succeed(send_many(&pools, 60, "/large", SHORT)).await;
    for _ in 0..20 {
        let response = in_time("an answer", pools.forward(get("/large"), SHORT)).await.expect("an answer");
        assert_eq!(in_time("a body", read(response)).await.len(), 4 << 20);
    }
    assert_eq!(apiserver.connections().len(), 1, "all on one connection, or nothing is proved");
    assert_eq!(pools.stats().streams(), 60);
    drop(unread);
    eventually("all streams are free", || pools.stats().streams() == 0).await;
}

#[tokio::test]
async fn a_reader_of_tiny_frames_that_stands_still_does_not_take_its_connection_along() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let mut unread = pools.forward(get("/drip"), WATCH).await.expect("an answer");
    eventually("everything was sent", || apiserver.has_dripped()).await;
    // Sixty thousand frames that lack 255 bytes each exceed what a connection window of 22 MiB forgives.
    assert_eq!(read(pools.forward(get("/livez"), WATCH).await.expect("an answer")).await, "ok");
    let mut received = 0;
    while received < 60_000 {
        let frame = in_time("a frame", unread.body_mut().frame()).await.expect("a frame").expect("no error");
        received += frame.data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(apiserver.connections().len(), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up_and_one_that_is_awaited_is_not() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.response_stall = Duration::from_millis(40);
    let pools = pools(&settings);
    // Older than the stalled one, read to what there is, and waiting for more.
    let mut awaited = pools.forward(get("/watch"), SHORT).await.expect("an answer");
    awaited.body_mut().frame().await.expect("an event").expect("no error");
    let waiting = tokio::spawn(async move { awaited.into_body().frame().await });
    let unread_watch = pools.forward(get("/large"), WATCH).await.expect("an answer");

    let released = Arc::new(AtomicBool::new(false));
    let mut stalled = pools.forward(get("/large"), SHORT).await.expect("an answer");
    let release = Arc::clone(&released);
    stalled.body_mut().when_stalled(move || release.store(true, Ordering::Relaxed));
    stalled.body_mut().frame().await.expect("a frame").expect("no error");
    eventually("its permit is given back", || released.load(Ordering::Relaxed)).await;
    eventually("the apiserver is told", || apiserver.in_flight() == 2).await;
    assert_eq!(pools.stats().streams(), 2);
    let error = stalled.into_body().collect().await.expect_err("cut");
    assert!(matches!(error, BodyError::NotRead(_)), "{error}");

    assert!(!waiting.is_finished());
    assert_eq!(in_time("a body", read(unread_watch)).await.len(), 4 << 20);
    waiting.abort();
}

#[tokio::test]
async fn a_request_that_was_not_processed_is_told_from_one_that_may_have_been() {
    for manners in [Manners::RefusesStreams, Manners::LeavesAtOnce] {
        let apiserver = Apiserver::start(Setup { manners, ..Setup::default() }).await;
        let pools = pools(&patient(apiserver.settings.clone()));
        let error = in_time("the refusal", pools.forward(get("/livez"), SHORT)).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Unavailable, "{manners:?}: {error:?}");
        assert!(!error.kind.may_have_been_processed());
        assert_eq!(pools.stats().streams(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_named_so() {
    let setup = Setup { manners: Manners::Garbled, http2: false, ..Setup::default() };
    let apiserver = Apiserver::start(setup).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let error = pools.forward(get("/livez"), SHORT).await.expect_err("garbled");
    assert_eq!((error.kind, error.kind.status()), (Kind::Malformed, StatusCode::BAD_GATEWAY), "{error:?}");
    eventually("the connection is dropped", || pools.stats().open(Via::FrontProxy) == 0).await;
}

#[tokio::test]
async fn nobody_listening_is_said_at_once_to_everyone() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let settings = patient(apiserver.settings.clone());
    apiserver.stop();
    let free =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let pools = pools(&Settings { address: free, ..settings });
    let mut tasks = send_many(&pools, 20, "/livez", SHORT);
    while let Some(joined) = tasks.join_next().await {
        let error = joined.expect("no panic").expect_err("nobody listens");
        assert_eq!((error.kind, error.side), (Kind::Unavailable, Side::Upstream));
        assert!(!error.kind.may_have_been_processed());
        assert_eq!(error.to_string(), format!("cannot connect to the apiserver at {free}"));
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(cause.to_lowercase().contains("refused"), "{cause}");
    }
    assert_eq!(pools.stats().dial_failures(), 1, "one attempt speaks for all");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let other = Apiserver::start(Setup::default()).await;
    let settings = Settings { roots_pem: other.settings.roots_pem.clone(), ..apiserver.settings.clone() };
    let error = pools(&settings).forward(get("/livez"), SHORT).await.expect_err("not trusted");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().starts_with("cannot complete a TLS handshake"), "{error}");
}

#[tokio::test]
async fn waiting_is_bounded_in_length_and_time() {
    let apiserver = Apiserver::start(Setup { streams: 1, ..Setup::default() }).await;
    let mut settings = apiserver.settings.clone();
    settings.short_connections_max = [1; Lane::COUNT];
    settings.waiting_max = 2;
    settings.wait = Duration::from_millis(100);
    let pools = pools(&settings);
    let busy = send_many(&pools, 1, "/hold", SHORT);
    eventually("the only stream is taken", || apiserver.in_flight() == 1).await;
    let mut tasks = send_many(&pools, 5, "/hold", SHORT);
    let mut kinds = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let error = joined.expect("no panic").expect_err("no stream is free");
        assert_eq!(error.side, Side::Spillway);
        kinds.push(error.kind);
    }
    assert_eq!(
        kinds,
        [Kind::WaitQueueFull, Kind::WaitQueueFull, Kind::WaitQueueFull, Kind::WaitTimeout, Kind::WaitTimeout]
    );
    assert_eq!(pools.stats().waited(), 3, "the first one waited for its connection");
    // Those that gave up take no stream from those that come later.
    apiserver.answer(2);
    assert_eq!(all_succeed(busy).await.len(), 1);
    assert_eq!(read(pools.forward(get("/hold"), SHORT).await.expect("an answer")).await, "done");
    assert_eq!(apiserver.connections()[0].requests(), 2);
}

#[tokio::test]
async fn a_silent_apiserver_is_given_up_and_its_stream_is_reset() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = patient(apiserver.settings.clone());
    settings.first_byte_timeout = Duration::from_millis(50);
    let pools = pools(&settings);
    // A followed log may stay silent: this one is older than the request that is given up, and outlives it.
    let mut followed = send_many(&pools, 1, "/hold", WATCH);
    eventually("it is in flight", || apiserver.in_flight() == 1).await;
    let error = pools.forward(get("/hold"), SHORT).await.expect_err("never answered");
    assert_eq!((error.kind, error.kind.status()), (Kind::FirstByteTimeout, StatusCode::GATEWAY_TIMEOUT));
    eventually("the apiserver is told", || apiserver.in_flight() == 1).await;
    eventually("the stream is free", || pools.stats().streams() == 1).await;
    assert!(followed.try_join_next().is_none());
    apiserver.answer(1);
    all_succeed(followed).await;
}

#[tokio::test]
async fn without_a_front_proxy_certificate_that_route_is_refused() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&Settings { front_proxy: None, ..apiserver.settings.clone() });
    let error = pools.forward(get("/livez"), SHORT).await.expect_err("no certificate");
    assert_eq!((error.kind, error.side), (Kind::NotConfigured, Side::Spillway));
    let error = pools.warm(Lane::BreakGlass, Via::FrontProxy).await.expect_err("no certificate");
    assert_eq!(error.kind, Kind::NotConfigured);
    read(pools.forward(get("/livez"), Route { via: Via::Bearer, ..SHORT }).await.expect("an answer")).await;
}

#[tokio::test]
async fn an_apiserver_without_http2_is_served_over_http1() {
    let apiserver = Apiserver::start(Setup { http2: false, ..Setup::default() }).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let tasks = read_many(&pools, 20, "/hold", SHORT);
    eventually("each has a connection", || apiserver.in_flight() == 20).await;
    apiserver.answer(20);
    for body in tasks.join_all().await {
        assert_eq!(body, "done");
    }
    read_many(&pools, 20, "/livez", SHORT).join_all().await;
    assert!(apiserver.connections().iter().all(|seen| seen.with_certificate && seen.in_flight_max() == 1));
    assert!(apiserver.connections().len() <= 24, "{}", apiserver.connections().len());
}

#[tokio::test]
async fn a_warm_pool_has_a_connection_before_the_first_request_and_after_a_loss() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    let route = Route { lane: Lane::BreakGlass, ..SHORT };
    pools.warm(route.lane, route.via).await.expect("reachable");
    assert_eq!(pools.open(route), 1);
    eventually("an upgrade can start at once", || pools.is_upgrade_ready(route.via)).await;
    eventually("the apiserver has seen both", || apiserver.connections().len() == 2).await;
    apiserver.connections().iter().find(|seen| seen.http2).expect("one of the two").leave();
    eventually("it is replaced", || apiserver.connections().len() == 3 && pools.open(route) == 1).await;
    assert_eq!(read(pools.forward(get("/livez"), route).await.expect("an answer")).await, "ok");
    assert_eq!(apiserver.connections().len(), 3);
    assert_eq!(pools.stats().waited(), 1, "only the warming itself waited");
}

#[tokio::test]
async fn a_warm_upgrade_uses_the_connection_that_waits_and_another_takes_its_place() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let pools = pools(&patient(apiserver.settings.clone()));
    pools.warm(Lane::BreakGlass, Via::FrontProxy).await.expect("reachable");
    for round in 1..=3 {
        eventually("one waits", || pools.is_upgrade_ready(Via::FrontProxy)).await;
        eventually("the apiserver has seen it", || apiserver.connections().len() == 1 + round).await;
        let response = pools.forward(upgrade("/refused"), UPGRADE_ROUTE).await.expect("an answer");
        assert_eq!(read(response).await, "you may not exec");
    }
    let over_http1 = apiserver.connections().into_iter().filter(|seen| !seen.http2);
    assert!(
        over_http1.into_iter().all(|seen| seen.requests() <= 1),
        "an upgrade's connection is never used again"
    );
    // The apiserver closes the waiting one: nothing is sent on it.
    eventually("one waits", || pools.is_upgrade_ready(Via::FrontProxy)).await;
    apiserver.stop();
    eventually("its end is noticed", || !pools.is_upgrade_ready(Via::FrontProxy)).await;
    let error = pools.forward(upgrade("/refused"), UPGRADE_ROUTE).await.expect_err("nobody listens any more");
    assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn the_prober_tells_up_from_lost() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut prober = Prober::spawn(&apiserver.settings, Flusher::spawn()).expect("valid settings");
    let mut last = None;
    for _ in 0..3 {
        let reading = in_time("a reading", prober.next()).await.expect("it runs");
        assert!(reading.is_up(), "{reading:?}");
        assert!(Some(reading.at) > last);
        last = Some(reading.at);
    }
    let connections = apiserver.connections();
    assert_eq!(connections.len(), 1, "it keeps its connection");
    assert_eq!(connections[0].paths()[0], "/livez?exclude=etcd");
    apiserver.stop();
    let lost = async { while prober.next().await.expect("it runs").outcome != Outcome::Lost {} };
    in_time("it is lost", lost).await;
    assert!(!prober.latest().expect("a reading").is_up());
}
