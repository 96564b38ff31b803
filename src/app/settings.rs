//! How does what the operator wrote become what the parts understand?
//!
//! Pure translation: every value was checked when the configuration was loaded, every default lives there. Reading
//! the files that it names is left to the parts that know what must be in them.

use crate::authn::{self, Material, token};
use crate::breakglass;
use crate::config::{self as proxy, ProxyConfiguration, TrafficPolicy};
use crate::flow::{self, CeilingSettings};
use crate::policy::{Lane, Rate};
use crate::server::{self, MinVersion, Mode, Resumption, Threads, TlsSettings};
use crate::telemetry::{AccessLog, AuditSettings, LogFormat};
use crate::units::Seats;
use crate::upstream::{self, ClientCertificate, Rotation};

use super::StartError;
use super::descriptors::Plan;

/// Threads that leave a core to the control and break-glass threads once there are this many.
const CORES_WORTH_RESERVING: usize = 4;

pub(super) fn authn(proxy: &ProxyConfiguration) -> authn::Settings {
    let authentication = &proxy.authentication;
    let certificates = authentication.client_certificate.as_ref();
    authn::Settings {
        client_ca: certificates.map(|ca| Material::File(ca.ca_file.clone())),
        denied: certificates.and_then(|ca| ca.deny_file.clone()).map(Material::File),
        service_accounts: authentication.service_account_token.as_ref().map(|tokens| token::Settings {
            keys: tokens
                .public_key_files
                .iter()
                .chain(&tokens.jwks_file)
                .cloned()
                .map(Material::File)
                .collect(),
            issuers: tokens.issuers.clone(),
            audiences: tokens.audiences.clone(),
        }),
        providers: authentication.jwt.iter().map(provider).collect(),
        reviews: authentication.token_review.clone().map(|reviews| {
            let proxy::TokenReview { user, audiences, positive_ttl, negative_ttl, wait } = reviews;
            authn::review::Settings { user, audiences, positive_ttl, negative_ttl, wait }
        }),
        anonymous: match &authentication.anonymous {
            proxy::Anonymous { enabled: false, .. } => authn::Anonymous::Nowhere,
            proxy::Anonymous { paths: Some(paths), .. } => authn::Anonymous::At(paths.clone()),
            proxy::Anonymous { paths: None, .. } => authn::Anonymous::Anywhere,
        },
    }
}

fn provider(jwt: &proxy::JwtProvider) -> authn::oidc::Settings {
    let prefixed = |claim: &proxy::PrefixedClaim| (claim.claim.clone(), claim.prefix.clone());
    let mappings = &jwt.claim_mappings;
    authn::oidc::Settings {
        issuer: jwt.issuer.url.clone(),
        audiences: jwt.issuer.audiences.clone(),
        keys: match jwt.issuer.keys.clone() {
            proxy::JwtKeys::File(file) => authn::oidc::KeySource::File(Material::File(file)),
            proxy::JwtKeys::Url { host, port, path, ca_file } => {
                let ca = Material::File(ca_file);
                authn::oidc::KeySource::Remote(authn::Endpoint { host, port, path, ca })
            }
        },
        required: jwt
            .claim_validation_rules
            .iter()
            .map(|rule| (rule.claim.clone(), rule.required_value.clone()))
            .collect(),
        username: prefixed(&mappings.username),
        groups: mappings.groups.as_ref().map(prefixed),
        uid: mappings.uid.clone(),
        extra: mappings.extra.clone(),
    }
}

pub(super) fn tls(tls: &proxy::ServerTls) -> TlsSettings {
    TlsSettings {
        certificate: Material::File(tls.cert_file.clone()),
        key: Material::File(tls.key_file.clone()),
        min_version: match tls.min_version {
            proxy::TlsVersion::V1_2 => MinVersion::Tls12,
            proxy::TlsVersion::V1_3 => MinVersion::Tls13,
        },
        resumption: Resumption::Tickets,
    }
}

