//! Do the four probes find what they are there to tell apart, each undisturbed by the others?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use http::StatusCode;
use spillway::io::Flusher;
use spillway::upstream::{Outcome, Prober, Probers, Settings};

use crate::apiserver::{Apiserver, Setup};

/// For a reading that comes four times a second, on a busy machine.
const SEEN: Duration = Duration::from_secs(60);

fn spawn(settings: &Settings, namespace: &str) -> Probers {
    let mut settings = settings.clone();
    settings.probe.namespace = namespace.to_owned();
    Probers::spawn(&settings, &Flusher::spawn()).expect("valid settings")
}

/// Waits for a reading that `is` what is looked for.
async fn reads(what: &str, prober: &mut Prober, is: impl Fn(Outcome) -> bool) {
    let found = async { while !is(prober.next().await.expect("it runs").outcome) {} };
    tokio::time::timeout(SEEN, found).await.unwrap_or_else(|_| panic!("{what}: {:?}", prober.latest()));
}

const fn answered(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Answered { healthy: true, .. })
}

#[tokio::test]
async fn an_etcd_that_hangs_delays_no_other_probe() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut probers = spawn(&apiserver.settings, "slow-etcd");
    let consistent = probers.consistent.as_mut().expect("there is a front-proxy certificate");
    reads("outstanding", consistent, |outcome| matches!(outcome, Outcome::Outstanding(_))).await;
    let cached = probers.cached.as_mut().expect("there is a front-proxy certificate");
    for _ in 0..2 {
        reads("livez", &mut probers.livez, answered).await;
        reads("cached", cached, answered).await;
        reads("readyz", &mut probers.ready, answered).await;
    }
    let before = probers.consistent.as_ref().and_then(Prober::latest).expect("it was read");
    assert!(matches!(before.outcome, Outcome::Outstanding(_) | Outcome::Lost), "{before:?}");
    apiserver.answer(1_000);
    reads("consistent", probers.consistent.as_mut().expect("as above"), answered).await;
    // Each has connections of its own, and only the object is asked for with the front-proxy certificate.
    for connection in apiserver.connections() {
        let paths = connection.paths();
        assert!(paths.windows(2).all(|pair| pair[0] == pair[1]), "{paths:?}");
        assert_eq!(connection.with_certificate, paths[0].contains("/namespaces/"), "{paths:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_not_there_is_a_refusal_and_no_answer() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut probers = spawn(&apiserver.settings, "nowhere");
    let refused = |outcome| outcome == Outcome::Refused(StatusCode::NOT_FOUND);
    reads("cached", probers.cached.as_mut().expect("there is a certificate"), refused).await;
    reads("consistent", probers.consistent.as_mut().expect("there is a certificate"), refused).await;
    reads("livez", &mut probers.livez, answered).await;
}

#[tokio::test]
async fn without_a_front_proxy_certificate_no_object_is_asked_for() {
    let apiserver = Apiserver::start(Setup::default()).await;
    let mut settings = apiserver.settings.clone();
    settings.front_proxy = None;
    let mut probers = spawn(&settings, "slow-etcd");
    assert!(probers.cached.is_none() && probers.consistent.is_none());
    reads("livez", &mut probers.livez, answered).await;
}
