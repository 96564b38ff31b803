//! How do operators get in when everything else is saturated or dead?
//!
//! By a lane that shares nothing with the others: its own listener, one thread of its own for accepting and
//! serving, its own TLS configuration without session resumption, and its own client CA. A certificate signed
//! by any other CA, a token, or nothing at all gets 401, whatever it would be worth elsewhere. What a request
//! then does (own upstream connections, own ceiling) is the handler's business. Left out so far: grants, the
//! audit chain, the self-probe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::authn::certificate::AuthorityError;
use crate::authn::{ClientAuthority, Material, PeerCertificate, Verdict};
use crate::clock;
use crate::identity::Credential;
use crate::server::{
    self, BindError, Connection, Drain, Handler, HandlerFactory, Listener, Mode, Placement, Resumption,
    Server, ServerBody, StartError, Tally, Threads, Tls, TlsError, TlsSettings,
};

/// What errors and logs call the lane's listener, and its thread.
pub const NAME: &str = "break-glass";

/// Open connections. A few people with kubectl, dashboards and scripts; what counts is that it is never full.
const CONNECTIONS_MAX: usize = 128;

/// Open connections of one source: one mistaken script must leave room for the other operators.
const CONNECTIONS_PER_SOURCE_MAX: usize = 32;

/// What the lane needs to open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens: not the main listener's port.
    pub address: SocketAddr,
    /// Serving certificate, PEM.
    pub certificate: Material,
    /// Its key, PEM.
    pub key: Material,
    /// The CA of break-glass certificates, PEM: neither the cluster's client CA nor the front-proxy CA.
    pub client_ca: Material,
    /// A certificate needs one of these in its O, so that a CA that also signs other things is no master key.
    pub groups: Vec<String>,
}

/// The lane could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Its client CA is not usable.
    #[error("break-glass: {0}")]
    Authority(#[from] AuthorityError),
    /// Its serving certificate is not usable.
    #[error("break-glass: {0}")]
    Tls(#[from] TlsError),
    /// Its address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A lane whose files are read and whose address is bound.
pub struct BoundLane {
    listener: Listener,
    files: Files,
    groups: Arc<[String]>,
}

/// What of a lane comes from files, and can be read anew while it is open. Clones are of the same lane.
#[derive(Clone)]
pub struct Files {
    settings: Settings,
    tls: Arc<Tls>,
    authority: Arc<ClientAuthority>,
}

/// The open lane.
pub struct Lane {
    server: Server,
    address: SocketAddr,
    files: Files,
}

impl Files {
    /// Reads certificate, key and CA anew; on an error what was in force stays. The CA counts also for people who are
    /// connected already.
    ///
    /// # Errors
    /// A file is not usable.
    pub fn reload(&self) -> Result<(), LaneError> {
        // First what is refused as a whole, so that nothing changes by half.
        ClientAuthority::from_pem(&self.settings.client_ca, Credential::BreakGlass)?;
        self.tls.reload(&serving(&self.settings), Arc::clone(&self.authority))?;
        self.authority.reload(&self.settings.client_ca)?;
        // Once more, for the names of the CAs in the handshake.
        Ok(self.tls.reload(&serving(&self.settings), Arc::clone(&self.authority))?)
    }
}

impl Lane {
    /// Reads the files and binds the address; nothing runs yet.
    ///
    /// # Errors
    /// A file is not usable or the address is taken.
    pub fn bind(settings: &Settings) -> Result<BoundLane, LaneError> {
        let authority = Arc::new(ClientAuthority::from_pem(&settings.client_ca, Credential::BreakGlass)?);
        let tls = Arc::new(Tls::new(&serving(settings), Arc::clone(&authority))?);
        let listener =
            Listener::bind(NAME, settings.address, limits(), Arc::clone(&tls), Placement::OnShard)?;
        let files = Files { settings: settings.clone(), tls, authority };
        Ok(BoundLane { listener, files, groups: settings.groups.clone().into() })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened to its connections.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        self.server.tally()
    }

    /// What of it comes from files.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Ends the lane; see [`Server::close`].
    pub async fn close(self, grace: Duration) {
        self.server.close(grace).await;
    }
}

impl BoundLane {
    /// The address it will listen on, with the port the kernel chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// What of it comes from files.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Starts the lane's thread. The handler that `factory` makes sees only requests of verified
    /// certificates.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(self, drain: &Drain, factory: HandlerFactory) -> Result<Lane, StartError> {
        let Self { listener, files, groups } = self;
        let address = listener.address();
        let threads = Threads { mode: Mode::Sharded, count: 1, name: NAME };
        let gated: HandlerFactory = Arc::new(move |context| -> Arc<dyn Handler> {
            Arc::new(Gate { inside: factory(context), groups: Arc::clone(&groups) })
        });
        let server = Server::start(threads, vec![listener], drain, &gated)?;
        Ok(Lane { server, address, files })
    }
}

/// Lets verified certificates of the lane's groups through.
struct Gate {
    inside: Arc<dyn Handler>,
    groups: Arc<[String]>,
}

impl Gate {
    /// Why the certificate does not open the lane, if it does not.
    fn refusal(&self, certificate: &PeerCertificate) -> Option<&'static str> {
        // Connections outlive certificates and CAs, so both are looked at again.
        match certificate.verdict(clock::wall()) {
            Verdict::Verified(caller) => {
                let named = caller.identity.groups.iter().any(|group| self.groups.contains(group));
                (!named).then_some("Unauthorized: this certificate's O names none of breakGlass.groups")
            }
            _ => Some("Unauthorized: this address accepts only certificates of the break-glass CA"),
        }
    }
}

impl Handler for Gate {
    fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        match self.refusal(&connection.certificate) {
            None => self.inside.handle(connection, request),
            Some(message) => {
                std::future::ready(server::failure(StatusCode::UNAUTHORIZED, "Unauthorized", message)).boxed()
            }
        }
    }
}

fn serving(settings: &Settings) -> TlsSettings {
    TlsSettings {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        min_version: server::MinVersion::Tls12,
        resumption: Resumption::Off,
    }
}

fn limits() -> server::Settings {
    let mut settings = server::Settings::default();
    settings.limits.connections = CONNECTIONS_MAX;
    settings.limits.connections_per_source = CONNECTIONS_PER_SOURCE_MAX;
    settings
}

#[cfg(test)]
mod tests;
