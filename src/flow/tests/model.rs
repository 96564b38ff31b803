//! Random histories: whatever happens in whatever order, the books balance.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::flow::{Probe, Probes, ResponseBytes, Settings, Snapshot};
use crate::policy::LaneSettings;
use crate::units::Seats;

/// One thing that can happen. Indices pick among the tickets handed out so far, also those that are over.
#[derive(Clone, Debug)]
enum Step {
    Arrive { lane: usize, client: u64, call: usize, exempt: bool },
    FirstByte(usize),
    BurstDone(usize),
    Finish(usize, End),
    Cancel(usize),
    Pass(u64),
    Tick(Probe, Option<bool>),
    Delivered(usize, u64),
    Upstream(bool),
    Wait { lane: usize, millis: u64 },
    Released,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..4096usize;
    let end = prop_oneof![
        4 => Just(End::Success),
        1 => Just(End::Ignored),
        1 => Just(End::Dropped),
        1 => Just(End::TimedOut),
        1 => Just(End::Congested),
        1 => Just(End::Lagging),
        1 => Just(End::Closing),
        1 => (0..40u32).prop_map(|retry_after_seconds| End::Warming { retry_after_seconds }),
    ];
    let probe = prop_oneof![
        4 => (1..50u64).prop_map(|millis| Probe::Answered(Duration::from_millis(millis))),
        1 => Just(Probe::Lost),
        1 => Just(Probe::Silent),
        1 => (1..1500u64).prop_map(|millis| Probe::Waiting(Duration::from_millis(millis))),
    ];
    prop_oneof![
        12 => (0..Lane::COUNT, 0..6u64, 0..CALLS, prop::bool::weighted(0.03))
            .prop_map(|(lane, client, call, exempt)| Step::Arrive { lane, client, call, exempt }),
        4 => any.clone().prop_map(Step::FirstByte),
        2 => any.clone().prop_map(Step::BurstDone),
        5 => (any.clone(), end).prop_map(|(which, end)| Step::Finish(which, end)),
        2 => any.clone().prop_map(Step::Cancel),
        4 => (0..400u64).prop_map(Step::Pass),
        2 => (probe, prop::option::of(prop::bool::ANY)).prop_map(|(probe, ready)| Step::Tick(probe, ready)),
        1 => (any.clone(), 0..1_000_000u64).prop_map(|(which, bytes)| Step::Delivered(which, bytes)),
        1 => prop::bool::weighted(0.8).prop_map(Step::Upstream),
        1 => (0..Lane::COUNT, 0..3000u64).prop_map(|(lane, millis)| Step::Wait { lane, millis }),
        1 => Just(Step::Released),
    ]
}

/// No answer in these histories is larger.
const LARGEST: u64 = 70_000 * 4096;

const CALLS: usize = 6;

fn call(which: usize) -> (Key, Kind) {
    match which {
        0 => (object("pods"), Kind::Short),
        1 => (lease(), Kind::Short),
        2 => (cluster_list("pods"), Kind::Short),
        3 => (key("GET", "/api/v1/namespaces/shop/pods", ""), Kind::Short),
        4 => (key("GET", "/api/v1/pods", "watch=1&sendInitialEvents=1"), Kind::Watch),
        _ => (key("GET", "/api/v1/namespaces/shop/pods/web/log", "follow=1"), Kind::Streaming),
    }
}

/// What the caller knows of a ticket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Waiting { until: Instant },
    Admitted,
    Over,
}

