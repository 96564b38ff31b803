//! What happened? One event type per thing that happens; each emits its metric and its log line in one place.
//!
//! Labels come from closed sets (lane, verb, code, reason): never a user, a path, a namespace or a pod, because a
//! metrics backend must not fall over in the very storm it is there to show. Names are listed in `docs/METRICS.md`.
//! Counting is done through handles that were resolved once: looking a label set up costs more than a decision.

mod event;
mod lane;
mod log;
mod metrics;
mod overload;

pub use event::{Answered, Answerer};
pub use lane::LaneMetrics;
pub use log::{AccessLog, LogFormat, install as install_log};
pub use metrics::{Metrics, Scrape, UpstreamGauges};
pub use overload::{GateGauges, OverloadChanged};
