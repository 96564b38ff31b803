//! What happens next? Events in the order of their times, and of their making where times are equal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::units::Instant;

/// Future events of one part of the world.
#[derive(Debug)]
pub(super) struct Timeline<E> {
    heap: BinaryHeap<Entry<E>>,
    made: u64,
}

#[derive(Debug)]
struct Entry<E> {
    when: Instant,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the heap gives the greatest, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.when, other.number).cmp(&(self.when, self.number))
    }
}

impl<E> Timeline<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), made: 0 }
    }

    pub(super) fn at(&mut self, when: Instant, event: E) {
        self.made += 1;
        self.heap.push(Entry { when, number: self.made, event });
    }

    /// When the next event is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.when)
    }

    /// The next event, if it is due at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<E> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.event)
    }
}
