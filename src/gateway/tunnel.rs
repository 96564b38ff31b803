//! What happens after 101 Switching Protocols? Bytes, both ways, until both sides are done.
//!
//! exec, attach, port-forward and WebSocket watches end up here. The tunnel does not look inside: SPDY and
//! WebSocket have parsers on both ends already. One side closing is passed on; the other then has a bounded time
//! to finish its last words, and so has a tunnel in which nothing moves. What passes is counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::turn::Turn;
use crate::flow::{End, Level};
use crate::server::{Connection, Tunnel, TunnelBytes};
use crate::telemetry::{Metrics, TunnelSide};

/// How long one direction may go on after the other has ended. `kubectl exec` without a terminal closes its input
/// first and then reads the output, which can take as long as the command: so this is generous.
const LINGER: Duration = Duration::from_secs(600);

/// How long nothing may move in either direction. The kubelet gives up after 4 hours; its word comes first, and this is
/// for tunnels to anything else.
const IDLE_MAX: Duration = Duration::from_secs(4 * 3600 + 300);

/// The two connections, about to switch.
pub(super) struct Ends {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
}

/// Joins both ends once both have switched, until `over` resolves. `turn` and `_connection` count the tunnel as long as
/// it lives; `told` is what others may look at, and hang something on.
pub(super) async fn join(
    ends: Ends,
    turn: Turn,
    over: impl Future<Output = ()>,
    metrics: Arc<Metrics>,
    (told, _connection): (Arc<Tunnel>, Arc<Connection>),
) {
    let (Ok(client), Ok(upstream)) = (ends.client.await, ends.upstream.await) else {
        return;
    };
    let both = carry(TokioIo::new(client), TokioIo::new(upstream), &metrics, &told.bytes);
    tokio::select! {
        bytes = both => turn.finish(End::Ignored, bytes, Level::default()),
        () = over => {}
    }
}

/// Carries bytes both ways until both sides are done, or nothing has moved for too long. Returns the bytes carried.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    metrics: &Metrics,
    bytes: &TunnelBytes,
) -> u64 {
    let moved = Moved(Mutex::new((Instant::now(), 0)));
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let seen = |side| Seen { from: (), moved: &moved, metrics, bytes, side };
    let both = async {
        let up = one_way(seen(TunnelSide::Client).on(client_read), upstream_write);
        let down = one_way(seen(TunnelSide::Apiserver).on(upstream_read), client_write);
        tokio::pin!(up, down);
        tokio::select! {
            () = &mut up => linger(down).await,
            () = &mut down => linger(up).await,
        }
    };
    tokio::select! {
        () = both => {}
        () = moved.nothing_for(IDLE_MAX) => {}
    }
    moved.0.lock().1
}

async fn linger(rest: impl Future<Output = ()>) {
    // Whether it ended by itself or not, it is over.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Copies until the reader ends or either side fails, then passes the end on.
///
/// `tokio::io::copy` flushes whenever the reader has nothing more: without that, a keystroke would stay in our write
/// buffer.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // An error is an end like any other here: the other side learns by the close.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// When something last moved, and how many bytes have.
struct Moved(Mutex<(Instant, u64)>);

impl Moved {
    /// Resolves when nothing has moved for `limit`.
    async fn nothing_for(&self, limit: Duration) {
        loop {
            let until = self.0.lock().0 + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A reader whose bytes are seen.
struct Seen<'a, R> {
    from: R,
    moved: &'a Moved,
    metrics: &'a Metrics,
    bytes: &'a TunnelBytes,
    side: TunnelSide,
}

impl<'a> Seen<'a, ()> {
    fn on<R>(self, from: R) -> Seen<'a, R> {
        Seen { from, moved: self.moved, metrics: self.metrics, bytes: self.bytes, side: self.side }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Seen<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.from).poll_read(context, buffer);
        let bytes = (buffer.filled().len() - before) as u64;
        if bytes > 0 {
            self.metrics.clients().tunnelled(self.side, bytes);
            let counted = match self.side {
                TunnelSide::Client => &self.bytes.from_client,
                TunnelSide::Apiserver => &self.bytes.to_client,
            };
            counted.fetch_add(bytes, Ordering::Relaxed);
            let mut moved = self.moved.0.lock();
            *moved = (Instant::now(), moved.1 + bytes);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_nothing_moves_ends_and_one_that_is_used_does_not() {
        let (metrics, bytes) = (Metrics::new().unwrap(), TunnelBytes::default());
        let ((mut client, near), (far, mut upstream)) = (duplex(64), duplex(64));
        let started = Instant::now();
        let mut carried = std::pin::pin!(carry(near, far, &metrics, &bytes));
        let talk = async {
            for _ in 0..10 {
                tokio::time::sleep(IDLE_MAX - Duration::from_secs(1)).await;
                client.write_all(b"ping").await.unwrap();
                let mut heard = [0; 4];
                upstream.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"ping");
            }
        };
        tokio::select! {
            _ = &mut carried => panic!("it was in use"),
            () = talk => {}
        }
        assert_eq!(carried.await, 40);
        let quiet = started.elapsed() - (IDLE_MAX - Duration::from_secs(1)) * 10;
        assert_eq!(quiet.as_secs(), IDLE_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_side_is_passed_on_and_the_other_may_finish() {
        let (metrics, counted) = (Metrics::new().unwrap(), TunnelBytes::default());
        let ((mut client, near), (far, mut upstream)) = (duplex(64), duplex(64));
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = String::new();
            upstream.read_to_string(&mut heard).await.unwrap();
            upstream.write_all(b"answer").await.unwrap();
            drop(upstream);
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            (heard, said)
        };
        let (bytes, (heard, said)) = tokio::join!(carry(near, far, &metrics, &counted), talk);
        assert_eq!((bytes, heard.as_str(), said.as_str()), (14, "question", "answer"));
        let counted = [&counted.from_client, &counted.to_client].map(|bytes| bytes.load(Ordering::Relaxed));
        assert_eq!(counted, [8, 6], "each side by itself");
    }
}
