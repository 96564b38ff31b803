//! What does a signed grant say, and does it open this lane for this certificate now?
//!
//! A grant is a letter of somebody who holds the grant key, offline: this certificate, on this cluster, for this long,
//! for this reason. It is a PASETO v4.public token, so nothing has to be asked when it is shown. The judgement is pure.
//! Clocks differ: one that is up to [`SKEW`] ahead of or behind the signer's still accepts a grant, which therefore may
//! open the lane up to that much later than it says, but never for longer.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::arming::{GRANT_MAX, GRANT_MIN, REASON_BYTES_MAX, TICKET_BYTES_MAX};
use super::paseto;
use super::passphrase::{Passphrase, SealError};
use super::shown::{self, hex};

/// How far clocks may be apart.
pub(super) const SKEW: Duration = Duration::from_secs(3_600);
/// Bytes of a token: a full reason needs two thousand.
pub(super) const TOKEN_BYTES_MAX: usize = 3 << 10;
/// Keys that are trusted at a time: one in use, one to come, and some for other sites.
pub(super) const KEYS_MAX: usize = 8;
/// Both sides know it and nobody sends it: another token of the same key is no grant.
const PURPOSE: &[u8] = b"spillway break-glass grant 1";
/// Hex digits that name a key.
const KEY_ID_DIGITS: usize = 16;
/// Hex digits of a grant's name.
const ID_BYTES: usize = 8;
/// An Ed25519 key's SubjectPublicKeyInfo up to the key itself.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a grant opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// No grant at all.
    #[error("this is no grant ({0}); expected the file that `spillway break-glass grant` wrote, whole")]
    Garbage(&'static str),
    /// This lane trusts nobody's grants.
    #[error("this lane accepts no grants: breakGlass.grants.publicKeyFiles is not set on this node")]
    NotAccepted,
    /// Signed with a key that is none of this lane's.
    #[error(
        "the grant was signed with key {signed}, and this node trusts {trusted}; sign with one of those, or add the key's .pub \
         to breakGlass.grants.publicKeyFiles"
    )]
    WrongKey {
        /// Names the key.
        signed: String,
        /// Names those of this node.
        trusted: String,
    },
    /// Its signature does not fit.
    #[error("the grant was changed after it was signed, or not copied whole; copy the file again")]
    Tampered,
    /// For somebody else's certificate, or a former one.
    #[error(
        "the grant is for {user}'s certificate {granted}, and you came with {shown}; ask for a grant for the certificate that you use"
    )]
    OtherCertificate {
        /// Of the grant.
        user: String,
        /// Fingerprint in the grant.
        granted: String,
        /// Fingerprint of the certificate.
        shown: String,
    },
    /// For another cluster.
    #[error("the grant is for cluster {granted}, and this is {own}; ask for one for this cluster")]
    OtherCluster {
        /// Of the grant.
        granted: String,
        /// This lane's names.
        own: String,
    },
    /// Longer than this lane allows.
    #[error(
        "the grant is for {granted}, and this node allows {allowed} (breakGlass.grants.maxDuration); ask for a shorter one"
    )]
    TooLong {
        /// From its begin to its end.
        granted: String,
        /// What is allowed.
        allowed: String,
    },
    /// It begins later.
    #[error(
        "the grant begins at {begins} and this node's clock says {clock}; wait, or check the node's clock"
    )]
    NotYetValid {
        /// Its begin.
        begins: String,
        /// Our clock.
        clock: String,
    },
    /// Its time is over.
    #[error(
        "the grant ended at {ended} and this node's clock says {clock}; ask for a new one, or check the node's clock"
    )]
    Expired {
        /// Its end.
        ended: String,
        /// Our clock.
        clock: String,
    },
}

impl Flaw {
    /// The words for metrics, logs and audit: all that [`Self::as_str`] says.
    pub(super) const REASONS: [&str; 9] = [
        "grant_garbage",
        "grant_not_accepted",
        "grant_wrong_key",
        "grant_tampered",
        "grant_other_certificate",
        "grant_other_cluster",
        "grant_too_long",
        "grant_not_yet_valid",
        "grant_expired",
    ];

    /// The word for metrics, logs and audit.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Garbage(_) => "grant_garbage",
            Self::NotAccepted => "grant_not_accepted",
            Self::WrongKey { .. } => "grant_wrong_key",
            Self::Tampered => "grant_tampered",
            Self::OtherCertificate { .. } => "grant_other_certificate",
            Self::OtherCluster { .. } => "grant_other_cluster",
            Self::TooLong { .. } => "grant_too_long",
            Self::NotYetValid { .. } => "grant_not_yet_valid",
            Self::Expired { .. } => "grant_expired",
        }
    }
}

