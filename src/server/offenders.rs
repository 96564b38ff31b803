//! How soon may they come back whose connections were ended for what they sent?
//!
//! A handshake costs as much as most floods do before they are cut off, and whoever is cut off comes back at once. So the
//! source of such a connection ([`super::abuse`]) gets new ones at a small rate only, for a while after its last offence;
//! the others are closed before anything is computed for them. Its open connections stay: they may be somebody else's,
//! behind the same NAT or load balancer, and the more of them there are, the more new ones it gets. Where sources are
//! not told apart, nobody is slowed down ([`super::Limits::slow_offenders`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use super::places;
use crate::units::Instant;

/// Sources that are remembered. The one whose last offence is the oldest makes room.
const SOURCES_MAX: usize = 4_096;
/// After so long without a new offence a source is like any other.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// New connections a second, and at once, of a source that offends: an honest neighbour of the same address tries again
/// and gets in. A handshake and what follows take milliseconds: two a second stay below the hundredth of a busy shard's
/// requests that a p99 shows, five did not (`make neighbours`).
const PER_SECOND: f64 = 2.0;
/// And so many more for each connection that it holds open. Five thousand nodes behind one address notice nothing of the
/// one among them that offends; whoever wants to flood has to hold as many as a second shall let in.
const PER_SECOND_HELD: f64 = 1.0;

/// The sources of one server, for all its threads.
#[derive(Debug, Default)]
pub(super) struct Offenders(Mutex<Table>);

impl Offenders {
    /// A connection of `source` was ended for abuse.
    pub(super) fn offended(&self, source: IpAddr, now: Instant) {
        self.0.lock().offended(places::source(source), now);
    }

    /// Whether `source`, which holds so many connections, may have another.
    pub(super) fn may_connect(&self, source: IpAddr, held: impl FnOnce() -> usize, now: Instant) -> bool {
        self.0.lock().may_connect(places::source(source), held, now)
    }
}

#[derive(Debug, Default)]
struct Table {
    sources: HashMap<IpAddr, Offender>,
}

#[derive(Debug)]
struct Offender {
    last_offence: Instant,
    tokens: f64,
    refilled: Instant,
}

impl Offender {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.since(self.last_offence) >= REMEMBERED_FOR
    }
}

impl Table {
    fn offended(&mut self, source: IpAddr, now: Instant) {
        if let Some(offender) = self.sources.get_mut(&source) {
            if offender.is_forgotten(now) {
                offender.tokens = PER_SECOND;
                offender.refilled = now;
            }
            offender.last_offence = now;
            return;
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, offender| !offender.is_forgotten(now));
        }
        if self.sources.len() >= SOURCES_MAX {
            let oldest = self.sources.iter().min_by_key(|(_, offender)| offender.last_offence);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.sources.remove(&oldest);
            }
        }
        self.sources.insert(source, Offender { last_offence: now, tokens: PER_SECOND, refilled: now });
    }

    fn may_connect(&mut self, source: IpAddr, held: impl FnOnce() -> usize, now: Instant) -> bool {
        let Some(offender) = self.sources.get_mut(&source) else { return true };
        if offender.is_forgotten(now) {
            self.sources.remove(&source);
            return true;
        }
        let rate = PER_SECOND + PER_SECOND_HELD * held() as f64;
        let refill = now.since(offender.refilled).as_secs_f64() * rate;
        (offender.tokens, offender.refilled) = ((offender.tokens + refill).min(rate), now);
        let may = offender.tokens >= 1.0;
        if may {
            offender.tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    /// How many of a thousand attempts get in.
    fn let_in(offenders: &Offenders, source: IpAddr, held: usize, now: Instant) -> usize {
        (0..1_000).filter(|_| offenders.may_connect(source, || held, now)).count()
    }

    #[test]
    fn who_offends_gets_two_at_once_and_two_a_second_and_others_all() {
        let offenders = Offenders::default();
        assert_eq!(let_in(&offenders, ip(1), 0, at(0)), 1_000);
        offenders.offended(ip(1), at(0));
        assert_eq!(let_in(&offenders, ip(1), 0, at(0)), 2);
        assert_eq!(let_in(&offenders, ip(2), 0, at(0)), 1_000);
        let later: usize = (1..=20).map(|step| let_in(&offenders, ip(1), 0, at(step * 100))).sum();
        assert_eq!(later, 4, "in two seconds");
    }

    #[test]
    fn an_offence_is_forgotten_and_a_new_one_prolongs_it() {
        let offenders = Offenders::default();
        offenders.offended(ip(1), at(0));
        offenders.offended(ip(1), at(9_000));
        assert_eq!(let_in(&offenders, ip(1), 0, at(18_999)), 2);
        assert_eq!(let_in(&offenders, ip(1), 0, at(19_000)), 1_000);
        assert!(offenders.0.lock().sources.is_empty());
        // What is forgotten but still in the table begins anew.
        offenders.offended(ip(1), at(20_000));
        let_in(&offenders, ip(1), 0, at(20_000));
        offenders.offended(ip(1), at(40_000));
        assert_eq!(let_in(&offenders, ip(1), 0, at(40_000)), 2);
    }

    #[test]
    fn an_address_of_many_clients_goes_on_taking_many() {
        let offenders = Offenders::default();
        offenders.offended(ip(1), at(0));
        let_in(&offenders, ip(1), 300, at(0));
        assert_eq!(let_in(&offenders, ip(1), 300, at(1_000)), 302);
    }

    /// Many nodes behind one address connect anew beside one that offends all the time and tries as often as all of them.
    #[test]
    fn a_cluster_behind_one_address_is_back_within_seconds() {
        let offenders = Offenders::default();
        let mut held = 0;
        for step in 0..1_500 {
            offenders.offended(ip(1), at(step * 10));
            let mut others = 0;
            for attempt in 0..60 {
                let may = offenders.may_connect(ip(1), || held, at(step * 10));
                others += usize::from(may && (attempt + step) % 2 == 1);
            }
            held += others;
        }
        assert!(held > 500, "{held}");
    }

    #[test]
    fn a_network_is_one_source_and_a_mapped_address_its_own() {
        let offenders = Offenders::default();
        offenders.offended("2001:db8::1".parse().unwrap(), at(0));
        offenders.offended("::ffff:10.0.0.1".parse().unwrap(), at(0));
        assert_eq!(let_in(&offenders, "2001:db8::ffff:2".parse().unwrap(), 0, at(0)), 2);
        assert_eq!(let_in(&offenders, "2001:db8:0:1::1".parse().unwrap(), 0, at(0)), 1_000);
        assert_eq!(let_in(&offenders, "10.0.0.1".parse().unwrap(), 0, at(0)), 2);
    }

    #[test]
    fn the_oldest_makes_room() {
        let offenders = Offenders::default();
        for number in 0..10_000 {
            offenders.offended(ip(number), at(number.into()));
            assert!(offenders.0.lock().sources.len() <= SOURCES_MAX);
        }
        assert_eq!(let_in(&offenders, ip(9_999), 0, at(9_999)), 2);
        assert_eq!(let_in(&offenders, ip(10_000 - 4_096), 0, at(9_999)), 2);
        assert_eq!(let_in(&offenders, ip(9_999 - 4_096), 0, at(9_999)), 1_000);
    }
}
