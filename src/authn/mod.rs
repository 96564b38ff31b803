//! Who is calling, and how strongly is it proven?
//!
//! Three credentials are checked here without asking anybody: a client certificate, once per connection and again when
//! the CAs change ([`certificate`]), a service-account token, by the cluster's public keys ([`token`]), and an OIDC
//! token, by its provider's ([`oidc`]). About other tokens kube-apiserver can be asked, beside the request and with
//! bounds on everything ([`review`]). What is left stays unverified or anonymous. The answer decides *rank* and how the
//! request is sent on; kube-apiserver still authenticates for itself. The order is the apiserver's: a certificate wins
//! over a token, a certificate that cannot be verified is an error unless a token vouches for the caller, and anonymous
//! is only who brought nothing. Left out: revocation of tokens (a bound token's pod may be gone).

pub mod bearer;
pub mod certificate;
mod deny;
mod jwks;
mod keys;
mod known;
mod material;
pub mod oidc;
mod possession;
pub mod review;
pub mod token;

#[cfg(test)]
mod pki;

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, StatusCode};

use crate::identity::{Credential, Identity};

pub use self::certificate::{ClientAuthority, PeerCertificate, Unverifiable, Verdict};
pub use self::deny::{DENIED_MAX, DenyError};
pub use self::jwks::{Endpoint, Fetched};
pub use self::keys::KeyError;
pub use self::known::TokenKey;
pub use self::material::{Material, MaterialError};
pub use self::possession::ProofOfPossession;
pub(crate) use self::possession::signatures_are_checked;

use self::token::Unverified;

/// What has to be known to check credentials.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM bundle of the CAs that sign client certificates; without it nobody is known by certificate.
    pub client_ca: Option<Material>,
    /// Certificates that no longer count: a line each.
    pub denied: Option<Material>,
    /// How to check service-account tokens; without it none is verified here.
    pub service_accounts: Option<token::Settings>,
    /// How to check the tokens of identity providers.
    pub providers: Vec<oidc::Settings>,
    /// How to ask kube-apiserver about other tokens; without it they stay unverified.
    pub reviews: Option<review::Settings>,
    /// Who may come without a credential.
    pub anonymous: Anonymous,
}

/// Who may come without a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Everybody: kube-apiserver decides.
    #[default]
    Anywhere,
    /// Whoever asks for exactly one of these paths.
    At(Vec<String>),
    /// Nobody.
    Nowhere,
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
    /// The list of denied certificates is not usable.
    #[error("authentication.clientCertificate.denyFile: {0}")]
    Denied(#[from] DenyError),
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
    /// Anonymous callers may not ask for this.
    #[error("anonymous callers may not ask for this path")]
    Anonymous,
    /// Only the first would count at kube-apiserver; a proxy that reads the other one can be fooled.
    #[error("the request carries {0} Authorization headers, expected at most one")]
    SeveralAuthorizations(usize),
}

impl Refused {
    /// The status to answer with: 401 or 400.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Certificate(_) | Self::Anonymous => StatusCode::UNAUTHORIZED,
            Self::SeveralAuthorizations(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// What is known about who sent a request.
pub enum Judgement {
    /// This is who it is.
    Caller(Arc<Caller>),
    /// kube-apiserver is being asked; [`Judgement::settled`] waits a moment for it.
    Pending(review::Pending, Arc<Caller>),
}

impl Judgement {
    /// The caller; unverified when kube-apiserver did not vouch in time.
    pub async fn settled(self) -> Arc<Caller> {
        match self {
            Self::Caller(caller) => caller,
            Self::Pending(pending, unverified) => pending.verdict().await.unwrap_or(unverified),
        }
    }

    /// The caller as known now.
    #[must_use]
    pub fn unsettled(self) -> Arc<Caller> {
        match self {
            Self::Caller(caller) | Self::Pending(_, caller) => caller,
        }
    }
}

/// Judges callers. One for the process; cheap to ask.
pub struct Authenticator {
    authority: Arc<ClientAuthority>,
    tokens: Option<token::Verifier>,
    providers: oidc::Providers,
    reviews: Option<Arc<review::Reviews>>,
    known: Arc<known::Known>,
    admitted: Anonymous,
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
            Some(bundle) => ClientAuthority::from_pem(bundle, Credential::Certificate)?,
            None => ClientAuthority::nobody(),
        };
        if let Some(list) = &settings.denied {
            authority.deny(list)?;
        }
        let tokens = settings.service_accounts.as_ref().map(token::Verifier::new).transpose()?;
        let reviews = settings.reviews.clone().map(review::Reviews::new).transpose();
        Ok(Self {
            authority: Arc::new(authority),
            tokens,
            providers: oidc::Providers::new(&settings.providers)?,
            reviews: reviews.map_err(AuthnError::SelfTest)?,
            known: Arc::new(known::Known::new().map_err(AuthnError::SelfTest)?),
            admitted: settings.anonymous.clone(),
            anonymous: Caller::unproven(Identity::anonymous()),
            unverified: Caller::unproven(Identity::unverified()),
        })
    }

    /// Who signs client certificates: the listener judges each connection's peer by it.
    #[must_use]
    pub fn authority(&self) -> Arc<ClientAuthority> {
        Arc::clone(&self.authority)
    }

