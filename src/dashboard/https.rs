//! How is the dashboard reached from another machine, and who is that?
//!
//! Over an address of its own, by the dashboard's thread. Whoever comes shows a client certificate, judged here by the
//! CAs of `authentication.clientCertificate`, and again with each request: the deny list counts on open connections, too.
//! Its groups give a role ([`Roles`]); nothing is asked of kube-apiserver. A browser shows a certificate whoever makes it
//! ask, so the checks of `access` matter here most. Whoever has no role is told which groups have one, and holds no
//! place that others need.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::access::{Guest, Place, told, wants_text};
use super::code;
use super::roles::{Roles, some};
use super::routes::Dashboard;
use crate::admin::wire::Problem;
use crate::authn::{ClientAuthority, PeerCertificate, Verdict};
use crate::clock;
use crate::identity::Identity;
use crate::server::{Tls, TlsError, TlsSettings};
use crate::telemetry::Asker;

/// Connections of people with a role, at a time. Descriptors for them are put aside for the process itself: there are few.
const GUESTS_MAX: usize = 32;
/// Connections of which nobody knows yet whose they are. More wait in the kernel.
const KNOCKING_MAX: usize = 16;
/// How long a handshake may take, and after it the one question of somebody without a role.
const KNOCK_WITHIN: Duration = Duration::from_secs(5);
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may last: what is pushed over it ends no later after a certificate has lost its worth. A page
/// that watches connects again by itself.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// How often an address or a certificate that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// After an error of `accept`: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address for whoever is elsewhere.
pub struct Door {
    address: SocketAddr,
    names: Vec<String>,
    roles: Arc<Roles>,
    settings: TlsSettings,
    authority: Arc<ClientAuthority>,
    tls: ArcSwapOption<Tls>,
    bound: Mutex<Option<std::net::TcpListener>>,
}

impl Door {
    /// Takes the address and reads the certificate. What cannot be had is said in the log and tried again: the page is not
    /// worth a proxy that does not start.
    pub fn open(
        (address, names): (SocketAddr, Vec<String>),
        roles: Roles,
        settings: TlsSettings,
        authority: Arc<ClientAuthority>,
    ) -> Arc<Self> {
        let (roles, bound) = (Arc::new(roles), Mutex::default());
        let tls = ArcSwapOption::empty();
        let door = Self { address, names, roles, settings, authority, tls, bound };
        if let Err(error) = door.load() {
            tracing::error!(%error, code = code::ADDRESS, "nobody can open the operators' address; tried again when its files change");
        }
        match bind(address) {
            Ok(bound) => *door.bound.lock() = Some(bound),
            Err(error) => {
                tracing::error!(%address, %error, code = code::ADDRESS, "no operators' address; tried again every 5 s");
            }
        }
        Arc::new(door)
    }

    /// Reads the certificate and its key again; on an error what was in force stays.
    ///
    /// # Errors
    /// They cannot be read or do not go together.
    pub fn load(&self) -> Result<(), TlsError> {
        match self.tls.load_full() {
            Some(tls) => tls.reload(&self.settings, Arc::clone(&self.authority)),
            None => {
                let tls = Tls::new(&self.settings, Arc::clone(&self.authority))?;
                self.tls.store(Some(Arc::new(tls)));
                Ok(())
            }
        }
    }

