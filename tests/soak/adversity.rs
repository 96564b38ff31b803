//! What is made to go wrong while an operator tries to get in?
//!
//! Each adversity is aimed at something that the operator's request needs: a place at the listener, a stream to
//! kube-apiserver, a thread, a descriptor, a disk, an apiserver that answers. All of them come on top of the storm, run
//! on a thread of their own, and end when they are dropped.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, future::join_all, stream};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    client::Who,
    rig::{Entrance, Rig},
    runtime,
};

/// Handshakes that are kept half open, at the main listener.
const HALF_OPEN: usize = 5_000;
/// The beginning of a TLS record that says a handshake follows, 512 bytes of it, and nothing more.
const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
/// Until a half-open connection is looked at again; spillway gives up on one after 5 to 10 s.
const LOOK: Duration = Duration::from_millis(500);
/// Watches of the operators' own lane, more than its upstream connections have streams.
const WATCHES: usize = 1_500;
const WATCHES_PER_CONNECTION: usize = 100;
/// Clients that do nothing but full handshakes, and that many that send requests which are refused.
const BURNERS: usize = 64;
/// What a process with few descriptors may open.
const DESCRIPTORS: usize = 512;
/// What the webhook may take before kube-apiserver goes on without it.
const WEBHOOK_SECONDS: u64 = 5;
/// Less weight on the core than spillway and the operator.
const NICE: i32 = 5;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adversity {
    /// The storm alone.
    Storm,
    HalfOpen,
    Taken,
    Burning,
    NoDescriptors,
    DiskFull,
    SlowApiserver,
}

impl Adversity {
    pub(crate) const ALL: [Self; 7] = [
        Self::Storm,
        Self::HalfOpen,
        Self::Taken,
        Self::Burning,
        Self::NoDescriptors,
        Self::DiskFull,
        Self::SlowApiserver,
    ];

    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Storm => "the storm alone",
            Self::HalfOpen => "5,000 half-open handshakes on the main listener",
            Self::Taken => "1,500 watches hold the operators' streams and watch quota",
            Self::Burning => "handshakes and refusals without end burn the main shards",
            Self::NoDescriptors => "no descriptor is left in the process",
            Self::DiskFull => "the audit disk is full",
            Self::SlowApiserver => "kube-apiserver answers writes after 5 s",
        }
    }

    /// For the command line.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::HalfOpen => "half-open",
            Self::Taken => "taken",
            Self::Burning => "burning",
            Self::NoDescriptors => "no-descriptors",
            Self::DiskFull => "disk-full",
            Self::SlowApiserver => "slow-apiserver",
        }
    }

    /// Between two trials: with answers of 5 s they overlap, and must stay below the lane's own 16 seats.
    pub(crate) const fn interval(self) -> Duration {
        match self {
            Self::SlowApiserver => Duration::from_millis(750),
            _ => Duration::from_millis(250),
        }
    }

    /// The program to start in place of `binary`: some things have to be wrong from the begin.
    pub(crate) fn program(self, binary: &Path, directory: &Path) -> PathBuf {
        if self != Self::NoDescriptors {
            return binary.to_owned();
        }
        let script = directory.join("with-few-descriptors");
        let text = format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{}' \"$@\"\n", binary.display());
        fs::write(&script, text).expect("a script is written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script becomes a program");
        script
    }

    /// Begins it; it lasts until what is returned is dropped.
    pub(crate) fn begin<'rig>(self, rig: &'rig Rig, at: &Entrance) -> Running<'rig> {
        let mut running = Running::default();
        let main = at.address;
        match self {
            Self::Storm | Self::DiskFull => {}
            Self::HalfOpen => running.spawn(move || half_open(main, HALF_OPEN)),
            // One more than there can be.
            Self::NoDescriptors => running.spawn(move || half_open(main, DESCRIPTORS)),
            Self::Taken => {
                let operator = rig.operator(at);
                running.spawn(move || watches(operator));
            }
            Self::Burning => {
                let nobody = rig.unknown(at);
                running.spawn(move || burn(nobody));
            }
            Self::SlowApiserver => running.webhook = Some(Webhook::put(rig)),
        }
        running
    }
}

