//! `spillway gate`: did kube-apiserver stay well for the whole time? For pipelines that roll something out in phases.
//!
//! It looks once a second and ends at the first look that is not well, with the verdict's sentence, so that the next
//! phase never starts. Well means more than a low pressure: a guard that sheds keeps the pressure low, and an apiserver
//! that is away has none.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use clap::Args as ClapArgs;
use http::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Ending;
use super::observed::{Observed, STATES, Source};
use super::shown::{self, Output, span, wrapped};
use super::socket::{Failure, Where, parse_time};
use crate::admin::wire::{Problem, code};
use crate::clock;
use crate::policy::Lane;

/// Looks in a row without an answer that end it: fewer may be a restart.
const SILENT_MAX: u32 = 3;
/// Pages of metrics that are looked at: the control-plane nodes of a cluster.
const SOURCES_MAX: usize = 16;

/// Waits, and fails at once when kube-apiserver is not well.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  kubectl apply -f phase-2.yaml && spillway gate --max-pressure 1.3 --for 5m && kubectl apply -f phase-3.yaml
  spillway gate --for 5m --no-shed workload --no-shed operators -o json
  spillway gate --for 5m --metrics http://10.0.0.11:10270/metrics --metrics http://10.0.0.12:10270/metrics

Asks the proxy on this machine over its admin socket, or reads metrics of the proxies on other machines. By default it also
fails when spillway sheds (--max-state brown allows that), and when kube-apiserver is away.
Exit codes: 0 it stayed well, 1 it did not, 2 usage, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    /// How many times slower than calm kube-apiserver may answer
    #[arg(long, value_name = "RATIO", default_value = "1.3", value_parser = ratio)]
    max_pressure: f64,
    /// The worst state that is allowed: normal, brown or red
    #[arg(long, value_name = "STATE", default_value = "normal", value_parser = ["normal", "brown", "red"])]
    max_state: String,
    /// A lane of which nothing may be refused; may be repeated
    #[arg(long, value_name = "LANE", value_parser = lane)]
    no_shed: Vec<String>,
    /// How long it must stay well
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    length: Duration,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = every)]
    every: Duration,
    /// A page with spillway's metrics, instead of the socket; may be repeated, one a control-plane node
    #[arg(long, value_name = "URL", value_parser = page, conflicts_with = "socket")]
    metrics: Vec<Uri>,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| (1.0..=1_000.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 1 to 1000, such as 1.3; calm is 1".to_owned())
}

fn lane(text: &str) -> Result<String, String> {
    let names = Lane::ALL.map(Lane::as_str);
    if names.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected one of {}", names.join(", ")))
    }
}

fn every(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    if range.contains(&time) { Ok(time) } else { Err("expected 100ms to 1m".to_owned()) }
}

fn page(text: &str) -> Result<Uri, String> {
    let expected = || "expected http://HOST:PORT/metrics".to_owned();
    let url: Uri = text.parse().map_err(|_| expected())?;
    if url.scheme_str() == Some("http") && url.host().is_some() { Ok(url) } else { Err(expected()) }
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    passed: bool,
    /// Seconds until it was over.
    after_seconds: f64,
    /// Times that every source was looked at.
    looks: u64,
    max_pressure: f64,
    max_state: String,
    no_shed: Vec<String>,
    /// The highest pressure that was seen.
    pressure: f64,
    /// The state at the last look.
    state: String,
    /// Why it did not pass, and where that was seen.
    why: Option<String>,
    from: Option<String>,
    /// The cause, as the proxy words it.
    diagnosis: Option<String>,
}

/// Looks until it is over.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let verdict = match gate(args) {
        Ok(verdict) => verdict,
        Err(failure) => return failure.tell(err),
    };
    let printed = match shown::for_programs(args.output, &verdict, out) {
        Ok(false) => write!(out, "{}", told(&verdict)),
        other => other.map(|_| ()),
    };
    match (printed, verdict.passed) {
        (Ok(()), true) => Ending::Fine,
        _ => Ending::Failed,
    }
}

