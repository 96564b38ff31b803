//! Has this caller been here before? The shell of [`crate::flow::newcomers`].
//!
//! Only the lanes below the operators are looked at, and only verified callers: nodes, people and the control plane
//! are never new, and who is not verified is ranked `unknown` anyway. Who is known costs a glance at a few words beside
//! the client; the lock is taken for newcomers, and once in ten minutes for everybody else.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::exchange::Exchange;
use super::turn::Entrance;
use super::{Path, Understood};
use crate::flow::newcomers::{NewcomerSettings, Newcomers as Guard, Standing, Who};
use crate::identity::Identity;
use crate::policy::Lane;
use crate::units::Instant;

/// The group of every kubelet.
const NODES: &str = "system:nodes";
/// Bytes of a program's name that are looked at.
const PROGRAM_BYTES_MAX: usize = 64;
/// Marks are asked anew so often, so that the guard knows who is still here.
const MARK_SECONDS: u64 = 600;
/// Nodes are noted so often.
const NODE_SECONDS: u64 = 300;
/// Programs of one client that are remembered as known.
const MARKS: usize = 8;
/// Lanes that a mark can name, after "as the rules say".
const LANES: [Lane; 3] = [Lane::Workload, Lane::Unknown, Lane::Telemetry];

/// What a client's programs were found to be. Each word holds a hash and, in the lowest two bits, the lane.
#[derive(Debug, Default)]
pub(super) struct Marks {
    words: [AtomicU64; MARKS],
    next: AtomicUsize,
}

impl Marks {
    fn find(&self, hash: u64) -> Option<Option<Lane>> {
        let word =
            self.words.iter().map(|word| word.load(Ordering::Relaxed)).find(|word| word & !3 == hash)?;
        Some((word & 3).checked_sub(1).map(|lane| LANES[lane as usize]))
    }

    fn put(&self, hash: u64, lane: Option<Lane>) {
        let lane = LANES.iter().position(|one| Some(*one) == lane).map_or(0, |at| at as u64 + 1);
        let next = self.next.fetch_add(1, Ordering::Relaxed) % MARKS;
        self.words[next].store(hash | lane, Ordering::Relaxed);
    }
}

/// The guard of one process.
#[derive(Debug)]
pub struct Newcomers {
    guard: Mutex<Guard>,
    /// Changes whenever marks that were made before may be wrong.
    generation: AtomicU64,
}

impl Newcomers {
    /// A guard that is new itself.
    #[must_use]
    pub fn new(settings: NewcomerSettings, now: Instant) -> Arc<Self> {
        Arc::new(Self { guard: Mutex::new(Guard::new(settings, now)), generation: AtomicU64::new(0) })
    }

    /// Looks at the guard, or tells it something. Marks are worthless afterwards if `act` made anybody less known.
    pub fn with<T>(&self, act: impl FnOnce(&mut Guard) -> T) -> T {
        act(&mut self.guard.lock())
    }

    /// What was known before is asked anew.
    pub fn doubt_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn mark(&self, program: &str, now: Instant, seconds: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        program.hash(&mut hasher);
        self.generation.load(Ordering::Relaxed).hash(&mut hasher);
        (now.as_nanos() / 1_000_000_000 / seconds).hash(&mut hasher);
        // Never zero, which is an empty word.
        hasher.finish() & !3 | 4
    }
}

/// What a user agent says that it is: `otelcol` of `otelcol/0.99 (linux/amd64)`. Only what can be shown.
fn program_of(user_agent: Option<&str>) -> &str {
    let text = user_agent.unwrap_or_default();
    let end = text.find(['/', ' ']).unwrap_or(text.len()).min(PROGRAM_BYTES_MAX);
    match text.get(..end) {
        Some(program) if program.bytes().all(|byte| byte.is_ascii_graphic()) => program,
        _ => "",
    }
}

/// A place that has no node's name.
fn place_of(peer: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    peer.to_canonical().hash(&mut hasher);
    hasher.finish()
}

/// As whom somebody is new or known.
fn who<'a>(identity: &'a Identity, user_agent: Option<&'a str>) -> (&'a str, &'a str) {
    if identity.groups.iter().any(|group| group == NODES) {
        return (NODES, program_of(user_agent));
    }
    match identity.service_account() {
        Some(_) => (&identity.user, program_of(user_agent)),
        None => (&identity.user, ""),
    }
}

