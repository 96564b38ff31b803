//! How does one system call feed several TLS records?
//!
//! rustls reads 4 KiB at a time. [`ReadAhead`] sits between it and the socket and reads up to 32 KiB at once into
//! a pooled buffer, which goes back to the pool as soon as it is empty or the socket has nothing: an idle
//! connection holds no buffer. Writes pass through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffers::Buffers;

/// Bytes read at once: two full TLS records, as for writing.
pub const READ_BUFFER_BYTES: usize = 32 * 1024;

/// A stream whose reads go through a pooled buffer.
#[derive(Debug)]
pub struct ReadAhead<S> {
    io: S,
    buffers: Arc<Buffers>,
    /// Without capacity while nothing is held.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    /// Wraps `io`; take `buffers` from [`super::Flusher::read_buffers`].
    pub const fn new(io: S, buffers: Arc<Buffers>) -> Self {
        Self { io, buffers, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// The stream below.
    pub const fn inner(&self) -> &S {
        &self.io
    }

    fn copy_out(&mut self, buf: &mut ReadBuf<'_>) {
        let count = buf.remaining().min(self.end - self.start);
        buf.put_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.buffers.give(std::mem::take(&mut self.buffer));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start < this.end {
            this.copy_out(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= this.buffers.bytes_each() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let mut buffer = this.buffers.take_full();
        let mut ahead = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.io).poll_read(cx, &mut ahead);
        let filled = ahead.filled().len();
        if filled == 0 {
            this.buffers.give(buffer);
            return polled;
        }
        ready!(polled)?;
        this.buffer = buffer;
        this.end = filled;
        this.copy_out(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
