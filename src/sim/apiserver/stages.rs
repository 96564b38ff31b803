//! Through which stages does a request go, and how does it leave each?

use std::sync::Arc;
use std::time::Duration;

use super::apf::{Seat, Seating, WAIT};
use super::{Apiserver, Due, Failure, LevelName, Order, Out, Phase, Served, Stage, life};
use crate::request::{ResourceVersion, Selector};
use crate::sim::costs::Work;
use crate::sim::guard::Id;
use crate::sim::plan::{Breadth, Plan};
use crate::units::Instant;

/// The apiserver's own deadline for requests that end.
const DEADLINE: Duration = Duration::from_secs(60);
/// When the apiserver gives up on a webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// In flight at most where APF is off.
const IN_FLIGHT_MAX: u32 = 600;
/// Work to refuse a request, or to tell a watch that its version is too old: authentication is done by then.
const REFUSAL: f64 = 200.0;
/// Encoding and sending one event to one watcher.
const FAN_OUT: f64 = 20.0;
/// Who passes several queues one after another waits a time of this shape.
const HANDOVER_STEPS: u32 = 3;

impl Apiserver {
    /// A request arrives at the server.
    pub(in crate::sim) fn submit(&mut self, now: Instant, id: Id, order: &Order<'_>) {
        self.pass(now);
        if self.phase == Phase::Away {
            return self.outs.push(Out::Failed { id, failure: Failure::Connect });
        }
        let plan = order.plan;
        let from_etcd = plan.list && self.reads_etcd(now, plan);
        let mut work = self.contents.work(plan, from_etcd);
        work.cpu = work.cpu.max(1.0);
        let level = match order.level {
            LevelName::Exempt => LevelName::Exempt,
            // Its flow schemas are not loaded yet: everything falls into the last level.
            _ if self.phase == Phase::Starting => LevelName::CatchAll,
            level => level,
        };
        let width = match (plan.list, self.build.lists_from_etcd) {
            (false, _) => 1.0,
            (true, true) => self.apf.width_by_objects(level, self.contents.returned(plan)),
            (true, false) => self.apf.width(level, (work.bytes, !from_etcd)),
        };
        let (seating, seat) = self.seat(now, id, order.user, (level, width));
        if let Seating::Reject { retry_after } = seating {
            self.own_work(REFUSAL);
            let level = self.uid(level);
            self.pace();
            return self.outs.push(Out::Refused { id, retry_after, warming: false, level });
        }
        let served = self.served(plan, order, work, seat);
        self.book.insert(id, served);
        if !plan.watch {
            self.due.at(now + DEADLINE, Due::Deadline(id));
        }
        match seating {
            Seating::Start => self.start(now, id),
            _ => self.due.at(now + WAIT, Due::QueueEnd(id)),
        }
        self.pace();
    }

    fn served(&mut self, plan: &Plan, order: &Order<'_>, work: Work, seat: Seat) -> Served {
        let resource = match self.resources.get(&plan.resource) {
            Some(resource) => resource.clone(),
            None => {
                let resource: Arc<str> = plan.resource.as_str().into();
                self.resources.insert(plan.resource.clone(), resource.clone());
                resource
            }
        };
        // A LIST with a limit and without a selector goes to etcd instead.
        let pages = plan.selector == Selector::None && plan.limit.is_some();
        self.in_flight += 1;
        Served {
            stage: Stage::Queued,
            seat: Some(seat),
            work,
            list: plan.list,
            watch: plan.watch,
            write: plan.write,
            broad: plan.breadth != Breadth::One && plan.selector == Selector::None,
            resource,
            reads: order.reads,
            holds: 0.0,
            gone: false,
            needs_cache: plan.watch || plan.list && plan.version == ResourceVersion::Any && !pages,
            is_stale: plan.watch && !plan.list && order.since_boot != self.boot,
        }
    }

