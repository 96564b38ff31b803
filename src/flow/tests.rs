//! Shared pieces of this module's tests.

use crate::flow::{Arrival, Decision, Encoding, End, Key, Kind, Outcome, Scheduler, Settings};
use crate::policy::Lane;
use crate::request::{DecodedPath, RequestInfo};
use crate::units::{Instant, Seats};

/// The key of a request line.
pub(super) fn key(method: &str, path: &str, query: &str) -> Key {
    let path = DecodedPath::new(path).unwrap();
    Key::of(&RequestInfo::new(method, &path, Some(query)).unwrap(), Encoding::Json)
}

pub(super) fn object(resource: &str) -> Key {
    key("GET", &format!("/api/v1/namespaces/shop/{resource}/one"), "")
}

pub(super) fn cluster_list(resource: &str) -> Key {
    key("GET", &format!("/api/v1/{resource}"), "")
}

#[test]
fn an_idle_server_admits_and_ends_empty() {
    let now = Instant::ORIGIN;
    let mut scheduler = Scheduler::new(Settings::default(), 1, now);
    let arrival = Arrival {
        lane: Lane::NodeHealth,
        flow: 1,
        client: 1,
        key: object("nodes"),
        kind: Kind::Short,
        exempt: false,
    };
    let Decision::Admit(ticket) = scheduler.arrive(now, &arrival) else { panic!("idle") };
    scheduler.first_byte(now, ticket);
    scheduler.finish(now, ticket, Outcome { end: End::Success, bytes: 1 });
    scheduler.finish(now, ticket, Outcome { end: End::Success, bytes: 1 });
    assert_eq!(scheduler.snapshot(now).used, Seats::ZERO);
    assert!(scheduler.clients.is_empty());
}
