//! Heavy requests: their pace, their turns, their memory. Rules first, then storms in virtual time.

use super::scenarios::{agents, leases, operator, sum};
use super::world::{Client, World, percentile};
use super::*;
use crate::flow::{MemorySettings, ResponseBytes, Settings};
use crate::units::Seats;

fn scheduler(limit: u32) -> Scheduler {
    let mut settings = Settings::default();
    settings.limit.start = Seats(limit);
    Scheduler::new(settings, 1, at(0))
}

fn list(lane: Lane, client: u64, resource: &str) -> Arrival {
    arrival(lane, client, cluster_list(resource))
}

#[test]
fn below_one_request_at_a_time_the_next_one_waits_out_a_pause() {
    let mut scheduler = scheduler(10);
    scheduler.pace.set_duty(0.5);
    let first = scheduler.arrive(at(0), &list(Lane::Telemetry, 1, "pods")).admitted();
    let second = scheduler.arrive(at(100), &list(Lane::Telemetry, 2, "pods")).waits();
    scheduler.finish(at(400), first, DONE);
    assert_eq!(verdicts(&mut scheduler), []);
    assert_eq!(scheduler.next_wake(), Some(at(800)), "as long as the first one ran");
    // Light requests and people do not wait for it.
    let light = scheduler.arrive(at(500), &arrival(Lane::Telemetry, 3, object("pods"))).admitted();
    let person = scheduler.arrive(at(500), &list(Lane::Operators, 4, "nodes")).admitted();
    [light, person].into_iter().for_each(|ticket| scheduler.cancel(at(500), ticket));
    scheduler.wake(at(799));
    assert_eq!(verdicts(&mut scheduler), []);
    scheduler.wake(at(800));
    assert_eq!(verdicts(&mut scheduler), [(second, Verdict::Admit)]);
}

#[test]
fn while_paced_heavy_requests_run_one_at_a_time_however_many_seats_there_are() {
    let mut scheduler = scheduler(1_000);
    scheduler.pace.set_duty(0.99);
    scheduler.arrive(at(0), &list(Lane::Platform, 1, "pods")).admitted();
    scheduler.arrive(at(0), &list(Lane::Platform, 2, "nodes")).waits();
    scheduler.pace.set_duty(1.0);
    scheduler.wake(at(1));
    assert_eq!(verdicts(&mut scheduler).len(), 1);
}

#[test]
fn a_person_is_let_in_beside_a_robot_with_an_administrators_certificate() {
    let mut scheduler = scheduler(10);
    scheduler.arrive(at(0), &list(Lane::Operators, 1, "pods")).admitted();
    for number in 0..20 {
        let again = scheduler.arrive(at(number), &list(Lane::Operators, 1, "pods"));
        assert!(!matches!(again, Decision::Admit(_)), "its second LIST is none of a person's");
    }
    scheduler.arrive(at(30), &list(Lane::Operators, 2, "nodes")).admitted();
    scheduler.arrive(at(30), &arrival(Lane::Operators, 3, object("pods"))).admitted();
}

#[test]
fn another_kind_of_call_does_not_queue_behind_a_flood_of_one() {
    let mut scheduler = scheduler(10);
    let running = scheduler.arrive(at(0), &list(Lane::Platform, 0, "pods")).admitted();
    // As many of the flood as may wait without an appointment, from as many nodes.
    let flood = (1..500).take_while(|&node| {
        matches!(scheduler.arrive(at(0), &list(Lane::Platform, node, "pods")), Decision::Wait(_))
    });
    assert_eq!(flood.count(), 15, "a quarter of half of the places: the others are told when to return");
    let other = scheduler.arrive(at(1), &list(Lane::Platform, 1, "services")).waits();
    scheduler.finish(at(2), running, DONE);
    let [(next, Verdict::Admit)] = verdicts(&mut scheduler)[..] else { panic!("one goes") };
    scheduler.finish(at(400), next, DONE);
    let [(after, Verdict::Admit)] = verdicts(&mut scheduler)[..] else { panic!("one goes") };
    assert!(next == other || after == other, "its turn is the first or the second");
}

#[test]
fn large_answers_stay_within_the_memory_that_there_is() {
    let mut settings = Settings::default();
    settings.limit.start = Seats(1_000);
    settings.memory = MemorySettings { response_bytes: ResponseBytes::Fixed(40_000_000), server: None };
    let mut scheduler = Scheduler::new(settings, 1, at(0));
    // Nothing is known: a LIST of everything is taken for 16 MB.
    let tickets = [(1, "secrets"), (2, "pods")].map(|(client, resource)| {
        scheduler.arrive(at(0), &list(Lane::Telemetry, client, resource)).admitted()
    });
    let third = scheduler.arrive(at(0), &list(Lane::Telemetry, 3, "configmaps")).waits();
    assert_eq!(scheduler.ledger.memory.in_flight(), 32_000_000);
    // Neither leases nor what is small in the same lane wait for it, and one person's LIST does not either.
    scheduler.arrive(at(0), &arrival(Lane::NodeHealth, 4, lease())).admitted();
    scheduler.arrive(at(0), &arrival(Lane::Telemetry, 5, object("pods"))).admitted();
    scheduler.arrive(at(0), &list(Lane::Operators, 6, "nodes")).admitted();
    // A watch that begins with all objects counts as its LIST.
    let watch = key("GET", "/api/v1/secrets", "watch=1&sendInitialEvents=1");
    let watch = Arrival { kind: Kind::Watch, ..arrival(Lane::Workload, 7, watch) };
    scheduler.arrive(at(0), &watch).waits();
    scheduler.finish(at(10), tickets[0], DONE);
    scheduler.finish(at(10), tickets[1], DONE);
    let verdicts = verdicts(&mut scheduler);
    assert_eq!(verdicts.len(), 1, "the person's 16 MB leave room for one");
    assert_ne!(verdicts[0].0, third, "the higher lane's goes first");
}

