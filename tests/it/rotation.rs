//! Are certificates, CAs and keys exchanged under a running proxy, and does a bad file change nothing?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use http::StatusCode;
use rustls::HandshakeKind;
use serde_json::json;
use spillway::upstream::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{Caller, Protocol, block_on, get, within},
    cluster::{Credential, Pki},
    issuer::Signer,
    stand::{Stand, reached, replace},
};

fn reloads(stand: &Stand, what: &str, result: &str) -> f64 {
    stand.metric(&format!("spillway_credential_reloads_total{{result=\"{result}\",what=\"{what}\"}}"))
}

/// Sends one request and says whether the handshake was a whole one.
async fn handshake(caller: &Caller) -> HandshakeKind {
    let mut socket = caller.socket(Protocol::Http1).await;
    let request = b"GET /livez HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n";
    within("the request to be taken", socket.write_all(request)).await.unwrap();
    // The ticket for the next time comes before the answer.
    let _ = within("the answer", socket.read_to_end(&mut Vec::new())).await;
    socket.get_ref().1.handshake_kind().unwrap()
}

#[test]
fn b9_client_cas_rotate_under_open_connections() {
    let stand = Stand::start(|_, _| ());
    let second = tempfile::tempdir().unwrap();
    let (next, next_paths) = Pki::create(second.path());
    let bundle = &stand.paths.client_ca.cert;
    let (old_ca, new_ca) = (fs::read(bundle).unwrap(), fs::read(&next_paths.client_ca.cert).unwrap());
    let old = stand.caller(&stand.alice());
    let new = stand.caller(&Credential::Certificate(next.client("bert", "bert", &["people"])));
    block_on(async {
        let asks = || get("/api/v1/namespaces/default");
        let mut of_old = old.connect(Protocol::Http2).await;
        let mut of_new = new.connect(Protocol::Http2).await;
        assert_eq!(of_old.ask(asks()).await.status, StatusCode::NOT_FOUND);
        assert_eq!(of_new.ask(asks()).await.status, StatusCode::UNAUTHORIZED);
        handshake(&old).await;
        assert_eq!(handshake(&old).await, HandshakeKind::Resumed);

        // Both, while certificates are exchanged.
        replace(bundle, [old_ca.as_slice(), &new_ca].concat());
        tokio::task::block_in_place(|| stand.until("both CAs", || reloads(&stand, "client_ca", "ok") == 1.0));
        assert_eq!(of_old.ask(asks()).await.status, StatusCode::NOT_FOUND);
        assert_eq!(of_new.ask(asks()).await.status, StatusCode::NOT_FOUND, "on the connection it had before");
        assert_eq!(handshake(&old).await, HandshakeKind::Full, "no session of before the change is resumed");

        // A file that is cut short changes nothing but the metric.
        replace(bundle, &new_ca[..new_ca.len() / 2]);
        tokio::task::block_in_place(|| {
            stand.until("a refusal", || reloads(&stand, "client_ca", "failed") == 1.0)
        });
        for connection in [&mut of_old, &mut of_new] {
            assert_eq!(connection.ask(asks()).await.status, StatusCode::NOT_FOUND);
        }

        replace(bundle, &new_ca);
        tokio::task::block_in_place(|| {
            stand.until("the new CA", || reloads(&stand, "client_ca", "ok") == 2.0)
        });
        assert_eq!(
            of_old.ask(asks()).await.status,
            StatusCode::UNAUTHORIZED,
            "on the connection it had before"
        );
        assert_eq!(of_new.ask(asks()).await.status, StatusCode::NOT_FOUND);
    });
    assert!(!reached(&old) && reached(&new));
}

