//! Does this client ask more often than its identity may?
//!
//! governor's GCRA does the arithmetic; this file gives it a clock that is *set* (the pure core reads none) and
//! a store that is bounded. The store has [`CLIENTS`] buckets. A client keeps its bucket while it matters, that is
//! until the bucket is full again and forgetting it changes nothing; when all buckets matter, newcomers share one
//! overflow bucket. So a flood of made-up identities can hurt newcomers, never the clients already known.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::clients::HashedMap;
use crate::policy::Rate;
use crate::units::Instant;

/// Clients whose rate is tracked one by one, a lane: 15,000 kubelets of one big cluster fit.
const CLIENTS: usize = 16_384;
/// Buckets looked at for reclaim when a newcomer finds the table full.
const RECLAIM_STEPS: usize = 16;
/// "Never used": governor then starts a full bucket.
const UNUSED: u64 = u64::MAX;

/// A clock that shows what it was told.
#[derive(Debug)]
pub(super) struct SetClock(AtomicU64);

impl SetClock {
    fn set(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

/// Theoretical arrival times, one a bucket. Atomics only because governor stores through a shared reference; the
/// scheduler itself is behind `&mut`.
#[derive(Clone, Debug)]
pub(super) struct Buckets(Arc<[AtomicU64]>);

impl StateStore for Buckets {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, bucket: &usize, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let state = &self.0[*bucket];
        let before = state.load(Ordering::Relaxed);
        let (verdict, after) = judge((before != UNUSED).then(|| Nanos::from(before)))?;
        state.store(after.as_u64(), Ordering::Relaxed);
        Ok(verdict)
    }
}

type Limiter = RateLimiter<usize, Buckets, SetClock, NoOpMiddleware<Nanos>>;

/// The rates of all clients of one lane.
#[derive(Debug)]
pub(super) struct Rates {
    limiter: Limiter,
    /// The limiter's store: governor hands it out only by consuming the limiter.
    buckets: Buckets,
    /// Client to bucket.
    known: HashedMap<u32>,
    /// The client of each bucket, for reclaim.
    owners: Vec<u64>,
    began: Instant,
    hand: usize,
    capacity: usize,
    /// Requests that were judged by the overflow bucket.
    overflowed: u64,
}

fn limiter(rate: Rate, buckets: Buckets, now: Instant) -> Limiter {
    let per_second = NonZeroU32::new(rate.per_second).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(per_second).allow_burst(burst);
    RateLimiter::new(quota, buckets, SetClock(AtomicU64::new(now.as_nanos())))
}

/// How long until the bucket has room for `cells` again.
fn check(limiter: &Limiter, bucket: usize, cells: NonZeroU32, now: Instant) -> Result<(), Duration> {
    limiter.clock().set(now);
    match limiter.check_key_n(&bucket, cells) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_until)) => Err(not_until.wait_time_from(Nanos::from(now.as_nanos()))),
        // More cells than the burst holds: it can never pass, so the longest wait is the honest one.
        Err(_) => Err(Duration::MAX),
    }
}

impl Rates {
    /// Rates that start full.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self::with_capacity(rate, now, CLIENTS)
    }

    fn with_capacity(rate: Rate, now: Instant, capacity: usize) -> Self {
        // One more than clients: the overflow bucket, the last.
        let buckets = Buckets((0..=capacity).map(|_| AtomicU64::new(UNUSED)).collect());
        Self {
            limiter: limiter(rate, buckets.clone(), now),
            buckets,
            known: HashMap::with_capacity_and_hasher(capacity, Default::default()),
            owners: Vec::with_capacity(capacity),
            began: now,
            hand: 0,
            capacity,
            overflowed: 0,
        }
    }

    /// Takes one request from the client's bucket, or says how long until there is room.
    pub(super) fn check(&mut self, client: u64, now: Instant) -> Result<(), Duration> {
        let bucket = self.bucket(client, now);
        self.overflowed += u64::from(bucket == self.capacity);
        check(&self.limiter, bucket, NonZeroU32::MIN, now)
    }

    /// As [`Rates::check`], and takes nothing. A client without a bucket of its own would begin with a full one.
    pub(super) fn peek(&self, client: u64, now: Instant) -> Result<(), Duration> {
        let Some(&bucket) = self.known.get(&client) else { return Ok(()) };
        let store = &self.buckets.0[bucket as usize];
        let before = store.load(Ordering::Relaxed);
        let answer = check(&self.limiter, bucket as usize, NonZeroU32::MIN, now);
        store.store(before, Ordering::Relaxed);
        answer
    }

    /// Requests so far of clients that found all buckets in use.
    pub(super) const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn bucket(&mut self, client: u64, now: Instant) -> usize {
        if let Some(&bucket) = self.known.get(&client) {
            return bucket as usize;
        }
        let bucket = if self.owners.len() < self.capacity {
            self.owners.push(client);
            self.owners.len() - 1
        } else if let Some(bucket) = self.reclaim(now) {
            self.owners[bucket] = client;
            bucket
        } else {
            return self.capacity;
        };
        self.known.insert(client, bucket as u32);
        bucket
    }

    /// A bucket that is full again: its client would be treated the same as one never seen.
    fn reclaim(&mut self, now: Instant) -> Option<usize> {
        // governor's times count from the limiter's start.
        let passed = now.as_nanos().saturating_sub(self.began.as_nanos());
        for _ in 0..RECLAIM_STEPS.min(self.capacity) {
            let bucket = self.hand;
            self.hand = (self.hand + 1) % self.capacity;
            let store = &self.buckets.0[bucket];
            if store.load(Ordering::Relaxed) <= passed {
                store.store(UNUSED, Ordering::Relaxed);
                self.known.remove(&self.owners[bucket]);
                return Some(bucket);
            }
        }
        None
    }
}

