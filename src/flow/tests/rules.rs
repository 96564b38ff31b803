//! One rule, one test.

use super::*;
use crate::flow::{LimitSettings, Probe, Probes, ResponseBytes, Settings, State, TICK};
use crate::policy::{LaneSettings, Rate};
use crate::units::Seats;

/// The defaults without rates, so that one client can ask as often as a test needs, at a fixed limit.
fn settings(limit: u32) -> Settings {
    let limit = Seats(limit);
    Settings {
        lanes: Lane::ALL.map(|lane| LaneSettings { identity_rate: None, ..LaneSettings::default_of(lane) }),
        limit: LimitSettings { min: limit, max: limit, start: limit },
        ..Settings::default()
    }
}

fn scheduler(limit: u32) -> Scheduler {
    Scheduler::new(settings(limit), 1, at(0))
}

#[test]
fn a_name_makes_a_list_cheap_only_where_the_apiserver_reads_one_key() {
    let prior = |path, query| key("GET", path, query).prior;
    let name = "fieldSelector=metadata.name=p";
    assert_eq!(prior("/api/v1/nodes", name), 1);
    assert_eq!(prior("/api/v1/namespaces/n/pods", name), 1);
    let (all, by_name) = (prior("/api/v1/pods", ""), prior("/api/v1/pods", name));
    assert_eq!(by_name, all, "one pod in the answer, all of them read");
    let cached = prior("/api/v1/pods", "fieldSelector=metadata.name=p&resourceVersion=0");
    assert_eq!(cached, prior("/api/v1/pods", "fieldSelector=spec.nodeName=n&resourceVersion=0"));
}

#[test]
fn lower_lanes_meet_their_ceiling_first() {
    let mut scheduler = scheduler(100);
    let mut used = 0;
    for (lane, ceiling) in [
        (Lane::Telemetry, 60),
        (Lane::Unknown, 70),
        (Lane::Workload, 85),
        (Lane::Platform, 100),
        (Lane::ControlPlane, 110),
        (Lane::NodeHealth, 125),
    ] {
        let (tickets, _) = fill(&mut scheduler, at(0), lane);
        used += tickets.len();
        // The floor lets a lane in beyond its ceiling.
        let floor = scheduler.snapshot(at(0)).lane(lane).floor.0 as usize;
        assert_eq!(used, (ceiling as usize).max(used - tickets.len() + floor), "{lane}");
    }
}

#[test]
fn a_floor_lets_a_lane_in_when_all_else_is_full() {
    let mut scheduler = scheduler(100);
    fill(&mut scheduler, at(0), Lane::NodeHealth);
    let (operators, reason) = fill(&mut scheduler, at(0), Lane::Operators);
    assert_eq!((operators.len(), reason), (8, None), "eight seats, then they wait");
    let (telemetry, reason) = fill(&mut scheduler, at(0), Lane::Telemetry);
    assert_eq!((telemetry.len(), reason), (4, Some(Reason::LaneConcurrency)), "4 % of 100");
}

#[test]
fn a_waiter_goes_when_a_seat_is_free_and_the_higher_lane_goes_first() {
    let mut scheduler = scheduler(10);
    let (mut tickets, _) = fill(&mut scheduler, at(0), Lane::NodeHealth);
    fill(&mut scheduler, at(0), Lane::Workload);
    fill(&mut scheduler, at(0), Lane::Platform);
    let low = scheduler.arrive(at(0), &arrival(Lane::Workload, 7, object("pods"))).waits();
    let high = scheduler.arrive(at(1), &arrival(Lane::Platform, 8, object("pods"))).waits();
    while verdicts(&mut scheduler).is_empty() {
        scheduler.finish(at(2), tickets.pop().unwrap(), DONE);
        if let Some(&(ticket, verdict)) = scheduler.verdicts.first() {
            assert_eq!((ticket, verdict), (high, Verdict::Admit));
        }
    }
    while verdicts(&mut scheduler).is_empty() {
        scheduler.finish(at(3), tickets.pop().unwrap(), DONE);
        if let Some(&(ticket, _)) = scheduler.verdicts.first() {
            assert_eq!(ticket, low);
        }
    }
}

