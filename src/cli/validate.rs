//! `spillway validate FILE…`: would these files be accepted, and what is suspicious about them?
//!
//! Everything is checked that `run` checks before it starts anything, and nothing is changed. People read the
//! findings on standard error and a line a document on standard output; programs take `-o json`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::help::code_page;
use super::sarif;

use crate::config::{self, Colour, Diagnostics, Document, DocumentKind, FileChecks};

/// All files are fine; there may be warnings.
pub const VALID: u8 = 0;
/// At least one error: nothing of it would be used.
pub const INVALID: u8 = 3;

/// Check configuration files without using them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  spillway validate /etc/spillway/spillway.yaml /etc/spillway/policy.yaml
  spillway validate --skip-files policy.yaml           on another machine
  spillway validate -o sarif policy.yaml > findings.sarif
  spillway validate --list

Exit codes: 0 it would be used, 3 it would not; spillway help SPW0204 explains a code.")]
pub struct Args {
    /// YAML files with ProxyConfiguration and TrafficPolicy documents, checked together.
    #[arg(required_unless_present = "list", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How findings are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Do not look at the certificate and key files that are named: for checking on another machine.
    #[arg(long)]
    pub skip_files: bool,
    /// List what is looked for and end.
    #[arg(long)]
    pub list: bool,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people: each finding under the line it is about.
    Text,
    /// For programs: one JSON object.
    Json,
    /// For code hosts: SARIF 2.1.0.
    Sarif,
}

/// Checks the files and returns the exit code, [`VALID`] or [`INVALID`].
///
/// # Errors
/// When the findings cannot be written.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> io::Result<u8> {
    if args.list {
        list(out)?;
        return Ok(VALID);
    }
    let checks = if args.skip_files { FileChecks::Off } else { FileChecks::On };
    let (documents, found, code) = match config::load_with(&args.files, checks) {
        Ok(loaded) => (loaded.documents, loaded.warnings, VALID),
        Err(found) => (vec![], found, INVALID),
    };
    match args.output {
        Output::Json => writeln!(out, "{:#}", report(&documents, &found))?,
        Output::Sarif => writeln!(out, "{:#}", sarif::report(&found))?,
        Output::Text => {
            if !found.0.is_empty() {
                writeln!(err, "{}", config::human(&found, colour))?;
            }
            for document in &documents {
                writeln!(out, "{}", summary(document, &found))?;
            }
            if code == INVALID {
                let (errors, warnings) = (count(found.errors(), "error"), count(found.warnings(), "warning"));
                writeln!(err, "{errors}, {warnings}: nothing of this would be used")?;
            }
        }
    }
    Ok(code)
}

/// Everything that can be found, with the sentence of its page.
fn list(out: &mut dyn Write) -> io::Result<()> {
    config::Code::ALL.iter().try_for_each(|code| {
        let page = code_page(code.as_str()).unwrap_or_default();
        let title = page.lines().next().and_then(|line| line.split_once(": ")).map_or("", |(_, title)| title);
        writeln!(out, "{code}  {:<8} {title}", code.severity().as_str())
    })
}

fn report(documents: &[Document], found: &Diagnostics) -> serde_json::Value {
    let document = |document: &Document| match document.kind {
        DocumentKind::ProxyConfiguration { listeners } => {
            json!({ "file": document.file, "kind": "ProxyConfiguration", "listeners": listeners })
        }
        DocumentKind::TrafficPolicy { lanes, rules, default_rules } => json!({
            "file": document.file, "kind": "TrafficPolicy",
            "lanes": lanes, "rules": rules, "defaultRules": default_rules,
        }),
    };
    json!({
        "valid": found.errors() == 0,
        "errors": found.errors(),
        "warnings": found.warnings(),
        "documents": documents.iter().map(document).collect::<Vec<_>>(),
        "diagnostics": config::json(found),
    })
}

