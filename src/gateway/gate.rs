//! How does a request wait for its turn without blocking a thread?
//!
//! The [`Scheduler`] is pure: it is told the time and answers at once. The gate is its shell in the real world: one
//! short mutex around it, a channel for each request that waits or may have to be reset, and two clock hands (the
//! tick, and the next moment a waiting request runs out of patience). Capacity is a [`Permit`]: whatever happens to a
//! request, dropping the permit gives its seats back, exactly once. A refusal that the scheduler wants kept back is
//! kept back here, and reported as told exactly once, also when its client leaves or the process drains.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::permit::Permit;
use crate::clock;
use crate::flow::levers::LimitHold;
use crate::flow::{
    Arrival, Decision, Diagnosis, Key, Kind, MemoryStep, Numbers, Probes, Reason, Refusal, Remembered,
    Scheduler, Settings, Snapshot, TICK, Ticket, Verdict, Walk, Would,
};
use crate::policy::{Lane, Mode as PolicyMode};
use crate::server::Drain;
use crate::telemetry::GateGauges;
use crate::units::{Instant, SeatSeconds};

/// Requests that can be reset from outside at most. Each holds a seat under L, or begins a watch, so an ordinary limit
/// never reaches this; beyond it a request is simply not reset.
const RESETTABLE_MAX: usize = 4_096;

/// The scheduler, shared by every shard of the process.
pub struct Gate {
    inner: Mutex<Inner>,
    /// Rings when the next wake-up may have moved forward.
    rearm: Notify,
    /// Ends every hold at once.
    drain: Drain,
}

struct Inner {
    scheduler: Scheduler,
    /// Bounded by the sum of the lanes' queue limits: the scheduler refuses what does not fit.
    waiting: HashMap<Ticket, oneshot::Sender<Verdict>>,
    /// Kept between calls to spare an allocation.
    verdicts: Vec<(Ticket, Verdict)>,
    /// Requests of the lanes that the scheduler may reset, at most [`RESETTABLE_MAX`].
    resettable: HashMap<Ticket, oneshot::Sender<()>>,
    resets: Vec<Ticket>,
    tally: GateGauges,
    /// When the clock hands turn next. Only a wait that ends earlier has to wake the control thread.
    armed: Instant,
}

/// Everything that a scrape or the status page shows, of one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The scheduler's numbers.
    pub snapshot: Snapshot,
    /// Why the apiserver is slow.
    pub diagnosis: Diagnosis,
    /// The gate's own numbers.
    pub gate: GateGauges,
}

impl Inner {
    fn deliver(&mut self) {
        if !self.scheduler.has_verdicts() {
            return;
        }
        self.scheduler.take_verdicts(&mut self.verdicts);
        for (ticket, verdict) in self.verdicts.drain(..) {
            let Some(waiter) = self.waiting.remove(&ticket) else { continue };
            // A waiter that left gives its ticket back by itself, but nobody else tells its refusal.
            if let Err(Verdict::Shed(refusal)) = waiter.send(verdict)
                && !refusal.hold.is_zero()
            {
                self.scheduler.released(clock::now());
            }
        }
    }

    /// Tells the requests that the scheduler gave up that they are over.
    fn reset(&mut self) {
        self.scheduler.take_resets(&mut self.resets);
        for ticket in self.resets.drain(..) {
            let told = self.resettable.remove(&ticket).is_some_and(|request| request.send(()).is_ok());
            self.tally.resets += u64::from(told);
        }
    }
}

