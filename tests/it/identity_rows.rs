//! Rows B4 to B12 of the threat model, asked of a real kube-apiserver that knows every kind of credential there is.
//!
//! A cluster of its own: kube-apiserver is told of an OIDC provider ([`crate::issuer`]) and of bootstrap tokens. Which lane
//! a request got is read from spillway's metrics, through a policy that gives each kind of credential a lane of its own.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    fs,
    sync::{LazyLock, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use spillway::authn::{Authenticator, Material, PeerCertificate, Settings, token};
use spillway::identity::Credential as Kind;

use crate::{
    client::{Answer, Body, Caller, Protocol, block_on, get, send, with},
    cluster::{Cluster, ClusterOptions, Credential, wait_for},
    issuer::{Issuer, Signer, seconds},
    spillway::{Spillway, Target, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNTS_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const BOOTSTRAP: &str = "abcdef.0123456789abcdef";
const REVIEW: &str = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;

/// Each kind of credential in a lane of its own.
const POLICY: &str = "apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: rows
defaultRules: Omit
rules:
  - { name: everybody-healthy, match: { credentials: [ReviewedToken], users: ['system:bootstrap:*'], verbs: [list] }, lane: node-health }
  - { name: bootstrap, match: { users: ['system:bootstrap:*'] }, lane: control-plane }
  - { name: oidc, match: { credentials: [OidcToken] }, lane: operators }
  - { name: legacy, match: { credentials: [ReviewedToken], serviceAccounts: [rows/legacy] }, lane: platform }
  - { name: people, match: { credentials: [Certificate] }, lane: workload }
";

struct Site {
    cluster: Cluster,
    issuer: Issuer,
    spillway: Spillway,
    _dir: tempfile::TempDir,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(dir.path());
    let authentication = dir.path().join("authentication.json");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1beta1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {
                "url": issuer.url(), "audiences": ["kubernetes"],
                "certificateAuthority": fs::read_to_string(&issuer.ca).unwrap(),
            },
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "oidc:"},
                "groups": {"claim": "groups", "prefix": "team:"},
                "uid": {"claim": "oid"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
            },
        }],
    });
    fs::write(&authentication, configuration.to_string()).unwrap();
    let cluster = Cluster::start(ClusterOptions {
        apiserver_flags: vec![
            format!("--authentication-config={}", authentication.display()),
            "--enable-bootstrap-token-auth=true".into(),
        ],
        ..Default::default()
    });
    cluster.apply(include_str!("../../deploy/token-review.yaml"));
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Secret\ntype: bootstrap.kubernetes.io/token\n\
         metadata: {{name: bootstrap-token-{id}, namespace: kube-system}}\n\
         stringData: {{token-id: {id}, token-secret: '{secret}', usage-bootstrap-authentication: 'true'}}\n",
        id = &BOOTSTRAP[..6],
        secret = &BOOTSTRAP[7..],
    ));
    let spillway = Spillway::start(&cluster, Some(POLICY), |config| {
        config["logging"]["access"] = json!("All");
        config["authentication"]["jwt"] = json!([{
            "issuer": {
                "url": issuer.url(), "audiences": ["kubernetes"],
                "jwksURL": format!("{}/keys", issuer.url()), "certificateAuthorityFile": issuer.ca,
            },
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "oidc:"},
                "groups": {"claim": "groups", "prefix": "team:"},
                "uid": {"claim": "oid"},
                "extra": [{"key": "example.com/tenant", "claim": "tenant"}],
            },
        }]);
        config["authentication"]["tokenReview"] = json!({"enabled": true});
    });
    Site { cluster, issuer, spillway, _dir: dir }
});

/// Lanes are told by counters of the whole proxy, so these tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn review() -> Request<Body> {
    send(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", REVIEW)
}

impl Site {
    fn direct(&self) -> Target {
        Target::direct(&self.cluster)
    }

    /// Directly, and through spillway.
    fn callers(&self, who: &Credential) -> [Caller; 2] {
        [self.direct().caller(who), self.spillway.caller(who)]
    }

