//! Where does it stand, so that nobody can change it later, who moved which lever?
//!
//! In the audit log of break-glass: one chain for everything that operators do past the ordinary way, with one signature
//! to check. Without a lane the log holds levers alone; without a folder a record goes to standard error, like the event
//! itself. Levers of the last process are recalled before the log is open, and wait here for it.

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::breakglass::{Audit, show_time_millis};
use crate::clock;
use crate::flow::levers::ISOLATIONS_MAX;
use crate::telemetry::{Asker, LaneMetrics, LeverMoved};

/// What one process can leave to the next: isolations, a lockdown, a hold on L.
const EARLY_MAX: usize = ISOLATIONS_MAX + 2;

/// The way to the log.
#[derive(Default)]
pub(super) struct Written(Mutex<Sink>);

enum Sink {
    /// The log is not open yet.
    Early(Vec<Map<String, Value>>),
    Log(Audit),
}

impl Default for Sink {
    fn default() -> Self {
        Self::Early(Vec::new())
    }
}

impl Written {
    /// Opens the way, and sends what has waited.
    pub(super) fn write_down(&self, audit: Audit) {
        let early = std::mem::replace(&mut *self.0.lock(), Sink::Log(audit.clone()));
        if let Sink::Early(records) = early {
            records.into_iter().for_each(|facts| audit.note_change(facts));
        }
    }

    /// Shows the log's numbers.
    pub(super) fn tell(&self, metrics: &LaneMetrics) {
        if let Sink::Log(audit) = &*self.0.lock() {
            audit.tell(metrics);
        }
    }

    /// Waits for what was written, but not for long.
    pub(super) async fn settle(&self) {
        let audit = match &*self.0.lock() {
            Sink::Log(audit) => audit.clone(),
            Sink::Early(_) => return,
        };
        audit.settle().await;
    }

    /// A lever has moved.
    pub(super) fn lever(&self, event: &LeverMoved<'_>) {
        let facts = facts(event);
        match &mut *self.0.lock() {
            Sink::Log(audit) => audit.note_change(facts),
            // More than can be recalled comes only where no log is ever opened; it was logged.
            Sink::Early(records) if records.len() < EARLY_MAX => records.push(facts),
            Sink::Early(_) => {}
        }
    }
}

/// Of a process on this node the kernel tells no more; nobody when the lever moved by itself.
fn actor(by: &Asker) -> Value {
    match &by.user {
        Some(user) => json!({ "user": user.as_ref() }),
        None => json!({ "uid": by.uid, "pid": by.pid }),
    }
}

fn facts(event: &LeverMoved<'_>) -> Map<String, Value> {
    let LeverMoved { action, id, target, to, seconds, reason, forced, by } = event;
    Map::from_iter([
        ("event".to_owned(), "lever".into()),
        ("time".to_owned(), show_time_millis(clock::wall()).into()),
        ("actor".to_owned(), by.as_ref().map_or(Value::Null, actor)),
        ("action".to_owned(), (*action).into()),
        ("lever".to_owned(), (*id).into()),
        ("target".to_owned(), (*target).into()),
        ("to".to_owned(), (*to).into()),
        ("seconds_left".to_owned(), (*seconds).into()),
        ("reason".to_owned(), (*reason).into()),
        ("forced".to_owned(), (*forced).into()),
    ])
}
