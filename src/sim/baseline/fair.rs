//! What would API Priority and Fairness do if it stood in the proxy, with our lanes as its levels?
//!
//! Not to be confused with the APF of the modelled apiserver, which stays behind every algorithm: `none` over it is "APF
//! alone". From KEP-1040 and the Kubernetes documentation: a fixed total of seats (600) in nominal shares, of which each
//! level lends a part, dealt anew every 10 s; in a level 64 queues, a hand of 6, 50 requests a queue, served by virtual
//! time in seat-seconds with a guess of 3 ms that is corrected at the end; a wait of at most 15 s; `Retry-After` that
//! doubles while many are refused. `apf-count` takes a seat for 100 objects (at most 10), `apf-size` one for 100 kB (at
//! most 100), both at most 15 % of the level and a sixth of it. The apiserver knows these sizes from its own storage,
//! so the algorithm may read them from the call. Break-glass is the exempt level.

use std::collections::VecDeque;
use std::time::Duration;

use super::running::Running;
use crate::flow::{Probes, TICK};
use crate::policy::Lane;
use crate::sim::book::Book;
use crate::sim::chance::mix;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// How LISTs are priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// A seat for 100 objects, at most 10.
    Count,
    /// A seat for 100 kB, at most 100.
    Size,
}

/// Grid: all seats, and the wait in seconds.
pub(super) const FAIR: [(&str, (u32, u64)); 5] = [
    ("600 seats, wait 15 s", (600, 15)),
    ("200 seats, wait 15 s", (200, 15)),
    ("60 seats, wait 15 s", (60, 15)),
    ("60 seats, wait 2 s", (60, 2)),
    ("20 seats, wait 2 s", (20, 2)),
];

/// Shares, and what part of them is lent, by lane: the bootstrap configuration's for the nearest levels, with its
/// `workload-low` divided among workload, unknown and telemetry.
const SHAPES: [(u32, u32); Lane::COUNT] =
    [(0, 0), (50, 20), (40, 50), (30, 33), (20, 50), (50, 90), (10, 90), (40, 90)];
const QUEUES: u64 = 64;
const HAND: u64 = 6;
const QUEUE_LENGTH: usize = 50;
const GUESS: f64 = 0.003;
const DEAL: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: u32 = 32;
/// Bytes of one object, for the count.
const OBJECT_BYTES: u64 = 8_000;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Id, u32)>,
    clock: f64,
}

#[derive(Debug)]
struct Level {
    nominal: f64,
    least: f64,
    seats: f64,
    waiting: u32,
    peak: f64,
    clock: f64,
    queues: Vec<Queue>,
    refused: u32,
    retry_after: u32,
}

#[derive(Debug)]
struct Place {
    lane: usize,
    queue: usize,
    width: u32,
    call: Option<Call>,
}

/// APF in the proxy.
#[derive(Debug)]
pub(super) struct Fair {
    width: Width,
    wait: Duration,
    levels: Vec<Level>,
    places: Book<Place>,
    order: VecDeque<(Instant, Id)>,
    running: Running,
    ticks: u64,
    verdicts: Vec<(Id, Answer)>,
}

impl Fair {
    pub(super) fn new(width: Width, (seats, wait): (u32, u64)) -> Self {
        let sum: u32 = SHAPES.iter().map(|&(share, _)| share).sum();
        let level = |&(share, lent): &(u32, u32)| {
            let nominal = (f64::from(seats) * f64::from(share) / f64::from(sum)).ceil();
            Level {
                nominal,
                least: (nominal * (1.0 - f64::from(lent) / 100.0)).round().max(1.0),
                seats: nominal,
                waiting: 0,
                peak: 0.0,
                clock: 0.0,
                queues: (0..QUEUES).map(|_| Queue::default()).collect(),
                refused: 0,
                retry_after: 1,
            }
        };
        Self {
            width,
            wait: Duration::from_secs(wait),
            levels: SHAPES.iter().map(level).collect(),
            places: Book::default(),
            order: VecDeque::new(),
            running: Running::new(Lane::COUNT),
            ticks: 0,
            verdicts: Vec::new(),
        }
    }

    fn width(&self, call: &Call) -> u32 {
        if !call.list {
            return 1;
        }
        let seats = match self.width {
            Width::Count => call.truth.bytes.div_ceil(OBJECT_BYTES * 100).min(10),
            Width::Size => call.truth.bytes.div_ceil(100_000).min(100),
        };
        let nominal = self.levels[call.lane.index()].nominal;
        let most = (nominal * 0.15).min(nominal / HAND as f64).floor().max(1.0) as u32;
        u32::try_from(seats).unwrap_or(most).clamp(1, most)
    }

