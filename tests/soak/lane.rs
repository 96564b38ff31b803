//! `soak --lane N`: does an operator get in, whatever goes wrong?
//!
//! A trial is what the engineers of 2024-12-11 could not do: a new connection, GET nodes, PATCH the culprit, DELETE it,
//! each once and without retries. N of them through the break-glass lane, and as many, in between, by the same person's
//! everyday certificate through the main listener: a lane that shares listener, threads and upstream connections with
//! everybody, to show what the isolation buys. All of it under the storm of scene `list-ignorant`, and each adversity on
//! top of it in turn.
//!
//! What spillway adds to a trial is the client's time until the heads of the answers, handshakes included, without the
//! time that kube-apiserver took for them. That one is taken from spillway's log, joined by `Audit-ID`.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    adversity::Adversity,
    agents::{Habit, Running},
    arguments::Wish,
    client::{Failure, Who, swallow},
    cluster::Credential,
    journal::{Call, Clock},
    measure::quantile,
    objects,
    rig::{Entrance, Rig, create},
    runtime,
    scene::{Ask, Identity, Manners},
};

/// For the storm, and then the adversity, to be there.
const BUILD_UP: Duration = Duration::from_secs(5);
/// A person's, for one step.
const PATIENCE: Duration = Duration::from_secs(20);
const NODES: &str = "/api/v1/nodes?limit=500";
const CULPRITS: &str = "/apis/apps/v1/namespaces/monitoring/daemonsets";
/// What the lane may add to a trial, 99 of 100 times, in seconds.
const ADDED_MAX: f64 = 0.05;
/// spillway's own log has them all.
const LOG: &str = "All";

/// The way in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The break-glass lane.
    Reserved,
    /// The main listener, as an operator.
    Shared,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Reserved, Self::Shared];

    const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "break-glass lane",
            Self::Shared => "main listener, as an operator",
        }
    }
}

/// How one trial went.
struct Trial {
    at: f64,
    /// Seconds from the first packet to the last head.
    took: f64,
    outcome: Result<(), String>,
    /// Of the answers that came.
    audit_ids: Vec<String>,
}

/// The trials of one way in under one adversity.
struct Row {
    adversity: Adversity,
    way: Way,
    asked: usize,
    ok: usize,
    p50: Option<f64>,
    p99: Option<f64>,
    added_p99: Option<f64>,
    failures: Vec<String>,
}

