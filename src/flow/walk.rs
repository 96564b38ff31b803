//! What would the scheduler say to this request, gate by gate, and with which numbers?
//!
//! For `explain`: the gates of [`Scheduler::arrive`] in their order, asked without taking anything. What only the act
//! itself can tell is left out: the bucket of a lane's new watches, and whether a client keeps its appointment. So the
//! answer is of this moment and about a request that nobody has promised anything.

use std::time::Duration;

use super::decision::{Arrival, Kind, Reason};
use super::lanes::Patience;
use super::recovery::State;
use super::returns::Coming;
use super::scheduler::Scheduler;
use super::tickets::{Account, Slot};
use crate::policy::Lane;
use crate::units::{Instant, Seats};

/// What the scheduler would do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Seats that the request is charged.
    pub seats: Seats,
    /// It takes its turn with the heavy requests of all lanes.
    pub heavy: bool,
    /// Bytes that its answer is expected to have, where it is a large one.
    pub bytes: u64,
    /// The gates in their order; the last one that was asked decided.
    pub gates: Vec<Gate>,
    /// What it comes to.
    pub ends: Ends,
    /// The numbers of its lane.
    pub numbers: Numbers,
}

/// What a walk comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Forwarded at once.
    Admit,
    /// Held, at most so long.
    Wait(Duration),
    /// Refused.
    Shed(Reason),
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub answer: Answer,
    /// The numbers behind it.
    pub detail: String,
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Pass,
    /// Not now, but it may be waited for.
    Full(Reason),
    /// Refused here.
    Stop(Reason),
}

/// A lane at one moment: what stood beside a decision. Small, because every refusal takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The state of the apiserver.
    pub state: State,
    /// The limit L, and the seats in use of it.
    pub limit: Seats,
    /// See `limit`.
    pub used: Seats,
    /// Seats in use by the lane.
    pub lane_seats: Seats,
    /// Up to which total of used seats the lane is let in.
    pub ceiling: Seats,
    /// Seats that are always the lane's.
    pub floor: Seats,
    /// Requests that wait in the lane.
    pub waiting: u32,
    /// Hundredths of pressure: how many times slower than calm.
    pub pressure_percent: u32,
}

impl Scheduler {
    /// The numbers of `lane` now.
    #[must_use]
    pub fn numbers(&self, lane: Lane) -> Numbers {
        let (used, share) = (self.ledger.lane(lane), self.ledger.share(lane));
        Numbers {
            state: self.recovery.state(),
            limit: self.limit.seats(),
            used: self.ledger.used(),
            lane_seats: if lane == Lane::BreakGlass { self.break_glass } else { Seats(used.seats) },
            ceiling: Seats(share.ceiling),
            floor: Seats(share.floor),
            waiting: self.lanes[lane.index()].waiting(),
            // Pressure is at least 1 and bounded by its window.
            pressure_percent: (self.pressure.value() * 100.0).clamp(0.0, 1e9) as u32,
        }
    }

    /// What would be said to `arrival` now. Nothing is taken and nobody is made to wait.
    #[must_use]
    pub fn walk(&self, now: Instant, arrival: &Arrival) -> Walk {
        let now = now.max(self.latest);
        let slot = self.slot(now, arrival);
        let mut gates = Vec::new();
        let ends = match slot.account {
            Account::Exempt => self.walk_exempt(&mut gates),
            Account::BreakGlass => self.walk_break_glass(&slot, &mut gates),
            Account::Limited | Account::Shadow | Account::Open => self.walk_limited(now, &slot, &mut gates),
        };
        let numbers = self.numbers(slot.lane);
        Walk { seats: slot.seats, heavy: slot.heavy, bytes: slot.size.bytes, gates, ends, numbers }
    }

    fn walk_exempt(&self, gates: &mut Vec<Gate>) -> Ends {
        let most = self.settings.exempt_requests;
        let stop = (self.exempt >= most).then_some(Reason::GlobalLimit);
        let detail = format!("{} of {most} health checks in flight; none is queued", self.exempt);
        ask(gates, "exempt", stop, detail).map_or(Ends::Admit, Ends::Shed)
    }

    fn walk_break_glass(&self, slot: &Slot, gates: &mut Vec<Gate>) -> Ends {
        let most = self.settings.break_glass_seats;
        let stop = (self.break_glass + slot.seats > most).then_some(Reason::LaneConcurrency);
        let detail = format!("{} of {most} seats of the lane in use", self.break_glass);
        ask(gates, "break-glass seats", stop, detail).map_or(Ends::Admit, Ends::Shed)
    }

    fn walk_limited(&self, now: Instant, slot: &Slot, gates: &mut Vec<Gate>) -> Ends {
        match self.walk_to_seats(now, slot, gates) {
            Some(reason) => Ends::Shed(reason),
            None => self.walk_seats(now, slot, gates),
        }
    }

