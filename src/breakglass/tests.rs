//! The lane over real sockets, with a handler of its own in place of the gateway.

use futures_util::future::{BoxFuture, FutureExt};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rcgen::{CertificateParams, DnType};
use serde_json::{Value, json};

use super::*;
use crate::authn::Verdict;
use crate::server::fixture::{
    Authority, Pair, client_config, connect, full, get, http1_over, http2_over, memory, text, within,
};
use crate::server::{Connection, Protocol, ServerBody, ShardContext};
use crate::telemetry::Metrics;

const GROUP: &str = "spillway:break-glass";

struct Opened {
    lane: Lane,
    serving: Authority,
    people: Authority,
    folder: tempfile::TempDir,
}

/// Answers with who asked, and with the headers that reached it.
struct Greeting;

impl Handler for Greeting {
    fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        let Verdict::Verified(caller) = connection.certificate.verdict(clock::wall()) else {
            panic!("the gate let a stranger in")
        };
        let reason = [gate::REASON, gate::TICKET, present::GRANT]
            .iter()
            .any(|name| request.headers().contains_key(*name));
        let text = format!("{} {} {reason}", caller.identity.user, caller.identity.credential);
        std::future::ready(Response::new(full(text))).boxed()
    }
}

fn marked(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::OrganizationalUnitName, UNIT);
}

fn person(people: &Authority, user: &str) -> Pair {
    people.member_with(user, Some(GROUP), marked)
}

fn open_with(change: impl FnOnce(&mut Settings, &Authority, &std::path::Path)) -> Opened {
    let (serving, people) = (Authority::new("serving"), Authority::new("break-glass"));
    let (pair, folder) = (serving.server(), tempfile::tempdir().unwrap());
    let mut settings = Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        certificate: memory(&pair.certificate),
        key: memory(&pair.key),
        client_ca: memory(&people.certificate),
        groups: vec!["night-watch".into(), GROUP.into()],
        connections: 64,
        deny_file: None,
        arming: ArmMode::Open,
        grants: GrantSettings::default(),
        state_folder: Some(folder.path().join("state")),
        on_use: vec![],
        drill: None,
    };
    change(&mut settings, &people, folder.path());
    let audit = audit::Settings {
        folder: folder.path().join("audit"),
        key_folder: settings.state_folder.clone().unwrap(),
        rotate_bytes: 1 << 20,
        host: "cp-1".into(),
        config_hash: "0123".into(),
    };
    let surroundings = Surroundings {
        audit: Audit::start(&audit).unwrap(),
        bypassed: Arc::new(|| json!({ "state": "brown", "limit": 40 })),
        reloaded: Arc::new(|_| ()),
        metrics: Metrics::new().unwrap().lane(),
        occupancy: Arc::new(|| (1, 16)),
        upstream: "127.0.0.1:6443".into(),
    };
    let factory: HandlerFactory = Arc::new(|_: &ShardContext| -> Arc<dyn Handler> { Arc::new(Greeting) });
    let lane = Lane::bind(&settings).unwrap().start(&Drain::new(), surroundings, factory).unwrap();
    Opened { lane, serving, people, folder }
}

fn open() -> Opened {
    open_with(|_, _, _| ())
}

impl Opened {
    async fn ask(
        &self,
        pair: Option<&Pair>,
        request: Request<http_body_util::Empty<bytes::Bytes>>,
    ) -> (StatusCode, String) {
        let stream = connect(self.lane.address(), client_config(&self.serving, Protocol::Http2, pair)).await;
        let response = http2_over(stream).await.send_request(request).await.unwrap();
        (response.status(), text(response).await)
    }

