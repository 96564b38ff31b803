//! How do clients, algorithm and apiserver act on each other in time?
//!
//! One loop: the next thing that happens, wherever, then everything that follows from it at the same moment. A call of a
//! client becomes tries; a try reaches the algorithm, perhaps waits, is forwarded to the modelled apiserver or refused,
//! and what became of it goes back to the client's library and, in the end, to the client.

use std::time::Duration;

use super::apiserver::{Apiserver, Build, Failure, LevelName, Order, Out, Usage};
use super::book::Book;
use super::cast::{Cast, Place, Role};
use super::chance::{Chance, mix};
use super::clients::{Behaviour, Context, Fault, Heard, Mark, Next, Tries};
use super::guard::{Answer, Call, Ended, Guard, Id, Truth};
use super::measure::Measure;
use super::probing::Probing;
use super::scenario::Scenario;
use super::timeline::Timeline;
use crate::flow::{End, TICK};
use crate::policy::Lane;
use crate::units::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// One way over the network and back.
const ROUND_TRIP: Duration = Duration::from_millis(1);
/// client-go asks for watches of five to ten minutes.
const WATCH_MIN: Duration = Duration::from_secs(300);
const WATCH_MAX: Duration = Duration::from_secs(600);
/// What a client is told whose running request the algorithm reset.
const RESET_RETRY_AFTER: u32 = 10;
/// An algorithm that wants to be woken again at once is woken this much later: time must go on.
const WAKE_AGAIN: Duration = Duration::from_micros(100);

/// What a client's timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Wake,
    /// The refusal or failure of its try reaches it.
    TryFailed(Fault, Option<u32>),
    Retry,
    GiveUp(Fault),
    WatchClosed,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Start(u32),
    Stop(u32),
    Timer {
        client: u32,
        epoch: u32,
    },
    /// A try has taken as long as its client waits.
    Timeout(Id),
    /// A watch has lived as long as its client asked for.
    WatchEnd(Id),
    Happening(usize),
    Phase(usize),
    Tick,
    Second,
    Probe,
}

#[derive(Debug)]
struct Client {
    role: usize,
    places: Vec<Place>,
    behaviour: Box<dyn Behaviour>,
    tries: Tries,
    /// Its call: plan, beginning, time for a try, end of all tries.
    call: Option<(usize, Instant, Duration, Option<Instant>)>,
    request: Option<Id>,
    watch: Option<Id>,
    pending: Pending,
    epoch: u32,
    /// Life of the server of which its objects are.
    since_boot: u32,
    stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    client: u32,
    plan: usize,
    forwarded: Option<Instant>,
    truth: Truth,
}

