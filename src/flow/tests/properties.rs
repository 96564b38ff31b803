//! What must hold for any load: nobody waits beside free seats, floors hold, the low give way first, a higher lane is
//! never worse, and nothing stays stuck.
//!
//! The world of these histories is small: requests of one seat by distinct clients, each of which runs for a while that it
//! was given. So what a test sees is the rule and not the estimate.

use proptest::prelude::*;

use super::*;
use crate::flow::{Probe, Probes, Settings, Snapshot, State, TICK};
use crate::policy::LaneSettings;
use crate::units::Seats;

/// One request: when it comes, in which lane, and how long it runs.
#[derive(Clone, Copy, Debug)]
struct Call {
    millis: u64,
    lane: Lane,
    runs: u64,
}

/// Lanes under the limit.
fn lanes() -> impl Strategy<Value = Lane> {
    (1..Lane::COUNT).prop_map(|index| Lane::ALL[index])
}

fn calls(most: usize) -> impl Strategy<Value = Vec<Call>> {
    let call =
        (0..3_000u64, lanes(), 1..1_500u64).prop_map(|(millis, lane, runs)| Call { millis, lane, runs });
    prop::collection::vec(call, 1..most)
}

/// A limit that stays, lanes without rates; `change` may take more away.
fn settings(limit: u32, change: impl Fn(&mut LaneSettings)) -> Settings {
    let limit = Seats(limit);
    let mut settings = Settings::default();
    (settings.limit.min, settings.limit.max, settings.limit.start) = (limit, limit, limit);
    settings.laws.cohorts = false;
    for lane in &mut settings.lanes {
        lane.identity_rate = None;
        change(lane);
    }
    settings
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Pending,
    Waits(Ticket),
    Runs,
    Refused,
}

/// Calls and ticks in the order of time.
struct Play<'a> {
    scheduler: Scheduler,
    calls: &'a [Call],
    fates: Vec<Fate>,
    /// When each call was let in, in milliseconds.
    began: Vec<Option<u64>>,
    /// When calls that run are over.
    ends: Vec<(u64, Ticket)>,
    /// Calls that were let in at this event.
    let_in: Vec<usize>,
    now: u64,
}

impl<'a> Play<'a> {
    fn new(settings: Settings, calls: &'a [Call]) -> Self {
        Self {
            scheduler: Scheduler::new(settings, 1, at(0)),
            calls,
            fates: vec![Fate::Pending; calls.len()],
            began: vec![None; calls.len()],
            ends: Vec::new(),
            let_in: Vec::new(),
            now: 0,
        }
    }

    /// Plays until every call is over; `look` is called after each event.
    fn run(mut self, mut look: impl FnMut(&mut Self)) -> Self {
        let calm = Probe::Answered(Duration::from_millis(2));
        let probes = Probes { livez: calm, cached: calm, consistent: calm, ready: Some(true) };
        let mut order: Vec<usize> = (0..self.calls.len()).collect();
        order.sort_by_key(|&call| (self.calls[call].millis, call));
        let mut order = order.into_iter().peekable();
        let tick = TICK.as_millis() as u64;
        let mut next_tick = 0;
        loop {
            let wake = self.scheduler.next_wake().map(|wake| wake.as_nanos().div_ceil(1_000_000));
            let arrival = order.peek().map(|&call| self.calls[call].millis);
            let end = self.ends.iter().copied().min_by_key(|&(end, ticket)| (end, ticket.slot));
            let Some(next) = [wake, arrival, end.map(|(end, _)| end)].into_iter().flatten().min() else {
                break;
            };
            self.now = self.now.max(next.min(next_tick));
            if next_tick <= self.now {
                next_tick += tick;
                self.scheduler.tick(at(self.now), &probes);
            } else if let Some((_, ticket)) = end.filter(|&(end, _)| end <= self.now) {
                self.ends.retain(|&(_, other)| other != ticket);
                // Nothing is learnt of it: each call stays one of one seat.
                self.scheduler.cancel(at(self.now), ticket);
            } else if wake.is_some_and(|wake| wake <= self.now) {
                self.scheduler.wake(at(self.now));
            } else if let Some(call) = order.next() {
                self.arrive(call);
            }
            self.hear();
            look(&mut self);
            self.let_in.clear();
        }
        self
    }

    fn arrive(&mut self, call: usize) {
        let arrival = arrival(self.calls[call].lane, 1_000 + call as u64, object("pods"));
        match self.scheduler.arrive(at(self.now), &arrival) {
            Decision::Admit(ticket) => self.admit(call, ticket),
            Decision::Wait(ticket) => self.fates[call] = Fate::Waits(ticket),
            Decision::Shed(_) => self.fates[call] = Fate::Refused,
        }
    }

    fn admit(&mut self, call: usize, ticket: Ticket) {
        (self.fates[call], self.began[call]) = (Fate::Runs, Some(self.now));
        self.ends.push((self.now + self.calls[call].runs, ticket));
        self.let_in.push(call);
    }