fn gate(args: &Args) -> Result<Verdict, Failure> {
    let mut sources = sources(args)?;
    let bar = progress(args.length);
    let (begun, mut silent) = (clock::now(), 0);
    let mut verdict = Verdict {
        max_pressure: args.max_pressure,
        max_state: args.max_state.clone(),
        no_shed: args.no_shed.clone(),
        ..Verdict::default()
    };
    loop {
        match sources.iter_mut().map(Source::look).collect::<Result<Vec<_>, _>>() {
            Ok(seen) => {
                silent = 0;
                verdict.note(&seen, args);
            }
            // One that never answered is not about to begin.
            Err(failure) if verdict.looks == 0 || failure.ending == Ending::Forbidden => return Err(failure),
            Err(failure) => {
                silent += 1;
                if silent >= SILENT_MAX {
                    return Err(failure);
                }
            }
        }
        let elapsed = clock::now().since(begun);
        verdict.after_seconds = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
        if verdict.why.is_some() || (silent == 0 && elapsed >= args.length) {
            break;
        }
        if let Some(bar) = &bar {
            bar.set_position(elapsed.as_secs());
            bar.set_message(format!("pressure {:.2} at most, {}", verdict.pressure, verdict.state));
        }
        std::thread::sleep(
            args.every.min(args.length.saturating_sub(elapsed).max(Duration::from_millis(100))),
        );
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    verdict.passed = verdict.why.is_none();
    Ok(verdict)
}

fn sources(args: &Args) -> Result<Vec<Source>, Failure> {
    if args.metrics.len() > SOURCES_MAX {
        let message = format!("{} pages of metrics; at most {SOURCES_MAX}", args.metrics.len());
        let help = "name one a control-plane node, or ask Prometheus: deploy/rollout/";
        return Err(Failure::new(Ending::Usage, Problem::new(code::MALFORMED, message, help)));
    }
    if args.metrics.is_empty() {
        return Ok(vec![Source::Socket(args.at.clone())]);
    }
    let timeout = args.at.timeout;
    let metrics = |url: &Uri| Source::Metrics { url: url.clone(), timeout, before: None };
    Ok(args.metrics.iter().map(metrics).collect())
}

impl Verdict {
    /// One look at everything.
    fn note(&mut self, seen: &[Observed], args: &Args) {
        self.looks += 1;
        for observed in seen {
            self.pressure = self.pressure.max(observed.pressure);
        }
        let bad = seen.iter().find_map(|observed| Some((observed, wrong(observed, args)?)));
        if let Some(observed) = bad.as_ref().map(|(observed, _)| *observed).or(seen.first()) {
            self.state.clone_from(&observed.state);
        }
        if let Some((observed, why)) = bad {
            self.why = Some(why);
            self.from = Some(observed.from.clone());
            self.diagnosis = Some(observed.diagnosis.clone()).filter(|sentence| !sentence.is_empty());
        }
    }
}

/// What is not well, the worst first.
fn wrong(observed: &Observed, args: &Args) -> Option<String> {
    // Coming back is next to being away, whatever number its state has.
    let rank = |state: &str| STATES.iter().position(|known| *known == state).unwrap_or(STATES.len());
    if !observed.upstream_up {
        return Some("kube-apiserver does not answer".to_owned());
    }
    if rank(&observed.state) > rank(&args.max_state) {
        return Some(format!("state {}, allowed up to {}", observed.state, args.max_state));
    }
    if observed.pressure > args.max_pressure {
        return Some(format!("pressure {:.2}, allowed {:.2}", observed.pressure, args.max_pressure));
    }
    args.no_shed.iter().find_map(|lane| {
        let rate = observed.shed.get(lane).copied().filter(|rate| *rate > 0.0)?;
        Some(format!("lane {lane} is refused {rate:.1} requests a second, allowed none"))
    })
}

fn told(verdict: &Verdict) -> String {
    let after = span(verdict.after_seconds as u64);
    let Some(why) = &verdict.why else {
        return format!(
            "passed: for {after} pressure was at most {:.2} (allowed {:.2}), state {}, {} looks\n",
            verdict.pressure, verdict.max_pressure, verdict.state, verdict.looks
        );
    };
    let cause = verdict.diagnosis.as_ref().map_or_else(String::new, |sentence| format!("; {sentence}"));
    let text = wrapped(&format!("failed after {after}: {why}{cause}"), "  ");
    let from = verdict.from.as_deref().unwrap_or_default();
    let next = if from.starts_with("http") { "on that node: spillway status" } else { "spillway status" };
    format!("{text}\n  seen at {from}\n  → {next}\n")
}

fn progress(length: Duration) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(length.as_secs());
    // The template is a constant: should it be wrong, the default style shows the same numbers.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:20} {wide_msg}") {
        bar.set_style(style);
    }
    Some(bar)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::status::tests::storm;
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Args {
        Line::try_parse_from([&["gate"], more].concat()).unwrap().args
    }

    fn well() -> Observed {
        Observed {
            from: "/run/spillway/admin.sock".into(),
            pressure: 1.04,
            state: "normal".into(),
            upstream_up: true,
            ..Observed::default()
        }
    }

    fn verdict(observed: &Observed, args: &Args) -> Verdict {
        let mut verdict = Verdict {
            after_seconds: 42.0,
            max_pressure: args.max_pressure,
            max_state: args.max_state.clone(),
            no_shed: args.no_shed.clone(),
            ..Verdict::default()
        };
        verdict.note(std::slice::from_ref(observed), args);
        verdict.passed = verdict.why.is_none();
        verdict
    }

    #[test]
    fn each_condition_fails_by_itself() {
        let args = args(&["--no-shed", "workload"]);
        assert_eq!(wrong(&well(), &args), None);
        let cases = [
            (Observed { pressure: 1.31, ..well() }, "pressure 1.31, allowed 1.30"),
            (Observed { state: "brown".into(), ..well() }, "state brown, allowed up to normal"),
            (Observed { state: "ramp".into(), ..well() }, "state ramp, allowed up to normal"),
            (Observed { state: "unheard-of".into(), ..well() }, "state unheard-of, allowed up to normal"),
            (Observed { upstream_up: false, ..well() }, "kube-apiserver does not answer"),
            (
                Observed { shed: [("workload".to_owned(), 0.2)].into(), ..well() },
                "lane workload is refused 0.2 requests a second, allowed none",
            ),
        ];
        for (observed, expected) in cases {
            assert_eq!(wrong(&observed, &args).as_deref(), Some(expected));
        }
        let shed = Observed { shed: [("telemetry".to_owned(), 9.0)].into(), ..well() };
        assert_eq!(wrong(&shed, &args), None, "only the named lanes count");
        let lenient = self::args(&["--max-state", "red", "--max-pressure", "5"]);
        assert_eq!(wrong(&Observed { state: "red".into(), pressure: 4.9, ..well() }, &lenient), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            &["--max-pressure", "0.5"][..],
            &["--max-pressure", "NaN"],
            &["--max-state", "cold"],
            &["--no-shed", "telemetri"],
            &["--for", "5"],
            &["--every", "1ms"],
            &["--metrics", "10.0.0.11:10270"],
            &["--metrics", "https://h/metrics"],
            &["--metrics", "http://h/metrics", "--socket", "/x"],
        ] {
            assert!(Line::try_parse_from([&["gate"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_verdicts_are_their_golden_texts() {
        let args = args(&[]);
        let storm = storm();
        let bad =
            Observed { pressure: storm.pressure, state: storm.state, diagnosis: storm.diagnosis, ..well() };
        let far = Observed { from: "http://10.0.0.12:10270/metrics".into(), upstream_up: false, ..well() };
        let mut text = String::new();
        for observed in [&well(), &bad, &far] {
            text.push_str(&told(&verdict(observed, &args)));
        }
        let mut json = Vec::new();
        shown::for_programs(Output::Json, &verdict(&bad, &args), &mut json).unwrap();
        text.push_str(&String::from_utf8(json).unwrap());
        super::super::golden::compare("gate", &text);
    }
}
