//! How does a record get to the disk without anybody waiting for the disk?
//!
//! One thread numbers records, binds them into the chain and writes what has come meanwhile in one go. While the disk
//! takes nothing (full, read-only, gone), records stay in memory, already numbered, and go to standard error; when it is
//! back they are written in order, with one record that tells of the gap. Memory is bounded: what comes when it is full is
//! only counted and printed, and the gap record says how many.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::super::shown;
use super::chain::{self, Place};
use super::store::{self, Store};
use crate::clock;
use crate::units::Instant;

/// Records in memory while the disk takes none: three minutes at the lane's full rate, some 4 MB.
const PENDING_MAX: usize = 4_096;
/// Records written in one go.
const BATCH_MAX: usize = 64;
/// Records between two checkpoints at most.
const CHECKPOINT_EVERY: u64 = 100;
/// How long a disk that refused is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// A record to write, and whom to tell.
pub(super) enum Job {
    Record {
        facts: Map<String, Value>,
        /// A checkpoint follows it.
        weighty: bool,
        written: Option<oneshot::Sender<()>>,
    },
    /// Say when all before it is written.
    Settle(oneshot::Sender<()>),
    /// Write everything, end, and say so by dropping this.
    Stop(std::sync::mpsc::SyncSender<()>),
}

/// Numbers about the log, for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Number of the last record that is on the disk.
    pub seq: AtomicU64,
    /// Records that wait for the disk.
    pub pending: AtomicU64,
    /// Records that are only on standard error.
    pub lost: AtomicU64,
    /// Records that the head knew and the log had no more when it was opened.
    pub cut: AtomicU64,
    /// Whether the disk takes nothing.
    pub failing: AtomicBool,
    /// The thread did not answer in time; nobody waits for it until it does.
    pub(super) stalled: AtomicBool,
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) folder: PathBuf,
    pub(super) key_folder: PathBuf,
    pub(super) rotate_bytes: u64,
    pub(super) host: String,
    pub(super) config_hash: String,
    pub(super) figures: Arc<Figures>,
    open: Option<(Store, Ed25519KeyPair)>,
    place: Place,
    /// Numbered lines that are not on the disk, and the number of the first.
    pending: VecDeque<String>,
    since_checkpoint: u64,
    /// What the next gap record has to tell.
    gap: Gap,
    tried: Option<Instant>,
    begun: bool,
}

#[derive(Debug, Default)]
struct Gap {
    delayed: u64,
    lost: u64,
    torn_bytes: u64,
    cut_records: u64,
    since: Option<String>,
}

impl Writer {
    pub(super) fn new(settings: &super::Settings, figures: Arc<Figures>) -> Self {
        Self {
            folder: settings.folder.clone(),
            key_folder: settings.key_folder.clone(),
            rotate_bytes: settings.rotate_bytes,
            host: settings.host.clone(),
            config_hash: settings.config_hash.clone(),
            figures,
            open: None,
            place: Place::default(),
            pending: VecDeque::new(),
            since_checkpoint: 0,
            gap: Gap::default(),
            tried: None,
            begun: false,
        }
    }

    /// Works until it is told to stop, or nobody is left to tell it anything.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        self.record(Map::from_iter([("event".to_owned(), "start".into())]));
        self.checkpoint();
        self.flush();
        loop {
            let mut batch = match jobs.recv_timeout(RETRY) {
                Ok(job) => vec![job],
                Err(RecvTimeoutError::Timeout) => vec![],
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            while batch.len() < BATCH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            let mut waiting = Vec::new();
            let mut stop = None;
            for job in batch {
                match job {
                    Job::Record { facts, weighty, written } => {
                        self.record(facts);
                        waiting.extend(written);
                        if weighty || self.since_checkpoint >= CHECKPOINT_EVERY {
                            self.checkpoint();
                        }
                    }
                    Job::Settle(written) => waiting.push(written),
                    Job::Stop(told) => stop = Some(told),
                }
            }
            self.flush();
            self.figures.stalled.store(false, Ordering::Relaxed);
            for waiter in waiting {
                // Whoever waited no longer does.
                let _ = waiter.send(());
            }
            if let Some(told) = stop {
                self.end();
                drop(told);
                return;
            }
        }
    }

    fn end(mut self) {
        self.record(Map::from_iter([("event".to_owned(), "stop".into())]));
        self.checkpoint();
        self.tried = None;
        self.flush();
    }

    /// Numbers a record and binds it to the one before.
    fn record(&mut self, mut facts: Map<String, Value>) {
        facts.entry("time").or_insert_with(|| shown::time_millis(clock::wall()).into());
        facts.insert("v".to_owned(), super::FORMAT.into());
        facts.insert("mono_ms".to_owned(), (clock::now().as_nanos() / 1_000_000).into());
        facts.insert("host".to_owned(), self.host.as_str().into());
        facts.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        facts.insert("config_hash".to_owned(), self.config_hash.as_str().into());
        if self.open.is_none() && !self.begun {
            // The chain's place is known once the log was opened; until then records keep their facts alone.
            self.begun = self.reopen();
        }
        if self.pending.len() >= PENDING_MAX {
            self.gap.lost += 1;
            self.figures.lost.fetch_add(1, Ordering::Relaxed);
            let audit = Value::Object(facts).to_string();
            tracing::error!(audit, "audit record lost: the disk takes none and memory is full");
            return;
        }
        let (place, line) = self.place.append(facts);
        if self.figures.failing.load(Ordering::Relaxed) {
            tracing::error!(audit = line, "audit record kept in memory: the disk takes none");
        }
        self.place = place;
        self.since_checkpoint += 1;
        self.pending.push_back(line);
    }

