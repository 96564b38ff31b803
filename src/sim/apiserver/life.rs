//! How does the process live and die? Its speed, its memory, and what it forgets when it is killed.
//!
//! Memory is a base, five times the bytes of the answers being built, and 20 kB a watch. Above 80 % the
//! garbage collector takes half of the speed; at 100 % the process is killed, is away for 10 to 30 s, and comes back with
//! cold watch caches, without its flow schemas, and not ready.

use std::time::Duration;

use super::{Apiserver, Due, Failure, Out, Phase, Stage};
use crate::sim::guard::Id;
use crate::units::Instant;

/// An idle apiserver of a small cluster.
pub(super) const BASE_MEMORY: f64 = 300e6;
/// Memory while an answer is built, against its bytes (KEP-3157).
pub(super) const BUILDING: f64 = 5.0;
/// What a watch holds.
pub(super) const WATCH_MEMORY: f64 = 20e3;
/// Buffers and stacks of a small request.
pub(super) const SMALL_MEMORY: f64 = 64e3;
const COLLECTOR_FROM: f64 = 0.8;
const COLLECTOR_SPEED: f64 = 0.5;
/// Beyond this many computations for each core, switching among them costs speed...
const THRASH_FROM: f64 = 10.0;
/// ... but not on servers with so few in all.
const THRASH_FROM_LEAST: f64 = 100.0;
/// A time slice of Go's scheduler: who computes longer makes others wait at hand-overs.
pub(super) const SLICE: f64 = 10_000.0;
/// Microseconds that ten hand-overs take with one long computation for each core.
pub(super) const TEN_HANDOVERS: f64 = 38_600.0;
/// How that grows with long computations for each core.
const HANDOVERS_POWER: f64 = 1.75;
/// The fastest that hand-overs pass: beyond it they take no time that anybody sees.
const HANDOVERS_RATE_MAX: f64 = 1e4;
const AWAY_MIN: Duration = Duration::from_secs(10);
const AWAY_MAX: Duration = Duration::from_secs(30);
/// From accepting connections to `/readyz`.
const STARTING: Duration = Duration::from_secs(3);
/// Filling the cache of one resource: this, and so much for each object.
const FILL: Duration = Duration::from_millis(500);
const FILL_OBJECT: Duration = Duration::from_micros(26);

impl Apiserver {
    /// What each computation gets of one core.
    pub(super) fn speed(&self) -> f64 {
        if self.in_core == 0 {
            return 1.0;
        }
        let running = f64::from(self.in_core);
        let comfortable = (THRASH_FROM * self.cores).max(THRASH_FROM_LEAST);
        let switching = (running / comfortable).max(1.0);
        let collector =
            if self.memory > COLLECTOR_FROM * self.build.memory_bytes { COLLECTOR_SPEED } else { 1.0 };
        (self.cores * collector / switching / running).min(collector)
    }

    /// Long computations that a newcomer finds before it on each core.
    fn crowd(&self) -> f64 {
        ((f64::from(self.long) - (self.cores - 1.0)) / self.cores.max(0.01)).max(0.0)
    }

    /// Whether small requests have to wait at hand-overs at all.
    pub(super) fn is_crowded(&self) -> bool {
        self.build.handovers && self.crowd() > 0.0
    }

    /// Sets both clocks to the speed of this moment.
    pub(super) fn pace(&mut self) {
        self.core.set_rate(self.speed());
        let crowd = self.crowd();
        let rate = if crowd > 0.0 { crowd.powf(-HANDOVERS_POWER) } else { HANDOVERS_RATE_MAX };
        self.handovers.set_rate(rate.min(HANDOVERS_RATE_MAX));
    }

    pub(super) fn hold(&mut self, bytes: f64) {
        self.memory += bytes;
        self.usage.memory_peak = self.usage.memory_peak.max(self.memory);
    }

    /// Kills the process if it uses more memory than it may.
    pub(super) fn check_memory(&mut self, now: Instant) {
        if self.memory > self.build.memory_bytes && self.phase != Phase::Away {
            let away = self.chance.time(AWAY_MIN, AWAY_MAX);
            self.kill(now, away);
        }
    }

    /// The process dies and is back after `away`.
    pub(in crate::sim) fn kill(&mut self, now: Instant, away: Duration) {
        self.pass(now);
        let mut lost: Vec<Id> =
            self.book.iter().filter(|(_, served)| !served.gone).map(|(&id, _)| id).collect();
        // The order of a hash map must not decide anything.
        lost.sort_unstable();
        self.book.clear();
        self.core.clear();
        self.handovers.clear();
        (self.in_core, self.long, self.in_flight, self.watches) = (0, 0, 0, 0);
        self.watchers.clear();
        self.apf = super::Apf::new();
        self.etcd.reset();
        self.memory = BASE_MEMORY;
        self.usage.deaths += 1;
        self.phase = Phase::Away;
        self.away_since = now;
        self.due.at(now + away, Due::Boot);
        self.outs.extend(
            lost.into_iter()
                .filter(|&id| id < super::OWN_IDS)
                .map(|id| Out::Failed { id, failure: Failure::Reset }),
        );
        self.outs.push(Out::Up(false));
        self.pace();
    }

    /// The new process accepts connections.
    pub(super) fn accept_again(&mut self, now: Instant) {
        self.phase = Phase::Starting;
        self.boot += 1;
        self.booted = now;
        self.ready_caches.clear();
        self.due.at(now + STARTING, Due::Ready);
        self.outs.push(Out::Up(true));
    }

    /// Whether the watch cache of `resource` is filled.
    pub(super) fn is_warm(&mut self, now: Instant, resource: &str) -> bool {
        if self.boot == 1 {
            return true;
        }
        if let Some(&ready) = self.ready_caches.get(resource) {
            return now >= ready;
        }
        let filling = FILL + FILL_OBJECT.mul_f64(self.contents.of(resource).count);
        let ready = self.booted + filling;
        self.ready_caches.insert(resource.to_owned(), ready);
        now >= ready
    }

    /// What a refusal for a cold cache tells the client: longer after a longer absence.
    pub(super) fn warm_up_seconds(&self, now: Instant) -> u32 {
        let away = now.since(self.away_since).as_secs_f64();
        ((0.06 * away).exp().ceil() as u32).clamp(1, 30)
    }

    /// One more, or one fewer, watch of `resource` in this stage of its life.
    pub(super) fn count_watch(&mut self, id: Id, more: bool) {
        let Some(served) = self.book.get(&id) else { return };
        if served.stage != Stage::Live {
            return;
        }
        let change = |count: u32| if more { count + 1 } else { count.saturating_sub(1) };
        self.watches = change(self.watches);
        if served.broad {
            let watchers = self.watchers.entry(served.resource.clone()).or_insert(0);
            *watchers = change(*watchers);
        }
    }
}
