//! How do many small writes to a connection become one record and one send?
//!
//! [`Deferred`] copies writes into a pooled buffer and answers a flush with "done" at once, having put itself on
//! the runtime's dirty list; the [`Flusher`] drains it at the end of the scheduler's tick. When the peer stops
//! reading, the connection becomes *blocked* and flushes report real back-pressure again, so that flow control
//! stays honest and memory stays bounded by one buffer. A failed drain is reported by the next write or flush.
//!
//! Every write to the inner stream registers one waker that belongs to the connection and not to a task: it puts
//! the connection back on the dirty list. So buffered bytes leave even when the owner never polls again, and it
//! does not matter whether a task or the flusher met the full socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flusher::{Dirty, Flusher};

/// The most a connection buffers for writing: two full TLS records. 64 KiB saves another tenth of the CPU on
/// megabyte answers, where this proxy is far ahead anyway, and doubles what 10,000 stalled readers can pin.
pub const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// A connection whose flushes are carried out by the runtime's [`Flusher`].
pub struct Deferred<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    flusher: Arc<Flusher>,
    list: usize,
    /// On the dirty list. Outside the lock, because the waker is also called while the lock is held.
    queued: AtomicBool,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// `None` once the owner is gone and nothing more can leave.
    io: Option<S>,
    /// Bytes from `sent` on have not been accepted by `io`. Without capacity while empty.
    buffer: Vec<u8>,
    sent: usize,
    /// `io` has accepted bytes that it has not flushed.
    unflushed: bool,
    /// The last attempt to drain found the peer not taking more.
    blocked: bool,
    /// The owner was dropped: one more attempt, then close.
    orphaned: bool,
    failure: Failure,
    /// Whom to wake when the connection is writable again or has failed.
    task: Option<Waker>,
}

