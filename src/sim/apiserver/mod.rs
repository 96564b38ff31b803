//! What would kube-apiserver do with these requests, and when?
//!
//! A pure state machine with pull-style outputs: [`Apiserver::submit`] and [`Apiserver::cancel`] go in,
//! [`Apiserver::advance`] lets time pass, and [`Out`]s come out. A request passes through APF (`apf`), its hand-overs
//! on a busy core, the core itself, webhooks, etcd (`etcd`) and the sending of its answer. Memory and restarts are in
//! `life`, the order of stages in `stages`.
//!
//! **Cores** are shared evenly, at most one for each request, with losses when far too many run. That alone flatters:
//! a Go program hands a request from goroutine to goroutine, and at each hand-over it waits behind everybody
//! who burns a time slice. So small requests also pay for their **hand-overs**, a price that grows with the number of long
//! computations for each core. The law was fitted to one real server of one core: with one 0.36 s LIST in flight a lease
//! takes 40 ms more, with two 0.13 s, with five 0.65 s, with twenty 7 s, and the shares of failed renewals come out
//! as measured. Switch it off (`handovers: false`) for ideal processor sharing.

mod apf;
mod etcd;
mod life;
mod stages;

use std::collections::BTreeMap;
use std::time::Duration;

use super::book::Book;
use super::chance::Chance;
use super::costs::Contents;
use super::guard::Id;
use super::plan::Plan;
use super::sharing::Sharing;
use super::timeline::Timeline;
use crate::units::Instant;

pub(super) use apf::LevelName;
use apf::{Apf, Seat};
use etcd::Etcd;

/// Names of the server's own work (fan-out to watchers): from the top, so that they never meet those of requests.
const OWN_IDS: Id = 1 << 31;

/// How the modelled apiserver is built.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) cores: f64,
    pub(super) memory_bytes: f64,
    /// API Priority and Fairness at its defaults; off: the old limit of 400 + 200 in flight.
    pub(super) apf: bool,
    /// LISTs stop when their client is gone (streamed encoding, 1.33 and later); off: they run to their end.
    pub(super) streaming: bool,
    /// Small requests wait at hand-overs on busy cores.
    pub(super) handovers: bool,
    /// LISTs without a resourceVersion go to etcd (1.30 and earlier).
    pub(super) lists_from_etcd: bool,
    pub(super) contents: Contents,
}

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Out {
    FirstByte(Id, u64),
    /// A watch has delivered its first burst and lives on.
    BurstDone(Id),
    Answered {
        id: Id,
        bytes: u64,
        level: u64,
    },
    Refused {
        id: Id,
        retry_after: u32,
        warming: bool,
        level: u64,
    },
    Failed {
        id: Id,
        failure: Failure,
    },
    /// The process went away, or accepts connections again.
    Up(bool),
}

/// Why there is no proper answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens.
    Connect,
    /// The process died with the request in it.
    Reset,
    /// The server gave up after its own 60 s.
    Timeout,
    /// A webhook did not answer in time.
    Webhook,
    /// The watch's resourceVersion is older than what the server knows.
    Expired,
}

/// A request that is handed to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) plan: &'a Plan,
    /// The user, hashed: APF's flow.
    pub(super) user: u64,
    pub(super) level: LevelName,
    /// Bytes a second that the client reads; `None`: at once.
    pub(super) reads: Option<f64>,
    /// Which life of the server the watch's resourceVersion is from.
    pub(super) since_boot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Queued,
    Handovers,
    Core,
    Webhook,
    Etcd,
    Sending,
    /// A watch after its first burst.
    Live,
}

#[derive(Clone, Debug)]
struct Served {
    stage: Stage,
    seat: Option<Seat>,
    work: super::costs::Work,
    list: bool,
    watch: bool,
    write: bool,
    /// Watches of whole kinds hear of every write.
    broad: bool,
    resource: std::sync::Arc<str>,
    reads: Option<f64>,
    /// Bytes of memory held now.
    holds: f64,
    /// Nobody waits for the answer any more.
    gone: bool,
    /// Cannot be served while the watch cache is cold.
    needs_cache: bool,
    /// A watch from before the process's last death.
    is_stale: bool,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    /// A queued request waited as long as APF allows.
    QueueEnd(Id),
    Deadline(Id),
    Webhook(Id),
    Etcd(Id),
    EtcdReply(Id),
    Sent(Id),
    DealSeats,
    AdaptRetryAfter,
    Boot,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    /// Accepts requests, but `/readyz` is not good yet and its flow schemas are not loaded.
    Starting,
    Ready,
}

/// What the server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Microseconds of cores used.
    pub(super) cpu: f64,
    /// Of them, for requests whose client was gone.
    pub(super) wasted: f64,
    /// Microseconds of cores that there were.
    pub(super) capacity: f64,
    /// The most memory in use, in bytes.
    pub(super) memory_peak: f64,
    /// Times the process died.
    pub(super) deaths: u32,
    /// LISTs that asked etcd for everything.
    pub(super) etcd_lists: u32,
}