impl Path {
    /// Ranks a newcomer lower, and measures it.
    pub(super) fn introduce(&self, exchange: &mut Exchange, understood: &mut Understood) {
        let Entrance::Lanes(gate) = &self.entrance else { return };
        let (Some(caller), Some(client)) = (&exchange.caller, &exchange.client) else { return };
        let identity = &caller.identity;
        if !identity.credential.is_verified() || understood.arrival.exempt {
            return;
        }
        let (newcomers, now) = (&self.shared.newcomers, exchange.arrived);
        if understood.class.lane < Lane::Workload {
            self.note_node(exchange);
            return;
        }
        let (user, program) = who(identity, exchange.user_agent());
        if user == NODES {
            self.note_node(exchange);
        }
        let mark = newcomers.mark(program, now, MARK_SECONDS);
        let standing = client.acquainted.find(mark).map_or_else(
            || {
                let price = gate.price(&understood.arrival.key);
                let place = if identity.node().is_some() || user == NODES {
                    understood.class.flow.0
                } else {
                    place_of(exchange.connection.peer.ip())
                };
                let who = Who { user: user.to_owned(), program: program.to_owned() };
                let standing = newcomers.with(|guard| guard.meet(now, &who, place, price));
                if let Standing::Known(lane) = standing {
                    client.acquainted.put(mark, lane);
                }
                standing
            },
            Standing::Known,
        );
        let (Standing::Known(Some(lane)) | Standing::New(lane)) = standing else { return };
        if lane > understood.class.lane {
            understood.class.lane = lane;
            understood.arrival.lane = lane;
            exchange.lane = lane;
        }
    }

    /// How many nodes there are is counted by who speaks for one.
    fn note_node(&self, exchange: &Exchange) {
        let (Some(caller), Some(client)) = (&exchange.caller, &exchange.client) else { return };
        let (newcomers, now) = (&self.shared.newcomers, exchange.arrived);
        let mark = newcomers.mark(NODES, now, NODE_SECONDS);
        if client.acquainted.find(mark).is_some() {
            return;
        }
        client.acquainted.put(mark, None);
        if caller.identity.groups.iter().any(|group| group == NODES) {
            let mut hasher = DefaultHasher::new();
            caller.identity.user.hash(&mut hasher);
            newcomers.with(|guard| guard.heard(now, hasher.finish()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_product_of_the_user_agent_and_can_be_shown() {
        assert_eq!(program_of(Some("otelcol/0.99 (linux/amd64)")), "otelcol");
        assert_eq!(program_of(Some("Go-http-client")), "Go-http-client");
        assert_eq!(program_of(Some("a b")), "a");
        assert_eq!(program_of(Some("\u{1b}[2J/1")), "");
        assert_eq!(program_of(Some(&"x".repeat(500))).len(), PROGRAM_BYTES_MAX);
        assert_eq!(program_of(Some(&"ü".repeat(500))), "");
        assert_eq!(program_of(None), "");
    }

    #[test]
    fn marks_hold_a_lane_and_end_with_their_time_and_generation() {
        let newcomers = Newcomers::new(NewcomerSettings::default(), Instant::ORIGIN);
        let marks = Marks::default();
        let mark = newcomers.mark("otelcol", Instant::ORIGIN, MARK_SECONDS);
        assert_eq!(marks.find(mark), None);
        marks.put(mark, Some(Lane::Telemetry));
        assert_eq!(marks.find(mark), Some(Some(Lane::Telemetry)));
        assert_eq!(marks.find(newcomers.mark("other", Instant::ORIGIN, MARK_SECONDS)), None);
        let later = Instant::ORIGIN + std::time::Duration::from_secs(MARK_SECONDS);
        assert_eq!(marks.find(newcomers.mark("otelcol", later, MARK_SECONDS)), None);
        newcomers.doubt_all();
        assert_eq!(marks.find(newcomers.mark("otelcol", Instant::ORIGIN, MARK_SECONDS)), None);
        for number in 0..100_u64 {
            marks.put(number << 8 | 4, None);
        }
        assert_eq!(marks.find(mark), None, "the oldest goes");
    }
}
