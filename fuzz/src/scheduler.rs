//! A history of requests, four bytes a step: whatever happens in whatever order, the books balance, nobody waits longer
//! than his lane allows, every seat comes back, and the same history gives the same answers.
//!
//! The first byte of a step says what happens, the next three with whom and how. In corpora they are letters and
//! digits: `A` arrives, `F` first byte, `B` burst over, `E` ends, `C` cancelled, `P` time passes, `T` tick, `D` delivered
//! bytes, `U` upstream up or away, `R` a held refusal is released, `K` settings change, `M` restart with what is remembered.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use spillway::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Probe, Probes, Reason, ResponseBytes,
    Scheduler, Settings, Ticket, Verdict,
};
use spillway::policy::Lane;
use spillway::request::{DecodedPath, RequestInfo};
use spillway::units::{Instant, Seats};

/// Steps that are looked at: more would only make a run slow.
const STEPS_MAX: usize = 400;
/// The books are checked after so many steps, and at the end.
const STEPS_BETWEEN_CHECKS: usize = 8;
/// The longest that anybody waits (heavy requests: 8 s in lanes that wait at all), in milliseconds.
const LONGEST_WAIT_MS: u64 = 10_000;

const CALLS: [(&str, &str, &str, Kind); 8] = [
    ("GET", "/api/v1/namespaces/shop/pods/one", "", Kind::Short),
    ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "", Kind::Short),
    ("GET", "/api/v1/pods", "", Kind::Short),
    ("GET", "/api/v1/secrets", "limit=500", Kind::Short),
    ("GET", "/api/v1/namespaces/shop/pods", "resourceVersion=0", Kind::Short),
    ("GET", "/api/v1/pods", "watch=1&sendInitialEvents=1", Kind::Watch),
    ("GET", "/api/v1/nodes", "watch=1&resourceVersion=7", Kind::Watch),
    ("GET", "/api/v1/namespaces/shop/pods/web/log", "follow=1", Kind::Streaming),
];

pub fn run(input: &[u8]) {
    let trace = play(input);
    // A quarter of them, as it costs as much again.
    if input.len() % 16 < 4 {
        assert_eq!(play(input), trace, "the same history, the same answers");
    }
}

fn play(input: &[u8]) -> String {
    let mut world = World::new();
    for (number, step) in input.chunks_exact(4).take(STEPS_MAX).enumerate() {
        world.step(step[0], step[1], step[2], step[3]);
        world.look();
        if number % STEPS_BETWEEN_CHECKS == 0 {
            world.check();
        }
    }
    world.check();
    world.end()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Waiting { until: Instant },
    Admitted,
    Over,
}

struct World {
    scheduler: Scheduler,
    settings: Settings,
    now: Instant,
    tickets: Vec<Ticket>,
    known: HashMap<Ticket, Known>,
    /// Refusals that are kept back.
    held: u32,
    /// The largest limit so far.
    limit: Seats,
    trace: String,
}

impl World {
    fn new() -> Self {
        let mut settings = Settings::default();
        // Small enough that histories meet every bound.
        settings.limit.start = Seats(24);
        for (lane, known) in settings.lanes.iter_mut().zip(Lane::ALL) {
            lane.queue_limit = lane.queue_limit.min(6);
            // A table of rates is large, and one shows what there is to see.
            lane.identity_rate = lane.identity_rate.filter(|_| known == Lane::Telemetry);
        }
        settings.exempt_requests = 4;
        settings.streams_per_lane = 3;
        settings.tickets = 64;
        settings.hold.most = 3;
        settings.watches.per_flow = 3;
        settings.memory.response_bytes = ResponseBytes::Fixed(50_000_000);
        Self {
            scheduler: Scheduler::new(settings.clone(), 7, Instant::ORIGIN),
            settings,
            now: Instant::ORIGIN,
            tickets: Vec::new(),
            known: HashMap::new(),
            held: 0,
            limit: Seats(24),
            trace: String::new(),
        }
    }

    /// A ticket that was handed out, also one that is over.
    fn ticket(&self, high: u8, low: u8) -> Option<Ticket> {
        let which = usize::from(u16::from_be_bytes([high, low])).checked_rem(self.tickets.len())?;
        Some(self.tickets[which])
    }

