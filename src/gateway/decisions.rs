//! Which requests were refused lately, and what stood beside each refusal?
//!
//! For `spillway explain`: a client reads an id in its refusal, and whoever it calls wants to know why. Only refusals are
//! kept; a request that goes on touches nothing here but one flag. What clients can cause at will (401 and 400) has a ring
//! of its own, so that a flood of it cannot push out what people ask for. The last refusal of each client is kept
//! longer: in a storm the ring is seconds long, and the quiet client's only refusal is the one that is asked for.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::authn::Caller;
use crate::flow::{Numbers, Reason};
use crate::policy::{ClientKey, Lane, Policy, RuleIndex};

/// Refusals that are kept; the oldest goes first. At most 6 MiB.
pub const DECISIONS_MAX: usize = 4_096;
/// Requests that were not understood or not authenticated, and failures, that are kept.
pub const FAILURES_MAX: usize = 512;
/// Clients whose last refusal is kept beyond that; the one that was refused longest ago goes first.
pub const LAST_MAX: usize = 1_024;
/// Bytes of a path with its query that are kept.
const TARGET_BYTES_MAX: usize = 512;
/// Bytes of a user agent that are kept.
const AGENT_BYTES_MAX: usize = 128;

/// One refusal, and what is needed to explain it.
#[derive(Debug)]
pub struct Refusal {
    /// The audit id; its first eight digits are the decision's id.
    pub audit_id: String,
    /// When the request arrived.
    pub at: SystemTime,
    /// Who asked, where that was found out.
    pub caller: Option<Arc<Caller>>,
    /// From where.
    pub peer: IpAddr,
    /// HTTP method.
    pub method: String,
    /// Path and query as sent, perhaps cut.
    pub target: String,
    /// As sent, perhaps cut.
    pub user_agent: Option<String>,
    /// It asked to act as somebody else.
    pub impersonates: bool,
    /// The lane it was in when it was refused; a penalty makes that telemetry.
    pub lane: Lane,
    /// The policy that was in force, and what chose the lane.
    pub rule: Option<(Arc<Policy>, RuleIndex)>,
    /// Why.
    pub reason: Reason,
    /// Whether spillway's own rules refused it; else it could not be understood, authenticated or forwarded.
    pub is_refusal: bool,
    /// Status that was told.
    pub status: u16,
    /// When it may come back.
    pub retry_after_seconds: Option<u32>,
    /// How long it waited in a queue, in milliseconds, and how long its answer was kept back.
    pub waited_ms: u64,
    /// See `waited_ms`.
    pub held_ms: u64,
    /// The lane at that moment, where the scheduler refused.
    pub numbers: Option<Numbers>,
    /// What the client was told of a lever.
    pub lever: Option<String>,
    /// It came through the break-glass listener.
    pub is_break_glass: bool,
}

impl Refusal {
    /// The id that the client reads.
    #[must_use]
    pub fn id(&self) -> &str {
        self.audit_id.split('-').next().unwrap_or_default()
    }
}

/// The refusals of one process.
#[derive(Debug, Default)]
pub struct Decisions {
    kept: Mutex<Kept>,
    /// Not kept, because the lock was taken: only the break-glass lane, which waits for nobody.
    missed: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    refusals: VecDeque<Arc<Refusal>>,
    failures: VecDeque<Arc<Refusal>>,
    last: HashMap<ClientKey, (u64, Arc<Refusal>)>,
    number: u64,
}

impl Kept {
    fn keep(&mut self, client: Option<ClientKey>, refusal: Arc<Refusal>) {
        self.number += 1;
        if let Some(client) = client.filter(|_| refusal.is_refusal) {
            if self.last.len() >= LAST_MAX && !self.last.contains_key(&client) {
                self.forget_oldest();
            }
            self.last.insert(client, (self.number, Arc::clone(&refusal)));
        }
        let (ring, most) = match refusal.is_refusal {
            true => (&mut self.refusals, DECISIONS_MAX),
            false => (&mut self.failures, FAILURES_MAX),
        };
        if ring.len() >= most {
            ring.pop_front();
        }
        ring.push_back(refusal);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.last.iter().min_by_key(|(_, (number, _))| *number).map(|(client, _)| *client);
        if let Some(oldest) = oldest {
            self.last.remove(&oldest);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Refusal>> {
        let last = self.last.values().map(|(_, refusal)| refusal);
        self.refusals.iter().rev().chain(self.failures.iter().rev()).chain(last)
    }
}

/// How many are kept, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Refusals in the ring.
    pub kept: usize,
    /// All refusals since the start.
    pub ever: u64,
    /// The oldest one in the ring.
    pub since: Option<SystemTime>,
}

impl Decisions {
    /// Keeps one. `client` where its identity is known.
    pub fn keep(&self, client: Option<ClientKey>, refusal: Refusal) {
        let refusal = Arc::new(refusal);
        if refusal.is_break_glass {
            // That lane shares no lock that it would have to wait for.
            match self.kept.try_lock() {
                Some(mut kept) => kept.keep(client, refusal),
                None => _ = self.missed.fetch_add(1, Ordering::Relaxed),
            }
            return;
        }
        self.kept.lock().keep(client, refusal);
    }

