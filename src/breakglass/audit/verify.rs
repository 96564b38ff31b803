//! Is an audit log whole?
//!
//! Files are put in the order of their first record and read line by line. Found are: a changed line, a line that is
//! missing, moved or added, a torn end, a cut at the end (by the signed head beside the log), records that the proxy
//! itself says it had to drop, and signatures that are not this proxy's. Without the public key hashes are compared, but
//! whoever can write all files could have made them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::chain::{self, Place};
use super::store::HEAD;

/// Findings that are listed; the rest is counted.
const FINDINGS_MAX: usize = 100;
/// Kinds of records that are counted; there are half as many. The rest is told as `other`.
const EVENTS_MAX: usize = 32;
/// Bytes of one file that is read: rotation keeps files far below.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What was found about a log.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Files in their order, with records and the numbers of the first and the last.
    pub files: Vec<FileSummary>,
    /// Everything that is wrong, in order.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub more: usize,
    /// Checkpoints that are there, and of these the ones whose signature was checked and good.
    pub checkpoints: (usize, usize),
    /// Records behind the last checkpoint, which only the head can vouch for.
    pub behind_checkpoint: u64,
    /// What the head beside the log said.
    pub head: Head,
    /// Number of the last record.
    pub last: u64,
    /// Records by what they tell of.
    pub events: BTreeMap<String, u64>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct FileSummary {
    /// As it was named.
    pub file: PathBuf,
    /// Lines in it.
    pub records: u64,
    /// Number of its first record.
    pub first: u64,
    /// Number of its last record.
    pub last: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong, and what it means.
    pub what: String,
}

/// The head beside a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// There is none: a cut at the end would not be seen.
    #[default]
    Missing,
    /// It fits, and was signed by the key.
    Signed,
    /// It fits; no key was given to check its signature.
    Unchecked,
    /// It is wrong, see the findings.
    Wrong,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn count(&mut self, event: &str) {
        let event =
            if self.events.len() < EVENTS_MAX || self.events.contains_key(event) { event } else { "other" };
        *self.events.entry(event.to_owned()).or_default() += 1;
    }

    fn find(&mut self, file: &Path, line: u64, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { file: file.to_owned(), line, what: what.into() });
        } else {
            self.more += 1;
        }
    }
}

/// What to verify.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The log's files, in any order.
    pub files: &'a [PathBuf],
    /// The proxy's public key, raw, if its signatures shall be checked.
    pub public_key: Option<&'a [u8]>,
    /// The number of the first record that must be there.
    pub from: u64,
}

/// Verifies a log.
///
/// # Errors
/// A file that cannot be read, by name.
pub fn verify(question: &Question<'_>) -> Result<Verdict, String> {
    let mut files = Vec::new();
    for file in question.files {
        let fail = |error: std::io::Error| format!("cannot read {}: {error}; check the path", file.display());
        let length = fs::metadata(file).map_err(fail)?.len();
        if length > FILE_BYTES_MAX {
            return Err(format!(
                "{} has {length} bytes, more than any audit log; check the path",
                file.display()
            ));
        }
        files.push((file.as_path(), fs::read(file).map_err(fail)?));
    }
    files.sort_by_key(|(_, bytes)| first_seq(bytes));
    let mut verdict = Verdict::default();
    let mut walk = Walk { place: None, from: question.from, public_key: question.public_key };
    for (file, bytes) in &files {
        walk.file(&mut verdict, file, bytes);
    }
    let end = walk.place.unwrap_or_default();
    verdict.last = end.seq;
    if let Some((file, _)) = files.last() {
        judge_head(&mut verdict, file, &end, question.public_key);
    }
    Ok(verdict)
}

/// A file whose first line cannot be read is looked at last, and complained about there.
fn first_seq(bytes: &[u8]) -> u64 {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    chain::read(line).map_or(u64::MAX, |line| line.seq)
}

struct Walk<'a> {
    /// Behind the last line that could be read.
    place: Option<Place>,
    from: u64,
    public_key: Option<&'a [u8]>,
}

