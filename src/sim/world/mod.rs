//! How do clients, algorithm and apiserver act on each other in time?
//!
//! One loop: the next thing that happens, wherever, then everything that follows from it at the same moment. A call of a
//! client becomes tries; a try reaches the algorithm, perhaps waits, is forwarded to the modelled apiserver or refused,
//! and what became of it goes back to the client's library and, in the end, to the client.

mod hearing;
mod tries;

use std::time::Duration;

use crate::flow::TICK;
use crate::sim::apiserver::{Apiserver, Build, Out, Usage};
use crate::sim::book::Book;
use crate::sim::cast::{Cast, Place, Role};
use crate::sim::chance::{Chance, mix};
use crate::sim::clients::{Behaviour, Fault, Heard, Mark, Tries};
use crate::sim::guard::{Answer, Guard, Id, Truth};
use crate::sim::measure::Measure;
use crate::sim::probing::Probing;
use crate::sim::scenario::Scenario;
use crate::sim::timeline::Timeline;
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
pub(in crate::sim) struct World<'a> {
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
    pub(in crate::sim) measure: Measure,
    pub(in crate::sim) usages: [Usage; 3],
    last_second: Usage,
    pub(in crate::sim) trace: u64,
    now: Instant,
    end: Instant,
    woken: Instant,
    marks: Vec<Mark>,
    outs: Vec<Out>,
    verdicts: Vec<(Id, Answer)>,
    resets: Vec<Id>,
}

impl<'a> World<'a> {
    pub(in crate::sim) fn new(scenario: &'a Scenario, cast: Cast, guard: Box<dyn Guard>, seed: u64) -> Self {
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
    pub(in crate::sim) fn run(&mut self) {
        self.guard.capacity(self.now, self.server.cores(), self.server.memory_bytes());
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
    pub(super) fn settle(&mut self) {
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

    pub(super) fn note(&mut self, what: u64, id: Id, more: u64) {
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
            self.guard.capacity(self.now, cores, self.server.memory_bytes());
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

    /// Roles of all clients, in their order.
    pub(in crate::sim) fn roles_of_clients(&self) -> impl Iterator<Item = (usize, &Role, &Place)> {
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
