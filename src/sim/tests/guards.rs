//! Algorithms that only tests need: a gate with a fixed rate, a few slots, and one that watches another.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::super::chance::Chance;
use super::super::guard::{Answer, Call, Ended, Guard, Id};
use crate::flow::Probes;
use crate::units::Instant;

/// Admits LISTs at a fixed rate and refuses the others with a header drawn from a span.
pub(super) struct Gate {
    per_second: f64,
    header: (u32, u32),
    /// Instead of the span: 1 to what the backlog needs at this rate.
    by_backlog: Option<u32>,
    tokens: f64,
    at: Instant,
    chance: Chance,
}

impl Gate {
    pub(super) fn new(per_second: f64, header: (u32, u32), by_backlog: Option<u32>) -> Self {
        Self { per_second, header, by_backlog, tokens: 0.0, at: Instant::ORIGIN, chance: Chance::new(1, 9) }
    }
}

impl Guard for Gate {
    fn arrive(&mut self, now: Instant, _id: Id, call: &Call) -> Answer {
        if !call.list {
            return Answer::Admit;
        }
        let gained = now.since(self.at).as_secs_f64() * self.per_second;
        // What nobody uses within a second is lost: a server cannot serve yesterday's requests.
        (self.tokens, self.at) = ((self.tokens + gained).min(self.per_second), now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            if let Some(backlog) = &mut self.by_backlog {
                *backlog = backlog.saturating_sub(1);
            }
            return Answer::Admit;
        }
        let (low, high) = match self.by_backlog {
            Some(backlog) => (1, ((f64::from(backlog) / self.per_second).ceil() as u32).clamp(1, 60)),
            None => self.header,
        };
        let seconds = low + (self.chance.unit() * f64::from(high - low + 1)) as u32;
        Answer::Shed { retry_after_seconds: seconds.min(high), hold: Duration::ZERO }
    }
    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}
    fn burst_done(&mut self, _now: Instant, _id: Id) {}
    fn finish(&mut self, _now: Instant, _id: Id, _ended: Ended) {}
    fn cancel(&mut self, _now: Instant, _id: Id) {}
    fn tick(&mut self, _now: Instant, _probes: &Probes) {}
    fn upstream_up(&mut self, _now: Instant, _up: bool) {}
    fn next_wake(&self) -> Option<Instant> {
        None
    }
    fn wake(&mut self, _now: Instant) {}
    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}
}

/// So many LISTs at a time; the others wait in line.
pub(super) struct Slots {
    free: u32,
    running: Vec<Id>,
    line: VecDeque<Id>,
    go: Vec<(Id, Answer)>,
}

impl Slots {
    pub(super) fn new(free: u32) -> Self {
        Self { free, running: Vec::new(), line: VecDeque::new(), go: Vec::new() }
    }
}

impl Guard for Slots {
    fn arrive(&mut self, _now: Instant, id: Id, call: &Call) -> Answer {
        if !call.list {
            return Answer::Admit;
        }
        if self.free == 0 {
            self.line.push_back(id);
            return Answer::Wait;
        }
        self.free -= 1;
        self.running.push(id);
        Answer::Admit
    }
    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}
    fn burst_done(&mut self, _now: Instant, _id: Id) {}
    fn finish(&mut self, now: Instant, id: Id, _ended: Ended) {
        self.cancel(now, id);
    }
    fn cancel(&mut self, _now: Instant, id: Id) {
        self.line.retain(|&waiting| waiting != id);
        if let Some(place) = self.running.iter().position(|&running| running == id) {
            self.running.swap_remove(place);
            self.free += 1;
        }
        while self.free > 0 {
            let Some(next) = self.line.pop_front() else { return };
            self.free -= 1;
            self.running.push(next);
            self.go.push((next, Answer::Admit));
        }
    }
    fn tick(&mut self, _now: Instant, _probes: &Probes) {}
    fn upstream_up(&mut self, _now: Instant, _up: bool) {}
    fn next_wake(&self) -> Option<Instant> {
        None
    }
    fn wake(&mut self, _now: Instant) {}
    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        into.append(&mut self.go);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Forwarded,
    Answering,
    Bursted,
}

