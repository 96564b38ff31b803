//! How many instructions does a decision take? `benches/run.sh`, or `cargo bench --bench decision_instructions`.
//!
//! Counted by valgrind, so that two runs on any two machines agree to the last digit and a slower decision is seen
//! in a review, where nanoseconds would drown in noise. The counts are in docs/BENCHMARKS.md; setting up is not counted.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unnecessary_box_returns,
    reason = "what the benchmark macros make of functions"
)]

use std::hint::black_box;
use std::time::Duration;

use gungraun::{library_benchmark, library_benchmark_group, main};
use spillway::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Probe, Probes, Scheduler, Settings, TICK,
};
use spillway::policy::Lane;
use spillway::request::{DecodedPath, RequestInfo};
use spillway::units::{Instant, Seats};

const DONE: Outcome = Outcome { end: End::Success, bytes: 2_000, level: Level(1) };

fn key(path: &str, encoding: Encoding) -> Key {
    let Ok(path) = DecodedPath::new(path) else { unreachable!("no escapes in these paths") };
    let Ok(request) = RequestInfo::new("GET", &path, None) else { unreachable!("paths of resources") };
    Key::of(&request, encoding)
}

/// A scheduler in calm that has seen calls of so many kinds, and those calls. Boxed, or moving it would be counted.
struct Warm {
    scheduler: Scheduler,
    now: Instant,
    arrivals: Vec<Arrival>,
}

fn warm(kinds: usize) -> Box<Warm> {
    let lanes = &Lane::ALL[1..];
    let arrivals = (0..kinds).map(|kind| {
        let (flow, lane) = (kind as u64 * 7_919, lanes[kind % lanes.len()]);
        let encodings = [Encoding::Json, Encoding::Protobuf, Encoding::Table, Encoding::Metadata];
        let path = format!("/apis/example.com/v1/namespaces/shop/kind{}/one", kind / 4);
        let key = key(&path, encodings[kind % 4]);
        Arrival { lane, flow, client: flow, key, kind: Kind::Short, exempt: false }
    });
    let mut settings = Settings::default();
    settings.limit.start = Seats(200);
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    let scheduler = Scheduler::new(settings, 1, Instant::ORIGIN);
    let mut warm = Box::new(Warm { scheduler, now: Instant::ORIGIN, arrivals: arrivals.collect() });
    for _ in 0..12 {
        warm.round();
        warm.tick();
    }
    warm.round();
    warm
}

impl Warm {
    /// Six calls of each kind: enough to make its window readable.
    fn round(&mut self) {
        for turn in 0..6 * self.arrivals.len() {
            self.pass(turn % self.arrivals.len());
        }
    }

    /// One request from arrival to end.
    fn pass(&mut self, which: usize) {
        self.now = self.now + Duration::from_micros(1);
        if let Decision::Admit(ticket) = self.scheduler.arrive(self.now, &self.arrivals[which]) {
            let answered = self.now + Duration::from_millis(3);
            self.scheduler.first_byte(answered, ticket, Level(1));
            self.scheduler.finish(answered, ticket, DONE);
        }
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        let answered = Probe::Answered(Duration::from_millis(2));
        let probes = Probes { livez: answered, cached: answered, consistent: answered, ready: None };
        self.scheduler.tick(self.now, &probes);
    }
}

/// A telemetry lane that is full.
fn full() -> Box<Warm> {
    let mut warm = warm(50);
    let telemetry = Arrival { lane: Lane::Telemetry, ..warm.arrivals[0] };
    while let Decision::Admit(_) = warm.scheduler.arrive(warm.now, &telemetry) {}
    warm.arrivals[0] = telemetry;
    warm
}

#[library_benchmark]
#[bench::of_200_kinds(args = (200), setup = warm)]
fn arrive_first_byte_finish(mut warm: Box<Warm>) -> Box<Warm> {
    black_box(&mut warm).pass(7);
    warm
}

#[library_benchmark]
#[bench::lane_full(setup = full)]
fn refuse(mut warm: Box<Warm>) -> Box<Warm> {
    let arrival = warm.arrivals[0];
    _ = black_box(warm.scheduler.arrive(warm.now, black_box(&arrival)));
    warm
}

#[library_benchmark]
#[bench::of_100_keys(args = (100), setup = warm)]
#[bench::of_3200_keys(args = (3_200), setup = warm)]
fn tick(mut warm: Box<Warm>) -> Box<Warm> {
    black_box(&mut warm).tick();
    warm
}

library_benchmark_group!(name = decisions, benchmarks = [arrive_first_byte_finish, refuse, tick]);
main!(library_benchmark_groups = decisions);