impl Gate {
    /// A gate around `scheduler`. Somebody must [`Gate::run`] it.
    #[must_use]
    pub fn new(scheduler: Scheduler, drain: Drain) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                scheduler,
                waiting: HashMap::new(),
                verdicts: Vec::new(),
                resettable: HashMap::new(),
                resets: Vec::new(),
                tally: GateGauges::default(),
                armed: Instant::ORIGIN,
            }),
            rearm: Notify::new(),
            drain,
        })
    }

    /// Asks for a turn; waits in the lane's queue if that is the decision and `mode` holds it to that. The answer carries
    /// how long it waited, and what would have been.
    ///
    /// # Errors
    /// The refusal, when the request is shed now or its wait ran out; later, when it is one to be kept back.
    pub async fn enter(
        self: &Arc<Self>,
        arrived: Instant,
        arrival: &Arrival,
        mode: PolicyMode,
    ) -> Result<Entered<Permit>, Refusal> {
        let entered = |turn, waited, would| Entered { turn, waited, would };
        let refusal = match self.ask(arrived, arrival, mode) {
            Asked::Admitted(permit, would) => return Ok(entered(permit, Duration::ZERO, would)),
            Asked::Refused(refusal) => refusal,
            Asked::Waiting(mut permit, mut verdict) => match (&mut verdict.0).await {
                Ok(Verdict::Admit) => {
                    if may_be_reset(arrival) {
                        permit.may_be_reset();
                    }
                    return Ok(entered(permit, clock::now().since(arrived), None));
                }
                Ok(Verdict::Shed(refusal)) => {
                    permit.disarm();
                    refusal
                }
                // The sender lives in the table until the verdict is sent or the permit is dropped.
                Err(_) => Refusal::now(Reason::Draining, 1),
            },
        };
        self.hold(&refusal).await;
        Err(refusal)
    }

    fn ask(self: &Arc<Self>, arrived: Instant, arrival: &Arrival, mode: PolicyMode) -> Asked {
        let mut inner = self.inner.lock();
        let (decision, would) = inner.scheduler.arrive_under(arrived, arrival, mode);
        let asked = match decision {
            Decision::Admit(ticket) => {
                let reset = may_be_reset(arrival).then(|| inner.resettable(ticket)).flatten();
                Asked::Admitted(Permit::new(self, ticket, reset), would)
            }
            Decision::Shed(refusal) => Asked::Refused(refusal),
            Decision::Wait(ticket) => {
                let (sender, receiver) = oneshot::channel();
                inner.waiting.insert(ticket, sender);
                if inner.scheduler.next_wake().is_some_and(|wake| wake < inner.armed) {
                    self.rearm.notify_one();
                }
                // From here on the permit owns the ticket: a client that leaves while it waits gives it back.
                Asked::Waiting(Permit::new(self, ticket, None), Awaited(receiver, Arc::clone(self)))
            }
        };
        inner.deliver();
        asked
    }

    /// Keeps a refusal back for as long as the scheduler wants, but not while the process drains.
    async fn hold(self: &Arc<Self>, refusal: &Refusal) {
        if refusal.hold.is_zero() {
            return;
        }
        let _held = Held::new(self);
        tokio::select! {
            () = tokio::time::sleep(refusal.hold) => {}
            () = self.drain.begun() => {}
        }
    }

    /// What a scrape shows, of this moment.
    #[must_use]
    pub fn view(&self) -> View {
        let inner = self.inner.lock();
        View {
            snapshot: inner.scheduler.snapshot(clock::now()),
            diagnosis: inner.scheduler.diagnosis(),
            gate: inner.tally,
        }
    }

    /// Who makes the work of the last seconds: shares from 0 to 1, of at most 64 clients in no order.
    #[must_use]
    pub fn shares(&self) -> Vec<(u64, f64)> {
        self.inner.lock().scheduler.shares()
    }

    /// The numbers of one lane.
    pub(super) fn numbers(&self, lane: Lane) -> Numbers {
        self.inner.lock().scheduler.numbers(lane)
    }

    /// What would be said to a request now, gate by gate.
    #[must_use]
    pub fn walk(&self, arrival: &Arrival) -> Walk {
        self.inner.lock().scheduler.walk(clock::now(), arrival)
    }

    /// Whether the apiserver can be reached at all; it says when it came back, too.
    pub fn upstream_up(&self, up: bool) {
        self.with(|scheduler| scheduler.upstream_up(clock::now(), up));
    }

    /// New settings for what comes; what is in flight stays.
    pub fn reconfigure(&self, settings: Settings) {
        self.with(|scheduler| scheduler.reconfigure(clock::now(), settings));
    }

    /// Puts an operator's hold on L in force, or ends it.
    pub fn hold_limit(&self, hold: Option<LimitHold>) {
        self.with(|scheduler| scheduler.hold_limit(clock::now(), hold));
    }

    /// The hold on L that is in force.
    #[must_use]
    pub fn held_limit(&self) -> Option<LimitHold> {
        self.inner.lock().scheduler.held_limit()
    }

    /// How short of memory this process itself is.
    pub fn own_memory(&self, step: MemoryStep) {
        self.with(|scheduler| scheduler.own_memory(step));
    }

    /// What a request is expected to cost.
    #[must_use]
    pub fn price(&self, key: &Key) -> SeatSeconds {
        self.inner.lock().scheduler.price(key)
    }

    /// What is worth keeping over a restart.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        self.inner.lock().scheduler.remember()
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
                inner.reset();
                tick = now + TICK;
            }
            inner.deliver();
        }
    }

    /// Tells the scheduler something, and those who waited what follows.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Scheduler) -> T) -> T {
        let mut inner = self.inner.lock();
        let told = act(&mut inner.scheduler);
        inner.deliver();
        told
    }

    /// A request that is inside becomes one that can be reset; `None` when there are too many of them.
    pub(super) fn resettable(&self, ticket: Ticket) -> Option<oneshot::Receiver<()>> {
        self.inner.lock().resettable(ticket)
    }

    /// A watch only listens from now on, and is not worth a reset any more.
    pub(super) fn burst_done(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        inner.resettable.remove(&ticket);
        inner.scheduler.burst_done(clock::now(), ticket);
        inner.deliver();
    }

    /// A request is over, however it ended: `tell` says it to the scheduler.
    pub(super) fn leave(&self, ticket: Ticket, tell: impl FnOnce(&mut Scheduler)) {
        let mut inner = self.inner.lock();
        if !inner.waiting.is_empty() {
            inner.waiting.remove(&ticket);
        }
        if !inner.resettable.is_empty() {
            inner.resettable.remove(&ticket);
        }
        tell(&mut inner.scheduler);
        inner.deliver();
    }
}

