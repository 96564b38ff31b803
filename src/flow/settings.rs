//! What may be tuned about overload control?
//!
//! Only what an operator can know about a cluster: shares, patience, bounds and objectives. Gains and thresholds
//! of the control laws are constants beside their reasons, in the files that use them.

use std::time::Duration;

use crate::policy::{Lane, LaneSettings};
use crate::units::Seats;

/// Everything that the [`Scheduler`](super::Scheduler) is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Shares and patience, indexed by [`Lane::index`].
    pub lanes: [LaneSettings; Lane::COUNT],
    /// Bounds of the limit L.
    pub limit: LimitSettings,
    /// Times to first byte below which nobody is harmed.
    pub objectives: Objectives,
    /// Requests of [`HEAVY_SEATS`](super::HEAVY_SEATS) or more may together use this much of L, in percent.
    pub heavy_percent: u32,
    /// While a lane is contended, one client may use this much of its ceiling, in percent.
    pub client_percent: u32,
    /// How many exempt requests (health probes) may be in flight.
    pub exempt_requests: u32,
    /// Seats of break-glass requests that reach this scheduler; its own listener uses a `Ceiling`.
    pub break_glass_seats: Seats,
    /// How many exec, attach, port-forward and `logs -f` sessions one lane may hold.
    pub streams_per_lane: u32,
    /// How many requests, watches and sessions the scheduler knows at most.
    pub tickets: u32,
}

/// Bounds of the limit L, in seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// L never falls below this: the protected lanes of a small server still work side by side.
    pub min: Seats,
    /// L never grows above this.
    pub max: Seats,
    /// L before anything is known about the server.
    pub start: Seats,
}

/// Times to first byte that hurt nobody: below them, no ratio counts as pressure. Two telemetry agents slow a
/// lease from 3 ms to 80 ms, 27 times, and no kubelet notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// Calls about a single object, and the `/livez` probe.
    pub object: Duration,
    /// LISTs of one namespace, and documents such as discovery and OpenAPI.
    pub namespace_list: Duration,
    /// LISTs of the whole cluster.
    pub cluster_list: Duration,
}

impl Default for Objectives {
    fn default() -> Self {
        // A quarter, a fifteenth and a third of what the scalability SLOs of Kubernetes call too slow.
        Self {
            object: Duration::from_millis(250),
            namespace_list: Duration::from_secs(2),
            cluster_list: Duration::from_secs(10),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        // 10: what one core still serves. 1000: above the apiserver's own 600 in flight, which APF guards.
        // 64: a small server survives it until the law has cut, a large one doubles it in 5 s.
        Self { min: Seats(10), max: Seats(1000), start: Seats(64) }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: Lane::ALL.map(LaneSettings::default_of),
            limit: LimitSettings::default(),
            objectives: Objectives::default(),
            heavy_percent: 50,
            client_percent: 20,
            exempt_requests: 256,
            break_glass_seats: Seats(16),
            streams_per_lane: 512,
            // 200,000 watches is a 5,000-node cluster on one apiserver; a slot takes about 150 bytes.
            tickets: 262_144,
        }
    }
}
