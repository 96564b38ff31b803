//! How is one small file kept so that a crash leaves a whole one?
//!
//! It is written beside the old one, synced, and moved into its place. One that cannot be believed is set aside for
//! somebody to look at, and the newest few of those are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Files set aside that are kept; older ones are removed.
const SET_ASIDE_MAX: usize = 3;

/// A file in the state folder.
#[derive(Clone, Debug)]
pub(in crate::app) struct Place {
    pub(in crate::app) folder: PathBuf,
    pub(in crate::app) name: &'static str,
}

impl Place {
    /// Its path.
    pub(in crate::app) fn file(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    /// What is in it, and one byte more than `most`, so that too much is noticed.
    pub(in crate::app) fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.file())?.take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Moves the file out of the way and keeps the newest of those that were moved before.
    pub(in crate::app) fn set_aside(&self, now: SystemTime) -> io::Result<PathBuf> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = self.folder.join(format!("{}.corrupt-{seconds}", self.name));
        fs::rename(self.file(), &aside)?;
        let mut kept: Vec<(u64, PathBuf)> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.to_str()?;
                let seconds = name.strip_prefix(self.name)?.strip_prefix(".corrupt-")?.parse().ok()?;
                Some((seconds, path))
            })
            .collect();
        kept.sort();
        let surplus = kept.len().saturating_sub(SET_ASIDE_MAX);
        for (_, old) in &kept[..surplus] {
            // One that cannot be removed stays; the next time tries again.
            let _ = fs::remove_file(old);
        }
        Ok(aside)
    }

    /// Writes a whole new file, then puts it in the old one's place.
    pub(in crate::app) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let new = self.folder.join(format!("{}.new", self.name));
        // What a crash left behind is no file of ours to follow or to fill up.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.file())?;
        File::open(&self.folder)?.sync_all()
    }
}
