//! Does the scheduler grow with the number of names that somebody invents?

use super::*;
use crate::flow::{Probe, Probes, Settings};
use crate::units::Seats;

#[test]
fn d8_invented_names_leave_nothing_behind_and_known_ones_are_served() {
    let mut scheduler = Scheduler::new(Settings::default(), 1, at(0));
    let good = Probe::Answered(Duration::from_millis(2));
    let probes = Probes { livez: good, cached: good, consistent: good, ready: Some(true) };
    let mut running = std::collections::VecDeque::new();
    let lanes = [Lane::Workload, Lane::Unknown, Lane::Telemetry];
    let (mut served, mut invented_served) = (0, 0);
    for name in 0..200_000_u64 {
        let now = at(name / 100);
        if name % 25_000 == 0 {
            scheduler.tick(now, &probes);
        }
        let invented = arrival(lanes[(name % 3) as usize], 1_000_000 + name, object("pods"));
        match scheduler.arrive(now, &invented) {
            Decision::Admit(ticket) | Decision::Wait(ticket) => {
                invented_served += 1;
                running.push_back(ticket);
            }
            Decision::Shed(refusal) => assert!(refusal.retry_after_seconds >= 1),
        }
        while running.len() > 40 {
            let Some(ticket) = running.pop_front() else { break };
            scheduler.first_byte(now, ticket, Level(0));
            scheduler.finish(now, ticket, DONE);
        }
        if name % 10_000 == 0 {
            match scheduler.arrive(now, &arrival(Lane::NodeHealth, 7, lease())) {
                // Or it waits a moment, and is the first to go.
                Decision::Admit(ticket) | Decision::Wait(ticket) => {
                    served += 1;
                    scheduler.finish(now, ticket, DONE);
                }
                Decision::Shed(refusal) => panic!("a lease was refused: {refusal:?}"),
            }
        }
    }
    assert_eq!(served, 20);
    assert!(invented_served > 1_000, "nobody else was served: this proves nothing");
    let now = at(3_000);
    for ticket in running {
        scheduler.cancel(now, ticket);
    }
    let after = scheduler.snapshot(now);
    assert_eq!((after.used, after.tickets), (Seats::ZERO, 0));
    assert!(scheduler.clients.is_empty(), "somebody is remembered who has nothing here");
}

/// E1: seats come back whatever becomes of a request, at every moment of its life.
#[test]
fn e1_a_hundred_thousand_requests_cancelled_at_random_moments_give_everything_back() {
    let mut scheduler = Scheduler::new(Settings::default(), 1, at(0));
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let kinds = [Kind::Short, Kind::Watch, Kind::Streaming];
    let mut open = Vec::new();
    for step in 0..100_000 {
        let now = at(step / 20);
        let lane = Lane::ALL[1 + next(Lane::COUNT as u64 - 1) as usize];
        let key = if next(8) == 0 { cluster_list("pods") } else { object("pods") };
        let request = Arrival { kind: kinds[next(3) as usize], ..arrival(lane, next(500), key) };
        if let Decision::Admit(ticket) | Decision::Wait(ticket) = scheduler.arrive(now, &request) {
            open.push(ticket);
        }
        if open.len() > 60 {
            let ticket = open.swap_remove(next(open.len() as u64) as usize);
            // It gets as far as chance wants, and is gone.
            if next(2) == 0 {
                scheduler.first_byte(now, ticket, Level(0));
            }
            if next(3) == 0 {
                scheduler.burst_done(now, ticket);
            }
            scheduler.cancel(now, ticket);
            scheduler.cancel(now, ticket);
        }
        scheduler.wake(now);
        let _ = verdicts(&mut scheduler);
    }
    let now = at(6_000);
    open.into_iter().for_each(|ticket| scheduler.cancel(now, ticket));
    let after = scheduler.snapshot(now);
    assert_eq!((after.used, after.heavy, after.tickets), (Seats::ZERO, Seats::ZERO, 0));
    assert!(after.lanes.iter().all(|lane| lane.executing + lane.waiting + lane.watches + lane.streams == 0));
    assert!(scheduler.clients.is_empty());
    assert_eq!(after.response_bytes, 0);
}
