//! Does this certificate open the lane now?
//!
//! A pure judgement of what the handshake showed: the answer is who it is for, or the one reason why not, with a
//! message that says what to do. It is made again for every request, because connections outlive certificates, and a
//! certificate may be revoked while its connection is open.

use std::time::SystemTime;

use super::authority::{Bearer, UNIT, UNIT_DRILL};
use super::deny::DenyList;
use super::shown::{self, Shown};
use crate::authn::{PeerCertificate, Unverifiable, Verdict};

/// Why a request is not let into the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing was shown, or a token.
    NoCertificate,
    /// Signed by somebody else.
    WrongAuthority,
    /// Its time has not begun, says this node's clock.
    NotYetValid,
    /// Its time is over, or that of its CA.
    Expired,
    /// It is on the deny list.
    Revoked,
    /// Not made for clients.
    NoClientAuth,
    /// Not marked for this lane.
    WrongUnit,
    /// None of the lane's groups.
    WrongGroup,
    /// It names nobody, or several.
    NotOnePerson,
    /// The chain is not acceptable for another reason.
    Unacceptable,
    /// The self-probe asked for more than health.
    DrillOnly,
    /// The lane wants a reason first.
    Unarmed,
    /// Too many attempts failed from there.
    Throttled,
}

impl Refusal {
    /// All of them, for the metric.
    pub(super) const ALL: [Self; 13] = [
        Self::NoCertificate,
        Self::WrongAuthority,
        Self::NotYetValid,
        Self::Expired,
        Self::Revoked,
        Self::NoClientAuth,
        Self::WrongUnit,
        Self::WrongGroup,
        Self::NotOnePerson,
        Self::Unacceptable,
        Self::DrillOnly,
        Self::Unarmed,
        Self::Throttled,
    ];

    /// The word for metrics, logs and audit.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::WrongAuthority => "wrong_ca",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NoClientAuth => "no_client_auth",
            Self::WrongUnit => "wrong_unit",
            Self::WrongGroup => "wrong_group",
            Self::NotOnePerson => "not_one_person",
            Self::Unacceptable => "unacceptable",
            Self::DrillOnly => "drill_only",
            Self::Unarmed => "unarmed",
            Self::Throttled => "throttled",
        }
    }
}

/// The rules of a lane.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// A person's certificate needs one of these in its O.
    pub groups: Vec<String>,
}

/// Judges a certificate at `now`.
///
/// # Errors
/// The reason why it opens nothing.
pub(super) fn check(
    certificate: &PeerCertificate,
    shown: Option<&Shown>,
    rules: &Rules,
    denied: &DenyList,
    now: SystemTime,
) -> Result<Bearer, Refusal> {
    match certificate.verdict(now) {
        Verdict::Nothing => return Err(Refusal::NoCertificate),
        Verdict::Unverifiable(why) => return Err(of(&why)),
        Verdict::Verified(_) => {}
    }
    // Whatever verified can be read.
    let shown = shown.ok_or(Refusal::Unacceptable)?;
    if now < shown.not_before {
        return Err(Refusal::NotYetValid);
    }
    if denied.denies(&shown.serial, &shown.fingerprint) {
        return Err(Refusal::Revoked);
    }
    if !shown.client_auth {
        return Err(Refusal::NoClientAuth);
    }
    if shown.user.is_none() {
        return Err(Refusal::NotOnePerson);
    }
    let has = |unit: &str| shown.units.iter().any(|shown| shown == unit);
    // A certificate with both marks is the weaker one.
    match (has(UNIT_DRILL), has(UNIT)) {
        (true, _) => Ok(Bearer::Drill),
        (false, false) => Err(Refusal::WrongUnit),
        (false, true) if shown.groups.iter().any(|group| rules.groups.contains(group)) => Ok(Bearer::Person),
        (false, true) => Err(Refusal::WrongGroup),
    }
}

