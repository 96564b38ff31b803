//! Who is new here, what does each of its clients cost, and what would it cost on every node?
//!
//! The outage that spillway exists for was a roll-out: harmless on the first nodes, deadly on all of them. Somebody who
//! was never seen before is a **newcomer**: ranked `unknown` within a small budget, as telemetry beyond it, and measured.
//! Places are what its clients run on: the node of a bound token, or else the address. What a place costs in its
//! first seconds (the first LISTs of an informer) is told apart from what it costs for ever after, because
//! the first is paid once and only hurts when many start together:
//!
//! ```text
//! seats on all nodes = steady cost of a place × nodes + places that start each second × cost of a start
//! ```
//!
//! A newcomer that stays in one place is not multiplied. Nothing is refused for being new: on a calm server a newcomer
//! is served like everybody else, and gives way a lane earlier. Who has been here for [`NewcomerSettings::known_after`]
//! without a warning is known, and so is everybody who comes while spillway itself is new (`learning`).
//!
//! Identities are verified ones. The program (the product of the user agent) is what a client says of itself: it tells
//! apart two agents that share an identity, at most [`PROGRAMS_MAX`] of them, and can only ever make somebody new.

mod kept;
mod measure;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub use self::kept::{Acquaintance, Acquaintances};
use self::measure::Measure;
use crate::policy::Lane;
use crate::units::{Instant, SeatSeconds, Seats};

/// Newcomers that are measured at a time; more are ranked as newcomers, without a figure of their own.
pub const NEWCOMERS_MAX: usize = 64;
/// Identities and programs that are known; the one that was away longest goes first. About 2 MB.
pub const KNOWN_MAX: usize = 16_384;
/// Programs of one identity that are told apart; all others are one.
pub const PROGRAMS_MAX: usize = 8;
/// What all programs beyond those are called.
const OTHERS: &str = "(others)";
/// Nodes that are counted.
const NODES_MAX: usize = 32_768;
/// A node that was not heard of for so long is gone: a kubelet renews its lease every ten seconds, and is noted each 5 minutes.
const NODE_AWAY: Duration = Duration::from_secs(900);
/// Who is known and was away for so long is new again.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);
/// A newcomer that was away for so long is not measured any more.
const GONE: Duration = Duration::from_secs(3_600);
/// A warning is repeated when its figure has doubled, and over when it has halved.
const AGAIN: f64 = 2.0;
/// A newcomer spreads when it is in at least so many places, and in a hundredth of the nodes.
const SPREADING_PLACES: usize = 3;

/// What is done about newcomers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewcomerSettings {
    /// Whether anybody is a newcomer.
    pub guard: bool,
    /// How long after the very first start everybody who comes is known at once. Default 1 h.
    pub learning: Duration,
    /// After how long without a warning a newcomer is known. Default 24 h.
    pub known_after: Duration,
    /// Seats that one newcomer takes on average, in all places together, before it is ranked as telemetry. Default 2.
    pub seats: u32,
    /// Share of L, in percent, from which on its projected cost is warned of. Default 25.
    pub warn_percent: u32,
}

impl Default for NewcomerSettings {
    fn default() -> Self {
        Self {
            guard: true,
            learning: Duration::from_secs(3_600),
            known_after: Duration::from_secs(86_400),
            seats: 2,
            warn_percent: 25,
        }
    }
}

/// Somebody, as it can be new or known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// The verified user name; of everybody with a node's credential: `system:nodes`.
    pub user: String,
    /// The program that it says it is; empty where that is not told apart.
    pub program: String,
}

/// How somebody is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As the rules say, but no higher than this lane, if there is one.
    Known(Option<Lane>),
    /// A newcomer, no higher than this lane.
    New(Lane),
}

/// What was noticed.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Somebody is new.
    Came(Who),
    /// What it would cost is too much.
    Warning(Who, Figures),
    /// The warning is over.
    Over(Who, Figures),
    /// It is known now.
    Settled(Who),
}

