//! How is a ProxyConfiguration written so that nothing is left to a default?
//!
//! Read again it is the same: a test holds this and the list of keys together.

use std::path::PathBuf;

use super::credentials;
use super::tree::{Tree, list, map, maybe, path, some, text};
use crate::config::admin::AdminRoles;
use crate::config::proxy::*;
use crate::config::quantity::show_size;

/// Every key below `apiVersion` and `kind`.
pub(super) fn tree(proxy: &ProxyConfiguration) -> Tree {
    map([
        ("listeners", list(&proxy.listeners, listener)),
        ("limits", limits(&proxy.limits)),
        ("timeouts", timeouts(&proxy.timeouts)),
        ("authentication", credentials::tree(&proxy.authentication)),
        ("upstreams", upstreams(&proxy.upstreams)),
        ("breakGlass", maybe(proxy.break_glass.as_ref(), break_glass)),
        ("runtime", map([("mode", mode(proxy.runtime.mode)), ("shards", proxy.runtime.shards.into())])),
        ("metrics", map([("address", proxy.metrics.address.into())])),
        ("admin", admin(&proxy.admin)),
        ("logging", logging(proxy.logging)),
        ("audit", maybe(proxy.audit.as_ref(), audit)),
        ("drain", map([("gracePeriod", proxy.drain.grace_period.into())])),
        ("state", maybe(proxy.state.as_ref(), |state| map([("dir", (&state.dir).into())]))),
    ])
}

fn listener(listener: &Listener) -> Tree {
    let ServerTls { cert_file, key_file, min_version } = &listener.tls;
    let min_version = match min_version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    };
    map([
        ("name", (&listener.name).into()),
        ("address", listener.address.into()),
        (
            "tls",
            map([
                ("certFile", cert_file.into()),
                ("keyFile", key_file.into()),
                ("minVersion", text(min_version)),
            ]),
        ),
        ("http2", map([("maxConcurrentStreams", listener.http2.max_concurrent_streams.into())])),
    ])
}

fn audit(trail: &AuditTrail) -> Tree {
    map([
        ("file", (&trail.file).into()),
        ("maxSize", text(show_size(trail.max_size.into()))),
        ("maxBackups", trail.max_backups.into()),
    ])
}

fn limits(limits: &Limits) -> Tree {
    map([
        ("headerBytes", text(show_size(limits.header_bytes.into()))),
        ("headerFields", limits.header_fields.into()),
        ("connections", limits.connections.into()),
        ("connectionsPerSource", limits.connections_per_source.into()),
        ("connectionsPerUser", limits.connections_per_user.into()),
        ("memory", maybe(limits.memory, |bytes| text(show_size(bytes)))),
    ])
}

fn timeouts(timeouts: &Timeouts) -> Tree {
    map([
        ("firstByte", timeouts.first_byte.into()),
        ("handshake", timeouts.handshake.into()),
        ("firstRequest", timeouts.first_request.into()),
        ("headers", timeouts.headers.into()),
        ("response", timeouts.response.into()),
    ])
}

fn upstreams(upstreams: &Upstreams) -> Tree {
    let Upstreams { server, tls, forward_identity, connections, probe } = upstreams;
    let protocol = match forward_identity.unverified_protocol {
        UnverifiedProtocol::Http1 => "Http1",
        UnverifiedProtocol::Http2 => "Http2",
    };
    let url = text(format_args!("https://{}", server.address));
    map([
        ("servers", Tree::List(vec![map([("name", (&server.name).into()), ("url", url)])])),
        ("tls", map([("caFile", (&tls.ca_file).into()), ("serverName", (&tls.server_name).into())])),
        (
            "forwardIdentity",
            map([
                ("frontProxy", maybe(forward_identity.front_proxy.as_ref(), certificate)),
                ("unverifiedProtocol", text(protocol)),
            ]),
        ),
        (
            "connections",
            map([
                ("perLane", connections.per_lane.into()),
                ("streams", connections.streams.into()),
                ("connectTimeout", connections.connect_timeout.into()),
            ]),
        ),
        (
            "probe",
            map([
                ("user", (&probe.user).into()),
                ("groups", list(&probe.groups, Tree::from)),
                ("namespace", (&probe.namespace).into()),
            ]),
        ),
    ])
}

fn certificate(files: &CertificateFiles) -> Tree {
    map([("certFile", (&files.cert_file).into()), ("keyFile", (&files.key_file).into())])
}

fn break_glass(lane: &BreakGlass) -> Tree {
    let arming = match lane.arming {
        Arming::Open => "Open",
        Arming::Reasoned => "Reasoned",
        Arming::TwoPerson => "TwoPerson",
    };
    let on_use = match lane.on_use.as_slice() {
        [] => Tree::Null,
        command => map([("command", list(command, Tree::from))]),
    };
    let Grants { public_key_files, required, max_duration, cluster } = &lane.grants;
    map([
        ("address", lane.address.into()),
        ("tls", certificate(&lane.tls)),
        ("clientCAFile", (&lane.client_ca_file).into()),
        ("groups", list(&lane.groups, Tree::from)),
        ("seats", lane.seats.into()),
        ("rate", lane.rate.into()),
        ("burst", lane.burst.into()),
        ("denyFile", maybe(lane.deny_file.as_deref(), path)),
        ("arming", text(arming)),
        (
            "grants",
            map([
                ("publicKeyFiles", some(public_key_files, Tree::from)),
                ("required", (*required).into()),
                ("maxDuration", (*max_duration).into()),
                ("cluster", maybe(cluster.as_ref(), Tree::from)),
            ]),
        ),
        (
            "audit",
            map([
                ("dir", maybe(lane.audit.dir.as_deref(), path)),
                ("rotateBytes", text(show_size(lane.audit.rotate_bytes.into()))),
            ]),
        ),
        ("onUse", on_use),
        ("drill", maybe(lane.drill.as_ref(), certificate)),
    ])
}

fn mode(mode: RuntimeMode) -> Tree {
    text(match mode {
        RuntimeMode::Sharded => "Sharded",
        RuntimeMode::Shared => "Shared",
    })
}

fn admin(admin: &Admin) -> Tree {
    // Absent would be the default: none is a word of its own.
    let socket = |path: &Option<PathBuf>| path.as_ref().map_or_else(|| text("None"), Tree::from);
    let AdminRoles { viewer, operator, admin: all } = &admin.roles;
    let groups = |groups: &[String]| map([("groups", list(groups, Tree::from))]);
    let https = admin.https.as_ref().map(|https| {
        map([
            ("address", https.address.into()),
            ("tls", certificate(&https.tls)),
            ("names", list(&https.names, Tree::from)),
        ])
    });
    map([
        ("socket", socket(&admin.socket)),
        ("dashboard", map([("socket", socket(&admin.dashboard.socket))])),
        ("https", https.unwrap_or(Tree::Null)),
        ("roles", map([("viewer", groups(viewer)), ("operator", groups(operator)), ("admin", groups(all))])),
    ])
}

fn logging(logging: Logging) -> Tree {
    let format = match logging.format {
        LogFormat::Json => "Json",
        LogFormat::Text => "Text",
    };
    let level = match logging.level {
        LogLevel::Error => "Error",
        LogLevel::Warn => "Warn",
        LogLevel::Info => "Info",
        LogLevel::Debug => "Debug",
        LogLevel::Trace => "Trace",
    };
    let access = match logging.access {
        AccessLog::None => "None",
        AccessLog::Shed => "Shed",
        AccessLog::All => "All",
    };
    map([("format", text(format)), ("level", text(level)), ("access", text(access))])
}
