//! `spillway check`: is this installation as it should be, before it starts and while it runs?

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

use super::Ending;
use super::isolate::ended;
use super::shown::{coloured, plain, wrapped};
use super::socket::{Failure, Where, parse_time};
use crate::admin::wire::Status;
use crate::app::check::{CHECKS, Check, Found, SEE_CONFIGURATION, Situation, Verdict};
use crate::clock;
use crate::config::{self, Colour, FileChecks, nearest};

/// Where the configuration is when nobody names it.
const CONFIG: &str = "/etc/spillway/spillway.yaml";
/// The policy beside it.
const POLICY: &str = "/etc/spillway/policy.yaml";
/// Where kubeadm puts the static pod.
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// Between two rounds of `--wait`.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the running spillway may take to say how it is: a check is no place to wait.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

/// Checks an installation; nothing is changed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway check --pre                             before the start: ports, certificates, kubeadm's manifest
  spillway check --wait 2m                         after it: until everything is well, or two minutes are over
  spillway check -o short --ignore SPW-PRE-003     for a script: only what is not well
  spillway check --only certificates --config new.yaml
  spillway check --list

Files: --config, else /etc/spillway/spillway.yaml and policy.yaml; --manifest, else kubeadm's, where it is there.
Ids never change their meaning: spillway help SPW-API-004 says what one is about. What could not be looked at is
skipped and says why. Nothing is sent to kube-apiserver but a few reads, as nobody and as spillway:check.
Exit codes: 0 nothing failed, 1 something did, 2 usage, 6 it still failed when --wait was over.")]
pub struct Args {
    /// Before spillway is started: its ports must still be free, and nothing is asked of it
    #[arg(long)]
    pre: bool,
    /// The configuration; again for more files
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// The policy, as `run` takes it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// kube-apiserver's static pod
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// A kubeconfig for the break-glass lane that must not need kube-apiserver
    #[arg(long, value_name = "FILE")]
    break_glass_kubeconfig: Option<PathBuf>,
    /// The hash that another instance shows for its configuration
    #[arg(long, value_name = "HASH")]
    expect_hash: Option<String>,
    /// Only these ids or groups; again for more
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Not these ids or groups
    #[arg(long, value_name = "ID")]
    skip: Vec<String>,
    /// Look at these ids or groups, but let them not count
    #[arg(long, value_name = "ID")]
    ignore: Vec<String>,
    /// Warnings count as failures
    #[arg(long)]
    strict: bool,
    /// Look again until nothing fails, at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    wait: Option<Duration>,
    /// How long traffic is counted to see whether some goes around spillway
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_time)]
    window: Duration,
    /// List the checks and end
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Everything, in groups.
    #[default]
    Table,
    /// One line for each check that is not well.
    Short,
    /// One JSON object.
    Json,
}

/// A check with its answer.
struct Row {
    check: &'static Check,
    found: Found,
    ignored: bool,
}

/// Looks and prints.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Ending {
    if args.list {
        return ended(list(out));
    }
    for word in args.only.iter().chain(&args.skip).chain(&args.ignore) {
        if !CHECKS.iter().any(|check| is_named(check, word)) {
            let words = CHECKS.iter().flat_map(|check| [check.id, check.group]);
            let near = nearest(word, words);
            let help = near
                .map_or_else(|| "spillway check --list".to_owned(), |near| format!("did you mean {near:?}?"));
            // A closed terminal cannot be told anything; the exit code still says it.
            let _ = writeln!(err, "error: no check and no group is called {:?}\nhelp: {help}", plain(word));
            return Ending::Usage;
        }
    }
    let begun = clock::now();
    loop {
        let rows = look(args);
        let failed = rows.iter().filter(|row| counts(row, args)).count();
        let over = args.wait.is_none_or(|wait| clock::now().since(begun) >= wait);
        if failed == 0 || over {
            if let Err(error) = print(&rows, args, out, colour) {
                return ended(Err(error));
            }
            return match (failed, args.wait) {
                (0, _) => Ending::Fine,
                (_, Some(_)) => Ending::TimedOut,
                (_, None) => Ending::Failed,
            };
        }
        if let Some(first) = rows.iter().find(|row| counts(row, args)) {
            let _ = writeln!(
                err,
                "waiting: {} {}: {}",
                first.check.id,
                first.check.name,
                plain(&first.found.what)
            );
        }
        let left = args.wait.unwrap_or_default().saturating_sub(clock::now().since(begun));
        std::thread::sleep(AGAIN.min(left));
    }
}

