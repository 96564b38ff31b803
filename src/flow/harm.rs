//! Is anybody hurt who must not be?
//!
//! The median over keys answers "is the server slow"; a lease at 500 ms beside twenty calm keys would be outvoted. So
//! every call about a single object from a protected lane (node-health to operators) is also judged by
//! itself: its slowdown, bounded by its objective, goes to a ring of its lane. Harm is the highest of the lanes'
//! slow ends (fifteen of sixteen calls were better), and it counts beside the median, not in it.
//!
//! Each sample carries what it reached and which priority level served it, so that harm can be computed without
//! the part that shedding cannot help.

use super::key::Reach;
use super::levels::LevelNumber;
use super::median::Rounded;
use crate::policy::Lane;

/// Lanes that are judged: node-health, control-plane, platform, operators.
const LANES: usize = 4;
/// Samples kept a lane: the slow end of them is the fifth from the top.
const KEPT: usize = 64;
/// Ticks for which a sample counts, longer and longer until there are [`ENOUGH`]: what is over must be over at once
/// where there is news, and a lane with one call a second must be heard, too.
const WINDOWS: [u32; 3] = [2, 4, AGED_TICKS];
const AGED_TICKS: u32 = 8;
const ENOUGH: usize = 8;
/// One of this many samples may be slower than the answer: at 64 samples the fifth, below 16 none.
const SLOW_SHARE: usize = 16;

/// One call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    pub(super) slowdown: Rounded,
    pub(super) reach: Reach,
    pub(super) level: LevelNumber,
    pub(super) tick: u32,
}

#[derive(Clone, Debug)]
struct Ring {
    kept: [Judged; KEPT],
    count: usize,
}

/// The recent calls of the protected lanes.
#[derive(Clone, Debug)]
pub(super) struct Harm([Ring; LANES]);

impl Harm {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Ring { kept: [Judged::default(); KEPT], count: 0 }))
    }

    /// Adds a call about a single object.
    pub(super) fn add(&mut self, lane: Lane, judged: Judged) {
        // Break-glass has an account of its own, the lower lanes are not protected.
        let Some(ring) = lane.index().checked_sub(1).and_then(|lane| self.0.get_mut(lane)) else { return };
        ring.kept[ring.count % KEPT] = judged;
        ring.count += 1;
    }

    /// The worst lane's slow end among the calls that `counts`; 1 where nothing is known.
    pub(super) fn value(&self, tick: u32, counts: impl Fn(&Judged) -> bool) -> f64 {
        self.0.iter().filter_map(|ring| ring.slow_end(tick, &counts)).max().map_or(1.0, Rounded::value)
    }
}

impl Ring {
    fn slow_end(&self, tick: u32, counts: impl Fn(&Judged) -> bool) -> Option<Rounded> {
        let kept = &self.kept[..self.count.min(KEPT)];
        let mut found = [Rounded::default(); KEPT];
        for ticks in WINDOWS {
            let mut len = 0;
            for judged in kept.iter().filter(|judged| tick.wrapping_sub(judged.tick) < ticks) {
                if counts(judged) {
                    found[len] = judged.slowdown;
                    len += 1;
                }
            }
            if len >= ENOUGH || ticks == AGED_TICKS && len > 0 {
                let at = len - 1 - len / SLOW_SHARE;
                let (_, slow_end, _) = found[..len].select_nth_unstable(at);
                return Some(*slow_end);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(slowdown: f32, tick: u32) -> Judged {
        Judged { slowdown: Rounded::of(slowdown), tick, ..Judged::default() }
    }

    #[test]
    fn one_lane_in_pain_is_enough_and_one_call_of_many_is_not() {
        let mut harm = Harm::new();
        for _ in 0..200 {
            harm.add(Lane::Platform, judged(1.0, 7));
        }
        harm.add(Lane::Platform, judged(50.0, 7));
        assert_eq!(harm.value(7, |_| true), 1.0);
        for _ in 0..6 {
            harm.add(Lane::NodeHealth, judged(3.0, 7));
        }
        assert!((2.9..3.1).contains(&harm.value(7, |_| true)));
        assert_eq!(harm.value(7 + AGED_TICKS, |_| true), 1.0, "it was long ago");
    }

    #[test]
    fn telemetry_in_pain_is_no_harm() {
        let mut harm = Harm::new();
        for lane in [Lane::BreakGlass, Lane::Workload, Lane::Unknown, Lane::Telemetry] {
            (0..20).for_each(|_| harm.add(lane, judged(40.0, 1)));
        }
        assert_eq!(harm.value(1, |_| true), 1.0);
    }

    #[test]
    fn what_does_not_count_is_left_out() {
        let mut harm = Harm::new();
        for turn in 0..40 {
            let write = turn % 2 == 0;
            let reach = if write { Reach::Write } else { Reach::Cached };
            harm.add(Lane::Platform, Judged { reach, ..judged(if write { 9.0 } else { 1.0 }, 1) });
        }
        assert!(harm.value(1, |_| true) > 8.0);
        assert_eq!(harm.value(1, |judged| judged.reach != Reach::Write), 1.0);
    }
}
