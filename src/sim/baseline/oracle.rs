//! What could be reached by somebody who knows the true cost of every call and the true capacity?
//!
//! The bound that the others are measured against. Light calls of the protected lanes go at once: their cost is what the
//! lanes are for. All others share as many places as cores are left beside them, in strict order of lanes, oldest first;
//! a place is held for the time of computation alone, because waiting for etcd, webhooks or a reader takes no core. So no
//! core is idle while somebody waits and no small request queues behind more long computations than there are cores.
//! Bytes in flight are bounded. The line of a low lane holds five seconds of work; who finds it full is told to return
//! when its turn can come. An oracle in knowledge, not in foresight: it does not know who will arrive.

use std::collections::BTreeSet;
use std::time::Duration;

use super::line::{Lines, Waiter};
use super::running::Running;
use crate::flow::{Kind, Probes};
use crate::policy::Lane;
use crate::sim::book::Book;
use crate::sim::chance::Chance;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Grid: places for each core. More than one hides the waits between computations, at the price of crowding.
pub(super) const ORACLE: [(&str, f64); 3] =
    [("1 place a core", 1.0), ("1.5 places a core", 1.5), ("0.75 places a core", 0.75)];

/// A call with no more work than this is light: a time slice of Go's scheduler.
const LIGHT_MICROS: f64 = 10_000.0;
/// Cores of an apiserver before it is told.
const CORES: f64 = 16.0;
/// Work that the line of a low lane may hold, in microseconds for each place.
const LINE_MICROS: f64 = 5e6;
/// Nobody waits longer.
const WAIT: Duration = Duration::from_secs(10);
/// Computing takes longer than its work, because light calls come between.
const STRETCH: f64 = 1.3;
/// Bytes of answers in flight: this part of the server's memory, which holds each of them five times over while caches and
/// watches want their share, and no more for each core, because a core shared by too many readers serves none of them.
const MEMORY_PART: f64 = 0.1;
const BYTES_PER_CORE: f64 = 120e6;
/// Memory of an apiserver before it is told, in bytes.
const MEMORY: f64 = 16e9;
/// LISTs, and all of the low lanes, wait this long after the apiserver came back: its caches are cold.
const COLD: Duration = Duration::from_secs(5);
/// So long after it everything but calls on single objects takes a place, however light: thousands return at once.
const HERD: Duration = Duration::from_secs(60);
const RETRY_AFTER_MAX: u32 = 30;
/// How often the load of light calls is measured and Retry-After adapted.
const LOOK: Duration = Duration::from_secs(1);

/// The oracle.
#[derive(Debug)]
pub(super) struct Oracle {
    places_per_core: f64,
    cores: f64,
    memory: f64,
    /// Cores that light protected calls use.
    light: f64,
    light_micros: f64,
    looked: Instant,
    lines: Lines,
    running: Running,
    /// Who holds a place, and until when.
    places: Book<Instant>,
    releases: BTreeSet<(Instant, Id)>,
    bytes: f64,
    sizes: Book<f64>,
    up_since: Option<Instant>,
    retry_after: u32,
    refused: u32,
    chance: Chance,
    verdicts: Vec<(Id, Answer)>,
}

impl Oracle {
    pub(super) fn new(places_per_core: f64, seed: u64) -> Self {
        Self {
            places_per_core,
            cores: CORES,
            memory: MEMORY,
            light: 0.0,
            light_micros: 0.0,
            looked: Instant::ORIGIN,
            lines: Lines::default(),
            running: Running::new(1),
            places: Book::default(),
            releases: BTreeSet::new(),
            bytes: 0.0,
            sizes: Book::default(),
            up_since: Some(Instant::ORIGIN),
            retry_after: 1,
            refused: 0,
            chance: Chance::new(seed, 0x0A),
            verdicts: Vec::new(),
        }
    }

    fn slots(&self) -> f64 {
        ((self.cores - self.light) * self.places_per_core).floor().max(1.0)
    }

    /// Time since the apiserver came back; none: it never went away.
    fn since_return(&self, now: Instant) -> Option<Duration> {
        self.up_since.filter(|&since| since > Instant::ORIGIN).map(|since| now.since(since))
    }

