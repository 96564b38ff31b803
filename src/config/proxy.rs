//! What is the plumbing of one proxy? The types behind `kind: ProxyConfiguration`.
//!
//! Every field says its unit, default, range, what zero means, and whether a change needs a restart. Reading them
//! from YAML is [`super::read_proxy`]'s; whether the files behind them are usable is [`super::files`]'s. Nothing
//! here is behaviour, and a field appears only once something obeys it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::admin::{AdminHttps, AdminRoles};
use super::authentication::{Anonymous, JwtProvider, TokenReview};

/// One proxy's plumbing. All of it needs a restart unless a field says *hot*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfiguration {
    /// Where clients connect. 1 to 16, names and addresses unique.
    pub listeners: Vec<Listener>,
    /// Bounds on what one connection or source may take.
    pub limits: Limits,
    /// How long each phase of a connection may last.
    pub timeouts: Timeouts,
    /// How callers are told apart, without asking kube-apiserver.
    pub authentication: Authentication,
    /// Where requests go.
    pub upstreams: Upstreams,
    /// The lane for emergencies. Absent: there is none, and `spillway validate` warns.
    pub break_glass: Option<BreakGlass>,
    /// Threads.
    pub runtime: Runtime,
    /// The metrics listener.
    pub metrics: Metrics,
    /// The way in for `spillway status` and the levers.
    pub admin: Admin,
    /// Log lines.
    pub logging: Logging,
    /// The audit trail. Absent: there is none.
    pub audit: Option<AuditTrail>,
    /// What happens on SIGTERM.
    pub drain: Drain,
    /// What is kept over a restart. Absent: nothing is.
    pub state: Option<State>,
}

/// One address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in metrics and logs: 1 to 63 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// IP address and port, for example `10.0.0.11:6443`. Port 0 takes a free one (for tests).
    pub address: SocketAddr,
    /// The certificate that clients see.
    pub tls: ServerTls,
    /// HTTP/2 towards clients.
    pub http2: Http2,
}

/// A serving certificate and its protocol floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM chain, leaf first. Usually kube-apiserver's own, so that every name clients use is in it. *Hot*, with its key.
    pub cert_file: PathBuf,
    /// PEM private key of the leaf.
    pub key_file: PathBuf,
    /// Oldest TLS version accepted. Default `1.2`, as kube-apiserver's.
    pub min_version: TlsVersion,
}

/// A certificate and its key. *Hot*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub cert_file: PathBuf,
    /// PEM private key of the leaf.
    pub key_file: PathBuf,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and later.
    #[default]
    V1_2,
    /// TLS 1.3 only: client-go speaks it since Go 1.13, some monitoring agents still do not.
    V1_3,
}

/// HTTP/2 towards clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests one connection may have open. Default 250, range 1 to 10,000. client-go multiplexes all its watches
    /// over one connection: Go's server default is 250, so clients meet the number they know.
    pub max_concurrent_streams: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { max_concurrent_streams: 250 }
    }
}

/// Bounds on what one connection or source may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request's header block, request line included. Default 64 KiB, range 8 KiB to 1 MiB
    /// (kube-apiserver's own limit). A larger header is answered 431.
    pub header_bytes: u32,
    /// Header fields of one request. Default 100, range 16 to 1,000.
    pub header_fields: u32,
    /// Client connections in all. Default 10,000, range 16 to 1,000,000; further ones are closed at once.
    pub connections: u32,
    /// Client connections from one source address. Default 1,000, range 1 to 1,000,000 and at most `connections`.
    /// Generous, because a whole node's pods may share one address behind NAT.
    pub connections_per_source: u32,
    /// Client connections of one client certificate's user. Default half of `connections`, range 1 to 1,000,000: nobody
    /// takes them all, and a certificate that every node shares (`system:kube-proxy` in some distributions) has room.
    /// Tokens are shown per request, and one user of a DaemonSet is on every node: the cap per source is theirs.
    pub connections_per_user: u32,
    /// Memory that spillway may take. From 80, 90 and 95 % of it on, lanes are refused from below. Default: the cgroup's
    /// limit where there is one, else none. Range 32 MiB to 1 TiB; 0: no limit, whatever the cgroup says.
    pub memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_fields: 100,
            connections: 10_000,
            connections_per_source: 1_000,
            connections_per_user: 5_000,
            memory: None,
        }
    }
}

