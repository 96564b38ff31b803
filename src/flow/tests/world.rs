//! A small world in virtual time: one apiserver model and its clients around the production [`Scheduler`].
//!
//! The server is processor sharing: every request makes progress at `cores / running`, at most one core each, and
//! answers when its work is done; delays add time that is not work: to all, to what asks etcd, to one key (a
//! webhook), or to one lane (each lane is served by a priority level of its own). Clients are state machines on one event
//! queue. Nothing is random beyond the scheduler's seed, so a scenario is one trace.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::flow::{Probe, Probes, Settings, Snapshot, TICK};

/// What a client asks for, over and over.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) lane: Lane,
    pub(super) key: Key,
    /// Work in microseconds of one core.
    pub(super) work: u64,
    pub(super) bytes: u64,
    /// Pause between the start of one call and the next; zero: at once after the answer.
    pub(super) period: Duration,
    pub(super) identity: u64,
    pub(super) starts: Instant,
    pub(super) stops: Instant,
    /// Answers after which it asks no more.
    pub(super) times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client's next call.
    Call(usize),
    /// Time that is not work is over: the answer of this job.
    Answer(usize),
    Tick,
    Probe,
}

/// The probes: their work in microseconds, and whether they ask etcd.
const PROBES: [(f64, bool); 3] = [(200.0, false), (300.0, false), (300.0, true)];

struct Job {
    left: f64,
    /// The client, or which probe it is.
    client: Result<usize, usize>,
    ticket: Option<Ticket>,
    arrived: Instant,
    forwarded: Instant,
}

/// What became of one client's calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: Vec<Duration>,
    /// When its first call was answered.
    pub(super) first: Option<Instant>,
    pub(super) refused: Vec<(Instant, Refusal)>,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Instant,
    pub(super) cores: f64,
    /// Added to every answer, without any work.
    pub(super) delay: Duration,
    /// Added to what asks etcd.
    pub(super) etcd_delay: Duration,
    /// Added to one key.
    pub(super) key_delay: Option<(Key, Duration)>,
    /// Added to one lane.
    pub(super) lane_delay: Option<(Lane, Duration)>,
    clients: Vec<Client>,
    pub(super) tallies: Vec<Tally>,
    running: Vec<usize>,
    jobs: Vec<Job>,
    waiting: Vec<(Ticket, usize, Instant)>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
    probes: [Option<Instant>; 3],
    probed: [Probe; 3],
}

impl World {
    pub(super) fn new(settings: Settings, cores: f64) -> Self {
        let now = Instant::ORIGIN;
        let mut world = Self {
            scheduler: Scheduler::new(settings, 1, now),
            now,
            cores,
            delay: Duration::ZERO,
            etcd_delay: Duration::ZERO,
            key_delay: None,
            lane_delay: None,
            clients: Vec::new(),
            tallies: Vec::new(),
            running: Vec::new(),
            jobs: Vec::new(),
            waiting: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            probes: [None; 3],
            probed: [Probe::Silent; 3],
        };
        world.at(now + TICK, Event::Tick);
        world.at(now, Event::Probe);
        world
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    pub(super) fn add(&mut self, client: Client) -> usize {
        let index = self.clients.len();
        self.clients.push(client);
        self.tallies.push(Tally::default());
        self.at(client.starts, Event::Call(index));
        index
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot(self.now)
    }

    /// Runs until `end`.
    pub(super) fn run(&mut self, end: Instant) {
        while self.now < end {
            let event = self.events.peek().map_or(end, |Reverse((when, ..))| *when).min(end);
            let done = self.next_completion();
            let wake = self.scheduler.next_wake().unwrap_or(end);
            let next = event.min(wake).min(done.map_or(end, |(when, _)| when));
            self.progress(next);
            if let Some((when, job)) = done
                && when <= next
            {
                self.worked(job);
            } else if wake <= next {
                self.scheduler.wake(self.now);
            } else if let Some(Reverse((when, _, event))) = self.events.peek().copied()
                && when <= next
            {
                self.events.pop();
                self.happen(event);
            }
            self.take_verdicts();
        }
    }

    fn speed(&self) -> f64 {
        (self.cores / self.running.len().max(1) as f64).min(1.0)
    }

    fn next_completion(&self) -> Option<(Instant, usize)> {
        let job = *self
            .running
            .iter()
            .min_by(|&&one, &&two| self.jobs[one].left.total_cmp(&self.jobs[two].left))?;
        let micros = (self.jobs[job].left / self.speed()).ceil() as u64;
        Some((self.now + Duration::from_micros(micros), job))
    }

    fn progress(&mut self, until: Instant) {
        let work = until.since(self.now).as_micros() as f64 * self.speed();
        for &job in &self.running {
            self.jobs[job].left -= work;
        }
        self.now = self.now.max(until);
    }

    fn worked(&mut self, job: usize) {
        self.running.retain(|&running| running != job);
        self.at(self.now + self.delay_of(job), Event::Answer(job));
    }

    fn delay_of(&self, job: usize) -> Duration {
        let asks_etcd = match self.jobs[job].client {
            Ok(client) => self.clients[client].key.reach.is_etcd(),
            Err(probe) => PROBES[probe].1,
        };
        let mut delay = self.delay + if asks_etcd { self.etcd_delay } else { Duration::ZERO };
        if let Ok(client) = self.jobs[job].client {
            let client = &self.clients[client];
            delay += self
                .key_delay
                .map_or(Duration::ZERO, |(key, by)| if key == client.key { by } else { Duration::ZERO });
            delay += self
                .lane_delay
                .map_or(Duration::ZERO, |(lane, by)| if lane == client.lane { by } else { Duration::ZERO });
        }
        delay
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Call(client) => self.call(client),
            Event::Answer(job) => self.answer(job),
            Event::Tick => {
                let probed = std::mem::take(&mut self.probed);
                let [livez, cached, consistent] = std::array::from_fn(|probe| match self.probes[probe] {
                    Some(sent) => Probe::Waiting(self.now.since(sent)),
                    None => probed[probe],
                });
                self.scheduler.tick(self.now, &Probes { livez, cached, consistent, ready: Some(true) });
                self.at(self.now + TICK, Event::Tick);
            }
            Event::Probe => {
                for (probe, (work, _)) in PROBES.into_iter().enumerate() {
                    if self.probes[probe].is_none() {
                        self.probes[probe] = Some(self.now);
                        self.forward(Err(probe), None, self.now, work);
                    }
                }
                self.at(self.now + TICK, Event::Probe);
            }
        }
    }