/// Ends the adversity when dropped.
#[derive(Default)]
pub(crate) struct Running<'rig> {
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    webhook: Option<Webhook<'rig>>,
}

impl Running<'_> {
    fn spawn<F: Future<Output = ()>>(&mut self, work: impl FnOnce() -> F + Send + 'static) {
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            // Not being allowed to only makes the trials harder.
            let _ = rustix::process::setpriority_process(None, NICE);
            runtime().block_on(async {
                tokio::select! {
                    () = work() => {}
                    _ = ended => {}
                }
            });
        });
        self.thread = Some((end, thread));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            let _ = end.send(());
            thread.join().expect("the adversity ends");
        }
    }
}

/// Keeps `count` connections that have begun to say hello; whoever is cut off begins again.
async fn half_open(address: SocketAddr, count: usize) {
    let one = async |number: usize| {
        sleep(Duration::from_micros(200) * number as u32).await;
        loop {
            if let Ok(Ok(mut socket)) = timeout(LOOK, TcpStream::connect(address)).await
                && socket.write_all(HALF_A_HELLO).await.is_ok()
            {
                // Until spillway ends it.
                let _ = socket.readable().await;
            } else {
                sleep(LOOK).await;
            }
        }
    };
    join_all((0..count).map(one)).await;
}

/// Keeps watches open in the operators' name.
async fn watches(operator: Who) {
    let operator = &operator;
    let connection = async |_: usize| {
        loop {
            let Ok(connection) = operator.connect().await else {
                sleep(LOOK).await;
                continue;
            };
            let connection = &connection;
            stream::iter(0..WATCHES_PER_CONNECTION)
                .for_each_concurrent(None, async |_| {
                    let path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=600";
                    if let Ok(answer) = connection.open(Method::GET, path, None).await {
                        let mut body = answer.into_body();
                        while let Some(Ok(_)) = body.frame().await {}
                    }
                    sleep(LOOK).await;
                })
                .await;
        }
    };
    join_all((0..WATCHES / WATCHES_PER_CONNECTION).map(connection)).await;
}

/// Full handshakes, and requests that are refused or answered, as fast as they go.
async fn burn(who: Who) {
    let who = Arc::new(who);
    let one = async |_: usize| {
        loop {
            match who.connect().await {
                Ok(connection) => {
                    for _ in 0..20 {
                        let patience = Duration::from_secs(10);
                        let _ = connection.ask(Method::GET, "/api/v1/pods", None, patience).await;
                    }
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    join_all((0..BURNERS).map(one)).await;
}

/// A webhook that never answers stands before every change of a DaemonSet; kube-apiserver goes on without it, later.
struct Webhook<'rig> {
    rig: &'rig Rig,
    /// Accepts connections, because the kernel does, and never reads from them.
    _hole: TcpListener,
}

impl<'rig> Webhook<'rig> {
    const NAME: &'static str = "slow-writes";

    fn put(rig: &'rig Rig) -> Self {
        let hole = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = hole.local_addr().expect("a listener has an address");
        let ca = fs::read(&rig.cluster.paths.server_ca.cert).expect("the CA is readable");
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": Self::NAME},
            "webhooks": [{
                "name": "slow.soak.dev",
                "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(ca)},
                "rules": [{
                    "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["daemonsets"],
                    "operations": ["UPDATE", "DELETE"],
                }],
                "failurePolicy": "Ignore", "timeoutSeconds": WEBHOOK_SECONDS, "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        });
        rig.cluster.apply(&webhook.to_string());
        Self { rig, _hole: hole }
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        let admin = self.rig.cluster.admin_kubeconfig();
        self.rig.cluster.kubectl_ok(&admin, &["delete", "validatingwebhookconfiguration", Self::NAME]);
    }
}
