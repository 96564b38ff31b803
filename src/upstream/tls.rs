//! What does TLS towards the apiserver trust, and how does it identify itself?
//!
//! Builds rustls client configurations from PEM text with the one crypto provider this program uses. The
//! provider is passed explicitly: a process-wide default would depend on which crate asks first.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::rotation::Rotation;

/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A certificate chain with its key, as PEM text.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate first, then its issuers.
    pub chain_pem: Vec<u8>,
    /// The private key: PKCS#8, SEC1 or PKCS#1.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate { .. }")
    }
}

/// PEM text that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A section between BEGIN and END does not decode.
    #[error("{what} is not valid PEM: expected BEGIN/END sections around base64; was the file cut short?")]
    Pem {
        /// Which input.
        what: &'static str,
        /// What the decoder met.
        source: rustls_pki_types::pem::Error,
    },
    /// The text holds nothing of the wanted kind.
    #[error("{what} contains no {wanted}: check that the right file is named")]
    Missing {
        /// Which input.
        what: &'static str,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A certificate that cannot be a trust anchor, or a key that does not fit its certificate.
    #[error("{what} is not usable for TLS")]
    Unusable {
        /// Which input.
        what: &'static str,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// The crypto provider of every TLS configuration in this program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// All certificates in `pem`, at least one. `what` names the input in errors.
pub fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() {
        return Err(TlsError::Missing { what, wanted: "CERTIFICATE section" });
    }
    Ok(certificates)
}

/// The first private key in `pem`. `what` names the input in errors.
pub fn private_key(what: &'static str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| match source {
        rustls_pki_types::pem::Error::NoItemsFound => {
            TlsError::Missing { what, wanted: "PRIVATE KEY section" }
        }
        source => TlsError::Pem { what, source },
    })
}

/// The trust anchors in `pem`, at least one. `what` names the input in errors.
pub fn roots(what: &'static str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { what, source })?;
    }
    Ok(roots)
}

/// A client configuration that trusts `roots`, presents `identity` if there is one, and offers `alpn` in order.
pub fn client_config(
    roots: RootCertStore,
    identity: Option<&ClientCertificate>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { what: "the crypto provider", source })?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            const WHAT: &str = "the client certificate";
            let chain = certificates(WHAT, &identity.chain_pem)?;
            let key = private_key("the client certificate's key", &identity.key_pem)?;
            builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Unusable {
                what: "the client certificate with its key",
                source,
            })?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// As [`client_config`], with the certificate that `rotation` has at the time of each handshake.
pub fn rotating_config(
    roots: RootCertStore,
    rotation: &Rotation,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let mut config = client_config(roots, None, alpn)?;
    config.client_auth_cert_resolver = rotation.resolver();
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_input_and_what_is_missing() {
        let error =
            certificates("the upstream CA file", b"no PEM here").expect_err("there is no certificate");
        assert_eq!(
            error.to_string(),
            "the upstream CA file contains no CERTIFICATE section: check that the right file is named"
        );
        let error = private_key("the key", b"").expect_err("there is no key");
        assert!(matches!(error, TlsError::Missing { .. }), "{error}");
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA";
        assert!(matches!(
            certificates("the file", cut),
            Err(TlsError::Pem { .. } | TlsError::Missing { .. })
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let of =
            |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a valid name");
        let (one, other) = (of("one"), of("other"));
        let identity = ClientCertificate {
            chain_pem: one.cert.pem().into_bytes(),
            key_pem: other.signing_key.serialize_pem().into_bytes(),
        };
        let trusted = roots("the CA", one.cert.pem().as_bytes()).expect("a certificate");
        let error = client_config(trusted, Some(&identity), &[ALPN_H2]).expect_err("the key does not fit");
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
        assert_eq!(format!("{identity:?}"), "ClientCertificate { .. }");
    }
}