/// A run.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    guard: Box<dyn Guard>,
    server: Apiserver,
    roles: Vec<Role>,
    clients: Vec<Client>,
    requests: Book<Request>,
    next_id: Id,
    timeline: Timeline<Event>,
    chance: Chance,
    probing: Probing,
    pub(super) measure: Measure,
    pub(super) usages: [Usage; 3],
    last_second: Usage,
    pub(super) trace: u64,
    now: Instant,
    end: Instant,
    woken: Instant,
    marks: Vec<Mark>,
    outs: Vec<Out>,
    verdicts: Vec<(Id, Answer)>,
    resets: Vec<Id>,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, cast: Cast, guard: Box<dyn Guard>, seed: u64) -> Self {
        let phases = &scenario.phases;
        let calm = Instant::ORIGIN + phases.calm.0;
        let storm = calm + phases.storm.0;
        let end = storm + phases.after.0;
        let server = Apiserver::new(build(scenario), seed);
        let mut world = Self {
            scenario,
            guard,
            server,
            measure: Measure::new([calm, storm, end], cast.members.len()),
            roles: cast.roles,
            clients: Vec::with_capacity(cast.members.len()),
            requests: Book::default(),
            next_id: 0,
            timeline: Timeline::new(),
            chance: Chance::new(seed, 1),
            probing: Probing::new(),
            usages: [Usage::default(); 3],
            last_second: Usage::default(),
            trace: seed,
            now: Instant::ORIGIN,
            end,
            woken: Instant::ORIGIN,
            marks: Vec::new(),
            outs: Vec::new(),
            verdicts: Vec::new(),
            resets: Vec::new(),
        };
        for (index, end) in [calm, storm, end].into_iter().enumerate() {
            world.timeline.at(end, Event::Phase(index));
        }
        world.timeline.at(Instant::ORIGIN + TICK, Event::Tick);
        world.timeline.at(Instant::ORIGIN + SECOND, Event::Second);
        world.timeline.at(Instant::ORIGIN, Event::Probe);
        world.plan_events();
        for member in cast.members {
            let number = u32::try_from(world.clients.len()).unwrap_or(u32::MAX);
            if member.starts < end {
                world.timeline.at(member.starts, Event::Start(number));
                world.timeline.at(member.stops, Event::Stop(number));
            }
            world.clients.push(Client {
                tries: Tries::new(world.roles[member.role].retries),
                role: member.role,
                places: member.places,
                behaviour: member.behaviour,
                call: None,
                request: None,
                watch: None,
                pending: Pending::Wake,
                epoch: 0,
                since_boot: 1,
                stopped: false,
            });
        }
        world
    }

    fn plan_events(&mut self) {
        for (index, event) in self.scenario.events.iter().enumerate() {
            let until = event.until.map_or(event.at.0, |until| until.0);
            let mut at = event.at.0;
            loop {
                self.timeline.at(Instant::ORIGIN + at, Event::Happening(index));
                at += event.every.map_or(until, |every| every.0).max(Duration::from_millis(1));
                if at >= until {
                    break;
                }
            }
        }
    }

    /// Runs to the end of the last phase.
    pub(super) fn run(&mut self) {
        self.guard.capacity(self.now, self.server.cores());
        loop {
            let wake = self.guard.next_wake().map(|wake| wake.max(self.woken + WAKE_AGAIN));
            let next = [self.timeline.next(), self.server.next(), wake].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= self.end) else { break };
            self.now = self.now.max(next);
            self.server.advance(self.now);
            self.hear();
            if wake.is_some_and(|wake| wake <= self.now) {
                self.woken = self.now;
                self.guard.wake(self.now);
            }
            if let Some(event) = self.timeline.take(self.now) {
                self.happen(event);
            }
            self.settle();
        }
        self.now = self.end;
        for client in 0..self.clients.len() {
            self.close(client);
        }
    }

    /// Everything that follows at this moment.
    fn settle(&mut self) {
        loop {
            self.hear();
            self.guard.verdicts(&mut self.verdicts);
            self.guard.resets(&mut self.resets);
            if self.verdicts.is_empty() && self.resets.is_empty() {
                return;
            }
            for (id, answer) in std::mem::take(&mut self.verdicts) {
                match answer {
                    Answer::Admit => self.forward(id),
                    Answer::Shed { retry_after_seconds, hold } => self.shed(id, retry_after_seconds, hold),
                    Answer::Wait => {}
                }
            }
            for id in std::mem::take(&mut self.resets) {
                self.reset(id);
            }
        }
    }

    fn note(&mut self, what: u64, id: Id, more: u64) {
        let word = self.now.as_nanos() ^ (what << 56) ^ (u64::from(id) << 20) ^ more;
        self.trace = mix(self.trace.rotate_left(1) ^ word);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(client) => self.step(client as usize, Heard::Start),
            Event::Stop(client) => self.stop(client as usize),
            Event::Timer { client, epoch } => {
                if self.clients[client as usize].epoch == epoch {
                    self.timer(client as usize);
                }
            }
            Event::Timeout(id) => self.timed_out(id),
            Event::WatchEnd(id) => self.watch_over(id),
            Event::Happening(index) => self.intervene(index),
            Event::Phase(index) => {
                self.server.advance(self.now);
                self.usages[index] = self.server.usage();
            }
            Event::Tick => self.tick(),
            Event::Second => self.second(),
            Event::Probe => {
                self.probing.send(self.now, &mut self.server, &mut self.next_id);
                self.timeline.at(self.now + super::probing::INTERVAL, Event::Probe);
                self.hear();
            }
        }
    }

    fn tick(&mut self) {
        let probes = self.probing.tick(self.now, self.server.is_ready());
        self.guard.tick(self.now, &probes);
        if let Some(limit) = self.guard.limit() {
            self.measure.limits.push((self.now, limit));
            self.note(1, 0, limit.to_bits());
        }
        self.timeline.at(self.now + TICK, Event::Tick);
    }

    fn second(&mut self) {
        self.server.advance(self.now);
        let usage = self.server.usage();
        let (cpu, capacity) = (usage.cpu - self.last_second.cpu, usage.capacity - self.last_second.capacity);
        self.measure.busy(self.now, cpu / capacity.max(1.0));
        self.last_second = usage;
        self.timeline.at(self.now + SECOND, Event::Second);
    }

    fn intervene(&mut self, index: usize) {
        let event = &self.scenario.events[index];
        if let Some(cores) = event.cores {
            self.server.set_cores(self.now, cores);
            self.guard.capacity(self.now, cores);
        }
        if let Some(delay) = event.etcd_delay {
            self.server.set_etcd_delay(delay.0);
        }
        if let Some(stall) = event.etcd_stall {
            self.server.stall_etcd(self.now + stall.0);
        }
        if let Some(webhook) = &event.webhook {
            self.server.set_webhook(&webhook.resource, webhook.delay.0);
        }
        if let Some(away) = event.kill {
            self.server.kill(self.now, away.0);
        }
        if let Some(objects) = &event.objects {
            self.server.contents.set(&objects.resource, Some(f64::from(objects.count)), None);
        }
        self.hear();
    }

    // --- clients

    /// Tells a client what happened and does what it wants.
    fn step(&mut self, client: usize, heard: Heard) {
        let Self { clients, chance, marks, now, .. } = self;
        let it = &mut clients[client];
        if it.stopped {
            return;
        }
        it.call = None;
        let next = it.behaviour.step(heard, &mut Context { now: *now, chance, marks });
        self.take_marks(client);
        if next != Next::Listen {
            self.close_watch(client);
        }
        match next {
            Next::Call { plan, timeout, deadline } => {
                self.clients[client].call = Some((plan, self.now, timeout, deadline));
                self.clients[client].tries.begin();
                self.attempt(client);
            }
            Next::Sleep(until) => self.arm(client, until, Pending::Wake),
            Next::Listen => {}
        }
    }

    fn take_marks(&mut self, client: usize) {
        let now = self.now;
        // Only those who keep a cluster running are judged by when they have their first objects.
        let judged = self.clients[client].places.first().is_some_and(|place| place.lane <= Lane::Platform);
        let marks = self.marks.drain(..).filter(|mark| judged || !matches!(mark, Mark::FirstObjects { .. }));
        self.measure.marks.extend(marks.map(|mark| (now, mark)));
    }

    fn arm(&mut self, client: usize, when: Instant, pending: Pending) {
        let it = &mut self.clients[client];
        it.epoch += 1;
        it.pending = pending;
        let event = Event::Timer { client: u32::try_from(client).unwrap_or(u32::MAX), epoch: it.epoch };
        self.timeline.at(when.max(self.now), event);
    }

    fn timer(&mut self, client: usize) {
        match self.clients[client].pending {
            Pending::Wake => self.step(client, Heard::Timer),
            Pending::TryFailed(fault, retry_after) => self.try_failed(client, fault, retry_after),
            Pending::Retry => self.attempt(client),
            Pending::GiveUp(fault) => self.give_up(client, fault),
            Pending::WatchClosed => self.step(client, Heard::Closed),
        }
    }

    /// A client makes a try of its call.
    fn attempt(&mut self, client: usize) {
        let it = &self.clients[client];
        let Some((plan, _, timeout, deadline)) = it.call else { return };
        if it.stopped {
            return;
        }
        let (place, role) = (it.places[plan], &self.roles[it.role]);
        let known = &role.plans[plan];
        let work = self.server.contents.work(known, false);
        let truth = Truth { cpu_micros: work.cpu, etcd_micros: work.etcd, bytes: work.bytes };
        let call = Call {
            lane: place.lane,
            flow: place.flow,
            client: place.client,
            key: known.key,
            kind: known.kind,
            exempt: known.exempt,
            list: known.list,
            write: known.write,
            truth,
        };
        let id = self.next_id;
        self.next_id += 1;
        let number = u32::try_from(client).unwrap_or(u32::MAX);
        self.requests.insert(id, Request { client: number, plan, forwarded: None, truth });
        self.clients[client].request = Some(id);
        let patience = deadline.map_or(timeout, |deadline| deadline.since(self.now).min(timeout));
        self.timeline.at(self.now + patience, Event::Timeout(id));
        self.measure.attempt(self.now, place.lane);
        let answer = self.guard.arrive(self.now, id, &call);
        self.note(2, id, mix(client as u64));
        match answer {
            Answer::Admit => self.forward(id),
            Answer::Wait => {}
            Answer::Shed { retry_after_seconds, hold } => self.shed(id, retry_after_seconds, hold),
        }
    }

    fn forward(&mut self, id: Id) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.forwarded = Some(self.now);
        let it = &self.clients[request.client as usize];
        let role = &self.roles[it.role];
        let order = Order {
            plan: &role.plans[request.plan],
            user: it.places[request.plan].client,
            level: role.levels.get(request.plan).copied().unwrap_or(LevelName::GlobalDefault),
            reads: role.reads,
            since_boot: it.since_boot,
        };
        self.server.submit(self.now, id, &order);
        self.note(3, id, 0);
        // What the server says at once is heard when everything of this moment is settled.
    }

    /// The algorithm refuses; the client hears of it after the hold and the way back.
    fn shed(&mut self, id: Id, seconds: u32, hold: Duration) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        self.note(4, id, u64::from(seconds));
        self.measure.shed(self.now, self.clients[client].places[request.plan].lane);
        self.clients[client].request = None;
        let told = (seconds > 0).then_some(seconds);
        self.arm(client, self.now + hold + ROUND_TRIP, Pending::TryFailed(Fault::Refused, told));
    }

    fn try_failed(&mut self, client: usize, fault: Fault, retry_after: Option<u32>) {
        let it = &mut self.clients[client];
        let Some((_, _, _, deadline)) = it.call else { return };
        let again =
            if fault == Fault::Expired { None } else { it.tries.again(retry_after, &mut self.chance) };
        match again.map(|pause| self.now + pause) {
            None => self.give_up(client, fault),
            Some(when) => match deadline.filter(|&deadline| deadline <= when) {
                Some(deadline) => self.arm(client, deadline, Pending::GiveUp(fault)),
                None => self.arm(client, when, Pending::Retry),
            },
        }
    }

    fn give_up(&mut self, client: usize, fault: Fault) {
        if let Some((plan, began, ..)) = self.clients[client].call
            && fault != Fault::Expired
        {
            self.measure.call(self.clients[client].places[plan].lane, began, None);
        }
        self.step(client, Heard::Failed(fault));
    }

    /// Takes a try from everybody who knows of it. Whose it was.
    fn forget(&mut self, id: Id) -> Option<usize> {
        let request = self.requests.remove(&id)?;
        let client = request.client as usize;
        let it = &mut self.clients[client];
        if it.request == Some(id) {
            it.request = None;
        }
        if it.watch == Some(id) {
            it.watch = None;
        }
        if request.forwarded.is_some() {
            self.server.cancel(self.now, id);
        }
        Some(client)
    }

    fn timed_out(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        // A watch that is open has no deadline.
        if self.clients[request.client as usize].request != Some(id) {
            return;
        }
        self.guard.cancel(self.now, id);
        if let Some(client) = self.forget(id) {
            self.note(5, id, 0);
            self.try_failed(client, Fault::Broken, None);
        }
        self.hear();
    }

    fn reset(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        let latency = request.forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded));
        self.guard.finish(self.now, id, Ended { end: End::Ignored, bytes: 0, level: 0, latency });
        let was_watch = self.clients[request.client as usize].watch == Some(id);
        if let Some(client) = self.forget(id) {
            self.note(6, id, 0);
            let pending = if was_watch {
                Pending::WatchClosed
            } else {
                Pending::TryFailed(Fault::Refused, Some(RESET_RETRY_AFTER))
            };
            self.arm(client, self.now + ROUND_TRIP, pending);
        }
    }

    fn watch_over(&mut self, id: Id) {
        let Some(request) = self.requests.get(&id) else { return };
        let client = request.client as usize;
        if self.clients[client].watch == Some(id) {
            self.close_watch(client);
            self.step(client, Heard::Closed);
        }
    }

    /// The client closes its open watch, if it has one.
    fn close_watch(&mut self, client: usize) {
        let Some(id) = self.clients[client].watch.take() else { return };
        let forwarded = self.requests.get(&id).and_then(|request| request.forwarded);
        let latency = forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded));
        self.guard.finish(self.now, id, Ended { end: End::Success, bytes: 0, level: 0, latency });
        self.forget(id);
    }

    fn stop(&mut self, client: usize) {
        self.close(client);
        for id in [self.clients[client].request, self.clients[client].watch].into_iter().flatten() {
            self.guard.cancel(self.now, id);
            self.forget(id);
        }
        let it = &mut self.clients[client];
        it.stopped = true;
        it.epoch += 1;
        self.hear();
    }

    fn close(&mut self, client: usize) {
        let Self { clients, chance, marks, now, .. } = self;
        let it = &mut clients[client];
        if it.stopped {
            return;
        }
        it.behaviour.close(&mut Context { now: *now, chance, marks });
        if let Some((plan, began, ..)) = it.call {
            let lane = it.places[plan].lane;
            // A call that is still open is of no use once it is too late.
            if now.since(began) > super::measure::deadline(lane) {
                self.measure.call(lane, began, None);
            }
        }
        self.take_marks(client);
    }

    // --- the server

    /// Hears what the server says, and what follows from it.
    fn hear(&mut self) {
        loop {
            let mut outs = std::mem::take(&mut self.outs);
            self.server.take(&mut outs);
            if outs.is_empty() {
                self.outs = outs;
                return;
            }
            for out in outs.drain(..) {
                self.hear_one(out);
            }
            self.outs = outs;
        }
    }

    fn hear_one(&mut self, out: Out) {
        match out {
            Out::FirstByte(id, level) => {
                if self.requests.contains_key(&id) {
                    self.guard.first_byte(self.now, id, level);
                }
            }
            Out::BurstDone(id) => self.opened(id),
            Out::Answered { id, bytes, level } => {
                if !self.probing.answered(self.now, id) {
                    self.answered(id, bytes, level);
                }
            }
            Out::Refused { id, retry_after, warming, level } => {
                let end =
                    if warming { End::Warming { retry_after_seconds: retry_after } } else { End::Congested };
                self.failed(id, (end, level), Fault::Refused, Some(retry_after));
            }
            Out::Failed { id, failure } => {
                if self.probing.failed(id) {
                    return;
                }
                let (end, fault) = match failure {
                    Failure::Connect | Failure::Reset | Failure::Timeout => (End::Dropped, Fault::Broken),
                    Failure::Webhook => (End::Ignored, Fault::Broken),
                    Failure::Expired => (End::Ignored, Fault::Expired),
                };
                self.failed(id, (end, 0), fault, None);
            }
            Out::Up(up) => self.guard.upstream_up(self.now, up),
        }
    }

    fn latency(&self, request: &Request) -> Duration {
        request.forwarded.map_or(Duration::ZERO, |forwarded| self.now.since(forwarded))
    }

    fn opened(&mut self, id: Id) {
        let Some(&request) = self.requests.get(&id) else { return };
        let client = request.client as usize;
        self.guard.burst_done(self.now, id);
        self.note(7, id, 0);
        let life = self.chance.time(WATCH_MIN, WATCH_MAX);
        self.timeline.at(self.now + life, Event::WatchEnd(id));
        let boot = self.server.boot();
        let it = &mut self.clients[client];
        (it.request, it.watch) = (None, Some(id));
        if self.roles[it.role].plans[request.plan].list {
            it.since_boot = boot;
        }
        self.worked(client, &request);
        self.step(client, Heard::Opened);
    }

    fn answered(&mut self, id: Id, bytes: u64, level: u64) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        let latency = self.latency(&request);
        self.guard.finish(self.now, id, Ended { end: End::Success, bytes, level, latency });
        self.note(8, id, 0);
        let boot = self.server.boot();
        let it = &mut self.clients[client];
        it.request = None;
        if self.roles[it.role].plans[request.plan].list {
            it.since_boot = boot;
        }
        self.worked(client, &request);
        self.step(client, Heard::Answered);
    }

    fn worked(&mut self, client: usize, request: &Request) {
        let it = &self.clients[client];
        let lane = it.places[request.plan].lane;
        if let Some((_, began, ..)) = it.call {
            self.measure.call(lane, began, Some(self.now.since(began)));
        }
        self.measure.serve(self.now, lane, client, &request.truth);
    }

    fn failed(&mut self, id: Id, (end, level): (End, u64), fault: Fault, retry_after: Option<u32>) {
        let Some(request) = self.requests.remove(&id) else { return };
        let client = request.client as usize;
        let latency = self.latency(&request);
        self.guard.finish(self.now, id, Ended { end, bytes: 0, level, latency });
        self.note(9, id, 0);
        let it = &mut self.clients[client];
        let was_watch = it.watch == Some(id);
        let pending = if was_watch { Pending::WatchClosed } else { Pending::TryFailed(fault, retry_after) };
        (it.request, it.watch) = (None, None);
        self.arm(client, self.now + ROUND_TRIP, pending);
    }

    /// Roles of all clients, in their order.
    pub(super) fn roles_of_clients(&self) -> impl Iterator<Item = (usize, &Role, &Place)> {
        self.clients.iter().filter_map(|client| {
            let place = client.places.first()?;
            Some((client.role, &self.roles[client.role], place))
        })
    }
}

fn build(scenario: &Scenario) -> Build {
    let server = &scenario.server;
    let mut contents = super::costs::Contents::new();
    for (resource, objects) in &scenario.objects {
        contents.set(resource, objects.count.map(f64::from), objects.bytes.map(|size| size.0));
    }
    Build {
        cores: server.cores,
        memory_bytes: server.memory.0,
        apf: server.apf,
        streaming: server.streaming,
        handovers: server.handovers,
        lists_from_etcd: server.lists_from_etcd,
        contents,
    }
}
