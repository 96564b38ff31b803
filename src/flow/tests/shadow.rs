//! Does shadow decide as enforcing does, refuse nothing below Red, and keep its books?

use proptest::prelude::*;

use super::*;
use crate::flow::{MemoryStep, Probe, Probes, Settings, Shadow, State, TICK, Would};
use crate::policy::Mode;
use crate::units::Seats;

fn scheduler() -> Scheduler {
    Scheduler::new(Settings::default(), 7, at(0))
}

/// Arrives in shadow.
fn arrives(
    scheduler: &mut Scheduler,
    now: Instant,
    arrival: &Arrival,
    mode: Mode,
) -> (Ticket, Option<Would>) {
    match scheduler.arrive_under(now, arrival, mode) {
        (Decision::Admit(ticket), would) => (ticket, would),
        (other, _) => panic!("expected to be let in, got {other:?}"),
    }
}

fn calm() -> Probes {
    let good = Probe::Answered(Duration::from_millis(1));
    Probes { livez: good, cached: good, consistent: good, ready: Some(true) }
}

fn lost() -> Probes {
    Probes { livez: Probe::Lost, cached: Probe::Lost, consistent: Probe::Lost, ready: Some(true) }
}

fn into_red(scheduler: &mut Scheduler, mut now: Instant) -> Instant {
    for _ in 0..20 {
        scheduler.tick(now, &lost());
        now = now + TICK;
        if scheduler.snapshot(now).state == State::Red {
            return now;
        }
    }
    panic!("lost probes do not brake");
}

#[test]
fn what_enforcing_would_refuse_is_let_in_and_said() {
    let (mut enforced, mut shadow) = (scheduler(), scheduler());
    let agent = arrival(Lane::Telemetry, 1, object("pods"));
    let mut refused = 0;
    for _ in 0..40 {
        let now = at(1);
        let (_, would) = arrives(&mut shadow, now, &agent, Mode::Shadow);
        match enforced.arrive(now, &agent) {
            Decision::Admit(_) => assert_eq!(would, None),
            Decision::Shed(refusal) => {
                refused += 1;
                assert_eq!(would, Some(Would::Shed(refusal.reason)));
            }
            Decision::Wait(_) => panic!("telemetry does not wait"),
        }
    }
    assert_eq!(refused, 20, "the identity's burst is 20");
    let seen = shadow.snapshot(at(1));
    assert_eq!(seen.shadow.shed[Lane::Telemetry.index()], 20);
    assert_eq!(seen.lane(Lane::Telemetry).shed_total(), 0, "nothing was refused for real");
    assert_eq!(seen.used, enforced.snapshot(at(1)).used, "the ledger is that of an enforced policy");
    assert_eq!(seen.shadow.seats, Seats(20));
}

#[test]
fn one_flood_does_not_make_others_look_shed() {
    let mut scheduler = scheduler();
    for _ in 0..500 {
        arrives(&mut scheduler, at(1), &arrival(Lane::Telemetry, 1, object("pods")), Mode::Shadow);
    }
    let (_, would) =
        arrives(&mut scheduler, at(1), &arrival(Lane::Workload, 2, object("pods")), Mode::Shadow);
    assert_eq!(would, None);
}

#[test]
fn whoever_would_wait_is_let_in_and_leaves_no_waiter() {
    let mut scheduler = scheduler();
    let first = arrival(Lane::Operators, 1, cluster_list("pods"));
    let mut waited = 0;
    for _ in 0..20 {
        waited += u64::from(arrives(&mut scheduler, at(1), &first, Mode::Shadow).1 == Some(Would::Wait));
    }
    assert!(waited > 0, "LISTs of people take turns");
    let seen = scheduler.snapshot(at(1));
    assert_eq!(seen.shadow.waited[Lane::Operators.index()], waited);
    assert_eq!(seen.lane(Lane::Operators).waiting, 0);
}

#[test]
fn what_was_let_in_beside_the_ledger_teaches_like_any_other() {
    let mut scheduler = scheduler();
    let agent = arrival(Lane::Telemetry, 1, cluster_list("pods"));
    let mut now = at(0);
    for _ in 0..200 {
        let (ticket, _) = arrives(&mut scheduler, now, &agent, Mode::Disabled);
        scheduler.first_byte(now + Duration::from_millis(20), ticket, Level::default());
        scheduler.finish(now + Duration::from_millis(30), ticket, Outcome { bytes: 10_000, ..DONE });
        now = now + Duration::from_millis(50);
        scheduler.tick(now, &calm());
    }
    // Ten seats before anything was known; a LIST of 10 kB in 20 ms takes one.
    let (_, would) = arrives(&mut scheduler, now, &agent, Mode::Shadow);
    assert_eq!((would, scheduler.snapshot(now).used), (None, Seats::ONE));
}

