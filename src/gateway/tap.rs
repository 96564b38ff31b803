//! What passes right now, for somebody who watches?
//!
//! Off until somebody asks, and off again a few seconds after they stopped: then a request costs one look at a clock's
//! word. While it is on, a finished request leaves one line in a bounded ring. Nobody waits for a watcher: a line that
//! finds the ring locked, or that nobody fetched before it was overwritten, is lost and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::policy::Lane;
use crate::units::Instant;

/// Lines that wait for a watcher: almost a second of a full storm.
pub(super) const LINES_MAX: usize = 4_096;
/// How long it stays on after it was asked for last.
const ON_FOR: Duration = Duration::from_secs(5);

/// One finished request.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was answered.
    pub at: SystemTime,
    /// The decision's id.
    pub id: String,
    /// Who, where that was found out.
    pub user: Option<String>,
    /// Its lane.
    pub lane: Lane,
    /// Kubernetes verb.
    pub verb: &'static str,
    /// Method, path and query, cut.
    pub request: String,
    /// What chose the lane.
    pub rule: String,
    /// Status that was told.
    pub status: u16,
    /// Why spillway answered itself; nothing where kube-apiserver did.
    pub reason: Option<&'static str>,
    /// From its arrival to the head of its answer, and the part of that in a queue.
    pub latency: Duration,
    /// See `latency`.
    pub queued: Duration,
}

/// The ring and its switch.
#[derive(Debug, Default)]
pub struct Tap {
    /// Until when it is on, by the process's clock; 0 is never.
    until: AtomicU64,
    lines: Mutex<Ring>,
    /// Lines that found the ring locked.
    missed: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    /// Of the last line; the first is 1.
    last: u64,
}

/// What a watcher gets.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// The oldest first, with their numbers.
    pub lines: Vec<(u64, Line)>,
    /// Number of the last line there was.
    pub last: u64,
    /// Lines after the one that was named which are lost, and those that were never kept.
    pub lost: u64,
}

impl Tap {
    /// Whether anybody watches.
    #[must_use]
    pub fn is_on(&self, now: Instant) -> bool {
        now.as_nanos() < self.until.load(Ordering::Relaxed)
    }

    /// A request was answered.
    pub fn pour(&self, line: Line) {
        let Some(mut ring) = self.lines.try_lock() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if ring.lines.len() >= LINES_MAX {
            ring.lines.pop_front();
        }
        ring.last += 1;
        ring.lines.push_back(line);
    }

    /// Turns it on, and takes up to `most` lines after number `after` that `fit`.
    pub fn draw(&self, now: Instant, after: Option<u64>, most: usize, fit: impl Fn(&Line) -> bool) -> Drawn {
        let was_on = self.is_on(now);
        self.until.store((now + ON_FOR).as_nanos(), Ordering::Relaxed);
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let mut ring = self.lines.lock();
        if !was_on {
            // Lines of another time are nobody's present.
            ring.lines.clear();
        }
        let after = after.filter(|after| *after <= ring.last).unwrap_or(ring.last);
        let first = ring.last - ring.lines.len() as u64;
        let overwritten = first.saturating_sub(after);
        let numbered = (first + 1..).zip(&ring.lines).filter(|(number, line)| *number > after && fit(line));
        let mut lines: Vec<(u64, Line)> = numbered.map(|(number, line)| (number, line.clone())).collect();
        let too_many = lines.len().saturating_sub(most);
        lines.drain(..too_many);
        let lost = if was_on { overwritten + missed + too_many as u64 } else { 0 };
        Drawn { lines, last: ring.last, lost }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn line(number: usize) -> Line {
        Line {
            at: UNIX_EPOCH,
            id: format!("{number:08x}"),
            user: None,
            lane: if number.is_multiple_of(2) { Lane::Telemetry } else { Lane::Workload },
            verb: "get",
            request: String::new(),
            rule: String::new(),
            status: 200,
            reason: None,
            latency: Duration::ZERO,
            queued: Duration::ZERO,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_on_while_somebody_watches_and_off_soon_after() {
        let tap = Tap::default();
        assert!(!tap.is_on(at(1)));
        assert_eq!(tap.draw(at(1), None, 10, |_| true).lines.len(), 0);
        assert!(tap.is_on(at(5)) && !tap.is_on(at(6)));
    }

    #[test]
    fn lines_come_once_in_order_and_what_is_lost_is_counted() {
        let tap = Tap::default();
        let begun = tap.draw(at(1), None, 10, |_| true);
        (0..5).for_each(|number| tap.pour(line(number)));
        let drawn = tap.draw(at(2), Some(begun.last), 10, |line| line.lane == Lane::Workload);
        assert_eq!(drawn.lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((drawn.last, drawn.lost), (5, 0));
        (0..LINES_MAX + 7).for_each(|number| tap.pour(line(number)));
        let drawn = tap.draw(at(3), Some(drawn.last), 10, |_| true);
        assert_eq!(drawn.lines.len(), 10);
        assert_eq!(drawn.lost, (LINES_MAX + 7 - 10) as u64, "overwritten, and more than were asked for");
        let _locked = tap.lines.lock();
        tap.pour(line(1));
        assert_eq!(tap.missed.load(Ordering::Relaxed), 1, "nobody waits for a watcher");
    }

    #[test]
    fn a_watcher_who_comes_later_does_not_see_the_past() {
        let tap = Tap::default();
        tap.draw(at(1), None, 10, |_| true);
        tap.pour(line(1));
        let drawn = tap.draw(at(60), Some(0), 10, |_| true);
        assert_eq!((drawn.lines.len(), drawn.lost), (0, 0));
    }
}
