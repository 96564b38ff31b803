//! What does a certificate say that the lane looks at, beyond who it is?
//!
//! Serial number, organisational unit, use and times: [`crate::authn`] verifies the chain and reads the identity, this
//! reads what only break-glass asks. Times are written in one way everywhere: UTC, to the second.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Bytes of text that are read from one attribute: what comes here may be signed by anybody.
const TEXT_BYTES_MAX: usize = 256;
/// Attributes of one kind that are read.
const ATTRIBUTES_MAX: usize = 8;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: String,
    /// The common name, if there is exactly one.
    pub user: Option<String>,
    /// Every O.
    pub groups: Vec<String>,
    /// Every OU.
    pub units: Vec<String>,
    /// The issuer's common name.
    pub issuer: String,
    /// Whether it may identify a client.
    pub client_auth: bool,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Reads a certificate; nothing of it is believed yet.
///
/// # Errors
/// When it is no certificate.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Shown, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it cannot be read as X.509")?;
    let subject = parsed.subject();
    let mut names = texts(subject.iter_common_name());
    let client_auth = parsed.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.client_auth);
    Ok(Shown {
        serial: serial(parsed.raw_serial()),
        fingerprint: hex(digest::digest(&digest::SHA256, certificate).as_ref()),
        user: if names.len() == 1 { names.pop() } else { None },
        groups: texts(subject.iter_organization()),
        units: texts(subject.iter_organizational_unit()),
        issuer: issuer(parsed.issuer()),
        client_auth,
        not_before: moment(parsed.validity().not_before.timestamp()),
        not_after: moment(parsed.validity().not_after.timestamp()),
    })
}

fn issuer(name: &X509Name<'_>) -> String {
    texts(name.iter_common_name()).pop().unwrap_or_default()
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a x509_parser::prelude::AttributeTypeAndValue<'a>>,
) -> Vec<String> {
    attributes
        .take(ATTRIBUTES_MAX)
        .filter_map(|attribute| attribute.as_str().ok())
        .filter(|text| text.len() <= TEXT_BYTES_MAX)
        .map(str::to_owned)
        .collect()
}

fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// A serial number as everybody writes it.
pub(super) fn serial(bytes: &[u8]) -> String {
    let text = hex(bytes);
    let trimmed = text.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `2026-11-25T14:03:11Z`.
#[must_use]
pub fn time(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from(at).format(&format).unwrap_or_else(|_| "a time out of range".to_owned())
}

/// `2026-11-25T14:03:11.042Z`.
#[must_use]
pub fn time_millis(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from(at).format(&format).unwrap_or_else(|_| "a time out of range".to_owned())
}

/// What [`time()`] wrote.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok().map(SystemTime::from)
}

/// `30d`, `1d 2h`, `5m`, `12s`: the two largest units.
#[must_use]
pub fn duration(given: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut seconds = given.as_secs();
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if seconds >= unit && parts.len() < 2 {
            parts.push(format!("{}{name}", seconds / unit));
            seconds %= unit;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_read_alike_everywhere() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(2_000_000_000_042);
        assert_eq!(time(at), "2033-05-18T03:33:20Z");
        assert_eq!(time_millis(at), "2033-05-18T03:33:20.042Z");
        assert_eq!(
            parse_time("2033-05-18T03:33:20Z"),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))
        );
        assert_eq!(parse_time("yesterday"), None);
        for (seconds, text) in [(0, "0s"), (59, "59s"), (300, "5m"), (93_784, "1d 2h"), (2_592_000, "30d")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_serial_has_one_spelling() {
        assert_eq!(serial(&[0, 0xab, 0x01]), "ab01");
        assert_eq!(serial(&[0]), "0");
    }

    #[test]
    fn bytes_that_are_no_certificate_are_said_to_be_none() {
        assert!(read(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])).is_err());
    }
}
