//! What does a storm look like? A modelled apiserver and its clients, over real connections.
//!
//! The demo plays the incident of 2024-12-11 twice, without and with spillway, and measures both: a telemetry
//! DaemonSet rolls out over every node, its agents LIST all pods, the apiserver drowns, and nobody can delete the
//! DaemonSet any more. It needs no cluster, no root and no configuration. Sockets, TLS, HTTP/2, identities and
//! retries are real; the apiserver's speed is a model (`apiserver`), and so is its inside.
//!
//! Read `scenario` first. What the demo does not know is how spillway starts: see [`Stage`].

mod apiserver;
mod clients;
mod drill;
mod error;
mod ledger;
mod pki;
mod progress;
mod report;
mod scenario;
mod seed;
mod stage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

pub use drill::{DrillReport, Promise, Scenario, drill};
pub use error::DemoError;
pub use pki::PkiError;
pub use report::{Apiserver, Dns, EndedBy, Half, Leases, Operator, Report, Telemetry, Verdict};
pub use stage::{ProxyInputs, RunningProxy, Stage};

#[cfg(test)]
pub(crate) use drill::tests::report as drill_sample;

use apiserver::Server;
use clients::Cast;
use pki::Pki;
use progress::Progress;
use scenario::{Play, Traffic};
use stage::Files;

use crate::clock;

/// Allowed numbers of nodes: below, the storm hurts nobody; above, two cores cannot play it.
const NODES: std::ops::RangeInclusive<usize> = 50..=500;
/// clusterloader2's default, and the order of real clusters.
const PODS_PER_NODE: usize = 30;

/// What can be chosen about a demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of all jitter; the same seed plays the same storm.
    pub seed: u64,
    /// Modelled nodes, 50 to 500.
    pub nodes: usize,
    /// Whether the second half's calm goes on after the report.
    pub afterwards: Afterwards,
}

/// What happens when the report is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Everything stops.
    End,
    /// Model, proxy and calm traffic stay up: see [`Standing`].
    Hold,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 20_241_211, nodes: 200, afterwards: Afterwards::End }
    }
}

/// A demo that has been played.
pub struct Played {
    /// What was measured.
    pub report: Report,
    /// With [`Afterwards::Hold`], what still runs.
    pub standing: Option<Standing>,
}

/// Plays both halves; about a minute. Must be called outside any asynchronous runtime.
///
/// # Errors
/// When something could not be started. A bad result is a [`Report`] whose verdict says so.
pub fn play(stage: &dyn Stage, options: &Options) -> Result<Played, DemoError> {
    check(options)?;
    let progress = Progress::new(scenario::EXPECTED);
    let started = clock::now();
    progress.scene("making keys and certificates");
    let (pki, files) = (Pki::new()?, Files::new()?);
    let cast = Cast::new(&pki, options.nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| DemoError::Io { what: "start the runtime of its clients", source })?;
    let play = Play {
        pki: &pki,
        cast: &cast,
        progress: &progress,
        seed: options.seed,
        nodes: options.nodes,
        pods_per_node: PODS_PER_NODE,
        started,
    };
    let without = {
        let server = play.model()?;
        let half = play.half("without", &server, server.address());
        runtime.block_on(unless_interrupted(half))?.0
    };
    let server = play.model()?;
    let proxy = stage.start(&files.proxy_inputs(&pki, server.address())?).map_err(DemoError::Proxy)?;
    let kubeconfig = files.kubeconfig("operator.kubeconfig", &pki, proxy.address, &cast.operator_leaf)?;
    let half = play.half("with", &server, proxy.address);
    let (with, traffic) = runtime.block_on(unless_interrupted(half))?;
    progress.finish();
    let report = Report {
        seed: options.seed,
        nodes: options.nodes,
        pods: options.nodes * PODS_PER_NODE,
        lease_time_compression: clients::leases::COMPRESSION,
        took_seconds: clock::now().since(started).as_secs_f64(),
        verdict: Verdict::of(&without, &with),
        without,
        with,
    };
    let standing = match options.afterwards {
        Afterwards::End => None,
        Afterwards::Hold => Some(Standing::new(&pki, files, kubeconfig, proxy, server, traffic, runtime)?),
    };
    Ok(Played { report, standing })
}

