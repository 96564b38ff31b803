//! What does the scheduler keep for one lane?
//!
//! Its waiters (in order of deadline, and in fair queues of two weight classes), its counters and the rates of its
//! clients. Two classes, because heavy requests wait for the heavy budget: in one queue they would stand
//! before light ones that have seats.

use super::decision::{Kind, Reason};
use super::queue::FairQueues;
use super::rate::Rates;
use super::retry::Retry;
use super::tickets::{Chain, Ends, NIL, Tickets};
use crate::policy::{Lane, LaneSettings};
use crate::units::Instant;

/// The moving parts of one lane.
#[derive(Debug)]
pub(super) struct LaneState {
    /// Waiting requests by deadline: all wait equally long, so by arrival.
    waiting: Ends,
    light: FairQueues,
    heavy: FairQueues,
    pub(super) rates: Option<Rates>,
    pub(super) retry: Retry,
    pub(super) admitted: u64,
    pub(super) shed: [u64; Reason::COUNT],
    pub(super) watches: u32,
    pub(super) streams: u32,
}

impl LaneState {
    pub(super) fn new(lane: Lane, settings: &LaneSettings, now: Instant) -> Self {
        Self {
            waiting: Ends::default(),
            light: FairQueues::default(),
            heavy: FairQueues::default(),
            rates: settings.identity_rate.map(|rate| Rates::new(rate, now)),
            retry: Retry::new(lane, now),
            admitted: 0,
            shed: [0; Reason::COUNT],
            watches: 0,
            streams: 0,
        }
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting.len
    }

    pub(super) fn queues(&self, heavy: bool) -> &FairQueues {
        if heavy { &self.heavy } else { &self.light }
    }

    pub(super) fn queues_mut(&mut self, heavy: bool) -> &mut FairQueues {
        if heavy { &mut self.heavy } else { &mut self.light }
    }

    /// A request begins to wait.
    pub(super) fn join(&mut self, tickets: &mut Tickets, index: u32) {
        let (flow, heavy) = (tickets[index].flow, tickets[index].heavy);
        let queue = self.queues_mut(heavy).join(tickets, index, flow);
        tickets[index].queue = queue;
        tickets.push_back(&mut self.waiting, index, Chain::Time);
    }

    /// A waiting request goes, and its flow pays.
    pub(super) fn go(&mut self, tickets: &mut Tickets, index: u32) {
        let (work, heavy) = (tickets[index].work, tickets[index].heavy);
        self.queues_mut(heavy).go(tickets, index, work);
        tickets[index].charged = work;
        tickets.unlink(&mut self.waiting, index, Chain::Time);
    }

    /// A waiting request leaves without having gone.
    pub(super) fn leave(&mut self, tickets: &mut Tickets, index: u32) {
        let heavy = tickets[index].heavy;
        self.queues_mut(heavy).leave(tickets, index);
        tickets.unlink(&mut self.waiting, index, Chain::Time);
    }

    /// The request that waits longest, with the end of its wait.
    pub(super) fn oldest(&self, tickets: &Tickets) -> Option<(u32, Instant)> {
        let index = self.waiting.first;
        (index != NIL).then(|| (index, tickets[index].deadline))
    }

    /// New settings: nobody waits longer than they allow from `now` on.
    pub(super) fn reconfigure(
        &mut self,
        tickets: &mut Tickets,
        (old, new): (&LaneSettings, &LaneSettings),
        now: Instant,
    ) {
        let mut index = self.waiting.first;
        while index != NIL {
            let slot = &mut tickets[index];
            slot.deadline = slot.deadline.min(now + new.wait);
            index = tickets.next(index, Chain::Time);
        }
        if old.identity_rate != new.identity_rate {
            self.rates = new.identity_rate.map(|rate| Rates::new(rate, now));
        }
    }

    /// Counts a long-running request in.
    pub(super) fn begin(&mut self, kind: Kind) {
        match kind {
            Kind::Short => {}
            Kind::Watch => self.watches += 1,
            Kind::Streaming => self.streams += 1,
        }
    }

    /// Counts a long-running request out.
    pub(super) fn end(&mut self, kind: Kind) {
        match kind {
            Kind::Short => {}
            Kind::Watch => self.watches = self.watches.saturating_sub(1),
            Kind::Streaming => self.streams = self.streams.saturating_sub(1),
        }
    }
}
