//! How does a request wait for its turn without blocking a thread?
//!
//! The [`Scheduler`] is pure: it is told the time and answers at once. The gate is its shell in the real world: one
//! short mutex around it, a channel for each request that waits, and two clock hands (the tick, and the next
//! moment a waiting request runs out of patience). Capacity is a [`Permit`]: whatever happens to a request,
//! dropping the permit gives its seats back, exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::flow::{
    Arrival, Decision, End, Level, Outcome, Probes, Reason, Refusal, Scheduler, Snapshot, TICK, Ticket,
    Verdict,
};
use crate::units::Instant;

/// The scheduler, shared by every shard of the process.
pub struct Gate {
    inner: Mutex<Inner>,
    /// Rings when the next wake-up may have moved forward.
    rearm: Notify,
}

struct Inner {
    scheduler: Scheduler,
    /// Bounded by the sum of the lanes' queue limits: the scheduler refuses what does not fit.
    waiting: HashMap<Ticket, oneshot::Sender<Verdict>>,
    /// Kept between calls to spare an allocation.
    verdicts: Vec<(Ticket, Verdict)>,
    /// When the clock hands turn next. Only a wait that ends earlier has to wake the control thread.
    armed: Instant,
}

impl Inner {
    fn deliver(&mut self) {
        if !self.scheduler.has_verdicts() {
            return;
        }
        self.scheduler.take_verdicts(&mut self.verdicts);
        for (ticket, verdict) in self.verdicts.drain(..) {
            if let Some(waiter) = self.waiting.remove(&ticket) {
                // A waiter that left gives its ticket back by itself.
                let _ = waiter.send(verdict);
            }
        }
    }
}

impl Gate {
    /// A gate around `scheduler`. Somebody must [`Gate::run`] it.
    #[must_use]
    pub fn new(scheduler: Scheduler) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                scheduler,
                waiting: HashMap::new(),
                verdicts: Vec::new(),
                armed: Instant::ORIGIN,
            }),
            rearm: Notify::new(),
        })
    }

    /// Asks for a turn; waits in the lane's queue if that is the decision. The answer carries how long it waited.
    ///
    /// # Errors
    /// The refusal, when the request is shed now or its wait ran out.
    pub async fn enter(
        self: &Arc<Self>,
        arrived: Instant,
        arrival: &Arrival,
    ) -> Result<(Permit, Duration), Refusal> {
        let (mut permit, verdict) = match self.ask(arrived, arrival) {
            Asked::Admitted(permit) => return Ok((permit, Duration::ZERO)),
            Asked::Refused(refusal) => return Err(refusal),
            Asked::Waiting(permit, verdict) => (permit, verdict),
        };
        match verdict.await {
            Ok(Verdict::Admit) => Ok((permit, clock::now().since(arrived))),
            Ok(Verdict::Shed(refusal)) => {
                permit.disarm();
                Err(refusal)
            }
            // The sender lives in the table until the verdict is sent or the permit is dropped.
            Err(_) => Err(Refusal::now(Reason::Draining, 1)),
        }
    }

    fn ask(self: &Arc<Self>, arrived: Instant, arrival: &Arrival) -> Asked {
        let mut inner = self.inner.lock();
        let asked = match inner.scheduler.arrive(arrived, arrival) {
            Decision::Admit(ticket) => Asked::Admitted(Permit::new(self, ticket)),
            Decision::Shed(refusal) => Asked::Refused(refusal),
            Decision::Wait(ticket) => {
                let (sender, receiver) = oneshot::channel();
                inner.waiting.insert(ticket, sender);
                if inner.scheduler.next_wake().is_some_and(|wake| wake < inner.armed) {
                    self.rearm.notify_one();
                }
                // From here on the permit owns the ticket: a client that leaves while it waits gives it back.
                Asked::Waiting(Permit::new(self, ticket), receiver)
            }
        };
        inner.deliver();
        asked
    }

    /// What the lanes look like now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.lock().scheduler.snapshot(clock::now())
    }

    /// Whether the apiserver can be reached at all; it says when it came back, too.
    pub fn upstream_up(&self, up: bool) {
        self.with(|scheduler| scheduler.upstream_up(clock::now(), up));
    }

    /// Turns the clock hands until the process ends: one tick every [`TICK`], and a wake-up whenever a waiting
    /// request runs out of patience. `probes` is asked at each tick.
    pub async fn run(self: Arc<Self>, mut probes: impl FnMut() -> Probes) {
        let mut tick = clock::now() + TICK;
        loop {
            let until = {
                let mut inner = self.inner.lock();
                inner.armed = inner.scheduler.next_wake().map_or(tick, |wake| wake.min(tick));
                inner.armed
            };
            tokio::select! {
                () = tokio::time::sleep(until.since(clock::now())) => {}
                () = self.rearm.notified() => continue,
            }
            let now = clock::now();
            let readings = (now >= tick).then(&mut probes);
            let mut inner = self.inner.lock();
            inner.scheduler.wake(now);
            if let Some(readings) = readings {
                inner.scheduler.tick(now, &readings);
                tick = now + TICK;
            }
            inner.deliver();
        }
    }

    fn with(&self, act: impl FnOnce(&mut Scheduler)) {
        let mut inner = self.inner.lock();
        act(&mut inner.scheduler);
        inner.deliver();
    }
}

