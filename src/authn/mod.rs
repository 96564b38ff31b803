//! Who is calling, and how strongly is it proven?
//!
//! Two credentials are checked here without asking anybody: a client certificate, once per connection
//! ([`certificate`]), and a service-account token, by the cluster's public keys ([`token`]). Everything else
//! stays unverified or anonymous. The answer decides *rank* and how the request is sent on; kube-apiserver
//! still authenticates for itself. The order is the apiserver's: a certificate wins over a token, a
//! certificate that cannot be verified is an error unless a token vouches for the caller, and anonymous is
//! only who brought nothing. Left out: OIDC, bootstrap and webhook tokens (unverified here), revocation (a
//! bound token's pod may be gone).

pub mod bearer;
pub mod certificate;
mod keys;
mod known;
mod material;
mod possession;
pub mod token;

#[cfg(test)]
mod pki;

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};

use crate::identity::Identity;

pub use self::certificate::{ClientAuthority, PeerCertificate, Unverifiable};
pub use self::keys::KeyError;
pub use self::known::TokenKey;
pub use self::material::{Material, MaterialError};
pub use self::possession::ProofOfPossession;

/// What has to be known to check credentials.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM bundle of the CAs that sign client certificates; without it nobody is known by certificate.
    pub client_ca: Option<Material>,
    /// How to check service-account tokens; without it every token is unverified.
    pub service_accounts: Option<token::Settings>,
}

/// The credentials cannot be checked with what was configured.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The client CA bundle is not usable.
    #[error(transparent)]
    Authority(#[from] certificate::AuthorityError),
    /// A token key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The crypto library does not do what it must.
    #[error("tokens cannot be checked here: {0}; this build or machine is broken, use another")]
    SelfTest(&'static str),
    /// Neither issuers nor audiences lead anywhere.
    #[error(
        "service-account tokens need at least one issuer: copy --service-account-issuer from kube-apiserver"
    )]
    NoIssuer,
}

/// Over which kind of upstream connection the caller's identity travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assert {
    /// `X-Remote-*` headers, over connections that carry the front-proxy certificate.
    FrontProxy,
    /// The caller's own verified token, over connections without a client certificate.
    Bearer,
    /// Whatever the caller sent, over connections that nobody else's requests share.
    Unverified,
}

/// A caller that was judged: built once per certificate connection or token, then shared.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// How the identity travels on.
    pub via: Assert,
    /// Until when the proof holds; `None` for callers who proved nothing.
    pub not_after: Option<SystemTime>,
    /// Names the verified token to [`Authenticator::demote`].
    pub token_key: Option<TokenKey>,
    /// What others derived from this caller.
    pub memo: Memo,
}

impl Caller {
    fn unproven(identity: Arc<Identity>) -> Arc<Self> {
        Arc::new(Self {
            identity,
            via: Assert::Unverified,
            not_after: None,
            token_key: None,
            memo: Memo::default(),
        })
    }
}

/// One derived value kept beside a caller, so that it is computed once and not for every request: the rules
/// of the policy in force that can match this identity. The reader checks that what it finds belongs to that
/// policy.
#[derive(Default)]
pub struct Memo(ArcSwapOption<Box<dyn Any + Send + Sync>>);

impl Memo {
    /// Calls `look` with the value kept, if there is one of this type.
    pub fn look<T: 'static, R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        let kept = self.0.load();
        kept.as_ref()?.downcast_ref::<T>().map(look)
    }

    /// Keeps `value` in place of whatever was kept.
    pub fn keep<T: Send + Sync + 'static>(&self, value: T) {
        self.0.store(Some(Arc::new(Box::new(value))));
    }
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memo")
    }
}

/// The request is answered here, by the client's own fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// kube-apiserver answers 401 to this too.
    #[error("the client certificate was not accepted and no token was sent: {0}")]
    Certificate(Unverifiable),
    /// Only the first would count at kube-apiserver; a proxy that reads the other one can be fooled.
    #[error("the request carries {0} Authorization headers, expected at most one")]
    SeveralAuthorizations(usize),
}

