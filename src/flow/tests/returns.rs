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
    println!("{served} served, {attempts} attempts, jain {:.3}, {shares:?}", jain(&shares));
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
    println!("{done} s, {refused} refusals");
    assert!(done < 160, "{done} s for 110 s of work");
    assert!(refused < 3 * agents.len() / 2, "{refused} refusals");
}
