//! What does a scrape say about certificates, keys and tokens?
//!
//! Whether files that changed could be used, when certificates end, and how kube-apiserver answered about tokens. Labels
//! are words of this program and the names of listeners; never a user, an issuer or a file.

use std::time::SystemTime;

use prometheus::{GaugeVec, IntCounterVec};

use super::register::Register;

/// What can be read anew.
const WHAT: [&str; 7] =
    ["client_ca", "deny_list", "serving", "break_glass", "front_proxy", "token_keys", "jwks_url"];

/// Counters and gauges about credentials.
pub(super) struct Credentials {
    reloads: IntCounterVec,
    expiry: GaugeVec,
    reviews: IntCounterVec,
}

impl Credentials {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let credentials = Self {
            reloads: register.counters(
                "credential_reloads_total",
                "files with certificates or keys that changed, and key sets that were fetched; \
                 `result=\"failed\"`: what was read before stays in force (alert). What: `client_ca \
                 deny_list serving admin break_glass front_proxy token_keys jwks_url`",
                &["what", "result"],
            )?,
            expiry: register.gauges(
                "certificate_expiry_timestamp_seconds",
                "when a certificate ends, seconds since 1970; of a chain or bundle the first. \
                 Certificate: `serving_LISTENER admin break_glass front_proxy client_ca break_glass_ca \
                 upstream_ca`",
                &["certificate"],
            )?,
            reviews: register.counters(
                "token_reviews_total",
                "tokens that kube-apiserver was asked about: `good bad failed` (no answer), `full` (not \
                 asked, all places were taken or it rests after an error), `late` (a request that went on \
                 as unverified)",
                &["result"],
            )?,
        };
        // From the beginning: what appears with 1 has not grown, and nobody would hear of it.
        for what in WHAT {
            for result in ["ok", "failed"] {
                credentials.reloads.with_label_values(&[what, result]).inc_by(0);
            }
        }
        Ok(credentials)
    }

    pub(super) fn reloaded(&self, what: &str, worked: bool) {
        let result = if worked { "ok" } else { "failed" };
        self.reloads.with_label_values(&[what, result]).inc();
    }

    pub(super) fn ends(&self, certificate: &str, end: SystemTime) {
        let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.expiry.with_label_values(&[certificate]).set(seconds);
    }

    pub(super) fn reviewed(&self, results: &[(&'static str, u64)]) {
        for (result, total) in results {
            super::overload::raise(&self.reviews.with_label_values(&[result]), *total);
        }
    }
}
