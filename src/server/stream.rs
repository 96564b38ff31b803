//! What does hyper read from and write to?
//!
//! The decrypted stream. Below TLS, reads take several records at once; above it, writes of one scheduler
//! tick leave together ([`crate::io`]); and on top every read that brings bytes leaves a mark: a client is
//! still sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connection::Connection;
use crate::io::{Deferred, Flusher, ReadAhead};

/// A stream whose handshake is done.
pub(super) type Accepted = TlsStream<ReadAhead<TcpStream>>;

/// What a connection's protocol runs on.
pub(super) type Io = TokioIo<Watched<Deferred<Accepted>>>;

/// Dresses an accepted stream for hyper.
pub(super) fn wrap(stream: Accepted, flusher: &Arc<Flusher>, connection: Arc<Connection>) -> Io {
    TokioIo::new(Watched { stream: Deferred::new(stream, flusher), connection })
}

/// A stream that marks reads in its connection's [`Activity`] and keeps the connection counted as open, also
/// when an upgrade has taken it from hyper.
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.activity.bytes_read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
