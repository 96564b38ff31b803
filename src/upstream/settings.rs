//! What may connections towards the apiserver look like, and how many may there be?
//!
//! Compiled by the configuration; every bound of this module is here or beside its only user.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::rotation::Rotation;
use super::tls::ClientCertificate;
use crate::policy::Lane;

/// Which protocol unverified callers use towards the apiserver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnverifiedProtocol {
    /// One connection per request in flight. The default, because the apiserver answers an anonymous or bad-token
    /// request over HTTP/2 by closing the whole connection.
    #[default]
    Http1,
    /// For apiservers whose `UnauthenticatedHTTP2DOSMitigation` gate is off.
    Http2,
}

/// Who asks the probes' questions, and about what: an object that every cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeIdentity {
    /// The user that is asserted over the front-proxy connection. It needs `get` on the one namespace object.
    pub user: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// The namespace that is read.
    pub namespace: String,
}

impl Default for ProbeIdentity {
    fn default() -> Self {
        Self { user: "spillway:probe".to_owned(), groups: vec![], namespace: "kube-system".to_owned() }
    }
}

/// Settings of one shard's [`super::Pools`]. The counts apply to each shard.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to connect. Names are resolved when configuration is loaded, so that forwarding never needs DNS.
    pub address: SocketAddr,
    /// The name that the apiserver's certificate must carry.
    pub server_name: ServerName<'static>,
    /// PEM text of the CA certificates that may have signed the apiserver's certificate.
    pub roots_pem: Vec<u8>,
    /// The front-proxy client certificate; without it [`super::Via::FrontProxy`] is refused.
    pub front_proxy: Option<ClientCertificate>,
    /// What is shown instead of [`Settings::front_proxy`], where that may be replaced.
    pub rotation: Option<Rotation>,
    /// Who the probes are.
    pub probe: ProbeIdentity,
    /// Streams we put on one HTTP/2 connection at most; the apiserver's own limit applies when lower.
    pub streams_max: u32,
    /// Connections for short requests, per lane and credential.
    pub short_connections_max: [u32; Lane::COUNT],
    /// Connections for watches, per lane and credential.
    pub watch_connections_max: [u32; Lane::COUNT],
    /// Connections of a pool that speaks HTTP/1.1 because the apiserver did not offer HTTP/2.
    pub http1_connections_max: u32,
    /// Connections for unverified short requests, and the same again for unverified watches, all lanes together.
    pub unverified_connections_max: u32,
    /// The protocol of unverified callers.
    pub unverified_protocol: UnverifiedProtocol,
    /// Upgraded connections (exec, attach, port-forward) at the same time.
    pub upgrades_max: u32,
    /// Requests that may wait for a stream, per pool.
    pub waiting_max: u32,
    /// How long a request may wait for a stream.
    pub wait: Duration,
    /// TCP and TLS handshake together.
    pub connect_timeout: Duration,
    /// From a short request's sending to its response head.
    pub first_byte_timeout: Duration,
    /// How long a short request's body may stand still.
    pub request_stall: Duration,
    /// How long the answer to a short request may stay unread.
    pub response_stall: Duration,
    /// How long an HTTP/1.1 connection may be unused before it is no longer trusted.
    pub http1_idle: Duration,
}

impl Settings {
    /// The defaults for an apiserver at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, server_name: ServerName<'static>, roots_pem: Vec<u8>) -> Self {
        let mut short_connections_max = [4; Lane::COUNT];
        let mut watch_connections_max = [64; Lane::COUNT];
        // What telemetry can do to the apiserver is bounded by TCP as well as by permits.
        short_connections_max[Lane::Telemetry.index()] = 2;
        watch_connections_max[Lane::Telemetry.index()] = 16;
        Self {
            address,
            server_name,
            roots_pem,
            front_proxy: None,
            rotation: None,
            probe: ProbeIdentity::default(),
            // Ten below the apiserver's default of 100: its count of a reset stream falls later than ours.
            streams_max: 90,
            short_connections_max,
            watch_connections_max,
            http1_connections_max: 64,
            unverified_connections_max: 32,
            unverified_protocol: UnverifiedProtocol::Http1,
            upgrades_max: 256,
            waiting_max: 512,
            wait: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            // The apiserver answers 504 itself after 60 s; its answer is better than ours.
            first_byte_timeout: Duration::from_secs(65),
            request_stall: Duration::from_secs(60),
            response_stall: Duration::from_secs(60),
            // The apiserver closes idle connections after 90 s; well before that, no request meets a closing one.
            http1_idle: Duration::from_secs(60),
        }
    }
}
