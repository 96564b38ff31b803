//! How much may one connection do before the others of its thread get on?
//!
//! h2 goes through all that has come before it lets go of the thread: 32 KiB of one client's frames are 250 requests of a
//! hundred fields, and take milliseconds in which everybody else of the shard waits. So what is read from a client is
//! handed over in turns: after each, the task goes to the end of the queue, and the sockets of others are looked at
//! before it goes on. Bytes measure the work: one of a header block may stand for a whole field; any other is carried
//! on, or counted by [`super::frames`]. A turn is not shorter than a flood takes to be noticed: a client that is cut off
//! within its first turn has no request sent on that must be taken back.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::yield_now;

/// What a byte of a header block counts.
pub(super) const BLOCK_BYTE: usize = 16;
/// What any other byte counts.
pub(super) const BYTE: usize = 1;
/// A turn: 2 KiB of header blocks, which is an ordinary request with a token and its like, and 20 requests of a hundred
/// fields at worst; or 32 KiB of anything else.
const TURN: usize = 2048 * BLOCK_BYTE;

/// What is left of a connection's turn.
#[derive(Debug)]
pub(super) struct Turn {
    left: usize,
}

impl Turn {
    /// A whole one.
    pub(super) const fn new() -> Self {
        Self { left: TURN }
    }

    /// Something was done.
    pub(super) const fn take(&mut self, effort: usize) {
        self.left = self.left.saturating_sub(effort);
    }

    /// Pending, with the task queued behind the others, when the turn is over; the next one begins then.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.left >= BLOCK_BYTE {
            return Poll::Ready(());
        }
        *self = Self::new();
        // Unlike a wake-up, this has the runtime look at sockets and timers first.
        pin!(yield_now()).poll(context)
    }

    /// How many bytes may be read now, the next `body` of which are a body's and the others a block's at worst.
    fn bytes(&self, body: u32) -> usize {
        let body = (body as usize).min(self.left / BYTE);
        (body + (self.left - body * BYTE) / BLOCK_BYTE).max(1)
    }

    /// Reads no more than this turn allows.
    pub(super) fn poll_read(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        body: u32,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let most = self.bytes(body);
        let result = if most < buffer.remaining() {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
            let result = stream.poll_read(context, &mut part);
            let filled = part.filled().len();
            buffer.advance(filled);
            result
        } else {
            stream.poll_read(context, buffer)
        };
        if result.is_pending() {
            *self = Self::new();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Reads from an endless stream for ten turns, each byte with so much `effort`; how many each took.
    async fn turns(body: u32, effort: usize) -> Vec<usize> {
        let mut turn = Turn::new();
        let mut turns = vec![0];
        poll_fn(|context| {
            while turns.len() <= 10 {
                if turn.poll_next(context).is_pending() {
                    turns.push(0);
                    return Poll::Pending;
                }
                let mut memory = [0; 8 << 10];
                let mut buffer = ReadBuf::new(&mut memory);
                let read = turn.poll_read(Pin::new(&mut tokio::io::repeat(7)), body, context, &mut buffer);
                assert!(read.is_ready());
                let filled = buffer.filled().len();
                assert!(buffer.filled().iter().all(|byte| *byte == 7));
                turn.take(filled * effort);
                *turns.last_mut().unwrap() += filled;
            }
            Poll::Ready(())
        })
        .await;
        turns.truncate(10);
        turns
    }

    #[tokio::test]
    async fn a_turn_is_two_kilobytes_of_heads_or_thirty_two_of_a_body() {
        assert_eq!(turns(0, BLOCK_BYTE).await, [2 << 10; 10]);
        assert_eq!(turns(1 << 20, BYTE).await, [32 << 10; 10]);
    }

    /// Somebody's message comes while an endless stream is being read.
    #[tokio::test]
    async fn others_get_on_between_two_turns() {
        let endless = tokio::spawn(async {
            loop {
                turns(0, BLOCK_BYTE).await;
            }
        });
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let others = tokio::spawn(async move {
            for number in 0..5 {
                assert_eq!(theirs.read_u8().await.unwrap(), number);
                theirs.write_u8(number).await.unwrap();
            }
        });
        for number in 0..5 {
            ours.write_u8(number).await.unwrap();
            assert_eq!(ours.read_u8().await.unwrap(), number);
        }
        others.await.unwrap();
        endless.abort();
    }
}