    fn hear(&mut self) {
        for (ticket, verdict) in verdicts(&mut self.scheduler) {
            let call = self.fates.iter().position(|fate| *fate == Fate::Waits(ticket)).unwrap();
            match verdict {
                Verdict::Admit => self.admit(call, ticket),
                Verdict::Shed(_) => self.fates[call] = Fate::Refused,
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot(at(self.now))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A floor is a promise: below it nobody waits and nobody is refused, whatever the others do.
    #[test]
    fn whoever_asks_below_its_floor_is_let_in(calls in calls(400), limit in 10..120u32) {
        Play::new(settings(limit, |_| {}), &calls).run(|play| {
            for (lane, state) in Lane::ALL.into_iter().zip(play.snapshot().lanes).skip(1) {
                assert!(state.waiting == 0 || state.seats >= state.floor, "{lane}: {state:?}");
                if state.seats < state.floor {
                    let ticket = play.scheduler.arrive(at(play.now), &arrival(lane, 7, object("pods"))).admitted();
                    play.scheduler.cancel(at(play.now), ticket);
                }
            }
        });
    }

    /// Beyond its floor a lane gets nothing while a higher one waits: so telemetry is without seats first.
    #[test]
    fn a_low_lane_gets_nothing_beyond_its_floor_while_a_higher_one_waits(calls in calls(400), limit in 10..120u32) {
        Play::new(settings(limit, |_| {}), &calls).run(|play| {
            let snapshot = play.snapshot();
            for &call in &play.let_in {
                let lane = play.calls[call].lane;
                let waiting: u32 = snapshot.lanes[1..lane.index()].iter().map(|lane| lane.waiting).sum();
                let state = snapshot.lane(lane);
                assert!(waiting == 0 || state.seats <= state.floor, "{lane}: {state:?}, and {waiting} waited above");
            }
        });
    }

    /// Seats do not idle: whenever somebody waits, there is none for it.
    #[test]
    fn nobody_waits_beside_free_seats(calls in calls(300), limit in 10..60u32) {
        Play::new(settings(limit, |_| {}), &calls).run(|play| {
            play.scheduler.dispatch(at(play.now));
            assert_eq!(verdicts(&mut play.scheduler), []);
        });
    }

    /// The same call in a higher lane is let in no later, where lanes differ by nothing but their place: without floors (a
    /// low lane may have its floor free while a higher one is full), and with the same patience for all.
    #[test]
    fn a_call_fares_no_worse_in_a_higher_lane(
        calls in calls(250),
        limit in 6..30u32,
        (one, other) in (lanes(), lanes()),
        subjects: [prop::sample::Index; 4],
    ) {
        let even = |lane: &mut LaneSettings| {
            (lane.floor_percent, lane.floor_min) = (0, Seats::ZERO);
            (lane.wait, lane.queue_limit) = (Duration::from_millis(800), 10_000);
        };
        let began = |subject: usize, lane: Lane| {
            let mut calls = calls.clone();
            calls[subject].lane = lane;
            Play::new(settings(limit, even), &calls).run(|_| {}).began[subject].unwrap_or(u64::MAX)
        };
        for subject in subjects.map(|subject| subject.index(calls.len())) {
            let (high, low) = (began(subject, one.min(other)), began(subject, one.max(other)));
            prop_assert!(high <= low, "let in at {high} ms in the higher lane, at {low} ms in the lower");
        }
    }
}

/// Whatever happened: once it is over and the apiserver is well, all is as it was.
pub(super) fn is_itself_again(mut scheduler: Scheduler, mut now: Instant) {
    scheduler.upstream_up(now, true);
    let calm = Probe::Answered(Duration::from_millis(2));
    let probes = Probes { livez: calm, cached: calm, consistent: calm, ready: Some(true) };
    // Three minutes: a tolerance halves in one, and an apiserver whose caches were cold is believed after one.
    for _ in 0..4 * 180 {
        now = now + TICK;
        scheduler.tick(now, &probes);
    }
    let snapshot = scheduler.snapshot(now);
    assert_eq!((snapshot.state, snapshot.used, snapshot.tickets), (State::Normal, Seats::ZERO, 0));
    assert_eq!((snapshot.heavy_duty, scheduler.next_wake()), (1.0, None));
    assert!(snapshot.limit >= Settings::default().limit.start.min(Seats(24)), "L is {}", snapshot.limit);
    assert!(snapshot.lanes.iter().all(|lane| lane.open && lane.waiting == 0));
    for lane in Lane::ALL {
        for (client, key) in [(90_001, object("pods")), (90_002, cluster_list("nodes"))] {
            let ticket = scheduler.arrive(now, &arrival(lane, client, key)).admitted();
            scheduler.finish(now, ticket, DONE);
        }
    }
}
