//! What does the screen ask the proxy, and when?
//!
//! Once a second the three answers a screen is made of; in between what a key wants. One question at a time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::socket::{Failure, Where};
use super::super::top::By;
use crate::admin::wire::{Clients, EventView, Events, Isolate, Isolated, Problem, Status};
use crate::clock;

/// How often the proxy is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take: a screen that says "no answer" after 15 s says it too late.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What a key wants to know, or done.
#[derive(Debug, PartialEq)]
pub(super) enum Question {
    /// Other clients from now on: by what, and with what in their name.
    Clients(By, String),
    /// Whom would this hit?
    Preview(Isolate),
    /// Do it.
    Isolate(Isolate),
}

/// What came back.
#[derive(Debug)]
pub(super) enum News {
    Seen(Box<Seen>),
    /// Nobody answered, and why.
    Lost(String),
    Previewed(Result<Box<Isolated>, Problem>),
    Isolated(Result<Box<Isolated>, Problem>),
}

/// One look.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) status: Status,
    pub(super) clients: Clients,
    /// What happened since the look before, the oldest first.
    pub(super) events: Vec<EventView>,
    /// It is another process than before: what happened in the old one is not its past.
    pub(super) is_new: bool,
}

/// Asks one proxy.
pub(super) struct Asker {
    at: Where,
    by: By,
    like: String,
    last_event: u64,
    uptime: u64,
}

impl Asker {
    pub(super) fn new(at: &Where, by: By) -> Self {
        let at = at.within(ANSWER_WITHIN);
        Self { at, by, like: String::new(), last_event: 0, uptime: 0 }
    }

    /// Looks once.
    pub(super) fn look(&mut self) -> Result<Seen, Failure> {
        let status: Status = self.at.get("/v1/status")?;
        let is_new = status.uptime_seconds < self.uptime;
        self.uptime = status.uptime_seconds;
        let like = utf8_percent_encode(&self.like, NON_ALPHANUMERIC);
        let clients = self.at.get(&format!("/v1/clients?by={}&like={like}", self.by.as_str()))?;
        if is_new {
            self.last_event = 0;
        }
        let events: Events = self.at.get(&format!("/v1/events?after={}", self.last_event))?;
        self.last_event = events.last;
        let at = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Seen { at, status, clients, events: events.events, is_new })
    }

    /// Looks again and again and answers in between, until nobody listens.
    pub(super) fn live(mut self, questions: &Receiver<Question>, tell: &SyncSender<News>) {
        let mut due = clock::now() + EVERY;
        loop {
            let news = match questions.recv_timeout(due.since(clock::now())) {
                Ok(Question::Clients(by, like)) => {
                    (self.by, self.like) = (by, like);
                    due = clock::now();
                    continue;
                }
                Ok(Question::Preview(wanted)) => News::Previewed(self.isolate(&wanted)),
                Ok(Question::Isolate(wanted)) => News::Isolated(self.isolate(&wanted)),
                Err(RecvTimeoutError::Timeout) => {
                    due = clock::now() + EVERY;
                    match self.look() {
                        Ok(seen) => News::Seen(Box::new(seen)),
                        Err(failure) => News::Lost(failure.problem.message),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if tell.send(news).is_err() {
                return;
            }
        }
    }

    fn isolate(&self, wanted: &Isolate) -> Result<Box<Isolated>, Problem> {
        self.at.post("/v1/isolations", wanted).map(Box::new).map_err(|failure| failure.problem)
    }
}
