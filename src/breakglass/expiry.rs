//! Which certificates of the lane end soon?
//!
//! A lane that nobody has used for months is found shut on the day it is needed, so the days that are left are a metric,
//! and each mark on the way to the end is said once: 30, 14 and 7 days before for what lives long, 7 and 1 for what lives
//! for weeks. A certificate of hours warns nobody: it is meant to end.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Settings;
use super::common::Common;
use super::shown::{self, Shown};
use crate::authn::Material;

const DAY: Duration = Duration::from_secs(86_400);
/// A certificate that lives longer gets the early marks.
const LONG: Duration = Duration::from_secs(60 * 86_400);
/// Marks that were said: one for each certificate that is watched, and for people seen.
const SAID_MAX: usize = 512;

/// What was said already, by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Expiry(HashMap<String, u64>);

impl Expiry {
    /// Looks at the CA, the serving certificate, the drill's, and those that people showed.
    pub(super) fn look(&mut self, settings: &Settings, common: &Common, now: SystemTime) {
        let drill = settings.drill.as_ref().map(|drill| &drill.certificate);
        let own =
            [("ca", Some(&settings.client_ca)), ("serving", Some(&settings.certificate)), ("drill", drill)];
        for (name, material) in own {
            // The first to end counts: a bundle of two CAs during a rotation is as good as its worse half.
            if let Some(shown) = material.and_then(soonest) {
                self.judge(name, &shown, common, now);
            }
        }
        for shown in common.people(now) {
            self.judge("person", &shown, common, now);
        }
    }

    fn judge(&mut self, name: &'static str, shown: &Shown, common: &Common, now: SystemTime) {
        common.metrics.days_left(name, days_left(shown.not_after, now));
        let life = shown.not_after.duration_since(shown.not_before).unwrap_or_default();
        let left = shown.not_after.duration_since(now).unwrap_or_default();
        let Some(mark) = mark(life, left) else { return };
        if self.0.get(&shown.fingerprint).is_some_and(|said| *said <= mark) {
            return;
        }
        if self.0.len() >= SAID_MAX {
            // Said again for some: better than never.
            self.0.clear();
        }
        self.0.insert(shown.fingerprint.clone(), mark);
        tracing::warn!(
            certificate = name,
            user = shown.user.as_deref().unwrap_or_default(),
            serial = shown.serial,
            expires = shown::time(shown.not_after),
            left = shown::duration(left),
            "break-glass: a certificate expires soon; make a new one before the lane is needed"
        );
    }
}

fn soonest(material: &Material) -> Option<Shown> {
    let pem = material.read("a certificate").ok()?;
    let certificates = CertificateDer::pem_slice_iter(&pem).flatten();
    certificates.filter_map(|certificate| shown::read(&certificate).ok()).min_by_key(|shown| shown.not_after)
}

/// Negative once it has expired.
fn days_left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64() / DAY.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64() / DAY.as_secs_f64(),
    }
}

/// The last mark, in days before the end, that a certificate has passed.
fn mark(life: Duration, left: Duration) -> Option<u64> {
    let marks: &[u64] = if life > LONG { &[7, 14, 30] } else { &[1, 7] };
    // A mark in the first half of a life would be passed from the beginning.
    let due = |days: u64| {
        left <= DAY * u32::try_from(days).unwrap_or(u32::MAX) && life.as_secs() >= 2 * days * 86_400
    };
    marks.iter().copied().find(|days| due(*days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lives_warn_three_times_weeks_twice_and_hours_never() {
        let hours = |hours: u32| Duration::from_secs(3_600) * hours;
        let marks = |life: u32, left: u32| mark(hours(life), hours(left));
        let year = 365 * 24;
        for (left, expected) in
            [(31 * 24, None), (30 * 24, Some(30)), (14 * 24, Some(14)), (24, Some(7)), (0, Some(7))]
        {
            assert_eq!(marks(year, left), expected, "{left} h left");
        }
        for (left, expected) in [(8 * 24, None), (7 * 24, Some(7)), (2 * 24, Some(7)), (24, Some(1))] {
            assert_eq!(marks(30 * 24, left), expected, "{left} h left");
        }
        assert_eq!(marks(24, 1), None);
    }

    #[test]
    fn what_has_expired_has_less_than_no_days() {
        let now = SystemTime::UNIX_EPOCH + DAY * 100;
        assert!((days_left(now + DAY, now) - 1.0).abs() < 1e-9);
        assert!((days_left(now - DAY, now) + 1.0).abs() < 1e-9);
    }
}
