use std::time::Duration;

use http::header::AUTHORIZATION;

use super::pki::{Ca, Says, now};
use super::*;
use crate::identity::Credential;

struct Cluster {
    ca: Ca,
    authenticator: Authenticator,
}

fn cluster() -> Cluster {
    let ca = Ca::root("clients");
    let settings = Settings { client_ca: Some(Ca::bundle(&[&ca])), ..Settings::default() };
    let authenticator = Authenticator::new(&settings).unwrap();
    Cluster { ca, authenticator }
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

#[test]
fn a_certificate_wins_over_a_token_and_is_judged_once() {
    let Cluster { ca, authenticator } = cluster();
    let peer = authenticator.authority().judge(&[ca.leaf(&Says::default())], now());
    let first = authenticator.caller(&peer, &bearer("token"), now()).unwrap();
    let second = authenticator.caller(&peer, &HeaderMap::new(), now()).unwrap();
    assert_eq!(first.identity.user, "ada");
    assert_eq!(first.via, Assert::FrontProxy);
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn a_certificate_that_expires_on_an_open_connection_stops_counting() {
    let Cluster { ca, authenticator } = cluster();
    let peer = authenticator.authority().judge(&[ca.leaf(&Says::default())], now());
    let later = now() + Duration::from_secs(20 * 365 * 24 * 3600);
    let refused = authenticator.caller(&peer, &HeaderMap::new(), later).unwrap_err();
    assert_eq!(refused, Refused::Certificate(Unverifiable::Expired));
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[test]
fn an_unverifiable_certificate_needs_a_token_to_vouch() {
    let Cluster { authenticator, .. } = cluster();
    let peer = authenticator.authority().judge(&[Ca::root("others").leaf(&Says::default())], now());
    assert!(matches!(authenticator.caller(&peer, &HeaderMap::new(), now()), Err(Refused::Certificate(_))));
    let caller = authenticator.caller(&peer, &bearer("token"), now()).unwrap();
    assert_eq!(caller.identity.credential, Credential::UnverifiedToken);
    assert_eq!(caller.via, Assert::Unverified);
}

#[test]
fn nobody_is_anonymous_and_two_tokens_are_refused() {
    let Cluster { authenticator, .. } = cluster();
    let caller = authenticator.caller(&PeerCertificate::none(), &HeaderMap::new(), now()).unwrap();
    assert_eq!(caller.identity.credential, Credential::Anonymous);
    let mut two = bearer("a");
    two.append(AUTHORIZATION, "Bearer b".parse().unwrap());
    let refused = authenticator.caller(&PeerCertificate::none(), &two, now()).unwrap_err();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn a_memo_gives_back_what_was_kept_by_type() {
    let memo = Memo::default();
    assert_eq!(memo.look(|number: &u32| *number), None);
    memo.keep(7_u32);
    assert_eq!(memo.look(|number: &u32| *number), Some(7));
    assert_eq!(memo.look(|text: &String| text.len()), None);
}
