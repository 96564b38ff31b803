//! Can a client be somebody else by what it writes into its headers?
//!
//! Asked of kube-apiserver itself: a SelfSubjectReview answers with whom it took the caller for. Each kind of credential
//! travels to it in another way (asserted by the front proxy, as a token, unverified), so each is tried.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{Body, Caller, Protocol, block_on, get, send, with, within},
    cluster::Credential,
    spillway::{CLUSTER, TARGET, needs_spillway},
};

const REVIEW: &str = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;

fn review() -> Request<Body> {
    send(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", REVIEW)
}

/// Claims that only a front proxy may make, and some that nobody understands.
const FORGERIES: &[&[(&str, &str)]] = &[
    &[("x-remote-user", "system:admin"), ("x-remote-group", "system:masters")],
    &[("x-remote-group", "system:masters")],
    &[("x-remote-uid", "0"), ("x-remote-extra-scopes", "everything")],
    &[("x_remote_user", "system:admin"), ("x-remote-user", ""), ("x-remote-user", "system:admin")],
    &[
        ("impersonate_user", "system:admin"),
        ("x-forwarded-user", "system:admin"),
        ("x-forwarded-for", "10.0.0.1"),
    ],
];

#[test]
fn nobody_is_believed_to_be_somebody_else() {
    if !needs_spillway() {
        return;
    }
    let token = CLUSTER.token("identity", "agent", "1h");
    let certificate = CLUSTER.pki.client("forger", "mallory", &["readers"]);
    let people = [
        ("certificate", Credential::Certificate(certificate)),
        ("token", Credential::Token(token)),
        ("bad token", Credential::Token("made-up".into())),
        ("nothing", Credential::None),
        ("foreign certificate", Credential::Certificate(CLUSTER.paths.wrong_admin.clone())),
    ];
    block_on(async {
        for (what, who) in people {
            let caller = TARGET.caller(&who);
            for protocol in Protocol::BOTH {
                let mut connection = caller.connect(protocol).await;
                let honest = connection.ask(review()).await;
                for forgery in FORGERIES {
                    let forged =
                        forgery.iter().fold(review(), |request, (name, value)| with(request, name, value));
                    // kube-apiserver may have closed the last connection of somebody who is nobody.
                    if !connection.is_open() {
                        connection = caller.connect(protocol).await;
                    }
                    let answer = connection.ask(forged).await;
                    assert_eq!(answer.status, honest.status, "{what} with {forgery:?}: {}", answer.text());
                    let user = |text: &Value| text["status"]["userInfo"].clone();
                    assert_eq!(user(&answer.json()), user(&honest.json()), "{what} with {forgery:?}");
                }
            }
        }
    });
}

/// kube-apiserver honours these headers whatever `Connection` says. A proxy that removes what `Connection` names would
/// run the request as the original, usually stronger, caller.
#[test]
fn connection_cannot_remove_an_identity() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let caller = TARGET.caller(&CLUSTER.admin());
        for name in [
            "Impersonate-User",
            "impersonate-group",
            "X-Remote-User",
            "Authorization",
            "Content-Length",
            "Audit-ID",
        ] {
            let request =
                with(with(review(), "impersonate-user", "bob"), "connection", &format!("keep-alive, {name}"));
            let answer = caller.ask(Protocol::Http1, request).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "Connection: {name}: {}", answer.text());
            assert_eq!(answer.json()["reason"], "BadRequest", "Connection: {name}");
        }
        let harmless = with(with(review(), "impersonate-user", "bob"), "connection", "keep-alive, x-private");
        let answer = caller.ask(Protocol::Http1, harmless).await;
        assert_eq!(answer.json()["status"]["userInfo"]["username"], "bob", "{}", answer.text());
    });
}

/// A certificate wins over a token, even a bad one, and the first of two tokens counts: as at kube-apiserver.
#[test]
fn the_stronger_of_two_credentials_counts() {
    let token = CLUSTER.token("identity", "second", "1h");
    block_on(async {
        for target in [&crate::spillway::Target::direct(&CLUSTER), &*TARGET] {
            let with_token = |text: &str| with(review(), "authorization", &format!("Bearer {text}"));
            let name =
                |answer: &crate::client::Answer| answer.json()["status"]["userInfo"]["username"].clone();
            let alice = target.caller(&CLUSTER.alice());
            for text in [token.as_str(), "made-up"] {
                let answer = alice.ask(Protocol::Http2, with_token(text)).await;
                assert_eq!(name(&answer), "alice", "{}", answer.text());
            }
            let nobody = target.caller(&Credential::None);
            let both = with(with_token(&token), "authorization", "Bearer made-up");
            let answer = nobody.ask(Protocol::Http1, both).await;
            let honest = answer.status == StatusCode::CREATED
                && name(&answer) == "system:serviceaccount:identity:second";
            // Refusing to choose is an answer, too.
            assert!(honest || answer.status == StatusCode::BAD_REQUEST, "{}", answer.text());
            let spaced = with(review(), "authorization", &format!("Bearer  {token}"));
            let answer = nobody.ask(Protocol::Http1, spaced).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "two spaces are no token: {}", answer.text());
        }
    });
}

/// Requests that two readers could take for different ones.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    if !needs_spillway() {
        return;
    }
    let smuggled = "GET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\n";
    let length = smuggled.len();
    let cases = [
        (
            "length and chunks",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}")),
        ("a signed length", format!("Content-Length: +0\r\n\r\n{smuggled}")),
        ("another encoding", format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a hidden encoding", format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a folded header", format!("X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("two hosts", "Host: elsewhere\r\n\r\n".to_owned()),
    ];
    block_on(async {
        let caller = TARGET.caller(&CLUSTER.alice());
        for (what, rest) in cases {
            let text = raw(&caller, &format!("POST /api/v1/namespaces/default/configmaps?dryRun=All HTTP/1.1\r\nHost: kubernetes\r\n{rest}")).await;
            assert!(!text.contains("gitVersion"), "{what}: a second request was executed:\n{text}");
            assert!(text.starts_with("HTTP/1.1 400 ") || text.is_empty(), "{what}:\n{text}");
        }
    });
}

/// Everything that comes back for these bytes until the server closes, or has answered and waits for more.
async fn raw(caller: &Caller, sent: &str) -> String {
    let mut socket = caller.socket(Protocol::Http1).await;
    let last = "GET /readyz HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n";
    let _ = within("the bytes to be taken", socket.write_all(format!("{sent}{last}").as_bytes())).await;
    let mut back = Vec::new();
    let _ = within("the connection to close", socket.read_to_end(&mut back)).await;
    String::from_utf8_lossy(&back).into_owned()
}

/// Tokens and label selectors make long heads; what is refused is refused by its status, not by a cut.
#[test]
fn long_heads_pass_up_to_the_limit() {
    if !needs_spillway() {
        return;
    }
    block_on(async {
        let caller = TARGET.caller(&CLUSTER.alice());
        for protocol in Protocol::BOTH {
            let fits = with(get("/version"), "x-long", &"a".repeat(48 << 10));
            assert_eq!(caller.ask(protocol, fits).await.status, StatusCode::OK, "48 KiB over {protocol:?}");
            let too_long = with(get("/version"), "x-long", &"a".repeat(200 << 10));
            let mut connection = caller.connect(protocol).await;
            // HTTP/2 may also end the stream or the connection; it must not go through.
            if let Ok(answer) = connection.try_ask(too_long).await {
                assert_eq!(answer.status, 431, "200 KiB over {protocol:?}: {}", answer.text());
            }
        }
    });
}
