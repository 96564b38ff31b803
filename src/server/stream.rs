//! What does hyper read from and write to?
//!
//! The decrypted stream. Below TLS, reads take several records at once; above it, writes of one scheduler
//! tick leave together ([`crate::io`]); and on top every read that brings bytes leaves a mark: a client is
//! still sending. What is read is also looked at before hyper gets it: HTTP/1.1 for being framed in one way only, HTTP/2
//! for not being a flood.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::abuse::Abuse;
use super::connection::{Connection, Protocol};
use super::frames::{Frames, TooManyPieces};
use super::framing::Framing;
use super::settings::Limits;
use super::turn::Turn;
use crate::io::{Deferred, Flusher, ReadAhead};

/// A stream whose handshake is done.
pub(super) type Accepted = TlsStream<ReadAhead<TcpStream>>;

/// What a connection's protocol runs on.
pub(super) type Io = TokioIo<Watched<Deferred<Accepted>>>;

/// What hyper reads in place of the byte that cannot be read in one way only; it answers 400 and closes.
const NO_HTTP: u8 = 0;

/// As much of [`TooManyPieces`] at once as h2 takes before it has had enough, with some to spare.
const PIECES_BYTES: usize = 256;

/// Dresses an accepted stream for hyper.
pub(super) fn wrap(
    stream: Accepted,
    flusher: &Arc<Flusher>,
    connection: Arc<Connection>,
    limits: &Limits,
) -> Io {
    let guard = match connection.protocol {
        Protocol::Http1 => Guard::Http1(Framing::new()),
        Protocol::Http2 => Guard::Http2(
            Box::new(Frames::new(limits.streams, limits.header_fields)),
            TooManyPieces::default(),
            Turn::new(),
        ),
    };
    TokioIo::new(Watched { stream: Deferred::new(stream, flusher), guard, connection })
}

/// A stream that marks reads in its connection's [`Activity`](super::activity::Activity), looks at what is read, and
/// keeps the connection counted as open, also when an upgrade has taken it from hyper.
pub(super) struct Watched<S> {
    stream: S,
    guard: Guard,
    connection: Arc<Connection>,
}

enum Guard {
    Http1(Framing),
    Http2(Box<Frames>, TooManyPieces, Turn),
    /// The client was cut off: the end of the stream.
    Closed,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look_at_refusals();
        match &mut this.guard {
            Guard::Closed => return Poll::Ready(Ok(())),
            Guard::Http2(frames, pieces, _) if frames.is_over() => {
                for _ in 0..buffer.remaining().min(PIECES_BYTES) {
                    buffer.put_slice(&[pieces.next()]);
                }
                return Poll::Ready(Ok(()));
            }
            Guard::Http1(_) | Guard::Http2(..) => {}
        }
        let before = buffer.filled().len();
        let stream = Pin::new(&mut this.stream);
        let result = if let Guard::Http2(frames, _, turn) = &mut this.guard {
            ready!(turn.poll_next(context));
            turn.poll_read(stream, frames.body_left(), context, buffer)
        } else {
            stream.poll_read(context, buffer)
        };
        if buffer.filled().len() > before {
            this.connection.activity.bytes_read();
            this.look_at(buffer, before);
        }
        result
    }
}

impl<S> Watched<S> {
    /// Cuts off who goes on sending what is refused.
    fn look_at_refusals(&mut self) {
        let Guard::Http2(frames, ..) = &mut self.guard else { return };
        if self.connection.refused_heads.load(Ordering::Relaxed) > 0 {
            frames.heads_refused(self.connection.refused_heads.swap(0, Ordering::Relaxed));
            if let Some(flood) = frames.flood() {
                let _ = self.connection.abuse.set(flood.into());
            }
        }
    }

    /// Looks at what was read from `before` on, and cuts it where it must end.
    fn look_at(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let connection = &self.connection;
        match &mut self.guard {
            // A tunnel has no heads.
            Guard::Http1(_) if connection.activity.has_switched() => {}
            Guard::Http1(framing) => {
                let Err(violation) = framing.read(&buffer.filled()[before..]) else { return };
                tracing::debug!(connection = connection.id, what = violation.what, "refused its framing");
                // The first reason counts.
                let _ = connection.abuse.set(Abuse::Framing);
                let at = before + violation.at;
                buffer.filled_mut()[at] = NO_HTTP;
                buffer.set_filled(at + 1);
                self.guard = Guard::Closed;
            }
            Guard::Http2(frames, _, turn) => {
                let passes = frames.read(&buffer.filled()[before..]);
                turn.take(frames.effort());
                if let Some(flood) = frames.flood() {
                    let _ = connection.abuse.set(flood.into());
                    buffer.set_filled(before + passes);
                }
                connection.activity.block_unfinished(frames.is_in_block());
            }
            Guard::Closed => {}
        }
    }

    /// So much was sent, `last` at its end.
    fn sent(&mut self, result: &Poll<io::Result<usize>>, last: &[u8]) {
        let (Guard::Http2(frames, ..), Poll::Ready(Ok(bytes))) = (&mut self.guard, result) else { return };
        frames.sent(*bytes);
        if let Some(abuse) = Abuse::told(last) {
            let _ = self.connection.abuse.set(abuse);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(&result, bytes);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(&result, slices.iter().rfind(|slice| !slice.is_empty()).map_or(&[], |slice| slice));
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
