//! Does asking kube-apiserver about tokens harm anybody when it does not answer? Row B8 of the threat model.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;

use crate::{
    client::{Protocol, block_on, get},
    cluster::Credential,
    issuer::Signer,
    stand::{Stand, reached},
};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const STRANGERS: usize = 24;

#[test]
fn b8_reviews_that_hang_are_few_and_change_nobody_elses_answers() {
    let stand = Stand::start(|config, _| config["authentication"]["tokenReview"] = json!({"enabled": true}));
    let signer = Signer::of_file(&stand.paths.service_account.key);
    let (alice, robot) = (stand.caller(&stand.alice()), stand.caller(&stand.account("robot", &signer)));
    let asked = || -> usize {
        let connections = stand.apiserver.connections();
        connections.iter().flat_map(|seen| seen.paths()).filter(|path| path.ends_with(REVIEWS)).count()
    };
    block_on(async {
        // Over connections that are open already, so that only the requests are compared.
        let mut known = [alice.connect(Protocol::Http2).await, robot.connect(Protocol::Http2).await];
        let strangers = join_all((0..STRANGERS).map(|number| {
            let caller = stand.caller(&Credential::Token(format!("made-up-{number}")));
            async move { caller.ask(Protocol::Http1, get("/api/v1/namespaces/default")).await.status }
        }));
        let others = async {
            for connection in &mut known {
                for _ in 0..50 {
                    let answer = connection.ask(get("/api/v1/namespaces/default")).await;
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
                }
            }
        };
        let (statuses, ()) = tokio::join!(strangers, others);
        // Each went on, although no review was ever answered.
        assert!(statuses.iter().all(|status| *status == StatusCode::NOT_FOUND), "{statuses:?}");
    });
    assert!((1..=6).contains(&asked()), "{} reviews hang", asked());
    let [late, full] = ["late", "full"]
        .map(|word| stand.metric(&format!("spillway_token_reviews_total{{result=\"{word}\"}}")));
    assert_eq!(late + full, STRANGERS as f64, "{late} waited, {full} did not");
    // Break-glass asks nobody.
    let glass = Credential::Certificate(stand.paths.break_glass.clone());
    assert!(reached(&crate::client::Caller::new(stand.break_glass, &stand.paths.server_ca.cert, &glass)));
    // One connection, of its own.
    let connections = stand.apiserver.connections();
    let own: Vec<_> =
        connections.iter().filter(|seen| seen.paths().iter().any(|path| path.ends_with(REVIEWS))).collect();
    assert_eq!(own.len(), 1);
    assert!(own[0].paths().iter().all(|path| path.ends_with(REVIEWS)) && own[0].with_certificate);

    // The apiserver answers again, with an error: that is no verdict, and after a while it is asked once more.
    stand.apiserver.answer(1_000);
    let failed = || stand.metric("spillway_token_reviews_total{result=\"failed\"}");
    stand.until("the reviews to fail", || failed() >= 1.0);
    let before = asked();
    stand.until("another question", || {
        let stranger = stand.caller(&Credential::Token("made-up-0".into()));
        assert!(reached(&stranger));
        asked() > before
    });
}

/// `authentication.anonymous`, as at kube-apiserver; whoever may not never gets there.
#[test]
fn anonymous_callers_may_be_kept_to_a_few_paths_or_out() {
    let path_seen = |stand: &Stand, path: &str| {
        let connections = stand.apiserver.connections();
        connections.iter().flat_map(|seen| seen.paths()).any(|seen| seen.ends_with(path))
    };
    let status = |stand: &Stand, who: &Credential, path: &str| {
        block_on(stand.caller(who).ask(Protocol::Http1, get(path))).status
    };
    let few = Stand::start(|config, _| {
        config["authentication"]["anonymous"] = json!({"conditions": [{"path": "/livez"}, {"path": "/a b"}]});
    });
    assert_eq!(status(&few, &Credential::None, "/livez"), StatusCode::OK);
    assert_eq!(status(&few, &Credential::None, "/livez?verbose"), StatusCode::OK);
    assert_eq!(
        status(&few, &Credential::None, "/a%20b"),
        StatusCode::NOT_FOUND,
        "compared when it is decoded"
    );
    for path in ["/livez/", "/livez/etcd", "/api", "/", "//livez"] {
        assert_eq!(status(&few, &Credential::None, path), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert!(!path_seen(&few, "/api"));
    // A token or a certificate is somebody.
    let token = Credential::Token("made-up".into());
    assert_eq!(status(&few, &token, "/api/v1/namespaces/default"), StatusCode::NOT_FOUND);
    assert_eq!(status(&few, &few.alice(), "/api/v1/namespaces/default"), StatusCode::NOT_FOUND);
    drop(few);

    let none = Stand::start(|config, _| config["authentication"]["anonymous"] = json!({"enabled": false}));
    assert_eq!(status(&none, &Credential::None, "/livez"), StatusCode::UNAUTHORIZED);
    assert_eq!(status(&none, &none.alice(), "/livez"), StatusCode::OK);
}