    fn call(&mut self, index: usize) {
        let client = self.clients[index];
        if self.now >= client.stops || self.tallies[index].answered.len() >= client.times {
            return;
        }
        if !client.period.is_zero() {
            self.at(self.now + client.period, Event::Call(index));
        }
        match self.scheduler.arrive(self.now, &arrival(client.lane, client.identity, client.key)) {
            Decision::Admit(ticket) => self.forward(Ok(index), Some(ticket), self.now, client.work as f64),
            Decision::Wait(ticket) => self.waiting.push((ticket, index, self.now)),
            Decision::Shed(refusal) => self.refused(index, refusal),
        }
    }

    fn refused(&mut self, index: usize, refusal: Refusal) {
        self.tallies[index].refused.push((self.now, refusal));
        if self.clients[index].period.is_zero() {
            // client-go: exactly the whole seconds it was told.
            self.at(self.now + Duration::from_secs(refusal.retry_after_seconds.into()), Event::Call(index));
        }
    }

    fn forward(&mut self, client: Result<usize, usize>, ticket: Option<Ticket>, arrived: Instant, left: f64) {
        self.jobs.push(Job { left, client, ticket, arrived, forwarded: self.now });
        self.running.push(self.jobs.len() - 1);
    }

    fn answer(&mut self, job: usize) {
        let Job { client, ticket, arrived, forwarded, .. } = self.jobs[job];
        let client = match (client, ticket) {
            (Ok(client), Some(ticket)) => {
                let Client { lane, bytes, .. } = self.clients[client];
                let level = Level(lane.index() as u64 + 1);
                self.scheduler.first_byte(self.now, ticket, level);
                self.scheduler.finish(self.now, ticket, Outcome { end: End::Success, bytes, level });
                client
            }
            (Ok(_), None) => unreachable!("clients have tickets"),
            (Err(probe), _) => {
                self.probes[probe] = None;
                self.probed[probe] = Probe::Answered(self.now.since(forwarded));
                return;
            }
        };
        self.tallies[client].answered.push(self.now.since(arrived));
        self.tallies[client].first.get_or_insert(self.now);
        if self.clients[client].period.is_zero() {
            self.at(self.now, Event::Call(client));
        }
    }

    fn take_verdicts(&mut self) {
        for (ticket, verdict) in verdicts(&mut self.scheduler) {
            let position = self.waiting.iter().position(|(waiting, ..)| *waiting == ticket).unwrap();
            let (_, client, arrived) = self.waiting.swap_remove(position);
            match verdict {
                Verdict::Admit => {
                    self.forward(Ok(client), Some(ticket), arrived, self.clients[client].work as f64);
                }
                Verdict::Shed(refusal) => self.refused(client, refusal),
            }
        }
    }
}

/// The time below which `percent` of the calls were answered.
pub(super) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