/// How long each phase may last. None may be zero: a phase without an end is a leak that a client can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the first TLS byte. Default 5 s, range 100 ms to 60 s.
    pub first_byte: Duration,
    /// From accept to the end of the TLS handshake. Default 10 s, range 100 ms to 60 s.
    pub handshake: Duration,
    /// From the handshake to the first complete request header. Default 10 s, range 100 ms to 60 s.
    pub first_request: Duration,
    /// For one request's header block on HTTP/1.1. Default 10 s, range 100 ms to 60 s.
    pub headers: Duration,
    /// From forwarding a request to its response header, long-running requests excepted. Default 65 s, range 1 s to
    /// 1 h: longer than kube-apiserver's `--request-timeout` (60 s), so that its own 504 wins.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            response: Duration::from_secs(65),
        }
    }
}

/// How callers are told apart. What is absent here is not verified here: kube-apiserver stays the judge, and the
/// caller ranks as unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Client certificates.
    pub client_certificate: Option<ClientCertificate>,
    /// Service-account tokens.
    pub service_account_token: Option<ServiceAccountToken>,
    /// OIDC tokens.
    pub jwt: Vec<JwtProvider>,
    /// Tokens that only kube-apiserver can judge. Absent: nobody is asked.
    pub token_review: Option<TokenReview>,
    /// Callers without a credential.
    pub anonymous: Anonymous,
}

/// Verify client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM bundle of the CAs that sign clients: kube-apiserver's `--client-ca-file`. *Hot*; during a rotation it holds
    /// both.
    pub ca_file: PathBuf,
    /// Certificates that no longer count here, one a line: SHA-256 fingerprint or serial number, in hexadecimal digits.
    /// *Hot*. At most 10,000.
    pub deny_file: Option<PathBuf>,
}

/// Verify service-account tokens with local keys. At least one of the two kinds of key source is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountToken {
    /// Accepted `iss` values: kube-apiserver's `--service-account-issuer`. At least one.
    pub issuers: Vec<String>,
    /// Accepted `aud` values. Default: the issuers, as kube-apiserver's `--api-audiences` defaults.
    pub audiences: Vec<String>,
    /// PEM public keys: kube-apiserver's `--service-account-key-file`. *Hot*, as is the next.
    pub public_key_files: Vec<PathBuf>,
    /// A JWK set, for example a saved `/openid/v1/jwks`.
    pub jwks_file: Option<PathBuf>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstreams {
    /// The kube-apiserver behind this proxy. One entry: the failure domain stays one node.
    pub server: Server,
    /// How its certificate is verified.
    pub tls: UpstreamTls,
    /// How callers are named to it.
    pub forward_identity: ForwardIdentity,
    /// Bounds on connections to it.
    pub connections: Connections,
    /// Who the probes are that tell a slow etcd from a slow cache.
    pub probe: ProbeIdentity,
}

/// Who spillway is when it asks kube-apiserver for itself: one small object, eight times a second, over the front-proxy
/// connection. Without `forwardIdentity.frontProxy` it does not ask. What it needs is in `deploy/probe.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeIdentity {
    /// The user that is asserted. Default `spillway:probe`. It needs `get` on the one namespace object; without it the
    /// log says so once, and these probes stay silent.
    pub user: String,
    /// Its groups, at most 16. Default: none (kube-apiserver adds `system:authenticated`).
    pub groups: Vec<String>,
    /// The namespace whose object is read. Default `kube-system`.
    pub namespace: String,
}

impl Default for ProbeIdentity {
    fn default() -> Self {
        Self { user: "spillway:probe".to_owned(), groups: vec![], namespace: "kube-system".to_owned() }
    }
}

/// One kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in metrics and logs: 1 to 63 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// `https://IP:PORT`. An IP address, because DNS may be down when it is needed most.
    pub address: SocketAddr,
}

/// How the upstream certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM bundle of the CAs that sign kube-apiserver's serving certificate.
    pub ca_file: PathBuf,
    /// The name that must be in it. Default `kubernetes`: in every kubeadm certificate, unlike `127.0.0.1`.
    pub server_name: String,
}

/// How callers are named to kube-apiserver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardIdentity {
    /// The client certificate that lets `X-Remote-User` count: signed by kube-apiserver's
    /// `--requestheader-client-ca-file`, its CN in `--requestheader-allowed-names`. Needed when client certificates are
    /// verified here.
    pub front_proxy: Option<CertificateFiles>,
    /// Protocol of the pool for callers that kube-apiserver may answer with 401.
    pub unverified_protocol: UnverifiedProtocol,
}

/// Protocol of the pool for anonymous and unverified callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnverifiedProtocol {
    /// One connection a request in flight. The default: since Kubernetes 1.29 (gate `UnauthenticatedHTTP2DOSMitigation`)
    /// a 401 or an anonymous answer makes kube-apiserver close the *whole* HTTP/2 connection, with everyone on it.
    #[default]
    Http1,
    /// Cheaper. Only where kube-apiserver runs with `--feature-gates=UnauthenticatedHTTP2DOSMitigation=false`.
    Http2,
}

