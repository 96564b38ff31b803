//! What does API Priority and Fairness, at its defaults, do with a request?
//!
//! The levels of the bootstrap configuration share the seats of 400 + 200 requests in flight by their shares; each level
//! queues with shuffle sharding and serves its queues by virtual time; seats that a level may lend go, every ten
//! seconds, to levels that want more. A LIST takes seats by its bytes. A request that waits a quarter of its minute
//! is refused, with a `Retry-After` that doubles while many are dropped.
//!
//! Left out: the extra seats of writes that many watch (some milliseconds), and the smoothing of demand over periods.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sim::chance::mix;
use crate::sim::guard::Id;
use crate::units::Instant;

/// Seats of all levels: max-requests-inflight and max-mutating-requests-inflight at their defaults.
const SEATS: f64 = 600.0;
/// Sum of the shares of all levels.
const SHARES: f64 = 245.0;
/// How often lent seats are dealt anew.
pub(super) const DEAL: Duration = Duration::from_secs(10);
/// How often the Retry-After is adapted.
pub(super) const ADAPT: Duration = Duration::from_secs(1);
/// How long a request may wait: a quarter of the usual 60 s.
pub(super) const WAIT: Duration = Duration::from_secs(15);
/// Bytes that cost a LIST a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// What a LIST from the watch cache counts at most, because it is streamed.
const CACHED_BYTES_MAX: u64 = 1_000_000;
/// The most seats of a LIST.
const LIST_SEATS_MAX: u64 = 100;
/// Objects that cost a LIST a seat in older servers, and its most seats there.
const OBJECTS_PER_SEAT: f64 = 100.0;
const OBJECTS_SEATS_MAX: f64 = 10.0;
/// One LIST gets at most this share of its level.
const WIDTH_SHARE: f64 = 0.15;
/// Service time that a queue is charged when a request of it starts, in seconds; corrected when it ends.
const GUESS: f64 = 0.003;
const RETRY_AFTER_MAX: u32 = 32;

/// A priority level of the bootstrap configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum LevelName {
    Exempt,
    LeaderElection,
    NodeHigh,
    System,
    WorkloadHigh,
    WorkloadLow,
    GlobalDefault,
    CatchAll,
}

impl LevelName {
    pub(in crate::sim) const ALL: [(&'static str, Self); 8] = [
        ("exempt", Self::Exempt),
        ("leader-election", Self::LeaderElection),
        ("node-high", Self::NodeHigh),
        ("system", Self::System),
        ("workload-high", Self::WorkloadHigh),
        ("workload-low", Self::WorkloadLow),
        ("global-default", Self::GlobalDefault),
        ("catch-all", Self::CatchAll),
    ];

    /// What stands for the level's UID in `X-Kubernetes-PF-PriorityLevel-UID`.
    pub(super) const fn uid(self) -> u64 {
        mix(0xAF + self as u64)
    }
}

/// Share, lendable part, queues, hand, queue length.
const SHAPES: [(f64, f64, usize, usize, usize); 8] = [
    (0.0, 0.0, 0, 0, 0),
    (10.0, 0.0, 16, 4, 50),
    (40.0, 0.25, 64, 6, 50),
    (30.0, 0.33, 64, 6, 50),
    (40.0, 0.5, 128, 6, 50),
    (100.0, 0.9, 128, 6, 50),
    (20.0, 0.5, 128, 6, 50),
    (5.0, 0.0, 0, 0, 0),
];

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Id, f64)>,
    /// Virtual time of the queue, in seat-seconds.
    clock: f64,
}

#[derive(Debug)]
struct Level {
    nominal: f64,
    least: f64,
    now: f64,
    used: f64,
    waiting_seats: f64,
    /// The most that was wanted since seats were dealt.
    peak: f64,
    hand: usize,
    length: usize,
    queues: Vec<Queue>,
    /// Virtual time of the last request that started.
    clock: f64,
    dropped: u32,
    retry_after: u32,
}

/// What APF says to an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seating {
    Start,
    Wait,
    Reject { retry_after: u32 },
}

/// A request's place, to be handed back when it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seat {
    pub(super) level: LevelName,
    pub(super) width: f64,
    queue: usize,
    pub(super) began: Instant,
}

