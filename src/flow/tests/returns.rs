//! Clients that were refused: how often do they ask, who is served, and is anybody left out?

use super::scenarios::{agents, leases, operator, sum};
use super::world::{Client, World, percentile};
use super::*;
use crate::flow::Settings;

/// Jain's index of what each client got: 1 is equal, 1/n is one client has all.
fn jain(shares: &[usize]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share * share) as f64).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// Agents that LIST all pods once, when they start.
fn roll_out(world: &mut World, count: u64, starts: u64) -> Vec<usize> {
    (0..count)
        .map(|index| {
            world.add(Client {
                lane: Lane::Telemetry,
                key: cluster_list("pods"),
                work: 360_000,
                bytes: 39_000_000,
                period: Duration::ZERO,
                identity: 200_000 + index,
                starts: at(starts + 100 * index),
                stops: at(u64::MAX / 2_000_000),
                times: 1,
            })
        })
        .collect()
}

/// 60 agents want 2.5 LISTs a second of a core that has little more. Expected: each is served about as often, none costs
/// more than two attempts a success, and the core stays busy with them.
#[test]
fn refused_clients_return_one_by_one_and_are_served_alike() {
    let mut world = World::new(Settings::default(), 1.0);
    let (leases, operator) = (leases(&mut world), operator(&mut world));
    let agents = agents(&mut world, 60, Lane::Telemetry, (20_000, 320_000));
    world.run(at(320_000));
    let storm = sum(&world, &agents);
    let served = storm.answered.len();
    let attempts = served + storm.refused.len();
    let shares: Vec<_> = agents.iter().map(|&agent| world.tallies[agent].answered.len()).collect();
    assert!(served as f64 / 300.0 > 2.3, "{served} served");
    assert!(attempts as f64 / (served as f64) < 2.1, "{attempts} attempts for {served}");
    assert!(jain(&shares) > 0.95, "{shares:?}");
    let (leases, operator) = (sum(&world, &leases), sum(&world, &operator));
    assert!(leases.refused.is_empty() && operator.refused.is_empty());
    assert!(percentile(&leases.answered, 99) < Duration::from_millis(260));
}

/// 300 agents start within half a minute and want one LIST each, two minutes of one core's work. Expected: all have it
/// soon after that time, each with one refusal on average.
#[test]
fn a_roll_out_is_drained_as_fast_as_the_core_allows() {
    let mut world = World::new(Settings::default(), 1.0);
    leases(&mut world);
    let agents = roll_out(&mut world, 300, 20_000);
    let mut done = 0;
    while sum(&world, &agents).answered.len() < agents.len() && done < 400 {
        done += 1;
        world.run(at(20_000 + 1_000 * done));
    }
    let refused = sum(&world, &agents).refused.len();
    assert!(done < 160, "{done} s for 110 s of work");
    assert!(refused < 3 * agents.len() / 2, "{refused} refusals");
}

/// 400 agents ask for a light object five times a second, ten times what one core can do. Expected: whole clients work or
/// wait, all get alike, and who is refused is told to wait for its turn. (Without cohorts: 14,800 served, 12,000 refused,
/// Jain 0.88.)
#[test]
fn light_telemetry_works_or_waits_by_cohort() {
    let mut settings = Settings::default();
    settings.lanes[Lane::Telemetry.index()].identity_rate = None;
    let mut world = World::new(settings, 1.0);
    world.think = Duration::from_millis(195);
    let leases = leases(&mut world);
    let agents: Vec<_> = (0..400)
        .map(|index| {
            world.add(Client {
                lane: Lane::Telemetry,
                key: object("configmaps"),
                work: 5_000,
                bytes: 2_000,
                period: Duration::ZERO,
                identity: 300_000 + index,
                starts: at(10_000 + index),
                stops: at(u64::MAX / 2_000_000),
                times: usize::MAX,
            })
        })
        .collect();
    world.run(at(70_000));
    let before: Vec<_> = agents.iter().map(|&agent| world.tallies[agent].answered.len()).collect();
    let attempts = |world: &World| {
        let all = sum(world, &agents);
        (all.answered.len(), all.refused.len())
    };
    let from = attempts(&world);
    world.run(at(190_000));
    let to = attempts(&world);
    let shares: Vec<_> = agents
        .iter()
        .zip(&before)
        .map(|(&agent, before)| world.tallies[agent].answered.len() - before)
        .collect();
    let (served, refused) = (to.0 - from.0, to.1 - from.1);
    assert!(jain(&shares) > 0.94, "{:.3} {shares:?}", jain(&shares));
    assert!(refused < served / 4, "{refused} refusals for {served}");
    assert!(served > 120 * 150, "{served} in two minutes of 200 a second");
    assert!(sum(&world, &leases).refused.is_empty());
}
