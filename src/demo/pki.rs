//! Which keys and certificates does the demo use?
//!
//! A throw-away set, made in memory at the start: a client CA (nodes, controllers, the operator), a CA for the
//! serving certificate, the front-proxy CA that lets spillway speak for others, the break-glass CA, and the key that signs
//! service-account tokens. Everything is ECDSA P-256: hundreds of leaf certificates take milliseconds. Nothing is
//! valid for longer than a day, and the files go with the demo's directory.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The issuer and audience of service-account tokens, as kubeadm configures it.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Common name of the front-proxy CA; the model tells by it who may assert identities.
pub(crate) const FRONT_PROXY_CA_NAME: &str = "spillway-demo-front-proxy-ca";
/// Common name of the front-proxy client certificate, kubeadm's default for `--requestheader-allowed-names`.
const FRONT_PROXY_NAME: &str = "front-proxy-client";
/// The organisational unit that the break-glass lane asks for.
const BREAK_GLASS_UNIT: &str = "spillway:break-glass";
/// Names and addresses of the serving certificate: where the demo's clients and a real kubectl connect to.
const SERVING_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc"];
/// Validity of everything made here: longer than anybody holds a demo open.
const VALID: Duration = Duration::from_secs(24 * 3_600);
/// Clocks of containers and hosts differ by seconds; certificates start this much in the past.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

/// Making a key, certificate or token failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("could not make the demo's certificate for {what}")]
    Certificate {
        /// Whose certificate.
        what: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The token library refused.
    #[error("could not sign the demo's token for {what}")]
    Token {
        /// Whose token.
        what: String,
        /// What the library said.
        source: jsonwebtoken::errors::Error,
    },
}

/// A certificate with its private key.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    key_der: Vec<u8>,
}

impl Leaf {
    /// The private key, for a TLS configuration.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Self, PkiError> {
        let certificate = |source| PkiError::Certificate { what: name.to_owned(), source };
        let key = KeyPair::generate().map_err(certificate)?;
        let mut params = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, key).map_err(certificate)?))
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client certificate: user `name` in `group`.
    pub(crate) fn client(&self, name: &str, group: Option<&str>) -> Result<Leaf, PkiError> {
        let mut params = subject(name, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    /// A certificate for the break-glass lane: the unit marks it, as `spillway break-glass issue` does.
    pub(crate) fn break_glass(&self, name: &str, group: &str) -> Result<Leaf, PkiError> {
        let mut params = subject(name, Some(group));
        params.distinguished_name.push(DnType::OrganizationalUnitName, BREAK_GLASS_UNIT);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Leaf, PkiError> {
        let failed = |source| PkiError::Certificate { what: name.to_owned(), source };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed)?;
        Ok(Leaf {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        })
    }
}

fn subject(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = clock::wall();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + VALID).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// All of it.
pub(crate) struct Pki {
    pub(crate) client_ca: Authority,
    pub(crate) serving_ca: Authority,
    pub(crate) front_proxy_ca: Authority,
    pub(crate) break_glass_ca: Authority,
    pub(crate) serving: Leaf,
    pub(crate) front_proxy: Leaf,
    pub(crate) tokens: TokenSigner,
}

impl Pki {
    pub(crate) fn new() -> Result<Arc<Self>, PkiError> {
        let serving_ca = Authority::new("spillway-demo-serving-ca")?;
        let mut params = CertificateParams::new(SERVING_NAMES.map(str::to_owned).to_vec())
            .map_err(|source| PkiError::Certificate { what: "the serving names".to_owned(), source })?;
        let dated = subject("kube-apiserver", None);
        (params.not_before, params.not_after) = (dated.not_before, dated.not_after);
        params.distinguished_name = dated.distinguished_name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let serving = serving_ca.sign("kube-apiserver", params)?;
        let front_proxy_ca = Authority::new(FRONT_PROXY_CA_NAME)?;
        let front_proxy = front_proxy_ca.client(FRONT_PROXY_NAME, None)?;
        Ok(Arc::new(Self {
            client_ca: Authority::new("spillway-demo-client-ca")?,
            break_glass_ca: Authority::new("spillway-demo-break-glass-ca")?,
            serving_ca,
            front_proxy_ca,
            serving,
            front_proxy,
            tokens: TokenSigner::new()?,
        }))
    }
}

/// The service-account key pair.
pub(crate) struct TokenSigner {
    header: Header,
    signing: EncodingKey,
    public_pem: String,
    verifying: DecodingKey,
}

/// The claims of a bound service-account token, as far as the demo needs them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: BoundTo,
}

/// What a token is bound to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BoundTo {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
}

/// An object by name and UID.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Reference {
    fn to(name: &str) -> Self {
        // UIDs of the model's objects change with every version of its cluster; tokens only need some UID.
        Self { name: name.to_owned(), uid: uuid::Uuid::new_v4().to_string() }
    }
}

impl TokenSigner {
    fn new() -> Result<Self, PkiError> {
        let what = || "service accounts".to_owned();
        let key = KeyPair::generate().map_err(|source| PkiError::Certificate { what: what(), source })?;
        let token = |source| PkiError::Token { what: what(), source };
        let mut header = Header::new(Algorithm::ES256);
        // kube-apiserver's own way to name a key.
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
        header.kid = Some(URL_SAFE_NO_PAD.encode(digest));
        let public_pem = key.public_key_pem();
        Ok(Self {
            header,
            signing: EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).map_err(token)?,
            verifying: DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(token)?,
            public_pem,
        })
    }

    /// The public key, as `sa.pub` holds it.
    pub(crate) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public key, ready to verify.
    pub(crate) fn verifying(&self) -> DecodingKey {
        self.verifying.clone()
    }

    /// A token for a pod of a service account on a node, as the kubelet mounts it.
    pub(crate) fn token(&self, namespace: &str, name: &str, node: &str) -> Result<String, PkiError> {
        let sub = format!("system:serviceaccount:{namespace}:{name}");
        let since_epoch = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = since_epoch.as_secs();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: sub.clone(),
            aud: vec![ISSUER.to_owned()],
            iat: now,
            nbf: now,
            exp: now + VALID.as_secs(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: BoundTo {
                namespace: namespace.to_owned(),
                serviceaccount: Reference::to(name),
                pod: Some(Reference::to(&format!("{name}-{node}"))),
                node: Some(Reference::to(node)),
            },
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing)
            .map_err(|source| PkiError::Token { what: sub, source })
    }
}