    fn ask(&self, who: &Credential, request: Request<Body>) -> Answer {
        block_on(self.spillway.caller(who).ask(Protocol::Http2, request))
    }

    /// The lane that a review by `who` is in now, and its status.
    fn lane(&self, who: &Credential) -> (String, StatusCode) {
        self.lane_of(who, review())
    }

    fn lane_of(&self, who: &Credential, request: Request<Body>) -> (String, StatusCode) {
        let before = self.requests();
        let answer = self.ask(who, request);
        let after = self.requests();
        let grown = after.iter().filter(|(lane, count)| before.get(*lane).copied().unwrap_or(0) < **count);
        let grown: Vec<_> = grown.map(|(lane, _)| lane.clone()).collect();
        assert_eq!(grown.len(), 1, "one request, one lane: {grown:?}; {}", self.spillway.log());
        (grown[0].clone(), answer.status)
    }

    /// Requests so far, by lane.
    fn requests(&self) -> BTreeMap<String, u64> {
        let (_, page) = self.spillway.metrics_page("/metrics").unwrap();
        let mut requests = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("spillway_requests_total{")) {
            let lane = line.split("lane=\"").nth(1).unwrap().split('"').next().unwrap();
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *requests.entry(lane.to_owned()).or_default() += count;
        }
        requests
    }

    fn metric(&self, line: &str) -> u64 {
        let (_, page) = self.spillway.metrics_page("/metrics").unwrap();
        let found = page.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0)
    }

    fn oidc(&self, name: &str) -> String {
        self.issuer.token(json!({"sub": name, "oid": "u-7", "groups": ["dev", "ops"], "tenant": "north"}))
    }

    /// A token of the kind that lies in a Secret for ever, made as the token controller makes it.
    fn legacy(&self, account: &str) -> String {
        self.cluster.token("rows", account, "1h");
        let admin = self.cluster.admin_kubeconfig();
        let uid = ["get", "serviceaccount", account, "-n", "rows", "-o", "jsonpath={.metadata.uid}"];
        let uid = self.cluster.kubectl_ok(&admin, &uid);
        let claim = |name: &str| format!("kubernetes.io/serviceaccount/{name}");
        let secret = format!("{account}-token");
        let token = Signer::of_file(&self.cluster.paths.service_account.key).sign(&json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:rows:{account}"),
            claim("namespace"): "rows", claim("secret.name"): secret,
            claim("service-account.name"): account, claim("service-account.uid"): uid,
        }));
        self.cluster.apply(&format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\n\
             metadata:\n  name: {secret}\n  namespace: rows\n  \
             annotations: {{kubernetes.io/service-account.name: {account}, kubernetes.io/service-account.uid: {uid}}}\n\
             stringData: {{token: '{token}', namespace: rows, ca.crt: none}}\n"
        ));
        token
    }

    /// Waits until kube-apiserver itself accepts the token: it learns of Secrets and keys a moment later.
    fn accepted(&self, token: &str) -> Credential {
        let who = Credential::Token(token.to_owned());
        let caller = self.direct().caller(&who);
        wait_for("kube-apiserver to accept the token", PATIENCE, || {
            let answer = block_on(caller.ask(Protocol::Http1, review()));
            if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.text()) }
        });
        who
    }
}

/// As every client of Kubernetes does, comes back when it is told to: the question is who somebody is, and on a busy machine
/// the answer may be "later" first.
fn patiently(caller: &Caller, protocol: Protocol, request: impl Fn() -> Request<Body>) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = block_on(caller.ask(protocol, request()));
        if answer.status != StatusCode::TOO_MANY_REQUESTS || Instant::now() > until {
            return answer;
        }
        std::thread::sleep(Duration::from_secs(answer.header("retry-after").parse().expect("whole seconds")));
    }
}

fn user_info(answer: &Answer) -> Value {
    answer.json()["status"]["userInfo"].clone()
}