/// Plays all adversities, prints and writes the table.
pub(crate) fn play(wish: &Wish, trials: usize) -> ExitCode {
    let rig = Rig::build(wish, super::Flavour::Plain);
    rig.cluster.apply(include_str!("../../deploy/break-glass/flowschema.yaml"));
    println!("{}\n", super::describe(&rig, wish));
    let mut rows = Vec::new();
    for adversity in wish.adversities.iter().copied() {
        println!("{} ...", adversity.name());
        let played = suffer(&rig, adversity, wish, trials);
        for row in &played {
            println!("{}", line(row));
            for failure in row.failures.iter().take(5) {
                println!("    {failure}");
            }
        }
        rows.extend(played);
    }
    let text = format!("{}\n{}", super::describe(&rig, wish), table(&rows));
    println!("\n{text}");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&wish.out)?;
        fs::write(wish.out.join("lane.md"), &text)?;
        fs::write(wish.out.join("lane.json"), format!("{:#}\n", as_json(&rows)))
    };
    if let Err(why) = write() {
        eprintln!("{}: {why}", wish.out.display());
    }
    let kept = |row: &Row| {
        row.way == Way::Shared || row.ok == row.asked && row.added_p99.is_some_and(|added| added < ADDED_MAX)
    };
    if rows.iter().all(kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One adversity, from a fresh apiserver and a fresh spillway to the numbers.
fn suffer(rig: &Rig, adversity: Adversity, wish: &Wish, trials: usize) -> Vec<Row> {
    rig.restart();
    let at = open(rig, adversity, wish);
    let ways = Way::BOTH.map(|way| (way, who(rig, &at, way)));
    for way in Way::BOTH {
        put_culprits(rig, adversity, way, trials);
    }
    let agents = rig.agents(&at, wish.agents, Ask::AllPods, Identity::Telemetry);
    let clock = Clock::start();
    let habit = Habit { ask: Ask::AllPods, manners: Manners::Ignorant, clock };
    let storm = Running::begin(agents, habit, Arc::default());
    std::thread::sleep(BUILD_UP);
    let wrong = adversity.begin(rig, &at);
    std::thread::sleep(BUILD_UP);
    let seen = runtime().block_on(all(&ways, adversity, trials, clock));
    drop(wrong);
    storm.end();
    let front = at.front.as_ref().expect("there is a spillway in front");
    let upstream = times_of_kube_apiserver(&front.process.log);
    seen.into_iter().map(|(way, trials)| judge(adversity, way, &trials, &upstream)).collect()
}

/// spillway as `make soak` starts it, with a log line for each request, and a full disk where that is the point.
fn open(rig: &Rig, adversity: Adversity, wish: &Wish) -> Entrance {
    let directory = wish.out.join("lane-state");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory for state");
    let directory = fs::canonicalize(directory).expect("it is there");
    let program = adversity.program(&wish.spillway, &directory);
    let front = rig.cluster.start_front(&program, None, |config| {
        let connections = if adversity == Adversity::NoDescriptors { 400 } else { 10_000 };
        config["limits"] = json!({"connections": connections, "connectionsPerSource": connections});
        config["logging"] = json!({"access": LOG});
        config["state"] = json!({"dir": directory});
        if adversity == Adversity::DiskFull {
            fill_disk(&directory, config);
        }
    });
    Entrance { address: front.main, front: Some(front) }
}

/// Whatever is written to the audit file fails as on a full disk.
fn fill_disk(directory: &Path, config: &mut Value) {
    let audit = directory.join("audit");
    fs::create_dir_all(&audit).expect("a directory for the audit log");
    std::os::unix::fs::symlink("/dev/full", audit.join("break-glass-audit.jsonl")).expect("a link is made");
    config["breakGlass"]["audit"] = json!({"dir": audit});
}

fn who(rig: &Rig, at: &Entrance, way: Way) -> Who {
    let paths = &rig.cluster.paths;
    let (address, pair) = match way {
        Way::Reserved => {
            (at.front.as_ref().map_or(at.address, |front| front.break_glass), paths.break_glass.clone())
        }
        Way::Shared => (at.address, paths.alice.clone()),
    };
    Who::new(address, &paths.server_ca.cert, &Credential::Certificate(pair)).called("kubectl/v1.34.4 soak")
}

fn culprit(adversity: Adversity, way: Way, number: usize) -> String {
    let place = Adversity::ALL.iter().position(|one| *one == adversity).unwrap_or_default();
    format!("culprit-{place}-{}-{number:04}", way as u8)
}

/// Each trial has a DaemonSet of its own to delete. They have no pods: no controller runs.
fn put_culprits(rig: &Rig, adversity: Adversity, way: Way, trials: usize) {
    runtime().block_on(async {
        let admin = rig.admin().connect().await.expect("the apiserver takes an administrator's connection");
        for number in 0..trials {
            create(&admin, CULPRITS, &objects::daemon_set(&culprit(adversity, way, number))).await;
        }
    });
}

/// All trials, the ways in turn.
async fn all(
    ways: &[(Way, Who)],
    adversity: Adversity,
    trials: usize,
    clock: Clock,
) -> Vec<(Way, Vec<Trial>)> {
    let mut ticks = interval(adversity.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = FuturesUnordered::new();
    let mut done: Vec<(Way, Vec<Trial>)> = ways.iter().map(|(way, _)| (*way, Vec::new())).collect();
    let mut keep = |(way, trial): (Way, Trial)| {
        if let Some((_, trials)) = done.iter_mut().find(|(of, _)| *of == way) {
            trials.push(trial);
        }
    };
    for number in 0..trials {
        for (way, who) in ways {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    Some(ended) = open.next() => keep(ended),
                }
            }
            let name = culprit(adversity, *way, number);
            open.push(async move { (*way, trial(who, &name, clock).await) });
        }
    }
    while let Some(ended) = open.next().await {
        keep(ended);
    }
    done
}

