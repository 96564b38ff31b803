//! Tests of the simulator as a whole: does it agree with what is known, and with itself?

mod guards;
mod validation;

use std::time::Duration;

use super::world::World;
use super::*;
use crate::flow::Settings;
use crate::policy::Policy;
use guards::Witness;

/// A policy without rules: tests name lanes.
fn policy() -> Policy {
    Policy::new(vec![], Settings::default().lanes, 1).unwrap()
}

fn play(yaml: &str, algorithm: &str, seed: u64) -> Run {
    let scenario = Scenario::read(yaml).unwrap();
    run(&scenario, &policy(), &Settings::default(), algorithm, seed).unwrap()
}

fn built_in(name: &str) -> &'static str {
    scenario::BUILT_IN.iter().find(|built_in| built_in.name == name).unwrap().yaml
}

#[track_caller]
fn metric(run: &Run, name: &str) -> f64 {
    run.outcome.metric(name).unwrap_or_else(|| panic!("{name} in {:#?}", run.outcome))
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    for name in ["one-core-ignorant", "cold-restart"] {
        for algorithm in ["none", "spillway"] {
            let [one, same, other] = [1, 1, 2].map(|seed| play(built_in(name), algorithm, seed));
            assert_eq!(one, same, "{name} with {algorithm}");
            assert_ne!(one.outcome.trace, other.outcome.trace, "{name} with {algorithm}");
        }
    }
}

#[test]
fn every_scenario_can_be_read_and_predicts_its_outcome() {
    for built_in in scenario::BUILT_IN {
        let scenario =
            Scenario::read(built_in.yaml).unwrap_or_else(|error| panic!("{}: {error}", built_in.name));
        assert_eq!(scenario.name, built_in.name);
        assert!(built_in.yaml.starts_with("# "), "{} begins with a prediction", built_in.name);
        assert!(built_in.yaml.contains("Expected"), "{} says what is expected", built_in.name);
        assert!(!scenario.expect.is_empty() && !scenario.control.is_empty(), "{}", built_in.name);
    }
}

/// Left out here for their length; `spillway simulate all` plays them too.
const LONG: &[&str] = &["rollout-5000", "steady-day"];

#[test]
fn without_spillway_every_storm_hurts_and_every_harmless_load_does_not() {
    for built_in in scenario::BUILT_IN.iter().filter(|built_in| !LONG.contains(&built_in.name)) {
        let scenario = Scenario::read(built_in.yaml).unwrap();
        let run = play(built_in.yaml, "none", 1);
        for (name, band) in &scenario.control {
            let value = metric(&run, name);
            assert!(band.holds(value), "{}: {name} is {value}, expected {band}", built_in.name);
        }
    }
}

#[test]
fn an_algorithm_is_told_of_every_request_once_and_in_order() {
    // Refusals, waits, timeouts, resets by a dying server, watches that end, clients that stop.
    for (name, seed) in
        [("one-core-ignorant", 1), ("cold-restart", 2), ("memory-pressure", 3), ("slow-webhook", 4)]
    {
        let scenario = Scenario::read(built_in(name)).unwrap();
        let inner = algorithm::by_name("spillway", &Settings::default(), seed).unwrap();
        let (witness, report) = Witness::over(inner);
        run_with(&scenario, &policy(), Box::new(witness), "witness", seed).unwrap();
        let report = report.take();
        assert_eq!(report.faults, Vec::<String>::new(), "{name}");
        assert!(report.ended > 1_000, "{name}: {report:?}");
    }
}

#[test]
fn refusals_are_needless_only_where_nobody_would_have_been_late() {
    let mut harmful = play(built_in("one-core"), "spillway", 1);
    let shadow = play(built_in("one-core"), "none", 1);
    harmful.judge_sheds(&shadow);
    assert!(metric(&harmful, "shed") > 0.1);
    assert!(metric(&harmful, "false_shed") < 0.001, "{}", metric(&harmful, "false_shed"));
    // The same refusals beside a server with nothing to do are all needless.
    let mut idle = shadow;
    idle.seconds.iter_mut().for_each(|second| *second = Second::default());
    harmful.judge_sheds(&idle);
    assert_eq!(metric(&harmful, "false_shed"), metric(&harmful, "shed"));
}

#[test]
fn mistakes_in_a_scenario_are_named_with_their_place() {
    let good = built_in("one-core");
    let error = |from: &str, to: &str| {
        assert!(good.contains(from), "the test changes something: {from}");
        Scenario::read(&good.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let line = 1 + good.lines().position(|line| line.starts_with("server:")).unwrap();
    let unknown = error("cores: 1", "coers: 1");
    assert!(unknown.contains("coers") && unknown.contains(&format!("line {line}, ")), "{unknown}");
    let unit = error("calm: 30s", "calm: 30");
    assert!(unit.contains("a time with its unit"), "{unit}");
    let lane = error("lane: telemetry", "lane: telemtry");
    assert!(lane.contains("clients \"agents\": lane \"telemtry\" is not defined"), "{lane}");
    let nowhere = error("lane: telemetry", "timeout: 5s");
    assert!(nowhere.contains("either a lane or an identity"), "{nowhere}");
    let call = error("GET /api/v1/pods?limit=500&resourceVersion=0\" ]", "pods\" ]");
    assert!(call.contains("is not a request line"), "{call}");
    let band = error("\">= 0.99\"", "\"0.99 or so\"");
    assert!(band.contains("a band such as"), "{band}");
    let name = error("renewals_ok", "renewals_okay");
    assert!(name.contains("there is no metric \"renewals_okay\""), "{name}");
    let many = error("count: 500", "count: 4000000");
    assert!(many.contains("clients; 1 to 50000 are possible"), "{many}");
}

#[test]
fn identities_are_classified_by_the_policy() {
    // Without rules everybody is unknown, the nodes' leases too.
    let run = play(built_in("one-core-nodes"), "none", 1);
    assert!(run.outcome.metric("unknown.attempts_per_s").is_some());
    assert_eq!(run.outcome.metric("telemetry.attempts_per_s"), None);
}