#[test]
fn b9_a_denied_certificate_loses_its_open_connection_and_a_token_still_vouches() {
    let stand = Stand::start(|config, paths| {
        fs::write(paths.dir.join("denied"), "# nobody yet\n").unwrap();
        config["authentication"]["clientCertificate"]["denyFile"] = json!(paths.dir.join("denied"));
    });
    let stolen = stand.pki.client("stolen", "mallory", &["people"]);
    let caller = stand.caller(&Credential::Certificate(stolen.clone()));
    let der = tls::certificates("the test's certificate", &fs::read(&stolen.cert).unwrap()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der[0]);
    let line: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    block_on(async {
        let asks = || get("/api/v1/namespaces/default");
        let mut open = caller.connect(Protocol::Http2).await;
        assert_eq!(open.ask(asks()).await.status, StatusCode::NOT_FOUND);
        handshake(&caller).await;
        replace(&stand.path("denied"), format!("{} # mallory's laptop\n", line.join(":")));
        tokio::task::block_in_place(|| stand.until("the list", || reloads(&stand, "deny_list", "ok") == 1.0));
        assert_eq!(open.ask(asks()).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(caller.ask(Protocol::Http1, asks()).await.status, StatusCode::UNAUTHORIZED);
        let signer = Signer::of_file(&stand.paths.service_account.key);
        let Credential::Token(token) = stand.account("robot", &signer) else { unreachable!() };
        let vouched = crate::client::with(asks(), "authorization", &format!("Bearer {token}"));
        assert_eq!(open.ask(vouched).await.status, StatusCode::NOT_FOUND);
    });
    assert!(reached(&stand.caller(&stand.alice())));
}

#[test]
fn b9_the_break_glass_ca_rotates_under_open_connections() {
    let stand = Stand::start(|_, _| ());
    let second = tempfile::tempdir().unwrap();
    let (next, next_paths) = Pki::create(second.path());
    let caller =
        |pair| Caller::new(stand.break_glass, &stand.paths.server_ca.cert, &Credential::Certificate(pair));
    let old = caller(stand.paths.break_glass.clone());
    let new = caller(next.break_glass("zoe", "zoe@corp", &["spillway:break-glass"]));
    block_on(async {
        let asks = || get("/api/v1/namespaces/default");
        let (mut of_old, mut of_new) =
            (old.connect(Protocol::Http2).await, new.connect(Protocol::Http2).await);
        assert_eq!(of_old.ask(asks()).await.status, StatusCode::NOT_FOUND);
        assert_eq!(of_new.ask(asks()).await.status, StatusCode::UNAUTHORIZED);
        replace(&stand.paths.break_glass_ca.cert, "no certificate");
        let reloaded = |result, count| {
            tokio::task::block_in_place(|| {
                stand.until("the lane's files", || reloads(&stand, "break_glass", result) == count);
            });
        };
        reloaded("failed", 1.0);
        assert_eq!(of_old.ask(asks()).await.status, StatusCode::NOT_FOUND, "a bad file changes nothing");
        replace(&stand.paths.break_glass_ca.cert, fs::read(&next_paths.break_glass_ca.cert).unwrap());
        reloaded("ok", 1.0);
        assert_eq!(of_old.ask(asks()).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(of_new.ask(asks()).await.status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn serving_certificates_of_both_listeners_follow_their_files() {
    let stand = Stand::start(|_, _| ());
    let second = tempfile::tempdir().unwrap();
    let (_, next) = Pki::create(second.path());
    let alice = stand.alice();
    let glass = Credential::Certificate(stand.paths.break_glass.clone());
    let (certificate, key) = (fs::read(&next.serving.cert).unwrap(), fs::read(&next.serving.key).unwrap());
    // One file after the other: a certificate with the key of another is no pair, and what was there stays.
    replace(&stand.paths.serving.cert, &certificate);
    stand.until("half of a change", || reloads(&stand, "serving", "failed") == 1.0);
    assert!(reached(&stand.caller(&alice)));
    replace(&stand.paths.serving.key, &key);
    stand.until("the other half", || {
        reloads(&stand, "serving", "ok") == 1.0 && reloads(&stand, "break_glass", "ok") == 1.0
    });
    assert!(reached(&Caller::new(stand.main, &next.server_ca.cert, &alice)));
    assert!(reached(&Caller::new(stand.break_glass, &next.server_ca.cert, &glass)));
    let before = block_on(stand.caller(&alice).try_connect(Protocol::Http2));
    assert!(before.is_err(), "the old certificate is gone");
}

#[test]
fn an_expired_serving_certificate_keeps_serving_and_says_so() {
    let mut expired = None;
    let stand = Stand::start(|config, paths| {
        let mut params = rcgen::CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (cert_file, key_file) = (paths.dir.join("expired.crt"), paths.dir.join("expired.key"));
        replace(&cert_file, certificate.pem());
        replace(&key_file, key.serialize_pem());
        let mut old = config["listeners"][0].clone();
        old["name"] = json!("old");
        old["tls"] = json!({"certFile": cert_file, "keyFile": key_file});
        // Addresses are in the order of names.
        config["listeners"].as_array_mut().unwrap().push(old);
        expired = Some(certificate.der().clone());
    });
    let label =
        |name: &str| format!("spillway_certificate_expiry_timestamp_seconds{{certificate=\"{name}\"}}");
    stand.until("the ends of certificates", || stand.metric(&label("serving_old")) == 1_577_836_800.0);
    for name in ["serving_main", "break_glass", "break_glass_ca", "client_ca", "front_proxy", "upstream_ca"] {
        assert!(stand.metric(&label(name)) > 1_577_836_800.0, "{name}");
    }
    let old = Caller::new(stand.second(), &stand.paths.server_ca.cert, &stand.alice());
    let refused = block_on(old.try_connect(Protocol::Http2)).err().expect("the client looks at the date");
    // The certificate came; it was the client who turned away.
    assert!(refused.contains("certificate expired"), "{refused}");
}

#[test]
fn a_new_front_proxy_certificate_is_shown_on_new_connections_and_old_ones_take_no_more() {
    let stand = Stand::start(|_, _| ());
    let asserted = || -> Vec<_> {
        let connections = stand.apiserver.connections().into_iter();
        connections
            .filter(|seen| seen.paths().iter().any(|path| path.ends_with("/api/v1/namespaces/default")))
            .collect()
    };
    let alice = stand.caller(&stand.alice());
    assert!(reached(&alice));
    let before = asserted();
    assert!(!before.is_empty() && before.iter().all(|seen| seen.with_certificate));
    let identity = stand.apiserver.another_front_proxy("spillway-2");
    let (cert, key) = (&stand.paths.front_proxy_client.cert, &stand.paths.front_proxy_client.key);
    replace(key, &identity.key_pem);
    stand.until("a key without its certificate", || reloads(&stand, "front_proxy", "failed") == 1.0);
    assert!(reached(&alice));
    replace(cert, &identity.chain_pem);
    stand.until("the pair", || reloads(&stand, "front_proxy", "ok") == 1.0);
    let requests: Vec<_> = before.iter().map(|seen| seen.requests()).collect();
    for _ in 0..5 {
        assert!(reached(&alice));
    }
    let after: Vec<_> = before.iter().map(|seen| seen.requests()).collect();
    assert_eq!(after, requests, "an old connection was used again");
    assert!(asserted().len() > before.len());
    stand.until("the old connections to close", || before.iter().all(|seen| seen.is_closed()));
}

#[test]
fn a_new_key_for_service_accounts_counts_and_a_withdrawn_one_no_longer() {
    let stand = Stand::start(|_, _| ());
    let second = tempfile::tempdir().unwrap();
    let (_, next) = Pki::create(second.path());
    let (old, new) = (
        stand.account("robot", &Signer::of_file(&stand.paths.service_account.key)),
        stand.account("robot", &Signer::of_file(&next.service_account.key)),
    );
    let lane = |who: &Credential| {
        let before = stand.lanes();
        assert!(reached(&stand.caller(who)), "unverified callers are forwarded, too");
        let after = stand.lanes();
        let grown = after.into_iter().filter(|(lane, count)| before.get(lane) != Some(count));
        grown.map(|(lane, _)| lane).collect::<Vec<_>>().join(" and ")
    };
    assert_eq!((lane(&old).as_str(), lane(&new).as_str()), ("workload", "unknown"));
    replace(&stand.paths.service_account.cert, fs::read(&next.service_account.cert).unwrap());
    stand.until("the new key", || reloads(&stand, "token_keys", "ok") == 1.0);
    assert_eq!((lane(&old).as_str(), lane(&new).as_str()), ("unknown", "workload"));
}
