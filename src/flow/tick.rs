//! What happens as time passes: the control loop four times a second, the ends of waits, and who goes next.

use std::time::Duration;

use super::control::Moment;
use super::decision::{Reason, Verdict};
use super::lanes::LaneState;
use super::levers::LimitHold;
use super::limit::{Demand, Step};
use super::pressure::{Inputs, LEARN, Signal};
use super::probes::{Probe, Probes};
use super::recovery::State;
use super::retry::After;
use super::scheduler::Scheduler;
use super::settings::Settings;
use super::tickets::{Chain, NIL};
use crate::policy::Lane;
use crate::units::{Instant, Seats};

/// How often [`Scheduler::tick`] wants to be called: four decisions a second detect a storm within one, and gather
/// five samples a key from 20 requests a second. (Gradient2 decides once a second, Envoy every 100 ms: slow, noisy.)
pub const TICK: Duration = Duration::from_millis(250);
/// A watch whose first burst nobody ended gives its seats back after this long. One that begins with changes sends
/// them from memory; one that begins with all objects may take as long as kube-apiserver gives a LIST.
const BURST_MAX: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(60)];
/// While the apiserver comes back, LISTs run one at a time and this part of the time: its caches fill beside them, and
/// everybody who was connected wants one.
const RAMP_DUTY: f64 = 0.7;
/// Nothing is learnt as calm for this long after somebody was short of seats: two periods of `Retry-After`.
const LEARN_AFTER: Duration = Duration::from_secs(4);
/// Requests without an answer that one tick looks at; beyond them the picture is clear.
const OVERDUE_MAX: u32 = 256;

impl Scheduler {
    /// One step of the control loop.
    pub fn tick(&mut self, now: Instant, probes: &Probes) {
        let now = self.no_earlier(now);
        self.ticks = self.ticks.wrapping_add(1);
        self.limit.end_hold(now);
        self.end_old_bursts(now);
        self.sample_overdue(now);
        let learn = self.is_calm(now);
        self.calm = learn;
        let losses = std::mem::take(&mut self.losses);
        let tolerance = self.control.tolerance();
        let etcd_work = self.work.etcd_share();
        let objectives = &self.settings.objectives;
        let inputs = Inputs { objectives, probes, losses, etcd_work, tolerance, learn, tick: self.ticks };
        let signal = self.pressure.tick(&mut self.estimates, &inputs);
        let (peak, light_peak) = self.ledger.take_peaks();
        let used = self.ledger.used();
        let demand = Demand { peak, light_peak, used, ..std::mem::take(&mut self.demand) };
        let law = (demand, &mut self.random);
        let step = self.recovery.tick(now, signal, (probes.livez, probes.ready), &mut self.limit, law);
        self.test_controllability(signal, demand, probes.livez);
        let duty = if self.recovery.is_ramping() { RAMP_DUTY } else { 1.0 };
        self.pace.set_duty(self.limit.heavy_duty().min(duty));
        self.cancel_the_worst(now);
        self.warming.tick(now);
        let is_returning = matches!(self.recovery.state(), State::Cold | State::Ramp);
        self.ledger.memory.tick(now, is_returning);
        self.cohorts.tick(now, self.ledger.has_spare(Lane::Telemetry, Seats::ZERO));
        self.cutting = step == Step::Cut;
        self.follow_causes();
        self.discount(now);
        self.resize();
        self.tick_retries(now);
        self.wake(now);
    }

    /// Each lane's book learns how fast it admits, and how fast it could: heavy requests at what their budget and pace
    /// allow, less what the lanes above take of it.
    fn tick_retries(&mut self, now: Instant) {
        let passed = now.since(std::mem::replace(&mut self.ticked, now));
        let mut above = 0.0;
        for (lane, state) in Lane::ALL.into_iter().zip(&mut self.lanes) {
            let could = self.pace.rate(self.ledger.heavy_share(lane));
            if self.ledger.heavy() == Seats::ZERO && !state.has_heavy() && self.pace.is_open(now) {
                state.retry.idles();
            }
            above += state.retry.tick(passed, (could - above).max(0.0));
        }
    }

    /// The upstream part reports that the apiserver went away (no connection, not ready) or came back.
    pub fn upstream_up(&mut self, now: Instant, is_up: bool) {
        let now = self.no_earlier(now);
        if !is_up && self.recovery.state() != State::Cold {
            self.ledger.memory.lost(now);
        }
        self.recovery.upstream(now, is_up, &mut self.limit);
        self.resize();
        self.wake(now);
    }