#[test]
fn a_watch_that_begins_with_all_objects_holds_its_seats_and_memory_until_it_has_sent_them() {
    let mut scheduler = scheduler(64);
    let watch = key("GET", "/api/v1/pods", "watch=1&sendInitialEvents=1");
    let watch = Arrival { kind: Kind::Watch, ..arrival(Lane::Telemetry, 1, watch) };
    let ticket = scheduler.arrive(at(0), &watch).admitted();
    scheduler.first_byte(at(5), ticket, Level::default());
    for tick in 1..=80 {
        scheduler.tick(at(250 * tick), &crate::flow::Probes::default());
    }
    assert_eq!(scheduler.snapshot(at(20_000)).heavy, Seats(10), "20 s of a slow burst");
    assert_eq!(scheduler.ledger.memory.in_flight(), 16_000_000);
    scheduler.burst_done(at(20_000), ticket);
    assert_eq!((scheduler.snapshot(at(20_000)).heavy, scheduler.ledger.memory.in_flight()), (Seats(0), 0));
}

#[test]
fn a_watch_that_streams_on_pays_for_it() {
    let mut scheduler = scheduler(10);
    let watch = key("GET", "/api/v1/pods", "watch=1&sendInitialEvents=1");
    let watch = Arrival { kind: Kind::Watch, ..arrival(Lane::Telemetry, 1, watch) };
    let ticket = scheduler.arrive(at(0), &watch).admitted();
    scheduler.first_byte(at(5), ticket, Level::default());
    scheduler.pace.set_duty(0.5);
    scheduler.delivered(at(6), ticket, 1_000_000);
    assert!(scheduler.pace.is_open(at(6)), "its burst was priced when it was let in");
    scheduler.burst_done(at(6), ticket);
    let opens = scheduler.pace.opens();
    scheduler.delivered(at(7), ticket, 50_000_000);
    assert_eq!(
        scheduler.pace.opens(),
        opens.max(at(7)) + Duration::from_secs(1),
        "half a second of work at half duty"
    );
}

/// A kubelet that starts: its own node's pods, with the credential and in the lane of the culprits.
fn starter(world: &mut World, node: u64, starts: u64) -> usize {
    world.add(Client {
        lane: Lane::Platform,
        key: key("GET", "/api/v1/pods", "fieldSelector=spec.nodeName%3Dn&limit=500&resourceVersion=0"),
        work: 2_000,
        bytes: 90_000,
        period: Duration::ZERO,
        identity: 900_000 + node,
        starts: at(starts),
        stops: at(u64::MAX / 2_000_000),
        times: 1,
    })
}

/// 500 nodes' credentials LIST all pods in a loop, and 14 kubelets start in the middle. The first own-node LIST is
/// priced like its family, 16 seats, because nothing is known of it. Expected: its kind has turns of its own, so
/// each is served within 10 s, and the culprits go on at what the core leaves over.
#[test]
fn kubelets_that_start_among_500_culprits_of_their_lane_are_served_within_ten_seconds() {
    for (objective, lists_per_second) in [(250, 2.0), (100, 0.9)] {
        let mut settings = Settings::default();
        settings.objectives.object = Duration::from_millis(objective);
        let mut world = World::new(settings, 1.0);
        let (leases, operator) = (leases(&mut world), operator(&mut world));
        let agents = agents(&mut world, 500, Lane::Platform, (20_000, 90_000));
        let starters: Vec<_> = (0..14).map(|node| starter(&mut world, node, 50_000 + 700 * node)).collect();
        world.run(at(90_000));
        for (node, &starter) in starters.iter().enumerate() {
            let first = world.tallies[starter].first.expect("served");
            let waited = first.since(at(50_000 + 700 * node as u64));
            assert!(waited < Duration::from_secs(10), "starter {node} at {objective} ms: {waited:?}");
        }
        let storm = sum(&world, &agents);
        assert!(storm.answered.len() as f64 / 70.0 > lists_per_second, "{} LISTs", storm.answered.len());
        let (leases, operator) = (sum(&world, &leases), sum(&world, &operator));
        assert!(leases.refused.is_empty() && operator.refused.is_empty());
        assert!(percentile(&leases.answered, 99) < Duration::from_millis(260));
    }
}
