//! What does the simulator ask of an algorithm that stands in front of the modelled apiserver?
//!
//! One trait for all: the production scheduler, the published competitors and the oracle. An algorithm sees requests
//! come and go and answers; it never sees the model. Requests are named by the caller, so that an algorithm keeps
//! whatever books it likes. Equal calls must give equal answers: no clock, no unseeded chance.

use std::time::Duration;

use crate::flow::{End, Key, Kind, Probes};
use crate::policy::Lane;
use crate::units::Instant;

/// Names one request for its whole life; the caller chooses it, never reused within a run.
pub type Id = u32;

/// One request as any algorithm may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The lane that policy (or the scenario) gave it.
    pub lane: Lane,
    /// Who shares a queue inside the lane: hash of the user, and of the node for bound tokens.
    pub flow: u64,
    /// Who is limited as one client: hash of the user.
    pub client: u64,
    /// What kind of call it is.
    pub key: Key,
    /// When its seats come back.
    pub kind: Kind,
    /// A health probe.
    pub exempt: bool,
    /// A LIST, or a watch that asks for initial events.
    pub list: bool,
    /// It changes something.
    pub write: bool,
    /// What it really costs: for the oracle only.
    pub truth: Truth,
}

/// What a request really costs, as the model knows it when the request arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Truth {
    /// Work in the apiserver, in microseconds of one core.
    pub cpu_micros: f64,
    /// Work in etcd, in microseconds of one of its servers.
    pub etcd_micros: f64,
    /// Bytes of the answer.
    pub bytes: u64,
}

/// What an algorithm says to an arrival, or later to one that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Forward it now.
    Admit,
    /// Keep it; the answer comes through [`Guard::verdicts`].
    Wait,
    /// Refuse it.
    Shed {
        /// What `Retry-After` says, in whole seconds; 0 means that the answer carries none.
        retry_after_seconds: u32,
        /// How long the refusal itself is held back before it is sent.
        hold: Duration,
    },
}

/// How a forwarded request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended, as far as the apiserver's health is concerned.
    pub end: End,
    /// Body bytes of the answer.
    pub bytes: u64,
    /// The APF priority level that served it, hashed; 0 where there is no APF.
    pub level: u64,
    /// Time since it was forwarded.
    pub latency: Duration,
}

/// An overload algorithm in front of the modelled apiserver.
///
/// The order of calls for one request: `arrive`; if it waits, its answer through `verdicts`; once admitted
/// `first_byte`, for watches `burst_done`, and at last `finish`, or `cancel` at any moment in between. After `Shed`,
/// `finish` or `cancel` its `Id` is not heard of again. After every call the simulator takes `verdicts` and `resets`.
pub trait Guard {
    /// A request arrives.
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer;
    /// The answer's first byte came, from the APF level `level`. Not called for refusals of the apiserver.
    fn first_byte(&mut self, now: Instant, id: Id, level: u64);
    /// A watch has delivered its first burst.
    fn burst_done(&mut self, now: Instant, id: Id);
    /// A forwarded request is over.
    fn finish(&mut self, now: Instant, id: Id, ended: Ended);
    /// The client went away, waiting or not.
    fn cancel(&mut self, now: Instant, id: Id);
    /// Every [`crate::flow::TICK`].
    fn tick(&mut self, now: Instant, probes: &Probes);
    /// The apiserver went away or came back.
    fn upstream_up(&mut self, now: Instant, up: bool);
    /// When [`Guard::wake`] wants to be called.
    fn next_wake(&self) -> Option<Instant>;
    /// The time of [`Guard::next_wake`] has come.
    fn wake(&mut self, now: Instant);
    /// Answers for those who waited: [`Answer::Admit`] or [`Answer::Shed`], appended to `into`.
    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>);
    /// Running requests to be reset now, appended to `into`; the simulator calls `finish` for each.
    fn resets(&mut self, into: &mut Vec<Id>) {
        let _ = into;
    }
    /// The oracle is told the true capacity in cores and bytes of memory when it changes; all others ignore it.
    fn capacity(&mut self, _now: Instant, _cores: f64, _memory: f64) {}
    /// The limit in force, if there is one: for plots and the variation of L.
    fn limit(&self) -> Option<f64> {
        None
    }
}
