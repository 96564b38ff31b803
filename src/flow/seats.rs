//! Does this request fit now?
//!
//! **Trunk reservation** (telephone networks, Kelly 1991): all lanes share one pool of L seats, and a lane may take
//! from it while the *total* in use stays below its ceiling. Low lanes have low ceilings, so the last seats
//! are left to the high ones, with no seat idle while only low lanes ask. **Floors**: below its floor a lane is
//! admitted whatever the others use; they over-commit L by a bounded amount and keep controllers that free resources
//! alive. **Heavy budget**: requests of [`HEAVY_SEATS`] or more share a part of L of their own. That is what protects
//! against a culprit that no rule names: whoever it is, few of its LISTs run at a time.
//!
//! Floors are for light requests, and count them only: a LIST of ten seats beside them does not use them up. What
//! seats cannot say of a large answer, its bytes say (`memory`).
//!
//! A request never needs more than half of its lane's ceiling: on a small server, where L is 10, a 16-seat LIST could
//! otherwise never run. Half, and not a smaller share, because a clamp that falls with L *raises* the number of
//! heavy requests that fit; with half of the ceiling and half of L as budget, a lower limit never lets more of
//! them run, and one always can.

use super::memory::{Memory, Size};
use super::settings::MemorySettings;
use crate::policy::{Lane, LaneSettings};
use crate::units::Seats;

/// Requests that need this many seats or more are heavy.
pub const HEAVY_SEATS: Seats = Seats(4);

/// Seats of large requests of different people at once: three, whatever each costs, are more than look at one cluster.
const PEOPLE_SEATS: u32 = 3 * Seats::MAX_PER_REQUEST.0;

/// What one lane uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneUse {
    pub(super) seats: u32,
    pub(super) heavy_seats: u32,
    pub(super) requests: u32,
}

/// What a lane may use at the present limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// The total in use may reach this when the lane asks.
    pub(super) ceiling: u32,
    /// The lane itself may always use this.
    pub(super) floor: u32,
    /// The heavy total in use may reach this when the lane asks.
    heavy: u32,
}

/// Seats in use and the shares of the lanes.
#[derive(Debug)]
pub(super) struct Ledger {
    shares: [Share; Lane::COUNT],
    lanes: [LaneUse; Lane::COUNT],
    used: u32,
    heavy: u32,
    peak: u32,
    light_peak: u32,
    pub(super) memory: Memory,
}

/// What a request would take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) lane: Lane,
    pub(super) seats: Seats,
    pub(super) heavy: bool,
    /// Bytes of a large answer; 0 for all others.
    pub(super) size: Size,
}

impl Ledger {
    pub(super) fn new(memory: MemorySettings) -> Self {
        Self {
            shares: [Share::default(); Lane::COUNT],
            lanes: [LaneUse::default(); Lane::COUNT],
            used: 0,
            heavy: 0,
            peak: 0,
            light_peak: 0,
            memory: Memory::new(memory),
        }
    }

    /// Whether a lane has seats to spare: a fifth of its ceiling would still be free.
    pub(super) fn has_spare(&self, lane: Lane, seats: Seats) -> bool {
        5 * (self.used + seats.0) <= 4 * self.shares[lane.index()].ceiling
    }

    /// How many seats heavy requests may fill when this lane asks.
    pub(super) fn heavy_share(&self, lane: Lane) -> Seats {
        Seats(self.shares[lane.index()].heavy)
    }

    /// Recomputes the shares for the limit `seats` and the share of their floors that the lower lanes keep; what is in use
    /// stays.
    pub(super) fn resize(
        &mut self,
        (seats, floors): (Seats, f64),
        lanes: &[LaneSettings; Lane::COUNT],
        heavy_percent: u32,
    ) {
        for ((share, lane), name) in self.shares.iter_mut().zip(lanes).zip(Lane::ALL) {
            let ceiling = percent(seats.0, lane.ceiling_percent).max(1);
            // A floor rounds up: 4 % of 10 seats is still one request at a time, else "floor" would mean nothing
            // on the servers that need it most.
            let floor = (seats.0 * lane.floor_percent).div_ceil(100).max(lane.floor_min.0);
            let kept =
                if yields(name) && floor > 0 { ((f64::from(floor) * floors) as u32).max(1) } else { floor };
            *share = Share { ceiling, floor: kept, heavy: percent(ceiling, heavy_percent) };
        }
    }

    /// The seats that a request is charged: its estimate, at most half of its lane's ceiling.
    pub(super) fn charge(&self, lane: Lane, estimate: Seats) -> Seats {
        Seats(estimate.0.min(self.shares[lane.index()].ceiling / 2).max(1))
    }

