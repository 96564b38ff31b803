//! How does a drill tell what it found?
//!
//! A step is good, bad, not tried or left out, and only the first is ever called good. Whatever is not good ends with the
//! next command. The same steps make the text for a terminal, the Markdown for the ticket and the JSON for a program.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::breakglass::show_time;
use crate::clock;
use crate::units::Instant;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// Nobody knows: something it needs is missing.
    Untried,
    /// The person said that it shall be left out.
    LeftOut,
}

impl Mark {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Bad => "FAIL",
            Self::Untried => "not tried",
            Self::LeftOut => "left out",
        }
    }
}

/// One step and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) mark: Mark,
    what: String,
    next: String,
    at: SystemTime,
    took: Duration,
}

/// Everything that was tried, in order.
pub(super) struct Report {
    pub(super) steps: Vec<Step>,
    left_out: Vec<String>,
    begun: SystemTime,
    since: Instant,
    /// When the step that runs was begun.
    step: Instant,
    /// Who, where.
    pub(super) user: String,
    pub(super) lane: String,
    pub(super) host: String,
}

/// What a step says about itself.
pub(super) enum Found {
    Good(String),
    Bad(String, String),
    Untried(String, String),
}

pub(super) fn good(what: impl Into<String>) -> Found {
    Found::Good(what.into())
}

pub(super) fn bad(what: impl Into<String>, next: impl Into<String>) -> Found {
    Found::Bad(what.into(), next.into())
}

pub(super) fn untried(what: impl Into<String>, next: impl Into<String>) -> Found {
    Found::Untried(what.into(), next.into())
}

impl Report {
    pub(super) fn new(left_out: Vec<String>) -> Self {
        let (wall, now) = (clock::wall(), clock::now());
        Self {
            steps: Vec::new(),
            left_out,
            begun: wall,
            since: now,
            step: now,
            user: String::new(),
            lane: String::new(),
            host: String::new(),
        }
    }

    /// Whether a step shall be played; says so when not.
    pub(super) fn wants(&mut self, name: &'static str) -> bool {
        self.step = clock::now();
        if !self.left_out.iter().any(|left| left == name) {
            return true;
        }
        self.push(name, Mark::LeftOut, "by --skip".to_owned(), String::new());
        false
    }

    /// Keeps what a step found; true when it is good.
    pub(super) fn found(&mut self, name: &'static str, found: Found) -> bool {
        let (mark, what, next) = match found {
            Found::Good(what) => (Mark::Good, what, String::new()),
            Found::Bad(what, next) => (Mark::Bad, what, next),
            Found::Untried(what, next) => (Mark::Untried, what, next),
        };
        self.push(name, mark, what, next);
        mark == Mark::Good
    }

    /// The same for what took so long within a step that did more.
    pub(super) fn found_in(&mut self, name: &'static str, found: Found, took: Duration) {
        self.found(name, found);
        if let Some(step) = self.steps.last_mut() {
            step.took = took;
        }
    }

    fn push(&mut self, name: &'static str, mark: Mark, what: String, next: String) {
        let now = clock::now();
        // What others said may hold anything; a report is one line a step.
        let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let took = now.since(self.step);
        self.steps.push(Step { name, mark, what: line(what), next: line(next), at: clock::wall(), took });
        self.step = now;
    }

    /// Whether everything that was to be played is good.
    pub(super) fn is_good(&self) -> bool {
        self.count(Mark::Bad) + self.count(Mark::Untried) == 0
    }

    fn count(&self, mark: Mark) -> usize {
        self.steps.iter().filter(|step| step.mark == mark).count()
    }

