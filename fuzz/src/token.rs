//! A bearer token, or header and claims of one that is signed here: a token proves only what all of it says.
//!
//! An input that begins with `{` is two lines of JSON, header and claims, which get a good signature; any other input is
//! the token itself, which nobody can have signed, as the key is made anew in each process.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::Value;
use spillway::authn::{Assert, Authenticator, Caller, Material, PeerCertificate, Settings, token};
use spillway::identity::Credential;

const ISSUER: &str = "https://kubernetes.default.svc";
const NOW_S: u64 = 2_000_000_000;
const LEEWAY_S: f64 = 60.0;

struct Fixture {
    authenticator: Authenticator,
    key: EcdsaKeyPair,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
        let body = STANDARD.encode(spki.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        let service_accounts = Some(token::Settings {
            keys: vec![Material::Bytes(pem.into_bytes())],
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![],
        });
        let settings = Settings { service_accounts, ..Settings::default() };
        Fixture { authenticator: Authenticator::new(&settings).unwrap(), key }
    })
}

pub fn run(input: &[u8]) {
    if input.first() != Some(&b'{') {
        if let Some(caller) = judge(input) {
            unproven(&caller);
        }
        return;
    }
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signed = fixture().key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed));
    let caller = judge(token.as_bytes()).expect("base64url is a header value");
    if caller.via != Assert::Bearer {
        return unproven(&caller);
    }
    proven(&caller, header, claims);
    // The same claims under a signature of something else.
    let other = fixture().key.sign(&SystemRandom::new(), b"something else").unwrap();
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(other));
    unproven(&judge(forged.as_bytes()).unwrap());
}

fn judge(token: &[u8]) -> Option<Arc<Caller>> {
    let value = http::HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S);
    Some(fixture().authenticator.caller(&PeerCertificate::none(), &headers, now).expect("one header is fine"))
}

fn unproven(caller: &Caller) {
    assert_eq!(caller.via, Assert::Unverified);
    assert!(matches!(caller.identity.credential, Credential::UnverifiedToken | Credential::Anonymous));
    assert_eq!(caller.identity.user, "system:anonymous", "no name that a token made up");
    assert_eq!(caller.not_after, None);
}

fn proven(caller: &Caller, header: &[u8], claims: &[u8]) {
    // What nobody reads need not be UTF-8, at kube-apiserver neither.
    let parsed = [header, claims].map(serde_json::from_slice::<Value>);
    let [Ok(header), Ok(claims)] = parsed else { return };
    assert_eq!(header["alg"], "ES256", "the algorithm is the key's");
    assert!(header.get("crit").is_none_or(Value::is_null));
    assert_eq!(claims["iss"], ISSUER);
    let meets = |audience: &Value| *audience == ISSUER;
    assert!(meets(&claims["aud"]) || claims["aud"].as_array().is_some_and(|all| all.iter().any(meets)));
    let now = NOW_S as f64;
    assert!(claims["exp"].as_f64().unwrap() + LEEWAY_S >= now);
    for begins in ["nbf", "iat"] {
        assert!(claims[begins].as_f64().is_none_or(|time| time <= now + LEEWAY_S), "{begins}");
    }
    let names = &claims["kubernetes.io"];
    let (namespace, name) =
        (names["namespace"].as_str().unwrap(), names["serviceaccount"]["name"].as_str().unwrap());
    let identity = &caller.identity;
    assert_eq!(identity.user, format!("system:serviceaccount:{namespace}:{name}"));
    assert_eq!(claims["sub"], *identity.user);
    assert_eq!(identity.credential, Credential::ServiceAccountToken);
    let of_namespace = format!("system:serviceaccounts:{namespace}");
    assert_eq!(identity.groups, ["system:serviceaccounts", &of_namespace, "system:authenticated"]);
    assert_eq!(identity.node(), names["node"]["name"].as_str());
    assert!(caller.not_after.is_some());
}
