//! Where do short-lived buffers come from, and how much memory may they pin?
//!
//! A pool of equally sized vectors. Connections borrow one while they hold bytes and give it back when empty;
//! the pool keeps a bounded number and lets the allocator have the rest. There is one pool per flusher task, so
//! on a shard its lock is never contended.

use parking_lot::Mutex;

/// A bounded pool of buffers of one size.
#[derive(Debug)]
pub struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    bytes_each: usize,
    kept_max: usize,
}

impl Buffers {
    /// A pool of buffers of `bytes_each` bytes that keeps at most `kept_max` of them while nobody uses them.
    #[must_use]
    pub const fn new(bytes_each: usize, kept_max: usize) -> Self {
        Self { free: Mutex::new(Vec::new()), bytes_each, kept_max }
    }

    /// An empty buffer with room for [`Self::bytes_each`].
    pub(super) fn take_empty(&self) -> Vec<u8> {
        let mut buffer = self.take();
        buffer.clear();
        buffer
    }

    /// A buffer of exactly [`Self::bytes_each`] initialised bytes with arbitrary content.
    pub(super) fn take_full(&self) -> Vec<u8> {
        let mut buffer = self.take();
        // Full buffers come back full, so this writes zeros only into a new one.
        buffer.resize(self.bytes_each, 0);
        buffer
    }

    fn take(&self) -> Vec<u8> {
        let free = self.free.lock().pop();
        free.unwrap_or_else(|| Vec::with_capacity(self.bytes_each))
    }

    /// Returns a buffer to the pool; one that grew or shrank is dropped instead.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() < self.bytes_each || buffer.capacity() > 2 * self.bytes_each {
            return;
        }
        let mut free = self.free.lock();
        if free.len() < self.kept_max {
            free.push(buffer);
        }
    }

    /// Size of every buffer, in bytes.
    #[must_use]
    pub const fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// How many buffers lie unused in the pool.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_keeps_no_more_than_its_bound() {
        let buffers = Buffers::new(64, 2);
        let taken: Vec<_> = (0..5).map(|_| buffers.take_full()).collect();
        assert!(taken.iter().all(|buffer| buffer.len() == 64));
        for buffer in taken {
            buffers.give(buffer);
        }
        assert_eq!(buffers.free(), 2);
        assert!(buffers.take_empty().is_empty());
    }

    #[test]
    fn a_buffer_that_grew_is_not_kept() {
        let buffers = Buffers::new(64, 2);
        buffers.give(Vec::with_capacity(4096));
        buffers.give(Vec::new());
        assert_eq!(buffers.free(), 0);
    }
}