pub(super) fn server(
    proxy: &ProxyConfiguration,
    listener: &proxy::Listener,
    plan: &Plan,
) -> server::Settings {
    let mut settings = server::Settings::default();
    settings.limits.connections = plan.clients;
    settings.limits.connections_per_source = (proxy.limits.connections_per_source as usize).min(plan.clients);
    settings.limits.slow_offenders = proxy.limits.connections_per_source < proxy.limits.connections;
    settings.limits.connections_per_user = match proxy.limits.connections_per_user as usize {
        // Few descriptors: still nobody takes them all.
        most if plan.clients < proxy.limits.connections as usize => most.min(plan.clients / 2),
        most => most,
    };
    settings.limits.header_bytes = proxy.limits.header_bytes;
    settings.limits.header_fields = proxy.limits.header_fields as usize;
    settings.limits.streams = listener.http2.max_concurrent_streams;
    settings.deadlines.first_byte = proxy.timeouts.first_byte;
    settings.deadlines.handshake = proxy.timeouts.handshake;
    settings.deadlines.first_request = proxy.timeouts.first_request;
    settings.deadlines.headers = proxy.timeouts.headers;
    settings
}

pub(super) fn threads(runtime: proxy::Runtime) -> Threads {
    let mode = match runtime.mode {
        proxy::RuntimeMode::Sharded => Mode::Sharded,
        proxy::RuntimeMode::Shared => Mode::Shared,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = match runtime.shards as usize {
        0 if cores >= CORES_WORTH_RESERVING => cores - 1,
        0 => cores,
        count => count,
    };
    Threads { mode, count, name: "shard" }
}

pub(super) fn upstream(proxy: &ProxyConfiguration) -> Result<upstream::Settings, StartError> {
    let upstreams = &proxy.upstreams;
    let name = upstreams.tls.server_name.clone();
    let server_name =
        rustls_pki_types::ServerName::try_from(name.clone()).map_err(|_| StartError::ServerName(name))?;
    let roots = read(&upstreams.tls.ca_file, "the apiserver's CA")?;
    let mut settings = upstream::Settings::new(upstreams.server.address, server_name, roots);
    if let Some(files) = &upstreams.forward_identity.front_proxy {
        let identity = front_proxy(files)?;
        settings.rotation = Some(Rotation::new(&identity)?);
        settings.front_proxy = Some(identity);
    }
    settings.unverified_protocol = match upstreams.forward_identity.unverified_protocol {
        proxy::UnverifiedProtocol::Http1 => upstream::UnverifiedProtocol::Http1,
        proxy::UnverifiedProtocol::Http2 => upstream::UnverifiedProtocol::Http2,
    };
    let proxy::ProbeIdentity { user, groups, namespace } = upstreams.probe.clone();
    settings.probe = upstream::ProbeIdentity { user, groups, namespace };
    let per_lane = upstreams.connections.per_lane;
    for (lane, most) in Lane::ALL.into_iter().zip(&mut settings.short_connections_max) {
        // Telemetry's own bound is a protection: the knob can lower it, never raise it.
        *most = if lane == Lane::Telemetry { per_lane.min(*most) } else { per_lane };
    }
    settings.streams_max = upstreams.connections.streams;
    settings.connect_timeout = upstreams.connections.connect_timeout;
    settings.first_byte_timeout = proxy.timeouts.response;
    Ok(settings)
}

/// The front-proxy certificate as its files have it now.
pub(super) fn front_proxy(files: &proxy::CertificateFiles) -> Result<ClientCertificate, StartError> {
    Ok(ClientCertificate {
        chain_pem: read(&files.cert_file, "the front-proxy certificate")?,
        key_pem: read(&files.key_file, "the front-proxy key")?,
    })
}

/// The scheduler's settings under `policy`: what `run` starts with, and what `simulate` simulates.
#[must_use]
pub fn flow(policy: &TrafficPolicy) -> flow::Settings {
    let overload = &policy.overload;
    flow::Settings {
        lanes: policy.lanes,
        limit: flow::LimitSettings {
            min: Seats(overload.limit.min),
            max: Seats(overload.limit.max),
            start: Seats(overload.limit.initial),
        },
        objectives: flow::Objectives {
            object: overload.objectives.object,
            namespace_list: overload.objectives.namespace,
            cluster_list: overload.objectives.cluster,
        },
        memory: overload.memory,
        watches: overload.watches,
        hold: overload.hold,
        laws: flow::Laws { cancel_worst: overload.cancel_worst, ..flow::Laws::default() },
        ..flow::Settings::default()
    }
}

/// The lane's settings; `state` is where the process keeps what survives a restart.
pub(super) fn break_glass(
    lane: &proxy::BreakGlass,
    proxy: &ProxyConfiguration,
    plan: &Plan,
) -> breakglass::Settings {
    breakglass::Settings {
        deny_file: lane.deny_file.clone(),
        arming: match lane.arming {
            proxy::Arming::Open => breakglass::ArmMode::Open,
            proxy::Arming::Reasoned => breakglass::ArmMode::Reasoned,
            proxy::Arming::TwoPerson => breakglass::ArmMode::TwoPerson,
        },
        grants: breakglass::GrantSettings {
            key_files: lane.grants.public_key_files.clone(),
            required: lane.grants.required,
            longest: lane.grants.max_duration,
            cluster: lane.grants.cluster.clone(),
        },
        state_folder: proxy.state.as_ref().map(|state| state.dir.clone()),
        on_use: lane.on_use.clone(),
        drill: lane.drill.as_ref().map(|drill| breakglass::Drill {
            certificate: Material::File(drill.cert_file.clone()),
            key: Material::File(drill.key_file.clone()),
        }),
        address: lane.address,
        certificate: Material::File(lane.tls.cert_file.clone()),
        key: Material::File(lane.tls.key_file.clone()),
        client_ca: Material::File(lane.client_ca_file.clone()),
        groups: lane.groups.clone(),
        connections: plan.break_glass,
    }
}

/// Where refusals are written down in kube-apiserver's form.
pub(super) fn trail(proxy: &ProxyConfiguration) -> Option<AuditSettings> {
    proxy.audit.as_ref().map(|trail| AuditSettings {
        file: trail.file.clone(),
        max_bytes: trail.max_size.into(),
        max_backups: trail.max_backups,
    })
}

/// Where it is written down what was done through the break-glass lane and by levers: without a lane, levers alone.
pub(super) fn audit(proxy: &ProxyConfiguration) -> Option<breakglass::audit::Settings> {
    let state = proxy.state.as_ref().map(|state| state.dir.clone());
    let audit = proxy.break_glass.as_ref().map(|lane| lane.audit.clone()).unwrap_or_default();
    let folder = audit.dir.or_else(|| state.clone())?;
    Some(breakglass::audit::Settings {
        key_folder: state.unwrap_or_else(|| folder.clone()),
        folder,
        rotate_bytes: u64::from(audit.rotate_bytes),
        host: host(),
        config_hash: breakglass::audit::config_hash(&format!("{proxy:?}")),
    })
}

/// The node's name, for records that are read beside those of others.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

pub(super) fn ceiling(lane: &proxy::BreakGlass) -> CeilingSettings {
    CeilingSettings {
        seats: Seats(lane.seats),
        rate: Rate { per_second: lane.rate, burst: lane.burst },
        ..CeilingSettings::default()
    }
}

pub(super) const fn access_log(access: proxy::AccessLog) -> AccessLog {
    match access {
        proxy::AccessLog::None => AccessLog::None,
        proxy::AccessLog::Shed => AccessLog::Shed,
        proxy::AccessLog::All => AccessLog::All,
    }
}

/// The log format that the configuration asks for.
#[must_use]
pub const fn log_format(format: proxy::LogFormat) -> LogFormat {
    match format {
        proxy::LogFormat::Json => LogFormat::Json,
        proxy::LogFormat::Text => LogFormat::Text,
    }
}

fn read(path: &std::path::Path, what: &'static str) -> Result<Vec<u8>, StartError> {
    let material = Material::File(path.to_owned());
    Ok(material.read(what)?.into_owned())
}
