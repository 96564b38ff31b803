//! How does a client's call become tries, and what becomes of them before the apiserver has them?
//!
//! A client is stepped with what it heard and says what it wants next; its library's retry layer stands between.

use std::time::Duration;

use super::{Event, Pending, RESET_RETRY_AFTER, ROUND_TRIP, Request, World};
use crate::flow::End;
use crate::policy::Lane;
use crate::sim::apiserver::{LevelName, Order};
use crate::sim::chance::mix;
use crate::sim::clients::{Context, Fault, Heard, Mark, Next};
use crate::sim::guard::{Answer, Call, Ended, Id, Truth};
use crate::units::Instant;

impl World<'_> {
    /// Tells a client what happened and does what it wants.
    pub(super) fn step(&mut self, client: usize, heard: Heard) {
        let Self { clients, chance, marks, now, .. } = self;
        let it = &mut clients[client];
        if it.stopped {
            return;
        }
        it.call = None;
        let next = it.behaviour.step(heard, &mut Context { now: *now, chance, marks });
        self.take_marks(client);
        if next != Next::Listen {
            self.close_watch(client);
        }
        match next {
            Next::Call { plan, timeout, deadline } => {
                self.clients[client].call = Some((plan, self.now, timeout, deadline));
                self.clients[client].tries.begin();
                self.attempt(client);
            }
            Next::Sleep(until) => self.arm(client, until, Pending::Wake),
            Next::Listen => {}
        }
    }

    pub(super) fn take_marks(&mut self, client: usize) {
        let now = self.now;
        // Only those who keep a cluster running are judged by when they have their first objects.
        let judged = self.clients[client].places.first().is_some_and(|place| place.lane <= Lane::Platform);
        let marks = self.marks.drain(..).filter(|mark| judged || !matches!(mark, Mark::FirstObjects { .. }));
        self.measure.marks.extend(marks.map(|mark| (now, mark)));
    }

    pub(super) fn arm(&mut self, client: usize, when: Instant, pending: Pending) {
        let it = &mut self.clients[client];
        it.epoch += 1;
        it.pending = pending;
        let event = Event::Timer { client: u32::try_from(client).unwrap_or(u32::MAX), epoch: it.epoch };
        self.timeline.at(when.max(self.now), event);
    }

    pub(super) fn timer(&mut self, client: usize) {
        match self.clients[client].pending {
            Pending::Wake => self.step(client, Heard::Timer),
            Pending::TryFailed(fault, retry_after) => self.try_failed(client, fault, retry_after),
            Pending::Retry => self.attempt(client),
            Pending::GiveUp(fault) => self.give_up(client, fault),
            Pending::WatchClosed => self.step(client, Heard::Closed),
        }
    }

    /// A client makes a try of its call.
    pub(super) fn attempt(&mut self, client: usize) {
        let it = &self.clients[client];
        let Some((plan, _, timeout, deadline)) = it.call else { return };
        if it.stopped {
            return;
        }
        let (place, role) = (it.places[plan], &self.roles[it.role]);
        let known = &role.plans[plan];
        let work = self.server.contents.work(known, false);
        let truth = Truth { cpu_micros: work.cpu, etcd_micros: work.etcd, bytes: work.bytes };
        let call = Call {
            lane: place.lane,
            flow: place.flow,
            client: place.client,
            key: known.key,
            kind: known.kind,
            exempt: known.exempt,
            list: known.list,
            write: known.write,
            truth,
        };
        let id = self.next_id;
        self.next_id += 1;
        let number = u32::try_from(client).unwrap_or(u32::MAX);
        self.requests.insert(id, Request { client: number, plan, forwarded: None, truth });
        self.clients[client].request = Some(id);
        let patience = deadline.map_or(timeout, |deadline| deadline.since(self.now).min(timeout));
        self.timeline.at(self.now + patience, Event::Timeout(id));
        self.measure.attempt(self.now, place.lane);
        let answer = self.guard.arrive(self.now, id, &call);
        self.note(2, id, mix(client as u64));
        match answer {
            Answer::Admit => self.forward(id),
            Answer::Wait => {}
            Answer::Shed { retry_after_seconds, hold } => self.shed(id, retry_after_seconds, hold),
        }
    }

    pub(super) fn forward(&mut self, id: Id) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.forwarded = Some(self.now);
        let it = &self.clients[request.client as usize];
        let role = &self.roles[it.role];
        let order = Order {
            plan: &role.plans[request.plan],
            user: it.places[request.plan].client,
            level: role.levels.get(request.plan).copied().unwrap_or(LevelName::GlobalDefault),
            reads: role.reads,
            since_boot: it.since_boot,
        };
        self.server.submit(self.now, id, &order);
        self.note(3, id, 0);
        // What the server says at once is heard when everything of this moment is settled.
    }

    /// The algorithm refuses; the client hears of it after the hold and the way back.
    pub(super) fn shed(&mut self, id: Id, seconds: u32, hold: Duration) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        self.note(4, id, u64::from(seconds));
        self.measure.shed(self.now, self.clients[client].places[request.plan].lane);
        self.clients[client].request = None;
        let told = (seconds > 0).then_some(seconds);
        self.arm(client, self.now + hold + ROUND_TRIP, Pending::TryFailed(Fault::Refused, told));
    }

    pub(super) fn try_failed(&mut self, client: usize, fault: Fault, retry_after: Option<u32>) {
        let it = &mut self.clients[client];
        let Some((_, _, _, deadline)) = it.call else { return };
        let again =
            if fault == Fault::Expired { None } else { it.tries.again(retry_after, &mut self.chance) };
        match again.map(|pause| self.now + pause) {
            None => self.give_up(client, fault),
            Some(when) => match deadline.filter(|&deadline| deadline <= when) {
                Some(deadline) => self.arm(client, deadline, Pending::GiveUp(fault)),
                None => self.arm(client, when, Pending::Retry),
            },
        }
    }

    pub(super) fn give_up(&mut self, client: usize, fault: Fault) {
        if let Some((plan, began, ..)) = self.clients[client].call
            && fault != Fault::Expired
        {
            self.measure.call(self.now, self.clients[client].places[plan].lane, began, None);
        }
        self.step(client, Heard::Failed(fault));
    }

    /// Takes a try from everybody who knows of it. Whose it was.
    pub(super) fn forget(&mut self, id: Id) -> Option<usize> {
        let request = self.requests.remove(&id)?;
        let client = request.client as usize;
        let it = &mut self.clients[client];
        if it.request == Some(id) {
            it.request = None;
        }
        if it.watch == Some(id) {
            it.watch = None;
        }
        if request.forwarded.is_some() {
            self.server.cancel(self.now, id);
        }
        Some(client)
    }

    pub(super) fn timed_out(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        // A watch that is open has no deadline.
        if self.clients[request.client as usize].request != Some(id) {
            return;
        }
        self.guard.cancel(self.now, id);
        if let Some(client) = self.forget(id) {
            self.note(5, id, 0);
            self.try_failed(client, Fault::Broken, None);
        }
        self.hear();
    }

    pub(super) fn reset(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        let latency = request.forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded));
        self.guard.finish(self.now, id, Ended { end: End::Ignored, bytes: 0, level: 0, latency });
        let was_watch = self.clients[request.client as usize].watch == Some(id);
        if let Some(client) = self.forget(id) {
            self.note(6, id, 0);
            let pending = if was_watch {
                Pending::WatchClosed
            } else {
                Pending::TryFailed(Fault::Refused, Some(RESET_RETRY_AFTER))
            };
            self.arm(client, self.now + ROUND_TRIP, pending);
        }
    }

    pub(super) fn watch_over(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        let client = request.client as usize;
        if self.clients[client].watch == Some(id) {
            self.close_watch(client);
            self.step(client, Heard::Closed);
        }
    }

    /// The client closes its open watch, if it has one.
    pub(super) fn close_watch(&mut self, client: usize) {
        let Some(id) = self.clients[client].watch.take() else { return };
        let forwarded = self.requests.get(&id).and_then(|request| request.forwarded);
        let latency = forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded));
        self.guard.finish(self.now, id, Ended { end: End::Success, bytes: 0, level: 0, latency });
        self.forget(id);
    }

    pub(super) fn stop(&mut self, client: usize) {
        self.close(client);
        for id in [self.clients[client].request, self.clients[client].watch].into_iter().flatten() {
            self.guard.cancel(self.now, id);
            self.forget(id);
        }
        let it = &mut self.clients[client];
        it.stopped = true;
        it.epoch += 1;
        self.hear();
    }

    pub(super) fn close(&mut self, client: usize) {
        let Self { clients, chance, marks, now, .. } = self;
        let it = &mut clients[client];
        if it.stopped {
            return;
        }
        it.behaviour.close(&mut Context { now: *now, chance, marks });
        if let Some((plan, began, ..)) = it.call {
            let lane = it.places[plan].lane;
            // A call that is still open is of no use once it is too late.
            if now.since(began) > crate::sim::measure::deadline(lane) {
                self.measure.call(self.now, lane, began, None);
            }
        }
        self.take_marks(client);
    }
}
