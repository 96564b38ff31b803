//! Who waits how long on the modelled machine?
//!
//! The asynchronous shell around [`Processor`]: a request awaits [`Capacity::run`], one driver task sleeps until the
//! next computed end. A caller that goes away drops its future, and the job with it, as closing a stream cancels
//! the context of a real request. Beside it stand the server's two in-flight limits (`--max-requests-inflight=400`,
//! `--max-mutating-requests-inflight=200`, the defaults): the model has no API Priority and Fairness; the tests on
//! a real kube-apiserver do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::processor::{JobId, Machine, Processor, Usage, Work};
use crate::clock;

/// kube-apiserver's default `--max-requests-inflight`.
const READS_MAX: usize = 400;
/// kube-apiserver's default `--max-mutating-requests-inflight`.
const WRITES_MAX: usize = 200;

/// The machine that all requests of one model share.
#[derive(Debug)]
pub(crate) struct Capacity {
    state: Mutex<State>,
    /// Something started or went away: the driver's next wake-up may have moved.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    processor: Processor,
    /// Bounded by the in-flight limits, the probes and the open watches.
    waiting: HashMap<JobId, oneshot::Sender<()>>,
}

impl Capacity {
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        let processor = Processor::new(machine, clock::now());
        Arc::new(Self {
            state: Mutex::new(State { processor, waiting: HashMap::new() }),
            changed: Notify::new(),
        })
    }

    /// Returns when the modelled machine would have done `work` beside everything else it does.
    pub(crate) async fn run(&self, work: Work) {
        let (done, ended) = oneshot::channel();
        let id = {
            let mut state = self.state.lock();
            let now = clock::now();
            state.wake_finished(now);
            let id = state.processor.start(now, work);
            state.waiting.insert(id, done);
            id
        };
        let _job = Job { capacity: self, id };
        self.changed.notify_one();
        // An error means that the driver is gone, and with it the server: the caller's future ends next.
        let _ = ended.await;
    }

    /// Ends jobs when their time has come. Runs as long as the server does.
    pub(crate) async fn drive(&self) {
        loop {
            let next = {
                let mut state = self.state.lock();
                state.wake_finished(clock::now());
                state.processor.next_finish()
            };
            let changed = self.changed.notified();
            match next {
                Some(end) => {
                    let wait = end.since(clock::now());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Use of the machine since its start.
    pub(crate) fn usage(&self) -> Usage {
        self.state.lock().processor.usage(clock::now())
    }

    /// Jobs on the machine at this moment.
    pub(crate) fn running(&self) -> usize {
        self.state.lock().processor.running()
    }
}

impl State {
    fn wake_finished(&mut self, now: crate::units::Instant) {
        for id in self.processor.finished(now) {
            if let Some(done) = self.waiting.remove(&id) {
                // The caller may have gone in the same instant.
                let _ = done.send(());
            }
        }
    }
}

/// A job's place on the machine; given back on drop.
struct Job<'a> {
    capacity: &'a Capacity,
    id: JobId,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        let mut state = self.capacity.state.lock();
        if state.waiting.remove(&self.id).is_some() {
            state.processor.cancel(clock::now(), self.id);
            self.capacity.changed.notify_one();
        }
    }
}

/// The two counts of requests in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

/// Which of the two limits a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl InFlight {
    /// A place, or `None` when the server is full and the answer is 429.
    pub(crate) fn enter(&self, access: Access) -> Option<Place<'_>> {
        let (count, max) = match access {
            Access::Read => (&self.reads, READS_MAX),
            Access::Write => (&self.writes, WRITES_MAX),
        };
        let place = Place { count };
        // The place is taken first and given back by its guard when there was none: two atomics, no loop.
        if count.fetch_add(1, Ordering::Relaxed) < max { Some(place) } else { None }
    }
}

/// A request in flight; leaves on drop.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    count: &'a AtomicUsize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    const MACHINE: Machine = Machine { cores: 1, memory_bytes: 1 << 30 };

    fn work(millis: u64) -> Work {
        Work { cpu: Duration::from_millis(millis), memory_bytes: 0 }
    }

    #[tokio::test]
    async fn a_dropped_request_leaves_the_machine() {
        let capacity = Capacity::new(MACHINE);
        let mut hour = Box::pin(capacity.run(work(3_600_000)));
        assert!(hour.as_mut().now_or_never().is_none());
        assert_eq!(capacity.running(), 1);
        drop(hour);
        assert_eq!(capacity.running(), 0);
    }

    #[tokio::test]
    async fn the_driver_ends_jobs_shortest_first() {
        let capacity = Capacity::new(MACHINE);
        let driver = Arc::clone(&capacity);
        let driver = tokio::spawn(async move { driver.drive().await });
        tokio::select! {
            biased;
            () = capacity.run(work(3_600_000)) => panic!("an hour of work ended before a millisecond of it"),
            () = capacity.run(work(1)) => {}
        }
        driver.abort();
    }

    #[test]
    fn reads_are_refused_at_their_limit_and_writes_are_not() {
        let in_flight = InFlight::default();
        let places: Vec<_> = (0..READS_MAX).map(|_| in_flight.enter(Access::Read)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(in_flight.enter(Access::Read).is_none());
        assert!(in_flight.enter(Access::Write).is_some());
        drop(places);
        assert!(in_flight.enter(Access::Read).is_some());
    }
}