/// The modelled apiserver with its etcd.
#[derive(Debug)]
pub(super) struct Apiserver {
    build: Build,
    pub(super) contents: Contents,
    cores: f64,
    core: Sharing,
    handovers: Sharing,
    in_core: u32,
    /// Those in the core that compute for longer than a time slice.
    long: u32,
    at: Instant,
    apf: Apf,
    in_flight: u32,
    etcd: Etcd,
    webhooks: BTreeMap<String, Duration>,
    memory: f64,
    phase: Phase,
    boot: u32,
    away_since: Instant,
    ready_caches: BTreeMap<String, Instant>,
    booted: Instant,
    watches: u32,
    watchers: BTreeMap<std::sync::Arc<str>, u32>,
    resources: BTreeMap<String, std::sync::Arc<str>>,
    due: Timeline<Due>,
    book: Book<Served>,
    next_own: Id,
    outs: Vec<Out>,
    chance: Chance,
    usage: Usage,
}

impl Apiserver {
    pub(super) fn new(build: Build, seed: u64) -> Self {
        let mut due = Timeline::new();
        if build.apf {
            due.at(Instant::ORIGIN + apf::DEAL, Due::DealSeats);
            due.at(Instant::ORIGIN + apf::ADAPT, Due::AdaptRetryAfter);
        }
        Self {
            contents: build.contents.clone(),
            cores: build.cores,
            build,
            core: Sharing::new(),
            handovers: Sharing::new(),
            in_core: 0,
            long: 0,
            at: Instant::ORIGIN,
            apf: Apf::new(),
            in_flight: 0,
            etcd: Etcd::default(),
            webhooks: BTreeMap::new(),
            memory: life::BASE_MEMORY,
            phase: Phase::Ready,
            boot: 1,
            away_since: Instant::ORIGIN,
            ready_caches: BTreeMap::new(),
            booted: Instant::ORIGIN,
            watches: 0,
            watchers: BTreeMap::new(),
            resources: BTreeMap::new(),
            due,
            book: Book::default(),
            next_own: OWN_IDS,
            outs: Vec::new(),
            chance: Chance::new(seed, 2),
            usage: Usage::default(),
        }
    }

    /// Which life of the process this is.
    pub(super) fn boot(&self) -> u32 {
        self.boot
    }

    /// What `/readyz` says; `None` while nobody answers.
    pub(super) fn is_ready(&self) -> Option<bool> {
        (self.phase != Phase::Away).then_some(self.phase == Phase::Ready)
    }

    pub(super) fn cores(&self) -> f64 {
        self.cores
    }

    /// Bytes that it may use before it is killed.
    pub(super) fn memory_bytes(&self) -> f64 {
        self.build.memory_bytes
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// When something happens here next, if nobody asks for anything.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.due.next(), self.core.next(), self.handovers.next()].into_iter().flatten().min()
    }

    /// Moves what was said to the end of `into`.
    pub(super) fn take(&mut self, into: &mut Vec<Out>) {
        into.append(&mut self.outs);
    }

    /// Lets time pass until `now` and does everything that is due.
    pub(super) fn advance(&mut self, now: Instant) {
        self.pass(now);
        loop {
            if let Some(id) = self.core.take(now) {
                self.computed(now, id);
            } else if let Some(id) = self.handovers.take(now) {
                self.handed_over(now, id);
            } else if let Some(due) = self.due.take(now) {
                self.happen(now, due);
            } else {
                return;
            }
            self.pace();
        }
    }

    fn happen(&mut self, now: Instant, due: Due) {
        match due {
            Due::QueueEnd(id) => self.queued_too_long(id),
            Due::Deadline(id) => self.deadline(now, id),
            Due::Webhook(id) => self.webhook_answered(now, id),
            Due::Etcd(id) => self.etcd_answered(now, id),
            Due::EtcdReply(id) => self.etcd_replied(now, id),
            Due::Sent(id) => self.sent(now, id),
            Due::DealSeats => {
                self.apf.deal();
                self.due.at(now + apf::DEAL, Due::DealSeats);
                for (_, level) in LevelName::ALL {
                    self.start_waiting(now, level);
                }
            }
            Due::AdaptRetryAfter => {
                self.apf.adapt();
                self.due.at(now + apf::ADAPT, Due::AdaptRetryAfter);
            }
            Due::Boot => self.accept_again(now),
            Due::Ready => self.phase = Phase::Ready,
        }
    }

    fn pass(&mut self, now: Instant) {
        let micros = now.since(self.at).as_nanos() as f64 / 1e3;
        self.at = self.at.max(now);
        self.usage.capacity += micros * self.cores;
        self.usage.cpu += micros * self.speed() * f64::from(self.in_core);
        self.core.advance(now);
        self.handovers.advance(now);
    }

    /// The cores change.
    pub(super) fn set_cores(&mut self, now: Instant, cores: f64) {
        self.pass(now);
        self.cores = cores;
        self.pace();
    }

    /// Every request to etcd takes this much longer from now on.
    pub(super) fn set_etcd_delay(&mut self, delay: Duration) {
        self.etcd.delay = delay;
    }

    /// etcd answers nobody until `until`.
    pub(super) fn stall_etcd(&mut self, until: Instant) {
        self.etcd.stall(until);
    }

    /// Writes of `resource` wait for a webhook; zero: no more.
    pub(super) fn set_webhook(&mut self, resource: &str, delay: Duration) {
        self.webhooks.insert(resource.to_owned(), delay);
    }
}
