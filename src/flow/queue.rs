//! Who in a lane goes next?
//!
//! Fair queueing between flows by virtual time in seat-seconds (start-time fair queueing, Goyal 1996; APF does the
//! same): each queue remembers when its last request would have finished, had everybody got an equal share, and the
//! queue that starts earliest goes next. Flows are dealt to [`QUEUES`] queues by shuffle sharding: a flow's hand
//! is [`HAND`] queues, and it joins the shortest, so that one flood fills four queues at most and a neighbour
//! nearly always holds a card the flood does not. Work is charged by estimate and corrected when it is
//! known. At the end of a busy period all are even: an idle flow saves up neither credit nor debt.
//!
//! Heavy requests take turns by **kind of call** first, also in seat-seconds, and by flow within a kind. When 500 nodes
//! LIST all pods in a loop, a kubelet that starts has the same credential and lane as they, and none of them was served
//! lately either; but its LISTs are others. So its kind goes next, and as often as it is cheaper. Each kind has
//! [`SPAN`] of the queues, so that one flood of a kind leaves queues to the others.
//!
//! Bounds and wait limits belong to the lane (`lanes.rs`); this file only orders.

use super::random::mix;
use super::tickets::{Chain, Ends, Tickets};
use crate::units::SeatSeconds;

/// Queues a lane; one bit each in a word.
const QUEUES: usize = 64;
/// Queues that one flow may join.
const HAND: u32 = 4;
/// Queues that one kind of heavy call may fill.
const SPAN: u64 = 16;
/// Kinds of call told apart by hash; kinds that collide share turns.
const KINDS: usize = 16;
/// How far a correction may move a queue, so that one wrong estimate cannot silence a flow.
const CORRECTION_MAX: SeatSeconds = SeatSeconds::from_micros(10_000_000);

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    waiting: Ends,
    /// Virtual time at which what it was given would be done.
    finish: SeatSeconds,
}

/// The turns of one kind of call.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    finish: SeatSeconds,
    waiting: u32,
}

/// The queues of one lane and weight class.
#[derive(Clone, Debug)]
pub(super) struct FairQueues {
    queues: [Queue; QUEUES],
    kinds: [Turn; KINDS],
    /// Bit i: queue i holds requests.
    backlog: u64,
    /// The virtual start of the request that went last, among flows and among kinds.
    now: SeatSeconds,
    kinds_now: SeatSeconds,
    /// The largest `finish`: where virtual time goes on after a busy period.
    horizon: SeatSeconds,
    kinds_horizon: SeatSeconds,
    /// The queue that went last: equals take turns from there.
    last: usize,
}

impl Default for FairQueues {
    fn default() -> Self {
        Self {
            queues: [Queue::default(); QUEUES],
            kinds: [Turn::default(); KINDS],
            backlog: 0,
            now: SeatSeconds::ZERO,
            kinds_now: SeatSeconds::ZERO,
            horizon: SeatSeconds::ZERO,
            kinds_horizon: SeatSeconds::ZERO,
            last: 0,
        }
    }
}

/// The kind of a heavy call; light ones are all of one.
pub(super) fn kind_of(key: u64, heavy: bool) -> u8 {
    if heavy { (key % KINDS as u64) as u8 } else { 0 }
}

impl FairQueues {
    pub(super) fn is_empty(&self) -> bool {
        self.backlog == 0
    }

    /// How many requests of a kind wait.
    pub(super) fn waiting_of(&self, kind: u8) -> u32 {
        self.kinds[kind as usize].waiting
    }

    /// Queues a request, and writes down where.
    pub(super) fn join(&mut self, tickets: &mut Tickets, index: u32) {
        let slot = &tickets[index];
        let chosen = self.card(slot.flow, slot.heavy.then_some(slot.key.exact));
        self.kinds[slot.kind_turn as usize].waiting += 1;
        tickets[index].queue = chosen as u8;
        tickets.push_back(&mut self.queues[chosen].waiting, index, Chain::Queue);
        self.backlog |= 1 << chosen;
    }

