//! How do thousands of pods get into the cluster in a second, without a storm of their own? One is created through
//! kube-apiserver; its stored form is copied within etcd, with names of equal length written over it.
//!
//! kube-apiserver sees the copies as it sees anybody's pods: by watching etcd. The protocol is etcd's JSON gateway.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::objects::DIFFERENT;

/// Operations in one transaction: etcd's default limit.
const TRANSACTION: usize = 128;

/// The stored form of one object, and what in it is to be written over.
pub(crate) struct Template {
    value: Vec<u8>,
}

pub(crate) struct Etcd {
    address: SocketAddr,
}

impl Etcd {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The object below `key`.
    pub(crate) fn template(&self, key: &str) -> Template {
        let found = self.ask("range", &json!({"key": encode(key.as_bytes())}));
        let value = found["kvs"][0]["value"].as_str().unwrap_or_else(|| panic!("no {key} in etcd: {found}"));
        Template { value: STANDARD.decode(value).expect("etcd answers in base64") }
    }

    /// Stores a copy of `template` for each of `numbers`: `key` and the texts to write over, old and new, of the same
    /// length, come from the number.
    pub(crate) fn copy(
        &self,
        template: &Template,
        numbers: Range<usize>,
        key: impl Fn(usize) -> String,
        texts: impl Fn(usize) -> Vec<(String, String)>,
    ) {
        let numbers: Vec<usize> = numbers.collect();
        for part in numbers.chunks(TRANSACTION) {
            let puts = part.iter().map(|&number| {
                let mut value = template.value.clone();
                for (old, new) in texts(number) {
                    overwrite(&mut value, old.as_bytes(), || new.clone().into_bytes());
                }
                let mut seed = number as u64;
                overwrite(&mut value, DIFFERENT.as_bytes(), || next_text(&mut seed).into_bytes());
                json!({"requestPut": {"key": encode(key(number).as_bytes()), "value": encode(&value)}})
            });
            let done = self.ask("txn", &json!({"success": puts.collect::<Vec<_>>()}));
            assert_eq!(done["succeeded"], true, "expected etcd to store pods, but {done}");
        }
    }

    /// Removes everything from key `from` to before key `to`.
    pub(crate) fn remove(&self, from: &str, to: &str) {
        self.ask("deleterange", &json!({"key": encode(from.as_bytes()), "range_end": encode(to.as_bytes())}));
    }

    /// HTTP/1.0, so that the answer ends with the connection and needs no framing.
    fn ask(&self, call: &str, body: &Value) -> Value {
        let body = body.to_string();
        let head = format!(
            "POST /v3/kv/{call} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).expect("etcd takes a connection");
        socket
            .write_all(head.as_bytes())
            .and_then(|()| socket.write_all(body.as_bytes()))
            .expect("etcd reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("etcd answers");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.split_whitespace().nth(1) == Some("200"), "expected etcd to {call}, but {answer}");
        serde_json::from_str(body).expect("etcd answers in JSON")
    }
}

fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Writes a `new` over every `old`; the lengths around it in the stored form stay true because theirs are equal.
fn overwrite(value: &mut [u8], old: &[u8], mut new: impl FnMut() -> Vec<u8>) {
    let mut at = 0;
    while at + old.len() <= value.len() {
        if &value[at..at + old.len()] == old {
            let new = new();
            assert_eq!(old.len(), new.len(), "a copy has texts of the same length");
            value[at..at + old.len()].copy_from_slice(&new);
            at += old.len();
        } else {
            at += 1;
        }
    }
}

/// The next 16 characters of a sequence that depends on the seed alone (SplitMix64).
fn next_text(seed: &mut u64) -> String {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_written_over_and_nothing_else() {
        let mut value = b"pod-00 is pod-00 of pod-0".to_vec();
        overwrite(&mut value, b"pod-00", || b"pod-17".to_vec());
        assert_eq!(value, b"pod-17 is pod-17 of pod-0");
    }
}
