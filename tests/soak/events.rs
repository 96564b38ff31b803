//! What else happens in a scene: a neighbour on the server's core, growth, a memory limit, pauses of etcd, a webhook
//! that never answers, a server that hangs or dies.

use std::{
    collections::BTreeMap,
    fs,
    future::pending,
    net::TcpListener,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::Process,
    deployer::Deployer,
    informers::Informers,
    play::Notes,
    rig::{Entrance, Rig, SERVER_CORE},
    scene::Event,
    timeline::memory_mb,
};

/// Of the storm, until the change in its middle.
pub(crate) const MIDDLE: f64 = 0.5;
/// How much memory kube-apiserver may use in the scene about memory, and how often the watchdog looks.
const MEMORY_LIMIT_MB: u64 = 1_536;
const WATCHDOG: Duration = Duration::from_millis(20);
/// From the storm's begin to the suspension, and how long that lasts.
const STOP_AFTER: Duration = Duration::from_secs(5);
const STOPPED: Duration = Duration::from_secs(30);
/// From the storm's begin to the kill.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// What etcd does in the storm: pause, work, and how often.
const PAUSES: &[(u64, u64, usize)] = &[(200, 200, 40), (0, 4_000, 1), (4_000, 4_000, 1), (1_000, 1_000, 5)];

/// Facts that a scene's event adds to the report.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    facts: Mutex<BTreeMap<String, String>>,
    /// Seconds since the run began at which the world changed.
    pub(crate) changed: Mutex<Option<f64>>,
}

impl Happened {
    pub(crate) fn note(&self, what: &str, value: impl ToString) {
        self.facts.lock().insert(what.into(), value.to_string());
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, String> {
        self.facts.lock().clone()
    }
}

/// What an event needs from before the run until after it.
pub(crate) struct Stage {
    event: Event,
    neighbour: Mutex<Option<Process>>,
    hole: Option<TcpListener>,
    deployer: Option<Deployer>,
    informers: Option<Informers>,
}

impl Stage {
    pub(crate) fn set(rig: &Rig, event: Event, at: &Entrance) -> Self {
        Self {
            event,
            neighbour: Mutex::new((event == Event::Doubled).then(|| neighbour(rig))),
            hole: (event == Event::WebhookHole)
                .then(|| TcpListener::bind("127.0.0.1:0").expect("a loopback port is free")),
            deployer: (event == Event::WebhookHole).then(|| Deployer::new(rig.deployer(at))),
            informers: (event == Event::Killed).then(|| rig.informers(at)),
        }
    }

    /// The event's own clients, until the returned future is dropped.
    pub(crate) async fn act(&self, notes: &Notes) {
        match &self.deployer {
            Some(deployer) => deployer.run(notes).await,
            None => pending().await,
        }
    }

    /// The event's crowd, until the end of the run; blocks, on a thread of its own.
    pub(crate) fn crowd(&self, notes: &Notes) {
        if let Some(informers) = &self.informers {
            informers.run(notes);
        }
    }

    /// Makes it happen; may block, and ends before the run does.
    pub(crate) fn happen(&self, rig: &Rig, notes: &Notes) {
        let times = notes.times;
        let middle = times.storm + (times.after - times.storm).mul_f64(MIDDLE);
        match self.event {
            Event::None => {}
            Event::Halved => {
                until(middle);
                *self.neighbour.lock() = Some(neighbour(rig));
                changed(notes);
            }
            Event::Doubled => {
                until(middle);
                drop(self.neighbour.lock().take());
                changed(notes);
            }
            Event::Fourfold => {
                until(middle);
                changed(notes);
                rig.fill(rig.pods / 4, rig.pods);
                notes.happened.note("pods", format!("{} to {}", rig.pods / 4, rig.pods));
            }
            Event::MemoryLimit => {
                until(times.storm);
                watch_memory(rig, notes);
            }
            Event::EtcdPauses => {
                until(times.storm);
                pause_etcd(rig, times.after);
            }
            Event::WebhookHole => self.block_webhook(rig, notes),
            Event::Stopped => {
                until(times.storm + STOP_AFTER);
                rig.cluster.signal("apiserver", Signal::STOP);
                sleep(STOPPED);
                rig.cluster.signal("apiserver", Signal::CONT);
                changed(notes);
            }
            Event::Killed => {
                until(times.storm + KILL_AFTER);
                self.kill(rig, notes);
            }
        }
    }

