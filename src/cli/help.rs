//! `spillway help`: what does this code, this word, this alert mean, and what is to be done?
//!
//! Everything is in the binary, because the network may be what is down. Codes stand in `docs/CODES.md`, alerts in
//! `docs/RUNBOOKS.md`, the reasons of refusals beside `explain`. What is none of these is clap's own help of a command.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::CommandFactory as _;

use super::shown::wrapped;
use super::{Cli, Ending, incident};
use crate::app::explain;
use crate::config::{Code, nearest};
use crate::flow::Reason;
use crate::telemetry::{Described, Metrics};

const CODES: &str = include_str!("../../docs/CODES.md");
/// In front of every metric.
const PREFIX: &str = "spillway_";
/// Who is woken by which metric.
const RULES: &str = include_str!("../../deploy/monitoring/alerts.yaml");
const ALERTS: &str = include_str!("../../docs/RUNBOOKS.md");

/// Pages that are a word of their own: the word, what it is about, the page.
const PAGES: &[(&str, &str, &str)] = &[
    (
        "break-glass-lane",
        "the emergency lane: how it is set up, used and proven",
        include_str!("../../docs/BREAK_GLASS.md"),
    ),
    ("credentials", "who counts as verified, and by which proof", include_str!("../../docs/CREDENTIALS.md")),
    (
        "install",
        "in front of a kube-apiserver, step by step, and how to remove it",
        include_str!("../../docs/INSTALL.md"),
    ),
    ("drills", "breaking things on purpose: the model, and Chaos Mesh", include_str!("../../docs/DRILLS.md")),
    ("levers", "isolate, lockdown, limit: what each does and does not", include_str!("../../docs/LEVERS.md")),
    ("metrics", "every metric", include_str!("../../docs/METRICS.md")),
    ("phases", "spillway gate, and roll-outs in phases", include_str!("../../docs/PHASES.md")),
    ("words", "the glossary", include_str!("../../docs/GLOSSARY.md")),
];

/// The page for `spillway help WORD`; nothing when that is clap's own business.
pub(super) fn page(words: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> Option<Ending> {
    let word = words.first()?.to_str()?;
    let printed = match word {
        "incident" => return Some(incident::print(out)),
        "topics" => topics(out),
        "codes" => codes(out),
        "reasons" => Reason::ALL.iter().try_for_each(|reason| one_line(reason.as_str(), out)),
        "alerts" => headings(ALERTS).try_for_each(|heading| writeln!(out, "{heading}")),
        _ => match found(word) {
            Some(text) => out.write_all(text.as_bytes()),
            None if Cli::command().find_subcommand(word).is_some() => return None,
            None => return Some(unknown(word, err)),
        },
    };
    Some(match printed.and_then(|()| out.flush()) {
        Ok(()) => Ending::Fine,
        // Its reader has closed the pipe: nobody is left to tell.
        Err(_) => Ending::Failed,
    })
}

/// The text about a code, an alert, a reason or a page.
fn found(word: &str) -> Option<String> {
    let upper = word.to_uppercase();
    if let Some(text) = section(CODES, &upper) {
        let severity =
            Code::ALL.iter().find(|code| code.as_str() == upper).map(|code| code.severity().as_str());
        let severity = severity.map_or_else(String::new, |severity| format!(" ({severity})"));
        return Some(text.replacen(": ", &format!("{severity}: "), 1));
    }
    let page = PAGES.iter().find(|(name, _, _)| *name == word).map(|(_, _, page)| (*page).to_owned());
    page.or_else(|| reason(word)).or_else(|| section(ALERTS, word)).or_else(|| metric(word))
}

/// The text about a metric, with or without its prefix, or one of a histogram's series.
fn metric(word: &str) -> Option<String> {
    let word = word.strip_prefix(PREFIX).unwrap_or(word);
    let metrics = Metrics::new().ok()?;
    let ends = ["", "_bucket", "_sum", "_count"];
    let is_it =
        |found: &&Described| ends.iter().any(|end| word.strip_suffix(end) == Some(found.name.as_str()));
    let Described { name, kind, labels, help } = metrics.catalogue().iter().find(is_it)?;
    let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    let alerts: Vec<&str> = RULES
        .split("- alert: ")
        .skip(1)
        .filter(|rule| rule.contains(&format!("{PREFIX}{name}")))
        .filter_map(|rule| rule.lines().next())
        .collect();
    let watched: String = alerts.iter().map(|alert| format!("  → spillway help {alert}\n")).collect();
    Some(format!("{PREFIX}{name} ({kind}; labels: {labels})\n\n{}\n{watched}", wrapped(help, "")))
}

/// The text about a code of the configuration.
pub(super) fn code_page(code: &str) -> Option<String> {
    section(CODES, code)
}

/// The part of a document below `### NAME`, its heading without the marks.
fn section(document: &str, name: &str) -> Option<String> {
    let mut lines = document.lines().skip_while(|line| {
        line.strip_prefix("### ").and_then(|heading| heading.split(':').next()) != Some(name)
    });
    let heading = lines.next()?.trim_start_matches("### ");
    let body: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    Some(format!("{heading}\n\n{}\n", body.join("\n").trim()))
}

/// The text about a reason.
fn reason(word: &str) -> Option<String> {
    let advice = explain::meaning(word)?;
    let next: String = advice.next.iter().map(|next| format!("  → {next}\n")).collect();
    Some(format!(
        "{word}: {}\n\nWhoever runs the client: {}.\nWhoever runs the cluster: {}.\n{next}",
        advice.means, advice.client, advice.operator
    ))
}

fn one_line(reason: &str, out: &mut dyn Write) -> io::Result<()> {
    let means = explain::meaning(reason).map_or("", |advice| advice.means);
    writeln!(out, "{reason:<21} {means}")
}

fn headings(document: &str) -> impl Iterator<Item = &str> {
    document.lines().filter_map(|line| line.strip_prefix("### "))
}

fn codes(out: &mut dyn Write) -> io::Result<()> {
    headings(CODES).try_for_each(|heading| {
        let (code, what) = heading.split_once(": ").unwrap_or((heading, ""));
        writeln!(out, "{code:<12} {what}")
    })
}

fn topics(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "spillway help …")?;
    for (word, what) in [
        ("incident", "one page for three in the morning"),
        ("codes", "every code; help SPW0204 explains one"),
        ("reasons", "every reason of a refusal; help identity_rate explains one"),
        ("alerts", "every alert; help SpillwayDown explains one and what to do"),
        ("METRIC", "a metric and its alerts: help spillway_shed_total; all: help metrics"),
    ] {
        writeln!(out, "  {word:<17} {what}")?;
    }
    PAGES.iter().try_for_each(|(word, what, _)| writeln!(out, "  {word:<17} {what}"))?;
    writeln!(out, "  COMMAND           how a command is used: help isolate")
}

