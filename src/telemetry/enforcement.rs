//! What would the policy have refused, and how far is it in force?
//!
//! Counters of their own, so that sums over what was really refused stay true. Rules are labels here and nowhere else:
//! before a policy is enforced, "which of my rules does this" is the question. Their names come from files, so there may be
//! no end of them over the life of a process; the first [`RULES_MAX`] have a series, the others share one.

use std::collections::HashSet;

use parking_lot::Mutex;
use prometheus::{Gauge, GaugeVec, IntCounterVec};

use super::register::Register;
use crate::flow::Would;
use crate::policy::{Enforcement, Lane, Mode};

/// Names of rules with series of their own: two policies' full of rules.
const RULES_MAX: usize = 256;
/// The label of all others.
const OTHER: &str = "(other)";

/// The numbers of a scrape.
pub(super) struct Shadowed {
    shed: IntCounterVec,
    queued: IntCounterVec,
    mode: GaugeVec,
    ratio: Gauge,
    rules: Mutex<HashSet<String>>,
}

impl Shadowed {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            shed: register.counters(
                "shadow_shed_total",
                "forwarded, and would have been refused were the policy enforced (alert). An upper bound: \
                 enforced, the apiserver would be less pressed. Rules: the first 256 names, then \
                 `(other)`",
                &["lane", "rule", "reason"],
            )?,
            queued: register.counters(
                "shadow_queued_total",
                "forwarded at once, and would have waited, or been refused had the wait run out",
                &["lane"],
            )?,
            mode: register.gauges(
                "enforcement_mode",
                "1 for the policy's mode: `Disabled Shadow Enforce`",
                &["mode"],
            )?,
            ratio: register
                .gauge("enforcement_ratio", "part of the identities that the policy is enforced for")?,
            rules: Mutex::default(),
        })
    }

    pub(super) fn count(&self, lane: Lane, rule: &str, would: Would) {
        match would {
            Would::Shed(reason) => {
                let rule = if self.is_known(rule) { rule } else { OTHER };
                self.shed.with_label_values(&[lane.as_str(), rule, reason.as_str()]).inc();
            }
            Would::Wait => self.queued.with_label_values(&[lane.as_str()]).inc(),
        }
    }

    fn is_known(&self, rule: &str) -> bool {
        let mut rules = self.rules.lock();
        rules.contains(rule) || rules.len() < RULES_MAX && rules.insert(rule.to_owned())
    }

    pub(super) fn in_force(&self, enforcement: Enforcement) {
        for mode in Mode::ALL {
            let is = f64::from(u8::from(mode == enforcement.mode));
            self.mode.with_label_values(&[mode.as_str()]).set(is);
        }
        let percent = if enforcement.mode == Mode::Enforce { enforcement.percent } else { 0 };
        self.ratio.set(f64::from(percent) / 100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::flow::Reason;

    #[test]
    fn no_end_of_rules_is_a_bounded_number_of_series() {
        let metrics = Metrics::new().unwrap();
        for number in 0..5_000 {
            metrics.would(Lane::Telemetry, &format!("rule-{number}"), Would::Shed(Reason::IdentityRate));
        }
        let text = metrics.registered();
        assert_eq!(text.matches("spillway_shadow_shed_total{").count(), RULES_MAX + 1);
        let rest = 5_000 - RULES_MAX;
        assert!(text.contains(&format!("rule=\"(other)\"}} {rest}")), "the others are counted");
    }
}
