//! What is a PASETO v4.public token?
//!
//! `v4.public.` + base64url(message and its Ed25519 signature) + `.` + base64url(footer). What is signed is the
//! pre-authentication encoding of header, message, footer and an implicit assertion that both sides know and nobody
//! sends. It is written here, over the Ed25519 that the rest of the program uses and against the official test vectors,
//! because the libraries for it bring a second implementation of every primitive, and the whole format is two functions.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const HEADER: &str = "v4.public.";
const SIGNATURE_BYTES: usize = 64;

/// A token that was taken apart; nothing in it is proven yet.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) message: Vec<u8>,
    pub(super) footer: Vec<u8>,
    signature: Vec<u8>,
}

/// Signs `message`; the footer can be read by everybody and changed by nobody.
pub(super) fn sign(key: &Ed25519KeyPair, message: &[u8], footer: &[u8], implicit: &[u8]) -> String {
    let signature = key.sign(&encode(&[HEADER.as_bytes(), message, footer, implicit]));
    let mut token = HEADER.to_owned();
    token.push_str(&URL_SAFE_NO_PAD.encode([message, signature.as_ref()].concat()));
    if !footer.is_empty() {
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(footer));
    }
    token
}

/// Takes a token apart.
///
/// # Errors
/// When it is none, in words.
pub(super) fn split(token: &str) -> Result<Parts, &'static str> {
    let rest = token.strip_prefix(HEADER).ok_or("it does not begin with v4.public.")?;
    let mut parts = rest.split('.');
    let (body, footer) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if parts.next().is_some() {
        return Err("it has more than four parts");
    }
    let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| "it is not base64url; was it copied whole?");
    let (mut message, footer) = (decode(body)?, decode(footer)?);
    let split = message.len().checked_sub(SIGNATURE_BYTES).ok_or("it is too short; was it copied whole?")?;
    let signature = message.split_off(split);
    Ok(Parts { message, footer, signature })
}

impl Parts {
    /// Whether the owner of this Ed25519 key signed it.
    pub(super) fn is_signed_by(&self, public_key: &[u8], implicit: &[u8]) -> bool {
        let signed = encode(&[HEADER.as_bytes(), &self.message, &self.footer, implicit]);
        UnparsedPublicKey::new(&ED25519, public_key).verify(&signed, &self.signature).is_ok()
    }
}

/// The pre-authentication encoding: no two lists of pieces have the same.
fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut bytes = (pieces.len() as u64).to_le_bytes().to_vec();
    for piece in pieces {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    /// The official vectors 4-S-1 to 4-S-3 sign one message with one key.
    const SEED: [u8; 32] = [
        0xb4, 0xcb, 0xfb, 0x43, 0xdf, 0x4c, 0xe2, 0x10, 0x72, 0x7d, 0x95, 0x3e, 0x4a, 0x71, 0x33, 0x07, 0xfa,
        0x19, 0xbb, 0x7d, 0x9f, 0x85, 0x04, 0x14, 0x38, 0xd9, 0xe1, 0x1b, 0x94, 0x2a, 0x37, 0x74,
    ];
    const MESSAGE: &str = r#"{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}"#;
    const FOOTER: &str = r#"{"kid":"zVhMiPBP9fRf2snEcT7gFTioeA9COcNy9DfgL1W60haN"}"#;
    const VECTORS: [(&str, &str, &str); 3] = [
        (
            "",
            "",
            "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9bg_XBBzds8lTZShVlwwKSgeKpLT3yukTw6JUz3W4h_ExsQV-P0V54zemZDcAxFaSeef1QlXEFtkqxT1ciiQEDA",
        ),
        (
            FOOTER,
            "",
            "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214HDw.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9",
        ),
        (
            FOOTER,
            r#"{"test-vector":"4-S-3"}"#,
            "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9NPWciuD3d0o5eXJXG5pJy-DiVEoyPYWs1YSTwWHNJq6DZD3je5gf-0M4JR9ipdUSJbIovzmBECeaWmaqcaP0DQ.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9",
        ),
    ];

    #[test]
    fn the_official_vectors_are_met_both_ways() {
        let key = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
        for (footer, implicit, token) in VECTORS {
            assert_eq!(sign(&key, MESSAGE.as_bytes(), footer.as_bytes(), implicit.as_bytes()), token);
            let parts = split(token).unwrap();
            assert_eq!(
                (parts.message.as_slice(), parts.footer.as_slice()),
                (MESSAGE.as_bytes(), footer.as_bytes())
            );
            assert!(parts.is_signed_by(key.public_key().as_ref(), implicit.as_bytes()));
            assert!(!parts.is_signed_by(key.public_key().as_ref(), b"another purpose"));
        }
    }

    #[test]
    fn pieces_cannot_be_moved_into_each_other() {
        assert_ne!(encode(&[b"ab", b"c"]), encode(&[b"a", b"bc"]));
        assert_eq!(encode(&[]), [0; 8]);
        assert_eq!(encode(&[b""]), [[1, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat());
    }
}