#[test]
fn a_wait_ends_with_a_reason_and_not_before_its_time() {
    let mut scheduler = scheduler(10);
    fill(&mut scheduler, at(0), Lane::Operators);
    let ticket = scheduler.arrive(at(100), &arrival(Lane::Operators, 7, object("pods"))).waits();
    assert_eq!(scheduler.next_wake(), Some(at(2_100)));
    scheduler.wake(at(2_099));
    assert_eq!(verdicts(&mut scheduler), []);
    scheduler.wake(at(2_100));
    let verdicts = verdicts(&mut scheduler);
    let [(refused, Verdict::Shed(refusal))] = verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((refused, refusal.reason), (ticket, Reason::QueueTimeout));
    assert_eq!(scheduler.next_wake(), None);
}

#[test]
fn a_queue_has_a_bound() {
    let mut settings = settings(10);
    settings.lanes[Lane::Workload.index()].queue_limit = 2;
    let mut scheduler = Scheduler::new(settings, 1, at(0));
    fill(&mut scheduler, at(0), Lane::Workload);
    let arrival = |client| arrival(Lane::Workload, client, object("pods"));
    scheduler.arrive(at(0), &arrival(1)).waits();
    scheduler.arrive(at(0), &arrival(2)).waits();
    assert_eq!(scheduler.arrive(at(0), &arrival(3)).shed().reason, Reason::QueueFull);
}

#[test]
fn flows_take_turns_by_the_work_they_get() {
    let mut scheduler = scheduler(10);
    let (mut tickets, _) = fill(&mut scheduler, at(0), Lane::Platform);
    // Flow 1 comes first with thirty requests, flow 2 behind it with ten, as other clients so that no cap binds.
    let mut flows = std::collections::HashMap::new();
    for (flow, count) in [(1u64, 30), (2, 10)] {
        for step in 0..count {
            let arrival =
                Arrival { client: 100 * flow + step, flow, ..arrival(Lane::Platform, 0, object("pods")) };
            flows.insert(scheduler.arrive(at(0), &arrival).waits(), flow);
        }
    }
    let mut order = Vec::new();
    while order.len() < 20 {
        scheduler.finish(at(5), tickets.remove(0), DONE);
        for (ticket, verdict) in verdicts(&mut scheduler) {
            assert_eq!(verdict, Verdict::Admit);
            order.push(flows[&ticket]);
            tickets.push(ticket);
        }
    }
    let second = order.iter().filter(|&&flow| flow == 2).count();
    // Flow 1 spreads over four queues at most, flow 2 as well: a fair half, where arrival order would give none.
    assert!(second >= 8, "{order:?}");
}

#[test]
fn heavy_requests_of_all_lanes_share_a_budget_that_never_blocks_the_first() {
    let mut scheduler = scheduler(10);
    let list = |lane, client| arrival(lane, client, cluster_list("pods"));
    let first = scheduler.arrive(at(0), &list(Lane::Telemetry, 1)).admitted();
    // All others wait, whatever their lane.
    let low = scheduler.arrive(at(0), &list(Lane::Telemetry, 2)).waits();
    scheduler.arrive(at(0), &list(Lane::Unknown, 3)).waits();
    // A node's credential does not get around it, but it waits; light requests pass beside it.
    let node = scheduler.arrive(at(0), &list(Lane::Platform, 4)).waits();
    scheduler.arrive(at(0), &arrival(Lane::Platform, 4, object("pods"))).admitted();
    scheduler.arrive(at(0), &arrival(Lane::NodeHealth, 5, lease())).admitted();
    // People are not held back by it.
    let operator = scheduler.arrive(at(0), &list(Lane::Operators, 6)).admitted();
    scheduler.finish(at(1), first, DONE);
    assert_eq!(verdicts(&mut scheduler), [], "the operator's LIST still runs");
    scheduler.finish(at(2), operator, DONE);
    assert_eq!(verdicts(&mut scheduler), [(node, Verdict::Admit)], "the highest lane's goes first");
    scheduler.wake(at(4_000));
    let verdicts = verdicts(&mut scheduler);
    assert!(verdicts.iter().any(|&(ticket, verdict)| ticket == low && verdict != Verdict::Admit));
}

