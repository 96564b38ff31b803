//! Is this bearer token an identity provider's, and whom does it name?
//!
//! The steps are those of kube-apiserver's OIDC authenticator without CEL: issuer, signature by a key of the provider's
//! set, audience, times, required claims, then user, groups, UID and extras from the claims that the configuration names.
//! kube-apiserver must be configured alike; where the two differ it still is the judge, and a token that it refuses loses
//! its rank here. Left out: distributed claims (groups that a provider keeps elsewhere are missing, which only lowers)
//! and ES512. Source: `plugin/pkg/authenticator/token/oidc` of the kubernetes/apiserver repository.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde_json::{Map, Value};

use super::jwks::{Endpoint, RemoteKeys};
use super::keys::{self, KeyError, PublicKey};
use super::token::{Parts, Unverified, Verified};
use super::{AuthnError, Material};
use crate::identity::{Credential, GROUP_AUTHENTICATED, Identity};

/// Clock difference granted for the beginning of validity, as in the library that kube-apiserver uses. For the end it
/// grants none.
const NOT_BEFORE_LEEWAY_S: f64 = 60.0;

/// How the tokens of one provider are checked and read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `iss` claim, letter by letter.
    pub issuer: String,
    /// Accepted `aud` values.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Claims and the values they must have.
    pub required: Vec<(String, String)>,
    /// The claim with the user name, and what is put before it.
    pub username: (String, String),
    /// The claim with the groups, and what is put before each.
    pub groups: Option<(String, String)>,
    /// The claim with the UID.
    pub uid: Option<String>,
    /// Keys of extras and their claims.
    pub extra: Vec<(String, String)>,
}

/// Where a provider's key set is.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In a file.
    File(Material),
    /// At an address, fetched by whoever runs [`super::Authenticator::fetchers`].
    Remote(Endpoint),
}

enum Keys {
    File { source: Material, current: ArcSwap<Vec<PublicKey>> },
    Remote(Arc<RemoteKeys>),
}

/// Checks the tokens of all providers.
pub(super) struct Providers(Vec<Provider>);

struct Provider {
    settings: Settings,
    keys: Keys,
}

type Claims = Map<String, Value>;

impl Providers {
    pub(super) fn new(settings: &[Settings]) -> Result<Self, AuthnError> {
        settings.iter().map(Provider::new).collect::<Result<_, _>>().map(Self)
    }

    /// Key sets that somebody has to fetch.
    pub(super) fn remote(&self) -> impl Iterator<Item = &Arc<RemoteKeys>> {
        self.0.iter().filter_map(|provider| match &provider.keys {
            Keys::Remote(remote) => Some(remote),
            Keys::File { .. } => None,
        })
    }

    /// Reads the key files anew; those before stay where one is not usable.
    pub(super) fn reload(&self) -> Result<(), KeyError> {
        self.0.iter().try_for_each(|provider| match &provider.keys {
            Keys::File { source, current } => {
                current.store(Arc::new(read(source)?));
                Ok(())
            }
            Keys::Remote(_) => Ok(()),
        })
    }

    /// Who the token's bearer is, if everything about it holds at `now`.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, Unverified> {
        if self.0.is_empty() {
            return Err(Unverified::Issuer);
        }
        let parts = Parts::<Claims>::of(token)?;
        let issuer = parts.claims.get("iss").and_then(Value::as_str);
        let provider = self.0.iter().find(|provider| Some(provider.settings.issuer.as_str()) == issuer);
        provider.ok_or(Unverified::Issuer)?.verify(&parts, now)
    }
}

fn read(source: &Material) -> Result<Vec<PublicKey>, KeyError> {
    keys::key_set(&source.read("an identity provider's key set")?, &source.to_string())
}

impl Provider {
    fn new(settings: &Settings) -> Result<Self, AuthnError> {
        let keys = match &settings.keys {
            KeySource::File(source) => {
                Keys::File { source: source.clone(), current: ArcSwap::from_pointee(read(source)?) }
            }
            KeySource::Remote(endpoint) => Keys::Remote(Arc::new(RemoteKeys::new(endpoint.clone()))),
        };
        Ok(Self { settings: settings.clone(), keys })
    }