/// All levels.
#[derive(Debug)]
pub(super) struct Apf {
    levels: Vec<Level>,
}

impl Apf {
    pub(super) fn new() -> Self {
        let level = |&(share, lendable, queues, hand, length): &(f64, f64, usize, usize, usize)| {
            let nominal = (SEATS * share / SHARES).ceil();
            Level {
                nominal,
                least: (nominal * (1.0 - lendable)).round(),
                now: nominal,
                used: 0.0,
                waiting_seats: 0.0,
                peak: 0.0,
                hand,
                length,
                queues: (0..queues.max(1)).map(|_| Queue::default()).collect(),
                clock: 0.0,
                dropped: 0,
                retry_after: 1,
            }
        };
        Self { levels: SHAPES.iter().map(level).collect() }
    }

    /// The seats of a LIST of `bytes`, as 1.34 counts them.
    pub(super) fn width(&self, level: LevelName, (bytes, cached): (u64, bool)) -> f64 {
        let bytes = if cached { bytes.min(CACHED_BYTES_MAX) } else { bytes };
        let wanted = bytes.div_ceil(BYTES_PER_SEAT).clamp(1, LIST_SEATS_MAX);
        (wanted as f64).min(self.widest(level))
    }

    /// The seats of a LIST of so many objects, as older servers count them.
    pub(super) fn width_by_objects(&self, level: LevelName, objects: f64) -> f64 {
        (objects / OBJECTS_PER_SEAT).ceil().clamp(1.0, OBJECTS_SEATS_MAX).min(self.widest(level))
    }

    fn widest(&self, level: LevelName) -> f64 {
        let level = &self.levels[level as usize];
        (level.nominal * WIDTH_SHARE).min(level.nominal / level.hand.max(1) as f64).floor().max(1.0)
    }

    /// A request of `flow` asks for its seats.
    pub(super) fn arrive(
        &mut self,
        now: Instant,
        id: Id,
        flow: u64,
        level: LevelName,
        width: f64,
    ) -> (Seating, Seat) {
        let mut seat = Seat { level, width, queue: 0, began: now };
        if level == LevelName::Exempt {
            return (Seating::Start, seat);
        }
        let state = &mut self.levels[level as usize];
        state.peak = state.peak.max(state.used + state.waiting_seats + width);
        if level == LevelName::CatchAll {
            if state.used + width <= state.now {
                state.used += width;
                return (Seating::Start, seat);
            }
            return (state.reject(), seat);
        }
        seat.queue = state.deal(flow);
        let fits = state.used + width <= state.now;
        let queue = &mut state.queues[seat.queue];
        if fits && state.waiting_seats == 0.0 {
            queue.clock = queue.clock.max(state.clock) + width * GUESS;
            state.clock = state.clock.max(queue.clock - width * GUESS);
            state.used += width;
            return (Seating::Start, seat);
        }
        if queue.waiting.len() >= state.length {
            return (state.reject(), seat);
        }
        if queue.waiting.is_empty() {
            queue.clock = queue.clock.max(state.clock);
        }
        queue.waiting.push_back((id, width));
        state.waiting_seats += width;
        (Seating::Wait, seat)
    }

    /// A request that had started is over.
    pub(super) fn leave(&mut self, now: Instant, seat: &Seat) {
        if seat.level == LevelName::Exempt {
            return;
        }
        let level = &mut self.levels[seat.level as usize];
        level.used -= seat.width;
        let took = now.since(seat.began).as_secs_f64();
        level.queues[seat.queue].clock += seat.width * (took - GUESS);
    }

    /// A waiting request is withdrawn; `too_late`: because it waited too long.
    pub(super) fn withdraw(&mut self, id: Id, seat: &Seat, too_late: bool) -> u32 {
        let level = &mut self.levels[seat.level as usize];
        let queue = &mut level.queues[seat.queue];
        if let Some(place) = queue.waiting.iter().position(|&(waiting, _)| waiting == id) {
            queue.waiting.remove(place);
            level.waiting_seats -= seat.width;
            if too_late {
                level.dropped += 1;
            }
        }
        level.retry_after
    }

