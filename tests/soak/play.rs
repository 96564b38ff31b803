//! One run: a scene in a mode, from the first connection to the numbers.
//!
//! The cast acts on one thread, the storm on another, and what happens besides (`events.rs`) on others that may block.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{sleep, sleep_until};

use super::{
    agents::{Agent, Habit, Running},
    arguments::Wish,
    electors::Electors,
    events::{self, Happened},
    gauges::{Metrics, memory_peak_mb},
    journal::{Clock, Storm},
    kubelets::Kubelets,
    mode::Mode,
    operator::Operator,
    outcome::{self, Outcome},
    rig::{Entrance, Rig},
    runtime,
    scene::{Agents, Event, Scene},
    starters::Starters,
    timeline::{self, Sample, Used},
};

/// For 500 nodes to connect.
const WARM_UP: Duration = Duration::from_secs(4);
/// How far into the storm new nodes and DNS servers start: after the first reaction, which has its own number; and
/// where something changes in the middle, after that.
const STARTERS_AT: f64 = 0.4;
const STARTERS_AT_LATE: f64 = 0.65;

/// When the parts of a run begin.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) calm: Instant,
    pub(crate) storm: Instant,
    pub(crate) after: Instant,
    pub(crate) end: Instant,
}

/// Everything that was written down in one run.
pub(crate) struct Notes {
    pub(crate) clock: Clock,
    pub(crate) times: Times,
    pub(crate) kubelets: Kubelets,
    pub(crate) operator: Operator,
    pub(crate) electors: Electors,
    pub(crate) starters: Starters,
    pub(crate) storm: Arc<Storm>,
    pub(crate) samples: Mutex<Vec<Sample>>,
    /// Processor time at the begin and end of the storm.
    pub(crate) used: Mutex<Vec<Used>>,
    /// spillway's metrics at the begin of the storm and at the end of the run.
    pub(crate) metrics: Mutex<Vec<Metrics>>,
    pub(crate) happened: Happened,
}

pub(crate) fn run(rig: &Rig, scene: &Scene, mode: Mode, wish: &Wish) -> Outcome {
    if scene.event == Event::Fourfold {
        rig.thin_out(rig.pods / 4);
    }
    rig.restart();
    let at = rig.open(mode, scene.event, &wish.spillway);
    let count = match scene.agents {
        Agents::Wished => wish.agents,
        Agents::Fixed(count) => count,
    };
    let agents = rig.agents(&at, count, scene.ask, scene.identity);
    let (kubelets, dns) = rig.starters(&at);
    let (known, leaders) = (rig.kubelets(&at), rig.leaders(&at));
    let stage = events::Stage::set(rig, scene.event, &at);

    let (clock, now) = (Clock::start(), Instant::now());
    let storm = wish.storm.max(Duration::from_secs(scene.storm_min));
    let calm = now + WARM_UP;
    let times = Times {
        calm,
        storm: calm + wish.calm,
        after: calm + wish.calm + storm,
        end: calm + wish.calm + storm + wish.after,
    };
    let notes = Notes {
        clock,
        times,
        kubelets: Kubelets::new(known, clock),
        operator: Operator::new(rig.operator(&at), clock),
        electors: Electors::new(leaders, clock),
        starters: Starters::new(kubelets, dns, clock),
        storm: Arc::default(),
        samples: Mutex::default(),
        used: Mutex::default(),
        metrics: Mutex::default(),
        happened: Happened::default(),
    };
    let late = matches!(scene.event, Event::Halved | Event::Doubled | Event::Fourfold | Event::Stopped);
    let starters_at = if late { STARTERS_AT_LATE } else { STARTERS_AT };
    let habit = Habit { ask: scene.ask, manners: scene.manners, clock };
    thread::scope(|scope| {
        scope.spawn(|| stage.happen(rig, &notes));
        scope.spawn(|| stage.crowd(&notes));
        runtime().block_on(async {
            let front = at.front.as_ref().map(|front| (front.process.id(), front.metrics));
            tokio::select! {
                () = notes.kubelets.run(WARM_UP) => unreachable!("kubelets do not end"),
                () = notes.operator.run() => unreachable!("the operator does not end"),
                () = notes.electors.run() => unreachable!("electors do not end"),
                () = stage.act(&notes) => unreachable!("the event's clients do not end"),
                () = timeline::follow(&rig.cluster, front, clock, &notes.samples) => unreachable!("time does not end"),
                () = perform(rig, &at, agents, habit, starters_at, &notes) => {}
            }
        });
    });
    drop(stage);
    let peak = rig.cluster.pid("apiserver").map_or(0, memory_peak_mb);
    if scene.event == Event::Fourfold {
        rig.fill(rig.pods / 4, rig.pods);
    }
    outcome::of(scene, mode, &notes, peak)
}

/// The order of events; returns at the end of the run.
async fn perform(
    rig: &Rig,
    at: &Entrance,
    agents: Vec<Agent>,
    habit: Habit,
    starters_at: f64,
    notes: &Notes,
) {
    let times = notes.times;
    sleep_until(times.storm.into()).await;
    if let Some(pid) = rig.cluster.pid("apiserver") {
        timeline::forget_peak(pid);
    }
    take_stock(rig, at, notes).await;
    let storm = Running::begin(agents, habit, Arc::clone(&notes.storm));
    tokio::join!(sleep_until(times.after.into()), async {
        sleep((times.after - times.storm).mul_f64(starters_at)).await;
        notes.starters.run().await;
    });
    storm.end();
    take_stock(rig, at, notes).await;
    sleep_until(times.end.into()).await;
    read_metrics(at, notes).await;
}

async fn take_stock(rig: &Rig, at: &Entrance, notes: &Notes) {
    notes.used.lock().push(Used::now(&rig.cluster, at.front.as_ref().map(|front| front.process.id())));
    read_metrics(at, notes).await;
}

async fn read_metrics(at: &Entrance, notes: &Notes) {
    if let Some(front) = &at.front {
        let read = Metrics::read(front.metrics).await;
        notes.metrics.lock().push(read);
    }
}
