//! What would this policy, or another algorithm, do under that load?
//!
//! A discrete-event simulator in virtual time: modelled clients, the algorithm behind [`Guard`] and a modelled
//! apiserver. The production scheduler takes part as itself (`spillway`). Equal seeds give equal traces.

pub mod algorithm;
mod book;
pub mod guard;
pub mod spillway;

pub use guard::{Answer, Call, Ended, Guard, Id, Truth};
