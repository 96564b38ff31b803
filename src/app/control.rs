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
use tokio::sync::oneshot;

use super::{ShardStats, StartError};
use crate::admin;
use crate::breakglass::Lane as BreakGlassLane;
use crate::flow::{Probe, Probes};
use crate::gateway::Gate;
use crate::io::Flusher;
use crate::server::Server;
use crate::telemetry::{Metrics, UpstreamGauges};
use crate::units::Instant;
use crate::upstream::{self, Outcome, Prober, Via};

/// Probes lost one after the other before the apiserver counts as away. Three are under a second: one alone may be a
/// connection that was closed as it was used.
const LOST_IN_A_ROW: u32 = 3;

/// What the control thread looks at.
pub(super) struct Inside {
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stats: ShardStats,
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
}

impl Control {
    /// Starts the thread; returns once the probe is set up, so that unusable upstream settings are known.
    pub(super) fn start(
        metrics_listener: TcpListener,
        inside: Inside,
        upstream: &upstream::Settings,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Control)?;
        let prober = {
            let _entered = runtime.enter();
            Prober::spawn(upstream, Flusher::spawn())?
        };
        let ready = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let shown = admin_view(&inside, &prober, &ready);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let gate = Arc::clone(&inside.gate);
                    let mut lookout = Lookout { prober, gate, seen: Instant::ORIGIN, lost: 0 };
                    tokio::spawn(inside.gate.run(move || lookout.look()));
                    tokio::spawn(async move {
                        if let Err(error) = admin::serve(metrics_listener, shown).await {
                            tracing::error!(%error, "the metrics listener stopped");
                        }
                    });
                    if let Ok(ending) = ended.await {
                        close(ending).await;
                    }
                });
            })
            .map_err(StartError::Control)?;
        Ok(Self { thread: Some(thread), end: Some(end), ready, server: None, break_glass: None })
    }

    pub(super) fn keep_server(&mut self, server: Server) {
        self.server = Some(server);
    }

    pub(super) fn keep_break_glass(&mut self, lane: BreakGlassLane) {
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

fn admin_view(inside: &Inside, prober: &Prober, ready: &Arc<AtomicBool>) -> Arc<admin::Inside> {
    let (gate, metrics, stats) =
        (Arc::clone(&inside.gate), Arc::clone(&inside.metrics), inside.stats.clone());
    let prober = prober.clone();
    Arc::new(admin::Inside {
        metrics: Box::new(move || {
            let up = prober.latest().is_some_and(|reading| reading.is_up());
            metrics.render(&gate.snapshot(), gauges(up, &stats))
        }),
        ready: Arc::clone(ready),
    })
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

/// Follows the probe for the scheduler: what is new at each tick, and whether the apiserver is there at all.
struct Lookout {
    prober: Prober,
    gate: Arc<Gate>,
    seen: Instant,
    lost: u32,
}

impl Lookout {
    /// What the probe found since the tick before, in the scheduler's words.
    fn look(&mut self) -> Probes {
        let Some(reading) = self.prober.latest().filter(|reading| reading.at > self.seen) else {
            return Probes::default();
        };
        self.seen = reading.at;
        let livez = match reading.outcome {
            Outcome::Answered { latency, .. } => Probe::Answered(latency),
            Outcome::Outstanding(age) => Probe::Waiting(age),
            Outcome::Lost => Probe::Lost,
        };
        self.lost = if livez == Probe::Lost { self.lost + 1 } else { 0 };
        match livez {
            Probe::Lost if self.lost == LOST_IN_A_ROW => self.gate.upstream_up(false),
            Probe::Answered(_) => self.gate.upstream_up(true),
            _ => {}
        }
        Probes { livez, ..Probes::default() }
    }
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
