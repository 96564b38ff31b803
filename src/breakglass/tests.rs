use futures_util::future::{BoxFuture, FutureExt};

use super::*;
use crate::server::fixture::*;
use crate::server::{Protocol, ShardContext};

const GROUP: &str = "spillway:break-glass";

struct Opened {
    lane: Lane,
    serving: Authority,
    people: Authority,
}

struct Greeting;

impl Handler for Greeting {
    fn handle(
        &self,
        connection: Arc<Connection>,
        _: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        let Verdict::Verified(caller) = connection.certificate.verdict(clock::wall()) else {
            panic!("the gate let a stranger in")
        };
        let text = format!("{} {}", caller.identity.user, caller.identity.credential);
        std::future::ready(Response::new(full(text))).boxed()
    }
}

fn open() -> Opened {
    let (serving, people) = (Authority::new("serving"), Authority::new("break-glass"));
    let pair = serving.server();
    let settings = Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        certificate: memory(&pair.certificate),
        key: memory(&pair.key),
        client_ca: memory(&people.certificate),
        groups: vec!["night-watch".into(), GROUP.into()],
    };
    let bound = Lane::bind(&settings).unwrap();
    let factory: HandlerFactory = Arc::new(|_: &ShardContext| -> Arc<dyn Handler> { Arc::new(Greeting) });
    let lane = bound.start(&Drain::new(), factory).unwrap();
    Opened { lane, serving, people }
}

#[tokio::test]
async fn only_a_certificate_of_the_lanes_own_ca_and_groups_opens_it() {
    let Opened { lane, serving, people } = open();
    let stranger = Authority::new("cluster").client("admin");
    let person = people.member("ada", Some(GROUP));
    let (loner, other) = (people.client("eve"), people.member("eve", Some("system:masters")));
    for (pair, expected) in [
        (Some(&person), StatusCode::OK),
        (Some(&stranger), StatusCode::UNAUTHORIZED),
        (Some(&loner), StatusCode::UNAUTHORIZED),
        (Some(&other), StatusCode::UNAUTHORIZED),
        (None, StatusCode::UNAUTHORIZED),
    ] {
        let stream = connect(lane.address(), client_config(&serving, Protocol::Http2, pair)).await;
        let mut request = get("/api");
        request.headers_mut().insert("authorization", "Bearer good-elsewhere".parse().unwrap());
        let response = http2_over(stream).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected);
        let body = text(response).await;
        match expected {
            StatusCode::OK => assert_eq!(body, "ada break_glass"),
            _ => assert!(body.contains(r#""reason":"Unauthorized""#), "{body}"),
        }
    }
    within(lane.close(Duration::ZERO)).await;
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let Opened { lane, serving, people } = open();
    let config = client_config(&serving, Protocol::Http1, Some(&people.member("ada", Some(GROUP))));
    for _ in 0..2 {
        let stream = connect(lane.address(), Arc::clone(&config)).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let response = http1_over(stream).await.send_request(get("/api")).await.unwrap();
        assert_eq!(text(response).await, "ada break_glass");
    }
}
