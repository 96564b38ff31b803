//! In which order do things happen?
//!
//! Two halves on fresh but identical clusters: calm, the telemetry DaemonSet is created, the operator works, knows the
//! culprit after a fixed time and deletes it, calm again. The first half points every client at the apiserver model,
//! the second at spillway in front of one. A half's storm ends when the DaemonSet is deleted; if the operator cannot
//! do that in time, the demo cuts the agents off, as OpenAI's engineers had to do at the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::DemoError;
use super::apiserver::cluster::{self, TELEMETRY_NAME, TELEMETRY_NAMESPACE, daemon_set};
use super::apiserver::resources::Kind;
use super::apiserver::{Machine, Server, Usage};
use super::clients::Cast;
use super::clients::leases::RENEW_EVERY;
use super::ledger::{Ledger, Listed, Renewal, Span, Who, percentile};
use super::pki::Pki;
use super::progress::Progress;
use super::report::{Apiserver, EndedBy, Half, Measured};
use super::seed::Seed;
use crate::clock;
use crate::units::Instant;

/// The modelled control plane grows with its cluster, as providers size theirs: 4 cores and 6 GiB for requests at
/// 200 nodes (a real one has 16 GiB, most of it taken by caches and watches). A fixed one would make the smallest
/// clusters invulnerable and the largest unable to live in calm.
const NODES_PER_CORE: usize = 50;
const MEMORY_BYTES_PER_NODE: u64 = 32 << 20;
/// Calm before the storm: three rounds of every lease, and time for spillway to learn what calm is.
pub(crate) const CALM: Duration = Duration::from_secs(8);
/// The first part of it, in which connections are opened, is not measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);
/// From the storm's start until the operator knows the culprit.
pub(crate) const INSIGHT_AFTER: Duration = Duration::from_secs(12);
/// From the storm's start until the demo ends it.
const STORM_MAX: Duration = Duration::from_secs(20);
/// How long recovery is waited for.
const RECOVERY_MAX: Duration = Duration::from_secs(8);
/// Leases are watched over this time to call them recovered.
const RECOVERED_OVER: Duration = Duration::from_secs(1);
/// Recovered means: as fast as this multiple of the calm 99th percentile.
const RECOVERED_FACTOR: u32 = 2;
/// Faster than this is always calm: on a busy machine, timers alone are late by so much.
const RECOVERED_FLOOR: Duration = Duration::from_millis(50);
/// Share of the renewals in that time that must be so fast, as the evaluation protocol has it.
const RECOVERED_PERCENT: usize = 98;
/// How often the display and the end conditions are looked at.
const STEP: Duration = Duration::from_millis(100);

/// The two halves take about this long together.
pub(crate) const EXPECTED: Duration = Duration::from_secs(52);

/// What both halves share.
pub(crate) struct Play<'a> {
    pub(crate) pki: &'a Pki,
    pub(crate) cast: &'a Cast,
    pub(crate) progress: &'a Progress,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) pods_per_node: usize,
    pub(crate) started: Instant,
}

/// Calm traffic that goes on after a half.
pub(crate) struct Traffic {
    _clients: JoinSet<()>,
    /// Nodes that would run an agent again if somebody created its DaemonSet again.
    _fleet: JoinSet<()>,
    /// Kept so that the operator's task can still read it.
    _insight: watch::Sender<Option<Instant>>,
}

impl Play<'_> {
    /// A model with a fresh cluster.
    pub(crate) fn model(&self) -> Result<Server, DemoError> {
        let store = cluster::build(self.nodes, self.pods_per_node);
        let store = store.map_err(|refused| DemoError::Cluster { message: refused.to_string() })?;
        Server::start(self.pki, self.machine(), Arc::new(store))
    }

    pub(crate) fn machine(&self) -> Machine {
        let cores = u32::try_from(self.nodes.div_ceil(NODES_PER_CORE)).unwrap_or(u32::MAX);
        Machine { cores, memory_bytes: self.nodes as u64 * MEMORY_BYTES_PER_NODE }
    }

    /// Calm, and then a storm whose culprit nobody finds out: it goes on as long as the traffic is kept.
    pub(crate) async fn storm(&self, server: &Server, address: SocketAddr) -> Result<Traffic, DemoError> {
        let half = Running { play: self, server, ledger: Arc::new(Ledger::default()) };
        let seed = Seed::new(self.seed);
        let (insight, told) = watch::channel(None);
        self.progress.scene("calm before the storm");
        let begun = clock::now();
        let clients = self.cast.start(address, &half.ledger, told, &seed);
        half.until(|now| now >= begun + CALM).await;
        let fleet = self.cast.start_fleet(address, server.store(), &half.ledger, &seed);
        half.roll_out()?;
        Ok(Traffic { _clients: clients, _fleet: fleet, _insight: insight })
    }

    /// Plays one half against `address`; `server` is the model behind it.
    pub(crate) async fn half(
        &self,
        name: &str,
        server: &Server,
        address: SocketAddr,
    ) -> Result<(Half, Traffic), DemoError> {
        let half = Running { play: self, server, ledger: Arc::new(Ledger::default()) };
        let seed = Seed::new(self.seed);
        let (insight, told) = watch::channel(None);

        self.progress.scene(&format!("calm {name} spillway"));
        let begun = clock::now();
        let clients = self.cast.start(address, &half.ledger, told, &seed);
        half.until(|now| now >= begun + CALM).await;
        let calm = Span { start: begun + WARM_UP, end: clock::now() };

        self.progress.scene(&format!("storm {name} spillway"));
        let (start, before) = (clock::now(), server.usage());
        let knows = start + INSIGHT_AFTER;
        insight.send_replace(Some(knows));
        let mut fleet = self.cast.start_fleet(address, server.store(), &half.ledger, &seed);
        half.roll_out()?;
        half.until(|now| now >= start + STORM_MAX || half.ledger.culprit_deleted_at().is_some()).await;
        let storm = Span { start, end: clock::now() };
        let apiserver = machine_use(self.machine(), before, server.usage(), storm);
        let ended_by = half.end_storm(&mut fleet);

        self.progress.scene("recovery");
        let recovery = half.recovery(calm, storm.end).await;
        let measured =
            Measured { ledger: &half.ledger, calm, storm, ended_by, insight: knows, apiserver, recovery };
        Ok((Half::of(measured), Traffic { _clients: clients, _fleet: fleet, _insight: insight }))
    }
}

