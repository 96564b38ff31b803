//! A certificate's subject, or a whole chain: who it names must travel in headers unchanged.
//!
//! An input that begins with `0` (the tag of a DER sequence) is a certificate, of which nobody here signed any. Any
//! other input is a subject in lines `CN=name` with a letter before it that says the type of string, as `uCN=ada`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use spillway::authn::certificate::NAMES_BYTES_MAX;
use spillway::authn::{ClientAuthority, Verdict};
use spillway::gateway::hygiene;
use spillway::identity::{GROUP_AUTHENTICATED, Identity};

/// Tags of string types: UTF-8, printable, IA5, teletex, 16 and 32 bits a character, and a number.
const TAGS: [(u8, u8); 7] =
    [(b'u', 0x0c), (b'p', 0x13), (b'i', 0x16), (b't', 0x14), (b'b', 0x1e), (b'w', 0x1c), (b'n', 0x02)];
/// Attributes that mean something, and one that means nothing.
const OIDS: [(&[u8], &[u8]); 4] = [
    (b"CN", &[0x55, 4, 3]),
    (b"O", &[0x55, 4, 0x0a]),
    (b"UID", &[0x2b, 6, 1, 4, 1, 0x83, 0xc2, 0x53, 2]),
    (b"OU", &[0x55, 4, 0x0b]),
];

pub fn run(input: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let authority = Arc::new(ClientAuthority::nobody());
    if input.first() == Some(&0x30) {
        let leaf = input.into();
        let chain = [leaf];
        assert!(matches!(authority.judge(&chain, now).verdict(now), Verdict::Unverifiable(_)));
        let [leaf] = &chain;
        if let Ok(identity) = authority.identity(leaf) {
            check(&identity);
        }
        return;
    }
    let subject = subject(input);
    let leaf = certificate(&subject);
    if let Ok(identity) = authority.identity(&leaf.into()) {
        check(&identity);
        // What it names stands in the subject, byte for byte.
        let names = [Some(&identity.user), identity.uid.as_ref()].into_iter().flatten();
        for name in names.chain(identity.groups.iter().filter(|group| *group != GROUP_AUTHENTICATED)) {
            assert!(subject.windows(name.len()).any(|part| part == name.as_bytes()), "{name:?}");
        }
    }
}

fn check(identity: &Identity) {
    let names = [Some(&identity.user), identity.uid.as_ref()].into_iter().flatten().chain(&identity.groups);
    let mut bytes = 0;
    for name in names {
        bytes += name.len();
        assert!(!name.is_empty() && name.trim() == name, "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
    assert!(bytes <= NAMES_BYTES_MAX + GROUP_AUTHENTICATED.len());
    let mut headers = HeaderMap::new();
    hygiene::assert_identity(identity, &mut headers).expect("every name can be asserted");
    assert_eq!(headers["x-remote-user"].as_bytes(), identity.user.as_bytes());
    let groups = headers.get_all("x-remote-group").iter().map(http::HeaderValue::as_bytes);
    let expected = identity.groups.iter().filter(|group| *group != GROUP_AUTHENTICATED).map(String::as_bytes);
    assert!(groups.eq(expected), "groups in their order");
}

fn subject(input: &[u8]) -> Vec<u8> {
    let mut names = Vec::new();
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let Some((kind, rest)) = line.split_first() else { continue };
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { continue };
        let (Some((_, tag)), Some((_, oid))) = (
            TAGS.iter().find(|(letter, _)| letter == kind),
            OIDS.iter().find(|(name, _)| *name == &rest[..equals]),
        ) else {
            continue;
        };
        let attribute = tlv(0x30, &[tlv(6, oid), tlv(*tag, &rest[equals + 1..])].concat());
        names.extend(tlv(0x31, &attribute));
    }
    tlv(0x30, &names)
}

/// A certificate of that subject with a signature that says nothing.
fn certificate(subject: &[u8]) -> Vec<u8> {
    let sequence = |parts: &[&[u8]]| tlv(0x30, &parts.concat());
    let algorithm = sequence(&[&tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let time = tlv(0x18, b"20300101000000Z");
    let nobody = sequence(&[]);
    let curve =
        [tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])];
    let key = sequence(&[&tlv(0x30, &curve.concat()), &tlv(3, &[0, 4])]);
    let to_be_signed = sequence(&[
        &[0xa0, 3, 2, 1, 2, 2, 1, 1],
        &algorithm,
        &nobody,
        &sequence(&[&time, &time]),
        subject,
        &key,
    ]);
    sequence(&[&to_be_signed, &algorithm, &tlv(3, &[0])])
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = content.len().to_be_bytes();
    let head: &[u8] = match content.len() {
        0..0x80 => &[tag, low],
        0x80..0x100 => &[tag, 0x81, low],
        0x100..0x10000 => &[tag, 0x82, middle, low],
        _ => &[tag, 0x83, high, middle, low],
    };
    [head, content].concat()
}