    /// A POST with a JSON body, as `spillway break-glass arm` sends it.
    async fn post(&self, pair: &Pair, path: &str, body: &Value) -> (StatusCode, Value) {
        let access = Access {
            server: format!("https://localhost:{}", self.lane.address().port()),
            cluster_ca_pem: self.serving.certificate.clone(),
            certificate_pem: pair.certificate.clone(),
            key_pem: pair.key.clone(),
            server_name: None,
        };
        let answer = Target::of(&access).unwrap().ask(Method::POST, path, &body.to_string()).await.unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// All records, once there are so many of this event: on a busy machine an answer does not wait for its record.
    async fn records_with(&self, event: &str, count: usize) -> Vec<Value> {
        loop {
            let records = self.records();
            if records.iter().filter(|record| record["event"] == event).count() >= count {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit/break-glass-audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn only_a_certificate_of_the_lanes_own_ca_groups_and_unit_opens_it() {
    let opened = open();
    let stranger = Authority::new("cluster").member_with("admin", Some(GROUP), marked);
    let ada = person(&opened.people, "ada");
    let (loner, other) =
        (opened.people.member_with("eve", None, marked), opened.people.member_with("eve", Some("x"), marked));
    let unmarked = opened.people.member("eve", Some(GROUP));
    for (pair, expected) in [
        (Some(&ada), None),
        (Some(&stranger), Some("not the break-glass CA")),
        (Some(&loner), Some("names none of this lane's groups")),
        (Some(&unmarked), Some("not marked for break-glass")),
        (None, Some("none was shown")),
        (Some(&ada), None),
    ] {
        let mut request = get("/api");
        request.headers_mut().insert("authorization", "Bearer good-elsewhere".parse().unwrap());
        let (status, body) = opened.ask(pair, request).await;
        match expected {
            None => assert_eq!((status, body.as_str()), (StatusCode::OK, "ada break_glass false")),
            Some(words) => {
                assert_eq!(status, StatusCode::UNAUTHORIZED);
                assert!(body.contains(words) && body.contains(r#""reason":"Unauthorized""#), "{body}");
            }
        }
    }
    // Four have failed; the fifth is told why, the sixth that it is enough, and a good one passes all the same.
    assert_eq!(opened.ask(Some(&other), get("/api")).await.0, StatusCode::UNAUTHORIZED);
    let (status, body) = opened.ask(Some(&other), get("/api")).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert_eq!(opened.ask(Some(&ada), get("/api")).await.0, StatusCode::OK);
    within(opened.lane.close(Duration::ZERO)).await;
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let Opened { lane, serving, people, .. } = &open();
    let config = client_config(serving, Protocol::Http1, Some(&person(people, "ada")));
    for _ in 0..2 {
        let stream = connect(lane.address(), Arc::clone(&config)).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let response = http1_over(stream).await.send_request(get("/api")).await.unwrap();
        assert_eq!(text(response).await, "ada break_glass false");
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_its_open_connection() {
    let opened = open_with(|settings, _, folder| settings.deny_file = Some(folder.join("revoked.txt")));
    let ada = person(&opened.people, "ada");
    let serial = read_certificate(ada.certificate.as_bytes()).unwrap().serial;
    let stream =
        connect(opened.lane.address(), client_config(&opened.serving, Protocol::Http2, Some(&ada))).await;
    let mut client = http2_over(stream).await;
    assert_eq!(client.send_request(get("/api")).await.unwrap().status(), StatusCode::OK);
    std::fs::write(opened.folder.path().join("revoked.txt"), format!("nonsense here\n{serial}  ada\n"))
        .unwrap();
    within(async {
        loop {
            let response = client.send_request(get("/api")).await.unwrap();
            if response.status() == StatusCode::UNAUTHORIZED {
                let body = text(response).await;
                assert!(body.contains("was revoked"), "{body}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drill_certificate_opens_health_checks_and_nothing_else() {
    let opened = open();
    let drill = opened.people.member_with("drill-cp-1", Some("spillway:break-glass-drill"), |params| {
        params.distinguished_name.push(DnType::OrganizationalUnitName, UNIT_DRILL);
    });
    assert_eq!(opened.ask(Some(&drill), get("/livez")).await.0, StatusCode::OK);
    assert_eq!(opened.ask(Some(&drill), get("/readyz/etcd")).await.0, StatusCode::OK);
    for path in ["/api/v1/nodes", "/livezz", "/spillway/arm", "/"] {
        let (status, body) = opened.ask(Some(&drill), get(path)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body}");
    }
}

#[tokio::test]
async fn a_lane_that_wants_a_reason_opens_for_the_person_who_gives_one() {
    let opened = open_with(|settings, _, _| settings.arming = ArmMode::Reasoned);
    let (ada, bob) = (person(&opened.people, "ada"), person(&opened.people, "bob"));
    let (status, body) = opened.ask(Some(&ada), get("/api")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("spillway break-glass arm --reason"), "{body}");
    let wish = json!({ "reason": "storm", "ticket": "INC-1", "seconds": 3600 });
    let (status, answer) = opened.post(&ada, "/spillway/arm", &json!({ "reason": "storm" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (status, answer) = opened.post(&ada, "/spillway/arm", &wish).await;
    assert_eq!((status, answer["armed"]["user"].as_str()), (StatusCode::OK, Some("ada")), "{answer}");
    assert_eq!(opened.ask(Some(&ada), get("/api")).await.0, StatusCode::OK);
    assert_eq!(opened.ask(Some(&bob), get("/api")).await.0, StatusCode::FORBIDDEN);
    // A header does the same, and never goes further.
    let mut request = get("/api");
    request.headers_mut().insert(gate::REASON, "storm".parse().unwrap());
    request.headers_mut().insert(gate::TICKET, "INC-2".parse().unwrap());
    let (status, body) = opened.ask(Some(&bob), request).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "bob break_glass false"));
    assert_eq!(opened.post(&ada, "/spillway/disarm", &json!({})).await.1["disarmed"], true);
    assert_eq!(opened.ask(Some(&ada), get("/api")).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn two_people_open_the_lane_and_every_step_is_in_the_log() {
    let opened = open_with(|settings, _, _| settings.arming = ArmMode::TwoPerson);
    let (ada, bob) = (person(&opened.people, "ada"), person(&opened.people, "bob"));
    let wish = json!({ "reason": "storm", "ticket": "INC-1", "seconds": 3600 });
    assert_eq!(opened.post(&ada, "/spillway/arm", &wish).await.0, StatusCode::ACCEPTED);
    assert_eq!(
        opened.post(&ada, "/spillway/confirm", &json!({ "user": "ada" })).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(opened.post(&bob, "/spillway/confirm", &json!({ "user": "ada" })).await.0, StatusCode::OK);
    assert_eq!(opened.ask(Some(&ada), get("/api/v1/nodes?limit=5")).await.0, StatusCode::OK);
    // How long the answer was is known, and written, after it.
    let records = within(Box::pin(async {
        loop {
            let records = opened.records();
            if records.len() >= 8 {
                break records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
    .await;
    let events: Vec<&str> = records.iter().filter_map(|record| record["event"].as_str()).collect();
    assert_eq!(
        events,
        ["start", "checkpoint", "arm-wanted", "checkpoint", "arm", "checkpoint", "use", "end"]
    );
    let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<u64>>());
    let end = &records[7];
    assert_eq!(end["bytes"], json!({ "in": null, "out": "ada break_glass false".len() }));
    assert_eq!((end["outcome"].as_str(), end["actor"]["user"].as_str()), (Some("complete"), Some("ada")));
    assert_eq!(end["conn_id"], records[6]["conn_id"]);
    let (arm, used) = (&records[4], &records[6]);
    assert_eq!(
        (arm["actor"]["user"].as_str(), arm["second_actor"]["user"].as_str()),
        (Some("ada"), Some("bob"))
    );
    assert_eq!((used["reason"].as_str(), used["ticket"].as_str()), (Some("storm"), Some("INC-1")));
    assert_eq!(used["class"]["resource"], "nodes");
    assert_eq!((used["status"].as_u64(), used["path"].as_str()), (Some(200), Some("/api/v1/nodes?limit=5")));
    assert_eq!(used["lane_seats"]["limit"], 16);
    assert_eq!(used["bypassed"], json!({ "state": "brown", "limit": 40 }));
    assert_eq!(used["tls"]["version"], "TLS1.3", "{used}");
    assert!(used["tls"]["cipher"].as_str().is_some_and(|name| name.starts_with("TLS13_")), "{used}");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_delay_the_lane() {
    // The folder of the log is a file: nothing can ever be written there.
    let opened = open_with(|settings, _, folder| {
        std::fs::write(folder.join("audit"), "in the way").unwrap();
        settings.state_folder = Some(folder.join("audit"));
        settings.arming = ArmMode::Reasoned;
    });
    let ada = person(&opened.people, "ada");
    let wish = json!({ "reason": "storm", "ticket": "INC-1", "seconds": 3600 });
    assert_eq!(opened.post(&ada, "/spillway/arm", &wish).await.0, StatusCode::OK);
    for _ in 0..5 {
        assert_eq!(opened.ask(Some(&ada), get("/api")).await.0, StatusCode::OK);
    }
    // The disk comes back: everything is there, in order, with a record of the gap.
    std::fs::remove_file(opened.folder.path().join("audit")).unwrap();
    within(Box::pin(async {
        let log = opened.folder.path().join("audit/break-glass-audit.jsonl");
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("audit-gap") {
                break;
            }
            let _ = opened.ask(Some(&ada), get("/api")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }))
    .await;
    let records = opened.records();
    assert!(records.iter().filter(|record| record["event"] == "use").count() >= 5);
    let gap = records.iter().find(|record| record["event"] == "audit-gap").unwrap();
    assert!(gap["delayed"].as_u64().unwrap() >= 5 && gap["lost"] == 0, "{gap}");
}

#[tokio::test]
async fn a_new_ca_is_taken_over_and_a_broken_one_is_not() {
    let opened = open_with(|settings, people, folder| {
        let file = folder.join("ca.crt");
        std::fs::write(&file, &people.certificate).unwrap();
        settings.client_ca = Material::File(file);
    });
    let (file, successor) = (opened.folder.path().join("ca.crt"), Authority::new("successor"));
    let (old, new) = (person(&opened.people, "ada"), person(&successor, "bob"));
    // Half a file: the old CA stays in force.
    std::fs::write(&file, &successor.certificate[..100]).unwrap();
    assert_eq!(opened.ask(Some(&old), get("/api")).await.0, StatusCode::OK);
    // Both, as in a rotation.
    std::fs::write(&file, format!("{}{}", opened.people.certificate, successor.certificate)).unwrap();
    within(Box::pin(async {
        while opened.ask(Some(&new), get("/api")).await.0 != StatusCode::OK {
            assert_eq!(opened.ask(Some(&old), get("/api")).await.0, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }))
    .await;
    assert_eq!(opened.ask(Some(&old), get("/api")).await.0, StatusCode::OK);
}

/// A grant for `pair` on this lane, and how to change it first.
fn granted(opened: &Opened, pair: &Pair, key: &GrantKey, change: impl FnOnce(&mut GrantOrder<'_>)) -> String {
    let cluster = read_certificate(opened.people.certificate.as_bytes()).unwrap().fingerprint;
    let shown = read_certificate(pair.certificate.as_bytes()).unwrap();
    let mut order = GrantOrder {
        user: shown.user.as_deref().unwrap(),
        fingerprint: &shown.fingerprint,
        cluster: &cluster,
        by: "bob@corp",
        reason: "delete the DaemonSet",
        ticket: "INC-481",
        starts: clock::wall(),
        length: Duration::from_secs(3_600),
    };
    change(&mut order);
    key.sign(&order, clock::wall()).unwrap().token
}

/// A lane that trusts a key, which is returned.
fn open_with_grants(required: bool) -> (Opened, GrantKey) {
    let passphrase = Passphrase::new("correct horse battery").unwrap();
    let (key, _, public) = GrantKey::found(&passphrase).unwrap();
    let opened = open_with(|settings, _, folder| {
        let file = folder.join("grant.pub");
        std::fs::write(&file, public).unwrap();
        settings.grants.key_files = vec![file];
        settings.grants.required = required;
    });
    (opened, key)
}

#[tokio::test]
async fn a_lane_that_requires_grants_opens_for_a_signed_one_alone_and_the_record_names_it() {
    let (opened, key) = open_with_grants(true);
    let (ada, eve) = (person(&opened.people, "ada"), person(&opened.people, "eve"));
    let (status, said) = opened.ask(Some(&ada), get("/api/v1/pods")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(said.contains("spillway break-glass arm --grant FILE"), "{said}");
    let wish = json!({ "reason": "storm", "ticket": "INC-1", "seconds": 600 });
    let (status, said) = opened.post(&ada, "/spillway/arm", &wish).await;
    assert_eq!((status, said["reason"].as_str()), (StatusCode::FORBIDDEN, Some("Forbidden")), "{said}");

    let token = granted(&opened, &ada, &key, |_| ());
    let (status, said) = opened.post(&eve, "/spillway/grant", &json!({ "token": token })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(said["message"].as_str().unwrap().contains("ada's certificate"), "{said}");
    let (status, said) = opened.post(&ada, "/spillway/grant", &json!({ "token": token })).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!((&said["armed"]["user"], &said["armed"]["grantedBy"]), (&json!("ada"), &json!("bob@corp")));
    let id = said["armed"]["grant"].clone();
    let (status, said) = opened.ask(Some(&ada), get("/api/v1/pods")).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "ada break_glass false"));
    assert_eq!(opened.ask(Some(&eve), get("/api/v1/pods")).await.0, StatusCode::FORBIDDEN);

    let records = opened.records_with("use", 1).await;
    let armed = records.iter().find(|record| record["event"] == "arm").unwrap();
    let used = records.iter().find(|record| record["event"] == "use").unwrap();
    for record in [armed, used] {
        assert_eq!((&record["grant_id"], &record["granted_by"]), (&id, &json!("bob@corp")), "{record}");
        assert_eq!(
            (&record["reason"], &record["ticket"]),
            (&json!("delete the DaemonSet"), &json!("INC-481"))
        );
    }
    assert!(records.iter().any(|record| record["outcome"] == "grant_other_certificate"), "{records:?}");
}

#[tokio::test]
async fn a_grant_in_a_header_arms_once_and_is_never_sent_on() {
    let (opened, key) = open_with_grants(true);
    let ada = person(&opened.people, "ada");
    let with = |token: &str| {
        let mut request = get("/api/v1/pods");
        request.headers_mut().insert(present::GRANT, token.parse().unwrap());
        request
    };
    for (change, words) in [
        (
            Box::new(|order: &mut GrantOrder<'_>| order.cluster = "prod-2")
                as Box<dyn FnOnce(&mut GrantOrder<'_>)>,
            "is for cluster prod-2",
        ),
        (
            Box::new(|order| order.starts = clock::wall() + Duration::from_secs(7_200)),
            "check the node's clock",
        ),
        (Box::new(|order| order.starts = clock::wall() - Duration::from_secs(10_000)), "ask for a new one"),
    ] {
        let (status, said) = opened.ask(Some(&ada), with(&granted(&opened, &ada, &key, change))).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(said.contains(words), "{said}");
    }
    let good = granted(&opened, &ada, &key, |_| ());
    for _ in 0..2 {
        let (status, said) = opened.ask(Some(&ada), with(&good)).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, "ada break_glass false"));
    }
    let records = opened.records_with("use", 2).await;
    assert_eq!(records.iter().filter(|record| record["event"] == "arm").count(), 1);
}

#[tokio::test]
async fn where_no_grant_is_needed_a_bad_one_keeps_nobody_out() {
    let (opened, key) = open_with_grants(false);
    let (ada, eve) = (person(&opened.people, "ada"), person(&opened.people, "eve"));
    let mut request = get("/api/v1/pods");
    request.headers_mut().insert(present::GRANT, granted(&opened, &eve, &key, |_| ()).parse().unwrap());
    let (status, said) = opened.ask(Some(&ada), request).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "ada break_glass false"));
}