/// A half while it plays.
pub(crate) struct Running<'a> {
    pub(crate) play: &'a Play<'a>,
    pub(crate) server: &'a Server,
    pub(crate) ledger: Arc<Ledger>,
}

impl Running<'_> {
    /// The storm's cause appears: a change like any other.
    fn roll_out(&self) -> Result<(), DemoError> {
        let culprit = daemon_set(TELEMETRY_NAME, 0);
        let created = self.server.store().create(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, culprit);
        created.map(drop).map_err(|refused| DemoError::Cluster { message: refused.to_string() })
    }

    /// Cuts the agents off if the operator could not delete their DaemonSet; otherwise they go with their pods.
    fn end_storm(&self, fleet: &mut JoinSet<()>) -> EndedBy {
        if self.ledger.culprit_deleted_at().is_some() {
            return EndedBy::Operator;
        }
        fleet.abort_all();
        // The operator may succeed in this very moment: all the better.
        let _ = self.server.store().delete(Kind::DAEMON_SETS, TELEMETRY_NAMESPACE, TELEMETRY_NAME);
        EndedBy::Demo
    }

    /// Waits until `done`, showing how it goes.
    pub(crate) async fn until(&self, done: impl Fn(Instant) -> bool) {
        let mut steps = tokio::time::interval(STEP);
        loop {
            steps.tick().await;
            let now = clock::now();
            self.play.progress.show(now.since(self.play.started), &self.summary(now));
            if done(now) {
                return;
            }
        }
    }

    /// From the storm's end to the first second in which leases were renewed as fast as in calm.
    pub(crate) async fn recovery(&self, calm: Span, end: Instant) -> Option<Duration> {
        let took = |renewals: Vec<Renewal>| renewals.iter().map(|renewal| renewal.took).collect::<Vec<_>>();
        let usual = percentile(&took(self.ledger.renewals(calm)), 99).unwrap_or_default();
        let limit = (usual * RECOVERED_FACTOR).max(RECOVERED_FLOOR);
        let calm_again = |now: Instant| {
            let span = Span { start: now - RECOVERED_OVER, end: now };
            span.start >= end && self.is_calm(span, limit)
        };
        self.until(|now| now >= end + RECOVERY_MAX || calm_again(now)).await;
        let now = clock::now();
        // Later than the first such moment by up to one step: the report errs on the bad side.
        calm_again(now).then(|| (now - RECOVERED_OVER).since(end))
    }

    /// Whether nearly all renewals that fell due in `span` were made, within `limit`.
    fn is_calm(&self, span: Span, limit: Duration) -> bool {
        let renewals = self.ledger.renewals(span);
        let good = renewals.iter().filter(|renewal| renewal.renewed && renewal.took <= limit).count();
        // A renewal that still hangs is in no ledger yet, so what is expected is computed. The starts are spread at
        // random: 20 % fewer in a given second is chance.
        let rounds = self.play.nodes as f64 * span.length().as_secs_f64() / RENEW_EVERY.as_secs_f64();
        good as f64 >= rounds * 0.8 && good * 100 >= renewals.len() * RECOVERED_PERCENT
    }

    /// One line for the display: the last second, in the words of the report.
    fn summary(&self, now: Instant) -> String {
        let span = Span { start: now - RECOVERED_OVER, end: now };
        let renewals = self.ledger.renewals(span);
        let renewed = renewals.iter().filter(|renewal| renewal.renewed).count();
        let stale = self.ledger.ages(span).into_iter().max().unwrap_or_default();
        let everything = Span { start: Instant::ORIGIN, end: now };
        let commands = self.ledger.commands(everything);
        let succeeded = commands.iter().filter(|command| command.succeeded).count();
        format!(
            "leases {renewed}/{} a s, DNS {:.1} s old, operator {succeeded}/{}, telemetry {} served {} refused, {} in flight",
            renewals.len(),
            stale.as_secs_f64(),
            commands.len(),
            self.ledger.lists(everything, Listed::Served),
            self.ledger.refusals(everything, Who::Telemetry),
            self.server.running(),
        )
    }
}

pub(crate) fn machine_use(machine: Machine, before: Usage, after: Usage, span: Span) -> Apiserver {
    let busy = after.busy_core_seconds - before.busy_core_seconds;
    let useful = after.useful_core_seconds - before.useful_core_seconds;
    let capacity = f64::from(machine.cores) * span.length().as_secs_f64();
    let percent = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    Apiserver { busy_percent: percent(busy, capacity), wasted_percent: percent(busy - useful, busy) }
}
