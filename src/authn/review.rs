//! What does kube-apiserver say about a token that cannot be verified here?
//!
//! Legacy and bootstrap tokens and those of webhooks are known to kube-apiserver alone. It is asked (`TokenReview`), so
//! that their bearers can have a rank; but asking is load on the server that is to be protected, and fails when it is in
//! trouble. So: one question a token at a time, eight in all, over a connection of their own, on the control thread; a
//! request waits for the answer a quarter of a second and then goes on as unverified. Of the eight places strangers may
//! take six, and fifty in a second: whoever sends invented tokens without end must not keep those waiting whose tokens were good a moment ago.
//!
//! Verdicts are kept for as long as kube-apiserver keeps its own: ten seconds a good one, one second a bad one, apart, so
//! that bad ones push no good one out. Being asked for extends neither. An error is no verdict; after one nothing is asked
//! for a second. Keys are HMACs of audiences and token under a secret of this process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::{Assert, Caller, Memo, TokenKey};
use crate::identity::Identity;

mod ask;

pub use self::ask::{ANSWER_WITHIN, Reviewer};

/// Questions that kube-apiserver has not answered yet.
pub const IN_FLIGHT_MAX: usize = 8;

/// Of them, about tokens that were not good lately.
const STRANGERS_MAX: usize = 6;

/// Questions about strangers in a second, and at once. Each is a request to the apiserver that nobody but its bearer asked
/// for: a loop with invented tokens must not double its own load there. After a restart, a thousand legacy tokens are
/// known again within twenty seconds.
const STRANGERS_PER_SECOND: u32 = 50;

/// Requests that wait for an answer, all questions together; more go on as unverified at once.
const WAITING_MAX: usize = 1_024;

/// Nothing is asked for this long after an answer that was none.
const REST: Duration = Duration::from_secs(1);

/// Good verdicts, and those whose time is over but which tell an acquaintance from a stranger.
const GOOD_MAX: Bounds = Bounds { entries: 4_096, bytes: 8 << 20 };

/// Bad verdicts. At six questions at a time of a millisecond each, a second brings 6,000.
const BAD_MAX: Bounds = Bounds { entries: 16_384, bytes: 2 << 20 };

/// How long a token whose verdict was good is an acquaintance.
const ACQUAINTED_FOR: Duration = Duration::from_secs(600);

/// Bytes of an entry beside the identity: two keys of 32, the tables' own, the caller.
const ENTRY_BYTES: usize = 320;

/// How tokens are reviewed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The user that asks.
    pub user: String,
    /// Audiences that a token must be for; none: kube-apiserver's own.
    pub audiences: Vec<String>,
    /// How long a good verdict is used.
    pub positive_ttl: Duration,
    /// How long a bad one is.
    pub negative_ttl: Duration,
    /// How long a request waits.
    pub wait: Duration,
}

/// How reviews went since the start.
#[derive(Debug, Default)]
pub struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
    failed: AtomicU64,
    full: AtomicU64,
    late: AtomicU64,
}

impl Tally {
    /// Each count with its word.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 5] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("good", count(&self.good)),
            ("bad", count(&self.bad)),
            ("failed", count(&self.failed)),
            ("full", count(&self.full)),
            ("late", count(&self.late)),
        ]
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Names a token for certain audiences without being one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

/// Everything that is known by asking, and what is being asked.
pub(super) struct Reviews {
    settings: Settings,
    secret: hmac::Key,
    /// The audiences as they go into each key.
    context: Vec<u8>,
    state: Mutex<State>,
    questions: mpsc::Sender<Question>,
    /// Until somebody answers them.
    asked: Mutex<Option<mpsc::Receiver<Question>>>,
    tally: Tally,
    /// The last question had no answer.
    failing: AtomicBool,
}

struct State {
    good: Verdicts<Arc<Caller>>,
    bad: Verdicts<()>,
    flights: HashMap<Key, Flight>,
    waiting: usize,
    resting: Option<Instant>,
    /// The time from which on all of [`STRANGERS_PER_SECOND`] may be asked about.
    strangers_from: Instant,
}

