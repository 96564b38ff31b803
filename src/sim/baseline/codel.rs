//! What does Facebook's queue do? CoDel's timeouts and adaptive LIFO before a fixed number of workers.
//!
//! Ben Maurer, *Fail at Scale* (ACM Queue 13(8), 2015): a request that joins a queue which has not been empty for N = 100 ms
//! may wait M = 5 ms, otherwise N; and while the queue stands like that, the newest goes first. How many workers serve
//! the queue is the server's own number; the apiserver's 600 in flight is the default here. All wait in one line:
//! the published design knows no priority.

use std::collections::BTreeSet;
use std::time::Duration;

use super::line::Lines;
use super::running::Running;
use crate::flow::Probes;
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Knobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodelSettings {
    pub(super) workers: u32,
    /// What a request may wait in a queue that stands.
    pub(super) target: Duration,
    /// How long a queue may stand, and what a request may wait otherwise.
    pub(super) interval: Duration,
}

const fn codel(workers: u32, target: u64, interval: u64) -> CodelSettings {
    CodelSettings {
        workers,
        target: Duration::from_millis(target),
        interval: Duration::from_millis(interval),
    }
}

pub(super) const CODEL: [(&str, CodelSettings); 6] = [
    ("600 workers, 5/100 ms", codel(600, 5, 100)),
    ("100 workers, 5/100 ms", codel(100, 5, 100)),
    ("20 workers, 5/100 ms", codel(20, 5, 100)),
    ("6 workers, 5/100 ms", codel(6, 5, 100)),
    ("20 workers, 50/500 ms", codel(20, 50, 500)),
    ("6 workers, 200/1000 ms", codel(6, 200, 1_000)),
];

/// The line that all wait in.
const LINE: Lane = Lane::NodeHealth;

/// The queue and its workers.
#[derive(Debug)]
pub(super) struct Codel {
    settings: CodelSettings,
    lines: Lines,
    /// When who gives up waiting.
    deadlines: BTreeSet<(Instant, Id)>,
    waits: crate::sim::book::Book<Instant>,
    running: Running,
    last_empty: Instant,
    verdicts: Vec<(Id, Answer)>,
}

impl Codel {
    pub(super) fn new(settings: CodelSettings) -> Self {
        Self {
            settings,
            lines: Lines::default(),
            deadlines: BTreeSet::new(),
            waits: crate::sim::book::Book::default(),
            running: Running::new(1),
            last_empty: Instant::ORIGIN,
            verdicts: Vec::new(),
        }
    }

    fn stands(&self, now: Instant) -> bool {
        now.since(self.last_empty) > self.settings.interval
    }

    fn unwait(&mut self, id: Id) {
        if let Some(deadline) = self.waits.remove(&id) {
            self.deadlines.remove(&(deadline, id));
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.unwait(id);
            self.lines.leave(id);
            self.verdicts.push((id, PLAIN_RETRY_AFTER));
        }
    }

    fn serve(&mut self, now: Instant) {
        self.expire(now);
        while self.running.total() < self.settings.workers {
            let newest_first = self.stands(now);
            let next = if newest_first { self.lines.take_newest(LINE) } else { self.lines.take_oldest(LINE) };
            let Some(waiter) = next else { break };
            self.unwait(waiter.id);
            self.running.start(now, waiter.id, &waiter.call, (0, 1));
            self.verdicts.push((waiter.id, Answer::Admit));
        }
        if self.lines.total() == 0 {
            self.last_empty = now;
        }
    }
}

impl Guard for Codel {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.serve(now);
        if call.exempt {
            self.running.start_free(now, id, call);
            return Answer::Admit;
        }
        if self.lines.total() == 0 && self.running.total() < self.settings.workers {
            self.running.start(now, id, call, (0, 1));
            return Answer::Admit;
        }
        let wait = if self.stands(now) { self.settings.target } else { self.settings.interval };
        self.lines.push(now, id, LINE, call);
        self.waits.insert(id, now + wait);
        self.deadlines.insert((now + wait, id));
        Answer::Wait
    }

    fn first_byte(&mut self, now: Instant, id: Id, _level: u64) {
        if self.running.first_byte(id) {
            self.serve(now);
        }
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        if self.running.burst_done(id) {
            self.serve(now);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, _ended: Ended) {
        self.running.finish(id);
        self.serve(now);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        if self.lines.leave(id) {
            self.unwait(id);
        } else {
            self.running.finish(id);
        }
        self.serve(now);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        self.serve(now);
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    fn wake(&mut self, now: Instant) {
        self.serve(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.verdicts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;

    fn verdicts(codel: &mut Codel) -> Vec<(Id, Answer)> {
        let mut all = Vec::new();
        codel.verdicts(&mut all);
        all
    }

    #[test]
    fn a_standing_queue_is_served_from_its_end_and_waits_five_milliseconds() {
        let mut codel = Codel::new(codel(1, 5, 100));
        let lease = call(Lane::NodeHealth, 1);
        assert_eq!(codel.arrive(at(0), 0, &lease), Answer::Admit);
        for id in 1..4 {
            assert_eq!(codel.arrive(at(u64::from(id)), id, &lease), Answer::Wait);
        }
        codel.finish(at(10), 0, ended(10));
        assert_eq!(verdicts(&mut codel), [(1, Answer::Admit)], "the queue does not stand yet: oldest first");
        assert_eq!(codel.next_wake(), Some(at(102)));
        for id in 4..8 {
            assert_eq!(codel.arrive(at(60 + u64::from(id)), id, &lease), Answer::Wait);
        }
        codel.wake(at(103));
        assert_eq!(verdicts(&mut codel), [(2, PLAIN_RETRY_AFTER), (3, PLAIN_RETRY_AFTER)]);
        codel.finish(at(110), 1, ended(100));
        assert_eq!(verdicts(&mut codel), [(7, Answer::Admit)], "it stands: newest first");
        assert_eq!(codel.arrive(at(111), 8, &lease), Answer::Wait);
        assert_eq!(codel.next_wake(), Some(at(116)), "and who joins now may wait 5 ms");
    }

    #[test]
    fn who_left_is_not_served() {
        let mut codel = Codel::new(codel(1, 5, 100));
        let lease = call(Lane::NodeHealth, 1);
        for id in 0..3 {
            let _ = codel.arrive(at(0), id, &lease);
        }
        codel.cancel(at(1), 1);
        codel.finish(at(1), 0, ended(1));
        assert_eq!(verdicts(&mut codel), [(2, Answer::Admit)]);
        assert_eq!(codel.next_wake(), None);
    }
}
