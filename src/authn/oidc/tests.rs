use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::authn::pki::now;
use crate::authn::{Assert, Authenticator, PeerCertificate};

const ISSUER: &str = "https://issuer.example.com";
const NOW_S: i64 = 2_000_000_000;

struct Signer {
    key: EcdsaKeyPair,
    id: &'static str,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), id }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": part(&point[1..33]), "y": part(&point[33..])})
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "kid": self.id}), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signed = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
    }
}

fn settings(signers: &[&Signer]) -> Settings {
    crate::authn::token::self_test().unwrap();
    let keys = json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()});
    Settings {
        issuer: ISSUER.to_owned(),
        audiences: vec!["kubernetes".to_owned(), "also".to_owned()],
        keys: KeySource::File(Material::Bytes(keys.to_string().into_bytes())),
        required: vec![("hd".to_owned(), "example.com".to_owned())],
        username: ("sub".to_owned(), "oidc:".to_owned()),
        groups: Some(("groups".to_owned(), "team:".to_owned())),
        uid: Some("oid".to_owned()),
        extra: vec![("example.com/tenant".to_owned(), "tenant".to_owned())],
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "kubernetes", "sub": "ada", "oid": "u-7", "hd": "example.com",
        "groups": ["dev", "ops"], "tenant": "north", "exp": NOW_S + 60, "nbf": NOW_S - 60,
    })
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[pointer] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn claims_become_the_identity_that_the_apiserver_derives() {
    let signer = Signer::new("k1");
    let providers = Providers::new(&[settings(&[&signer])]).unwrap();
    let verified = providers.verify(&signer.sign(&claims()), now()).unwrap();
    let identity = verified.identity;
    assert_eq!(identity.user, "oidc:ada");
    assert_eq!(identity.uid.as_deref(), Some("u-7"));
    assert_eq!(identity.groups, ["team:dev", "team:ops", "system:authenticated"]);
    assert_eq!(identity.extra, [("example.com/tenant".to_owned(), vec!["north".to_owned()])]);
    assert_eq!(identity.credential, Credential::OidcToken);
    assert_eq!(verified.not_after, now() + Duration::from_secs(60), "no leeway at the end");
    let one_group = providers.verify(&signer.sign(&changed("groups", json!("dev"))), now()).unwrap();
    assert_eq!(one_group.identity.groups, ["team:dev", "system:authenticated"]);
}

#[test]
fn b6_a_token_that_does_not_hold_in_every_point_is_nobodys() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let providers = Providers::new(&[settings(&[&signer])]).unwrap();
    let outcome = |token: &str| providers.verify(token, now()).map(|verified| verified.identity.user);
    let refused = [
        ("another signer", stranger.sign(&claims()), Unverified::Signature),
        (
            "another issuer",
            signer.sign(&changed("iss", json!("https://issuer.example.com/"))),
            Unverified::Issuer,
        ),
        ("no issuer", signer.sign(&without("iss")), Unverified::Issuer),
        ("another audience", signer.sign(&changed("aud", json!(["else"]))), Unverified::Audience),
        ("no audience", signer.sign(&without("aud")), Unverified::Audience),
        ("expired", signer.sign(&changed("exp", json!(NOW_S - 1))), Unverified::Time),
        ("no expiry", signer.sign(&without("exp")), Unverified::Time),
        ("an expiry in words", signer.sign(&changed("exp", json!("tomorrow"))), Unverified::Time),
        ("not yet", signer.sign(&changed("nbf", json!(NOW_S + 61))), Unverified::Time),
        (
            "a required claim of another value",
            signer.sign(&changed("hd", json!("evil.com"))),
            Unverified::Claims,
        ),
        ("no required claim", signer.sign(&without("hd")), Unverified::Claims),
        ("no name", signer.sign(&without("sub")), Unverified::Claims),
        ("an empty name", signer.sign(&changed("sub", json!(""))), Unverified::Claims),
        ("a name with a line feed", signer.sign(&changed("sub", json!("a\nb"))), Unverified::Claims),
        ("groups that are numbers", signer.sign(&changed("groups", json!([1]))), Unverified::Claims),
        ("no uid", signer.sign(&without("oid")), Unverified::Claims),
        ("no algorithm", signer.sign_as(&json!({"alg": "none"}), &claims()), Unverified::Key),
        (
            "a shared secret",
            signer.sign_as(&json!({"alg": "HS256", "kid": "k1"}), &claims()),
            Unverified::Key,
        ),
        ("another curve", signer.sign_as(&json!({"alg": "ES384", "kid": "k1"}), &claims()), Unverified::Key),
        (
            "an unknown key",
            signer.sign_as(&json!({"alg": "ES256", "kid": "../k1"}), &claims()),
            Unverified::Key,
        ),
        (
            "an extension",
            signer.sign_as(&json!({"alg": "ES256", "crit": ["b64"]}), &claims()),
            Unverified::NotAJwt,
        ),
        ("no JWT", "made-up".to_owned(), Unverified::NotAJwt),
    ];
    assert_eq!(outcome(&signer.sign(&claims())), Ok("oidc:ada".to_owned()));
    for (what, token, why) in refused {
        assert_eq!(outcome(&token), Err(why), "{what}");
    }
}

