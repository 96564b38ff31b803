//! When do deferred writes leave?
//!
//! A connection that was told to flush puts itself on a dirty list. The first entry wakes the list's task, which
//! the scheduler places behind everything that is ready now; when it runs, the other tasks of this tick have
//! written what they had, and each dirty connection is drained once. On a shard (current-thread runtime) there is
//! one list. On a multi-thread runtime there are several, because one task would encrypt for all workers; and
//! the task yields once before it drains, because that scheduler runs a task woken by another one immediately.
//!
//! A task that computes for long delays the sends of its whole thread: keep such work off shard threads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::buffers::Buffers;
use super::deferred::WRITE_BUFFER_BYTES;
use super::read_ahead::READ_BUFFER_BYTES;

/// Buffers a list keeps while idle: 64 x 32 KiB for writing and the same for reading is 4 MiB a shard, and more
/// than 64 connections are rarely dirty in one tick.
const BUFFERS_KEPT_MAX: usize = 64;

/// Something that can be drained by a flusher's task.
pub(super) trait Dirty: Send + Sync {
    /// Sends what is buffered as far as the peer takes it now.
    fn drain(self: Arc<Self>);
}

/// The dirty lists of one runtime and the tasks that drain them.
pub struct Flusher {
    lists: Box<[List]>,
    next_list: AtomicUsize,
}

/// One dirty list with its buffers. A connection stays with the list it was given at birth.
struct List {
    queue: Mutex<Queue>,
    write_buffers: Buffers,
    read_buffers: Arc<Buffers>,
    drains: AtomicU64,
    bytes: AtomicU64,
}

struct Queue {
    dirty: Vec<Arc<dyn Dirty>>,
    task: Option<Waker>,
    /// The task is gone (the runtime shuts down): nothing may be queued, or it would never be freed.
    stopped: bool,
}

impl Flusher {
    /// Starts the flusher of the current tokio runtime. Its tasks end with the runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn spawn() -> Arc<Self> {
        let runtime = Handle::current();
        let many = runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let count = if many { runtime.metrics().num_workers() } else { 1 };
        let flusher = Arc::new(Self {
            lists: (0..count).map(|_| List::new()).collect(),
            next_list: AtomicUsize::new(0),
        });
        for index in 0..count {
            let task = Task { flusher: Arc::clone(&flusher), index, yields: many, yielded: false };
            // Unconstrained: the work of one poll is bounded by the connections that are dirty, and a budget
            // that runs out inside a drain would look like a peer that stopped reading.
            runtime.spawn(tokio::task::unconstrained(task));
        }
        flusher
    }

    /// Chooses the list for a new connection, in turn.
    pub(super) fn assign(&self) -> usize {
        if self.lists.len() == 1 {
            return 0;
        }
        self.next_list.fetch_add(1, Ordering::Relaxed) % self.lists.len()
    }

    /// Puts a connection on the dirty list. The caller makes sure that it is not on it already.
    pub(super) fn push(&self, list: usize, connection: Arc<dyn Dirty>) {
        let mut queue = self.lists[list].queue.lock();
        if queue.stopped {
            return;
        }
        queue.dirty.push(connection);
        let woken = queue.task.take();
        drop(queue);
        if let Some(task) = woken {
            task.wake();
        }
    }

    pub(super) fn write_buffers(&self, list: usize) -> &Buffers {
        &self.lists[list].write_buffers
    }

    /// A pool of read buffers of this runtime, for a new [`super::ReadAhead`].
    #[must_use]
    pub fn read_buffers(&self) -> Arc<Buffers> {
        Arc::clone(&self.lists[self.assign()].read_buffers)
    }

    pub(super) fn count_drain(&self, list: usize, bytes: usize) {
        let list = &self.lists[list];
        list.drains.fetch_add(1, Ordering::Relaxed);
        list.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How often connections were drained, and the bytes that left that way. Their quotient falls when requests
    /// are spread over more connections than they need.
    #[must_use]
    pub fn drains_and_bytes(&self) -> (u64, u64) {
        self.lists.iter().fold((0, 0), |(drains, bytes), list| {
            (drains + list.drains.load(Ordering::Relaxed), bytes + list.bytes.load(Ordering::Relaxed))
        })
    }
}

impl std::fmt::Debug for Flusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flusher").field("lists", &self.lists.len()).finish_non_exhaustive()
    }
}

impl List {
    fn new() -> Self {
        Self {
            queue: Mutex::new(Queue { dirty: Vec::new(), task: None, stopped: false }),
            write_buffers: Buffers::new(WRITE_BUFFER_BYTES, BUFFERS_KEPT_MAX),
            read_buffers: Arc::new(Buffers::new(READ_BUFFER_BYTES, BUFFERS_KEPT_MAX)),
            drains: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

/// The task behind one list.
struct Task {
    flusher: Arc<Flusher>,
    index: usize,
    yields: bool,
    yielded: bool,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let list = &this.flusher.lists[this.index];
        let mut queue = list.queue.lock();
        if queue.dirty.is_empty() {
            this.yielded = false;
            queue.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if this.yields && !this.yielded {
            drop(queue);
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut batch = std::mem::take(&mut queue.dirty);
        drop(queue);
        for connection in batch.drain(..) {
            connection.drain();
        }
        this.yielded = false;
        let mut queue = list.queue.lock();
        if queue.dirty.is_empty() {
            // Keep the allocation for the next tick.
            queue.dirty = batch;
            queue.task = Some(cx.waker().clone());
        } else {
            // Others became dirty while we drained; let the tasks that are ready run first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut queue = self.flusher.lists[self.index].queue.lock();
        queue.stopped = true;
        queue.task = None;
        let orphans = std::mem::take(&mut queue.dirty);
        drop(queue);
        drop(orphans);
    }
}