    /// The next request of `level` that may start.
    pub(super) fn next(&mut self, level: LevelName) -> Option<Id> {
        let level = &mut self.levels[level as usize];
        if level.waiting_seats == 0.0 {
            return None;
        }
        let first = |queue: &Queue| queue.waiting.front().map(|&(_, width)| queue.clock + width * GUESS);
        let (_, queue) = level
            .queues
            .iter_mut()
            .filter_map(|queue| first(queue).map(|finish| (finish, queue)))
            .min_by(|one, two| one.0.total_cmp(&two.0))?;
        let &(id, width) = queue.waiting.front()?;
        // A request wider than the level starts when the level is empty.
        if level.used + width > level.now && level.used > 0.0 {
            return None;
        }
        queue.waiting.pop_front();
        level.clock = level.clock.max(queue.clock);
        queue.clock += width * GUESS;
        level.waiting_seats -= width;
        level.used += width;
        Some(id)
    }

    /// Deals lendable seats: each level gets its least, and as much of what it wanted as all can get alike.
    pub(super) fn deal(&mut self) {
        let limited = &mut self.levels[1..];
        let total: f64 = limited.iter().map(|level| level.nominal).sum();
        let wants: Vec<f64> = limited.iter().map(|level| level.peak.max(level.least)).collect();
        let share = |part: f64| -> f64 {
            limited.iter().zip(&wants).map(|(level, want)| (want * part).max(level.least)).sum()
        };
        // Halving finds the part; forty steps are beyond a float's use.
        let (mut low, mut high) = (0.0, SEATS);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if share(middle) > total { high = middle } else { low = middle }
        }
        for (level, want) in limited.iter_mut().zip(wants) {
            level.now = (want * low).max(level.least).round();
            level.peak = level.used + level.waiting_seats;
        }
    }

    /// Adapts the Retry-After of every level.
    pub(super) fn adapt(&mut self) {
        for level in &mut self.levels {
            if level.dropped >= 3 * level.retry_after {
                level.retry_after = (level.retry_after * 2).min(RETRY_AFTER_MAX);
            } else if level.dropped < level.retry_after {
                level.retry_after = level.retry_after.saturating_sub(1).max(1);
            }
            level.dropped = 0;
        }
    }
}

impl Level {
    fn reject(&mut self) -> Seating {
        self.dropped += 1;
        Seating::Reject { retry_after: self.retry_after }
    }

    /// The shortest queue of the flow's hand.
    fn deal(&self, flow: u64) -> usize {
        let count = self.queues.len() as u64;
        (0..self.hand.max(1) as u64)
            .map(|card| (mix(flow.wrapping_add(mix(card))) % count) as usize)
            .min_by_key(|&queue| self.queues[queue].waiting.len())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_seats_of_the_bootstrap_configuration() {
        let apf = Apf::new();
        let seats: Vec<f64> = apf.levels[1..].iter().map(|level| level.nominal).collect();
        assert_eq!(seats, [25.0, 98.0, 74.0, 98.0, 245.0, 49.0, 13.0]);
        assert_eq!(apf.width(LevelName::WorkloadLow, (39_000_000, true)), 10.0);
        assert_eq!(apf.width(LevelName::WorkloadLow, (39_000_000, false)), 36.0);
    }

    #[test]
    fn a_storm_borrows_what_idle_levels_lend() {
        let mut apf = Apf::new();
        let now = Instant::ORIGIN;
        let mut started = 0;
        for id in 0..200 {
            let (seating, _) = apf.arrive(now, id, u64::from(id), LevelName::System, 10.0);
            started += u32::from(seating == Seating::Start);
        }
        assert_eq!(started, 7);
        apf.deal();
        while apf.next(LevelName::System).is_some() {
            started += 1;
        }
        // 39 LISTs at once where the level's own seats are good for seven: this is what a real server did.
        assert!((37..=40).contains(&started), "{started}");
    }

    #[test]
    fn one_flow_cannot_fill_all_queues() {
        let mut apf = Apf::new();
        let now = Instant::ORIGIN;
        let mut rejected = 0;
        for id in 0..1_000 {
            let (seating, _) = apf.arrive(now, id, 7, LevelName::WorkloadLow, 10.0);
            rejected += u32::from(matches!(seating, Seating::Reject { .. }));
        }
        assert!(rejected > 600, "{rejected}");
        assert_eq!(apf.arrive(now, 1_001, 8, LevelName::WorkloadLow, 1.0).0, Seating::Wait);
    }
}
