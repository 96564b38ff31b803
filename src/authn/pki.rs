//! Test certificates, written byte by byte.
//!
//! Certificate libraries refuse what has to be tested: a subject with two organisations, several attributes
//! in one relative name, any string type, control characters, no common name. DER is small enough to write.

use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::CertificateDer;

use super::Material;

pub(crate) const UTF8: u8 = 0x0c;
pub(crate) const PRINTABLE: u8 = 0x13;
pub(crate) const BMP: u8 = 0x1e;

pub(crate) const CN: &[u8] = &[0x55, 0x04, 0x03];
pub(crate) const O: &[u8] = &[0x55, 0x04, 0x0a];
/// 1.3.6.1.4.1.57683.2
pub(crate) const UID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// 2033-05-18: the tests' present.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

/// One attribute of a name: type, string tag, bytes.
pub(crate) type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

/// What a certificate says.
pub(crate) struct Says<'a> {
    /// Relative names, each of one or more attributes.
    pub(crate) subject: &'a [&'a [Attribute<'a>]],
    pub(crate) usage: Option<&'a [u8]>,
    /// GeneralizedTime
    pub(crate) not_before: &'a str,
    pub(crate) not_after: &'a str,
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self {
            subject: &[&[(CN, UTF8, b"ada")]],
            usage: Some(CLIENT_AUTH),
            not_before: "20300101000000Z",
            not_after: "20400101000000Z",
        }
    }
}

/// A CA, root or intermediate.
pub(crate) struct Ca {
    pub(crate) certificate: CertificateDer<'static>,
    key: EcdsaKeyPair,
    name: Vec<u8>,
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_until(name, "20500101000000Z")
    }

    pub(crate) fn root_until(name: &str, not_after: &str) -> Self {
        let key = key();
        let name = encode_name(&[&[(CN, UTF8, name.as_bytes())]]);
        let says = Says { usage: None, not_after, ..Says::default() };
        let certificate = certificate(&says, &name, &name, &key, &key, true);
        Self { certificate, key, name }
    }

    pub(crate) fn intermediate(&self, name: &str, not_after: &str) -> Self {
        let key = key();
        let name = encode_name(&[&[(CN, UTF8, name.as_bytes())]]);
        let says = Says { usage: None, not_after, ..Says::default() };
        let certificate = certificate(&says, &name, &self.name, &key, &self.key, true);
        Self { certificate, key, name }
    }

    pub(crate) fn leaf(&self, says: &Says<'_>) -> CertificateDer<'static> {
        certificate(says, &encode_name(says.subject), &self.name, &key(), &self.key, false)
    }

    pub(crate) fn bundle(authorities: &[&Self]) -> Material {
        let blocks: Vec<_> = authorities.iter().map(|ca| pem("CERTIFICATE", &ca.certificate)).collect();
        Material::Bytes(blocks.concat().into_bytes())
    }
}

/// A PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u32::try_from(content.len()).unwrap();
    let [_, top, high, low] = length.to_be_bytes();
    let head: &[u8] = match length {
        0..0x80 => &[tag, low],
        0x80..0x100 => &[tag, 0x81, low],
        0x100..0x1_0000 => &[tag, 0x82, high, low],
        _ => &[tag, 0x83, top, high, low],
    };
    [head, &content].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

fn encode_name(relative_names: &[&[Attribute<'_>]]) -> Vec<u8> {
    let sets = relative_names.iter().map(|attributes| {
        let encoded: Vec<_> = attributes
            .iter()
            .map(|(oid, tag, value)| sequence(&[&tlv(0x06, &[oid]), &tlv(*tag, &[value])]))
            .collect();
        tlv(0x31, &[&encoded.concat()])
    });
    sequence(&[&sets.collect::<Vec<_>>().concat()])
}

fn certificate(
    says: &Says<'_>,
    subject: &[u8],
    issuer: &[u8],
    key: &EcdsaKeyPair,
    issuer_key: &EcdsaKeyPair,
    is_ca: bool,
) -> CertificateDer<'static> {
    let time = |text: &str| tlv(0x18, &[text.as_bytes()]);
    let extension =
        |oid: &[u8], value: &[u8]| sequence(&[&tlv(0x06, &[oid]), &tlv(0x04, &[&sequence(&[value])])]);
    let mut extensions = Vec::new();
    if is_ca {
        extensions.extend(extension(BASIC_CONSTRAINTS, &[0x01, 0x01, 0xff]));
    }
    if let Some(usage) = says.usage {
        extensions.extend(extension(EXTENDED_KEY_USAGE, &tlv(0x06, &[usage])));
    }
    let extensions = match extensions.as_slice() {
        [] => Vec::new(),
        some => tlv(0xa3, &[&sequence(&[some])]),
    };
    let algorithm = sequence(&[&tlv(0x06, &[ECDSA_WITH_SHA256])]);
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
    let to_be_signed = sequence(&[
        // Version 3, serial number 1.
        &[0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01],
        &algorithm,
        issuer,
        &sequence(&[&time(says.not_before), &time(says.not_after)]),
        subject,
        spki.as_ref(),
        &extensions,
    ]);
    let signature = issuer_key.sign(&SystemRandom::new(), &to_be_signed).unwrap();
    let bits = tlv(0x03, &[&[0], signature.as_ref()]);
    CertificateDer::from(sequence(&[&to_be_signed, &algorithm, &bits]))
}