fn of(why: &Unverifiable) -> Refusal {
    match why {
        Unverifiable::Expired | Unverifiable::Chain(webpki::Error::CertExpired { .. }) => Refusal::Expired,
        Unverifiable::Chain(webpki::Error::CertNotValidYet { .. }) => Refusal::NotYetValid,
        Unverifiable::Chain(
            webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::CaUsedAsEndEntity,
        ) => Refusal::WrongAuthority,
        Unverifiable::Chain(webpki::Error::RequiredEkuNotFoundContext(_)) => Refusal::NoClientAuth,
        Unverifiable::Name(_) | Unverifiable::Nameless => Refusal::NotOnePerson,
        _ => Refusal::Unacceptable,
    }
}

/// What the person reads: what is wrong, and what to do.
#[must_use]
pub(super) fn message(refusal: Refusal, shown: Option<&Shown>, rules: &Rules, now: SystemTime) -> String {
    let clock = shown::time(now);
    let serial = shown.map_or("", |shown| shown.serial.as_str());
    match refusal {
        Refusal::NoCertificate => {
            "this address accepts only certificates of the break-glass CA, and none was shown; tokens count for nothing here"
                .to_owned()
        }
        Refusal::WrongAuthority => format!(
            "this certificate was signed by {:?}, which is not the break-glass CA of this node",
            shown.map_or("", |shown| shown.issuer.as_str())
        ),
        Refusal::NotYetValid => format!(
            "this certificate begins at {} and this node's clock says {clock}; check the node's clock",
            shown.map_or_else(String::new, |shown| shown::time(shown.not_before))
        ),
        Refusal::Expired => format!(
            "this certificate, or its CA, has expired: it ends at {} and this node's clock says {clock}; \
             `spillway break-glass issue` makes a new one",
            shown.map_or_else(String::new, |shown| shown::time(shown.not_after))
        ),
        Refusal::Revoked => {
            format!("certificate {serial} was revoked; `spillway break-glass issue` makes a new one")
        }
        Refusal::NoClientAuth => {
            "this certificate is not made for clients (extended key usage clientAuth); use one of `spillway break-glass issue`"
                .to_owned()
        }
        Refusal::WrongUnit => format!(
            "this certificate is not marked for break-glass: its OU is not {UNIT:?}; use one of `spillway break-glass issue`"
        ),
        Refusal::WrongGroup => format!(
            "this certificate's O names none of this lane's groups ({}); issue one with --group",
            rules.groups.join(", ")
        ),
        Refusal::NotOnePerson => "this certificate names nobody, or several: one common name is expected".to_owned(),
        Refusal::Unacceptable => {
            "this certificate cannot be accepted; use one of `spillway break-glass issue`".to_owned()
        }
        Refusal::DrillOnly => {
            "a drill certificate may only GET /livez, /readyz, /healthz and /version; use a person's certificate"
                .to_owned()
        }
        // Both are worded where they are refused: they know more.
        Refusal::Unarmed => "this lane wants a reason and a ticket first".to_owned(),
        Refusal::Throttled => "too many failed attempts from this address; come back in a minute".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::pki_types::CertificateDer;

    use super::*;
    use std::sync::Arc;

    use crate::authn::{ClientAuthority, Material};
    use crate::identity::Credential;

    const HOUR: Duration = Duration::from_secs(3_600);
    const GROUP: &str = "spillway:break-glass";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        authority: Arc<ClientAuthority>,
    }

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "people");
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            let authority = Arc::new(
                ClientAuthority::from_pem(&Material::Bytes(pem.into_bytes()), Credential::BreakGlass)
                    .unwrap(),
            );
            Self { issuer: Issuer::new(params, key), authority }
        }

        fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, name) in [
                (DnType::OrganizationName, GROUP),
                (DnType::OrganizationalUnitName, UNIT),
                (DnType::CommonName, "ada@corp"),
            ] {
                params.distinguished_name.push(kind, name);
            }
            (params.not_before, params.not_after) = ((now() - HOUR).into(), (now() + HOUR * 24).into());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }

        /// As the lane judges: the handshake at one time, the request at another.
        fn judge(
            &self,
            certificate: Option<&CertificateDer<'static>>,
            denied: &DenyList,
            handshake: SystemTime,
            request: SystemTime,
        ) -> Result<Bearer, Refusal> {
            let chain: Vec<_> = certificate.into_iter().cloned().collect();
            let verdict = self.authority.judge(&chain, handshake);
            let shown = certificate.map(|leaf| shown::read(leaf).unwrap());
            check(&verdict, shown.as_ref(), &Rules { groups: vec![GROUP.into()] }, denied, request)
        }

        fn judged(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Bearer, Refusal> {
            self.judge(Some(&self.sign(change)), &DenyList::default(), now(), now())
        }
    }

    #[test]
    fn each_fault_has_its_own_reason() {
        let (ca, other) = (Ca::new(), Ca::new());
        assert_eq!(ca.judged(|_| ()), Ok(Bearer::Person));
        assert_eq!(ca.judge(None, &DenyList::default(), now(), now()), Err(Refusal::NoCertificate));
        let foreign = other.sign(|_| ());
        assert_eq!(
            ca.judge(Some(&foreign), &DenyList::default(), now(), now()),
            Err(Refusal::WrongAuthority)
        );
        assert_eq!(ca.judged(|p| p.extended_key_usages.clear()), Err(Refusal::NoClientAuth));
        let server =
            |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(ca.judged(server), Err(Refusal::NoClientAuth));
        let set = |kind: DnType, name: &'static str| {
            move |p: &mut CertificateParams| p.distinguished_name.push(kind, name)
        };
        assert_eq!(ca.judged(set(DnType::OrganizationalUnitName, "other")), Err(Refusal::WrongUnit));
        assert_eq!(ca.judged(set(DnType::OrganizationName, "system:masters")), Err(Refusal::WrongGroup));
        assert_eq!(ca.judged(set(DnType::CommonName, "")), Err(Refusal::NotOnePerson));
        let two = DnType::CustomDnType(vec![2, 5, 4, 3]);
        assert_eq!(ca.judged(set(two, "eve@corp")), Err(Refusal::NotOnePerson));
        assert_eq!(ca.judged(set(DnType::OrganizationalUnitName, UNIT_DRILL)), Ok(Bearer::Drill));
    }

    #[test]
    fn a_revoked_certificate_opens_nothing_by_serial_or_fingerprint() {
        let ca = Ca::new();
        let leaf = ca.sign(|_| ());
        let shown = shown::read(&leaf).unwrap();
        for entry in [&shown.serial, &shown.fingerprint] {
            let (denied, _) = DenyList::parse(entry);
            assert_eq!(ca.judge(Some(&leaf), &denied, now(), now()), Err(Refusal::Revoked));
        }
    }

    #[test]
    fn a_certificate_that_expires_on_an_open_connection_is_refused_from_then_on() {
        let ca = Ca::new();
        let leaf = ca.sign(|_| ());
        let (none, end) = (DenyList::default(), now() + HOUR * 24);
        assert_eq!(ca.judge(Some(&leaf), &none, now(), end), Ok(Bearer::Person));
        assert_eq!(ca.judge(Some(&leaf), &none, now(), end + Duration::from_secs(1)), Err(Refusal::Expired));
        assert_eq!(ca.judge(Some(&leaf), &none, end + HOUR, end + HOUR), Err(Refusal::Expired));
    }

    #[test]
    fn clocks_an_hour_off_accept_what_was_just_issued_and_say_so_when_they_do_not() {
        let ca = Ca::new();
        // As `issue` makes them: from 65 minutes ago.
        let leaf = ca.sign(|p| p.not_before = (now() - HOUR - Duration::from_secs(300)).into());
        let none = DenyList::default();
        for clock in [now() - HOUR, now(), now() + HOUR] {
            assert_eq!(ca.judge(Some(&leaf), &none, clock, clock), Ok(Bearer::Person));
        }
        let behind = now() - HOUR * 2;
        assert_eq!(ca.judge(Some(&leaf), &none, behind, behind), Err(Refusal::NotYetValid));
        let shown = shown::read(&leaf).unwrap();
        let rules = Rules { groups: vec![GROUP.into()] };
        let text = message(Refusal::NotYetValid, Some(&shown), &rules, behind);
        assert!(text.contains(&shown::time(behind)) && text.contains("check the node's clock"), "{text}");
    }
}