    /// The refusal with this id: the eight digits that a client reads, or the whole audit id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Refusal>> {
        let kept = self.kept.lock();
        kept.all().find(|refusal| refusal.audit_id == id || refusal.id() == id).map(Arc::clone)
    }

    /// The latest refusals, the newest first; only those of `user` where one is named.
    #[must_use]
    pub fn latest(&self, user: Option<&str>, most: usize) -> Vec<Arc<Refusal>> {
        let kept = self.kept.lock();
        let of_user = |refusal: &&Arc<Refusal>| {
            user.is_none_or(|user| refusal.caller.as_ref().is_some_and(|caller| caller.identity.user == user))
        };
        let mut found: Vec<Arc<Refusal>> = kept.all().filter(of_user).map(Arc::clone).collect();
        drop(kept);
        found.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| one.audit_id.cmp(&other.audit_id)));
        found.dedup_by(|one, other| Arc::ptr_eq(one, other));
        found.truncate(most);
        found
    }

    /// How far back it reaches.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let kept = self.kept.lock();
        Extent {
            kept: kept.refusals.len() + kept.failures.len(),
            ever: kept.number,
            since: kept.refusals.front().map(|refusal| refusal.at),
        }
    }
}

/// A target as it is kept.
pub(super) fn target(text: &str) -> String {
    cut(text, TARGET_BYTES_MAX)
}

/// A user agent as it is kept.
pub(super) fn user_agent(text: &str) -> String {
    cut(text, AGENT_BYTES_MAX)
}

fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn refusal(number: u64, is_refusal: bool) -> Refusal {
        Refusal {
            audit_id: format!("{number:08x}-0000-4000-8000-000000000000"),
            at: UNIX_EPOCH + Duration::from_secs(number),
            caller: None,
            peer: IpAddr::from([10, 0, 0, 1]),
            method: "GET".into(),
            target: "/api/v1/pods".into(),
            user_agent: None,
            impersonates: false,
            lane: Lane::Telemetry,
            rule: None,
            reason: Reason::IdentityRate,
            is_refusal,
            status: 429,
            retry_after_seconds: Some(3),
            waited_ms: 0,
            held_ms: 0,
            numbers: None,
            lever: None,
            is_break_glass: false,
        }
    }

    #[test]
    fn the_rings_are_bounded_and_a_quiet_client_is_found_after_a_storm() {
        let decisions = Decisions::default();
        decisions.keep(Some(ClientKey(1)), refusal(7, true));
        for number in 100..100 + 2 * DECISIONS_MAX as u64 {
            decisions.keep(Some(ClientKey(2)), refusal(number, true));
            decisions.keep(None, refusal(1_000_000 + number, false));
        }
        assert!(decisions.find("00000007").is_some(), "the storm has not pushed out the quiet client's");
        assert!(decisions.find("00000064").is_none(), "the storm's own first one is gone");
        let extent = decisions.extent();
        assert_eq!((extent.kept, extent.ever), (DECISIONS_MAX + FAILURES_MAX, 1 + 4 * DECISIONS_MAX as u64));
        assert_eq!(decisions.latest(None, 9).len(), 9);
        for client in 10..10 + 2 * LAST_MAX as u64 {
            decisions.keep(Some(ClientKey(client)), refusal(client, true));
        }
        assert_eq!(decisions.kept.lock().last.len(), LAST_MAX);
    }

    #[test]
    fn an_id_is_found_short_and_whole() {
        let decisions = Decisions::default();
        decisions.keep(None, refusal(0xabc, true));
        for id in ["00000abc", "00000abc-0000-4000-8000-000000000000"] {
            assert_eq!(decisions.find(id).map(|found| found.reason), Some(Reason::IdentityRate), "{id}");
        }
        assert!(decisions.find("0000").is_none(), "a part of an id is no id");
    }

    #[test]
    fn what_is_kept_of_a_request_is_cut_between_characters() {
        assert_eq!(target(&"ä".repeat(400)).len(), 512);
        assert_eq!(user_agent("kubectl"), "kubectl");
    }
}
