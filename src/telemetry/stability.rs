//! On which metrics may somebody build alerts of their own?
//!
//! HELP of every metric begins with `[STABLE]` or `[ALPHA]`, as in Kubernetes; docs/METRICS.md says what that promises.
//! Stable is what the alerts and recording rules of deploy/monitoring ask for, because people copy those, and what one
//! looks at first. A new metric is alpha until it is named here.

/// Names without the prefix.
const STABLE: [&str; 35] = [
    "audit_dropped_total",
    "break_glass_audit_cut_total",
    "break_glass_audit_failing",
    "break_glass_probe_last_success_timestamp_seconds",
    "break_glass_probes_total",
    "breakglass_requests_total",
    "build_info",
    "certificate_expiry_timestamp_seconds",
    "concurrency_limit",
    "config_info",
    "config_last_reload_timestamp_seconds",
    "credential_reloads_total",
    "early_returns_total",
    "enforcement_mode",
    "heavy_duty_ratio",
    "inflight_seats",
    "isolations_active",
    "lane_executing_seats",
    "lane_inqueue_requests",
    "memory_step",
    "newcomers_active",
    "overhead_seconds",
    "overload_cause",
    "overload_level",
    "pressure_ratio",
    "queue_wait_seconds",
    "request_duration_seconds",
    "requests_panicked_total",
    "requests_total",
    "rollout_steps_total",
    "shadow_shed_total",
    "shared_rate_requests_total",
    "shed_total",
    "upstream_duration_seconds",
    "upstream_up",
];

/// HELP with its promise in front.
pub(super) fn help(name: &str, text: &str) -> String {
    let promise = if STABLE.contains(&name) { "STABLE" } else { "ALPHA" };
    format!("[{promise}] {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_alpha() {
        assert_eq!(help("shed_total", "refused"), "[STABLE] refused");
        assert_eq!(help("shed", "refused"), "[ALPHA] refused");
    }
}
