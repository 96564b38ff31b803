//! `spillway demo`: play the incident of 2024-12-11 without and with spillway, and show what was measured.
//!
//! Here the demo's `Stage` gets its proxy: the very parts that `spillway run` starts, with the embedded default
//! policy, configured with the demo's files instead of a cluster's.

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Ending;
use crate::app;
use crate::config::{
    self, Admin, AdminRoles, Arming, Authentication, BreakGlass, CertificateFiles, ClientCertificate,
    Connections, Dashboard, Drain, ForwardIdentity, Grants, Http2, LaneAudit, Limits, Listener, Logging,
    Metrics, ProbeIdentity, ProxyConfiguration, Runtime, Server, ServerTls, ServiceAccountToken, Timeouts,
    TlsVersion, UnverifiedProtocol, UpstreamTls, Upstreams,
};
use crate::demo::{self, Afterwards, Played, ProxyInputs, Report, RunningProxy, Standing};

/// Plays a telemetry storm twice against a modelled apiserver, without and with spillway, and compares.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway demo
  spillway demo --hold
  spillway demo --storm
  spillway demo --headless > result.json

Needs no cluster, no root and no configuration; takes about a minute. Everything listens on 127.0.0.1 and uses keys
that are made for this run. Exit code 0: spillway kept its promise; 1: it did not, or the demo could not play.")]
pub struct Args {
    /// Print the result as JSON
    #[arg(long, conflicts_with = "hold")]
    headless: bool,
    /// Keep cluster, spillway and calm traffic up after the report, until Ctrl-C
    #[arg(long)]
    hold: bool,
    /// Play only the storm, through spillway, and let it rage until Ctrl-C: to try the dashboard and the levers on
    #[arg(long, conflicts_with_all = ["headless", "hold"])]
    storm: bool,
    /// Seed of all jitter
    #[arg(long, value_name = "N", default_value_t = demo::Options::default().seed)]
    seed: u64,
    /// Modelled nodes, 50 to 500
    #[arg(long, value_name = "N", default_value_t = demo::Options::default().nodes)]
    nodes: usize,
}

/// Plays, prints and judges.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.storm {
        return storm(args, out, err);
    }
    let afterwards = if args.hold { Afterwards::Hold } else { Afterwards::End };
    let options = demo::Options { seed: args.seed, nodes: args.nodes, afterwards };
    let Played { report, standing } = match demo::play(&start, &options) {
        Ok(played) => played,
        Err(error) => return failed(&error, err),
    };
    // A closed terminal cannot be told anything; the exit code still says it.
    let _ = if args.headless { print_json(&report, out) } else { write!(out, "\n{}", report.render()) };
    if let Some(standing) = standing {
        let _ = print_standing(&standing, out);
        if let Err(error) = standing.until_interrupted() {
            return failed(&error, err);
        }
    }
    if report.verdict.passed { Ending::Fine } else { Ending::Failed }
}

/// A storm to look at, and to end by isolating its culprit.
fn storm(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let options = demo::Options { seed: args.seed, nodes: args.nodes, afterwards: Afterwards::Hold };
    let standing = match demo::storm(&start, &options) {
        Ok(standing) => standing,
        Err(error) => return failed(&error, err),
    };
    // A closed terminal cannot be told anything.
    let _ = print_standing(&standing, out);
    match standing.until_interrupted() {
        Ok(()) => Ending::Fine,
        Err(error) => failed(&error, err),
    }
}

fn failed(error: &demo::DemoError, err: &mut dyn Write) -> Ending {
    let _ = writeln!(err, "error: {}", app::chain(error));
    match error {
        demo::DemoError::OutOfRange { .. } => Ending::Usage,
        _ => Ending::Failed,
    }
}