    /// Whether a request fits. `floor` is false where the floor is closed (telemetry in Red).
    pub(super) fn fits(&self, need: Need, floor_open: bool) -> bool {
        let share = &self.shares[need.lane.index()];
        let lane = &self.lanes[need.lane.index()];
        let in_trunk = self.used + need.seats.0 <= share.ceiling;
        if !need.heavy {
            // An idle lane may run one request of any size on its floor, or three seats could starve on a floor of two.
            let light = lane.seats - lane.heavy_seats;
            let on_floor = light == 0 && share.floor > 0 || light + need.seats.0 <= share.floor;
            return in_trunk || floor_open && on_floor;
        }
        if need.lane == Lane::Operators {
            // People are few: as much as the lane's floor is theirs beyond the budget, and one LIST whatever it costs. More
            // is no person: 500 loops with an administrator's certificate kept starting kubelets out of the budget.
            let own = lane.heavy_seats == 0 || lane.heavy_seats + need.seats.0 <= share.floor;
            return own || in_trunk && self.heavy + need.seats.0 <= share.heavy;
        }
        // The budget is empty: one heavy request of some lane always makes progress, whatever the light ones use.
        // What people have beyond the budget is not taken from those above them, kubelets that start among them.
        let people =
            if need.lane < Lane::Operators { self.lanes[Lane::Operators.index()].heavy_seats } else { 0 };
        let heavy = self.heavy - people;
        let alone = heavy == 0 && floor_open && share.floor > 0;
        alone || in_trunk && heavy + need.seats.0 <= share.heavy
    }

    /// Whether a large request of one more person fits.
    pub(super) fn fits_a_person(&self, need: Need) -> bool {
        let lane = &self.lanes[need.lane.index()];
        need.heavy && lane.heavy_seats + need.seats.0 <= PEOPLE_SEATS
    }

    pub(super) fn take(&mut self, need: Need) {
        let lane = &mut self.lanes[need.lane.index()];
        lane.seats += need.seats.0;
        lane.requests += 1;
        self.used += need.seats.0;
        if need.heavy {
            lane.heavy_seats += need.seats.0;
            self.heavy += need.seats.0;
        }
        self.memory.take(need.lane, need.size);
        self.peak = self.peak.max(self.used);
        self.light_peak = self.light_peak.max(self.used - self.heavy);
    }

    pub(super) fn give_back(&mut self, need: Need) {
        let lane = &mut self.lanes[need.lane.index()];
        debug_assert!(lane.seats >= need.seats.0 && lane.requests > 0, "a request gives back what it took");
        lane.seats -= need.seats.0;
        lane.requests -= 1;
        self.used -= need.seats.0;
        if need.heavy {
            lane.heavy_seats -= need.seats.0;
            self.heavy -= need.seats.0;
        }
        self.memory.give_back(need.lane, need.size);
    }

    /// A request that goes on gives back some of its seats.
    pub(super) fn lend(&mut self, need: Need) {
        self.lanes[need.lane.index()].requests += 1;
        self.give_back(need);
    }

    pub(super) fn share(&self, lane: Lane) -> Share {
        self.shares[lane.index()]
    }

    pub(super) fn lane(&self, lane: Lane) -> LaneUse {
        self.lanes[lane.index()]
    }

    pub(super) fn used(&self) -> Seats {
        Seats(self.used)
    }

    pub(super) fn heavy(&self) -> Seats {
        Seats(self.heavy)
    }

    /// The most seats in use since this was asked last, by all requests and by light ones.
    pub(super) fn take_peaks(&mut self) -> (Seats, Seats) {
        let peaks = (Seats(self.peak), Seats(self.light_peak));
        (self.peak, self.light_peak) = (self.used, self.used - self.heavy);
        peaks
    }
}

/// Whether a lane's floor may shrink: not those of nodes, controllers and people, who keep or repair the cluster.
fn yields(lane: Lane) -> bool {
    matches!(lane, Lane::Platform | Lane::Workload | Lane::Unknown | Lane::Telemetry)
}

fn percent(of: u32, percent: u32) -> u32 {
    (u64::from(of) * u64::from(percent) / 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_lanes_lose_their_floor_and_each_keeps_one_request() {
        let lanes = Lane::ALL.map(LaneSettings::default_of);
        let floors = |kept| {
            let mut ledger = Ledger::new(MemorySettings::default());
            ledger.resize((Seats(100), kept), &lanes, 50);
            Lane::ALL.map(|lane| ledger.share(lane).floor)
        };
        for (lane, (whole, kept)) in Lane::ALL.into_iter().zip(floors(1.0).into_iter().zip(floors(0.0625))) {
            match lane {
                Lane::Platform | Lane::Workload | Lane::Unknown | Lane::Telemetry => {
                    assert!(
                        kept <= whole.div_ceil(8) && kept >= whole.min(1),
                        "{lane:?}: {whole} became {kept}"
                    );
                }
                _ => assert_eq!(kept, whole, "{lane:?}"),
            }
        }
        assert!(floors(1.0)[Lane::Platform.index()] > floors(0.0625)[Lane::Platform.index()]);
    }
}
