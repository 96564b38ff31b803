//! Who was given a break-glass certificate, and which of them are revoked?
//!
//! A folder beside the CA's key: `ca.crt`, `ca.key`, `issued.jsonl` (one line a certificate, appended) and
//! `revoked.txt` (the deny list that the lane reads). Nothing in it needs a network. New files never replace old ones:
//! a CA that is overwritten takes every certificate it signed with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::deny::{self, DenyList};
use super::shown::{self, Shown};

/// Bytes of the ledger that are read: some ten thousand certificates.
const LEDGER_BYTES_MAX: u64 = 8 << 20;

/// The folder of a CA.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// One certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Lower-case hex.
    pub serial: String,
    /// The person.
    pub user: String,
    /// The group that kube-apiserver is told.
    pub group: String,
    /// Whether it is a self-probe's.
    pub drill: bool,
    /// UTC.
    pub not_before: String,
    /// UTC.
    pub not_after: String,
    /// SHA-256, lower-case hex.
    pub fingerprint: String,
}

/// A file of the folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing failed.
    #[error("cannot {doing} {path}: {source}; {advice}")]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// The file.
        path: String,
        /// The system's word.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// Something is there that must not be lost.
    #[error("{0} exists already and is not overwritten; name another place, or move it away yourself")]
    Exists(String),
    /// A line that is none of ours.
    #[error("line {line} of {path} cannot be read ({reason}); move the line away and list again")]
    Line {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What the reader met.
        reason: String,
    },
}

impl Entry {
    /// The entry of a certificate.
    #[must_use]
    pub fn of(shown: &Shown, drill: bool) -> Self {
        Self {
            serial: shown.serial.clone(),
            user: shown.user.clone().unwrap_or_default(),
            group: shown.groups.first().cloned().unwrap_or_default(),
            drill,
            not_before: shown::time(shown.not_before),
            not_after: shown::time(shown.not_after),
            fingerprint: shown.fingerprint.clone(),
        }
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        shown::parse_time(&self.not_after).is_some_and(|end| end < now)
    }
}

impl Folder {
    /// The folder at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The CA's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// The CA's encrypted key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// The deny list.
    #[must_use]
    pub fn deny_file(&self) -> PathBuf {
        self.0.join("revoked.txt")
    }

    fn ledger(&self) -> PathBuf {
        self.0.join("issued.jsonl")
    }

    /// Whether a CA can be made here.
    ///
    /// # Errors
    /// When there is one already.
    pub fn check_free(&self) -> Result<(), LedgerError> {
        let taken = [self.certificate(), self.key()].into_iter().find(|file| file.exists());
        taken.map_or(Ok(()), |file| Err(LedgerError::Exists(file.display().to_string())))
    }

    /// Makes the folder, and in it the CA's two files.
    ///
    /// # Errors
    /// When one of them exists, or cannot be written.
    pub fn create(&self, certificate_pem: &str, sealed_key_pem: &str) -> Result<(), LedgerError> {
        self.check_free()?;
        fs::DirBuilder::new()
            .recursive(true)
            .create(&self.0)
            .map_err(|source| failed("make the folder", &self.0, source))?;
        write_new(&self.key(), sealed_key_pem, PRIVATE)?;
        write_new(&self.certificate(), certificate_pem, PUBLIC)
    }

    /// Both files of the CA: certificate and sealed key.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(&self) -> Result<(String, String), LedgerError> {
        let read = |path: PathBuf| {
            read_text(&path, LEDGER_BYTES_MAX).map_err(|error| match error {
                LedgerError::Io { doing, path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    let advice =
                        "name the CA's folder with --ca; `spillway break-glass ca init --out DIR` makes one";
                    LedgerError::Io { doing, path, source, advice }
                }
                other => other,
            })
        };
        Ok((read(self.certificate())?, read(self.key())?))
    }

    /// Writes down that a certificate was issued.
    ///
    /// # Errors
    /// When the ledger cannot be written; then nobody should get the certificate.
    pub fn add(&self, entry: &Entry) -> Result<(), LedgerError> {
        let path = self.ledger();
        let write = |source| failed("write", &path, source);
        let mut line = serde_json::to_string(entry).map_err(|error| write(error.into()))?;
        line.push('\n');
        let mut file =
            OpenOptions::new().append(true).create(true).mode(PRIVATE).open(&path).map_err(write)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(write)
    }

    /// Everything that was issued, oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let path = self.ledger();
        if !path.exists() {
            return Ok(vec![]);
        }
        let text = read_text(&path, LEDGER_BYTES_MAX)?;
        let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        numbered
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|error| LedgerError::Line {
                    path: path.display().to_string(),
                    line: index + 1,
                    reason: error.to_string(),
                })
            })
            .collect()
    }
}

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// The deny list at `path`; one that is not there denies nobody.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_deny_list(path: &Path) -> Result<DenyList, LedgerError> {
    if !path.exists() {
        return Ok(DenyList::default());
    }
    Ok(DenyList::parse(&read_text(path, deny::FILE_BYTES_MAX)?).0)
}

/// Adds entries to the deny list at `path`, as one whole new file: a lane that reads it meanwhile sees the old or the
/// new one.
///
/// # Errors
/// When it cannot be read or written.
pub fn deny(path: &Path, entries: &[&Entry], reason: &str, now: SystemTime) -> Result<(), LedgerError> {
    const HEAD: &str = "# spillway break-glass: certificates that open the lane no more. One serial number or fingerprint \
                        a line;\n# what follows it is a comment. The lane reads this file again when it changes.\n";
    let mut text = if path.exists() { read_text(path, deny::FILE_BYTES_MAX)? } else { HEAD.to_owned() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in entries {
        let plain: String = reason.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("{}  {}, revoked {}: {plain}\n", entry.serial, entry.user, shown::time(now)));
    }
    let new = path.with_extension("new");
    // What a crash left behind is no file of ours to follow or to fill up.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &new, error)),
        _ => {}
    }
    write_new(&new, &text, PUBLIC)?;
    fs::rename(&new, path).map_err(|source| failed("replace", path, source))
}

/// Writes a file that must not exist yet.
///
/// # Errors
/// When it does, or cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), LedgerError> {
    write_new(path, text, PRIVATE)
}

/// The same for what everybody may read.
///
/// # Errors
/// See [`write_private`].
pub fn write_public(path: &Path, text: &str) -> Result<(), LedgerError> {
    write_new(path, text, PUBLIC)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), LedgerError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(LedgerError::Exists(path.display().to_string()));
        }
        Err(error) => return Err(failed("write", path, error)),
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| failed("write", path, source))
}

/// A whole text of at most `most` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_text(path: &Path, most: u64) -> Result<String, LedgerError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(most + 1).read_to_string(&mut text)?;
        if text.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    };
    read().map_err(|source| failed("read", path, source))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> LedgerError {
    let advice = match source.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the owner and mode of it and of its folder",
        io::ErrorKind::StorageFull => "make room on that disk",
        io::ErrorKind::FileTooLarge => "check that it is the right file",
        _ => "check the path and the disk",
    };
    LedgerError::Io { doing, path: path.display().to_string(), source, advice }
}
