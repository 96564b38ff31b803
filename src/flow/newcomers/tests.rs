//! Roll-outs in virtual time: which of them are warned of, and when?

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A LIST of 5,000 pods: ten seats for a third of a second.
const LIST: SeatSeconds = SeatSeconds::from_micros(3_600_000);
const LIGHT: SeatSeconds = SeatSeconds::from_micros(20_000);
const L: Seats = Seats(64);

fn at(seconds: f64) -> Instant {
    Instant::ORIGIN + Duration::from_secs_f64(seconds)
}

fn who(user: &str) -> Who {
    Who { user: user.to_owned(), program: String::new() }
}

/// A guard that has learnt: two hours old, in a cluster of `nodes`.
fn grown(nodes: u64) -> (Newcomers, f64) {
    let mut newcomers = Newcomers::new(NewcomerSettings::default(), at(0.0));
    let now = 7_200.0;
    (0..nodes).for_each(|node| newcomers.heard(at(now), node));
    (newcomers, now)
}

/// Rolls an agent out, `speed` nodes a second up to `most`: each LISTs at its start, and `steady` every ten seconds after.
/// Gives back the moments (since the first place) at which there were warnings, with the number of places then.
fn roll_out(
    nodes: u64,
    (speed, most): (f64, u64),
    steady: SeatSeconds,
    seconds: u64,
) -> (Vec<(u64, usize)>, Newcomers) {
    let (mut newcomers, began) = grown(nodes);
    let mut warnings = Vec::new();
    for second in 0..seconds {
        let now = at(began + second as f64);
        let there = (((second + 1) as f64 * speed).ceil() as u64).min(most);
        for place in 0..there {
            let age = second - (place as f64 / speed) as u64;
            if age == 0 {
                newcomers.meet(now, &who("agent"), place, LIST);
            } else if age.is_multiple_of(10) {
                newcomers.meet(now, &who("agent"), place, steady);
            }
        }
        if second.is_multiple_of(5) {
            (0..nodes).for_each(|node| newcomers.heard(now, node));
            for finding in newcomers.look(now, L) {
                if let Finding::Warning(_, figures) = finding {
                    warnings.push((second, figures.places));
                }
            }
        }
    }
    (warnings, newcomers)
}

#[test]
fn an_agent_that_lists_everything_is_warned_of_within_a_minute_of_one_percent_of_the_nodes() {
    for nodes in [200_u64, 2_000, 5_000] {
        // A hundredth of the nodes in ten seconds, as a DaemonSet with maxUnavailable 10 % does.
        let speed = nodes as f64 / 1_000.0;
        let (warnings, newcomers) = roll_out(nodes, (speed, nodes), LIST, 120);
        let (first, places) = warnings[0];
        let one_percent = 10;
        assert!(first <= one_percent + 60, "{nodes} nodes: {warnings:?}");
        assert!(
            places as u64 * 10 <= nodes,
            "said while nine tenths of the nodes are still well: {warnings:?}"
        );
        let (_, figures, seen) = newcomers.newcomers(at(7_319.0)).remove(0);
        assert!(figures.spreads && seen.warned);
        let per_place = figures.per_place.unwrap();
        assert!((0.3..0.42).contains(&per_place), "a LIST each ten seconds: {per_place}");
        assert!(figures.projected > 0.3 * nodes as f64, "{figures:?}");
    }
}

#[test]
fn an_informer_that_lists_once_and_a_light_agent_are_not_warned_of() {
    // A start of 3.6 seat-seconds each five seconds is less than a seat.
    let (warnings, newcomers) = roll_out(2_000, (0.2, 200), LIGHT, 600);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(newcomers.newcomers(at(7_800.0))[0].1.projected < 16.0);
}

#[test]
fn many_that_start_together_are_warned_of_for_their_first_lists() {
    // Ten nodes a second, 3.6 seat-seconds each: 36 of 64 seats, for as long as the roll-out lasts.
    let (warnings, _) = roll_out(5_000, (10.0, 5_000), LIGHT, 60);
    assert!(!warnings.is_empty() && warnings[0].0 <= 20, "{warnings:?}");
}

#[test]
fn a_controller_in_one_place_is_not_multiplied_by_the_nodes() {
    let (mut newcomers, began) = grown(5_000);
    for second in 0..300 {
        let now = at(began + f64::from(second));
        newcomers.meet(now, &who("controller"), 1, SeatSeconds::from_micros(500_000));
        (0..100).for_each(|node| newcomers.heard(now, node));
        let found = newcomers.look(now, L);
        assert!(!found.iter().any(|finding| matches!(finding, Finding::Warning(..))), "{found:?}");
    }
    let (_, figures, _) = newcomers.newcomers(at(began + 300.0)).remove(0);
    assert!((0.4..0.6).contains(&figures.projected), "half a seat where it is: {figures:?}");
}

#[test]
fn within_its_budget_a_newcomer_is_unknown_and_beyond_it_telemetry() {
    let (mut newcomers, began) = grown(10);
    let ask =
        |newcomers: &mut Newcomers, second: f64| newcomers.meet(at(began + second), &who("agent"), 1, LIST);
    let ranks: Vec<Standing> = (0..20).map(|_| ask(&mut newcomers, 0.0)).collect();
    let within = ranks.iter().filter(|rank| **rank == Standing::New(Lane::Unknown)).count();
    assert_eq!(within, 16, "60 seat-seconds at once");
    assert!(ranks[within..].iter().all(|rank| *rank == Standing::New(Lane::Telemetry)));
    assert_eq!(ask(&mut newcomers, 1.0), Standing::New(Lane::Unknown), "two seats on average");
    assert_eq!(ask(&mut newcomers, 1.0), Standing::New(Lane::Telemetry));
}

