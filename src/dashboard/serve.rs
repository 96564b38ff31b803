//! How is the dashboard reached when everything else is dead?
//!
//! Over a unix socket of its own (mode 0600), by a thread of its own. Who may open the file is admin: the same person could
//! run the command line. `ssh -L 8700:/run/spillway/dashboard.sock NODE` carries it to a browser, `spillway dashboard`
//! does it with a token. Where `admin.https` is configured, the same thread serves that address ([`https`]).

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::access::{Guest, Place};
use super::code;
use super::https::{self, Door};
use super::routes::Dashboard;
use crate::admin;

/// Connections at a time: 32 that watch, and as many that fetch and act.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last; a page that watches connects again by itself.
const CONNECTION_MAX: Duration = Duration::from_secs(3_600);
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How often a socket that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// After an error of `accept`: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Looks, and serves at each of both that there is, until the runtime ends.
pub async fn serve(socket: Option<&Path>, door: Option<Arc<Door>>, dashboard: Arc<Dashboard>) {
    let looking = Arc::clone(&dashboard);
    tokio::spawn(async move { looking.keep().await });
    if let Some(door) = door {
        tokio::spawn(https::serve(door, Arc::clone(&dashboard)));
    }
    match socket {
        Some(path) => serve_socket(path, dashboard).await,
        None => std::future::pending().await,
    }
}

async fn serve_socket(path: &Path, dashboard: Arc<Dashboard>) {
    let bound = bound(path).await;
    tracing::info!(socket = %path.display(), "dashboard");
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match bound.accept().await {
            Ok(stream) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(
                        most = CONNECTIONS_MAX,
                        code = code::VIEWERS,
                        "a dashboard connection was closed"
                    );
                    continue;
                };
                let dashboard = Arc::clone(&dashboard);
                tokio::spawn(async move {
                    // Over or not: nobody is owed more than this.
                    let _ = tokio::time::timeout(CONNECTION_MAX, answer(stream, dashboard)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "dashboard: no connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn bound(path: &Path) -> admin::Bound {
    let mut told = false;
    loop {
        match admin::bind_socket(path) {
            Ok(bound) => return bound,
            Err(error) if !told => tracing::error!(
                socket = %path.display(),
                %error,
                code = code::SOCKET,
                "no dashboard; tried again every 5 s"
            ),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn answer(stream: UnixStream, dashboard: Arc<Dashboard>) {
    let by = admin::asker(&stream);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (dashboard, guest) = (Arc::clone(&dashboard), Guest::at_socket(by.clone()));
        async move {
            Ok::<_, Infallible>(dashboard.respond(request.map(Body::new), guest, Place::default()).await)
        }
    });
    // A client that left, or spoke no HTTP, is nobody's trouble.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
