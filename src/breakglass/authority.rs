//! How is a break-glass CA made, and what does it sign?
//!
//! The CA is made once, offline, and signs certificates that live for hours: one named person each, marked for this
//! lane alone by their organisational unit, so that another CA's certificates, or this CA's used for something else,
//! open nothing. Each certificate begins an hour in the past, because the clocks that judge it may be an hour behind.
//! Left out: revocation lists and OCSP, which would have to be reachable in the emergency; see [`super::DenyList`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::passphrase::{Passphrase, SealError};
use super::shown::{self, Shown};
use crate::authn::{ClientAuthority, Material, Verdict};
use crate::identity::Credential;

/// The organisational unit of a person's break-glass certificate.
pub const UNIT: &str = "spillway:break-glass";
/// The organisational unit of the self-probe's certificate, which opens health checks only.
pub const UNIT_DRILL: &str = "spillway:break-glass-drill";
/// The group (O) of the self-probe: no rule of RBAC names it.
pub(super) const GROUP_DRILL: &str = "spillway:break-glass-drill";

/// The longest life of a person's certificate.
pub const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The shortest: less is over before it has been copied to where it is needed.
pub(super) const TTL_MIN: Duration = Duration::from_secs(5 * 60);
/// The self-probe's certificate lies on the node and opens nothing but health checks: it may live as long as those
/// that kubeadm renews once a year.
pub(super) const TTL_DRILL_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
/// The longest life of a CA.
pub(super) const CA_VALID_MAX: Duration = Duration::from_secs(3_653 * 24 * 3_600);

/// How far before now a certificate begins: clocks an hour behind still accept it.
const BACKDATED: Duration = Duration::from_secs(65 * 60);
/// Longest name of a person, in bytes: the X.520 bound on a common name.
const NAME_BYTES_MAX: usize = 64;
/// Names of roles. A certificate that five people share shows in no log which of them it was.
const SHARED: [&str; 16] = [
    "admin",
    "administrator",
    "root",
    "oncall",
    "on-call",
    "operator",
    "operators",
    "ops",
    "sre",
    "team",
    "shared",
    "break-glass",
    "breakglass",
    "emergency",
    "kubernetes-admin",
    "everyone",
];

/// A CA or a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The name is not one person's.
    #[error("{name:?} cannot be the person of a break-glass certificate: {why}")]
    Name {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Longer or shorter than is allowed.
    #[error(
        "a life of {given} is {side} than the {bound} that a certificate of this kind may have; {advice}"
    )]
    Ttl {
        /// As it was asked for.
        given: String,
        /// `longer` or `shorter`.
        side: &'static str,
        /// The bound it breaks.
        bound: String,
        /// What to do.
        advice: &'static str,
    },
    /// The CA would end before its certificate.
    #[error(
        "the CA expires at {0}, before the certificate would; choose a shorter --ttl, or make a new CA and install it beside the old one"
    )]
    Authority(String),
    /// The CA's key cannot be opened, or sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The CA's certificate is not usable.
    #[error(
        "the CA's certificate is not usable: {0}; expected the ca.crt that `spillway break-glass ca init` wrote"
    )]
    Certificate(String),
    /// What was signed would not open the lane.
    #[error(
        "the certificate that was made would not be accepted ({0}): are ca.crt and ca.key of the same CA?"
    )]
    Refused(String),
    /// A library refused.
    #[error("the certificate cannot be made: {0}")]
    Library(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the machine has no random numbers to give; this build or machine is broken, use another")]
    Random,
}

/// Who the certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A person.
    Person,
    /// The self-probe of a node.
    Drill,
}

/// What is asked of the CA.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The person, or the drill's name.
    pub user: &'a str,
    /// The group that kube-apiserver is told. A drill has one of its own instead.
    pub group: &'a str,
    /// Who it is for.
    pub bearer: Bearer,
    /// From now to its end.
    pub ttl: Duration,
}

/// A new CA.
#[derive(Debug)]
pub struct Founded {
    /// `ca.crt`.
    pub certificate_pem: String,
    /// `ca.key`, encrypted.
    pub sealed_key_pem: String,
    /// What is in the certificate.
    pub shown: Shown,
}

/// A new certificate.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, not encrypted: kubectl cannot ask for a passphrase.
    pub key_pem: String,
    /// What is in it.
    pub shown: Shown,
}

