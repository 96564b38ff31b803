//! How does `kind: ProxyConfiguration` become its type?
//!
//! Ranges stand here beside the key they belong to; what they mean stands in [`super::proxy`]. Checks that need two
//! keys come last in each section, when both were read.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::authentication::Anonymous;
use super::diagnostic::{Code, Diagnostic};
use super::files::Content;
use super::proxy::*;
use super::section::{Field, Section};
use super::{read_admin, read_authentication};

/// Range of the phases of a connection: shorter breaks slow links, longer is no protection.
const PHASE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Least memory limit: the program's own pages and an idle runtime take half of it.
const MEMORY_MIN: u64 = 32 << 20;

/// Lists in this document: more entries are a mistake, not a need.
pub(super) const ENTRIES_MAX: usize = 16;

/// Reads everything below `apiVersion` and `kind`.
pub(super) fn read(section: &mut Section<'_>) -> Option<ProxyConfiguration> {
    let listeners = section.need("listeners", |field| field.list(1..=ENTRIES_MAX, listener));
    let limits = section.or("limits", Limits::default(), |field| field.section(limits));
    let timeouts = section.or("timeouts", Timeouts::default(), |field| field.section(timeouts));
    let authentication =
        section.or("authentication", Authentication::default(), |field| field.section(authentication));
    let upstreams = section.need("upstreams", |field| field.section(upstreams));
    let break_glass = section.maybe("breakGlass", |field| field.section(break_glass));
    let runtime = section.or("runtime", Runtime::default(), |field| field.section(runtime));
    let metrics = section.or("metrics", Metrics::default(), |field| field.section(metrics));
    let admin = section.or("admin", Admin::default(), |field| field.section(read_admin::admin));
    let logging = section.or("logging", Logging::default(), |field| field.section(logging));
    let audit = section.maybe("audit", |field| field.section(audit));
    let drain = section.or("drain", Drain::default(), |field| field.section(drain));
    let state = section.maybe("state", |field| field.section(state));
    let (listeners, fields): (Vec<_>, Vec<_>) = listeners?.into_iter().unzip();
    check_names(&listeners, &fields);
    let read = ProxyConfiguration {
        listeners,
        limits,
        timeouts,
        authentication,
        upstreams: upstreams?,
        break_glass,
        runtime,
        metrics,
        admin,
        logging,
        audit,
        drain,
        state,
    };
    check_addresses(&read, &fields, section);
    check_trust(&read, section);
    read_admin::check(&read, section);
    Some(read)
}

