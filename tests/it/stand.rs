//! spillway in this process, with files of its own, in front of the fake apiserver.
//!
//! For what needs no cluster but an apiserver that can be made to hang, and files that can be replaced under a running
//! proxy. What an answer of 404 says here: the request reached the apiserver.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use spillway::{app, config};

use crate::{
    apiserver::{Apiserver, Setup},
    client::{Caller, Protocol, block_on, get},
    cluster::{Credential, Paths, Pki, wait_for},
    issuer::{Signer, seconds},
};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// For what a running proxy notices within seconds, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy and everything around it.
pub(crate) struct Stand {
    pub(crate) apiserver: Apiserver,
    pub(crate) pki: Pki,
    pub(crate) paths: Paths,
    pub(crate) main: SocketAddr,
    pub(crate) break_glass: SocketAddr,
    /// The listener after the main one, in the order of names.
    second: Option<SocketAddr>,
    metrics: SocketAddr,
    /// The operators' address, where the configuration has one.
    pub(crate) admin: Option<SocketAddr>,
    // Ended before what it uses.
    running: Option<app::Running>,
    _runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Stand {
    /// `change` may edit the configuration, and the files, first.
    pub(crate) fn start(change: impl FnOnce(&mut Value, &Paths)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for the fake apiserver");
        let apiserver = runtime.block_on(Apiserver::start(Setup::default()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (pki, paths) = Pki::create(dir.path());
        write_front_proxy(&apiserver, &paths);
        fs::write(dir.path().join("upstream-ca.crt"), &apiserver.settings.roots_pem)
            .expect("the CA is written");
        let mut configuration = json!({
            "apiVersion": "config.spillway.dev/v1alpha1",
            "kind": "ProxyConfiguration",
            "listeners": [{
                "name": "main", "address": "127.0.0.1:0",
                "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
            }],
            "authentication": {
                "clientCertificate": {"caFile": paths.client_ca.cert},
                "serviceAccountToken": {"issuers": [ISSUER], "publicKeyFiles": [paths.service_account.cert]},
            },
            "upstreams": {
                "servers": [{"name": "fake", "url": format!("https://{}", apiserver.address)}],
                "tls": {"caFile": dir.path().join("upstream-ca.crt")},
                "forwardIdentity": {"frontProxy": {
                    "certFile": paths.front_proxy_client.cert, "keyFile": paths.front_proxy_client.key,
                }},
            },
            "breakGlass": {
                "address": "127.0.0.1:0", "clientCAFile": paths.break_glass_ca.cert,
                "tls": {"certFile": paths.serving.cert, "keyFile": paths.serving.key},
            },
            "metrics": {"address": "127.0.0.1:0"},
            "drain": {"gracePeriod": "0s"},
        });
        change(&mut configuration, &paths);
        let file = dir.path().join("spillway.yaml");
        fs::write(&file, configuration.to_string()).expect("the configuration is written");
        let loaded =
            config::load(&[file]).unwrap_or_else(|found| panic!("the configuration is good, but\n{found}"));
        let proxy = loaded.proxy.expect("there is one");
        let running =
            app::start(&proxy, &loaded.policy).unwrap_or_else(|error| panic!("it starts, but {error}"));
        let addresses = running.addresses().clone();
        let stand = Self {
            main: addresses.listeners[0].1,
            break_glass: addresses.break_glass.expect("the configuration has one"),
            second: addresses.listeners.get(1).map(|(_, address)| *address),
            metrics: addresses.metrics,
            admin: addresses.admin,
            running: Some(running),
            apiserver,
            pki,
            paths,
            _runtime: runtime,
            dir,
        };
        let alice = stand.caller(&stand.alice());
        wait_for("an answer of the fake apiserver", PATIENCE, || match reached(&alice) {
            true => Ok(()),
            false => Err(stand.page("/status")),
        });
        stand
    }

    /// A second listener, where the configuration has one.
    pub(crate) fn second(&self) -> SocketAddr {
        self.second.expect("the configuration has a second listener")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn alice(&self) -> Credential {
        Credential::Certificate(self.paths.alice.clone())
    }

    pub(crate) fn caller(&self, who: &Credential) -> Caller {
        Caller::new(self.main, &self.paths.server_ca.cert, who)
    }

    /// A bound token of the service account `default/NAME`.
    pub(crate) fn account(&self, name: &str, signer: &Signer) -> Credential {
        Credential::Token(signer.sign(&json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:default:{name}"), "aud": [ISSUER],
            "iat": seconds(), "exp": seconds() + 3600,
            "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": name, "uid": "u"}},
        })))
    }

    /// A page of the metrics listener.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.metrics).expect("the metrics listener listens");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n")
            .expect("it takes a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers in UTF-8");
        answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned()
    }

    /// The value of a metric, by its name with labels; 0 when there is no such line.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics");
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Requests so far, by lane.
    pub(crate) fn lanes(&self) -> BTreeMap<String, u64> {
        let mut lanes = BTreeMap::new();
        for line in self.page("/metrics").lines().filter(|line| line.starts_with("spillway_requests_total{"))
        {
            let lane =
                line.split("lane=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let count: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
            *lanes.entry(lane.to_owned()).or_default() += count;
        }
        lanes
    }

    /// Waits until `look` is true, which it may become a second or two after a file has changed.
    pub(crate) fn until(&self, what: &str, mut look: impl FnMut() -> bool) {
        wait_for(what, PATIENCE, || if look() { Ok(()) } else { Err(self.page("/metrics")) });
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain();
        }
    }
}

/// Whether a request of `caller` reaches the apiserver.
pub(crate) fn reached(caller: &Caller) -> bool {
    block_on(caller.ask(Protocol::Http2, get("/api/v1/namespaces/default"))).status
        == http::StatusCode::NOT_FOUND
}

/// The front-proxy certificate that the fake apiserver's CA has signed.
fn write_front_proxy(apiserver: &Apiserver, paths: &Paths) {
    let identity = apiserver.settings.front_proxy.as_ref().expect("the fake apiserver makes one");
    replace(&paths.front_proxy_client.cert, &identity.chain_pem);
    replace(&paths.front_proxy_client.key, &identity.key_pem);
}

/// Replaces a file in one step, as certificate tools do; nobody else may read it.
pub(crate) fn replace(path: &Path, contents: impl AsRef<[u8]>) {
    let next = path.with_extension("next");
    fs::write(&next, contents).expect("the file is written");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("its mode is set");
    fs::rename(&next, path).expect("the file is replaced");
}