/// One rate for everybody: the break-glass lane's own.
#[derive(Debug)]
pub(super) struct SharedRate(Limiter);

impl SharedRate {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self(limiter(rate, Buckets(Arc::new([AtomicU64::new(UNUSED)])), now))
    }

    /// Takes `cells` at once, or says how long until there is room for them.
    pub(super) fn check(&self, cells: NonZeroU32, now: Instant) -> Result<(), Duration> {
        check(&self.0, 0, cells, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(1_000 + millis)
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_says_how_long() {
        let mut rates = Rates::new(RATE, at(0));
        assert!((0..5).all(|_| rates.check(1, at(0)).is_ok()));
        assert_eq!(rates.check(1, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rates.check(2, at(0)), Ok(()), "another client has a bucket of its own");
        assert_eq!(rates.check(1, at(100)), Ok(()));
        assert!(rates.check(1, at(100)).is_err());
    }

    #[test]
    fn a_flood_of_new_clients_never_evicts_an_active_one() {
        let mut rates = Rates::with_capacity(RATE, at(0), 4);
        for client in 0..4 {
            (0..5).for_each(|_| _ = rates.check(client, at(0)));
        }
        // All four buckets are in use: newcomers share the overflow bucket, which runs empty.
        let passed = (100..200).filter(|&client| rates.check(client, at(0)).is_ok()).count();
        assert_eq!(passed, 5);
        assert!(rates.check(0, at(0)).is_err(), "client 0 is still known, and still out of tokens");
        assert_eq!(rates.known.len(), 4);
        assert_eq!(rates.overflowed(), 100);
    }

    #[test]
    fn full_buckets_are_reclaimed() {
        let mut rates = Rates::with_capacity(RATE, at(0), 4);
        (0..4).for_each(|client| _ = rates.check(client, at(0)));
        for client in 100..200 {
            let now = at(1_000 * client);
            (0..5).for_each(|_| assert_eq!(rates.check(client, now), Ok(())));
            assert!(rates.check(client, now).is_err(), "a bucket of its own, with no more than its burst");
        }
        assert_eq!(rates.known.len(), 4);
    }

    #[test]
    fn a_shared_rate_charges_several_cells_at_once() {
        let rate = SharedRate::new(RATE, at(0));
        let four = NonZeroU32::new(4).unwrap();
        assert_eq!(rate.check(four, at(0)), Ok(()));
        assert_eq!(rate.check(four, at(0)), Err(Duration::from_millis(300)));
        assert_eq!(rate.check(NonZeroU32::new(6).unwrap(), at(0)), Err(Duration::MAX));
    }

    /// More would take longer than they prove: the table is full after 16,384. `SPILLWAY_INVENTED_NAMES` wishes for more.
    const INVENTED: u64 = 1_000_000;

    fn resident() -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("unknown").to_owned()
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "the figure is for people who ask for more names")]
    fn d8_a_million_invented_names_take_no_more_memory_and_no_known_clients_place() {
        let invented = std::env::var("SPILLWAY_INVENTED_NAMES").ok();
        let invented = invented.map_or(INVENTED, |number| number.parse().unwrap());
        let before = resident();
        let mut rates = Rates::new(RATE, at(0));
        let known = 1_000..1_500_u64;
        let mut passed = 0;
        for name in 0..invented {
            // A thousand new names a millisecond, and everybody known asks ten times a second, as it may.
            let now = at(name / 1_000);
            if name % 100_000 == 0 {
                for client in known.clone() {
                    assert_eq!(rates.check(client << 32, now), Ok(()), "a known client at {now:?}");
                }
            }
            passed += u64::from(rates.check(name, now).is_ok());
        }
        eprintln!("{invented} names: before {before}, after {}", resident());
        assert!(rates.known.len() <= CLIENTS && rates.owners.len() <= CLIENTS);
        assert!(rates.known.capacity() <= 4 * CLIENTS, "{}", rates.known.capacity());
        assert!(
            known.into_iter().all(|client| rates.known.contains_key(&(client << 32))),
            "a known client was forgotten"
        );
        // Who finds no bucket shares one with all others: most are refused, and all of that is counted.
        assert!(rates.overflowed() > invented / 2, "{}", rates.overflowed());
        assert!(passed < invented / 2, "{passed} of {invented} passed");
    }
}
