//! How do the parts become a running proxy?
//!
//! Order of a start: read every file, bind every address, then start threads, the break-glass lane first. Whatever is
//! wrong is found before anything runs, so a failed start leaves nothing behind. The control thread owns everything
//! that is not a request: the scheduler's clock, the probe, the metrics listener and the way to the end.

mod announce;
mod change;
pub mod check;
mod chronicle;
mod control;
mod dashboard;
mod descriptors;
mod expiry;
pub mod explain;
mod footprint;
mod host;
mod levers;
mod lookout;
mod reload;
mod settings;
mod state;
mod status;
mod watched;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::change::Policies;
use self::control::Control;
use self::dashboard::{DashboardThread, Sources};
use self::descriptors::Plan;
use self::levers::{AdminThread, Keeper};
use self::state::State;
use crate::authn::{Authenticator, AuthnError, MaterialError};
use crate::breakglass::{Audit, BoundLane, Lane as BreakGlassLane, LaneError, Surroundings};
use crate::clock;
use crate::config::{self, PolicyText, ProxyConfiguration, TrafficPolicy};
use crate::dashboard::Door;
use crate::flow::{self, Ceiling, ResponseBytes, Scheduler};
use crate::gateway::{Entrance, Gate, Gateway, Newcomers, Reserve, Shared};
use crate::policy::{Lane, Policy, PolicyError};
use crate::server::{
    BindError, Drain, Handler, HandlerFactory, Listener, Placement, Server, ShardContext, Tally, Tls,
    TlsError,
};
use crate::telemetry::{AuditTrail, Metrics, OwnLimits};
use crate::units::Seats;
use crate::upstream::{self, Forward, Pools, Stats, Via};

pub use self::change::{Kept as KeptPolicies, last_good};
pub use self::settings::{flow as flow_settings, log_format};
#[doc(hidden)]
pub use self::state::file as state_file;

/// The proxy could not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Credentials cannot be checked with what was configured.
    #[error(transparent)]
    Authn(#[from] AuthnError),
    /// A serving certificate is not usable.
    #[error("listener {listener}: {source}")]
    Tls {
        /// Which listener.
        listener: String,
        /// Why.
        source: TlsError,
    },
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics address is taken.
    #[error(transparent)]
    Metrics(#[from] crate::admin::BindError),
    /// The break-glass lane cannot open.
    #[error(transparent)]
    BreakGlass(#[from] LaneError),
    /// The rules cannot be in force together.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The upstream's name cannot be in a certificate.
    #[error(
        "upstreams.tls.serverName: {0:?} is neither a DNS name nor an IP address; kubeadm's certificates hold \"kubernetes\""
    )]
    ServerName(String),
    /// The apiserver is not the one that the configuration describes.
    #[error(transparent)]
    Distrust(#[from] upstream::trust::Distrust),
    /// TLS towards the apiserver cannot be set up.
    #[error("towards the apiserver: {0}")]
    Upstream(#[from] upstream::TlsError),
    /// Two metrics collide.
    #[error("metrics: {0}; this build of spillway is broken, use another")]
    Registry(#[from] prometheus::Error),
    /// A proxy cannot be run with so few file descriptors.
    #[error("this process may open {limit} files, at least {least} are needed: raise ulimit -n")]
    Descriptors {
        /// The hard limit.
        limit: u64,
        /// What is needed.
        least: u64,
    },
    /// A thread cannot be created.
    #[error(transparent)]
    Threads(#[from] crate::server::StartError),
    /// The control thread cannot be created.
    #[error(
        "cannot start the control thread: {0}; check the limits on threads (ulimit -u) and files (ulimit -n)"
    )]
    Control(std::io::Error),
}

/// Every address the proxy listens on.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Listener name and address.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The break-glass lane, where there is one.
    pub break_glass: Option<SocketAddr>,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The operators' address, where there is one and it could be had.
    pub admin: Option<SocketAddr>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, address) in &self.listeners {
            writeln!(f, "{name} {address}")?;
        }
        if let Some(address) = self.break_glass {
            writeln!(f, "break-glass {address}")?;
        }
        if let Some(address) = self.admin {
            writeln!(f, "admin {address}")?;
        }
        writeln!(f, "metrics {}", self.metrics)
    }
}

