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
