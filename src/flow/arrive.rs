//! May this request enter, must it wait, or is it refused?
//!
//! In this order: a bound of the process, its own memory, the lane's state, the identity's rate, the counts of watches
//! and sessions, then seats, the heavy budget with its pace, and the apiserver's memory.
//! Whoever finds requests of its lane and weight waiting joins them, or waiting would be a punishment for having come
//! first.

use std::time::Duration;

use super::decision::{Arrival, Decision, Kind, Reason, Refusal};
use super::estimate::Estimate;
use super::lanes::Patience;
use super::memory::{self, Size};
use super::queue::kind_of;
use super::recovery::State;
use super::retry::{After, Retry, Told};
use super::returns::{Coming, Returns};
use super::scheduler::Scheduler;
use super::seats::{HEAVY_SEATS, Need};
use super::tickets::{Account, Chain, Phase, Slot};
use crate::policy::Lane;
use crate::units::{Instant, SeatSeconds, Seats};

/// Why a request cannot enter, and when it may.
pub(super) struct Refused(pub(super) Reason, pub(super) After);

impl From<(Reason, Option<Duration>)> for Refused {
    fn from((reason, wait): (Reason, Option<Duration>)) -> Self {
        Self(reason, wait.map_or(After::Book, After::Rate))
    }
}

impl Scheduler {
    /// A request arrives: forward it, hold it, or refuse it.
    pub fn arrive(&mut self, now: Instant, arrival: &Arrival) -> Decision {
        let now = self.no_earlier(now);
        self.expire(now);
        let mut slot = self.slot(now, arrival);
        let entered = if self.tickets.is_full() {
            Err(Refused(Reason::GlobalLimit, After::Book))
        } else {
            match slot.account {
                Account::Exempt => self.enter_exempt(slot.clone()),
                Account::BreakGlass => self.enter_break_glass(slot.clone()),
                // Only what was let in already is on these.
                Account::Shadow | Account::Open => Err(Refused(Reason::GlobalLimit, After::Book)),
                Account::Limited => {
                    if is_watched(&slot) {
                        slot.coming = self.returns.arrived(now, slot.flow, slot.key.exact);
                    }
                    self.enter(now, slot.clone())
                }
            }
        };
        entered.unwrap_or_else(|Refused(reason, after)| {
            let mut refusal = self.refuse(now, &slot, reason, after);
            if let Coming::Early(level) = slot.coming {
                refusal.hold = self.returns.hold(level, &self.settings.hold);
            }
            Decision::Shed(refusal)
        })
    }

    fn enter_exempt(&mut self, slot: Slot) -> Result<Decision, Refused> {
        if self.exempt >= self.settings.exempt_requests {
            return Err(Refused(Reason::GlobalLimit, After::Book));
        }
        self.exempt += 1;
        Ok(self.admit_outside(slot))
    }

    fn enter_break_glass(&mut self, slot: Slot) -> Result<Decision, Refused> {
        if self.break_glass + slot.seats > self.settings.break_glass_seats {
            return Err(Refused(Reason::LaneConcurrency, After::Book));
        }
        self.break_glass += slot.seats;
        Ok(self.admit_outside(slot))
    }

    fn admit_outside(&mut self, slot: Slot) -> Decision {
        let lane = &mut self.lanes[slot.lane.index()];
        lane.admitted += 1;
        lane.begin(slot.kind);
        let ticket = self.tickets.insert(slot);
        self.tickets.push_back(&mut self.pending, ticket.slot, Chain::Time);
        Decision::Admit(ticket)
    }

    pub(super) fn enter(&mut self, now: Instant, slot: Slot) -> Result<Decision, Refused> {
        let lane = slot.lane;
        if self.own_memory.refuses(lane) {
            return Err(Refused(Reason::OwnMemory, After::Book));
        }
        if !self.recovery.is_open(lane, &self.limit, now) {
            return Err(Refused(self.closed(), After::Book));
        }
        if !self.warming.is_empty() && slot.key.is_read() && lane != Lane::Operators {
            let passed = self.warming.pass(slot.key.resource, now);
            passed.map_err(|wait| Refused(Reason::ResourceWarming, After::Rate(wait)))?;
        }
        if let Some(rates) = &mut self.lanes[lane.index()].rates {
            rates.check(slot.flow, now).map_err(|wait| Refused(Reason::IdentityRate, After::Rate(wait)))?;
        }
        let live = self.lanes[lane.index()].live(slot.kind);
        self.watches.may_live(&self.settings, (lane, slot.flow, slot.kind), live)?;
        let works = self.works(&slot, now)?;
        if slot.heavy {
            // A pause may have ended since anybody looked: whoever waits was first.
            self.dispatch(now);
        }
        let queues = self.lanes[lane.index()].queues(slot.heavy);
        if (queues.is_empty() || self.is_first(&slot)) && self.may_go(&slot, now) {
            self.may_start(now, &slot)?;
            let ticket = self.tickets.insert(slot);
            self.admit(now, ticket.slot);
            if works {
                self.cohorts.came(false);
            }
            return Ok(Decision::Admit(ticket));
        }
        if !slot.heavy {
            self.demand.light_unmet = true;
        } else if self.fits(&slot, now) != Err(Reason::MemoryBudget) {
            // Who waits for memory, or for what the first answer of its kind will teach, would gain nothing from seats.
            self.demand.heavy_unmet = true;
        }
        self.short_of_seats = Some(now);
        if works {
            // Its turn is now, and fewer will share it in a moment: an appointment would fall into others' turn.
            self.cohorts.came(true);
            return Err(Refused(self.shortage(), After::Turn(Duration::ZERO)));
        }
        if matches!(slot.coming, Coming::Early(level) if Returns::is_penalised(level)) {
            self.returns.penalised += 1;
            return Err(Refused(Reason::EarlyReturn, After::Book));
        }
        self.wait(now, slot)
    }

