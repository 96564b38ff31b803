//! How were things when they were looked at last?
//!
//! One look a second, shared by all who watch.

use std::collections::VecDeque;
use std::time::UNIX_EPOCH;

use super::figures::{Figures, Lately, Samples};
use super::history::History;
use crate::admin::Operations;
use crate::admin::wire::newcomers::Newcomers;
use crate::admin::wire::{ClientView, EventView, Status};
use crate::admin::wire_change::PolicyView;
use crate::clock;

/// Events that are shown.
pub(super) const EVENTS_MAX: usize = 50;

/// Everything that a page is made of.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Counts looks, from 1.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) status: Status,
    /// Who asks most, and who is refused most; the first asks most.
    pub(super) clients: Vec<ClientView>,
    /// How many clients were here lately.
    pub(super) known: usize,
    /// The newest first.
    pub(super) events: VecDeque<EventView>,
    pub(super) newcomers: Newcomers,
    /// Policies that were in force, the oldest first.
    pub(super) policies: Vec<PolicyView>,
    pub(super) figures: Figures,
    pub(super) lately: Lately,
    pub(super) history: History,
    /// When the word of the verdict became what it is.
    pub(super) since: u64,
    samples: Samples,
    last_event: u64,
}

impl Look {
    /// Looks again.
    pub(super) fn again(&mut self, operations: &dyn Operations, figures: Figures) {
        self.number += 1;
        self.at = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let before = self.word();
        self.status = operations.status();
        if self.number == 1 || self.word() != before {
            self.since = self.at;
        }
        let mut clients = operations.clients("asked", "");
        let refused = operations.clients("refused", "").clients;
        let more = refused.into_iter().filter(|view| view.shed_per_second > 0.0);
        for view in more {
            if clients.clients.iter().all(|other| other.user != view.user) {
                clients.clients.push(view);
            }
        }
        (self.clients, self.known) = (clients.clients, clients.known);
        self.hear(operations);
        self.newcomers = operations.newcomers();
        self.policies = operations.changes().map_or_else(Vec::new, |changes| changes.history().policies);
        self.lately = self.samples.take(&figures);
        self.figures = figures;
        self.history.take(self.at, &self.status, &self.lately, &self.clients);
    }

    fn hear(&mut self, operations: &dyn Operations) {
        let news = operations.events(self.last_event);
        self.last_event = news.last;
        for event in news.events {
            self.events.push_front(event);
        }
        self.events.truncate(EVENTS_MAX);
    }

    /// How things are in one word, with its mark and class.
    pub(super) fn word(&self) -> (&'static str, &'static str, &'static str) {
        match self.status.state.as_str() {
            "cold" => ("AWAY", "✕", "bad"),
            "red" => ("BRAKING", "■", "bad"),
            "ramp" => ("RETURNING", "↻", "warn"),
            "brown" => ("SHEDDING", "▲", "warn"),
            _ if self.status.lockdown.is_some() => ("LOCKDOWN", "◆", "warn"),
            _ if !self.status.ready => ("NOT READY", "○", "warn"),
            _ => ("OK", "●", "ok"),
        }
    }
}
