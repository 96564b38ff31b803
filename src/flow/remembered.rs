//! What survives a restart?
//!
//! What calls cost in calm takes minutes to learn, and the minutes after a restart are when it is needed most. So the
//! scheduler can hand out what it learnt as plain numbers and take them back; reading and writing a file is somebody
//! else's. Whatever comes back is checked and aged here: a remembered number may only be a start, never a truth.

use std::time::Duration;

use super::scheduler::Scheduler;

/// Everything worth keeping over a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// [`Remembered::VERSION`] of the writer: keys are hashes, and a changed hash would give them other meanings.
    pub version: u32,
    /// The limit L when all was last well, in seats.
    pub limit: f64,
    /// Calm times of the three probes in microseconds; 0 is not known.
    pub probes: [f32; 3],
    /// What calls cost, by key.
    pub calls: Vec<RememberedCall>,
}

/// What one kind of call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RememberedCall {
    /// Hash of the key.
    pub exact: u64,
    /// Hash of its family; 0 for a family itself.
    pub family: u64,
    /// Calm time to first byte in microseconds; 0 is not known.
    pub baseline: f32,
    /// Calm time to the end of the answer in microseconds; 0 is not known.
    pub total: f32,
    /// Mean size of the answer in bytes.
    pub bytes: f32,
    /// Calls that taught it.
    pub calls: u32,
}

impl Remembered {
    /// Changes whenever the hash behind [`RememberedCall::exact`] or the meaning of a number does.
    pub const VERSION: u32 = 1;
}

/// Older than this, what was learnt is only a hint: new samples win at once.
const FRESH: Duration = Duration::from_secs(3600);
/// Older than this it is about another cluster.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Calls that a hint counts for: with the next one it has a history.
const HINT_CALLS: u32 = 3;
/// Calls that anything remembered counts for at most: one weight in the running mean.
const CALLS_MAX: u32 = 64;
/// No call takes longer in calm than a minute, which is kube-apiserver's own request timeout.
const MICROS_MAX: f32 = 60e6;
/// No probe is calm beyond this.
const PROBE_MICROS_MAX: f32 = 1e6;
/// No answer is larger than a tebibyte.
const BYTES_MAX: f32 = 1.1e12;
/// Most calls that are looked at: twice what the table holds.
const CALLS_LOOKED_AT: usize = 8192;
/// A limit from before a restart is where to begin, not where to be.
const LIMIT_SHARE: f64 = 0.5;

impl RememberedCall {
    /// The call with every number that cannot be left out; `None` when nothing is left.
    fn checked(&self, is_hint: bool) -> Option<Self> {
        let time = |micros: f32| if (1.0..=MICROS_MAX).contains(&micros) { micros } else { 0.0 };
        let bytes = if self.bytes > 0.0 && self.bytes <= BYTES_MAX { self.bytes } else { 0.0 };
        let (baseline, total) = (time(self.baseline), time(self.total));
        // What ended before it began is no time.
        let total = if total >= baseline { total } else { 0.0 };
        let calls = self.calls.min(if is_hint { HINT_CALLS } else { CALLS_MAX });
        let is_known = self.exact != 0 && calls > 0 && (baseline > 0.0 || total > 0.0 || bytes > 0.0);
        is_known.then_some(Self { baseline, total, bytes, calls, ..*self })
    }
}

