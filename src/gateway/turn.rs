//! By which door does a request come in, and what does it hold while it is inside?
//!
//! Everybody passes the lanes' [`Gate`]; break-glass passes a [`Reserve`] of its own, which shares neither a lock
//! nor a limit with anybody. Both hand out a [`Turn`]: a guard that gives its seats back when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::gate::{Entered, Gate};
use super::levers::PenaltyTurn;
use super::permit::{Permit, Reset};
use crate::flow::{Arrival, Ceiling, Decision, End, Level, Numbers, Reason, Refusal, Ticket};
use crate::policy::Lane;
use crate::policy::Mode;
use crate::units::{Instant, Seats};

/// Which door a listener's requests use.
#[derive(Clone)]
pub enum Entrance {
    /// The lanes under the limit L.
    Lanes(Arc<Gate>),
    /// The break-glass lane: never subject to L.
    BreakGlass(Arc<Reserve>),
}

impl Entrance {
    /// Whether this is the lane for emergencies.
    #[must_use]
    pub const fn is_break_glass(&self) -> bool {
        matches!(self, Self::BreakGlass(_))
    }

    /// The numbers of a lane, where the scheduler decides about it.
    pub(super) fn numbers(&self, lane: Lane) -> Option<Numbers> {
        match self {
            Self::Lanes(gate) => Some(gate.numbers(lane)),
            Self::BreakGlass(_) => None,
        }
    }

    /// A turn. Break-glass has its own ceiling, whatever the policy's mode.
    pub(super) async fn enter(
        &self,
        arrived: Instant,
        arrival: &Arrival,
        mode: Mode,
    ) -> Result<Entered<Turn>, Refusal> {
        match self {
            Self::Lanes(gate) => {
                let Entered { turn, waited, would } = gate.enter(arrived, arrival, mode).await?;
                Ok(Entered { turn: Turn::Permit(turn), waited, would })
            }
            Self::BreakGlass(reserve) => {
                let turn = Turn::Reserved(reserve.enter(arrived, arrival)?);
                Ok(Entered { turn, waited: Duration::ZERO, would: None })
            }
        }
    }
}

/// The break-glass lane's ceiling, used by its one thread.
pub struct Reserve(Mutex<Ceiling>);

impl Reserve {
    /// A reserve under `ceiling`.
    #[must_use]
    pub fn new(ceiling: Ceiling) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ceiling)))
    }

    /// What is in use, and what happened so far.
    #[must_use]
    pub fn usage(&self) -> ReserveUsage {
        let ceiling = self.0.lock();
        let ((used, most), (admitted, shed)) = (ceiling.seats(), ceiling.totals());
        ReserveUsage { used, most, long_running: ceiling.long_running(), admitted, shed }
    }

    /// Seats in use, of how many.
    #[must_use]
    pub fn seats(&self) -> (u32, u32) {
        let (used, limit) = self.0.lock().seats();
        (used.0, limit.0)
    }

    fn enter(self: &Arc<Self>, arrived: Instant, arrival: &Arrival) -> Result<Reserved, Refusal> {
        let decision = self.0.lock().arrive(arrived, &arrival.key, arrival.kind);
        match decision {
            Decision::Admit(ticket) => Ok(Reserved { reserve: Arc::clone(self), ticket }),
            Decision::Shed(refusal) => Err(refusal),
            // A ceiling has no queue; should it ever grow one, refusing is the answer that loses nothing.
            Decision::Wait(ticket) => {
                self.0.lock().finish(ticket);
                Err(Refusal::now(Reason::LaneConcurrency, 1))
            }
        }
    }
}

/// The break-glass lane at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReserveUsage {
    /// Seats in use.
    pub used: Seats,
    /// Seats there are.
    pub most: Seats,
    /// Watches and sessions.
    pub long_running: u32,
    /// Requests let in so far.
    pub admitted: u64,
    /// Requests refused so far.
    pub shed: u64,
}

/// Seats of the break-glass lane.
pub(super) struct Reserved {
    reserve: Arc<Reserve>,
    ticket: Ticket,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.reserve.0.lock().finish(self.ticket);
    }
}

/// A request that is inside.
pub(super) enum Turn {
    Permit(Permit),
    Reserved(Reserved),
}

impl Turn {
    /// The ear for a reset, where the scheduler may ask for one.
    pub(super) fn take_reset(&mut self) -> Option<Reset> {
        match self {
            Self::Permit(permit) => permit.take_reset(),
            Self::Reserved(_) => None,
        }
    }

    /// Keeps the turn of a penalty for as long as it is at work.
    pub(super) fn carry(&mut self, penalty: Option<PenaltyTurn>) {
        if let Self::Permit(permit) = self {
            permit.carry(penalty);
        }
    }

    /// Gives the ear back.
    pub(super) fn keep_reset(&mut self, reset: Option<Reset>) {
        if let Self::Permit(permit) = self {
            permit.keep_reset(reset);
        }
    }

    /// The head of the apiserver's answer has arrived, from one of its priority levels.
    pub(super) fn first_byte(&self, now: Instant, level: Level) {
        match self {
            Self::Permit(permit) => permit.first_byte(now, level),
            Self::Reserved(reserved) => reserved.reserve.0.lock().first_byte(reserved.ticket),
        }
    }

    /// A watch has delivered its first burst.
    pub(super) fn burst_done(&self) {
        match self {
            Self::Permit(permit) => permit.burst_done(),
            // Its seats went back with the first byte.
            Self::Reserved(_) => {}
        }
    }

    /// A watch has delivered so many bytes more, after its first burst.
    pub(super) fn delivered(&self, bytes: u64) {
        match self {
            Self::Permit(permit) => permit.delivered(bytes),
            Self::Reserved(_) => {}
        }
    }

    /// The answer is complete.
    pub(super) fn finish(self, end: End, bytes: u64, level: Level) {
        match self {
            Self::Permit(permit) => permit.finish(end, bytes, level),
            Self::Reserved(reserved) => drop(reserved),
        }
    }
}
