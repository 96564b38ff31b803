//! What happens beside the requests?
//!
//! One thread with a runtime of its own: the scheduler's clock, the probe of the apiserver, metrics and health, and
//! the end. It does no request work, so it answers when every shard is busy.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::announce::{self, Pulse};
use super::change::{self, Policies};
use super::chronicle;
use super::lookout::Lookout;
use super::reload::Watch;
use super::state::{State, Writer};
use super::status::status;
use super::{ShardStats, StartError, Tallies, descriptors, footprint};
use crate::admin;
use crate::authn::{Authenticator, Fetched, review};
use crate::breakglass::Lane as BreakGlassLane;
use crate::gateway::{Gate, Levers, Names, Newcomers};
use crate::io::Flusher;
use crate::policy::Lane;
use crate::server::{Abuse, Server, Tally};
use crate::telemetry::{Footprint, ListenerGauges, Metrics, OwnLimits, OwnScrape, Scrape, UpstreamGauges};
use crate::upstream::{self, Pools, Probers, Route, Traffic, Via};

/// What the control thread looks at.
pub(super) struct Inside {
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stats: ShardStats,
    pub(super) tallies: Tallies,
    /// Where to write what the scheduler learns.
    pub(super) state: Option<State>,
    pub(super) names: Arc<Names>,
    pub(super) authenticator: Arc<Authenticator>,
    /// Files that may change.
    pub(super) watch: Watch,
    pub(super) policies: Arc<Policies>,
    pub(super) levers: Arc<Levers>,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) limits: OwnLimits,
}

/// What has to be ended.
struct Ending {
    grace: Duration,
    server: Option<Server>,
    break_glass: Option<BreakGlassLane>,
}

/// The control thread.
pub(super) struct Control {
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<Ending>>,
    ready: Arc<AtomicBool>,
    server: Option<Server>,
    break_glass: Option<BreakGlassLane>,
    tallies: Tallies,
}

impl Control {
    /// Starts the thread; returns once the probe is set up, so that unusable upstream settings are known.
    pub(super) fn start(
        metrics_listener: TcpListener,
        inside: Inside,
        upstream: &upstream::Settings,
        ready: Arc<AtomicBool>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Control)?;
        let probers = {
            let _entered = runtime.enter();
            let flusher = Flusher::spawn();
            let probers = Probers::spawn(upstream, &flusher)?;
            if let Some(reviewer) = inside.authenticator.reviewer() {
                let pools = Pools::new(&for_reviews(upstream), flusher)?;
                tokio::spawn(reviewer.run(Arc::new(pools), REVIEWS));
            }
            probers
        };
        let (end, ended) = oneshot::channel();
        let (footprint, tallies) = (Arc::new(Footprint::default()), inside.tallies.clone());
        let shown = admin_view(&inside, &probers, &ready, &footprint);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                runtime.block_on(live(inside, probers, (metrics_listener, shown), footprint, ended));
                // A disk that hangs must not keep the process.
                runtime.shutdown_background();
            })
            .map_err(StartError::Control)?;
        Ok(Self { thread: Some(thread), end: Some(end), ready, server: None, break_glass: None, tallies })
    }

    pub(super) fn keep_server(&mut self, server: Server) {
        self.tallies.0.lock().extend_from_slice(server.tallies());
        self.server = Some(server);
    }

    pub(super) fn keep_break_glass(&mut self, lane: BreakGlassLane) {
        self.tallies.0.lock().extend_from_slice(lane.tallies());
        self.break_glass = Some(lane);
    }

    pub(super) fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Drains for at most `grace` and waits until everything has ended.
    pub(super) fn end(mut self, grace: Duration) {
        self.ready.store(false, Ordering::Relaxed);
        let ending = Ending { grace, server: self.server.take(), break_glass: self.break_glass.take() };
        if let Some(end) = self.end.take() {
            // A control thread that is gone has ended everything already.
            let _ = end.send(ending);
        }
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // If it panicked, the panic hook has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Without its sender the thread ends; servers cut their connections when they are dropped.
        self.end = None;
        self.join();
    }
}

/// How token reviews travel.
const REVIEWS: Route = Route { lane: Lane::ControlPlane, via: Via::FrontProxy, traffic: Traffic::Short };

/// One connection to the apiserver for all token reviews, and as long as they may take.
fn for_reviews(upstream: &upstream::Settings) -> upstream::Settings {
    let mut settings = upstream.clone();
    settings.short_connections_max = [1; Lane::COUNT];
    settings.first_byte_timeout = review::ANSWER_WITHIN;
    settings
}

