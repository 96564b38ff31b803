//! Does a secret that the tests handed out turn up where it must not?
//!
//! Every private key and token that this process makes is a canary. Whatever a spillway wrote for people (log, metrics,
//! status page) is searched for all of them when it is stopped, so that each test of the suite is a test of this, too.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Shorter pieces could turn up by chance.
const PIECE_BYTES_MIN: usize = 24;

fn secrets() -> MutexGuard<'static, BTreeSet<String>> {
    SECRETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token: whole, and each of its parts but the first, which only names an algorithm.
pub(crate) fn token(token: &str) {
    let parts = token.split('.').skip(1).chain([token]);
    secrets().extend(parts.filter(|part| part.len() >= PIECE_BYTES_MIN).map(str::to_owned));
}

/// A private key in PEM: each of its lines.
pub(crate) fn key(pem: &str) {
    let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= PIECE_BYTES_MIN);
    secrets().extend(lines.map(str::to_owned));
}

/// Panics when `text`, called `what`, holds one. The secret itself is not repeated.
pub(crate) fn search(what: &str, text: &str) {
    for secret in &*secrets() {
        if let Some(at) = text.find(secret.as_str()) {
            let line = text[..at].lines().count();
            panic!("a secret of {} bytes stands in {what}, line {line}", secret.len());
        }
    }
}

/// How many pieces are known.
pub(crate) fn known() -> usize {
    secrets().len()
}