/// Makes a CA called `name`.
///
/// # Errors
/// When its life is out of bounds, or a library fails.
pub fn found(
    name: &str,
    valid: Duration,
    passphrase: &Passphrase,
    now: SystemTime,
) -> Result<Founded, IssueError> {
    within(valid, TTL_MIN, CA_VALID_MAX, "ten years are more than any CA should need")?;
    let key = KeyPair::generate()?;
    let sealed_key_pem = passphrase.seal(key.serialized_der())?;
    let mut params = subject(&[(DnType::CommonName, name)], valid, now)?;
    // It signs people, not other CAs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, key)?;
    let shown = shown::read(ca.der()).map_err(|why| IssueError::Certificate(why.to_owned()))?;
    Ok(Founded { certificate_pem: ca.pem(), sealed_key_pem, shown })
}

/// A CA whose key was opened.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    not_after: SystemTime,
}

impl Authority {
    /// Opens the CA that [`found`] made.
    ///
    /// # Errors
    /// When the passphrase is another, or the files are not what they should be.
    pub fn open(
        certificate_pem: &str,
        sealed_key_pem: &str,
        passphrase: &Passphrase,
    ) -> Result<Self, IssueError> {
        let unusable = |why: String| IssueError::Certificate(why);
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| unusable(error.to_string()))?;
        let not_after = shown::read(&der).map_err(|why| unusable(why.to_owned()))?.not_after;
        let key = passphrase.open(sealed_key_pem)?;
        let key = KeyPair::try_from(key)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), not_after })
    }

    /// Signs a certificate, and proves that it would be accepted.
    ///
    /// # Errors
    /// When the name is nobody's, the life is out of bounds, or the CA cannot sign it.
    pub fn issue(&self, order: &Order<'_>, now: SystemTime) -> Result<Issued, IssueError> {
        check_name(order.user)?;
        let (unit, group) = match order.bearer {
            Bearer::Person => {
                within(
                    order.ttl,
                    TTL_MIN,
                    TTL_MAX,
                    "issue a new one when it is needed, or one for each month",
                )?;
                (UNIT, order.group)
            }
            Bearer::Drill => {
                within(order.ttl, TTL_MIN, TTL_DRILL_MAX, "renew it once a year")?;
                (UNIT_DRILL, GROUP_DRILL)
            }
        };
        if now + order.ttl > self.not_after {
            return Err(IssueError::Authority(shown::time(self.not_after)));
        }
        let names = [
            (DnType::OrganizationName, group),
            (DnType::OrganizationalUnitName, unit),
            (DnType::CommonName, order.user),
        ];
        let mut params = subject(&names, order.ttl, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            shown: shown::read(certificate.der()).map_err(|why| IssueError::Certificate(why.to_owned()))?,
        };
        self.prove(certificate.der(), now)?;
        Ok(issued)
    }

    /// What was signed is judged as the lane will judge it.
    fn prove(&self, certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(), IssueError> {
        let bundle = Material::Bytes(self.certificate_pem.clone().into_bytes());
        let authority = ClientAuthority::from_pem(&bundle, Credential::BreakGlass)
            .map_err(|error| IssueError::Certificate(error.to_string()))?;
        match Arc::new(authority).judge(std::slice::from_ref(certificate), now).verdict(now) {
            Verdict::Verified(_) => Ok(()),
            Verdict::Unverifiable(why) => Err(IssueError::Refused(why.to_string())),
            Verdict::Nothing => Err(IssueError::Refused("it names nobody".to_owned())),
        }
    }
}

fn subject(
    names: &[(DnType, &str)],
    valid: Duration,
    now: SystemTime,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + valid).into();
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| IssueError::Random)?;
    // Positive, and without leading zeros, so that everybody writes it alike.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn within(given: Duration, least: Duration, most: Duration, advice: &'static str) -> Result<(), IssueError> {
    let (side, bound) = match given {
        _ if given < least => ("shorter", least),
        _ if given > most => ("longer", most),
        _ => return Ok(()),
    };
    let advice = if side == "longer" { advice } else { "clocks differ by that much" };
    Err(IssueError::Ttl { given: shown::duration(given), side, bound: shown::duration(bound), advice })
}

