//! What does a decision cost? `cargo bench --bench decision`.
//!
//! Direction: arrive and finish together at most 300 ns uncontended, a tick at most 50 µs with all keys in use.
//! The scheduler is warmed by some minutes of virtual traffic, so that its tables are as full as in production.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use spillway::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Probe, Probes, Scheduler, Settings, TICK,
};
use spillway::policy::Lane;
use spillway::request::{DecodedPath, RequestInfo};
use spillway::units::{Instant, Seats};

const DONE: Outcome = Outcome { end: End::Success, bytes: 2_000, level: Level(0) };

/// Runs `with` on the key of a request line.
fn key(path: &str, encoding: Encoding) -> Key {
    let Ok(path) = DecodedPath::new(path) else { unreachable!("no escapes in these paths") };
    let Ok(request) = RequestInfo::new("GET", &path, None) else { unreachable!("paths of resources") };
    Key::of(&request, encoding)
}

/// Requests of many clients in all lanes for many resources, each in four encodings.
fn arrivals(resources: usize) -> Vec<Arrival> {
    let lanes = &Lane::ALL[1..];
    let encodings = [Encoding::Json, Encoding::Protobuf, Encoding::Table, Encoding::Metadata];
    (0..resources * 4)
        .map(|index| {
            let path = format!("/apis/example.com/v1/namespaces/shop/kind{}/one", index % resources);
            Arrival {
                lane: lanes[index % lanes.len()],
                flow: index as u64 * 7_919,
                client: index as u64 * 7_919,
                key: key(&path, encodings[index / resources]),
                kind: Kind::Short,
                exempt: false,
            }
        })
        .collect()
}

/// A scheduler that has seen every arrival for a while, in calm.
fn warm(arrivals: &[Arrival]) -> (Scheduler, Instant) {
    let mut settings = Settings::default();
    settings.limit.start = Seats(200);
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    let mut scheduler = Scheduler::new(settings, 1, Instant::ORIGIN);
    let mut now = Instant::ORIGIN;
    for round in 0..40 {
        for arrival in arrivals {
            now = now + Duration::from_micros(10);
            pass(&mut scheduler, now, arrival);
        }
        now = now + TICK;
        scheduler.tick(
            now,
            &Probes { livez: Probe::Answered(Duration::from_millis(round % 3 + 1)), ..Probes::default() },
        );
    }
    (scheduler, now)
}

/// One request from arrival to end.
fn pass(scheduler: &mut Scheduler, now: Instant, arrival: &Arrival) {
    if let Decision::Admit(ticket) = scheduler.arrive(now, arrival) {
        let answered = now + Duration::from_millis(3);
        scheduler.first_byte(answered, ticket, Level::default());
        scheduler.finish(answered, ticket, DONE);
    }
}

fn decisions(criterion: &mut Criterion) {
    let arrivals = arrivals(50);
    let (mut scheduler, mut now) = warm(&arrivals);
    let mut turn = arrivals.iter().cycle();
    let mut next = || turn.next().unwrap_or(&arrivals[0]);
    criterion.bench_function("arrive, first byte, finish", |bencher| {
        bencher.iter(|| {
            now = now + Duration::from_micros(20);
            pass(&mut scheduler, now, black_box(next()));
        });
    });

    // A full lane: the cost of a refusal, which a storm makes the common case.
    let (mut full, now) = warm(&arrivals);
    let telemetry = Arrival { lane: Lane::Telemetry, ..arrivals[0] };
    while let Decision::Admit(_) = full.arrive(now, &telemetry) {}
    criterion.bench_function("refuse", |bencher| {
        bencher.iter(|| black_box(full.arrive(now, black_box(&telemetry))));
    });
}

fn keys(criterion: &mut Criterion) {
    let Ok(path) = DecodedPath::new("/api/v1/namespaces/kube-system/pods") else { return };
    let Ok(request) = RequestInfo::new("GET", &path, Some("labelSelector=app%3Dagent&limit=500")) else {
        return;
    };
    criterion.bench_function("key of a request", |bencher| {
        bencher.iter(|| Key::of(black_box(&request), Encoding::Json));
    });
}

fn ticks(criterion: &mut Criterion) {
    // 3,200 keys of 800 resources and their families fill the table of 4,096 places.
    for resources in [25, 800] {
        let arrivals = arrivals(resources);
        let warm = RefCell::new(warm(&arrivals));
        criterion.bench_function(&format!("tick with {} keys in use", 4 * resources), |bencher| {
            bencher.iter_batched(
                || {
                    // Not measured: every key gets the samples that make its window readable.
                    let (scheduler, now) = &mut *warm.borrow_mut();
                    *now = *now + TICK;
                    for arrival in arrivals.iter().cycle().take(6 * arrivals.len()) {
                        pass(scheduler, *now, arrival);
                    }
                },
                |()| {
                    let (scheduler, now) = &mut *warm.borrow_mut();
                    scheduler.tick(*now, &Probes::default());
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, decisions, keys, ticks);
criterion_main!(benches);