    fn refuse(&mut self, lane: usize) -> Answer {
        self.levels[lane].refused += 1;
        let retry_after_seconds = self.levels[lane].retry_after;
        Answer::Shed { retry_after_seconds, hold: Duration::ZERO }
    }

    fn queue_of(&self, call: &Call) -> usize {
        let level = &self.levels[call.lane.index()];
        (0..HAND)
            .map(|card| (mix(call.flow.wrapping_add(mix(card))) % QUEUES) as usize)
            .min_by_key(|&queue| level.queues[queue].waiting.len())
            .unwrap_or(0)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.order.front() {
            let waits = self.places.get(&id).is_some_and(|place| place.call.is_some());
            if waits && now.since(since) < self.wait {
                return;
            }
            self.order.pop_front();
            if waits && let Some(lane) = self.withdraw(id) {
                let refusal = self.refuse(lane);
                self.verdicts.push((id, refusal));
            }
        }
    }

    /// Takes a waiting request out; gives its lane.
    fn withdraw(&mut self, id: Id) -> Option<usize> {
        self.places.get(&id)?.call.as_ref()?;
        let place = self.places.remove(&id)?;
        let level = &mut self.levels[place.lane];
        let queue = &mut level.queues[place.queue].waiting;
        queue.retain(|&(waiting, _)| waiting != id);
        level.waiting -= place.width;
        Some(place.lane)
    }

    fn serve(&mut self, now: Instant, lane: usize) {
        loop {
            let level = &mut self.levels[lane];
            if level.waiting == 0 {
                return;
            }
            let finish = |queue: &Queue| {
                queue.waiting.front().map(|&(_, width)| queue.clock + f64::from(width) * GUESS)
            };
            let next = level
                .queues
                .iter_mut()
                .filter_map(|queue| finish(queue).map(|finish| (finish, queue)))
                .min_by(|one, two| one.0.total_cmp(&two.0));
            let Some((_, queue)) = next else { return };
            let Some(&(id, width)) = queue.waiting.front() else { return };
            let used = self.running.pool(lane);
            if used > 0 && f64::from(used + width) > level.seats {
                return;
            }
            queue.waiting.pop_front();
            level.clock = level.clock.max(queue.clock);
            queue.clock += f64::from(width) * GUESS;
            level.waiting -= width;
            let Some(call) = self.places.get_mut(&id).and_then(|place| place.call.take()) else { return };
            self.running.start(now, id, &call, (lane, width));
            self.verdicts.push((id, Answer::Admit));
        }
    }

    /// Deals lendable seats: each level its least, and as large a part of what it wanted as all can get alike.
    fn deal(&mut self) {
        let levels = &mut self.levels[1..];
        let total: f64 = levels.iter().map(|level| level.nominal).sum();
        let wants: Vec<f64> = levels.iter().map(|level| level.peak.max(level.least)).collect();
        let dealt = |part: f64| -> f64 {
            levels.iter().zip(&wants).map(|(level, want)| (want * part).max(level.least)).sum()
        };
        let (mut low, mut high) = (0.0, total);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if dealt(middle) > total { high = middle } else { low = middle }
        }
        for (lane, (level, want)) in levels.iter_mut().zip(wants).enumerate() {
            level.seats = (want * low).max(level.least).round();
            level.peak = f64::from(self.running.pool(lane + 1) + level.waiting);
        }
    }

    fn over(&mut self, now: Instant, id: Id) {
        if let Some(lane) = self.withdraw(id) {
            self.serve(now, lane);
            return;
        }
        let (Some(run), Some(place)) = (self.running.finish(id), self.places.remove(&id)) else { return };
        let took = now.since(run.since).as_secs_f64();
        let queue = &mut self.levels[place.lane].queues[place.queue];
        queue.clock += f64::from(place.width) * (took - GUESS);
        self.serve(now, place.lane);
    }
}