#[test]
fn a_lower_limit_never_lets_more_heavy_requests_run() {
    let mut before = 0;
    for limit in 10..1_000 {
        let mut settings = settings(limit);
        settings.memory.response_bytes = ResponseBytes::Fixed(0);
        let mut scheduler = Scheduler::new(settings, 1, at(0));
        let list = |client| arrival(Lane::Telemetry, client, cluster_list("pods"));
        let running = (0..200)
            .take_while(|&client| matches!(scheduler.arrive(at(0), &list(client)), Decision::Admit(_)));
        let running = running.count();
        assert!(running >= 1.max(before), "{running} at {limit}, {before} one seat below");
        before = running;
    }
    assert!(before >= 25, "a large server runs many: {before}");
}

#[test]
fn one_client_cannot_fill_a_contended_lane() {
    let mut scheduler = scheduler(100);
    // Alone it may have the whole lane ...
    let mut hog: Vec<_> = (0..100)
        .map(|_| scheduler.arrive(at(0), &arrival(Lane::Platform, 1, object("pods"))).admitted())
        .collect();
    // ... once others wait, only its fifth: every free seat goes to them.
    scheduler.arrive(at(0), &arrival(Lane::Platform, 1, object("pods"))).waits();
    let others: Vec<_> = (2..32)
        .map(|client| scheduler.arrive(at(0), &arrival(Lane::Platform, client, object("pods"))).waits())
        .collect();
    for _ in 0..30 {
        scheduler.finish(at(1), hog.pop().unwrap(), DONE);
    }
    let went: Vec<_> = verdicts(&mut scheduler).into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(went.len(), 30);
    assert!(others.iter().all(|ticket| went.contains(ticket)));
    // Nobody else waits any more, but did a moment ago: the hog would be what they wait for the next time.
    for _ in 0..10 {
        scheduler.finish(at(1), hog.pop().unwrap(), DONE);
    }
    assert_eq!(verdicts(&mut scheduler), []);
    scheduler.arrive(at(1_999), &arrival(Lane::Platform, 1, object("pods"))).waits();
    // After two seconds without anybody who waits beside it, it has the lane again.
    scheduler.wake(at(2_001));
    scheduler.arrive(at(2_001), &arrival(Lane::Platform, 1, object("pods"))).admitted();
}

#[test]
fn an_identity_has_a_rate_of_its_own() {
    let mut settings = settings(100);
    settings.lanes[Lane::Unknown.index()].identity_rate = Some(Rate { per_second: 1, burst: 2 });
    let mut scheduler = Scheduler::new(settings, 1, at(0));
    let arrival = |client| arrival(Lane::Unknown, client, object("pods"));
    scheduler.arrive(at(0), &arrival(1)).admitted();
    scheduler.arrive(at(0), &arrival(1)).admitted();
    let refusal = scheduler.arrive(at(0), &arrival(1)).shed();
    assert_eq!(refusal.reason, Reason::IdentityRate);
    assert!((1..=3).contains(&refusal.retry_after_seconds));
    scheduler.arrive(at(0), &arrival(2)).admitted();
    scheduler.arrive(at(1_000), &arrival(1)).admitted();
}

