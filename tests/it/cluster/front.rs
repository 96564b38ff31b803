//! spillway in front of a cluster: the built program, started with a configuration that names this cluster's files.
//! Nothing here uses the library, so a test sees only what an operator would.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Cluster,
    process::{Process, free_port, tail, wait_for},
};

/// From start to both listeners answering.
const LISTENING: Duration = Duration::from_secs(20);

/// A running spillway: stopped when dropped.
pub(crate) struct Front {
    pub(crate) main: SocketAddr,
    pub(crate) break_glass: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// The configuration it was started with; rewrite it to test a reload.
    pub(crate) config: PathBuf,
    pub(crate) process: Process,
}

impl Front {
    /// Where everybody connects.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.main)
    }

    /// Where holders of a break-glass certificate connect.
    pub(crate) fn break_glass_url(&self) -> String {
        format!("https://{}", self.break_glass)
    }
}

impl Cluster {
    /// Starts `binary` in front of kube-apiserver and waits until it listens. `change` may edit the configuration
    /// first; each call is one more proxy, with ports of its own.
    pub(crate) fn start_front(&self, binary: &Path, change: impl FnOnce(&mut Value)) -> Front {
        let [main, break_glass, metrics] =
            [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let mut config = spillway_config(self, main, break_glass, metrics);
        change(&mut config);
        let file = self.paths.dir.join(format!("spillway-{}.yaml", main.port()));
        // JSON is YAML.
        fs::write(&file, format!("{config:#}\n")).expect("configuration is written");

        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(&file);
        let mut process = self.run(&format!("spillway-{}", main.port()), command);
        for address in [main, break_glass] {
            wait_for(&format!("spillway to listen on {address}"), LISTENING, || {
                // Gone is not the same as not yet there: say why at once.
                process.alive().unwrap_or_else(|why| panic!("expected spillway to keep running, but {why}"));
                TcpStream::connect(address)
                    .map(drop)
                    .map_err(|e| format!("{e}; its log:\n{}", tail(&process.log)))
            });
        }
        Front { main, break_glass, metrics, config: file, process }
    }
}

/// The `ProxyConfiguration` that stands in front of `cluster`.
fn spillway_config(
    cluster: &Cluster,
    main: SocketAddr,
    break_glass: SocketAddr,
    metrics: SocketAddr,
) -> Value {
    let paths = &cluster.paths;
    json!({
        "apiVersion": "config.spillway.dev/v1alpha1",
        "kind": "ProxyConfiguration",
        "listeners": [{
            "name": "main",
            "address": main,
            "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
        }],
        "authentication": {
            "clientCertificate": {"caFile": paths.client_ca.cert},
            "serviceAccountToken": {
                "issuers": ["https://kubernetes.default.svc.cluster.local"],
                "publicKeyFiles": [paths.service_account.cert],
            },
        },
        "upstreams": {
            "servers": [{"name": "local", "url": cluster.url()}],
            "tls": {"caFile": paths.server_ca.cert, "serverName": "kubernetes"},
            "forwardIdentity": {"frontProxy": {
                "certFile": paths.front_proxy_client.cert,
                "keyFile": paths.front_proxy_client.key,
            }},
        },
        "breakGlass": {
            "address": break_glass,
            "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
            "clientCaFile": paths.break_glass_ca.cert,
            "groups": ["spillway:break-glass"],
        },
        "metrics": {"address": metrics},
    })
}
