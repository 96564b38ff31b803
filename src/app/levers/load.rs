//! What does somebody who uses break-glass go past at this moment?
//!
//! The state of overload control and of the levers, looked at once a second by the levers' thread and left where the lane
//! finds it without a lock: the lane never asks the gate that everybody else queues at. Its age stands beside it, because
//! that thread may stand still when the lane does not.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::{Value, json};

use crate::gateway::View;
use crate::telemetry::LeverGauges;
use crate::units::Instant;

/// What was seen last.
#[derive(Default)]
pub(in crate::app) struct Load(ArcSwapOption<(Instant, Value)>);

impl Load {
    pub(super) fn look(&self, now: Instant, view: &View, levers: LeverGauges) {
        let snapshot = &view.snapshot;
        let waiting: u32 = snapshot.lanes.iter().map(|lane| lane.waiting).sum();
        let seen = json!({
            "state": snapshot.state.as_str(), "cause": view.diagnosis.cause.as_str(),
            "limit": snapshot.limit.0, "in_use": snapshot.used.0, "waiting": waiting,
            "pressure": (snapshot.pressure * 100.0).round() / 100.0,
            "lockdown": levers.lockdown, "isolations": levers.isolations.iter().sum::<u32>(),
        });
        self.0.store(Some(Arc::new((now, seen))));
    }

    /// As it is written down; nothing before the first look.
    pub(in crate::app) fn shown(&self, now: Instant) -> Value {
        let seen = self.0.load();
        let Some((at, value)) = seen.as_deref() else { return Value::Null };
        let mut value = value.clone();
        value["age_ms"] = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX).into();
        value
    }
}
