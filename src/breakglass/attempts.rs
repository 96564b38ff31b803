//! How many failed attempts does one source get?
//!
//! A token bucket each, in a table of bounded size: whoever fails more often than that is answered 429 without a log
//! line, an audit record or an alert, so that neither the log nor the disk can be flooded. Only failures count: a good
//! certificate from the same address always passes, or a stranger behind the operators' NAT could lock them out. All
//! sources together have one bucket for what is written down. A source that has failed too often gets one handshake a
//! second until a minute of better manners is over: handshakes are what costs the lane's thread most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::units::Instant;

/// Failures a source gets at once, and again for every minute.
const PER_MINUTE: f64 = 5.0;
/// Failures of all sources together that are written down each minute.
const TOLD_PER_MINUTE: f64 = 60.0;
/// Sources that are told apart; further ones share one bucket.
const SOURCES_MAX: usize = 1_024;
/// Connections a minute of a source that has failed too often: an operator behind the same address still gets one.
const CONNECTIONS_PER_MINUTE: f64 = 60.0;
/// And so many at once: as many as one source may hold open.
const CONNECTIONS_BURST: f64 = 32.0;
/// Arming, confirming and disarming of everybody together, a minute: each writes a signed record.
const DESK_PER_MINUTE: f64 = 30.0;
const MINUTE: Duration = Duration::from_secs(60);

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Answer with the reason, and write it down.
    Told,
    /// Answer with the reason.
    Quiet,
    /// Answer that it was too often.
    Throttled,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    sources: HashMap<IpAddr, Bucket>,
    others: Option<Bucket>,
    told: Option<Bucket>,
    desk: Option<Bucket>,
    /// Connections of sources that have failed too often.
    connections: HashMap<IpAddr, Bucket>,
    turned_away: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    const fn full(size: f64, now: Instant) -> Self {
        Self { tokens: size, at: now }
    }

    /// Takes one of at most `size`, of which `per_minute` come back.
    fn take(&mut self, size: f64, per_minute: f64, now: Instant) -> bool {
        let refill = now.since(self.at).as_secs_f64() / MINUTE.as_secs_f64() * per_minute;
        (self.tokens, self.at) = ((self.tokens + refill).min(size), now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

impl Attempts {
    /// An attempt from `source` has failed at `now`.
    pub(super) fn failed(&mut self, source: IpAddr, now: Instant) -> Attempt {
        let source = network(source);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| now.since(bucket.at) < MINUTE);
        }
        let bucket = if self.sources.len() < SOURCES_MAX || self.sources.contains_key(&source) {
            self.sources.entry(source).or_insert(Bucket::full(PER_MINUTE, now))
        } else {
            self.others.get_or_insert(Bucket::full(PER_MINUTE, now))
        };
        if !bucket.take(PER_MINUTE, PER_MINUTE, now) {
            self.watch_connections(source, now);
            return Attempt::Throttled;
        }
        let told = self.told.get_or_insert(Bucket::full(TOLD_PER_MINUTE, now));
        if told.take(TOLD_PER_MINUTE, TOLD_PER_MINUTE, now) { Attempt::Told } else { Attempt::Quiet }
    }
}

impl Attempts {
    /// Whether `source` may connect at `now`: everybody may who has not failed too often in the last minute.
    pub(super) fn may_connect(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = network(source);
        let Some(bucket) = self.connections.get_mut(&source) else { return true };
        let failing = self.sources.get(&source).is_some_and(|failures| now.since(failures.at) < MINUTE);
        if !failing {
            self.connections.remove(&source);
            return true;
        }
        let may = bucket.take(CONNECTIONS_BURST, CONNECTIONS_PER_MINUTE, now);
        self.turned_away += u64::from(!may);
        may
    }

    /// Whether somebody with a good certificate may arm, confirm or disarm at `now`.
    pub(super) fn may_ask_the_desk(&mut self, now: Instant) -> bool {
        self.desk.get_or_insert(Bucket::full(DESK_PER_MINUTE, now)).take(
            DESK_PER_MINUTE,
            DESK_PER_MINUTE,
            now,
        )
    }

    /// Connections that were turned away.
    pub(super) const fn turned_away(&self) -> u64 {
        self.turned_away
    }

    fn watch_connections(&mut self, source: IpAddr, now: Instant) {
        if self.connections.len() >= SOURCES_MAX {
            let sources = &self.sources;
            self.connections.retain(|source, _| sources.contains_key(source));
        }
        if self.connections.len() < SOURCES_MAX {
            self.connections.entry(source).or_insert(Bucket::full(CONNECTIONS_BURST, now));
        }
    }
}

/// An IPv6 source is its /64: one host owns all of that.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn the_sixth_failure_of_a_minute_is_too_many_for_its_source_alone() {
        let mut attempts = Attempts::default();
        for _ in 0..5 {
            assert_eq!(attempts.failed(ip(1), at(0)), Attempt::Told);
        }
        assert_eq!(attempts.failed(ip(1), at(0)), Attempt::Throttled);
        assert_eq!(attempts.failed(ip(2), at(0)), Attempt::Told);
        assert_eq!(attempts.failed(ip(1), at(12)), Attempt::Told, "one comes back every 12 s");
        assert_eq!(attempts.failed(ip(1), at(13)), Attempt::Throttled);
    }

    #[test]
    fn a_million_sources_fill_neither_memory_nor_log() {
        let mut attempts = Attempts::default();
        let told =
            (0..1_000_000).filter(|number| attempts.failed(ip(*number), at(0)) == Attempt::Told).count();
        assert_eq!(told, 60);
        assert_eq!(attempts.sources.len(), SOURCES_MAX);
        // A minute later their places are free for others.
        assert_eq!(attempts.failed(ip(2_000_000), at(61)), Attempt::Told);
        assert_eq!(attempts.sources.len(), 1);
    }

    #[test]
    fn only_who_fails_too_often_is_slowed_down_before_the_handshake() {
        let mut attempts = Attempts::default();
        for _ in 0..6 {
            assert!(attempts.may_connect(ip(1), at(0)));
            attempts.failed(ip(1), at(0));
        }
        let let_in = (0..1_000).filter(|_| attempts.may_connect(ip(1), at(0))).count();
        assert_eq!((let_in, attempts.turned_away()), (32, 968));
        assert!(attempts.may_connect(ip(1), at(1)) && !attempts.may_connect(ip(1), at(1)), "one a second");
        assert!((0..1_000).all(|_| attempts.may_connect(ip(2), at(0))));
        assert!((0..1_000).all(|_| attempts.may_connect(ip(1), at(61))), "a minute later it is forgotten");
    }

    #[test]
    fn a_script_that_arms_in_a_loop_is_stopped() {
        let mut attempts = Attempts::default();
        assert_eq!((0..1_000).filter(|_| attempts.may_ask_the_desk(at(0))).count(), 30);
        assert!(attempts.may_ask_the_desk(at(2)));
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_source() {
        let mut attempts = Attempts::default();
        for host in 0..5_u128 {
            attempts.failed(IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + host)), at(0));
        }
        let sixth = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + 99));
        assert_eq!(attempts.failed(sixth, at(0)), Attempt::Throttled);
    }
}