/// A newcomer in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Places that it was seen in.
    pub places: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Places that were added each second, over the last minute.
    pub growth: f64,
    /// It is on its way to every node.
    pub spreads: bool,
    /// Seats that one place takes once it has started; nothing when none has been watched for long enough.
    pub per_place: Option<f64>,
    /// Seat-seconds that a start costs.
    pub per_start: f64,
    /// Seats that it would take: on all nodes if it spreads, else where it is.
    pub projected: f64,
    /// Requests that it made.
    pub asked: u64,
}

/// A newcomer.
#[derive(Debug)]
struct Newcomer {
    since: Instant,
    seen: Instant,
    measure: Measure,
    /// Seat-seconds that are left of its budget.
    budget: f64,
    filled: Instant,
    /// The figure that was warned of.
    warned: Option<f64>,
    told: bool,
}

/// Somebody who is known.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Seconds on this process' clock; before its start they are negative.
    since: i64,
    seen: i64,
    lane: Option<Lane>,
}

/// Everybody who is new, and everybody who is not.
#[derive(Debug)]
pub struct Newcomers {
    settings: NewcomerSettings,
    /// When spillway first came here, in seconds on this process' clock.
    began: i64,
    known: HashMap<Who, Known>,
    new: HashMap<Who, Newcomer>,
    /// Programs of each identity.
    programs: HashMap<String, HashSet<String>>,
    nodes: HashMap<u64, Instant>,
    /// Requests of newcomers for whom there was no place to measure.
    crowd: u64,
    /// Something worth keeping over a restart happened.
    changed: bool,
}

fn seconds(now: Instant) -> i64 {
    i64::try_from(now.as_nanos() / 1_000_000_000).unwrap_or(i64::MAX)
}

impl Newcomers {
    /// A guard that knows nobody, and learns from now on.
    #[must_use]
    pub fn new(settings: NewcomerSettings, now: Instant) -> Self {
        Self {
            settings,
            began: seconds(now),
            known: HashMap::new(),
            new: HashMap::new(),
            programs: HashMap::new(),
            nodes: HashMap::new(),
            crowd: 0,
            changed: false,
        }
    }

    /// From now on it is done so.
    pub fn reconfigure(&mut self, settings: NewcomerSettings) {
        self.settings = settings;
    }

    /// Somebody asks for work worth `price`, from one of its places.
    pub fn meet(&mut self, now: Instant, who: &Who, place: u64, price: SeatSeconds) -> Standing {
        let who = self.told_apart(who);
        if let Some(known) = self.known.get_mut(&who) {
            known.seen = seconds(now);
            return Standing::Known(known.lane);
        }
        if !self.settings.guard || self.is_learning(now) {
            self.know(now, who, None);
            return Standing::Known(None);
        }
        if !self.new.contains_key(&who) && !self.make_room(now) {
            self.crowd += 1;
            return Standing::New(Lane::Telemetry);
        }
        let (seats, burst) = (f64::from(self.settings.seats), self.burst());
        let newcomer = self.new.entry(who).or_insert_with(|| Newcomer {
            since: now,
            seen: now,
            measure: Measure::new(now),
            budget: burst,
            filled: now,
            warned: None,
            told: false,
        });
        let price = price.as_micros() as f64 / 1e6;
        newcomer.seen = newcomer.seen.max(now);
        newcomer.measure.asked(now, place, price);
        let refill = now.since(newcomer.filled).as_secs_f64() * seats;
        newcomer.budget = (newcomer.budget + refill).min(burst);
        newcomer.filled = newcomer.filled.max(now);
        // A request dearer than the whole budget passes on a full one.
        if newcomer.budget < price.min(burst) {
            return Standing::New(Lane::Telemetry);
        }
        newcomer.budget -= price;
        Standing::New(Lane::Unknown)
    }

