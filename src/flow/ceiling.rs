//! What may the break-glass lane use?
//!
//! Its own listener and thread own a [`Ceiling`]: seats and a rate that nothing else touches and that no pressure
//! moves. It is there against one runaway script in an emergency, not against people: an hour of typing stays far
//! below it. Watches and sessions give their seat back with the first byte and are only counted.

use std::num::NonZeroU32;

use super::decision::{Arrival, Decision, Kind, Reason, Refusal, Ticket};
use super::key::Key;
use super::random::Random;
use super::rate::SharedRate;
use super::retry::Retry;
use super::tickets::{Account, Phase, Slot, Tickets};
use crate::policy::{Lane, Rate};
use crate::units::{Instant, Seats};

/// The bounds of the break-glass lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingSettings {
    /// Seats in flight.
    pub seats: Seats,
    /// Requests a second; a LIST of everything counts as its seats.
    pub rate: Rate,
    /// Seats of a LIST that asks for everything at once.
    pub unpaged_list: Seats,
    /// Watches and sessions at the same time.
    pub long_running: u32,
}

impl Default for CeilingSettings {
    fn default() -> Self {
        // kubectl makes 3 to 10 requests a command, two dozen on a cold discovery cache: 40 at once are two people.
        Self {
            seats: Seats(16),
            rate: Rate { per_second: 20, burst: 40 },
            unpaged_list: Seats(4),
            long_running: 64,
        }
    }
}

/// The break-glass lane's own account.
#[derive(Debug)]
pub struct Ceiling {
    settings: CeilingSettings,
    rate: SharedRate,
    tickets: Tickets,
    used: Seats,
    long_running: u32,
    random: Random,
    admitted: u64,
    shed: u64,
}

impl Ceiling {
    /// A lane that is idle. `seed` only jitters `Retry-After`.
    #[must_use]
    pub fn new(settings: CeilingSettings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            rate: SharedRate::new(settings.rate, now),
            tickets: Tickets::new(settings.seats.0 + settings.long_running),
            used: Seats::ZERO,
            long_running: 0,
            random: Random::new(seed),
            admitted: 0,
            shed: 0,
        }
    }

    /// Admits or refuses; nothing waits here.
    pub fn arrive(&mut self, now: Instant, key: &Key, kind: Kind) -> Decision {
        let seats = if key.unpaged { self.settings.unpaged_list } else { Seats::ONE };
        let full = kind != Kind::Short && self.long_running >= self.settings.long_running;
        if full || self.used + seats > self.settings.seats || self.tickets.is_full() {
            let retry_after_seconds = self.random.between(1, 3);
            return self.shed(Refusal::now(Reason::LaneConcurrency, retry_after_seconds));
        }
        if let Err(wait) = self.rate.check(NonZeroU32::new(seats.0).unwrap_or(NonZeroU32::MIN), now) {
            let retry_after_seconds = Retry::refused_for(wait, &mut self.random);
            return self.shed(Refusal::now(Reason::LaneRate, retry_after_seconds));
        }
        self.admitted += 1;
        self.used += seats;
        self.long_running += u32::from(kind != Kind::Short);
        let arrival = Arrival { lane: Lane::BreakGlass, flow: 0, client: 0, key: *key, kind, exempt: false };
        let slot = Slot { seats, ..Slot::new(&arrival, Account::BreakGlass, now) };
        Decision::Admit(self.tickets.insert(slot))
    }

    fn shed(&mut self, refusal: Refusal) -> Decision {
        self.shed += 1;
        Decision::Shed(refusal)
    }

    /// The answer began: a watch or session gives its seats back.
    pub fn first_byte(&mut self, ticket: Ticket) {
        let Some(index) = self.tickets.resolve(ticket) else { return };
        let slot = &mut self.tickets[index];
        if slot.kind != Kind::Short {
            self.used = self.used.saturating_sub(slot.seats);
            slot.seats = Seats::ZERO;
            slot.phase = Phase::LongRunning;
        }
    }

    /// The request is over, however it ended. Further calls with this ticket do nothing.
    pub fn finish(&mut self, ticket: Ticket) {
        let Some(index) = self.tickets.resolve(ticket) else { return };
        let slot = &self.tickets[index];
        self.used = self.used.saturating_sub(slot.seats);
        self.long_running -= u32::from(slot.kind != Kind::Short);
        self.tickets.remove(index);
    }

    /// Seats in use, of how many.
    #[must_use]
    pub fn seats(&self) -> (Seats, Seats) {
        (self.used, self.settings.seats)
    }

    /// Watches and sessions running.
    #[must_use]
    pub fn long_running(&self) -> u32 {
        self.long_running
    }

    /// Requests admitted and refused so far.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.admitted, self.shed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{cluster_list, object};
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn admit(ceiling: &mut Ceiling, now: Instant, key: &Key, kind: Kind) -> Ticket {
        match ceiling.arrive(now, key, kind) {
            Decision::Admit(ticket) => ticket,
            other => panic!("expected to be admitted: {other:?}"),
        }
    }

    #[test]
    fn four_lists_of_everything_fill_the_seats_and_give_them_back() {
        let mut ceiling = Ceiling::new(CeilingSettings::default(), 1, at(0));
        let tickets: Vec<_> =
            (0..4).map(|_| admit(&mut ceiling, at(0), &cluster_list("pods"), Kind::Short)).collect();
        let refused = ceiling.arrive(at(0), &object("pods"), Kind::Short);
        assert!(matches!(refused, Decision::Shed(Refusal { reason: Reason::LaneConcurrency, .. })));
        for ticket in tickets.iter().chain(&tickets) {
            ceiling.finish(*ticket);
        }
        assert_eq!(ceiling.seats(), (Seats::ZERO, Seats(16)));
    }

    #[test]
    fn a_runaway_script_meets_the_rate_and_is_told_when_to_return() {
        let mut ceiling = Ceiling::new(CeilingSettings::default(), 1, at(0));
        for _ in 0..40 {
            let ticket = admit(&mut ceiling, at(0), &object("pods"), Kind::Short);
            ceiling.finish(ticket);
        }
        let Decision::Shed(refusal) = ceiling.arrive(at(0), &object("pods"), Kind::Short) else {
            panic!("the burst is 40")
        };
        assert_eq!(refusal.reason, Reason::LaneRate);
        assert!(refusal.retry_after_seconds >= 1);
        admit(&mut ceiling, at(1000), &object("pods"), Kind::Short);
    }

    #[test]
    fn watches_free_their_seat_with_the_first_byte_and_are_counted() {
        let mut ceiling = Ceiling::new(CeilingSettings::default(), 1, at(0));
        let mut watches = Vec::new();
        for second in 0..64 {
            let ticket = admit(&mut ceiling, at(second * 1000), &object("pods"), Kind::Watch);
            ceiling.first_byte(ticket);
            ceiling.first_byte(ticket);
            watches.push(ticket);
        }
        assert_eq!((ceiling.seats().0, ceiling.long_running()), (Seats::ZERO, 64));
        assert!(matches!(ceiling.arrive(at(90_000), &object("pods"), Kind::Watch), Decision::Shed(_)));
        admit(&mut ceiling, at(90_000), &object("pods"), Kind::Short);
        watches.into_iter().for_each(|ticket| ceiling.finish(ticket));
        assert_eq!(ceiling.long_running(), 0);
    }
}
