//! Which overload algorithms can stand in front of the modelled apiserver?

use std::time::Duration;

use super::guard::{Answer, Call, Ended, Guard, Id};
use crate::flow::{Probes, Settings};
use crate::units::Instant;

/// Names of the algorithms that are not competitors: ours, and the control.
pub const OWN_NAMES: &[&str] = &["spillway", "none"];

/// Names of all algorithms but the ablations: ours first, the control second, then the competitors, the oracle last.
pub fn names() -> impl Iterator<Item = &'static str> {
    OWN_NAMES.iter().chain(super::baseline::NAMES).copied()
}

/// The algorithm `name`, fresh, at the origin of time. `settings` are spillway's own; competitors take from it what
/// they share (lanes), all else is theirs. `name:2` is point 2 of a competitor's grid. `None`: there is no such algorithm.
#[must_use]
pub fn by_name(name: &str, settings: &Settings, seed: u64) -> Option<Box<dyn Guard>> {
    match name {
        "spillway" => Some(Box::new(super::spillway::Spillway::new(settings.clone(), seed))),
        "none" => Some(Box::new(Nobody)),
        _ => super::ablation::by_name(name, settings, seed).or_else(|| super::baseline::by_name(name, seed)),
    }
}

/// The control: everything goes on at once.
#[derive(Debug)]
struct Nobody;

impl Guard for Nobody {
    fn arrive(&mut self, _now: Instant, _id: Id, _call: &Call) -> Answer {
        Answer::Admit
    }
    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}
    fn burst_done(&mut self, _now: Instant, _id: Id) {}
    fn finish(&mut self, _now: Instant, _id: Id, _ended: Ended) {}
    fn cancel(&mut self, _now: Instant, _id: Id) {}
    fn tick(&mut self, _now: Instant, _probes: &Probes) {}
    fn upstream_up(&mut self, _now: Instant, _up: bool) {}
    fn next_wake(&self) -> Option<Instant> {
        None
    }
    fn wake(&mut self, _now: Instant) {}
    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}
}

/// How long a refusal of an algorithm without an opinion asks to wait: what most products say.
pub const PLAIN_RETRY_AFTER: Answer = Answer::Shed { retry_after_seconds: 1, hold: Duration::ZERO };