fn summary(document: &Document, found: &Diagnostics) -> String {
    let here = |place: &config::Place| place.file == document.file;
    let warnings = found.0.iter().filter(|found| found.place.as_ref().is_some_and(here)).count();
    let what = match document.kind {
        DocumentKind::ProxyConfiguration { listeners } => {
            format!("ProxyConfiguration with {}", count(listeners, "listener"))
        }
        DocumentKind::TrafficPolicy { lanes, rules, default_rules } => format!(
            "TrafficPolicy that sets {}, with {} and {}",
            count(lanes, "lane"),
            count(rules, "rule"),
            count(default_rules, "default rule"),
        ),
    };
    format!("{}: {what}; {} in this file", document.file, count(warnings, "warning"))
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "tests/golden/config";

    fn validate(files: &[&str], output: Output, skip_files: bool) -> (u8, String, String) {
        let (mut out, mut err) = (vec![], vec![]);
        let files = files.iter().map(PathBuf::from).collect();
        let code =
            run(&Args { files, output, skip_files, list: false }, &mut out, &mut err, Colour::Never).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn good_files_get_a_line_each_and_zero() {
        let files = ["config/spillway.yaml", "config/policy.yaml"];
        let (code, out, err) = validate(&files, Output::Text, true);
        assert_eq!((code, err.as_str()), (VALID, ""));
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(
            lines[0],
            "config/spillway.yaml: ProxyConfiguration with 1 listener; no warnings in this file"
        );
        assert!(
            lines[1].starts_with("config/policy.yaml: TrafficPolicy that sets 7 lanes, with "),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn an_error_is_three_and_says_so() {
        let (code, out, err) = validate(&[&format!("{FOLDER}/unknown-lane.yaml")], Output::Text, true);
        assert_eq!((code, out.as_str()), (INVALID, ""));
        assert!(err.starts_with("error[SPW0204]: lane \"telemtry\" is not defined\n"), "{err}");
        assert!(err.ends_with("nothing of this would be used\n"), "{err}");
    }

    #[test]
    fn programs_get_one_object() {
        let (code, out, err) = validate(&[&format!("{FOLDER}/unknown-lane.yaml")], Output::Json, true);
        assert_eq!((code, err.as_str()), (INVALID, ""));
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["valid"], false);
        assert_eq!(report["diagnostics"][0]["code"], "SPW0204");
        assert_eq!(report["diagnostics"][0]["help"], "did you mean \"telemetry\"?");
    }

    #[test]
    fn a_missing_file_is_a_finding() {
        let (code, _, err) = validate(&["no/such.yaml"], Output::Text, false);
        assert_eq!(code, INVALID);
        assert!(err.starts_with("error[SPW0601]: there is no file no/such.yaml\n"), "{err}");
    }

    #[test]
    fn colour_is_for_terminals() {
        let (mut out, mut err) = (vec![], vec![]);
        let args =
            Args { files: vec!["no/such.yaml".into()], output: Output::Text, skip_files: false, list: false };
        run(&args, &mut out, &mut err, Colour::Always).unwrap();
        assert!(String::from_utf8(err).unwrap().contains("\x1b[1;31merror[SPW0601]\x1b[0m"));
    }

    #[test]
    fn a_code_host_gets_places_and_help_and_the_list_names_every_code() {
        let files = [format!("{FOLDER}/unknown-lane.yaml"), format!("{FOLDER}/warnings.yaml")];
        let (code, out, _) = validate(&[&files[0]], Output::Sarif, true);
        assert_eq!(code, INVALID);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let run = &report["runs"][0];
        let result = &run["results"][0];
        assert_eq!((&result["ruleId"], &result["level"]), (&json!("SPW0204"), &json!("error")));
        let region = &result["locations"][0]["physicalLocation"]["region"];
        assert!(
            region["startLine"].as_u64() > Some(1)
                && region["endColumn"].as_u64() > region["startColumn"].as_u64(),
            "{out}"
        );
        assert!(run["tool"]["driver"]["rules"][0]["help"]["text"].as_str().unwrap().contains("Fix: "));
        let (code, out, _) = validate(&[&files[1]], Output::Sarif, true);
        assert_eq!(code, VALID);
        assert!(out.contains("\"level\": \"warning\""), "{out}");
        let mut out = Vec::new();
        list(&mut out).unwrap();
        super::super::golden::compare("validate-list", &String::from_utf8(out).unwrap());
    }
}