fn check_names(listeners: &[Listener], fields: &[Field<'_>]) {
    for (at, (listener, field)) in listeners.iter().zip(fields).enumerate() {
        if listeners[..at].iter().any(|other| other.name == listener.name) {
            let message = format!("two listeners have the name {:?}", listener.name);
            field.report(Code::DuplicateName, message, "the second of them");
        }
    }
}

/// Two sockets cannot share an address, and one that takes every address of its port shares it with all: so a
/// listener on `0.0.0.0:6443` meets the kube-apiserver on `127.0.0.1:6443`.
fn check_addresses(read: &ProxyConfiguration, fields: &[Field<'_>], section: &mut Section<'_>) {
    let upstream = &read.upstreams.server;
    let mut taken = vec![(upstream.address, format!("the kube-apiserver {:?}", upstream.name))];
    let mut listening: Vec<_> = read
        .listeners
        .iter()
        .zip(fields)
        .map(|(listener, field)| {
            (listener.address, format!("the listener {:?}", listener.name), Some(field.clone()))
        })
        .collect();
    if let Some(break_glass) = &read.break_glass {
        listening.push((break_glass.address, "the break-glass listener".into(), section.field("breakGlass")));
    }
    listening.push((read.metrics.address, "the metrics listener".into(), section.field("metrics")));
    if let Some(https) = &read.admin.https {
        listening.push((https.address, "the operators' address".into(), section.field("admin")));
    }
    for (address, name, field) in listening {
        if let Some((other, owner)) = taken.iter().find(|(other, _)| clash(address, *other)) {
            let message = format!("{name} cannot have {address}: {owner} has {other}");
            match field {
                Some(field) => {
                    field.report(Code::DuplicateAddress, message, "choose another address or port")
                }
                None => section.report(Diagnostic::new(Code::DuplicateAddress, message)),
            }
        }
        taken.push((address, name));
    }
}

/// Port 0 takes a free one and meets nobody.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (everywhere || one.ip() == other.ip())
}

fn check_trust(read: &ProxyConfiguration, section: &mut Section<'_>) {
    let certificates = &read.authentication.client_certificate;
    if certificates.is_some()
        && read.upstreams.forward_identity.front_proxy.is_none()
        && let Some(field) = section.field("authentication")
    {
        let message = "client certificates are verified here, but could not be named to kube-apiserver";
        let label = "`clientCertificate` needs `upstreams.forwardIdentity.frontProxy`";
        field.report_with(Code::NoFrontProxy, message, label, |diagnostic| {
            diagnostic.help(
                "frontProxy: { certFile: /etc/kubernetes/pki/front-proxy-client.crt, \
                 keyFile: /etc/kubernetes/pki/front-proxy-client.key }",
            )
        });
    }
    if read.authentication.token_review.is_some()
        && read.upstreams.forward_identity.front_proxy.is_none()
        && let Some(field) = section.field("authentication")
    {
        let message =
            "tokens are to be reviewed, but spillway cannot say who it is when it asks kube-apiserver";
        let label = "`tokenReview` needs `upstreams.forwardIdentity.frontProxy`";
        field.report(Code::ReviewWithoutFrontProxy, message, label);
    }
    if read.authentication.service_account_token.is_none() {
        section.report(
            Diagnostic::new(Code::TokensUnverified, "service-account tokens are not verified: every pod ranks as unknown")
                .help("add `authentication.serviceAccountToken`, so that CoreDNS and the CNI are told from telemetry"),
        );
    }
    let Some(break_glass) = &read.break_glass else {
        section.report(
            Diagnostic::new(
                Code::NoBreakGlass,
                "there is no break-glass lane: operators have no way in of their own",
            )
            .help("add `breakGlass` with an address and a CA of its own"),
        );
        return;
    };
    if (break_glass.arming != Arming::Open || break_glass.grants.required)
        && read.state.is_none()
        && let Some(field) = section.field("breakGlass")
    {
        let message = "a restart would disarm everybody: there is no folder to keep who has armed the lane";
        field.report(Code::ArmingForgotten, message, "`arming` needs `state.dir`");
    }
    if certificates.as_ref().is_some_and(|certificates| certificates.ca_file == break_glass.client_ca_file)
        && let Some(field) = section.field("breakGlass")
    {
        let message = "the break-glass lane trusts the cluster's client CA: every kubelet could enter";
        field.report(Code::BreakGlassClientCa, message, "needs a CA of its own in `clientCAFile`");
    }
}

fn listener<'a>(field: Field<'a>) -> Option<(Listener, Field<'a>)> {
    let listener = field.clone().section(|section| {
        let name = section.need("name", Field::name);
        let address = section.need("address", Field::address);
        let tls = section.need("tls", |field| field.section(server_tls));
        let http2 = section.or("http2", Http2::default(), |field| field.section(http2));
        Some(Listener { name: name?, address: address?, tls: tls?, http2 })
    })?;
    Some((listener, field))
}

fn http2(section: &mut Section<'_>) -> Option<Http2> {
    let default = Http2::default().max_concurrent_streams;
    Some(Http2 {
        max_concurrent_streams: section
            .or("maxConcurrentStreams", default, |field| field.integer(1..=10_000)),
    })
}

fn server_tls(section: &mut Section<'_>) -> Option<ServerTls> {
    let files = certificate_files(section);
    let min_version = section.or("minVersion", TlsVersion::default(), |field| {
        field.choice(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)])
    });
    let CertificateFiles { cert_file, key_file } = files?;
    Some(ServerTls { cert_file, key_file, min_version })
}

pub(super) fn certificate_files(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let cert_file = section.need("certFile", |field| field.file(Content::Certificates));
    let key_file = section.need("keyFile", |field| field.file(Content::PrivateKey));
    Some(CertificateFiles { cert_file: cert_file?, key_file: key_file? })
}