    /// The gates before seats; the reason of the one that refuses.
    fn walk_to_seats(&self, now: Instant, slot: &Slot, gates: &mut Vec<Gate>) -> Option<Reason> {
        let (lane, live) = (slot.lane, self.lanes[slot.lane.index()].live(slot.kind));
        let settings = &self.settings.lanes[lane.index()];
        let (known, most) = (self.tickets.known(), self.settings.tickets);
        let full = self.tickets.is_full().then_some(Reason::GlobalLimit);
        ask(gates, "process", full, format!("{known} of {most} requests, watches and sessions known"))
            .or_else(|| {
                let refuses = self.own_memory.refuses(lane).then_some(Reason::OwnMemory);
                let word = if refuses.is_some() { "short: this lane gives way" } else { "enough" };
                ask(gates, "own memory", refuses, word.to_owned())
            })
            .or_else(|| {
                let closed = !self.recovery.is_open(lane, &self.limit, now);
                let word = if closed { "closed" } else { "open" };
                let detail = format!("{word} in state {}", self.recovery.state().as_str());
                ask(gates, "lane open", closed.then(|| self.closed()), detail)
            })
            .or_else(|| {
                let asked = slot.key.is_read() && lane != Lane::Operators;
                let wait = asked.then(|| self.warming.waits(slot.key.resource, now)).flatten();
                let detail = wait.map_or_else(
                    || "kube-apiserver's cache of the resource is not known to be filling".to_owned(),
                    |wait| format!("kube-apiserver fills its cache of the resource: {} s", wait.as_secs()),
                );
                ask(gates, "warming", wait.map(|_| Reason::ResourceWarming), detail)
            })
            .or_else(|| {
                let (Some(rate), Some(rates)) = (settings.identity_rate, &self.lanes[lane.index()].rates)
                else {
                    return ask(gates, "identity rate", None, "the lane has none".to_owned());
                };
                let wait = rates.peek(slot.flow, now).err();
                let state = wait.map_or_else(
                    || "within it".to_owned(),
                    |wait| format!("used up: room again in {} ms", wait.as_millis()),
                );
                let detail = format!("{}/s, burst {}: {state}", rate.per_second, rate.burst);
                ask(gates, "identity rate", wait.map(|_| Reason::IdentityRate), detail)
            })
            .or_else(|| {
                if slot.kind == Kind::Short {
                    return None;
                }
                let refused = self.watches.may_live(&self.settings, (lane, slot.flow, slot.kind), live);
                let what = if slot.kind == Kind::Watch { "watches" } else { "sessions" };
                let detail = format!("{live} {what} live in the lane");
                ask(gates, "watch quota", refused.err().map(|(reason, _)| reason), detail)
            })
            .or_else(|| self.walk_cohort(now, slot, gates))
    }

    fn walk_cohort(&self, now: Instant, slot: &Slot, gates: &mut Vec<Gate>) -> Option<Reason> {
        if slot.lane != Lane::Telemetry || slot.heavy || !self.settings.laws.cohorts {
            return None;
        }
        let wait = self.cohorts.waits(slot.client, slot.flow, now);
        let stops = !wait.is_zero() && !self.ledger.has_spare(slot.lane, slot.seats);
        let detail = match wait.is_zero() {
            true => "the client's turn is now".to_owned(),
            false => format!("the client's turn is in {} s", wait.as_secs().max(1)),
        };
        ask(gates, "cohort", stops.then(|| self.shortage()), detail)
    }

    fn walk_seats(&self, now: Instant, slot: &Slot, gates: &mut Vec<Gate>) -> Ends {
        let lane = slot.lane;
        let numbers = self.numbers(lane);
        let short = self.fits(slot, now).err();
        let Numbers { used, limit, ceiling, floor, lane_seats, .. } = numbers;
        let mut detail = format!(
            "needs {}; {used} of L={limit} used; the lane: {lane_seats} used, let in up to {ceiling}, always {floor}",
            slot.seats
        );
        if slot.heavy {
            let share = self.ledger.heavy_share(lane);
            detail += &format!("; heavy: {} of {share} used", self.ledger.heavy());
        }
        gates.push(Gate { name: "seats", answer: short.map_or(Answer::Pass, Answer::Full), detail });
        let capped = self.is_capped(slot, now);
        let own = self.clients.of(lane, slot.client).seats;
        let detail = match capped {
            true => format!("has {own} seats, its part while others want the lane"),
            false => format!("has {own} seats"),
        };
        let answer = if capped { Answer::Full(Reason::LaneConcurrency) } else { Answer::Pass };
        gates.push(Gate { name: "client's part", answer, detail });
        let empty = self.lanes[lane.index()].queues(slot.heavy).is_empty();
        if short.is_none() && !capped && (empty || self.is_first(slot)) {
            return Ends::Admit;
        }
        self.walk_queue(slot, short, gates)
    }

    fn walk_queue(&self, slot: &Slot, short: Option<Reason>, gates: &mut Vec<Gate>) -> Ends {
        let lane = slot.lane;
        let state = &self.lanes[lane.index()];
        let patience = Patience::of(&self.settings.lanes[lane.index()], lane, slot.heavy);
        let reason = if patience.wait.is_zero() || patience.room == 0 {
            Some(short.unwrap_or_else(|| self.shortage()))
        } else if !state.has_room(patience, (slot.heavy, slot.kind_turn), Coming::Stranger) {
            Some(self.full(lane))
        } else {
            None
        };
        let detail = match patience.wait.is_zero() || patience.room == 0 {
            true => "the lane has none for such requests".to_owned(),
            false => format!(
                "{} wait in the lane, room for {} such requests, up to {} ms",
                state.waiting(),
                patience.room,
                patience.wait.as_millis()
            ),
        };
        ask(gates, "queue", reason, detail).map_or(Ends::Wait(patience.wait), Ends::Shed)
    }
}

/// Notes a gate; its reason, when it refuses.
fn ask(gates: &mut Vec<Gate>, name: &'static str, stop: Option<Reason>, detail: String) -> Option<Reason> {
    gates.push(Gate { name, answer: stop.map_or(Answer::Pass, Answer::Stop), detail });
    stop
}