    /// The best of the flow's cards: the shortest queue, and of equals the one that was given least.
    fn card(&self, flow: u64, kind: Option<u64>) -> usize {
        // A kind's queues: SPAN of them from its own place on, in steps that reach all (odd).
        let (first, step, span) = kind.map_or((0, 1, QUEUES as u64), |kind| {
            let place = mix(kind);
            (place >> 32, (place >> 8) | 1, SPAN)
        });
        let mut cards = mix(flow);
        let hand = (0..HAND).map(|_| {
            let card = first.wrapping_add(step.wrapping_mul(cards % span)) % QUEUES as u64;
            cards >>= 6;
            card as usize
        });
        let price = |&card: &usize| (self.queues[card].waiting.len, self.queues[card].finish.max(self.now));
        hand.min_by_key(price).unwrap_or(0)
    }

    /// The request that should go next among those whose turn `may_go`; only the first of each queue is asked.
    pub(super) fn next(&self, tickets: &Tickets, mut may_go: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = None;
        // Begin behind the queue that went last, so that equal queues take turns.
        let turn = self.last as u32 + 1;
        let mut backlog = self.backlog.rotate_right(turn);
        while backlog != 0 {
            let queue = &self.queues[(backlog.trailing_zeros() + turn) as usize % QUEUES];
            backlog &= backlog - 1;
            let slot = &tickets[queue.waiting.first];
            let kind = self.kinds[slot.kind_turn as usize].finish.max(self.kinds_now);
            // Of flows that are even, the one that asks for less: it holds up the others least.
            let rank = (kind, queue.finish.max(self.now), slot.work);
            if best.is_none_or(|(earliest, _)| rank < earliest) && may_go(queue.waiting.first) {
                best = Some((rank, queue.waiting.first));
            }
        }
        best.map(|(_, index)| index)
    }

    /// The request goes: it leaves its queue, which pays its work in advance.
    pub(super) fn go(&mut self, tickets: &mut Tickets, index: u32) {
        let (chosen, kind, work) =
            (tickets[index].queue as usize, tickets[index].kind_turn as usize, tickets[index].work);
        let queue = &mut self.queues[chosen];
        self.now = queue.finish.max(self.now);
        queue.finish = self.now + work;
        self.horizon = self.horizon.max(queue.finish);
        self.kinds_now = self.kinds[kind].finish.max(self.kinds_now);
        self.kinds[kind].finish = self.kinds_now + work;
        self.kinds_horizon = self.kinds_horizon.max(self.kinds[kind].finish);
        self.last = chosen;
        self.leave(tickets, index);
    }

    /// The request leaves its queue without having gone.
    pub(super) fn leave(&mut self, tickets: &mut Tickets, index: u32) {
        let (chosen, kind) = (tickets[index].queue as usize, tickets[index].kind_turn as usize);
        self.kinds[kind].waiting -= 1;
        let queue = &mut self.queues[chosen];
        tickets.unlink(&mut queue.waiting, index, Chain::Queue);
        if queue.waiting.len == 0 {
            self.backlog &= !(1 << chosen);
        }
        if self.backlog == 0 {
            (self.now, self.kinds_now) = (self.horizon, self.kinds_horizon);
        }
    }

    /// What was charged in advance turned out to be `actual`.
    pub(super) fn settle(&mut self, (queue, kind): (u8, u8), charged: SeatSeconds, actual: SeatSeconds) {
        let more = actual.saturating_sub(charged).min(CORRECTION_MAX);
        let less = charged.saturating_sub(actual).min(CORRECTION_MAX);
        let (queue, kind) = (&mut self.queues[queue as usize], &mut self.kinds[kind as usize]);
        queue.finish = (queue.finish + more).saturating_sub(less);
        kind.finish = (kind.finish + more).saturating_sub(less);
        self.horizon = self.horizon.max(queue.finish);
        self.kinds_horizon = self.kinds_horizon.max(kind.finish);
    }

    /// A flow did work that no request of it stands for.
    pub(super) fn charge(&mut self, flow: u64, key: u64, heavy: bool, work: SeatSeconds) {
        let queue = self.card(flow, heavy.then_some(key)) as u8;
        self.settle((queue, kind_of(key, heavy)), SeatSeconds::ZERO, work);
    }
}
