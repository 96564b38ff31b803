//! Which break-glass certificates open the lane no more?
//!
//! A text file, one certificate a line by its serial number or fingerprint, the rest of the line being a comment. It
//! is read again when it changes. A line that cannot be understood is reported and does not hide the others; a file
//! that cannot be read leaves the last list in force. Why no CRL: a CRL ends, and a list that has ended while the CA is
//! in a safe would lock everybody out.

use std::collections::HashSet;

/// Certificates of one list: a CA that revokes more should be replaced.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// Bytes of the file: as many entries with a comment each.
pub(super) const FILE_BYTES_MAX: u64 = 2 << 20;

/// The revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    serials: HashSet<String>,
    fingerprints: HashSet<String>,
}

/// A line that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no serial number or fingerprint in hex; the rest of the list is in force")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
}

impl DenyList {
    /// Reads a list, and says which lines are none.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut list, mut bad) = (Self::default(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let added = match normal(word).filter(|_| list.len() < ENTRIES_MAX) {
                Some(Entry::Serial(serial)) => Some((&mut list.serials, serial)),
                Some(Entry::Fingerprint(fingerprint)) => Some((&mut list.fingerprints, fingerprint)),
                None => None,
            };
            match added {
                Some((set, entry)) => {
                    set.insert(entry);
                }
                None => bad.push(BadLine { line: index + 1 }),
            }
        }
        (list, bad)
    }

    /// Whether a certificate is on the list.
    #[must_use]
    pub fn denies(&self, serial: &str, fingerprint: &str) -> bool {
        self.serials.contains(serial) || self.fingerprints.contains(fingerprint)
    }

    /// How many certificates are on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.serials.len() + self.fingerprints.len()
    }

    /// Whether nobody is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

enum Entry {
    Serial(String),
    Fingerprint(String),
}

/// `4F:01`, `0x4f01` and `4f01` are one serial; `X509SHA256=…` is how kube-apiserver's audit log names a certificate.
fn normal(word: &str) -> Option<Entry> {
    const SERIAL_DIGITS_MAX: usize = 42;
    const FINGERPRINT_DIGITS: usize = 64;
    let digits =
        word.trim_start_matches("X509SHA256=").trim_start_matches("0x").replace(':', "").to_ascii_lowercase();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match digits.len() {
        FINGERPRINT_DIGITS => Some(Entry::Fingerprint(digits)),
        0..=SERIAL_DIGITS_MAX => {
            let trimmed = digits.trim_start_matches('0');
            Some(Entry::Serial(if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_serial_denies_it_and_comments_do_not() {
        let text = "# revoked\n4F:01:ab  alice@corp, stolen\n0x00ff\n\nX509SHA256=".to_owned()
            + &"ab".repeat(32)
            + "\n";
        let (list, bad) = DenyList::parse(&text);
        assert_eq!((list.len(), bad.len()), (3, 0));
        assert!(list.denies("4f01ab", "") && list.denies("ff", "") && list.denies("", &"ab".repeat(32)));
        assert!(!list.denies("4f01", ""));
    }

    #[test]
    fn a_bad_line_is_named_and_hides_no_other() {
        let (list, bad) = DenyList::parse("alice@corp\nab\n<<<<<<< HEAD\n");
        assert_eq!(bad, [BadLine { line: 1 }, BadLine { line: 3 }]);
        assert!(list.denies("ab", ""));
    }

    #[test]
    fn a_list_is_bounded() {
        let text: String = (0..ENTRIES_MAX + 5).map(|number| format!("{:x}\n", number + 1)).collect();
        let (list, bad) = DenyList::parse(&text);
        assert_eq!((list.len(), bad.len()), (ENTRIES_MAX, 5));
    }
}
