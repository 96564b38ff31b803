//! Is the apiserver the one that the configuration describes?
//!
//! Asked once, before anything is bound. With the wrong CA bundle or server name no request can ever be forwarded, so
//! the operator shall read that when spillway starts, and not each client when it asks. An apiserver that is away
//! says nothing about the configuration: spillway must be able to start first. Neither does a certificate that is not
//! valid at this time of day: on a machine that has just booted the clock may be what is wrong.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ClientConnection};

use super::settings::Settings;
use super::tls::{self, ALPN_HTTP1, TlsError};
use crate::clock;

/// The whole handshake, and each of its reads and writes: beyond that the apiserver counts as away. On loopback it takes
/// two milliseconds; a start that hangs for longer would be noticed.
const PATIENCE: Duration = Duration::from_secs(1);

/// The apiserver is there, and its certificate is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// The CA bundle is another cluster's, or of another purpose.
    #[error(
        "no CA in upstreams.tls.caFile has signed the certificate of the apiserver at {address}; expected the CA of \
         kube-apiserver's --tls-cert-file (kubeadm: /etc/kubernetes/pki/ca.crt)"
    )]
    Issuer {
        /// The apiserver.
        address: SocketAddr,
    },
    /// The certificate is for other names.
    #[error(
        "the certificate of the apiserver at {address} is not for {expected}, which is upstreams.tls.serverName; choose \
         one of its names: {}",
        presented.join(", ")
    )]
    Name {
        /// The apiserver.
        address: SocketAddr,
        /// The name in the configuration.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The configuration's own certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a TLS handshake with the apiserver says about `settings`. Nothing, when there is none.
///
/// # Errors
/// The apiserver shows a certificate that can never be accepted with these settings.
pub fn check(settings: &Settings) -> Result<(), Distrust> {
    let roots = tls::roots("the apiserver's CA bundle", &settings.roots_pem)?;
    let config = Arc::new(tls::client_config(roots, None, &[ALPN_HTTP1])?);
    let client = ClientConnection::new(config, settings.server_name.clone())
        .map_err(|source| TlsError::Unusable { what: "upstreams.tls.serverName", source })?;
    let Err(Ended::Refused(error)) = shake_hands(settings.address, client) else { return Ok(()) };
    let rustls::Error::InvalidCertificate(reason) = error else { return Ok(()) };
    let address = settings.address;
    match reason {
        CertificateError::UnknownIssuer => Err(Distrust::Issuer { address }),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = presented.iter().map(|name| bare(name).to_owned()).collect();
            Err(Distrust::Name { address, expected: expected.to_str().into_owned(), presented })
        }
        _ => Ok(()),
    }
}

/// `DnsName("kubernetes")` and `IpAddress(10.96.0.1)`, as rustls prints names, without the decoration.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

/// Why there was no handshake.
enum Ended {
    Away,
    Refused(rustls::Error),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Away
    }
}

fn shake_hands(address: SocketAddr, mut client: ClientConnection) -> Result<(), Ended> {
    let begun = clock::now();
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    while client.is_handshaking() && clock::now().since(begun) < PATIENCE {
        while client.wants_write() {
            client.write_tls(&mut socket)?;
        }
        if client.wants_read() {
            if client.read_tls(&mut socket)? == 0 {
                return Err(Ended::Away);
            }
            let read = client.process_new_packets();
            if read.is_err() {
                // The alert tells the apiserver's log why; it may not want to hear it.
                let _ = client.write_tls(&mut socket);
            }
            read.map_err(Ended::Refused)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_written_in_a_configuration() {
        assert_eq!(bare(r#"DnsName("kubernetes")"#), "kubernetes");
        assert_eq!(bare("IpAddress(10.96.0.1)"), "10.96.0.1");
        assert_eq!(bare("something new"), "something new");
    }
}
