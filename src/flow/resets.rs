//! What may be taken back from a server that goes under?
//!
//! Refusing stops what would come; what runs already is beyond it, and in an emergency it is what kills: a LIST of
//! 400 MB goes on taking memory for as long as it is written. So when Red has lasted for two seconds, the largest
//! telemetry LISTs that still run are reset, some a second: cancel the culprit, not its victims (Atropos, SOSP'25).
//! kube-apiserver stops working on a request whose client is gone. Nobody else's request is ever reset.

use std::time::Duration;

use super::decision::{Kind, Reason, Ticket};
use super::recovery::State;
use super::scheduler::Scheduler;
use super::tick::TICK;
use super::tickets::{Account, Chain, NIL, Slot};
use crate::policy::Lane;
use crate::units::Instant;

/// Red must have lasted this long: a brake alone cures most of it.
const AFTER: Duration = Duration::from_secs(2);
/// Resets a second.
const A_SECOND: u32 = 10;
/// Candidates looked at in a tick: all that a limit in Red lets run, many times over.
const LOOK_MAX: u32 = 1024;

impl Slot {
    /// Whether it may be reset while it runs.
    pub(super) fn is_expendable(&self) -> bool {
        matches!(self.account, Account::Limited | Account::Shadow)
            && self.lane == Lane::Telemetry
            && self.heavy
            && self.kind != Kind::Streaming
    }
}

impl Scheduler {
    /// Moves the requests that must be reset now to the end of `into`. Each stays known until it is finished or
    /// cancelled, which the caller does as it resets them.
    pub fn take_resets(&mut self, into: &mut Vec<Ticket>) {
        into.append(&mut self.resets);
    }

    /// In Red, chooses the largest running telemetry LISTs.
    pub(super) fn cancel_the_worst(&mut self, now: Instant) {
        let red_for = self.recovery.lasted(State::Red, now).unwrap_or(Duration::ZERO);
        if !self.settings.laws.cancel_worst || red_for < AFTER {
            return;
        }
        for _ in 0..allowance(red_for) {
            let Some(index) = self.worst() else { return };
            let slot = &mut self.tickets[index];
            slot.is_reset = true;
            self.lanes[slot.lane.index()].shed[Reason::Cancelled.index()] += 1;
            self.resets.push(self.tickets.ticket(index));
        }
    }

    /// The one with the largest answer, or else the most seats.
    fn worst(&self) -> Option<u32> {
        let mut worst = None;
        let mut index = self.expendable.first;
        for _ in 0..LOOK_MAX {
            if index == NIL {
                break;
            }
            let slot = &self.tickets[index];
            let size = (slot.size.bytes, slot.seats);
            if !slot.is_reset && worst.is_none_or(|(largest, _)| size > largest) {
                worst = Some((size, index));
            }
            index = self.tickets.next(index, Chain::Queue);
        }
        worst.map(|(_, index)| index)
    }
}

/// How many may be reset in the tick that ends at `red_for`.
fn allowance(red_for: Duration) -> u32 {
    let until = |time: Duration| (time.as_millis() * u128::from(A_SECOND) / 1000) as u32;
    (until(red_for) - until(red_for.saturating_sub(TICK))).min(A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_whatever_the_tick() {
        let second: u32 = (1..=4).map(|tick| allowance(AFTER + TICK * tick)).sum();
        assert_eq!(second, A_SECOND);
    }
}