    fn verify(&self, parts: &Parts<'_, Claims>, now: SystemTime) -> Result<Verified, Unverified> {
        let check =
            |keys: &[PublicKey]| keys::check_signature(keys, &parts.header, parts.message, parts.signature);
        match &self.keys {
            Keys::File { current, .. } => check(&current.load())?,
            Keys::Remote(remote) => {
                let held = check(&remote.at(now));
                if held == Err(Unverified::Key) {
                    remote.want();
                }
                held?;
            }
        }
        let claims = &parts.claims;
        if !audiences(claims).any(|audience| self.settings.audiences.iter().any(|ours| ours == audience)) {
            return Err(Unverified::Audience);
        }
        let not_after = check_times(claims, now)?;
        for (claim, value) in &self.settings.required {
            if text(claims, claim)? != value {
                return Err(Unverified::Claims);
            }
        }
        Ok(Verified { identity: self.identity(claims)?, not_after })
    }

    fn identity(&self, claims: &Claims) -> Result<Identity, Unverified> {
        let (claim, prefix) = &self.settings.username;
        let name = text(claims, claim)?;
        // An address that nobody has confirmed can be anybody's.
        let confirmed = claims.get("email_verified").is_none_or(|verified| *verified == Value::Bool(true));
        if name.is_empty() || claim == "email" && !confirmed {
            return Err(Unverified::Claims);
        }
        let mut groups = match &self.settings.groups {
            Some((claim, prefix)) => {
                texts(claims, claim)?.into_iter().map(|group| format!("{prefix}{group}")).collect()
            }
            None => Vec::new(),
        };
        if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        let uid =
            self.settings.uid.as_ref().map(|claim| text(claims, claim).map(str::to_owned)).transpose()?;
        let mut extra = Vec::new();
        for (key, claim) in &self.settings.extra {
            let values = texts(claims, claim)?;
            if !values.is_empty() {
                extra.push((key.clone(), values.into_iter().map(str::to_owned).collect()));
            }
        }
        let user = format!("{prefix}{name}");
        // Names go into logs and, with other credentials, into headers: one that could split a line is nobody's.
        let splits = |name: &str| name.chars().any(char::is_control);
        if splits(&user) || groups.iter().any(|group| splits(group)) {
            return Err(Unverified::Claims);
        }
        Ok(Identity { user, uid, groups, extra, credential: Credential::OidcToken })
    }
}

/// When the token ends.
fn check_times(claims: &Claims, now: SystemTime) -> Result<SystemTime, Unverified> {
    let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let expiry = claims.get("exp").and_then(Value::as_f64).ok_or(Unverified::Time)?;
    let begun = match claims.get("nbf") {
        None => true,
        Some(begin) => begin.as_f64().is_some_and(|begin| begin <= at + NOT_BEFORE_LEEWAY_S),
    };
    if at > expiry || !begun {
        return Err(Unverified::Time);
    }
    let lifetime = Duration::try_from_secs_f64(expiry).map_err(|_| Unverified::Time)?;
    SystemTime::UNIX_EPOCH.checked_add(lifetime).ok_or(Unverified::Time)
}

fn audiences(claims: &Claims) -> impl Iterator<Item = &str> {
    let (one, many) = match claims.get("aud") {
        Some(Value::String(one)) => (Some(one.as_str()), &[][..]),
        Some(Value::Array(many)) => (None, many.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

fn text<'a>(claims: &'a Claims, claim: &str) -> Result<&'a str, Unverified> {
    claims.get(claim).and_then(Value::as_str).ok_or(Unverified::Claims)
}

/// A text or a list of texts; none when the claim is absent.
fn texts<'a>(claims: &'a Claims, claim: &str) -> Result<Vec<&'a str>, Unverified> {
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => {
            many.iter().map(|value| value.as_str().ok_or(Unverified::Claims)).collect()
        }
        Some(_) => Err(Unverified::Claims),
    }
}

#[cfg(test)]
mod tests;