enum Failure {
    None,
    /// Not yet reported.
    Fresh(io::Error),
    Reported(io::ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Deferred<S> {
    /// Wraps `io`; `flusher` must belong to the runtime that polls it.
    pub fn new(io: S, flusher: &Arc<Flusher>) -> Self {
        let state = State {
            io: Some(io),
            buffer: Vec::new(),
            sent: 0,
            unflushed: false,
            blocked: false,
            orphaned: false,
            failure: Failure::None,
            task: None,
        };
        let list = flusher.assign();
        let queued = AtomicBool::new(false);
        Self {
            shared: Arc::new(Shared { flusher: Arc::clone(flusher), list, queued, state: Mutex::new(state) }),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Shared<S> {
    fn enqueue(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.flusher.push(self.list, Arc::clone(self) as Arc<dyn Dirty>);
        }
    }

    /// Drains with the connection's own waker.
    fn poll_drain(self: &Arc<Self>, state: &mut State<S>) -> Poll<io::Result<()>> {
        let buffered = state.buffer.len() - state.sent;
        let waker = Waker::from(Arc::clone(self));
        let polled = state.poll_drain(&mut Context::from_waker(&waker));
        state.blocked = polled.is_pending();
        let left = buffered - (state.buffer.len() - state.sent);
        if left > 0 {
            self.flusher.count_drain(self.list, left);
        }
        if state.buffer.len() == state.sent {
            state.sent = 0;
            let empty = std::mem::take(&mut state.buffer);
            if empty.capacity() > 0 {
                self.flusher.write_buffers(self.list).give(empty);
            }
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> State<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = self.io.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while self.sent < self.buffer.len() {
            let accepted = ready!(Pin::new(&mut *io).poll_write(cx, &self.buffer[self.sent..]))?;
            if accepted == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += accepted;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn is_dirty(&self) -> bool {
        self.unflushed || self.sent < self.buffer.len()
    }

    fn room(&self) -> usize {
        WRITE_BUFFER_BYTES - (self.buffer.len() - self.sent)
    }

    fn remember(&mut self, waker: &Waker) {
        match &mut self.task {
            Some(task) => task.clone_from(waker),
            None => self.task = Some(waker.clone()),
        }
    }

    /// The error of an earlier drain, in full the first time and by its kind from then on.
    fn check(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.failure, Failure::None) {
            Failure::None => Ok(()),
            Failure::Fresh(error) => {
                self.failure = Failure::Reported(error.kind());
                Err(error)
            }
            Failure::Reported(kind) => {
                self.failure = Failure::Reported(kind);
                Err(kind.into())
            }
        }
    }

    /// Records that the write side is broken; what is buffered can never leave.
    fn fail(&mut self, failure: Failure) {
        self.failure = failure;
        self.buffer = Vec::new();
        self.sent = 0;
        self.unflushed = false;
        self.blocked = false;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Dirty for Shared<S> {
    fn drain(self: Arc<Self>) {
        // Before the attempt: a wake-up during it must queue the connection again.
        self.queued.store(false, Ordering::Release);
        let mut state = self.state.lock();
        if state.io.is_none() || !matches!(state.failure, Failure::None) {
            return;
        }
        let was_blocked = state.blocked;
        let polled = self.poll_drain(&mut state);
        let wake = match polled {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => was_blocked,
            Poll::Ready(Err(error)) => {
                state.fail(Failure::Fresh(error));
                true
            }
        };
        let task = if wake { state.task.take() } else { None };
        // After the owner is gone nobody would end a connection that never becomes writable again.
        let closed = if state.orphaned { state.io.take() } else { None };
        drop(state);
        drop(closed);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wake for Shared<S> {
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Deferred<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state.lock();
        match state.io.as_mut() {
            // A broken write side does not stop reading: the peer may have explained itself before it closed.
            Some(io) => Pin::new(io).poll_read(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Deferred<S> {
    /// Makes room and appends what fits of `slices`; Pending when the peer takes nothing and the buffer is full.
    fn poll_append(&self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if state.room() == 0 {
            if let Poll::Ready(Err(error)) = shared.poll_drain(&mut state) {
                state.fail(Failure::Reported(error.kind()));
                return Poll::Ready(Err(error));
            }
            if state.room() == 0 {
                state.remember(cx.waker());
                return Poll::Pending;
            }
        }
        if state.buffer.capacity() == 0 {
            state.buffer = shared.flusher.write_buffers(shared.list).take_empty();
        }
        let mut accepted = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(state.room())];
            if part.is_empty() {
                continue;
            }
            if state.buffer.len() + part.len() > WRITE_BUFFER_BYTES {
                // Only after a partial drain: move the rest to the front instead of growing.
                let sent = std::mem::take(&mut state.sent);
                state.buffer.drain(..sent);
            }
            state.buffer.extend_from_slice(part);
            accepted += part.len();
        }
        Poll::Ready(Ok(accepted))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Deferred<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_append(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_append(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        if !state.is_dirty() {
            return Poll::Ready(Ok(()));
        }
        state.remember(cx.waker());
        if !state.blocked {
            drop(state);
            shared.enqueue();
            return Poll::Ready(Ok(()));
        }
        let polled = shared.poll_drain(&mut state);
        if let Poll::Ready(Err(error)) = &polled {
            state.fail(Failure::Reported(error.kind()));
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        if state.is_dirty() {
            state.remember(cx.waker());
            if let Err(error) = ready!(shared.poll_drain(&mut state)) {
                state.fail(Failure::Reported(error.kind()));
                return Poll::Ready(Err(error));
            }
        }
        match state.io.as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Deferred<S> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.orphaned = true;
        state.task = None;
        if state.is_dirty() && !state.blocked {
            // hyper drops a connection right after its last flush: those bytes still leave.
            drop(state);
            self.shared.enqueue();
        } else {
            let closed = state.io.take();
            drop(state);
            drop(closed);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> std::fmt::Debug for Deferred<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").field("list", &self.shared.list).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Weak;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::yield_now;

    use super::*;

    /// What the inner stream does when it is asked to write, flush or shut down; then it takes everything.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(usize),
        /// Not now, but the waker is called before the answer: what tokio's budget does.
        PendingAndWoken,
        /// Not now; the waker is called by another task.
        PendingUntilLater,
        Fail,
    }

    #[derive(Debug, Default)]
    struct Log {
        received: Vec<u8>,
        writes: usize,
        flushed: usize,
        failed: bool,
        shut_down: bool,
    }

    struct Scripted {
        steps: VecDeque<Step>,
        log: Arc<Mutex<Log>>,
    }

    impl Scripted {
        fn new(steps: impl IntoIterator<Item = Step>) -> (Self, Arc<Mutex<Log>>) {
            let log = Arc::new(Mutex::new(Log::default()));
            (Self { steps: steps.into_iter().collect(), log: Arc::clone(&log) }, log)
        }

        /// How many bytes may go now.
        fn step(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
            match self.steps.pop_front().unwrap_or(Step::Take(usize::MAX)) {
                Step::Take(count) => Poll::Ready(Ok(count.max(1))),
                Step::PendingAndWoken => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Step::PendingUntilLater => {
                    let waker = cx.waker().clone();
                    tokio::spawn(async move {
                        yield_now().await;
                        waker.wake();
                    });
                    Poll::Pending
                }
                Step::Fail => {
                    self.log.lock().failed = true;
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
            }
        }
    }

    impl AsyncRead for Scripted {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(b"r");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Scripted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let count = ready!(self.step(cx))?.min(buf.len());
            let mut log = self.log.lock();
            assert!(!log.shut_down && !log.failed, "written after the end");
            log.received.extend_from_slice(&buf[..count]);
            log.writes += 1;
            Poll::Ready(Ok(count))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.step(cx))?;
            let mut log = self.log.lock();
            log.flushed = log.received.len();
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.step(cx))?;
            self.log.lock().shut_down = true;
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Write(usize),
        WriteVectored(Vec<usize>),
        Flush,
        Yield,
    }

    fn steps(may_fail: bool) -> impl Strategy<Value = Vec<Step>> {
        let fail = u32::from(may_fail);
        let step = prop_oneof![
            6 => (1_usize..20_000).prop_map(Step::Take),
            6 => (1_usize..4).prop_map(Step::Take),
            3 => Just(Step::PendingAndWoken),
            3 => Just(Step::PendingUntilLater),
            fail => Just(Step::Fail),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            3 => (1_usize..50).prop_map(Action::Write),
            2 => (1_usize..50_000).prop_map(Action::Write),
            2 => proptest::collection::vec(0_usize..20_000, 1..4).prop_map(Action::WriteVectored),
            4 => Just(Action::Flush),
            2 => Just(Action::Yield),
        ];
        proptest::collection::vec(action, 1..40)
    }

    /// Bytes whose position can be told from their value.
    fn pattern(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|position| (position % 251) as u8).collect()
    }

    /// Performs the actions; the number of bytes that were accepted, and the first error.
    async fn perform(wire: &mut Deferred<Scripted>, actions: &[Action]) -> (usize, io::Result<()>) {
        let mut accepted = 0;
        for action in actions {
            let result = match action {
                Action::Write(len) => {
                    wire.write(&pattern(accepted, *len)).await.map(|count| accepted += count)
                }
                Action::WriteVectored(lens) => {
                    let all = pattern(accepted, lens.iter().sum());
                    let mut rest = &all[..];
                    let mut slices = Vec::new();
                    for len in lens {
                        let (slice, tail) = rest.split_at(*len);
                        slices.push(IoSlice::new(slice));
                        rest = tail;
                    }
                    wire.write_vectored(&slices).await.map(|count| accepted += count)
                }
                Action::Flush => wire.flush().await,
                Action::Yield => {
                    yield_now().await;
                    Ok(())
                }
            };
            if result.is_err() {
                return (accepted, result);
            }
        }
        (accepted, Ok(()))
    }

    fn on_a_shard<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    fn on_a_shared_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Lets other tasks run until `done`; a run queue this small cannot need more turns than that.
    async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if done() {
                return;
            }
            yield_now().await;
        }
        panic!("never happened: {what}");
    }

    async fn everything_arrives(script: Vec<Step>, actions: Vec<Action>) {
        let (inner, log) = Scripted::new(script);
        let mut wire = Deferred::new(inner, &Flusher::spawn());
        let (accepted, result) = perform(&mut wire, &actions).await;
        result.expect("nothing fails in this script");
        wire.flush().await.expect("nothing fails in this script");
        eventually("all bytes leave after a flush", || log.lock().flushed == accepted).await;
        wire.shutdown().await.expect("nothing fails in this script");
        assert_eq!(log.lock().received, pattern(0, accepted));
        assert!(log.lock().shut_down);
    }

    async fn a_failure_is_reported(script: Vec<Step>, actions: Vec<Action>) {
        let (inner, log) = Scripted::new(script);
        let mut wire = Deferred::new(inner, &Flusher::spawn());
        let (accepted, performed) = perform(&mut wire, &actions).await;
        let ended = wire.shutdown().await;
        let log = log.lock();
        assert_eq!(log.failed, performed.is_err() || ended.is_err(), "errors are neither lost nor invented");
        assert_eq!(log.received, pattern(0, log.received.len()), "what arrived is in order");
        assert!(log.received.len() <= accepted);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn everything_written_arrives_in_order(script in steps(false), actions in actions()) {
            on_a_shard(everything_arrives(script, actions));
        }

        #[test]
        fn a_failed_drain_is_reported_by_a_later_call(script in steps(true), actions in actions()) {
            on_a_shard(a_failure_is_reported(script, actions));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_same_holds_when_threads_share_the_runtime(script in steps(true), actions in actions()) {
            let harmless = script.iter().copied().filter(|step| !matches!(step, Step::Fail)).collect();
            on_a_shared_runtime(everything_arrives(harmless, actions.clone()));
            on_a_shared_runtime(a_failure_is_reported(script, actions));
        }
    }

    #[test]
    fn short_writes_pauses_and_ends_are_survived_at_every_byte() {
        const LEN: usize = 48;
        on_a_shard(async {
            for at in 1..LEN {
                for pause in [Step::PendingAndWoken, Step::PendingUntilLater] {
                    let script = vec![Step::Take(at), pause, Step::Take(1), pause];
                    everything_arrives(script, vec![Action::Write(LEN), Action::Flush, Action::Write(at)])
                        .await;
                }
                a_failure_is_reported(vec![Step::Take(at), Step::Fail], vec![Action::Write(LEN)]).await;
                a_failure_is_reported(
                    vec![Step::Take(at), Step::Fail],
                    vec![Action::Write(LEN), Action::Flush, Action::Yield, Action::Yield, Action::Write(at)],
                )
                .await;
                // Shut down with `at` bytes that nobody flushed.
                let (inner, log) = Scripted::new([Step::PendingUntilLater]);
                let mut wire = Deferred::new(inner, &Flusher::spawn());
                wire.write_all(&pattern(0, at)).await.expect("buffered");
                wire.shutdown().await.expect("nothing fails");
                assert_eq!(log.lock().received, pattern(0, at));
            }
        });
    }

    #[tokio::test]
    async fn the_writes_of_one_tick_leave_as_one_write_per_connection() {
        let flusher = Flusher::spawn();
        let (inner, log) = Scripted::new([]);
        let (other_inner, other_log) = Scripted::new([]);
        let mut wire = Deferred::new(inner, &flusher);
        let mut other = Deferred::new(other_inner, &flusher);
        // The flusher may only run when this task yields.
        for index in 0..20 {
            wire.write_all(&pattern(index * 100, 100)).await.expect("buffered");
            wire.flush().await.expect("deferred");
            other.write_all(b"other").await.expect("buffered");
            other.flush().await.expect("deferred");
        }
        assert_eq!(log.lock().writes, 0);
        eventually("the flusher has run", || log.lock().flushed == 2000 && other_log.lock().flushed == 100)
            .await;
        assert_eq!((log.lock().writes, other_log.lock().writes), (1, 1));
        assert_eq!(flusher.drains_and_bytes(), (2, 2100));
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_felt_and_memory_stays_bounded() {
        let flusher = Flusher::spawn();
        let (client, mut server) = tokio::io::duplex(1024);
        let mut wire = Deferred::new(client, &flusher);
        let sent = pattern(0, 100_000);
        let mut accepted = 0;
        while let Poll::Ready(count) = poll_once(wire.write(&sent[accepted..])) {
            accepted += count.expect("the peer is alive");
            yield_now().await;
        }
        assert_eq!(accepted, 1024 + WRITE_BUFFER_BYTES);
        assert!(poll_once(wire.flush()).is_pending());
        // Reading frees the writer, which finishes.
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.map(|_| received)
        });
        wire.write_all(&sent[accepted..]).await.expect("the peer reads again");
        wire.shutdown().await.expect("the peer reads");
        assert_eq!(reader.await.expect("no panic").expect("readable"), sent);
    }

    #[tokio::test]
    async fn bytes_leave_although_their_owner_never_polls_again() {
        let (inner, log) = Scripted::new([Step::Take(3), Step::PendingUntilLater, Step::Take(2)]);
        let mut wire = Deferred::new(inner, &Flusher::spawn());
        wire.write_all(b"stranded").await.expect("buffered");
        wire.flush().await.expect("deferred");
        eventually("the pause is over", || log.lock().flushed == 8).await;
    }

    #[tokio::test]
    async fn a_dropped_connection_sends_what_it_can_and_closes() {
        let held = |log: &Arc<Mutex<Log>>| -> Weak<Mutex<Log>> { Arc::downgrade(log) };
        // Dropped right after its flush: the bytes leave.
        let (inner, log) = Scripted::new([]);
        let mut wire = Deferred::new(inner, &Flusher::spawn());
        wire.write_all(b"goodbye").await.expect("buffered");
        wire.flush().await.expect("deferred");
        drop(wire);
        eventually("the bytes leave", || log.lock().received == b"goodbye").await;
        let inner = held(&log);
        drop(log);
        assert!(inner.upgrade().is_none(), "the inner stream is closed");

        // Dropped while the peer takes nothing: closed at once, or its waker would keep it alive for ever.
        let (client, server) = tokio::io::duplex(1);
        let mut wire = Deferred::new(client, &Flusher::spawn());
        wire.write_all(b"never").await.expect("buffered");
        wire.flush().await.expect("deferred");
        yield_now().await;
        drop(wire);
        let mut received = Vec::new();
        let mut server = server;
        server.read_to_end(&mut received).await.expect("closed cleanly");
        assert_eq!(received, b"n");
    }

    #[tokio::test]
    async fn reading_goes_on_after_a_failed_write() {
        let (inner, log) = Scripted::new([Step::Fail]);
        let mut wire = Deferred::new(inner, &Flusher::spawn());
        wire.write_all(b"lost").await.expect("buffered");
        wire.flush().await.expect("deferred");
        eventually("the drain fails", || log.lock().failed).await;
        assert_eq!(wire.read_u8().await.expect("readable"), b'r');
        let first = wire.flush().await.expect_err("reported");
        let second = wire.write(b"more").await.expect_err("still broken");
        assert_eq!(
            (first.kind(), second.kind()),
            (io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionReset)
        );
    }

    #[tokio::test]
    async fn idle_connections_hold_no_buffer() {
        let flusher = Flusher::spawn();
        let (inner, log) = Scripted::new([]);
        let mut wire = Deferred::new(inner, &flusher);
        for round in 1..=3 {
            wire.write_all(b"x").await.expect("buffered");
            wire.flush().await.expect("deferred");
            eventually("drained", || log.lock().flushed == round).await;
            assert_eq!(wire.shared.state.lock().buffer.capacity(), 0);
        }
        assert_eq!(flusher.write_buffers(0).free(), 1);
    }
}
