//! `spillway config diff`: what would a file change, before it does?

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::Ending;
use crate::admin::wire_change::{ConfigView, PolicyView};
use crate::app::KeptPolicies;
use crate::cli::shown::{Output, fit, for_programs, plain};
use crate::cli::socket::Where;
use crate::config::{self, Became, Colour, DEFAULT_POLICY_YAML, Difference, PolicyText, compare};

/// Columns of the way to a key.
const PATH_WIDTH: usize = 38;
/// Columns of a value; `-o json` has all of it.
const VALUE_WIDTH: usize = 34;

/// Compares the policy in force with a file, or two policies, key by key.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config diff                           (in force, and what its file says now)
  spillway config diff policy.yaml               (in force, and this file)
  spillway config diff --generation 12           (12 of the history, and what is in force)
  spillway config diff old.yaml new.yaml         (no proxy has to run)

Comments, quotes and the order of keys are no difference; the order of rules is.
Exit codes: 0 equal, 1 they differ, 3 one of them cannot be used.")]
pub(super) struct Args {
    /// One file to compare with what is in force, or two with each other
    #[arg(value_name = "FILE", num_args = 0..=2)]
    files: Vec<PathBuf>,
    /// From this one of the history: spillway config history
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// Read a state folder instead of asking a running proxy
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What a program gets.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    from: &'a str,
    to: &'a str,
    differences: &'a [Difference],
}

/// One of the two, and what it is called.
struct Side {
    name: String,
    policy: PolicyText,
}

/// Compares and prints.
pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let (old, new) = match sides(args, err) {
        Ok(sides) => sides,
        Err(ending) => return ending,
    };
    let differences = match compare(&old.policy, &new.policy) {
        Ok(differences) => differences,
        Err(found) => {
            let _ = writeln!(err, "{}", config::human(&found, Colour::Never));
            let _ = writeln!(err, "a policy that cannot be used is not compared");
            return Ending::Config;
        }
    };
    let answer = Answer { from: &old.name, to: &new.name, differences: &differences };
    let printed = match for_programs(args.output, &answer, out) {
        Ok(false) => table(&answer, out),
        other => other.map(|_| ()),
    };
    match (printed, differences.is_empty()) {
        (Ok(()), true) => Ending::Fine,
        _ => Ending::Failed,
    }
}

fn sides(args: &Args, err: &mut dyn Write) -> Result<(Side, Side), Ending> {
    let file = |path: &Path, err: &mut dyn Write| of_file(path).map_err(|message| refuse(&message, err));
    if let [old, new] = args.files.as_slice() {
        return Ok((file(old, err)?, file(new, err)?));
    }
    let old = match args.generation {
        Some(_) => Some(in_force(args, args.generation, err)?.0),
        None => None,
    };
    if let ([path], Some(old)) = (args.files.as_slice(), old.as_ref()) {
        return Ok((Side { name: old.name.clone(), policy: old.policy.clone() }, file(path, err)?));
    }
    let (now, view) = in_force(args, None, err)?;
    match (args.files.first(), old) {
        (Some(path), _) => Ok((now, file(path, err)?)),
        (None, Some(old)) => Ok((old, now)),
        (None, None) => {
            let path = Path::new(&view.policy.file);
            if view.policy.text.is_none() || !path.is_file() {
                let message = format!(
                    "what is in force came from {}, which is no file here; name one: spillway config diff FILE",
                    view.policy.file
                );
                return Err(refuse(&message, err));
            }
            Ok((now, file(path, err)?))
        }
    }
}

fn refuse(message: &str, err: &mut dyn Write) -> Ending {
    let _ = writeln!(err, "error: {}", plain(message));
    Ending::Config
}

