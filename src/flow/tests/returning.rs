//! An apiserver that goes, comes back, warms up, or goes under.

use super::*;
use crate::flow::{Probe, Probes, ResponseBytes, Settings, State, TICK};
use crate::units::Seats;

fn scheduler() -> Scheduler {
    let mut settings = Settings::default();
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    Scheduler::new(settings, 1, at(0))
}

/// Ticks with a quick `/livez` from `from` on; returns the time after them.
fn tick(scheduler: &mut Scheduler, from: Instant, ticks: u32, livez: Probe, ready: Option<bool>) -> Instant {
    (0..ticks).fold(from, |now, _| {
        let now = now + TICK;
        scheduler.tick(now, &Probes { livez, ready, ..Probes::default() });
        now
    })
}

const GOOD: Probe = Probe::Answered(Duration::from_millis(2));

#[test]
fn telemetry_waits_for_readyz_however_calm_the_apiserver_is() {
    let mut scheduler = scheduler();
    scheduler.upstream_up(at(0), false);
    scheduler.upstream_up(at(1_000), true);
    let now = tick(&mut scheduler, at(1_000), 400, GOOD, Some(false));
    let open = |scheduler: &Scheduler, now, lane| scheduler.snapshot(now).lane(lane).open;
    assert!(open(&scheduler, now, Lane::Workload));
    assert!(!open(&scheduler, now, Lane::Telemetry) && !open(&scheduler, now, Lane::Unknown));
    let refusal = scheduler.arrive(now, &arrival(Lane::Telemetry, 1, object("pods"))).shed();
    assert_eq!(refusal.reason, Reason::UpstreamUnavailable);
    let now = tick(&mut scheduler, now, 1, GOOD, Some(true));
    assert!(open(&scheduler, now, Lane::Telemetry) && open(&scheduler, now, Lane::Unknown));
}

#[test]
fn where_nobody_asks_readyz_a_long_ramp_must_do() {
    let mut scheduler = scheduler();
    scheduler.upstream_up(at(0), false);
    scheduler.upstream_up(at(1_000), true);
    let now = tick(&mut scheduler, at(1_000), 200, GOOD, None);
    assert!(!scheduler.snapshot(now).lane(Lane::Telemetry).open);
    let now = tick(&mut scheduler, now, 60, GOOD, None);
    assert!(scheduler.snapshot(now).lane(Lane::Telemetry).open);
}

#[test]
fn lists_take_turns_while_the_apiserver_comes_back() {
    let mut scheduler = scheduler();
    scheduler.upstream_up(at(0), false);
    scheduler.upstream_up(at(1_000), true);
    let now = tick(&mut scheduler, at(1_000), 10, GOOD, Some(true));
    assert_eq!(scheduler.snapshot(now).state, State::Ramp);
    let list = |client| arrival(Lane::Platform, client, cluster_list("pods"));
    let first = scheduler.arrive(now, &list(1)).admitted();
    let second = scheduler.arrive(now, &list(2)).waits();
    let now = now + Duration::from_millis(700);
    scheduler.finish(now, first, DONE);
    assert_eq!(verdicts(&mut scheduler), []);
    let now = now + Duration::from_millis(301);
    scheduler.wake(now);
    assert_eq!(verdicts(&mut scheduler), [(second, Verdict::Admit)], "700 ms of each second");
}

#[test]
fn an_apiserver_that_says_it_closes_is_away_and_comes_back_when_it_answers() {
    let mut scheduler = scheduler();
    let mut close = |now| {
        let ticket = scheduler.arrive(now, &arrival(Lane::Operators, 1, object("pods"))).admitted();
        scheduler.finish(now, ticket, Outcome { end: End::Closing, ..DONE });
        scheduler.snapshot(now).state
    };
    assert_eq!(close(at(0)), State::Normal, "one answer may be a mistake");
    assert_eq!(close(at(100)), State::Cold);
    let now = tick(&mut scheduler, at(100), 8, GOOD, Some(false));
    assert_eq!(scheduler.snapshot(now).state, State::Cold, "it still answers while it drains");
    let now = tick(&mut scheduler, now, 20, Probe::Lost, None);
    let now = tick(&mut scheduler, now, 2, GOOD, Some(true));
    assert_eq!(scheduler.snapshot(now).state, State::Ramp);
}

