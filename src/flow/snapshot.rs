//! What does the scheduler look like from outside?
//!
//! Plain numbers for metrics, the status page and the demo. Counters only ever grow; gauges are of this moment.

use super::decision::Reason;
use super::diagnosis::Diagnosis;
use super::rate::Rates;
use super::recovery::State;
use super::scheduler::Scheduler;
use super::shadow::Shadow;
use crate::policy::Lane;
use crate::units::{Instant, Seats};

/// The scheduler at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The state of the apiserver as the scheduler sees it.
    pub state: State,
    /// The limit L.
    pub limit: Seats,
    /// The same with its fraction.
    pub limit_exact: f64,
    /// By what slowness is divided before it counts, because a cut did not cure it; 1 is none.
    pub tolerance: f64,
    /// Cuts that were undone so far.
    pub cuts_undone: u32,
    /// What presses, and the numbers behind it.
    pub diagnosis: Diagnosis,
    /// How many times slower than calm, bounded by the objectives; 1 is calm.
    pub pressure: f64,
    /// How many times slower than calm the median call is, whatever the objectives.
    pub ratio: f64,
    /// The same as far as the apiserver's own probe is slow, too: its queue for processors.
    pub queue: f64,
    /// Seats in use under the limit.
    pub used: Seats,
    /// Those of them that heavy requests use.
    pub heavy: Seats,
    /// Exempt requests in flight.
    pub exempt: u32,
    /// Keys whose calm time to first byte is known.
    pub baselines: u32,
    /// Requests, watches and sessions known, in all lanes.
    pub tickets: u32,
    /// Estimated bytes of large answers in flight.
    pub response_bytes: u64,
    /// What they may be, in bytes; 0: no bound.
    pub response_budget: u64,
    /// The part of the time during which heavy requests may run: below 1, pauses follow them.
    pub heavy_duty: f64,
    /// Refused clients that came back before they were told to, so far.
    pub early_returns: u64,
    /// Refusals that are kept back at this moment.
    pub held: u32,
    /// Requests refused because their client came early again and again, so far.
    pub penalised: u64,
    /// Requests of identities that found every rate bucket of their lane in use, so far.
    pub shared_rate: u64,
    /// What runs, and was counted, although the policy would not have let it.
    pub shadow: Shadow,
    /// The lanes, indexed by [`Lane::index`].
    pub lanes: [LaneSnapshot; Lane::COUNT],
}

/// One lane at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// Seats in use.
    pub seats: Seats,
    /// Requests that hold seats.
    pub executing: u32,
    /// Requests in the queue.
    pub waiting: u32,
    /// The total of seats in use up to which this lane is admitted, now.
    pub ceiling: Seats,
    /// Seats that are always this lane's, now.
    pub floor: Seats,
    /// Whether the lane is let in at all: closed by the brake, or while the apiserver is away.
    pub open: bool,
    /// Watches known.
    pub watches: u32,
    /// exec, attach, port-forward and `logs -f` sessions known.
    pub streams: u32,
    /// Requests admitted so far.
    pub admitted: u64,
    /// Requests refused so far, indexed by [`Reason::index`].
    pub shed: [u64; Reason::COUNT],
}

impl LaneSnapshot {
    /// Requests refused so far, for any reason.
    #[must_use]
    pub fn shed_total(&self) -> u64 {
        self.shed.iter().sum()
    }
}

impl Snapshot {
    /// One lane's part.
    #[must_use]
    pub const fn lane(&self, lane: Lane) -> &LaneSnapshot {
        &self.lanes[lane.index()]
    }
}

impl Scheduler {
    /// What the scheduler looks like now.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let lanes = Lane::ALL.map(|lane| {
            let (state, used, share) =
                (&self.lanes[lane.index()], self.ledger.lane(lane), self.ledger.share(lane));
            LaneSnapshot {
                seats: if lane == Lane::BreakGlass { self.break_glass } else { Seats(used.seats) },
                executing: used.requests,
                waiting: state.waiting(),
                ceiling: Seats(share.ceiling),
                floor: Seats(share.floor),
                open: self.recovery.is_open(lane, &self.limit, now),
                watches: state.watches,
                streams: state.streams,
                admitted: state.admitted,
                shed: state.shed,
            }
        });
        Snapshot {
            state: self.recovery.state(),
            limit: self.limit.seats(),
            limit_exact: self.limit.value(),
            tolerance: self.control.tolerance().calls,
            cuts_undone: self.control.undone,
            diagnosis: self.diagnosis(),
            pressure: self.pressure.value(),
            ratio: self.pressure.signal().ratio,
            queue: self.pressure.signal().queue,
            used: self.ledger.used(),
            heavy: self.ledger.heavy(),
            exempt: self.exempt,
            baselines: self.estimates.baselines(),
            tickets: self.tickets.known(),
            response_bytes: self.ledger.memory.in_flight(),
            response_budget: self.ledger.memory.budget(),
            heavy_duty: self.pace.duty(),
            early_returns: self.returns.early,
            held: self.returns.held(),
            penalised: self.returns.penalised,
            shared_rate: self
                .lanes
                .iter()
                .filter_map(|lane| lane.rates.as_ref())
                .map(Rates::overflowed)
                .sum(),
            shadow: self.shadow,
            lanes,
        }
    }
}
