//! What does the listener say in the handshake?
//!
//! A serving certificate, `h2` before `http/1.1`, TLS 1.2 at least, and a request for a client certificate
//! that accepts any (see [`crate::authn::ProofOfPossession`]). Configuration and client CA are swapped
//! together and read for each new connection, because rustls has no reload of its own; the session tickets'
//! keys are new with each swap. A resumed session is judged like any other: its certificate comes out of the
//! ticket. Left out: watching the files (the caller decides when to reload), SNI certificates.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

use crate::authn::{ClientAuthority, Material, MaterialError, ProofOfPossession};

/// The application protocols offered, best first: h2 needs one connection for what h1 needs many.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients may resume sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resumption {
    /// By stateless tickets: 5,000 nodes that reconnect cost half the CPU.
    #[default]
    Tickets,
    /// Never: every connection proves its key anew.
    Off,
}

/// The lowest TLS version spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// As kube-apiserver does by default.
    #[default]
    Tls12,
    /// Clients older than 2019 are turned away.
    Tls13,
}

/// Where the serving certificate comes from and how it is used.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Chain, leaf first, PEM.
    pub certificate: Material,
    /// Private key, PEM.
    pub key: Material,
    /// The lowest version spoken.
    pub min_version: MinVersion,
    /// Whether clients may resume sessions.
    pub resumption: Resumption,
}

/// The serving certificate or its key is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// There is no certificate in it.
    #[error("{origin} holds no usable certificate: {reason}; expected CERTIFICATE blocks, leaf first")]
    Certificate {
        /// File name.
        origin: String,
        /// What the parser met.
        reason: String,
    },
    /// There is no private key in it.
    #[error("{origin} holds no usable private key: {reason}; expected an unencrypted PRIVATE KEY block")]
    Key {
        /// File name.
        origin: String,
        /// What the parser met.
        reason: String,
    },
    /// Certificate and key do not go together.
    #[error(
        "the certificate of {certificate} and the key of {key} cannot be used: {reason}; check that they are a pair"
    )]
    Pair {
        /// File name.
        certificate: String,
        /// File name.
        key: String,
        /// What rustls says.
        reason: rustls::Error,
    },
    /// The crypto provider refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What new connections are served with.
pub(super) struct Current {
    pub(super) config: Arc<ServerConfig>,
    pub(super) authority: Arc<ClientAuthority>,
}

/// The TLS side of a listener, replaceable while it runs.
pub struct Tls {
    current: ArcSwap<Current>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// They cannot be read or do not go together.
    pub fn new(settings: &TlsSettings, authority: Arc<ClientAuthority>) -> Result<Self, TlsError> {
        let config = server_config(settings, &authority)?;
        Ok(Self { current: ArcSwap::from_pointee(Current { config, authority }) })
    }

    /// Reads everything anew and swaps; on an error what was in force stays. Open connections keep their
    /// sessions.
    ///
    /// # Errors
    /// See [`Tls::new`].
    pub fn reload(&self, settings: &TlsSettings, authority: Arc<ClientAuthority>) -> Result<(), TlsError> {
        let config = server_config(settings, &authority)?;
        self.current.store(Arc::new(Current { config, authority }));
        Ok(())
    }

    /// The handshake for an address that speaks HTTP/1.1 alone, and who judges what is shown there.
    #[must_use]
    pub fn http1(&self) -> (Arc<ServerConfig>, Arc<ClientAuthority>) {
        let Current { config, authority } = &*self.current();
        let mut config = ServerConfig::clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        (Arc::new(config), Arc::clone(authority))
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }
}

fn server_config(settings: &TlsSettings, authority: &ClientAuthority) -> Result<Arc<ServerConfig>, TlsError> {
    let versions = match settings.min_version {
        MinVersion::Tls12 => rustls::ALL_VERSIONS,
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let (chain, key) = (chain(&settings.certificate)?, key(&settings.key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::new(ProofOfPossession::new(authority.hints())))
        .with_single_cert(chain, key)
        .map_err(|reason| TlsError::Pair {
            certificate: settings.certificate.to_string(),
            key: settings.key.to_string(),
            reason,
        })?;
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    // Stateful sessions are off in both cases: rustls keeps 256 behind one lock, which serves nobody here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match settings.resumption {
        Resumption::Tickets => config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?,
        Resumption::Off => config.send_tls13_tickets = 0,
    }
    Ok(Arc::new(config))
}

fn chain(source: &Material) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |reason: String| TlsError::Certificate { origin: source.to_string(), reason };
    let pem = source.read("the serving certificate")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() { Err(unusable("there is none".to_owned())) } else { Ok(chain) }
}

fn key(source: &Material) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = source.read("the serving key")?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| TlsError::Key { origin: source.to_string(), reason: error.to_string() })
}
