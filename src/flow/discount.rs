//! Which requests hold seats without making the apiserver work?
//!
//! **Waiting is not work.** A write that a webhook keeps for seconds, or that a slow etcd keeps, costs the apiserver next to
//! nothing, but its seats keep others out. So a request without a first byte after twenty times its calm time keeps a
//! tenth of its seats, as long as the process and the median call are well; were they not, it might be working. Its
//! time still counts in pressure, and how many may be in flight this way is bounded. Once a kind of call is known to
//! wait (its last reading says so, and the finding excuses it), it lends its seats as it starts.

use super::memory::Size;
use super::pressure::CALM;
use super::scheduler::Scheduler;
use super::seats::Need;
use super::tickets::{Account, Chain, NIL};
use crate::units::{Instant, Seats};

/// Times slower than calm from which a call is believed to wait.
const OUTLIVED: f64 = 20.0;
/// At least so many microseconds: 20 times a very quick call is still nothing. (The facts say 250 ms, but a look is only
/// taken every 250 ms: a call is 225 ms old on average when it is found.)
const OUTLIVED_MICROS: f64 = 100_000.0;
/// Of a call whose calm is not known: 20 times what makes a seat.
const UNKNOWN_MICROS: f64 = 1_000_000.0;
/// Requests looked at in a tick.
const LOOKED_AT: u32 = 256;
/// Requests that may be in flight with a tenth of their seats: each takes a connection's stream and a goroutine.
const IDLING_MAX: u32 = 2_000;

impl Scheduler {
    /// Takes most seats back from those that only wait.
    pub(super) fn discount(&mut self, now: Instant) {
        if !self.settings.laws.seat_discount || !self.only_waits() {
            return;
        }
        let mut index = self.pending.first;
        for _ in 0..LOOKED_AT {
            if index == NIL || self.idling.len >= IDLING_MAX {
                return;
            }
            let next = self.tickets.next(index, Chain::Time);
            let slot = &self.tickets[index];
            let age = now.since(slot.since).as_micros() as f64;
            if age < OUTLIVED_MICROS {
                // They are in order of their age.
                return;
            }
            let calm = self.estimates.place(&slot.key).and_then(|place| self.estimates.baseline(place));
            let outlived =
                calm.map_or(UNKNOWN_MICROS, |calm| (OUTLIVED * f64::from(calm)).max(OUTLIVED_MICROS));
            if slot.account == Account::Limited && age >= outlived {
                self.lend(index);
            }
            index = next;
        }
    }

    /// Takes them back at the start, of a kind of call that is known to wait.
    pub(super) fn discount_at_once(&mut self, index: u32) {
        let slot = &self.tickets[index];
        if !self.pressure.is_waiting(slot.key.reach)
            || !self.settings.laws.seat_discount
            || !self.only_waits()
        {
            return;
        }
        let place = self.estimates.place(&slot.key);
        if place.is_some_and(|place| self.estimates.ratio(place) >= OUTLIVED) && self.idling.len < IDLING_MAX
        {
            self.lend(index);
        }
    }

    /// Whether slow calls can be believed to wait for others: the process and what is left of pressure are well.
    fn only_waits(&self) -> bool {
        self.pressure.is_well && self.pressure.value() < CALM
    }

    fn lend(&mut self, index: u32) {
        self.tickets.unlink(&mut self.pending, index, Chain::Time);
        let slot = &mut self.tickets[index];
        self.kept_tenths += slot.seats.0;
        let kept = Seats((self.kept_tenths / 10).min(slot.seats.0));
        self.kept_tenths -= 10 * kept.0;
        let lent = Need { seats: slot.seats.saturating_sub(kept), size: Size::default(), ..Need::of(slot) };
        (slot.seats, slot.lent) = (kept, true);
        self.clients.give_back(slot.lane, slot.client, lent.seats);
        self.ledger.lend(lent);
        self.tickets.push_back(&mut self.idling, index, Chain::Time);
    }

    /// Takes a request without a first byte out of its chain.
    pub(super) fn unlink_pending(&mut self, index: u32) {
        let chain = if self.tickets[index].lent { &mut self.idling } else { &mut self.pending };
        self.tickets.unlink(chain, index, Chain::Time);
    }
}
