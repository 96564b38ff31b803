//! What is on the screen, and what does each key and each answer change about it?

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::status;
use super::super::top::By;
use super::asker::{News, Question, Seen};
use super::dialog::{Dialog, Step, Turn};
use crate::admin::wire::{ClientView, EventView, IsolationView, Status};
use crate::config::Colour;
use crate::units::Instant;

/// Events that are kept.
const EVENTS_MAX: usize = 100;
/// Characters of a filter.
const FILTER_CHARS_MAX: usize = 64;
/// Figures older than this are not of now.
const FRESH: Duration = Duration::from_secs(4);
/// Rows that a page key moves.
const PAGE: usize = 10;

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) colour: Colour,
    /// What a command has to say to reach the same proxy: nothing, or ` --socket PATH`.
    pub(super) said: String,
    /// Seconds since 1970, of the figures.
    pub(super) at: u64,
    pub(super) status: Status,
    /// Not well, and what to do; without those who are refused, who have rows of their own.
    pub(super) findings: Vec<(String, String)>,
    pub(super) clients: Vec<ClientView>,
    pub(super) known: usize,
    /// The newest first.
    pub(super) events: VecDeque<EventView>,
    seen: Instant,
    /// Since when the verdict's word is what it is.
    since: Instant,
    /// Why nobody answers.
    pub(super) lost: Option<String>,
    pub(super) is_paused: bool,
    pub(super) by: By,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    /// Whose row is marked; rows move, and a mark that stays behind would be somebody else's.
    selected: String,
    row: usize,
    pub(super) view: View,
    /// Something to say at the bottom, until the next key.
    pub(super) notice: String,
}

/// Which page it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum View {
    Overview,
    Keys,
    Detail(String),
    Isolate(Box<Dialog>),
}

/// What a key came to.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    Nothing,
    Quit,
    Ask(Question),
}

impl Model {
    pub(super) fn new(said: String, by: By, colour: Colour, now: Instant) -> Self {
        Self {
            colour,
            said,
            at: 0,
            status: Status::default(),
            findings: vec![],
            clients: vec![],
            known: 0,
            events: VecDeque::new(),
            seen: now,
            since: now,
            lost: None,
            is_paused: false,
            by,
            filter: String::new(),
            is_typing: false,
            selected: String::new(),
            row: 0,
            view: View::Overview,
            notice: String::new(),
        }
    }

    /// How old the figures are, when that is worth saying.
    pub(super) fn stale(&self, now: Instant) -> Option<Duration> {
        let age = now.since(self.seen);
        (self.lost.is_some() || age > FRESH).then_some(age)
    }

