//! Does spillway keep its promises while something breaks? One fault against the modelled apiserver, measured.
//!
//! Calm, the fault, recovery: the same real connections and the same spillway as in the demo, and a list of promises, each
//! kept or not. What cannot be promised is not: while etcd stalls or the apiserver is dead nobody can be served, so there
//! it counts that people are told at once, that no node is taken for dead, and that all is well soon afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::apiserver::{Fault, Server};
use super::clients::Cast;
use super::ledger::{Ledger, Span, Who};
use super::pki::Pki;
use super::progress::Progress;
use super::report::{EndedBy, Half, Measured};
use super::scenario::{CALM, Play, Running, WARM_UP, machine_use};
use super::seed::Seed;
use super::stage::{Files, Stage};
use super::{DemoError, NODES, PODS_PER_NODE, unless_interrupted};
use crate::clock;

/// How long people work on after the recovery, to see that they can.
const AFTERWARDS: Duration = Duration::from_secs(4);
/// The operator of the demo gives up after so long: a command that takes it was told nothing.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The storm of 2024-12-11.
    TelemetryRollout,
    /// Every answer is late, whatever the load.
    SlowApiserver,
    /// etcd does not answer for a while.
    EtcdStall,
    /// The apiserver crashes and comes back.
    DeadApiserver,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::TelemetryRollout, Self::SlowApiserver, Self::EtcdStall, Self::DeadApiserver];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TelemetryRollout => "telemetry-rollout",
            Self::SlowApiserver => "slow-apiserver",
            Self::EtcdStall => "etcd-stall",
            Self::DeadApiserver => "dead-apiserver",
        }
    }

    /// What happens in it.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::TelemetryRollout => {
                "an agent on every node LISTs all pods; an operator deletes its DaemonSet"
            }
            Self::SlowApiserver => {
                "every answer comes 400 ms later for 10 s, as with a slow webhook: shedding cannot help"
            }
            Self::EtcdStall => {
                "etcd does not answer for 2 s: writes and fresh reads hang, watches and caches go on"
            }
            Self::DeadApiserver => {
                "the apiserver crashes, is away for 4 s and comes back: everybody returns at once"
            }
        }
    }

    /// The fault and its length; `None` for the storm, which is no fault of the apiserver.
    const fn fault(self) -> Option<(Fault, Duration)> {
        match self {
            Self::TelemetryRollout => None,
            Self::SlowApiserver => Some((Fault::Slow(Duration::from_millis(400)), Duration::from_secs(10))),
            Self::EtcdStall => Some((Fault::Stalled, Duration::from_secs(2))),
            Self::DeadApiserver => Some((Fault::Dead, Duration::from_secs(4))),
        }
    }
}

/// The result of a drill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DrillReport {
    /// What broke.
    pub scenario: Scenario,
    /// And how, in words.
    pub description: &'static str,
    /// Seed of all jitter.
    pub seed: u64,
    /// Modelled nodes.
    pub nodes: usize,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// Whether every promise was kept.
    pub passed: bool,
    /// Each promise.
    pub promises: Vec<Promise>,
    /// What was measured while it was broken.
    pub during: Half,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// What was promised.
    pub promise: &'static str,
    /// Whether it held.
    pub kept: bool,
    /// What was measured.
    pub measured: String,
}

/// People's commands in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct People {
    succeeded: usize,
    commands: usize,
    slowest: Duration,
}

impl People {
    fn of(ledger: &Ledger, span: Span) -> Self {
        let commands = ledger.commands(span);
        Self {
            succeeded: commands.iter().filter(|command| command.succeeded).count(),
            commands: commands.len(),
            slowest: commands.iter().map(|command| command.took).max().unwrap_or_default(),
        }
    }
}

/// Plays one scenario against a model and a spillway of its own; half a minute. Must be called outside any asynchronous
/// runtime. It listens on the loopback address and knows no other endpoint.
///
/// # Errors
/// When something could not be started. A broken promise is a [`DrillReport`] that says so.
pub fn drill(
    stage: &dyn Stage,
    scenario: Scenario,
    seed: u64,
    nodes: usize,
) -> Result<DrillReport, DemoError> {
    if !NODES.contains(&nodes) {
        let (min, max) = (*NODES.start(), *NODES.end());
        return Err(DemoError::OutOfRange { option: "nodes", min, max, value: nodes });
    }
    let fault = scenario.fault().map_or(Duration::from_secs(20), |(_, length)| length);
    let progress = Progress::new(CALM + fault + Duration::from_secs(8) + AFTERWARDS);
    let started = clock::now();
    progress.scene("making keys and certificates");
    let (pki, files) = (Pki::new()?, Files::new()?);
    let cast = Cast::new(&pki, nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| DemoError::Io { what: "start the runtime of its clients", source })?;
    let (pki_, cast_) = (&pki, &cast);
    let play = Play {
        pki: pki_,
        cast: cast_,
        progress: &progress,
        seed,
        nodes,
        pods_per_node: PODS_PER_NODE,
        started,
    };
    let server = play.model()?;
    let proxy = stage.start(&files.proxy_inputs(&pki, server.address())?).map_err(DemoError::Proxy)?;
    let (during, promises) = match scenario.fault() {
        None => {
            let (half, _traffic) =
                runtime.block_on(unless_interrupted(play.half("with", &server, proxy.address)))?;
            let promises = storm_promises(&half);
            (half, promises)
        }
        Some((fault, length)) => {
            let broken = Broken { play: &play, server: &server, scenario, fault, length };
            runtime.block_on(unless_interrupted(broken.play(proxy.address)))?
        }
    };
    progress.finish();
    Ok(DrillReport {
        scenario,
        description: scenario.describe(),
        seed,
        nodes,
        took_seconds: clock::now().since(started).as_secs_f64(),
        passed: promises.iter().all(|promise| promise.kept),
        promises,
        during,
    })
}