    fn step(&mut self, what: u8, a: u8, b: u8, c: u8) {
        let now = self.now;
        match (what, self.ticket(a, b)) {
            (b'A', _) => self.arrive(a, b, c),
            // The caller knows whether its request is on its way.
            (b'F', Some(ticket)) if self.known[&ticket] == Known::Admitted => {
                self.scheduler.first_byte(now, ticket, Level(u64::from(c % 3)));
            }
            (b'B', Some(ticket)) => self.scheduler.burst_done(now, ticket),
            (b'E', Some(ticket)) => {
                let outcome =
                    Outcome { end: end(c), bytes: u64::from(c).pow(3) * 16, level: Level(u64::from(c % 3)) };
                self.scheduler.finish(now, ticket, outcome);
                self.known.insert(ticket, Known::Over);
            }
            (b'C', Some(ticket)) => {
                self.scheduler.cancel(now, ticket);
                self.known.insert(ticket, Known::Over);
            }
            (b'D', Some(ticket)) => self.scheduler.delivered(now, ticket, u64::from(c) << 14),
            (b'P', _) => {
                self.now = now + Duration::from_millis(u64::from(a) * u64::from(b) / 8 + u64::from(c));
                self.scheduler.wake(self.now);
            }
            (b'T', _) => {
                let ready = [None, Some(true), Some(false)][usize::from(c % 3)];
                let probes = Probes { livez: probe(a), cached: probe(b), consistent: probe(c), ready };
                self.scheduler.tick(now, &probes);
                self.reset();
            }
            (b'U', _) => self.scheduler.upstream_up(now, a % 2 == 1),
            (b'R', _) if self.held > 0 => {
                self.held -= 1;
                self.scheduler.released(now);
            }
            (b'K', _) => {
                let lane = &mut self.settings.lanes[usize::from(a) % Lane::COUNT];
                lane.wait = Duration::from_millis(u64::from(b) * 10);
                self.settings.heavy_percent = u32::from(c).clamp(1, 100);
                self.scheduler.reconfigure(now, self.settings.clone());
            }
            (b'M', _) if self.known.values().all(|known| *known == Known::Over) && self.held == 0 => {
                let remembered = self.scheduler.remember();
                self.scheduler = Scheduler::new(self.settings.clone(), 7, now);
                let age = Duration::from_secs(u64::from(a) << (c % 16));
                assert!(self.scheduler.recall(&remembered, age) <= remembered.calls.len());
                (self.tickets, self.known) = (Vec::new(), HashMap::new());
            }
            _ => {}
        }
    }

    fn arrive(&mut self, lane: u8, client: u8, call: u8) {
        let (method, path, query, kind) = CALLS[usize::from(call) % CALLS.len()];
        let path = DecodedPath::new(path).unwrap();
        let info = RequestInfo::new(method, &path, Some(query)).unwrap();
        let client = u64::from(client % 8);
        let arrival = Arrival {
            lane: Lane::ALL[usize::from(lane) % Lane::COUNT],
            flow: client,
            client,
            key: Key::of(&info, Encoding::Json),
            kind,
            exempt: call > 0xf0,
        };
        // Callers read the clock before they have the lock: some are a little late.
        let decision = self.scheduler.arrive(self.now - Duration::from_millis(client), &arrival);
        writeln!(self.trace, "{:?} {decision:?}", self.now).unwrap();
        let known = match decision {
            Decision::Admit(ticket) => Some((ticket, Known::Admitted)),
            Decision::Wait(ticket) => {
                let until = self.now + Duration::from_millis(LONGEST_WAIT_MS);
                Some((ticket, Known::Waiting { until }))
            }
            Decision::Shed(refusal) => {
                assert!(refusal.retry_after_seconds >= 1, "never at once: {refusal:?}");
                assert!(refusal.hold <= self.settings.hold.longest);
                assert!(Reason::ALL.contains(&refusal.reason));
                self.held += u32::from(!refusal.hold.is_zero());
                None
            }
        };
        if let Some((ticket, known)) = known {
            assert_eq!(self.known.insert(ticket, known), None, "a ticket twice");
            self.tickets.push(ticket);
        }
    }

    /// Only what runs is reset, and each only once.
    fn reset(&mut self) {
        let mut resets = Vec::new();
        self.scheduler.take_resets(&mut resets);
        for ticket in resets {
            assert_eq!(self.known.insert(ticket, Known::Over), Some(Known::Admitted));
            self.scheduler.cancel(self.now, ticket);
        }
    }