fn limits(section: &mut Section<'_>) -> Option<Limits> {
    let default = Limits::default();
    let header_bytes = section.or("headerBytes", default.header_bytes, |field| field.size(8 << 10..=1 << 20));
    let header_fields = section.or("headerFields", default.header_fields, |field| field.integer(16..=1_000));
    let connections = section.or("connections", default.connections, |field| field.integer(16..=1_000_000));
    let per_source = section.field("connectionsPerSource");
    let connections_per_user =
        section.or("connectionsPerUser", connections / 2, |field| field.integer(1..=1_000_000));
    let memory = section.maybe("memory", |field| memory(&field));
    let connections_per_source = per_source
        .clone()
        .and_then(|field| field.integer(1..=1_000_000))
        .unwrap_or(default.connections_per_source);
    if let Some(field) = per_source
        && connections_per_source > connections
    {
        let message = format!("`{}` is more than `limits.connections`, which is {connections}", field.path());
        field.report(Code::Contradiction, message, format!("expected at most {connections}"));
    }
    Some(Limits {
        header_bytes,
        header_fields,
        connections,
        connections_per_source: connections_per_source.min(connections),
        connections_per_user,
        memory,
    })
}

fn memory(field: &Field<'_>) -> Option<u64> {
    let bytes = field.clone().bytes(0..=1 << 40)?;
    if (1..MEMORY_MIN).contains(&bytes) {
        let message = format!("`{}` is less than an idle spillway takes", field.path());
        field.report(Code::MemoryTooSmall, message, "expected at least 32MiB, or 0 for no limit");
        return None;
    }
    Some(bytes)
}

fn timeouts(section: &mut Section<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let response = Duration::from_secs(1)..=Duration::from_secs(3_600);
    Some(Timeouts {
        first_byte: section.or("firstByte", default.first_byte, |field| field.duration(PHASE)),
        handshake: section.or("handshake", default.handshake, |field| field.duration(PHASE)),
        first_request: section.or("firstRequest", default.first_request, |field| field.duration(PHASE)),
        headers: section.or("headers", default.headers, |field| field.duration(PHASE)),
        response: section.or("response", default.response, |field| field.duration(response)),
    })
}

fn authentication(section: &mut Section<'_>) -> Option<Authentication> {
    let client_certificate = section.maybe("clientCertificate", |field| {
        field.section(|section| {
            let ca_file = section.need("caFile", |field| field.file(Content::Certificates));
            let deny_file = section.maybe("denyFile", |field| field.file(Content::Lines));
            Some(ClientCertificate { ca_file: ca_file?, deny_file })
        })
    });
    let service_account_token = section.maybe("serviceAccountToken", |field| service_account_token(&field));
    let issuers = service_account_token.as_ref().map_or(&[][..], |tokens| tokens.issuers.as_slice());
    let jwt = section.or("jwt", vec![], |field| read_authentication::jwt(field, issuers));
    let token_review = section.maybe("tokenReview", |field| field.section(read_authentication::token_review));
    let anonymous =
        section.or("anonymous", Anonymous::default(), |field| field.section(read_authentication::anonymous));
    Some(Authentication { client_certificate, service_account_token, jwt, token_review, anonymous })
}

fn service_account_token(field: &Field<'_>) -> Option<ServiceAccountToken> {
    let texts = |field: Field<'_>| {
        field.list(1..=ENTRIES_MAX, |entry| {
            entry.parsed("an issuer or audience", |text| (!text.is_empty()).then(|| text.to_owned()))
        })
    };
    let read = field.clone().section(|section| {
        let issuers = section.need("issuers", texts);
        let audiences = section.maybe("audiences", texts);
        let public_key_files = section.maybe("publicKeyFiles", |field| {
            field.list(1..=ENTRIES_MAX, |entry| entry.file(Content::PublicKeys))
        });
        let jwks_file = section.maybe("jwksFile", |field| field.file(Content::KeySet));
        let issuers = issuers?;
        Some(ServiceAccountToken {
            audiences: audiences.unwrap_or_else(|| issuers.clone()),
            issuers,
            public_key_files: public_key_files.unwrap_or_default(),
            jwks_file,
        })
    })?;
    if read.public_key_files.is_empty() && read.jwks_file.is_none() {
        let message = format!("`{}` has no key to verify tokens with", field.path());
        field.report_with(Code::MissingKey, message, "needs `publicKeyFiles` or `jwksFile`", |diagnostic| {
            diagnostic.help("on a kubeadm control-plane node: publicKeyFiles: [/etc/kubernetes/pki/sa.pub]")
        });
        return None;
    }
    Some(read)
}