fn counts(row: &Row, args: &Args) -> bool {
    let bad = row.found.verdict == Verdict::Failed || args.strict && row.found.verdict == Verdict::Warning;
    bad && !row.ignored
}

/// Whether a word on the command line means this check.
fn is_named(check: &Check, word: &str) -> bool {
    check.id.eq_ignore_ascii_case(word) || check.group == word || check.name.eq_ignore_ascii_case(word)
}

fn look(args: &Args) -> Vec<Row> {
    let situation = situation(args);
    let named = |check: &Check, words: &[String]| words.iter().any(|word| is_named(check, word));
    CHECKS
        .iter()
        .filter(|check| check.is_asked(args.pre))
        .filter(|check| args.only.is_empty() || named(check, &args.only))
        .filter(|check| !named(check, &args.skip))
        .map(|check| Row { check, found: check.look(&situation), ignored: named(check, &args.ignore) })
        .collect()
}

fn situation(args: &Args) -> Situation {
    let there = |path: &str| Some(PathBuf::from(path)).filter(|path| path.exists());
    let mut files = args.config.clone();
    if files.is_empty() {
        files.push(CONFIG.into());
    }
    if let Some(policy) = args.policy.clone().or_else(|| there(POLICY).filter(|_| args.config.is_empty())) {
        files.push(policy);
    }
    let at = args.at.within(STATUS_WITHIN);
    // Asked before the start as well: whether the ports are taken by us is a question then.
    let status: Result<Status, Failure> = at.get("/v1/status");
    let status = status.map_err(|failure| failure.problem.message);
    Situation {
        loaded: config::load_with(&files, FileChecks::On),
        manifest: args.manifest.clone().or_else(|| there(MANIFEST)),
        status: Some(status),
        socket: args.at.socket.clone(),
        break_glass: args.break_glass_kubeconfig.clone(),
        expect_hash: args.expect_hash.clone(),
        files,
        now: clock::wall(),
        window: args.window,
    }
}

fn list(out: &mut dyn Write) -> io::Result<()> {
    CHECKS.iter().try_for_each(|check| {
        let when = match (check.is_asked(true), check.is_asked(false)) {
            (true, false) => "  only with --pre",
            (false, true) => "  not with --pre",
            _ => "",
        };
        writeln!(out, "{}  {:<15} {:<20}{when}", check.id, check.group, check.name)
    })
}

fn print(rows: &[Row], args: &Args, out: &mut dyn Write, colour: Colour) -> io::Result<()> {
    match args.output {
        Output::Json => {
            let checks: Vec<_> = rows.iter().map(record).collect();
            let failed = rows.iter().filter(|row| counts(row, args)).count();
            writeln!(out, "{:#}", json!({ "well": failed == 0, "failed": failed, "checks": checks }))
        }
        Output::Short => {
            let bad = |row: &&Row| row.found.verdict >= Verdict::Warning && !row.ignored;
            for row in rows.iter().filter(bad) {
                let word = if row.found.verdict == Verdict::Failed { "failed" } else { "warning" };
                writeln!(out, "{word} {} {}: {}", row.check.id, row.check.name, plain(&row.found.what))?;
            }
            writeln!(out, "{}", summary(rows))
        }
        Output::Table => table(rows, out, colour),
    }
}

fn record(row: &Row) -> serde_json::Value {
    let Row { check, found, ignored } = row;
    json!({
        "id": check.id, "name": check.name, "group": check.group, "result": found.verdict,
        "what": found.what, "advice": found.advice, "ignored": ignored,
    })
}