    fn seat(&mut self, now: Instant, id: Id, user: u64, (level, width): (LevelName, f64)) -> (Seating, Seat) {
        if self.build.apf {
            return self.apf.arrive(now, id, user, level, width);
        }
        let (_, seat) = self.apf.arrive(now, id, user, LevelName::Exempt, width);
        let full = level != LevelName::Exempt && self.in_flight >= IN_FLIGHT_MAX;
        (if full { Seating::Reject { retry_after: 1 } } else { Seating::Start }, seat)
    }

    /// Whether a LIST must read etcd: always in old servers, and while the cache is cold.
    fn reads_etcd(&mut self, now: Instant, plan: &Plan) -> bool {
        let quorum = plan.version == ResourceVersion::Unset && self.build.lists_from_etcd;
        let reads = !plan.watch && (quorum || !self.is_warm(now, &plan.resource));
        if reads {
            self.usage.etcd_lists += 1;
        }
        reads
    }

    fn uid(&self, level: LevelName) -> u64 {
        if self.build.apf { level.uid() } else { 0 }
    }

    fn uid_of(&self, served: &Served) -> u64 {
        served.seat.map_or(0, |seat| self.uid(seat.level))
    }

    /// It has its seats: hand-overs first, where the cores are crowded.
    fn start(&mut self, now: Instant, id: Id) {
        let is_cold = self.is_cold_for(now, id);
        let crowded = self.is_crowded();
        let handovers = self.chance.erlang(HANDOVER_STEPS) * life::TEN_HANDOVERS / 10.0;
        let Some(served) = self.book.get_mut(&id) else { return };
        if let Some(seat) = &mut served.seat {
            seat.began = now;
        }
        if is_cold {
            return self.refuse_cold(now, id);
        }
        if served.is_stale {
            self.outs.push(Out::Failed { id, failure: Failure::Expired });
            self.own_work(REFUSAL);
            return self.end(now, id);
        }
        // Long computations share the cores and nothing else.
        if crowded && served.work.cpu <= life::SLICE {
            served.stage = Stage::Handovers;
            self.handovers.enter(id, handovers * served.work.handovers);
        } else {
            self.compute(now, id);
        }
    }

    fn is_cold_for(&mut self, now: Instant, id: Id) -> bool {
        let Some(served) = self.book.get(&id) else { return false };
        let (needs_cache, resource) = (served.needs_cache, served.resource.clone());
        needs_cache && !resource.is_empty() && !self.is_warm(now, &resource)
    }

    fn refuse_cold(&mut self, now: Instant, id: Id) {
        let retry_after = self.warm_up_seconds(now);
        self.own_work(REFUSAL);
        if let Some(served) = self.book.get(&id) {
            let level = self.uid_of(served);
            self.outs.push(Out::Refused { id, retry_after, warming: true, level });
        }
        self.end(now, id);
    }

    pub(super) fn handed_over(&mut self, now: Instant, id: Id) {
        if self.book.get(&id).is_some_and(|served| served.stage == Stage::Handovers) {
            self.compute(now, id);
        }
    }

    fn compute(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get_mut(&id) else { return };
        served.stage = Stage::Core;
        served.holds = (served.work.bytes as f64 * life::BUILDING).max(life::SMALL_MEMORY);
        let (cpu, holds) = (served.work.cpu, served.holds);
        self.core.enter(id, cpu);
        self.in_core += 1;
        self.long += u32::from(cpu > life::SLICE);
        self.hold(holds);
        self.check_memory(now);
    }

    /// The server works for itself: nobody hears of it.
    fn own_work(&mut self, micros: f64) {
        self.next_own = self.next_own.wrapping_add(1).max(super::OWN_IDS);
        self.core.enter(self.next_own, micros);
        self.in_core += 1;
    }

