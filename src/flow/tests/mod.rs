//! Tests of the scheduler as a whole: single rules here, random histories in `model`, what holds for any load in
//! `properties`, storms in `scenarios`.

mod explosion;
mod heavy;
mod model;
mod properties;
mod returning;
mod returns;
mod rules;
mod scenarios;
mod shadow;
mod world;

use std::time::Duration;

use crate::flow::{
    Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Reason, Refusal, Scheduler, Ticket, Verdict,
};
use crate::policy::Lane;
use crate::request::{DecodedPath, RequestInfo};
use crate::units::Instant;

/// The key of a request line.
pub(super) fn key(method: &str, path: &str, query: &str) -> Key {
    let path = DecodedPath::new(path).unwrap();
    Key::of(&RequestInfo::new(method, &path, Some(query)).unwrap(), Encoding::Json)
}

/// A GET of one object: one seat.
pub(super) fn object(resource: &str) -> Key {
    key("GET", &format!("/api/v1/namespaces/shop/{resource}/one"), "")
}

/// A LIST of everything: ten seats before anything is known.
pub(super) fn cluster_list(resource: &str) -> Key {
    key("GET", &format!("/api/v1/{resource}"), "")
}

/// A renewal of a node's lease.
fn lease() -> Key {
    key("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "")
}

/// A short request of client `client`, which is also its flow.
fn arrival(lane: Lane, client: u64, key: Key) -> Arrival {
    Arrival { lane, flow: client, client, key, kind: Kind::Short, exempt: false }
}

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Duration::from_millis(millis)
}

const DONE: Outcome = Outcome { end: End::Success, bytes: 1_000, level: Level(0) };

trait DecisionExt {
    fn admitted(self) -> Ticket;
    fn waits(self) -> Ticket;
    fn shed(self) -> Refusal;
}

impl DecisionExt for Decision {
    #[track_caller]
    fn admitted(self) -> Ticket {
        match self {
            Self::Admit(ticket) => ticket,
            other => panic!("expected to be admitted, got {other:?}"),
        }
    }

    #[track_caller]
    fn waits(self) -> Ticket {
        match self {
            Self::Wait(ticket) => ticket,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    #[track_caller]
    fn shed(self) -> Refusal {
        match self {
            Self::Shed(refusal) => refusal,
            other => panic!("expected to be shed, got {other:?}"),
        }
    }
}

fn verdicts(scheduler: &mut Scheduler) -> Vec<(Ticket, Verdict)> {
    let mut verdicts = Vec::new();
    scheduler.take_verdicts(&mut verdicts);
    verdicts
}

/// Admits one-seat requests of distinct clients until the lane takes no more.
fn fill(scheduler: &mut Scheduler, now: Instant, lane: Lane) -> (Vec<Ticket>, Option<Reason>) {
    let mut tickets = Vec::new();
    for client in 0.. {
        match scheduler.arrive(now, &arrival(lane, 1_000 + client, object("pods"))) {
            Decision::Admit(ticket) => tickets.push(ticket),
            Decision::Wait(ticket) => {
                scheduler.cancel(now, ticket);
                return (tickets, None);
            }
            Decision::Shed(refusal) => return (tickets, Some(refusal.reason)),
        }
    }
    unreachable!("the loop ends when the lane is full")
}
