//! Which files with certificates and keys have changed, and are they usable?
//!
//! Looked at every second from the control thread: by inode, size and time of change, then by content, so that a
//! symbolic link that is turned (a ConfigMap or Secret) counts and a mere `touch` does not. A change is read once nothing
//! has moved for a second: certificate and key are two files, and a file may be half written. What is not usable changes
//! nothing: the last good one stays in force, and metric and log say why. Polled and not notified: a dozen `stat` calls a
//! second cost less than the cases in which a watch on a directory that is replaced stays silent.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::expiry::Expiries;
use crate::telemetry::Metrics;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks between two checks of when certificates end.
const EXPIRY_EVERY: u32 = 3_600;

/// Reads the files of one thing anew. The error says which file and why.
type Load = Box<dyn Fn() -> Result<(), String> + Send>;

/// Somebody wants all files read now, changed or not, and to hear what came of it.
pub(super) type Ask = oneshot::Sender<Reread>;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reread {
    /// Things whose files were read.
    pub(super) read: usize,
    /// Those of them that cannot be used; what was read before stays in force.
    pub(super) failed: usize,
}

/// Everything that is watched.
pub(super) struct Watch {
    items: Vec<Item>,
    expiries: Expiries,
    metrics: Arc<Metrics>,
    looks: u32,
}

/// Who counts and logs what came of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// This file, as it does for certificates and keys.
    Here,
    /// Whoever loads it.
    ByLoader,
}

struct Item {
    /// For metric and log.
    what: &'static str,
    told: Told,
    files: Vec<PathBuf>,
    load: Load,
    marks: Vec<Option<Mark>>,
    /// Digest of the contents that are in force, or that were found not to be usable.
    read: Option<Vec<u8>>,
    moved: bool,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Watch {
    pub(super) fn new(expiries: Expiries, metrics: Arc<Metrics>) -> Self {
        Self { items: Vec::new(), expiries, metrics, looks: 0 }
    }

    /// Watches `files`, which have just been read, and calls `load` when they change.
    pub(super) fn add<E: std::error::Error>(
        &mut self,
        what: &'static str,
        files: impl IntoIterator<Item = PathBuf>,
        load: impl Fn() -> Result<(), E> + Send + 'static,
    ) {
        let files: Vec<_> = files.into_iter().collect();
        let marks = marks(&files);
        let read = digest(&files);
        let load = Box::new(move || load().map_err(|error| super::chain(&error)));
        self.items.push(Item { what, told: Told::Here, files, load, marks, read, moved: false });
    }

    /// Watches `files`, which have just been read; `load` says by itself what came of a change.
    pub(super) fn follow(&mut self, files: Vec<PathBuf>, load: impl Fn() + Send + 'static) {
        let (marks, read) = (marks(&files), digest(&files));
        let load: Load = Box::new(move || {
            load();
            Ok(())
        });
        self.items.push(Item {
            what: "configuration",
            told: Told::ByLoader,
            files,
            load,
            marks,
            read,
            moved: false,
        });
    }

    /// Watches for ever, and reads everything when `asked`.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let answer = tokio::select! {
                _ = ticks.tick() => None,
                Some(answer) = asked.recv() => Some(answer),
            };
            // Disks may hang; probes and metrics must not hang with them.
            let looked = tokio::task::spawn_blocking(move || {
                match answer {
                    None => self.look(),
                    Some(answer) => {
                        // Who asked may have gone.
                        let _ = answer.send(self.read_all());
                    }
                }
                self
            });
            match looked.await {
                Ok(watch) => self = watch,
                Err(error) => {
                    tracing::error!(%error, "files are no longer watched for changes; restart spillway");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let mut changed = self.looks.is_multiple_of(EXPIRY_EVERY);
        self.looks = self.looks.wrapping_add(1);
        for item in &mut self.items {
            if let Some(result) = item.look().filter(|_| item.told == Told::Here) {
                changed = true;
                tell(&self.metrics, item.what, result);
            }
        }
        if changed {
            self.expiries.tell(&self.metrics, crate::clock::wall());
        }
    }

    /// Reads every file, changed or not.
    fn read_all(&mut self) -> Reread {
        let mut failed = 0;
        for item in &mut self.items {
            let result = item.read();
            failed += usize::from(result.is_err());
            if item.told == Told::Here {
                tell(&self.metrics, item.what, result);
            }
        }
        self.expiries.tell(&self.metrics, crate::clock::wall());
        Reread { read: self.items.len(), failed }
    }
}

fn tell(metrics: &Metrics, what: &'static str, result: Result<(), String>) {
    metrics.credential_reloaded(what, result.is_ok());
    match result {
        Ok(()) => tracing::info!(what, "changed files are in force"),
        Err(reason) => {
            tracing::error!(
                what,
                reason,
                "changed files cannot be used: what was read before stays in force"
            );
        }
    }
}

impl Item {
    /// The outcome, if the files were read anew.
    fn look(&mut self) -> Option<Result<(), String>> {
        let marks = marks(&self.files);
        if marks != self.marks {
            self.marks = marks;
            self.moved = true;
            return None;
        }
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let read = digest(&self.files);
        if read.is_some() && read == self.read {
            return None;
        }
        self.read = read;
        Some((self.load)())
    }

