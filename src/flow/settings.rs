//! What may be tuned about overload control?
//!
//! Only what an operator can know about a cluster: shares, patience, bounds and objectives. Gains and thresholds
//! of the control laws are constants beside their reasons, in the files that use them.

use std::time::Duration;

use crate::policy::{Lane, LaneSettings, Rate};
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
    /// What answers in flight may take of the apiserver's memory.
    pub memory: MemorySettings,
    /// How many watches live, and how fast they start.
    pub watches: WatchSettings,
    /// How refusals of clients that do not wait are kept back.
    pub hold: HoldSettings,
    /// Which of the optional laws are in force.
    pub laws: Laws,
}

/// The apiserver needs about five times the bytes of a LIST while it answers it, so bytes in flight are memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySettings {
    /// Estimated bytes of answers in flight at most; one answer larger than this goes alone.
    pub response_bytes: ResponseBytes,
    /// Memory that the apiserver has, in bytes, where it is known: its host's.
    pub server: Option<u64>,
}

/// How many bytes of answers may be in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseBytes {
    /// A share of what the server has.
    #[default]
    Auto,
    /// This many; 0: no bound.
    Fixed(u64),
}

/// Bounds of watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// Live watches of one identity (on a node, for bound tokens) at most. 0: no bound.
    pub per_flow: u32,
    /// Live watches of one lane at most, indexed by [`Lane::index`]. 0: no bound.
    pub per_lane: [u32; Lane::COUNT],
    /// Watches that one lane may start a second, and at once, indexed by [`Lane::index`]. `None`: no bound.
    pub starts: [Option<Rate>; Lane::COUNT],
}

/// Clients that ignore `Retry-After` get their refusal later: a held answer is the only brake they obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldSettings {
    /// The longest that a refusal is kept back. Zero: never.
    pub longest: Duration,
    /// Refusals kept back at a time: each holds a stream and some kilobytes of this process.
    pub most: u32,
}

/// Laws that may be switched off, each for a reason of the operator's, and one by one in the simulator's ablations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laws {
    /// Undo a cut that lowered work but not latency.
    pub controllability: bool,
    /// A request far beyond its calm time keeps a tenth of its seats: it waits for others, it does not work.
    pub seat_discount: bool,
    /// In Red, reset the largest telemetry LISTs that still run.
    pub cancel_worst: bool,
    /// Shed telemetry by whole clients (hash of client and hour), not by single requests.
    pub cohorts: bool,
}

impl Default for WatchSettings {
    fn default() -> Self {
        let mut starts = [None; Lane::COUNT];
        // Reconnecting kubelets and controllers must not wait; agents can (facts: 100, 50 and 10 a second).
        starts[Lane::Workload.index()] = Some(Rate { per_second: 100, burst: 400 });
        starts[Lane::Unknown.index()] = Some(Rate { per_second: 50, burst: 200 });
        starts[Lane::Telemetry.index()] = Some(Rate { per_second: 10, burst: 50 });
        // One controller watches some hundred kinds; 1,000 of one identity on one node is a leak.
        Self { per_flow: 1_000, per_lane: [0; Lane::COUNT], starts }
    }
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self { longest: Duration::from_secs(3), most: 1_000 }
    }
}

impl Default for Laws {
    fn default() -> Self {
        Self { controllability: true, seat_discount: true, cancel_worst: true, cohorts: true }
    }
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
            memory: MemorySettings::default(),
            watches: WatchSettings::default(),
            hold: HoldSettings::default(),
            laws: Laws::default(),
        }
    }
}