/// kube-apiserver's list of algorithms has no EdDSA: what it refuses must not gain rank here.
#[test]
fn b6_an_algorithm_that_the_apiserver_refuses_is_refused() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let keys =
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": x}, Signer::new("k1").jwk()]});
    let keys = KeySource::File(Material::Bytes(keys.to_string().into_bytes()));
    let providers = Providers::new(&[Settings { keys, ..settings(&[]) }]).unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "e"})), part(&claims()));
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())));
    assert_eq!(providers.verify(&token, now()).err(), Some(Unverified::Key));
}

#[test]
fn an_address_that_nobody_confirmed_is_nobodys() {
    let signer = Signer::new("k1");
    let username = ("email".to_owned(), String::new());
    let providers = Providers::new(&[Settings { username, ..settings(&[&signer]) }]).unwrap();
    let outcome = |verified: Option<Value>| {
        let mut claims = changed("email", json!("ada@example.com"));
        if let Some(verified) = verified {
            claims["email_verified"] = verified;
        }
        providers.verify(&signer.sign(&claims), now()).is_ok()
    };
    assert!(outcome(None), "as at kube-apiserver: absent is not false");
    assert!(outcome(Some(json!(true))));
    assert!(!outcome(Some(json!(false))));
    assert!(!outcome(Some(json!("true"))));
}

#[test]
fn each_provider_has_its_own_keys_and_a_replaced_key_is_forgotten() {
    let (one, two) = (Signer::new("k1"), Signer::new("k1"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let write =
        |signer: &Signer| std::fs::write(file.path(), json!({"keys": [signer.jwk()]}).to_string()).unwrap();
    write(&one);
    let first = Settings {
        issuer: "https://first".to_owned(),
        keys: KeySource::File(Material::File(file.path().to_owned())),
        ..settings(&[])
    };
    let settings = crate::authn::Settings { providers: vec![first, settings(&[&two])], ..Default::default() };
    let authenticator = Authenticator::new(&settings).unwrap();
    let via = |signer: &Signer, issuer: &str| {
        let mut headers = http::HeaderMap::new();
        let token = signer.sign(&changed("iss", json!(issuer)));
        headers.insert(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        authenticator.caller(&PeerCertificate::none(), &headers, now()).unwrap().via
    };
    assert_eq!(via(&one, "https://first"), Assert::Bearer);
    assert_eq!(via(&two, ISSUER), Assert::Bearer);
    assert_eq!(via(&one, ISSUER), Assert::Unverified, "the key of another provider");
    write(&two);
    authenticator.reload_keys().unwrap();
    assert_eq!(via(&one, "https://first"), Assert::Unverified, "withdrawn, although judged good before");
    assert_eq!(via(&two, "https://first"), Assert::Bearer);
    std::fs::write(file.path(), "{\"keys\": []}").unwrap();
    assert!(authenticator.reload_keys().is_err());
    assert_eq!(via(&two, "https://first"), Assert::Bearer, "an empty set changes nothing");
}

proptest! {
    #[test]
    fn any_claims_are_judged_without_panic(text in "\\PC*", number in any::<f64>()) {
        static SIGNER: std::sync::OnceLock<Signer> = std::sync::OnceLock::new();
        let signer = SIGNER.get_or_init(|| Signer::new("k1"));
        let providers = Providers::new(&[settings(&[signer])]).unwrap();
        for (name, value) in [("exp", json!(number)), ("nbf", json!(number)), ("sub", json!(text)), ("groups", json!({"a": text}))] {
            let _ = providers.verify(&signer.sign(&changed(name, value)), now());
        }
        let _ = providers.verify(&text, now());
    }
}
