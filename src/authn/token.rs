//! Is this bearer token a service account's, and does its signature hold?
//!
//! The steps are those of kube-apiserver's own verifier that need no lookup: issuer, key by id, algorithm
//! pinned to the key's type, signature, audience, times with a minute of leeway, and agreement of `sub` with
//! Kubernetes' own claims. What needs its caches (does the account, pod or node still exist?) is left to it;
//! a token that passes here only gains rank. Tokens of legacy secrets carry no expiry and stay unverified.
//! Source: `pkg/serviceaccount` of the kubernetes/kubernetes repository.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::keys::{self, KeyError, PublicKey};
use super::{AuthnError, Material};
use crate::identity::{Credential, EXTRA_NODE_NAME, GROUP_AUTHENTICATED, Identity};

/// Longer tokens are not looked at. Bound tokens have 0.9 to 1.5 KiB; OIDC tokens with hundreds of groups
/// reach 10 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Clock difference between whoever issued the token and this machine: what the apiserver grants (go-jose's
/// default).
const LEEWAY_S: f64 = 60.0;

/// How service-account tokens are checked.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM files with public keys, or JWKS documents: kube-apiserver's `--service-account-key-file`.
    pub keys: Vec<Material>,
    /// Accepted `iss` values: kube-apiserver's `--service-account-issuer`.
    pub issuers: Vec<String>,
    /// Accepted `aud` values: kube-apiserver's `--api-audiences`. Empty means the issuers, as there.
    pub audiences: Vec<String>,
}

/// Why a token could not be verified. For logs and tests; to the request it only means "unverified".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Not three base64url parts with JSON objects in them, or too long.
    #[error("it is not a JWT")]
    NotAJwt,
    /// Another issuer's, or a legacy token.
    #[error("its issuer is not one of ours")]
    Issuer,
    /// No key has the id it names, or its algorithm is not the key's.
    #[error("no key matches its id and algorithm")]
    Key,
    /// The signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// Meant for somebody else.
    #[error("its audience is not the apiserver")]
    Audience,
    /// Expired, not yet valid, or without an expiry.
    #[error("it is not valid at this time")]
    Time,
    /// `sub` and the claims of Kubernetes disagree or are missing.
    #[error("its claims do not name a service account")]
    Claims,
}

/// A token that held.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) identity: Identity,
    pub(super) not_after: SystemTime,
}

/// Checks tokens by local public keys.
pub(super) struct Verifier {
    keys: ArcSwap<Vec<PublicKey>>,
    sources: Vec<Material>,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

/// What a token says of its own signature.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: String,
    /// Extensions that must be understood: there are none here.
    crit: Option<serde::de::IgnoredAny>,
}

/// A token taken apart, and nothing of it believed yet.
pub(super) struct Parts<'a, C> {
    pub(super) header: Header,
    pub(super) claims: C,
    /// What is signed.
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

impl<'a, C: for<'de> Deserialize<'de>> Parts<'a, C> {
    pub(super) fn of(token: &'a str) -> Result<Self, Unverified> {
        // The apiserver's library leaves out blanks. A tab can come before a token ("Bearer \tTOKEN"); blanks within one
        // are nobody's habit, and only cost the rank here.
        let token = token.trim();
        let (message, signature) = token.rsplit_once('.').ok_or(Unverified::NotAJwt)?;
        let (header, claims) = message.split_once('.').ok_or(Unverified::NotAJwt)?;
        let header: Header = decode(header)?;
        if header.crit.is_some() {
            return Err(Unverified::NotAJwt);
        }
        Ok(Self { header, claims: decode(claims)?, message, signature })
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn meets(&self, accepted: &[String]) -> bool {
        match self {
            Self::One(one) => accepted.contains(one),
            Self::Many(many) => many.iter().any(|one| accepted.contains(one)),
        }
    }
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
    node: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Verifier {
    pub(super) fn new(settings: &Settings) -> Result<Self, AuthnError> {
        if settings.issuers.is_empty() {
            return Err(AuthnError::NoIssuer);
        }
        let audiences = match settings.audiences.as_slice() {
            [] => settings.issuers.clone(),
            given => given.to_vec(),
        };
        let keys = ArcSwap::from_pointee(keys::read(&settings.keys)?);
        Ok(Self { keys, sources: settings.keys.clone(), issuers: settings.issuers.clone(), audiences })
    }

    /// Reads the keys anew; on an error those before stay.
    pub(super) fn reload(&self) -> Result<(), KeyError> {
        self.keys.store(Arc::new(keys::read(&self.sources)?));
        Ok(())
    }

    /// Who the token's bearer is, if everything about it holds at `now`.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, Unverified> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unverified::NotAJwt);
        }
        let Parts::<Claims> { header, claims, message, signature } = Parts::of(token)?;
        // Before the signature, although nothing is believed yet: it saves the work for everybody else's
        // tokens.
        if !self.issuers.contains(&claims.iss) {
            return Err(Unverified::Issuer);
        }
        keys::check_signature(&self.keys.load(), &header, message, signature)?;
        self.check_claims(claims, now)
    }

