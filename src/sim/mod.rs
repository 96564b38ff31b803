//! What would this policy, or another algorithm, do under that load?
//!
//! A discrete-event simulator in virtual time: modelled clients (`clients`), the algorithm behind [`Guard`] and a modelled
//! apiserver (`apiserver`), played by `world` as a [`Scenario`] says, measured by `measure` and `figures`. The
//! production scheduler takes part as itself (`spillway`). Equal seeds give equal traces.
//!
//! The model is a model: `docs/OVERLOAD.md` says what it was fitted to, and what it leaves out (network, TLS, several
//! apiservers, the watch cache's own memory).

pub mod ablation;
pub mod algorithm;
mod apiserver;
pub mod baseline;
mod book;
mod cast;
mod chance;
mod clients;
mod costs;
mod course;
mod figures;
pub mod guard;
mod measure;
pub mod outcome;
mod plan;
mod probing;
pub mod report;
mod run;
pub mod scenario;
pub mod search;
mod sharing;
pub mod spillway;
mod timeline;
mod world;

#[cfg(test)]
mod tests;

pub use course::Moment;
pub use guard::{Answer, Call, Ended, Guard, Id, Truth};
pub use measure::Second;
pub use outcome::Outcome;
pub use run::{Run, RunError, run, run_with};
pub use scenario::{Scenario, ScenarioError};
