//! What do fixed numbers do? A count for reads and one for writes, one count for all, or one for each lane.
//!
//! `fixed` is kube-apiserver's `--max-requests-inflight=400 --max-mutating-requests-inflight=200` with APF off, where
//! long-running requests are not counted; `fixed-total` is one count of 600; `shares` gives each lane a part of a total,
//! neither lent nor borrowed. Who is refused returns after a second, as the apiserver says. The grids scale the
//! totals down to what a server of one core can bear.

use super::law::PARTITIONS;
use super::running::Running;
use crate::flow::{Kind, Probes};
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Grid of `fixed`: reads and writes.
pub(super) const FIXED: [(&str, [u32; 2]); 6] = [
    ("400 reads, 200 writes", [400, 200]),
    ("200 reads, 100 writes", [200, 100]),
    ("80 reads, 40 writes", [80, 40]),
    ("40 reads, 20 writes", [40, 20]),
    ("16 reads, 8 writes", [16, 8]),
    ("6 reads, 8 writes", [6, 8]),
];

/// Grid of `fixed-total`.
pub(super) const TOTAL: [(&str, u32); 5] = [("600", 600), ("200", 200), ("60", 60), ("20", 20), ("8", 8)];

/// Grid of `shares`: the total.
pub(super) const SHARES: [(&str, u32); 6] =
    [("600", 600), ("300", 300), ("120", 120), ("60", 60), ("24", 24), ("10", 10)];

/// Counts that never move.
#[derive(Debug)]
pub(super) struct Pools {
    sizes: Vec<u32>,
    rule: Rule,
    running: Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    ReadsAndWrites,
    All,
    Lanes,
}

impl Pools {
    pub(super) fn fixed(sizes: [u32; 2]) -> Self {
        Self { sizes: sizes.to_vec(), rule: Rule::ReadsAndWrites, running: Running::new(2) }
    }

    pub(super) fn total(size: u32) -> Self {
        Self { sizes: vec![size], rule: Rule::All, running: Running::new(1) }
    }

    pub(super) fn shares(total: u32) -> Self {
        let sizes = PARTITIONS.iter().map(|percent| (total * percent).div_ceil(100).max(1)).collect();
        Self { sizes, rule: Rule::Lanes, running: Running::new(Lane::COUNT) }
    }

    fn pool(&self, call: &Call) -> usize {
        match self.rule {
            Rule::ReadsAndWrites => usize::from(call.write),
            Rule::All => 0,
            Rule::Lanes => call.lane.index(),
        }
    }
}

impl Guard for Pools {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        let pool = self.pool(call);
        if call.exempt || self.rule != Rule::Lanes && call.kind != Kind::Short {
            self.running.start_free(now, id, call);
        } else if self.running.pool(pool) < self.sizes[pool] {
            self.running.start(now, id, call, (pool, 1));
        } else {
            return PLAIN_RETRY_AFTER;
        }
        Answer::Admit
    }

    fn first_byte(&mut self, _now: Instant, id: Id, _level: u64) {
        self.running.first_byte(id);
    }

    fn burst_done(&mut self, _now: Instant, id: Id) {
        self.running.burst_done(id);
    }

    fn finish(&mut self, _now: Instant, id: Id, _ended: Ended) {
        self.running.finish(id);
    }

    fn cancel(&mut self, _now: Instant, id: Id) {
        self.running.finish(id);
    }

    fn tick(&mut self, _now: Instant, _probes: &Probes) {}

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}

    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call};
    use super::*;

    fn admitted(pools: &mut Pools, call: &Call, from: Id, tries: u32) -> u32 {
        (from..from + tries).map(|id| u32::from(pools.arrive(at(0), id, call) == Answer::Admit)).sum()
    }

    #[test]
    fn reads_and_writes_have_counts_of_their_own_and_watches_none() {
        let mut pools = Pools::fixed(FIXED[0].1);
        let read = call(Lane::Telemetry, 1);
        let write = Call { write: true, ..call(Lane::NodeHealth, 2) };
        let watch = Call { kind: Kind::Watch, ..call(Lane::Platform, 3) };
        assert_eq!(admitted(&mut pools, &read, 0, 1_000), 400);
        assert_eq!(admitted(&mut pools, &write, 1_000, 1_000), 200);
        assert_eq!(admitted(&mut pools, &watch, 2_000, 1_000), 1_000);
        let important = call(Lane::NodeHealth, 2);
        assert_eq!(admitted(&mut pools, &important, 3_000, 10), 0, "importance counts for nothing");
    }

    #[test]
    fn shares_are_kept_and_never_lent() {
        let mut pools = Pools::shares(100);
        assert_eq!(admitted(&mut pools, &call(Lane::Telemetry, 1), 0, 1_000), 10);
        assert_eq!(admitted(&mut pools, &call(Lane::NodeHealth, 2), 1_000, 1_000), 25);
    }
}