/// A grant cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The key cannot be opened, or sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It is another kind of key.
    #[error("the key is no Ed25519 key; expected the grant.key that `spillway break-glass grant-key` made")]
    NoKey,
    /// No random numbers, or no key.
    #[error("the machine cannot make a key or a random number; this build or machine is broken, use another")]
    Machine,
    /// What is asked for cannot be granted.
    #[error("{0}")]
    Order(String),
}

/// What is granted.
#[derive(Clone, Debug)]
pub struct GrantOrder<'a> {
    /// The certificate's person.
    pub user: &'a str,
    /// The certificate, SHA-256 in lower-case hex.
    pub fingerprint: &'a str,
    /// Where it counts.
    pub cluster: &'a str,
    /// Who grants it.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Under which ticket.
    pub ticket: &'a str,
    /// When it begins.
    pub starts: SystemTime,
    /// For how long.
    pub length: Duration,
}

/// A grant that was signed.
#[derive(Clone, Debug)]
pub struct SignedGrant {
    /// Names it in the lane's audit log.
    pub id: String,
    /// The token, one line.
    pub token: String,
    /// Names the key.
    pub key_id: String,
}

/// The key that signs grants.
pub struct GrantKey(Ed25519KeyPair);

/// A key whose grants count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey([u8; 32]);

/// What a lane expects of a grant.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) keys: Vec<PublicKey>,
    /// The lane's own names.
    pub(super) clusters: Vec<String>,
    pub(super) longest: Duration,
}

/// A grant that opens the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) id: String,
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) ticket: String,
    /// From now on, by the monotonic clock.
    pub(super) left: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    jti: String,
    iss: String,
    sub: String,
    aud: String,
    iat: String,
    nbf: String,
    exp: String,
    certificate: String,
    reason: String,
    ticket: String,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    kid: String,
}

impl GrantKey {
    /// A new key; the answer is its PKCS#8, sealed, and its public half, both PEM.
    ///
    /// # Errors
    /// When a library fails.
    pub fn found(passphrase: &Passphrase) -> Result<(Self, String, String), GrantError> {
        let key = Ed25519KeyPair::generate().map_err(|_| GrantError::Machine)?;
        // Version 1: what every openssl reads.
        let document = key.to_pkcs8v1().map_err(|_| GrantError::Machine)?;
        let sealed = passphrase.seal(document.as_ref())?;
        let spki = [&SPKI[..], key.public_key().as_ref()].concat();
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, spki);
        let public = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        Ok((Self(key), sealed, public))
    }

    /// Opens what [`Self::found`] sealed.
    ///
    /// # Errors
    /// When the passphrase is another, or the file holds something else.
    pub fn open(sealed_pem: &str, passphrase: &Passphrase) -> Result<Self, GrantError> {
        let pkcs8 = passphrase.open(sealed_pem)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map(Self).map_err(|_| GrantError::NoKey)
    }

    /// Names the key.
    #[must_use]
    pub fn id(&self) -> String {
        key_id(self.0.public_key().as_ref())
    }

    /// Signs a grant at `now`.
    ///
    /// # Errors
    /// When it would be accepted nowhere.
    pub fn sign(&self, order: &GrantOrder<'_>, now: SystemTime) -> Result<SignedGrant, GrantError> {
        check(order)?;
        let mut bytes = [0; ID_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| GrantError::Machine)?;
        let (id, key_id) = (hex(&bytes), self.id());
        let claims = Claims {
            jti: id.clone(),
            iss: order.by.to_owned(),
            sub: order.user.to_owned(),
            aud: order.cluster.to_owned(),
            iat: shown::time(now),
            nbf: shown::time(order.starts),
            exp: shown::time(order.starts + order.length),
            certificate: order.fingerprint.to_owned(),
            reason: order.reason.to_owned(),
            ticket: order.ticket.to_owned(),
        };
        let footer = Footer { kid: key_id.clone() };
        let (Ok(message), Ok(footer)) = (serde_json::to_vec(&claims), serde_json::to_vec(&footer)) else {
            return Err(GrantError::Machine);
        };
        Ok(SignedGrant { id, token: paseto::sign(&self.0, &message, &footer, PURPOSE), key_id })
    }
}