/// One person, by a name that a header, a log line and a file name can carry.
fn check_name(name: &str) -> Result<(), IssueError> {
    let refuse = |why| Err(IssueError::Name { name: name.to_owned(), why });
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@+".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refuse("expected 1 to 64 characters, such as alice@corp");
    }
    if name.contains([',', ' ', ';', '/', '&']) {
        return refuse(
            "it names several people or a list; issue one certificate each, so that every log names who it was",
        );
    }
    if name.starts_with("system:") {
        return refuse("names with system: belong to Kubernetes");
    }
    if !name.bytes().all(plain) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return refuse("expected letters, digits and . - _ @ +, such as alice@corp");
    }
    let local = name.split('@').next().unwrap_or_default().to_ascii_lowercase();
    if SHARED.contains(&local.as_str()) {
        return refuse(
            "it names a role, which several people would share; issue one certificate for each person",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn ca() -> (Founded, Authority) {
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let founded = found("people", Duration::from_secs(86_400 * 365), &passphrase, now()).unwrap();
        let opened = Authority::open(&founded.certificate_pem, &founded.sealed_key_pem, &passphrase).unwrap();
        (founded, opened)
    }

    fn order(user: &str, ttl: Duration) -> Order<'_> {
        Order { user, group: "spillway:break-glass", bearer: Bearer::Person, ttl }
    }

    #[test]
    fn a_certificate_is_one_persons_for_this_lane_and_backdated_by_an_hour() {
        let (_, ca) = ca();
        let hour = Duration::from_secs(3_600);
        let shown = ca.issue(&order("alice@corp", hour * 24), now()).unwrap().shown;
        assert_eq!(shown.user.as_deref(), Some("alice@corp"));
        assert_eq!(
            (shown.units.as_slice(), shown.groups.as_slice()),
            (&[UNIT.to_owned()][..], &["spillway:break-glass".to_owned()][..])
        );
        assert_eq!(shown.not_after, now() + hour * 24);
        assert!(shown.not_before <= now() - hour);
        assert!(shown.client_auth);
        let drill = Order { bearer: Bearer::Drill, ..order("drill-cp-1", hour * 24 * 300) };
        let shown = ca.issue(&drill, now()).unwrap().shown;
        assert_eq!(
            (shown.units.as_slice(), shown.groups.as_slice()),
            (&[UNIT_DRILL.to_owned()][..], &[GROUP_DRILL.to_owned()][..])
        );
    }

    #[test]
    fn a_life_beyond_its_bound_is_refused_with_the_bound() {
        let (_, ca) = ca();
        let day = Duration::from_secs(86_400);
        ca.issue(&order("alice", day * 30), now()).unwrap();
        let refused = ca.issue(&order("alice", day * 31), now()).unwrap_err().to_string();
        assert!(refused.starts_with("a life of 31d is longer than the 30d"), "{refused}");
        let refused = ca.issue(&order("alice", Duration::from_secs(1)), now()).unwrap_err().to_string();
        assert!(refused.contains("shorter than the 5m"), "{refused}");
        // The CA has a year: a certificate never outlives it.
        let refused = ca.issue(&order("alice", day * 30), now() + day * 350).unwrap_err();
        assert!(matches!(refused, IssueError::Authority(_)), "{refused}");
    }

    #[test]
    fn only_one_named_person_gets_a_certificate() {
        let (_, ca) = ca();
        for name in ["", "alice,bob", "alice bob", "system:admin", "admin", "oncall@corp", "-x", "a\nb", "ä"]
        {
            let refused = ca.issue(&order(name, Duration::from_secs(3_600)), now()).unwrap_err();
            assert!(matches!(refused, IssueError::Name { .. }), "{name:?}: {refused}");
        }
        for name in ["alice", "alice@corp", "a.b-c_d+e@example.org"] {
            ca.issue(&order(name, Duration::from_secs(3_600)), now()).unwrap();
        }
    }

    #[test]
    fn a_key_of_another_ca_is_noticed_before_anybody_relies_on_it() {
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let (one, other) = (ca().0, ca().0);
        let mixed = Authority::open(&one.certificate_pem, &other.sealed_key_pem, &passphrase).unwrap();
        let refused = mixed.issue(&order("alice", Duration::from_secs(3_600)), now()).unwrap_err();
        assert!(matches!(refused, IssueError::Refused(_)), "{refused}");
    }
}
