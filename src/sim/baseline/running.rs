//! Which requests are in flight, and which of them count?
//!
//! All competitors need the same book: who was forwarded, when, and beside how many. A watch counts until its first burst
//! is delivered and a session until its first byte: that is how APF counts watches, and without it every limiter that
//! counts requests would be full of watches, which no expert would leave so.

use std::time::Duration;

use crate::flow::Kind;
use crate::policy::Lane;
use crate::sim::book::Book;
use crate::sim::guard::{Call, Id};
use crate::units::Instant;

/// One forwarded request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) lane: Lane,
    pub(super) kind: Kind,
    pub(super) since: Instant,
    /// What it takes: 1 for algorithms that count requests.
    pub(super) seats: u32,
    /// Which of an algorithm's own pools it takes them from.
    pub(super) pool: usize,
    /// Requests in flight when it was forwarded, with it.
    pub(super) beside: u32,
    counts: bool,
}

impl Run {
    /// Its time so far, if it is one whose time says something.
    pub(super) fn timed(&self, latency: Duration) -> Option<Duration> {
        (self.kind == Kind::Short).then_some(latency)
    }
}

/// Everything in flight.
#[derive(Debug)]
pub(super) struct Running {
    runs: Book<Run>,
    pools: Vec<u32>,
    total: u32,
}

impl Running {
    /// An empty book with `pools` pools.
    pub(super) fn new(pools: usize) -> Self {
        Self { runs: Book::default(), pools: vec![0; pools], total: 0 }
    }

    /// Seats in use of all pools.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Seats in use of one pool.
    pub(super) fn pool(&self, pool: usize) -> u32 {
        self.pools[pool]
    }

    /// `id` is forwarded and takes `seats` from `pool`.
    pub(super) fn start(&mut self, now: Instant, id: Id, call: &Call, (pool, seats): (usize, u32)) {
        self.pools[pool] += seats;
        self.total += seats;
        let run = Run {
            lane: call.lane,
            kind: call.kind,
            since: now,
            seats,
            pool,
            beside: self.total,
            counts: true,
        };
        self.runs.insert(id, run);
    }

    /// `id` is forwarded and counts nowhere.
    pub(super) fn start_free(&mut self, now: Instant, id: Id, call: &Call) {
        let run = Run {
            lane: call.lane,
            kind: call.kind,
            since: now,
            seats: 0,
            pool: 0,
            beside: self.total,
            counts: false,
        };
        self.runs.insert(id, run);
    }

    /// The first byte came: a session counts no longer.
    pub(super) fn first_byte(&mut self, id: Id) -> bool {
        self.stop_counting(id, Kind::Streaming)
    }

    /// A watch's first burst is over: it counts no longer.
    pub(super) fn burst_done(&mut self, id: Id) -> bool {
        self.stop_counting(id, Kind::Watch)
    }

    fn stop_counting(&mut self, id: Id, kind: Kind) -> bool {
        let Some(run) = self.runs.get_mut(&id) else { return false };
        if run.kind != kind || !run.counts {
            return false;
        }
        run.counts = false;
        self.pools[run.pool] -= run.seats;
        self.total -= run.seats;
        true
    }

    /// `id` is over. `None`: it was not forwarded.
    pub(super) fn finish(&mut self, id: Id) -> Option<Run> {
        let run = self.runs.remove(&id)?;
        if run.counts {
            self.pools[run.pool] -= run.seats;
            self.total -= run.seats;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call};
    use super::*;

    #[test]
    fn a_watch_counts_until_its_burst_is_over_and_seats_come_back_once() {
        let mut running = Running::new(2);
        let watch = Call { kind: Kind::Watch, ..call(Lane::Platform, 1) };
        running.start(at(0), 1, &watch, (1, 3));
        running.start(at(0), 2, &call(Lane::Platform, 1), (0, 1));
        assert_eq!((running.total(), running.pool(1)), (4, 3));
        assert!(!running.first_byte(1) && running.burst_done(1) && !running.burst_done(1));
        assert_eq!(running.total(), 1);
        assert!(running.finish(1).is_some() && running.finish(2).is_some() && running.finish(2).is_none());
        assert_eq!((running.total(), running.pool(0), running.pool(1)), (0, 0, 0));
    }
}
