use proptest::prelude::*;

use super::*;
use crate::authn::pki::{Attribute, BMP, CN, Ca, O, PRINTABLE, SERVER_AUTH, Says, UID, UTF8, now};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn authority(authorities: &[&Ca]) -> Arc<ClientAuthority> {
    Arc::new(ClientAuthority::from_pem(&Ca::bundle(authorities), Credential::Certificate).unwrap())
}

fn judge(authority: &Arc<ClientAuthority>, chain: &[CertificateDer<'_>]) -> Verdict {
    authority.judge(chain, now()).verdict(now())
}

fn identity(verdict: &Verdict) -> &Identity {
    match verdict {
        Verdict::Verified(caller) => &caller.identity,
        other => panic!("not verified: {other:?}"),
    }
}

fn refusal(verdict: Verdict) -> Unverifiable {
    match verdict {
        Verdict::Unverifiable(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn judged(says: &Says<'_>) -> Verdict {
    let ca = Ca::root("clients");
    judge(&authority(&[&ca]), &[ca.leaf(says)])
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
fn b9_without_a_common_name_it_proves_nothing() {
    let subjects: [&[&[Attribute<'_>]]; 2] = [&[&[(O, UTF8, b"group")]], &[&[(CN, UTF8, b"")]]];
    for subject in subjects {
        assert_eq!(refusal(judged(&Says { subject, ..Says::default() })), Unverifiable::Nameless);
    }
    let ca = Ca::root("clients");
    assert!(matches!(judge(&authority(&[&ca]), &[]), Verdict::Nothing));
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
fn b9_times_are_checked_for_every_certificate_of_the_chain() {
    let expired = judged(&Says { not_after: "20310101000000Z", ..Says::default() });
    assert!(matches!(refusal(expired), Unverifiable::Chain(webpki::Error::CertExpired { .. })));
    let future = judged(&Says { not_before: "20350101000000Z", ..Says::default() });
    assert!(matches!(refusal(future), Unverifiable::Chain(webpki::Error::CertNotValidYet { .. })));
    let old_root = Ca::root_until("clients", "20310101000000Z");
    let verdict = judge(&authority(&[&old_root]), &[old_root.leaf(&Says::default())]);
    assert_eq!(refusal(verdict), Unverifiable::Expired);
}

#[test]
fn b9_the_proof_ends_with_the_first_certificate_that_expires() {
    let root = Ca::root("root");
    let middle = root.intermediate("middle", "20350101000000Z");
    let chain = [middle.leaf(&Says::default()), middle.certificate.clone()];
    match judge(&authority(&[&root]), &chain) {
        Verdict::Verified(caller) => {
            let not_after = caller.not_after.unwrap();
            assert!(not_after < now() + 2 * YEAR, "the intermediate's end, not the leaf's");
            assert_eq!(caller.via, Assert::FrontProxy);
        }
        other => panic!("{other:?}"),
    }
    let alone = judge(&authority(&[&root]), &chain[..1]);
    assert_eq!(refusal(alone), Unverifiable::Chain(webpki::Error::UnknownIssuer));
    let long = vec![middle.certificate.clone(); INTERMEDIATES_MAX + 2];
    assert_eq!(refusal(judge(&authority(&[&root]), &long)), Unverifiable::TooLong);
}

#[test]
fn b9_only_our_authorities_count_and_both_do_during_a_rotation() {
    let (old, new, other) = (Ca::root("clients"), Ca::root("clients"), Ca::root("clients"));
    let both = authority(&[&old, &new]);
    assert_eq!(both.hints().len(), 2);
    for ca in [&old, &new] {
        assert_eq!(identity(&judge(&both, &[ca.leaf(&Says::default())])).user, "ada");
    }
    // The same name with another key.
    assert!(matches!(refusal(judge(&both, &[other.leaf(&Says::default())])), Unverifiable::Chain(_)));
    let nobody = judge(&Arc::new(ClientAuthority::nobody()), &[old.leaf(&Says::default())]);
    assert!(matches!(refusal(nobody), Unverifiable::Chain(_)));
}

#[test]
fn b9_a_certificate_for_servers_is_refused_and_one_for_everything_accepted() {
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

/// The SHA-256 fingerprint as `openssl x509 -fingerprint` prints it.
fn fingerprint_line(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[test]
fn b9_an_open_connection_is_judged_anew_when_the_authorities_change() {
    let (old, new) = (Ca::root("clients"), Ca::root("clients"));
    let authority = authority(&[&old]);
    let (of_old, of_new) = (old.leaf(&Says::default()), new.leaf(&Says::default()));
    let connections = [authority.judge(&[of_old], now()), authority.judge(&[of_new], now())];
    let worth = || connections.each_ref().map(|peer| matches!(peer.verdict(now()), Verdict::Verified(_)));
    assert_eq!(worth(), [true, false]);
    authority.reload(&Ca::bundle(&[&old, &new])).unwrap();
    assert_eq!(worth(), [true, true], "both during the rotation");
    assert!(authority.reload(&Material::Bytes(b"cut".to_vec())).is_err());
    assert_eq!(worth(), [true, true], "a bad bundle changes nothing");
    authority.reload(&Ca::bundle(&[&new])).unwrap();
    assert_eq!(worth(), [false, true], "the old CA is gone, and with it what it had signed");
}

#[test]
fn b9_a_denied_certificate_stops_counting_on_its_open_connection() {
    let ca = Ca::root("clients");
    let authority = authority(&[&ca]);
    let (stolen, other) = (ca.leaf(&Says::default()), ca.leaf(&Says::default()));
    let line = fingerprint_line(&stolen);
    let connections =
        [authority.judge(std::slice::from_ref(&stolen), now()), authority.judge(&[other], now())];
    authority.deny(&Material::Bytes(format!("{line} # laptop\n").into_bytes())).unwrap();
    assert_eq!(refusal(connections[0].verdict(now())), Unverifiable::Denied);
    assert_eq!(identity(&connections[1].verdict(now())).user, "ada");
    assert_eq!(refusal(judge(&authority, &[stolen])), Unverifiable::Denied, "nor on a new one");
    assert!(authority.deny(&Material::Bytes(b"not hexadecimal".to_vec())).is_err());
    assert_eq!(refusal(connections[0].verdict(now())), Unverifiable::Denied, "the list before stays");
    // The serial number, which all test certificates share.
    authority.deny(&Material::Bytes(b"01".to_vec())).unwrap();
    assert_eq!(refusal(connections[1].verdict(now())), Unverifiable::Denied);
    authority.deny(&Material::Bytes(Vec::new())).unwrap();
    assert_eq!(identity(&connections[0].verdict(now())).user, "ada");
}

#[test]
fn b9_a_chain_of_a_hundred_costs_nothing() {
    let root = Ca::root("root");
    let mut issuers = vec![root.intermediate("0", "20500101000000Z")];
    for depth in 1..100 {
        let next = issuers[depth - 1].intermediate(&depth.to_string(), "20500101000000Z");
        issuers.push(next);
    }
    let mut chain = vec![issuers[99].leaf(&Says::default())];
    chain.extend(issuers.iter().rev().map(|ca| ca.certificate.clone()));
    let peer = authority(&[&root]).judge(&chain, now());
    assert_eq!(refusal(peer.verdict(now())), Unverifiable::TooLong);
    assert!(peer.0.unwrap().chain.is_empty(), "nothing of it is kept");
    // Many candidates of one name: webpki's own budget ends the search.
    let namesakes: Vec<_> =
        (0..INTERMEDIATES_MAX).map(|_| root.intermediate("0", "20500101000000Z").certificate).collect();
    let mut chain = vec![issuers[0].leaf(&Says::default())];
    chain.extend(namesakes);
    assert!(matches!(refusal(judge(&authority(&[&root]), &chain)), Unverifiable::Chain(_)));
}

#[test]
fn b9_names_that_a_header_cannot_carry_are_nobody() {
    let names: [&[u8]; 6] = [
        b"admin\0.example",
        b"a\r\nx-remote-group: system:masters",
        b"\x1b[31mred",
        b" admin",
        b"admin\t",
        b"\xff",
    ];
    for name in names {
        let subject: &[&[Attribute<'_>]] = &[&[(CN, UTF8, name)]];
        let verdict = judged(&Says { subject, ..Says::default() });
        assert!(
            matches!(
                refusal(verdict),
                Unverifiable::Name("CN") | Unverifiable::Chain(_) | Unverifiable::Unreadable
            ),
            "{name:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(mut at in 0usize..400, to in any::<u8>(), cut in 0usize..400) {
        use std::sync::OnceLock;
        static PARTS: OnceLock<(Arc<ClientAuthority>, Vec<u8>)> = OnceLock::new();
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