    fn verdicts(&mut self) {
        let mut verdicts = Vec::new();
        self.scheduler.take_verdicts(&mut verdicts);
        for (ticket, verdict) in verdicts {
            writeln!(self.trace, "{:?} {ticket:?} {verdict:?}", self.now).unwrap();
            let known = self.known.get_mut(&ticket).expect("a ticket that was handed out");
            match known {
                Known::Waiting { .. } if verdict == Verdict::Admit => *known = Known::Admitted,
                Known::Waiting { .. } => *known = Known::Over,
                // Cancelled between the verdict and its delivery.
                Known::Over => {}
                Known::Admitted => panic!("a second verdict for {ticket:?}"),
            }
        }
    }

    fn look(&mut self) {
        self.verdicts();
        self.scheduler.wake(self.now);
        self.verdicts();
        assert!(self.scheduler.next_wake().is_none_or(|wake| wake > self.now), "somebody was forgotten");
    }

    fn check(&mut self) {
        let snapshot = self.scheduler.snapshot(self.now);
        let waits = |known: &&Known| matches!(known, Known::Waiting { .. });
        let waiting = self.known.values().filter(waits).count();
        let live = self.known.values().filter(|known| **known != Known::Over).count();
        assert_eq!(snapshot.lanes.iter().map(|lane| lane.waiting as usize).sum::<usize>(), waiting);
        assert_eq!(snapshot.tickets as usize, live);
        assert!(snapshot.tickets <= self.settings.tickets);
        let late = |known: &Known| matches!(known, Known::Waiting { until } if *until < self.now);
        assert!(!self.known.values().any(late), "nobody waits longer than a lane allows");
        let seats: u32 = snapshot.lanes[1..].iter().map(|lane| lane.seats.0).sum();
        assert_eq!(snapshot.used, Seats(seats));
        assert!(snapshot.heavy <= snapshot.used);
        assert!(snapshot.exempt <= self.settings.exempt_requests);
        assert!(snapshot.lane(Lane::BreakGlass).seats <= self.settings.break_glass_seats);
        assert_eq!(snapshot.held, self.held);
        assert!(self.held <= self.settings.hold.most);
        assert!(snapshot.limit >= self.settings.limit.min && snapshot.limit <= self.settings.limit.max);
        for number in
            [snapshot.limit_exact, snapshot.pressure, snapshot.ratio, snapshot.heavy_duty, snapshot.tolerance]
        {
            assert!(number.is_finite() && number >= 0.0, "{snapshot:?}");
        }
        self.limit = self.limit.max(snapshot.limit);
        let of = |percent: u32| (self.limit.0 * percent).div_ceil(100);
        let lanes = &self.settings.lanes[1..];
        let ceiling = lanes.iter().map(|lane| of(lane.ceiling_percent)).max().unwrap();
        // Below its floor an idle lane may run one light request, of three seats at most.
        let floors: u32 = lanes.iter().map(|lane| of(lane.floor_percent).max(lane.floor_min.0).max(3)).sum();
        // Beyond them one heavy request alone, and one each of three people, whatever the others use.
        let beyond = 4 * Seats::MAX_PER_REQUEST.0;
        assert!(snapshot.used.0 <= ceiling + floors + beyond, "{} seats under {}", snapshot.used, self.limit);
    }

    fn end(mut self) -> String {
        for ticket in std::mem::take(&mut self.tickets) {
            self.scheduler.cancel(self.now, ticket);
        }
        let snapshot = self.scheduler.snapshot(self.now);
        assert_eq!((snapshot.used, snapshot.heavy, snapshot.exempt), (Seats::ZERO, Seats::ZERO, 0));
        assert_eq!((snapshot.tickets, snapshot.response_bytes, self.scheduler.next_wake()), (0, 0, None));
        for lane in snapshot.lanes {
            assert_eq!((lane.seats, lane.executing, lane.waiting), (Seats::ZERO, 0, 0));
            assert_eq!((lane.watches, lane.streams), (0, 0));
        }
        self.trace
    }
}

fn end(choice: u8) -> End {
    match choice % 10 {
        0 => End::Ignored,
        1 => End::Dropped,
        2 => End::TimedOut,
        3 => End::Congested,
        4 => End::Warming { retry_after_seconds: u32::from(choice / 10) },
        5 => End::Lagging,
        6 => End::Closing,
        _ => End::Success,
    }
}

fn probe(choice: u8) -> Probe {
    let time = Duration::from_micros(u64::from(choice).pow(3));
    match choice % 8 {
        0 => Probe::Silent,
        1 => Probe::Lost,
        2 => Probe::Waiting(time),
        _ => Probe::Answered(time),
    }
}
