//! When may a pool try to connect again after a failure?
//!
//! Doubling delays with jitter, short enough that an apiserver that restarts is found within a second, and long
//! enough that a dead one is not met by a connection attempt per request. Meanwhile requests fail at once.

use std::time::Duration;

use tokio::time::Instant;

use super::error::UpstreamError;

/// After the first failure: one retry storm of a restarting apiserver is over by then.
const FIRST: Duration = Duration::from_millis(50);
/// At most: an operator who repeats a command by hand does not notice it.
const LONGEST: Duration = Duration::from_secs(1);

/// The memory of failed attempts to connect.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
    last: Option<UpstreamError>,
}

impl Backoff {
    /// An attempt failed at `now`; `salt` differs between pools so that they do not return together.
    pub(super) fn failed(&mut self, now: Instant, salt: u64, error: UpstreamError) {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Between half and the whole of it.
        let per_mille = 500 + mix(salt.wrapping_add(u64::from(self.failures))) % 501;
        let delay = doubled.mul_f64(per_mille as f64 / 1000.0);
        self.until = Some(now + delay);
        self.last = Some(error);
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// How long not to try, at `now`.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Why the last attempt failed, while it is too early for another one.
    pub(super) fn refuses(&self, now: Instant) -> Option<&UpstreamError> {
        self.last.as_ref().filter(|_| !self.remaining(now).is_zero())
    }
}

/// splitmix64: spreads consecutive salts over all values.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::error::Kind;

    fn error() -> UpstreamError {
        UpstreamError::new(Kind::Unavailable, "cannot connect")
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_to_a_second_and_are_forgotten_after_success() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.refuses(now).is_none());
        backoff.failed(now, 1, error());
        assert!((25..=50).contains(&backoff.remaining(now).as_millis()));
        assert!(backoff.refuses(now).is_some());
        assert!(backoff.refuses(now + FIRST).is_none());
        for _ in 0..100 {
            backoff.failed(now, 1, error());
        }
        assert!((500..=1000).contains(&backoff.remaining(now).as_millis()));
        backoff.succeeded();
        assert!(backoff.refuses(now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn pools_do_not_return_together() {
        let now = Instant::now();
        let delays: std::collections::BTreeSet<_> = (0..16)
            .map(|salt| {
                let mut backoff = Backoff::default();
                backoff.failed(now, salt, error());
                backoff.remaining(now)
            })
            .collect();
        assert!(delays.len() > 8, "{delays:?}");
    }
}
