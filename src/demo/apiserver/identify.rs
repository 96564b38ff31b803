//! Who is calling the model?
//!
//! The three ways that spillway depends on: a client certificate (CN is the user, O the groups), `X-Remote-*`
//! headers on a connection with the front-proxy certificate, and a service-account token. Authorization is left
//! out: whoever is known may do everything, whoever is not may only ask for health and version.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::answer::Failure;
use crate::demo::pki::{Claims, FRONT_PROXY_CA_NAME, ISSUER};
use crate::identity::{Credential, EXTRA_NODE_NAME, GROUP_AUTHENTICATED, Identity};

/// Tokens remembered as verified. A demo with the most nodes has about that many; beyond it each request pays for
/// its own verification.
const TOKENS_MAX: usize = 2_048;

/// What the TLS handshake proved, once per connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// No client certificate.
    Nobody,
    /// A certificate of the cluster's client CA.
    Client(Arc<Identity>),
    /// The front proxy: it may speak for others.
    FrontProxy,
}

impl Peer {
    /// Reads the leaf certificate of a chain that TLS has verified against the client CA or the front-proxy CA.
    pub(crate) fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(leaf) = chain.and_then(<[_]>::first) else { return Self::Nobody };
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Self::Nobody };
        let issued_by = leaf.issuer().iter_common_name().find_map(|name| name.as_str().ok());
        // The two CAs have different names, and TLS checked the signature: the name tells which of them signed.
        if issued_by == Some(FRONT_PROXY_CA_NAME) {
            return Self::FrontProxy;
        }
        let text =
            |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
        let Some(user) = leaf.subject().iter_common_name().find_map(text) else { return Self::Nobody };
        let mut groups: Vec<String> = leaf.subject().iter_organization().filter_map(text).collect();
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self::Client(Arc::new(Identity {
            user,
            uid: None,
            groups,
            extra: Vec::new(),
            credential: Credential::Certificate,
        }))
    }
}

/// Judges requests.
pub(crate) struct Authenticator {
    key: DecodingKey,
    validation: Validation,
    verified: Mutex<HashMap<String, Arc<Identity>>>,
}

impl Authenticator {
    /// `key` verifies service-account tokens.
    pub(crate) fn new(key: DecodingKey) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        Self { key, validation, verified: Mutex::default() }
    }

    /// Who sends this request; an error is a 401.
    pub(crate) fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Arc<Identity>, Failure> {
        match peer {
            Peer::Client(identity) => Ok(Arc::clone(identity)),
            Peer::FrontProxy => asserted(headers).map(Arc::new).ok_or_else(Failure::unauthorized),
            Peer::Nobody => match bearer(headers) {
                Some(token) => self.verify(token),
                None => Ok(Identity::anonymous()),
            },
        }
    }

    fn verify(&self, token: &str) -> Result<Arc<Identity>, Failure> {
        if let Some(identity) = self.verified.lock().get(token) {
            return Ok(Arc::clone(identity));
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|_| Failure::unauthorized())?.claims;
        let namespace = claims.kubernetes.namespace;
        let mut extra = Vec::new();
        if let Some(node) = claims.kubernetes.node {
            extra.push((EXTRA_NODE_NAME.to_owned(), vec![node.name]));
        }
        let identity = Arc::new(Identity {
            user: claims.sub,
            uid: Some(claims.kubernetes.serviceaccount.uid),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                GROUP_AUTHENTICATED.to_owned(),
            ],
            extra,
            credential: Credential::ServiceAccountToken,
        });
        let mut verified = self.verified.lock();
        if verified.len() < TOKENS_MAX {
            verified.insert(token.to_owned(), Arc::clone(&identity));
        }
        Ok(identity)
    }
}

/// The identity that a front proxy asserts.
fn asserted(headers: &HeaderMap) -> Option<Identity> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let mut extra = Vec::new();
    for name in headers.keys().filter_map(|name| name.as_str().strip_prefix("x-remote-extra-")) {
        let key = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
        extra.push((key, all(&format!("x-remote-extra-{name}"))));
    }
    Some(Identity {
        user: all("x-remote-user").into_iter().next()?,
        uid: all("x-remote-uid").into_iter().next(),
        groups: with_authenticated(all("x-remote-group")),
        extra,
        credential: Credential::Certificate,
    })
}

fn with_authenticated(mut groups: Vec<String>) -> Vec<String> {
    if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
        groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    groups
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
