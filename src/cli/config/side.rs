//! Which configuration is meant: files, the policy in force, or one of before?

use std::io::Write;
use std::path::{Path, PathBuf};

use super::Ending;
use super::show::of_folder;
use crate::admin::wire::Problem;
use crate::admin::wire_change::{ConfigView, PolicyView};
use crate::cli::shown::plain;
use crate::cli::socket::{Failure, Where};
use crate::config::{self, Colour, Diagnostics, Effective, PolicyText};

/// A configuration with its defaults, and what it is called.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) documents: Vec<Effective>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoSide {
    /// Nobody answers, or there is no such policy.
    Asked(Failure),
    /// A state folder cannot be used.
    Folder(String),
    /// It is not a configuration.
    Invalid(Diagnostics),
}

impl NoSide {
    /// Says it and ends.
    pub(super) fn tell(&self, err: &mut dyn Write) -> Ending {
        match self {
            Self::Asked(failure) => failure.tell(err),
            Self::Folder(message) => {
                let _ = writeln!(err, "error: {}", plain(message));
                Ending::Failed
            }
            Self::Invalid(found) => {
                let _ = writeln!(err, "{}", config::human(found, Colour::Never));
                Ending::Config
            }
        }
    }
}

/// Where a policy of before is looked for.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    pub(super) state: Option<&'a Path>,
    pub(super) at: &'a Where,
}

impl Kept<'_> {
    /// The policy of a number, or the one in force.
    pub(super) fn view(&self, generation: Option<u64>) -> Result<ConfigView, NoSide> {
        if let Some(folder) = self.state {
            let policy = of_folder(folder, generation).map_err(NoSide::Folder)?;
            return Ok(ConfigView { policy, ..ConfigView::default() });
        }
        let query = generation.map_or_else(String::new, |number| format!("?generation={number}"));
        self.at.get(&format!("/v1/config{query}")).map_err(NoSide::Asked)
    }

    /// The same with its defaults.
    pub(super) fn side(&self, generation: Option<u64>) -> Result<Side, NoSide> {
        of_policy(&self.view(generation)?.policy, generation.is_none())
    }
}

/// What files say.
pub(super) fn of_files(files: &[PathBuf]) -> Result<Side, NoSide> {
    let documents = config::effective(files).map_err(NoSide::Invalid)?;
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Ok(Side { name: names.join(" "), documents })
}

/// What a kept policy says.
pub(super) fn of_policy(policy: &PolicyView, in_force: bool) -> Result<Side, NoSide> {
    let PolicyView { generation, hash, file, text, .. } = policy;
    let kept = text.clone().map(|text| PolicyText { file: file.clone(), text });
    let document = config::effective_policy(kept.as_ref()).map_err(NoSide::Invalid)?;
    let force = if in_force { ", in force" } else { "" };
    Ok(Side { name: format!("policy {generation} ({hash}) of {file}{force}"), documents: vec![document] })
}

/// Two sides without a kind that both have.
pub(super) fn nothing_to_compare(old: &Side, new: &Side) -> NoSide {
    let kinds = |side: &Side| {
        let kinds: Vec<_> = side.documents.iter().map(|document| document.kind).collect();
        format!(
            "{} has {}",
            side.name,
            if kinds.is_empty() { "no document".into() } else { kinds.join(" and ") }
        )
    };
    let message = "there is nothing to compare: no kind of document is on both sides";
    let help = "name the file with the TrafficPolicy; the plumbing is compared between files: --from OLD.yaml NEW.yaml";
    let mut problem = Problem::new(super::code::NOTHING_TO_COMPARE, message, help);
    problem.details = vec![kinds(old), kinds(new)];
    NoSide::Asked(Failure::new(Ending::Usage, problem))
}
