//! What may a lane use? Its share of the limit, its floor, its wait and its rate per client.
//!
//! The defaults are the table of lanes in the design; `config/policy.yaml` repeats them with their reasons, and a
//! test keeps the two equal. The break-glass lane is not described here: it lives outside the limit, under a ceiling
//! of its own.

use std::time::Duration;

use super::Lane;
use crate::units::Seats;

/// What one lane may use. A percentage is of the limit L, the seats that may be in use right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// The lane is served while all seats in use stay within this percentage of L (trunk reservation). Above 100 it
    /// may overdraw, which keeps node leases alive when L is cut faster than seats come back.
    pub ceiling_percent: u32,
    /// The lane is served, whatever the others use, while its own seats stay within this percentage of L.
    pub floor_percent: u32,
    /// The floor in seats that holds however small L becomes.
    pub floor_min: Seats,
    /// How long a request may wait for a seat. Zero: it is shed at once. Heavy requests (LISTs of a cluster, and their
    /// like) take turns with those of all lanes and may wait for theirs: 4 s at least, 8 of them at least.
    pub wait: Duration,
    /// Requests of the lane that may wait at a time, and four times the heavy ones that may. Zero: no light one waits.
    pub queue_limit: u32,
    /// What one flow (a user name; on a node, for bound tokens) may start per second. `None`: unlimited.
    pub identity_rate: Option<Rate>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run; never 0.
    pub per_second: u32,
    /// Requests at once after a pause; never 0.
    pub burst: u32,
}

impl LaneSettings {
    /// The most a ceiling may be: beyond twice L the limit would mean nothing.
    pub const CEILING_PERCENT_MAX: u32 = 200;

    /// The settings of `lane` when a policy does not mention it.
    #[must_use]
    pub const fn default_of(lane: Lane) -> Self {
        match lane {
            // Never consulted for L; a whole share keeps a table of lanes without a hole.
            Lane::BreakGlass => Self::new(100, 0, 0, 0, 0, None),
            // A kubelet's own client allows itself 50/s and 100 at once. Eight seats at least: on one core L is 10, and
            // 15 % of that would let leases through two at a time, beside a LIST that slows each to 100 ms.
            Lane::NodeHealth => Self::new(125, 15, 8, 1_000, 1_000, Some((50, 100))),
            // Some tens per second are usual; operators of large clusters raise the controllers' own limits to hundreds.
            Lane::ControlPlane => Self::new(110, 10, 4, 1_000, 500, Some((1_000, 2_000))),
            // One service account stands for all nodes: kube-proxy or a CNI agent on 5,000 of them starts 100/s when calm.
            Lane::Platform => Self::new(100, 10, 4, 1_000, 500, Some((1_000, 2_000))),
            // kubectl allows itself 50/s, and 300 at once for discovery.
            Lane::Operators => Self::new(100, 5, 8, 2_000, 64, Some((50, 300))),
            // Argo CD allows itself 50/s and 100 at once, controllers 20/s: twice the busiest.
            Lane::Workload => Self::new(85, 10, 0, 300, 300, Some((100, 200))),
            // All unverified callers count as one client here.
            Lane::Unknown => Self::new(70, 2, 0, 0, 0, Some((200, 400))),
            // A well-made agent needs 0.004/s a node: enough for 1,250 nodes under one service account.
            Lane::Telemetry => Self::new(60, 4, 0, 0, 0, Some((5, 20))),
        }
    }

    /// The settings of every lane when a policy mentions none, by [`Lane::index`].
    #[must_use]
    pub fn defaults() -> [Self; Lane::COUNT] {
        Lane::ALL.map(Self::default_of)
    }

    const fn new(
        ceiling_percent: u32,
        floor_percent: u32,
        floor_min: u32,
        wait_ms: u64,
        queue_limit: u32,
        rate: Option<(u32, u32)>,
    ) -> Self {
        Self {
            ceiling_percent,
            floor_percent,
            floor_min: Seats(floor_min),
            wait: Duration::from_millis(wait_ms),
            queue_limit,
            identity_rate: match rate {
                Some((per_second, burst)) => Some(Rate { per_second, burst }),
                None => None,
            },
        }
    }
}
