//! May this resource be read yet?
//!
//! After an apiserver's start, or when a watch cache fell behind, the cache of a resource is filled anew. Until then
//! kube-apiserver answers its reads with a 429 of its own, or lets them through to etcd, where a thousand LISTs at once
//! are what keeps the cache from ever being filled. So after such a 429 one request a second goes for that
//! resource, to see, until one succeeds; then the gate opens over five seconds, each twice as wide as the one before.
//! Other resources, writes and leases are not touched, nor are operators: they hear the apiserver's own answer.
//!
//! The table is fixed: a cluster has some hundred kinds, and few of them warm at a time. A gate without a place is open.

use std::time::Duration;

use crate::units::Instant;

/// Resources that may warm at a time.
const GATES: usize = 64;
/// How often one request is let through to see.
const LOOK: Duration = Duration::from_secs(1);
/// How long a gate takes to open.
const OPENING: Duration = Duration::from_secs(5);
/// A gate of which nothing was heard for this long is forgotten: nobody asks for the resource any more.
const STALE: Duration = Duration::from_secs(60);
/// Longest `Retry-After` taken over from the apiserver, which says 1 to 30.
const RETRY_MAX: u32 = 30;

#[derive(Clone, Copy, Debug)]
struct Gate {
    resource: u64,
    /// When the next request may pass.
    next: Instant,
    /// When the first one succeeded.
    opening: Option<Instant>,
    /// When the apiserver was last heard about it.
    heard: Instant,
    retry_after_seconds: u32,
}

/// The resources whose caches are being filled.
#[derive(Debug)]
pub(super) struct Warming(Vec<Gate>);

impl Warming {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(GATES))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a read of `resource` pass, or says when to come back.
    pub(super) fn pass(&mut self, resource: u64, now: Instant) -> Result<(), Duration> {
        let Some(gate) = self.0.iter_mut().find(|gate| gate.resource == resource) else { return Ok(()) };
        if now >= gate.next {
            let opened = gate.opening.map_or(0, |since| now.since(since).as_secs().min(OPENING.as_secs()));
            gate.next = now + LOOK / (1 << opened);
            return Ok(());
        }
        Err(Duration::from_secs(gate.retry_after_seconds.into()))
    }

    /// How long the apiserver said to wait for `resource`, where it is closed now.
    pub(super) fn waits(&self, resource: u64, now: Instant) -> Option<Duration> {
        let gate = self.0.iter().find(|gate| gate.resource == resource && now < gate.next)?;
        Some(Duration::from_secs(gate.retry_after_seconds.into()))
    }

    /// The apiserver said that the cache of `resource` is being filled.
    pub(super) fn closed(&mut self, resource: u64, now: Instant, retry_after_seconds: u32) {
        let retry_after_seconds = retry_after_seconds.clamp(1, RETRY_MAX);
        let gate = Gate { resource, next: now + LOOK, opening: None, heard: now, retry_after_seconds };
        if let Some(known) = self.0.iter_mut().find(|gate| gate.resource == resource) {
            // One that warms again still gives what it promised.
            *known = Gate { next: known.next.max(now), ..gate };
        } else if self.0.len() < GATES {
            self.0.push(gate);
        }
    }

    /// A read of `resource` succeeded.
    pub(super) fn succeeded(&mut self, resource: u64, now: Instant) {
        if let Some(gate) = self.0.iter_mut().find(|gate| gate.resource == resource) {
            gate.heard = now;
            gate.opening.get_or_insert(now);
        }
    }

    /// Forgets the gates that are open.
    pub(super) fn tick(&mut self, now: Instant) {
        self.0.retain(|gate| {
            let is_open = gate.opening.is_some_and(|since| now.since(since) >= OPENING);
            !is_open && now.since(gate.heard) < STALE
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    /// How many of the requests that come every 10 ms pass in the second from `millis` on.
    fn passed(warming: &mut Warming, millis: u64) -> usize {
        (0..100).filter(|step| warming.pass(1, at(millis + 10 * step)).is_ok()).count()
    }

    #[test]
    fn one_a_second_looks_until_one_succeeds_and_then_the_gate_opens_by_doubling() {
        let mut warming = Warming::new();
        warming.closed(1, at(0), 3);
        assert_eq!(passed(&mut warming, 0), 0);
        assert!((1..4).all(|second| passed(&mut warming, 1_000 * second) == 1));
        assert_eq!(warming.pass(2, at(10)), Ok(()), "another resource");
        assert_eq!(warming.pass(1, at(3_500)), Err(Duration::from_secs(3)), "what the apiserver said");
        warming.succeeded(1, at(4_000));
        let opened: Vec<_> = (0..5).map(|second| passed(&mut warming, 4_000 + 1_000 * second)).collect();
        assert!(opened.windows(2).all(|pair| pair[1] > pair[0]), "{opened:?}");
        warming.tick(at(9_000));
        assert!(warming.is_empty());
    }

    #[test]
    fn a_gate_closes_again_and_is_forgotten_when_nobody_asks() {
        let mut warming = Warming::new();
        warming.closed(1, at(0), 0);
        warming.succeeded(1, at(100));
        warming.closed(1, at(200), 99);
        assert_eq!(warming.pass(1, at(300)), Err(Duration::from_secs(RETRY_MAX.into())));
        warming.tick(at(59_000));
        assert!(!warming.is_empty());
        warming.tick(at(61_000));
        assert!(warming.is_empty());
    }

    #[test]
    fn the_table_is_fixed() {
        let mut warming = Warming::new();
        (0..1_000).for_each(|resource| warming.closed(resource, at(0), 1));
        assert_eq!(warming.0.len(), GATES);
        assert_eq!(warming.pass(999, at(1)), Ok(()));
    }
}
