//! What does a request hold while it is at the apiserver?
//!
//! A [`Permit`]: its seats, and an ear for the word that it is over. Dropping it gives the seats back, whatever ended
//! the request: an answer, a client that left, a reset or a panic.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::gate::Gate;
use super::levers::PenaltyTurn;
use crate::clock;
use crate::flow::{End, Level, Outcome, Ticket};
use crate::units::Instant;

/// Resolves when the request must end because the apiserver goes under; never, or with an error, otherwise.
pub(super) type Reset = oneshot::Receiver<()>;

/// A turn at the apiserver. Dropping it without [`Permit::finish`] says nothing about the apiserver.
pub struct Permit {
    gate: Arc<Gate>,
    ticket: Option<Ticket>,
    reset: Option<Reset>,
    /// The turn that it shares with everybody of its isolation.
    penalty: Option<PenaltyTurn>,
}

impl Permit {
    pub(super) fn new(gate: &Arc<Gate>, ticket: Ticket, reset: Option<Reset>) -> Self {
        Self { gate: Arc::clone(gate), ticket: Some(ticket), reset, penalty: None }
    }

    /// The ticket is gone already: the request was refused.
    pub(super) fn disarm(&mut self) {
        self.ticket = None;
    }

    /// From now on the scheduler may end this request.
    pub(super) fn may_be_reset(&mut self) {
        self.reset = self.ticket.and_then(|ticket| self.gate.resettable(ticket));
    }

    /// Keeps the turn of a penalty for as long as it is at work.
    pub(super) fn carry(&mut self, penalty: Option<PenaltyTurn>) {
        self.penalty = penalty;
    }

    /// The ear for a reset, for whoever carries the request on.
    pub(super) fn take_reset(&mut self) -> Option<Reset> {
        self.reset.take()
    }

    /// Gives the ear back.
    pub(super) fn keep_reset(&mut self, reset: Option<Reset>) {
        self.reset = reset;
    }

    /// The apiserver's head has arrived, from one of its priority levels.
    pub fn first_byte(&self, now: Instant, level: Level) {
        if let Some(ticket) = self.ticket {
            self.gate.with(|scheduler| scheduler.first_byte(now, ticket, level));
        }
    }

    /// A watch has delivered what it had at its start; from now on it waits for events and needs no seats.
    pub fn burst_done(&self) {
        if let Some(penalty) = &self.penalty {
            penalty.release();
        }
        if let Some(ticket) = self.ticket {
            self.gate.burst_done(ticket);
        }
    }

    /// A watch has delivered so many bytes more, after its first burst.
    pub fn delivered(&self, bytes: u64) {
        if let Some(ticket) = self.ticket {
            self.gate.with(|scheduler| scheduler.delivered(clock::now(), ticket, bytes));
        }
    }

    /// The answer is complete.
    pub fn finish(mut self, end: End, bytes: u64, level: Level) {
        if let Some(ticket) = self.ticket.take() {
            let outcome = Outcome { end, bytes, level };
            self.gate.leave(ticket, |scheduler| scheduler.finish(clock::now(), ticket, outcome));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.leave(ticket, |scheduler| scheduler.cancel(clock::now(), ticket));
        }
    }
}
