//! How do operators get in when everything else is saturated or dead?
//!
//! By a lane that shares nothing with the others: its own listener, one thread of its own for accepting and
//! serving, its own TLS configuration without session resumption, and its own client CA. A certificate signed
//! by any other CA, a token, or nothing at all gets 401, whatever it would be worth elsewhere. What a request
//! then does (own upstream connections, own ceiling) is the handler's business.
//!
//! Around it: `authority` makes the CA and its certificates, `check` judges them, `arming` asks why, [`audit`] writes
//! down who did what, `watch` follows files, `probe` proves once a minute that the lane works, `alert` tells people.
//! Threads of their own do whatever may wait for a disk or a program; the lane's thread never does.

mod alert;
mod arming;
mod attempts;
pub mod audit;
mod authority;
mod check;
mod client;
mod common;
mod deny;
mod desk;
mod expiry;
mod gate;
mod grant;
mod kubeconfig;
mod ledger;
mod metered;
mod paseto;
mod passphrase;
mod present;
mod probe;
mod shown;
mod trust;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::oneshot;

use crate::authn::certificate::AuthorityError;
use crate::authn::{ClientAuthority, Material};
use crate::clock;
use crate::identity::Credential;
use crate::server::{
    self, BindError, Door, Drain, Handler, HandlerFactory, Listener, Mode, Placement, Resumption, Server,
    StartError, Tally, Threads, Tls, TlsError, TlsSettings,
};
use crate::telemetry::LaneMetrics;

pub use self::arming::{GRANT_DEFAULT, Mode as ArmMode};
pub use self::audit::Audit;
pub use self::authority::{
    Authority, Bearer, Founded, IssueError, Issued, Order, TTL_MAX, UNIT, UNIT_DRILL, found,
};
pub use self::client::{Answer, ClientError, Stage, Target};
pub use self::common::{Bypassed, Occupancy, Reloaded};
pub use self::deny::DenyList;
pub use self::grant::{GrantError, GrantKey, GrantOrder, SignedGrant, check_public_keys};
pub use self::kubeconfig::{
    Access, KubeconfigError, is_server, read as read_kubeconfig, write as write_kubeconfig,
};
pub use self::ledger::{
    Entry, Folder, LedgerError, deny, read_deny_list, read_text, write_private, write_public,
};
pub use self::passphrase::{Passphrase, SealError};
pub use self::probe::Drill;
pub use self::shown::{
    Shown, duration as show_duration, parse_time, time as show_time, time_millis as show_time_millis,
};
pub use self::trust::GrantSettings;

use self::alert::Alerts;
use self::arming::Arming;
use self::attempts::Attempts;
use self::check::Rules;
use self::common::Common;
use self::gate::Gate;
use self::trust::Trust;
use self::watch::{Watch, bell};

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
    /// Open connections at most: what is left of the process's file descriptors for it.
    pub connections: usize,
    /// The list of revoked certificates; read again when it changes.
    pub deny_file: Option<PathBuf>,
    /// What opens the lane beside a certificate.
    pub arming: ArmMode,
    /// Whose signed grants count.
    pub grants: GrantSettings,
    /// Where who is armed is kept over a restart.
    pub state_folder: Option<PathBuf>,
    /// The command that is told of each use, and its arguments; empty: none.
    pub on_use: Vec<String>,
    /// The self-probe's certificate; without it there is no self-probe.
    pub drill: Option<Drill>,
}

/// What the lane is told about the rest of the process.
#[derive(Clone)]
pub struct Surroundings {
    /// Its numbers.
    pub metrics: Arc<LaneMetrics>,
    /// Seats of its ceiling in use, of how many.
    pub occupancy: Occupancy,
    /// What the audit log calls kube-apiserver.
    pub upstream: String,
    /// Who did what is written down here. Whoever opened it closes it.
    pub audit: Audit,
    /// How everybody else fares, for the record of what the lane went past. It must not wait for anything.
    pub bypassed: Bypassed,
    /// Is told that changed certificates were read, and whether they could be used.
    pub reloaded: Reloaded,
}

/// Reads the files of a lane anew.
type Reload = Box<dyn Fn() -> Result<(), LaneError> + Send>;