impl PublicKey {
    /// Every Ed25519 key of a PEM text.
    ///
    /// # Errors
    /// When there is none, or another kind of key, in words.
    pub(super) fn read_all(pem: &[u8]) -> Result<Vec<Self>, &'static str> {
        const EXPECTED: &str =
            "it holds no PEM public key of Ed25519, as `spillway break-glass grant-key` writes it";
        let read = |found: Result<SubjectPublicKeyInfoDer<'_>, _>| {
            let found = found.map_err(|_| EXPECTED)?;
            let key = found.strip_prefix(&SPKI[..]).ok_or(EXPECTED)?;
            key.try_into().map(Self).map_err(|_| EXPECTED)
        };
        let keys: Vec<Self> =
            SubjectPublicKeyInfoDer::pem_slice_iter(pem).map(read).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(EXPECTED) } else { Ok(keys) }
    }
}

/// Whether a PEM text holds keys that [`GrantKey::sign`] could be verified with; else why not.
///
/// # Errors
/// In words.
pub fn check_public_keys(pem: &[u8]) -> Result<usize, &'static str> {
    PublicKey::read_all(pem).map(|keys| keys.len())
}

/// Judges a token that somebody with the certificate `fingerprint` shows at `now`.
///
/// # Errors
/// The one reason why it opens nothing.
pub(super) fn judge(
    token: &str,
    expected: &Expected,
    fingerprint: &str,
    now: SystemTime,
) -> Result<Good, Flaw> {
    if expected.keys.is_empty() {
        return Err(Flaw::NotAccepted);
    }
    let claims = verified(token, &expected.keys)?;
    let times = (shown::parse_time(&claims.nbf), shown::parse_time(&claims.exp));
    let (Some(begins), Some(ends)) = times else { return Err(Flaw::Garbage("its times are none")) };
    if !expected.clusters.contains(&claims.aud) {
        return Err(Flaw::OtherCluster { granted: claims.aud, own: expected.clusters.join(" or ") });
    }
    if claims.certificate != fingerprint {
        return Err(Flaw::OtherCertificate {
            user: claims.sub,
            granted: claims.certificate,
            shown: fingerprint.to_owned(),
        });
    }
    let length = ends.duration_since(begins).map_err(|_| Flaw::Garbage("it ends before it begins"))?;
    if length > expected.longest {
        let (granted, allowed) = (shown::duration(length), shown::duration(expected.longest));
        return Err(Flaw::TooLong { granted, allowed });
    }
    let clock = shown::time(now);
    if begins > now + SKEW {
        return Err(Flaw::NotYetValid { begins: claims.nbf, clock });
    }
    let left = (ends + SKEW).duration_since(now).unwrap_or_default().min(length);
    if left.is_zero() {
        return Err(Flaw::Expired { ended: claims.exp, clock });
    }
    Ok(Good { id: claims.jti, by: claims.iss, reason: claims.reason, ticket: claims.ticket, left })
}

/// What a token claims, once somebody we trust has signed it.
fn verified(token: &str, keys: &[PublicKey]) -> Result<Claims, Flaw> {
    let token = token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Flaw::Garbage("it is longer than any grant"));
    }
    let parts = paseto::split(token).map_err(Flaw::Garbage)?;
    let footer: Footer =
        serde_json::from_slice(&parts.footer).map_err(|_| Flaw::Garbage("it does not name its key"))?;
    let trusted = || keys.iter().map(|key| key_id(&key.0)).collect::<Vec<_>>().join(", ");
    let Some(key) = keys.iter().find(|key| key_id(&key.0) == footer.kid) else {
        // It is shown to whoever came, and nobody signed it.
        let signed = footer.kid.chars().filter(char::is_ascii_alphanumeric).take(KEY_ID_DIGITS).collect();
        return Err(Flaw::WrongKey { signed, trusted: trusted() });
    };
    if !parts.is_signed_by(&key.0, PURPOSE) {
        return Err(Flaw::Tampered);
    }
    serde_json::from_slice(&parts.message)
        .map_err(|_| Flaw::Garbage("it says what this version of spillway does not know"))
}

fn key_id(public_key: &[u8]) -> String {
    let mut id = hex(digest::digest(&digest::SHA256, public_key).as_ref());
    id.truncate(KEY_ID_DIGITS);
    id
}

