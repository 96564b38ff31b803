//! How do log lines reach standard error without anybody having to wait for it?
//!
//! Standard error is a pipe to a container runtime or a journal. When that stands still the pipe fills up, and a
//! `write` blocks whoever logs: with one thread a shard, all of its clients. So lines go through a bounded queue to a
//! thread of their own that alone may block. What does not fit is lost and counted, and the loss is told in the log as
//! soon as it flows again. Part of the queue is kept for warnings and for break-glass, so that a flood of ordinary lines
//! never costs one of those.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::clock;
use crate::units::Instant;

/// The target of lines about break-glass requests: never sampled, and last to be lost.
pub(super) const BREAK_GLASS: &str = "spillway::break_glass";

/// Lines that may wait. At 400 bytes each the other bound, bytes, is met at the same time.
const LINES_MAX: usize = 8_192;
/// Bytes that may wait.
const BYTES_MAX: usize = 4 << 20;
/// What ordinary lines may take of both, in eighths.
const ORDINARY_EIGHTHS: usize = 7;
/// A longer line is none of ours, whose texts are all cut; half a JSON object would help nobody.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long the end of the process waits for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether the queue has room again.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// The loss is told this often at most: a line for each line would double the flood.
const TOLD_APART: Duration = Duration::from_secs(1);

/// Lines lost in this process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines lost in this process since its start.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it was written.
    Mark(SyncSender<()>),
}

/// What waits now.
#[derive(Debug, Default)]
struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

/// The queue's entry, for the subscriber.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
    waiting: Arc<Waiting>,
}

/// How dear a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Ordinary,
    /// A warning, or about break-glass.
    Dear,
}

impl Lines {
    /// Starts the thread that writes to `output`. Without one, for want of threads, nothing is logged: that is the lesser
    /// harm.
    pub(super) fn start(output: impl Write + Send + 'static) -> Self {
        let (queue, items) = sync_channel(LINES_MAX);
        let waiting = Arc::new(Waiting::default());
        let lines = Self { queue, waiting: Arc::clone(&waiting) };
        let thread = std::thread::Builder::new().name("log".to_owned());
        drop(thread.spawn(move || write(&items, &waiting, output)));
        lines
    }

    fn offer(&self, line: &[u8], rank: Rank) {
        if !self.has_room(line.len(), rank) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.waiting.lines.fetch_add(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_add(line.len(), Ordering::Relaxed);
        match self.queue.try_send(Item::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.waiting.left(line.len());
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn has_room(&self, bytes: usize, rank: Rank) -> bool {
        let part = |whole: usize| match rank {
            Rank::Ordinary => whole / 8 * ORDINARY_EIGHTHS,
            Rank::Dear => whole,
        };
        bytes <= LINE_BYTES_MAX
            && self.waiting.lines.load(Ordering::Relaxed) < part(LINES_MAX)
            && self.waiting.bytes.load(Ordering::Relaxed) + bytes <= part(BYTES_MAX)
    }

    /// Waits until what was logged so far is written, but not for long.
    pub(super) fn flush(&self) {
        let until = clock::now() + FLUSH_WITHIN;
        let (done, written) = sync_channel(1);
        let mut mark = Item::Mark(done);
        loop {
            match self.queue.try_send(mark) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if clock::now() < until => {
                    mark = back;
                    std::thread::sleep(FLUSH_LOOK);
                }
                Err(_) => return,
            }
        }
        // If it takes too long, standard error stands still, and so would everybody who waits for it.
        let _ = written.recv_timeout(until.since(clock::now()));
    }
}

impl Waiting {
    fn left(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn write(items: &Receiver<Item>, waiting: &Waiting, mut output: impl Write) {
    let (mut told, mut told_at) = (0, Instant::ORIGIN);
    while let Ok(item) = items.recv() {
        // Standard error that cannot be written to has nobody left to be told.
        match item {
            Item::Line(line) => {
                let _ = output.write_all(&line);
                waiting.left(line.len());
            }
            Item::Mark(done) => {
                let _ = output.flush();
                let _ = done.try_send(());
            }
        }
        let (lost, now) = (dropped(), clock::now());
        if lost > told && now.since(told_at) >= TOLD_APART {
            tracing::warn!(lines = lost - told, "log lines were lost: standard error takes too few");
            (told, told_at) = (lost, now);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry { lines: self, rank: Rank::Ordinary }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Entry<'a> {
        let dear = *metadata.level() <= Level::WARN || metadata.target() == BREAK_GLASS;
        Entry { lines: self, rank: if dear { Rank::Dear } else { Rank::Ordinary } }
    }
}

/// Takes one line: the subscriber formats it whole before it writes.
pub(super) struct Entry<'a> {
    lines: &'a Lines,
    rank: Rank,
}

impl Write for Entry<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.offer(line, self.rank);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Condvar, Mutex};

    use super::*;

    /// An output that stands still until it is told to go on.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<(bool, Vec<u8>)>, Condvar)>);

    impl Pipe {
        fn flow(&self) {
            self.0.0.lock().0 = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().1.clone()).unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock();
            while !state.0 {
                self.0.1.wait(&mut state);
            }
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn d11_a_pipe_that_stands_still_blocks_nobody_and_loses_ordinary_lines_first() {
        let pipe = Pipe::default();
        let lines = Lines::start(pipe.clone());
        let before = dropped();
        // Whoever logs is this thread: it would never come back from a write that blocks.
        for number in 0..2 * LINES_MAX {
            lines.offer(format!("ordinary {number}\n").as_bytes(), Rank::Ordinary);
        }
        lines.offer(b"dear\n", Rank::Dear);
        lines.offer(&[b'x'; LINE_BYTES_MAX + 1], Rank::Dear);
        assert!(dropped() - before > LINES_MAX as u64, "what did not fit is counted");
        assert!(lines.waiting.lines.load(Ordering::Relaxed) <= LINES_MAX);
        pipe.flow();
        lines.flush();
        let text = pipe.text();
        assert!(text.starts_with("ordinary 0\nordinary 1\n") && text.ends_with("dear\n"), "{}", text.len());
        assert!(text.lines().count() <= LINES_MAX);
        assert_eq!(lines.waiting.lines.load(Ordering::Relaxed), 0);
        assert_eq!(lines.waiting.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn d11_what_waits_is_bounded_in_bytes() {
        let pipe = Pipe::default();
        let lines = Lines::start(pipe.clone());
        for _ in 0..LINES_MAX {
            lines.offer(&[b'x'; LINE_BYTES_MAX], Rank::Dear);
        }
        assert!(lines.waiting.bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        pipe.flow();
    }

    #[test]
    fn d11_the_end_of_the_process_does_not_wait_for_a_pipe_that_stands_still() {
        let lines = Lines::start(Pipe::default());
        for _ in 0..2 * LINES_MAX {
            lines.offer(b"line\n", Rank::Dear);
        }
        lines.flush();
    }
}
