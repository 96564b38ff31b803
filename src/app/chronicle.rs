//! When does the log say that overload changed?
//!
//! The scheduler is looked at once a tick. A new state or cause is told once; if they change again and again, at
//! most once a second, with what then is: a log must not fall over in the storm that it describes.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::flow::{Cause, State, TICK};
use crate::gateway::{Gate, Names, View};
use crate::policy::ClientKey;
use crate::telemetry::OverloadChanged;
use crate::units::Instant;

/// Lines are at least this far apart.
const APART: Duration = Duration::from_secs(1);

/// What was told last.
struct Chronicle {
    told: (State, Cause),
    at: Instant,
    resets: u64,
}

/// Looks at the gate until the runtime ends.
pub(super) async fn keep(gate: Arc<Gate>, names: Arc<Names>) {
    let mut chronicle = Chronicle { told: (State::Normal, Cause::None), at: Instant::ORIGIN, resets: 0 };
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let view = gate.view();
        let now = clock::now();
        if chronicle.is_news(&view, now) {
            chronicle.tell(&view, &names, now);
        }
    }
}

/// The client that a view speaks of.
pub(super) fn client_of(view: &View) -> Option<ClientKey> {
    match view.diagnosis.cause {
        Cause::Client(client) => Some(ClientKey(client)),
        _ => view.diagnosis.heaviest.map(|(client, _)| ClientKey(client)),
    }
}

impl Chronicle {
    fn is_news(&self, view: &View, now: Instant) -> bool {
        let changed = (view.snapshot.state, view.diagnosis.cause) != self.told;
        (changed || view.gate.resets > self.resets) && now.since(self.at) >= APART
    }

    fn tell(&mut self, view: &View, names: &Names, now: Instant) {
        let to = (view.snapshot.state, view.diagnosis.cause);
        let client = client_of(view).and_then(|client| names.of(client));
        if to != self.told {
            let event = OverloadChanged {
                from: self.told,
                to,
                limit: view.snapshot.limit.0,
                pressure: view.snapshot.pressure,
                diagnosis: &view.diagnosis,
                client: client.as_deref(),
            };
            event.emit();
        }
        if view.gate.resets > self.resets {
            let count = view.gate.resets - self.resets;
            tracing::warn!(
                count,
                reason = "cancelled",
                "the largest running requests of telemetry were reset"
            );
        }
        (self.told, self.at, self.resets) = (to, now, view.gate.resets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Diagnosis, Scheduler, Settings};
    use crate::server::Drain;

    #[test]
    fn each_change_is_told_once_and_flapping_at_most_once_a_second() {
        let at = |millis| Instant::ORIGIN + Duration::from_secs(10) + Duration::from_millis(millis);
        let gate = Gate::new(Scheduler::new(Settings::default(), 1, clock::now()), Drain::new());
        let names = Names::default();
        let mut chronicle = Chronicle { told: (State::Normal, Cause::None), at: Instant::ORIGIN, resets: 0 };
        let mut view = gate.view();
        let mut lines = 0;
        for (millis, cause) in [
            (0, Cause::None),
            (250, Cause::Cpu),
            (500, Cause::None),
            (750, Cause::Etcd),
            (1_250, Cause::Etcd),
        ] {
            view.diagnosis = Diagnosis { cause, ..Diagnosis::default() };
            if chronicle.is_news(&view, at(millis)) {
                chronicle.tell(&view, &names, at(millis));
                lines += 1;
            }
        }
        assert_eq!((lines, chronicle.told.1), (2, Cause::Etcd));
        assert!(!chronicle.is_news(&view, at(9_000)));
    }
}
