//! What is measured while a run goes on? Raw samples; `figures` makes numbers of them when it is over.

use std::time::Duration;

use super::clients::Mark;
use super::guard::Truth;
use crate::policy::Lane;
use crate::units::Instant;

/// A call that failed.
pub(super) const FAILED: u32 = u32::MAX;

/// One call of a client, with all its tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) began: Instant,
    /// How long it took; [`FAILED`] if it did not work.
    pub(super) micros: u32,
}

/// Tries of one lane in one phase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    pub(super) made: u64,
    pub(super) shed: u64,
}

/// One second of a run, for comparing it with a run without shedding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Tries that reached the algorithm.
    pub attempts: u32,
    /// Tries that it refused.
    pub shed: u32,
    /// Calls that were under way in it and failed or were too late.
    pub bad: u32,
    /// Share of the server's cores in use.
    pub busy: f64,
}

/// What one client got in the storm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) work: f64,
    pub(super) calls: u32,
}

/// Phases in order: calm, storm, after.
pub(super) const PHASES: usize = 3;

/// Everything that is written down.
#[derive(Debug)]
pub(super) struct Measure {
    /// Ends of the phases.
    pub(super) ends: [Instant; PHASES],
    pub(super) samples: [Vec<Sample>; Lane::COUNT],
    pub(super) tries: [[Tries; PHASES]; Lane::COUNT],
    /// Work and calls served in the storm, by lane.
    pub(super) served: [Share; Lane::COUNT],
    pub(super) shares: Vec<Share>,
    pub(super) marks: Vec<(Instant, Mark)>,
    pub(super) first_shed: Option<Instant>,
    /// The limit at each tick.
    pub(super) limits: Vec<(Instant, f64)>,
    pub(super) seconds: Vec<Second>,
}

/// Within which time a call must be answered to be of use, by lane: the classes of the evaluation protocol.
pub(super) const fn deadline(lane: Lane) -> Duration {
    match lane {
        Lane::NodeHealth => Duration::from_secs(1),
        Lane::BreakGlass | Lane::ControlPlane | Lane::Platform | Lane::Operators => Duration::from_secs(5),
        Lane::Workload | Lane::Unknown => Duration::from_secs(30),
        Lane::Telemetry => Duration::from_secs(60),
    }
}

impl Measure {
    pub(super) fn new(ends: [Instant; PHASES], clients: usize) -> Self {
        let seconds = usize::try_from(ends[2].since(Instant::ORIGIN).as_secs()).unwrap_or(0) + 1;
        Self {
            ends,
            samples: Default::default(),
            tries: Default::default(),
            served: Default::default(),
            shares: vec![Share::default(); clients],
            marks: Vec::new(),
            first_shed: None,
            limits: Vec::new(),
            seconds: vec![Second::default(); seconds],
        }
    }

    pub(super) fn phase(&self, now: Instant) -> usize {
        self.ends.iter().position(|&end| now < end).unwrap_or(PHASES - 1)
    }

    /// Share of the cores in use in the second that ends now.
    pub(super) fn busy(&mut self, now: Instant, share: f64) {
        if let Some(second) = self.second(now - Duration::from_millis(1)) {
            second.busy = share;
        }
    }

    fn second(&mut self, now: Instant) -> Option<&mut Second> {
        let index = usize::try_from(now.since(Instant::ORIGIN).as_secs()).ok()?;
        self.seconds.get_mut(index)
    }

    /// A try reaches the algorithm.
    pub(super) fn attempt(&mut self, now: Instant, lane: Lane) {
        let phase = self.phase(now);
        self.tries[lane.index()][phase].made += 1;
        if let Some(second) = self.second(now) {
            second.attempts += 1;
        }
    }

    /// The algorithm refuses a try.
    pub(super) fn shed(&mut self, now: Instant, lane: Lane) {
        let phase = self.phase(now);
        self.tries[lane.index()][phase].shed += 1;
        if phase == 1 {
            self.first_shed.get_or_insert(now);
        }
        if let Some(second) = self.second(now) {
            second.shed += 1;
        }
    }

    /// A call is over now.
    pub(super) fn call(&mut self, now: Instant, lane: Lane, began: Instant, took: Option<Duration>) {
        let micros = took.map_or(FAILED, |took| u32::try_from(took.as_micros()).unwrap_or(FAILED - 1));
        self.samples[lane.index()].push(Sample { began, micros });
        if took.is_none_or(|took| took > deadline(lane)) {
            // All of its time: while it hangs, its client begins no other that could be bad.
            let index =
                |at: Instant| usize::try_from(at.since(Instant::ORIGIN).as_secs()).unwrap_or(usize::MAX);
            let seconds = self.seconds.iter_mut().take(index(now).saturating_add(1)).skip(index(began));
            seconds.for_each(|second| second.bad += 1);
        }
    }

    /// A call that is over had worked, and cost this.
    pub(super) fn serve(&mut self, now: Instant, lane: Lane, client: usize, truth: &Truth) {
        if self.phase(now) != 1 {
            return;
        }
        for share in [Some(&mut self.served[lane.index()]), self.shares.get_mut(client)].into_iter().flatten()
        {
            share.work += truth.cpu_micros;
            share.calls += 1;
        }
    }
}
