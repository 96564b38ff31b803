//! What would this policy have done with the requests that an audit log recorded?
//!
//! The log is played through the production policy and scheduler in virtual time: every request arrives when it
//! arrived, runs as long as it ran, and kube-apiserver is as slow as it was. So what is found is what spillway would
//! have refused at that moment, **not** how the apiserver would have fared then: a refused request still counts as slow
//! where it was slow, and nobody comes back because of a refusal. That makes the answer a pessimist's.
//!
//! Events are logged when they end, so they are put in the order of their arrival first, as far back as
//! [`WINDOW`] and [`WINDOW_EVENTS_MAX`] reach. Memory does not depend on the length of the log.
//!
//! Left out: bytes, APF levels and probes, which no audit log has; encodings, of which the commonest is assumed.

mod callers;
mod event;
mod tally;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

pub use callers::CALLERS_MAX;
pub use event::{Logged, Unreadable, read};
pub use tally::{Count, Report};

use self::callers::Callers;
use self::tally::Tally;
use crate::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Probes, Scheduler, Settings, TICK, Ticket,
    Verdict,
};
use crate::policy::{Class, Hints, Policy};
use crate::request::{DecodedPath, RequestInfo, Verb};
use crate::units::Instant;

/// How far apart the log's order and the order of arrival may be: kube-apiserver's own limit for a request.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Events that wait to be put in order, at most; beyond them the earliest goes on.
pub const WINDOW_EVENTS_MAX: usize = 262_144;
/// Without events for longer than this, time jumps.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a watch is taken to live when only its begin, or only its end, is in the log.
const WATCH: Duration = Duration::from_secs(420);

/// A request that is still to arrive. Ordered by time, then by its place in the log.
#[derive(Debug)]
struct Waiting {
    received: u64,
    number: u64,
    took: u64,
    caller: u32,
    class: Class,
    key: Key,
    kind: Kind,
    end: End,
}

/// A request that runs: when it ends, and how.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Runs {
    until: u64,
    number: u64,
}

/// What has to be known of a request until it ends.
#[derive(Debug)]
struct Open {
    ticket: Ticket,
    end: End,
    kind: Kind,
}

/// A log on its way through a policy.
#[derive(Debug)]
pub struct Replay {
    policy: Policy,
    scheduler: Scheduler,
    callers: Callers,
    tally: Tally,
    order: BinaryHeap<Reverse<ByArrival>>,
    ends: BinaryHeap<Reverse<Runs>>,
    open: HashMap<u64, Open>,
    queued: HashMap<Ticket, (u64, Waiting)>,
    verdicts: Vec<(Ticket, Verdict)>,
    number: u64,
    /// The earliest arrival: virtual time begins there.
    origin: Option<u64>,
    newest: u64,
    /// Up to where time has come, and when the next tick is due.
    now: u64,
    next_tick: u64,
}

#[derive(Debug)]
struct ByArrival(Waiting);

impl ByArrival {
    const fn place(&self) -> (u64, u64) {
        (self.0.received, self.0.number)
    }
}

impl PartialEq for ByArrival {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for ByArrival {}

impl PartialOrd for ByArrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByArrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

const TICK_MICROS: u64 = TICK.as_micros() as u64;

impl Replay {
    /// A policy and a scheduler that nothing has happened to yet.
    #[must_use]
    pub fn new(policy: Policy, settings: Settings, seed: u64) -> Self {
        Self {
            policy,
            scheduler: Scheduler::new(settings, seed, Instant::ORIGIN),
            callers: Callers::default(),
            tally: Tally::default(),
            order: BinaryHeap::new(),
            ends: BinaryHeap::new(),
            open: HashMap::new(),
            queued: HashMap::new(),
            verdicts: Vec::new(),
            number: 0,
            origin: None,
            newest: 0,
            now: 0,
            next_tick: 0,
        }
    }

    /// Takes one event; requests that nothing earlier can precede any more are decided.
    pub fn take(&mut self, logged: &Logged<'_>) {
        self.number += 1;
        let Some(waiting) = self.understand(logged) else { return self.tally.not_understood() };
        self.newest = self.newest.max(waiting.received);
        self.order.push(Reverse(ByArrival(waiting)));
        let horizon = self.newest.saturating_sub(micros(WINDOW));
        while self.order.len() > WINDOW_EVENTS_MAX
            || self.order.peek().is_some_and(|Reverse(first)| first.0.received < horizon)
        {
            self.arrive();
        }
    }

    /// The log is over: decides the rest.
    #[must_use]
    pub fn finish(mut self) -> Report {
        while !self.order.is_empty() {
            self.arrive();
        }
        // Who waits is served or refused within the longest wait of a lane.
        self.advance(self.now + micros(SILENCE));
        self.tally.report(&self.policy, &self.callers, self.origin, self.newest)
    }