    fn check_claims(&self, claims: Claims, now: SystemTime) -> Result<Verified, Unverified> {
        if !claims.aud.as_ref().is_some_and(|audience| audience.meets(&self.audiences)) {
            return Err(Unverified::Audience);
        }
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let expiry = claims.exp.ok_or(Unverified::Time)?;
        let begun = |claim: Option<f64>| claim.is_none_or(|time| time <= at + LEEWAY_S);
        if at > expiry + LEEWAY_S || !begun(claims.nbf) || !begun(claims.iat) {
            return Err(Unverified::Time);
        }
        let lifetime = Duration::try_from_secs_f64(expiry + LEEWAY_S).map_err(|_| Unverified::Time)?;
        let not_after = SystemTime::UNIX_EPOCH.checked_add(lifetime).ok_or(Unverified::Time)?;
        let identity = identity(claims).ok_or(Unverified::Claims)?;
        Ok(Verified { identity, not_after })
    }
}

/// The identity that kube-apiserver derives from these claims.
fn identity(claims: Claims) -> Option<Identity> {
    let Kubernetes { namespace, serviceaccount, pod, node } = claims.kubernetes?;
    let named = !namespace.is_empty() && !serviceaccount.name.is_empty();
    if !named || claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
        return None;
    }
    let mut extra = Vec::new();
    let mut add = |key: &str, value: String| extra.push((key.to_owned(), vec![value]));
    if let Some(id) = claims.jti.filter(|id| !id.is_empty()) {
        add("authentication.kubernetes.io/credential-id", format!("JTI={id}"));
    }
    if let Some(node) = node {
        add(EXTRA_NODE_NAME, node.name);
        add("authentication.kubernetes.io/node-uid", node.uid);
    }
    if let Some(pod) = pod {
        add("authentication.kubernetes.io/pod-name", pod.name);
        add("authentication.kubernetes.io/pod-uid", pod.uid);
    }
    Some(Identity {
        user: claims.sub,
        uid: Some(serviceaccount.uid),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            GROUP_AUTHENTICATED.to_owned(),
        ],
        extra,
        credential: Credential::ServiceAccountToken,
    })
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Unverified> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Unverified::NotAJwt)?;
    serde_json::from_slice(&json).map_err(|_| Unverified::NotAJwt)
}

/// Signs and verifies once. jsonwebtoken panics at the first token if the build carries two crypto providers
/// or none: the provider is named here, and the check is made before the first client comes.
pub(super) fn self_test() -> Result<(), &'static str> {
    // An error only says that it is installed already, by an earlier authenticator of this process.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let message = b"spillway";
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| "no key pair")?;
    let signed = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), message).map_err(|_| "signing failed")?;
    let signature = URL_SAFE_NO_PAD.encode(signed);
    let key = DecodingKey::from_ec_der(pair.public_key().as_ref());
    let holds = |message: &[u8]| {
        jsonwebtoken::crypto::verify(&signature, message, &key, Algorithm::ES256).unwrap_or(false)
    };
    match (holds(message), holds(b"spillwax")) {
        (true, false) => Ok(()),
        (false, _) => Err("a good signature was refused"),
        (true, true) => Err("a bad signature was accepted"),
    }
}

#[cfg(test)]
mod tests;