    /// For how long the verdict has been what it is.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.since(self.since)
    }

    /// Takes in what the proxy said.
    pub(super) fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Seen(seen) => {
                self.lost = None;
                self.take(*seen, now);
            }
            News::Lost(why) => self.lost = Some(why),
            News::Previewed(answer) => self.answered(answer, false),
            News::Isolated(answer) => self.answered(answer, true),
        }
    }

    fn take(&mut self, seen: Seen, now: Instant) {
        if seen.is_new {
            self.events.clear();
        }
        for event in seen.events {
            self.events.push_front(event);
        }
        self.events.truncate(EVENTS_MAX);
        if self.is_paused {
            return;
        }
        if self.at == 0 || status::verdict(&self.status).0 != status::verdict(&seen.status).0 {
            self.since = now;
        }
        (self.at, self.seen) = (seen.at, now);
        self.status = seen.status;
        let standing = Status { most_refused: vec![], ..self.status.clone() };
        self.findings = status::findings(&standing);
        (self.clients, self.known) = (seen.clients.clients, seen.clients.known);
        self.mark(self.row_marked());
    }

    fn answered(
        &mut self,
        answer: Result<Box<crate::admin::wire::Isolated>, crate::admin::wire::Problem>,
        is_done: bool,
    ) {
        // Whoever left meanwhile is not pulled back; what was done stands among the events.
        if let View::Isolate(dialog) = &mut self.view
            && matches!(dialog.step, Step::Waiting(_))
        {
            dialog.answered(answer, is_done);
        }
    }

    /// No question more fits into the channel.
    pub(super) fn busy(&mut self) {
        self.notice = "the proxy has not answered yet: press it again".to_owned();
        if let View::Isolate(dialog) = &mut self.view {
            dialog.step = Step::Form;
        }
    }

    /// The clients that fit the filter, in order.
    pub(super) fn rows(&self) -> Vec<&ClientView> {
        let like = self.filter.to_lowercase();
        self.clients.iter().filter(|client| client.user.to_lowercase().contains(&like)).collect()
    }

    /// Which of [`Model::rows`] is marked.
    pub(super) fn row_marked(&self) -> usize {
        let rows = self.rows();
        let found = rows.iter().position(|client| client.user == self.selected);
        found.unwrap_or_else(|| self.row.min(rows.len().saturating_sub(1)))
    }

    fn mark(&mut self, row: usize) {
        let rows = self.rows();
        let row = row.min(rows.len().saturating_sub(1));
        let user = rows.get(row).map(|client| client.user.clone()).unwrap_or_default();
        (self.row, self.selected) = (row, user);
    }

    /// Whom the mark is on; nobody where there are no rows.
    fn marked(&self) -> Option<String> {
        self.rows().get(self.row_marked()).map(|client| client.user.clone())
    }

    pub(super) fn client(&self, user: &str) -> Option<&ClientView> {
        self.clients.iter().find(|client| client.user == user)
    }

    /// What is in force against exactly this client.
    pub(super) fn isolation(&self, user: &str) -> Option<&IsolationView> {
        let account =
            user.strip_prefix("system:serviceaccount:").map(|account| account.replacen(':', "/", 1));
        self.status.isolations.iter().find(|isolation| match &account {
            Some(account) => isolation.kind == "serviceaccount" && isolation.name == *account,
            None => isolation.kind == "user" && isolation.name == user,
        })
    }

    /// One key.
    pub(super) fn key(&mut self, key: KeyEvent, _now: Instant) -> Act {
        self.notice.clear();
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Act::Quit;
        }
        match &mut self.view {
            View::Overview if self.is_typing => self.type_filter(key.code),
            View::Overview => self.move_about(key.code),
            View::Keys => {
                self.view = View::Overview;
                Act::Nothing
            }
            View::Detail(user) => {
                match key.code {
                    KeyCode::Char('i') => self.view = isolating(&user.clone(), &self.clients),
                    KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Char('q') => {
                        self.view = View::Overview;
                    }
                    _ => {}
                }
                Act::Nothing
            }
            View::Isolate(dialog) => match dialog.key(key) {
                Turn::Stay => Act::Nothing,
                Turn::Leave => {
                    self.view = View::Overview;
                    Act::Nothing
                }
                Turn::Ask(question) => Act::Ask(question),
            },
        }
    }

    fn type_filter(&mut self, code: KeyCode) -> Act {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_CHARS_MAX => self.filter.push(c),
            _ => return Act::Nothing,
        }
        self.mark(self.row_marked());
        self.ask_for_clients()
    }

    /// Beyond the first twenty only the proxy knows.
    fn ask_for_clients(&self) -> Act {
        Act::Ask(Question::Clients(self.by, self.filter.clone()))
    }

    fn move_about(&mut self, code: KeyCode) -> Act {
        let row = self.row_marked();
        match code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.view = View::Keys,
            KeyCode::Char('j') | KeyCode::Down => self.mark(row + 1),
            KeyCode::Char('k') | KeyCode::Up => self.mark(row.saturating_sub(1)),
            KeyCode::PageDown => self.mark(row + PAGE),
            KeyCode::PageUp => self.mark(row.saturating_sub(PAGE)),
            KeyCode::Char('g') | KeyCode::Home => self.mark(0),
            KeyCode::Char('G') | KeyCode::End => self.mark(usize::MAX),
            KeyCode::Char('p') | KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                self.by = self.by.next();
                return self.ask_for_clients();
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc if !self.filter.is_empty() => {
                self.filter.clear();
                return self.ask_for_clients();
            }
            KeyCode::Enter | KeyCode::Char('i') => match self.marked() {
                Some(user) if code == KeyCode::Enter => self.view = View::Detail(user),
                Some(user) => self.view = isolating(&user, &self.clients),
                None => self.notice = "no client is marked".to_owned(),
            },
            _ => {}
        }
        Act::Nothing
    }
}

fn isolating(user: &str, clients: &[ClientView]) -> View {
    let view = clients.iter().find(|client| client.user == user);
    View::Isolate(Box::new(Dialog::new(user, view)))
}
