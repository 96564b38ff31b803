//! The storm: does spillway keep its promise in front of a real kube-apiserver?
//!
//! One play, twice, each time on a new cluster whose servers have one core to themselves: without spillway, and with it
//! in front of everybody. Kubelets and other writers renew node leases, an operator works; then the agents of a
//! telemetry DaemonSet begin to LIST all pods over and over. In the middle of the storm the operator deletes that
//! DaemonSet. The agents end when its last pod is gone, at the latest after [`STORM`].
//!
//! Promised with spillway: every request of the operator and every lease renewal is answered, and those who are sent
//! away are telemetry. Nothing is promised without it; the numbers stand beside each other for people to compare.
//!
//! A program of its own, not a module of `it`: it measures, so nothing else may run beside it.
//! `SPILLWAY_BIN` names another build of spillway than this profile's.

// A test measures real time, says what it expected by panicking, and shows its table.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used)]

mod agents;
mod client;
#[path = "../cluster/mod.rs"]
mod cluster;
mod gauges;
mod leases;
mod observer;
mod operator;
mod stage;
mod table;

use std::{
    collections::BTreeMap,
    env,
    io::Write,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle, available_parallelism},
    time::{Duration, Instant},
};

use http::Method;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};

use agents::Tally;
use client::{Connection, Who, swallow};
use gauges::{Metrics, memory_peak_mb, processor_time};
use leases::{Renewals, Writers};
use observer::Observer;
use operator::{Operator, Work};
use stage::{KUBELETS, Stage};

/// Agents of the telemetry DaemonSet. Each asks for 0.2 s of a core and then rests for one second: together they want
/// some fifty cores. Without spillway the server runs them all at once, and everybody else waits for seconds; on a
/// machine that is busy with other things too, longer than their patience.
const AGENTS: usize = 300;
/// Nodes that exist by their leases alone.
const LEASE_WRITERS: usize = 30;
/// Calm before the storm. spillway learns in it what calm is.
const CALM: Duration = Duration::from_secs(10);
/// The operator's patience with the storm.
const BEFORE_DELETE: Duration = Duration::from_secs(15);
/// The longest storm.
const STORM: Duration = Duration::from_secs(25);
/// After it, for the removal to end if the storm has hindered it.
const AFTERMATH: Duration = Duration::from_secs(40);
/// For the stage to be ready.
const READY: Duration = Duration::from_secs(120);
/// A kubelet renews every 10 s, and up to 4 % later; the rest is a busy machine's.
const KUBELET_RENEWS: Duration = Duration::from_millis(11_000);
/// A node whose lease is older than this is NotReady (kube-controller-manager's default since Kubernetes 1.32).
const NODE_GRACE: Duration = Duration::from_secs(50);

/// What one window of time saw.
pub(crate) struct Scene {
    lasted: Duration,
    /// How much of one core kube-apiserver and etcd used.
    server_share: f64,
    /// The most memory that kube-apiserver had in use so far.
    memory_mb: u64,
    writers: Renewals,
    kubelets: Renewals,
    operator: Work,
}

impl Scene {
    /// Renewals that the kubelets' rhythm makes certain in this time.
    fn kubelet_renewals(&self) -> u64 {
        KUBELETS as u64 * (self.lasted.as_secs_f64() / KUBELET_RENEWS.as_secs_f64()) as u64
    }

    /// Renewals of the writers when none of them is ever late.
    fn written_renewals(&self) -> u64 {
        LEASE_WRITERS as u64 * self.lasted.as_secs()
    }
}

/// What spillway said of the storm.
pub(crate) struct Proxy {
    /// Refusals by lane and reason.
    shed: BTreeMap<String, u64>,
    timeline: Vec<String>,
}

/// The play, once.
pub(crate) struct Half {
    calm: Scene,
    storm: Scene,
    agents: Arc<Tally>,
    /// Processor time of one LIST of all pods.
    list_cost: Duration,
    /// How often controllers or scheduler ended because they could not renew their leases.
    restarts: u64,
    /// From the operator's first DELETE to the end of the last pod.
    removal: Option<Duration>,
    proxy: Option<Proxy>,
}

