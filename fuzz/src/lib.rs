//! What must hold for any input? One module a target, each with one function `run(input)` that panics when it does not.
//!
//! cargo-fuzz calls them with inputs it invents (`make fuzz`); `make test` calls them with the inputs in `corpus/`, on
//! stable Rust and without a fuzzer (`tests/it/fuzz.rs`). So whatever a fuzzer once found stays found.

// Two crates share these modules, and say what they expected by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::must_use_candidate)]
#![allow(unreachable_pub, missing_docs, dead_code)]

pub mod bearer;
pub mod certificate;
pub mod config;
pub mod headers;
pub mod policy;
pub mod query;
pub mod request_info;
pub mod scheduler;
pub mod state;
pub mod token;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("bearer", bearer::run),
    ("certificate", certificate::run),
    ("config", config::run),
    ("headers", headers::run),
    ("policy", policy::run),
    ("query", query::run),
    ("request_info", request_info::run),
    ("scheduler", scheduler::run),
    ("state", state::run),
    ("token", token::run),
];

/// Choices drawn from the input; zeros once it is used up.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 1
    }

    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// Lines `name: value` as headers. What hyper would refuse is left out.
pub fn header_lines(input: &[u8]) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// `%XX` for every byte.
pub fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Undoes percent escapes; `None` where two digits do not follow.
pub fn unescaped(text: &[u8], plus: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let digits = std::str::from_utf8(text.get(at + 1..at + 3)?).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            b'+' => bytes.push(plus),
            other => bytes.push(other),
        }
        at += 1;
    }
    Some(bytes)
}