    /// A node was heard of. `node` is the key of its verified identity.
    pub fn heard(&mut self, now: Instant, node: u64) {
        if self.nodes.len() < NODES_MAX || self.nodes.contains_key(&node) {
            self.nodes.insert(node, now);
        }
    }

    /// Looks at everybody who is new. To be called every few seconds; `limit` is L.
    pub fn look(&mut self, now: Instant, limit: Seats) -> Vec<Finding> {
        self.nodes.retain(|_, heard| now.since(*heard) < NODE_AWAY);
        let (nodes, threshold) = (self.nodes.len(), self.threshold(limit));
        let mut found = Vec::new();
        let mut settled = Vec::new();
        for (who, newcomer) in &mut self.new {
            let figures = newcomer.figures(now, nodes);
            if !std::mem::replace(&mut newcomer.told, true) {
                found.push(Finding::Came(who.clone()));
            }
            match newcomer.warned {
                None if figures.projected >= threshold => {
                    newcomer.warned = Some(figures.projected);
                    found.push(Finding::Warning(who.clone(), figures));
                }
                Some(before) if figures.projected >= before * AGAIN => {
                    newcomer.warned = Some(figures.projected);
                    found.push(Finding::Warning(who.clone(), figures));
                }
                Some(_) if figures.projected < threshold / AGAIN => {
                    // Harmless time counts anew from here.
                    (newcomer.warned, newcomer.since) = (None, now);
                    found.push(Finding::Over(who.clone(), figures));
                }
                None if now.since(newcomer.since) >= self.settings.known_after => settled.push(who.clone()),
                _ => {}
            }
        }
        for who in settled {
            self.know(now, who.clone(), None);
            found.push(Finding::Settled(who));
        }
        self.new.retain(|_, newcomer| newcomer.warned.is_some() || now.since(newcomer.seen) < GONE);
        let oldest = seconds(now) - i64::try_from(FORGOTTEN.as_secs()).unwrap_or(i64::MAX);
        let before = self.known.len();
        self.known.retain(|_, known| known.seen >= oldest);
        self.changed |= self.known.len() != before;
        found.sort_by_key(|finding| finding.who().clone());
        found
    }

    /// Makes somebody known, no higher than `lane`. With an empty program: every program of this user that is new now.
    /// Says how many were approved.
    pub fn approve(&mut self, now: Instant, who: &Who, lane: Option<Lane>) -> usize {
        let is_meant =
            |one: &Who| one.user == who.user && (who.program.is_empty() || one.program == who.program);
        let meant: Vec<Who> =
            self.new.keys().chain(self.known.keys()).filter(|one| is_meant(one)).cloned().collect();
        for one in &meant {
            self.know(now, one.clone(), lane);
        }
        meant.len()
    }

    /// Somebody who is known is new again. Says how many.
    pub fn doubt(&mut self, who: &Who) -> usize {
        let before = self.known.len();
        self.known
            .retain(|one, _| one.user != who.user || !(who.program.is_empty() || one.program == who.program));
        self.changed |= self.known.len() != before;
        before - self.known.len()
    }

    /// Everybody who is new, the dearest first.
    #[must_use]
    pub fn newcomers(&self, now: Instant) -> Vec<(Who, Figures, Seen)> {
        let nodes = self.nodes.len();
        let mut all: Vec<_> = self
            .new
            .iter()
            .map(|(who, newcomer)| {
                let seen = Seen {
                    since: now.since(newcomer.since),
                    idle: now.since(newcomer.seen),
                    warned: newcomer.warned.is_some(),
                    over_budget: newcomer.budget < 1.0,
                };
                (who.clone(), newcomer.figures(now, nodes), seen)
            })
            .collect();
        all.sort_by(|one, other| {
            other.1.projected.total_cmp(&one.1.projected).then_with(|| one.0.cmp(&other.0))
        });
        all
    }