impl Inner {
    fn resettable(&mut self, ticket: Ticket) -> Option<oneshot::Receiver<()>> {
        if self.resettable.len() >= RESETTABLE_MAX {
            return None;
        }
        let (reset, told) = oneshot::channel();
        self.resettable.insert(ticket, reset);
        Some(told)
    }
}

/// The scheduler resets nothing but telemetry's LISTs, and watches that begin as one.
fn may_be_reset(arrival: &Arrival) -> bool {
    arrival.kind != Kind::Streaming && !arrival.exempt && arrival.lane == Lane::Telemetry
}

/// A turn, how long it was waited for, and what would have been, were the request held to the policy.
#[derive(Debug)]
pub struct Entered<T> {
    /// The turn.
    pub turn: T,
    /// How long it was waited for.
    pub waited: Duration,
    /// Why it would not have been let in, or not at once.
    pub would: Option<Would>,
}

/// What a request gets at once.
enum Asked {
    Admitted(Permit, Option<Would>),
    Refused(Refusal),
    /// The permit counts once the verdict says so.
    Waiting(Permit, Awaited),
}

/// A verdict to come. A refusal that arrives after its client left was never told, and must not count as held.
struct Awaited(oneshot::Receiver<Verdict>, Arc<Gate>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(Verdict::Shed(refusal)) = self.0.try_recv()
            && !refusal.hold.is_zero()
        {
            self.1.with(|scheduler| scheduler.released(clock::now()));
        }
    }
}

/// A refusal that is being kept back; its end is reported when this is dropped.
struct Held(Arc<Gate>);

impl Held {
    fn new(gate: &Arc<Gate>) -> Self {
        let mut inner = gate.inner.lock();
        inner.tally.holding += 1;
        inner.tally.held += 1;
        Self(Arc::clone(gate))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.tally.holding -= 1;
        inner.scheduler.released(clock::now());
        inner.deliver();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::flow::{Encoding, End, Level};
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
        let Ok(Entered { turn: permit, .. }) = gate.enter(clock::now(), &arrival, PolicyMode::Enforce).await
        else {
            return;
        };
        tokio::task::yield_now().await;
        match fate {
            Fate::Answered => {
                permit.first_byte(clock::now(), Level::default());
                permit.finish(End::Success, 1_000, Level::default());
            }
            Fate::WatchThatStays => {
                permit.first_byte(clock::now(), Level::default());
                permit.burst_done();
                tokio::task::yield_now().await;
            }
            Fate::HandlerPanics => panic!("a handler's panic, on purpose"),
            Fate::ClientLeaves => std::future::pending().await,
        }
    }

