//! What must a proxy be able to do for an operator?
//!
//! The border between the socket, which knows HTTP, and the keeper of the levers, which knows the proxy.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::changes::Changes;
use super::explained::{DecisionLines, Explain, Explained};
use super::tapped::{TapFilter, Tapped};
use super::wire::newcomers::{Approve, Approved, Newcomers};
use super::wire::{
    Clients, Events, HoldLimit, Isolate, Isolated, IsolationView, Kept, LeverView, Lock, Problem, Release,
    Status,
};
use crate::telemetry::Asker;

/// What can be asked of a proxy. Everything but [`Operations::keep`] is done at once, in memory.
pub trait Operations: Send + Sync {
    /// How things are.
    fn status(&self) -> Status;
    /// Who was here lately and has `like` in its name, whatever its case; by `cost`, `asked`, `served` or `refused`.
    fn clients(&self, by: &str, like: &str) -> Clients;
    /// What happened after an event of this number.
    fn events(&self, after: u64) -> Events;
    /// Why a request was refused.
    ///
    /// # Errors
    /// When nothing is kept under this id.
    fn decision(&self, id: &str) -> Result<Explained, Problem>;
    /// The latest refusals, perhaps of one user.
    fn decisions(&self, user: Option<&str>) -> DecisionLines;
    /// What would become of a request.
    ///
    /// # Errors
    /// When it is none.
    fn explain(&self, request: &Explain) -> Result<Explained, Problem>;
    /// What passed since the last question; asking keeps it on for a few seconds.
    fn tap(&self, filter: &TapFilter) -> Tapped;
    /// What is isolated.
    fn isolations(&self) -> Vec<IsolationView>;
    /// Isolates, or says what would happen.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn isolate(&self, request: &Isolate, by: Asker) -> Result<Isolated, Problem>;
    /// Ends an isolation.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn release(&self, request: &Release, by: Asker) -> Result<IsolationView, Problem>;
    /// Locks down.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn lock(&self, request: &Lock, by: Asker) -> Result<LeverView, Problem>;
    /// Ends the lockdown.
    ///
    /// # Errors
    /// When there is none.
    fn unlock(&self, by: Asker) -> Result<LeverView, Problem>;
    /// Holds L.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn hold_limit(&self, request: &HoldLimit, by: Asker) -> Result<LeverView, Problem>;
    /// Lets L go.
    ///
    /// # Errors
    /// When it is not held.
    fn free_limit(&self, by: Asker) -> Result<LeverView, Problem>;
    /// Whoever keeps the policy, where somebody does.
    fn changes(&self) -> Option<Arc<dyn Changes>> {
        None
    }
    /// Who is new.
    fn newcomers(&self) -> Newcomers;
    /// Makes somebody known; with `doubt`, new again.
    ///
    /// # Errors
    /// When there is nobody of that name, or no such lane.
    fn approve(&self, request: &Approve, doubt: bool, by: Asker) -> Result<Approved, Problem>;
    /// Writes who is known to the disk; bounded.
    fn keep_known(&self) -> BoxFuture<'_, Kept>;
    /// Writes what is in force to the disk; bounded.
    fn keep(&self) -> BoxFuture<'_, Kept>;
}
