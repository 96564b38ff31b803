//! What happened lately, in the order in which it happened?
//!
//! A few hundred lines for `spillway events`: what operators did and what overload control changed its mind about. Each is
//! logged as well; this is for whoever has no log at hand. The oldest goes first.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::file::seconds;
use super::show;
use super::wanted::{Origin, Over};
use super::written::Written;
use crate::admin::wire::{EventView, Events};
use crate::breakglass::Audit;
use crate::clock;
use crate::flow::levers::Isolation;
use crate::flow::{Cause, State};
use crate::gateway::{Names, View};
use crate::telemetry::{Asker, AuditTrail, LaneMetrics, LeverMoved, PolicyChanged};

/// Events that are kept: an hour of a restless incident.
const EVENTS_MAX: usize = 256;

/// The last events.
#[derive(Default)]
pub(in crate::app) struct Timeline {
    kept: Mutex<Kept>,
    written: Written,
    trail: AuditTrail,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<EventView>,
    /// Of the next event; the first is 1.
    next: u64,
    overload: Option<(State, Cause)>,
}

impl Timeline {
    /// One whose levers are written to `trail` as well.
    pub(super) fn new(trail: AuditTrail) -> Self {
        Self { trail, ..Self::default() }
    }

    /// Notes that another policy is in force.
    pub(in crate::app) fn policy(&self, event: &PolicyChanged<'_>) {
        self.trail.policy(event);
        let PolicyChanged { generation, hash, file, by } = event;
        self.add("config", format!("policy {generation} ({hash}, {file}) is in force: {by}"));
    }

    /// Those after number `after`, the oldest first.
    pub(super) fn after(&self, after: u64) -> Events {
        let kept = self.kept.lock();
        // Who asks for what another process said begins anew.
        let after = if after > kept.next { 0 } else { after };
        Events {
            events: kept.events.iter().filter(|event| event.number > after).cloned().collect(),
            last: kept.next,
        }
    }

    /// Notes something.
    pub(in crate::app) fn add(&self, kind: &str, text: String) {
        let mut kept = self.kept.lock();
        while kept.events.len() >= EVENTS_MAX {
            kept.events.pop_front();
        }
        kept.next += 1;
        let event = EventView { number: kept.next, at: seconds(clock::wall()), kind: kind.to_owned(), text };
        kept.events.push_back(event);
    }

    /// Notes a change of the state or the cause of overload since it was looked at last.
    pub(super) fn look(&self, view: &View, names: &Names) {
        let now = (view.snapshot.state, view.diagnosis.cause);
        let before = self.kept.lock().overload.replace(now).unwrap_or((State::Normal, Cause::None));
        if before == now {
            return;
        }
        let name = crate::app::chronicle::client_of(view).and_then(|client| names.of(client));
        let sentence = view.diagnosis.sentence(name.as_deref());
        let (from, to) = (before.0.as_str(), now.0.as_str());
        // The cause may change alone: "brown -> brown" reads like a defect.
        let state = if from == to { to.to_owned() } else { format!("{from} -> {to}") };
        self.add("overload", format!("{state}, limit {}: {sentence}", view.snapshot.limit));
    }

    /// Logs and notes what became of an isolation.
    pub(super) fn isolation(
        &self,
        action: &'static str,
        isolation: &Isolation,
        origin: &Origin,
        by: Option<Asker>,
    ) {
        self.moved(&LeverMoved {
            action,
            id: &isolation.id,
            target: &isolation.target.to_string(),
            to: isolation.action.as_str(),
            seconds: isolation.until.since(clock::now()).as_secs(),
            reason: &origin.reason,
            forced: isolation.forced,
            by,
        });
    }

    /// Logs and notes what became of a lockdown or a hold.
    pub(super) fn lever(&self, action: &'static str, id: &str, to: &str, origin: &Origin, by: Option<Asker>) {
        let seconds = origin.ends_at.saturating_sub(seconds(clock::wall()));
        let reason = &origin.reason;
        self.moved(&LeverMoved { action, id, target: "", to, seconds, reason, forced: false, by });
    }

    /// Logs and notes what came back by itself.
    pub(super) fn over(&self, over: &Over) {
        for (isolation, origin) in &over.isolations {
            self.isolation("expired", isolation, origin, None);
        }
        if let Some((_, origin)) = &over.lockdown {
            self.lever("expired", "lockdown", "vital lanes only", origin, None);
        }
        if let Some((hold, origin)) = &over.hold {
            self.lever("expired", "limit", &show::hold(hold), origin, None);
        }
    }

    /// From now on levers are written down there.
    pub(super) fn write_down(&self, audit: Audit) {
        self.written.write_down(audit);
    }

    /// Shows the numbers of what it is written into.
    pub(super) fn tell(&self, metrics: &LaneMetrics) {
        self.written.tell(metrics);
    }

    /// Waits for what was written down, but not for long.
    pub(super) async fn settle(&self) {
        self.written.settle().await;
    }

    fn moved(&self, event: &LeverMoved<'_>) {
        event.emit();
        self.written.lever(event);
        self.trail.lever(event);
        let LeverMoved { action, id, target, to, reason, .. } = event;
        let by = event.by.as_ref().map_or_else(String::new, |by| format!(" ({by})"));
        let target = if target.is_empty() { String::new() } else { format!(" {target}") };
        self.add("lever", format!("{action} {id}{target}: {to}; {reason}{by}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_is_bounded_and_read_from_a_number_on() {
        let timeline = Timeline::default();
        assert_eq!(timeline.after(0), Events::default());
        for number in 1..=300 {
            timeline.add("lever", number.to_string());
        }
        let all = timeline.after(0);
        assert_eq!((all.events.len(), all.last), (EVENTS_MAX, 300));
        let texts: Vec<String> = timeline.after(298).events.into_iter().map(|event| event.text).collect();
        assert_eq!(texts, ["299", "300"]);
        assert!(timeline.after(300).events.is_empty());
        assert_eq!(timeline.after(9_999).events.len(), EVENTS_MAX, "another process' number");
    }
}