impl Guard for Fair {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.expire(now);
        if call.exempt || call.lane == Lane::BreakGlass {
            self.running.start_free(now, id, call);
            return Answer::Admit;
        }
        let (lane, width, queue) = (call.lane.index(), self.width(call), self.queue_of(call));
        let used = self.running.pool(lane);
        let level = &mut self.levels[lane];
        level.peak = level.peak.max(f64::from(used + level.waiting + width));
        let starts = level.waiting == 0 && (used == 0 || f64::from(used + width) <= level.seats);
        let line = &mut level.queues[queue];
        if line.waiting.is_empty() {
            line.clock = line.clock.max(level.clock);
        }
        if starts {
            line.clock += f64::from(width) * GUESS;
            self.places.insert(id, Place { lane, queue, width, call: None });
            self.running.start(now, id, call, (lane, width));
            return Answer::Admit;
        }
        if line.waiting.len() >= QUEUE_LENGTH {
            return self.refuse(lane);
        }
        line.waiting.push_back((id, width));
        level.waiting += width;
        self.places.insert(id, Place { lane, queue, width, call: Some(call.clone()) });
        self.order.push_back((now, id));
        Answer::Wait
    }

    fn first_byte(&mut self, now: Instant, id: Id, _level: u64) {
        if self.running.first_byte(id)
            && let Some(lane) = self.places.get(&id).map(|place| place.lane)
        {
            self.serve(now, lane);
        }
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        if self.running.burst_done(id)
            && let Some(lane) = self.places.get(&id).map(|place| place.lane)
        {
            self.serve(now, lane);
        }
    }

    fn finish(&mut self, now: Instant, id: Id, _ended: Ended) {
        self.over(now, id);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        self.over(now, id);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        self.expire(now);
        self.ticks += 1;
        let every =
            |period: Duration| self.ticks.is_multiple_of(period.as_millis() as u64 / TICK.as_millis() as u64);
        if every(Duration::from_secs(1)) {
            for level in &mut self.levels {
                if level.refused >= 3 * level.retry_after {
                    level.retry_after = (level.retry_after * 2).min(RETRY_AFTER_MAX);
                } else if level.refused < level.retry_after {
                    level.retry_after = level.retry_after.saturating_sub(1).max(1);
                }
                level.refused = 0;
            }
        }
        if every(DEAL) {
            self.deal();
            for lane in 1..Lane::COUNT {
                self.serve(now, lane);
            }
        }
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        self.order.front().map(|&(since, _)| since + self.wait)
    }

    fn wake(&mut self, now: Instant) {
        self.expire(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.verdicts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;
    use crate::sim::guard::Truth;

    fn list(lane: Lane, flow: u64) -> Call {
        let truth = Truth { bytes: 39_000_000, ..Truth::default() };
        Call { list: true, truth, ..call(lane, flow) }
    }

    #[test]
    fn a_large_list_takes_ten_seats_by_count_and_more_by_size_up_to_the_levels_cap() {
        let (count, size) = (Fair::new(Width::Count, (600, 15)), Fair::new(Width::Size, (600, 15)));
        // Telemetry has 600 · 40 / 240 = 100 seats: a LIST may take 15 of them.
        assert_eq!(count.width(&list(Lane::Telemetry, 1)), 10);
        assert_eq!(size.width(&list(Lane::Telemetry, 1)), 15);
        assert_eq!(size.width(&call(Lane::Telemetry, 1)), 1);
    }

    #[test]
    fn flows_share_a_level_fairly_and_a_greedy_one_is_refused() {
        let mut fair = Fair::new(Width::Count, (24, 15));
        let (mut refused, mut id) = (0, 0);
        for _ in 0..400 {
            id += 1;
            refused +=
                u32::from(matches!(fair.arrive(at(0), id, &call(Lane::Telemetry, 1)), Answer::Shed { .. }));
        }
        assert_eq!(refused, 400 - 4 - 300, "its hand is six queues of 50");
        assert_eq!(fair.arrive(at(1), 1_000, &call(Lane::Telemetry, 2)), Answer::Wait);
        fair.finish(at(100), 1, ended(100));
        fair.finish(at(100), 2, ended(100));
        let mut verdicts = Vec::new();
        fair.verdicts(&mut verdicts);
        assert!(verdicts.contains(&(1_000, Answer::Admit)), "{verdicts:?}");
    }

    #[test]
    fn what_waits_fifteen_seconds_is_refused_and_idle_seats_are_lent_after_ten() {
        let mut fair = Fair::new(Width::Count, (240, 15));
        let admitted = (0..400)
            .filter(|&id| fair.arrive(at(0), id, &call(Lane::Telemetry, u64::from(id))) == Answer::Admit)
            .count();
        assert_eq!(admitted, 40);
        for tick in 1..=40 {
            fair.tick(at(tick * 250), &Probes::default());
        }
        let mut verdicts = Vec::new();
        fair.verdicts(&mut verdicts);
        assert!((60..160).contains(&verdicts.len()), "{}", verdicts.len());
        assert_eq!(fair.next_wake(), Some(at(15_000)));
        verdicts.clear();
        fair.wake(at(15_000));
        fair.verdicts(&mut verdicts);
        assert!(
            verdicts.iter().all(|(_, answer)| matches!(answer, Answer::Shed { .. })) && verdicts.len() > 200
        );
    }
}
