//! How is a client isolated without leaving the screen, and never by one key alone?
//!
//! A form, then what it would hit, then a word to type. The word is `yes` for a penalty, and the client's own name for a
//! denial. What is protected is never forced from here: the command line is for that, and says what it means.

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::super::shown::{quoted, span};
use super::super::socket::parse_time;
use super::super::top::isolate_command;
use super::asker::Question;
use crate::admin::wire::{ClientView, Isolate, Isolated, Problem, REASON_BYTES_MAX};

/// Seconds that an isolation may last.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Characters of a time that anybody would type.
const TTL_CHARS_MAX: usize = 12;

/// An isolation that is being made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dialog {
    /// Whom.
    pub(super) user: String,
    pub(super) deny: bool,
    pub(super) ttl: String,
    pub(super) reason: String,
    pub(super) field: Field,
    pub(super) step: Step,
    /// Why it does not go on.
    pub(super) wrong: String,
    /// How much of the client there was when it began: served and refused a second.
    pub(super) before: Option<(f64, f64)>,
}

/// What is being filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Action,
    Ttl,
    Reason,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Form,
    /// The proxy is asked whom it would hit, or told to do it.
    Waiting(&'static str),
    /// Whom it would hit, and what was typed to confirm it.
    Sure(Box<Isolated>, String),
    Done(Box<Isolated>),
}

/// What a key came to.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    Stay,
    Leave,
    Ask(Question),
}

impl Dialog {
    pub(super) fn new(user: &str, view: Option<&ClientView>) -> Self {
        Self {
            user: user.to_owned(),
            deny: false,
            ttl: "30m".to_owned(),
            reason: String::new(),
            field: Field::Action,
            step: Step::Form,
            wrong: String::new(),
            before: view.map(|view| (view.served_per_second, view.shed_per_second)),
        }
    }

    /// The word that has to be typed.
    pub(super) fn word(&self) -> &str {
        if !self.deny {
            return "yes";
        }
        self.user.rsplit([':', '/']).next().filter(|word| !word.is_empty()).unwrap_or("yes")
    }

    pub(super) const fn to(&self) -> &'static str {
        if self.deny { "deny" } else { "penalty" }
    }

    /// The same as one command.
    pub(super) fn command(&self, said: &str) -> String {
        let reason = if self.reason.is_empty() { "…".to_owned() } else { quoted(&self.reason) };
        let ttl = if self.ttl.is_empty() { "…" } else { &self.ttl };
        isolate_command(&self.user, self.to(), ttl, &reason, said)
    }

    fn wanted(&self, dry_run: bool) -> Result<Isolate, String> {
        let seconds = parse_time(&self.ttl)?.as_secs();
        if !TTL_SECONDS.contains(&seconds) {
            return Err(format!("it ends after 1s to {}, not after {}", span(*TTL_SECONDS.end()), self.ttl));
        }
        let reason = self.reason.trim();
        if reason.is_empty() {
            return Err("a reason is needed: the client is told, and so is the next on call".to_owned());
        }
        let account = self.user.strip_prefix("system:serviceaccount:");
        let account = account.and_then(|account| account.split_once(':'));
        let (kind, name) = match account {
            Some((namespace, name)) => ("serviceaccount", format!("{namespace}/{name}")),
            None => ("user", self.user.clone()),
        };
        Ok(Isolate {
            kind: kind.to_owned(),
            name,
            to: self.to().to_owned(),
            for_seconds: seconds,
            reason: reason.to_owned(),
            force_protected: false,
            dry_run,
        })
    }

    /// One key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Turn {
        if key.code == KeyCode::Esc {
            return Turn::Leave;
        }
        match &mut self.step {
            Step::Form => self.fill(key),
            Step::Waiting(_) => Turn::Stay,
            Step::Done(_) => match key.code {
                KeyCode::Enter | KeyCode::Char('q') => Turn::Leave,
                _ => Turn::Stay,
            },
            Step::Sure(isolated, typed) => {
                let is_protected = !isolated.preview.protected.is_empty();
                match key.code {
                    KeyCode::Backspace => drop(typed.pop()),
                    KeyCode::Char(c) if !is_protected && typed.chars().count() <= 64 => typed.push(c),
                    KeyCode::Enter => return self.confirm(),
                    _ => {}
                }
                Turn::Stay
            }
        }
    }

    fn fill(&mut self, key: KeyEvent) -> Turn {
        match (key.code, self.field) {
            (KeyCode::Enter, Field::Reason) => return self.ask("looking whom it would hit", true),
            (KeyCode::Tab | KeyCode::Down | KeyCode::Enter, _) => self.field = self.next(),
            (KeyCode::BackTab | KeyCode::Up, _) => self.field = self.next_but_one(),
            (KeyCode::Left | KeyCode::Right | KeyCode::Char(' '), Field::Action) => self.deny = !self.deny,
            (KeyCode::Char('p'), Field::Action) => self.deny = false,
            (KeyCode::Char('d'), Field::Action) => self.deny = true,
            (KeyCode::Backspace, Field::Ttl) => drop(self.ttl.pop()),
            (KeyCode::Backspace, Field::Reason) => drop(self.reason.pop()),
            (KeyCode::Char(c), Field::Ttl) if self.ttl.chars().count() < TTL_CHARS_MAX => self.ttl.push(c),
            (KeyCode::Char(c), Field::Reason) if self.reason.len() + c.len_utf8() <= REASON_BYTES_MAX => {
                self.reason.push(c);
            }
            _ => {}
        }
        Turn::Stay
    }

    const fn next(&self) -> Field {
        match self.field {
            Field::Action => Field::Ttl,
            Field::Ttl => Field::Reason,
            Field::Reason => Field::Action,
        }
    }

    const fn next_but_one(&self) -> Field {
        match self.field {
            Field::Action => Field::Reason,
            Field::Ttl => Field::Action,
            Field::Reason => Field::Ttl,
        }
    }

    fn confirm(&mut self) -> Turn {
        let Step::Sure(isolated, typed) = &self.step else { return Turn::Stay };
        if !isolated.preview.protected.is_empty() {
            return Turn::Stay;
        }
        if typed != self.word() {
            self.wrong = format!("type {} and then Enter, or Esc to leave it", self.word());
            return Turn::Stay;
        }
        self.ask("isolating", false)
    }

    fn ask(&mut self, doing: &'static str, dry_run: bool) -> Turn {
        match self.wanted(dry_run) {
            Ok(wanted) => {
                self.wrong.clear();
                self.step = Step::Waiting(doing);
                Turn::Ask(if dry_run { Question::Preview(wanted) } else { Question::Isolate(wanted) })
            }
            Err(wrong) => {
                self.wrong = wrong;
                Turn::Stay
            }
        }
    }

    /// What the proxy says to it.
    pub(super) fn answered(&mut self, answer: Result<Box<Isolated>, Problem>, is_done: bool) {
        self.step = match answer {
            Ok(isolated) if is_done => Step::Done(isolated),
            Ok(isolated) => Step::Sure(isolated, String::new()),
            Err(problem) => {
                self.wrong = format!("{}: {} ({})", problem.code, problem.message, problem.help);
                Step::Form
            }
        };
    }
}
