//! How much does one client use of a lane?
//!
//! Counts per (lane, client) what is in flight and what waits, so that one client cannot fill a contended lane: a
//! mislabelled DaemonSet must not become "critical" by its mass. An entry lives while the client has a request
//! in flight or waiting, so the table is bounded by the tickets.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::random::mix;
use crate::policy::Lane;
use crate::units::Seats;

/// What one client has in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientUse {
    pub(super) seats: u32,
    pub(super) waiting: u32,
}

/// The keys are hashes already: hashing them again would only cost time. Iteration order is never used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only u64 keys are used; anything else still gets a valid, if slow, hash.
        self.0 = bytes.iter().fold(self.0, |hash, &byte| mix(hash ^ u64::from(byte)));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map from hashes.
pub(super) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Ready>>;

/// What every client with requests has.
#[derive(Debug)]
pub(super) struct Clients(HashedMap<ClientUse>);

impl Clients {
    pub(super) fn new() -> Self {
        // Room for an ordinary number of clients at once: growing is rare and amortised.
        Self(HashMap::with_capacity_and_hasher(4096, BuildHasherDefault::default()))
    }

    pub(super) fn of(&self, lane: Lane, client: u64) -> ClientUse {
        self.0.get(&key(lane, client)).copied().unwrap_or_default()
    }

    pub(super) fn take(&mut self, lane: Lane, client: u64, seats: Seats) {
        self.0.entry(key(lane, client)).or_default().seats += seats.0;
    }

    pub(super) fn wait(&mut self, lane: Lane, client: u64) {
        self.0.entry(key(lane, client)).or_default().waiting += 1;
    }

    pub(super) fn give_back(&mut self, lane: Lane, client: u64, seats: Seats) {
        self.change(lane, client, |entry| entry.seats = entry.seats.saturating_sub(seats.0));
    }

    pub(super) fn stop_waiting(&mut self, lane: Lane, client: u64) {
        self.change(lane, client, |entry| entry.waiting = entry.waiting.saturating_sub(1));
    }

    fn change(&mut self, lane: Lane, client: u64, change: impl FnOnce(&mut ClientUse)) {
        let key = key(lane, client);
        let Some(entry) = self.0.get_mut(&key) else { return };
        change(entry);
        if *entry == ClientUse::default() {
            self.0.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(lane: Lane, client: u64) -> u64 {
    mix(client ^ ((lane as u64) << 56))
}
