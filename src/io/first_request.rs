//! How long may a client hold a connection before its first request?
//!
//! hyper has no limit for the HTTP/2 preface and none for a header block. [`Awaited`] fails reads once the
//! deadline has passed, however steadily bytes trickle in, until the server disarms it through [`FirstRequest`]
//! when the first request has arrived. After that it costs one atomic load per read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The handle that says "the first request is here".
#[derive(Clone, Debug)]
pub struct FirstRequest {
    arrived: Arc<AtomicBool>,
}

impl FirstRequest {
    /// Wraps `io` so that reads fail with [`io::ErrorKind::TimedOut`] from `deadline` on unless disarmed.
    pub fn await_until<S>(io: S, deadline: Instant) -> (Self, Awaited<S>) {
        let arrived = Arc::new(AtomicBool::new(false));
        let timer = Some(Box::pin(sleep_until(deadline)));
        (Self { arrived: Arc::clone(&arrived) }, Awaited { io, arrived, timer })
    }

    /// The first request has arrived: the deadline no longer applies. May be called again.
    pub fn disarm(&self) {
        // Checked first, because this runs for every request and the line is shared with the reading side.
        if !self.arrived.load(Ordering::Relaxed) {
            self.arrived.store(true, Ordering::Relaxed);
        }
    }
}

/// A stream that must carry a first request before its deadline.
#[derive(Debug)]
pub struct Awaited<S> {
    io: S,
    arrived: Arc<AtomicBool>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Awaited<S> {
    /// The stream below.
    pub const fn inner(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Awaited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(timer) = &mut this.timer {
            if this.arrived.load(Ordering::Relaxed) {
                this.timer = None;
            } else if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no request before the deadline",
                )));
            }
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Awaited<S> {
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_at_the_deadline() {
        let (_client, server) = tokio::io::duplex(64);
        let started = Instant::now();
        let (_first, mut server) = FirstRequest::await_until(server, started + LIMIT);
        let error = server.read_u8().await.expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_is_cut_too() {
        let (mut client, server) = tokio::io::duplex(64);
        let (_first, mut server) = FirstRequest::await_until(server, Instant::now() + LIMIT);
        let trickle = tokio::spawn(async move {
            while client.write_u8(b'x').await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut received = 0;
        let error = loop {
            match server.read_u8().await {
                Ok(_) => received += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), received), (io::ErrorKind::TimedOut, 10));
        drop(server);
        trickle.await.expect("the client does not panic");
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_request_silence_is_allowed() {
        let (mut client, server) = tokio::io::duplex(64);
        let (first, mut server) = FirstRequest::await_until(server, Instant::now() + LIMIT);
        client.write_u8(b'x').await.expect("there is room");
        assert_eq!(server.read_u8().await.expect("in time"), b'x');
        first.disarm();
        let later = tokio::spawn(async move {
            tokio::time::sleep(10 * LIMIT).await;
            client.write_u8(b'y').await
        });
        assert_eq!(server.read_u8().await.expect("disarmed"), b'y');
        later.await.expect("no panic").expect("there is room");
    }
}