    /// Takes new settings; what is in flight stays, bounds apply to what comes.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings) {
        let now = self.no_earlier(now);
        let changes = self.lanes.iter_mut().zip(&self.settings.lanes).zip(&settings.lanes);
        for (((lane, old), new), new_lane) in changes.zip(&Lane::ALL) {
            lane.reconfigure(&mut self.tickets, (old, new), (*new_lane, now));
        }
        self.watches.reconfigure((&self.settings.watches, &settings.watches), now);
        self.ledger.memory.reconfigure(settings.memory);
        self.limit.rebound(&settings.limit);
        self.settings = settings;
        self.resize();
        self.wake(now);
    }

    /// Puts an operator's hold on L in force, or ends it. It ends by itself at its time.
    pub fn hold_limit(&mut self, now: Instant, hold: Option<LimitHold>) {
        let now = self.no_earlier(now);
        self.limit.hold(hold);
        self.resize();
        self.wake(now);
    }

    /// The hold on L that is in force.
    #[must_use]
    pub fn held_limit(&self) -> Option<LimitHold> {
        self.limit.held()
    }

    /// When [`Scheduler::wake`] must be called at the latest: the first end of a wait, or of the pause between heavy
    /// requests while one waits. `None` while nobody waits.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let ends =
            self.lanes.iter().filter_map(|lane| lane.oldest(&self.tickets)).map(|(_, deadline)| deadline);
        let opens = self.pace.opens();
        let pause = opens > self.latest && self.lanes.iter().any(LaneState::has_heavy);
        ends.chain(pause.then_some(opens)).min()
    }

    /// Ends the waits that are over and lets go who can.
    pub fn wake(&mut self, now: Instant) {
        let now = self.no_earlier(now);
        self.expire(now);
        self.dispatch(now);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        for lane in Lane::ALL {
            while let Some((index, deadline)) = self.lanes[lane.index()].oldest(&self.tickets) {
                if deadline > now {
                    break;
                }
                let (ticket, slot) = (self.tickets.ticket(index), self.tickets[index].clone());
                self.forget(now, index);
                // It has waited already: nothing is gained by keeping its refusal back.
                let refusal = self.refuse(now, &slot, Reason::QueueTimeout, After::Book);
                self.verdicts.push((ticket, Verdict::Shed(refusal)));
                self.short_of_seats = Some(now);
            }
        }
    }

    /// Lets waiting requests go, lane by lane in strict order, as long as they fit.
    pub(super) fn dispatch(&mut self, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        self.expire(now);
        for lane in Lane::ALL {
            self.dispatch_lane(now, lane);
        }
    }

    pub(super) fn dispatch_lane(&mut self, now: Instant, lane: Lane) {
        while self.lanes[lane.index()].waiting() > 0 {
            let Some(index) = self.candidate(now, lane) else { return };
            self.lanes[lane.index()].go(&mut self.tickets, index);
            let client = self.tickets[index].client;
            self.clients.stop_waiting(lane, client);
            self.waiting -= 1;
            self.admit(now, index);
            self.verdicts.push((self.tickets.ticket(index), Verdict::Admit));
        }
    }

    /// Who goes next in a lane. Heavy requests first: their budget bounds them, and light ones would otherwise
    /// take every seat before enough are free for a heavy one. Within a class the one whose turn it is blocks the
    /// others, for the same reason; one over its client's cap does not.
    fn candidate(&self, now: Instant, lane: Lane) -> Option<u32> {
        if !self.recovery.is_open(lane, &self.limit, now) {
            return None;
        }
        [true, false].into_iter().find_map(|heavy| {
            let queues = self.lanes[lane.index()].queues(heavy);
            let index = queues.next(&self.tickets, |index| !self.is_capped(&self.tickets[index], now))?;
            self.fits(&self.tickets[index], now).is_ok().then_some(index)
        })
    }

    /// Whether this moment may be learnt as calm.
    fn is_calm(&self, now: Instant) -> bool {
        let was_short = self.short_of_seats.is_some_and(|since| now.since(since) < LEARN_AFTER);
        self.recovery.state() == State::Normal && !self.cutting && !was_short && self.pressure.value() < LEARN
    }

    /// Undoes a cut that lowered work and not pressure.
    fn test_controllability(&mut self, signal: Signal, demand: Demand, probe: Probe) {
        let pressure = self.pressure.livez_slowdown(&self.settings.objectives).unwrap_or(1.0);
        let livez = (f64::from(pressure), self.pressure.livez.slowdown().unwrap_or(1.0));
        let moment = Moment {
            pressure: signal.pressure,
            capacity: self.limit.capacity(),
            used: f64::from(demand.used.0),
            work: self.work.tick(),
            livez,
            livez_micros: self.pressure.livez.middle().into(),
            answered: match probe {
                Probe::Answered(time) => Some(time.as_micros() as f64),
                Probe::Silent | Probe::Waiting(_) | Probe::Lost => None,
            },
            saturated: !self.pressure.is_well,
            least: self.limit.is_least(),
        };
        let back = self.control.tick(&moment);
        let is_cutting = matches!(self.recovery.state(), State::Normal | State::Brown);
        if let Some(capacity) = back.filter(|_| is_cutting && self.settings.laws.controllability) {
            self.limit.restore(capacity);
        }
    }

    pub(super) fn resize(&mut self) {
        let limit = (self.limit.seats(), self.limit.floors());
        self.ledger.resize(limit, &self.settings.lanes, self.settings.heavy_percent);
    }

    fn end_old_bursts(&mut self, now: Instant) {
        for (lists, longest) in BURST_MAX.into_iter().enumerate() {
            loop {
                let first = self.bursting[lists].first;
                if first == NIL || now.since(self.tickets[first].since) < longest {
                    break;
                }
                self.end_burst(now, first);
            }
        }
    }

    /// Calls beyond their objective that still wait for a first byte count as slow now: a server that answers
    /// nobody would otherwise look idle.
    fn sample_overdue(&mut self, now: Instant) {
        for first in [self.idling.first, self.pending.first] {
            let mut index = first;
            for _ in 0..OVERDUE_MAX / 2 {
                if index == NIL {
                    break;
                }
                let slot = &self.tickets[index];
                let micros = u32::try_from(now.since(slot.since).as_micros()).unwrap_or(u32::MAX);
                if micros as f32 > self.settings.objectives.of(slot.key.shape) && slot.is_judged() {
                    self.sample(index, micros, None);
                }
                index = self.tickets.next(index, Chain::Time);
            }
        }
    }
}