/// What a request gets at once.
enum Asked {
    Admitted(Permit),
    Refused(Refusal),
    /// The permit counts once the verdict says so.
    Waiting(Permit, oneshot::Receiver<Verdict>),
}

/// A turn at the apiserver. Dropping it without [`Permit::finish`] counts the request as dropped.
pub struct Permit {
    gate: Arc<Gate>,
    ticket: Option<Ticket>,
}

impl Permit {
    fn new(gate: &Arc<Gate>, ticket: Ticket) -> Self {
        Self { gate: Arc::clone(gate), ticket: Some(ticket) }
    }

    fn disarm(&mut self) {
        self.ticket = None;
    }

    /// The apiserver's head has arrived.
    pub fn first_byte(&self, now: Instant) {
        if let Some(ticket) = self.ticket {
            self.gate.with(|scheduler| scheduler.first_byte(now, ticket, Level::default()));
        }
    }

    /// A watch has delivered what it had at its start; from now on it waits for events and needs no seats.
    pub fn burst_done(&self) {
        if let Some(ticket) = self.ticket {
            self.gate.with(|scheduler| scheduler.burst_done(clock::now(), ticket));
        }
    }

    /// The answer is complete.
    pub fn finish(mut self, end: End, bytes: u64) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.with(|scheduler| {
                scheduler.finish(clock::now(), ticket, Outcome { end, bytes, level: Level::default() })
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = clock::now();
            let mut inner = self.gate.inner.lock();
            inner.waiting.remove(&ticket);
            inner.scheduler.cancel(now, ticket);
            inner.deliver();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::flow::{Encoding, Key, Kind, Settings};
    use crate::policy::Lane;
    use crate::request::{DecodedPath, RequestInfo};
    use crate::units::Seats;

    /// What may happen to a request.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Answered,
        ClientLeaves,
        WatchThatStays,
        HandlerPanics,
    }

    fn fates() -> impl Strategy<Value = Vec<(Fate, usize)>> {
        let fate = prop_oneof![
            Just(Fate::Answered),
            Just(Fate::ClientLeaves),
            Just(Fate::WatchThatStays),
            Just(Fate::HandlerPanics),
        ];
        prop::collection::vec((fate, 1..Lane::COUNT), 1..80)
    }

    fn arrival(lane: Lane, kind: Kind, client: u64) -> Arrival {
        let path = DecodedPath::new("/api/v1/pods").unwrap();
        let info = RequestInfo::new("GET", &path, None).unwrap();
        let key = Key::of(&info, Encoding::Json);
        Arrival { lane, flow: client, client, key, kind, exempt: false }
    }

    async fn live(gate: Arc<Gate>, fate: Fate, arrival: Arrival) {
        let Ok((permit, _waited)) = gate.enter(clock::now(), &arrival).await else { return };
        tokio::task::yield_now().await;
        match fate {
            Fate::Answered => {
                permit.first_byte(clock::now());
                permit.finish(End::Success, 1_000);
            }
            Fate::WatchThatStays => {
                permit.first_byte(clock::now());
                permit.burst_done();
                tokio::task::yield_now().await;
            }
            Fate::HandlerPanics => panic!("a handler's panic, on purpose"),
            Fate::ClientLeaves => std::future::pending().await,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn seats_return_to_zero_after_any_mix_of_ends(fates in fates()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let settings = Settings { limit: crate::flow::LimitSettings { start: Seats(12), ..Default::default() }, ..Settings::default() };
            let gate = Gate::new(Scheduler::new(settings, 7, clock::now()));
            runtime.block_on(async {
                let tasks: Vec<JoinHandle<()>> = fates.iter().enumerate().map(|(client, (fate, lane))| {
                    let kind = if matches!(fate, Fate::WatchThatStays) { Kind::Watch } else { Kind::Short };
                    let arrival = arrival(Lane::ALL[*lane], kind, client as u64);
                    tokio::spawn(live(Arc::clone(&gate), *fate, arrival))
                }).collect();
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                for task in tasks {
                    task.abort();
                    let _ = task.await;
                }
            });
            let after = gate.snapshot();
            prop_assert_eq!(after.used, Seats::ZERO);
            prop_assert_eq!(after.tickets, 0);
            prop_assert!(gate.inner.lock().waiting.is_empty());
        }
    }
}
