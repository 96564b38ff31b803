//! What can keep the demo from playing?

use std::error::Error;
use std::io;

use tokio_rustls::rustls;

use super::pki::PkiError;

/// The demo could not be played; its result, good or bad, is a [`super::Report`] and never an error.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The operating system refused.
    #[error("the demo could not {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Keys or certificates could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS refused the demo's own certificates.
    #[error("TLS refused the demo's certificates for {what}")]
    Tls {
        /// Whose configuration.
        what: &'static str,
        /// What the library said.
        source: rustls::Error,
    },
    /// The verifier of client certificates could not be built.
    #[error("the apiserver model could not set up client certificates: {message}")]
    ClientVerifier {
        /// What the library said.
        message: String,
    },
    /// The modelled cluster contradicts itself: an error in the demo.
    #[error("the demo's cluster could not be filled: {message}")]
    Cluster {
        /// Which object was refused and why.
        message: String,
    },
    /// spillway did not start.
    #[error("spillway did not start for the second half of the demo")]
    Proxy(#[source] Box<dyn Error + Send + Sync>),
    /// Ctrl-C or SIGTERM.
    #[error("the demo was interrupted")]
    Interrupted,
    /// An option is outside its range.
    #[error("{option} must be between {min} and {max}, not {value}")]
    OutOfRange {
        /// Which option.
        option: &'static str,
        /// The smallest allowed value.
        min: usize,
        /// The largest allowed value.
        max: usize,
        /// What was given.
        value: usize,
    },
}
