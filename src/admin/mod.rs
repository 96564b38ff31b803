//! How does an operator look inside? Metrics and health on a listener of their own, away from the data plane.
//!
//! It runs on the control runtime: when every shard is busy, a scrape and a liveness probe are still answered. The
//! levers of an incident have a socket and a thread of their own ([`serve_socket`]).
//! `/livez` says that this process works; it never asks the apiserver, because a kubelet that restarts the guard
//! when the apiserver is slow makes things worse. `/readyz` turns false when the process drains.

mod api;
mod bounded;
mod changes;
pub mod explained;
mod operations;
mod socket;
pub mod tapped;
pub mod wire;
pub mod wire_change;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

pub(crate) use self::api::{json, router};
use self::bounded::Bounded;
pub use self::changes::Changes;
pub use self::operations::Operations;
pub use self::socket::serve as serve_socket;
pub(crate) use self::socket::{Bound, asker, bind as bind_socket};

/// What the admin listener shows. Each answer is made when it is asked for.
pub struct Inside {
    /// The text of a scrape.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The state of overload control, as JSON.
    pub status: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether clients should still be sent here.
    pub ready: Arc<AtomicBool>,
}

/// The admin listener could not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for metrics: {source}; choose another metrics.address or stop what uses this one"
)]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Takes the address now, so that a port in use is known before anything else starts.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| BindError { address, source })
}

/// Answers until the runtime ends.
///
/// # Errors
/// When the listener cannot be used by the runtime.
pub async fn serve(listener: std::net::TcpListener, inside: Arc<Inside>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(inside);
    axum::serve(Bounded::new(TcpListener::from_std(listener)?), router).await
}

async fn metrics(State(inside): State<Arc<Inside>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (inside.metrics)())
}

async fn status(State(inside): State<Arc<Inside>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], (inside.status)())
}

async fn ready(State(inside): State<Arc<Inside>>) -> impl IntoResponse {
    if inside.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}