/// What a [`Witness`] has seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) faults: Vec<String>,
    pub(super) ended: u32,
}

/// Watches whether the simulator keeps the order of calls that [`Guard`] promises.
pub(super) struct Witness {
    inner: Box<dyn Guard>,
    stages: BTreeMap<Id, Stage>,
    latest: Instant,
    report: Rc<RefCell<Report>>,
}

impl Witness {
    pub(super) fn over(inner: Box<dyn Guard>) -> (Self, Rc<RefCell<Report>>) {
        let report = Rc::new(RefCell::new(Report::default()));
        let witness =
            Self { inner, stages: BTreeMap::new(), latest: Instant::ORIGIN, report: Rc::clone(&report) };
        (witness, report)
    }

    fn check(&mut self, now: Instant, what: &str, id: Id, allowed: &[Stage]) {
        let stage = self.stages.get(&id).copied();
        let mut report = self.report.borrow_mut();
        if now < self.latest {
            report.faults.push(format!("{what} {id}: time runs backwards"));
        }
        self.latest = now;
        if stage.is_none_or(|stage| !allowed.contains(&stage)) {
            report.faults.push(format!("{what} {id} while {stage:?}"));
        }
    }

    fn over_with(&mut self, id: Id) {
        self.stages.remove(&id);
        self.report.borrow_mut().ended += 1;
    }
}

const RUNNING: &[Stage] = &[Stage::Forwarded, Stage::Answering, Stage::Bursted];

impl Guard for Witness {
    fn arrive(&mut self, now: Instant, id: Id, call: &Call) -> Answer {
        let answer = self.inner.arrive(now, id, call);
        let old = match answer {
            Answer::Admit => self.stages.insert(id, Stage::Forwarded),
            Answer::Wait => self.stages.insert(id, Stage::Waiting),
            Answer::Shed { .. } => None,
        };
        if old.is_some() {
            self.report.borrow_mut().faults.push(format!("arrive {id} twice"));
        }
        answer
    }
    fn first_byte(&mut self, now: Instant, id: Id, level: u64) {
        self.check(now, "first byte", id, &[Stage::Forwarded]);
        self.stages.insert(id, Stage::Answering);
        self.inner.first_byte(now, id, level);
    }
    fn burst_done(&mut self, now: Instant, id: Id) {
        self.check(now, "burst", id, &[Stage::Answering]);
        self.stages.insert(id, Stage::Bursted);
        self.inner.burst_done(now, id);
    }
    fn finish(&mut self, now: Instant, id: Id, ended: Ended) {
        self.check(now, "finish", id, RUNNING);
        self.over_with(id);
        self.inner.finish(now, id, ended);
    }
    fn cancel(&mut self, now: Instant, id: Id) {
        self.check(now, "cancel", id, &[Stage::Waiting, Stage::Forwarded, Stage::Answering, Stage::Bursted]);
        self.over_with(id);
        self.inner.cancel(now, id);
    }
    fn tick(&mut self, now: Instant, probes: &Probes) {
        self.inner.tick(now, probes);
    }
    fn upstream_up(&mut self, now: Instant, up: bool) {
        self.inner.upstream_up(now, up);
    }
    fn next_wake(&self) -> Option<Instant> {
        self.inner.next_wake()
    }
    fn wake(&mut self, now: Instant) {
        self.inner.wake(now);
    }
    fn verdicts(&mut self, into: &mut Vec<(Id, Answer)>) {
        let from = into.len();
        self.inner.verdicts(into);
        for &(id, answer) in &into[from..] {
            match answer {
                Answer::Admit => self.stages.insert(id, Stage::Forwarded),
                Answer::Wait | Answer::Shed { .. } => self.stages.remove(&id),
            };
        }
    }
    fn resets(&mut self, into: &mut Vec<Id>) {
        self.inner.resets(into);
    }
    fn limit(&self) -> Option<f64> {
        self.inner.limit()
    }
}
