//! Does a lever touch this request? The first gate after a request was understood.
//!
//! Break-glass never comes here: whoever pulled the wrong lever must be able to let go of it.

use http::Response;

use super::body::Body;
use super::exchange::Exchange;
use super::levers::{PenaltyTurn, Refused, RefusedBy, Sentence};
use super::{Path, Understood, refuse};
use crate::flow::Reason;
use crate::flow::levers::{Action, Asker};
use crate::policy::{Lane, Mode};
use crate::request::Verb;
use crate::telemetry::Answerer;

impl Path {
    /// Passes a request on, perhaps as telemetry and with the turn of its penalty, or answers it.
    pub(super) fn contain(
        &self,
        exchange: &mut Exchange,
        understood: &mut Understood,
    ) -> Result<Option<PenaltyTurn>, Response<Body>> {
        if self.entrance.is_break_glass() {
            return Ok(None);
        }
        let Some(caller) = &exchange.caller else { return Ok(None) };
        let asker = Asker {
            identity: &caller.identity,
            peer: exchange.connection.peer.ip(),
            lane: exchange.lane,
            exempt: understood.arrival.exempt,
        };
        match self.shared.levers.judge(&asker, exchange.verb == Verb::Watch) {
            Sentence::Pass => Ok(None),
            Sentence::Penalty { flow, turn } => {
                // What an operator did by hand is in force, also where the policy is not yet.
                understood.class.mode = Mode::Enforce;
                understood.class.lane = Lane::Telemetry;
                understood.arrival.lane = Lane::Telemetry;
                understood.arrival.flow = flow;
                exchange.lane = Lane::Telemetry;
                Ok(Some(turn))
            }
            Sentence::Refused(refused) => Err(self.refuse_contained(exchange, &refused)),
        }
    }

    fn refuse_contained(&self, exchange: &mut Exchange, refused: &Refused) -> Response<Body> {
        let reason = match refused.action {
            RefusedBy::Isolation(action) => {
                self.shared.metrics.isolated(action);
                Reason::Isolated
            }
            RefusedBy::Lockdown => Reason::Lockdown,
        };
        exchange.answerer = Answerer::Refused(reason);
        // kubectl would sleep ten times without a word. What it says of itself changes the words, never the decision.
        let is_person = exchange.is_kubectl()
            && exchange.verb != Verb::Watch
            && refused.action != RefusedBy::Isolation(Action::Penalty);
        let retry_after_seconds = (!is_person).then_some(refused.retry_after_seconds);
        exchange.refused.lever = Some(refused.message.clone());
        refuse::contained(&refused.message, retry_after_seconds, &exchange.audit_id)
    }
}