impl State {
    /// Whether one more stranger may be asked about in this second; counts it.
    fn takes_stranger(&mut self, now: Instant) -> bool {
        const EACH: Duration = Duration::from_nanos(1_000_000_000 / STRANGERS_PER_SECOND as u64);
        let next = self.strangers_from.max(now) + EACH;
        let takes = next <= now + Duration::from_secs(1);
        if takes {
            self.strangers_from = next;
        }
        takes
    }
}

/// A question on its way.
struct Flight {
    /// Dropped when it is answered.
    landed: watch::Sender<()>,
    /// Nobody waits for it longer than this: the second request behind a slow question must not wait as the first did.
    patience: Instant,
}

/// What the asking side is given. Without `Debug`: it holds a token.
struct Question {
    key: Key,
    token: String,
    /// Names it for [`super::Authenticator::demote`].
    token_key: TokenKey,
}

/// What is known about a token now.
pub(super) enum Known {
    Good(Arc<Caller>),
    /// Bad, or not to be found out now.
    Unverified,
    Pending(Pending),
}

/// A verdict to come.
pub struct Pending {
    reviews: Arc<Reviews>,
    key: Key,
    landed: watch::Receiver<()>,
    patience: Instant,
}

impl Pending {
    /// The caller, once kube-apiserver vouches for the token; `None` when it does not, or not in time.
    pub async fn verdict(self) -> Option<Arc<Caller>> {
        // An error says that the sender is gone, which is how a flight lands.
        let landed = timeout_at(self.patience, self.landed.clone().changed()).await;
        if landed.is_err() {
            add(&self.reviews.tally.late);
        }
        let state = self.reviews.state.lock();
        let found = state.good.find(&self.key, Instant::now()).cloned();
        // Dropping this takes the lock again.
        drop(state);
        found
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.reviews.state.lock().waiting -= 1;
    }
}

impl Reviews {
    pub(super) fn new(settings: Settings) -> Result<Arc<Self>, &'static str> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| "the system gave no random bytes")?;
        let mut context = Vec::new();
        for audience in &settings.audiences {
            // With its length, so that two lists never make the same bytes.
            context.extend_from_slice(&(audience.len() as u64).to_be_bytes());
            context.extend_from_slice(audience.as_bytes());
        }
        context.extend_from_slice(&u64::MAX.to_be_bytes());
        let (questions, asked) = mpsc::channel(IN_FLIGHT_MAX);
        let state = State {
            good: Verdicts::new(GOOD_MAX, settings.positive_ttl, ACQUAINTED_FOR),
            bad: Verdicts::new(BAD_MAX, settings.negative_ttl, settings.negative_ttl),
            flights: HashMap::new(),
            waiting: 0,
            resting: None,
            strangers_from: Instant::now(),
        };
        Ok(Arc::new(Self {
            settings,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            context,
            state: Mutex::new(state),
            questions,
            asked: Mutex::new(Some(asked)),
            tally: Tally::default(),
            failing: AtomicBool::new(false),
        }))
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    fn key(&self, token: &str) -> Key {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&self.context);
        context.update(token.as_bytes());
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Key(key)
    }

    /// What is known about `token`; asks when nothing is and somebody can be asked.
    pub(super) fn look(self: &Arc<Self>, token: &str, token_key: TokenKey) -> Known {
        let (key, now) = (self.key(token), Instant::now());
        let mut state = self.state.lock();
        if let Some(caller) = state.good.find(&key, now) {
            return Known::Good(Arc::clone(caller));
        }
        if state.bad.find(&key, now).is_some() {
            return Known::Unverified;
        }
        let flight = match state.flights.get(&key) {
            Some(flight) => Some((flight.landed.subscribe(), flight.patience)),
            None => self.ask(&mut state, Question { key, token: token.to_owned(), token_key }, now),
        };
        match flight {
            Some((landed, patience)) if now < patience && state.waiting < WAITING_MAX => {
                state.waiting += 1;
                Known::Pending(Pending { reviews: Arc::clone(self), key, landed, patience })
            }
            _ => {
                add(&self.tally.full);
                Known::Unverified
            }
        }
    }

    /// Puts a question on its way, if there is room for it.
    fn ask(
        &self,
        state: &mut State,
        question: Question,
        now: Instant,
    ) -> Option<(watch::Receiver<()>, Instant)> {
        let key = question.key;
        let known = state.good.is_remembered(&key, now);
        let most = if known { IN_FLIGHT_MAX } else { STRANGERS_MAX };
        let rests = state.resting.is_some_and(|until| now < until);
        if state.flights.len() >= most || rests || !known && !state.takes_stranger(now) {
            return None;
        }
        // As many places as flights; it fails when nobody answers questions any more.
        self.questions.try_send(question).ok()?;
        let (landed, waits) = watch::channel(());
        let patience = now + self.settings.wait;
        state.flights.insert(key, Flight { landed, patience });
        Some((waits, patience))
    }

    /// The question is answered, or given up.
    fn land(&self, question: &Question, verdict: Verdict) {
        let now = Instant::now();
        let mut state = self.state.lock();
        match verdict {
            Verdict::Good(identity) => {
                add(&self.tally.good);
                let bytes = size(&identity);
                let caller = Caller {
                    identity: Arc::new(identity),
                    via: Assert::Bearer,
                    not_after: None,
                    token_key: Some(question.token_key.clone()),
                    memo: Memo::default(),
                };
                state.good.keep(question.key, Arc::new(caller), bytes, now);
            }
            Verdict::Bad => {
                add(&self.tally.bad);
                state.good.forget(&question.key);
                state.bad.keep(question.key, (), ENTRY_BYTES, now);
            }
            Verdict::None => {
                add(&self.tally.failed);
                state.resting = Some(now + REST);
            }
        }
        // Dropped after the verdict is in its table: whoever waits looks there.
        drop(state.flights.remove(&question.key));
    }
}

