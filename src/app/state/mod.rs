//! What does this process know that it should still know after a restart?
//!
//! What calls cost in calm. It is written every minute and at the end, beside the old file and then in its place, so
//! that a crash leaves one whole file. A file that cannot be believed is set aside for somebody to look at, and the
//! proxy starts cold: nothing about state may ever keep it from starting or from working.

pub mod file;
mod format;
mod place;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::flow::{Remembered, Scheduler};
use crate::gateway::Gate;

pub(in crate::app) use self::format::checksum;
pub(in crate::app) use self::place::Place;

/// How often it is written: a minute of learning is what a crash may cost.
const EVERY: Duration = Duration::from_secs(60);
/// How long a writing is waited for: a disk that hangs must not keep the process from ending.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// The file's name in the folder.
const NAME: &str = "state.json";

/// The folder that state is kept in.
#[derive(Clone, Debug)]
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Gives the scheduler back what it knew, if there is a file that can be believed.
    pub(super) fn recall(&self, scheduler: &mut Scheduler) {
        let file = self.file();
        let shown = file.display();
        let bytes = match self.place().read(format::BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::info!(file = %shown, "no state file: starts cold, and learns what calls cost anew");
                return;
            }
            Err(error) => {
                tracing::warn!(file = %shown, %error, "the state file cannot be read: starts cold");
                return;
            }
        };
        match format::read(&bytes, clock::wall()) {
            Ok((remembered, age)) => {
                let calls = scheduler.recall(&remembered, age);
                tracing::info!(file = %shown, calls, age = ?age, "what calls cost was taken over");
            }
            Err(distrust) => {
                let aside = self.set_aside(clock::wall());
                let aside = aside
                    .map_or_else(|error| format!("not moved: {error}"), |aside| aside.display().to_string());
                tracing::warn!(
                    file = %shown,
                    reason = %distrust,
                    aside,
                    "the state file is not believed: it was set aside, starts cold"
                );
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.place().file()
    }

    fn place(&self) -> Place {
        Place { folder: self.folder.clone(), name: NAME }
    }

    fn set_aside(&self, now: SystemTime) -> io::Result<PathBuf> {
        self.place().set_aside(now)
    }

    /// Writes a whole new file, then puts it in the old one's place.
    fn write(&self, remembered: &Remembered, now: SystemTime) -> io::Result<()> {
        self.place().write(&format::write(remembered, now))
    }
}

/// Writes what the gate's scheduler learns, now and then.
pub(super) struct Writer {
    state: State,
    gate: Arc<Gate>,
    /// A writing that has not come back from the disk yet; there is never a second one beside it.
    writing: Option<JoinHandle<io::Result<()>>>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(state: State, gate: Arc<Gate>) -> Self {
        Self { state, gate, writing: None, failing: false }
    }

    /// Writes until `end` resolves, then once more.
    pub(super) async fn run(mut self, end: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = ticks.tick() => self.write().await,
            }
        }
        self.write().await;
    }

    /// On a thread that may wait for a disk; the scheduler's clock must not.
    async fn write(&mut self) {
        let mut writing = self.writing.take().unwrap_or_else(|| {
            let (state, remembered) = (self.state.clone(), self.gate.remember());
            tokio::task::spawn_blocking(move || state.write(&remembered, clock::wall()))
        });
        let written = match tokio::time::timeout(WRITE_WITHIN, &mut writing).await {
            Ok(written) => written.unwrap_or_else(|gone| Err(io::Error::other(gone))),
            Err(_elapsed) => {
                self.writing = Some(writing);
                Err(ErrorKind::TimedOut.into())
            }
        };
        self.tell(&written);
    }

    fn tell(&mut self, written: &io::Result<()>) {
        let folder = self.state.folder.display();
        match written {
            Ok(()) if self.failing => tracing::info!(%folder, "state is written again"),
            Err(error) if !self.failing => tracing::warn!(
                %folder,
                %error,
                "state cannot be written: after a restart this proxy starts cold; check state.dir and its rights"
            ),
            _ => {}
        }
        self.failing = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::flow::{RememberedCall, Settings};

    fn scheduler() -> Scheduler {
        Scheduler::new(Settings::default(), 1, clock::now())
    }

    fn remembered() -> Remembered {
        let call = RememberedCall { exact: 1, family: 2, baseline: 3_000.0, ..RememberedCall::default() };
        Remembered { version: Remembered::VERSION, limit: 64.0, probes: [0.0; 3], calls: vec![call] }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_is_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path().join("below"));
        // What a crash left.
        fs::create_dir_all(&state.folder).unwrap();
        fs::write(state.folder.join("state.json.new"), b"half").unwrap();
        for _ in 0..2 {
            state.write(&remembered(), clock::wall()).unwrap();
        }
        assert_eq!(names(&state.folder), ["state.json"]);
        let (read, _) = format::read(&fs::read(state.file()).unwrap(), clock::wall()).unwrap();
        assert_eq!(read, remembered());
    }

    #[test]
    fn a_broken_file_is_set_aside_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path().to_owned());
        for seconds in [5, 10, 20, 100] {
            fs::write(state.file(), b"{").unwrap();
            state.set_aside(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        let kept = ["state.json.corrupt-10", "state.json.corrupt-100", "state.json.corrupt-20"];
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn whatever_is_in_the_folder_the_scheduler_starts() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path().to_owned());
        state.recall(&mut scheduler());
        assert!(names(folder.path()).is_empty());
        fs::write(state.file(), b"not ours").unwrap();
        state.recall(&mut scheduler());
        assert_eq!(names(folder.path()).len(), 1);
        assert!(names(folder.path())[0].starts_with("state.json.corrupt-"));
        fs::create_dir(state.file()).unwrap();
        state.recall(&mut scheduler());
    }
}