struct Run {
    scheduler: Scheduler,
    settings: Settings,
    now: Instant,
    tickets: Vec<(Ticket, Known)>,
    trace: String,
    /// Refusals that the caller keeps back.
    held: u32,
    /// The largest limit so far: what was admitted under it may still be in use.
    limit: Seats,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut settings = Settings::default();
        // Small enough that random histories meet every bound.
        settings.limit.start = Seats(24);
        settings.lanes.iter_mut().for_each(|lane| lane.queue_limit = lane.queue_limit.min(6));
        settings.exempt_requests = 4;
        settings.streams_per_lane = 3;
        settings.tickets = 96;
        settings.hold.most = 3;
        settings.watches.per_flow = 3;
        settings.memory.response_bytes = ResponseBytes::Fixed(50_000_000);
        let scheduler = Scheduler::new(settings.clone(), seed, Instant::ORIGIN);
        let limit = settings.limit.start;
        Self {
            scheduler,
            settings,
            now: Instant::ORIGIN,
            tickets: Vec::new(),
            trace: String::new(),
            held: 0,
            limit,
        }
    }

    fn pick(&self, which: usize) -> Option<(usize, Ticket)> {
        let index = which.checked_rem(self.tickets.len())?;
        Some((index, self.tickets[index].0))
    }

    fn step(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Arrive { lane, client, call: which, exempt } => self.arrive(lane, client, which, exempt),
            Step::FirstByte(which) => {
                // The caller knows whether its request was admitted.
                if let Some((index, ticket)) = self.pick(which)
                    && self.tickets[index].1 != (Known::Over)
                {
                    self.scheduler.first_byte(now, ticket, Level::default());
                }
            }
            Step::BurstDone(which) => {
                if let Some((_, ticket)) = self.pick(which) {
                    self.scheduler.burst_done(now, ticket);
                }
            }
            Step::Finish(which, end) => {
                if let Some((index, ticket)) = self.pick(which) {
                    self.scheduler.finish(
                        now,
                        ticket,
                        Outcome { end, bytes: 70_000 * which as u64, level: Level::default() },
                    );
                    self.tickets[index].1 = Known::Over;
                }
            }
            Step::Cancel(which) => {
                if let Some((index, ticket)) = self.pick(which) {
                    self.scheduler.cancel(now, ticket);
                    self.tickets[index].1 = Known::Over;
                }
            }
            Step::Pass(millis) => {
                self.now = now + Duration::from_millis(millis);
                self.scheduler.wake(self.now);
            }
            Step::Tick(livez, ready) => {
                self.scheduler.tick(now, &Probes { livez, ready, ..Probes::default() });
                self.take_resets();
            }
            Step::Delivered(which, bytes) => {
                if let Some((_, ticket)) = self.pick(which) {
                    self.scheduler.delivered(now, ticket, bytes);
                }
            }
            Step::Upstream(is_up) => self.scheduler.upstream_up(now, is_up),
            Step::Wait { lane, millis } => {
                self.settings.lanes[lane].wait = Duration::from_millis(millis);
                self.scheduler.reconfigure(now, self.settings.clone());
            }
            Step::Released => {
                if self.held > 0 {
                    self.held -= 1;
                    self.scheduler.released(now);
                }
            }
        }
        self.take_verdicts();
        self.check();
    }

    fn arrive(&mut self, lane: usize, client: u64, which: usize, exempt: bool) {
        let (key, kind) = call(which);
        let lane = Lane::ALL[lane];
        let arrival = Arrival { lane, flow: client, client, key, kind, exempt };
        // Callers read the clock before they have the lock: some are a little late.
        let read = self.now - Duration::from_millis(client);
        let decision = self.scheduler.arrive(read, &arrival);
        writeln!(self.trace, "{:?} {decision:?}", self.now).unwrap();
        match decision {
            Decision::Admit(ticket) => self.tickets.push((ticket, Known::Admitted)),
            Decision::Wait(ticket) => {
                // The longest that a lane lets anybody wait: heavy requests, in the lanes below operators and above.
                let until = self.now + Duration::from_secs(4);
                self.tickets.push((ticket, Known::Waiting { until }));
            }
            Decision::Shed(refusal) => {
                assert!(refusal.retry_after_seconds >= 1);
                assert!(refusal.hold <= self.settings.hold.longest);
                self.held += u32::from(!refusal.hold.is_zero());
            }
        }
    }

    /// Only what runs is reset, and each only once.
    fn take_resets(&mut self) {
        let mut resets = Vec::new();
        self.scheduler.take_resets(&mut resets);
        for ticket in resets {
            writeln!(self.trace, "{:?} reset {ticket:?}", self.now).unwrap();
            let known = self.tickets.iter_mut().find(|(known, _)| *known == ticket).unwrap();
            assert_eq!(known.1, Known::Admitted);
            known.1 = Known::Over;
            self.scheduler.cancel(self.now, ticket);
        }
    }

    fn take_verdicts(&mut self) {
        for (ticket, verdict) in verdicts(&mut self.scheduler) {
            writeln!(self.trace, "{:?} {ticket:?} {verdict:?}", self.now).unwrap();
            let known = self.tickets.iter_mut().find(|(known, _)| *known == ticket).unwrap();
            match known.1 {
                Known::Waiting { .. } => {
                    let admitted = verdict == Verdict::Admit;
                    known.1 = if admitted { Known::Admitted } else { Known::Over };
                }
                // Cancelled between the verdict and its delivery.
                Known::Over => {}
                Known::Admitted => panic!("a second verdict for {ticket:?}"),
            }
        }
    }

    fn check(&mut self) {
        let snapshot = self.scheduler.snapshot(self.now);
        let count =
            |of: fn(&Known) -> bool| self.tickets.iter().filter(|(_, known)| of(known)).count() as u32;
        let waiting = count(|known| matches!(known, Known::Waiting { .. }));
        assert_eq!(snapshot.lanes.iter().map(|lane| lane.waiting).sum::<u32>(), waiting);
        assert_eq!(snapshot.tickets, count(|known| *known != Known::Over));
        assert!(snapshot.tickets <= self.settings.tickets);
        let seats: u32 = snapshot.lanes[1..].iter().map(|lane| lane.seats.0).sum();
        assert_eq!(snapshot.used, Seats(seats));
        assert_eq!(snapshot.held, self.held);
        assert!(self.held <= self.settings.hold.most);
        // One answer larger than the budget alone, or one of a person beyond it.
        assert!(snapshot.response_bytes <= 2 * self.settings.memory.budget() + 2 * LARGEST);
        self.check_bounds(&snapshot);
        if let Some(wake) = self.scheduler.next_wake() {
            let late = |known: &Known| matches!(known, Known::Waiting { until } if *until <= self.now);
            assert!(
                !self.tickets.iter().any(|(_, known)| late(known)),
                "nobody waits longer than a lane allows"
            );
            self.scheduler.wake(self.now);
            assert!(self.scheduler.next_wake().is_none_or(|wake| wake > self.now), "{wake:?} is over");
            self.take_verdicts();
        }
    }

    /// In use: at most the highest ceiling, plus every floor, plus one heavy request alone and one each of three people.
    fn check_bounds(&mut self, snapshot: &Snapshot) {
        self.limit = self.limit.max(snapshot.limit);
        let lanes = &self.settings.lanes[1..];
        let of =
            |lane: &LaneSettings, percent: u32| (self.limit.0 * percent).div_ceil(100).max(lane.floor_min.0);
        let ceiling = lanes.iter().map(|lane| of(lane, lane.ceiling_percent)).max().unwrap();
        // Below its floor an idle lane may run one light request, of three seats at most.
        let floors: u32 = lanes.iter().map(|lane| of(lane, lane.floor_percent).max(3)).sum();
        let heavy = 4 * Seats::MAX_PER_REQUEST.0;
        assert!(snapshot.used.0 <= ceiling + floors + heavy, "{} seats under {}", snapshot.used, self.limit);
    }

    fn end(mut self) -> String {
        self.abandon();
        let snapshot = self.scheduler.snapshot(self.now);
        assert_eq!((snapshot.used, snapshot.heavy, snapshot.exempt), (Seats::ZERO, Seats::ZERO, 0));
        assert_eq!((snapshot.tickets, self.scheduler.next_wake()), (0, None));
        for lane in snapshot.lanes {
            assert_eq!((lane.seats, lane.executing, lane.waiting), (Seats::ZERO, 0, 0));
            assert_eq!((lane.watches, lane.streams), (0, 0));
        }
        assert!(self.scheduler.clients.is_empty());
        assert_eq!([self.scheduler.pending.len, self.scheduler.idling.len], [0, 0]);
        assert_eq!(self.scheduler.bursting.map(|ends| ends.len), [0, 0]);
        assert_eq!(self.scheduler.expendable.len, 0);
        assert!(self.scheduler.watches.is_empty());
        assert_eq!(self.scheduler.ledger.memory.in_flight(), 0);
        self.trace
    }

    /// Everybody goes away.
    fn abandon(&mut self) {
        for (ticket, _) in std::mem::take(&mut self.tickets) {
            self.scheduler.cancel(self.now, ticket);
        }
        self.scheduler.verdicts.clear();
    }
}