fn upstreams(section: &mut Section<'_>) -> Option<Upstreams> {
    let server = section.need("servers", only_server);
    let tls = section.need("tls", |field| {
        field.section(|section| {
            let ca_file = section.need("caFile", |field| field.file(Content::Certificates));
            let server_name = section.or("serverName", "kubernetes".to_owned(), |field| {
                field.parsed("a DNS name or an IP address", |text| {
                    rustls_pki_types::ServerName::try_from(text).ok().map(|_| text.to_owned())
                })
            });
            Some(UpstreamTls { ca_file: ca_file?, server_name })
        })
    });
    let forward_identity =
        section.or("forwardIdentity", ForwardIdentity::default(), |field| field.section(forward_identity));
    let connections = section.or("connections", Connections::default(), |field| field.section(connections));
    let probe = section.or("probe", ProbeIdentity::default(), |field| field.section(probe));
    Some(Upstreams { server: server?, tls: tls?, forward_identity, connections, probe })
}

fn probe(section: &mut Section<'_>) -> Option<ProbeIdentity> {
    // They are sent as header values.
    let name = |field: Field<'_>| {
        field.parsed("an ASCII name without control characters", |text| {
            (!text.is_empty() && text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()))
                .then(|| text.to_owned())
        })
    };
    let default = ProbeIdentity::default();
    Some(ProbeIdentity {
        user: section.or("user", default.user, name),
        groups: section.or("groups", default.groups, |field| field.list(0..=ENTRIES_MAX, name)),
        namespace: section.or("namespace", default.namespace, Field::name),
    })
}

fn only_server(field: Field<'_>) -> Option<Server> {
    let servers = field.clone().list(1..=ENTRIES_MAX, |entry| {
        entry.section(|section| {
            let name = section.need("name", Field::name);
            let address = section.need("url", |field| {
                field.parsed(
                    "https:// with an IP address and a port, such as https://127.0.0.1:6443",
                    address_of_url,
                )
            });
            Some(Server { name: name?, address: address? })
        })
    })?;
    let count = servers.len();
    if count > 1 {
        let message = format!("{count} servers, but spillway forwards to exactly one kube-apiserver");
        field.report_with(Code::TooMany, message, "keep the one on this node", |diagnostic| {
            diagnostic
                .help("run one spillway beside each kube-apiserver: then one node's trouble stays its own")
        });
    }
    servers.into_iter().next()
}

/// The address in `https://IP:PORT`. No host name: DNS may be down when it is needed most.
fn address_of_url(url: &str) -> Option<SocketAddr> {
    let authority = url.strip_prefix("https://")?;
    authority.strip_suffix('/').unwrap_or(authority).parse().ok()
}

fn forward_identity(section: &mut Section<'_>) -> Option<ForwardIdentity> {
    let front_proxy = section.maybe("frontProxy", |field| field.section(certificate_files));
    let unverified_protocol = section.or("unverifiedProtocol", UnverifiedProtocol::default(), |field| {
        field.choice(&[("Http1", UnverifiedProtocol::Http1), ("Http2", UnverifiedProtocol::Http2)])
    });
    Some(ForwardIdentity { front_proxy, unverified_protocol })
}

fn connections(section: &mut Section<'_>) -> Option<Connections> {
    let default = Connections::default();
    Some(Connections {
        per_lane: section.or("perLane", default.per_lane, |field| field.integer(1..=64)),
        streams: section.or("streams", default.streams, |field| field.integer(1..=1_000)),
        connect_timeout: section.or("connectTimeout", default.connect_timeout, |field| field.duration(PHASE)),
    })
}

fn break_glass(section: &mut Section<'_>) -> Option<BreakGlass> {
    let address = section.need("address", Field::address);
    let tls = section.need("tls", |field| field.section(certificate_files));
    let client_ca_file = section.need("clientCAFile", |field| field.file(Content::Certificates));
    let groups = section.or("groups", BreakGlass::default_groups(), |field| {
        field.list(1..=ENTRIES_MAX, |entry| {
            entry.parsed("the name of a group", |text| (!text.is_empty()).then(|| text.to_owned()))
        })
    });
    let seats = section.or("seats", BreakGlass::SEATS, |field| field.integer(1..=256));
    let rate = section.or("rate", BreakGlass::RATE, |field| field.integer(1..=1_000));
    let burst = section.or("burst", BreakGlass::BURST, |field| field.integer(1..=10_000));
    let deny_file = section.maybe("denyFile", Field::folder);
    let arming = section.or("arming", Arming::default(), |field| {
        field.choice(&[
            ("Open", Arming::Open),
            ("Reasoned", Arming::Reasoned),
            ("TwoPerson", Arming::TwoPerson),
        ])
    });
    let grants = section.or("grants", Grants::default(), |field| field.section(grants));
    let audit = section.or("audit", LaneAudit::default(), |field| field.section(lane_audit));
    let on_use = section.or("onUse", vec![], |field| field.section(on_use));
    let drill = section.maybe("drill", |field| field.section(certificate_files));
    Some(BreakGlass {
        address: address?,
        tls: tls?,
        client_ca_file: client_ca_file?,
        groups,
        seats,
        rate,
        burst,
        deny_file,
        arming,
        grants,
        audit,
        on_use,
        drill,
    })
}

