//! How many connections may be open, how many from one source, and how many of one user?
//!
//! A place is taken before the handshake and given back on drop. The tables of sources and users hold only those
//! with open connections, so the cap on connections bounds them too. An IPv6 source is its /64: one host owns
//! all of that. A user is known once its certificate is verified; its place hangs on the connection's. Callers with
//! tokens show them per request, and one user of a DaemonSet is on every node: their source's cap holds for them.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::settings::Limits;

/// The places of one listener.
pub(super) struct Places {
    max: usize,
    max_per_source: usize,
    taken: AtomicUsize,
    sources: DashMap<IpAddr, usize>,
    max_per_user: usize,
    users: DashMap<Arc<str>, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Source,
    Offender,
}

/// The right to one open connection.
pub(super) struct Place {
    places: Arc<Places>,
    source: IpAddr,
    user: Option<Arc<str>>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.connections,
            max_per_source: limits.connections_per_source,
            taken: AtomicUsize::new(0),
            sources: DashMap::new(),
            max_per_user: limits.connections_per_user,
            users: DashMap::new(),
        })
    }

    /// How many connections a source holds.
    pub(super) fn held(&self, peer: IpAddr) -> usize {
        self.sources.get(&source(peer)).map_or(0, |held| *held)
    }

    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, NoPlace> {
        let source = source(peer);
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::Full);
        }
        let mut held = self.sources.entry(source).or_insert(0);
        if *held >= self.max_per_source {
            drop(held);
            self.taken.fetch_sub(1, Ordering::Relaxed);
            // With a limit of zero the entry is new and would stay.
            self.sources.remove_if(&source, |_, held| *held == 0);
            return Err(NoPlace::Source);
        }
        *held += 1;
        Ok(Place { places: Arc::clone(self), source, user: None })
    }
}

impl Place {
    /// The connection belongs to `user` from now on; `false` when that user holds as many as it may.
    pub(super) fn belongs_to(&mut self, user: &str) -> bool {
        let user: Arc<str> = user.into();
        let mut held = self.places.users.entry(Arc::clone(&user)).or_insert(0);
        if *held >= self.places.max_per_user {
            drop(held);
            self.places.users.remove_if(&user, |_, held| *held == 0);
            return false;
        }
        *held += 1;
        drop(held);
        self.user = Some(user);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        give_back(self.places.sources.entry(self.source));
        if let Some(user) = self.user.take() {
            give_back(self.places.users.entry(user));
        }
    }
}

/// One connection less; who has none left is forgotten.
fn give_back<K: Eq + Hash>(held: Entry<'_, K, usize>) {
    if let Entry::Occupied(mut held) = held {
        *held.get_mut() -= 1;
        if *held.get() == 0 {
            held.remove();
        }
    }
}

/// What counts as one source.
pub(super) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, connections_per_source: usize) -> Arc<Places> {
        let limits = super::super::Settings::default().limits;
        Places::new(&Limits { connections, connections_per_source, ..limits })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn caps_hold_globally_and_per_source_and_places_come_back() {
        let places = places(3, 2);
        let a1 = places.take(ip("10.0.0.1")).ok().unwrap();
        let _a2 = places.take(ip("::ffff:10.0.0.1")).ok().unwrap();
        assert_eq!(
            places.take(ip("10.0.0.1")).err(),
            Some(NoPlace::Source),
            "mapped addresses are the same source"
        );
        let b1 = places.take(ip("2001:db8::1")).ok().unwrap();
        assert_eq!(places.take(ip("10.0.0.3")).err(), Some(NoPlace::Full));
        drop(a1);
        assert!(places.take(ip("10.0.0.1")).is_ok());
        drop(b1);
        assert_eq!(places.sources.len(), 1, "sources without connections are forgotten");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let places = places(10, 1);
        let _held = places.take(ip("2001:db8::1")).ok().unwrap();
        assert_eq!(places.take(ip("2001:db8::ffff:2")).err(), Some(NoPlace::Source));
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn d5_one_user_holds_so_many_connections_from_wherever_and_they_come_back() {
        let limits = super::super::Settings::default().limits;
        let places = Places::new(&Limits { connections_per_user: 2, ..limits });
        let take = |from: u8, user: &str| {
            let mut place = places.take(IpAddr::from([10, 0, 0, from])).ok().unwrap();
            place.belongs_to(user).then_some(place)
        };
        let first = take(1, "robot").unwrap();
        let second = take(2, "robot").unwrap();
        assert!(take(3, "robot").is_none(), "from a third address");
        assert!(take(3, "ada").is_some(), "others are not bounded by it");
        drop(first);
        let third = take(4, "robot");
        assert!(third.is_some());
        drop((second, third));
        assert_eq!((places.users.len(), places.sources.len()), (0, 0), "nothing is remembered");
    }
}
