//! What can the scheduler be asked, and what can it answer?
//!
//! These are the nouns at the border of the pure core: an [`Arrival`] goes in, a [`Decision`] comes out, and a
//! [`Ticket`] names the request from then on. The words of [`Reason`] are a closed set, the same in metrics, logs,
//! audit and `explain`, so that a refusal means one thing wherever it is read.

use std::fmt;
use std::time::Duration;

use super::key::Key;
use crate::policy::Lane;

/// A request as the scheduler sees it: who, in which lane, and how much work to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The lane that policy chose.
    pub lane: Lane,
    /// Who shares a queue inside the lane: hash of the user, and of the node for bound tokens.
    pub flow: u64,
    /// Who is limited as one client: hash of the user.
    pub client: u64,
    /// What kind of call it is: its history gives the estimate.
    pub key: Key,
    /// When its seats come back.
    pub kind: Kind,
    /// Health probes: never queued, refused only beyond a count of their own.
    pub exempt: bool,
}

/// How long a request holds its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Until its answer ended.
    Short,
    /// Until the first burst of events was delivered; then it only listens.
    Watch,
    /// exec, attach, port-forward, `logs -f`: until the first byte; then the apiserver only copies bytes.
    Streaming,
}

/// The scheduler's answer to an arrival.
#[must_use = "a ticket that nobody finishes keeps its seats for ever"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forward it now; call `first_byte` and `finish` later.
    Admit(Ticket),
    /// Hold it: the verdict comes through `take_verdicts`, at the latest when the lane's wait is over.
    Wait(Ticket),
    /// Refuse it now.
    Shed(Refusal),
}

/// What became of a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it now; its ticket stays valid.
    Admit,
    /// Refuse it; its ticket is gone.
    Shed(Refusal),
}

/// Names one request that the scheduler knows. Copies are harmless: once the request is finished, every further
/// call with its ticket is ignored, also after its place was given to another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(super) slot: u32,
    pub(super) generation: u64,
}

/// A refusal that the client can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When to come back, in whole seconds (client-go reads nothing finer), at least 1, jittered.
    pub retry_after_seconds: u32,
    /// Keep the answer back this long: for clients that return before they were told to. Zero for all others.
    /// The caller owes the scheduler a [`Scheduler::released`](super::Scheduler::released) for each that is not zero.
    pub hold: Duration,
}

impl Refusal {
    /// A refusal that is told at once.
    #[must_use]
    pub const fn now(reason: Reason, retry_after_seconds: u32) -> Self {
        Self { reason, retry_after_seconds, hold: Duration::ZERO }
    }
}

/// How a request ended, as far as the apiserver's health is concerned (the three outcomes of Netflix' limiter, with
/// the third told apart, because the apiserver's 429 alone has six meanings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The apiserver answered: its time and bytes teach the estimate.
    Success,
    /// Says nothing about the apiserver: the client went away, or the answer is its own mistake.
    Ignored,
    /// The apiserver did not cope: reset, connection failure, 503 or 504.
    Dropped,
    /// Nothing came within the time that a first byte may take.
    TimedOut,
    /// The apiserver refused for congestion: by one of its priority levels (then the level is known) or as a whole.
    Congested,
    /// The watch cache of the resource is being filled: nobody can be served from it yet.
    Warming {
        /// What the apiserver told the client to wait.
        retry_after_seconds: u32,
    },
    /// The apiserver's cache lags behind the resourceVersion that was asked for: a hint at etcd, not at load.
    Lagging,
    /// The apiserver is shutting down.
    Closing,
}

impl End {
    /// Whether the apiserver did not cope with this request.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Dropped | Self::TimedOut | Self::Congested)
    }
}

/// The apiserver's priority level that served or refused a request: a hash of `X-Kubernetes-PF-PriorityLevel-UID`.
/// Zero where the header is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Level(pub u64);

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Body bytes of the answer, as sent by the apiserver.
    pub bytes: u64,
    /// Which of the apiserver's priority levels answered.
    pub level: Level,
}

/// Why a request was refused: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// An operator contained this client.
    Isolated = 0,
    /// The client asks more often than its identity may.
    IdentityRate = 1,
    /// The lane as a whole asks more often than it may.
    LaneRate = 2,
    /// The lane has no seats left, though the apiserver is well.
    LaneConcurrency = 3,
    /// Too many requests of the lane wait already.
    QueueFull = 4,
    /// It waited as long as its lane allows.
    QueueTimeout = 5,
    /// The apiserver is under pressure and this lane gives way.
    OverloadLevel = 6,
    /// A bound of the whole process is reached.
    GlobalLimit = 7,
    /// The apiserver is away or coming back, and this lane is not re-admitted yet.
    UpstreamUnavailable = 8,
    /// The request's own deadline cannot be met.
    Deadline = 9,
    /// The request cannot be understood.
    Malformed = 10,
    /// The credential was checked and is wrong.
    Unauthenticated = 11,
    /// This process is shutting down.
    Draining = 12,
    /// The answers in flight, with this one, would take more of the apiserver's memory than it has to spare.
    MemoryBudget = 13,
    /// The identity or its lane has as many watches, or starts them as fast, as it may.
    WatchQuota = 14,
    /// The apiserver is still filling its cache of this resource.
    ResourceWarming = 15,
    /// The client came back before the time it was told, again and again.
    EarlyReturn = 16,
    /// It ran, and was reset because the apiserver was going under.
    Cancelled = 17,
    /// An operator lets only the lanes in that keep the cluster alive.
    Lockdown = 18,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = 19;

    /// All reasons in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Isolated,
        Self::IdentityRate,
        Self::LaneRate,
        Self::LaneConcurrency,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::OverloadLevel,
        Self::GlobalLimit,
        Self::UpstreamUnavailable,
        Self::Deadline,
        Self::Malformed,
        Self::Unauthenticated,
        Self::Draining,
        Self::MemoryBudget,
        Self::WatchQuota,
        Self::ResourceWarming,
        Self::EarlyReturn,
        Self::Cancelled,
        Self::Lockdown,
    ];

    /// Position in [`Reason::ALL`]: an index into per-reason counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The stable word for metrics, logs, audit and `explain`.
    ///
    /// ```
    /// use spillway::flow::Reason;
    ///
    /// assert_eq!(Reason::OverloadLevel.as_str(), "overload_level");
    /// assert_eq!(Reason::ALL[Reason::Draining.index()], Reason::Draining);
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::IdentityRate => "identity_rate",
            Self::LaneRate => "lane_rate",
            Self::LaneConcurrency => "lane_concurrency",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::OverloadLevel => "overload_level",
            Self::GlobalLimit => "global_limit",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::Deadline => "deadline",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Draining => "draining",
            Self::MemoryBudget => "memory_budget",
            Self::WatchQuota => "watch_quota",
            Self::ResourceWarming => "resource_warming",
            Self::EarlyReturn => "early_return",
            Self::Cancelled => "cancelled",
            Self::Lockdown => "lockdown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
