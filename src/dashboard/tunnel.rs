//! How does a browser reach the socket without a password, a cookie or an open port?
//!
//! `spillway dashboard` listens on the loopback address and forwards to the socket that its user may open. Everybody on this
//! machine can connect to that port, so a request needs a bearer. The link that is printed has a one-time token in its
//! fragment, which no server, log or referrer ever sees; the page trades it for a bearer that it keeps in memory and for
//! the next token, so that it can be reloaded. Without JavaScript there is a second, read-only link with a secret path.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, rand};
use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::access::{PERSON_HEADER, Place, ROLE_HEADER, Refused, Role, judge};
use super::{code, routes};
use crate::admin::{self, wire::Problem};
use crate::clock;
use crate::units::Instant;

/// How long a printed link may be opened.
const LINK_LASTS: Duration = Duration::from_secs(600);
/// Links that wait to be opened; the oldest goes.
const LINKS_MAX: usize = 8;
/// Pages that are open; the oldest goes.
const SESSIONS_MAX: usize = 16;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a token's request.
const TOKEN_BYTES_MAX: usize = 1_024;
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// After an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The tunnel cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The port is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// No secret without randomness.
    #[error("the system gave no random bytes")]
    Random,
}

/// Who may come through.
#[derive(Debug, Default)]
struct Links {
    fresh: Vec<(String, Instant)>,
    sessions: Vec<Session>,
}

/// A page that was opened.
#[derive(Debug)]
struct Session {
    bearer: String,
    /// Opens the same page again, once.
    next: String,
}

/// A tunnel from a loopback port to a dashboard's socket.
pub struct Tunnel {
    listener: TcpListener,
    address: SocketAddr,
    socket: PathBuf,
    role: Role,
    /// Who opened it, for the page.
    person: Option<HeaderValue>,
    links: Mutex<Links>,
    /// The secret path of the read-only page.
    plain: String,
}

impl Tunnel {
    /// Takes a port, any with 0. `person` is whoever opens it.
    ///
    /// # Errors
    /// When it is taken, or there is no randomness.
    pub fn bind(
        port: u16,
        socket: &Path,
        (person, role): (Option<&str>, Role),
    ) -> Result<Arc<Self>, TunnelError> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|source| TunnelError::Port { port, source })?;
        let plain = secret()?;
        Ok(Arc::new(Self {
            listener,
            address,
            socket: socket.to_owned(),
            role,
            person: person.and_then(|person| HeaderValue::from_str(person).ok()),
            links: Mutex::default(),
            plain,
        }))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new link that can be opened once.
    ///
    /// # Errors
    /// Without randomness.
    pub fn link(&self) -> Result<String, TunnelError> {
        let token = secret()?;
        let mut links = self.links.lock();
        if links.fresh.len() >= LINKS_MAX {
            links.fresh.remove(0);
        }
        links.fresh.push((token.clone(), clock::now() + LINK_LASTS));
        Ok(format!("http://{}/#t={token}", self.address))
    }

    /// The link for browsers without JavaScript: it only shows, for as long as the tunnel is open.
    #[must_use]
    pub fn plain_link(&self) -> String {
        format!("http://{}/plain/{}/", self.address, self.plain)
    }

    /// Forwards until the runtime ends.
    ///
    /// # Errors
    /// When the runtime cannot use the listener.
    pub async fn run(self: Arc<Self>) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let tunnel = Arc::clone(&self);
            tokio::spawn(async move {
                tunnel.serve(stream).await;
                drop(place);
            });
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request: Request<Incoming>| {
            let tunnel = Arc::clone(&self);
            async move {
                let answered = tunnel.answer(request).await;
                Ok::<_, Infallible>(
                    answered.unwrap_or_else(|(status, problem)| admin::json(status, &problem)),
                )
            }
        });
        // A browser that left is nobody's trouble.
        let _ = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response, Refused> {
        let (mut head, body) = request.into_parts();
        head.headers.remove(ROLE_HEADER);
        judge(&head, self.role, Place::default())?;
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if host.rsplit(':').next() != Some(self.address.port().to_string().as_str()) {
            let problem =
                Problem::new(code::HOST, format!("{host:?} is not this tunnel"), "open the printed link");
            return Err((StatusCode::MISDIRECTED_REQUEST, problem));
        }
        let path = head.uri.path().to_owned();
        if head.method == Method::POST && path == "/session" {
            return self.exchange(body).await;
        }
        let mut role = self.role;
        if let Some(rest) = self.plain_path(&path) {
            if head.method != Method::GET {
                let problem = Problem::new(
                    code::ROLE,
                    "this link only shows",
                    "spillway dashboard prints one that acts",
                );
                return Err((StatusCode::FORBIDDEN, problem));
            }
            (head.uri, role) = (with_path(&head.uri, rest), Role::Viewer);
        } else if !routes::is_bare(&path) {
            let bearer = head.headers.remove(AUTHORIZATION);
            let is_known = bearer.as_ref().is_some_and(|bearer| self.knows(bearer));
            let is_page = head.method == Method::GET && path == "/";
            match (is_known, is_page) {
                (true, _) => {}
                (false, true) => head.uri = with_path(&head.uri, "/shell"),
                (false, false) => return Err(no_link()),
            }
        }
        head.headers.insert(ROLE_HEADER, HeaderValue::from_static(role.as_str()));
        head.headers.remove(PERSON_HEADER);
        if let Some(person) = &self.person {
            head.headers.insert(PERSON_HEADER, person.clone());
        }
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        self.forward(Request::from_parts(head, body)).await
    }

    /// What follows the secret, if it is right.
    fn plain_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (secret, _) = path.strip_prefix("/plain/")?.split_once('/')?;
        let rest = &path["/plain/".len() + secret.len()..];
        same(secret, &self.plain).then_some(rest)
    }

    fn knows(&self, bearer: &HeaderValue) -> bool {
        let Some(bearer) = bearer.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        self.links.lock().sessions.iter().any(|session| same(bearer, &session.bearer))
    }

    async fn exchange(&self, body: Incoming) -> Result<Response, Refused> {
        let body = Limited::new(body, TOKEN_BYTES_MAX).collect().await.map_err(|_| no_link())?;
        let request: Value = serde_json::from_slice(&body.to_bytes()).map_err(|_| no_link())?;
        let token = request["token"].as_str().ok_or_else(no_link)?;
        let session = self.links.lock().exchange(token, clock::now()).ok_or_else(no_link)?;
        let (bearer, next) = session;
        Ok(admin::json(StatusCode::OK, &json!({ "bearer": bearer, "next": next })))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response, Refused> {
        let gone = |error: &dyn std::fmt::Display| {
            let message = format!("nobody answers at {}: {error}", self.socket.display());
            let help = "is spillway running here? the page tries again by itself";
            (StatusCode::BAD_GATEWAY, Problem::new(code::UNREACHABLE, message, help))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| gone(&error))?;
        let (mut sender, connection) =
            client::handshake(TokioIo::new(stream)).await.map_err(|error| gone(&error))?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| gone(&error))?;
        Ok(response.map(Body::new))
    }
}

