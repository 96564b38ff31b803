//! Who may come over `admin.https`, and what may they do there?
//!
//! Real TLS with certificates of the cluster's CA; the apiserver behind is one that can be stopped.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used, clippy::disallowed_methods)]

use std::{fs, net::SocketAddr, path::Path};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{Answer, Body, Caller, Protocol, block_on, get, send, with},
    cluster::{Credential, Pair, Paths},
    stand::{Stand, replace},
};

const ISOLATE: &str =
    r#"{"kind":"serviceaccount","name":"obs/agent","to":"penalty","forSeconds":60,"reason":"INC-1"}"#;

fn start(change: impl FnOnce(&mut Value, &Paths)) -> Stand {
    Stand::start(|config, paths| {
        let pair = json!({"certFile": paths.serving.cert, "keyFile": paths.serving.key});
        config["admin"] = json!({
            "socket": "None",
            "https": {"address": "127.0.0.1:0", "tls": pair, "names": ["cp-1.example.org"]},
            "roles": {
                "viewer": {"groups": ["all-engineers"]},
                "operator": {"groups": ["platform-oncall"]},
            },
        });
        change(config, paths);
    })
}

fn person(stand: &Stand, name: &str, groups: &[&str]) -> Pair {
    stand.pki.client(name, name, groups)
}

fn at(stand: &Stand, address: SocketAddr, who: &Credential) -> Caller {
    Caller::new(address, &stand.paths.server_ca.cert, who)
}

fn caller(stand: &Stand, name: &str, groups: &[&str]) -> Caller {
    let address = stand.admin.expect("the operators' address was had");
    at(stand, address, &Credential::Certificate(person(stand, name, groups)))
}

fn ask(caller: &Caller, request: http::Request<Body>) -> Answer {
    block_on(caller.ask(Protocol::Http1, request))
}

/// As a program asks for a change.
fn act(path: &str, body: &str) -> http::Request<Body> {
    with(send(Method::POST, path, body.to_owned()), "x-spillway-act", "1")
}