#[test]
fn a_resource_that_warms_is_looked_at_once_a_second_and_others_go_on() {
    let mut scheduler = scheduler();
    let list = |client| arrival(Lane::Workload, client, key("GET", "/api/v1/namespaces/shop/secrets", ""));
    let ticket = scheduler.arrive(at(0), &list(1)).admitted();
    let warming = End::Warming { retry_after_seconds: 4 };
    scheduler.finish(at(10), ticket, Outcome { end: warming, ..DONE });
    let refusal = scheduler.arrive(at(20), &list(2)).shed();
    assert_eq!(refusal.reason, Reason::ResourceWarming);
    assert!((4..=9).contains(&refusal.retry_after_seconds));
    let free = [
        arrival(Lane::Workload, 3, key("GET", "/api/v1/namespaces/shop/pods", "")),
        arrival(Lane::Workload, 3, key("POST", "/api/v1/namespaces/shop/secrets", "")),
        Arrival { lane: Lane::Operators, ..list(3) },
    ];
    for arrival in free {
        let ticket = scheduler.arrive(at(30), &arrival).admitted();
        scheduler.cancel(at(30), ticket);
    }
    let look = scheduler.arrive(at(1_010), &list(4)).admitted();
    scheduler.arrive(at(1_020), &list(5)).shed();
    scheduler.finish(at(1_100), look, DONE);
    let passed = (0..600).filter(|step| {
        let now = at(1_100 + 10 * step);
        matches!(scheduler.arrive(now, &list(100 + step)), Decision::Admit(ticket) if {
            scheduler.finish(now, ticket, DONE);
            true
        })
    });
    let passed = passed.count();
    assert!((30..=200).contains(&passed), "{passed} of 600: it opens by doubling");
    tick(&mut scheduler, at(7_000), 1, GOOD, None);
    scheduler.arrive(at(7_300), &list(6)).admitted();
}

#[test]
fn in_red_the_largest_telemetry_lists_are_handed_out_to_be_reset_and_nobody_elses() {
    let mut settings = Settings::default();
    settings.limit.start = Seats(1_000);
    settings.memory.response_bytes = ResponseBytes::Fixed(0);
    settings.lanes.iter_mut().for_each(|lane| lane.identity_rate = None);
    let mut scheduler = Scheduler::new(settings, 1, at(0));
    let start = |scheduler: &mut Scheduler, lane, client| {
        scheduler.arrive(at(0), &arrival(lane, client, cluster_list("pods"))).admitted()
    };
    let mine: Vec<_> = (0..15).map(|client| start(&mut scheduler, Lane::Telemetry, client)).collect();
    let others = [Lane::Workload, Lane::Platform].map(|lane| start(&mut scheduler, lane, 99));
    let light = scheduler.arrive(at(0), &arrival(Lane::Telemetry, 1, object("pods"))).admitted();
    let mut resets = Vec::new();
    let slow = Probe::Waiting(Duration::from_millis(1_500));
    let now = tick(&mut scheduler, at(0), 8, slow, None);
    scheduler.take_resets(&mut resets);
    assert!(resets.is_empty(), "the brake alone cures most of it");
    let now = tick(&mut scheduler, now, 4, slow, None);
    scheduler.take_resets(&mut resets);
    assert!((7..=10).contains(&resets.len()), "{} in a second", resets.len());
    let now = tick(&mut scheduler, now, 20, slow, None);
    scheduler.take_resets(&mut resets);
    resets.sort_by_key(|ticket| ticket.slot);
    assert_eq!(resets, mine, "each once");
    assert_eq!(scheduler.snapshot(now).lane(Lane::Telemetry).shed[Reason::Cancelled.index()], 15);
    for ticket in mine.into_iter().chain(others).chain([light]) {
        scheduler.cancel(now, ticket);
    }
    assert_eq!(scheduler.snapshot(now).used, Seats::ZERO);
}
