//! Who was refused, and who moved a lever, in the form that kube-apiserver's own audit log has?
//!
//! A refused request never reaches kube-apiserver, so its audit log does not know of it. The trail writes what spillway
//! answered itself, levers and changes of the policy as `audit.k8s.io/v1` events, one JSON object a line: whoever reads or
//! ships the apiserver's log reads this one with the same tools, and `spillway replay` reads both.
//!
//! Nobody waits for the disk: records go through a bounded queue to a thread of their own. What does not fit, or cannot be
//! written, is lost and counted; requests go on. (Break-glass has a log of its own that loses nothing and is signed.)

mod file;
mod record;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec};

use self::file::Rotated;
pub use self::record::Answer;
use self::record::Record;
use super::levers::LeverMoved;
use super::overload::raise;
use super::register::Register;
use crate::clock;
use crate::units::Instant;

/// Records that may wait; with [`BYTES_MAX`] whichever is met first.
const RECORDS_MAX: usize = 8_192;
/// Bytes that may wait, as far as they are known before a record is written out.
const BYTES_MAX: usize = 8 << 20;
/// After a failure the file is opened again no sooner than this.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last records.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// What a quiet trail does not keep back longer.
const FLUSH: Duration = Duration::from_millis(500);

/// Where the trail is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file that is written now; older ones stand beside it with `.1`, `.2` … behind its name.
    pub file: PathBuf,
    /// A file of this many bytes is set aside.
    pub max_bytes: u64,
    /// Files that are kept beside the present one; the oldest goes.
    pub max_backups: u32,
}

/// What the trail did.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    /// The queue was full.
    full: AtomicU64,
    /// The file could not be written.
    failed: AtomicU64,
    waiting_bytes: AtomicUsize,
}

enum Item {
    Record(Box<Record>),
    /// Answered when everything before it was written.
    Mark(SyncSender<()>),
}

/// The way into the trail; without a file it takes everything and keeps nothing.
#[derive(Clone, Default)]
pub struct AuditTrail(Option<Arc<Entry>>);

struct Entry {
    queue: SyncSender<Item>,
    counts: Arc<Counts>,
}

impl AuditTrail {
    /// Starts the thread that writes. The file is opened there: a disk that is not there yet does not keep the proxy from
    /// starting, and is tried again.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn start(settings: AuditSettings) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(RECORDS_MAX);
        let counts = Arc::<Counts>::default();
        let entry = Entry { queue, counts: Arc::clone(&counts) };
        std::thread::Builder::new()
            .name("audit-trail".to_owned())
            .spawn(move || Writer::new(settings, counts).run(&items))?;
        Ok(Self(Some(Arc::new(entry))))
    }

    /// Whether anything is kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A request was answered by spillway itself.
    pub fn answered(&self, answer: Answer) {
        self.offer(|| Record::Answer(answer));
    }

    /// A lever moved.
    pub fn lever(&self, event: &LeverMoved<'_>) {
        self.offer(|| Record::lever(event, clock::wall()));
    }

    /// Another policy is in force.
    pub fn policy(&self, event: &super::PolicyChanged<'_>) {
        self.offer(|| Record::policy(event, clock::wall()));
    }

    /// Waits until what was told so far is written, but not for long.
    pub fn close(&self) {
        let Some(entry) = &self.0 else { return };
        let (done, written) = sync_channel(1);
        // A full queue has no room for the question either; then there is nothing to wait for that would end soon.
        if entry.queue.try_send(Item::Mark(done)).is_ok() {
            let _ = written.recv_timeout(CLOSE_WITHIN);
        }
    }

    fn offer(&self, record: impl FnOnce() -> Record) {
        let Some(entry) = &self.0 else { return };
        let record = record();
        let bytes = record.bytes();
        let counts = &entry.counts;
        if counts.waiting_bytes.load(Ordering::Relaxed) + bytes > BYTES_MAX {
            counts.full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        match entry.queue.try_send(Item::Record(Box::new(record))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                counts.full.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The numbers of a scrape.
pub struct AuditCounters {
    written: IntCounter,
    full: IntCounter,
    failed: IntCounter,
    trail: OnceLock<AuditTrail>,
}

impl AuditCounters {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let dropped: IntCounterVec = register.counters(
            "audit_dropped_total",
            "records of the audit trail that were lost: `full` (a storm that writes faster than the \
                 disk), `write` (the file could not be written)",
            &["reason"],
        )?;
        Ok(Self {
            written: register
                .counter("audit_records_total", "records written to the audit trail (`audit.file`)")?,
            full: dropped.with_label_values(&["full"]),
            failed: dropped.with_label_values(&["write"]),
            trail: OnceLock::new(),
        })
    }

    /// Shows what this trail does from now on.
    pub fn follow(&self, trail: AuditTrail) {
        // There is one trail a process; a second call would speak of the same.
        let _ = self.trail.set(trail);
    }

    pub(super) fn set(&self) {
        let Some(entry) = self.trail.get().and_then(|trail| trail.0.as_ref()) else { return };
        let counts = &entry.counts;
        raise(&self.written, counts.written.load(Ordering::Relaxed));
        raise(&self.full, counts.full.load(Ordering::Relaxed));
        raise(&self.failed, counts.failed.load(Ordering::Relaxed));
    }
}

/// The thread's part.
struct Writer {
    settings: AuditSettings,
    counts: Arc<Counts>,
    file: Option<Rotated>,
    /// When opening it failed last.
    failed: Option<Instant>,
    line: Vec<u8>,
}

impl Writer {
    fn new(settings: AuditSettings, counts: Arc<Counts>) -> Self {
        Self { settings, counts, file: None, failed: None, line: Vec::new() }
    }

    fn run(mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(FLUSH) {
                Ok(Item::Record(record)) => self.write(&record),
                Ok(Item::Mark(done)) => {
                    self.flush();
                    // Who asked may have stopped waiting.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
        }
    }

    fn write(&mut self, record: &Record) {
        self.counts.waiting_bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
        self.line.clear();
        record.write(&mut self.line);
        if !self.open() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wrote = self.file.as_mut().map(|file| file.append(&self.line));
        self.count(wrote);
    }

    /// Whether there is a file to write to.
    fn open(&mut self) -> bool {
        if self.file.is_some() {
            return true;
        }
        let now = clock::now();
        if self.failed.is_some_and(|at| now.since(at) < AGAIN) {
            return false;
        }
        match Rotated::open(&self.settings) {
            Ok(file) => {
                if self.failed.take().is_some() {
                    tracing::info!(file = %self.settings.file.display(), "the audit trail is written again");
                }
                self.file = Some(file);
            }
            Err(error) => self.fail(&error),
        }
        self.file.is_some()
    }

    fn flush(&mut self) {
        let wrote = self.file.as_mut().map(Rotated::flush);
        self.count(wrote);
    }

    fn count(&mut self, wrote: Option<Result<u64, (std::io::Error, u64)>>) {
        match wrote {
            None => {}
            Some(Ok(records)) => _ = self.counts.written.fetch_add(records, Ordering::Relaxed),
            Some(Err((error, lost))) => {
                self.counts.failed.fetch_add(lost, Ordering::Relaxed);
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        self.file = None;
        self.failed = Some(clock::now());
        let file = self.settings.file.display();
        tracing::warn!(%error, %file, "the audit trail cannot be written: records are counted as lost, requests go on");
    }
}

#[cfg(test)]
mod tests;