fn print_json(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

fn print_standing(standing: &Standing, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\nspillway and the modelled cluster stay up until Ctrl-C. In another terminal:")?;
    writeln!(out, "  kubectl --kubeconfig {} get nodes", standing.kubeconfig().display())?;
    if let Some(path) = standing.break_glass_kubeconfig() {
        writeln!(out, "  kubectl --kubeconfig {} get nodes   # break-glass", path.display())?;
    }
    if let Some(address) = standing.metrics_address() {
        writeln!(out, "  curl http://{address}/metrics")?;
    }
    if let Some(socket) = standing.admin_socket() {
        writeln!(out, "  spillway status --socket {}", socket.display())?;
        if let Some(page) = Dashboard::beside(Some(socket)).socket {
            writeln!(out, "  spillway dashboard --port 0 --socket {}", page.display())?;
        }
    }
    out.flush()
}

/// In the demo's own folder, which only its user may open.
fn admin_socket(inputs: &ProxyInputs) -> PathBuf {
    inputs.directory.join("admin.sock")
}

/// The demo's proxy: spillway itself.
pub(super) fn start(inputs: &ProxyInputs) -> Result<RunningProxy, Box<dyn Error + Send + Sync>> {
    let running = app::start(&configuration(inputs), &config::default_policy()?)?;
    let addresses = running.addresses();
    let (_, address) = addresses.listeners.first().ok_or("spillway has no listener")?;
    Ok(RunningProxy {
        address: *address,
        metrics_address: Some(addresses.metrics),
        break_glass_address: addresses.break_glass,
        admin_socket: Some(admin_socket(inputs)),
        running: Box::new(running),
    })
}

/// Any free port of the loopback address.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a person would write into `spillway.yaml` for this cluster; all else is default.
fn configuration(inputs: &ProxyInputs) -> ProxyConfiguration {
    let tls = ServerTls {
        cert_file: inputs.serving_certificate_file.clone(),
        key_file: inputs.serving_key_file.clone(),
        min_version: TlsVersion::default(),
    };
    ProxyConfiguration {
        listeners: vec![Listener {
            name: "demo".to_owned(),
            address: ANY,
            tls: tls.clone(),
            http2: Http2::default(),
        }],
        limits: limits(),
        timeouts: Timeouts::default(),
        authentication: authentication(inputs),
        upstreams: upstreams(inputs),
        break_glass: Some(BreakGlass {
            address: ANY,
            tls: CertificateFiles { cert_file: tls.cert_file, key_file: tls.key_file },
            client_ca_file: inputs.break_glass_ca_file.clone(),
            groups: BreakGlass::default_groups(),
            seats: BreakGlass::SEATS,
            rate: BreakGlass::RATE,
            burst: BreakGlass::BURST,
            deny_file: None,
            arming: Arming::default(),
            grants: Grants::default(),
            audit: LaneAudit::default(),
            on_use: vec![],
            drill: None,
        }),
        runtime: Runtime::default(),
        metrics: Metrics { address: ANY },
        admin: {
            let socket = admin_socket(inputs);
            Admin {
                dashboard: Dashboard::beside(Some(&socket)),
                socket: Some(socket),
                https: None,
                roles: AdminRoles::default(),
            }
        },
        logging: Logging::default(),
        audit: None,
        drain: Drain::default(),
        state: None,
    }
}

/// The whole demo comes from one address, so the bound per source must not be what protects it.
fn limits() -> Limits {
    let limits = Limits::default();
    Limits { connections_per_source: limits.connections, ..limits }
}

fn authentication(inputs: &ProxyInputs) -> Authentication {
    let issuer = inputs.service_account_issuer.to_owned();
    Authentication {
        client_certificate: Some(ClientCertificate {
            ca_file: inputs.client_ca_file.clone(),
            deny_file: None,
        }),
        service_account_token: Some(ServiceAccountToken {
            issuers: vec![issuer.clone()],
            audiences: vec![issuer],
            public_key_files: vec![inputs.service_account_key_file.clone()],
            jwks_file: None,
        }),
        ..Authentication::default()
    }
}

fn upstreams(inputs: &ProxyInputs) -> Upstreams {
    Upstreams {
        server: Server { name: "model".to_owned(), address: inputs.upstream },
        tls: UpstreamTls {
            ca_file: inputs.upstream_ca_file.clone(),
            server_name: inputs.upstream_name.to_owned(),
        },
        forward_identity: ForwardIdentity {
            front_proxy: Some(CertificateFiles {
                cert_file: inputs.front_proxy_certificate_file.clone(),
                key_file: inputs.front_proxy_key_file.clone(),
            }),
            unverified_protocol: UnverifiedProtocol::default(),
        },
        connections: Connections::default(),
        probe: ProbeIdentity::default(),
    }
}