/// Plays only the storm, through a proxy, and lets it rage: what a person can try levers on. Calm is over when this
/// returns. Must be called outside any asynchronous runtime.
///
/// # Errors
/// When something could not be started.
pub fn storm(stage: &dyn Stage, options: &Options) -> Result<Standing, DemoError> {
    check(options)?;
    let progress = Progress::new(scenario::CALM);
    progress.scene("making keys and certificates");
    let (pki, files) = (Pki::new()?, Files::new()?);
    let cast = Cast::new(&pki, options.nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| DemoError::Io { what: "start the runtime of its clients", source })?;
    let play = Play {
        pki: &pki,
        cast: &cast,
        progress: &progress,
        seed: options.seed,
        nodes: options.nodes,
        pods_per_node: PODS_PER_NODE,
        started: clock::now(),
    };
    let server = play.model()?;
    let proxy = stage.start(&files.proxy_inputs(&pki, server.address())?).map_err(DemoError::Proxy)?;
    let kubeconfig = files.kubeconfig("operator.kubeconfig", &pki, proxy.address, &cast.operator_leaf)?;
    let traffic = runtime.block_on(unless_interrupted(play.storm(&server, proxy.address)))?;
    progress.finish();
    Standing::new(&pki, files, kubeconfig, proxy, server, traffic, runtime)
}

fn check(options: &Options) -> Result<(), DemoError> {
    if NODES.contains(&options.nodes) {
        return Ok(());
    }
    let (min, max) = (*NODES.start(), *NODES.end());
    Err(DemoError::OutOfRange { option: "nodes", min, max, value: options.nodes })
}

/// Ends early on Ctrl-C or SIGTERM, so that the directory with the keys is removed.
async fn unless_interrupted<T>(half: impl Future<Output = Result<T, DemoError>>) -> Result<T, DemoError> {
    tokio::select! {
        ended = half => ended,
        interrupted = interruption() => Err(interrupted.err().unwrap_or(DemoError::Interrupted)),
    }
}

async fn interruption() -> Result<(), DemoError> {
    let failed = |source| DemoError::Io { what: "wait for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// A half's cluster, still up: in calm after the play, or in its storm. Dropping it stops everything and removes the files.
pub struct Standing {
    kubeconfig: PathBuf,
    break_glass_kubeconfig: Option<PathBuf>,
    // In the order in which they must end: clients, proxy, model, files.
    _traffic: Traffic,
    runtime: tokio::runtime::Runtime,
    proxy: RunningProxy,
    _server: Server,
    _files: Files,
}

impl Standing {
    fn new(
        pki: &Pki,
        files: Files,
        kubeconfig: PathBuf,
        proxy: RunningProxy,
        server: Server,
        traffic: Traffic,
        runtime: tokio::runtime::Runtime,
    ) -> Result<Self, DemoError> {
        let break_glass_kubeconfig = match proxy.break_glass_address {
            None => None,
            Some(address) => {
                let leaf = pki.break_glass_ca.break_glass("alice", "spillway:break-glass")?;
                Some(files.kubeconfig("break-glass.kubeconfig", pki, address, &leaf)?)
            }
        };
        Ok(Self {
            kubeconfig,
            break_glass_kubeconfig,
            _traffic: traffic,
            runtime,
            proxy,
            _server: server,
            _files: files,
        })
    }

    /// A kubeconfig of the operator, through spillway.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig for the break-glass listener, if there is one.
    #[must_use]
    pub fn break_glass_kubeconfig(&self) -> Option<&Path> {
        self.break_glass_kubeconfig.as_deref()
    }

    /// Where spillway listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Where spillway's metrics are, if anywhere.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.proxy.metrics_address
    }

    /// Where `spillway status` and the levers ask, if anywhere.
    #[must_use]
    pub fn admin_socket(&self) -> Option<&Path> {
        self.proxy.admin_socket.as_deref()
    }

    /// Keeps the traffic going until Ctrl-C or SIGTERM.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub fn until_interrupted(self) -> Result<(), DemoError> {
        self.runtime.block_on(interruption())
    }
}
