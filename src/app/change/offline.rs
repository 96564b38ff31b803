//! What is left when a proxy cannot start with its files?
//!
//! A start with a broken policy is refused: whoever changed it is most likely looking. But a node that comes up again at
//! night must have a way, so the refusal names the last policy that was in force, and how to start with it.

use std::path::{Path, PathBuf};

use super::history::{Entry, History};
use super::show;
use crate::admin::wire_change::{ConfigHistory, PolicyView};
use crate::config::{self, Loaded, PolicyText};

/// The policies that a state folder has, for a process that is not the proxy.
#[derive(Debug)]
pub struct Kept(History);

impl Kept {
    /// Reads the folder.
    ///
    /// # Errors
    /// Why there is nothing to read.
    pub fn read(folder: &Path) -> Result<Self, String> {
        History::read(folder.to_owned()).map(Self)
    }

    /// All of them.
    #[must_use]
    pub fn history(&self) -> ConfigHistory {
        ConfigHistory {
            policies: self.0.entries.iter().map(|entry| show::policy(entry, show::Text::Without)).collect(),
        }
    }

    /// One of them, or the last.
    #[must_use]
    pub fn policy(&self, generation: Option<u64>) -> Option<PolicyView> {
        let entry = match generation {
            Some(generation) => self.0.of(generation),
            None => self.0.last(),
        };
        entry.map(|entry| show::policy(entry, show::Text::With))
    }
}

/// What could be started in place of files that are broken: the plumbing of those that are not, with the policy that was
/// in force last. Nothing when the plumbing is broken, nothing was kept, or what was kept cannot be used any more.
#[must_use]
pub fn last_good(files: &[PathBuf]) -> Option<(Loaded, PolicyView)> {
    let alone = |file: &&PathBuf| config::load(std::slice::from_ref(*file)).is_ok();
    let good: Vec<PathBuf> = files.iter().filter(alone).cloned().collect();
    let mut loaded = config::load(&good).ok()?;
    let folder = loaded.proxy.as_ref()?.state.as_ref()?.dir.clone();
    let history = History::read(folder).ok()?;
    let last: &Entry = history.last()?;
    loaded.policy = last.policy().ok()?;
    loaded.policy_text = last.text.clone().map(|text| PolicyText { file: last.file.clone(), text });
    Some((loaded, show::policy(last, show::Text::Without)))
}
