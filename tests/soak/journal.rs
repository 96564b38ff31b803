//! What happened, when? The raw notes of one run; `measure.rs` makes numbers of them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

/// One call, in seconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) at: f64,
    pub(crate) took: f64,
    pub(crate) ok: bool,
}

/// Calls of one kind of client.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    made: Mutex<Vec<Call>>,
    /// Answers that said: come back.
    pub(crate) refused: AtomicU64,
    /// Why calls failed, and how often; the first few reasons.
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// Different reasons kept of one kind of client.
const REASONS_MAX: usize = 8;

impl Calls {
    /// Notes a call that began at `began` and ends now.
    pub(crate) fn note(&self, clock: Clock, began: Instant, outcome: Result<(), String>) {
        let call = Call { at: clock.at(began), took: began.elapsed().as_secs_f64(), ok: outcome.is_ok() };
        self.made.lock().push(call);
        if let Err(why) = outcome {
            let mut reasons = self.reasons.lock();
            if reasons.len() < REASONS_MAX || reasons.contains_key(&why) {
                *reasons.entry(why).or_default() += 1;
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        self.made.lock().clone()
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The reasons, as lines.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.reasons.lock().iter().map(|(why, times)| format!("{times} x {why}")).collect()
    }
}

/// Seconds since a run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn at(self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.0).as_secs_f64()
    }

    pub(crate) fn now(self) -> f64 {
        self.at(Instant::now())
    }
}

/// One node's renewals: when each was due, and when it came through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// `(due, done)`, in order.
    pub(crate) renewed: Vec<(f64, f64)>,
    /// Due and not done yet.
    pub(crate) open: Option<f64>,
}

/// What the storm's agents got.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    /// Whole answers.
    pub(crate) served: Mutex<Vec<Call>>,
    /// Whole answers of each agent.
    pub(crate) by_agent: Mutex<Vec<u64>>,
    /// Refusals, by the second of the run.
    pub(crate) refused: Mutex<Vec<u64>>,
    pub(crate) bytes: AtomicU64,
    pub(crate) asked: AtomicU64,
    /// Calls that ended with anything else.
    pub(crate) failed: Calls,
}

impl Storm {
    pub(crate) fn refuse(&self, second: f64) {
        let second = second.max(0.0) as usize;
        let mut refused = self.refused.lock();
        if refused.len() <= second {
            refused.resize(second + 1, 0);
        }
        refused[second] += 1;
    }

    pub(crate) fn serve(&self, agent: usize, call: Call, bytes: u64) {
        self.served.lock().push(call);
        let mut agents = self.by_agent.lock();
        if agents.len() <= agent {
            agents.resize(agent + 1, 0);
        }
        agents[agent] += 1;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refused.lock().iter().sum()
    }
}
