//! Which tokens were judged a moment ago?
//!
//! Verifying a signature costs 25 to 60 µs, more than the rest of a request; looking a token up costs one
//! HMAC of it. The table never holds a token, only its HMAC under a key of this process, so that neither a
//! memory image nor a chosen collision is worth anything. Two generations bound it: when the young one is
//! full it becomes the old one and the old one is dropped, and whoever is still asked for moves back to the
//! young one. Only tokens whose signature held get in, so nobody without the cluster's signing key can push
//! others out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::{hmac, rand};
use dashmap::DashMap;
use parking_lot::Mutex;

use super::Caller;

/// Entries of one generation; twice as many at most are held, at well under 1 KiB each. 5,000 nodes with six
/// pods each that talk to the apiserver make 30,000 tokens.
pub(super) const GENERATION_ENTRIES_MAX: usize = 16_384;

/// How long a judgement is used. The apiserver itself trusts its own for 10 s, but it is asked on every
/// request; this only delays the loss of *rank* after a token's expiry was shortened, which cannot happen, or
/// a key was withdrawn.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// How long a token that the apiserver refused stays demoted. Long enough that a loop with a revoked token
/// costs the shared upstream connections one GOAWAY a minute; short enough that a 401 given by a server that
/// was itself in trouble does not cost a node its rank for long.
pub(super) const DEMOTED_FOR: Duration = Duration::from_secs(60);

/// Names a token without being one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey([u8; 32]);

pub(super) enum Found {
    Caller(Arc<Caller>),
    Demoted,
    Nothing,
}

#[derive(Clone)]
struct Judgement {
    /// `None`: demoted.
    caller: Option<Arc<Caller>>,
    until: SystemTime,
}

pub(super) struct Known {
    secret: hmac::Key,
    generations: [DashMap<TokenKey, Judgement>; 2],
    young: AtomicUsize,
    turning: Mutex<()>,
    entries_max: usize,
}

impl Known {
    /// An empty table under a secret of its own; fails only when the system has no random bytes.
    pub(super) fn new() -> Result<Self, &'static str> {
        Self::bounded(GENERATION_ENTRIES_MAX)
    }

    fn bounded(entries_max: usize) -> Result<Self, &'static str> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| "the system gave no random bytes")?;
        Ok(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            generations: [DashMap::new(), DashMap::new()],
            young: AtomicUsize::new(0),
            turning: Mutex::new(()),
            entries_max,
        })
    }

    pub(super) fn key(&self, token: &str) -> TokenKey {
        let tag = hmac::sign(&self.secret, token.as_bytes());
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        TokenKey(key)
    }

    pub(super) fn find(&self, key: &TokenKey, now: SystemTime) -> Found {
        let young = self.young.load(Ordering::Acquire) & 1;
        let mut found = self.generations[young].get(key).map(|entry| entry.value().clone());
        if found.is_none() {
            found = self.generations[1 - young].remove(key).map(|(_, judgement)| judgement);
            if let Some(judgement) = &found {
                self.insert(key.clone(), judgement.clone());
            }
        }
        match found {
            Some(Judgement { until, .. }) if until < now => Found::Nothing,
            Some(Judgement { caller: Some(caller), .. }) => Found::Caller(caller),
            Some(Judgement { caller: None, .. }) => Found::Demoted,
            None => Found::Nothing,
        }
    }

    pub(super) fn remember(
        &self,
        key: TokenKey,
        caller: &Arc<Caller>,
        not_after: SystemTime,
        now: SystemTime,
    ) {
        let until = not_after.min(now + REMEMBERED_FOR);
        self.insert(key, Judgement { caller: Some(Arc::clone(caller)), until });
    }

    /// Forgets every judgement: a key that signed some of them may have been withdrawn.
    pub(super) fn forget(&self) {
        self.generations.iter().for_each(DashMap::clear);
    }

    pub(super) fn demote(&self, key: &TokenKey, now: SystemTime) {
        self.insert(key.clone(), Judgement { caller: None, until: now + DEMOTED_FOR });
    }

    fn insert(&self, key: TokenKey, judgement: Judgement) {
        if self.generations[self.young.load(Ordering::Acquire) & 1].len() >= self.entries_max {
            self.turn();
        }
        self.generations[self.young.load(Ordering::Acquire) & 1].insert(key, judgement);
    }

    /// The young generation becomes the old one. Only one thread turns; the others see the new one or wait a
    /// moment.
    fn turn(&self) {
        let _turning = self.turning.lock();
        let young = self.young.load(Ordering::Acquire) & 1;
        if self.generations[young].len() >= self.entries_max {
            self.generations[1 - young].clear();
            self.young.store(1 - young, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn caller() -> Arc<Caller> {
        Caller::unproven(Identity::anonymous())
    }

    fn held(known: &Known) -> usize {
        known.generations.iter().map(DashMap::len).sum()
    }

    #[test]
    fn a_judgement_is_found_until_the_token_ends_or_five_minutes_pass() {
        let known = Known::new().unwrap();
        let (short, long) = (known.key("short"), known.key("long"));
        known.remember(short.clone(), &caller(), NOW + Duration::from_secs(10), NOW);
        known.remember(long.clone(), &caller(), NOW + Duration::from_secs(3600), NOW);
        assert!(matches!(known.find(&short, NOW + Duration::from_secs(10)), Found::Caller(_)));
        assert!(matches!(known.find(&short, NOW + Duration::from_secs(11)), Found::Nothing));
        assert!(matches!(known.find(&long, NOW + REMEMBERED_FOR), Found::Caller(_)));
        assert!(matches!(known.find(&long, NOW + REMEMBERED_FOR + Duration::from_secs(1)), Found::Nothing));
    }

    #[test]
    fn a_demoted_token_comes_back_after_a_minute() {
        let known = Known::new().unwrap();
        let key = known.key("token");
        known.remember(key.clone(), &caller(), NOW + Duration::from_secs(3600), NOW);
        known.demote(&key, NOW);
        assert!(matches!(known.find(&key, NOW + DEMOTED_FOR), Found::Demoted));
        assert!(matches!(known.find(&key, NOW + DEMOTED_FOR + Duration::from_secs(1)), Found::Nothing));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_still_asked_for() {
        let known = Known::bounded(10).unwrap();
        let busy = known.key("busy");
        known.remember(busy.clone(), &caller(), NOW + REMEMBERED_FOR, NOW);
        for number in 0..1000 {
            let key = known.key(&number.to_string());
            known.remember(key, &caller(), NOW + REMEMBERED_FOR, NOW);
            assert!(matches!(known.find(&busy, NOW), Found::Caller(_)), "after {number}");
            assert!(held(&known) <= 21, "{}", held(&known));
        }
    }

    #[test]
    fn each_process_names_tokens_in_its_own_way() {
        assert_ne!(Known::new().unwrap().key("token"), Known::new().unwrap().key("token"));
    }
}