impl Links {
    /// Trades a token for a bearer and the next token.
    fn exchange(&mut self, token: &str, now: Instant) -> Option<(String, String)> {
        self.fresh.retain(|(_, until)| *until > now);
        let fresh = self.fresh.iter().position(|(known, _)| same(token, known));
        let opened = self.sessions.iter().position(|session| same(token, &session.next));
        match (fresh, opened) {
            (Some(at), _) => drop(self.fresh.remove(at)),
            // The page was loaded again: what it had in memory is gone.
            (None, Some(at)) => drop(self.sessions.remove(at)),
            (None, None) => return None,
        }
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.remove(0);
        }
        let session = Session { bearer: secret().ok()?, next: secret().ok()? };
        let answer = (session.bearer.clone(), session.next.clone());
        self.sessions.push(session);
        Some(answer)
    }
}

/// 256 bits.
fn secret() -> Result<String, TunnelError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| TunnelError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Compares without telling by time how much is right.
fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn with_path(uri: &Uri, path: &str) -> Uri {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    PathAndQuery::try_from(format!("{path}{query}")).map_or_else(|_| uri.clone(), Uri::from)
}

fn no_link() -> Refused {
    let help = "press Enter where spillway dashboard runs: it prints a new link";
    let problem =
        Problem::new(code::LINK, "this link was used before, is over, or belongs to another tunnel", help);
    (StatusCode::UNAUTHORIZED, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_opens_once_and_its_follower_once_more() {
        let mut links = Links::default();
        links.fresh.push(("one".into(), at(600)));
        assert_eq!(links.exchange("two", at(1)), None);
        let (bearer, next) = links.exchange("one", at(1)).unwrap();
        assert_eq!(links.exchange("one", at(2)), None, "it was used");
        assert_eq!(links.sessions[0].bearer, bearer);
        let (again, _) = links.exchange(&next, at(99_999)).unwrap();
        assert_eq!(links.sessions.len(), 1, "the page that was left has no session any more");
        assert_ne!(again, bearer);
        assert_eq!(links.exchange(&next, at(3)), None);
    }

    #[test]
    fn a_token_ends_and_nothing_grows() {
        let mut links = Links::default();
        links.fresh.push(("old".into(), at(600)));
        assert_eq!(links.exchange("old", at(600)), None);
        for number in 0..100 {
            links.fresh.push((number.to_string(), at(600)));
            links.exchange(&number.to_string(), at(1)).unwrap();
        }
        assert_eq!((links.sessions.len(), links.fresh.len()), (SESSIONS_MAX, 0));
        let tunnel = Tunnel::bind(0, Path::new("/nowhere"), (None, Role::Viewer)).unwrap();
        (0..100).for_each(|_| drop(tunnel.link().unwrap()));
        assert_eq!(tunnel.links.lock().fresh.len(), LINKS_MAX);
    }

    #[test]
    fn the_secret_path_is_the_whole_secret() {
        let tunnel = Tunnel::bind(0, Path::new("/nowhere"), (None, Role::Viewer)).unwrap();
        let path = |secret: &str, rest: &str| format!("/plain/{secret}{rest}");
        assert_eq!(tunnel.plain_path(&path(&tunnel.plain, "/live")), Some("/live"));
        assert_eq!(tunnel.plain_path(&path(&tunnel.plain, "/")), Some("/"));
        assert_eq!(tunnel.plain_path(&path(&tunnel.plain, "")), None);
        assert_eq!(tunnel.plain_path(&path(&tunnel.plain[1..], "/")), None);
        assert_eq!(tunnel.plain_path("/plain//"), None);
        let shown = with_path(&Uri::from_static("/plain/x/?lane=telemetry"), "/");
        assert_eq!(shown.to_string(), "/?lane=telemetry");
    }
}