    /// The request's lane and key; `None` for what kube-apiserver itself would not understand, and for the begin of
    /// what ends soon anyway.
    fn understand(&mut self, logged: &Logged<'_>) -> Option<Waiting> {
        let (caller, identity) = self.callers.of(&logged.user, &self.policy);
        let path = DecodedPath::new(&logged.path).ok()?;
        let info = RequestInfo::new(logged.method, &path, logged.query.as_deref()).ok()?;
        let hints = Hints { user_agent: logged.user_agent.as_deref(), impersonates: logged.impersonates };
        let class = self.policy.classify(&identity.identity, identity.subjects, &info, &hints);
        let kind = if info.verb == Verb::Watch {
            Kind::Watch
        } else if info.is_long_running() {
            Kind::Streaming
        } else {
            Kind::Short
        };
        let end = match logged.status {
            503 | 504 => End::Dropped,
            429 => End::Congested,
            400.. => End::Ignored,
            _ => End::Success,
        };
        Some(Waiting {
            received: logged.received,
            number: self.number,
            took: logged.took,
            caller,
            class,
            key: Key::of(&info, Encoding::Json),
            kind,
            end,
        })
    }

    /// The earliest request arrives.
    fn arrive(&mut self) {
        let Some(Reverse(ByArrival(waiting))) = self.order.pop() else { return };
        let origin = *self.origin.get_or_insert(waiting.received);
        // One that is later than the window allows arrives now.
        let at = waiting.received.saturating_sub(origin).max(self.now);
        self.advance(at);
        let arrival = Arrival {
            lane: waiting.class.lane,
            flow: waiting.class.flow.0,
            client: waiting.class.client.0,
            key: waiting.key,
            kind: waiting.kind,
            exempt: waiting.class.exempt,
        };
        match self.scheduler.arrive(instant(at), &arrival) {
            Decision::Admit(ticket) => {
                self.tally.admitted(&waiting.class, waiting.caller, None);
                self.run(at, ticket, &waiting);
            }
            Decision::Wait(ticket) => {
                self.queued.insert(ticket, (at, waiting));
            }
            Decision::Shed(refusal) => {
                if !refusal.hold.is_zero() {
                    self.scheduler.released(instant(at));
                }
                self.tally.shed(&waiting.class, waiting.caller, refusal.reason);
            }
        }
    }

    fn run(&mut self, at: u64, ticket: Ticket, waiting: &Waiting) {
        let took = match waiting.kind {
            Kind::Short => waiting.took,
            // The event at hand may be its begin.
            Kind::Watch | Kind::Streaming => {
                self.scheduler.first_byte(instant(at), ticket, Level::default());
                self.scheduler.burst_done(instant(at), ticket);
                waiting.took.max(micros(WATCH))
            }
        };
        self.open.insert(waiting.number, Open { ticket, end: waiting.end, kind: waiting.kind });
        self.ends.push(Reverse(Runs { until: at + took, number: waiting.number }));
    }

    /// Time goes on to `to`: requests end, waits end, ticks.
    fn advance(&mut self, to: u64) {
        if to.saturating_sub(self.now) > micros(SILENCE) + TICK_MICROS {
            self.live_until(self.now + micros(SILENCE));
            self.next_tick = to;
        }
        self.live_until(to);
    }

    fn live_until(&mut self, to: u64) {
        loop {
            let end = self.ends.peek().map_or(u64::MAX, |Reverse(end)| end.until);
            let wake = self.scheduler.next_wake().map_or(u64::MAX, |wake| wake.as_nanos() / 1_000);
            let next = end.min(wake.max(self.now)).min(self.next_tick);
            if next > to {
                break;
            }
            self.now = self.now.max(next);
            if next == end {
                self.end_one();
            } else if next == self.next_tick {
                self.scheduler.tick(instant(self.now), &Probes::default());
                self.next_tick += TICK_MICROS;
            } else {
                // Rounded down to microseconds, a wake-up could come just before its time.
                self.now += 1;
                self.scheduler.wake(instant(self.now));
            }
            self.deliver();
        }
        self.now = self.now.max(to);
    }

    fn end_one(&mut self) {
        let Some(Reverse(Runs { number, .. })) = self.ends.pop() else { return };
        let Some(Open { ticket, end, kind }) = self.open.remove(&number) else { return };
        let now = instant(self.now);
        if kind == Kind::Short {
            self.scheduler.first_byte(now, ticket, Level::default());
        }
        self.scheduler.finish(now, ticket, Outcome { end, bytes: 0, level: Level::default() });
    }

    fn deliver(&mut self) {
        if !self.scheduler.has_verdicts() {
            return;
        }
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.scheduler.take_verdicts(&mut verdicts);
        for (ticket, verdict) in verdicts.drain(..) {
            let Some((since, waiting)) = self.queued.remove(&ticket) else { continue };
            match verdict {
                Verdict::Admit => {
                    let waited = Duration::from_micros(self.now.saturating_sub(since));
                    self.tally.admitted(&waiting.class, waiting.caller, Some(waited));
                    self.run(self.now, ticket, &waiting);
                }
                Verdict::Shed(refusal) => {
                    if !refusal.hold.is_zero() {
                        self.scheduler.released(instant(self.now));
                    }
                    self.tally.shed(&waiting.class, waiting.caller, refusal.reason);
                }
            }
        }
        self.verdicts = verdicts;
    }
}

const fn instant(micros: u64) -> Instant {
    Instant::from_nanos(micros.saturating_mul(1_000))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