    /// Reads them, changed or not.
    fn read(&mut self) -> Result<(), String> {
        // Taken before, so that a change in between is seen by the next look.
        (self.marks, self.read, self.moved) = (marks(&self.files), digest(&self.files), false);
        (self.load)()
    }
}

fn marks(files: &[PathBuf]) -> Vec<Option<Mark>> {
    let mark = |file: &PathBuf| {
        let facts = std::fs::metadata(file).ok()?;
        let changed = (facts.ctime(), facts.ctime_nsec());
        Some(Mark { device: facts.dev(), inode: facts.ino(), size: facts.size(), changed })
    };
    files.iter().map(mark).collect()
}

/// `None` when one of them cannot be read: whoever loads it will say why.
fn digest(files: &[PathBuf]) -> Option<Vec<u8>> {
    let mut context = Context::new(&SHA256);
    for file in files {
        let contents = std::fs::read(file).ok()?;
        context.update(&(contents.len() as u64).to_be_bytes());
        context.update(&contents);
    }
    Some(context.finish().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Desk {
        folder: tempfile::TempDir,
        watch: Watch,
        loads: Arc<AtomicUsize>,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("first")).unwrap();
            std::fs::write(folder.path().join("first/ca.crt"), "good").unwrap();
            std::os::unix::fs::symlink("first", folder.path().join("data")).unwrap();
            let path = folder.path().join("data/ca.crt");
            let mut watch = Watch::new(Expiries::default(), Arc::new(Metrics::new().unwrap()));
            let loads = Arc::new(AtomicUsize::new(0));
            let (count, file) = (Arc::clone(&loads), path.clone());
            watch.add("client_ca", [path], move || {
                count.fetch_add(1, Ordering::Relaxed);
                match std::fs::read_to_string(&file)?.as_str() {
                    "bad" => Err(std::io::Error::other("not a certificate")),
                    _ => Ok(()),
                }
            });
            Self { folder, watch, loads }
        }

        fn loads(&mut self) -> usize {
            // One look sees the change, the next that it has settled.
            self.watch.look();
            self.watch.look();
            self.loads.load(Ordering::Relaxed)
        }

        fn scrape(&self) -> String {
            self.watch.metrics.registered()
        }
    }

    #[test]
    fn a_file_is_read_when_its_content_has_changed_and_settled() {
        let mut desk = Desk::new();
        let path = desk.folder.path().join("first/ca.crt");
        assert_eq!(desk.loads(), 0);
        std::fs::write(&path, "good").unwrap();
        assert_eq!(desk.loads(), 0, "written, but the same");
        std::fs::write(&path, "better").unwrap();
        desk.watch.look();
        std::fs::write(&path, "best").unwrap();
        desk.watch.look();
        assert_eq!(desk.loads.load(Ordering::Relaxed), 0, "it still moves");
        assert_eq!(desk.loads(), 1);
        assert_eq!(desk.loads(), 1);
    }

    #[test]
    fn a_symbolic_link_that_is_turned_is_a_change() {
        let mut desk = Desk::new();
        std::fs::create_dir(desk.folder.path().join("second")).unwrap();
        std::fs::write(desk.folder.path().join("second/ca.crt"), "next").unwrap();
        std::os::unix::fs::symlink("second", desk.folder.path().join("turned")).unwrap();
        std::fs::rename(desk.folder.path().join("turned"), desk.folder.path().join("data")).unwrap();
        assert_eq!(desk.loads(), 1);
    }

    #[test]
    fn who_asks_has_everything_read_at_once() {
        let mut desk = Desk::new();
        assert_eq!(desk.watch.read_all(), Reread { read: 1, failed: 0 });
        assert_eq!(desk.loads.load(Ordering::Relaxed), 1, "read although nothing has changed");
        std::fs::write(desk.folder.path().join("first/ca.crt"), "bad").unwrap();
        assert_eq!(desk.watch.read_all(), Reread { read: 1, failed: 1 });
        assert_eq!(desk.loads(), 2, "what was read is not read again");
    }

    #[test]
    fn what_cannot_be_used_is_counted_and_the_next_change_is_read() {
        let mut desk = Desk::new();
        let path = desk.folder.path().join("first/ca.crt");
        std::fs::write(&path, "bad").unwrap();
        assert_eq!(desk.loads(), 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(desk.loads(), 2);
        std::fs::write(&path, "good again").unwrap();
        assert_eq!(desk.loads(), 3);
        let scrape = desk.scrape();
        for (result, count) in [("failed", 2), ("ok", 1)] {
            let line = format!(
                "spillway_credential_reloads_total{{result=\"{result}\",what=\"client_ca\"}} {count}"
            );
            assert!(scrape.contains(&line), "{line} is not in\n{scrape}");
        }
    }
}