    /// Whether the cohort of a light telemetry request works now, and so counts. One of another cohort is let in only
    /// where seats would idle.
    fn works(&mut self, slot: &Slot, now: Instant) -> Result<bool, Refused> {
        if slot.lane != Lane::Telemetry || slot.heavy || !self.settings.laws.cohorts {
            return Ok(false);
        }
        let wait = self.cohorts.waits(slot.client, slot.flow, now);
        if wait.is_zero() || self.ledger.has_spare(slot.lane, slot.seats) {
            return Ok(wait.is_zero());
        }
        self.short_of_seats = Some(now);
        self.demand.light_unmet = true;
        Err(Refused(self.shortage(), After::Turn(wait)))
    }

    /// The request with its estimate.
    pub(super) fn slot(&self, now: Instant, arrival: &Arrival) -> Slot {
        if arrival.exempt {
            return Slot { seats: Seats::ZERO, ..Slot::new(arrival, Account::Exempt, now) };
        }
        let Estimate { seats, work } = match arrival.kind {
            // The apiserver only sets up a session; what it carries costs bytes, not seats.
            Kind::Streaming => Estimate { seats: Seats::ONE, work: SeatSeconds::ZERO },
            Kind::Short | Kind::Watch => self.estimates.estimate(&arrival.key),
        };
        if arrival.lane == Lane::BreakGlass {
            return Slot { seats, ..Slot::new(arrival, Account::BreakGlass, now) };
        }
        let size = match arrival.kind {
            Kind::Streaming => Size::default(),
            Kind::Short | Kind::Watch => memory::expected(&self.estimates, &arrival.key),
        };
        let is_guarded = arrival.lane > Lane::Operators || arrival.key.is_cluster_list();
        let heavy = size.bytes > 0 || seats >= HEAVY_SEATS && is_guarded;
        Slot {
            seats: self.ledger.charge(arrival.lane, seats),
            heavy,
            size,
            kind_turn: kind_of(arrival.key.exact, heavy),
            work,
            ..Slot::new(arrival, Account::Limited, now)
        }
    }