#[test]
fn whoami_is_the_same_through_spillway_for_every_kind_of_credential() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let people = [
        ("a certificate", site.cluster.alice()),
        ("a node", Credential::Certificate(site.cluster.pki.node("rows"))),
        ("a bound token", Credential::Token(site.cluster.token("rows", "bound", "1h"))),
        ("a legacy token", site.accepted(&site.legacy("legacy"))),
        ("a bootstrap token", site.accepted(BOOTSTRAP)),
        ("an OIDC token", site.accepted(&site.oidc("ada"))),
        ("nothing", Credential::None),
        ("a made-up token", Credential::Token("made-up".into())),
    ];
    for (what, who) in &people {
        for protocol in Protocol::BOTH {
            let answers = site.callers(who).map(|caller| patiently(&caller, protocol, review));
            let [direct, through] = &answers;
            assert_eq!(through.status, direct.status, "{what}: {}", through.text());
            let named = direct.status == StatusCode::CREATED;
            assert_eq!(named, !["nothing", "a made-up token"].contains(what), "{what}: {}", direct.text());
            assert_eq!(user_info(through), user_info(direct), "{what} over {protocol:?}");
        }
    }
    // What only a few may do: be somebody else, in every part.
    let parts: [&[(&'static str, &str)]; 4] = [
        &[("impersonate-user", "bob")],
        &[("impersonate-user", "bob"), ("impersonate-group", "crew"), ("impersonate-group", "zoë/é")],
        &[("impersonate-user", "bob"), ("impersonate-uid", "u-1")],
        &[("impersonate-user", "bob"), ("impersonate-extra-example.com%2ftenant", "north")],
    ];
    for part in parts {
        let request = || part.iter().fold(review(), |request, (name, value)| with(request, name, value));
        let [direct, through] =
            site.callers(&site.cluster.alice()).map(|caller| patiently(&caller, Protocol::Http2, request));
        assert_eq!(direct.status, StatusCode::CREATED, "{part:?}: {}", direct.text());
        assert_eq!(user_info(&through), user_info(&direct), "{part:?}");
    }
}

#[test]
fn b4_impersonation_without_rights_is_refused_and_never_lifts() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let weak = Credential::Certificate(site.cluster.pki.client("rows-weak", "mallory", &["nobody"]));
    let cases: [(&[(&'static str, &str)], &str); 5] = [
        (&[("impersonate-user", "system:admin"), ("impersonate-group", "system:masters")], "workload"),
        (&[("impersonate-user", "system:bootstrap:abcdef")], "workload"),
        (&[("impersonate-group", "system:masters")], "workload"),
        (&[("impersonate-uid", "0")], "workload"),
        (&[("impersonate-extra-scopes", "all")], "workload"),
    ];
    for (headers, expected) in cases {
        let request = || headers.iter().fold(review(), |request, (name, value)| with(request, name, value));
        let direct = block_on(site.direct().caller(&weak).ask(Protocol::Http2, request()));
        let (lane, status) = site.lane_of(&weak, request());
        assert_eq!(status, direct.status, "{headers:?}");
        assert!(status.is_client_error() || status.is_server_error(), "{headers:?} was granted");
        assert_eq!(lane, expected, "{headers:?}");
    }
}

/// Several hundred ways to write one header: whom we take the caller for is whom kube-apiserver does.
#[test]
fn b5_the_authorization_header_is_read_as_the_apiserver_reads_it() {
    let _turn = alone();
    let site = &*SITE;
    let token = site.cluster.token("rows", "reader", "1h");
    let authenticator = Authenticator::new(&Settings {
        service_accounts: Some(token::Settings {
            keys: vec![Material::File(site.cluster.paths.service_account.cert.clone())],
            issuers: vec![ACCOUNTS_ISSUER.into()],
            audiences: vec![],
        }),
        ..Settings::default()
    })
    .unwrap();
    let schemes =
        ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer:", "Beare", "Basic", "Token", "\u{17f}earer", ""];
    let separators = [" ", "  ", "\t", "", " \t", "\u{a0}"];
    let tokens = [token.as_str(), "made-up", "", "a.b.c"];
    let ends = ["", " ", " more", ",", "\t", " \t x"];
    let mut variants = Vec::new();
    for scheme in schemes {
        for separator in separators {
            for (number, token) in tokens.iter().enumerate() {
                let written = ends.map(|end| {
                    let shown = format!("{scheme}{separator}TOKEN-{number}{end}");
                    (format!("{scheme}{separator}{token}{end}"), shown)
                });
                variants.extend(written);
            }
        }
    }
    let mut seen = BTreeMap::new();
    block_on(async {
        let target = site.direct();
        let nobody = target.caller(&Credential::None);
        let mut connection = nobody.connect(Protocol::Http1).await;
        for (text, shown) in &variants {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            let mut request = review();
            request.headers_mut().insert("authorization", value.clone());
            let ours = authenticator.caller(&PeerCertificate::none(), request.headers(), SystemTime::now());
            let ours = ours.unwrap().identity.credential;
            if !connection.is_open() {
                connection = nobody.connect(Protocol::Http1).await;
            }
            let answer = connection.ask(request).await;
            // An anonymous caller may not ask who it is.
            let theirs = match answer.status {
                StatusCode::CREATED => Kind::ServiceAccountToken,
                StatusCode::FORBIDDEN if answer.text().contains("system:anonymous") => Kind::Anonymous,
                StatusCode::UNAUTHORIZED => Kind::UnverifiedToken,
                _ => panic!("{shown:?}: {}", answer.text()),
            };
            assert_eq!(ours, theirs, "{shown:?}: we (left) and kube-apiserver");
            *seen.entry(format!("{ours}")).or_insert(0) += 1;
        }
    });
    let count: usize = seen.values().sum();
    assert!(count >= 500 && seen.len() == 3 && seen.values().all(|count| *count >= 20), "{seen:?}");
}

/// And how a browser writes it.
#[test]
fn b5_a_websocket_token_is_read_as_the_apiserver_reads_it() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let _turn = alone();
    let site = &*SITE;
    let token = site.cluster.token("rows", "browser", "1h");
    let encoded =
        |token: &str| format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(token));
    let (good, bad) = (encoded(&token), encoded("made-up"));
    let protocols = [
        format!("{good}, v4.channel.k8s.io"),
        format!("v4.channel.k8s.io,{good}"),
        good.clone(),
        format!("{good}, "),
        format!("{bad}, v4.channel.k8s.io"),
        format!("{good}, {good}, v4.channel.k8s.io"),
        format!("{}, v4.channel.k8s.io", encoded("")),
        format!("{good}=, v4.channel.k8s.io"),
        format!("{}, v4.channel.k8s.io", good.to_uppercase()),
        "v4.channel.k8s.io".to_owned(),
    ];
    let user = |answer: &Answer| match answer.status {
        StatusCode::UNAUTHORIZED => "refused".to_owned(),
        _ => answer.json()["message"]
            .as_str()
            .unwrap_or_default()
            .split('"')
            .nth(1)
            .unwrap_or_default()
            .to_owned(),
    };
    let mut seen = std::collections::BTreeSet::new();
    for protocols in &protocols {
        for upgrade in ["websocket", "WebSocket", "websocket, x", "x"] {
            let request = || {
                let request = get("/api/v1/namespaces/rows/configmaps?watch=1");
                let request = with(with(request, "connection", "keep-alive, Upgrade"), "upgrade", upgrade);
                let request = with(
                    with(request, "sec-websocket-version", "13"),
                    "sec-websocket-key",
                    "dGhlIHNhbXBsZSBub25jZQ==",
                );
                with(request, "sec-websocket-protocol", protocols)
            };
            let [direct, through] = site
                .callers(&Credential::None)
                .map(|caller| block_on(caller.ask(Protocol::Http1, request())));
            let what = protocols.replace(&token, "…");
            assert_eq!(through.status, direct.status, "{upgrade}, {what}");
            assert_eq!(user(&through), user(&direct), "{upgrade}, {what}");
            seen.insert(user(&direct));
        }
    }
    assert_eq!(seen.len(), 3, "refused, anonymous and the account: {seen:?}");
    let log = site.spillway.whole_log();
    assert!(
        !log.contains(&URL_SAFE_NO_PAD.encode(&token)) && !log.contains(&token),
        "the token is in the log"
    );
}

#[test]
fn b6_forged_tokens_have_no_rank_and_an_oidc_token_has_one() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let ada = site.accepted(&site.oidc("ada"));
    // The first fetch may still be on its way.
    wait_for("the provider's keys to be known", PATIENCE, || match site.lane(&ada) {
        (lane, StatusCode::CREATED) if lane == "operators" => Ok(()),
        other => Err(format!("{other:?}; {}", site.spillway.log())),
    });
    let forged = |claims: Value, signer: &Signer| Credential::Token(signer.sign(&claims));
    let claims = |issuer: &str| json!({"iss": issuer, "aud": "kubernetes", "sub": "ada", "oid": "u", "tenant": "n", "exp": seconds() + 600});
    let stranger = Signer::new("first");
    let accounts = json!({
        "iss": ACCOUNTS_ISSUER, "sub": "system:serviceaccount:rows:legacy", "aud": [ACCOUNTS_ISSUER],
        "exp": seconds() + 600,
        "kubernetes.io": {"namespace": "rows", "serviceaccount": {"name": "legacy", "uid": "u"}},
    });
    let cases = [
        ("the provider's key id, another key", forged(claims(site.issuer.url()), &stranger)),
        ("another provider", forged(claims("https://issuer.example.com"), &stranger)),
        ("an account, signed by a stranger", forged(accounts, &stranger)),
        (
            "another audience",
            Credential::Token(
                site.issuer.token(json!({"sub": "ada", "oid": "u", "tenant": "n", "aud": "else"})),
            ),
        ),
        (
            "expired",
            Credential::Token(
                site.issuer.token(json!({"sub": "ada", "oid": "u", "tenant": "n", "exp": seconds() - 10})),
            ),
        ),
        (
            "not yet valid",
            Credential::Token(
                site.issuer.token(json!({"sub": "ada", "oid": "u", "tenant": "n", "nbf": seconds() + 600})),
            ),
        ),
    ];
    for (what, who) in &cases {
        assert_eq!(site.lane(who), ("unknown".to_owned(), StatusCode::UNAUTHORIZED), "{what}");
    }
    assert_eq!(site.lane(&ada).0, "operators", "nobody was harmed");
}

