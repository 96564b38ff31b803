//! What came out? The measured table, the verdict, and the JSON of both.
//!
//! Every number is taken from the ledger of the half it stands for. The verdict fails when spillway did not keep its
//! promise, and also when the storm hurt nobody without it: then the comparison proves nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::clients::leases::NOT_READY_AFTER;
use super::ledger::{Ledger, Listed, Span, Who, percentile};
use super::scenario::INSIGHT_AFTER;
use crate::units::Instant;

/// At least this share of all refusals must hit telemetry.
const TELEMETRY_REFUSALS_PERCENT_MIN: f64 = 99.0;

/// The result of a demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The seed of all jitter.
    pub seed: u64,
    /// Modelled nodes.
    pub nodes: usize,
    /// Modelled pods at the start.
    pub pods: usize,
    /// How much faster than in reality leases are renewed.
    pub lease_time_compression: u32,
    /// How long the demo took, in seconds.
    pub took_seconds: f64,
    /// The storm straight on the apiserver.
    pub without: Half,
    /// The same storm with spillway in front of it.
    pub with: Half,
    /// Whether spillway kept its promise.
    pub verdict: Verdict,
}

/// One storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Half {
    /// From the DaemonSet's creation to its deletion (or to the demo's own end of the storm), in seconds.
    pub storm_seconds: f64,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// Lease renewals of the nodes.
    pub leases: Leases,
    /// The age of DNS' knowledge.
    pub dns: Dns,
    /// The operator's commands.
    pub operator: Operator,
    /// The telemetry agents' LISTs.
    pub telemetry: Telemetry,
    /// Answers of 429 to everybody else.
    pub refused_others: usize,
    /// From the storm's start to the first of them, in ms.
    pub others_first_refused_after_ms: Option<u64>,
    /// The modelled machine.
    pub apiserver: Apiserver,
    /// From the storm's end until leases were as fast as before, in ms; `None` if not within the demo's patience.
    pub recovery_ms: Option<u64>,
}

/// How a storm ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The operator deleted the DaemonSet.
    Operator,
    /// The operator could not; the demo cut the agents off.
    Demo,
}

/// Node leases during the storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leases {
    /// Rounds that were due.
    pub due: usize,
    /// Rounds that succeeded in time.
    pub renewed: usize,
    /// `renewed` of `due`, in percent.
    pub percent: f64,
    /// 99th percentile of all rounds, in ms; a failed round counts with its timeout.
    pub p99_ms: f64,
    /// The same before the storm.
    pub calm_p99_ms: f64,
    /// Nodes that went without a renewal long enough to be taken for dead.
    pub nodes_not_ready: usize,
}

/// Age of the newest change that CoreDNS knew, sampled during the storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dns {
    /// The oldest, in ms.
    pub staleness_max_ms: f64,
    /// 99th percentile, in ms.
    pub staleness_p99_ms: f64,
}

/// kubectl commands during the storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operator {
    /// Commands that were started.
    pub commands: usize,
    /// Commands that succeeded.
    pub succeeded: usize,
    /// `succeeded` of `commands`, in percent.
    pub percent: f64,
    /// 99th percentile, in ms; a failed command counts with the time it took to fail.
    pub p99_ms: f64,
    /// From the first try to delete the DaemonSet until it was deleted, in ms.
    pub deleted_after_ms: Option<u64>,
}

/// LISTs of the telemetry agents during the storm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Telemetry {
    /// Complete answers.
    pub served: usize,
    /// Answers of 429.
    pub refused: usize,
    /// Other errors and broken connections.
    pub failed: usize,
    /// From the storm's start to the first 429, in ms.
    pub first_refused_after_ms: Option<u64>,
}

/// The modelled machine during the storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Apiserver {
    /// Share of its cores in use, in percent.
    pub busy_percent: f64,
    /// The part of that use which went into memory pressure instead of requests, in percent.
    pub wasted_percent: f64,
}

/// Whether spillway kept its promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// All of it.
    pub passed: bool,
    /// What was missed, one sentence each.
    pub missed: Vec<String>,
}

/// What one half measured, as its report needs it.
pub(crate) struct Measured<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) calm: Span,
    pub(crate) storm: Span,
    pub(crate) ended_by: EndedBy,
    /// When the operator knew the culprit.
    pub(crate) insight: Instant,
    pub(crate) apiserver: Apiserver,
    pub(crate) recovery: Option<Duration>,
}