impl Refused {
    /// The status to answer with: 401 or 400.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Certificate(_) => StatusCode::UNAUTHORIZED,
            Self::SeveralAuthorizations(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Judges callers. One for the process; cheap to ask.
pub struct Authenticator {
    authority: Arc<ClientAuthority>,
    tokens: Option<token::Verifier>,
    known: known::Known,
    anonymous: Arc<Caller>,
    unverified: Arc<Caller>,
}

impl Authenticator {
    /// Reads the CAs and keys and proves that signatures can be verified.
    ///
    /// # Errors
    /// A file cannot be read or holds nothing usable.
    pub fn new(settings: &Settings) -> Result<Self, AuthnError> {
        token::self_test().map_err(AuthnError::SelfTest)?;
        let authority = match &settings.client_ca {
            Some(bundle) => ClientAuthority::from_pem(bundle, crate::identity::Credential::Certificate)?,
            None => ClientAuthority::nobody(),
        };
        let tokens = settings.service_accounts.as_ref().map(token::Verifier::new).transpose()?;
        Ok(Self {
            authority: Arc::new(authority),
            tokens,
            known: known::Known::new().map_err(AuthnError::SelfTest)?,
            anonymous: Caller::unproven(Identity::anonymous()),
            unverified: Caller::unproven(Identity::unverified()),
        })
    }

    /// Who signs client certificates: the listener judges each connection's peer by it.
    #[must_use]
    pub fn authority(&self) -> Arc<ClientAuthority> {
        Arc::clone(&self.authority)
    }

    /// The caller of a request that came with these headers over a connection of this peer.
    ///
    /// # Errors
    /// The caller is refused with 401 or 400, see [`Refused::status`].
    pub fn caller(
        &self,
        peer: &PeerCertificate,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Arc<Caller>, Refused> {
        let token = bearer::token(headers)?;
        let unverifiable = match peer {
            PeerCertificate::Verified { caller, not_after } if now <= *not_after => {
                return Ok(Arc::clone(caller));
            }
            PeerCertificate::Verified { .. } => Some(&Unverifiable::Expired),
            PeerCertificate::Unverifiable { why } => Some(why),
            PeerCertificate::None => None,
        };
        match (token, unverifiable) {
            (Some(token), _) => Ok(self.bearer(&token, now)),
            (None, Some(why)) => Err(Refused::Certificate(why.clone())),
            (None, None) => Ok(Arc::clone(&self.anonymous)),
        }
    }

    /// kube-apiserver answered 401 to a token that looked good here: its pod, its service account or its key
    /// is gone. It ranks as unverified for a minute from `now`.
    pub fn demote(&self, key: &TokenKey, now: SystemTime) {
        self.known.demote(key, now);
    }

    fn bearer(&self, token: &str, now: SystemTime) -> Arc<Caller> {
        let Some(verifier) = &self.tokens else { return Arc::clone(&self.unverified) };
        if token.len() > token::TOKEN_BYTES_MAX {
            return Arc::clone(&self.unverified);
        }
        let key = self.known.key(token);
        match self.known.find(&key, now) {
            known::Found::Caller(caller) => return caller,
            known::Found::Demoted => return Arc::clone(&self.unverified),
            known::Found::Nothing => {}
        }
        let Ok(verified) = verifier.verify(token, now) else { return Arc::clone(&self.unverified) };
        let caller = Arc::new(Caller {
            identity: Arc::new(verified.identity),
            via: Assert::Bearer,
            not_after: Some(verified.not_after),
            token_key: Some(key.clone()),
            memo: Memo::default(),
        });
        self.known.remember(key, &caller, verified.not_after, now);
        caller
    }
}

#[cfg(test)]
mod tests;
