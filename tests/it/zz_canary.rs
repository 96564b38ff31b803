//! Does spillway keep to itself what it was trusted with?
//!
//! Last by name, so that it begins when most tests have run: it searches what the spillway of all tests has written, and
//! what one writes that logs all it can, for every key and token that this process has handed out.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use crate::{
    client::{Protocol, block_on, get, with},
    cluster::{Credential, canary},
    spillway::{CLUSTER, Spillway, TARGET, Target, needs_spillway},
};

#[test]
fn a_secret_in_a_text_is_found() {
    let token = "eyJhbGciOiJFUzI1NiJ9.cGF5bG9hZCBvZiBhIHRlc3QncyBvd24.c2lnbmF0dXJlIG9mIGEgdGVzdCdzIG93bg";
    canary::token(token);
    canary::search("a text", "eyJhbGciOiJFUzI1NiJ9 is only a header");
    for part in token.split('.').skip(1) {
        let found =
            std::panic::catch_unwind(|| canary::search("a text", &format!("a line\nuser={part} more")));
        assert!(found.is_err(), "{part} was not found");
    }
}

#[test]
fn b10_no_secret_is_in_a_log_a_metric_or_the_status_at_any_level() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config["logging"] = json!({"format": "Json", "level": "Trace", "access": "All"});
    });
    let token = CLUSTER.token("canary", "bird", "1h");
    let made_up =
        "eyJhbGciOiJFUzI1NiJ9.bm90IGEgdG9rZW4gYXQgYWxsIGJ1dCBsb25n.c2lnbmVkIGJ5IG5vYm9keSBhbnl3aGVyZQ";
    canary::token(made_up);
    assert!(canary::known() > 20, "the tests hand out keys and tokens: {}", canary::known());
    let callers = [
        CLUSTER.alice(),
        CLUSTER.admin(),
        Credential::Certificate(CLUSTER.paths.wrong_admin.clone()),
        Credential::Token(token.clone()),
        Credential::Token(made_up.to_owned()),
        Credential::None,
    ];
    block_on(async {
        for who in &callers {
            for protocol in Protocol::BOTH {
                let mut connection = spillway.caller(who).connect(protocol).await;
                for path in ["/api/v1/pods?limit=1", "/version", "/api/v1/pods/%zz", "/apis/%2e%2e/x"] {
                    let answer = connection.try_ask(get(path)).await;
                    // Nor in what clients are told.
                    if let Ok(answer) = answer {
                        canary::search(path, &answer.text());
                    }
                }
                // Both at once, twice, in the wrong place, and as WebSockets carry it.
                for (name, value) in [
                    ("authorization", format!("Bearer {token}")),
                    ("authorization", format!("Basic {made_up}")),
                    ("x-remote-user", token.clone()),
                    ("sec-websocket-protocol", format!("base64url.bearer.authorization.k8s.io.{made_up}")),
                    ("connection", "authorization".to_owned()),
                ] {
                    let mut connection = spillway.caller(who).connect(protocol).await;
                    let request = with(with(get("/api/v1/pods?limit=1"), name, &value), name, &value);
                    if let Ok(answer) = connection.try_ask(request).await {
                        canary::search(name, &answer.text());
                    }
                }
            }
        }
        let operator = spillway.break_glass_caller(&CLUSTER.break_glass());
        let _ = operator.ask(Protocol::Http2, get("/api/v1/pods?limit=1")).await;
    });
    assert!(spillway.whole_log().lines().count() > 50, "it logged hardly anything");
    spillway.keeps_secrets();
    if let Target::Spillway(all_tests) = &*TARGET {
        all_tests.keeps_secrets();
    }
}
