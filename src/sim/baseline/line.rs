//! Who waits for a turn, in which order, and until when?
//!
//! One line for each lane, first come first served or last come first served, with a bound on its length. Requests that
//! went away are skipped when their turn comes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::policy::Lane;
use crate::sim::book::Book;
use crate::sim::guard::{Call, Id};
use crate::units::Instant;

/// One that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) id: Id,
    pub(super) call: Call,
    pub(super) since: Instant,
}

/// Lines of all lanes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: [VecDeque<Waiter>; Lane::COUNT],
    /// Who waits, and in which lane.
    known: Book<Lane>,
    lengths: [usize; Lane::COUNT],
}

impl Lines {
    pub(super) fn len(&self, lane: Lane) -> usize {
        self.lengths[lane.index()]
    }

    pub(super) fn total(&self) -> usize {
        self.known.len()
    }

    /// `id` joins the line of `lane`.
    pub(super) fn push(&mut self, now: Instant, id: Id, lane: Lane, call: &Call) {
        self.known.insert(id, lane);
        self.lengths[lane.index()] += 1;
        self.lines[lane.index()].push_back(Waiter { id, call: call.clone(), since: now });
    }

    /// Somebody went away. Whether it waited.
    pub(super) fn leave(&mut self, id: Id) -> bool {
        let Some(lane) = self.known.remove(&id) else { return false };
        self.lengths[lane.index()] -= 1;
        true
    }

    /// The one who has waited longest in `lane`.
    pub(super) fn oldest(&mut self, lane: Lane) -> Option<&Waiter> {
        let line = &mut self.lines[lane.index()];
        while line.front().is_some_and(|waiter| !self.known.contains_key(&waiter.id)) {
            line.pop_front();
        }
        line.front()
    }

    /// The one who came last in `lane`.
    pub(super) fn newest(&mut self, lane: Lane) -> Option<&Waiter> {
        let line = &mut self.lines[lane.index()];
        while line.back().is_some_and(|waiter| !self.known.contains_key(&waiter.id)) {
            line.pop_back();
        }
        line.back()
    }

    /// The one of [`Lines::oldest`] leaves the line.
    pub(super) fn take_oldest(&mut self, lane: Lane) -> Option<Waiter> {
        self.oldest(lane)?;
        let waiter = self.lines[lane.index()].pop_front()?;
        self.leave(waiter.id);
        Some(waiter)
    }

    /// The one of [`Lines::newest`] leaves the line.
    pub(super) fn take_newest(&mut self, lane: Lane) -> Option<Waiter> {
        self.newest(lane)?;
        let waiter = self.lines[lane.index()].pop_back()?;
        self.leave(waiter.id);
        Some(waiter)
    }

    /// Takes out of `lane` who has waited for `most` or longer, oldest first.
    pub(super) fn take_late(&mut self, now: Instant, lane: Lane, most: Duration) -> Option<Waiter> {
        let late = self.oldest(lane).is_some_and(|waiter| now.since(waiter.since) >= most);
        if late { self.take_oldest(lane) } else { None }
    }

    /// When the first of `lane` will have waited for `most`.
    pub(super) fn first_late(&self, lane: Lane, most: Duration) -> Option<Instant> {
        self.lines[lane.index()]
            .iter()
            .find(|waiter| self.known.contains_key(&waiter.id))
            .map(|waiter| waiter.since + most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call};
    use super::*;

    #[test]
    fn lines_are_served_from_either_end_and_skip_who_left() {
        let mut lines = Lines::default();
        for id in 0..4 {
            lines.push(at(u64::from(id)), id, Lane::Workload, &call(Lane::Workload, 1));
        }
        assert!(lines.leave(0) && lines.leave(3) && !lines.leave(3));
        assert_eq!((lines.len(Lane::Workload), lines.total()), (2, 2));
        assert_eq!(lines.first_late(Lane::Workload, Duration::from_millis(5)), Some(at(6)));
        assert_eq!(lines.take_newest(Lane::Workload).map(|waiter| waiter.id), Some(2));
        assert!(lines.take_late(at(5), Lane::Workload, Duration::from_millis(5)).is_none());
        let late = lines.take_late(at(6), Lane::Workload, Duration::from_millis(5));
        assert_eq!(late.map(|waiter| waiter.id), Some(1));
        assert!(lines.take_oldest(Lane::Workload).is_none());
    }
}