/// Everything that the thread does until it is told to end, and the end.
async fn live(
    inside: Inside,
    probers: Probers,
    (metrics_listener, shown): (TcpListener, Arc<admin::Inside>),
    footprint: Arc<Footprint>,
    ended: oneshot::Receiver<Ending>,
) {
    let Inside { gate, names, state, authenticator, watch, policies, metrics, limits, .. } = inside;
    let (ask, asked) = mpsc::channel(announce::ASKED_MAX);
    tokio::spawn(watch.run(asked));
    tokio::spawn(announce::reload_on_signal(ask));
    tokio::spawn(change::judge(policies));
    let told: Arc<dyn Fn(Fetched) + Send + Sync> =
        Arc::new(move |fetched| metrics.credential_reloaded("jwks_url", fetched != Fetched::Failed));
    authenticator.fetchers(&told).into_iter().for_each(|fetcher| drop(tokio::spawn(fetcher)));
    let mut lookout = Lookout::new(probers, Arc::clone(&gate));
    let (pulse, seen) = (Pulse::default(), Arc::clone(&gate));
    tokio::spawn(announce::watchdog(pulse.clone()));
    tokio::spawn(announce::tell_status(move || seen.view()));
    tokio::spawn(Arc::clone(&gate).run(move || {
        pulse.beat();
        lookout.look()
    }));
    tokio::spawn(chronicle::keep(Arc::clone(&gate), names));
    tokio::spawn(footprint::keep(Arc::clone(&gate), limits.memory, footprint));
    tokio::spawn(async move {
        if let Err(error) = admin::serve(metrics_listener, shown).await {
            tracing::error!(%error, "the metrics listener stopped");
        }
    });
    let (last, draining) = oneshot::channel::<()>();
    let writer = state.map(|state| {
        // Told, or forgotten: either way it is over.
        tokio::spawn(Writer::new(state, gate).run(async { drop(draining.await) }))
    });
    if let Ok(ending) = ended.await {
        // Written first: the grace period may end with a kill.
        drop(last);
        close(ending).await;
        if let Some(writer) = writer {
            // It has said what went wrong, if anything did.
            let _ = writer.await;
        }
    }
}

async fn close(ending: Ending) {
    let main = async {
        if let Some(server) = ending.server {
            server.close(ending.grace).await;
        }
    };
    let reserved = async {
        if let Some(lane) = ending.break_glass {
            lane.close(ending.grace).await;
        }
    };
    tokio::join!(main, reserved);
}

fn admin_view(
    inside: &Inside,
    probers: &Probers,
    ready: &Arc<AtomicBool>,
    footprint: &Arc<Footprint>,
) -> Arc<admin::Inside> {
    let (gate, metrics, stats) =
        (Arc::clone(&inside.gate), Arc::clone(&inside.metrics), inside.stats.clone());
    let (seen, names) = (Arc::clone(&inside.gate), Arc::clone(&inside.names));
    let prober = probers.livez.clone();
    let (footprint, limits, tallies) = (Arc::clone(footprint), inside.limits, inside.tallies.clone());
    let (authenticator, levers) = (Arc::clone(&inside.authenticator), Arc::clone(&inside.levers));
    let newcomers = Arc::clone(&inside.newcomers);
    Arc::new(admin::Inside {
        metrics: Box::new(move || {
            let up = prober.latest().is_some_and(|reading| reading.is_up());
            let view = gate.view();
            if let Some(results) = authenticator.reviewed() {
                metrics.tokens_reviewed(&results);
            }
            tell_abuses(&metrics, &tallies);
            metrics.render(&Scrape {
                flow: &view.snapshot,
                diagnosis: &view.diagnosis,
                gate: view.gate,
                levers: levers.gauges(),
                newcomers: newcomers.with(|guard| guard.counts()),
                upstream: gauges(up, &stats),
                own: OwnScrape {
                    footprint: &footprint,
                    limits,
                    descriptors: descriptors::open(),
                    listeners: &listeners(&tallies),
                },
            })
        }),
        status: Box::new(move || status(&seen.view(), &names).to_string()),
        ready: Arc::clone(ready),
    })
}

fn tell_abuses(metrics: &Metrics, tallies: &Tallies) {
    let tallies: Vec<_> = tallies.0.lock().iter().map(|(_, tally)| tally.snapshot()).collect();
    for abuse in Abuse::ALL {
        let total = tallies.iter().map(|tally| tally.abuses[abuse.index()]).sum();
        metrics.clients().abusive_connections(abuse.as_str(), total);
    }
    metrics.clients().heads_refused("fields", tallies.iter().map(|tally| tally.too_many_fields).sum());
    metrics.clients().heads_refused("memory", tallies.iter().map(|tally| tally.heads_refused).sum());
}

fn gauges(up: bool, stats: &ShardStats) -> UpstreamGauges {
    let mut gauges = UpstreamGauges { up, ..UpstreamGauges::default() };
    for shard in stats.0.lock().iter() {
        gauges.streams += shard.streams();
        for via in Via::ALL {
            gauges.connections += shard.open(via);
            gauges.opened += shard.opened(via);
        }
    }
    gauges
}

fn listeners(tallies: &Tallies) -> Vec<ListenerGauges> {
    let tallies = tallies.0.lock();
    let gauges = |(name, tally): &(&'static str, Arc<Tally>)| {
        let now = tally.snapshot();
        ListenerGauges { name, open: now.open(), ended: now.ended().to_vec(), panicked: now.panicked }
    };
    tallies.iter().map(gauges).collect()
}

/// Blocks until SIGTERM or SIGINT.
pub(super) fn wait_for_signal() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