#[test]
fn a_watch_holds_seats_for_its_first_burst_only() {
    let mut scheduler = scheduler(10);
    let watch = Arrival {
        kind: Kind::Watch,
        ..arrival(Lane::Platform, 1, key("GET", "/api/v1/pods", "watch=1&resourceVersion=7"))
    };
    let ticket = scheduler.arrive(at(0), &watch).admitted();
    scheduler.first_byte(at(1), ticket, Level::default());
    assert_eq!(scheduler.snapshot(at(1)).used, Seats(1));
    scheduler.burst_done(at(2), ticket);
    scheduler.burst_done(at(2), ticket);
    let snapshot = scheduler.snapshot(at(2));
    assert_eq!((snapshot.used, snapshot.lane(Lane::Platform).watches), (Seats(0), 1));
    scheduler.finish(at(3), ticket, DONE);
    assert_eq!(scheduler.snapshot(at(3)).lane(Lane::Platform).watches, 0);
}

#[test]
fn a_burst_that_nobody_ends_is_ended_by_time() {
    let mut scheduler = scheduler(10);
    let watch = Arrival {
        kind: Kind::Watch,
        ..arrival(Lane::Platform, 1, key("GET", "/api/v1/pods", "watch=1&resourceVersion=7"))
    };
    let ticket = scheduler.arrive(at(0), &watch).admitted();
    scheduler.first_byte(at(1), ticket, Level::default());
    for tick in 1..=17 {
        scheduler.tick(at(250 * tick), &Probes::default());
    }
    assert_eq!(scheduler.snapshot(at(5_000)).used, Seats(0));
}