async fn trial(who: &Who, name: &str, clock: Clock) -> Trial {
    let (began, mut audit_ids, mut took) = (Instant::now(), Vec::new(), Duration::ZERO);
    let outcome =
        steps(who, name, &mut audit_ids, &mut took).await.map_err(|(step, why)| format!("{step}: {why}"));
    Trial { at: clock.at(began), took: took.as_secs_f64(), outcome, audit_ids }
}

/// The three steps; `took` sums the time to the heads of their answers, the connection's to the first one.
async fn steps(
    who: &Who,
    name: &str,
    audit_ids: &mut Vec<String>,
    took: &mut Duration,
) -> Result<(), (&'static str, String)> {
    let path = format!("{CULPRITS}/{name}");
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"nobody": "here"}}}}}).to_string();
    let began = Instant::now();
    let connection = timeout(PATIENCE, who.connect()).await.unwrap_or(Err(Failure::Timeout));
    *took += began.elapsed();
    let connection = connection.map_err(|why| ("connect", why.to_string()))?;
    let steps = [
        ("GET nodes", Method::GET, NODES, None),
        ("PATCH", Method::PATCH, &*path, Some(patch)),
        ("DELETE", Method::DELETE, &*path, None),
    ];
    for (step, method, path, body) in steps {
        let began = Instant::now();
        let answer =
            timeout(PATIENCE, connection.open(method, path, body)).await.unwrap_or(Err(Failure::Timeout));
        *took += began.elapsed();
        let answer = answer.map_err(|why| (step, why.to_string()))?;
        let id = answer.headers().get("audit-id").and_then(|id| id.to_str().ok());
        audit_ids.extend(id.map(str::to_owned));
        let status = answer.status();
        let rest = timeout(PATIENCE, swallow(answer.into_body())).await.unwrap_or(Err(Failure::Timeout));
        rest.map_err(|why| (step, why.to_string()))?;
        if !status.is_success() {
            return Err((step, format!("status {status}")));
        }
    }
    Ok(())
}

/// How long kube-apiserver took to the first byte of each answer, in seconds, by Audit-ID.
fn times_of_kube_apiserver(log: &Path) -> HashMap<String, f64> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let took = line["upstreamLatency"].as_str()?.strip_suffix("ms")?.parse::<f64>().ok()?;
        Some((line["audit-ID"].as_str()?.to_owned(), took / 1e3))
    };
    text.lines().filter_map(line).collect()
}

fn judge(adversity: Adversity, way: Way, trials: &[Trial], upstream: &HashMap<String, f64>) -> Row {
    let call = |trial: &Trial, took| Call { at: trial.at, took, ok: trial.outcome.is_ok() };
    let whole: Vec<Call> = trials.iter().map(|trial| call(trial, trial.took)).collect();
    // Without all of its answers in the log, nothing can be said about what was added to a trial.
    let known = |trial: &Trial| {
        let asked: Option<f64> = trial.audit_ids.iter().map(|id| upstream.get(id)).sum();
        asked.filter(|_| trial.audit_ids.len() == 3).map(|asked| call(trial, trial.took - asked))
    };
    let added: Vec<Call> = trials.iter().filter_map(known).collect();
    let ok = trials.iter().filter(|trial| trial.outcome.is_ok()).count();
    let complete = added.iter().filter(|call| call.ok).count() == ok;
    Row {
        adversity,
        way,
        asked: trials.len(),
        ok,
        p50: quantile(&whole, 0.5),
        p99: quantile(&whole, 0.99),
        added_p99: quantile(&added, 0.99).filter(|_| complete),
        failures: trials.iter().filter_map(|trial| trial.outcome.as_ref().err().cloned()).collect(),
    }
}

fn seconds(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value < 1.0 => format!("{:.0} ms", value * 1e3),
        Some(value) => format!("{value:.1} s"),
    }
}

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} of {} | {} | {} | {} |",
        row.adversity.name(),
        row.way.name(),
        row.ok,
        row.asked,
        seconds(row.p50),
        seconds(row.p99),
        seconds(row.added_p99),
    )
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| besides the storm | way in | trials that worked | p50 | p99 | added by spillway, p99 |\n\
                    |---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

fn as_json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "adversity": row.adversity.name(), "way": row.way.name(), "asked": row.asked, "ok": row.ok,
                "p50": row.p50, "p99": row.p99, "added_p99": row.added_p99, "failures": row.failures,
            })
        })
        .collect()
}
