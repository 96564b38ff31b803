use proptest::prelude::*;

use super::*;
use crate::authn::pki::{Attribute, BMP, CN, Ca, O, PRINTABLE, SERVER_AUTH, Says, UID, UTF8, now};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn authority(authorities: &[&Ca]) -> ClientAuthority {
    ClientAuthority::from_pem(&Ca::bundle(authorities), Credential::Certificate).unwrap()
}

fn identity(verdict: &PeerCertificate) -> &Identity {
    match verdict {
        PeerCertificate::Verified { caller, .. } => &caller.identity,
        other => panic!("not verified: {other:?}"),
    }
}

fn refusal(verdict: PeerCertificate) -> Unverifiable {
    match verdict {
        PeerCertificate::Unverifiable { why } => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn judged(says: &Says<'_>) -> PeerCertificate {
    let ca = Ca::root("clients");
    authority(&[&ca]).judge(&[ca.leaf(says)], now())
}

#[test]
fn every_organisation_is_a_group_in_its_order() {
    let subject: &[&[Attribute<'_>]] = &[
        &[(O, PRINTABLE, b"zebra")],
        &[(O, UTF8, "équipe".as_bytes())],
        &[(CN, UTF8, "ada/löve".as_bytes())],
    ];
    let verdict = judged(&Says { subject, ..Says::default() });
    let identity = identity(&verdict);
    assert_eq!(identity.user, "ada/löve");
    assert_eq!(identity.groups, ["zebra", "équipe", "system:authenticated"]);
    assert_eq!(identity.credential, Credential::Certificate);
    let (key, values) = &identity.extra[0];
    assert_eq!(key, "authentication.kubernetes.io/credential-id");
    assert!(
        values[0].starts_with("X509SHA256=") && values[0].len() == "X509SHA256=".len() + 64,
        "{values:?}"
    );
}

#[test]
fn attributes_of_one_relative_name_count_like_separate_ones() {
    let subject: &[&[Attribute<'_>]] =
        &[&[(O, UTF8, b"a"), (O, UTF8, b"b"), (CN, UTF8, b"ada"), (UID, UTF8, b"u-1")]];
    let verdict = judged(&Says { subject, ..Says::default() });
    assert_eq!(identity(&verdict).user, "ada");
    assert_eq!(identity(&verdict).uid.as_deref(), Some("u-1"));
    assert_eq!(identity(&verdict).groups, ["a", "b", "system:authenticated"]);
}

#[test]
fn the_authenticated_group_is_added_only_where_the_apiserver_adds_it() {
    let subject: &[&[Attribute<'_>]] = &[&[(CN, UTF8, b"ada")], &[(O, UTF8, b"system:authenticated")]];
    let verdict = judged(&Says { subject, ..Says::default() });
    assert_eq!(identity(&verdict).groups, ["system:authenticated"]);
    let subject: &[&[Attribute<'_>]] = &[&[(CN, UTF8, b"system:anonymous")]];
    let verdict = judged(&Says { subject, ..Says::default() });
    assert!(identity(&verdict).groups.is_empty());
}

#[test]
fn without_a_common_name_there_is_no_opinion() {
    let subjects: [&[&[Attribute<'_>]]; 2] = [&[&[(O, UTF8, b"group")]], &[&[(CN, UTF8, b"")]]];
    for subject in subjects {
        assert!(matches!(judged(&Says { subject, ..Says::default() }), PeerCertificate::None));
    }
    let ca = Ca::root("clients");
    assert!(matches!(authority(&[&ca]).judge(&[], now()), PeerCertificate::None));
}

#[test]
fn names_that_a_header_would_change_are_no_identity() {
    let bad: [&[u8]; 6] =
        [b"ada\r\nX-Remote-Group: system:masters", b"a\0b", b"tab\t", b" ada", b"ada ", b"\x1b[31m"];
    for name in bad {
        for oid in [CN, O, UID] {
            let subject: &[&[Attribute<'_>]] = &[&[(oid, UTF8, name)], &[(CN, UTF8, b"ada")]];
            let why = refusal(judged(&Says { subject, ..Says::default() }));
            assert!(matches!(why, Unverifiable::Name(_)), "{name:?}: {why:?}");
        }
    }
    let unreadable: &[&[Attribute<'_>]] = &[&[(CN, BMP, b"\0a\0d\0a")]];
    assert_eq!(refusal(judged(&Says { subject: unreadable, ..Says::default() })), Unverifiable::Name("CN"));
    let invalid: &[&[Attribute<'_>]] = &[&[(CN, UTF8, b"\xff\xfe")]];
    assert_eq!(refusal(judged(&Says { subject: invalid, ..Says::default() })), Unverifiable::Name("CN"));
    let long = vec![b'x'; NAMES_BYTES_MAX];
    let subject: &[&[Attribute<'_>]] = &[&[(CN, UTF8, &long)], &[(O, UTF8, b"group")]];
    assert!(matches!(refusal(judged(&Says { subject, ..Says::default() })), Unverifiable::Name(_)));
}

#[test]
fn d12_ten_thousand_groups_are_refused_and_as_many_as_fit_are_taken() {
    let names: Vec<String> = (0..10_000).map(|number| format!("g{number:04}")).collect();
    let with = |count: usize| {
        let mut subject: Vec<Vec<Attribute<'_>>> =
            names[..count].iter().map(|name| vec![(O, UTF8, name.as_bytes())]).collect();
        subject.push(vec![(CN, UTF8, b"ada")]);
        let subject: Vec<&[Attribute<'_>]> = subject.iter().map(Vec::as_slice).collect();
        judged(&Says { subject: &subject, ..Says::default() })
    };
    // webpki reads nothing beyond 64 KiB, and rustls no larger handshake message.
    assert!(matches!(refusal(with(10_000)), Unverifiable::Chain(_)));
    // Not cut: a group that is missing at the apiserver would change what the caller may do there.
    assert!(matches!(refusal(with(3_500)), Unverifiable::Name(_)));
    assert_eq!(identity(&with(3_000)).groups.len(), 3_001);
}

#[test]
fn times_are_checked_for_every_certificate_of_the_chain() {
    let expired = judged(&Says { not_after: "20310101000000Z", ..Says::default() });
    assert!(matches!(refusal(expired), Unverifiable::Chain(webpki::Error::CertExpired { .. })));
    let future = judged(&Says { not_before: "20350101000000Z", ..Says::default() });
    assert!(matches!(refusal(future), Unverifiable::Chain(webpki::Error::CertNotValidYet { .. })));
    let old_root = Ca::root_until("clients", "20310101000000Z");
    let verdict = authority(&[&old_root]).judge(&[old_root.leaf(&Says::default())], now());
    assert_eq!(refusal(verdict), Unverifiable::Expired);
}

#[test]
fn the_proof_ends_with_the_first_certificate_that_expires() {
    let root = Ca::root("root");
    let middle = root.intermediate("middle", "20350101000000Z");
    let chain = [middle.leaf(&Says::default()), middle.certificate.clone()];
    match authority(&[&root]).judge(&chain, now()) {
        PeerCertificate::Verified { not_after, caller } => {
            assert!(not_after < now() + 2 * YEAR, "the intermediate's end, not the leaf's");
            assert_eq!(caller.not_after, Some(not_after));
            assert_eq!(caller.via, Assert::FrontProxy);
        }
        other => panic!("{other:?}"),
    }
    let alone = authority(&[&root]).judge(&chain[..1], now());
    assert_eq!(refusal(alone), Unverifiable::Chain(webpki::Error::UnknownIssuer));
    let long = vec![middle.certificate.clone(); INTERMEDIATES_MAX + 2];
    assert_eq!(refusal(authority(&[&root]).judge(&long, now())), Unverifiable::TooLong);
}

#[test]
fn only_our_authorities_count_and_both_do_during_a_rotation() {
    let (old, new, other) = (Ca::root("clients"), Ca::root("clients"), Ca::root("clients"));
    let both = authority(&[&old, &new]);
    assert_eq!(both.hints().len(), 2);
    for ca in [&old, &new] {
        assert_eq!(identity(&both.judge(&[ca.leaf(&Says::default())], now())).user, "ada");
    }
    // The same name with another key.
    assert!(matches!(refusal(both.judge(&[other.leaf(&Says::default())], now())), Unverifiable::Chain(_)));
    let nobody = ClientAuthority::nobody().judge(&[old.leaf(&Says::default())], now());
    assert!(matches!(refusal(nobody), Unverifiable::Chain(_)));
}

#[test]
fn a_certificate_for_servers_is_refused_and_one_for_everything_accepted() {
    let server = judged(&Says { usage: Some(SERVER_AUTH), ..Says::default() });
    assert!(matches!(refusal(server), Unverifiable::Chain(webpki::Error::RequiredEkuNotFoundContext(_))));
    let any = judged(&Says { usage: None, ..Says::default() });
    assert_eq!(identity(&any).user, "ada");
}

#[test]
fn an_unusable_bundle_says_which_file_and_what_was_expected() {
    let text = |contents: &[u8]| {
        let bundle = Material::Bytes(contents.to_vec());
        ClientAuthority::from_pem(&bundle, Credential::Certificate).err().unwrap().to_string()
    };
    assert_eq!(text(b""), "memory holds no certificate; expected one or more CERTIFICATE blocks");
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert!(text(broken.as_bytes()).starts_with("certificate 1 of memory cannot be used as a CA: "));
    let missing = Material::File("/nonexistent/ca.crt".into());
    let error = ClientAuthority::from_pem(&missing, Credential::Certificate).err().unwrap().to_string();
    assert!(error.starts_with("cannot read the client CA bundle from /nonexistent/ca.crt: "), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(mut at in 0usize..400, to in any::<u8>(), cut in 0usize..400) {
        use std::sync::OnceLock;
        static PARTS: OnceLock<(ClientAuthority, Vec<u8>)> = OnceLock::new();
        let (authority, leaf) = PARTS.get_or_init(|| {
            let ca = Ca::root("clients");
            (authority(&[&ca]), ca.leaf(&Says::default()).to_vec())
        });
        let mut bytes = leaf.clone();
        at %= bytes.len();
        bytes[at] = to;
        let whole = CertificateDer::from(bytes.clone());
        let _ = authority.judge(&[whole], now());
        bytes.truncate(cut);
        let _ = authority.judge(&[CertificateDer::from(bytes)], now());
    }
}
