//! What did the probes find since the last tick, in the scheduler's words?
//!
//! Only what is new is handed on: a probe that hangs says so itself, with its age. A refused probe is silent, neither
//! slow nor calm. `/livez` alone decides whether the apiserver is there at all.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::flow::{Probe, Probes};
use crate::gateway::Gate;
use crate::units::Instant;
use crate::upstream::{Outcome, Prober, Probers, Reading};

/// Probes lost one after the other before the apiserver counts as away. Three are under a second: one alone may be a
/// connection that was closed as it was used.
const LOST_IN_A_ROW: u32 = 3;
/// A readiness that was seen longer ago says nothing: three of its turns.
const READY_FOR: Duration = Duration::from_secs(3);

/// Follows the probes for the scheduler.
pub(super) struct Lookout {
    probers: Probers,
    gate: Arc<Gate>,
    /// When the last reading of each probe was made that was handed on.
    seen: [Instant; 3],
    lost: u32,
}

impl Lookout {
    pub(super) fn new(probers: Probers, gate: Arc<Gate>) -> Self {
        Self { probers, gate, seen: [Instant::ORIGIN; 3], lost: 0 }
    }

    /// What the probes found since the tick before.
    pub(super) fn look(&mut self) -> Probes {
        let [livez, cached, consistent] = &mut self.seen;
        let probes = Probes {
            livez: fresh(Some(&self.probers.livez), livez).map_or(Probe::Silent, livez_of),
            cached: fresh(self.probers.cached.as_ref(), cached).map_or(Probe::Silent, object_of),
            consistent: fresh(self.probers.consistent.as_ref(), consistent).map_or(Probe::Silent, object_of),
            ready: self.probers.ready.latest().and_then(|reading| ready_of(&reading, clock::now())),
        };
        self.judge(probes.livez);
        probes
    }

    fn judge(&mut self, livez: Probe) {
        match livez {
            Probe::Lost => {
                self.lost += 1;
                if self.lost == LOST_IN_A_ROW {
                    self.gate.upstream_up(false);
                }
            }
            Probe::Answered(_) => {
                self.lost = 0;
                self.gate.upstream_up(true);
            }
            Probe::Waiting(_) => self.lost = 0,
            Probe::Silent => {}
        }
    }
}

fn fresh(prober: Option<&Prober>, seen: &mut Instant) -> Option<Outcome> {
    let reading = prober?.latest().filter(|reading| reading.at > *seen)?;
    *seen = reading.at;
    Some(reading.outcome)
}

/// Any answer of `/livez`, also a 500, took the time that the process takes.
const fn livez_of(outcome: Outcome) -> Probe {
    match outcome {
        Outcome::Answered { latency, .. } => Probe::Answered(latency),
        Outcome::Refused(_) => Probe::Silent,
        Outcome::Outstanding(age) => Probe::Waiting(age),
        Outcome::Lost => Probe::Lost,
    }
}

/// An object that could not be read in time was not read, however quickly that was said.
const fn object_of(outcome: Outcome) -> Probe {
    match outcome {
        Outcome::Answered { healthy: false, .. } => Probe::Lost,
        outcome => livez_of(outcome),
    }
}

fn ready_of(reading: &Reading, now: Instant) -> Option<bool> {
    match reading.outcome {
        Outcome::Answered { healthy, .. } if now.since(reading.at) <= READY_FOR => Some(healthy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_refused_probe_is_neither_slow_nor_calm() {
        assert_eq!(object_of(Outcome::Refused(StatusCode::FORBIDDEN)), Probe::Silent);
        assert_eq!(livez_of(Outcome::Refused(StatusCode::NOT_FOUND)), Probe::Silent);
    }

    #[test]
    fn a_quick_failure_to_read_an_object_is_a_loss_and_a_slow_health_check_is_an_answer() {
        let failed = Outcome::Answered { latency: Duration::from_millis(1), healthy: false };
        assert_eq!(object_of(failed), Probe::Lost);
        assert_eq!(livez_of(failed), Probe::Answered(Duration::from_millis(1)));
    }

    #[test]
    fn readiness_is_known_only_from_a_fresh_answer() {
        let at = Instant::ORIGIN + Duration::from_secs(100);
        let reading = |outcome| Reading { outcome, at };
        let healthy = Outcome::Answered { latency: Duration::from_millis(1), healthy: true };
        let failing = Outcome::Answered { latency: Duration::from_millis(1), healthy: false };
        assert_eq!(ready_of(&reading(healthy), at), Some(true));
        assert_eq!(ready_of(&reading(failing), at), Some(false));
        assert_eq!(ready_of(&reading(healthy), at + READY_FOR * 2), None);
        assert_eq!(ready_of(&reading(Outcome::Lost), at), None);
        assert_eq!(ready_of(&reading(Outcome::Outstanding(READY_FOR)), at), None);
    }
}
