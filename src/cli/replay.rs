//! `spillway replay --policy NEW FILE…`: who would have been refused, had this policy been in force?
//!
//! Audit logs are read line by line, once, whatever their size; broken lines are counted and the first ones shown.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};

use super::replayed::{self, Bound, Shown};
use super::simulate::{Wrong, read_policy};
use super::{Ending, Output};
use crate::app;
use crate::clock;
use crate::config::Colour;
use crate::replay::{Replay, read};

/// Plays audit logs through a policy and says who would have been refused.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway replay /var/log/kubernetes/audit/audit.log
  spillway replay --policy new.yaml audit-*.log --fail-if operators --fail-if workload:1%
  zcat audit.log.gz | spillway replay --policy new.yaml -

Files are kube-apiserver's audit logs, in the order of time: audit.k8s.io/v1, one JSON object a
line; level Metadata is enough. kube-apiserver stays as slow as it was, and clients that would
have been refused do not come back. Exit code 1: a --fail-if bound is broken; 2: a file cannot be
read, or not one line of it is an event.")]
pub struct Args {
    /// Audit logs; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Traffic policy to try, instead of the default one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Fail when more than this share of a lane would be refused (default 0)
    #[arg(long, value_name = "LANE[:PERCENT]")]
    fail_if: Vec<Bound>,
    /// How many rules and users are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Events may carry whole objects (3 MiB at most, twice); what is longer is skipped and counted.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Broken lines that are shown.
const BROKEN_SHOWN: usize = 5;
/// Read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Flow keys of a replay are of no use to anybody, and equal logs should give equal results.
const SEED: u64 = 1;
/// Lines between two looks at the clock.
const LINES_A_STEP: u64 = 1_024;

/// Reads, plays, prints and judges.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    match play(args, colour) {
        Ok(shown) => {
            for line in &shown.broken_lines {
                let _ = writeln!(err, "warning: {line}");
            }
            let failed = shown.failures(&args.fail_if);
            let printed = match args.output {
                Output::Table => replayed::table(&shown, args.top, out),
                Output::Json => replayed::json(&shown, args.top, &failed, out),
            };
            for line in &failed {
                let _ = writeln!(err, "error: {line}");
            }
            if failed.is_empty() && printed.is_ok() { Ending::Fine } else { Ending::Failed }
        }
        Err(Wrong(ending, message)) => {
            let _ = writeln!(err, "error: {message}");
            ending
        }
    }
}

fn play(args: &Args, colour: Colour) -> Result<Shown, Wrong> {
    let policy = read_policy(args.policy.as_deref(), colour)?;
    let settings = app::flow_settings(&policy);
    let compiled = policy.compile(SEED).map_err(|error| Wrong(Ending::Config, error.to_string()))?;
    let mut reading = Reading {
        replay: Replay::new(compiled, settings, SEED),
        bar: progress(&args.files),
        lines: 0,
        broken: 0,
        broken_lines: Vec::new(),
        bytes: 0,
    };
    let started = clock::now();
    for file in &args.files {
        reading.file(file).map_err(|error| Wrong(Ending::Usage, format!("{}: {error}", file.display())))?;
    }
    reading.bar.finish_and_clear();
    if reading.lines == reading.broken {
        let why = reading.broken_lines.first().map_or("there are no lines", String::as_str);
        let hint = "expected kube-apiserver's audit log, one JSON object a line";
        return Err(Wrong(Ending::Usage, format!("no event in {} lines: {why}; {hint}", reading.lines)));
    }
    Ok(Shown {
        report: reading.replay.finish(),
        lines: reading.lines,
        broken: reading.broken,
        broken_lines: reading.broken_lines,
        took: clock::now().since(started),
    })
}

struct Reading {
    replay: Replay,
    bar: ProgressBar,
    lines: u64,
    broken: u64,
    broken_lines: Vec<String>,
    bytes: u64,
}

impl Reading {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let name = path.display().to_string();
        if path == Path::new("-") {
            return self.read("standard input", BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock()));
        }
        self.read(&name, BufReader::with_capacity(BUFFER_BYTES, File::open(path)?))
    }

    fn read(&mut self, name: &str, mut from: impl BufRead) -> io::Result<()> {
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let length = Read::take(&mut from, limit).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            number += 1;
            self.bytes += length as u64;
            if number.is_multiple_of(LINES_A_STEP) {
                self.bar.set_position(self.bytes);
            }
            if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                self.bytes += skip_line(&mut from)?;
                self.broken_line(name, number, &format!("longer than {LINE_BYTES_MAX} bytes"));
                continue;
            }
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match read(text) {
                Ok(Some(logged)) => self.replay.take(&logged),
                Ok(None) => {}
                Err(why) => {
                    self.broken_line(name, number, &why.to_string());
                    continue;
                }
            }
            self.lines += 1;
        }
    }

    fn broken_line(&mut self, name: &str, number: u64, why: &str) {
        self.lines += 1;
        self.broken += 1;
        if self.broken_lines.len() < BROKEN_SHOWN {
            self.broken_lines.push(format!("{name}:{number}: {why}"));
        }
    }
}

/// Reads to the end of a line that is too long to keep.
fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let part = from.fill_buf()?;
        if part.is_empty() {
            return Ok(skipped);
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(part.len(), |at| at + 1);
        from.consume(used);
        skipped += used as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// Bytes of all files; without a length (standard input), a spinner that counts.
fn progress(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = |file: &PathBuf| std::fs::metadata(file).ok().map(|file| file.len());
    let total: Option<u64> = files.iter().map(length).sum();
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.enable_steady_tick(Duration::from_millis(250));
    // The template is a constant: should it be wrong, the default style shows the same numbers.
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed:>4} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}