impl Walk<'_> {
    fn file(&mut self, verdict: &mut Verdict, file: &Path, bytes: &[u8]) {
        let mut summary = FileSummary { file: file.to_owned(), records: 0, first: 0, last: 0 };
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let tail = lines.pop().unwrap_or_default();
        for (index, line) in lines.iter().enumerate() {
            let number = index as u64 + 1;
            summary.records += 1;
            match chain::read(line) {
                Ok(read) => {
                    if summary.first == 0 {
                        summary.first = read.seq;
                    }
                    summary.last = read.seq;
                    self.line(verdict, file, number, read);
                }
                // What follows is compared with what this line should have been, so that one change is one finding.
                Err(why) => {
                    verdict.find(file, number, why);
                    self.skip(line);
                }
            }
        }
        if !tail.is_empty() {
            let text = "the file ends in the middle of a line: it was cut, or the proxy writes it just now";
            verdict.find(file, summary.records + 1, text);
        }
        verdict.files.push(summary);
    }

    /// The line cannot be believed, but the next one says what came before it.
    fn skip(&mut self, line: &[u8]) {
        let Some(place) = &mut self.place else { return };
        place.seq += 1;
        // What the line itself claims; if that was changed, the next line will say so too.
        let digits = line.len().checked_sub(66).and_then(|start| line.get(start..start + 64));
        place.hash =
            digits.and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default().to_owned();
    }

    fn line(&mut self, verdict: &mut Verdict, file: &Path, number: u64, line: chain::Line) {
        let expected = self.place.clone().unwrap_or_else(|| {
            // Earlier files may have been retired; then only the order from here on can be judged.
            let hash = if self.from == 1 { chain::ORIGIN.to_owned() } else { line.prev.clone() };
            Place { seq: self.from - 1, hash }
        });
        match line.seq {
            seq if seq > expected.seq + 1 => {
                let (first, last) = (expected.seq + 1, seq - 1);
                verdict.find(
                    file,
                    number,
                    format!("records {first} to {last} are missing in front of this line"),
                );
            }
            seq if seq <= expected.seq => {
                let text = format!(
                    "record {seq} stands behind record {}: lines were moved or repeated",
                    expected.seq
                );
                verdict.find(file, number, text);
            }
            _ if line.prev != expected.hash => {
                verdict.find(
                    file,
                    number,
                    "it does not follow the line before it: a line was replaced or moved",
                );
            }
            _ => {}
        }
        verdict.behind_checkpoint += 1;
        if let Some(newer) =
            line.facts.get("v").and_then(Value::as_u64).filter(|format| *format > super::FORMAT)
        {
            let text = format!(
                "a record of format {newer}, this program knows {}: verify with the spillway that wrote it",
                super::FORMAT
            );
            verdict.find(file, number, text);
        }
        verdict.count(line.facts.get("event").and_then(Value::as_str).unwrap_or("other"));
        match line.facts.get("event").and_then(Value::as_str) {
            Some("checkpoint") => self.checkpoint(verdict, file, number, &line),
            Some("audit-gap") => gap(verdict, file, number, &line.facts),
            _ => {}
        }
        self.place = Some(Place { seq: line.seq, hash: line.hash });
    }

    fn checkpoint(&self, verdict: &mut Verdict, file: &Path, number: u64, line: &chain::Line) {
        verdict.checkpoints.0 += 1;
        verdict.behind_checkpoint = 0;
        let Some(key) = self.public_key else { return };
        let signature = line.facts.get("signature").and_then(Value::as_str).unwrap_or_default();
        if chain::is_signed(key, "checkpoint", line.seq - 1, &line.prev, signature) {
            verdict.checkpoints.1 += 1;
        } else {
            let text =
                "its signature is not of this public key: the log was made anew, or is of another proxy";
            verdict.find(file, number, text);
        }
    }
}

/// What the proxy itself says that it could not write.
fn gap(verdict: &mut Verdict, file: &Path, number: u64, facts: &Map<String, Value>) {
    let count = |key: &str| facts.get(key).and_then(Value::as_u64).unwrap_or(0);
    if count("lost") > 0 {
        let text =
            format!("{} records were lost here: the disk took none and memory was full", count("lost"));
        verdict.find(file, number, text);
    }
    if count("torn_bytes") > 0 {
        let text =
            format!("a line of {} bytes was torn by a crash in front of this one", count("torn_bytes"));
        verdict.find(file, number, text);
    }
}

fn judge_head(verdict: &mut Verdict, last_file: &Path, end: &Place, public_key: Option<&[u8]>) {
    let path = last_file.with_file_name(HEAD);
    let Ok(text) = fs::read_to_string(&path) else { return };
    let head = read_head(&text);
    let Some((place, signature)) = head else {
        verdict.head = Head::Wrong;
        return verdict.find(&path, 1, "it cannot be read as the head of a log: it was changed");
    };
    let signed = public_key.map(|key| chain::is_signed(key, "head", place.seq, &place.hash, &signature));
    verdict.head = if signed == Some(true) { Head::Signed } else { Head::Unchecked };
    if signed == Some(false) {
        verdict.head = Head::Wrong;
        verdict.find(&path, 1, "its signature is not of this public key");
    } else if place.seq > end.seq {
        verdict.head = Head::Wrong;
        let cut = place.seq - end.seq;
        verdict.find(
            last_file,
            0,
            format!("the log ends at record {}, the head knows {cut} more: its end was cut", end.seq),
        );
    } else if place.seq == end.seq && place.hash != end.hash {
        verdict.head = Head::Wrong;
        verdict.find(last_file, 0, "its last record is not the one that the head names");
    }
}

/// Number, hash and signature.
pub(super) fn read_head(text: &str) -> Option<(Place, String)> {
    let head: Map<String, Value> = serde_json::from_str(text).ok()?;
    let text = |key: &str| head.get(key).and_then(Value::as_str).map(str::to_owned);
    Some((Place { seq: head.get("seq")?.as_u64()?, hash: text("hash")? }, text("signature")?))
}