fn run(steps: &[Step], seed: u64) -> String {
    let mut run = Run::new(seed);
    steps.iter().for_each(|step| run.step(step));
    run.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn seats_return_whatever_happens_and_equal_histories_give_equal_answers(
        steps in prop::collection::vec(step(), 1..300),
        seed: u64,
    ) {
        prop_assert_eq!(run(&steps, seed), run(&steps, seed));
    }

    #[test]
    fn nothing_stays_stuck(steps in prop::collection::vec(step(), 1..300), seed: u64) {
        let mut run = Run::new(seed);
        steps.iter().for_each(|step| run.step(step));
        run.abandon();
        (0..run.held).for_each(|_| run.scheduler.released(run.now));
        properties::is_itself_again(run.scheduler, run.now);
    }

    /// Where no floor helps it, a lane is never let in at a moment at which a higher one is not.
    #[test]
    fn whoever_is_let_in_low_would_be_let_in_high(
        before in prop::collection::vec((1..Lane::COUNT, 0..200u64, prop::bool::ANY), 0..150),
        limit in 64..300u32,
        low in Lane::Workload.index()..Lane::COUNT,
        high in 1..Lane::Workload.index(),
        heavy: bool,
    ) {
        let replay = |lane: usize| {
            let mut settings = Settings::default();
            settings.limit.start = Seats(limit);
            for lane in &mut settings.lanes {
                (lane.floor_percent, lane.floor_min, lane.identity_rate) = (0, Seats(0), None);
            }
            let mut scheduler = Scheduler::new(settings, 1, Instant::ORIGIN);
            for &(lane, client, heavy) in &before {
                let key = if heavy { cluster_list("pods") } else { object("pods") };
                _ = scheduler.arrive(Instant::ORIGIN, &arrival(Lane::ALL[lane], client, key));
            }
            let key = if heavy { cluster_list("pods") } else { object("pods") };
            let decision = scheduler.arrive(Instant::ORIGIN, &arrival(Lane::ALL[lane], 1_000_000, key));
            matches!(decision, Decision::Admit(_))
        };
        prop_assert!(!replay(low) || replay(high));
    }
}
