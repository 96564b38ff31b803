//! Tests of the simulator as a whole: does it agree with what is known, and with itself?

use super::*;
use crate::flow::Settings;
use crate::policy::Policy;

fn play(yaml: &str, algorithm: &str, seed: u64) -> Run {
    let scenario = Scenario::read(yaml).unwrap();
    let policy = Policy::new(vec![], Settings::default().lanes, 1).unwrap();
    run(&scenario, &policy, &Settings::default(), algorithm, seed).unwrap()
}

#[test]
fn try_it() {
    for built_in in scenario::BUILT_IN {
        for algorithm in ["none", "spillway"] {
            let run = play(built_in.yaml, algorithm, 1);
            println!("{:#?}", run.outcome);
        }
    }
}
