//! Which policies were in force, and what did they say?
//!
//! The last [`ENTRIES_MAX`], with their whole text, in one small file of the state folder with a checksum, as the levers
//! beside it. The newest one that was in force is what an operator means by "the last good one". A file that cannot be
//! believed is set aside, and history begins anew: it may never keep a proxy from starting.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::state::{Place, checksum};
use crate::clock;
use crate::config::{Diagnostics, PolicyText, TrafficPolicy, default_policy};
use crate::policy::rollout::{Rollout, Stage};

/// Policies that are kept.
pub(super) const ENTRIES_MAX: usize = 20;
/// Bytes of their texts together; the oldest go first.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Bytes of a file that are read at most: a text may grow by half when it is written as JSON.
const BYTES_MAX: u64 = 8 << 20;
/// The file's name in the state folder.
const NAME: &str = "config-history.json";
/// Changes with the layout.
const LAYOUT: u32 = 1;
/// What stands for a file where the policy is the binary's own.
pub(super) const EMBEDDED: &str = "(embedded)";

/// A policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) generation: u64,
    /// Hash of what it says.
    pub(super) hash: String,
    /// Since when, in seconds since 1970.
    pub(super) at: u64,
    /// What brought it.
    pub(super) by: String,
    /// Where it stood.
    pub(super) file: String,
    /// Its text; nothing for the embedded one.
    pub(super) text: Option<String>,
}

impl Entry {
    /// What it says.
    pub(super) fn policy(&self) -> Result<TrafficPolicy, Diagnostics> {
        match &self.text {
            Some(text) => PolicyText { file: self.file.clone(), text: text.clone() }.policy(),
            None => default_policy(),
        }
    }
}

/// A policy that an operator went back from although a file still has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Withdrawn {
    hash: String,
    text_sha256: String,
}

impl Withdrawn {
    pub(super) fn new(hash: &str, text: Option<&PolicyText>) -> Self {
        Self { hash: hash.to_owned(), text_sha256: text_hash(text) }
    }

    /// Whether a file has it still. The hash of what a policy says may change with the version of spillway.
    pub(super) fn is(&self, hash: &str, text: Option<&PolicyText>) -> bool {
        self.hash == hash || self.text_sha256 == text_hash(text)
    }
}

fn text_hash(text: Option<&PolicyText>) -> String {
    text.map_or_else(|| EMBEDDED.to_owned(), |text| checksum(text.text.as_bytes()))
}

/// Hash of what a policy says, whatever its text looks like: equal on all instances that should be equal.
pub(super) fn hash(policy: &TrafficPolicy) -> String {
    let mut hash = checksum(format!("{policy:?}").as_bytes());
    hash.truncate(12);
    hash
}

/// The last policies, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) withdrawn: Option<Withdrawn>,
    #[serde(default)]
    pub(super) rollout: Option<Rolled>,
}

/// A rollout, and of which steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rolled {
    stage: String,
    step: usize,
    passed_seconds: u64,
    failures: u32,
    of: String,
}

impl Rolled {
    pub(super) fn new(rollout: &Rollout, policy: &TrafficPolicy) -> Self {
        Self {
            stage: rollout.stage.as_str().to_owned(),
            step: rollout.step,
            passed_seconds: rollout.passed.as_secs(),
            failures: rollout.failures,
            of: steps_hash(policy),
        }
    }

    /// What it was, if the policy still says the same about how it comes into force.
    pub(super) fn of(&self, policy: &TrafficPolicy) -> Option<Rollout> {
        let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == self.stage)?;
        let passed = Duration::from_secs(self.passed_seconds);
        let rollout = Rollout { stage, step: self.step, passed, failures: self.failures };
        (self.of == steps_hash(policy)).then_some(rollout)
    }
}

fn steps_hash(policy: &TrafficPolicy) -> String {
    checksum(format!("{:?}{:?}", policy.enforcement, policy.rollout).as_bytes())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    layout: u32,
    sha256: String,
}

impl History {
    /// The newest one.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    pub(super) fn of(&self, generation: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.generation == generation)
    }

    /// Adds the next one; its generation is one more than the last.
    pub(super) fn add(&mut self, policy: &TrafficPolicy, text: Option<&PolicyText>, by: &str) -> u64 {
        let generation = self.last().map_or(1, |last| last.generation.saturating_add(1));
        self.entries.push(Entry {
            generation,
            hash: hash(policy),
            at: seconds(),
            by: by.to_owned(),
            file: text.map_or(EMBEDDED, |text| &text.file).to_owned(),
            text: text.map(|text| text.text.clone()),
        });
        let bytes = |entries: &[Entry]| -> usize {
            entries.iter().filter_map(|entry| entry.text.as_ref()).map(String::len).sum()
        };
        while self.entries.len() > ENTRIES_MAX
            || self.entries.len() > 1 && bytes(&self.entries) > TEXT_BYTES_MAX
        {
            self.entries.remove(0);
        }
        generation
    }

    fn to_bytes(&self) -> Vec<u8> {
        // Plain fields of plain structs always serialise.
        let body = serde_json::to_vec(self).unwrap_or_default();
        let head = Head { layout: LAYOUT, sha256: checksum(&body) };
        let mut file = serde_json::to_vec(&head).unwrap_or_default();
        file.push(b'\n');
        file.extend_from_slice(&body);
        file.push(b'\n');
        file
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > BYTES_MAX {
            return Err(format!("it is larger than {BYTES_MAX} bytes; spillway writes less"));
        }
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let head: Head = serde_json::from_slice(lines.next().unwrap_or_default())
            .map_err(|error| format!("its head is not what spillway writes: {error}"))?;
        if head.layout != LAYOUT {
            return Err(format!("it has layout {}, this spillway writes {LAYOUT}", head.layout));
        }
        let body = lines.next().and_then(|rest| rest.strip_suffix(b"\n")).unwrap_or_default();
        if checksum(body) != head.sha256 {
            return Err("its checksum is not that of its content".to_owned());
        }
        let history: Self = serde_json::from_slice(body)
            .map_err(|error| format!("its content is not what spillway writes: {error}"))?;
        let rising = history.entries.windows(2).all(|pair| pair[0].generation < pair[1].generation);
        match rising && history.entries.len() <= ENTRIES_MAX {
            true => Ok(history),
            false => Err("its generations do not rise, or are too many".to_owned()),
        }
    }

    /// What the state folder has, for whoever only reads.
    ///
    /// # Errors
    /// Why nothing can be read.
    pub(super) fn read(folder: PathBuf) -> Result<Self, String> {
        let place = Place { folder, name: NAME };
        let shown = place.file().display().to_string();
        let bytes = place.read(BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
        Self::of_bytes(&bytes).map_err(|why| format!("{shown}: {why}"))
    }
}

