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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_whatever_the_sizes() {
        let sent: Vec<u8> = (0..200_000_u32).map(|position| (position % 251) as u8).collect();
        for (chunk, pipe) in [(1, 7), (5, 4096), (4096, 100_000), (40_000, 64), (32 * 1024, 32 * 1024)] {
            let sent = sent[..if chunk < 10 { 3_000 } else { sent.len() }].to_vec();
            let (mut client, server) = tokio::io::duplex(pipe);
            let mut server = ReadAhead::new(server, Arc::new(Buffers::new(READ_BUFFER_BYTES, 4)));
            let expected = sent.clone();
            let writer = tokio::spawn(async move { client.write_all(&sent).await });
            let mut received = Vec::new();
            let mut part = vec![0; chunk];
            loop {
                let count = server.read(&mut part).await.expect("readable");
                if count == 0 {
                    break;
                }
                received.extend_from_slice(&part[..count]);
            }
            assert!(received == expected, "reads of {chunk}, pipe of {pipe}");
            writer.await.expect("no panic").expect("written");
        }
    }

    #[tokio::test]
    async fn an_idle_stream_holds_no_buffer() {
        let buffers = Arc::new(Buffers::new(READ_BUFFER_BYTES, 4));
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = ReadAhead::new(server, Arc::clone(&buffers));
        client.write_all(b"abc").await.expect("there is room");
        let mut part = [0; 2];
        server.read_exact(&mut part).await.expect("readable");
        assert_eq!(buffers.free(), 0, "one byte is held");
        assert_eq!(server.read_u8().await.expect("readable"), b'c');
        assert_eq!(buffers.free(), 1);
        let waiting =
            std::pin::pin!(server.read_u8()).poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(waiting.is_pending());
        assert_eq!((buffers.free(), server.buffer.capacity()), (1, 0));
    }
}
