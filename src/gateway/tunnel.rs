//! What happens after 101 Switching Protocols? Bytes, both ways, until both sides are done.
//!
//! exec, attach, port-forward and WebSocket watches end up here. The tunnel does not look inside: SPDY and
//! WebSocket have parsers on both ends already. One side closing is passed on; the other then has a bounded time
//! to finish its last words.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::turn::Turn;
use crate::flow::{End, Level};
use crate::server::Connection;

/// How long one direction may go on after the other has ended. `kubectl exec` without a terminal closes its input
/// first and then reads the output, which can take as long as the command: so this is generous; what bounds a
/// forgotten tunnel is the kubelet's own idle limit of 4 hours.
const LINGER: Duration = Duration::from_secs(600);

/// The two connections, about to switch.
pub(super) struct Ends {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
}

/// Joins both ends once both have switched, until `over` resolves. `turn` and `_connection` count the tunnel as long as it lives.
pub(super) async fn join(
    ends: Ends,
    turn: Turn,
    over: impl Future<Output = ()>,
    _connection: Arc<Connection>,
) {
    let (Ok(client), Ok(upstream)) = (ends.client.await, ends.upstream.await) else {
        return;
    };
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let both = async {
        let up = one_way(client_read, upstream_write);
        let down = one_way(upstream_read, client_write);
        tokio::pin!(up, down);
        tokio::select! {
            bytes = &mut up => bytes + linger(down).await,
            bytes = &mut down => bytes + linger(up).await,
        }
    };
    tokio::select! {
        bytes = both => turn.finish(End::Ignored, bytes, Level::default()),
        () = over => {}
    }
}

async fn linger(rest: impl Future<Output = u64>) -> u64 {
    tokio::time::timeout(LINGER, rest).await.unwrap_or_default()
}

/// Copies until the reader ends or either side fails, then passes the end on. Returns the bytes copied.
///
/// `tokio::io::copy` flushes whenever the reader has nothing more: without that, a keystroke would stay in our write
/// buffer.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> u64 {
    // An error is an end like any other here: the other side learns by the close.
    let bytes = tokio::io::copy(&mut from, &mut to).await.unwrap_or_default();
    let _ = to.shutdown().await;
    bytes
}