/// Where history is kept.
pub(super) struct Shelf(Option<Place>);

impl Shelf {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder.map(|folder| Place { folder, name: NAME }))
    }

    /// What the last process left.
    pub(super) fn recall(&self) -> History {
        let Some(place) = &self.0 else { return History::default() };
        let shown = place.file().display().to_string();
        let why = match place.read(BYTES_MAX) {
            Ok(bytes) => match History::of_bytes(&bytes) {
                Ok(history) => return history,
                Err(why) => why,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => return History::default(),
            Err(error) => {
                tracing::warn!(file = shown, %error, "the policies of before cannot be read: history begins anew");
                return History::default();
            }
        };
        let aside = place.set_aside(clock::wall());
        let aside =
            aside.map_or_else(|error| format!("not moved: {error}"), |aside| aside.display().to_string());
        tracing::warn!(
            file = shown,
            reason = why,
            aside,
            "the file of policies is not believed: it was set aside, history begins anew"
        );
        History::default()
    }

    /// Writes it; what cannot be written is told, and changes nothing about what is in force.
    pub(super) fn keep(&self, history: &History) {
        let Some(place) = &self.0 else { return };
        if let Err(error) = place.write(&history.to_bytes()) {
            tracing::warn!(
                file = %place.file().display(),
                %error,
                "the policy is in force, but would not be known after a restart"
            );
        }
    }
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> PolicyText {
        let text = format!("apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: {name}\n");
        PolicyText { file: "policy.yaml".into(), text }
    }

    fn added(history: &mut History, name: &str) -> u64 {
        let text = text(name);
        history.add(&text.policy().unwrap(), Some(&text), "test")
    }

    #[test]
    fn the_newest_policies_are_kept_and_generations_go_on() {
        let mut history = History::default();
        for number in 1..=30 {
            assert_eq!(added(&mut history, &format!("p{number}")), number);
        }
        assert_eq!(history.entries.len(), ENTRIES_MAX);
        assert_eq!((history.entries[0].generation, history.last().unwrap().generation), (11, 30));
        assert_eq!(history.of(12).unwrap().policy().unwrap().name, "p12");
        assert_eq!(history.of(3), None);
    }

    #[test]
    fn texts_together_are_bounded_and_the_newest_always_stays() {
        let mut history = History::default();
        let large = |name: &str| PolicyText {
            text: format!("{}# {}\n", text(name).text, "x".repeat(3 << 20)),
            ..text(name)
        };
        for name in ["a", "b"] {
            let text = large(name);
            history.add(&text.policy().unwrap(), Some(&text), "test");
        }
        assert_eq!(history.entries.iter().map(|entry| entry.generation).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_file_comes_back_whole_and_with_any_byte_changed_not_at_all() {
        let mut history = History::default();
        added(&mut history, "a");
        history.add(&default_policy().unwrap(), None, "test");
        history.withdrawn = Some(Withdrawn::new("abc", Some(&text("a"))));
        let bytes = history.to_bytes();
        assert_eq!(History::of_bytes(&bytes).unwrap(), history);
        for index in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[index] ^= 0x11;
            assert!(History::of_bytes(&broken).is_err(), "byte {index}");
        }
        for length in 0..bytes.len() {
            assert!(History::of_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_withdrawn_policy_is_known_by_what_it_says_and_by_its_text() {
        let withdrawn = Withdrawn::new("abc", Some(&text("a")));
        assert!(withdrawn.is("abc", Some(&text("other"))));
        assert!(withdrawn.is("of another version", Some(&text("a"))));
        assert!(!withdrawn.is("def", Some(&text("b"))) && !withdrawn.is("def", None));
    }

    #[test]
    fn the_hash_is_of_what_a_policy_says_and_not_of_its_text() {
        let commented = PolicyText { text: format!("# a comment\n{}", text("a").text), ..text("a") };
        assert_eq!(hash(&text("a").policy().unwrap()), hash(&commented.policy().unwrap()));
        assert_ne!(hash(&text("a").policy().unwrap()), hash(&text("b").policy().unwrap()));
    }
}