/// The lane could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Its client CA is not usable.
    #[error("break-glass: {0}")]
    Authority(#[from] AuthorityError),
    /// Its serving certificate is not usable.
    #[error("break-glass: {0}")]
    Tls(#[from] TlsError),
    /// The keys of grants are not usable.
    #[error("break-glass: {0}")]
    Grants(String),
    /// Its address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A lane whose files are read and whose address is bound.
pub struct BoundLane {
    listener: Listener,
    files: Files,
    attempts: Arc<Mutex<Attempts>>,
    grants: Trust,
    settings: Settings,
}

/// What of a lane comes from files, and can be read anew while it is open. Clones are of the same lane.
#[derive(Clone)]
struct Files {
    settings: Settings,
    tls: Arc<Tls>,
    authority: Arc<ClientAuthority>,
}

/// The open lane.
pub struct Lane {
    server: Server,
    address: SocketAddr,
    /// Ends the self-probe when it is dropped.
    _probe: Option<oneshot::Sender<()>>,
}

impl Files {
    /// Reads certificate, key and CA anew; on an error what was in force stays. The CA counts also for people who are
    /// connected already.
    ///
    /// # Errors
    /// A file is not usable.
    fn reload(&self) -> Result<(), LaneError> {
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
        let grants =
            Trust::new(settings.grants.clone(), settings.client_ca.clone()).map_err(LaneError::Grants)?;
        let attempts = Arc::new(Mutex::new(Attempts::default()));
        let mut limits = limits(settings);
        let asked = Arc::clone(&attempts);
        limits.door = Some(Door(Arc::new(move |source| asked.lock().may_connect(source, clock::now()))));
        let listener = Listener::bind(NAME, settings.address, limits, Arc::clone(&tls), Placement::OnShard)?;
        let files = Files { settings: settings.clone(), tls, authority };
        Ok(BoundLane { listener, files, attempts, grants, settings: settings.clone() })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened to its connections.
    #[must_use]
    pub fn tallies(&self) -> &[(&'static str, Arc<Tally>)] {
        self.server.tallies()
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

    /// Starts the lane's threads. The handler that `factory` makes sees only requests of verified
    /// certificates.
    ///
    /// # Errors
    /// A thread cannot be created.
    pub fn start(
        self,
        drain: &Drain,
        surroundings: Surroundings,
        factory: HandlerFactory,
    ) -> Result<Lane, StartError> {
        let Self { listener, files, attempts, grants, settings } = self;
        let address = listener.address();
        let failed = |error| StartError::new(NAME, error);
        let alerts = Alerts::start(&settings.on_use, Arc::clone(&surroundings.metrics)).map_err(failed)?;
        let mut arming = Arming::new(settings.arming).only_signed(settings.grants.required);
        if let Some(folder) = &settings.state_folder {
            let kept = watch::read(folder, clock::wall());
            if kept.is_none() {
                surroundings.metrics.reload_failed("armed");
            }
            arming.recall(kept.unwrap_or_default(), clock::now(), clock::wall());
        }
        let (wake, rung) = bell();
        let rules = Rules { groups: settings.groups.clone() };
        let metrics = Arc::clone(&surroundings.metrics);
        let common = Arc::new(Common::new(rules, attempts, arming, grants, alerts, wake, surroundings));
        let probe = start_probe(address, &settings, metrics).map_err(failed)?;
        let reload: Reload = Box::new(move || files.reload());
        let mut watch = Watch::new(Arc::clone(&common), settings, reload);
        // Whoever is revoked never gets in, not even in the first second.
        watch.look_at_deny_list();
        std::thread::Builder::new()
            .name("break-glass-watch".to_owned())
            .spawn(move || watch.run(&rung))
            .map_err(failed)?;
        let threads = Threads { mode: Mode::Sharded, count: 1, name: NAME };
        let gated: HandlerFactory = Arc::new(move |context| -> Arc<dyn Handler> {
            Arc::new(Gate { inside: factory(context), common: Arc::clone(&common) })
        });
        let server = Server::start(threads, vec![listener], drain, &gated)?;
        Ok(Lane { server, address, _probe: probe })
    }
}

/// The self-probe has a thread of its own: it must notice when another one stands still.
fn start_probe(
    address: SocketAddr,
    settings: &Settings,
    metrics: Arc<LaneMetrics>,
) -> std::io::Result<Option<oneshot::Sender<()>>> {
    let Some(drill) = settings.drill.clone() else { return Ok(None) };
    let serving = settings.certificate.clone();
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("break-glass-probe".to_owned())
        .spawn(move || runtime.block_on(probe::run(address, serving, drill, metrics, stopped)))?;
    Ok(Some(stop))
}

fn serving(settings: &Settings) -> TlsSettings {
    TlsSettings {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        min_version: server::MinVersion::Tls12,
        resumption: Resumption::Off,
    }
}

fn limits(lane: &Settings) -> server::Settings {
    let mut settings = server::Settings::default();
    let limits = &mut settings.limits;
    limits.connections = CONNECTIONS_MAX.min(lane.connections);
    limits.connections_per_source = CONNECTIONS_PER_SOURCE_MAX.min(limits.connections);
    // The lane has its own bound on failed attempts, and operators are let in whatever comes from their address.
    limits.slow_offenders = false;
    settings.keep_leaf = true;
    settings
}

/// What the first certificate of a PEM text says.
///
/// # Errors
/// When there is none, in words.
pub fn read_certificate(pem: &[u8]) -> Result<Shown, String> {
    let der =
        CertificateDer::from_pem_slice(pem).map_err(|error| format!("it is no PEM certificate: {error}"))?;
    shown::read(&der).map_err(str::to_owned)
}

#[cfg(test)]
mod tests;