/// Bounds on connections to kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Connections for short requests of one lane, credential and shard. Default 4, range 1 to 64; the telemetry lane
    /// never gets more than 2, so that its damage is bounded by TCP as well.
    pub per_lane: u32,
    /// Requests on one HTTP/2 connection. Default 90, range 1 to 1,000: kube-apiserver announces 100 by default, counts
    /// a cancelled one somewhat longer than its client, and what it announces wins when it is lower.
    pub streams: u32,
    /// TCP connect and TLS handshake together. Default 5 s, range 100 ms to 60 s.
    pub connect_timeout: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self { per_lane: 4, streams: 90, connect_timeout: Duration::from_secs(5) }
    }
}

/// The lane for emergencies: own listener, CA, thread and upstream connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlass {
    /// Its own address, different from every listener's.
    pub address: SocketAddr,
    /// The certificate that operators see. TLS 1.2 and later: the lane must not fail over an old laptop.
    pub tls: CertificateFiles,
    /// PEM bundle of the CA that signs break-glass certificates. Not the cluster's client CA: then every kubelet could enter.
    /// *Hot*.
    pub client_ca_file: PathBuf,
    /// A certificate needs one of these in its O. Default `spillway:break-glass`, 1 to 16.
    pub groups: Vec<String>,
    /// Seats in flight. Default 16, range 1 to 256: enough for a few people, too few to be a load of its own.
    pub seats: u32,
    /// Requests per second. Default 20, range 1 to 1,000.
    pub rate: u32,
    /// Requests at once before `rate` applies. Default 40 (one `kubectl` discovery), range 1 to 10,000.
    pub burst: u32,
    /// The list of revoked certificates, a serial number or fingerprint a line. *Hot*: read again when it changes. It may
    /// be missing as long as nobody was revoked. Default: none.
    pub deny_file: Option<PathBuf>,
    /// What opens the lane beside a certificate. Default `Open`.
    pub arming: Arming,
    /// Whose signed grants open the lane as well.
    pub grants: Grants,
    /// The record of who did what.
    pub audit: LaneAudit,
    /// A program and its arguments: told of each session, arming and failed attempt, as one line of JSON on its standard
    /// input. One at a time, 10 s each. Default: none. The program's path is absolute, at most 16 words.
    pub on_use: Vec<String>,
    /// The certificate of the self-probe, once a minute: `spillway break-glass issue --drill`. Default: none, and nobody
    /// notices that the lane is shut before it is needed.
    pub drill: Option<CertificateFiles>,
}

/// What opens the break-glass lane beside a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arming {
    /// Nothing else.
    #[default]
    Open,
    /// A reason and a ticket, for at most four hours.
    Reasoned,
    /// These, and a second person; one alone gets a quarter of an hour.
    TwoPerson,
}

/// Signed grants, `spillway break-glass grant`: verified by public keys alone, nothing has to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// PEM files with Ed25519 public keys, at most 8. *Hot*. Default: none, and no grant counts.
    pub public_key_files: Vec<PathBuf>,
    /// Whether nobody gets in without a grant. Default false. With true, whoever cannot reach the holder of the key is
    /// left with the direct path of INCIDENT.md.
    pub required: bool,
    /// The longest grant. Default 4h, range 1m to 4h.
    pub max_duration: Duration,
    /// What this cluster is called in grants. Default: the fingerprint of the break-glass CA. Needs a name where one CA
    /// serves several clusters, else a grant for one of them counts on all.
    pub cluster: Option<String>,
}

impl Default for Grants {
    fn default() -> Self {
        let max_duration = Duration::from_secs(4 * 3_600);
        Self { public_key_files: vec![], required: false, max_duration, cluster: None }
    }
}

/// The record of who did what through the break-glass lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneAudit {
    /// The folder of the log. Default: `state.dir`; without that, records go to standard error alone.
    pub dir: Option<PathBuf>,
    /// A file of this size is set aside, 64 of them are kept. Default 16 MiB, range 64 KiB to 1 GiB.
    pub rotate_bytes: u32,
}

impl Default for LaneAudit {
    fn default() -> Self {
        Self { dir: None, rotate_bytes: 16 << 20 }
    }
}

impl BreakGlass {
    /// Default of [`Self::seats`].
    pub const SEATS: u32 = 16;
    /// Default of [`Self::rate`].
    pub const RATE: u32 = 20;
    /// Default of [`Self::burst`].
    pub const BURST: u32 = 40;

