//! Which refusals get a line of their own while there are thousands?
//!
//! Of each reason the first [`LINES_PER_SECOND`] of every second: enough to see who and why. The first line after a gap
//! says how many were left out, and the metrics count all of them. Break-glass is never sampled: who used it, and what
//! was refused to whom, must be known line by line.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::flow::Reason;
use crate::units::Instant;

/// Lines of one reason in one second. With every reason at once: 380 lines, 150 kB a second.
const LINES_PER_SECOND: u32 = 20;

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    second: u64,
    told: u32,
    left_out: u64,
}

/// How many lines of each reason were written of late.
#[derive(Debug)]
pub(super) struct Samples {
    places: [Mutex<Place>; Reason::COUNT],
    suppressed: AtomicU64,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self { places: Reason::ALL.map(|_| Mutex::default()), suppressed: AtomicU64::new(0) }
    }

    /// Whether this refusal gets its line, and how many before it did not.
    pub(super) fn take(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut place = self.places[reason.index()].lock();
        let second = now.as_nanos() / 1_000_000_000;
        if place.second != second {
            (place.second, place.told) = (second, 0);
        }
        if place.told < LINES_PER_SECOND {
            place.told += 1;
            return Some(std::mem::take(&mut place.left_out));
        }
        place.left_out += 1;
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Lines left out since the start.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn d11_a_flood_of_one_reason_is_sampled_and_the_others_are_told() {
        let samples = Samples::new();
        let at = |millis| Instant::ORIGIN + Duration::from_millis(millis);
        let told = |from: u64| {
            (from..from + 1_000)
                .filter_map(|millis| samples.take(Reason::OverloadLevel, at(millis)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(5_000), [0; LINES_PER_SECOND as usize]);
        assert_eq!(samples.take(Reason::Malformed, at(5_999)), Some(0), "another reason");
        let second = told(6_000);
        assert_eq!((second.len(), second[0], second[1]), (LINES_PER_SECOND as usize, 980, 0));
        assert_eq!(samples.suppressed(), 2 * 980);
    }
}