    /// Where it listens, with the port that the kernel chose; nowhere as long as the address cannot be had.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.bound.lock().as_ref().and_then(|bound| bound.local_addr().ok())
    }

    /// The bound address, whenever it can be had.
    async fn listener(&self) -> TcpListener {
        loop {
            let bound = self.bound.lock().take().map_or_else(|| bind(self.address), Ok);
            match bound.and_then(TcpListener::from_std) {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves whoever comes until the runtime ends.
pub(super) async fn serve(door: Arc<Door>, dashboard: Arc<Dashboard>) {
    let listener = door.listener().await;
    tracing::info!(address = ?listener.local_addr().ok(), "the operators' address");
    let knocking = Arc::new(Semaphore::new(KNOCKING_MAX));
    let guests = Arc::new(Semaphore::new(GUESTS_MAX));
    loop {
        // Nobody closes it.
        let Ok(place) = Arc::clone(&knocking).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let visit = Visit { door: Arc::clone(&door), dashboard: Arc::clone(&dashboard) };
                tokio::spawn(visit.run(stream, place, Arc::clone(&guests)));
            }
            Err(error) => {
                tracing::warn!(%error, "operators' address: no connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection.
struct Visit {
    door: Arc<Door>,
    dashboard: Arc<Dashboard>,
}

/// What a connection showed.
struct Shown {
    certificate: PeerCertificate,
    ip: Option<std::net::IpAddr>,
    /// Somebody has a role, and there is no place for another one.
    is_full: bool,
}

impl Visit {
    async fn run(self, stream: TcpStream, knock: OwnedSemaphorePermit, guests: Arc<Semaphore>) {
        let ip = stream.local_addr().ok().map(|address| address.ip());
        let Some((stream, certificate)) = self.handshake(stream).await else { return };
        let mut shown = Shown { certificate, ip, is_full: false };
        let place = match self.who(&shown) {
            Ok(_) => guests.try_acquire_owned().ok(),
            Err(_) => None,
        };
        shown.is_full = place.is_none();
        if place.is_some() {
            drop(knock);
            self.talk(stream, shown, CONNECTION_MAX).await;
        } else {
            self.talk(stream, shown, KNOCK_WITHIN).await;
            drop(knock);
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Option<(TlsStream<TcpStream>, PeerCertificate)> {
        let (config, authority) = self.door.tls.load_full()?.http1();
        let accepted = timeout(KNOCK_WITHIN, TlsAcceptor::from(config).accept(stream)).await;
        let stream =
            accepted.ok()?.inspect_err(|error| tracing::debug!(%error, "operators' address")).ok()?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = authority.judge(chain, clock::wall());
        Some((stream, certificate))
    }

    async fn talk(self, stream: TlsStream<TcpStream>, shown: Shown, longest: Duration) {
        let (visit, shown) = (Arc::new(self), Arc::new(shown));
        let is_known = longest == CONNECTION_MAX;
        let service = service_fn(move |request: Request<Incoming>| {
            let (visit, shown) = (Arc::clone(&visit), Arc::clone(&shown));
            async move { Ok::<_, Infallible>(visit.answer(request.map(Body::new), &shown).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .keep_alive(is_known)
            .serve_connection(TokioIo::new(stream), service);
        // Over or not: nobody is owed more than this.
        let _ = timeout(longest, serving).await;
    }

    async fn answer(&self, request: Request<Body>, shown: &Shown) -> Response {
        let guest = match self.who(shown) {
            Ok(guest) if !shown.is_full => guest,
            Ok(_) => {
                let message = format!("{GUESTS_MAX} connections are open here already");
                let problem =
                    Problem::new(code::VIEWERS, message, "close a page; or on the node: spillway status");
                let as_text = wants_text(&request);
                return Dashboard::guarded(told(as_text, StatusCode::SERVICE_UNAVAILABLE, &problem));
            }
            Err((status, problem)) => {
                tracing::warn!(code = problem.code, path = request.uri().path(), "{}", problem.message);
                return Dashboard::guarded(told(wants_text(&request), status, &problem));
            }
        };
        let place = Place { names: &self.door.names, ip: shown.ip, programs: true };
        Arc::clone(&self.dashboard).respond(request, guest, place).await
    }

    /// Who that is now.
    fn who(&self, shown: &Shown) -> Result<Guest, (StatusCode, Problem)> {
        let why = match shown.certificate.verdict(clock::wall()) {
            Verdict::Verified(caller) => return self.guest(&caller.identity),
            Verdict::Nothing => "none was shown".to_owned(),
            Verdict::Unverifiable(why) => why.to_string(),
        };
        let message = format!("people are known here by a client certificate of the cluster's CA: {why}");
        let help = "curl --cert FILE --key FILE, or import it into the browser; on the node: sudo spillway dashboard";
        Err((StatusCode::UNAUTHORIZED, Problem::new(code::CERTIFICATE, message, help)))
    }

    fn guest(&self, identity: &Identity) -> Result<Guest, (StatusCode, Problem)> {
        let roles = &self.door.roles;
        let Some(role) = roles.of(&identity.groups) else {
            let (user, groups) = (&identity.user, some(&identity.groups));
            let message = format!("{user} has no role here: none of its groups ({groups}) has one");
            let help = format!(
                "in admin.roles {} a role; ask for one of them, or on the node: sudo spillway dashboard",
                roles.whose(super::Role::Viewer)
            );
            return Err((StatusCode::FORBIDDEN, Problem::new(code::NO_ROLE, message, help)));
        };
        let by = Asker { user: Some(identity.user.as_str().into()), ..Asker::default() };
        Ok(Guest { by, role, roles: Some(Arc::clone(roles)) })
    }
}
