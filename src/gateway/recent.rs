//! Who was here lately, in which lane, and how much of it was refused?
//!
//! What a person sees before pulling a lever on somebody. Only verified callers have an entry of their own; all others
//! share one, as they share their rank. A caller finds its entry once, when its rules are resolved, and counts through
//! it without a lock; the table itself is only locked for newcomers and readers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::newcomers::Marks;
use crate::clock;
use crate::identity::Identity;
use crate::policy::{ClientKey, Lane};
use crate::units::Instant;

/// Clients that are kept; a newcomer takes the place of the one that was silent longest.
pub const CLIENTS_MAX: usize = 2_048;
/// Groups and addresses of one client that are kept.
const GROUPS_MAX: usize = 32;
const PEERS_MAX: usize = 16;
/// Bytes of a group that is kept: longer ones cannot be named by a lever.
const GROUP_BYTES_MAX: usize = 341;

/// One client: an identity, wherever it runs.
#[derive(Debug)]
pub struct Client {
    /// Who it is, with its first groups.
    pub identity: Identity,
    peers: Mutex<Vec<IpAddr>>,
    /// The first of them, in one word: most requests come from where the last one came from.
    peer: AtomicU64,
    /// Bit by lane, of all lanes its requests were in.
    lanes: AtomicU8,
    answered: AtomicU64,
    refused: AtomicU64,
    seen: AtomicU64,
    /// Its programs that are known ([`super::newcomers`]).
    pub(super) acquainted: Marks,
}

/// What a client did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that the apiserver answered.
    pub answered: u64,
    /// Requests that spillway answered itself.
    pub refused: u64,
}

impl Client {
    fn new(identity: &Identity) -> Self {
        let mut identity = identity.clone();
        identity.groups.retain(|group| group.len() <= GROUP_BYTES_MAX);
        identity.groups.truncate(GROUPS_MAX);
        identity.extra.clear();
        Self {
            identity,
            peers: Mutex::default(),
            peer: AtomicU64::new(0),
            lanes: AtomicU8::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            seen: AtomicU64::new(clock::now().as_nanos()),
            acquainted: Marks::default(),
        }
    }

    /// One request of this client was answered.
    pub(super) fn count(&self, lane: Lane, was_refused: bool, now: Instant) {
        let counter = if was_refused { &self.refused } else { &self.answered };
        counter.fetch_add(1, Ordering::Relaxed);
        self.lanes.fetch_or(1 << lane.index(), Ordering::Relaxed);
        self.seen.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            answered: self.answered.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// The lanes of its requests, highest first.
    #[must_use]
    pub fn lanes(&self) -> Vec<Lane> {
        let lanes = self.lanes.load(Ordering::Relaxed);
        Lane::ALL.into_iter().filter(|lane| lanes & (1 << lane.index()) != 0).collect()
    }

    /// When it was last answered.
    #[must_use]
    pub fn seen(&self) -> Instant {
        Instant::from_nanos(self.seen.load(Ordering::Relaxed))
    }

    /// Where it connected from, the latest first.
    #[must_use]
    pub fn peers(&self) -> Vec<IpAddr> {
        self.peers.lock().clone()
    }

    /// Notes where it comes from.
    pub(super) fn came_from(&self, peer: IpAddr) {
        let peer = peer.to_canonical();
        let word = match peer {
            IpAddr::V4(peer) => u64::from(u32::from(peer)) | 1 << 32,
            IpAddr::V6(peer) => {
                let number = u128::from(peer);
                (number >> 64) as u64 ^ number as u64
            }
        };
        if self.peer.swap(word, Ordering::Relaxed) == word {
            return;
        }
        let mut peers = self.peers.lock();
        peers.retain(|known| *known != peer);
        peers.truncate(PEERS_MAX - 1);
        peers.insert(0, peer);
    }
}

/// The clients of one process.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<ClientKey, Arc<Client>>>);

impl Recent {
    /// The entry of a client that connects from `peer`, made if it is new.
    pub fn learn(&self, key: ClientKey, identity: &Identity, peer: IpAddr) -> Arc<Client> {
        let mut clients = self.0.lock();
        let client = match clients.get(&key) {
            Some(client) => Arc::clone(client),
            None => {
                if clients.len() >= CLIENTS_MAX
                    && let Some(silent) =
                        clients.iter().min_by_key(|(_, client)| client.seen()).map(|(key, _)| *key)
                {
                    clients.remove(&silent);
                }
                let client = Arc::new(Client::new(identity));
                clients.insert(key, Arc::clone(&client));
                client
            }
        };
        drop(clients);
        client.came_from(peer);
        client
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<(ClientKey, Arc<Client>)> {
        self.0.lock().iter().map(|(key, client)| (*key, Arc::clone(client))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_table_is_bounded_and_forgets_the_most_silent() {
        let recent = Recent::default();
        let identity = Identity::anonymous();
        let peer = IpAddr::from([10, 0, 0, 1]);
        let busy = recent.learn(ClientKey(0), &identity, peer);
        for key in 1..=CLIENTS_MAX as u64 {
            busy.count(Lane::Workload, false, clock::now() + Duration::from_secs(1));
            recent.learn(ClientKey(key), &identity, peer);
        }
        let all = recent.all();
        assert_eq!(all.len(), CLIENTS_MAX);
        assert!(all.iter().any(|(key, _)| *key == ClientKey(0)), "who is busy stays");
    }

    #[test]
    fn a_client_is_one_entry_with_its_latest_addresses_first() {
        let recent = Recent::default();
        let identity = Identity::anonymous();
        for host in [1, 2, 1, 3] {
            recent.learn(ClientKey(7), &identity, IpAddr::from([10, 0, 0, host]));
        }
        (4..99).for_each(|host| _ = recent.learn(ClientKey(7), &identity, IpAddr::from([10, 0, 1, host])));
        let client = recent.learn(ClientKey(7), &identity, "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(client.peers()[0], IpAddr::from([10, 0, 0, 1]));
        assert_eq!((recent.all().len(), client.peers().len()), (1, PEERS_MAX));
        client.count(Lane::Telemetry, true, clock::now());
        client.count(Lane::Unknown, false, clock::now());
        assert_eq!(client.counts(), Counts { answered: 1, refused: 1 });
        assert_eq!(client.lanes(), [Lane::Unknown, Lane::Telemetry]);
    }
}