    /// Default of [`Self::groups`].
    #[must_use]
    pub fn default_groups() -> Vec<String> {
        vec!["spillway:break-glass".to_owned()]
    }
}

/// Threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// How connections are spread over threads.
    pub mode: RuntimeMode,
    /// Data-plane threads. Default 0 = one a CPU that the process may use; range 0 to 256.
    pub shards: u32,
}

/// How connections are spread over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeMode {
    /// A single-threaded runtime per shard: a connection stays on its thread. Cheapest per request.
    #[default]
    Sharded,
    /// One work-stealing runtime: evens out when few connections carry most of the load.
    Shared,
}

/// The metrics listener: plain HTTP, so keep it on loopback or a node-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Default `127.0.0.1:10270`. Port 0 takes a free one (for tests).
    pub address: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 10_270)) }
    }
}

/// The way in for `spillway status` and the levers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// A unix socket that only this process's user may open (mode 0600). Default `/run/spillway/admin.sock`; at most 100
    /// bytes, absolute. `None`: there is none. Its folder is made when it is missing (0700). If it cannot be had, the
    /// log says so, the proxy runs on, and it is tried again every 5 s.
    pub socket: Option<PathBuf>,
    /// The page for a browser.
    pub dashboard: Dashboard,
    /// The same for whoever is not on the node. Absent: there is none.
    pub https: Option<AdminHttps>,
    /// What whoever comes there may do.
    pub roles: AdminRoles,
}

/// The page for a browser: `spillway dashboard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// A unix socket like the levers' own, beside it. Default `dashboard.sock` in the folder of `admin.socket`, none where
    /// that is `None`; at most 100 bytes, absolute. `None`: there is no dashboard.
    pub socket: Option<PathBuf>,
}

impl Dashboard {
    /// Default of [`Self::socket`].
    pub const SOCKET: &'static str = "/run/spillway/dashboard.sock";
    /// Its name in the folder of the levers' socket.
    const NAME: &'static str = "dashboard.sock";

    /// The one beside a socket of the levers.
    #[must_use]
    pub fn beside(levers: Option<&std::path::Path>) -> Self {
        Self { socket: levers.and_then(|levers| Some(levers.parent()?.join(Self::NAME))) }
    }
}

impl Admin {
    /// Default of [`Self::socket`].
    pub const SOCKET: &'static str = "/run/spillway/admin.sock";
    /// Bytes of a socket's path: the kernel takes 107, and a file beside it is needed while it is made.
    pub const SOCKET_BYTES_MAX: usize = 100;
}

impl Default for Admin {
    fn default() -> Self {
        let socket = Some(PathBuf::from(Self::SOCKET));
        let dashboard = Dashboard::beside(socket.as_deref());
        Self { socket, dashboard, https: None, roles: AdminRoles::default() }
    }
}

/// Log lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// Default `Json`.
    pub format: LogFormat,
    /// Default `Info`.
    pub level: LogLevel,
    /// Which requests get a line of their own. Default `Shed`.
    pub access: AccessLog,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people at a terminal.
    Text,
}

/// Least severity that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word that log filters use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Which requests get a line of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None of them; metrics still count all.
    None,
    /// Refused ones.
    #[default]
    Shed,
    /// All of them: some microseconds a request.
    All,
}

/// A file of `audit.k8s.io/v1` events: requests that spillway answered itself, levers, changes of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditTrail {
    /// The file. Its folder is made when it is missing (0700), the file is 0600. If it cannot be written, the log says so,
    /// records are counted as lost, and it is tried again every 5 s.
    pub file: PathBuf,
    /// A file of this size is set aside as `FILE.1`. Default 100 MiB, range 1 MiB to 1 GiB.
    pub max_size: u32,
    /// Older files that are kept. Default 10, range 0 to 100.
    pub max_backups: u32,
}

impl AuditTrail {
    /// Default of [`Self::max_size`].
    pub const MAX_SIZE: u32 = 100 << 20;
    /// Default of [`Self::max_backups`].
    pub const MAX_BACKUPS: u32 = 10;
}

/// What happens on SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From SIGTERM to the end; watches are ended spread over it. Default 25 s, under the 30 s that Kubernetes gives
    /// a pod; range 0 s to 1 h. 0: connections are closed at once.
    pub grace_period: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace_period: Duration::from_secs(25) }
    }
}

/// What is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The folder for it: what calls cost, written every minute and at the end. No default; it is made when it is
    /// missing. If it cannot be written, the log says so once, and a restart starts cold.
    pub dir: PathBuf,
}
