//! How does the production scheduler stand in the simulator?
//!
//! It is the very object that `spillway run` uses; here only names are translated, the simulator's ids to tickets and
//! back, and the gateway's two duties are done: reset what must be reset, and tell when a held refusal went out.
//! Nothing is decided in this file.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::book::{Book, Spread};
use super::guard::{Answer, Call, Ended, Guard, Id};
use crate::flow::{
    Arrival, Decision, Level, Outcome, Probes, Refusal, Scheduler, Settings, Snapshot, Ticket, Verdict,
};
use crate::units::Instant;

/// The production [`Scheduler`] behind the simulator's trait.
#[derive(Debug)]
pub struct Spillway {
    scheduler: Scheduler,
    tickets: Book<Ticket>,
    ids: HashMap<Ticket, Id, BuildHasherDefault<Spread>>,
    verdicts: Vec<(Ticket, Verdict)>,
    reset: Vec<Ticket>,
    /// When held refusals go out, earliest first.
    held: VecDeque<Instant>,
    now: Instant,
}

impl Spillway {
    /// A scheduler that knows nothing of its apiserver yet.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(settings, seed, Instant::ORIGIN),
            tickets: Book::default(),
            ids: HashMap::default(),
            verdicts: Vec::new(),
            reset: Vec::new(),
            held: VecDeque::new(),
            now: Instant::ORIGIN,
        }
    }

    /// What the scheduler looks like now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot(self.now)
    }

    /// Time moves on: held refusals whose time has come went out.
    fn at(&mut self, now: Instant) {
        self.now = now;
        while self.held.front().is_some_and(|&until| until <= now) {
            self.held.pop_front();
            self.scheduler.released(now);
        }
    }

    fn remember(&mut self, id: Id, ticket: Ticket) {
        self.tickets.insert(id, ticket);
        self.ids.insert(ticket, id);
    }

    fn forget(&mut self, id: Id) -> Option<Ticket> {
        let ticket = self.tickets.remove(&id)?;
        self.ids.remove(&ticket);
        Some(ticket)
    }

    fn shed(&mut self, refusal: &Refusal) -> Answer {
        if !refusal.hold.is_zero() {
            let until = self.now + refusal.hold;
            let place = self.held.partition_point(|&other| other <= until);
            self.held.insert(place, until);
        }
        Answer::Shed { retry_after_seconds: refusal.retry_after_seconds, hold: refusal.hold }
    }
}

impl Guard for Spillway {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.at(now);
        let arrival = Arrival {
            lane: call.lane,
            flow: call.flow,
            client: call.client,
            key: call.key,
            kind: call.kind,
            exempt: call.exempt,
        };
        match self.scheduler.arrive(now, &arrival) {
            Decision::Admit(ticket) => {
                self.remember(id, ticket);
                Answer::Admit
            }
            Decision::Wait(ticket) => {
                self.remember(id, ticket);
                Answer::Wait
            }
            Decision::Shed(refusal) => self.shed(&refusal),
        }
    }

    fn first_byte(&mut self, now: Instant, id: Id, level: u64) {
        self.at(now);
        if let Some(&ticket) = self.tickets.get(&id) {
            self.scheduler.first_byte(now, ticket, Level(level));
        }
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        self.at(now);
        if let Some(&ticket) = self.tickets.get(&id) {
            self.scheduler.burst_done(now, ticket);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        self.at(now);
        if let Some(ticket) = self.forget(id) {
            let outcome = Outcome { end: ended.end, bytes: ended.bytes, level: Level(ended.level) };
            self.scheduler.finish(now, ticket, outcome);
        }
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        self.at(now);
        if let Some(ticket) = self.forget(id) {
            self.scheduler.cancel(now, ticket);
        }
    }

    fn tick(&mut self, now: Instant, probes: &Probes) {
        self.at(now);
        self.scheduler.tick(now, probes);
    }

    fn upstream_up(&mut self, now: Instant, up: bool) {
        self.at(now);
        self.scheduler.upstream_up(now, up);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.scheduler.next_wake()
    }

    fn wake(&mut self, now: Instant) {
        self.at(now);
        self.scheduler.wake(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        if !self.scheduler.has_verdicts() {
            return;
        }
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.scheduler.take_verdicts(&mut verdicts);
        for (ticket, verdict) in verdicts.drain(..) {
            let Some(&id) = self.ids.get(&ticket) else { continue };
            match verdict {
                Verdict::Admit => into.push((id, Answer::Admit)),
                Verdict::Shed(refusal) => {
                    self.forget(id);
                    into.push((id, self.shed(&refusal)));
                }
            }
        }
        self.verdicts = verdicts;
    }

    fn resets(&mut self, into: &mut Vec<Id>) {
        let mut reset = std::mem::take(&mut self.reset);
        self.scheduler.take_resets(&mut reset);
        into.extend(reset.drain(..).filter_map(|ticket| self.ids.get(&ticket)));
        self.reset = reset;
    }

    fn limit(&self) -> Option<f64> {
        Some(f64::from(self.snapshot().limit.0))
    }
}