#[test]
fn operators_and_leases_get_through_a_storm_that_telemetry_pays_for() {
    let without = on_core_one(|pin| play(None, pin)).expect("the half without spillway is played");
    let with = match on_core_one(|pin| play(Some(&binary()), pin)) {
        Ok(with) => with,
        Err(panic) => {
            show(&[&without]);
            resume_unwind(panic)
        }
    };
    show(&[&without, &with]);

    let count = |half: &Half| half.agents.agents.load(Ordering::Relaxed);
    assert_eq!((count(&without), count(&with)), (AGENTS as u64, AGENTS as u64), "the load was not the same");
    for scene in [&with.calm, &with.storm] {
        promise(scene);
    }
    assert_eq!(with.restarts, 0, "controllers or scheduler lost their leases");
    assert!(with.removal.is_some(), "the DaemonSet's pods are still there");
    assert!(with.agents.answered.load(Ordering::Relaxed) > 0, "telemetry was locked out, not shed");
    let shed = with.proxy.expect("the second half has a proxy").shed;
    let lowest =
        |labels: &str| ["telemetry", "unknown"].iter().any(|lane| labels.contains(&format!("\"{lane}\"")));
    let all: u64 = shed.values().sum();
    let low: u64 = shed.iter().filter(|(labels, _)| lowest(labels)).map(|(_, number)| number).sum();
    assert!(all > 0 && low * 100 >= all * 99, "of {all} refused, {low} were telemetry or unknown: {shed:?}");
}

fn promise(scene: &Scene) {
    let Scene { operator, writers, kubelets, .. } = scene;
    assert_eq!(operator.first_failure, None, "the operator's requests fail");
    assert_eq!(writers.first_failure, None, "lease renewals fail: {writers:?}");
    assert_eq!(kubelets.first_failure, None, "kubelets fail to renew: {kubelets:?}");
    let expected = scene.kubelet_renewals();
    assert!(kubelets.renewed >= expected, "kubelets renewed less than {expected} times: {kubelets:?}");
    for renewals in [writers, kubelets] {
        assert!(renewals.longest_gap < NODE_GRACE, "nodes were lost: {renewals:?}");
    }
}

/// On a thread of its own, because what that starts inherits its core. Tells whether there are cores to choose from.
fn on_core_one<T: Send + 'static>(play: impl FnOnce(bool) -> T + Send + 'static) -> thread::Result<T> {
    let pinned = || {
        let pin = available_parallelism().is_ok_and(|cores| cores.get() > 1);
        if pin {
            let mut cores = CpuSet::new();
            cores.set(1);
            sched_setaffinity(None, &cores).expect("this thread may choose its core");
        }
        play(pin)
    };
    thread::spawn(pinned).join()
}

/// Past the capture of the test's output: the table is the point.
fn show(halves: &[&Half]) {
    let _ = std::io::stderr().write_all(format!("\n{}\n", table::render(halves)).as_bytes());
}

fn binary() -> PathBuf {
    env::var_os("SPILLWAY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_spillway").into(), PathBuf::from)
}

fn play(binary: Option<&Path>, pin: bool) -> Half {
    let stage = Stage::build(binary, pin);
    let runtime = runtime();
    let admin = stage.admin();
    let (agents, list_cost) = runtime.block_on(async {
        let direct = admin.connect().await.expect("the apiserver takes an administrator's connection");
        stage.fill(&direct).await;
        (stage.agents(&direct, AGENTS).await, cost_of_a_list(&stage, &direct).await)
    });
    stage.cluster.wait_nodes_ready(KUBELETS, READY);
    let writers = Writers::new(stage.lease_writers(LEASE_WRITERS));
    let operator = Operator::new(stage.client(&stage.cluster.alice()));
    let observer = Observer::new(stage.kubelets());
    let cast = Cast { stage: &stage, writers: &writers, operator: &operator, observer: &observer };
    runtime.block_on(async {
        tokio::select! {
            () = stage.keep_alive() => unreachable!("nobody relieves the keeper"),
            () = writers.run() => unreachable!("writers do not end"),
            () = observer.run(&admin) => unreachable!("observers do not end"),
            half = cast.perform(agents, list_cost) => half,
        }
    })
}

/// Those whose fate is measured, and where they are.
struct Cast<'a> {
    stage: &'a Stage,
    writers: &'a Writers,
    operator: &'a Operator,
    observer: &'a Observer,
}

