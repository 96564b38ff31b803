//! How does a server stop without hurting its clients?
//!
//! First it says so (GOAWAY, `Connection: close`) and lets requests finish. Watches never finish by
//! themselves, and if all of them ended at once, every informer of the cluster would reconnect in the same
//! second; so each streaming answer asks [`Drain::deadline_for_stream`] for its own moment within the grace
//! time. The moments follow the golden-ratio sequence: evenly spread whatever their number, without
//! randomness. What is left when the grace time is over is cut off.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The part of the grace time over which streams end. The rest is for their clients' last reads and for
/// requests that still run.
const STREAMS_END_WITHIN: f64 = 0.8;

/// 2^32 divided by the golden ratio: added again and again (mod 2^32) it spreads points evenly for any count.
const GOLDEN_STEP: u32 = 0x9E37_79B9;

/// Says when to stop. Clones speak about the same server.
#[derive(Clone)]
pub struct Drain {
    state: Arc<watch::Sender<Option<Ending>>>,
    next_slot: Arc<AtomicU32>,
}

#[derive(Clone, Copy)]
struct Ending {
    begun: Instant,
    grace: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Nothing is ending yet.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(None)), next_slot: Arc::new(AtomicU32::new(0)) }
    }

    /// Begins: everything must have ended after `grace`. The first call counts.
    pub fn begin(&self, grace: Duration) {
        self.state.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(Ending { begun: Instant::now(), grace });
            }
            first
        });
    }

    /// Whether [`Drain::begin`] was called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Resolves when draining begins.
    pub fn begun(&self) -> Moment {
        self.moment(|ending| ending.begun)
    }

    /// Resolves when the grace time is over.
    pub fn expired(&self) -> Moment {
        self.moment(|ending| ending.begun + ending.grace)
    }

    /// Resolves when this one streaming answer should end: cleanly, as if the server had no more to say.
    /// Every call takes the next place in the sequence; call it once for each stream, when it starts.
    pub fn deadline_for_stream(&self) -> Moment {
        let slot = self.next_slot.fetch_add(GOLDEN_STEP, Ordering::Relaxed);
        let place = f64::from(slot) / f64::from(u32::MAX) * STREAMS_END_WITHIN;
        self.moment(move |ending| ending.begun + ending.grace.mul_f64(place))
    }

    fn moment(&self, when: impl Fn(Ending) -> Instant + Send + 'static) -> Moment {
        let mut state = self.state.subscribe();
        Moment(Box::pin(async move {
            match state.wait_for(Option::is_some).await.map(|ending| *ending) {
                Ok(Some(ending)) => sleep_until(when(ending)).await,
                // Nobody is left who could begin: never.
                _ => std::future::pending().await,
            }
        }))
    }
}

/// A moment of the drain to wait for; it never comes unless the server stops.
pub struct Moment(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Moment {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    const GRACE: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn streams_end_evenly_within_the_grace_time() {
        let drain = Drain::new();
        let start = Instant::now();
        let streams: Vec<_> = (0..80).map(|_| drain.deadline_for_stream()).collect();
        drain.begin(GRACE);
        let ends = join_all(streams.into_iter().map(|stream| async move {
            stream.await;
            start.elapsed()
        }));
        let mut ends = ends.await;
        ends.sort();
        for (second, end) in ends.iter().enumerate() {
            let ideal = u64::try_from(second).unwrap();
            assert!(end.abs_diff(Duration::from_secs(ideal)) < Duration::from_secs(4), "{second}: {end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_starts_during_the_drain_ends_with_it() {
        let drain = Drain::new();
        let start = Instant::now();
        drain.begin(GRACE);
        drain.begin(GRACE * 10);
        drain.deadline_for_stream().await;
        drain.expired().await;
        assert!(start.elapsed() >= GRACE && start.elapsed() < GRACE * 2, "the first call counts");
    }
}
