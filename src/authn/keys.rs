//! Which public keys may sign tokens?
//!
//! The files that kube-apiserver names with `--service-account-key-file` (`sa.pub`), or the key set it
//! publishes at `/openid/v1/jwks`. The algorithm belongs to the key, never to the token: that is what makes
//! `none` and a public key used as an HMAC secret impossible. A key's id is the SHA-256 of its DER form, as
//! the apiserver derives it. Left out: ES512, which jsonwebtoken cannot verify, and private keys, which have
//! no business here.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use super::token::{Header, Unverified};
use super::{Material, MaterialError};

/// Keys in all files together. A token without a key id is tried against all of them, so their number is CPU
/// time that anybody can ask for; clusters have one or two.
pub(super) const KEYS_MAX: usize = 16;

/// Keys of one identity provider. The largest publish about twenty; most tokens name theirs.
const PROVIDER_KEYS_MAX: usize = 64;

/// What an RSA key may have signed for a service account. They are RS256 at every apiserver; the longer digests cost
/// nothing to allow.
const RSA_OF_ACCOUNTS: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// And for a provider: what kube-apiserver accepts there. EdDSA it accepts from nobody.
const RSA_OF_PROVIDERS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Not PEM, or not what was expected inside.
    #[error(
        "{origin} holds a key that cannot be used: {reason}; expected PUBLIC KEY blocks (RSA, or EC P-256/P-384)"
    )]
    Unusable {
        /// File name.
        origin: String,
        /// What was met.
        reason: String,
    },
    /// A private key lies where a public one belongs.
    #[error("{origin} holds a private key; write its public half with: openssl pkey -in {origin} -pubout")]
    Private {
        /// File name.
        origin: String,
    },
    /// No key at all.
    #[error("{origin} holds no public key for tokens")]
    Empty {
        /// File name.
        origin: String,
    },
    /// More than a cluster has; see the limit in the text.
    #[error("{0} keys for tokens were given, at most {1} are supported")]
    TooMany(usize, usize),
}

/// One public key and what it may be used for.
pub(super) struct PublicKey {
    pub(super) id: String,
    pub(super) algorithms: &'static [Algorithm],
    pub(super) key: DecodingKey,
}

/// Reads PEM files and key sets; which of the two a file is shows in its first character.
pub(super) fn read(sources: &[Material]) -> Result<Vec<PublicKey>, KeyError> {
    let mut keys = Vec::new();
    for source in sources {
        let origin = source.to_string();
        let bytes = source.read("the public keys for service-account tokens")?;
        let found = match bytes.trim_ascii_start().first() {
            Some(b'{') => from_jwks(&bytes, &origin, RSA_OF_ACCOUNTS)?,
            _ => from_pem(&bytes, &origin)?,
        };
        if found.is_empty() {
            return Err(KeyError::Empty { origin });
        }
        keys.extend(found);
    }
    bounded(keys, KEYS_MAX)
}

fn bounded(keys: Vec<PublicKey>, most: usize) -> Result<Vec<PublicKey>, KeyError> {
    if keys.len() > most { Err(KeyError::TooMany(keys.len(), most)) } else { Ok(keys) }
}

/// A provider's key set. `origin` is where it comes from, for errors.
pub(super) fn key_set(json: &[u8], origin: &str) -> Result<Vec<PublicKey>, KeyError> {
    let keys = from_jwks(json, origin, RSA_OF_PROVIDERS)?;
    if keys.is_empty() {
        return Err(KeyError::Empty { origin: origin.to_owned() });
    }
    bounded(keys, PROVIDER_KEYS_MAX)
}

/// Whether one of `keys` has signed `message`. The key is found by `kid`, or tried; the algorithm must be the key's.
pub(super) fn check_signature(
    keys: &[PublicKey],
    header: &Header,
    message: &str,
    signature: &str,
) -> Result<(), Unverified> {
    let algorithm: Algorithm = header.alg.parse().map_err(|_| Unverified::Key)?;
    let mut result = Err(Unverified::Key);
    for key in keys {
        let named = header.kid.is_empty() || key.id.is_empty() || key.id == header.kid;
        if !named || !key.algorithms.contains(&algorithm) {
            continue;
        }
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm) {
            Ok(true) => return Ok(()),
            _ => result = Err(Unverified::Signature),
        }
    }
    result
}

fn from_pem(pem: &[u8], origin: &str) -> Result<Vec<PublicKey>, KeyError> {
    let unusable = |reason: String| KeyError::Unusable { origin: origin.to_owned(), reason };
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| unusable(error.to_string()))?;
        let key = match kind {
            SectionKind::PublicKey => from_spki(&der),
            SectionKind::Certificate => X509Certificate::from_der(&der)
                .map_err(|_| "the certificate cannot be read")
                .and_then(|(_, certificate)| from_spki(certificate.public_key().raw)),
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err(KeyError::Private { origin: origin.to_owned() });
            }
            _ => continue,
        };
        keys.push(key.map_err(|reason| unusable(reason.to_owned()))?);
    }
    Ok(keys)
}

/// From a DER SubjectPublicKeyInfo. Its bit string is what the verifiers want: an RSAPublicKey or a curve
/// point.
fn from_spki(der: &[u8]) -> Result<PublicKey, &'static str> {
    let (_, spki) =
        SubjectPublicKeyInfo::from_der(der).map_err(|_| "the key is not a SubjectPublicKeyInfo")?;
    let bits = spki.subject_public_key.data.as_ref();
    let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der));
    if spki.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return Ok(PublicKey { id, algorithms: RSA_OF_ACCOUNTS, key: DecodingKey::from_rsa_der(bits) });
    }
    if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err("the key is neither RSA nor EC");
    }
    let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let algorithms: &'static [Algorithm] = match curve {
        Some(curve) if curve == OID_EC_P256 => &[Algorithm::ES256],
        Some(curve) if curve == OID_NIST_EC_P384 => &[Algorithm::ES384],
        _ => return Err("the EC key is neither on P-256 nor on P-384"),
    };
    Ok(PublicKey { id, algorithms, key: DecodingKey::from_ec_der(bits) })
}

/// Keys of other types in the set are skipped: the apiserver may publish what only newer verifiers know.
fn from_jwks(json: &[u8], origin: &str, rsa: &'static [Algorithm]) -> Result<Vec<PublicKey>, KeyError> {
    let set: JwkSet = serde_json::from_slice(json)
        .map_err(|error| KeyError::Unusable { origin: origin.to_owned(), reason: error.to_string() })?;
    Ok(set.keys.iter().filter_map(|jwk| from_jwk(jwk, rsa)).collect())
}

fn from_jwk(jwk: &Jwk, rsa: &'static [Algorithm]) -> Option<PublicKey> {
    let algorithms: &'static [Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => rsa,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        _ => return None,
    };
    let id = jwk.common.key_id.clone().unwrap_or_default();
    Some(PublicKey { id, algorithms, key: DecodingKey::from_jwk(jwk).ok()? })
}