/// A fault while it is played.
struct Broken<'a> {
    play: &'a Play<'a>,
    server: &'a Server,
    scenario: Scenario,
    fault: Fault,
    length: Duration,
}

impl Broken<'_> {
    async fn play(&self, address: SocketAddr) -> Result<(Half, Vec<Promise>), DemoError> {
        let ledger = Arc::new(Ledger::default());
        let running = Running { play: self.play, server: self.server, ledger: Arc::clone(&ledger) };
        let (_insight, told) = watch::channel(None);
        self.play.progress.scene("calm");
        let begun = clock::now();
        let _clients = self.play.cast.start(address, &ledger, told, &Seed::new(self.play.seed));
        running.until(|now| now >= begun + CALM).await;
        let calm = Span { start: begun + WARM_UP, end: clock::now() };

        self.play.progress.scene(self.scenario.as_str());
        let (start, before) = (clock::now(), self.server.usage());
        self.server.faults().set(self.fault);
        running.until(|now| now >= start + self.length).await;
        self.server.faults().set(Fault::None);
        let broken = Span { start, end: clock::now() };
        let apiserver = machine_use(self.play.machine(), before, self.server.usage(), broken);

        self.play.progress.scene("recovery");
        let recovery = running.recovery(calm, broken.end).await;
        let well = clock::now();
        running.until(|now| now >= well + AFTERWARDS).await;
        // Until it was well again, so that what hung at the fault's end counts.
        let whole = Span { start, end: well };
        let measured = Measured {
            ledger: &ledger,
            calm,
            storm: whole,
            ended_by: EndedBy::Demo,
            insight: broken.end,
            apiserver,
            recovery,
        };
        let half = Half::of(measured);
        let after = People::of(&ledger, Span { start: well, end: well + AFTERWARDS });
        let refused = ledger.refusals(broken, Who::Operator) + ledger.refusals(broken, Who::Node);
        let promises = fault_promises(self.scenario, &half, People::of(&ledger, whole), after, refused);
        Ok((half, promises))
    }
}

fn kept(promise: &'static str, kept: bool, measured: String) -> Promise {
    Promise { promise, kept, measured }
}

fn recovered(half: &Half) -> Promise {
    let measured = half.recovery_ms.map_or("not within 8 s".to_owned(), |ms| format!("after {ms} ms"));
    kept("node leases are as fast as before within 8 s of its end", half.recovery_ms.is_some(), measured)
}

fn of(part: usize, whole: usize) -> String {
    format!("{part} of {whole}")
}

/// What the storm must not do.
fn storm_promises(half: &Half) -> Vec<Promise> {
    let (leases, people) = (&half.leases, &half.operator);
    let refusals = half.telemetry.refused + half.refused_others;
    vec![
        kept(
            "every command of the operator works",
            people.commands > 0 && people.succeeded == people.commands,
            of(people.succeeded, people.commands),
        ),
        kept(
            "every node lease is renewed in time",
            leases.due > 0 && leases.renewed == leases.due,
            of(leases.renewed, leases.due),
        ),
        kept(
            "the operator deletes the culprit",
            half.ended_by == EndedBy::Operator,
            half.operator.deleted_after_ms.map_or("never".to_owned(), |ms| format!("after {ms} ms")),
        ),
        kept(
            "99 of 100 refusals hit telemetry",
            half.telemetry.refused > 0 && half.telemetry.refused * 100 >= refusals * 99,
            of(half.telemetry.refused, refusals),
        ),
        recovered(half),
    ]
}

/// What can be promised while the apiserver itself is broken.
fn fault_promises(
    scenario: Scenario,
    half: &Half,
    during: People,
    after: People,
    refused: usize,
) -> Vec<Promise> {
    let leases = &half.leases;
    let mut promises = Vec::new();
    if scenario == Scenario::SlowApiserver {
        promises.push(kept(
            "every command of the operator works",
            during.commands > 0 && during.succeeded == during.commands,
            of(during.succeeded, during.commands),
        ));
        promises.push(kept(
            "every node lease is renewed in time",
            leases.due > 0 && leases.renewed == leases.due,
            of(leases.renewed, leases.due),
        ));
        promises.push(kept(
            "nodes and operators are not refused for a slowness that shedding cannot cure",
            refused == 0,
            format!("{refused} refused"),
        ));
    } else {
        promises.push(kept(
            "no command of the operator hangs for 5 s",
            during.commands > 0 && during.slowest < TOLD_WITHIN,
            format!("slowest command {} ms", during.slowest.as_millis()),
        ));
        promises.push(kept(
            "no node is taken for dead",
            leases.due > 0 && leases.nodes_not_ready == 0,
            format!("{} nodes", leases.nodes_not_ready),
        ));
    }
    promises.push(recovered(half));
    promises.push(kept(
        "every command of the operator works afterwards",
        after.commands > 0 && after.succeeded == after.commands,
        of(after.succeeded, after.commands),
    ));
    promises
}