/// A running proxy. Dropping it cuts everything off; [`Running::drain`] ends it in peace.
pub struct Running {
    addresses: Addresses,
    grace: Duration,
    control: Control,
    /// An operator may want to look at the end.
    admin: AdminThread,
    /// As long as that.
    dashboard: Option<DashboardThread>,
    /// Ends last: a lever may be pulled until the end.
    audit: Audit,
    /// As that.
    trail: AuditTrail,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Ends it: readiness turns false, connections are told to go, watches end spread over the grace period.
    pub fn drain(self) {
        self.control.end(self.grace);
        drop(self.dashboard);
        drop(self.admin);
        self.audit.close();
        self.trail.close();
    }

    /// Waits for SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn until_signal(self) -> std::io::Result<()> {
        announce::ready();
        control::wait_for_signal()?;
        announce::stopping(self.grace);
        tracing::info!(grace = ?self.grace, "draining");
        self.drain();
        tracing::info!("drained");
        Ok(())
    }
}

/// What was read and bound before anything runs.
struct Prepared {
    listeners: Vec<Listener>,
    break_glass: Option<BoundLane>,
    metrics: std::net::TcpListener,
    door: Option<Arc<Door>>,
    shared: Arc<Shared>,
    upstream: upstream::Settings,
    gate: Arc<Gate>,
    state: Option<State>,
    watch: reload::Watch,
    ready: Arc<AtomicBool>,
    keeper: Arc<Keeper>,
    policies: Arc<Policies>,
    limits: OwnLimits,
}

/// Where a configuration came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Its files, in the order they were named: followed for changes. None: nothing is followed.
    pub files: Vec<PathBuf>,
    /// The policy as it was written; nothing for the embedded one.
    pub policy_text: Option<PolicyText>,
}

/// Starts the proxy that the two configurations describe.
///
/// # Errors
/// Whatever is wrong with files, addresses or threads; nothing is left running then.
pub fn start(proxy: &ProxyConfiguration, policy: &TrafficPolicy) -> Result<Running, StartError> {
    start_from(proxy, policy, Origin::default())
}

