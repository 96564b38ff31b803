//! Does a decision allocate? A program of its own, because it counts every allocation of its thread.
//!
//! A storm is when memory is scarce and decisions are many, so after warm-up the way of a request through the scheduler, from
//! arrival over its first byte to its end, touches the heap not once; nor does a refusal or a tick.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use spillway::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Probe, Probes, Scheduler, Settings, TICK,
};
use spillway::policy::Lane;
use spillway::request::{DecodedPath, RequestInfo};
use spillway::units::Instant;

fn key(method: &str, path: &str, query: &str) -> Key {
    let Ok(path) = DecodedPath::new(path) else { panic!("no escapes in these paths") };
    let Ok(request) = RequestInfo::new(method, &path, Some(query)) else { panic!("paths of resources") };
    Key::of(&request, Encoding::Json)
}

/// Calls of many clients in all lanes: reads, writes, LISTs and watches.
fn arrivals() -> Vec<Arrival> {
    let calls = [
        (key("GET", "/api/v1/namespaces/shop/pods/web", ""), Kind::Short),
        (key("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", ""), Kind::Short),
        (key("GET", "/api/v1/namespaces/shop/configmaps", "resourceVersion=0"), Kind::Short),
        (key("GET", "/api/v1/pods", "watch=1&resourceVersion=7"), Kind::Watch),
    ];
    let lanes = Lane::ALL.iter().cycle().skip(1);
    let numbered = (0..400u64).zip(lanes).zip(calls.iter().cycle());
    let arrival = |((number, lane), (key, kind)): ((u64, &Lane), &(Key, Kind))| Arrival {
        lane: *lane,
        flow: number * 7_919,
        client: number * 7_919,
        key: *key,
        kind: *kind,
        exempt: false,
    };
    numbered.map(arrival).collect()
}

/// One request from arrival to end.
fn pass(scheduler: &mut Scheduler, now: Instant, arrival: &Arrival) {
    if let Decision::Admit(ticket) = scheduler.arrive(now, arrival) {
        let answered = now + Duration::from_millis(3);
        scheduler.first_byte(answered, ticket, Level(1 + arrival.lane.index() as u64));
        scheduler.burst_done(answered, ticket);
        let outcome = Outcome { end: End::Success, bytes: 2_000, level: Level(1) };
        scheduler.finish(answered, ticket, outcome);
    }
}

fn tick(scheduler: &mut Scheduler, now: Instant) {
    let answered = Probe::Answered(Duration::from_millis(2));
    scheduler.tick(now, &Probes { livez: answered, cached: answered, consistent: answered, ready: None });
}

#[test]
fn decisions_and_ticks_do_not_touch_the_heap() {
    let mut settings = Settings::default();
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    let mut scheduler = Scheduler::new(settings, 1, Instant::ORIGIN);
    let (arrivals, mut now) = (arrivals(), Instant::ORIGIN);
    let mut play = |scheduler: &mut Scheduler, ticks: u32| {
        for _ in 0..ticks {
            for arrival in &arrivals {
                now = now + Duration::from_micros(100);
                pass(scheduler, now, arrival);
            }
            now = now + TICK;
            tick(scheduler, now);
        }
    };
    play(&mut scheduler, 40);
    let counted = allocation_counter::measure(|| play(&mut scheduler, 40));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn a_refusal_does_not_touch_the_heap() {
    let mut settings = Settings::default();
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    let mut scheduler = Scheduler::new(settings, 1, Instant::ORIGIN);
    let lists = key("GET", "/api/v1/pods", "");
    let arrival = |client: u64| Arrival {
        lane: Lane::Telemetry,
        flow: client,
        client,
        key: lists,
        kind: Kind::Short,
        exempt: false,
    };
    let mut refuse = |clients: u64| {
        let refused = |client: &u64| {
            let now = Instant::ORIGIN + Duration::from_micros(*client);
            matches!(scheduler.arrive(now, &arrival(client % 500)), Decision::Shed(_))
        };
        (0..clients).filter(refused).count()
    };
    assert!(refuse(2_000) > 1_900, "one LIST runs, the others are refused");
    let counted = allocation_counter::measure(|| _ = refuse(2_000));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
