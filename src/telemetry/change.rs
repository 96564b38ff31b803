//! Which policy is in force, and what became of the last change?
//!
//! A change of the policy is one event: a line in the log and the numbers that tell two instances apart. What is wrong
//! with a file is told finding by finding, with the place that an editor jumps to.

use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec};

use super::register::Register;

/// What can come of reading the files again, as kube-apiserver's own metric for its files says it.
const STATUSES: [&str; 2] = ["success", "failure"];

/// The numbers of a scrape.
pub struct Changes {
    reloads: IntCounterVec,
    last: GaugeVec,
    info: GaugeVec,
    shown: Mutex<Option<(String, u64)>>,
}

impl Changes {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let changes = Self {
            reloads: register.counters(
                "config_reloads_total",
                "times that changed configuration files were read; `failure`: the last good policy stays \
                 in force (alert)",
                &["status"],
            )?,
            last: register.gauges(
                "config_last_reload_timestamp_seconds",
                "when that was last; 0: never",
                &["status"],
            )?,
            info: register.gauges(
                "config_info",
                "1, for the policy in force; unequal hashes are instances with unequal policies (alert)",
                &["hash", "generation"],
            )?,
            shown: Mutex::new(None),
        };
        // From the beginning: what appears with 1 has not grown, and nobody would hear of it.
        for status in STATUSES {
            changes.reloads.with_label_values(&[status]).inc_by(0);
            changes.last.with_label_values(&[status]).set(0.0);
        }
        Ok(changes)
    }

    /// The files were read again at `now`.
    pub fn reloaded(&self, worked: bool, now: SystemTime) {
        let status = STATUSES[usize::from(!worked)];
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.reloads.with_label_values(&[status]).inc();
        self.last.with_label_values(&[status]).set(seconds);
    }

    /// Another policy is in force.
    pub fn in_force(&self, hash: &str, generation: u64) {
        let mut shown = self.shown.lock();
        if let Some((hash, generation)) = shown.take() {
            // One series: of what was in force before there is nothing to say.
            let _ = self.info.remove_label_values(&[&hash, &generation.to_string()]);
        }
        self.info.with_label_values(&[hash, &generation.to_string()]).set(1.0);
        *shown = Some((hash.to_owned(), generation));
    }
}

/// Another policy came into force.
#[derive(Debug)]
pub struct PolicyChanged<'a> {
    /// Its number, rising.
    pub generation: u64,
    /// Hash of what it says.
    pub hash: &'a str,
    /// Where it stands.
    pub file: &'a str,
    /// `start`, `file`, `signal`, `uid 0`, `rollback to 3 by uid 0`.
    pub by: &'a str,
}

impl PolicyChanged<'_> {
    /// One line, always a warning: somebody must be able to see later what was done.
    pub fn emit(&self) {
        let Self { generation, hash, file, by } = *self;
        tracing::warn!(event = "config", generation, hash, file, by, "another policy is in force");
    }
}
