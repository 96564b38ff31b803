//! How much of the trail is kept?
//!
//! The present file and a number of older ones, each of a bounded size, so that a storm cannot fill the disk. The
//! newest set-aside file is `.1`, as logrotate names them. Nobody but the owner may read them: they name users.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::AuditSettings;

/// Bytes that are gathered before they are written: one write for some eighty records in a storm.
const BUFFER_BYTES: usize = 64 << 10;

/// The file that is written now, and the rule for those before it.
pub(super) struct Rotated {
    settings: AuditSettings,
    file: File,
    /// Bytes in the file.
    length: u64,
    buffer: Vec<u8>,
    /// Records in the buffer.
    gathered: u64,
}

impl Rotated {
    /// Goes on with the file that the last process wrote.
    pub(super) fn open(settings: &AuditSettings) -> io::Result<Self> {
        if let Some(folder) = settings.file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = open(&settings.file)?;
        let length = file.metadata()?.len();
        let mut rotated = Self {
            settings: settings.clone(),
            file,
            length,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            gathered: 0,
        };
        // A torn last line, of a process that was killed, must not swallow the first of this one.
        if length > 0 && !ends_a_line(&settings.file)? {
            rotated.file.write_all(b"\n")?;
            rotated.length += 1;
        }
        Ok(rotated)
    }

    /// Adds a line; says how many records reached the file by that, or how many are lost, this one among them.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<u64, (io::Error, u64)> {
        let mut written = 0;
        let before = self.length + self.buffer.len() as u64;
        let is_full = before > 0 && before + line.len() as u64 > self.settings.max_bytes;
        if is_full || self.buffer.len() + line.len() > BUFFER_BYTES {
            written = self.flush().map_err(|(error, lost)| (error, lost + 1))?;
        }
        if is_full {
            self.rotate().map_err(|error| (error, 1))?;
        }
        self.buffer.extend_from_slice(line);
        self.gathered += 1;
        Ok(written)
    }

    /// Writes what was gathered; says how many records that were, or that they are lost.
    pub(super) fn flush(&mut self) -> Result<u64, (io::Error, u64)> {
        let gathered = std::mem::take(&mut self.gathered);
        let wrote = self.file.write_all(&self.buffer);
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        wrote.map_or_else(|error| Err((error, gathered)), |()| Ok(gathered))
    }

    fn rotate(&mut self) -> io::Result<()> {
        let file = &self.settings.file;
        for number in (1..self.settings.max_backups).rev() {
            move_over(&aside(file, number), &aside(file, number + 1))?;
        }
        match self.settings.max_backups {
            0 => fs::remove_file(file)?,
            _ => move_over(file, &aside(file, 1))?,
        }
        self.file = open(file)?;
        self.length = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn ends_a_line(path: &Path) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The name of the set-aside file `number`.
fn aside(file: &Path, number: u32) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Moves a file if it is there.
fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