    fn kill(&self, rig: &Rig, notes: &Notes) {
        changed(notes);
        if let Some(informers) = &self.informers {
            informers.killed(notes);
        }
        let killed = Instant::now();
        restart_killed(rig);
        notes.happened.note("server ready again after", format!("{:.1} s", killed.elapsed().as_secs_f64()));
        until(notes.times.end - Duration::from_secs(2));
        if let Some(informers) = &self.informers {
            informers.report(rig, notes);
        }
    }

    /// Puts a webhook that never answers before the creation of pods, for the length of the storm.
    fn block_webhook(&self, rig: &Rig, notes: &Notes) {
        let Some(hole) = &self.hole else { return };
        let ca = fs::read(&rig.cluster.paths.server_ca.cert).expect("the CA is readable");
        let address = hole.local_addr().expect("a listener has an address");
        until(notes.times.storm);
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hole"},
            "webhooks": [{
                "name": "hole.soak.dev",
                "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(ca)},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"hooked": "true"}},
                "failurePolicy": "Fail", "timeoutSeconds": 10, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            }],
        });
        rig.cluster.apply(&webhook.to_string());
        changed(notes);
        until(notes.times.after);
        let admin = rig.cluster.admin_kubeconfig();
        rig.cluster.kubectl_ok(&admin, &["delete", "validatingwebhookconfiguration", "hole"]);
        if let Some(deployer) = &self.deployer {
            deployer.report(notes);
        }
    }
}

fn changed(notes: &Notes) {
    *notes.happened.changed.lock() = Some(notes.clock.now());
}

fn until(moment: Instant) {
    sleep(moment.saturating_duration_since(Instant::now()));
}

/// A program that wants all of the server's core. The scheduler gives it as much as one busy thread of the server.
fn neighbour(rig: &Rig) -> Process {
    let mut command = Command::new("taskset");
    command.args(["-c", &SERVER_CORE.to_string(), "sh", "-c", "while :; do :; done"]);
    rig.cluster.run("neighbour", command)
}

/// Suspends etcd in bursts until `end`.
fn pause_etcd(rig: &Rig, end: Instant) {
    for &(pause, work, times) in PAUSES {
        for _ in 0..times {
            if Instant::now() + Duration::from_millis(pause + work) >= end {
                return;
            }
            if pause > 0 {
                rig.cluster.signal("etcd", Signal::STOP);
                sleep(Duration::from_millis(pause));
                rig.cluster.signal("etcd", Signal::CONT);
            }
            sleep(Duration::from_millis(work));
        }
    }
}

/// Plays the kernel's out-of-memory killer, and the kubelet that starts the server again.
fn watch_memory(rig: &Rig, notes: &Notes) {
    let mut deaths = 0;
    while Instant::now() < notes.times.end {
        if rig.cluster.pid("apiserver").map_or(0, memory_mb) > MEMORY_LIMIT_MB {
            deaths += 1;
            rig.cluster.signal("apiserver", Signal::KILL);
            rig.cluster.stop("apiserver");
            // Not waiting for it: it may be over the limit again before it is ready.
            rig.cluster.launch_apiserver();
        }
        sleep(WATCHDOG);
    }
    let done = notes.storm.served.lock().iter().filter(|call| call.ok).count();
    notes.happened.note("memory limit", format!("{MEMORY_LIMIT_MB} MB"));
    notes.happened.note("server killed for its memory", format!("{deaths} times"));
    notes.happened.note("informers that got everything", done);
}

fn restart_killed(rig: &Rig) {
    rig.cluster.signal("apiserver", Signal::KILL);
    rig.cluster.stop("apiserver");
    rig.cluster.start_apiserver();
}
