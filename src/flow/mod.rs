//! Admit, wait or shed?
//!
//! The [`Scheduler`] is the heart of spillway: a plain state machine that is told what happens and when, and answers
//! at once. It does no I/O, reads no clock, logs nothing and draws chance from a seed, so the very object
//! that guards an apiserver also runs in a simulator, and equal inputs give equal traces.
//!
//! **Theory.** Seats measure work in progress; a request takes 1 to 16 by what its kind cost before (`estimate`).
//! At most L seats are in use. L follows **pressure** (`pressure`, `limit`): how many times slower than in calm the
//! apiserver answers, per kind of call, as a weighted median, and only beyond the objectives that somebody would
//! notice. Lanes share L by **trunk reservation** with floors (`seats`): the lower a lane, the earlier it meets its
//! ceiling, so telemetry gives way first and node leases last, with no seat idle while only low lanes ask. Heavy
//! requests of all lanes share a budget: it contains the culprit that no rule names. Inside a lane flows are
//! served by virtual time in seat-seconds (`queue`), one client is bounded while others want the lane (`clients`),
//! and a wait has an end. Who is refused learns when to return, sized by the backlog (`retry`). When the
//! apiserver goes away and returns, lanes re-enter in order (`recovery`).
//!
//! Departures from API Priority and Fairness: the total is not fixed but measured; lanes are ordered, not only
//! weighted; estimates learn. From the limiters of Netflix and Envoy: no global minimum of latency to mistake, no
//! probing by starving. Left out so far: controllability test, pacing below one heavy request, memory budget, cohorts.
//!
//! The caller holds one lock around every call, keeps the [`Ticket`] in a guard that calls [`Scheduler::cancel`] when
//! dropped, calls [`Scheduler::tick`] every [`TICK`], and [`Scheduler::wake`] at [`Scheduler::next_wake`].

mod arrive;
mod budget;
mod ceiling;
mod clients;
mod cohort;
mod control;
mod decision;
mod delay;
mod diagnosis;
mod discount;
mod estimate;
mod harm;
mod key;
mod lanes;
mod levels;
pub mod levers;
mod limit;
mod median;
mod memory;
pub mod newcomers;
mod own_memory;
mod pace;
mod pressure;
mod probes;
mod queue;
mod random;
mod rate;
mod recovery;
mod remembered;
mod resets;
mod retry;
mod returns;
mod scheduler;
mod seats;
mod settings;
mod shadow;
mod snapshot;
mod tick;
mod tickets;
mod walk;
mod warming;
mod watches;
mod window;
mod work;

#[cfg(test)]
mod tests;

pub use ceiling::{Ceiling, CeilingSettings};
pub use decision::{Arrival, Decision, End, Kind, Level, Outcome, Reason, Refusal, Ticket, Verdict};
pub use diagnosis::{Cause, Diagnosis};
pub use key::{Encoding, Key};
pub use own_memory::MemoryStep;
pub use pressure::{BROWN, CALM};
pub use probes::{Probe, Probes};
pub use recovery::State;
pub use remembered::{Remembered, RememberedCall};
pub use scheduler::Scheduler;
pub use seats::HEAVY_SEATS;
pub use settings::{
    HoldSettings, Laws, LimitSettings, MemorySettings, Objectives, ResponseBytes, Settings, WatchSettings,
};
pub use shadow::{Shadow, Would};
pub use snapshot::{LaneSnapshot, Snapshot};
pub use tick::TICK;
pub use walk::{Answer, Ends, Gate, Numbers, Walk};
