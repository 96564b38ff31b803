//! What do the three probes say, each against its own calm?
//!
//! `/livez` without its etcd check measures the process (CPU, garbage collection), a GET from the watch cache measures
//! the path to the cache, the same GET without a resourceVersion must ask etcd. Together they tell *what* is slow: all
//! three, CPU; the last alone, etcd; none of them while calls are slow, a webhook or one priority level.
//!
//! A probe is one call a tick, so one reading is noise: pressure uses the latest (a probe that waits is news),
//! the finding what the middle of the last three says.

use std::time::Duration;

use super::estimate::approach;

/// What one probe says since the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// Nothing new.
    #[default]
    Silent,
    /// Sent this long ago, not answered yet.
    Waiting(Duration),
    /// Answered after this long.
    Answered(Duration),
    /// Given up or failed.
    Lost,
}

/// The inputs of a tick that the scheduler cannot see itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// GET `/livez` without its etcd check, 4 a second on a connection of its own: process, CPU, garbage collection.
    pub livez: Probe,
    /// GET of one small object from the watch cache (`resourceVersion=0`).
    pub cached: Probe,
    /// The same GET without a resourceVersion: it must ask etcd.
    pub consistent: Probe,
    /// What `/readyz` says; `None` where it has not been asked or did not answer.
    pub ready: Option<bool>,
}

/// Ticks for which a reading counts.
const FRESH_TICKS: u32 = 4;
/// What a lost probe says in microseconds: as slow as a probe that never ends.
const LOST_MICROS: f32 = 1e6;
/// Slower than this is all the same.
const RATIO_MAX: f32 = 100.0;
/// Answers before anything is said: one answer has nothing to be compared with.
const BASELINE_ANSWERS: u8 = 3;

/// One probe's history.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Calm time in microseconds; 0 is not known.
    baseline: f32,
    /// Answers that taught it, up to [`BASELINE_ANSWERS`].
    taught: u8,
    /// The last three times in microseconds.
    last: [f32; 3],
    heard: u8,
    /// Ticks since the last reading.
    age: u32,
    lost_last: bool,
}

impl History {
    /// Takes in what a tick brought; a time that may be learnt, if it is calm.
    pub(super) fn hear(&mut self, probe: Probe) -> Option<f32> {
        self.age = self.age.saturating_add(1);
        let (micros, complete) = match probe {
            Probe::Silent => return None,
            Probe::Waiting(time) => (time.as_micros() as f32, false),
            Probe::Answered(time) => (time.as_micros() as f32, true),
            Probe::Lost => (LOST_MICROS, false),
        };
        // What is still awaited can only become worse than it was: it says nothing good yet.
        if probe != Probe::Lost && !complete && micros <= self.last[0].max(self.baseline) {
            return None;
        }
        self.lost_last = probe == Probe::Lost;
        self.last = [micros, self.last[0], self.last[1]];
        self.heard = (self.heard + 1).min(3);
        self.age = 0;
        complete.then_some(micros)
    }

    /// The last answer came in calm.
    pub(super) fn teach(&mut self, micros: f32) {
        self.baseline = approach(self.baseline, micros);
        self.taught = (self.taught + 1).min(BASELINE_ANSWERS);
    }

    /// A baseline from before a restart.
    pub(super) fn recall(&mut self, baseline: f32) {
        (self.baseline, self.taught) = (baseline, BASELINE_ANSWERS);
    }

    /// Whether too few answers taught its calm to speak of it.
    pub(super) fn is_new(&self) -> bool {
        self.taught < BASELINE_ANSWERS
    }

    /// Calm time in microseconds; 0 is not known.
    pub(super) fn baseline(&self) -> f32 {
        self.baseline
    }

    /// Whether the probe was lost when it was heard last.
    pub(super) fn is_lost(&self) -> bool {
        self.lost_last
    }

    /// The latest time in microseconds, while it is fresh.
    pub(super) fn latest(&self) -> Option<f32> {
        (self.heard > 0 && self.age < FRESH_TICKS).then_some(self.last[0])
    }

    /// Times slower than in calm, by the middle of the last three; `None` where that cannot be said.
    pub(super) fn slowdown(&self) -> Option<f64> {
        if self.taught < BASELINE_ANSWERS || self.heard < 3 || self.age >= FRESH_TICKS {
            return None;
        }
        Some(f64::from((self.middle() / self.baseline).clamp(1.0, RATIO_MAX)))
    }

    /// The middle of the last three times, in microseconds.
    pub(super) fn middle(&self) -> f32 {
        let mut last = self.last;
        last.sort_unstable_by(f32::total_cmp);
        last[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(millis: u64) -> Probe {
        Probe::Answered(Duration::from_millis(millis))
    }

    fn calm() -> History {
        let mut history = History::default();
        for _ in 0..4 {
            let micros = history.hear(answered(2)).unwrap();
            history.teach(micros);
        }
        history
    }

    #[test]
    fn one_slow_answer_is_no_finding_and_two_are() {
        let mut history = calm();
        history.hear(answered(40));
        assert_eq!((history.slowdown(), history.latest()), (Some(1.0), Some(40_000.0)));
        history.hear(answered(40));
        assert_eq!(history.slowdown(), Some(20.0));
    }

    #[test]
    fn a_probe_that_waits_is_heard_once_it_is_worse_than_before() {
        let mut history = calm();
        assert_eq!(history.hear(Probe::Waiting(Duration::from_millis(1))), None);
        assert_eq!(history.latest(), Some(2_000.0));
        history.hear(Probe::Waiting(Duration::from_millis(200)));
        history.hear(Probe::Waiting(Duration::from_millis(450)));
        assert_eq!(history.slowdown(), Some(100.0));
    }

    #[test]
    fn silence_and_too_little_history_say_nothing() {
        let mut history = calm();
        (0..FRESH_TICKS).for_each(|_| _ = history.hear(Probe::Silent));
        assert_eq!((history.slowdown(), history.latest()), (None, None));
        let mut new = History::default();
        new.hear(answered(900));
        assert_eq!(new.slowdown(), None);
    }
}