#[test]
fn the_brake_holds_in_shadow_and_not_in_disabled() {
    let mut scheduler = scheduler();
    let now = into_red(&mut scheduler, at(0));
    let agent = arrival(Lane::Telemetry, 1, object("pods"));
    let (decision, would) = scheduler.arrive_under(now, &agent, Mode::Shadow);
    assert_eq!((decision.shed().reason, would), (Reason::OverloadLevel, None));
    let (_, would) = arrives(&mut scheduler, now, &agent, Mode::Disabled);
    assert_eq!(would, None);
}

#[test]
fn the_bounds_of_the_process_hold_in_every_mode() {
    for mode in Mode::ALL {
        let mut scheduler = Scheduler::new(Settings { tickets: 3, ..Settings::default() }, 7, at(0));
        let person = arrival(Lane::Operators, 1, object("pods"));
        for _ in 0..3 {
            arrives(&mut scheduler, at(0), &person, mode);
        }
        let (decision, _) = scheduler.arrive_under(at(0), &person, mode);
        assert_eq!(decision.shed().reason, Reason::GlobalLimit, "{mode}");
        let mut scheduler = self::scheduler();
        scheduler.own_memory(MemoryStep::Critical);
        let (decision, _) = scheduler.arrive_under(at(0), &arrival(Lane::Telemetry, 1, object("pods")), mode);
        assert_eq!(decision.shed().reason, Reason::OwnMemory, "{mode}");
    }
}

#[test]
fn while_the_apiserver_is_away_shadow_holds_nobody_back() {
    let mut scheduler = scheduler();
    scheduler.upstream_up(at(0), false);
    let (_, would) =
        arrives(&mut scheduler, at(1), &arrival(Lane::Workload, 1, object("pods")), Mode::Shadow);
    assert_eq!(would, Some(Would::Shed(Reason::UpstreamUnavailable)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive(usize, u64, bool, usize),
    FirstByte(usize),
    Finish(usize),
    Cancel(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..Lane::COUNT, 0..4_u64, any::<bool>(), 0..3_usize)
            .prop_map(|(lane, client, list, kind)| Step::Arrive(lane, client, list, kind)),
        2 => any::<usize>().prop_map(Step::FirstByte),
        2 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Cancel),
        2 => (1..400_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..250)
}

/// Plays the steps in shadow with calm probes; the books at the end, and what each arrival would have met.
fn play(steps: &[Step]) -> (Vec<Option<Would>>, Shadow) {
    let mut scheduler = scheduler();
    let (mut now, mut tick) = (at(0), at(0) + TICK);
    let (mut live, mut woulds): (Vec<Ticket>, Vec<Option<Would>>) = (vec![], vec![]);
    for step in steps {
        match *step {
            Step::Arrive(lane, client, list, kind) => {
                let key = if list { cluster_list("pods") } else { object("pods") };
                let kind = [Kind::Short, Kind::Watch, Kind::Streaming][kind];
                let arrival = Arrival { kind, ..arrival(Lane::ALL[lane], client, key) };
                let is_red = scheduler.snapshot(now).state == State::Red;
                match scheduler.arrive_under(now, &arrival, Mode::Shadow) {
                    (Decision::Admit(ticket), would) => {
                        live.push(ticket);
                        woulds.push(would);
                    }
                    (other, _) => assert!(is_red, "{other:?} below Red"),
                }
            }
            Step::FirstByte(at) if !live.is_empty() => {
                scheduler.first_byte(now, live[at % live.len()], Level::default());
            }
            Step::Finish(at) if !live.is_empty() => {
                scheduler.finish(now, live.swap_remove(at % live.len()), DONE);
            }
            Step::Cancel(at) if !live.is_empty() => scheduler.cancel(now, live.swap_remove(at % live.len())),
            Step::Pass(millis) => now = now + Duration::from_millis(millis),
            _ => {}
        }
        while tick <= now {
            scheduler.tick(tick, &calm());
            tick = tick + TICK;
        }
        assert!(verdicts(&mut scheduler).is_empty(), "nobody waits in shadow");
    }
    for ticket in live {
        scheduler.cancel(now, ticket);
    }
    let end = scheduler.snapshot(now);
    assert_eq!((end.used, end.shadow.seats, end.tickets), (Seats::ZERO, Seats::ZERO, 0));
    (woulds, end.shadow)
}

proptest! {
    #[test]
    fn below_red_nothing_is_refused_or_queued_and_every_seat_comes_back(steps in steps()) {
        let (woulds, shadow) = play(&steps);
        let shed = woulds.iter().filter(|would| matches!(would, Some(Would::Shed(_)))).count() as u64;
        let waited = woulds.iter().filter(|would| matches!(would, Some(Would::Wait))).count() as u64;
        prop_assert_eq!((shadow.shed.iter().sum::<u64>(), shadow.waited.iter().sum::<u64>()), (shed, waited));
        prop_assert_eq!(play(&steps), (woulds, shadow), "the same load, the same answers");
    }
}