    pub(super) fn computed(&mut self, now: Instant, id: Id) {
        if id >= super::OWN_IDS {
            self.in_core = self.in_core.saturating_sub(1);
            return;
        }
        let Some(served) = self.book.get(&id).filter(|served| served.stage == Stage::Core) else { return };
        let (gone, write, asks_etcd) = (served.gone, served.write, served.work.etcd > 0.0);
        let webhook = if write { self.webhooks.get(&*served.resource).copied() } else { None };
        self.leave_core(id);
        if gone {
            if let Some(served) = self.book.get(&id) {
                self.usage.wasted += served.work.cpu;
            }
            return self.end(now, id);
        }
        match webhook.filter(|delay| !delay.is_zero()) {
            Some(delay) => {
                self.stage(id, Stage::Webhook);
                self.due.at(now + delay.min(WEBHOOK_TIMEOUT), Due::Webhook(id));
            }
            None if asks_etcd => self.ask_etcd(now, id),
            None => self.respond(now, id),
        }
    }

    fn leave_core(&mut self, id: Id) {
        let Some(served) = self.book.get_mut(&id) else { return };
        let (holds, cpu) = (std::mem::take(&mut served.holds), served.work.cpu);
        self.in_core = self.in_core.saturating_sub(1);
        self.long = self.long.saturating_sub(u32::from(cpu > life::SLICE));
        self.memory -= holds;
    }

    fn stage(&mut self, id: Id, stage: Stage) {
        if let Some(served) = self.book.get_mut(&id) {
            served.stage = stage;
        }
    }

    pub(super) fn webhook_answered(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get(&id).filter(|served| served.stage == Stage::Webhook) else { return };
        if self.webhooks.get(&*served.resource).is_some_and(|&delay| delay >= WEBHOOK_TIMEOUT) {
            self.outs.push(Out::Failed { id, failure: Failure::Webhook });
            return self.end(now, id);
        }
        self.ask_etcd(now, id);
    }

    fn ask_etcd(&mut self, now: Instant, id: Id) {
        self.stage(id, Stage::Etcd);
        let micros = self.book.get(&id).map_or(0.0, |served| served.work.etcd);
        if let Some(done) = self.etcd.ask(now, id, micros) {
            self.due.at(done, Due::Etcd(id));
        }
    }

    pub(super) fn etcd_answered(&mut self, now: Instant, id: Id) {
        if let Some(until) = self.etcd.stalled(now) {
            return self.due.at(until, Due::Etcd(id));
        }
        // A request of a life before a crash is not known any more, and etcd has forgotten it too.
        if self.book.get(&id).is_none_or(|served| served.stage != Stage::Etcd) {
            return;
        }
        if let Some((next, done)) = self.etcd.done(now) {
            self.due.at(done, Due::Etcd(next));
        }
        if !self.etcd.delay.is_zero() {
            return self.due.at(now + self.etcd.delay, Due::EtcdReply(id));
        }
        self.etcd_replied(now, id);
    }

    /// etcd's answer is here.
    pub(super) fn etcd_replied(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get(&id).filter(|served| served.stage == Stage::Etcd) else { return };
        if served.gone {
            return self.end(now, id);
        }
        if served.write {
            let watchers = self.watchers.get(&served.resource).copied().unwrap_or(0);
            if watchers > 0 {
                self.own_work(FAN_OUT * f64::from(watchers));
            }
        }
        self.respond(now, id);
    }

    /// The answer is ready: it is sent at the speed of its reader.
    fn respond(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get_mut(&id) else { return };
        let sending =
            served.reads.map(|speed| Duration::from_secs_f64(served.work.bytes as f64 / speed.max(1.0)));
        let level = served.seat;
        let bytes = served.work.bytes as f64;
        let uid = level.map_or(0, |seat| self.uid(seat.level));
        self.outs.push(Out::FirstByte(id, uid));
        match sending {
            Some(time) if !time.is_zero() => {
                if let Some(served) = self.book.get_mut(&id) {
                    (served.stage, served.holds) = (Stage::Sending, bytes);
                }
                self.hold(bytes);
                self.due.at(now + time, Due::Sent(id));
                self.check_memory(now);
            }
            _ => self.delivered(now, id),
        }
    }

