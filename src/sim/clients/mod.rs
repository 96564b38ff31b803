//! How do clients behave, whatever stands in front of the apiserver?
//!
//! Each is a state machine: it hears what became of its call ([`Heard`]) and says what it does next ([`Next`]). Below
//! it lies the REST layer of its library (`retry`), which may try a call again by itself, as client-go does up to ten
//! times. What is worth measuring, such as a lease renewed in time, is told by [`Mark`]s.

mod leader;
mod lease;
mod looping;
mod operator;
mod reflector;
mod retry;

use std::fmt;
use std::time::Duration;

use super::chance::Chance;
use crate::units::Instant;

pub(super) use leader::Leader;
pub(super) use lease::Lease;
pub(super) use looping::Looping;
pub(super) use operator::{Operator, SHIFTS as OPERATOR_SHIFTS};
pub(super) use reflector::Reflector;
pub(super) use retry::{IGNORANT_PAUSE, Policy, Tries};

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It begins.
    Start,
    /// The time it slept is over.
    Timer,
    /// Its call was answered.
    Answered,
    /// Its watch has delivered what there was.
    Opened,
    /// Its open watch ended.
    Closed,
    /// Its call failed for good.
    Failed(Fault),
}

/// Why a call failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Refused with 429 or 503.
    Refused,
    /// Timeout, reset, no connection, or an error of the server.
    Broken,
    /// The resourceVersion is too old.
    Expired,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Calls plan number `plan`. Each try may take `timeout`, all together must end before `deadline`.
    Call { plan: usize, timeout: Duration, deadline: Option<Instant> },
    /// Sleeps until then.
    Sleep(Instant),
    /// Listens to its open watch.
    Listen,
}

/// Something worth measuring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    /// A lease renewal was due; how long it took, if it was renewed.
    Renewal { due: Instant, took: Option<Duration> },
    /// A node's lease was not renewed for so long that the node counts as lost.
    NotReady,
    /// A leader could not renew in time.
    LeaderLost,
    /// An operator's sequence of commands; how long it took, if all of it worked in time.
    Sequence { began: Instant, took: Option<Duration> },
    /// An informer of a protected lane began then; how long it took to have its first objects, if it has them.
    FirstObjects { began: Instant, took: Option<Duration> },
}

/// What a client has at hand when it decides.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) chance: &'a mut Chance,
    pub(super) marks: &'a mut Vec<Mark>,
}

/// One kind of client.
pub(super) trait Behaviour: fmt::Debug {
    /// What it does after what it heard.
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next;
    /// The run is over: what is still open is told.
    fn close(&mut self, _context: &mut Context<'_>) {}
}