fn grants(section: &mut Section<'_>) -> Option<Grants> {
    const KEYS_MAX: usize = 8;
    let default = Grants::default();
    let required = section.or("required", default.required, Field::boolean);
    let files = |field: Field<'_>| field.list(1..=KEYS_MAX, |entry| entry.file(Content::GrantKeys));
    let public_key_files = if required {
        // Required, and nobody could sign one: then nobody would ever get in.
        section.need("publicKeyFiles", files)?
    } else {
        section.or("publicKeyFiles", default.public_key_files, files)
    };
    let range = Duration::from_secs(60)..=default.max_duration;
    Some(Grants {
        public_key_files,
        required,
        max_duration: section.or("maxDuration", default.max_duration, |field| field.duration(range)),
        cluster: section.maybe("cluster", Field::name),
    })
}

fn lane_audit(section: &mut Section<'_>) -> Option<LaneAudit> {
    Some(LaneAudit {
        dir: section.maybe("dir", Field::folder),
        rotate_bytes: section
            .or("rotateBytes", LaneAudit::default().rotate_bytes, |field| field.size(64 << 10..=1 << 30)),
    })
}

fn on_use(section: &mut Section<'_>) -> Option<Vec<String>> {
    section.need("command", |field| {
        let mut first = true;
        field.list(1..=ENTRIES_MAX, |entry| {
            let program = std::mem::take(&mut first);
            entry.parsed("a word; the first is the absolute path of a program", |text| {
                let fits = if program { text.starts_with('/') } else { !text.contains('\0') };
                fits.then(|| text.to_owned())
            })
        })
    })
}

fn runtime(section: &mut Section<'_>) -> Option<Runtime> {
    Some(Runtime {
        mode: section.or("mode", RuntimeMode::default(), |field| {
            field.choice(&[("Sharded", RuntimeMode::Sharded), ("Shared", RuntimeMode::Shared)])
        }),
        shards: section.or("shards", 0, |field| field.integer(0..=256)),
    })
}

fn metrics(section: &mut Section<'_>) -> Option<Metrics> {
    Some(Metrics { address: section.or("address", Metrics::default().address, Field::address) })
}

fn logging(section: &mut Section<'_>) -> Option<Logging> {
    Some(Logging {
        format: section.or("format", LogFormat::default(), |field| {
            field.choice(&[("Json", LogFormat::Json), ("Text", LogFormat::Text)])
        }),
        level: section.or("level", LogLevel::default(), |field| {
            field.choice(&[
                ("Error", LogLevel::Error),
                ("Warn", LogLevel::Warn),
                ("Info", LogLevel::Info),
                ("Debug", LogLevel::Debug),
                ("Trace", LogLevel::Trace),
            ])
        }),
        access: section.or("access", AccessLog::default(), |field| {
            field.choice(&[("None", AccessLog::None), ("Shed", AccessLog::Shed), ("All", AccessLog::All)])
        }),
    })
}

fn drain(section: &mut Section<'_>) -> Option<Drain> {
    let range = Duration::ZERO..=Duration::from_secs(3_600);
    let default = Drain::default().grace_period;
    Some(Drain { grace_period: section.or("gracePeriod", default, |field| field.duration(range)) })
}

fn audit(section: &mut Section<'_>) -> Option<AuditTrail> {
    let file = section.need("file", Field::new_file);
    let max_size = section.or("maxSize", AuditTrail::MAX_SIZE, |field| field.size(1 << 20..=1 << 30));
    let max_backups = section.or("maxBackups", AuditTrail::MAX_BACKUPS, |field| field.integer(0..=100));
    Some(AuditTrail { file: file?, max_size, max_backups })
}

fn state(section: &mut Section<'_>) -> Option<State> {
    let dir = section.need("dir", Field::folder);
    Some(State { dir: dir? })
}
