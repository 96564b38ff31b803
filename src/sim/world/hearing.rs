//! What follows from what the apiserver says?
//!
//! The algorithm is told first, then the client's library, then the client.

use std::time::Duration;

use super::{Event, Pending, ROUND_TRIP, Request, WATCH_MAX, WATCH_MIN, World};
use crate::flow::End;
use crate::sim::apiserver::{Failure, Out};
use crate::sim::clients::{Fault, Heard};
use crate::sim::guard::{Ended, Id};

impl World<'_> {
    /// Hears what the server says, and what follows from it.
    pub(super) fn hear(&mut self) {
        loop {
            let mut outs = std::mem::take(&mut self.outs);
            self.server.take(&mut outs);
            if outs.is_empty() {
                self.outs = outs;
                return;
            }
            for out in outs.drain(..) {
                self.hear_one(out);
            }
            self.outs = outs;
        }
    }

    pub(super) fn hear_one(&mut self, out: Out) {
        match out {
            Out::FirstByte(id, level) => {
                if self.requests.contains_key(&id) {
                    self.guard.first_byte(self.now, id, level);
                }
            }
            Out::BurstDone(id) => self.opened(id),
            Out::Answered { id, bytes, level } => {
                if !self.probing.answered(self.now, id) {
                    self.answered(id, bytes, level);
                }
            }
            Out::Refused { id, retry_after, warming, level } => {
                let end =
                    if warming { End::Warming { retry_after_seconds: retry_after } } else { End::Congested };
                self.failed(id, (end, level), Fault::Refused, Some(retry_after));
            }
            Out::Failed { id, failure } => {
                if self.probing.failed(id) {
                    return;
                }
                let (end, fault) = match failure {
                    Failure::Connect | Failure::Reset | Failure::Timeout => (End::Dropped, Fault::Broken),
                    Failure::Webhook => (End::Ignored, Fault::Broken),
                    Failure::Expired => (End::Ignored, Fault::Expired),
                };
                self.failed(id, (end, 0), fault, None);
            }
            Out::Up(up) => self.guard.upstream_up(self.now, up),
        }
    }

    pub(super) fn latency(&self, request: &Request) -> Duration {
        request.forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded))
    }

    pub(super) fn opened(&mut self, id: Id) {
        let Some(&request) = self.requests.get(&id) else { return };
        let client = request.client as usize;
        self.guard.burst_done(self.now, id);
        self.note(7, id, 0);
        let life = self.chance.time(WATCH_MIN, WATCH_MAX);
        self.timeline.at(self.now + life, Event::WatchEnd(id));
        let boot = self.server.boot();
        let it = &mut self.clients[client];
        (it.request, it.watch) = (None, Some(id));
        if self.roles[it.role].plans[request.plan].list {
            it.since_boot = boot;
        }
        self.worked(client, &request);
        self.step(client, Heard::Opened);
    }

    pub(super) fn answered(&mut self, id: Id, bytes: u64, level: u64) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        let latency = self.latency(&request);
        self.guard.finish(self.now, id, Ended { end: End::Success, bytes, level, latency });
        self.note(8, id, 0);
        let boot = self.server.boot();
        let it = &mut self.clients[client];
        it.request = None;
        if self.roles[it.role].plans[request.plan].list {
            it.since_boot = boot;
        }
        self.worked(client, &request);
        self.step(client, Heard::Answered);
    }

    pub(super) fn worked(&mut self, client: usize, request: &Request) {
        let it = &self.clients[client];
        let lane = it.places[request.plan].lane;
        if let Some((_, began, ..)) = it.call {
            self.measure.call(self.now, lane, began, Some(self.now.since(began)));
        }
        self.measure.serve(self.now, lane, client, &request.truth);
    }

    pub(super) fn failed(
        &mut self,
        id: Id,
        (end, level): (End, u64),
        fault: Fault,
        retry_after: Option<u32>,
    ) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        let latency = self.latency(&request);
        self.guard.finish(self.now, id, Ended { end, bytes: 0, level, latency });
        self.note(9, id, 0);
        let it = &mut self.clients[client];
        let was_watch = it.watch == Some(id);
        let pending = if was_watch { Pending::WatchClosed } else { Pending::TryFailed(fault, retry_after) };
        (it.request, it.watch) = (None, None);
        self.arm(client, self.now + ROUND_TRIP, pending);
    }
}
