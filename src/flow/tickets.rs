//! Which requests does the scheduler know, and in which order?
//!
//! A slab of slots, each with a generation that is never used twice, so that a stale [`Ticket`] finds nothing. A slot
//! is a link of up to two chains: one in order of time (a lane's waiters by deadline, admitted requests without a
//! first byte, watches in their first burst) and one for its place in a fair queue. Chains are intrusive: a cancel
//! takes a request out of the middle in constant time and without dead entries that would evade a bound.
//! Memory grows with the highest number of requests known at once, up to the bound it was built with.

use super::decision::{Kind, Ticket};
use super::key::Key;
use super::levels::LevelNumber;
use super::memory::Size;
use super::returns::Coming;
use crate::policy::Lane;
use crate::units::{Instant, SeatSeconds, Seats};

/// "No slot".
pub(super) const NIL: u32 = u32::MAX;

/// Where a request is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not in use.
    Vacant,
    /// In its lane's queue.
    Waiting,
    /// Forwarded, no first byte yet.
    Pending,
    /// A watch that delivers its first burst.
    Bursting,
    /// Answering; holds its seats until the end.
    Answering,
    /// A watch or session that holds no seats any more.
    LongRunning,
}

/// Which account a request's seats are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Under the limit L.
    Limited,
    /// Let in although the policy would not: beside the limit, judged like the others.
    Shadow,
    /// Let in undecided: beside the limit, judged like the others.
    Open,
    /// Health probes.
    Exempt,
    /// Break-glass.
    BreakGlass,
}

/// The two chains a slot can be in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chain {
    Time = 0,
    Queue = 1,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

const LOOSE: Link = Link { previous: NIL, next: NIL };

/// Everything known about one request.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    pub(super) account: Account,
    pub(super) lane: Lane,
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) client: u64,
    /// Hash of the flow: counts distinct refused callers.
    pub(super) flow: u64,
    /// Seats that it holds or waits for.
    pub(super) seats: Seats,
    pub(super) heavy: bool,
    /// It only waits, and gave back most of its seats.
    pub(super) lent: bool,
    /// It is to be reset.
    pub(super) is_reset: bool,
    /// Bytes of a large answer that it may be sending; 0 for all others.
    pub(super) size: Size,
    /// How its client came: before it was told to, as it was told, or without an appointment.
    pub(super) coming: Coming,
    /// Its queue inside the lane, and the work it was charged there; zero work means that it never waited.
    pub(super) queue: u8,
    /// Whose turns it takes among the kinds of heavy calls.
    pub(super) kind_turn: u8,
    pub(super) charged: SeatSeconds,
    pub(super) work: SeatSeconds,
    /// When it was let in.
    pub(super) admitted: Instant,
    /// When it began its phase `Waiting` or `Pending`, or its burst.
    pub(super) since: Instant,
    /// When its wait ends.
    pub(super) deadline: Instant,
    /// Upstream time to first byte in microseconds, and who served it, when it was not sampled at once.
    pub(super) unsampled: Option<(u32, Option<LevelNumber>)>,
}

/// A slot and what the slab itself keeps of it.
#[derive(Debug)]
struct Entry {
    /// 0 while vacant.
    generation: u64,
    links: [Link; 2],
    slot: Slot,
}

/// Both ends of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) first: u32,
    last: u32,
    pub(super) len: u32,
}

impl Default for Ends {
    fn default() -> Self {
        Self { first: NIL, last: NIL, len: 0 }
    }
}

/// The slab.
#[derive(Debug)]
pub(super) struct Tickets {
    entries: Vec<Entry>,
    /// Vacant slots, linked by their time chain.
    vacant: u32,
    known: u32,
    limit: u32,
    generation: u64,
}