#[test]
fn while_it_learns_and_after_a_day_everybody_is_known() {
    let mut newcomers = Newcomers::new(NewcomerSettings::default(), at(0.0));
    assert_eq!(newcomers.meet(at(5.0), &who("old"), 1, LIGHT), Standing::Known(None));
    assert_eq!(newcomers.meet(at(3_601.0), &who("young"), 1, LIGHT), Standing::New(Lane::Unknown));
    assert_eq!(newcomers.look(at(3_602.0), L), [Finding::Came(who("young"))]);
    for hour in 1..=24 {
        newcomers.meet(at(3_601.0 + f64::from(hour) * 3_600.0), &who("young"), 1, LIGHT);
        newcomers.look(at(3_601.5 + f64::from(hour) * 3_600.0), L);
    }
    assert_eq!(newcomers.meet(at(90_100.0), &who("young"), 1, LIGHT), Standing::Known(None));
    assert_eq!(newcomers.meet(at(90_100.0), &who("old"), 1, LIGHT), Standing::Known(None));
}

#[test]
fn who_is_warned_of_does_not_become_known_by_waiting() {
    let (_, mut newcomers) = roll_out(200, (0.2, 200), LIST, 300);
    for hour in 0..30_u32 {
        let now = 7_500.0 + f64::from(hour) * 3_600.0;
        for second in 0..60_u32 {
            let place = u64::from(second % 50);
            newcomers.meet(
                at(now + f64::from(second)),
                &who("agent"),
                place,
                SeatSeconds::from_micros(40_000_000),
            );
        }
        newcomers.look(at(now + 60.0), L);
    }
    let later = at(7_500.0 + 30.0 * 3_600.0);
    assert!(matches!(newcomers.meet(later, &who("agent"), 1, LIST), Standing::New(_)));
}

#[test]
fn approval_is_kept_with_its_lane_and_doubt_ends_it() {
    let (mut newcomers, began) = grown(10);
    let agent = Who { user: "agent".into(), program: "otel".into() };
    newcomers.meet(at(began), &agent, 1, LIGHT);
    assert_eq!(newcomers.approve(at(began), &who("nobody"), None), 0);
    assert_eq!(newcomers.approve(at(began), &who("agent"), Some(Lane::Telemetry)), 1);
    let known = Standing::Known(Some(Lane::Telemetry));
    assert_eq!(newcomers.meet(at(began + 1.0), &agent, 1, LIGHT), known);
    let other = Who { program: "curl".into(), ..agent.clone() };
    assert!(matches!(newcomers.meet(at(began + 1.0), &other, 1, LIGHT), Standing::New(_)));
    let kept = newcomers.remember(at(began + 2.0));
    let mut after = Newcomers::new(NewcomerSettings::default(), at(0.0));
    assert_eq!(after.recall(at(1.0), kept.clone(), 60), 1);
    assert_eq!(after.meet(at(2.0), &agent, 1, LIGHT), known);
    assert!(after.learns_for(at(2.0)).is_zero(), "a restart does not teach anew");
    assert_eq!(after.doubt(&agent), 1);
    assert!(matches!(after.meet(at(3.0), &agent, 1, LIGHT), Standing::New(_)));
    assert_eq!(after.remember(at(1.0)).here_for, kept.here_for + 60);
}

#[test]
fn invented_programs_and_identities_stay_within_their_bounds() {
    let (mut newcomers, began) = grown(10);
    for number in 0..1_000 {
        let program = Who { user: "agent".into(), program: format!("program-{number}") };
        newcomers.meet(at(began), &program, number, LIGHT);
    }
    assert_eq!(newcomers.counts().new, PROGRAMS_MAX + 1);
    for number in 0..1_000 {
        newcomers.meet(at(began), &who(&format!("user-{number}")), number, LIGHT);
    }
    assert_eq!(newcomers.counts().new, NEWCOMERS_MAX);
    assert!(newcomers.counts().crowd > 900);
    let standing = newcomers.meet(at(began), &who("one more"), 1, LIGHT);
    assert_eq!(standing, Standing::New(Lane::Telemetry));
    let mut young = Newcomers::new(NewcomerSettings::default(), at(0.0));
    for number in 0..KNOWN_MAX as u64 + 10 {
        young.meet(at(number as f64 / 10.0), &who(&format!("user-{number}")), 1, LIGHT);
    }
    assert_eq!(young.counts().known, KNOWN_MAX);
}

proptest! {
    /// Whatever comes, a rank is never above `unknown` for who is new, and figures are numbers.
    #[test]
    fn figures_are_numbers(asks in prop::collection::vec((0_u64..5, 0_u64..50, 0_u64..90_000_000, 0_u64..40_000), 1..200)) {
        let (mut newcomers, began) = grown(40);
        let mut now = began;
        for (user, place, micros, pause) in asks {
            now += pause as f64 / 1_000.0;
            let price = SeatSeconds::from_micros(micros);
            match newcomers.meet(at(now), &who(&user.to_string()), place, price) {
                Standing::New(lane) => prop_assert!(lane >= Lane::Unknown),
                Standing::Known(lane) => prop_assert_eq!(lane, None),
            }
            newcomers.look(at(now), L);
            for (_, figures, _) in newcomers.newcomers(at(now)) {
                prop_assert!(figures.projected.is_finite() && figures.projected >= 0.0, "{:?}", figures);
                prop_assert!(figures.growth.is_finite() && figures.per_start.is_finite());
            }
        }
    }
}
