//! Who is the caller, once somebody has checked?
//!
//! An [`Identity`] is the answer of `authn`, never a claim: user, groups, UID and extras as kube-apiserver would
//! see them, and how strongly they were proven. It is built once per connection or token and shared.

use std::fmt;
use std::sync::Arc;

/// The group that kube-apiserver adds to everyone it could authenticate.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of callers without credentials.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of callers without credentials.
pub const USER_ANONYMOUS: &str = "system:anonymous";
/// The extra that names the node a bound service-account token belongs to.
pub const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// How strongly an identity is proven. Only verified credentials may raise a request's rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A client certificate that chains to the cluster's client CA.
    Certificate,
    /// A certificate that chains to the break-glass CA, seen on the break-glass listener.
    BreakGlass,
    /// A service-account token whose signature, issuer, audience and times were checked with local keys.
    ServiceAccountToken,
    /// An OIDC token whose signature, issuer, audience, times and claims were checked with the provider's keys.
    OidcToken,
    /// A token that kube-apiserver itself vouched for a moment ago (`TokenReview`).
    ReviewedToken,
    /// A bearer token that could not be checked here: kube-apiserver is its judge.
    UnverifiedToken,
    /// No credential at all.
    Anonymous,
}

impl Credential {
    /// Whether the caller proved who it is, here and now.
    #[must_use]
    pub const fn is_verified(self) -> bool {
        self.is_verified_here() || matches!(self, Self::ReviewedToken)
    }

    /// Whether the proof needed nobody else. What keeps nodes alive must not hang on an apiserver that answers.
    #[must_use]
    pub const fn is_verified_here(self) -> bool {
        matches!(self, Self::Certificate | Self::BreakGlass | Self::ServiceAccountToken | Self::OidcToken)
    }

    /// The stable word for metrics, logs and rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::BreakGlass => "break_glass",
            Self::ServiceAccountToken => "service_account_token",
            Self::OidcToken => "oidc_token",
            Self::ReviewedToken => "reviewed_token",
            Self::UnverifiedToken => "unverified_token",
            Self::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A caller, as kube-apiserver would name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name: a certificate's CN, or `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// UID, where the credential carries one.
    pub uid: Option<String>,
    /// Groups in the credential's order, with `system:authenticated` last where it applies.
    pub groups: Vec<String>,
    /// Extras: lower-case key and its values.
    pub extra: Vec<(String, Vec<String>)>,
    /// How it was proven.
    pub credential: Credential,
}

impl Identity {
    /// The caller without credentials.
    #[must_use]
    pub fn anonymous() -> Arc<Self> {
        Arc::new(Self {
            user: USER_ANONYMOUS.to_owned(),
            uid: None,
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
            extra: Vec::new(),
            credential: Credential::Anonymous,
        })
    }

    /// A caller with a token that only kube-apiserver can judge. It has no name here: one made up from the
    /// token's own claims could be chosen by an attacker.
    #[must_use]
    pub fn unverified() -> Arc<Self> {
        Arc::new(Self { credential: Credential::UnverifiedToken, ..(*Self::anonymous()).clone() })
    }

    /// Namespace and name, if this is a service account.
    ///
    /// ```
    /// use spillway::identity::{Credential, Identity};
    ///
    /// let mut caller = (*Identity::anonymous()).clone();
    /// assert_eq!(caller.service_account(), None);
    /// caller.user = "system:serviceaccount:monitoring:agent".into();
    /// assert_eq!(caller.service_account(), Some(("monitoring", "agent")));
    /// ```
    #[must_use]
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The node a bound token belongs to: what makes fairness between the nodes of one DaemonSet possible.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        let (_, values) = self.extra.iter().find(|(key, _)| key == EXTRA_NODE_NAME)?;
        values.first().map(String::as_str)
    }
}