impl DrillReport {
    /// For people, at most 80 columns wide.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}: {}\n{} nodes, seed {}, {:.0} s; real connections, the apiserver is a model\n\n",
            self.scenario.as_str(),
            self.description,
            self.nodes,
            self.seed,
            self.took_seconds
        );
        for promise in &self.promises {
            let mark = if promise.kept { "kept  " } else { "BROKEN" };
            text.push_str(&format!("{mark}  {}: {}\n", promise.promise, promise.measured));
        }
        text.push_str(if self.passed { "\nPASSED\n" } else { "\nFAILED\n" });
        text
    }

    /// For a ticket or a wiki.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "## Drill {}: {}\n\n{}. {} nodes, seed {}, {:.0} s; real connections, the apiserver is a model.\n\n\
             | promise | kept | measured |\n|---|---|---|\n",
            self.scenario.as_str(),
            if self.passed { "passed" } else { "FAILED" },
            self.description,
            self.nodes,
            self.seed,
            self.took_seconds
        );
        for Promise { promise, kept, measured } in &self.promises {
            text.push_str(&format!(
                "| {promise} | {} | {measured} |\n",
                if *kept { "yes" } else { "**no**" }
            ));
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demo::{Apiserver, Dns, Leases, Operator, Telemetry};

    pub(crate) fn half() -> Half {
        Half {
            storm_seconds: 10.0,
            ended_by: EndedBy::Operator,
            leases: Leases {
                due: 400,
                renewed: 400,
                percent: 100.0,
                p99_ms: 12.0,
                calm_p99_ms: 10.0,
                nodes_not_ready: 0,
            },
            dns: Dns { staleness_max_ms: 1.0, staleness_p99_ms: 1.0 },
            operator: Operator {
                commands: 20,
                succeeded: 20,
                percent: 100.0,
                p99_ms: 40.0,
                deleted_after_ms: Some(300),
            },
            telemetry: Telemetry { served: 5, refused: 900, failed: 0, first_refused_after_ms: Some(80) },
            refused_others: 0,
            others_first_refused_after_ms: None,
            apiserver: Apiserver { busy_percent: 50.0, wasted_percent: 0.0 },
            recovery_ms: Some(700),
        }
    }

    fn people(succeeded: usize, seconds: u64) -> People {
        People { succeeded, commands: 20, slowest: Duration::from_secs(seconds) }
    }

    fn broken(promises: &[Promise]) -> Vec<&'static str> {
        promises.iter().filter(|promise| !promise.kept).map(|promise| promise.promise).collect()
    }

    #[test]
    fn each_promise_can_be_broken() {
        assert!(broken(&storm_promises(&half())).is_empty());
        let mut bad = half();
        (bad.leases.renewed, bad.operator.succeeded, bad.ended_by) = (399, 19, EndedBy::Demo);
        (bad.refused_others, bad.recovery_ms) = (100, None);
        assert_eq!(broken(&storm_promises(&bad)).len(), 5);
        let slow = Scenario::SlowApiserver;
        assert!(broken(&fault_promises(slow, &half(), people(20, 1), people(20, 0), 0)).is_empty());
        assert_eq!(broken(&fault_promises(slow, &bad, people(19, 1), people(19, 0), 1)).len(), 5);
        bad.leases.nodes_not_ready = 1;
        for scenario in [Scenario::EtcdStall, Scenario::DeadApiserver] {
            assert!(broken(&fault_promises(scenario, &half(), people(3, 4), people(20, 0), 9)).is_empty());
            assert_eq!(broken(&fault_promises(scenario, &bad, people(3, 5), people(19, 0), 0)).len(), 4);
        }
        let none = People { succeeded: 0, commands: 0, slowest: Duration::ZERO };
        let idle = fault_promises(slow, &half(), none, none, 0);
        assert_eq!(broken(&idle).len(), 2, "nobody asked: nothing was proven");
    }

    /// A drill as it looks.
    pub(crate) fn report() -> DrillReport {
        let mut half = half();
        half.leases.nodes_not_ready = 2;
        let scenario = Scenario::DeadApiserver;
        let promises = fault_promises(scenario, &half, people(12, 1), people(20, 0), 0);
        DrillReport {
            scenario,
            description: scenario.describe(),
            seed: 7,
            nodes: 100,
            took_seconds: 21.4,
            passed: false,
            promises,
            during: half,
        }
    }
}
