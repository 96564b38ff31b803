//! What does the lane for emergencies look like from outside?
//!
//! Each use of it is an alert, and so is each sign that it would not work: a self-probe that does not come back, a
//! certificate that ends soon, an audit log that cannot be written. People are named in the log alone, never in a label.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};

use super::metrics::Register;
use super::overload::raise;

/// Numbers about the break-glass lane, written by the lane's own threads.
pub struct LaneMetrics {
    refused: IntCounterVec,
    turned_away: IntCounter,
    sessions: IntCounter,
    armed: Gauge,
    probes: IntCounterVec,
    probe_last_success: Gauge,
    days_left: GaugeVec,
    denied: Gauge,
    reload_failures: IntCounterVec,
    alerts: IntCounterVec,
    audit_seq: Gauge,
    audit_pending: Gauge,
    audit_failing: Gauge,
    audit_lost: IntCounter,
    audit_cut: IntCounter,
}

impl LaneMetrics {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            refused: register.counters(
                "break_glass_refused_total",
                "attempts to use the break-glass lane that were refused, by why",
                &["reason"],
            )?,
            turned_away: register.counter(
                "break_glass_connections_refused_total",
                "connections that were closed before the handshake, of sources that fail too often",
            )?,
            sessions: register
                .counter("break_glass_sessions_total", "times that somebody began to use the lane")?,
            armed: register.gauge("break_glass_armed", "people for whom the lane is armed now")?,
            probes: register.counters("break_glass_probes_total", "self-probes, by result", &["result"])?,
            probe_last_success: register.gauge(
                "break_glass_probe_last_success_timestamp_seconds",
                "when a self-probe last got through the lane; 0: never",
            )?,
            days_left: register.gauges(
                "break_glass_certificate_days_left",
                "days until it expires; negative: it has",
                &["certificate"],
            )?,
            denied: register.gauge("break_glass_denied_certificates", "certificates on the deny list")?,
            reload_failures: register.counters(
                "break_glass_reload_failures_total",
                "times that a changed file could not be used and the old one stayed in force",
                &["file"],
            )?,
            alerts: register.counters(
                "break_glass_alerts_total",
                "runs of breakGlass.onUse.command",
                &["result"],
            )?,
            audit_seq: register
                .gauge("break_glass_audit_seq", "number of the last audit record on the disk")?,
            audit_pending: register
                .gauge("break_glass_audit_pending", "audit records that wait for the disk")?,
            audit_failing: register
                .gauge("break_glass_audit_failing", "1 while the audit log cannot be written")?,
            audit_lost: register
                .counter("break_glass_audit_lost_total", "audit records that are only on standard error")?,
            audit_cut: register.counter(
                "break_glass_audit_cut_total",
                "audit records that the head knew and the log had no more at the start: its end was cut",
            )?,
        })
    }

    /// This reason exists: its series begins at 0, so that the first refusal is an increase.
    pub fn may_refuse(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc_by(0);
    }

    /// Somebody was refused, for this reason of a closed set.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// So many connections were closed before their handshake.
    pub fn turned_away(&self, total: u64) {
        raise(&self.turned_away, total);
    }

    /// Somebody began to use the lane.
    pub fn session(&self) {
        self.sessions.inc();
    }

    /// For so many people the lane is armed.
    pub fn armed(&self, people: usize) {
        self.armed.set(count(people));
    }

    /// A self-probe came to an end, at `seconds` since 1970.
    pub fn probed(&self, result: &'static str, seconds: u64) {
        self.probes.with_label_values(&[result]).inc();
        if result == "ok" {
            self.probe_last_success.set(seconds as f64);
        }
    }

    /// When one of the lane's certificates ends.
    pub fn days_left(&self, certificate: &'static str, days: f64) {
        self.days_left.with_label_values(&[certificate]).set(days);
    }

    /// So many certificates are on the deny list.
    pub fn denied(&self, certificates: usize) {
        self.denied.set(count(certificates));
    }

    /// A changed file could not be used.
    pub fn reload_failed(&self, file: &'static str) {
        self.reload_failures.with_label_values(&[file]).inc();
    }

    /// The command of an alert ended, or did not run.
    pub fn alerted(&self, result: &'static str) {
        self.alerts.with_label_values(&[result]).inc();
    }

    /// Where the audit log stands.
    pub fn audit(&self, seq: u64, pending: u64, failing: bool, lost: u64) {
        self.audit_seq.set(seq as f64);
        self.audit_pending.set(pending as f64);
        self.audit_failing.set(f64::from(u8::from(failing)));
        raise(&self.audit_lost, lost);
    }
}

impl LaneMetrics {
    /// So many records were cut off the audit log while nobody looked.
    pub fn audit_cut(&self, total: u64) {
        raise(&self.audit_cut, total);
    }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