    fn is_light(&self, now: Instant, call: &Call) -> bool {
        let returns = call.list || call.kind != Kind::Short || self.lines.total() > 0;
        let herd = returns && self.since_return(now).is_some_and(|time| time < HERD);
        call.exempt || call.lane <= Lane::Operators && call.truth.cpu_micros <= LIGHT_MICROS && !herd
    }

    fn is_open(&self, now: Instant, call: &Call) -> bool {
        let is_cold = self.since_return(now).is_some_and(|time| time < COLD);
        self.up_since.is_some() && !(is_cold && (call.list || call.lane >= Lane::Workload))
    }

    fn fits(&self, now: Instant, call: &Call) -> bool {
        let most = (MEMORY_PART * self.memory).min(BYTES_PER_CORE * self.cores);
        let room = self.bytes == 0.0 || self.bytes + call.truth.bytes as f64 <= most;
        self.is_open(now, call) && (self.places.len() as f64) < self.slots() && room
    }

    fn go(&mut self, now: Instant, id: Id, call: &Call) {
        self.running.start_free(now, id, call);
        if self.is_light(now, call) {
            self.light_micros += call.truth.cpu_micros;
            return;
        }
        let until = now + Duration::from_secs_f64(call.truth.cpu_micros * STRETCH / 1e6);
        self.places.insert(id, until);
        self.releases.insert((until, id));
        self.bytes += call.truth.bytes as f64;
        self.sizes.insert(id, call.truth.bytes as f64);
    }

    fn give_back_place(&mut self, id: Id) {
        if let Some(until) = self.places.remove(&id) {
            self.releases.remove(&(until, id));
        }
    }

    fn over(&mut self, now: Instant, id: Id) {
        self.running.finish(id);
        self.lines.leave(id);
        self.give_back_place(id);
        self.bytes -= self.sizes.remove(&id).unwrap_or(0.0);
        if self.sizes.is_empty() {
            self.bytes = 0.0;
        }
        self.serve(now);
    }

    fn refusal(&mut self) -> Answer {
        self.refused += 1;
        let span = f64::from(self.retry_after);
        let retry_after_seconds = self.chance.between(span, 2.0 * span + 1.0) as u32;
        Answer::Shed { retry_after_seconds, hold: Duration::ZERO }
    }

    fn serve(&mut self, now: Instant) {
        while let Some(&(until, id)) = self.releases.first().filter(|&&(until, _)| until <= now) {
            debug_assert!(until <= now, "only what is over is released");
            self.give_back_place(id);
        }
        for lane in Lane::ALL {
            while let Some(waiter) = self.lines.take_late(now, lane, WAIT) {
                let refusal = self.refusal();
                self.verdicts.push((waiter.id, refusal));
            }
            while self.lines.len(lane) > 0 {
                let next = self.lines.oldest(lane).cloned();
                let Some(Waiter { id, call, .. }) = next.filter(|waiter| self.fits(now, &waiter.call)) else {
                    break;
                };
                self.lines.take_oldest(lane);
                self.go(now, id, &call);
                self.verdicts.push((id, Answer::Admit));
            }
        }
    }
}