impl Half {
    pub(crate) fn of(measured: Measured<'_>) -> Self {
        let Measured { ledger, calm, storm, .. } = measured;
        let others = [Who::Node, Who::Controller, Who::Dns, Who::Operator];
        Self {
            storm_seconds: storm.length().as_secs_f64(),
            ended_by: measured.ended_by,
            leases: leases(ledger, calm, storm),
            dns: dns(ledger, storm),
            operator: operator(ledger, storm, measured.insight),
            telemetry: telemetry(ledger, storm),
            refused_others: others.iter().map(|who| ledger.refusals(storm, *who)).sum(),
            others_first_refused_after_ms: others
                .iter()
                .filter_map(|who| ledger.first_refusal(storm, *who))
                .min()
                .map(|at| whole_ms(at.since(storm.start))),
            apiserver: measured.apiserver,
            recovery_ms: measured.recovery.map(whole_ms),
        }
    }

    /// Whether somebody who matters was hurt.
    fn hurt(&self) -> bool {
        self.leases.renewed < self.leases.due || self.operator.succeeded < self.operator.commands
    }
}

fn leases(ledger: &Ledger, calm: Span, storm: Span) -> Leases {
    let rounds = ledger.renewals(storm);
    let renewed = rounds.iter().filter(|round| round.renewed).count();
    let took = |rounds: &[super::ledger::Renewal]| rounds.iter().map(|round| round.took).collect::<Vec<_>>();
    let mut last_success: HashMap<usize, Instant> = HashMap::new();
    let mut not_ready = std::collections::HashSet::new();
    for round in &rounds {
        let since = *last_success.entry(round.node).or_insert(storm.start);
        let seen = round.due + round.took;
        if seen.since(since) >= NOT_READY_AFTER {
            not_ready.insert(round.node);
        }
        if round.renewed {
            last_success.insert(round.node, seen);
        }
    }
    Leases {
        due: rounds.len(),
        renewed,
        percent: percent(renewed, rounds.len()),
        p99_ms: p99_ms(&took(&rounds)),
        calm_p99_ms: p99_ms(&took(&ledger.renewals(calm))),
        nodes_not_ready: not_ready.len(),
    }
}

fn dns(ledger: &Ledger, storm: Span) -> Dns {
    let ages = ledger.ages(storm);
    Dns {
        staleness_max_ms: ages.iter().max().copied().map_or(0.0, exact_ms),
        staleness_p99_ms: p99_ms(&ages),
    }
}

fn operator(ledger: &Ledger, storm: Span, insight: Instant) -> Operator {
    let commands = ledger.commands(storm);
    let succeeded = commands.iter().filter(|command| command.succeeded).count();
    let took: Vec<_> = commands.iter().map(|command| command.took).collect();
    Operator {
        commands: commands.len(),
        succeeded,
        percent: percent(succeeded, commands.len()),
        p99_ms: p99_ms(&took),
        deleted_after_ms: ledger.culprit_deleted_at().map(|at| whole_ms(at.since(insight))),
    }
}

fn telemetry(ledger: &Ledger, storm: Span) -> Telemetry {
    let first = ledger.first_refusal(storm, Who::Telemetry);
    Telemetry {
        served: ledger.lists(storm, Listed::Served),
        refused: ledger.lists(storm, Listed::Refused),
        failed: ledger.lists(storm, Listed::Failed),
        first_refused_after_ms: first.map(|at| whole_ms(at.since(storm.start))),
    }
}

impl Verdict {
    /// Judges the two halves.
    pub(crate) fn of(without: &Half, with: &Half) -> Self {
        let mut missed = Vec::new();
        let mut require = |kept: bool, sentence: String| {
            if !kept {
                missed.push(sentence);
            }
        };
        let (leases, operator) = (&with.leases, &with.operator);
        require(
            without.hurt(),
            "the storm hurt nobody without spillway, so this run proves nothing".to_owned(),
        );
        require(
            leases.due > 0 && leases.renewed == leases.due,
            format!("with spillway {} of {} lease renewals failed", leases.due - leases.renewed, leases.due),
        );
        require(
            operator.commands > 0 && operator.succeeded == operator.commands,
            format!(
                "with spillway {} of {} operator commands failed",
                operator.commands - operator.succeeded,
                operator.commands
            ),
        );
        require(
            with.ended_by == EndedBy::Operator,
            "with spillway the operator could not delete the DaemonSet".to_owned(),
        );
        let refusals = with.telemetry.refused + with.refused_others;
        require(with.telemetry.refused > 0, "with spillway no telemetry was refused".to_owned());
        let first = (with.telemetry.first_refused_after_ms, with.others_first_refused_after_ms);
        require(
            !matches!(first, (Some(telemetry), Some(others)) if others < telemetry),
            "with spillway somebody else was refused before telemetry".to_owned(),
        );
        require(
            percent(with.telemetry.refused, refusals) >= TELEMETRY_REFUSALS_PERCENT_MIN,
            format!("with spillway {} of {refusals} refusals hit others than telemetry", with.refused_others),
        );
        Self { passed: missed.is_empty(), missed }
    }
}