/// What became of a question.
enum Verdict {
    Good(Identity),
    Bad,
    /// No answer, or one that says nothing about the token.
    None,
}

fn size(identity: &Identity) -> usize {
    let extras = identity.extra.iter();
    let extras =
        extras.map(|(key, values)| key.len() + values.iter().map(|value| value.len() + 24).sum::<usize>());
    let groups = identity.groups.iter().map(|group| group.len() + 24).sum::<usize>();
    ENTRY_BYTES + identity.user.len() + groups + extras.sum::<usize>()
}

/// How much a table may hold.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    entries: usize,
    bytes: usize,
}

/// Verdicts in the order in which they were given, which is the order in which they end.
struct Verdicts<T> {
    bounds: Bounds,
    used_for: Duration,
    remembered_for: Duration,
    entries: HashMap<Key, Entry<T>>,
    /// Key and number of each entry; a number that is no longer its key's stands for nothing.
    order: VecDeque<(Key, u64)>,
    next: u64,
    bytes: usize,
}

struct Entry<T> {
    verdict: T,
    given: Instant,
    bytes: usize,
    number: u64,
}

impl<T> Verdicts<T> {
    fn new(bounds: Bounds, used_for: Duration, remembered_for: Duration) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { bounds, used_for, remembered_for, entries, order, next: 0, bytes: 0 }
    }

    fn find(&self, key: &Key, now: Instant) -> Option<&T> {
        let entry = self.entries.get(key)?;
        (now < entry.given + self.used_for).then_some(&entry.verdict)
    }

    /// Whether there was a verdict of this kind lately, in use or not.
    fn is_remembered(&self, key: &Key, now: Instant) -> bool {
        self.entries.get(key).is_some_and(|entry| now < entry.given + self.remembered_for)
    }

    fn keep(&mut self, key: Key, verdict: T, bytes: usize, given: Instant) {
        if self.used_for.is_zero() || bytes > self.bounds.bytes {
            return;
        }
        self.forget(&key);
        self.shrink(bytes, given);
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.order.push_back((key, number));
        self.entries.insert(key, Entry { verdict, given, bytes, number });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }

    /// Drops what is over, and the oldest until `more` bytes and one entry fit.
    fn shrink(&mut self, more: usize, now: Instant) {
        while let Some(&(key, number)) = self.order.front() {
            let entry = self.entries.get(&key).filter(|entry| entry.number == number);
            let goes = entry.is_none_or(|entry| {
                now >= entry.given + self.remembered_for
                    || self.entries.len() >= self.bounds.entries
                    || self.bytes + more > self.bounds.bytes
            });
            // What stands for nothing also counts: the order is bounded with the entries.
            if !goes && self.order.len() < 2 * self.bounds.entries {
                return;
            }
            if entry.is_some() {
                self.forget(&key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