    fn wait(&mut self, now: Instant, slot: Slot) -> Result<Decision, Refused> {
        let lane = slot.lane;
        let patience = Patience::of(&self.settings.lanes[lane.index()], lane, slot.heavy);
        if patience.wait.is_zero() || patience.room == 0 {
            return Err(Refused(self.fits(&slot, now).err().unwrap_or(self.shortage()), After::Book));
        }
        if !self.lanes[lane.index()].has_room(patience, (slot.heavy, slot.kind_turn), slot.coming) {
            return Err(Refused(self.full(lane), After::Book));
        }
        self.may_start(now, &slot)?;
        // Not whoever has its part already: its waiting would keep the lane contended for ever.
        if self.ledger.lane(lane).seats > self.clients.of(lane, slot.client).seats
            && !self.is_capped(&slot, now)
        {
            self.lanes[lane.index()].contend(now);
        }
        self.clients.wait(lane, slot.client);
        let deadline = now + patience.wait;
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

    /// A watch starts: its lane's bucket has the last word, because a start that anything else refuses is none.
    fn may_start(&self, now: Instant, slot: &Slot) -> Result<(), Refused> {
        if slot.kind != Kind::Watch {
            return Ok(());
        }
        Ok(self.watches.may_start(slot.lane, now)?)
    }

    /// Why nobody more may wait: of the low lanes it is overload, not a queue that is too short.
    pub(super) fn full(&self, lane: Lane) -> Reason {
        match self.settings.lanes[lane.index()].queue_limit {
            0 => self.shortage(),
            _ => Reason::QueueFull,
        }
    }

    /// Why a lane is closed.
    pub(super) fn closed(&self) -> Reason {
        match self.recovery.state() {
            State::Red => Reason::OverloadLevel,
            _ => Reason::UpstreamUnavailable,
        }
    }

    /// Why there are no seats.
    pub(super) fn shortage(&self) -> Reason {
        match self.recovery.state() {
            State::Normal => Reason::LaneConcurrency,
            State::Brown | State::Red => Reason::OverloadLevel,
            State::Cold | State::Ramp => Reason::UpstreamUnavailable,
        }
    }

    pub(super) fn refuse(&mut self, now: Instant, slot: &Slot, reason: Reason, after: After) -> Refusal {
        if reason == Reason::OverloadLevel {
            self.short_of_seats = Some(now);
        }
        let told = match slot.coming {
            _ if !self.recovery.is_open(slot.lane, &self.limit, now) => Told::Closed,
            Coming::Early(_) => Told::Again,
            Coming::Stranger => Told::New,
            Coming::Kept => Told::InVain,
        };
        let lane = &mut self.lanes[slot.lane.index()];
        lane.shed[reason.index()] += 1;
        let retry_after_seconds = match after {
            After::Rate(wait) => Retry::refused_for(wait, &mut self.random),
            After::Turn(wait) => Retry::refused_until(wait, &mut self.random),
            After::Book => lane.retry.refused(slot.heavy, told, &mut self.random),
        };
        if is_watched(slot) {
            let after = Duration::from_secs(retry_after_seconds.into());
            self.returns.told(now, (slot.flow, slot.key.exact), after);
        }
        Refusal::now(reason, retry_after_seconds)
    }

    /// Whether a request may take its seats now: its lane is open, they fit, and its client has not its part.
    pub(super) fn may_go(&self, slot: &Slot, now: Instant) -> bool {
        self.recovery.is_open(slot.lane, &self.limit, now)
            && self.fits(slot, now).is_ok()
            && !self.is_capped(slot, now)
    }

    /// Whether a request's seats are free, its turn is not paused and its answer has memory; else what is short.
    pub(super) fn fits(&self, slot: &Slot, now: Instant) -> Result<(), Reason> {
        let need = Need::of(slot);
        // People are few: they count against the pace and the budget, and are not held back by them.
        let is_paced = slot.heavy && slot.lane != Lane::Operators && self.pace.is_paced();
        if is_paced && (self.ledger.heavy() > Seats::ZERO || !self.pace.is_open(now)) {
            return Err(self.shortage());
        }
        if !(self.ledger.fits(need, true) || self.is_first(slot) && self.ledger.fits_a_person(need)) {
            return Err(self.shortage());
        }
        // A large answer of a higher lane that waits for memory would else wait for ever, beside smaller ones.
        let mut above = self.lanes[..slot.lane.index()].iter();
        let is_behind =
            slot.size.bytes > 0 && slot.lane != Lane::Operators && above.any(|lane| lane.has_heavy());
        if is_behind || !self.ledger.memory.fits(slot.lane, slot.size) {
            return Err(Reason::MemoryBudget);
        }
        Ok(())
    }

    /// Who has nothing running in the operators' lane is let in beside whoever fills it, and past whoever waits in it: the
    /// others may be a robot with an administrator's certificate.
    pub(super) fn is_first(&self, slot: &Slot) -> bool {
        slot.lane == Lane::Operators && self.clients.of(slot.lane, slot.client).seats == 0
    }

    /// While a lane is contended, one client has at most its percentage of it. Contended means that somebody waits in it
    /// beside others, or did a moment ago, or that the limit is being cut; an idle server serves a lone client all it wants.
    pub(super) fn is_capped(&self, slot: &Slot, now: Instant) -> bool {
        let lane = &self.lanes[slot.lane.index()];
        let client = self.clients.of(slot.lane, slot.client);
        let others_wait = lane.waiting() > client.waiting;
        if client.seats == 0 || !(self.cutting || others_wait || lane.was_contended(now)) {
            return false;
        }
        if slot.heavy && slot.lane == Lane::Operators && others_wait {
            return true;
        }
        let share = self.ledger.share(slot.lane);
        // At least the floor: a lone operator keeps the lane's eight seats while everything else is cut. Beside others who
        // wait, half of it: where L is small the floor is more than a client's part, and all of it for one is none for them.
        let least = if others_wait { share.floor / 2 } else { share.floor };
        let cap = (share.ceiling * self.settings.client_percent).div_ceil(100).max(least);
        client.seats + slot.seats.0 > cap
    }
}

/// Whether its client's appointments are kept. Leases, controllers and people are told a second or two, and never wait
/// longer than that for having come early.
fn is_watched(slot: &Slot) -> bool {
    match slot.lane {
        Lane::BreakGlass | Lane::NodeHealth | Lane::ControlPlane | Lane::Operators => false,
        Lane::Platform => slot.heavy,
        Lane::Workload | Lane::Unknown | Lane::Telemetry => slot.account == Account::Limited,
    }
}
