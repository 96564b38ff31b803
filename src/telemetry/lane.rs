//! What does the lane for emergencies look like from outside?
//!
//! Each use of it is an alert, and so is each sign that it would not work: a self-probe that does not come back, a
//! certificate that ends soon, an audit log that cannot be written. People are named in the log alone, never in a label.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};

use super::overload::raise;
use super::register::Register;

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
                "refused attempts: `no_certificate wrong_ca not_yet_valid expired revoked no_client_auth \
                 wrong_unit wrong_group not_one_person unacceptable drill_only unarmed throttled`, and \
                 `arming_full`: 64 people are armed; of signed grants `grant_garbage grant_not_accepted \
                 grant_wrong_key grant_tampered grant_other_certificate grant_other_cluster \
                 grant_too_long grant_not_yet_valid grant_expired grant_same_person`",
                &["reason"],
            )?,
            turned_away: register.counter(
                "break_glass_connections_refused_total",
                "closed before the handshake; sources that failed too often get one connection a second",
            )?,
            sessions: register.counter(
                "break_glass_sessions_total",
                "times that somebody began to use the lane, after 15 minutes without; alert on any",
            )?,
            armed: register
                .gauge("break_glass_armed", "people for whom the lane is armed now (`breakGlass.arming`)")?,
            probes: register.counters(
                "break_glass_probes_total",
                "self-probes through the lane: `ok files connect tls request refused upstream`",
                &["result"],
            )?,
            probe_last_success: register.gauge(
                "break_glass_probe_last_success_timestamp_seconds",
                "when a self-probe last got through; alert when it is older than 3 minutes; 0: never",
            )?,
            days_left: register.gauges(
                "break_glass_certificate_days_left",
                "days until it expires: `ca serving drill person` (of people seen, the first to end); \
                 alert below 30, 14 and 7",
                &["certificate"],
            )?,
            denied: register
                .gauge("break_glass_denied_certificates", "certificates on the deny list in force")?,
            reload_failures: register.counters(
                "break_glass_reload_failures_total",
                "`deny_list`: could not be read, the old one stays in force; `grant_keys`: cannot be \
                 used, the old ones stay in force; `armed`: who is armed could not be written, or was not \
                 intact at the start",
                &["file"],
            )?,
            alerts: register.counters(
                "break_glass_alerts_total",
                "runs of `breakGlass.onUse.command`: `ok failed timeout`, or `dropped` because one ran \
                 already",
                &["result"],
            )?,
            audit_seq: register
                .gauge("break_glass_audit_seq", "number of the last audit record on the disk")?,
            audit_pending: register.gauge(
                "break_glass_audit_pending",
                "audit records that wait in memory for the disk, at most 4,096",
            )?,
            audit_failing: register.gauge(
                "break_glass_audit_failing",
                "1 while the audit log cannot be written; the lane goes on",
            )?,
            audit_lost: register
                .counter("break_glass_audit_lost_total", "audit records that are only on standard error")?,
            audit_cut: register.counter(
                "break_glass_audit_cut_total",
                "audit records that the head knew and the log had no more at the start: somebody cut its \
                 end; alert on any",
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
