//! How is what a replay found shown? Tables of 100 columns at most, lanes first; JSON has the same numbers.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::policy::Lane;
use crate::replay::{Count, Report};

/// The result, and how it was come by.
pub(super) struct Shown {
    pub(super) report: Report,
    pub(super) lines: u64,
    pub(super) broken: u64,
    /// The first of them.
    pub(super) broken_lines: Vec<String>,
    pub(super) took: Duration,
}

/// `--fail-if LANE[:PERCENT]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    lane: Lane,
    percent: f64,
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (lane, percent) = text.split_once(':').unwrap_or((text, "0"));
        let known = Lane::ALL.map(Lane::as_str);
        let lane = lane.parse().map_err(|_| {
            let near = config::nearest(lane, known).map_or_else(
                || format!("expected one of {}", known.join(", ")),
                |near| format!("did you mean {near:?}?"),
            );
            format!("no lane is called {lane:?}; {near}")
        })?;
        let number = percent.trim_end_matches('%').parse::<f64>().ok();
        let percent = number.filter(|percent| (0.0..=100.0).contains(percent));
        let percent = percent.ok_or_else(|| format!("expected a share from 0% to 100%, not {text:?}"))?;
        Ok(Self { lane, percent })
    }
}

impl Shown {
    /// A line for each bound that is broken.
    pub(super) fn failures(&self, bounds: &[Bound]) -> Vec<String> {
        let broken = |bound: &Bound| {
            let (_, count) = self.report.lanes.iter().find(|(lane, _)| *lane == bound.lane)?;
            let percent = count.share() * 100.0;
            (percent > bound.percent).then(|| {
                format!(
                    "{} of {} requests of lane {} would have been refused ({percent:.3} %), at most {} % may",
                    count.refused(),
                    count.all(),
                    bound.lane,
                    bound.percent,
                )
            })
        };
        bounds.iter().filter_map(broken).collect()
    }
}

const NAME_WIDTH: usize = 44;

/// Lanes, then the rules and users that would have suffered most.
pub(super) fn table(shown: &Shown, top: usize, out: &mut dyn Write) -> io::Result<()> {
    let report = &shown.report;
    writeln!(
        out,
        "{} requests in {}, from {}; read in {:.1} s, {:.0} events/s",
        report.requests,
        span(report.span),
        moment(report.begin),
        shown.took.as_secs_f64(),
        shown.lines as f64 / shown.took.as_secs_f64().max(1e-9),
    )?;
    if shown.broken + report.not_understood > 0 {
        writeln!(
            out,
            "left out: {} lines that are no events, {} requests that kube-apiserver refuses to read",
            shown.broken, report.not_understood
        )?;
    }
    heading("lane", out)?;
    for (lane, count) in report.lanes.iter().filter(|(_, count)| count.all() > 0) {
        line(lane.as_str(), count, out)?;
    }
    section(
        "rule",
        report.rules.iter().map(|(name, lane, count)| (format!("{name} ({lane})"), count)),
        top,
        out,
    )?;
    section("user", report.users.iter().map(|(name, count)| (name.clone(), count)), top, out)?;
    if report.lanes.iter().all(|(_, count)| count.refused() == 0) {
        writeln!(out, "\nNobody would have been refused.")?;
    }
    Ok(())
}

fn section<'a>(
    title: &str,
    counts: impl Iterator<Item = (String, &'a Count)>,
    top: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut refused = counts.filter(|(_, count)| count.refused() > 0).peekable();
    if refused.peek().is_none() {
        return Ok(());
    }
    heading(title, out)?;
    for (name, count) in refused.by_ref().take(top) {
        line(&name, count, out)?;
    }
    match refused.count() {
        0 => Ok(()),
        more => writeln!(out, "… and {more} more (--top)"),
    }
}

fn heading(title: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{title:<NAME_WIDTH$} {:>10} {:>9} {:>8}  {:<8} most for",
        "requests", "refused", "share", "waited"
    )
}

fn line(name: &str, count: &Count, out: &mut dyn Write) -> io::Result<()> {
    let share = match count.share() * 100.0 {
        0.0 => "-".to_owned(),
        share if share < 0.01 => "<0.01 %".to_owned(),
        share => format!("{share:.2} %"),
    };
    let waited =
        if count.waited == 0 { "-".to_owned() } else { format!("{:.2} s", count.longest_wait.as_secs_f64()) };
    writeln!(
        out,
        "{:<NAME_WIDTH$} {:>10} {:>9} {share:>8}  {waited:<8} {}",
        shortened(name),
        count.all(),
        count.refused(),
        count.main_reason().map_or("", crate::flow::Reason::as_str),
    )
}

/// Names come from a log: control characters are shown, and the middle gives way.
fn shortened(name: &str) -> String {
    let clean: Vec<char> = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.len() <= NAME_WIDTH {
        return clean.into_iter().collect();
    }
    let half = (NAME_WIDTH - 1) / 2;
    clean[..half].iter().chain(&['…']).chain(&clean[clean.len() - half..]).collect()
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

fn moment(micros: u64) -> String {
    let nanos = i128::from(micros) * 1_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

/// The same for programs.
pub(super) fn json(shown: &Shown, top: usize, failed: &[String], out: &mut dyn Write) -> io::Result<()> {
    let report = &shown.report;
    let lanes: serde_json::Map<String, Value> =
        report.lanes.iter().map(|(lane, count)| (lane.as_str().to_owned(), counted(count))).collect();
    let named = |name: &str, count: &Count| {
        let mut value = counted(count);
        value["name"] = name.into();
        value
    };
    let rules = report.rules.iter().take(top).map(|(name, lane, count)| {
        let mut value = named(name, count);
        value["lane"] = lane.as_str().into();
        value
    });
    let users = report.users.iter().take(top).map(|(name, count)| named(name, count));
    let value = json!({
        "requests": report.requests, "lines": shown.lines, "brokenLines": shown.broken,
        "notUnderstood": report.not_understood, "begin": moment(report.begin),
        "spanSeconds": report.span.as_secs_f64(), "tookSeconds": shown.took.as_secs_f64(),
        "lanes": lanes, "rules": rules.collect::<Vec<_>>(), "users": users.collect::<Vec<_>>(),
        "failures": failed,
    });
    writeln!(out, "{value:#}")
}

fn counted(count: &Count) -> Value {
    let reasons: serde_json::Map<String, Value> = crate::flow::Reason::ALL
        .into_iter()
        .filter(|reason| count.shed[reason.index()] > 0)
        .map(|reason| (reason.as_str().to_owned(), count.shed[reason.index()].into()))
        .collect();
    json!({
        "requests": count.all(), "refused": count.refused(), "waited": count.waited,
        "longestWaitSeconds": count.longest_wait.as_secs_f64(), "reasons": reasons,
    })
}
