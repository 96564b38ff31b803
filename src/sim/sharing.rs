//! When is each of many requests done that share one resource evenly?
//!
//! Processor sharing by **virtual time**: a clock advances by the service that every request in the system gets, so a
//! request that needs `work` is done when the clock has advanced by `work`. When the rate changes (one more
//! request, a lost core) only the clock's speed changes, not the requests: O(log n) an event, whatever n is.
//! A request that leaves early is forgotten by its owner; its entry is dropped when it comes up.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::guard::Id;
use crate::units::Instant;

/// One resource and those who share it.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Service that each has got since the beginning, in microseconds.
    clock: f64,
    at: Instant,
    /// Service per time, for each.
    rate: f64,
    heap: BinaryHeap<Entry>,
    made: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    done: f64,
    number: u64,
    id: Id,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.done.total_cmp(&self.done).then(other.number.cmp(&self.number))
    }
}

impl Sharing {
    pub(super) fn new() -> Self {
        Self { clock: 0.0, at: Instant::ORIGIN, rate: 1.0, heap: BinaryHeap::new(), made: 0 }
    }

    /// Lets time pass until `now`, at the rate of the past.
    pub(super) fn advance(&mut self, now: Instant) {
        let micros = now.since(self.at).as_nanos() as f64 / 1e3;
        self.clock += micros * self.rate;
        self.at = self.at.max(now);
    }

    /// From now on each gets this much service per time. Call [`Sharing::advance`] first.
    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// Somebody comes who needs `micros` of service. Call [`Sharing::advance`] first.
    pub(super) fn enter(&mut self, id: Id, micros: f64) {
        self.made += 1;
        self.heap.push(Entry { done: self.clock + micros.max(0.0), number: self.made, id });
    }

    /// When the next one is done, if nothing changes.
    pub(super) fn next(&self) -> Option<Instant> {
        let micros = (self.heap.peek()?.done - self.clock) / self.rate;
        // A stopped resource finishes nothing.
        if !micros.is_finite() && micros > 0.0 {
            return None;
        }
        Some(self.at + Duration::from_nanos((micros.max(0.0) * 1e3).ceil() as u64))
    }

    /// The next one that is done by `now`. Call [`Sharing::advance`] first.
    pub(super) fn take(&mut self, now: Instant) -> Option<Id> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.id)
    }

    /// Everybody is gone.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    #[test]
    fn two_share_one_core_and_the_shorter_ends_first() {
        let mut core = Sharing::new();
        core.enter(1, 30_000.0);
        assert_eq!(core.next(), Some(at(30)));
        core.advance(at(10));
        core.set_rate(0.5);
        core.enter(2, 5_000.0);
        assert_eq!(core.next(), Some(at(20)));
        core.advance(at(20));
        assert_eq!(core.take(at(20)), Some(2));
        core.set_rate(1.0);
        // 10 ms alone, 5 ms of the shared ten, and 15 ms alone again.
        assert_eq!(core.next(), Some(at(35)));
    }

    #[test]
    fn a_stopped_resource_finishes_nobody() {
        let mut core = Sharing::new();
        core.enter(1, 1.0);
        core.set_rate(0.0);
        assert_eq!(core.next(), None);
        core.advance(at(1_000));
        assert_eq!(core.take(at(1_000)), None);
    }
}
