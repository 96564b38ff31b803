//! How does the production scheduler stand in the simulator?
//!
//! It is the very object that `spillway run` uses; here only names are translated: the simulator's ids to tickets and
//! back. Nothing is decided in this file.

use std::collections::HashMap;
use std::time::Duration;

use super::guard::{Answer, Call, Ended, Guard, Id};
use crate::flow::{
    Arrival, Decision, Outcome, Probes, Refusal, Scheduler, Settings, Snapshot, Ticket, Verdict,
};
use crate::units::Instant;

/// The production [`Scheduler`] behind the simulator's trait.
#[derive(Debug)]
pub struct Spillway {
    scheduler: Scheduler,
    /// Looked up only, never iterated: order must not decide anything.
    tickets: HashMap<Id, Ticket>,
    ids: HashMap<Ticket, Id>,
    buffer: Vec<(Ticket, Verdict)>,
}

impl Spillway {
    /// A scheduler that knows nothing of its apiserver yet.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(settings, seed, Instant::ORIGIN),
            tickets: HashMap::new(),
            ids: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    /// What the scheduler looks like at `now`.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.scheduler.snapshot(now)
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
}

fn shed(refusal: &Refusal) -> Answer {
    Answer::Shed { retry_after_seconds: refusal.retry_after_seconds, hold: Duration::ZERO }
}

impl Guard for Spillway {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
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
            Decision::Shed(refusal) => shed(&refusal),
        }
    }

    fn first_byte(&mut self, now: Instant, id: Id, _level: u64) {
        if let Some(&ticket) = self.tickets.get(&id) {
            self.scheduler.first_byte(now, ticket);
        }
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        if let Some(&ticket) = self.tickets.get(&id) {
            self.scheduler.burst_done(now, ticket);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        if let Some(ticket) = self.forget(id) {
            self.scheduler.finish(now, ticket, Outcome { end: ended.end, bytes: ended.bytes });
        }
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        if let Some(ticket) = self.forget(id) {
            self.scheduler.cancel(now, ticket);
        }
    }

    fn tick(&mut self, now: Instant, probes: &Probes) {
        self.scheduler.tick(now, probes);
    }

    fn upstream_up(&mut self, now: Instant, up: bool) {
        self.scheduler.upstream_up(now, up);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.scheduler.next_wake()
    }

    fn wake(&mut self, now: Instant) {
        self.scheduler.wake(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        self.scheduler.take_verdicts(&mut self.buffer);
        for (ticket, verdict) in std::mem::take(&mut self.buffer) {
            let Some(&id) = self.ids.get(&ticket) else { continue };
            match verdict {
                Verdict::Admit => into.push((id, Answer::Admit)),
                Verdict::Shed(refusal) => {
                    self.forget(id);
                    into.push((id, shed(&refusal)));
                }
            }
        }
    }

    fn limit(&self) -> Option<f64> {
        Some(f64::from(self.scheduler.snapshot(Instant::ORIGIN).limit.0))
    }
}
