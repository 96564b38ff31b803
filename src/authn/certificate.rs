//! What does the certificate that a peer showed say about who it is?
//!
//! The handshake proved that the peer holds the key; here the chain is verified (webpki: signatures, times,
//! clientAuth, name constraints, bounded work) and the leaf's subject becomes an [`Identity`] as
//! kube-apiserver reads it: CN is the user, every O is a group in its order, an attribute of Kubernetes' own
//! is the UID. A name that a header cannot carry unchanged is not an identity: it would become somebody
//! else's on the way. Left out: CRL and OCSP, which the apiserver has not got either. Source:
//! `authentication/request/x509` of the kubernetes/apiserver repository.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::deny::{Denied, DenyError};
use super::{Assert, Caller, Material, MaterialError, Memo};
use crate::identity::{Credential, GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, Identity, USER_ANONYMOUS};

/// Intermediates a client may send. Real chains have 0 to 2; webpki itself bounds the work of building a
/// path, this bounds what is looked at before.
pub const INTERMEDIATES_MAX: usize = 8;

/// User, UID and groups of one certificate together, in bytes. They travel in the headers of every request,
/// and the list of all headers towards the apiserver is held to 64 KiB.
pub const NAMES_BYTES_MAX: usize = 16 * 1024;

/// The subject attribute that carries the UID, since Kubernetes 1.33.
const OID_UID: &str = "1.3.6.1.4.1.57683.2";
const EXTRA_CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The certificate that a peer has shown, and what it is worth now. The handshake decides that once; it is decided
/// again when the CAs or the list of denied certificates have changed, because connections outlive both.
pub struct PeerCertificate(Option<Shown>);

struct Shown {
    authority: Arc<ClientAuthority>,
    /// Leaf first; empty when there were too many to keep.
    chain: Vec<CertificateDer<'static>>,
    judged: ArcSwap<Judged>,
}

/// What an authority of one generation found.
struct Judged {
    generation: u64,
    verdict: Verdict,
    /// When the first certificate of the chain expires.
    not_after: SystemTime,
}

/// What a certificate is worth.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// There is none: a token or nothing decides.
    Nothing,
    /// It proves who the caller is, who is shared by all requests of the connection.
    Verified(Arc<Caller>),
    /// It proves nothing: 401, unless a token comes along.
    Unverifiable(Unverifiable),
}

impl PeerCertificate {
    /// No certificate was shown.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// What it is worth at `now`.
    #[must_use]
    pub fn verdict(&self, now: SystemTime) -> Verdict {
        let Some(shown) = &self.0 else { return Verdict::Nothing };
        let judged = shown.judged.load();
        if judged.generation == shown.authority.generation.load(Ordering::Acquire) || shown.chain.is_empty() {
            return judged.at(now);
        }
        let judged = shown.authority.judge_chain(&shown.chain, now);
        let verdict = judged.at(now);
        shown.judged.store(Arc::new(judged));
        verdict
    }
}

impl std::fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = self.0.as_ref().map(|shown| shown.judged.load().verdict.clone());
        f.debug_tuple("PeerCertificate").field(&verdict).finish()
    }
}