/// The policy that a running proxy, or its folder, has.
fn in_force(args: &Args, generation: Option<u64>, err: &mut dyn Write) -> Result<(Side, ConfigView), Ending> {
    let view = match &args.state {
        Some(folder) => {
            let policy = KeptPolicies::read(folder).and_then(|kept| {
                let missing = || {
                    format!(
                        "there is no such policy in {}; try spillway config history --state",
                        folder.display()
                    )
                };
                kept.policy(generation).ok_or_else(missing)
            });
            ConfigView { policy: policy.map_err(|message| refuse(&message, err))?, ..ConfigView::default() }
        }
        None => {
            let query = generation.map_or_else(String::new, |number| format!("?generation={number}"));
            let view: Result<ConfigView, _> = args.at.get(&format!("/v1/config{query}"));
            view.map_err(|failure| failure.tell(err))?
        }
    };
    let PolicyView { generation, hash, file, text, .. } = &view.policy;
    let name = format!("policy {generation} ({})", plain(hash));
    let text = text.clone().unwrap_or_else(|| DEFAULT_POLICY_YAML.to_owned());
    let policy = PolicyText { file: format!("{file} (policy {generation})"), text };
    Ok((Side { name, policy }, view))
}

fn of_file(path: &Path) -> Result<Side, String> {
    /// As the proxy reads at most.
    const FILE_BYTES_MAX: u64 = 1 << 20;
    let name = path.display().to_string();
    let too_large = fs::metadata(path).is_ok_and(|file| file.len() > FILE_BYTES_MAX);
    if too_large {
        return Err(format!("{name} has more than {FILE_BYTES_MAX} bytes; a configuration has not"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok(Side { policy: PolicyText { file: name.clone(), text }, name })
}

fn table(answer: &Answer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Answer { from, to, differences } = answer;
    writeln!(out, "{} → {}", plain(from), plain(to))?;
    for found in *differences {
        let mark = match found.became {
            Became::Added => '+',
            Became::Removed => '-',
            Became::Changed => '~',
            Became::Moved => '↕',
        };
        let value = |text: &Option<String>| fit(text.as_deref().unwrap_or("(default)"), VALUE_WIDTH);
        let is_entry = found.path.ends_with(']');
        let says = match found.became {
            Became::Moved => value(&found.to),
            Became::Added if is_entry => fit(found.to.as_deref().unwrap_or_default(), 2 * VALUE_WIDTH),
            Became::Removed if is_entry => fit(found.from.as_deref().unwrap_or_default(), 2 * VALUE_WIDTH),
            _ => format!("{} → {}", value(&found.from), value(&found.to)),
        };
        let path = plain(&found.path);
        match path.chars().count() <= PATH_WIDTH
            && says.chars().count() <= crate::cli::shown::COLUMNS - PATH_WIDTH - 4
        {
            true => writeln!(out, "{mark} {path:<PATH_WIDTH$}  {says}")?,
            false => writeln!(out, "{mark} {path}\n      {says}")?,
        }
        writeln!(out, "      {}", plain(&found.place.to_string()))?;
    }
    match differences.len() {
        0 => writeln!(out, "no difference"),
        1 => writeln!(out, "1 difference"),
        count => writeln!(out, "{count} differences"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    #[test]
    fn differences_are_their_golden_text() {
        let head = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: a\n";
        let rule = |name: &str, user: &str| {
            format!("  - {{ name: {name}, match: {{ users: [{user}] }}, lane: workload }}\n")
        };
        let text =
            |file: &str, body: String| PolicyText { file: file.to_owned(), text: format!("{head}{body}") };
        let (a, b, c) = (rule("agents", "agent-*"), rule("builders", "ci-*"), rule("cron", "cron"));
        let old = text(
            "/etc/spillway/policy.yaml (policy 12)",
            format!(
                "lanes:\n  telemetry: {{ ceilingPercent: 40 }}\n  unknown: {{ wait: 1s }}\nrules:\n{a}{b}{c}"
            ),
        );
        let d = rule("the-deployers-of-the-whole-platform", "system:serviceaccount:argocd:*");
        let b = rule("builders", "build-system-with-a-long-name-*, ci-*");
        let new = text(
            "/etc/spillway/policy.yaml",
            format!("lanes:\n  telemetry: {{ ceilingPercent: 30 }}\nrules:\n{c}{a}{b}{d}"),
        );
        let differences = compare(&old, &new).unwrap();
        let mut out = Vec::new();
        let answer = Answer {
            from: "policy 12 (9b17aa01c3d4)",
            to: "/etc/spillway/policy.yaml",
            differences: &differences,
        };
        table(&answer, &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        golden::compare("config-diff", &printed);
        assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
    }
}