/// Everything that help knows a page about.
fn words() -> Vec<String> {
    let codes = headings(CODES).map(|heading| heading.split(':').next().unwrap_or(heading));
    let pages = PAGES.iter().map(|(word, _, _)| *word);
    let own = ["incident", "topics", "codes", "reasons", "alerts"];
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let known = codes.chain(headings(ALERTS)).chain(pages).chain(own).chain(reasons);
    let commands = Cli::command();
    let commands = commands.get_subcommands().map(|command| command.get_name().to_owned());
    known.map(str::to_owned).chain(commands).collect()
}

fn unknown(word: &str, err: &mut dyn Write) -> Ending {
    let words = words();
    let near = nearest(word, words.iter().map(String::as_str));
    let help = near.map_or_else(
        || "spillway help topics".to_owned(),
        |near| format!("did you mean {near:?}? spillway help {near}"),
    );
    // A closed terminal cannot be told anything; the exit code still says it.
    let _ = writeln!(err, "error: there is no help about {:?}\nhelp: {help}", super::shown::plain(word));
    Ending::Usage
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn printed(word: &str) -> (Option<Ending>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ending = page(&[word.into()], &mut out, &mut err);
        (ending, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// `SPW` and four digits, or a check's id, wherever they stand in a text.
    fn codes_in(text: &str) -> BTreeSet<String> {
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        let is_code = |word: &&str| {
            let number = |digits: &str, count: usize| {
                digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_digit())
            };
            word.strip_prefix("SPW").is_some_and(|rest| {
                number(rest, 4)
                    || rest.rsplit_once('-').is_some_and(|(kind, digits)| kind.len() > 1 && number(digits, 3))
            })
        };
        text.split(ends).filter(is_code).map(str::to_owned).collect()
    }

    fn sources(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push_str(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
            }
        }
    }

    #[test]
    fn a_metric_is_explained_by_any_of_its_names_with_its_alerts() {
        let (ending, text, _) = printed("spillway_break_glass_audit_cut_total");
        assert_eq!(ending, Some(Ending::Fine));
        assert!(text.contains("(counter; labels: none)") && text.contains("help SpillwayAuditCut"), "{text}");
        let (_, text, _) = printed("queue_wait_seconds_bucket");
        assert!(text.starts_with("spillway_queue_wait_seconds (histogram; labels: lane)"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(printed("spillway_nothing").0, Some(Ending::Usage));
    }

    #[test]
    fn every_code_in_the_source_has_a_page_and_every_page_a_code() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let mut known = codes_in(&text);
        known.extend(Code::ALL.iter().map(|code| code.as_str().to_owned()));
        let told: BTreeSet<String> =
            headings(CODES).filter_map(|heading| heading.split(':').next()).map(str::to_owned).collect();
        let missing: Vec<_> = known.difference(&told).collect();
        assert!(
            missing.is_empty(),
            "docs/CODES.md needs a part `### CODE: what is wrong` with Cause, Example and Fix for {missing:?}"
        );
        let stale: Vec<_> = told.difference(&known).collect();
        assert!(stale.is_empty(), "docs/CODES.md speaks of codes that nothing says any more: {stale:?}");
        for code in &told {
            let text = section(CODES, code).unwrap();
            for part in ["\nCause: ", "\nExample: ", "\nFix: "] {
                assert!(text.contains(part), "{code} has no{part}");
            }
        }
        assert_eq!(headings(CODES).count(), told.len(), "one part a code");
    }

    #[test]
    fn help_about_a_code_a_reason_and_an_alert_is_its_golden_text() {
        let mut text = String::new();
        for word in ["SPW0204", "spw0311", "identity_rate", "SpillwayDown", "topics", "reasons"] {
            let (ending, out, err) = printed(word);
            assert_eq!((ending, err.as_str()), (Some(Ending::Fine), ""), "{word}");
            text += &format!("$ spillway help {word}\n{out}\n");
        }
        super::super::golden::compare("help", &text);
        for (word, _, _) in PAGES {
            assert!(printed(word).1.starts_with("# "), "{word}");
        }
    }

    #[test]
    fn what_is_mistyped_is_guessed_and_commands_are_left_to_clap() {
        let (ending, _, err) = printed("SPW0240");
        assert_eq!(ending, Some(Ending::Usage));
        assert!(err.contains("did you mean \"SPW0"), "{err}");
        assert!(printed("identty_rate").2.contains("did you mean \"identity_rate\"?"));
        assert!(printed("isolat").2.contains("did you mean \"isolate\"?"));
        assert!(printed("what-is-this-about").2.contains("spillway help topics"));
        assert_eq!(printed("isolate").0, None);
    }
}
