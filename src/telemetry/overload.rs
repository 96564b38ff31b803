//! What does overload control look like from outside: which numbers, and which one line when it changes?
//!
//! Gauges are read from the scheduler at a scrape. A change of the state or of the cause is one event, told when it
//! happens and never for a single request; the client of a cause is named in the log alone, never in a label.

use prometheus::{Gauge, GaugeVec, IntCounter};

use super::register::Register;
use super::text::shown;
use crate::flow::{Cause, Diagnosis, Snapshot, State};

/// The words of [`Cause`], for the state set.
const CAUSES: [&str; 8] =
    ["none", "cpu", "etcd", "webhook", "apf-level", "memory", "upstream-down", "client"];
/// The probes in the order of [`Diagnosis::probes`].
const PROBES: [&str; 3] = ["livez", "cached", "consistent"];

/// What the gate did beside admitting and refusing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateGauges {
    /// Refusals kept back now.
    pub holding: u32,
    /// Refusals that were kept back since the start.
    pub held: u64,
    /// Running requests that were reset since the start.
    pub resets: u64,
}

/// The state or the cause of overload changed.
#[derive(Debug)]
pub struct OverloadChanged<'a> {
    /// What it was.
    pub from: (State, Cause),
    /// What it is.
    pub to: (State, Cause),
    /// The limit L, in seats.
    pub limit: u32,
    /// How many times slower than calm, bounded by the objectives.
    pub pressure: f64,
    /// The numbers behind the cause.
    pub diagnosis: &'a Diagnosis,
    /// Name of the client that the cause or the numbers speak of, as verified.
    pub client: Option<&'a str>,
}

impl OverloadChanged<'_> {
    /// One line: a warning while something presses, else information.
    pub fn emit(&self) {
        let client = self.client.map(shown);
        let client = client.as_deref();
        let sentence = self.diagnosis.sentence(client);
        let ((from, caused), (to, cause)) = (self.from, self.to);
        let (from, to, caused, cause) = (from.as_str(), to.as_str(), caused.as_str(), cause.as_str());
        let (limit, client) = (self.limit, client.unwrap_or_default());
        let pressure = format_args!("{:.2}", self.pressure);
        if self.to == (State::Normal, Cause::None) {
            tracing::info!(from, to, cause, caused, limit, pressure, client, sentence, "overload is over");
        } else {
            tracing::warn!(from, to, cause, caused, limit, pressure, client, sentence, "overload changed");
        }
    }
}

/// The numbers of a scrape.
pub(super) struct Overload {
    cause: GaugeVec,
    slowdown: GaugeVec,
    response_bytes: Gauge,
    response_budget: Gauge,
    heavy_duty: Gauge,
    tolerance: Gauge,
    early_returns: IntCounter,
    shared_rate: IntCounter,
    holding: Gauge,
    held: IntCounter,
    resets: IntCounter,
}

impl Overload {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            cause: register.gauges(
                "overload_cause",
                "1 for what presses the apiserver, 0 for the others: `none cpu etcd webhook apf-level \
                 memory upstream-down client`; the log and `/status` name the client",
                &["cause"],
            )?,
            slowdown: register.gauges(
                "probe_slowdown_ratio",
                "times slower than in calm, of spillway's own probes `livez` (process), `cached` (watch \
                 cache), `consistent` (etcd); 0 is not known",
                &["probe"],
            )?,
            response_bytes: register.gauge(
                "response_bytes_inflight",
                "estimated bytes of answers in flight; the apiserver takes about five times as much",
            )?,
            response_budget: register.gauge(
                "response_bytes_budget",
                "what they may take: `overload.memory.responseBytes`, for `auto` a share of the memory of \
                 the apiserver's host, less for ten minutes and more after the apiserver died with much \
                 in flight; 0: no bound",
            )?,
            heavy_duty: register.gauge(
                "heavy_duty_ratio",
                "part of the time in which heavy requests may run; 1 unless the limit is at its least and \
                 still too much",
            )?,
            tolerance: register.gauge(
                "tolerance_ratio",
                "by what pressure is divided: above 1 for a while after a lower limit was proven not to \
                 lower latency",
            )?,
            early_returns: register.counter(
                "early_returns_total",
                "refused clients that came back before the time they were told",
            )?,
            shared_rate: register.counter(
                "shared_rate_requests_total",
                "requests of identities that found every rate bucket of their lane in use, and shared one",
            )?,
            holding: register.gauge(
                "held_refusals",
                "refusals that are being kept back, for clients that return too early",
            )?,
            held: register.counter("held_refusals_total", "refusals that were kept back")?,
            resets: register.counter(
                "resets_total",
                "running requests of the lowest lanes that were ended because the apiserver was going \
                 under",
            )?,
        })
    }

    pub(super) fn set(&self, flow: &Snapshot, diagnosis: &Diagnosis, gate: GateGauges) {
        let now = diagnosis.cause.as_str();
        for cause in CAUSES {
            self.cause.with_label_values(&[cause]).set(if cause == now { 1.0 } else { 0.0 });
        }
        for (probe, slowdown) in PROBES.iter().zip(diagnosis.probes) {
            self.slowdown.with_label_values(&[probe]).set(slowdown);
        }
        self.response_bytes.set(exact(flow.response_bytes));
        self.response_budget.set(exact(flow.response_budget));
        self.heavy_duty.set(flow.heavy_duty);
        self.tolerance.set(flow.tolerance);
        raise(&self.early_returns, flow.early_returns);
        raise(&self.shared_rate, flow.shared_rate);
        self.holding.set(f64::from(gate.holding));
        raise(&self.held, gate.held);
        raise(&self.resets, gate.resets);
    }
}

/// Exact up to 2^53, which is 8 PiB.
pub(super) fn exact(bytes: u64) -> f64 {
    bytes as f64
}

/// Brings a counter up to a total that somebody else keeps.
pub(super) fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_set_has_every_cause_once() {
        let causes = [
            Cause::None,
            Cause::Cpu,
            Cause::Etcd,
            Cause::Webhook,
            Cause::ApfLevel,
            Cause::Memory,
            Cause::UpstreamDown,
            Cause::Client(1),
        ];
        assert_eq!(causes.map(Cause::as_str), CAUSES);
    }
}
