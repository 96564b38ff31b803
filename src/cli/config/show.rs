//! `spillway config show`: the policy in force, or one that was, as it was written or with its defaults filled in.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args as ClapArgs;

use serde::Serialize;

use super::diff::origin;
use super::side::{Kept, Side, of_files, of_policy};
use super::{Ending, findings, moment};
use crate::admin::wire_change::PolicyView;
use crate::app::KeptPolicies;
use crate::cli::shown::{Output, for_programs, plain};
use crate::cli::socket::Where;
use crate::config::{DEFAULT_POLICY_YAML, Effective};

/// Prints a policy as it was written, or with every default filled in. Can be redirected into a file.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config show
  spillway config show --generation 12 > /etc/spillway/policy.yaml
  spillway config show --state /var/lib/spillway        (no proxy has to run)
  spillway config show --effective                      (every key, defaults and default rules filled in)
  spillway config show --origin                         (which line set each value)
  spillway config show --effective --file /etc/spillway/spillway.yaml --file policy.yaml

The text goes to standard output, what else there is to say to standard error.")]
pub(super) struct Args {
    /// One of before: spillway config history
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// Read a state folder instead of asking a running proxy
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Fill in every default: the text can be loaded, and means the same
    #[arg(long)]
    effective: bool,
    /// Say of each value which line of which file set it, or that it is a default
    #[arg(long)]
    origin: bool,
    /// With --effective or --origin: what these files say, and no proxy has to run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["generation", "state"])]
    file: Vec<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// How it is printed; table is the YAML text
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if !args.file.is_empty() {
        return of_files(&args.file).map_or_else(|why| why.tell(err), |side| complete(args, &side, out));
    }
    let view = match (Kept { state: args.state.as_deref(), at: &args.at }).view(args.generation) {
        Ok(view) => view,
        Err(why) => return why.tell(err),
    };
    if args.effective || args.origin {
        let ending = match of_policy(&view.policy, args.generation.is_none()) {
            Ok(side) => complete(args, &side, out),
            Err(why) => return why.tell(err),
        };
        findings(&view, err);
        return ending;
    }
    match for_programs(args.output, &view, out) {
        Ok(true) => return Ending::Fine,
        Ok(false) => {}
        Err(_) => return Ending::Failed,
    }
    let PolicyView { generation, hash, at, by, file, text } = &view.policy;
    let text = text.as_deref().unwrap_or(DEFAULT_POLICY_YAML);
    if write!(out, "{}{}", text, if text.ends_with('\n') { "" } else { "\n" }).is_err() {
        return Ending::Failed;
    }
    let _ =
        writeln!(err, "# policy {generation} ({hash}) of {}, {} ({})", plain(file), moment(*at), plain(by));
    findings(&view, err);
    Ending::Fine
}

/// All of them, for programs.
#[derive(Debug, Serialize)]
struct AllComplete<'a> {
    documents: Vec<Complete<'a>>,
}

/// A document with its defaults and where its values come from, for programs.
#[derive(Debug, Serialize)]
struct Complete<'a> {
    #[serde(flatten)]
    document: &'a Effective,
    /// By dotted path; what is not here is a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<BTreeMap<&'a str, String>>,
}

fn complete(args: &Args, side: &Side, out: &mut dyn Write) -> Ending {
    let documents: Vec<Complete<'_>> = side
        .documents
        .iter()
        .map(|document| {
            let place = |path| (String::as_str(path), origin(document, path));
            let origins = args.origin.then(|| document.origins.keys().map(place).collect());
            Complete { document, origins }
        })
        .collect();
    let printed = match args.output {
        Output::Table if args.origin => side.documents.iter().try_for_each(|one| origins(one, out)),
        Output::Table => side.documents.iter().enumerate().try_for_each(|(at, one)| yaml(at, one, out)),
        output => for_programs(output, &AllComplete { documents }, out).map(|_| ()),
    };
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

fn yaml(at: usize, document: &Effective, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_saphyr::to_string(document).map_err(io::Error::other)?;
    writeln!(out, "{}{}", if at == 0 { "" } else { "---\n" }, text.trim_end())
}

/// One value a line, and where it comes from.
pub(super) fn origins(document: &Effective, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# {}", document.kind)?;
    document.tree.leaves().iter().try_for_each(|(path, value)| {
        let value = format!("{path}: {value}");
        writeln!(out, "{:<58}  # {}", plain(&value), plain(&origin(document, path)))
    })
}

pub(super) fn of_folder(folder: &std::path::Path, generation: Option<u64>) -> Result<PolicyView, String> {
    let kept = KeptPolicies::read(folder)?;
    kept.policy(generation).ok_or_else(|| match generation {
        Some(generation) => {
            format!(
                "there is no policy {generation} in {}; try spillway config history --state",
                folder.display()
            )
        }
        None => format!("there is no policy in {}", folder.display()),
    })
}
