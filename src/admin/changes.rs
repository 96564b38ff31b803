//! What can be asked and changed about the policy, and how does the socket hand it on?
//!
//! What changes a policy reads and writes files, so it runs beside the thread that answers: a hanging disk keeps one
//! question waiting, not the levers.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use super::api::{json, read, refused, value};
use super::wire::{self, Problem};
use super::wire_change::{ConfigHistory, ConfigView, Rollback, RolloutOrder, RolloutView};
use crate::telemetry::Asker;

/// What can be asked of whoever keeps the policy. May wait for the disk.
pub trait Changes: Send + Sync {
    /// What is in force; with the text of it, or of the policy of that generation.
    ///
    /// # Errors
    /// When there is no such generation.
    fn config(&self, generation: Option<u64>) -> Result<ConfigView, Problem>;
    /// The same without a text, from memory alone: never waits.
    fn summary(&self) -> ConfigView;
    /// How far it is in force, and how it comes into force; never waits.
    fn rollout(&self) -> RolloutView;
    /// Moves the rollout.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn order(&self, request: &RolloutOrder, by: Asker) -> Result<RolloutView, Problem>;
    /// What was in force, from memory alone: never waits.
    fn history(&self) -> ConfigHistory;
    /// Reads the files again.
    ///
    /// # Errors
    /// Why they are not in force.
    fn reload(&self, by: Asker) -> Result<ConfigView, Problem>;
    /// Goes back.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn rollback(&self, request: &Rollback, by: Asker) -> Result<ConfigView, Problem>;
}

type Shared = State<Arc<dyn Changes>>;

/// The paths below `/v1/config`.
pub(super) fn router(changes: Arc<dyn Changes>) -> Router {
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/config/history", get(history))
        .route("/v1/config/reload", post(reload))
        .route("/v1/config/rollback", post(rollback))
        .route("/v1/rollout", get(rollout).post(order))
        .with_state(changes)
}

async fn config(State(changes): Shared, RawQuery(query): RawQuery) -> Response {
    let generation = value(query.as_deref(), "generation=").map(str::parse);
    let generation = match generation.transpose() {
        Ok(generation) => generation,
        Err(_) => {
            let help = "spillway config history has the generations";
            return refused(&Problem::new(wire::code::MALFORMED, "a generation is a number", help));
        }
    };
    answer(move || changes.config(generation)).await
}

async fn history(State(changes): Shared) -> Response {
    answer(move || Ok(changes.history())).await
}

async fn reload(State(changes): Shared, Extension(by): Extension<Asker>) -> Response {
    answer(move || changes.reload(by)).await
}

async fn rollback(State(changes): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    match read(&body) {
        Ok(request) => answer(move || changes.rollback(&request, by)).await,
        Err(problem) => refused(&problem),
    }
}

async fn rollout(State(changes): Shared) -> Response {
    json(StatusCode::OK, &changes.rollout())
}

async fn order(State(changes): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    match read(&body) {
        Ok(request) => answer(move || changes.order(&request, by)).await,
        Err(problem) => refused(&problem),
    }
}

/// Asks beside this thread.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    ask: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(ask).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(problem)) => refused(&problem),
        Err(_panicked) => {
            let help = "the log has the place; what was in force stays in force";
            refused(&Problem::new(wire::code::BUSY, "spillway failed on this question", help))
        }
    }
}
