//! Which certificates no longer count, although a CA has signed them?
//!
//! Kubernetes has no revocation: a stolen certificate is good until it expires. A list here takes the rank from it, and
//! the way through this proxy. One certificate a line, by SHA-256 of its DER form (`openssl x509 -fingerprint -sha256`) or
//! by serial number (`openssl x509 -serial`), both in hexadecimal digits, with or without colons; `#` begins a comment.
//! A serial number is at most 20 bytes long and a fingerprint is 32, so the two cannot be confused. A serial number
//! counts whichever CA of the bundle has given it: refusing one too many is the safer mistake.

use std::collections::HashSet;

use super::{Material, MaterialError};

/// Certificates on the list. More is a CA to be replaced, not a list.
pub const DENIED_MAX: usize = 10_000;

const FINGERPRINT_BYTES: usize = 32;
const SERIAL_BYTES_MAX: usize = 20;

/// The list is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    /// The file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// A line is neither of the two.
    #[error(
        "line {line} of {origin} is neither a SHA-256 fingerprint (64 hexadecimal digits) nor a serial number (2 to 40)"
    )]
    Line {
        /// File name.
        origin: String,
        /// From 1.
        line: usize,
    },
    /// More than [`DENIED_MAX`] lines.
    #[error("{origin} names more than {DENIED_MAX} certificates; replace the CA that signed them")]
    TooMany {
        /// File name.
        origin: String,
    },
}

/// Certificates that prove nothing.
#[derive(Debug, Default)]
pub(super) struct Denied {
    fingerprints: HashSet<[u8; FINGERPRINT_BYTES]>,
    /// Without leading zeros.
    serials: HashSet<Vec<u8>>,
}

impl Denied {
    pub(super) fn read(source: &Material) -> Result<Self, DenyError> {
        let origin = source.to_string();
        let bytes = source.read("the list of denied certificates")?;
        let text = String::from_utf8_lossy(&bytes);
        let mut denied = Self::default();
        for (at, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let wrong = || DenyError::Line { origin: origin.clone(), line: at + 1 };
            let bytes = from_hex(entry).ok_or_else(wrong)?;
            if let Ok(fingerprint) = <[u8; FINGERPRINT_BYTES]>::try_from(bytes.as_slice()) {
                denied.fingerprints.insert(fingerprint);
            } else if bytes.len() <= SERIAL_BYTES_MAX {
                denied.serials.insert(without_zeros(&bytes).to_vec());
            } else {
                return Err(wrong());
            }
            if denied.fingerprints.len() + denied.serials.len() > DENIED_MAX {
                return Err(DenyError::TooMany { origin });
            }
        }
        Ok(denied)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fingerprints.is_empty() && self.serials.is_empty()
    }

    pub(super) fn contains(&self, fingerprint: &[u8], serial: &[u8]) -> bool {
        <[u8; FINGERPRINT_BYTES]>::try_from(fingerprint).is_ok_and(|whole| self.fingerprints.contains(&whole))
            || self.serials.contains(without_zeros(serial))
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[begin..]
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() >= 2 && digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Denied, DenyError> {
        Denied::read(&Material::Bytes(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_line_is_a_fingerprint_or_a_serial_number() {
        let fingerprint = "AB:".repeat(31) + "cd";
        let denied = read(&format!("# stolen\n\n{fingerprint}  # alice\n00ff01\n")).unwrap();
        let mut whole = [0xab; 32];
        whole[31] = 0xcd;
        assert!(denied.contains(&whole, &[9]));
        assert!(denied.contains(&[0; 32], &[0xff, 0x01]), "leading zeros do not count");
        assert!(!denied.contains(&[0; 32], &[0xff]));
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_neither_names_itself() {
        for text in
            ["ab\nxyz", "ab\nabc", &format!("ab\n{}", "ab".repeat(21)), &format!("ab\n{}", "ab".repeat(33))]
        {
            let error = read(text).unwrap_err();
            assert!(matches!(error, DenyError::Line { line: 2, .. }), "{text}: {error}");
        }
        let many: String = (0..=DENIED_MAX).map(|number| format!("{number:08x}\n")).collect();
        assert!(matches!(read(&many), Err(DenyError::TooMany { .. })));
    }
}
