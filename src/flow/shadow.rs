//! What would have happened to a request, and what does it mean that it happens all the same?
//!
//! Under [`Mode::Shadow`] a request is decided about exactly as under [`Mode::Enforce`]: lanes, rates, quotas, budgets. What
//! would be let in is let in, on the same ledger. What would be refused, or would have to wait, is let in as well, and the
//! answer says what it would have been. Such a request takes **no seats** of the ledger: an enforced policy would not have
//! sent it, so it must not push out the next one, or a single flood would make everybody look shed. It is known all the
//! same: its time and size teach estimates and pressure, its end counts as a loss, its client's work counts for the
//! diagnosis. So the limit follows the real apiserver, and what is counted here is an upper bound: with the policy enforced
//! the apiserver would be less pressed, and less would be refused.
//!
//! Three things hold in shadow as ever: the bounds of this process (tickets, own memory, health probes), the break-glass
//! lane, and the emergency brake. In **Red** everything is enforced, until the apiserver answers again: a cluster that goes
//! under is no place for a trial. While the apiserver is away (Cold) or comes back (Ramp) nothing is held back.
//!
//! Under [`Mode::Disabled`] nothing is decided, and the brake is off too; the bounds of the process remain.

use super::arrive::Refused;
use super::decision::{Arrival, Decision, Reason, Ticket};
use super::recovery::State;
use super::scheduler::Scheduler;
use super::tickets::{Account, Chain, Slot};
use crate::policy::{Lane, Mode};
use crate::units::{Instant, Seats};

/// What would have become of a request that was let in all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Would {
    /// It would have been refused.
    Shed(Reason),
    /// It would have waited for its turn, and been refused had that not come in time.
    Wait,
}

/// What shadow has counted so far, and what of it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    /// Seats of requests that run although they would not.
    pub seats: Seats,
    /// Requests that would have been refused, by [`Lane::index`].
    pub shed: [u64; Lane::COUNT],
    /// Requests that would have waited, by [`Lane::index`].
    pub waited: [u64; Lane::COUNT],
}

impl Scheduler {
    /// A request arrives that is held to the decision as far as `mode` says. What is let in although it would not be comes
    /// with what would have been.
    pub fn arrive_under(&mut self, now: Instant, arrival: &Arrival, mode: Mode) -> (Decision, Option<Would>) {
        let now = self.no_earlier(now);
        self.expire(now);
        let slot = self.slot(now, arrival);
        if self.is_bound(&slot, mode) {
            return (self.arrive(now, arrival), None);
        }
        if mode == Mode::Disabled {
            return (Decision::Admit(self.pass(slot, Account::Open)), None);
        }
        let would = match self.enter(now, slot.clone()) {
            Ok(Decision::Admit(ticket)) => return (Decision::Admit(ticket), None),
            Ok(Decision::Wait(ticket)) => {
                self.cancel(now, ticket);
                Would::Wait
            }
            Ok(Decision::Shed(refusal)) => Would::Shed(refusal.reason),
            Err(Refused(reason, _)) => Would::Shed(reason),
        };
        match would {
            Would::Shed(_) => self.shadow.shed[slot.lane.index()] += 1,
            Would::Wait => self.shadow.waited[slot.lane.index()] += 1,
        }
        (Decision::Admit(self.pass(slot, Account::Shadow)), Some(would))
    }

    /// Whether a request is held to what is decided, whatever a policy says.
    fn is_bound(&self, slot: &Slot, mode: Mode) -> bool {
        let brakes = mode == Mode::Shadow && self.recovery.state() == State::Red;
        mode == Mode::Enforce
            || brakes
            || slot.account != Account::Limited
            || self.tickets.is_full()
            || self.own_memory.refuses(slot.lane)
    }

    /// Lets a request in beside the ledger.
    fn pass(&mut self, slot: Slot, account: Account) -> Ticket {
        let slot = Slot { account, ..slot };
        let lane = &mut self.lanes[slot.lane.index()];
        lane.admitted += 1;
        lane.begin(slot.kind);
        self.watches.begin(slot.lane, slot.flow, slot.kind);
        self.shadow.seats += slot.seats;
        let expendable = slot.is_expendable();
        let ticket = self.tickets.insert(slot);
        if expendable {
            self.tickets.push_back(&mut self.expendable, ticket.slot, Chain::Queue);
        }
        self.tickets.push_back(&mut self.pending, ticket.slot, Chain::Time);
        ticket
    }

    /// One that was let in beside the ledger needs no seats any more.
    pub(super) fn release_passed(&mut self, index: u32, seats: Seats) {
        if seats == Seats::ZERO {
            return;
        }
        self.shadow.seats = self.shadow.seats.saturating_sub(seats);
        if self.tickets[index].is_expendable() {
            self.tickets.unlink(&mut self.expendable, index, Chain::Queue);
        }
    }
}
