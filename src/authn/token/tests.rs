use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::{digest, hmac, signature};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

use super::*;
use crate::authn::pki::{now, pem};
use crate::authn::{Assert, Authenticator, PeerCertificate};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW_S: i64 = 2_000_000_000;

/// A signing key of each type.
struct Signers {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

fn signers() -> &'static Signers {
    static SIGNERS: OnceLock<Signers> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        self_test().unwrap();
        Signers {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    })
}

fn rsa_spki() -> Vec<u8> {
    let public = signers().rsa.public_key();
    AsDer::<PublicKeyX509Der<'_>>::as_der(public).unwrap().as_ref().to_vec()
}

fn ec_spki() -> Vec<u8> {
    let public = signers().ec.public_key();
    AsDer::<PublicKeyX509Der<'_>>::as_der(public).unwrap().as_ref().to_vec()
}

fn id(spki: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, spki))
}

fn verifier() -> Verifier {
    let keys = pem("PUBLIC KEY", &rsa_spki()) + &pem("PUBLIC KEY", &ec_spki());
    let settings = Settings {
        keys: vec![Material::Bytes(keys.into_bytes())],
        issuers: vec![ISSUER.to_owned()],
        audiences: vec!["https://api".to_owned(), ISSUER.to_owned()],
    };
    Verifier::new(&settings).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "system:serviceaccount:monitoring:agent",
        "aud": [ISSUER],
        "iat": NOW_S - 100, "nbf": NOW_S - 100, "exp": NOW_S + 3600,
        "jti": "f3a1",
        "kubernetes.io": {
            "namespace": "monitoring",
            "serviceaccount": {"name": "agent", "uid": "u-1"},
            "pod": {"name": "agent-x", "uid": "u-2"},
            "node": {"name": "node-7", "uid": "u-3"},
            "warnafter": NOW_S,
        },
    })
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn rs256(header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let mut signed = vec![0; signers().rsa.public_modulus_len()];
    let padding = &signature::RSA_PKCS1_SHA256;
    signers().rsa.sign(padding, &SystemRandom::new(), message.as_bytes(), &mut signed).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
}

fn es256(header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signed = signers().ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
}

fn rsa_header() -> Value {
    json!({"alg": "RS256", "kid": id(&rsa_spki())})
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut claims = claims();
    for (pointer, value) in changes {
        *claims.pointer_mut(pointer).unwrap() = value.clone();
    }
    claims
}

fn outcome(token: &str) -> Result<String, Unverified> {
    verifier().verify(token, now()).map(|verified| verified.identity.user)
}

#[test]
fn a_bound_token_names_its_account_pod_and_node() {
    let verified = verifier().verify(&rs256(&rsa_header(), &claims()), now()).unwrap();
    let identity = verified.identity;
    assert_eq!(identity.user, "system:serviceaccount:monitoring:agent");
    assert_eq!(identity.uid.as_deref(), Some("u-1"));
    assert_eq!(
        identity.groups,
        ["system:serviceaccounts", "system:serviceaccounts:monitoring", "system:authenticated"]
    );
    assert_eq!(identity.node(), Some("node-7"));
    let extras: Vec<_> = identity
        .extra
        .iter()
        .map(|(key, values)| (key.rsplit_once('/').unwrap().1, values[0].as_str()))
        .collect();
    let expected = [
        ("credential-id", "JTI=f3a1"),
        ("node-name", "node-7"),
        ("node-uid", "u-3"),
        ("pod-name", "agent-x"),
        ("pod-uid", "u-2"),
    ];
    assert_eq!(extras, expected);
    assert_eq!(verified.not_after, now() + Duration::from_secs(3660), "expiry and leeway");
}