    /// Whether anybody is a newcomer.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.settings.guard
    }

    /// How many are known, new, and warned of; and requests of newcomers that could not be measured.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let warned = self.new.values().filter(|newcomer| newcomer.warned.is_some()).count();
        Counts {
            known: self.known.len(),
            new: self.new.len(),
            warned,
            nodes: self.nodes.len(),
            crowd: self.crowd,
        }
    }

    /// How long everybody who comes is still known at once.
    #[must_use]
    pub fn learns_for(&self, now: Instant) -> Duration {
        let over = self.began.saturating_add_unsigned(self.settings.learning.as_secs());
        Duration::from_secs(u64::try_from(over.saturating_sub(seconds(now))).unwrap_or(0))
    }

    /// Seats from which on a projection is warned of.
    #[must_use]
    pub fn threshold(&self, limit: Seats) -> f64 {
        f64::from(limit.0.max(1)) * f64::from(self.settings.warn_percent) / 100.0
    }

    fn is_learning(&self, now: Instant) -> bool {
        !self.learns_for(now).is_zero()
    }

    /// Half a minute of its seats: the first LISTs of one well-made informer.
    fn burst(&self) -> f64 {
        f64::from(self.settings.seats) * 30.0
    }

    fn know(&mut self, now: Instant, who: Who, lane: Option<Lane>) {
        self.new.remove(&who);
        if self.known.len() >= KNOWN_MAX
            && !self.known.contains_key(&who)
            && let Some(away) =
                self.known.iter().min_by_key(|(_, known)| known.seen).map(|(who, _)| who.clone())
        {
            self.known.remove(&away);
        }
        let seen = seconds(now);
        let since = self.known.get(&who).map_or(seen, |known| known.since);
        self.known.insert(who, Known { since, seen, lane });
        self.changed = true;
    }

    /// A place for one more newcomer: whoever has been away longest makes room, if that is a minute at least.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.new.len() < NEWCOMERS_MAX {
            return true;
        }
        let silent = self
            .new
            .iter()
            .filter(|(_, newcomer)| {
                newcomer.warned.is_none() && now.since(newcomer.seen) >= Duration::from_secs(60)
            })
            .min_by_key(|(_, newcomer)| newcomer.seen)
            .map(|(who, _)| who.clone());
        silent.is_some_and(|who| self.new.remove(&who).is_some())
    }

    /// The same, with a program that is one of the few that are told apart.
    fn told_apart(&mut self, who: &Who) -> Who {
        if who.program.is_empty() {
            return who.clone();
        }
        let room = self.programs.len() < KNOWN_MAX;
        match self.programs.get_mut(&who.user) {
            Some(programs) if programs.contains(&who.program) => return who.clone(),
            Some(programs) if programs.len() < PROGRAMS_MAX => {
                programs.insert(who.program.clone());
                return who.clone();
            }
            None if room => {
                self.programs.insert(who.user.clone(), HashSet::from([who.program.clone()]));
                return who.clone();
            }
            _ => {}
        }
        Who { user: who.user.clone(), program: OTHERS.to_owned() }
    }
}

impl Newcomer {
    fn figures(&self, now: Instant, nodes: usize) -> Figures {
        self.measure.figures(now, nodes)
    }
}

/// How long somebody has been new, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Since it came, or since its last warning was over.
    pub since: Duration,
    /// Since its last request.
    pub idle: Duration,
    /// It is being warned of.
    pub warned: bool,
    /// It has used up its budget and is ranked as telemetry.
    pub over_budget: bool,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Who is known.
    pub known: usize,
    /// Who is new.
    pub new: usize,
    /// Who of them is warned of.
    pub warned: usize,
    /// Nodes heard of.
    pub nodes: usize,
    /// Requests of newcomers beyond those that are measured.
    pub crowd: u64,
}

impl Finding {
    /// Whom it is about.
    #[must_use]
    pub const fn who(&self) -> &Who {
        match self {
            Self::Came(who) | Self::Warning(who, _) | Self::Over(who, _) | Self::Settled(who) => who,
        }
    }
}
