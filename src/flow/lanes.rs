//! What does the scheduler keep for one lane?
//!
//! Its waiters (in order of deadline, and in fair queues of two weight classes), its counters and the rates of its
//! clients. Two classes, because heavy requests wait for the heavy budget: in one queue they would stand
//! before light ones that have seats.
//!
//! Heavy requests have a waiting room in every lane, also where light ones are refused at once. Without one, telemetry
//! is a loss system with a single server: at an offered load of one it uses half of its budget, and more use costs more
//! attempts for each success (Erlang's B formula). Places for a few bring it to nine tenths at
//! the same load.

use std::time::Duration;

use super::decision::{Kind, Reason};
use super::queue::FairQueues;
use super::rate::Rates;
use super::retry::Retry;
use super::returns::Coming;
use super::tickets::{Chain, Ends, NIL, Tickets};
use crate::policy::{Lane, LaneSettings};
use crate::units::Instant;

/// How long a heavy request waits at least: several turns of a small server, which runs one at a time with pauses, and
/// far below the patience of any LIST (client-go's informers have none, kubectl's is its user's).
const HEAVY_WAIT: Duration = Duration::from_secs(4);
/// Places for heavy requests that every lane has at least.
const HEAVY_ROOM: u32 = 16;
/// One kind of call takes at most this part of a lane's places for heavy requests.
const ROOM_OF_ONE_KIND: u32 = 2;
/// Who has no appointment takes at most this part of the places of its kind: whoever was just served would else come
/// back at once and take the place of one that waited as it was told.
const ROOM_OF_STRANGERS: u32 = 4;
/// For so long after somebody waited beside others the lane counts as contended: a client that fills it whenever nobody
/// waits is what they wait for the next time.
const CONTENDED: Duration = Duration::from_secs(2);
/// What part of a lane's queue heavy requests may fill.
const HEAVY_PART: u32 = 4;

/// How long a request may wait, and how many of its weight class may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) wait: Duration,
    pub(super) room: u32,
}

impl Patience {
    pub(super) fn of(settings: &LaneSettings, lane: Lane, heavy: bool) -> Self {
        let light = Self { wait: settings.wait, room: settings.queue_limit };
        // People do not wait for the budget, and a prompt that hangs for longer than two seconds looks dead.
        if !heavy || lane == Lane::Operators {
            return light;
        }
        Self { wait: light.wait.max(HEAVY_WAIT), room: (light.room / HEAVY_PART).max(HEAVY_ROOM) }
    }
}

/// The moving parts of one lane.
#[derive(Debug)]
pub(super) struct LaneState {
    /// Waiting requests by deadline, light and heavy: within a class all wait equally long, so by arrival.
    waiting: [Ends; 2],
    light: FairQueues,
    heavy: FairQueues,
    pub(super) rates: Option<Rates>,
    pub(super) retry: Retry,
    pub(super) admitted: u64,
    pub(super) shed: [u64; Reason::COUNT],
    pub(super) watches: u32,
    pub(super) streams: u32,
    /// When somebody last waited in it while others had seats.
    contended: Option<Instant>,
}

impl LaneState {
    pub(super) fn new(lane: Lane, settings: &LaneSettings, now: Instant) -> Self {
        Self {
            waiting: [Ends::default(); 2],
            light: FairQueues::default(),
            heavy: FairQueues::default(),
            rates: settings.identity_rate.map(|rate| Rates::new(rate, now)),
            retry: Retry::new(lane),
            admitted: 0,
            shed: [0; Reason::COUNT],
            watches: 0,
            streams: 0,
            contended: None,
        }
    }

    /// Somebody waits while others have seats.
    pub(super) fn contend(&mut self, now: Instant) {
        self.contended = Some(now);
    }

    /// Whether somebody waited while others had seats, a moment ago.
    pub(super) fn was_contended(&self, now: Instant) -> bool {
        self.contended.is_some_and(|since| now.since(since) < CONTENDED)
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting[0].len + self.waiting[1].len
    }

    /// Whether one more of this weight and kind of call may wait.
    pub(super) fn has_room(&self, patience: Patience, (heavy, kind): (bool, u8), coming: Coming) -> bool {
        let waiting = self.waiting[usize::from(heavy)].len;
        let room = patience.room / ROOM_OF_ONE_KIND;
        let room = if coming == Coming::Kept { room } else { (room / ROOM_OF_STRANGERS).max(1) };
        waiting < patience.room && !(heavy && self.heavy.waiting_of(kind) >= room)
    }

    pub(super) fn queues(&self, heavy: bool) -> &FairQueues {
        if heavy { &self.heavy } else { &self.light }
    }

    pub(super) fn queues_mut(&mut self, heavy: bool) -> &mut FairQueues {
        if heavy { &mut self.heavy } else { &mut self.light }
    }

    /// A request begins to wait.
    pub(super) fn join(&mut self, tickets: &mut Tickets, index: u32) {
        let heavy = tickets[index].heavy;
        self.queues_mut(heavy).join(tickets, index);
        tickets.push_back(&mut self.waiting[usize::from(heavy)], index, Chain::Time);
    }

    /// A waiting request goes, and its flow pays.
    pub(super) fn go(&mut self, tickets: &mut Tickets, index: u32) {
        let (work, heavy) = (tickets[index].work, tickets[index].heavy);
        self.queues_mut(heavy).go(tickets, index);
        tickets[index].charged = work;
        tickets.unlink(&mut self.waiting[usize::from(heavy)], index, Chain::Time);
    }

    /// A waiting request leaves without having gone.
    pub(super) fn leave(&mut self, tickets: &mut Tickets, index: u32) {
        let heavy = tickets[index].heavy;
        self.queues_mut(heavy).leave(tickets, index);
        tickets.unlink(&mut self.waiting[usize::from(heavy)], index, Chain::Time);
    }

    /// The request whose wait ends first, with that end.
    pub(super) fn oldest(&self, tickets: &Tickets) -> Option<(u32, Instant)> {
        let ends = self.waiting.iter().filter(|ends| ends.first != NIL);
        ends.map(|ends| (ends.first, tickets[ends.first].deadline)).min_by_key(|(_, deadline)| *deadline)
    }

    /// Whether a heavy request waits here.
    pub(super) fn has_heavy(&self) -> bool {
        self.waiting[1].len > 0
    }

    /// New settings: nobody waits longer than they allow from `now` on.
    pub(super) fn reconfigure(
        &mut self,
        tickets: &mut Tickets,
        (old, new): (&LaneSettings, &LaneSettings),
        (lane, now): (Lane, Instant),
    ) {
        for (heavy, ends) in [false, true].into_iter().zip(self.waiting) {
            let latest = now + Patience::of(new, lane, heavy).wait;
            let mut index = ends.first;
            while index != NIL {
                let slot = &mut tickets[index];
                slot.deadline = slot.deadline.min(latest);
                index = tickets.next(index, Chain::Time);
            }
        }
        if old.identity_rate != new.identity_rate {
            self.rates = new.identity_rate.map(|rate| Rates::new(rate, now));
        }
    }

    /// How many long-running requests of a kind there are.
    pub(super) fn live(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Short => 0,
            Kind::Watch => self.watches,
            Kind::Streaming => self.streams,
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
