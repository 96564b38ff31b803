//! On which threads do connections live?
//!
//! Sharded: N operating-system threads with a single-threaded runtime each; a connection stays on one,
//! together with the upstream connections its requests use, so a request crosses no thread. Shared: one
//! work-stealing runtime with N workers that looks like a single shard. Measured, sharding takes 18 % less
//! CPU per HTTP/2 request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::StartError;
use super::handler::{Handler, HandlerFactory};
use super::settings::HANDSHAKES_PER_SHARD;
use crate::io::Flusher;

/// How threads and runtimes relate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One single-threaded runtime a thread.
    #[default]
    Sharded,
    /// One work-stealing runtime for all threads.
    Shared,
}

/// The threads of a server.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// How threads and runtimes relate.
    pub mode: Mode,
    /// How many; at least one is started.
    pub count: usize,
    /// What they are called in `top -H`; the kernel cuts it at 15 bytes.
    pub name: &'static str,
}

/// What a handler is told about the shard it is made for.
#[derive(Clone)]
pub struct ShardContext {
    /// Position, from 0.
    pub index: usize,
    /// Whether its runtime has one thread or several.
    pub mode: Mode,
    /// Sends what connections of this runtime have written; upstream connections of the shard use it too.
    pub flusher: Arc<Flusher>,
}

/// One runtime that serves connections.
pub(super) struct Shard {
    pub(super) handle: Handle,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) flusher: Arc<Flusher>,
    /// Connections it was given and has not ended.
    pub(super) connections: AtomicUsize,
    /// Places for handshakes that compute.
    pub(super) handshakes: Semaphore,
}

/// All shards of a server.
pub(super) struct Shards {
    list: Arc<[Arc<Shard>]>,
    workers: Vec<Worker>,
}

impl Shards {
    pub(super) fn start(threads: Threads, factory: &HandlerFactory) -> Result<Self, StartError> {
        let failed = |source| StartError { name: threads.name, source };
        let count = match threads.mode {
            Mode::Sharded => threads.count.max(1),
            Mode::Shared => 1,
        };
        let (mut list, mut workers) = (Vec::new(), Vec::new());
        for index in 0..count {
            let runtime = runtime(threads).map_err(failed)?;
            let (shard, worker) = start_shard(runtime, index, threads, factory).map_err(failed)?;
            list.push(Arc::new(shard));
            workers.push(worker);
        }
        Ok(Self { list: list.into(), workers })
    }

    pub(super) fn list(&self) -> Arc<[Arc<Shard>]> {
        Arc::clone(&self.list)
    }

    pub(super) fn end(self) {
        self.workers.into_iter().for_each(Worker::end);
    }
}

/// The shard with the fewest connections. Few clients hold very unequal connections for hours, so a hash of
/// the address would pin two busy ones to one thread.
pub(super) fn least_loaded(shards: &[Arc<Shard>]) -> Option<&Arc<Shard>> {
    shards.iter().min_by_key(|shard| shard.connections.load(Ordering::Relaxed))
}

fn runtime(threads: Threads) -> io::Result<Runtime> {
    match threads.mode {
        Mode::Sharded => Builder::new_current_thread().enable_all().build(),
        Mode::Shared => Builder::new_multi_thread()
            .worker_threads(threads.count.max(1))
            .thread_name(threads.name)
            .enable_all()
            .build(),
    }
}

fn start_shard(
    runtime: Runtime,
    index: usize,
    threads: Threads,
    factory: &HandlerFactory,
) -> io::Result<(Shard, Worker)> {
    let handle = runtime.handle().clone();
    let (made, wait_made) = std::sync::mpsc::sync_channel(1);
    let factory = Arc::clone(factory);
    let worker = Worker::start(threads.name, runtime, move |stop| async move {
        let context = ShardContext { index, mode: threads.mode, flusher: Flusher::spawn() };
        let handler = factory(&context);
        // The receiver waits below; if it is gone, so is the server.
        let _ = made.send((handler, context.flusher));
        let _ = stop.await;
    })?;
    let (handler, flusher) =
        wait_made.recv().map_err(|_| io::Error::other("making the request handler panicked"))?;
    let (connections, handshakes) = (AtomicUsize::new(0), Semaphore::new(HANDSHAKES_PER_SHARD));
    Ok((Shard { handle, handler, flusher, connections, handshakes }, worker))
}

/// A thread with a runtime of its own. Dropped, it ends by itself; [`Worker::end`] waits for that.
pub(super) struct Worker {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Worker {
    /// Runs `life` on `runtime` in a new thread. The runtime and all its tasks end when `life` returns; it
    /// should when the receiver it is given resolves, which it does in any case once the worker is dropped.
    pub(super) fn start<F, L>(name: &str, runtime: Runtime, life: L) -> io::Result<Self>
    where
        L: FnOnce(oneshot::Receiver<()>) -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(life(stopped)))?;
        Ok(Self { thread, stop })
    }

    pub(super) fn end(self) {
        // If the thread is gone already there is nobody to tell; if it panicked, the panic hook has said so.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