    fn gate(settings: Settings, drain: &Drain) -> Arc<Gate> {
        Gate::new(Scheduler::new(settings, 7, clock::now()), drain.clone())
    }

    fn held(hold: Duration) -> Refusal {
        Refusal { hold, ..Refusal::now(Reason::EarlyReturn, 4) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_refusal_is_told_when_its_time_is_over_and_released_once() {
        let gate = gate(Settings::default(), &Drain::new());
        let started = tokio::time::Instant::now();
        let task = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.hold(&held(Duration::from_secs(3))).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.view().gate, GateGauges { holding: 1, held: 1, resets: 0 });
        task.await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(3));
        assert_eq!(gate.view().gate, GateGauges { holding: 0, held: 1, resets: 0 });
        gate.hold(&held(Duration::ZERO)).await;
        assert_eq!(gate.view().gate.held, 1, "what is told at once is not held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_and_a_drain_end_a_hold_at_once() {
        let drain = Drain::new();
        let gate = gate(Settings::default(), &drain);
        let hold = |gate: Arc<Gate>| async move { gate.hold(&held(Duration::from_secs(3))).await };
        let (leaves, stays) = (tokio::spawn(hold(Arc::clone(&gate))), tokio::spawn(hold(Arc::clone(&gate))));
        tokio::task::yield_now().await;
        assert_eq!(gate.view().gate.holding, 2);
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        assert_eq!(gate.view().gate.holding, 1);
        let started = tokio::time::Instant::now();
        drain.begin(Duration::from_secs(25));
        stays.await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(gate.view().gate.holding, 0);
    }

    #[tokio::test]
    async fn only_what_the_scheduler_may_choose_can_be_reset() {
        let gate = gate(Settings::default(), &Drain::new());
        for (lane, kind, can) in [
            (Lane::Telemetry, Kind::Short, true),
            (Lane::Telemetry, Kind::Watch, true),
            (Lane::Telemetry, Kind::Streaming, false),
            (Lane::Unknown, Kind::Short, false),
            (Lane::Operators, Kind::Short, false),
        ] {
            let arrival = arrival(lane, kind, 1);
            let entered = gate.enter(clock::now(), &arrival, PolicyMode::Enforce).await.expect("it is idle");
            let mut permit = entered.turn;
            assert_eq!(permit.take_reset().is_some(), can, "{lane} {kind:?}");
        }
        assert!(gate.inner.lock().resettable.is_empty(), "what is over is not reset");
    }

    #[tokio::test]
    async fn a_reset_reaches_the_request_once() {
        let gate = gate(Settings::default(), &Drain::new());
        let arrival = arrival(Lane::Telemetry, Kind::Short, 1);
        let entered = gate.enter(clock::now(), &arrival, PolicyMode::Enforce).await.expect("it is idle");
        let mut permit = entered.turn;
        let reset = permit.take_reset().expect("it can be reset");
        {
            let mut inner = gate.inner.lock();
            let ticket = *inner.resettable.keys().next().expect("it is known");
            inner.resets.extend([ticket, ticket]);
            inner.reset();
        }
        assert_eq!(reset.await, Ok(()));
        assert_eq!(gate.view().gate.resets, 1);
        drop(permit);
        assert_eq!(gate.view().snapshot.used, Seats::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn seats_return_to_zero_after_any_mix_of_ends(fates in fates()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let settings = Settings { limit: crate::flow::LimitSettings { start: Seats(12), ..Default::default() }, ..Settings::default() };
            let gate = gate(settings, &Drain::new());
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
            let after = gate.view().snapshot;
            prop_assert_eq!(after.used, Seats::ZERO);
            prop_assert_eq!(after.tickets, 0);
            prop_assert!(gate.inner.lock().waiting.is_empty());
            prop_assert!(gate.inner.lock().resettable.is_empty());
        }
    }
}