/// As [`start`], and changes of the files it came from take effect.
///
/// # Errors
/// As [`start`].
pub fn start_from(
    proxy: &ProxyConfiguration,
    policy: &TrafficPolicy,
    origin: Origin,
) -> Result<Running, StartError> {
    // First of all, because every socket bound and every file read from here on takes one.
    let plan = Plan::make(proxy.limits.connections as usize)?;
    let prepared = prepare(proxy, policy, origin, &plan)?;
    let audit = open_audit(proxy)?;
    prepared.keeper.write_down(audit.clone());
    let (drain, trail) = (prepared.shared.drain.clone(), prepared.shared.trail.clone());
    let gate = Arc::clone(&prepared.gate);
    let shown = Arc::clone(&gate);
    let stats = ShardStats::default();
    let mut addresses = Addresses {
        listeners: prepared.listeners.iter().map(|l| (l.name().to_owned(), l.address())).collect(),
        break_glass: prepared.break_glass.as_ref().map(BoundLane::address),
        metrics: prepared.metrics.local_addr().unwrap_or(proxy.metrics.address),
        admin: prepared.door.as_ref().and_then(|door| door.address()),
    };
    addresses.listeners.sort();

    let inside = control::Inside {
        gate: Arc::clone(&gate),
        metrics: Arc::clone(&prepared.shared.metrics),
        stats: stats.clone(),
        tallies: Tallies::default(),
        state: prepared.state,
        names: Arc::clone(&prepared.shared.names),
        authenticator: Arc::clone(&prepared.shared.authenticator),
        watch: prepared.watch,
        policies: prepared.policies,
        levers: Arc::clone(&prepared.shared.levers),
        newcomers: Arc::clone(&prepared.shared.newcomers),
        limits: prepared.limits,
    };
    // Probes and break-glass take their descriptors from what is put aside, never from what the lanes have.
    let aside = upstream::Settings { sockets: None, ..prepared.upstream.clone() };
    let mut control = Control::start(prepared.metrics, inside, &aside, prepared.ready)?;
    if let (Some(lane), Some(settings)) = (prepared.break_glass, &proxy.break_glass) {
        let reserve = Reserve::new(Ceiling::new(settings::ceiling(settings), seed(), clock::now()));
        prepared.keeper.show_break_glass(Arc::clone(&reserve));
        let seats = Arc::clone(&reserve);
        let (load, metrics) = (prepared.keeper.load(), Arc::clone(&prepared.shared.metrics));
        let surroundings = Surroundings {
            metrics: metrics.lane(),
            audit: audit.clone(),
            bypassed: Arc::new(move || load.shown(clock::now())),
            reloaded: Arc::new(move |worked| metrics.credential_reloaded("break_glass", worked)),
            occupancy: Arc::new(move || seats.seats()),
            upstream: proxy.upstreams.server.address.to_string(),
        };
        let entrance = Entrance::BreakGlass(reserve);
        let factory = factory(&prepared.shared, entrance, &aside, &stats);
        control.keep_break_glass(lane.start(&drain, surroundings, factory)?);
    }
    prepared.keeper.explain_with(Arc::clone(&prepared.shared));
    let factory = factory(&prepared.shared, Entrance::Lanes(gate), &prepared.upstream, &stats);
    let server = Server::start(settings::threads(proxy.runtime), prepared.listeners, &drain, &factory)?;
    control.keep_server(server);
    let sources = Sources::new((proxy, policy), (shown, Arc::clone(&prepared.shared.metrics), stats));
    let (page, keeper) = (proxy.admin.dashboard.socket.clone(), Arc::clone(&prepared.keeper));
    let dashboard = DashboardThread::start((page, prepared.door), keeper, sources)?;
    let admin = AdminThread::start(proxy.admin.socket.clone(), prepared.keeper)?;
    control.ready();
    Ok(Running { addresses, grace: proxy.drain.grace_period, control, admin, dashboard, audit, trail })
}

/// Not before everything else was read and bound: it starts a thread and writes a line.
fn open_audit(proxy: &ProxyConfiguration) -> Result<Audit, StartError> {
    let settings = settings::audit(proxy);
    if settings.is_none() && proxy.break_glass.is_some() {
        tracing::warn!(
            "break-glass: no folder for the audit log: it goes to standard error alone, and nobody can verify it; \
             set state.dir or breakGlass.audit.dir"
        );
    }
    Audit::open(settings.as_ref()).map_err(StartError::Control)
}