/// What the lane would refuse is not signed.
fn check(order: &GrantOrder<'_>) -> Result<(), GrantError> {
    let fits = |text: &str, most: usize| {
        !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
    };
    let refuse = |what: String| Err(GrantError::Order(what));
    for (option, text, most) in [
        ("--reason", order.reason, REASON_BYTES_MAX),
        ("--ticket", order.ticket, TICKET_BYTES_MAX),
        ("--by", order.by, 64),
        ("--cluster", order.cluster, 64),
    ] {
        if !fits(text, most) {
            return refuse(format!("{option} needs 1 to {most} printable characters"));
        }
    }
    if !(GRANT_MIN..=GRANT_MAX).contains(&order.length) {
        return refuse(format!(
            "a grant is for {} to {}, not {}; grant again when it is not enough",
            shown::duration(GRANT_MIN),
            shown::duration(GRANT_MAX),
            shown::duration(order.length)
        ));
    }
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if order.fingerprint.len() != 64 || !order.fingerprint.bytes().all(hexadecimal) {
        return refuse("a fingerprint is 64 lower-case hexadecimal digits, as `spillway break-glass list -o json` shows it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn order<'a>(fingerprint: &'a str) -> GrantOrder<'a> {
        GrantOrder {
            user: "ada@corp",
            fingerprint,
            cluster: "prod-1",
            by: "bob@corp",
            reason: "delete the DaemonSet",
            ticket: "INC-481",
            starts: now(),
            length: HOUR,
        }
    }

    pub(in crate::breakglass) fn key() -> (GrantKey, PublicKey) {
        let key = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey(key.public_key().as_ref().try_into().unwrap());
        (GrantKey(key), public)
    }

    fn expected(public: &PublicKey) -> Expected {
        Expected { keys: vec![public.clone()], clusters: vec!["prod-1".into()], longest: HOUR * 4 }
    }

    /// What becomes of a changed order at a clock that is `ahead` seconds off.
    fn reason(change: impl FnOnce(&mut GrantOrder<'_>), ahead: i64) -> Result<Duration, &'static str> {
        let (ada, (signer, public)) = ("a".repeat(64), key());
        let mut order = order(&ada);
        change(&mut order);
        let token = signer.sign(&order, now()).unwrap().token;
        let seconds = Duration::from_secs(ahead.unsigned_abs());
        let clock = if ahead < 0 { now() - seconds } else { now() + seconds };
        judge(&token, &expected(&public), &ada, clock).map(|good| good.left).map_err(|flaw| flaw.as_str())
    }

    #[test]
    fn a_grant_opens_for_its_certificate_cluster_and_time() {
        assert_eq!(reason(|_| (), 0), Ok(HOUR));
        assert_eq!(reason(|order| order.cluster = "prod-2", 0), Err("grant_other_cluster"));
        let other = "b".repeat(64);
        let (signer, public) = key();
        let token = signer.sign(&order(&other), now()).unwrap().token;
        let flaw = judge(&token, &expected(&public), &"a".repeat(64), now()).unwrap_err();
        assert_eq!(flaw.as_str(), "grant_other_certificate");
        assert!(flaw.to_string().contains("ada@corp's certificate bbbb"), "{flaw}");
        assert_eq!(reason(|order| order.length = HOUR * 4, 0), Ok(HOUR * 4));
        let strict = Expected { longest: MINUTE * 30, ..expected(&public) };
        let flaw = judge(&token, &strict, &other, now()).unwrap_err();
        assert_eq!(flaw.as_str(), "grant_too_long");
        assert!(flaw.to_string().contains("is for 1h, and this node allows 30m"), "{flaw}");
    }

    #[test]
    fn clocks_an_hour_off_either_way_accept_a_grant_and_further_ones_say_why_not() {
        // What was just signed is good for its full length on a clock that is behind, or ahead by less than its length.
        for minutes in [-60, -59, 0, 59, 60] {
            assert_eq!(reason(|_| (), minutes * 60), Ok(HOUR), "{minutes}");
        }
        assert_eq!(reason(|_| (), -3_601), Err("grant_not_yet_valid"));
        // It never opens the lane later than an hour after its end.
        assert_eq!(reason(|_| (), 90 * 60), Ok(MINUTE * 30));
        assert_eq!(reason(|_| (), 120 * 60 - 1), Ok(Duration::from_secs(1)));
        assert_eq!(reason(|_| (), 120 * 60), Err("grant_expired"));
        assert_eq!(reason(|order| order.starts = now() + HOUR * 3, 0), Err("grant_not_yet_valid"));
        assert_eq!(reason(|order| order.starts = now() + HOUR * 3, 3 * 3_600), Ok(HOUR));
    }

    #[test]
    fn another_key_no_key_and_no_grant_are_told_apart() {
        let (ada, (signer, public), (_, other)) = ("a".repeat(64), key(), key());
        let token = signer.sign(&order(&ada), now()).unwrap().token;
        let flaw = |token: &str, expected: &Expected| judge(token, expected, &ada, now()).unwrap_err();
        let wrong = flaw(&token, &expected(&other));
        assert_eq!(wrong.as_str(), "grant_wrong_key");
        assert!(wrong.to_string().contains(&signer.id()), "{wrong}");
        assert_eq!(flaw(&token, &Expected::default()).as_str(), "grant_not_accepted");
        let long = format!("v4.public.{}", "A".repeat(TOKEN_BYTES_MAX));
        for garbage in
            ["", "v4.public.", "v4.public.AAAA", "v4.local.AAAA", "v2.public.AAAA", "\u{0}ä", &long]
        {
            assert_eq!(flaw(garbage, &expected(&public)).as_str(), "grant_garbage", "{garbage}");
        }
        // The same key for another purpose.
        let foreign =
            paseto::sign(&signer.0, b"{}", format!(r#"{{"kid":"{}"}}"#, signer.id()).as_bytes(), b"");
        assert_eq!(flaw(&foreign, &expected(&public)).as_str(), "grant_tampered");
        // Two keys while one replaces the other.
        let both = Expected { keys: vec![other, public.clone()], ..expected(&public) };
        assert!(judge(&format!(" {token}\n"), &both, &ada, now()).is_ok());
    }

    #[test]
    fn no_changed_byte_of_a_grant_is_accepted() {
        let (ada, (signer, public)) = ("a".repeat(64), key());
        let token = signer.sign(&order(&ada), now()).unwrap().token;
        let expected = expected(&public);
        for place in 0..token.len() {
            for with in [b'A', b'B', b'.', b'_'] {
                let mut changed = token.clone().into_bytes();
                if std::mem::replace(&mut changed[place], with) == with {
                    continue;
                }
                let changed = String::from_utf8(changed).unwrap();
                let flaw = judge(&changed, &expected, &ada, now()).unwrap_err().as_str();
                assert!(
                    ["grant_garbage", "grant_tampered", "grant_wrong_key"].contains(&flaw),
                    "{place}: {flaw}"
                );
            }
        }
    }

    #[test]
    fn what_no_lane_would_accept_is_not_signed() {
        let (ada, (signer, _)) = ("a".repeat(64), key());
        let refused = |change: &dyn Fn(&mut GrantOrder<'_>)| {
            let mut order = order(&ada);
            change(&mut order);
            signer.sign(&order, now()).unwrap_err().to_string()
        };
        assert!(refused(&|order| order.reason = " ").starts_with("--reason"));
        assert!(refused(&|order| order.ticket = "a\nb").starts_with("--ticket"));
        assert!(refused(&|order| order.by = "").starts_with("--by"));
        assert!(refused(&|order| order.length = HOUR * 5).contains("not 5h"));
        assert!(refused(&|order| order.length = Duration::from_secs(1)).contains("1m to 4h"));
        assert!(refused(&|order| order.fingerprint = "AB").contains("64"));
    }

    #[test]
    fn the_key_lies_sealed_and_its_public_half_is_ordinary_pem() {
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let (made, sealed, public) = GrantKey::found(&passphrase).unwrap();
        let opened = GrantKey::open(&sealed, &passphrase).unwrap();
        assert_eq!(made.id(), opened.id());
        let keys = PublicKey::read_all(public.as_bytes()).unwrap();
        assert_eq!(key_id(&keys[0].0), made.id());
        assert_eq!(check_public_keys(format!("{public}{public}").as_bytes()), Ok(2));
        let elliptic = rcgen::KeyPair::generate().unwrap().public_key_pem();
        for wrong in ["", sealed.as_str(), elliptic.as_str()] {
            assert!(check_public_keys(wrong.as_bytes()).is_err(), "{wrong}");
        }
        // The CA's key is no grant key.
        let ca = passphrase.seal(&rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap();
        assert!(matches!(GrantKey::open(&ca, &passphrase), Err(GrantError::NoKey)));
    }

    #[test]
    fn every_flaw_has_a_reason_that_the_metric_knows() {
        let text = String::new;
        let flaws = [
            Flaw::Garbage(""),
            Flaw::NotAccepted,
            Flaw::WrongKey { signed: text(), trusted: text() },
            Flaw::Tampered,
            Flaw::OtherCertificate { user: text(), granted: text(), shown: text() },
            Flaw::OtherCluster { granted: text(), own: text() },
            Flaw::TooLong { granted: text(), allowed: text() },
            Flaw::NotYetValid { begins: text(), clock: text() },
            Flaw::Expired { ended: text(), clock: text() },
        ];
        assert_eq!(flaws.map(|flaw| flaw.as_str()), Flaw::REASONS);
        let metrics = std::fs::read_to_string("docs/METRICS.md").unwrap();
        assert!(Flaw::REASONS.iter().all(|reason| metrics.contains(reason)));
    }
}
