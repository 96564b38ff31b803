//! The life of a request: arrive, first byte, end; see the module header for the theory.
//!
//! Every path that gives seats back ends in `dispatch`, so that nobody waits beside free seats.

use std::time::Duration;

use super::clients::Clients;
use super::decision::{Arrival, Decision, End, Kind, Outcome, Reason, Refusal, Ticket, Verdict};
use super::estimate::Estimates;
use super::lanes::LaneState;
use super::limit::Limit;
use super::pressure::{Losses, Pressure};
use super::random::Random;
use super::recovery::Recovery;
use super::retry::Retry;
use super::seats::{HEAVY_SEATS, Ledger, Need};
use super::settings::Settings;
use super::snapshot::{LaneSnapshot, Snapshot};
use super::tickets::{Account, Chain, Ends, Phase, Slot, Tickets};
use crate::policy::Lane;
use crate::units::{Instant, SeatSeconds, Seats};

/// Decides, for one apiserver, who goes on, who waits and who is told when to come back.
///
/// ```
/// use spillway::flow::{Arrival, Decision, Encoding, End, Key, Kind, Outcome, Scheduler, Settings};
/// use spillway::policy::Lane;
/// use spillway::request::{DecodedPath, RequestInfo};
/// use spillway::units::{Instant, Seats};
///
/// let now = Instant::ORIGIN;
/// let mut scheduler = Scheduler::new(Settings::default(), 1, now);
/// let path = DecodedPath::new("/api/v1/pods")?;
/// let key = Key::of(&RequestInfo::new("GET", &path, None)?, Encoding::Json);
/// let arrival = Arrival { lane: Lane::Telemetry, flow: 7, client: 7, key, kind: Kind::Short, exempt: false };
///
/// // A LIST of all pods, never seen before, is expected to take 10 seats; a second one at once is too much.
/// let Decision::Admit(ticket) = scheduler.arrive(now, &arrival) else { panic!("an idle server admits") };
/// assert_eq!(scheduler.snapshot(now).used, Seats(10));
/// let Decision::Shed(refusal) = scheduler.arrive(now, &arrival) else { panic!("heavy requests share a budget") };
/// assert_eq!(refusal.reason.as_str(), "lane_concurrency");
/// assert!(refusal.retry_after_seconds >= 1);
///
/// scheduler.finish(now, ticket, Outcome { end: End::Success, bytes: 4_000_000 });
/// assert_eq!(scheduler.snapshot(now).used, Seats::ZERO);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    pub(super) lanes: [LaneState; Lane::COUNT],
    pub(super) clients: Clients,
    pub(super) tickets: Tickets,
    pub(super) estimates: Estimates,
    pub(super) pressure: Pressure,
    pub(super) limit: Limit,
    pub(super) recovery: Recovery,
    pub(super) random: Random,
    /// Admitted requests without a first byte, oldest first.
    pub(super) pending: Ends,
    /// Watches in their first burst, oldest first.
    pub(super) bursting: Ends,
    /// Requests that wait, in all lanes.
    pub(super) waiting: u32,
    pub(super) verdicts: Vec<(Ticket, Verdict)>,
    pub(super) losses: Losses,
    /// Somebody wanted seats and got none since the last tick.
    pub(super) unmet: bool,
    /// The last tick cut the limit.
    pub(super) cutting: bool,
    /// When somebody was last refused, or made to wait, for want of seats.
    pub(super) short_of_seats: Option<Instant>,
    pub(super) tick: u32,
    exempt: u32,
    break_glass: Seats,
}

/// Why a request cannot enter, and how long its own rate makes it wait.
struct Refused(Reason, Option<Duration>);