impl Guard for Oracle {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        self.serve(now);
        let ahead = Lane::ALL.iter().filter(|&&lane| lane <= call.lane).any(|&lane| self.lines.len(lane) > 0);
        let is_cold = self.since_return(now).is_some_and(|time| time < HERD);
        let is_small = call.lane <= Lane::Operators && call.kind == Kind::Short && !call.list;
        let passes = self.is_light(now, call) || is_cold && is_small;
        if passes && self.up_since.is_some() || !ahead && self.fits(now, call) {
            self.go(now, id, call);
            return Answer::Admit;
        }
        let waiting = (self.lines.len(call.lane) + 1) as f64 * call.truth.cpu_micros;
        if call.lane >= Lane::Workload && waiting > LINE_MICROS * self.slots() {
            return self.refusal();
        }
        self.lines.push(now, id, call.lane, call);
        Answer::Wait
    }

    fn first_byte(&mut self, now: Instant, id: Id, _level: u64) {
        self.give_back_place(id);
        self.serve(now);
    }

    fn burst_done(&mut self, now: Instant, id: Id) {
        self.over(now, id);
    }

    fn finish(&mut self, now: Instant, id: Id, _ended: Ended) {
        self.over(now, id);
    }

    fn cancel(&mut self, now: Instant, id: Id) {
        self.over(now, id);
    }

    fn tick(&mut self, now: Instant, _probes: &Probes) {
        let passed = now.since(self.looked);
        if passed >= LOOK {
            let load = self.light_micros / passed.as_micros() as f64;
            self.light += (load - self.light) * 0.3;
            (self.light_micros, self.looked) = (0.0, now);
            let waiting: usize = Lane::ALL.iter().map(|&lane| self.lines.len(lane)).sum();
            // Nobody waits: they were sent away for too long. Many are refused: they come back too soon.
            if waiting == 0 {
                self.retry_after = (self.retry_after / 2).max(1);
            } else if self.refused as usize > waiting {
                self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX / 2);
            }
            self.refused = 0;
        }
        self.serve(now);
    }

    fn upstream_up(&mut self, now: Instant, up: bool) {
        self.up_since = up.then_some(now);
        self.serve(now);
    }

    fn next_wake(&self) -> Option<Instant> {
        let late = Lane::ALL.iter().filter_map(|&lane| self.lines.first_late(lane, WAIT)).min();
        let release = self.releases.first().map(|&(until, _)| until).filter(|_| self.lines.total() > 0);
        [late, release].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Instant) {
        self.serve(now);
    }

    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.verdicts);
    }

    fn capacity(&mut self, now: Instant, cores: f64, memory: f64) {
        (self.cores, self.memory) = (cores, memory);
        self.serve(now);
    }

    fn limit(&self) -> Option<f64> {
        Some(self.slots())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call, ended};
    use super::*;
    use crate::sim::guard::Truth;

    fn list(lane: Lane) -> Call {
        let truth = Truth { cpu_micros: 360_000.0, bytes: 39_000_000, ..Truth::default() };
        Call { list: true, truth, ..call(lane, 1) }
    }

    #[test]
    fn one_core_computes_one_list_while_leases_go_at_once() {
        let mut oracle = Oracle::new(1.0, 1);
        oracle.capacity(at(0), 1.0, 16e9);
        assert_eq!(oracle.arrive(at(0), 1, &list(Lane::Telemetry)), Answer::Admit);
        assert_eq!(oracle.arrive(at(1), 2, &list(Lane::Telemetry)), Answer::Wait);
        assert_eq!(oracle.arrive(at(2), 3, &list(Lane::Platform)), Answer::Wait);
        assert_eq!(oracle.arrive(at(3), 4, &call(Lane::NodeHealth, 2)), Answer::Admit);
        oracle.first_byte(at(360), 1, 0);
        let mut verdicts = Vec::new();
        oracle.verdicts(&mut verdicts);
        assert_eq!(verdicts, [(3, Answer::Admit)], "the higher lane first");
        oracle.finish(at(361), 1, ended(361));
        assert_eq!(oracle.next_wake(), Some(at(360 + 468)));
        oracle.wake(at(828));
        oracle.verdicts(&mut verdicts);
        assert_eq!(verdicts.last(), Some(&(2, Answer::Admit)), "its computation must be over by now");
    }

    #[test]
    fn places_follow_the_cores_and_a_full_line_is_refused() {
        let mut oracle = Oracle::new(1.0, 1);
        oracle.capacity(at(0), 3.0, 16e9);
        let answers: Vec<_> = (0..60).map(|id| oracle.arrive(at(0), id, &list(Lane::Telemetry))).collect();
        assert_eq!(answers.iter().filter(|&&answer| answer == Answer::Admit).count(), 3);
        // Three places for five seconds hold 41 of them.
        assert_eq!(answers.iter().filter(|&&answer| answer == Answer::Wait).count(), 41);
        oracle.capacity(at(1), 1.0, 16e9);
        assert_eq!(oracle.slots(), 1.0);
    }
}
