//! How does an operator reach a proxy when everything else is busy or dead?
//!
//! A unix socket, served by a thread of its own: it shares no runtime with requests, probes or metrics. Only who may
//! open the file gets in (mode 0600), and the kernel says who that is. Connections, their number and their time are
//! bounded, so that a forgotten client cannot take the last one.
//!
//! A socket that a dead process left is replaced; one that answers belongs to somebody. A socket that cannot be had does
//! not keep the proxy from starting: it is tried again, because an old process may still be draining.

use std::convert::Infallible;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::api;
use super::operations::Operations;
use super::wire::{self, Problem};
use crate::telemetry::Asker;

/// Connections at a time. The dashboard and some terminals need fewer.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may last, its requests included.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often a socket that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// After an error of `accept`: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket file; it is removed when this is dropped.
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// The next connection.
    ///
    /// # Errors
    /// Out of file descriptors, most likely.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Before the listener closes: from then on the next process may have put its own in this place.
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves the socket until the runtime ends.
pub async fn serve(path: &Path, operations: Arc<dyn Operations>) {
    let mut told = false;
    let bound = loop {
        match bind(path) {
            Ok(bound) => break bound,
            Err(error) => {
                if !told {
                    tracing::error!(
                        socket = %path.display(),
                        %error,
                        code = wire::code::SOCKET,
                        "no admin socket, so no levers; tried again every 5 s"
                    );
                }
                told = true;
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    tracing::info!(socket = %path.display(), "admin socket");
    let (router, places) = (api::router(operations), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        match bound.accept().await {
            Ok(stream) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(
                        most = CONNECTIONS_MAX,
                        code = wire::code::BUSY,
                        "an admin connection was closed"
                    );
                    continue;
                };
                let router = router.clone();
                tokio::spawn(async move {
                    // Over or not: nobody is owed more than this.
                    let _ = tokio::time::timeout(CONNECTION_MAX, answer(stream, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket: no connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes the place, unless somebody answers there.
///
/// # Errors
/// It is taken, or cannot be made.
pub(crate) fn bind(path: &Path) -> io::Result<Bound> {
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            let what = "it is there and no socket: it is not touched; choose another admin.socket";
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(_) => {
                let what = "another process answers there; one proxy, one admin.socket";
                return Err(io::Error::new(ErrorKind::AddrInUse, what));
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Made under another name and moved when its mode is right: in between it would be as open as the umask says.
    let new = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(Bound { listener, path: path.to_owned() })
}

/// Who is at the other end, as the kernel says.
pub(crate) fn asker(stream: &UnixStream) -> Asker {
    let Ok(peer) = stream.peer_cred() else { return Asker::default() };
    Asker { uid: Some(peer.uid()), pid: peer.pid(), user: None }
}

async fn answer(stream: UnixStream, router: Router) {
    let by = asker(&stream);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (router, by) = (router.clone(), by.clone());
        async move { Ok::<_, Infallible>(respond(router, request.map(Body::new), by).await) }
    });
    // A client that left, or spoke no HTTP, is nobody's trouble.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(router: Router, mut request: Request<Body>, by: Asker) -> Response {
    request.extensions_mut().insert(by);
    match tokio::time::timeout(ANSWER_WITHIN, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_elapsed) => {
            let help = "the lever may be in force: look with spillway isolations, then try again";
            let problem = Problem::new(wire::code::BUSY, "no answer within 10 s", help);
            api::json(StatusCode::SERVICE_UNAVAILABLE, &problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_folder_is_made_and_nobody_else_may_open_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/admin.sock");
        let bound = bind(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(bound);
        assert!(!path.exists(), "it leaves nothing behind");
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a closed socket leaves its file");
        let bound = bind(&path).unwrap();
        let error = bind(&path).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        drop(bound);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