fn prepare(
    proxy: &ProxyConfiguration,
    policy: &TrafficPolicy,
    origin: Origin,
    plan: &Plan,
) -> Result<Prepared, StartError> {
    let mut upstream = settings::upstream(proxy)?;
    upstream::trust::check(&upstream)?;
    upstream.sockets = Some(plan.sockets());
    let authenticator = Arc::new(Authenticator::new(&settings::authn(proxy))?);
    let (listeners, serving): (Vec<_>, Vec<_>) =
        bind_listeners(proxy, &authenticator, plan)?.into_iter().unzip();
    let break_glass = bind_break_glass(proxy, plan)?;
    let metrics_listener = crate::admin::bind(proxy.metrics.address)?;
    let metrics = Arc::new(Metrics::new()?);
    let door = dashboard::door(proxy, authenticator.authority());
    let mut watch =
        watched::all(proxy, &authenticator, (serving, door.as_ref()), upstream.rotation.clone(), &metrics);
    let beginning = change::begin(proxy, policy, origin.policy_text.as_ref());
    let policy = &beginning.policy;
    let folder = proxy.state.as_ref().map(|state| state.dir.as_path());
    let state = folder.map(|folder| State::new(folder.to_path_buf()));
    let scheduler = scheduler(proxy, policy, state.as_ref());
    let limits = Arc::new(Mutex::new(limit_bounds(policy)));
    let newcomers = levers::newcomers::recall(policy.newcomers, folder, clock::now());
    let seed = seed();
    let policy = policy.compile(seed)?.numbered(beginning.generation).under(beginning.enforcement());
    let shared = shared(authenticator, policy, metrics, newcomers, proxy)?;
    let (gate, ready) = (Gate::new(scheduler, shared.drain.clone()), Arc::new(AtomicBool::new(false)));
    let keeper = Keeper::new(levers::Parts {
        gate: Arc::clone(&gate),
        levers: Arc::clone(&shared.levers),
        recent: Arc::clone(&shared.recent),
        names: Arc::clone(&shared.names),
        newcomers: Arc::clone(&shared.newcomers),
        metrics: Arc::clone(&shared.metrics),
        folder: folder.map(Into::into),
        break_glass: proxy.break_glass.as_ref().map(|lane| lane.groups.clone()).unwrap_or_default(),
        limits: Arc::clone(&limits),
        ready: Arc::clone(&ready),
        trail: shared.trail.clone(),
        audit_metrics: proxy.break_glass.is_none().then(|| shared.metrics.lane()),
    });
    let parts = change::Parts {
        shared: Arc::clone(&shared),
        gate: Arc::clone(&gate),
        timeline: keeper.timeline(),
        limits,
        files: origin.files,
        proxy: proxy.clone(),
        seed,
    };
    let policies = Policies::new(parts, beginning);
    follow(&mut watch, &keeper, &policies);
    Ok(Prepared {
        listeners,
        break_glass,
        metrics: metrics_listener,
        door,
        shared,
        upstream,
        gate,
        state,
        watch,
        ready,
        keeper,
        policies,
        limits: OwnLimits { memory: footprint::limit(proxy.limits.memory), descriptors: plan.limit },
    })
}

/// Between which L moves.
const fn limit_bounds(policy: &TrafficPolicy) -> (Seats, Seats) {
    (Seats(policy.overload.limit.min), Seats(policy.overload.limit.max))
}

/// A scheduler that knows what the last process knew.
fn scheduler(proxy: &ProxyConfiguration, policy: &TrafficPolicy, state: Option<&State>) -> Scheduler {
    let mut scheduler = Scheduler::new(flow_of(proxy, policy), seed(), clock::now());
    if let Some(state) = state {
        state.recall(&mut scheduler);
    }
    scheduler
}

/// What every shard's gateway shares, at the start. Its audit trail has a thread: nothing can fail after this.
fn shared(
    authenticator: Arc<Authenticator>,
    policy: Policy,
    metrics: Arc<Metrics>,
    newcomers: Arc<Newcomers>,
    proxy: &ProxyConfiguration,
) -> Result<Arc<Shared>, StartError> {
    let trail = settings::trail(proxy).map(AuditTrail::start).transpose().map_err(StartError::Control)?;
    let trail = trail.unwrap_or_default();
    metrics.audit().follow(trail.clone());
    Ok(Arc::new(Shared {
        authenticator,
        policy: ArcSwap::from_pointee(policy),
        metrics,
        access_log: settings::access_log(proxy.logging.access),
        drain: Drain::new(),
        names: Arc::default(),
        levers: Arc::default(),
        recent: Arc::default(),
        newcomers,
        decisions: Arc::default(),
        tap: Arc::default(),
        trail,
    }))
}

/// From now on changed files take effect, and the socket answers about them.
fn follow(watch: &mut reload::Watch, keeper: &Keeper, policies: &Arc<Policies>) {
    keeper.answer_with(Arc::clone(policies) as Arc<dyn crate::admin::Changes>);
    let files = policies.files();
    if !files.is_empty() {
        let policies = Arc::clone(policies);
        // What went wrong was told where it was found.
        watch.follow(files, move || drop(policies.read_again("file")));
    }
}

