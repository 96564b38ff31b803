//! `make soak`: is spillway as good on a real kube-apiserver as it says?
//!
//! The reference rig: kube-apiserver and etcd share one core, API Priority and Fairness is at its defaults; 500 nodes
//! renew their leases as kubelets do, and there are 5,000 pods, so that one LIST of them is 39 MB. On the other core
//! are spillway and everybody who asks. Storms break over it, each with the same load directly and through spillway.
//!
//! It measures, so nothing else may run beside it. `soak --list` says what there is; whatever it started ends with it,
//! also after Ctrl-C (the cluster's guardian sees to that).

// It talks to a person, measures real time, and says what it expected by panicking, as the test bed does.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod adversity;
mod agents;
mod arguments;
#[path = "../it/storm/client.rs"]
mod client;
#[path = "../it/cluster/mod.rs"]
mod cluster;
mod deployer;
mod electors;
mod etcd;
mod events;
#[allow(dead_code, reason = "the storm test's; it needs some of it that this program does not")]
#[path = "../it/storm/gauges.rs"]
mod gauges;
mod informers;
mod journal;
mod kubelets;
mod lane;
mod manners;
mod measure;
mod mode;
mod objects;
mod operator;
mod outcome;
mod play;
mod report;
mod rig;
mod scene;
mod starters;
mod timeline;

use std::{env, process::ExitCode, time::Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};

use arguments::{USAGE, Wish};
use outcome::Outcome;
use rig::{Flavour, Rig};
use scene::{Event, Scene};

/// Where spillway and the load are.
const CLIENT_CORE: usize = 0;

fn main() -> ExitCode {
    match arguments::read(env::args().skip(1)) {
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}\n\nscenes:\n{}", scene::describe());
            ExitCode::from(2)
        }
        Ok(None) => {
            println!("{USAGE}\n\nscenes:\n{}", scene::describe());
            ExitCode::SUCCESS
        }
        Ok(Some(wish)) if needs_spillway(&wish) && !wish.spillway.exists() => {
            eprintln!(
                "{}: no such program; build it, or name another with --spillway",
                wish.spillway.display()
            );
            ExitCode::from(2)
        }
        Ok(Some(wish)) => play_all(&wish),
    }
}

fn needs_spillway(wish: &Wish) -> bool {
    wish.lane.is_some() || wish.modes.iter().any(|mode| !mode.is_direct())
}

fn play_all(wish: &Wish) -> ExitCode {
    let mut core = CpuSet::new();
    core.set(CLIENT_CORE);
    // What this program starts inherits its core; the servers are given theirs.
    if let Err(why) = sched_setaffinity(None, &core) {
        eprintln!("two cores are needed, one for the servers and one for everybody else: {why}");
        return ExitCode::from(2);
    }
    if let Some(trials) = wish.lane {
        return lane::play(wish, trials);
    }
    let (mut rig, mut runs, mut about): (Option<Rig>, Vec<Outcome>, String) =
        (None, Vec::new(), String::new());
    let started = Instant::now();
    for scene in &wish.scenes {
        if rig.as_ref().is_none_or(|rig| rig.flavour != flavour(scene)) {
            drop(rig.take());
            let built = Rig::build(wish, flavour(scene));
            about = describe(&built, wish);
            println!("{about}\nready after {:.0} s\n", started.elapsed().as_secs_f64());
            rig = Some(built);
        }
        let rig = rig.as_ref().expect("built above");
        for mode in &wish.modes {
            let run = play::run(rig, scene, *mode, wish);
            println!("{}", report::summary(&run));
            runs.push(run);
            if let Err(why) = report::write(&wish.out, &about, &runs) {
                eprintln!("{}: {why}", wish.out.display());
            }
        }
    }
    println!("{}\nResults and time lines are in {}", report::table(&runs), wish.out.display());
    let missed = runs.iter().any(|run| !run.missed.is_empty());
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn flavour(scene: &Scene) -> Flavour {
    if scene.event == Event::MemoryLimit { Flavour::Secrets } else { Flavour::Plain }
}

fn describe(rig: &Rig, wish: &Wish) -> String {
    format!(
        "kube-apiserver 1.34 and etcd on one core, API Priority and Fairness at its defaults; {} nodes, {} pods: one \
         LIST of them is {:.1} MB as JSON, {:.1} MB compressed as client-go asks for it, and {:.2} processor seconds; \
         {} agents.",
        wish.nodes,
        rig.pods,
        rig.list.json as f64 / 1e6,
        rig.list.compressed as f64 / 1e6,
        rig.list.processor.as_secs_f64(),
        wish.agents,
    )
}

/// One thread's runtime.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