    pub(super) fn sent(&mut self, now: Instant, id: Id) {
        if let Some(served) = self.book.get_mut(&id).filter(|served| served.stage == Stage::Sending) {
            self.memory -= std::mem::take(&mut served.holds);
            self.delivered(now, id);
        }
    }

    fn delivered(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get(&id) else { return };
        if served.watch {
            return self.listen(now, id);
        }
        let out = Out::Answered { id, bytes: served.work.bytes, level: self.uid_of(served) };
        self.outs.push(out);
        self.end(now, id);
    }

    /// A watch has delivered what there was: from now on it only listens.
    fn listen(&mut self, now: Instant, id: Id) {
        self.outs.push(Out::BurstDone(id));
        self.give_seat_back(now, id);
        if let Some(served) = self.book.get_mut(&id) {
            (served.stage, served.holds) = (Stage::Live, life::WATCH_MEMORY);
            self.hold(life::WATCH_MEMORY);
        }
        self.count_watch(id, true);
        self.check_memory(now);
    }

    pub(super) fn queued_too_long(&mut self, id: Id) {
        let Some(served) = self.book.get(&id).filter(|served| served.stage == Stage::Queued) else { return };
        let level = self.uid_of(served);
        let Some(seat) = served.seat else { return };
        let retry_after = self.apf.withdraw(id, &seat, true);
        self.book.remove(&id);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.own_work(REFUSAL);
        self.outs.push(Out::Refused { id, retry_after, warming: false, level });
    }

    /// A minute is over: the client is told so, and what cannot be stopped goes on for nobody.
    pub(super) fn deadline(&mut self, now: Instant, id: Id) {
        if self.book.get(&id).is_some_and(|served| !served.gone && served.stage != Stage::Live) {
            self.outs.push(Out::Failed { id, failure: Failure::Timeout });
            self.abandon(now, id);
        }
    }

    /// The client of this request went away.
    pub(in crate::sim) fn cancel(&mut self, now: Instant, id: Id) {
        self.pass(now);
        self.abandon(now, id);
        self.pace();
    }

    fn abandon(&mut self, now: Instant, id: Id) {
        let Some(served) = self.book.get_mut(&id) else { return };
        match served.stage {
            Stage::Queued => {
                if let Some(seat) = served.seat.take() {
                    self.apf.withdraw(id, &seat, false);
                }
                self.book.remove(&id);
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            // Go does not interrupt a computation; only what is streamed notices that nobody reads.
            Stage::Core if !(served.list && self.build.streaming) => served.gone = true,
            Stage::Core => {
                // On average half of it was done.
                self.usage.wasted += served.work.cpu / 2.0;
                self.leave_core(id);
                self.end(now, id);
            }
            Stage::Etcd if self.etcd.withdraw(id) => self.end(now, id),
            Stage::Etcd => served.gone = true,
            Stage::Handovers | Stage::Webhook | Stage::Sending => {
                self.memory -= std::mem::take(&mut served.holds);
                self.end(now, id);
            }
            Stage::Live => {
                self.count_watch(id, false);
                self.end(now, id);
            }
        }
    }

    fn give_seat_back(&mut self, now: Instant, id: Id) {
        let Some(seat) = self.book.get_mut(&id).and_then(|served| served.seat.take()) else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.build.apf {
            self.apf.leave(now, &seat);
            self.start_waiting(now, seat.level);
        }
    }

    /// Lets queued requests of a level start.
    pub(super) fn start_waiting(&mut self, now: Instant, level: LevelName) {
        if !self.build.apf || level == LevelName::Exempt {
            return;
        }
        while let Some(id) = self.apf.next(level) {
            self.start(now, id);
        }
    }

    /// The request is over and leaves nothing behind.
    fn end(&mut self, now: Instant, id: Id) {
        self.give_seat_back(now, id);
        if let Some(served) = self.book.remove(&id) {
            self.memory -= served.holds;
        }
    }
}