    /// A record that vouches for all before it.
    fn checkpoint(&mut self) {
        let Some((_, key)) = &self.open else { return };
        let signature = chain::sign(key, "checkpoint", self.place.seq, &self.place.hash);
        let facts = Map::from_iter([
            ("event".to_owned(), Value::from("checkpoint")),
            ("signature".to_owned(), signature.into()),
        ]);
        self.record(facts);
        self.since_checkpoint = 0;
    }

    /// Writes what is in memory, if the disk takes it.
    fn flush(&mut self) {
        self.figures.pending.store(self.pending.len() as u64, Ordering::Relaxed);
        if self.pending.is_empty() || (self.open.is_none() && !self.reopen()) {
            return;
        }
        let gap = &mut self.gap;
        if self.figures.failing.load(Ordering::Relaxed) {
            gap.delayed = self.pending.len() as u64;
        }
        let told = gap.delayed + gap.lost + gap.torn_bytes + gap.cut_records > 0;
        if let Err(error) = self.write_pending() {
            return self.failed(&error);
        }
        self.working();
        if told {
            let Gap { delayed, lost, torn_bytes, cut_records, since } = std::mem::take(&mut self.gap);
            let facts = json!({
                "event": "audit-gap", "delayed": delayed, "lost": lost, "torn_bytes": torn_bytes,
                "cut_records": cut_records, "since": since,
            });
            if let Value::Object(facts) = facts {
                self.record(facts);
                self.checkpoint();
            }
            if let Err(error) = self.write_pending() {
                self.failed(&error);
            }
        }
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let Some((store, key)) = &mut self.open else { return Ok(()) };
        let mut lines = Vec::new();
        for line in &self.pending {
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
        }
        let first = self.place.seq + 1 - self.pending.len() as u64;
        store.append(&lines, first)?;
        self.pending.clear();
        self.figures.pending.store(0, Ordering::Relaxed);
        self.figures.seq.store(self.place.seq, Ordering::Relaxed);
        // The records are safe; a head that is behind only means that a cut would be noticed later.
        if let Err(error) = store.write_head(&self.place, key) {
            tracing::warn!(%error, "the head of the audit log cannot be written");
        }
        Ok(())
    }

    /// Opens the log, unless that was tried just now.
    fn reopen(&mut self) -> bool {
        let now = clock::now();
        if self.tried.is_some_and(|tried| now.since(tried) < RETRY) {
            return false;
        }
        self.tried = Some(now);
        let opened = store::signing_key(&self.key_folder)
            .and_then(|key| Ok((Store::open(&self.folder, self.rotate_bytes)?, key)));
        match opened {
            Ok(((store, found), key)) => {
                if !self.begun {
                    (self.gap.torn_bytes, self.gap.cut_records) = (found.torn_bytes, found.cut_records);
                    self.renumber(found.place);
                }
                if !self.begun {
                    tracing::info!(
                        folder = %self.folder.display(),
                        seq = self.place.seq,
                        public_key = super::public_key_text(&key).trim(),
                        "break-glass: the audit log is open; keep its public key elsewhere"
                    );
                }
                self.begun = true;
                if found.cut_records > 0 {
                    self.figures.cut.fetch_add(found.cut_records, Ordering::Relaxed);
                    tracing::error!(
                        records = found.cut_records,
                        folder = %self.folder.display(),
                        "the end of the audit log was cut: its head knows of records that it has no more"
                    );
                }
                self.open = Some((store, key));
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Records that were numbered before the log could be read get their place behind what is in it.
    fn renumber(&mut self, place: Place) {
        self.place = place;
        for line in std::mem::take(&mut self.pending) {
            let Ok(mut facts) = serde_json::from_str::<Map<String, Value>>(&line) else { continue };
            facts.remove("hash");
            let (place, line) = self.place.append(facts);
            self.place = place;
            self.pending.push_back(line);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        // Opened anew at the next try: a disk that was mounted again is another one.
        if self.open.take().is_some() {
            self.tried = Some(clock::now());
        }
        self.figures.pending.store(self.pending.len() as u64, Ordering::Relaxed);
        if !self.figures.failing.swap(true, Ordering::Relaxed) {
            self.gap.since = Some(shown::time_millis(clock::wall()));
            tracing::error!(
                folder = %self.folder.display(),
                %error,
                "the break-glass audit log cannot be written: the lane goes on, records stay in memory and are printed here"
            );
            for line in &self.pending {
                tracing::error!(audit = line, "audit record kept in memory: the disk takes none");
            }
        }
    }

    fn working(&self) {
        if self.figures.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(folder = %self.folder.display(), "the break-glass audit log is written again");
        }
    }
}
