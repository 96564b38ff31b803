//! Whose grants count on this lane, and for which cluster?
//!
//! Public keys from files, and the lane's names: the configured one, else the fingerprints of its own CAs, which are
//! known to whoever issues certificates offline and differ between clusters that do not share a CA. Read again when a
//! file changes; what cannot be used leaves the last good ones in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::arming::GRANT_MAX;
use super::grant::{Expected, KEYS_MAX, PublicKey};
use super::{ledger, shown};
use crate::authn::Material;

/// Bytes of a file with keys or certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is configured about grants.
#[derive(Clone, Debug)]
pub struct GrantSettings {
    /// PEM files with Ed25519 public keys.
    pub key_files: Vec<PathBuf>,
    /// Whether nobody gets in without a grant.
    pub required: bool,
    /// The longest grant.
    pub longest: Duration,
    /// The cluster's name; without one, the fingerprints of the lane's CAs are its names.
    pub cluster: Option<String>,
}

impl Default for GrantSettings {
    fn default() -> Self {
        Self { key_files: vec![], required: false, longest: GRANT_MAX, cluster: None }
    }
}

/// See the top of the file.
pub(super) struct Trust {
    settings: GrantSettings,
    client_ca: Material,
    expected: ArcSwap<Expected>,
    /// What last failed, so that it is said once.
    failing: parking_lot::Mutex<Option<String>>,
}

impl Trust {
    /// Reads everything.
    ///
    /// # Errors
    /// When a file cannot be used, in words.
    pub(super) fn new(settings: GrantSettings, client_ca: Material) -> Result<Self, String> {
        let expected = ArcSwap::default();
        let trust = Self { settings, client_ca, expected, failing: parking_lot::Mutex::default() };
        trust.expected.store(Arc::new(trust.read()?));
        Ok(trust)
    }

    /// What a grant is judged by.
    pub(super) fn expected(&self) -> Arc<Expected> {
        self.expected.load_full()
    }

    /// Reads the files again; `Some` is a trouble that is new.
    pub(super) fn look(&self) -> Option<String> {
        let mut failing = self.failing.lock();
        match self.read() {
            Ok(expected) => {
                *failing = None;
                self.expected.store(Arc::new(expected));
                None
            }
            Err(why) if failing.as_ref() == Some(&why) => None,
            Err(why) => {
                *failing = Some(why.clone());
                Some(why)
            }
        }
    }

    fn read(&self) -> Result<Expected, String> {
        let GrantSettings { key_files, longest, cluster, .. } = &self.settings;
        let mut keys = Vec::new();
        for file in key_files {
            let text = ledger::read_text(file, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
            let read = PublicKey::read_all(text.as_bytes());
            keys.extend(read.map_err(|why| format!("{} cannot be used: {why}", file.display()))?);
        }
        if keys.len() > KEYS_MAX {
            return Err(format!(
                "{} grant keys, at most {KEYS_MAX} may be trusted; remove old ones",
                keys.len()
            ));
        }
        let clusters = match cluster {
            Some(name) => vec![name.clone()],
            None if keys.is_empty() => vec![],
            None => self.authorities()?,
        };
        Ok(Expected { keys, clusters, longest: *longest })
    }

    fn authorities(&self) -> Result<Vec<String>, String> {
        let pem = match &self.client_ca {
            Material::Bytes(bytes) => bytes.clone(),
            Material::File(path) => {
                ledger::read_text(path, FILE_BYTES_MAX).map_err(|error| error.to_string())?.into_bytes()
            }
        };
        CertificateDer::pem_slice_iter(&pem)
            .map(|ca| {
                let ca = ca.map_err(|error| error.to_string())?;
                Ok(shown::read(&ca)?.fingerprint)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakglass::passphrase::Passphrase;
    use crate::breakglass::{GrantKey, found};

    #[test]
    fn a_key_file_that_becomes_unusable_leaves_the_last_good_keys_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("grant.pub");
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let (_, _, public) = GrantKey::found(&passphrase).unwrap();
        std::fs::write(&file, &public).unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let ca = found("people", Duration::from_secs(86_400), &passphrase, now).unwrap();
        let settings = GrantSettings { key_files: vec![file.clone()], ..GrantSettings::default() };
        let client_ca = Material::Bytes(ca.certificate_pem.into_bytes());
        let trust = Trust::new(settings.clone(), client_ca.clone()).unwrap();
        assert_eq!(trust.expected().clusters, std::slice::from_ref(&ca.shown.fingerprint));
        let before = trust.expected().keys.clone();
        std::fs::write(&file, "no key").unwrap();
        let why = trust.look().unwrap();
        assert!(why.contains("grant.pub cannot be used"), "{why}");
        assert_eq!((trust.look(), &trust.expected().keys), (None, &before), "said once, and still in force");
        let (_, _, next) = GrantKey::found(&passphrase).unwrap();
        std::fs::write(&file, next).unwrap();
        assert_eq!(trust.look(), None);
        assert_ne!(trust.expected().keys, before);
        assert!(Trust::new(settings, client_ca).is_ok());
        std::fs::write(&file, public.repeat(9)).unwrap();
        assert!(trust.look().unwrap().contains("at most 8"));
    }

    #[test]
    fn a_configured_name_is_the_only_one() {
        let settings = GrantSettings { cluster: Some("prod-1".into()), ..GrantSettings::default() };
        let trust = Trust::new(settings, Material::Bytes(vec![])).unwrap();
        assert_eq!(trust.expected().clusters, ["prod-1"]);
    }
}
