//! `spillway audit verify FILE…`: is the record of who used the break-glass lane whole?
//!
//! It needs nothing but the files, and reads them only: run it on another machine, with the public key that was noted
//! when the node was set up.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::Ending;
use super::break_glass::Output;
use crate::breakglass::audit::{Head, Question, Verdict, parse_public_key, verify};

/// The log of what was done through the break-glass lane and by levers.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find any change, gap, cut or reordering in an audit log
    Verify(VerifyArgs),
}

/// Verifies the files of one log together, in whatever order they are named.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway audit verify /var/lib/spillway/break-glass-audit*.jsonl --public-key cp-1.pub
  spillway audit verify break-glass-audit.jsonl --from 4096 -o json     # older files are retired

The public key is break-glass-audit.pub beside the signing key; keep a copy elsewhere, because whoever can write the log
can also write what lies beside it. Exit code 1: the log is not whole.")]
struct VerifyArgs {
    /// The log's files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File with the proxy's public key: signatures are checked with it
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Number of the first record that must be there
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let Command::Verify(args) = &args.command;
    match verified(args, out) {
        Ok(ending) => ending,
        Err(message) => {
            // A closed standard error cannot be told anything; the exit code still says it.
            let _ = writeln!(err, "error: {message}");
            Ending::Failed
        }
    }
}

fn verified(args: &VerifyArgs, out: &mut dyn Write) -> Result<Ending, String> {
    let public_key = args.public_key.as_ref().map(|file| {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
        parse_public_key(&text)
            .ok_or_else(|| format!("{shown} holds no public key; expected the line in break-glass-audit.pub"))
    });
    let public_key = public_key.transpose()?;
    let question = Question { files: &args.files, public_key: public_key.as_deref(), from: args.from };
    let verdict = verify(&question)?;
    let told = match args.output {
        Output::Json => writeln!(out, "{:#}", report(&verdict)),
        Output::Text => write!(out, "{}", table(&verdict, public_key.is_some())),
    };
    told.map_err(|error| error.to_string())?;
    Ok(if verdict.is_whole() { Ending::Fine } else { Ending::Failed })
}

fn head(verdict: &Verdict) -> &'static str {
    match verdict.head {
        Head::Missing => "missing",
        Head::Signed => "signed",
        Head::Unchecked => "unchecked",
        Head::Wrong => "wrong",
    }
}

fn report(verdict: &Verdict) -> Value {
    let files: Vec<Value> = verdict
        .files
        .iter()
        .map(|file| {
            let name = file.file.display().to_string();
            json!({ "file": name, "records": file.records, "first": file.first, "last": file.last })
        })
        .collect();
    let findings: Vec<Value> = verdict
        .findings
        .iter()
        .map(|found| json!({ "file": found.file.display().to_string(), "line": found.line, "what": found.what }))
        .collect();
    json!({
        "whole": verdict.is_whole(), "last": verdict.last, "files": files, "findings": findings,
        "moreFindings": verdict.more, "head": head(verdict),
        "checkpoints": { "found": verdict.checkpoints.0, "verified": verdict.checkpoints.1 },
        "recordsBehindCheckpoint": verdict.behind_checkpoint, "events": verdict.events,
    })
}

fn table(verdict: &Verdict, with_key: bool) -> String {
    let mut text = format!("{:>9}  {:>10}  {:>10}  FILE\n", "RECORDS", "FIRST", "LAST");
    for file in &verdict.files {
        let (records, first, last) = (file.records, file.first, file.last);
        text.push_str(&format!("{records:>9}  {first:>10}  {last:>10}  {}\n", file.file.display()));
    }
    let events: Vec<String> =
        verdict.events.iter().map(|(event, count)| format!("{count} {event}")).collect();
    if !events.is_empty() {
        text.push_str(&format!("records: {}\n", events.join(", ")));
    }
    for found in &verdict.findings {
        let place = match found.line {
            0 => found.file.display().to_string(),
            line => format!("{}:{line}", found.file.display()),
        };
        text.push_str(&format!("{place}: {}\n", found.what));
    }
    if verdict.more > 0 {
        text.push_str(&format!("and {} findings more\n", verdict.more));
    }
    let (found, good) = verdict.checkpoints;
    text.push_str(&if with_key {
        format!(
            "signatures: {good} of {found} checkpoints verified, {} records behind the last; head {}\n",
            verdict.behind_checkpoint,
            head(verdict)
        )
    } else {
        format!(
            "signatures: {found} checkpoints, none checked; name the key with --public-key; head {}\n",
            head(verdict)
        )
    });
    if verdict.head == Head::Missing {
        text.push_str(
            "no break-glass-audit.head beside the log: records cut off its end would not be missed\n",
        );
    }
    let place = format!("up to record {}", verdict.last);
    text.push_str(&if verdict.is_whole() {
        format!("the log is whole, {place}\n")
    } else {
        format!("the log is NOT whole: {} findings, {place}\n", verdict.findings.len() + verdict.more)
    });
    text
}
