//! Who appears in the log? A table of callers, with the rules that fit each of them, bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

use super::event::User;
use crate::identity::{Credential, EXTRA_NODE_NAME, Identity, USER_ANONYMOUS};
use crate::policy::{Policy, RuleSet};

/// Callers that are told apart, at most; a token of each node of a DaemonSet is one.
pub const CALLERS_MAX: usize = 65_536;

/// One caller.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    pub(super) subjects: RuleSet,
    /// Its place among user names, for counting.
    user: u32,
}

/// All callers so far.
#[derive(Debug, Default)]
pub(super) struct Callers {
    hasher: RandomState,
    known: HashMap<u64, Caller>,
    users: HashMap<String, u32>,
    /// The last one beyond the bound: looked at anew each time.
    beyond: Option<Box<Caller>>,
}

/// Counts for all user names that have no place of their own.
pub(super) const OTHERS: u32 = u32::MAX;

impl Callers {
    /// The user's place among user names, and who it is.
    pub(super) fn of(&mut self, user: &User<'_>, policy: &Policy) -> (u32, &Caller) {
        let key = self.hasher.hash_one((&user.username, &user.groups, user.node()));
        let full = self.known.len() >= CALLERS_MAX;
        let next = u32::try_from(self.users.len()).unwrap_or(OTHERS);
        match self.known.entry(key) {
            Entry::Occupied(known) => {
                let caller = known.into_mut();
                (caller.user, caller)
            }
            Entry::Vacant(_) if full => {
                let place = self.users.get(user.username.as_ref()).copied().unwrap_or(OTHERS);
                let caller = self.beyond.insert(Box::new(caller(user, policy, place)));
                (place, caller)
            }
            Entry::Vacant(vacant) => {
                let place = *self.users.entry(user.username.to_string()).or_insert(next);
                let caller = vacant.insert(caller(user, policy, place));
                (place, caller)
            }
        }
    }

    /// Names by place.
    pub(super) fn names(&self) -> HashMap<u32, &str> {
        self.users.iter().map(|(name, place)| (*place, name.as_str())).collect()
    }
}

/// What the log tells about how a caller proved who it is: kube-apiserver believed it, so it was verified.
fn caller(user: &User<'_>, policy: &Policy, place: u32) -> Caller {
    let credential = if user.username == USER_ANONYMOUS || user.username.is_empty() {
        Credential::Anonymous
    } else if user.username.starts_with("system:serviceaccount:") {
        Credential::ServiceAccountToken
    } else {
        Credential::Certificate
    };
    let node = user.node().map(|node| (EXTRA_NODE_NAME.to_owned(), vec![node.to_owned()]));
    let identity = Identity {
        user: user.username.to_string(),
        uid: None,
        groups: user.groups.iter().map(ToString::to_string).collect(),
        extra: node.into_iter().collect(),
        credential,
    };
    Caller { subjects: policy.subjects(&identity), identity, user: place }
}