impl Cast<'_> {
    async fn perform(&self, agents: Vec<Who>, list_cost: Duration) -> Half {
        timeout(READY, self.observer.agents(KUBELETS)).await.expect("the DaemonSet reaches every node");
        self.end_scene(&self.begin_scene());

        let began = self.begin_scene();
        self.operator.look_around(|| began.0.elapsed() >= CALM).await;
        let calm = self.end_scene(&began);

        let metrics = self.stage.front.as_ref().map(|front| front.metrics);
        let before = match metrics {
            Some(address) => Metrics::read(address).await,
            None => Metrics::default(),
        };
        let mut timeline = Vec::new();
        let began = self.begin_scene();
        let (storm, deleted) = tokio::select! {
            ended = self.storm(agents) => ended,
            () = follow(metrics, &mut timeline) => unreachable!("nobody ends the time line"),
        };
        let scene = self.end_scene(&began);
        // The storm may have been too much for the removal; then it gets the quiet afterwards.
        self.remove(began.0 + STORM + AFTERMATH).await;
        let proxy = match metrics {
            Some(address) => {
                let shed = Metrics::read(address).await.growth(&before, "spillway_shed_total");
                Some(Proxy { shed, timeline })
            }
            None => None,
        };
        let removal = self.observer.agents_gone().map(|at| at.saturating_duration_since(deleted));
        let restarts = self.stage.restarts.get();
        Half { calm, storm: scene, agents: storm, list_cost, restarts, removal, proxy }
    }

    /// Agents on a thread of their own; in time the operator acts. Returns what the agents got, and when she did.
    async fn storm(&self, agents: Vec<Who>) -> (Arc<Tally>, Instant) {
        let began = Instant::now();
        let storm = Storm::begin(agents);
        self.operator.look_around(|| began.elapsed() >= BEFORE_DELETE).await;
        let deleted = Instant::now();
        self.remove(began + STORM).await;
        (storm.end(), deleted)
    }

    /// The operator deletes the culprit and looks until it is gone, or until `deadline`.
    async fn remove(&self, deadline: Instant) {
        let over = || self.observer.agents_gone().is_some() || Instant::now() >= deadline;
        if !over() {
            self.operator.delete(over).await;
        }
        self.operator.look_around(over).await;
    }

    fn begin_scene(&self) -> (Instant, Duration) {
        (Instant::now(), self.server_time())
    }

    fn end_scene(&self, &(began, used): &(Instant, Duration)) -> Scene {
        let lasted = began.elapsed();
        Scene {
            lasted,
            memory_mb: self.stage.cluster.pid("apiserver").map_or(0, memory_peak_mb),
            server_share: (self.server_time() - used).as_secs_f64() / lasted.as_secs_f64(),
            writers: self.writers.take(),
            kubelets: self.observer.kubelets.lock().take(),
            operator: self.operator.take(),
        }
    }

    fn server_time(&self) -> Duration {
        server_time(self.stage)
    }
}

async fn follow(metrics: Option<std::net::SocketAddr>, timeline: &mut Vec<String>) {
    match metrics {
        Some(address) => gauges::follow(address, timeline).await,
        None => std::future::pending().await,
    }
}

fn server_time(stage: &Stage) -> Duration {
    ["apiserver", "etcd"].into_iter().filter_map(|part| stage.cluster.pid(part)).map(processor_time).sum()
}

/// What the storm's request costs when nothing else runs.
async fn cost_of_a_list(stage: &Stage, direct: &Connection) -> Duration {
    const TIMES: u32 = 5;
    let before = server_time(stage);
    for _ in 0..TIMES {
        let response = direct.open(Method::GET, "/api/v1/pods", None).await.expect("a LIST begins");
        swallow(response.into_body()).await.expect("a LIST ends");
    }
    (server_time(stage) - before) / TIMES
}

/// The agents, on a thread and a runtime of their own, so that their bytes do not delay those who are measured.
struct Storm {
    thread: JoinHandle<Arc<Tally>>,
    end: oneshot::Sender<()>,
}

impl Storm {
    fn begin(agents: Vec<Who>) -> Self {
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let tally = Arc::new(Tally::default());
            runtime().block_on(async {
                tokio::select! {
                    () = agents::storm(&agents, &tally) => {}
                    _ = timeout(STORM, ended) => {}
                }
            });
            tally
        });
        Self { thread, end }
    }

    fn end(self) -> Arc<Tally> {
        // The agents may have reached the longest storm first.
        let _ = self.end.send(());
        self.thread.join().expect("the agents' thread ends")
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