impl Scheduler {
    /// What is worth keeping over a restart. Only calm teaches times, so this may be asked at any moment.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        let probes = [&self.pressure.livez, &self.pressure.cached, &self.pressure.consistent];
        Remembered {
            version: Remembered::VERSION,
            limit: self.recovery.good_limit(),
            probes: probes.map(|probe| probe.baseline()),
            calls: self.estimates.export(),
        }
    }

    /// Takes back what was remembered `age` ago. Call it before the first request. Numbers that cannot be are left
    /// out; the count of calls taken over is returned.
    pub fn recall(&mut self, remembered: &Remembered, age: Duration) -> usize {
        if remembered.version != Remembered::VERSION || age > KEPT {
            return 0;
        }
        let probes = [&mut self.pressure.livez, &mut self.pressure.cached, &mut self.pressure.consistent];
        for (probe, &baseline) in probes.into_iter().zip(&remembered.probes) {
            if (1.0..=PROBE_MICROS_MAX).contains(&baseline) {
                probe.recall(baseline);
            }
        }
        if remembered.limit.is_finite() && remembered.limit > 0.0 {
            self.limit.set(LIMIT_SHARE * remembered.limit);
            self.resize();
        }
        let calls = remembered.calls.iter().take(CALLS_LOOKED_AT);
        let known = calls.filter_map(|call| call.checked(age > FRESH));
        known.map(|call| usize::from(self.estimates.import(&call, self.ticks))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster_list, object};
    use super::*;
    use crate::flow::{Arrival, Decision, End, Kind, Level, Outcome, Probe, Probes, Settings, TICK};
    use crate::policy::Lane;
    use crate::units::{Instant, Seats};

    const HOUR: Duration = Duration::from_secs(3600);

    fn scheduler() -> Scheduler {
        Scheduler::new(Settings::default(), 1, Instant::ORIGIN)
    }

    /// A scheduler that has seen small GETs and one LIST, in calm.
    fn taught() -> Scheduler {
        let (mut scheduler, mut now) = (scheduler(), Instant::ORIGIN);
        for _ in 0..20 {
            for key in [object("pods"), cluster_list("pods")] {
                let arrival = Arrival {
                    lane: Lane::Operators,
                    flow: 1,
                    client: 1,
                    key,
                    kind: Kind::Short,
                    exempt: false,
                };
                let Decision::Admit(ticket) = scheduler.arrive(now, &arrival) else { panic!("it is calm") };
                let end = now + Duration::from_millis(4);
                let bytes = if key.unpaged { 3_000_000 } else { 2_000 };
                scheduler.first_byte(end, ticket, Level(1));
                scheduler.finish(end, ticket, Outcome { end: End::Success, bytes, level: Level(1) });
            }
            now = now + TICK;
            let answered = Probe::Answered(Duration::from_millis(2));
            let probes = Probes { livez: answered, cached: answered, consistent: answered, ready: None };
            scheduler.tick(now, &probes);
        }
        scheduler
    }

    #[test]
    fn what_was_learnt_survives_a_restart() {
        let before = taught();
        let remembered = before.remember();
        let mut after = scheduler();
        // Two keys and their families.
        assert_eq!(after.recall(&remembered, Duration::from_secs(60)), 4);
        for key in [object("pods"), cluster_list("pods")] {
            assert_eq!(after.estimates.estimate(&key), before.estimates.estimate(&key));
        }
        assert_eq!(after.estimates.estimate(&cluster_list("pods")).seats, Seats(16));
        assert_eq!(after.remember().probes, remembered.probes);
        assert!(remembered.probes.iter().all(|probe| (1_900.0..2_100.0).contains(probe)));
        assert_eq!(after.snapshot(Instant::ORIGIN).limit, Seats(32), "half of 64");
    }

    #[test]
    fn numbers_that_cannot_be_are_left_out_one_by_one() {
        let good = RememberedCall { exact: 7, family: 8, baseline: 2e3, total: 3e3, bytes: 9e3, calls: 50 };
        let bad = [f32::NAN, f32::INFINITY, -1.0, 1e30];
        for number in bad {
            let call = RememberedCall { baseline: number, bytes: number, ..good };
            assert_eq!(call.checked(false), Some(RememberedCall { baseline: 0.0, bytes: 0.0, ..good }));
            let nothing = RememberedCall { total: number, ..call };
            assert_eq!(nothing.checked(false), None);
        }
        assert_eq!(RememberedCall { exact: 0, ..good }.checked(false), None);
        let mut scheduler = scheduler();
        let remembered = Remembered {
            version: Remembered::VERSION,
            limit: f64::NAN,
            probes: [f32::NAN, -1.0, 1e12],
            calls: vec![RememberedCall { calls: u32::MAX, ..good }],
        };
        assert_eq!(scheduler.recall(&remembered, HOUR), 1);
        assert_eq!((scheduler.remember().probes, scheduler.remember().limit), ([0.0; 3], 64.0));
        assert_eq!(scheduler.remember().calls[0].calls, CALLS_MAX);
    }

    #[test]
    fn the_old_is_a_hint_and_the_very_old_and_the_unknown_are_nothing() {
        let remembered = taught().remember();
        let mut after = scheduler();
        assert_eq!(after.recall(&remembered, 2 * HOUR), 4);
        assert!(after.remember().calls.iter().all(|call| call.calls <= HINT_CALLS));
        assert_eq!(scheduler().recall(&remembered, 31 * 24 * HOUR), 0);
        let other = Remembered { version: Remembered::VERSION + 1, ..remembered };
        assert_eq!(scheduler().recall(&other, HOUR), 0);
    }

    #[test]
    fn no_file_fills_more_than_the_table() {
        let call =
            |exact| RememberedCall { exact, family: 1, baseline: 1e3, total: 1e3, bytes: 1.0, calls: 9 };
        let calls = (1..100_000u64).map(|number| call(super::super::random::mix(number))).collect();
        let remembered =
            Remembered { version: Remembered::VERSION, limit: 1e9, calls, ..Remembered::default() };
        let mut scheduler = scheduler();
        assert!(scheduler.recall(&remembered, HOUR) <= 4096);
        assert_eq!(scheduler.snapshot(Instant::ORIGIN).limit, Seats(1000), "within its bounds");
    }
}
