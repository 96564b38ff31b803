//! In which files does the audit log lie?
//!
//! One file that grows, set aside under the number of its first record when it is large enough; the newest of those are
//! kept. Beside it the head: number and hash of the last record, signed, so that a cut at the end is seen. A write that
//! fails half-way is taken back; a line that a crash tore is cut off and told about in the next record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::json;

use super::chain::{self, Place};
use super::verify;

/// The file that grows.
pub(super) const CURRENT: &str = "break-glass-audit.jsonl";
/// Number and hash of the last record.
pub(super) const HEAD: &str = "break-glass-audit.head";
/// Files set aside that are kept: with the default size a gigabyte, some million requests.
const KEPT_MAX: usize = 64;
/// Bytes at the end of a file that must hold its last line: a record is far shorter.
const TAIL_BYTES: u64 = 256 << 10;
const PRIVATE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// An open log.
pub(super) struct Store {
    folder: PathBuf,
    file: File,
    length: u64,
    rotate_bytes: u64,
    /// Number of the first record in the file; 0 while it is empty.
    first: u64,
}

/// What was found when the log was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Where the chain goes on.
    pub(super) place: Place,
    /// Bytes of a torn line that were cut off.
    pub(super) torn_bytes: u64,
    /// The head knew of records that the log has no more: how many.
    pub(super) cut_records: u64,
}

impl Store {
    /// Opens the log in `folder`, or begins one.
    pub(super) fn open(folder: &Path, rotate_bytes: u64) -> io::Result<(Self, Found)> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder)?;
        let path = folder.join(CURRENT);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)?;
        let length = file.metadata()?.len();
        let tail = tail(&mut file, length)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let torn_bytes = (tail.len() - whole) as u64;
        if torn_bytes > 0 {
            file.set_len(length - torn_bytes)?;
        }
        let length = length - torn_bytes;
        file.seek(SeekFrom::Start(length))?;
        let last = match last_place(&tail[..whole]) {
            Some(place) => Some(place),
            None => newest_set_aside(folder)?,
        };
        let mut found = Found { place: last.unwrap_or_default(), torn_bytes, cut_records: 0 };
        if let Some(head) = read_head(folder).filter(|head| head.seq > found.place.seq) {
            // Going on behind the head leaves a hole that verifying will always find.
            found.cut_records = head.seq - found.place.seq;
            found.place = head;
        }
        let first = if length == 0 { 0 } else { first_seq(&path) };
        Ok((Self { folder: folder.to_owned(), file, length, rotate_bytes, first }, found))
    }

    /// Appends whole lines, the first of them `first`, and asks the disk to keep them.
    pub(super) fn append(&mut self, lines: &[u8], first: u64) -> io::Result<()> {
        if self.length > 0 && self.length + lines.len() as u64 > self.rotate_bytes {
            self.rotate()?;
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay: the records are kept in memory and written again.
            // The log is opened anew before the next try, and that cuts a torn line off if this could not.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += lines.len() as u64;
        if self.first == 0 {
            self.first = first;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = self.folder.join(format!("break-glass-audit-{:012}.jsonl", self.first));
        fs::rename(self.folder.join(CURRENT), aside)?;
        let path = self.folder.join(CURRENT);
        self.file = OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE).open(path)?;
        (self.length, self.first) = (0, 0);
        let mut kept = set_aside(&self.folder)?;
        let surplus = kept.len().saturating_sub(KEPT_MAX);
        for old in kept.drain(..surplus) {
            // One that cannot be removed stays; the next rotation tries again.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// Writes down where the log ends.
    pub(super) fn write_head(&self, place: &Place, key: &Ed25519KeyPair) -> io::Result<()> {
        let signature = chain::sign(key, "head", place.seq, &place.hash);
        let text = json!({ "seq": place.seq, "hash": place.hash, "signature": signature }).to_string();
        let new = self.folder.join(format!("{HEAD}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(new, self.folder.join(HEAD))
    }
}

fn tail(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // No more than was there: what is written meanwhile is not ours.
    file.take(length - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Number and hash of the last line, as it claims them: whether it was changed is for whoever verifies.
fn last_place(lines: &[u8]) -> Option<Place> {
    let line = lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    if let Ok(line) = chain::read(line) {
        return Some(Place { seq: line.seq, hash: line.hash });
    }
    let claimed: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).ok()?;
    Some(Place { seq: claimed.get("seq")?.as_u64()?, hash: claimed.get("hash")?.as_str()?.to_owned() })
}

fn first_seq(path: &Path) -> u64 {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TAIL_BYTES).read_to_end(&mut start));
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    read.ok().and_then(|_| chain::read(line).ok()).map_or(0, |line| line.seq)
}

/// Files set aside, oldest first.
fn set_aside(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let number = name.strip_prefix("break-glass-audit-")?.strip_suffix(".jsonl")?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then_some(path)
        })
        .collect();
    found.sort();
    Ok(found)
}

fn newest_set_aside(folder: &Path) -> io::Result<Option<Place>> {
    let Some(newest) = set_aside(folder)?.pop() else { return Ok(None) };
    let mut file = File::open(newest)?;
    let length = file.metadata()?.len();
    Ok(last_place(&tail(&mut file, length)?))
}

fn read_head(folder: &Path) -> Option<Place> {
    let text = fs::read_to_string(folder.join(HEAD)).ok()?;
    verify::read_head(&text).map(|(place, _)| place)
}

/// The signing key in `folder`; it is made at the first start. Also writes its public half beside it.
pub(super) fn signing_key(folder: &Path) -> io::Result<Ed25519KeyPair> {
    const KEY: &str = "break-glass-audit.key";
    const KEY_BYTES_MAX: u64 = 4_096;
    let broken = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    fs::DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder)?;
    let path = folder.join(KEY);
    let key = match File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(KEY_BYTES_MAX).read_to_end(&mut bytes)?;
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes)
                .map_err(|_| broken("it holds no Ed25519 key; move it away, and a new one is made"))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = Ed25519KeyPair::generate().map_err(|_| broken("no key can be made"))?;
            let document = key.to_pkcs8().map_err(|_| broken("the new key cannot be written down"))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&path)?;
            file.write_all(document.as_ref()).and_then(|()| file.sync_all())?;
            key
        }
        Err(error) => return Err(error),
    };
    let public = folder.join("break-glass-audit.pub");
    let text = super::public_key_text(&key);
    if fs::read_to_string(&public).ok().as_deref() != Some(text.as_str()) {
        // It is there for whoever verifies; the log itself does not need it.
        let _ = fs::write(public, text);
    }
    Ok(key)
}
