//! When do our own certificates end?
//!
//! A certificate that has ended stays in use: clients that check it turn away by themselves, and those that do not (or
//! whose clock is wrong) keep their access. So it is said instead, in a metric, and in the log when a certificate comes
//! near its end or passes it.

use std::time::{Duration, SystemTime};

use crate::authn::{Material, certificate};
use crate::telemetry::Metrics;

/// Said in the log from this long before the end. kubeadm's certificates last a year, short-lived ones renew at two thirds.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Every certificate that is watched.
#[derive(Default)]
pub(super) struct Expiries(Vec<Expiry>);

struct Expiry {
    label: String,
    source: Material,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Soon,
    Ended,
}

impl Expiries {
    /// `label` is what the metric calls it; `source` is one certificate or several, of which the first to end counts.
    pub(super) fn add(&mut self, label: impl Into<String>, source: Material) {
        self.0.push(Expiry { label: label.into(), source, told: Told::Nothing });
    }

    pub(super) fn tell(&mut self, metrics: &Metrics, now: SystemTime) {
        for expiry in &mut self.0 {
            let Some(end) = certificate::end(&expiry.source) else { continue };
            let certificate = expiry.label.as_str();
            metrics.certificate_ends(certificate, end);
            let state = match end.duration_since(now) {
                Err(_) => Told::Ended,
                Ok(left) if left < SOON => Told::Soon,
                Ok(_) => Told::Nothing,
            };
            let changed = std::mem::replace(&mut expiry.told, state) != state;
            let file = &expiry.source;
            match state {
                Told::Ended if changed => {
                    tracing::error!(certificate, %file, "a certificate has expired; it stays in use until it is replaced");
                }
                Told::Soon if changed => {
                    let days = end.duration_since(now).unwrap_or_default().as_secs() / 86_400;
                    tracing::warn!(certificate, %file, days, "a certificate expires soon");
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_of_a_chain_is_shown_and_told_once() {
        let signed = |year| {
            let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let mut expiries = Expiries::default();
        expiries.add("serving_main", Material::Bytes([signed(2040), signed(2030)].concat().into_bytes()));
        expiries.add("gone", Material::File("/nonexistent".into()));
        let metrics = Metrics::new().unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let end = 1_893_456_000;
        for (now, told) in
            [(end - 30 * 86_400, Told::Nothing), (end - 86_400, Told::Soon), (end + 1, Told::Ended)]
        {
            expiries.tell(&metrics, at(now));
            assert!(expiries.0[0].told == told, "{now}");
        }
        let line =
            format!("spillway_certificate_expiry_timestamp_seconds{{certificate=\"serving_main\"}} {end}");
        let scrape = metrics.registered();
        assert!(scrape.contains(&line), "{line} is not in\n{scrape}");
        assert!(!scrape.contains("gone"));
    }
}
