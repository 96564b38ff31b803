//! What does a scrape say about certificates, keys and tokens?
//!
//! Whether files that changed could be used, when certificates end, and how kube-apiserver answered about tokens. Labels
//! are words of this program and the names of listeners; never a user, an issuer or a file.

use std::time::SystemTime;

use prometheus::{GaugeVec, IntCounterVec};

use super::metrics::Register;

/// Counters and gauges about credentials.
pub(super) struct Credentials {
    reloads: IntCounterVec,
    expiry: GaugeVec,
    reviews: IntCounterVec,
}

impl Credentials {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            reloads: register.counters(
                "credential_reloads_total",
                "files with certificates or keys that changed, and whether they could be used",
                &["what", "result"],
            )?,
            expiry: register.gauges(
                "certificate_expiry_timestamp_seconds",
                "when the certificate ends, in seconds since 1970",
                &["certificate"],
            )?,
            reviews: register.counters(
                "token_reviews_total",
                "tokens that kube-apiserver was asked about, by what came of it",
                &["result"],
            )?,
        })
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