impl Judged {
    fn at(&self, now: SystemTime) -> Verdict {
        match &self.verdict {
            Verdict::Verified(_) if now > self.not_after => Verdict::Unverifiable(Unverifiable::Expired),
            verdict => verdict.clone(),
        }
    }
}

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverifiable {
    /// The chain does not lead to a CA of ours, or not in a valid way.
    #[error("the chain was not accepted: {0}")]
    Chain(webpki::Error),
    /// It was valid when the connection began, or its CA has expired.
    #[error("the certificate or its CA has expired")]
    Expired,
    /// It is on the list of those that no longer count.
    #[error("the certificate is on the deny list")]
    Denied,
    /// It has no CN. kube-apiserver's reader of client certificates then has no opinion, but the one of front-proxy
    /// certificates, which is asked about each, has refused it: the answer is 401.
    #[error("the certificate names nobody: it has no CN")]
    Nameless,
    /// More intermediates than [`INTERMEDIATES_MAX`].
    #[error("the chain has more than {INTERMEDIATES_MAX} intermediates")]
    TooLong,
    /// The leaf is not X.509 as x509-parser reads it.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// A name has a string type or characters that a header cannot carry, or is too long.
    #[error("its {0} cannot be asserted in a header")]
    Name(&'static str),
}

/// The bundle of client CAs is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// It is not PEM.
    #[error("{origin} is not valid PEM: {reason}; expected one or more CERTIFICATE blocks")]
    Pem {
        /// File name.
        origin: String,
        /// What the parser met.
        reason: String,
    },
    /// It holds no certificate.
    #[error("{origin} holds no certificate; expected one or more CERTIFICATE blocks")]
    Empty {
        /// File name.
        origin: String,
    },
    /// A certificate in it cannot be a trust anchor.
    #[error("certificate {number} of {origin} cannot be used as a CA: {reason}")]
    Anchor {
        /// File name.
        origin: String,
        /// Position, from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Whoever signs the certificates of clients: one or more CAs, replaceable while it runs.
pub struct ClientAuthority {
    trusted: ArcSwap<Trusted>,
    /// Raised with every change, after it.
    generation: AtomicU64,
    credential: Credential,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What is trusted, and what not in spite of it.
#[derive(Default)]
struct Trusted {
    bundle: Arc<Bundle>,
    denied: Arc<Denied>,
}

/// The CAs of one file.
#[derive(Default)]
struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// When each anchor expires, by position: webpki trusts anchors for ever, Go's verifier and so the
    /// apiserver not.
    ends: Vec<SystemTime>,
}

impl Bundle {
    fn read(source: &Material) -> Result<Self, AuthorityError> {
        let origin = source.to_string();
        let pem = source.read("the client CA bundle")?;
        let mut bundle = Self::default();
        for (position, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
            let certificate = certificate
                .map_err(|error| AuthorityError::Pem { origin: origin.clone(), reason: error.to_string() })?;
            let refuse = |reason: String| AuthorityError::Anchor {
                origin: origin.clone(),
                number: position + 1,
                reason,
            };
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| refuse(error.to_string()))?
                .to_owned();
            let end = not_after(&certificate).map_err(|why| refuse(why.to_string()))?;
            bundle.anchors.push(anchor);
            bundle.ends.push(end);
        }
        if bundle.anchors.is_empty() {
            return Err(AuthorityError::Empty { origin });
        }
        Ok(bundle)
    }
}

impl ClientAuthority {
    /// Reads a PEM bundle. `credential` is what a certificate signed by these CAs proves.
    ///
    /// # Errors
    /// The bundle cannot be read, holds no certificate, or one that cannot be a CA.
    pub fn from_pem(bundle: &Material, credential: Credential) -> Result<Self, AuthorityError> {
        let authority = Self { credential, ..Self::nobody() };
        authority.reload(bundle)?;
        Ok(authority)
    }

    /// Trusts no certificate at all.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            trusted: ArcSwap::default(),
            generation: AtomicU64::new(0),
            credential: Credential::Certificate,
            algorithms: rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
        }
    }

    /// Trusts the CAs of `bundle` from now on, also for connections that are open.
    ///
    /// # Errors
    /// As [`ClientAuthority::from_pem`]; the CAs before stay in force.
    pub fn reload(&self, bundle: &Material) -> Result<(), AuthorityError> {
        let bundle = Arc::new(Bundle::read(bundle)?);
        self.change(|trusted| Trusted { bundle: Arc::clone(&bundle), denied: Arc::clone(&trusted.denied) });
        Ok(())
    }

    /// Takes the worth from the certificates that `list` names, also on connections that are open.
    ///
    /// # Errors
    /// The list cannot be read or has a line that is no certificate; the list before stays in force.
    pub fn deny(&self, list: &Material) -> Result<(), DenyError> {
        let denied = Arc::new(Denied::read(list)?);
        self.change(|trusted| Trusted { bundle: Arc::clone(&trusted.bundle), denied: Arc::clone(&denied) });
        Ok(())
    }

    fn change(&self, change: impl Fn(&Trusted) -> Trusted) {
        self.trusted.rcu(|trusted| change(trusted));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The CA names that the handshake offers as hints.
    #[must_use]
    pub fn hints(&self) -> Vec<DistinguishedName> {
        let trusted = self.trusted.load();
        trusted.bundle.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// Judges the chain that a peer showed, leaf first.
    #[must_use]
    pub fn judge(self: &Arc<Self>, chain: &[CertificateDer<'_>], now: SystemTime) -> PeerCertificate {
        if chain.is_empty() {
            return PeerCertificate::none();
        }
        let judged = ArcSwap::from_pointee(self.judge_chain(chain, now));
        // What can never be accepted need not be kept.
        let kept = if chain.len() > INTERMEDIATES_MAX + 1 { &[] } else { chain };
        let chain = kept.iter().map(|certificate| certificate.clone().into_owned()).collect();
        PeerCertificate(Some(Shown { authority: Arc::clone(self), chain, judged }))
    }

    fn judge_chain(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Judged {
        // Before the CAs: a change in between is then judged once more.
        let generation = self.generation.load(Ordering::Acquire);
        let judged = |verdict, not_after| Judged { generation, verdict, not_after };
        let Some((leaf, intermediates)) = chain.split_first() else {
            return judged(Verdict::Nothing, SystemTime::UNIX_EPOCH);
        };
        match self.verify(leaf, intermediates, now).and_then(|end| Ok((end, self.identity(leaf)?))) {
            Err(why) => judged(Verdict::Unverifiable(why), SystemTime::UNIX_EPOCH),
            Ok((not_after, identity)) => {
                let caller = Caller {
                    identity: Arc::new(identity),
                    via: Assert::FrontProxy,
                    not_after: Some(not_after),
                    token_key: None,
                    memo: Memo::default(),
                };
                judged(Verdict::Verified(Arc::new(caller)), not_after)
            }
        }
    }

    /// Verifies the chain; the answer is when the first certificate in it expires.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SystemTime, Unverifiable> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(Unverifiable::TooLong);
        }
        let trusted = self.trusted.load();
        let Bundle { anchors, ends } = &*trusted.bundle;
        let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(Unverifiable::Chain)?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path = end_entity
            .verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                UnixTime::since_unix_epoch(since_epoch),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(Unverifiable::Chain)?;
        let mut end = not_after(leaf)?;
        for intermediate in path.intermediate_certificates() {
            end = end.min(not_after(&intermediate.der())?);
        }
        let anchor = anchors.iter().position(|anchor| anchor == path.anchor());
        end = anchor.and_then(|position| ends.get(position)).map_or(end, |anchor_end| end.min(*anchor_end));
        if is_denied(&trusted.denied, leaf)? {
            return Err(Unverifiable::Denied);
        }
        if now > end { Err(Unverifiable::Expired) } else { Ok(end) }
    }

    /// The identity in a verified leaf. Whoever calls this has verified the chain: it is public for the fuzz targets alone.
    #[doc(hidden)]
    pub fn identity(&self, leaf: &CertificateDer<'_>) -> Result<Identity, Unverifiable> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unverifiable::Unreadable)?;
        let subject = certificate.subject();
        // Of several CNs Go keeps the last, of several UIDs Kubernetes takes the first.
        let user = attributes(subject, &OID_X509_COMMON_NAME, "CN")?.pop().unwrap_or_default();
        if user.is_empty() {
            return Err(Unverifiable::Nameless);
        }
        let uid = match x509_parser::der_parser::Oid::from(&uid_arcs()) {
            Ok(oid) => attributes(subject, &oid, "UID")?.into_iter().next(),
            Err(_) => None,
        };
        if uid.as_deref() == Some("") {
            return Err(Unverifiable::Name("UID"));
        }
        // An empty group would vanish in the header; it grants nothing at the apiserver.
        let mut groups = attributes(subject, &OID_X509_ORGANIZATION_NAME, "O")?;
        groups.retain(|group| !group.is_empty());
        let bytes =
            user.len() + uid.as_ref().map_or(0, String::len) + groups.iter().map(String::len).sum::<usize>();
        if bytes > NAMES_BYTES_MAX {
            return Err(Unverifiable::Name("subject (it is too long)"));
        }
        let settled =
            groups.iter().any(|group| group == GROUP_AUTHENTICATED || group == GROUP_UNAUTHENTICATED);
        if user != USER_ANONYMOUS && !settled {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        let extra = vec![(EXTRA_CREDENTIAL_ID.to_owned(), vec![fingerprint(leaf)])];
        Ok(Identity { user, uid, groups, extra, credential: self.credential })
    }
}

/// Whether a header carries `name` to the apiserver unchanged: control characters split headers, and blanks
/// at the ends are trimmed there, which would turn "admin " into "admin".
fn assertable(name: &str) -> bool {
    !name.chars().any(char::is_control) && name.trim() == name
}

fn attributes(
    subject: &X509Name<'_>,
    oid: &x509_parser::der_parser::Oid<'_>,
    what: &'static str,
) -> Result<Vec<String>, Unverifiable> {
    subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type() == oid)
        .map(|attribute| match attribute.as_str() {
            Ok(text) if assertable(text) => Ok(text.to_owned()),
            _ => Err(Unverifiable::Name(what)),
        })
        .collect()
}

fn is_denied(denied: &Denied, leaf: &CertificateDer<'_>) -> Result<bool, Unverifiable> {
    if denied.is_empty() {
        return Ok(false);
    }
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unverifiable::Unreadable)?;
    let fingerprint = digest::digest(&digest::SHA256, leaf);
    Ok(denied.contains(fingerprint.as_ref(), certificate.raw_serial()))
}

fn uid_arcs() -> Vec<u64> {
    OID_UID.split('.').filter_map(|arc| arc.parse().ok()).collect()
}

/// When the first of the certificates in `source` ends; `None` when there is none to be read.
#[must_use]
pub fn end(source: &Material) -> Option<SystemTime> {
    let pem = source.read("a certificate").ok()?;
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    certificates.filter_map(|certificate| not_after(&certificate).ok()).min()
}

fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, Unverifiable> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unverifiable::Unreadable)?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("X509SHA256=");
    for byte in digest::digest(&digest::SHA256, certificate).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
