//! `spillway config diff`: what would change, defaults included?
//!
//! Not the texts are compared but what they mean: a default that is spelled out is no difference, a rule that was pulled up
//! is one. Only kinds that both sides have are compared; a running proxy tells its policy and not its plumbing.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde::Serialize;

use super::Ending;
use super::side::{Kept, NoSide, Side, nothing_to_compare, of_files, of_policy};
use crate::cli::shown::{Output, for_programs, plain};
use crate::cli::socket::Where;
use crate::config::{Difference, Effective, Tree, compare};

/// Compares what is in force, or was, with files, value by value, defaults filled in.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config diff                                  (in force against its files: what a restart would bring)
  spillway config diff policy.yaml
  spillway config diff --generation 11                  (one of before against what is in force)
  spillway config diff --from old.yaml new.yaml         (no proxy has to run)
  spillway config diff --origin policy.yaml

~ changed, + only new, - only old, > moved. Values marked \"restart\" are the plumbing's: they wait for one.
Exit codes: 0 no difference, 1 there are some, 3 a file cannot be used, 4 nobody answers.")]
pub(super) struct Args {
    /// The new side; without it the files that the proxy follows, or what is in force where the old side is named
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The old side, in place of what is in force; again for several files
    #[arg(long, value_name = "FILE", conflicts_with = "generation")]
    from: Vec<PathBuf>,
    /// The old side: a policy of before, spillway config history
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// The new side: another policy of before
    #[arg(long, value_name = "NUMBER", conflicts_with = "files")]
    to_generation: Option<u64>,
    /// Read a state folder instead of asking a running proxy
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Say which line set each value
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What differs, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compared {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) changes: Vec<Line>,
}

/// One difference.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    kind: &'static str,
    path: String,
    /// `changed`, `added`, `removed` or `moved`.
    change: &'static str,
    old: Option<Tree>,
    new: Option<Tree>,
    /// Where each was set, `file:line:column` or `default`.
    old_origin: Option<String>,
    new_origin: Option<String>,
    /// It waits for a restart.
    restart: bool,
}

/// Compares and prints.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let compared = match sides(args).and_then(|(old, new)| compared(&old, &new)) {
        Ok(compared) => compared,
        Err(why) => return why.tell(err),
    };
    let printed = match for_programs(args.output, &compared, out) {
        Ok(false) => print(&compared, args.origin, out),
        other => other.map(|_| ()),
    };
    if printed.is_ok() && compared.changes.is_empty() { Ending::Fine } else { Ending::Failed }
}

fn sides(args: &Args) -> Result<(Side, Side), NoSide> {
    let kept = Kept { state: args.state.as_deref(), at: &args.at };
    let is_old_said = !args.from.is_empty() || args.generation.is_some();
    if !is_old_said && args.files.is_empty() && args.to_generation.is_none() && args.state.is_none() {
        let view = kept.view(None)?;
        return Ok((of_policy(&view.policy, true)?, followed(&view.files)?));
    }
    let old = if args.from.is_empty() { kept.side(args.generation)? } else { of_files(&args.from)? };
    let new = if args.files.is_empty() { kept.side(args.to_generation)? } else { of_files(&args.files)? };
    Ok((old, new))
}

/// The files of a running proxy. Where none has a policy, the embedded one is what they mean.
fn followed(files: &[String]) -> Result<Side, NoSide> {
    let paths: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    let mut side = of_files(&paths)?;
    if side.documents.iter().all(Effective::waits_for_restart) {
        side.documents.push(crate::config::effective_policy(None).map_err(NoSide::Invalid)?);
    }
    Ok(side)
}

pub(super) fn compared(old: &Side, new: &Side) -> Result<Compared, NoSide> {
    let both: Vec<(&Effective, &Effective)> = old
        .documents
        .iter()
        .filter_map(|one| Some((one, new.documents.iter().find(|other| other.kind == one.kind)?)))
        .collect();
    if both.is_empty() {
        return Err(nothing_to_compare(old, new));
    }
    let changes = both.into_iter().flat_map(|(old, new)| lines(old, new)).collect();
    Ok(Compared { old: old.name.clone(), new: new.name.clone(), changes })
}

fn lines(old: &Effective, new: &Effective) -> Vec<Line> {
    let line = |change: crate::config::Change| {
        let path = change.path;
        let (word, before, after) = match change.what {
            Difference::Added(value) => ("added", None, Some(value)),
            Difference::Removed(value) => ("removed", Some(value), None),
            Difference::Changed(before, after) => ("changed", Some(before), Some(after)),
            Difference::Moved(from, to) => ("moved", Some(place(from)), Some(place(to))),
        };
        Line {
            kind: old.kind,
            change: word,
            old_origin: before.as_ref().map(|_| origin(old, &path)),
            new_origin: after.as_ref().map(|_| origin(new, &path)),
            old: before,
            new: after,
            restart: old.waits_for_restart(),
            path,
        }
    };
    compare(&old.tree, &new.tree).into_iter().map(line).collect()
}

fn place(number: usize) -> Tree {
    Tree::Number(u64::try_from(number).unwrap_or(u64::MAX))
}

/// `file:line:column` of the key that set a value. What moved is a rule: its name stands where the rule does.
pub(super) fn origin(document: &Effective, path: &str) -> String {
    let place = document.origins.get(path).or_else(|| document.origins.get(&format!("{path}.name")));
    place.map_or_else(
        || "default".to_owned(),
        |place| format!("{}:{}:{}", place.file, place.line, place.column),
    )
}

pub(super) fn print(compared: &Compared, with_origin: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "--- {}\n+++ {}", plain(&compared.old), plain(&compared.new))?;
    if compared.changes.is_empty() {
        return writeln!(out, "No difference.");
    }
    for line in &compared.changes {
        let value =
            |value: &Option<Tree>| value.as_ref().map(|value| plain(&value.to_string())).unwrap_or_default();
        let (old, new, path) = (value(&line.old), value(&line.new), plain(&line.path));
        match line.change {
            "added" => write!(out, "+ {path}: {new}")?,
            "removed" => write!(out, "- {path}: {old}")?,
            "moved" => write!(out, "> {path}: place {old} → {new}")?,
            _ => write!(out, "~ {path}: {old} → {new}")?,
        }
        writeln!(out, "{}", if line.restart { "   restart" } else { "" })?;
        if with_origin {
            let origins = [&line.old_origin, &line.new_origin].into_iter().flatten();
            let origins: Vec<String> = origins.map(|origin| plain(origin)).collect();
            writeln!(out, "    {}", origins.join(" → "))?;
        }
    }
    let (all, restart) =
        (compared.changes.len(), compared.changes.iter().filter(|line| line.restart).count());
    let waits = match restart {
        0 => String::new(),
        _ => format!(", {restart} of them for a restart"),
    };
    writeln!(out, "{all} {}{waits}", if all == 1 { "difference" } else { "differences" })
}