impl Tickets {
    /// A slab of at most `limit` requests; room for some thousands is taken at once.
    pub(super) fn new(limit: u32) -> Self {
        let room = limit.min(4096) as usize;
        Self {
            entries: Vec::with_capacity(room),
            vacant: NIL,
            known: 0,
            limit: limit.min(NIL - 1),
            generation: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.known >= self.limit
    }

    pub(super) fn known(&self) -> u32 {
        self.known
    }

    /// Takes in a request; the caller has asked [`Tickets::is_full`].
    pub(super) fn insert(&mut self, slot: Slot) -> Ticket {
        self.generation += 1;
        self.known += 1;
        let entry = Entry { generation: self.generation, links: [LOOSE; 2], slot };
        let index = self.vacant;
        if index == NIL {
            self.entries.push(entry);
            return Ticket { slot: self.entries.len() as u32 - 1, generation: self.generation };
        }
        self.vacant = self.next(index, Chain::Time);
        self.entries[index as usize] = entry;
        Ticket { slot: index, generation: self.generation }
    }

    /// Forgets a request; it must be in no chain.
    pub(super) fn remove(&mut self, index: u32) {
        let vacant = self.vacant;
        let entry = &mut self.entries[index as usize];
        entry.slot.phase = Phase::Vacant;
        entry.generation = 0;
        entry.links = [Link { previous: NIL, next: vacant }, LOOSE];
        self.vacant = index;
        self.known -= 1;
    }

    /// The slot of a ticket that is still valid.
    pub(super) fn resolve(&self, ticket: Ticket) -> Option<u32> {
        let entry = self.entries.get(ticket.slot as usize)?;
        (entry.generation == ticket.generation).then_some(ticket.slot)
    }

    pub(super) fn ticket(&self, index: u32) -> Ticket {
        Ticket { slot: index, generation: self.entries[index as usize].generation }
    }

    pub(super) fn push_back(&mut self, ends: &mut Ends, index: u32, chain: Chain) {
        let previous = ends.last;
        *self.link(index, chain) = Link { previous, next: NIL };
        match previous {
            NIL => ends.first = index,
            _ => self.link(previous, chain).next = index,
        }
        ends.last = index;
        ends.len += 1;
    }

    pub(super) fn unlink(&mut self, ends: &mut Ends, index: u32, chain: Chain) {
        let Link { previous, next } = std::mem::replace(self.link(index, chain), LOOSE);
        match previous {
            NIL => ends.first = next,
            _ => self.link(previous, chain).next = next,
        }
        match next {
            NIL => ends.last = previous,
            _ => self.link(next, chain).previous = previous,
        }
        ends.len -= 1;
    }

    /// The slot behind `index`, or [`NIL`].
    pub(super) fn next(&self, index: u32, chain: Chain) -> u32 {
        self.entries[index as usize].links[chain as usize].next
    }

    fn link(&mut self, index: u32, chain: Chain) -> &mut Link {
        &mut self.entries[index as usize].links[chain as usize]
    }
}

impl std::ops::Index<u32> for Tickets {
    type Output = Slot;

    fn index(&self, index: u32) -> &Slot {
        &self.entries[index as usize].slot
    }
}

impl std::ops::IndexMut<u32> for Tickets {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.entries[index as usize].slot
    }
}

impl Slot {
    /// Whether its time says something about the server under the limit.
    pub(super) fn is_judged(&self) -> bool {
        matches!(self.account, Account::Limited | Account::Shadow | Account::Open)
    }

    /// An admitted request of one seat under the limit; the caller fills in what differs.
    pub(super) fn new(arrival: &super::decision::Arrival, account: Account, now: Instant) -> Self {
        Self {
            phase: Phase::Pending,
            account,
            lane: arrival.lane,
            kind: arrival.kind,
            key: arrival.key,
            client: arrival.client,
            flow: arrival.flow,
            seats: Seats::ONE,
            heavy: false,
            lent: false,
            is_reset: false,
            size: Size::default(),
            coming: Coming::Stranger,
            queue: 0,
            kind_turn: 0,
            charged: SeatSeconds::ZERO,
            work: SeatSeconds::ZERO,
            admitted: now,
            since: now,
            deadline: now,
            unsampled: None,
        }
    }
}
