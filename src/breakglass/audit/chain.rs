//! How is a line of the audit log bound to all lines before it?
//!
//! Each line is one JSON object with its number, the hash of the line before it and, last, its own hash: SHA-256 over
//! the hash before and over every byte of the line in front of the hash. So a changed, missing or moved line does not
//! fit between its neighbours. Hashes bind lines to each other but to nobody: an Ed25519 signature over a hash (a
//! checkpoint in the log, and the head beside it) shows that this proxy wrote them.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::shown::hex;

/// The hash before the first line.
pub(super) const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const HASH_MARK: &str = ",\"hash\":\"";
const HASH_DIGITS: usize = 64;
const END: &str = "\"}";

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the last line; 0 before the first.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: String,
}

impl Default for Place {
    fn default() -> Self {
        Self { seq: 0, hash: ORIGIN.to_owned() }
    }
}

/// A line that was read.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) hash: String,
    pub(super) facts: Map<String, Value>,
}

impl Place {
    /// The next line, without its line feed, and where the chain stands behind it.
    pub(super) fn append(&self, mut facts: Map<String, Value>) -> (Self, String) {
        let seq = self.seq + 1;
        facts.insert("seq".to_owned(), seq.into());
        facts.insert("prev".to_owned(), self.hash.as_str().into());
        let mut line = Value::Object(facts).to_string();
        // The closing brace moves behind the hash.
        line.pop();
        let hash = hash_of(&self.hash, line.as_bytes());
        line.push_str(HASH_MARK);
        line.push_str(&hash);
        line.push_str(END);
        (Self { seq, hash }, line)
    }
}

/// Reads a line and proves that its hash is its own.
pub(super) fn read(line: &[u8]) -> Result<Line, &'static str> {
    let tail = HASH_MARK.len() + HASH_DIGITS + END.len();
    let split = line.len().checked_sub(tail).ok_or("it is too short to be a record")?;
    let (body, rest) = line.split_at(split);
    let digits = rest
        .strip_prefix(HASH_MARK.as_bytes())
        .and_then(|rest| rest.strip_suffix(END.as_bytes()))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .ok_or("it does not end in a hash")?;
    let mut object = body.to_vec();
    object.push(b'}');
    let facts: Map<String, Value> = serde_json::from_slice(&object).map_err(|_| "it is no JSON object")?;
    let prev = facts.get("prev").and_then(Value::as_str).ok_or("it does not say what comes before it")?;
    let seq = facts.get("seq").and_then(Value::as_u64).ok_or("it has no number")?;
    if hash_of(prev, body) != digits {
        return Err("its hash does not fit: the line was changed");
    }
    Ok(Line { seq, prev: prev.to_owned(), hash: digits.to_owned(), facts })
}

fn hash_of(prev: &str, body: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prev.as_bytes());
    context.update(body);
    hex(context.finish().as_ref())
}

/// What is signed: the kind keeps a checkpoint from being used as a head.
fn message(kind: &str, seq: u64, hash: &str) -> String {
    format!("spillway-audit-{kind}:{seq}:{hash}")
}

/// A signature, base64.
pub(super) fn sign(key: &Ed25519KeyPair, kind: &str, seq: u64, hash: &str) -> String {
    STANDARD.encode(key.sign(message(kind, seq, hash).as_bytes()))
}

/// Whether `signature` is one of the key's.
pub(super) fn is_signed(public_key: &[u8], kind: &str, seq: u64, hash: &str, signature: &str) -> bool {
    STANDARD.decode(signature).is_ok_and(|signature| {
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(message(kind, seq, hash).as_bytes(), &signature)
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bound_to_the_line_before_it() {
        let facts = |word: &str| Map::from_iter([("event".to_owned(), Value::from(word))]);
        let (first, line) = Place::default().append(facts("start"));
        let read_back = read(line.as_bytes()).unwrap();
        assert_eq!((read_back.seq, read_back.prev.as_str()), (1, ORIGIN));
        assert_eq!(read_back.hash, first.hash);
        let (_, line) = first.append(facts("use"));
        assert_eq!(read(line.as_bytes()).unwrap().prev, first.hash);
    }
}
