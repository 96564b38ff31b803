//! What does `GET /status` say? The state of overload control in one small JSON object.
//!
//! For a person with `curl` and for the command line: the numbers of `docs/METRICS.md` that one wants together, and
//! the sentence that explains them. The heaviest client is named here, because the listener is for operators.

use serde_json::{Map, Value, json};

use super::chronicle::client_of;
use crate::gateway::{Names, View};
use crate::policy::Lane;
use crate::telemetry::shown;

/// The object.
pub(super) fn status(view: &View, names: &Names) -> Value {
    let (snapshot, diagnosis) = (&view.snapshot, &view.diagnosis);
    let client = client_of(view).and_then(|client| names.of(client)).map(|name| shown(&name).into_owned());
    let [livez, cached, consistent] = diagnosis.probes.map(rounded);
    let lanes: Map<String, Value> = Lane::ALL
        .into_iter()
        .map(|lane| {
            let now = snapshot.lane(lane);
            let shed: Map<String, Value> = crate::flow::Reason::ALL
                .into_iter()
                .filter(|reason| now.shed[reason.index()] > 0)
                .map(|reason| (reason.as_str().to_owned(), now.shed[reason.index()].into()))
                .collect();
            let lane_status = json!({
                "open": now.open,
                "seats": now.seats.0,
                "ceiling": now.ceiling.0,
                "floor": now.floor.0,
                "executing": now.executing,
                "waiting": now.waiting,
                "watches": now.watches,
                "streams": now.streams,
                "admitted": now.admitted,
                "shed": shed,
            });
            (lane.as_str().to_owned(), lane_status)
        })
        .collect();
    json!({
        "state": snapshot.state.as_str(),
        "limit": snapshot.limit.0,
        "seats": snapshot.used.0,
        "pressure": rounded(snapshot.pressure),
        "cause": diagnosis.cause.as_str(),
        "client": client,
        "diagnosis": diagnosis.sentence(client.as_deref()),
        "probes": { "livez": livez, "cached": cached, "consistent": consistent },
        "responseBytes": snapshot.response_bytes,
        "responseBudget": snapshot.response_budget,
        "heavyDuty": rounded(snapshot.heavy_duty),
        "earlyReturns": snapshot.early_returns,
        "heldRefusals": view.gate.holding,
        "resets": view.gate.resets,
        "lanes": lanes,
    })
}

/// Two digits are what a ratio means.
fn rounded(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::flow::{Scheduler, Settings};
    use crate::gateway::Gate;
    use crate::server::Drain;

    #[test]
    fn an_idle_proxy_says_that_nothing_presses() {
        let gate = Gate::new(Scheduler::new(Settings::default(), 1, clock::now()), Drain::new());
        let status = status(&gate.view(), &Names::default());
        assert_eq!(status["state"], "normal");
        assert_eq!(status["cause"], "none");
        assert_eq!(status["limit"], 64);
        assert_eq!(status["client"], Value::Null);
        assert_eq!(status["lanes"].as_object().map(Map::len), Some(Lane::COUNT));
        assert_eq!(status["lanes"]["operators"]["floor"], 8);
    }
}
