//! Who in a lane goes next?
//!
//! Fair queueing between flows by virtual time in seat-seconds (start-time fair queueing, Goyal 1996; APF does the
//! same): each queue remembers when its last request would have finished, had everybody got an equal share, and the
//! queue that starts earliest goes next. Flows are dealt to [`QUEUES`] queues by shuffle sharding: a flow's hand
//! is [`HAND`] queues, and it joins the shortest, so that one flood fills four queues at most and a neighbour
//! nearly always holds a card the flood does not. Work is charged by estimate and corrected when it is
//! known. At the end of a busy period all are even: an idle flow saves up neither credit nor debt.
//!
//! Bounds and wait limits belong to the lane (`lanes.rs`); this file only orders.

use super::random::mix;
use super::tickets::{Chain, Ends, Tickets};
use crate::units::SeatSeconds;

/// Queues a lane; one bit each in a word.
const QUEUES: usize = 64;
/// Queues that one flow may join.
const HAND: u32 = 4;
/// How far a correction may move a queue, so that one wrong estimate cannot silence a flow.
const CORRECTION_MAX: SeatSeconds = SeatSeconds::from_micros(10_000_000);

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    waiting: Ends,
    /// Virtual time at which what it was given would be done.
    finish: SeatSeconds,
}

/// The queues of one lane and weight class.
#[derive(Clone, Debug)]
pub(super) struct FairQueues {
    queues: [Queue; QUEUES],
    /// Bit i: queue i holds requests.
    backlog: u64,
    /// The virtual start of the request that went last.
    now: SeatSeconds,
    /// The largest `finish`: where virtual time goes on after a busy period.
    horizon: SeatSeconds,
    /// The queue that went last: equals take turns from there.
    last: usize,
}

impl Default for FairQueues {
    fn default() -> Self {
        Self {
            queues: [Queue::default(); QUEUES],
            backlog: 0,
            now: SeatSeconds::ZERO,
            horizon: SeatSeconds::ZERO,
            last: 0,
        }
    }
}

impl FairQueues {
    pub(super) fn is_empty(&self) -> bool {
        self.backlog == 0
    }

    /// Queues a request of `flow`; returns its queue.
    pub(super) fn join(&mut self, tickets: &mut Tickets, index: u32, flow: u64) -> u8 {
        let mut cards = mix(flow);
        let mut chosen = (cards % QUEUES as u64) as usize;
        for _ in 1..HAND {
            cards >>= 6;
            let card = (cards % QUEUES as u64) as usize;
            if self.queues[card].waiting.len < self.queues[chosen].waiting.len {
                chosen = card;
            }
        }
        tickets.push_back(&mut self.queues[chosen].waiting, index, Chain::Queue);
        self.backlog |= 1 << chosen;
        chosen as u8
    }

    /// The request that should go next among those whose turn `may_go`; only the first of each queue is asked.
    pub(super) fn next(&self, mut may_go: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best: Option<(SeatSeconds, u32)> = None;
        // Begin behind the queue that went last, so that equal queues take turns.
        let turn = self.last as u32 + 1;
        let mut backlog = self.backlog.rotate_right(turn);
        while backlog != 0 {
            let queue = &self.queues[(backlog.trailing_zeros() + turn) as usize % QUEUES];
            backlog &= backlog - 1;
            let start = queue.finish.max(self.now);
            if best.is_none_or(|(earliest, _)| start < earliest) && may_go(queue.waiting.first) {
                best = Some((start, queue.waiting.first));
            }
        }
        best.map(|(_, index)| index)
    }

    /// The request goes: it leaves its queue, which pays `work` in advance.
    pub(super) fn go(&mut self, tickets: &mut Tickets, index: u32, work: SeatSeconds) {
        let chosen = tickets[index].queue as usize;
        let queue = &mut self.queues[chosen];
        self.now = queue.finish.max(self.now);
        queue.finish = self.now + work;
        self.horizon = self.horizon.max(queue.finish);
        self.last = chosen;
        self.leave(tickets, index);
    }

    /// The request leaves its queue without having gone.
    pub(super) fn leave(&mut self, tickets: &mut Tickets, index: u32) {
        let chosen = tickets[index].queue as usize;
        let queue = &mut self.queues[chosen];
        tickets.unlink(&mut queue.waiting, index, Chain::Queue);
        if queue.waiting.len == 0 {
            self.backlog &= !(1 << chosen);
        }
        if self.backlog == 0 {
            self.now = self.horizon;
        }
    }

    /// What was charged in advance turned out to be `actual`.
    pub(super) fn settle(&mut self, queue: u8, charged: SeatSeconds, actual: SeatSeconds) {
        let queue = &mut self.queues[queue as usize];
        let more = actual.saturating_sub(charged).min(CORRECTION_MAX);
        let less = charged.saturating_sub(actual).min(CORRECTION_MAX);
        queue.finish = (queue.finish + more).saturating_sub(less);
        self.horizon = self.horizon.max(queue.finish);
    }
}