    fn verdict(&self) -> String {
        let counts = format!(
            "{} good, {} failed, {} not tried, {} left out",
            self.count(Mark::Good),
            self.count(Mark::Bad),
            self.count(Mark::Untried),
            self.count(Mark::LeftOut)
        );
        let would = match (self.count(Mark::Bad), self.count(Mark::Untried)) {
            (0, 0) => "this installation is ready for an incident",
            (0, _) => "nothing failed, but not everything was tried: readiness is NOT proven",
            _ => "this installation is NOT ready for an incident",
        };
        format!("{would} ({counts})")
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let (mark, took) = (step.mark.word(), millis(step.took));
            let _ = writeln!(text, "{mark:<9}  {:<10} {took:>9}  {}", step.name, step.what);
            if !step.next.is_empty() {
                let _ = writeln!(text, "                                 -> {}", step.next);
            }
        }
        let _ = writeln!(text, "{}", self.verdict());
        text
    }

    pub(super) fn markdown(&self) -> String {
        // A name from a certificate must not break the table, or become a link in the ticket.
        let cell = |text: &str| {
            let escaped = text.chars().flat_map(|c| {
                let special = "|<>[]`*_\\".contains(c);
                special.then_some('\\').into_iter().chain(Some(c))
            });
            escaped.collect::<String>()
        };
        let mut text = format!(
            "# Break-glass drill\n\n- when: {}, took {}\n- who: {}\n- lane: {}\n- run on: {}\n- spillway: {}\n\n**{}**\n\n\
             | time (UTC) | step | verdict | took | what | next |\n|---|---|---|---|---|---|\n",
            show_time(self.begun),
            millis(clock::now().since(self.since)),
            cell(&self.user),
            cell(&self.lane),
            cell(&self.host),
            env!("CARGO_PKG_VERSION"),
            self.verdict(),
        );
        for step in &self.steps {
            let at = show_time(step.at);
            let at = at.get(11..19).unwrap_or(&at);
            let (name, mark, took) = (step.name, step.mark.word(), millis(step.took));
            let (what, next) = (cell(&step.what), cell(&step.next));
            let _ = writeln!(text, "| {at} | {name} | {mark} | {took} | {what} | {next} |");
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "step": step.name, "verdict": step.mark.word().to_lowercase(), "what": step.what,
                    "next": step.next, "at": show_time(step.at),
                    "tookMs": u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
                })
            })
            .collect();
        json!({
            "ready": self.is_good(), "verdict": self.verdict(), "user": self.user, "lane": self.lane,
            "host": self.host, "begun": show_time(self.begun), "version": env!("CARGO_PKG_VERSION"),
            "steps": steps,
        })
    }
}

pub(super) fn millis(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_tried_and_is_good_counts_and_the_rest_says_what_is_next() {
        let mut report = Report::new(vec!["exec".to_owned()]);
        assert!(report.wants("connect") && report.found("connect", good("it answers")));
        assert!(!report.wants("exec"));
        assert!(report.is_good(), "what is left out on purpose is no failure");
        assert!(
            report.text().ends_with("ready for an incident (1 good, 0 failed, 0 not tried, 1 left out)\n")
        );

        assert!(!report.found("logs", untried("no pod runs", "spillway --pod")));
        assert!(!report.is_good() && report.text().contains("NOT proven"), "{}", report.text());
        report.found("nodes", bad("403\nForbidden", "kubectl apply"));
        assert!(report.text().contains("FAIL") && report.text().contains("-> kubectl apply"));
        assert!(report.text().contains("403 Forbidden"), "one line a step");
        let json = report.json();
        let verdicts: Vec<&str> =
            json["steps"].as_array().unwrap().iter().map(|step| step["verdict"].as_str().unwrap()).collect();
        assert_eq!((&json["ready"], verdicts), (&json!(false), vec!["ok", "left out", "not tried", "fail"]));
    }

    #[test]
    fn what_others_chose_cannot_break_the_table() {
        let mut report = Report::new(vec![]);
        report.user = "eve|[x](http://y)".to_owned();
        report.found("identity", good("a | b\n| c"));
        let text = report.markdown();
        assert!(text.contains(r"eve\|\[x\](http://y)") && text.contains(r"a \| b \| c"), "{text}");
        assert!(text.contains("| identity | ok |"), "{text}");
    }
}
