//! Which lanes are there, and in what order do they give way?
//!
//! Eight lanes, highest first. The set is closed on purpose: dashboards, alerts and the on-call's memory rely on
//! it, and the overload rules give each lane its own fate. What a lane may use is policy ([`super::LaneSettings`]).

use std::fmt;
use std::str::FromStr;

/// A priority class with its own share, queue and fate under overload (APF: priority level).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// A person's certificate from the break-glass CA. Outside the limit.
    BreakGlass = 0,
    /// Node leases and status, leader-election leases: shed last.
    NodeHealth = 1,
    /// Controller-manager, scheduler, cloud-controller-manager, token and access reviews.
    ControlPlane = 2,
    /// CoreDNS, kube-proxy, CNI, CSI, the kubelets' other calls.
    Platform = 3,
    /// On-call people with their everyday credentials.
    Operators = 4,
    /// Other service accounts, GitOps, CI.
    Workload = 5,
    /// Identities that no rule names, anonymous and unverifiable callers.
    Unknown = 6,
    /// Agents, scrapers, collectors: shed first.
    Telemetry = 7,
}

impl Lane {
    /// How many lanes there are.
    pub const COUNT: usize = 8;

    /// All lanes, highest first.
    pub const ALL: [Self; Self::COUNT] = [
        Self::BreakGlass,
        Self::NodeHealth,
        Self::ControlPlane,
        Self::Platform,
        Self::Operators,
        Self::Workload,
        Self::Unknown,
        Self::Telemetry,
    ];

    /// Position in the order, 0 is the highest: an index into per-lane tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that configuration, metrics and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakGlass => "break-glass",
            Self::NodeHealth => "node-health",
            Self::ControlPlane => "control-plane",
            Self::Platform => "platform",
            Self::Operators => "operators",
            Self::Workload => "workload",
            Self::Unknown => "unknown",
            Self::Telemetry => "telemetry",
        }
    }

    /// The lower of two lanes.
    #[must_use]
    pub fn lower(self, other: Self) -> Self {
        self.max(other)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lane")]
pub struct NotALane;

impl FromStr for Lane {
    type Err = NotALane;

    fn from_str(text: &str) -> Result<Self, NotALane> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text).ok_or(NotALane)
    }
}
