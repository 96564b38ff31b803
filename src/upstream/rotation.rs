//! How does a new front-proxy certificate come into use while connections are open?
//!
//! Connections that are opened from now on show it; those that show the old one take no new requests and finish what they
//! have. They must not stay: kube-apiserver looks at the certificate of a connection again with every request, and refuses
//! everybody on it once that certificate has expired. Sessions are not resumed with a certificate, for the same reason.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::tls::{self, ClientCertificate, TlsError};

/// The client certificate in force. Clones are of the same one.
#[derive(Clone)]
pub struct Rotation(Arc<Rotating>);

struct Rotating {
    current: ArcSwap<CertifiedKey>,
    generation: AtomicU64,
}

impl Rotation {
    /// Begins with `identity`.
    ///
    /// # Errors
    /// Certificate and key cannot be used, or not together.
    pub fn new(identity: &ClientCertificate) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(certified(identity)?);
        Ok(Self(Arc::new(Rotating { current, generation: AtomicU64::new(0) })))
    }

    /// Shows `identity` from now on; on an error the one before.
    ///
    /// # Errors
    /// As [`Rotation::new`].
    pub fn replace(&self, identity: &ClientCertificate) -> Result<(), TlsError> {
        self.0.current.store(Arc::new(certified(identity)?));
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Raised with every replacement, after it.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::<Rotating>::clone(&self.0)
    }
}

fn certified(identity: &ClientCertificate) -> Result<CertifiedKey, TlsError> {
    let chain = tls::certificates("the client certificate", &identity.chain_pem)?;
    let key = tls::private_key("the client certificate's key", &identity.key_pem)?;
    CertifiedKey::from_der(chain, key, &tls::provider())
        .map_err(|source| TlsError::Unusable { what: "the client certificate with its key", source })
}

impl ResolvesClientCert for Rotating {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotating")
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotation")
    }
}