fn table(rows: &[Row], out: &mut dyn Write, colour: Colour) -> io::Result<()> {
    let mut group = "";
    // They would all say the same.
    let needs_it =
        |row: &&Row| row.found.verdict == Verdict::Skipped && row.found.advice == SEE_CONFIGURATION;
    for Row { check, found, ignored } in rows.iter().filter(|row| !needs_it(row)) {
        if check.group != group {
            group = check.group;
            writeln!(out, "{group}")?;
        }
        let (mark, ansi) = match found.verdict {
            Verdict::Ok => ("√", "32"),
            Verdict::Skipped => ("-", "2"),
            Verdict::Warning => ("‼", "33"),
            Verdict::Failed => ("×", "31"),
        };
        let ignored = if *ignored { " (ignored)" } else { "" };
        let head = format!("{} {}{ignored}", check.id, check.name);
        let text = wrapped(&format!("{head}: {}", found.what), "      ");
        writeln!(out, " {} {text}", coloured(mark, ansi, colour))?;
        if !found.advice.is_empty() && found.verdict != Verdict::Ok {
            writeln!(out, "      → {}", wrapped(&found.advice, "        "))?;
        }
    }
    match rows.iter().filter(needs_it).count() {
        0 => {}
        1 => writeln!(out, " - 1 check needs a configuration that can be used (SPW-CFG-001)")?,
        count => writeln!(out, " - {count} checks need a configuration that can be used (SPW-CFG-001)")?,
    }
    writeln!(out, "{}", summary(rows))?;
    let worst = rows.iter().filter(|row| !row.ignored).max_by_key(|row| row.found.verdict);
    match worst.filter(|row| row.found.verdict >= Verdict::Warning) {
        Some(row) => writeln!(out, "  → spillway help {}", row.check.id),
        None => Ok(()),
    }
}

fn summary(rows: &[Row]) -> String {
    let count =
        |verdict: Verdict| rows.iter().filter(|row| row.found.verdict == verdict && !row.ignored).count();
    let ignored = rows.iter().filter(|row| row.ignored).count();
    let ignored = if ignored > 0 { format!(", {ignored} ignored") } else { String::new() };
    format!(
        "{} failed, {} warnings, {} well, {} skipped{ignored}",
        count(Verdict::Failed),
        count(Verdict::Warning),
        count(Verdict::Ok),
        count(Verdict::Skipped)
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["check"], line].concat()).unwrap().args
    }

    fn rows(ignored: &str) -> Vec<Row> {
        let row = |id: &str, verdict, what: &str, advice: &str| {
            let check = CHECKS.iter().find(|check| check.id == id).unwrap();
            let found = Found { verdict, what: what.into(), advice: advice.into() };
            Row { check, found, ignored: id == ignored }
        };
        vec![
            row("SPW-CFG-001", Verdict::Ok, "2 documents, 19 rules", ""),
            row(
                "SPW-CFG-003",
                Verdict::Warning,
                "CoreDNS: workload, expected platform or higher",
                "keep the default rules (defaultRules: Append) or add one; spillway explain --as … shows the walk",
            ),
            row(
                "SPW-CFG-006",
                Verdict::Skipped,
                "no kubeconfig of the lane was named",
                "--break-glass-kubeconfig FILE",
            ),
            row(
                "SPW-API-004",
                Verdict::Failed,
                "kube-apiserver can be reached around spillway: 0.0.0.0:6443",
                "kube-apiserver needs --bind-address=127.0.0.1: spillway manifest kubeadm-patch",
            ),
        ]
    }

    fn printed(line: &[&str], ignored: &str) -> String {
        let mut out = Vec::new();
        print(&rows(ignored), &args(line), &mut out, Colour::Never).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_output_is_its_golden_text() {
        let mut text = String::new();
        for output in ["table", "short", "json"] {
            text += &format!("$ spillway check -o {output}\n{}\n", printed(&["-o", output], ""));
        }
        text += &format!("$ spillway check --ignore SPW-API-004\n{}", printed(&[], "SPW-API-004"));
        super::super::golden::compare("check", &text);
        let mut out = Vec::new();
        list(&mut out).unwrap();
        super::super::golden::compare("check-list", &String::from_utf8(out).unwrap());
    }

    #[test]
    fn what_counts_is_what_was_asked_for() {
        let rows = rows("");
        let failed = |line: &[&str]| rows.iter().filter(|row| counts(row, &args(line))).count();
        assert_eq!((failed(&[]), failed(&["--strict"])), (1, 2));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mistyped = args(&["--only", "certificate"]);
        assert_eq!(run(&mistyped, &mut out, &mut err, Colour::Never), Ending::Usage);
        assert!(String::from_utf8(err).unwrap().contains("did you mean \"certificates\"?"));
    }

    #[test]
    fn a_configuration_that_is_not_there_fails_and_waiting_for_it_ends() {
        let line = ["--config", "/nowhere.yaml", "--only", "SPW-CFG-001", "--socket", "/nowhere.sock"];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&args(&line), &mut out, &mut err, Colour::Never), Ending::Failed);
        let wait = [&line[..], &["--wait", "1ms"]].concat();
        assert_eq!(run(&args(&wait), &mut out, &mut err, Colour::Never), Ending::TimedOut);
        assert!(String::from_utf8(out).unwrap().contains("SPW0601"));
    }
}