impl Scheduler {
    /// A scheduler for an apiserver of which nothing is known yet. Equal seeds and calls give equal answers.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        let limit = Limit::new(&settings.limit);
        let mut ledger = Ledger::new();
        ledger.resize(limit.seats(), &settings.lanes, settings.heavy_percent);
        Self {
            ledger,
            lanes: Lane::ALL.map(|lane| LaneState::new(lane, &settings.lanes[lane.index()], now)),
            clients: Clients::new(),
            tickets: Tickets::new(settings.tickets),
            estimates: Estimates::new(),
            pressure: Pressure::new(),
            recovery: Recovery::new(&limit, now),
            limit,
            random: Random::new(seed),
            pending: Ends::default(),
            bursting: Ends::default(),
            waiting: 0,
            verdicts: Vec::with_capacity(256),
            losses: Losses::default(),
            unmet: false,
            cutting: false,
            short_of_seats: None,
            tick: 0,
            exempt: 0,
            break_glass: Seats::ZERO,
            settings,
        }
    }

    /// A request arrives: forward it, hold it, or refuse it.
    pub fn arrive(&mut self, now: Instant, arrival: &Arrival) -> Decision {
        self.expire(now);
        let entered = if self.tickets.is_full() {
            Err(Refused(Reason::GlobalLimit, None))
        } else if arrival.exempt {
            self.enter_exempt(now, arrival)
        } else if arrival.lane == Lane::BreakGlass {
            self.enter_break_glass(now, arrival)
        } else {
            self.enter(now, arrival)
        };
        entered.unwrap_or_else(|Refused(reason, wait)| {
            Decision::Shed(self.refuse(now, arrival.lane, arrival.flow, reason, wait))
        })
    }

    fn enter_exempt(&mut self, now: Instant, arrival: &Arrival) -> Result<Decision, Refused> {
        if self.exempt >= self.settings.exempt_requests {
            return Err(Refused(Reason::GlobalLimit, None));
        }
        self.exempt += 1;
        Ok(self.admit_outside(Slot { seats: Seats::ZERO, ..Slot::new(arrival, Account::Exempt, now) }))
    }

    fn enter_break_glass(&mut self, now: Instant, arrival: &Arrival) -> Result<Decision, Refused> {
        let seats = self.estimates.estimate(&arrival.key).seats;
        if self.break_glass + seats > self.settings.break_glass_seats {
            return Err(Refused(Reason::LaneConcurrency, None));
        }
        self.break_glass += seats;
        Ok(self.admit_outside(Slot { seats, ..Slot::new(arrival, Account::BreakGlass, now) }))
    }

    fn admit_outside(&mut self, slot: Slot) -> Decision {
        let lane = &mut self.lanes[slot.lane.index()];
        lane.admitted += 1;
        lane.begin(slot.kind);
        let ticket = self.tickets.insert(slot);
        self.tickets.push_back(&mut self.pending, ticket.slot, Chain::Time);
        Decision::Admit(ticket)
    }

    fn enter(&mut self, now: Instant, arrival: &Arrival) -> Result<Decision, Refused> {
        let lane = arrival.lane;
        if !self.recovery.is_open(lane, &self.limit, now) {
            return Err(Refused(self.shortage(), None));
        }
        if let Some(rates) = &mut self.lanes[lane.index()].rates {
            rates.check(arrival.client, now).map_err(|wait| Refused(Reason::IdentityRate, Some(wait)))?;
        }
        let streams = self.lanes[lane.index()].streams;
        if arrival.kind == Kind::Streaming && streams >= self.settings.streams_per_lane {
            return Err(Refused(Reason::LaneConcurrency, None));
        }
        let slot = self.slot(now, arrival);
        let queues = self.lanes[lane.index()].queues(slot.heavy);
        if queues.is_empty() && self.may_go(&slot, now) {
            let ticket = self.tickets.insert(slot);
            self.admit(now, ticket.slot);
            return Ok(Decision::Admit(ticket));
        }
        self.unmet = true;
        self.short_of_seats = Some(now);
        self.wait(now, slot)
    }

    /// The request with its estimate.
    fn slot(&self, now: Instant, arrival: &Arrival) -> Slot {
        let (seats, work) = match arrival.kind {
            // The apiserver only sets up a session; what it carries costs bytes, not seats.
            Kind::Streaming => (Seats::ONE, SeatSeconds::ZERO),
            Kind::Short | Kind::Watch => {
                let estimate = self.estimates.estimate(&arrival.key);
                (estimate.seats, estimate.work)
            }
        };
        Slot {
            seats: self.ledger.charge(arrival.lane, seats),
            heavy: seats >= HEAVY_SEATS && (arrival.lane > Lane::Operators || arrival.key.is_cluster_list()),
            work,
            ..Slot::new(arrival, Account::Limited, now)
        }
    }

    fn wait(&mut self, now: Instant, slot: Slot) -> Result<Decision, Refused> {
        let lane = slot.lane;
        let settings = &self.settings.lanes[lane.index()];
        if settings.wait.is_zero() || settings.queue_limit == 0 {
            return Err(Refused(self.shortage(), None));
        }
        if self.lanes[lane.index()].waiting() >= settings.queue_limit {
            return Err(Refused(Reason::QueueFull, None));
        }
        self.clients.wait(lane, slot.client);
        let deadline = now + settings.wait;
        let ticket = self.tickets.insert(Slot { phase: Phase::Waiting, deadline, ..slot });
        self.lanes[lane.index()].join(&mut self.tickets, ticket.slot);
        self.waiting += 1;
        // Its arrival makes the lane contended, and may be just what lets another, or itself, go.
        let verdicts = self.verdicts.len();
        self.dispatch_lane(now, lane);
        if self.tickets[ticket.slot].phase == Phase::Waiting {
            return Ok(Decision::Wait(ticket));
        }
        if let Some(own) = (verdicts..self.verdicts.len()).find(|&at| self.verdicts[at].0 == ticket) {
            self.verdicts.remove(own);
        }
        Ok(Decision::Admit(ticket))
    }

    /// Why there are no seats.
    fn shortage(&self) -> Reason {
        use super::recovery::State;
        match self.recovery.state() {
            State::Normal => Reason::LaneConcurrency,
            State::Brown | State::Red => Reason::OverloadLevel,
            State::Cold | State::Ramp => Reason::UpstreamUnavailable,
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Instant,
        lane: Lane,
        flow: u64,
        reason: Reason,
        wait: Option<Duration>,
    ) -> Refusal {
        if reason == Reason::OverloadLevel {
            self.short_of_seats = Some(now);
        }
        let state = &mut self.lanes[lane.index()];
        state.shed[reason.index()] += 1;
        let retry_after_seconds = match wait {
            Some(wait) => Retry::refused_for(wait, &mut self.random),
            None => state.retry.refused(flow, &mut self.random),
        };
        Refusal { reason, retry_after_seconds }
    }

    /// The apiserver's answer began. Call it for answers that the apiserver worked for, not for its own refusals
    /// (429, 503): they come quickly and would make it look well.
    pub fn first_byte(&mut self, now: Instant, ticket: Ticket) {
        let Some(index) = self.tickets.resolve(ticket) else { return };
        if self.tickets[index].phase != Phase::Pending {
            return;
        }
        self.tickets.unlink(&mut self.pending, index, Chain::Time);
        self.sample_first_byte(now, index);
        match self.tickets[index].kind {
            Kind::Short => self.tickets[index].phase = Phase::Answering,
            Kind::Watch => {
                let slot = &mut self.tickets[index];
                (slot.phase, slot.since) = (Phase::Bursting, now);
                self.tickets.push_back(&mut self.bursting, index, Chain::Time);
            }
            Kind::Streaming => {
                self.tickets[index].phase = Phase::LongRunning;
                self.release(now, index);
                self.dispatch(now);
            }
        }
    }

    /// A watch has delivered its first burst (nothing more was ready to send): it gives its seats back.
    pub fn burst_done(&mut self, now: Instant, ticket: Ticket) {
        let Some(index) = self.tickets.resolve(ticket) else { return };
        if self.tickets[index].phase == Phase::Bursting {
            self.end_burst(now, index);
            self.dispatch(now);
        }
    }

    /// The request is over. Further calls with this ticket do nothing.
    pub fn finish(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) {
        let Some(index) = self.tickets.resolve(ticket) else { return };
        let slot = &self.tickets[index];
        let has_answered = slot.phase != Phase::Waiting;
        if has_answered && slot.account == Account::Limited {
            self.losses.ended += 1;
            self.losses.lost += u32::from(outcome.end == End::Dropped);
            if outcome.end == End::Success {
                self.learn(now, index, outcome.bytes);
            }
        }
        self.forget(now, index);
        self.dispatch(now);
    }

    /// The request went away before it was over, or its guard was dropped. Says nothing about the apiserver.
    pub fn cancel(&mut self, now: Instant, ticket: Ticket) {
        self.finish(now, ticket, Outcome { end: End::Ignored, bytes: 0 });
    }

    /// Moves what became of waiting requests to the end of `into`: at most one verdict for each that waited.
    pub fn take_verdicts(&mut self, into: &mut Vec<(Ticket, Verdict)>) {
        into.append(&mut self.verdicts);
    }

    /// Whether [`Scheduler::take_verdicts`] has anything to give.
    #[must_use]
    pub fn has_verdicts(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// Whether a request may take its seats now: its lane is open, they fit, and its client has not its part.
    pub(super) fn may_go(&self, slot: &Slot, now: Instant) -> bool {
        self.recovery.is_open(slot.lane, &self.limit, now)
            && self.ledger.fits(Need::of(slot), true)
            && !self.is_capped(slot)
    }

    /// While a lane is contended, one client has at most its percentage of it. Contended means that somebody else
    /// waits in it, or that the limit is being cut; an idle server serves a lone client all it wants.
    pub(super) fn is_capped(&self, slot: &Slot) -> bool {
        let waiting = self.lanes[slot.lane.index()].waiting();
        if !self.cutting && waiting == 0 {
            return false;
        }
        let client = self.clients.of(slot.lane, slot.client);
        let contended = self.cutting || waiting > client.waiting;
        if !contended || client.seats == 0 {
            return false;
        }
        let share = self.ledger.share(slot.lane);
        // At least the floor: a lone operator keeps the lane's eight seats while everything else is cut.
        let cap = (share.ceiling * self.settings.client_percent).div_ceil(100).max(share.floor);
        client.seats + slot.seats.0 > cap
    }

    /// Gives a request its seats; it is in no chain.
    pub(super) fn admit(&mut self, now: Instant, index: u32) {
        let slot = &mut self.tickets[index];
        (slot.phase, slot.since) = (Phase::Pending, now);
        self.ledger.take(Need::of(slot));
        self.clients.take(slot.lane, slot.client, slot.seats);
        let lane = &mut self.lanes[slot.lane.index()];
        lane.admitted += 1;
        lane.begin(slot.kind);
        lane.retry.admitted();
        self.tickets.push_back(&mut self.pending, index, Chain::Time);
    }

    /// Takes a request's seats back and corrects what its flow was charged.
    fn release(&mut self, now: Instant, index: u32) {
        let slot = &mut self.tickets[index];
        let seats = std::mem::take(&mut slot.seats);
        let need = Need { seats, ..Need::of(slot) };
        match slot.account {
            Account::Exempt => {}
            Account::BreakGlass => self.break_glass = self.break_glass.saturating_sub(seats),
            Account::Limited if seats == Seats::ZERO => {}
            Account::Limited => {
                self.ledger.give_back(need);
                self.clients.give_back(slot.lane, slot.client, seats);
                if slot.charged > SeatSeconds::ZERO {
                    // A victim of congestion is not billed for it: time counts as it would have passed in calm.
                    let held = now.since(slot.since).div_f64(self.pressure.value().max(1.0));
                    let queues = self.lanes[slot.lane.index()].queues_mut(slot.heavy);
                    queues.settle(slot.queue, slot.charged, seats.held_for(held));
                }
            }
        }
    }

    pub(super) fn end_burst(&mut self, now: Instant, index: u32) {
        self.tickets.unlink(&mut self.bursting, index, Chain::Time);
        self.tickets[index].phase = Phase::LongRunning;
        self.release(now, index);
    }

    fn sample_first_byte(&mut self, now: Instant, index: u32) {
        let slot = &mut self.tickets[index];
        if slot.account != Account::Limited {
            return;
        }
        let micros = u32::try_from(now.since(slot.since).as_micros()).unwrap_or(u32::MAX);
        match self.estimates.place(&slot.key) {
            Some(place) => self.estimates.sample(place, slot.key.shape, micros, self.tick),
            // Not known yet: whether it may have a place is known when it ends well.
            None => slot.unsampled = Some(micros),
        }
    }

    /// A request ended well: its size and, if it was not sampled yet, its time are learnt.
    fn learn(&mut self, now: Instant, index: u32, bytes: u64) {
        if self.tickets[index].phase == Phase::Pending {
            self.sample_first_byte(now, index);
        }
        let (kind, key, unsampled) = {
            let slot = &mut self.tickets[index];
            (slot.kind, slot.key, slot.unsampled.take())
        };
        // What a watch or session carried in its life is not what its start costs.
        self.estimates.succeeded(&key, (kind == Kind::Short).then_some(bytes), self.tick);
        if let Some(micros) = unsampled {
            let place = self.estimates.place_or_shape(&key);
            self.estimates.sample(place, key.shape, micros, self.tick);
        }
    }

    /// Removes a request from wherever it is.
    pub(super) fn forget(&mut self, now: Instant, index: u32) {
        let (phase, lane, client) = {
            let slot = &self.tickets[index];
            (slot.phase, slot.lane, slot.client)
        };
        if phase == Phase::Waiting {
            self.lanes[lane.index()].leave(&mut self.tickets, index);
            self.clients.stop_waiting(lane, client);
            self.waiting -= 1;
            self.tickets.remove(index);
            return;
        }
        match phase {
            Phase::Pending => self.tickets.unlink(&mut self.pending, index, Chain::Time),
            Phase::Bursting => self.tickets.unlink(&mut self.bursting, index, Chain::Time),
            _ => {}
        }
        self.release(now, index);
        let slot = &self.tickets[index];
        self.exempt -= u32::from(slot.account == Account::Exempt);
        self.lanes[lane.index()].end(slot.kind);
        self.tickets.remove(index);
    }

    /// What the scheduler looks like now.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let lanes = Lane::ALL.map(|lane| {
            let (state, used, share) =
                (&self.lanes[lane.index()], self.ledger.lane(lane), self.ledger.share(lane));
            LaneSnapshot {
                seats: if lane == Lane::BreakGlass { self.break_glass } else { Seats(used.seats) },
                executing: used.requests,
                waiting: state.waiting(),
                ceiling: Seats(share.ceiling),
                floor: Seats(share.floor),
                open: self.recovery.is_open(lane, &self.limit, now),
                watches: state.watches,
                streams: state.streams,
                admitted: state.admitted,
                shed: state.shed,
            }
        });
        Snapshot {
            state: self.recovery.state(),
            limit: self.limit.seats(),
            pressure: self.pressure.value(),
            used: self.ledger.used(),
            heavy: self.ledger.heavy(),
            exempt: self.exempt,
            baselines: self.estimates.baselines(),
            tickets: self.tickets.known(),
            lanes,
        }
    }
}

impl Need {
    pub(super) fn of(slot: &Slot) -> Self {
        Self { lane: slot.lane, seats: slot.seats, heavy: slot.heavy }
    }
}
