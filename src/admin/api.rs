//! Which questions does the admin socket answer, and what does it do when asked?
//!
//! Reading is GET, moving a lever is POST: anything else is 405. A body has at most 64 KiB, an answer at most ten
//! seconds. A lever is in force before it is written to the disk, and the answer waits two seconds for the disk: a full
//! or hanging one is told, and changes nothing about what is in force.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes;
use super::explained::Explain;
use super::operations::Operations;
use super::tapped::TapFilter;
use super::wire::newcomers::Approved;
use super::wire::{self, Isolate, Isolated, Isolations, LeverView, Moved, Problem, Release};
use super::wire_change::code;
use crate::telemetry::Asker;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;

type Shared = State<Arc<dyn Operations>>;

/// The service behind the socket, and behind the dashboard as far as a role reaches. Every request carries a [`Asker`] in its extensions.
pub(crate) fn router(operations: Arc<dyn Operations>) -> Router {
    let changes = operations.changes().map_or_else(Router::new, changes::router);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/clients", get(clients))
        .route("/v1/events", get(events))
        .route("/v1/decisions", get(decisions))
        .route("/v1/decisions/{id}", get(decision))
        .route("/v1/explain", post(explain))
        .route("/v1/tap", post(tap))
        .route("/v1/isolations", get(isolations).post(isolate))
        .route("/v1/isolations/release", post(release))
        .route("/v1/lockdown", post(lock))
        .route("/v1/lockdown/release", post(unlock))
        .route("/v1/limit", post(hold_limit))
        .route("/v1/limit/release", post(free_limit))
        .route("/v1/newcomers", get(newcomers))
        .route("/v1/newcomers/approve", post(approve))
        .route("/v1/newcomers/doubt", post(doubt))
        .fallback(|| async {
            let problem =
                Problem::new(wire::code::MALFORMED, "there is no such path", "GET /v1/status is one");
            json(StatusCode::NOT_FOUND, &problem)
        })
        .with_state(operations)
        .merge(changes)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn status(State(operations): Shared) -> Response {
    json(StatusCode::OK, &operations.status())
}

async fn clients(State(operations): Shared, RawQuery(query): RawQuery) -> Response {
    let by = value(query.as_deref(), "by=").unwrap_or("asked");
    let like = value(query.as_deref(), "like=").unwrap_or_default();
    let like = percent_encoding::percent_decode_str(like).decode_utf8_lossy();
    json(StatusCode::OK, &operations.clients(by, &like))
}

async fn events(State(operations): Shared, RawQuery(query): RawQuery) -> Response {
    let after = value(query.as_deref(), "after=").and_then(|number| number.parse().ok());
    json(StatusCode::OK, &operations.events(after.unwrap_or(0)))
}

async fn decision(State(operations): Shared, Path(id): Path<String>) -> Response {
    answered(operations.decision(&id))
}

async fn decisions(State(operations): Shared, RawQuery(query): RawQuery) -> Response {
    let user = value(query.as_deref(), "user=");
    let user = user.map(|user| percent_encoding::percent_decode_str(user).decode_utf8_lossy());
    json(StatusCode::OK, &operations.decisions(user.as_deref()))
}

async fn explain(State(operations): Shared, body: Bytes) -> Response {
    answered(read(&body).and_then(|request: Explain| operations.explain(&request)))
}

async fn tap(State(operations): Shared, body: Bytes) -> Response {
    answered(read(&body).map(|filter: TapFilter| operations.tap(&filter)))
}

fn answered(answer: Result<impl Serialize, Problem>) -> Response {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(problem) => refused(&problem),
    }
}

/// The value behind `key=`.
pub(super) fn value<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(key))
}

async fn isolations(State(operations): Shared) -> Response {
    json(StatusCode::OK, &Isolations { isolations: operations.isolations() })
}

async fn isolate(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    let request: Isolate = match read(&body) {
        Ok(request) => request,
        Err(problem) => return refused(&problem),
    };
    match operations.isolate(&request, by) {
        Ok(mut isolated) => {
            if !request.dry_run {
                isolated.kept = operations.keep().await;
            }
            json(StatusCode::OK, &isolated)
        }
        Err(problem) => refused(&problem),
    }
}

async fn release(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    let released = read(&body).and_then(|request: Release| operations.release(&request, by));
    match released {
        Ok(isolation) => {
            let kept = operations.keep().await;
            json(StatusCode::OK, &Isolated { isolation, kept, ..Isolated::default() })
        }
        Err(problem) => refused(&problem),
    }
}

async fn lock(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    moved(&operations, read(&body).and_then(|request| operations.lock(&request, by))).await
}

async fn unlock(State(operations): Shared, Extension(by): Extension<Asker>) -> Response {
    moved(&operations, operations.unlock(by)).await
}

async fn hold_limit(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    moved(&operations, read(&body).and_then(|request| operations.hold_limit(&request, by))).await
}

async fn free_limit(State(operations): Shared, Extension(by): Extension<Asker>) -> Response {
    moved(&operations, operations.free_limit(by)).await
}

async fn newcomers(State(operations): Shared) -> Response {
    json(StatusCode::OK, &operations.newcomers())
}

async fn approve(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    approved(&operations, read(&body).and_then(|request| operations.approve(&request, false, by))).await
}

async fn doubt(State(operations): Shared, Extension(by): Extension<Asker>, body: Bytes) -> Response {
    approved(&operations, read(&body).and_then(|request| operations.approve(&request, true, by))).await
}

async fn approved(operations: &Arc<dyn Operations>, approved: Result<Approved, Problem>) -> Response {
    match approved {
        Ok(approved) => json(StatusCode::OK, &Approved { kept: operations.keep_known().await, ..approved }),
        Err(problem) => refused(&problem),
    }
}

async fn moved(operations: &Arc<dyn Operations>, lever: Result<LeverView, Problem>) -> Response {
    match lever {
        Ok(lever) => json(StatusCode::OK, &Moved { lever, kept: operations.keep().await }),
        Err(problem) => refused(&problem),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let help = "the command line and the proxy should be of the same version";
        Problem::new(wire::code::MALFORMED, format!("the request cannot be read: {error}"), help)
    })
}

pub(super) fn refused(problem: &Problem) -> Response {
    let status = match problem.code.as_str() {
        wire::code::PROTECTED => StatusCode::FORBIDDEN,
        wire::code::NOT_IN_FORCE | wire::code::NO_DECISION | code::GENERATION => StatusCode::NOT_FOUND,
        wire::code::AMBIGUOUS | wire::code::TOO_MANY | code::STAGE => StatusCode::CONFLICT,
        wire::code::BUSY => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    json(status, problem)
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Plain fields of plain structs always serialise.
    let body = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
