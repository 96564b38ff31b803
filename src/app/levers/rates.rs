//! How much is served and refused a second, by lane and by client?
//!
//! Counters only grow; a rate is what they grew by since a sample that is one to three seconds old. So a status shows
//! what happens now, and a lever's effect within seconds.

use std::collections::{HashMap, VecDeque};

use crate::gateway::{Counts, Levers, Recent, ReserveUsage, View};
use crate::policy::{ClientKey, Lane};
use crate::units::Instant;

/// Samples that are kept, one a second.
const SAMPLES_MAX: usize = 3;

/// Counters at one moment.
struct Sample {
    at: Instant,
    lanes: [Counts; Lane::COUNT],
    clients: HashMap<ClientKey, Counts>,
}

/// The last few samples.
#[derive(Default)]
pub(super) struct Rates(VecDeque<Sample>);

/// A second's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PerSecond {
    pub(super) served: f64,
    pub(super) shed: f64,
}

impl Rates {
    /// Takes a sample.
    pub(super) fn sample(&mut self, now: Instant, lanes: [Counts; Lane::COUNT], recent: &Recent) {
        while self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        let clients = recent.all().into_iter().map(|(key, client)| (key, client.counts())).collect();
        self.0.push_back(Sample { at: now, lanes, clients });
    }

    /// What a lane was given since.
    pub(super) fn lane(&self, now: Instant, lane: Lane, counts: Counts) -> PerSecond {
        self.since(now, counts, |sample| Some(sample.lanes[lane.index()]))
    }

    /// What a client was given since. One that is newer than the sample began at nothing.
    pub(super) fn client(&self, now: Instant, key: ClientKey, counts: Counts) -> PerSecond {
        self.since(now, counts, |sample| Some(sample.clients.get(&key).copied().unwrap_or_default()))
    }

    fn since(&self, now: Instant, counts: Counts, before: impl Fn(&Sample) -> Option<Counts>) -> PerSecond {
        let Some(sample) = self.0.front() else { return PerSecond::default() };
        let seconds = now.since(sample.at).as_secs_f64();
        let Some(before) = before(sample).filter(|_| seconds > 0.0) else { return PerSecond::default() };
        let rate = |after: u64, before: u64| {
            let rate = after.saturating_sub(before) as f64 / seconds;
            (rate * 10.0).round() / 10.0
        };
        PerSecond {
            served: rate(counts.answered, before.answered),
            shed: rate(counts.refused, before.refused),
        }
    }
}

/// What each lane was given so far: let in, and refused by whatever.
pub(super) fn lanes(view: &View, levers: &Levers, reserve: ReserveUsage) -> [Counts; Lane::COUNT] {
    Lane::ALL.map(|lane| {
        if lane == Lane::BreakGlass {
            return Counts { answered: reserve.admitted, refused: reserve.shed };
        }
        let now = view.snapshot.lane(lane);
        let by_hand: u64 = levers.refused(lane).iter().sum();
        Counts { answered: now.admitted, refused: now.shed_total() + by_hand }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_what_was_counted_since_a_sample_of_some_seconds_ago() {
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        let counts = |answered, refused| Counts { answered, refused };
        let sample = |seconds, answered| Sample {
            at: at(seconds),
            lanes: [counts(answered, 0); Lane::COUNT],
            clients: HashMap::from([(ClientKey(1), counts(answered, 5))]),
        };
        let rates = Rates(VecDeque::from([sample(10, 100), sample(11, 200)]));
        let client = rates.client(at(12), ClientKey(1), counts(300, 105));
        assert_eq!(client, PerSecond { served: 100.0, shed: 50.0 });
        assert_eq!(rates.client(at(12), ClientKey(2), counts(8, 0)).served, 4.0);
        assert_eq!(rates.lane(at(12), Lane::Workload, counts(50, 0)).served, 0.0, "never negative");
        assert_eq!(rates.lane(at(10), Lane::Workload, counts(900, 0)), PerSecond::default());
        assert_eq!(Rates::default().lane(at(1), Lane::Workload, counts(9, 9)), PerSecond::default());
    }
}