#[test]
fn keys_are_found_by_id_by_type_or_by_trying() {
    let good = Ok("system:serviceaccount:monitoring:agent".to_owned());
    assert_eq!(outcome(&es256(&json!({"alg": "ES256", "kid": id(&ec_spki())}), &claims())), good);
    assert_eq!(outcome(&es256(&json!({"alg": "ES256"}), &claims())), good, "no id: all keys are tried");
    assert_eq!(outcome(&rs256(&json!({"alg": "RS256"}), &claims())), good);
    assert_eq!(outcome(&rs256(&json!({"alg": "RS256", "kid": "other"}), &claims())), Err(Unverified::Key));
    let crossed = es256(&json!({"alg": "ES256", "kid": id(&rsa_spki())}), &claims());
    assert_eq!(outcome(&crossed), Err(Unverified::Key), "the algorithm is the key's, not the token's");
}

#[test]
fn b6_a_public_key_is_not_a_shared_secret_and_no_signature_is_not_one() {
    for secret in [rsa_spki(), pem("PUBLIC KEY", &rsa_spki()).into_bytes()] {
        for header in [json!({"alg": "HS256", "kid": id(&rsa_spki())}), json!({"alg": "HS256"})] {
            let message = message(&header, &claims());
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
            assert_eq!(outcome(&token), Err(Unverified::Key));
        }
    }
    for alg in ["none", "None", "", "PS256", "EdDSA"] {
        let token = format!("{}.", message(&json!({"alg": alg}), &claims()));
        assert_eq!(outcome(&token), Err(Unverified::Key), "{alg}");
    }
    let unsigned = format!("{}.", message(&rsa_header(), &claims()));
    assert_eq!(outcome(&unsigned), Err(Unverified::Signature));
}

#[test]
fn a_changed_token_is_refused() {
    let token = rs256(&rsa_header(), &claims());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let other = with(&[("/sub", json!("system:serviceaccount:kube-system:agent"))]);
    let forged = format!("{}.{signature}", message(&rsa_header(), &other));
    assert_eq!(outcome(&forged), Err(Unverified::Signature));
    let critical = json!({"alg": "RS256", "kid": id(&rsa_spki()), "crit": ["b64"], "b64": false});
    assert_eq!(outcome(&rs256(&critical, &claims())), Err(Unverified::NotAJwt));
}

#[test]
fn claims_are_held_to_the_apiservers_rules() {
    let good = Ok("system:serviceaccount:monitoring:agent".to_owned());
    let table = [
        ("one audience as text", with(&[("/aud", json!("https://api"))]), good.clone()),
        ("one of several audiences", with(&[("/aud", json!(["vault", "https://api"]))]), good.clone()),
        ("another audience", with(&[("/aud", json!(["vault"]))]), Err(Unverified::Audience)),
        ("no audience", with(&[("/aud", Value::Null)]), Err(Unverified::Audience)),
        ("another issuer", with(&[("/iss", json!("https://evil"))]), Err(Unverified::Issuer)),
        ("legacy", with(&[("/iss", json!("kubernetes/serviceaccount"))]), Err(Unverified::Issuer)),
        ("expired within the leeway", with(&[("/exp", json!(NOW_S - 60))]), good.clone()),
        ("expired", with(&[("/exp", json!(NOW_S - 61))]), Err(Unverified::Time)),
        ("no expiry", with(&[("/exp", Value::Null)]), Err(Unverified::Time)),
        ("endless", with(&[("/exp", json!(1e300))]), Err(Unverified::Time)),
        ("valid within the leeway", with(&[("/nbf", json!(NOW_S + 60))]), good.clone()),
        ("not yet valid", with(&[("/nbf", json!(NOW_S + 61))]), Err(Unverified::Time)),
        ("issued in the future", with(&[("/iat", json!(NOW_S + 61))]), Err(Unverified::Time)),
        ("another namespace", with(&[("/kubernetes.io/namespace", json!("x"))]), Err(Unverified::Claims)),
        ("no name", with(&[("/kubernetes.io/serviceaccount/name", json!(""))]), Err(Unverified::Claims)),
        ("no claims of Kubernetes", with(&[("/kubernetes.io", Value::Null)]), Err(Unverified::Claims)),
        ("no pod", with(&[("/kubernetes.io/pod", Value::Null)]), good),
    ];
    for (name, claims, expected) in table {
        assert_eq!(outcome(&rs256(&rsa_header(), &claims)), expected, "{name}");
    }
}