/// The scheduler's settings, with what only the host can tell.
fn flow_of(proxy: &ProxyConfiguration, policy: &TrafficPolicy) -> flow::Settings {
    let mut settings = settings::flow(policy);
    let memory = &mut settings.memory;
    memory.server = host::server_memory(proxy.upstreams.server.address);
    let from = match (memory.response_bytes, memory.server) {
        (ResponseBytes::Fixed(_), _) => "the policy",
        (ResponseBytes::Auto, Some(_)) => "the memory of the apiserver's host",
        (ResponseBytes::Auto, None) => "the default for an apiserver on another host",
    };
    tracing::info!(
        bytes = memory.budget(),
        server_memory = memory.server,
        from,
        "budget of answers in flight; overload.memory.responseBytes pins it"
    );
    settings
}

fn bind_break_glass(proxy: &ProxyConfiguration, plan: &Plan) -> Result<Option<BoundLane>, LaneError> {
    let bind = |lane| BreakGlassLane::bind(&settings::break_glass(lane, proxy, plan));
    proxy.break_glass.as_ref().map(bind).transpose()
}

fn bind_listeners(
    proxy: &ProxyConfiguration,
    authenticator: &Authenticator,
    plan: &Plan,
) -> Result<Vec<(Listener, Arc<Tls>)>, StartError> {
    let bind = |listener: &config::Listener| {
        let tls = Tls::new(&settings::tls(&listener.tls), authenticator.authority())
            .map_err(|source| StartError::Tls { listener: listener.name.clone(), source })?;
        let tls = Arc::new(tls);
        // One name a listener, once a process: a bounded leak buys labels without reference counts.
        let name: &'static str = listener.name.clone().leak();
        let settings = settings::server(proxy, listener, plan);
        let bound = Listener::bind(name, listener.address, settings, Arc::clone(&tls), Placement::OwnThread)?;
        Ok((bound, tls))
    };
    proxy.listeners.iter().map(bind).collect()
}

/// Connection counters of every shard, collected as the shards start.
#[derive(Clone, Default)]
struct ShardStats(Arc<Mutex<Vec<Arc<Stats>>>>);

/// Counters of every listener, collected as the servers start.
#[derive(Clone, Default)]
struct Tallies(Arc<Mutex<Vec<(&'static str, Arc<Tally>)>>>);

/// Makes each shard's gateway on that shard's own thread, with upstream connections of its own.
fn factory(
    shared: &Arc<Shared>,
    entrance: Entrance,
    upstream: &upstream::Settings,
    stats: &ShardStats,
) -> HandlerFactory {
    let (shared, upstream, stats) = (Arc::clone(shared), upstream.clone(), stats.clone());
    Arc::new(move |context: &ShardContext| -> Arc<dyn Handler> {
        #[expect(clippy::expect_used, reason = "Control::start made a dialer from the same settings before")]
        let pools = Pools::new(&upstream, Arc::clone(&context.flusher)).expect("settings that worked before");
        stats.0.lock().push(Arc::clone(pools.stats()));
        let pools = Arc::new(pools);
        if entrance.is_break_glass() {
            tokio::spawn(keep_warm(Arc::clone(&pools)));
        }
        let forward: Arc<dyn Forward> = pools;
        Arc::new(Gateway::new(Arc::clone(&shared), entrance.clone(), forward))
    })
}

/// Break-glass must not begin with a handshake that has to queue behind a storm.
async fn keep_warm(pools: Arc<Pools>) {
    if let Err(error) = pools.warm(Lane::BreakGlass, Via::FrontProxy).await {
        let error = chain(&error);
        tracing::warn!(
            error,
            "break-glass: no connection to the apiserver yet; trying again in the background"
        );
    }
}

/// Seeds hashes and jitter differently in every process, so that nobody can aim at a queue.
fn seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // `transparent` and `{source}` levels already carry their cause's text.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
