//! Who did what through the lane or by a lever, when, why, with what outcome, and is the log of it whole?
//!
//! One JSON line for every request, every lever and every change of state, numbered without gaps and chained (`chain`). A request's
//! line is on the disk before its answer leaves, unless the disk is slow: nobody waits longer than [`WAIT`] for it, and
//! not at all while it stands still. Never in it: Authorization, bodies, keys.

mod chain;
mod store;
mod verify;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

pub use self::verify::{FileSummary, Finding, Head, Question, Verdict, verify};
pub use self::writer::Figures;

use self::writer::{Job, Writer};
use super::shown::hex;
use crate::telemetry::LaneMetrics;

/// What a record's `v` says: 1, which has none, knew neither `lever` nor `end`. The chain is the same in all.
pub const FORMAT: u64 = 2;
/// How long an answer waits for its record.
pub const WAIT: Duration = Duration::from_millis(50);
/// Records on their way to the thread.
const QUEUE_MAX: usize = 1_024;
/// How long the end waits for the last record.
const END_WITHIN: Duration = Duration::from_secs(2);
/// What a public key begins with.
const PUBLIC_PREFIX: &str = "spillway-audit-ed25519:";

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the log.
    pub folder: PathBuf,
    /// The folder of the signing key.
    pub key_folder: PathBuf,
    /// A file of this size is set aside.
    pub rotate_bytes: u64,
    /// This node's name.
    pub host: String,
    /// Tells which configuration was in force.
    pub config_hash: String,
}

/// A log that can be written to.
#[derive(Clone)]
pub struct Audit {
    jobs: Option<SyncSender<Job>>,
    figures: Arc<Figures>,
}

impl Audit {
    /// The log in a folder, or, where nobody named one, on standard error alone.
    ///
    /// # Errors
    /// When the log's thread cannot be created.
    pub fn open(settings: Option<&Settings>) -> io::Result<Self> {
        settings.map_or_else(|| Ok(Self::to_standard_error()), Self::start)
    }

    /// Starts the log's thread. A disk that takes nothing is no error: the thread says so and goes on trying.
    ///
    /// # Errors
    /// When the thread cannot be created.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        let (jobs, received) = sync_channel(QUEUE_MAX);
        let figures = Arc::new(Figures::default());
        let writer = Writer::new(settings, Arc::clone(&figures));
        std::thread::Builder::new()
            .name("break-glass-audit".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Self { jobs: Some(jobs), figures })
    }

    /// A log that only goes to standard error.
    #[must_use]
    pub fn to_standard_error() -> Self {
        Self { jobs: None, figures: Arc::default() }
    }

    /// Shows its numbers.
    pub fn tell(&self, metrics: &LaneMetrics) {
        let figures = &self.figures;
        metrics.audit(
            figures.seq.load(Ordering::Relaxed),
            figures.pending.load(Ordering::Relaxed),
            figures.failing.load(Ordering::Relaxed),
            figures.lost.load(Ordering::Relaxed),
        );
        metrics.audit_cut(figures.cut.load(Ordering::Relaxed));
    }

    /// Numbers about it.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Writes the record of a request, and waits until it is safe, but not for long.
    pub async fn write(&self, facts: Map<String, Value>) {
        let (written, told) = oneshot::channel();
        let stalled = self.figures.stalled.load(Ordering::Relaxed);
        let sent = self.send(facts, false, (!stalled).then_some(written));
        if sent && !stalled && tokio::time::timeout(WAIT, told).await.is_err() {
            self.figures.stalled.store(true, Ordering::Relaxed);
        }
    }

    /// Writes a record that nobody waits for.
    pub fn note(&self, facts: Map<String, Value>) {
        self.send(facts, false, None);
    }

    /// Writes a change of state: a signed checkpoint follows it.
    pub fn note_change(&self, facts: Map<String, Value>) {
        self.send(facts, true, None);
    }

    /// Waits until what was noted before is safe, but not for long.
    pub async fn settle(&self) {
        let (written, told) = oneshot::channel();
        let stalled = self.figures.stalled.load(Ordering::Relaxed);
        if !stalled
            && let Some(jobs) = &self.jobs
            && jobs.try_send(Job::Settle(written)).is_ok()
            && tokio::time::timeout(WAIT, told).await.is_err()
        {
            self.figures.stalled.store(true, Ordering::Relaxed);
        }
    }

    fn send(&self, facts: Map<String, Value>, weighty: bool, written: Option<oneshot::Sender<()>>) -> bool {
        let Some(jobs) = &self.jobs else {
            let audit = Value::Object(facts).to_string();
            tracing::info!(audit, "audit record: there is no folder for it");
            return false;
        };
        match jobs.try_send(Job::Record { facts, weighty, written }) {
            Ok(()) => true,
            Err(refused) => {
                self.figures.lost.fetch_add(1, Ordering::Relaxed);
                let (std::sync::mpsc::TrySendError::Full(job)
                | std::sync::mpsc::TrySendError::Disconnected(job)) = refused;
                if let Job::Record { facts, .. } = job {
                    let audit = Value::Object(facts).to_string();
                    tracing::error!(audit, "audit record lost: the log's thread stands still");
                }
                false
            }
        }
    }

    /// Writes what is left and ends the log; a disk that hangs is not waited for.
    pub fn close(&self) {
        let (stopped, wait) = sync_channel(0);
        if let Some(jobs) = &self.jobs
            && jobs.try_send(Job::Stop(stopped)).is_ok()
        {
            // It answers by going away.
            let _ = wait.recv_timeout(END_WITHIN);
        }
    }
}

/// Names a configuration in records: which one was in force?
#[must_use]
pub fn config_hash(text: &str) -> String {
    const DIGITS: usize = 16;
    let mut hash = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref());
    hash.truncate(DIGITS);
    hash
}

/// The public half as a line of text.
fn public_key_text(key: &Ed25519KeyPair) -> String {
    format!("{PUBLIC_PREFIX}{}\n", STANDARD.encode(key.public_key()))
}

/// The key in a line that [`Audit::start`] wrote into `break-glass-audit.pub`.
#[must_use]
pub fn parse_public_key(text: &str) -> Option<Vec<u8>> {
    const KEY_BYTES: usize = 32;
    let key = STANDARD.decode(text.trim().strip_prefix(PUBLIC_PREFIX)?).ok()?;
    (key.len() == KEY_BYTES).then_some(key)
}

#[cfg(test)]
mod tests;