#[test]
fn what_is_not_a_jwt_is_refused_quickly() {
    let long = format!("{}.{}.x", "a".repeat(10 * 1024), "b".repeat(10 * 1024));
    for token in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "abcdef.0123456789abcdef", &long] {
        assert!(matches!(outcome(token), Err(Unverified::NotAJwt | Unverified::Issuer)), "{token:.20}");
    }
}

#[test]
fn a_published_key_set_serves_as_well_as_files() {
    let components = signature::RsaPublicKeyComponents::<Vec<u8>>::from(signers().rsa.public_key());
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"use": "sig", "kty": "RSA", "kid": id(&rsa_spki()), "alg": "RS256",
         "n": URL_SAFE_NO_PAD.encode(components.n), "e": URL_SAFE_NO_PAD.encode(components.e)},
    ]});
    let settings = Settings {
        keys: vec![Material::Bytes(set.to_string().into_bytes())],
        issuers: vec![ISSUER.to_owned()],
        audiences: Vec::new(),
    };
    let verifier = Verifier::new(&settings).unwrap();
    assert!(verifier.verify(&rs256(&rsa_header(), &claims()), now()).is_ok());
}

#[test]
fn a_token_is_judged_once_and_a_demoted_one_ranks_low_for_a_minute() {
    let keys = vec![Material::Bytes(pem("PUBLIC KEY", &rsa_spki()).into_bytes())];
    let service_accounts = Settings { keys, issuers: vec![ISSUER.to_owned()], audiences: Vec::new() };
    let settings = crate::authn::Settings { service_accounts: Some(service_accounts), ..Default::default() };
    let authenticator = Authenticator::new(&settings).unwrap();
    let mut headers = http::HeaderMap::new();
    let value = format!("Bearer {}", rs256(&rsa_header(), &claims()));
    headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
    let caller = |seconds| {
        let at = now() + Duration::from_secs(seconds);
        authenticator.caller(&PeerCertificate::none(), &headers, at).unwrap()
    };
    let first = caller(0);
    assert_eq!((first.via, first.identity.credential), (Assert::Bearer, Credential::ServiceAccountToken));
    assert!(Arc::ptr_eq(&first, &caller(1)), "the second time from the table");
    authenticator.demote(first.token_key.as_ref().unwrap(), now());
    assert_eq!(caller(60).via, Assert::Unverified);
    assert_eq!(caller(61).via, Assert::Bearer);
    assert_eq!(caller(3661).identity.credential, Credential::UnverifiedToken, "expired");
}

#[test]
fn unusable_keys_say_what_to_do() {
    let text = |contents: &str| {
        let keys = vec![Material::Bytes(contents.as_bytes().to_vec())];
        let settings = Settings { keys, issuers: vec![ISSUER.to_owned()], audiences: Vec::new() };
        Verifier::new(&settings).err().unwrap().to_string()
    };
    assert_eq!(text(""), "memory holds no public key for tokens");
    assert_eq!(text(r#"{"keys": []}"#), "memory holds no public key for tokens");
    let private = text(&pem("RSA PRIVATE KEY", b"x"));
    assert!(private.contains("openssl pkey -in memory -pubout"), "{private}");
    assert!(text(&pem("PUBLIC KEY", b"x")).contains("not a SubjectPublicKeyInfo"));
    assert!(text(&pem("PUBLIC KEY", &rsa_spki()).repeat(17)).starts_with("17 keys"));
    let none = Verifier::new(&Settings::default()).err().unwrap().to_string();
    assert!(none.contains("--service-account-issuer"), "{none}");
}

proptest! {
    #[test]
    fn any_token_is_judged_without_panic(token in "\\PC*", header in "\\PC*", claims in "\\PC*") {
        let verifier = verifier();
        prop_assert!(verifier.verify(&token, now()).is_err());
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let framed = format!("{}.{}.{}", part(&header), part(&claims), part(&token));
        prop_assert!(verifier.verify(&framed, now()).is_err());
    }
}