#[test]
fn groups_of_a_certificate_decide_who_looks_who_acts_and_who_is_turned_away() {
    let stand = start(|_, _| ());
    let viewer = caller(&stand, "vera", &["all-engineers"]);
    let operator = caller(&stand, "olga", &["all-engineers", "platform-oncall"]);
    let admin = caller(&stand, "adam", &["system:masters"]);
    let node = caller(&stand, "system:node:n1", &["system:nodes"]);

    for (caller, name, role) in
        [(&viewer, "vera", "viewer"), (&operator, "olga", "operator"), (&admin, "adam", "admin")]
    {
        let page = ask(caller, get("/"));
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        assert!(
            page.text().contains(&format!("<b id=\"who\">{name}</b> as <b id=\"role\">{role}</b>")),
            "{role}"
        );
        assert!(page.header("content-security-policy").contains("default-src 'none'"));
        for path in [
            "/v1/status",
            "/v1/clients",
            "/v1/isolations",
            "/v1/newcomers",
            "/v1/rollout",
            "/v1/config/history",
        ] {
            assert_eq!(ask(caller, get(path)).status, StatusCode::OK, "{role} {path}");
        }
    }

    let refused = ask(&viewer, act("/v1/isolations", ISOLATE));
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let problem = refused.json();
    assert_eq!(problem["code"], "SPW0772");
    let said = problem.to_string();
    for part in
        ["vera is viewer", "role operator", "platform-oncall", "system:masters", "nothing was changed"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let rollout = ask(&viewer, act("/v1/rollout", r#"{"order":"start"}"#));
    assert_eq!(rollout.status, StatusCode::FORBIDDEN, "{}", rollout.text());

    let done = ask(&operator, act("/v1/isolations", ISOLATE));
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    assert_eq!(done.json()["isolation"]["by"], "user olga");
    let events = ask(&viewer, get("/v1/events")).text();
    assert!(events.contains("(user olga)"), "{events}");
    let lock = r#"{"forSeconds":60,"reason":"INC-1"}"#;
    assert_eq!(ask(&operator, act("/v1/lockdown", lock)).status, StatusCode::FORBIDDEN);
    let lowered = with(act("/v1/lockdown", lock), "x-spillway-role", "viewer");
    assert_eq!(ask(&admin, lowered).status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&admin, act("/v1/lockdown", lock)).status, StatusCode::OK);
    assert_eq!(ask(&admin, act("/v1/lockdown/release", "")).status, StatusCode::OK);

    for path in ["/", "/v1/status", "/live", "/app.js"] {
        let refused = ask(&node, get(path));
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let said = refused.text();
        assert!(
            said.contains("SPW0765") && said.contains("system:nodes") && said.contains("all-engineers"),
            "{said}"
        );
    }
    // A person reads, a program parses.
    let read = ask(&node, with(get("/"), "accept", "text/html,*/*"));
    assert!(read.header("content-type").starts_with("text/plain"), "{}", read.text());
    assert!(read.text().starts_with("[SPW0765] system:node:n1 has no role here"), "{}", read.text());
    assert_eq!(ask(&node, get("/")).json()["code"], "SPW0765");
}

#[test]
fn whoever_proves_nothing_is_told_so_and_sees_nothing() {
    let stand = start(|_, _| ());
    let address = stand.admin.expect("the operators' address was had");
    let nobody = at(&stand, address, &Credential::None);
    let stranger = stand.pki.break_glass("stranger", "stranger", &["system:masters"]);
    for (caller, why) in [
        (nobody, "none was shown"),
        (at(&stand, address, &Credential::Certificate(stranger)), "not accepted"),
    ] {
        for request in [get("/"), get("/v1/status"), get("/live"), act("/v1/isolations", ISOLATE)] {
            let answer = ask(&caller, request);
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{why}");
            let said = answer.text();
            assert!(said.contains("SPW0764") && said.contains(why) && said.contains("--cert"), "{said}");
        }
    }
    // A token is nothing here, however good it is.
    let token = at(&stand, address, &Credential::Token("nonsense".into()));
    assert_eq!(ask(&token, get("/v1/status")).status, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_page_of_somebody_else_cannot_use_the_browsers_certificate() {
    let stand = start(|_, _| ());
    let olga = caller(&stand, "olga", &["platform-oncall"]);
    let address = stand.admin.expect("the operators' address was had");
    let own = format!("https://{address}");
    let from = |origin: &str, site: &str| {
        with(with(act("/v1/isolations", ISOLATE), "origin", origin), "sec-fetch-site", site)
    };
    for (origin, site) in [
        ("https://evil.example", "cross-site"),
        ("https://evil.example", "same-origin"),
        ("null", "none"),
        (own.as_str(), "cross-site"),
        (own.as_str(), "same-site"),
    ] {
        let answer = ask(&olga, from(origin, site));
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin} {site}: {}", answer.text());
        assert!(answer.text().contains("SPW0771"), "{}", answer.text());
    }
    // What a form can send has no header of ours.
    let form = with(send(Method::POST, "/v1/isolations", ISOLATE), "origin", &own);
    assert_eq!(ask(&olga, form).status, StatusCode::FORBIDDEN);
    let read = with(with(get("/v1/status"), "sec-fetch-site", "cross-site"), "sec-fetch-mode", "no-cors");
    assert_eq!(ask(&olga, read).status, StatusCode::FORBIDDEN);
    for (host, status) in [
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("10.9.8.7:10271", StatusCode::MISDIRECTED_REQUEST),
        ("cp-1.example.org:10271", StatusCode::OK),
        ("localhost", StatusCode::OK),
    ] {
        assert_eq!(ask(&olga, with(get("/v1/status"), "host", host)).status, status, "{host}");
    }
    assert_eq!(ask(&olga, from(&own, "same-origin")).status, StatusCode::OK);
}

#[test]
fn it_answers_while_the_apiserver_is_dead_and_pushes_news() {
    let stand = start(|_, _| ());
    let vera = caller(&stand, "vera", &["all-engineers"]);
    stand.apiserver.stop();
    block_on(async {
        let mut connection = vera.connect(Protocol::Http1).await;
        let answer = connection.start(get("/live")).await.expect("it is pushed");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let (mut body, mut news) = (answer.into_body(), String::new());
        // A push comes in as many pieces as it likes.
        while news.matches("\"id\":\"verdict\"").count() < 2 {
            let frame =
                http_body_util::BodyExt::frame(&mut body).await.expect("news").expect("of a live connection");
            news += &String::from_utf8_lossy(frame.data_ref().expect("no trailers"));
        }
        assert!(news.starts_with("data: {"), "{news}");
    });
}

#[test]
fn a_denied_certificate_loses_its_role_on_an_open_connection() {
    let mut list = None;
    let stand = start(|config, paths| {
        let file = paths.serving.cert.with_file_name("denied");
        fs::write(&file, "").expect("an empty list");
        config["authentication"]["clientCertificate"]["denyFile"] = json!(file);
        list = Some(file);
    });
    let list = list.expect("the list has a name");
    let pair = person(&stand, "olga", &["platform-oncall"]);
    let address = stand.admin.expect("the operators' address was had");
    let olga = at(&stand, address, &Credential::Certificate(pair.clone()));
    block_on(async {
        let mut connection = olga.connect(Protocol::Http1).await;
        assert_eq!(connection.ask(get("/v1/status")).await.status, StatusCode::OK);
        replace(&list, fingerprint(&pair.cert));
        let mut last = StatusCode::OK;
        for _ in 0..600 {
            last = connection.ask(get("/v1/status")).await.status;
            if last == StatusCode::UNAUTHORIZED {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(last, StatusCode::UNAUTHORIZED);
    });
}

/// SHA-256 of a certificate, in hexadecimal digits.
fn fingerprint(file: &Path) -> String {
    use rustls_pki_types::pem::PemObject as _;
    let der = rustls_pki_types::CertificateDer::from_pem_file(file).expect("the test's certificate is PEM");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_address_that_is_taken_or_a_broken_certificate_stops_no_proxy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one");
    let mut broken = None;
    let stand = start(|config, paths| {
        // Read and judged by the configuration, damaged by the time it is used: its key is another one's.
        let (cert, key) =
            (paths.serving.cert.with_file_name("admin.crt"), paths.serving.cert.with_file_name("admin.key"));
        replace(&cert, fs::read(&paths.serving.cert).expect("the certificate"));
        replace(&key, fs::read(&paths.front_proxy_client.key).expect("another key"));
        config["admin"]["https"]["address"] = json!(address.to_string());
        config["admin"]["https"]["tls"] = json!({"certFile": cert, "keyFile": key});
        broken = Some(key);
    });
    assert_eq!(stand.admin, None);
    let key = broken.expect("the key has a name");
    let vera = at(&stand, address, &Credential::Certificate(person(&stand, "vera", &["all-engineers"])));
    drop(taken);
    replace(&key, fs::read(&stand.paths.serving.key).expect("the right key"));
    stand.until("the operators' address to answer", || {
        block_on(async {
            let Ok(mut connection) = vera.try_connect(Protocol::Http1).await else { return false };
            connection.ask(get("/v1/status")).await.status == StatusCode::OK
        })
    });
}