#[test]
fn b6_a_key_that_the_provider_replaced_is_fetched_and_an_outage_changes_nothing() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let old = Credential::Token(site.oidc("ada"));
    wait_for("the provider's keys to be known", PATIENCE, || match site.lane(&old) {
        (lane, _) if lane == "operators" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Not well, and asked for a key that it has not published: the keys that are here stay.
    site.issuer.fail_with(Some(StatusCode::SERVICE_UNAVAILABLE));
    let unknown = Signer::new("unknown").sign(&json!({"iss": site.issuer.url()}));
    let failures = || site.metric("spillway_credential_reloads_total{result=\"failed\",what=\"jwks_url\"}");
    let before = failures();
    wait_for("a fetch that fails", PATIENCE, || {
        site.ask(&Credential::Token(unknown.clone()), get("/version"));
        if failures() > before { Ok(()) } else { Err(site.spillway.log()) }
    });
    let another = Credential::Token(site.oidc("bert"));
    assert_eq!(site.lane(&another).0, "operators", "stale keys are keys");
    site.issuer.fail_with(None);
    site.issuer.change_key("second");
    let new = Credential::Token(site.oidc("carla"));
    wait_for("the new key to be used", PATIENCE, || match site.lane(&new) {
        (lane, _) if lane == "operators" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(
        site.lane(&another).0,
        "unknown",
        "and the old key is forgotten, whatever was judged by it before"
    );
}

#[test]
fn b7_a_reviewed_token_has_a_rank_until_it_is_revoked_and_never_keeps_nodes_alive() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let bootstrap = site.accepted(BOOTSTRAP);
    assert_eq!(site.lane(&bootstrap), ("control-plane".to_owned(), StatusCode::CREATED));
    // A rule gives it node-health; its proof hangs on kube-apiserver, so the rule does not fit, and the next one does.
    let (lane, _) = site.lane_of(&bootstrap, get("/api/v1/namespaces/rows/configmaps"));
    assert_eq!(lane, "control-plane");
    assert!(site.metric("spillway_token_reviews_total{result=\"good\"}") > 0);

    let legacy = site.accepted(&site.legacy("legacy"));
    assert_eq!(site.lane(&legacy), ("platform".to_owned(), StatusCode::CREATED));
    let admin = site.cluster.admin_kubeconfig();
    site.cluster.kubectl_ok(&admin, &["delete", "secret", "legacy-token", "-n", "rows"]);
    wait_for("the revoked token to lose its rank", PATIENCE, || match site.lane(&legacy) {
        (lane, StatusCode::UNAUTHORIZED) if lane == "unknown" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Nobody else lost anything by it.
    assert_eq!(site.lane(&bootstrap), ("control-plane".to_owned(), StatusCode::CREATED));
}

/// Certificates that are odd in one way each: whoever kube-apiserver turns away is turned away, whoever it takes for
/// somebody is the same here.
#[test]
fn b9_odd_certificates_are_judged_as_the_apiserver_judges_them() {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    type Change = fn(&mut CertificateParams);
    let odd: [(&str, &str, Change); 9] = [
        ("expired", "ada", |params| params.not_after = date_time_ymd(2020, 1, 1)),
        ("not yet valid", "ada", |params| params.not_before = date_time_ymd(2090, 1, 1)),
        ("for servers", "ada", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
        }),
        ("for anything", "ada", |params| params.extended_key_usages = vec![]),
        ("for both", "ada", |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
        ("a uid", "ada", |params| {
            params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "u-9");
        }),
        ("no name", "", |_| ()),
        ("anonymous", "system:anonymous", |_| ()),
        ("letters of others", "zoë/日本", |_| ()),
    ];
    let mut accepted = 0;
    for (number, (what, name, change)) in odd.into_iter().enumerate() {
        let pair = site.cluster.pki.odd_client(&format!("odd-{number}"), name, change);
        for protocol in Protocol::BOTH {
            let who = Credential::Certificate(pair.clone());
            let [direct, through] = site.callers(&who).map(|caller| block_on(caller.ask(protocol, review())));
            assert_eq!(through.status, direct.status, "{what}: {}; {}", direct.text(), through.text());
            assert_eq!(user_info(&through), user_info(&direct), "{what}");
            accepted += usize::from(direct.status == StatusCode::CREATED);
        }
    }
    assert!((6..18).contains(&accepted), "some are accepted and some are not: {accepted}");
}

/// What a certificate says about its holder ends up in logs; a log line must stay one.
#[test]
fn b10_no_name_breaks_a_log_line_and_no_token_is_in_one() {
    if !needs_spillway() {
        return;
    }
    let _turn = alone();
    let site = &*SITE;
    let canary = "canary0123456789canary";
    for name in ["plain\u{85}next", "\u{202e}reversed", "quote\" level=ERROR msg=\"forged"] {
        let file = format!("rows-{}", name.len());
        let who = Credential::Certificate(site.cluster.pki.client(&file, name, &["odd group"]));
        let agent = "agent\tlevel=ERROR\tforged";
        site.ask(&who, with(review(), "user-agent", agent));
    }
    for token in [canary.to_owned(), format!("{canary}.e30.e30")] {
        site.ask(&Credential::Token(token.clone()), get("/api/v1/pods"));
        site.ask(&Credential::None, with(get("/api"), "authorization", &format!("Basic {token}")));
    }
    let (_, metrics) = site.spillway.metrics_page("/metrics").unwrap();
    let (_, status) = site.spillway.metrics_page("/status").unwrap();
    let log = site.spillway.whole_log();
    for text in [&log, &metrics, &status] {
        assert!(!text.contains(canary), "a token is where it must not be");
        assert!(!text.contains(&BOOTSTRAP[7..]), "a token is where it must not be");
    }
    assert!(log.contains("oidc:") || log.contains("user="), "the access log is on: {}", site.spillway.log());
    for line in log.lines() {
        assert!(!line.chars().any(|c| c.is_control() && c != '\u{1b}' && c != '\t'), "{line:?}");
        assert!(!line.starts_with("next") && !line.contains("\u{202e}"), "{line:?}");
    }
}
