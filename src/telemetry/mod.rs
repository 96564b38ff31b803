//! What happened? One event type per thing that happens; each emits its metric and its log line in one place.
//!
//! Labels come from closed sets (lane, verb, code, reason): never a user, a path, a namespace or a pod, because a
//! metrics backend must not fall over in the very storm it is there to show. `docs/METRICS.md` is made from the names here.
//! Counting is done through handles that were resolved once: looking a label set up costs more than a decision.

mod audit;
mod change;
mod clients;
mod credentials;
mod durations;
mod enforcement;
mod event;
mod guard;
mod lane;
mod levers;
mod lines;
mod log;
mod metrics;
mod newcomers;
mod overload;
mod own;
mod register;
mod samples;
mod stability;
mod text;

pub use audit::{Answer as AuditAnswer, AuditCounters, AuditSettings, AuditTrail};
pub use change::{Changes, PolicyChanged};
pub use clients::{Clients, TunnelSide};
pub use durations::Durations;
pub use event::{Answered, Answerer};
pub use guard::{GuardCounts, Guarded};
pub use lane::LaneMetrics;
pub use levers::{Asker, LeverGauges, LeverMoved};
pub use log::{AccessLog, Flush, LogFormat, install as install_log};
pub use metrics::{Metrics, Scrape, UpstreamGauges};
pub use newcomers::{NewcomerSeen, Newcomers};
pub use overload::{GateGauges, OverloadChanged};
pub use own::{Footprint, ListenerGauges, MemoryStepChanged, OwnLimits, OwnScrape};
pub use register::Described;
pub use text::shown;
