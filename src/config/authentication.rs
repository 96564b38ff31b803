//! Who else may prove who they are, and who need not? The types behind `authentication.jwt`, `.tokenReview` and
//! `.anonymous`.
//!
//! The shapes are those of Kubernetes' AuthenticationConfiguration, so that what an operator wrote there can be
//! repeated here; where a key has another meaning it has another name (files instead of inline PEM). What kube-apiserver
//! does with CEL is not done here and refused by name. Reading is [`super::read_authentication`]'s.

use std::path::PathBuf;
use std::time::Duration;

/// One OIDC provider whose tokens are verified here. At most 16, issuers unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProvider {
    /// Whose tokens, and by which keys.
    pub issuer: JwtIssuer,
    /// Claims that must have a value. At most 16.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// What the claims mean.
    pub claim_mappings: ClaimMappings,
}

/// Whose tokens, for whom, and by which keys they are verified. Exactly one of the two key sources is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// The `iss` claim, letter by letter: `https://…`.
    pub url: String,
    /// Accepted `aud` values, at least one of which must be there (`audienceMatchPolicy: MatchAny`). 1 to 16.
    pub audiences: Vec<String>,
    /// Where the key set is.
    pub keys: JwtKeys,
}

/// Where a provider's JSON Web Key Set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A file. *Hot*: it is read again when it changes.
    File(PathBuf),
    /// `jwksURL`, fetched every five minutes and never while a request waits. What was fetched last is used for up to a
    /// day after that.
    Url {
        /// Host, as in the certificate.
        host: String,
        /// Port, 443 unless the URL says otherwise.
        port: u16,
        /// Path and query.
        path: String,
        /// `certificateAuthorityFile`: PEM bundle of the CAs that may have signed the server's certificate.
        ca_file: PathBuf,
    },
}

/// A claim and the value it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// The claim's name.
    pub claim: String,
    /// Its value: a text.
    pub required_value: String,
}

/// What a token's claims say about its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMappings {
    /// The user name.
    pub username: PrefixedClaim,
    /// The groups: a text or a list of texts. Default: none.
    pub groups: Option<PrefixedClaim>,
    /// The UID. Default: none.
    pub uid: Option<String>,
    /// Extras: lower-case key such as `example.com/tenant`, and the claim it is taken from. At most 16.
    pub extra: Vec<(String, String)>,
}

/// A claim, and what is put before its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixedClaim {
    /// The claim's name.
    pub claim: String,
    /// Put before each value; needed, because kube-apiserver needs it, but it may be empty.
    pub prefix: String,
}

/// Ask kube-apiserver about tokens that cannot be verified here. Absent or `enabled: false`: such callers rank as
/// unknown. Needs `upstreams.forwardIdentity.frontProxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenReview {
    /// The user that is asserted. Default `spillway:token-review`. It needs `create` on `tokenreviews`:
    /// `deploy/token-review.yaml`.
    pub user: String,
    /// Audiences that the token must be for. Default: none, which is kube-apiserver's own. At most 16.
    pub audiences: Vec<String>,
    /// How long a good verdict is used. Default 10 s, range 1 s to 10 s.
    pub positive_ttl: Duration,
    /// How long a bad one is. Default 1 s, range 0 s to 1 s. 0: not at all.
    pub negative_ttl: Duration,
    /// How long a request waits for the verdict before it goes on as unverified. Default 250 ms, range 10 ms to 1 s.
    pub wait: Duration,
}

impl Default for TokenReview {
    fn default() -> Self {
        Self {
            user: "spillway:token-review".to_owned(),
            audiences: vec![],
            positive_ttl: Duration::from_secs(10),
            negative_ttl: Duration::from_secs(1),
            wait: Duration::from_millis(250),
        }
    }
}

/// Who may come without a credential. Whoever may not is answered 401 here and never reaches kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anonymous {
    /// Default true: kube-apiserver decides.
    pub enabled: bool,
    /// The only paths they may ask for, compared whole. Default: every path. At most 16.
    pub paths: Option<Vec<String>>,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { enabled: true, paths: None }
    }
}