#[test]
fn a_watch_with_initial_events_is_priced_as_its_list() {
    let watch =
        key("GET", "/api/v1/pods", "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    assert_eq!((watch.prior, watch.family), (10, cluster_list("pods").family));
    assert_ne!(watch.exact, cluster_list("pods").exact);
    assert_eq!(key("GET", "/api/v1/pods", "watch=1&resourceVersion=7").prior, 1);
    // Without a version to start from, or from 0, it begins with all objects as well.
    for query in ["watch=1", "watch=1&resourceVersion=0"] {
        assert_eq!(key("GET", "/api/v1/pods", query).prior, 10, "{query}");
    }
}

#[test]
fn a_limit_at_resource_version_zero_is_no_limit() {
    let full = key("GET", "/api/v1/pods", "resourceVersion=0");
    assert_eq!(key("GET", "/api/v1/pods", "limit=500&resourceVersion=0"), full);
    assert_eq!(key("GET", "/api/v1/pods", "limit=500").prior, 5);
    assert_eq!(key("GET", "/api/v1/pods", "limit=1").prior, 1);
    assert_eq!(key("GET", "/api/v1/namespaces/shop/pods", "").prior, 2);
    assert_eq!(lease().prior, 1);
}

#[test]
fn sessions_hold_one_seat_until_they_start_and_have_a_bound() {
    let mut settings = settings(100);
    settings.streams_per_lane = 2;
    let mut scheduler = Scheduler::new(settings, 1, at(0));
    let exec = key("POST", "/api/v1/namespaces/shop/pods/web/exec", "");
    let exec = Arrival { kind: Kind::Streaming, ..arrival(Lane::Operators, 1, exec) };
    let tickets = [scheduler.arrive(at(0), &exec).admitted(), scheduler.arrive(at(0), &exec).admitted()];
    assert_eq!(scheduler.arrive(at(0), &exec).shed().reason, Reason::LaneConcurrency);
    tickets.iter().for_each(|ticket| scheduler.first_byte(at(1), *ticket, Level::default()));
    let snapshot = scheduler.snapshot(at(1));
    assert_eq!((snapshot.used, snapshot.lane(Lane::Operators).streams), (Seats(0), 2));
    tickets.iter().for_each(|ticket| scheduler.finish(at(2), *ticket, DONE));
    scheduler.arrive(at(2), &exec).admitted();
}

#[test]
fn probes_are_exempt_up_to_a_bound() {
    let mut scheduler = scheduler(10);
    fill(&mut scheduler, at(0), Lane::Unknown);
    let livez = Arrival { exempt: true, ..arrival(Lane::Unknown, 1, key("GET", "/livez", "")) };
    let tickets: Vec<_> = (0..256).map(|_| scheduler.arrive(at(0), &livez).admitted()).collect();
    assert_eq!(scheduler.arrive(at(0), &livez).shed().reason, Reason::GlobalLimit);
    tickets.into_iter().for_each(|ticket| scheduler.finish(at(1), ticket, DONE));
    assert_eq!(scheduler.snapshot(at(1)).exempt, 0);
}

#[test]
fn break_glass_is_outside_the_limit() {
    let mut scheduler = scheduler(10);
    fill(&mut scheduler, at(0), Lane::NodeHealth);
    let emergency = arrival(Lane::BreakGlass, 1, object("pods"));
    for _ in 0..16 {
        scheduler.arrive(at(0), &emergency).admitted();
    }
    assert_eq!(scheduler.arrive(at(0), &emergency).shed().reason, Reason::LaneConcurrency);
}

#[test]
fn history_prices_a_call_and_its_siblings() {
    let mut scheduler = scheduler(1_000);
    let small = cluster_list("nodes");
    for round in 0..8 {
        for _ in 0..6 {
            let ticket = scheduler.arrive(at(round * 250), &arrival(Lane::Workload, 1, small)).admitted();
            scheduler.first_byte(at(round * 250 + 5), ticket, Level::default());
            scheduler.finish(
                at(round * 250 + 5),
                ticket,
                Outcome { end: End::Success, bytes: 150_000, level: Level::default() },
            );
        }
        scheduler.tick(at(round * 250 + 250), &Probes::default());
    }
    let seats = |scheduler: &Scheduler, key: &Key| scheduler.estimates.estimate(key).seats;
    assert_eq!(seats(&scheduler, &small), Seats(2), "150 kB, 5 ms");
    // A call of the same family without history keeps its prior: a guess may only be too high.
    assert_eq!(seats(&scheduler, &key("GET", "/api/v1/nodes", "limit=500")), Seats(5));

    // One LIST of 39 MB is enough to know that its siblings are large.
    let ticket = scheduler.arrive(at(3_000), &arrival(Lane::Workload, 1, cluster_list("pods"))).admitted();
    scheduler.finish(
        at(3_300),
        ticket,
        Outcome { end: End::Success, bytes: 39_000_000, level: Level::default() },
    );
    assert_eq!(seats(&scheduler, &cluster_list("pods")), Seats(16));
    assert_eq!(seats(&scheduler, &key("GET", "/api/v1/pods", "labelSelector=a%3Db")), Seats(16));
}

#[test]
fn calm_is_not_learnt_while_somebody_is_short_of_seats() {
    let mut scheduler = scheduler(10);
    let (tickets, _) = fill(&mut scheduler, at(0), Lane::Workload);
    scheduler.arrive(at(0), &arrival(Lane::Workload, 1, object("pods"))).waits();
    tickets.into_iter().for_each(|ticket| scheduler.finish(at(40), ticket, DONE));
    for tick in 1..=10 {
        scheduler.tick(at(250 * tick), &Probes::default());
    }
    assert_eq!(scheduler.snapshot(at(0)).baselines, 0);
}

#[test]
fn two_lost_probes_brake_and_five_good_seconds_release() {
    let mut scheduler = Scheduler::new(Settings::default(), 1, at(0));
    let mut now = at(0);
    let mut tick = |scheduler: &mut Scheduler, livez, ticks| {
        for _ in 0..ticks {
            now = now + TICK;
            scheduler.tick(now, &Probes { livez, ..Probes::default() });
        }
        (now, scheduler.snapshot(now))
    };
    let good = Probe::Answered(Duration::from_millis(2));
    tick(&mut scheduler, good, 4);
    assert_eq!(tick(&mut scheduler, Probe::Lost, 1).1.state, State::Normal);
    let (now, snapshot) = tick(&mut scheduler, Probe::Lost, 1);
    assert_eq!((snapshot.state, snapshot.limit), (State::Red, Seats(10)));
    let telemetry = arrival(Lane::Telemetry, 1, object("pods"));
    assert_eq!(scheduler.arrive(now, &telemetry).shed().reason, Reason::OverloadLevel);
    let ticket = scheduler.arrive(now, &arrival(Lane::Operators, 2, object("pods"))).admitted();
    scheduler.finish(now, ticket, DONE);
    assert_eq!(tick(&mut scheduler, good, 19).1.state, State::Red);
    assert_ne!(tick(&mut scheduler, good, 2).1.state, State::Red);
    assert_eq!(tick(&mut scheduler, good, 60).1.state, State::Normal);
    assert!(tick(&mut scheduler, good, 1).1.limit >= Seats(64), "back at its start by itself");
}

#[test]
fn a_probe_that_takes_more_than_a_second_brakes_before_it_is_answered() {
    let mut scheduler = Scheduler::new(Settings::default(), 1, at(0));
    scheduler
        .tick(at(250), &Probes { livez: Probe::Waiting(Duration::from_millis(1_001)), ..Probes::default() });
    assert_eq!(scheduler.snapshot(at(250)).state, State::Red);
}

#[test]
fn lanes_return_in_order_after_the_apiserver_was_away() {
    let mut scheduler = Scheduler::new(Settings::default(), 1, at(0));
    scheduler.upstream_up(at(0), false);
    let open = |scheduler: &Scheduler, now| Lane::ALL.map(|lane| scheduler.snapshot(now).lane(lane).open);
    assert_eq!(open(&scheduler, at(0)), [true, true, false, false, true, false, false, false]);
    let refusal = scheduler.arrive(at(0), &arrival(Lane::Platform, 1, object("pods"))).shed();
    assert_eq!(refusal.reason, Reason::UpstreamUnavailable);
    scheduler.upstream_up(at(1_000), true);
    let mut opened = [None; Lane::COUNT];
    for tick in 0..200u64 {
        let now = at(1_000 + 250 * tick);
        scheduler.tick(
            now,
            &Probes {
                livez: Probe::Answered(Duration::from_millis(2)),
                ready: Some(true),
                ..Probes::default()
            },
        );
        for (lane, is_open) in open(&scheduler, now).into_iter().enumerate() {
            if is_open && opened[lane].is_none() {
                opened[lane] = Some(tick);
            }
        }
    }
    let order = |lane: Lane| opened[lane.index()].unwrap();
    assert!(order(Lane::NodeHealth) == 0 && order(Lane::Operators) == 0);
    assert!(order(Lane::Platform) >= 4 && order(Lane::Platform) <= order(Lane::ControlPlane));
    assert!(order(Lane::ControlPlane) <= order(Lane::Workload));
    assert!(order(Lane::Workload) < order(Lane::Telemetry), "{opened:?}");
    assert!(order(Lane::Telemetry) >= 40, "ten seconds of calm");
    assert_eq!(scheduler.snapshot(at(60_000)).state, State::Normal);
}

#[test]
fn new_settings_shorten_waits_that_have_begun() {
    let mut scheduler = scheduler(10);
    fill(&mut scheduler, at(0), Lane::Operators);
    scheduler.arrive(at(0), &arrival(Lane::Operators, 7, object("pods"))).waits();
    let mut settings = settings(10);
    settings.lanes[Lane::Operators.index()].wait = Duration::from_millis(100);
    scheduler.reconfigure(at(50), settings);
    assert_eq!(scheduler.next_wake(), Some(at(150)));
}

#[test]
fn a_stale_ticket_is_harmless() {
    let mut scheduler = scheduler(10);
    let stale = scheduler.arrive(at(0), &arrival(Lane::Platform, 1, object("pods"))).admitted();
    scheduler.cancel(at(0), stale);
    let fresh = scheduler.arrive(at(0), &arrival(Lane::Platform, 2, object("pods"))).admitted();
    scheduler.first_byte(at(1), stale, Level::default());
    scheduler.burst_done(at(1), stale);
    scheduler.finish(at(1), stale, DONE);
    assert_eq!(scheduler.snapshot(at(1)).used, Seats(1));
    scheduler.finish(at(1), fresh, DONE);
    assert_eq!(scheduler.snapshot(at(1)).used, Seats(0));
}