/// Two columns of text side by side.
struct Rows(String);

impl Rows {
    fn add(&mut self, label: &str, without: &str, with: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{label:<40}{without:>18}{with:>18}");
    }

    fn rule(&mut self) {
        let _ = writeln!(self.0, "{}", "-".repeat(76));
    }
}

impl Report {
    /// The table and the verdict for people, at most 80 columns wide.
    #[must_use]
    pub fn render(&self) -> String {
        let (a, b) = (&self.without, &self.with);
        let mut rows = Rows(String::new());
        let both = |rows: &mut Rows, label: &str, cell: &dyn Fn(&Half) -> String| {
            rows.add(label, &cell(a), &cell(b))
        };
        let of = |part: usize, whole: usize| format!("{part} of {whole}");
        let _ = writeln!(
            rows.0,
            "The same storm, measured: {} nodes, {} pods, seed {}, {:.0} s in all",
            self.nodes, self.pods, self.seed, self.took_seconds
        );
        rows.rule();
        rows.add("", "without spillway", "with spillway");
        rows.rule();
        both(&mut rows, "node leases renewed", &|half| percent_text(half.leases.percent));
        both(&mut rows, "  renewals in time", &|half| of(half.leases.renewed, half.leases.due));
        both(&mut rows, "  slowest 1 % (p99)", &|half| ms_text(half.leases.p99_ms));
        both(&mut rows, "  nodes taken for dead", &|half| half.leases.nodes_not_ready.to_string());
        both(&mut rows, "DNS answers stale, worst", &|half| ms_text(half.dns.staleness_max_ms));
        both(&mut rows, "  99 % of the time below", &|half| ms_text(half.dns.staleness_p99_ms));
        both(&mut rows, "operator commands that worked", &|half| percent_text(half.operator.percent));
        both(&mut rows, "  commands", &|half| of(half.operator.succeeded, half.operator.commands));
        both(&mut rows, "  slowest 1 % (p99)", &|half| ms_text(half.operator.p99_ms));
        both(&mut rows, "  culprit deleted after", &|half| {
            optional_ms(half.operator.deleted_after_ms, "never")
        });
        both(&mut rows, "telemetry LISTs served", &|half| half.telemetry.served.to_string());
        both(&mut rows, "  refused (429)", &|half| half.telemetry.refused.to_string());
        both(&mut rows, "others refused (429)", &|half| half.refused_others.to_string());
        both(&mut rows, "apiserver busy", &|half| format!("{:.0} %", half.apiserver.busy_percent));
        both(&mut rows, "  of it lost to memory pressure", &|half| {
            format!("{:.0} %", half.apiserver.wasted_percent)
        });
        both(&mut rows, "storm ended by", &|half| half.ended_by.as_str().to_owned());
        both(&mut rows, "  after", &|half| format!("{:.1} s", half.storm_seconds));
        both(&mut rows, "back to calm after", &|half| optional_ms(half.recovery_ms, "not in time"));
        rows.rule();
        rows.0.push_str(&self.footnote());
        rows.0.push_str(&self.verdict.sentence());
        rows.0
    }

    fn footnote(&self) -> String {
        format!(
            "Real TLS connections; the apiserver's speed is modelled (no APF, {}x faster\n\
             lease clock, DaemonSet deleted {} s into the storm at the earliest).\n",
            self.lease_time_compression,
            INSIGHT_AFTER.as_secs(),
        )
    }
}

impl EndedBy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "the operator",
            Self::Demo => "the demo",
        }
    }
}

impl Verdict {
    fn sentence(&self) -> String {
        if self.passed {
            return "PASSED: operators and leases 100 % through the storm; only telemetry was shed.\n"
                .to_owned();
        }
        let mut text = String::from("FAILED:\n");
        for sentence in &self.missed {
            let _ = writeln!(text, "- {sentence}");
        }
        text
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Never rounds up to 100: one miss in ten thousand shows.
fn percent_text(percent: f64) -> String {
    format!("{:.1} %", (percent * 10.0).floor() / 10.0)
}

fn ms_text(ms: f64) -> String {
    if ms < 1_000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1_000.0) }
}

fn optional_ms(ms: Option<u64>, none: &str) -> String {
    ms.map_or_else(|| none.to_owned(), |ms| ms_text(ms as f64))
}

fn exact_ms(duration: Duration) -> f64 {
    // Tenths of a millisecond are finer than any timer here.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn p99_ms(samples: &[Duration]) -> f64 {
    percentile(samples, 99).map_or(0.0, exact_ms)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
