//! Who serves the dashboard, and where do its numbers come from?
//!
//! A thread of its own with a runtime of its own, beside that of the levers: drawing a page must not keep a lever waiting,
//! and neither shards nor the control thread are asked for anything. It also serves the address for operators who are on
//! another machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::{ShardStats, StartError, settings};
use crate::admin::Operations;
use crate::authn::{ClientAuthority, Material};
use crate::config::{AdminRoles, ProxyConfiguration, TrafficPolicy};
use crate::dashboard::{Dashboard, Door, Figures, Roles, serve};
use crate::flow::Reason;
use crate::gateway::Gate;
use crate::policy::Lane;
use crate::server::{MinVersion, Resumption, TlsSettings};
use crate::telemetry::Metrics;
use crate::upstream::Via;

/// Where the page's numbers are counted.
pub(super) struct Sources {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    stats: ShardStats,
    host: String,
    upstream: String,
    objective: f64,
}

impl Sources {
    pub(super) fn new(
        (proxy, policy): (&ProxyConfiguration, &TrafficPolicy),
        (gate, metrics, stats): (Arc<Gate>, Arc<Metrics>, ShardStats),
    ) -> Self {
        let server = &proxy.upstreams.server;
        Self {
            gate,
            metrics,
            stats,
            host: settings::host(),
            upstream: format!("{} {}", server.name, server.address),
            objective: policy.overload.objectives.object.as_secs_f64(),
        }
    }

    fn figures(&self) -> Figures {
        let view = self.gate.view();
        let (mut connections, mut streams) = (0, 0);
        for shard in self.stats.0.lock().iter() {
            streams += shard.streams();
            connections += Via::ALL.into_iter().map(|via| shard.open(via)).sum::<u64>();
        }
        let shed = Lane::ALL.into_iter().flat_map(|lane| {
            let counts = view.snapshot.lane(lane).shed;
            Reason::ALL.into_iter().map(move |reason| (lane, reason.as_str(), counts[reason.index()]))
        });
        Figures {
            host: self.host.clone(),
            upstream: self.upstream.clone(),
            connections,
            streams,
            probes: view.diagnosis.probes,
            objects: view.diagnosis.keys,
            writes: view.diagnosis.writes,
            heaviest: view.diagnosis.heaviest.map(|(_, share)| share),
            objective: self.objective,
            first_byte: self.metrics.upstream_durations(),
            heads: self.metrics.request_durations(),
            failures: self.metrics.upstream_failures(),
            shed: shed.filter(|(_, _, count)| *count > 0).collect(),
        }
    }
}

/// The address for whoever is on another machine, where there is one. `authority` judges who comes.
pub(super) fn door(proxy: &ProxyConfiguration, authority: Arc<ClientAuthority>) -> Option<Arc<Door>> {
    let https = proxy.admin.https.as_ref()?;
    let AdminRoles { viewer, operator, admin } = proxy.admin.roles.clone();
    // A session that is resumed proves no key; people come seldom enough to prove theirs each time.
    let settings = TlsSettings {
        certificate: Material::File(https.tls.cert_file.clone()),
        key: Material::File(https.tls.key_file.clone()),
        min_version: MinVersion::Tls12,
        resumption: Resumption::Off,
    };
    let roles = Roles::new([viewer, operator, admin]);
    Some(Door::open((https.address, https.names.clone()), roles, settings, authority))
}

/// The thread; dropping it ends it and takes the socket away.
pub(super) struct DashboardThread {
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
}

impl DashboardThread {
    /// Starts it; without a socket and without an address there is nothing to start.
    pub(super) fn start(
        (socket, door): (Option<PathBuf>, Option<Arc<Door>>),
        operations: Arc<dyn Operations>,
        sources: Sources,
    ) -> Result<Option<Self>, StartError> {
        if socket.is_none() && door.is_none() {
            return Ok(None);
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Control)?;
        let (end, ended) = oneshot::channel::<()>();
        let dashboard = Dashboard::new(operations, Box::new(move || sources.figures()));
        let thread = std::thread::Builder::new()
            .name("dashboard".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = ended => {}
                        () = serve(socket.as_deref(), door, dashboard) => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(StartError::Control)?;
        Ok(Some(Self { thread: Some(thread), end: Some(end) }))
    }
}

impl Drop for DashboardThread {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, the panic hook has said so.
            let _ = thread.join();
        }
    }
}