    /// Reads the files with token keys anew, and forgets what was judged by the keys before. On an error those of the
    /// file at fault, and of files after it, stay.
    ///
    /// # Errors
    /// A file is not usable.
    pub fn reload_keys(&self) -> Result<(), KeyError> {
        let read = self.tokens.as_ref().map_or(Ok(()), token::Verifier::reload).and(self.providers.reload());
        self.known.forget();
        read
    }

    /// Tasks that fetch the providers' keys for ever; `told` hears how each fetch ended.
    pub fn fetchers(&self, told: &Arc<dyn Fn(Fetched) + Send + Sync>) -> Vec<BoxFuture<'static, ()>> {
        let fetcher = |keys: &Arc<jwks::RemoteKeys>| {
            let (known, told) = (Arc::clone(&self.known), Arc::clone(told));
            let changed = move |fetched| {
                if fetched == Fetched::Changed {
                    known.forget();
                }
                told(fetched);
            };
            Arc::clone(keys).keep_fresh(changed).boxed()
        };
        self.providers.remote().map(fetcher).collect()
    }

    /// The side that asks kube-apiserver about tokens; `None` when nothing is asked, or somebody has it already.
    #[must_use]
    pub fn reviewer(&self) -> Option<review::Reviewer> {
        self.reviews.as_ref().and_then(review::Reviewer::of)
    }

    /// How many reviews ended how; nothing when nothing is asked.
    #[must_use]
    pub fn reviewed(&self) -> Option<[(&'static str, u64); 5]> {
        self.reviews.as_ref().map(|reviews| reviews.tally().read())
    }

    /// What is known about who sent a request with these headers over a connection of this peer.
    ///
    /// # Errors
    /// The caller is refused with 401 or 400, see [`Refused::status`].
    pub fn judge(
        &self,
        peer: &PeerCertificate,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Judgement, Refused> {
        let token = bearer::token(headers)?;
        let unverifiable = match peer.verdict(now) {
            Verdict::Verified(caller) => return Ok(Judgement::Caller(caller)),
            Verdict::Unverifiable(why) => Some(why),
            Verdict::Nothing => None,
        };
        match (token, unverifiable) {
            (Some(token), _) => Ok(self.bearer(&token, now)),
            (None, Some(why)) => Err(Refused::Certificate(why)),
            (None, None) => Ok(Judgement::Caller(Arc::clone(&self.anonymous))),
        }
    }

    /// As [`Authenticator::judge`], with nobody asked for.
    ///
    /// # Errors
    /// As [`Authenticator::judge`].
    pub fn caller(
        &self,
        peer: &PeerCertificate,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Arc<Caller>, Refused> {
        self.judge(peer, headers, now).map(Judgement::unsettled)
    }

    /// Whether `caller` may ask for `path`, which is decoded, if it is anonymous.
    ///
    /// # Errors
    /// It is anonymous, and may not.
    pub fn admit_anonymous(&self, caller: &Caller, path: &str) -> Result<(), Refused> {
        let admitted = match &self.admitted {
            Anonymous::Anywhere => true,
            _ if caller.identity.credential != Credential::Anonymous => true,
            Anonymous::At(paths) => paths.iter().any(|admitted| admitted == path),
            Anonymous::Nowhere => false,
        };
        if admitted { Ok(()) } else { Err(Refused::Anonymous) }
    }

    /// kube-apiserver answered 401 to a token that looked good here: its pod, its service account or its key
    /// is gone. It ranks as unverified for a minute from `now`.
    pub fn demote(&self, key: &TokenKey, now: SystemTime) {
        self.known.demote(key, now);
    }

    fn bearer(&self, token: &str, now: SystemTime) -> Judgement {
        let unverified = || Judgement::Caller(Arc::clone(&self.unverified));
        if token.is_empty() || token.len() > token::TOKEN_BYTES_MAX {
            return unverified();
        }
        let key = self.known.key(token);
        match self.known.find(&key, now) {
            known::Found::Caller(caller) => return Judgement::Caller(caller),
            known::Found::Demoted => return unverified(),
            known::Found::Nothing => {}
        }
        let verified = match self.verify(token, now) {
            Ok(verified) => verified,
            // Not ours to judge, or by a key that is not here.
            Err(Unverified::Issuer | Unverified::NotAJwt | Unverified::Key) => {
                return self.review(token, key);
            }
            Err(_) => return unverified(),
        };
        let caller = Arc::new(Caller {
            identity: Arc::new(verified.identity),
            via: Assert::Bearer,
            not_after: Some(verified.not_after),
            token_key: Some(key.clone()),
            memo: Memo::default(),
        });
        self.known.remember(key, &caller, verified.not_after, now);
        Judgement::Caller(caller)
    }

    /// By the cluster's keys, else by the providers'.
    fn verify(&self, token: &str, now: SystemTime) -> Result<token::Verified, Unverified> {
        let by_cluster =
            self.tokens.as_ref().map_or(Err(Unverified::Issuer), |verifier| verifier.verify(token, now));
        match by_cluster {
            Err(Unverified::Issuer) => self.providers.verify(token, now),
            known => known,
        }
    }

    fn review(&self, token: &str, key: TokenKey) -> Judgement {
        let Some(reviews) = &self.reviews else { return Judgement::Caller(Arc::clone(&self.unverified)) };
        match reviews.look(token, key) {
            review::Known::Good(caller) => Judgement::Caller(caller),
            review::Known::Unverified => Judgement::Caller(Arc::clone(&self.unverified)),
            review::Known::Pending(pending) => Judgement::Pending(pending, Arc::clone(&self.unverified)),
        }
    }
}

#[cfg(test)]
mod tests;
