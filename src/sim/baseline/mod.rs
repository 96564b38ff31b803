//! Against whom does spillway compete in the simulator, and with which settings?
//!
//! Every published algorithm that could stand in its place, written anew from its published behaviour, each beside a
//! small grid of its main knobs: point 0 is the published default, the others are tuned in good faith for an
//! apiserver. `name` plays the defaults, `name:2` point 2 of the grid. All stand over the apiserver's own APF, which
//! `none` leaves alone. All let health probes pass. What each file adds to its source is said in its header.

mod cinnamon;
mod codel;
mod dagor;
mod envoy;
mod fair;
mod hand;
mod law;
mod line;
mod netflix;
mod oracle;
mod pools;
mod running;
mod sre;

use super::guard::Guard;
use cinnamon::{CINNAMON, Cinnamon};
use codel::{CODEL, Codel};
use dagor::{DAGOR, Dagor};
use envoy::{GRADIENT, Gradient, SUCCESS, SuccessRate};
use fair::{FAIR, Fair, Width};
use hand::{ENVOY_LIMITS, HAPROXY_NAMED, HAPROXY_UNNAMED, Hand};
use law::Limiter;
pub(super) use law::PARTITIONS;
use netflix::{AIMD, Aimd, GRADIENT2, Gradient2, VEGAS, Vegas};
use oracle::{ORACLE, Oracle};
use pools::{FIXED, Pools, SHARES, TOTAL};
use sre::{SRE, Sre};

/// All competitors, the experts' configurations, and the oracle last.
pub const NAMES: &[&str] = &[
    "fixed",
    "fixed-total",
    "shares",
    "apf-count",
    "apf-size",
    "aimd",
    "aimd-lanes",
    "vegas",
    "vegas-lanes",
    "gradient2",
    "gradient2-lanes",
    "envoy-gradient",
    "envoy-admission",
    "sre",
    "codel-lifo",
    "dagor",
    "cinnamon",
    "hand-haproxy-named",
    "hand-haproxy-unnamed",
    "hand-envoy-limits",
    "oracle",
];

/// The guard of `point`, if the grid has it.
type Make<'a, S> = &'a dyn Fn(S) -> Box<dyn Guard>;

fn at_point<S: Copy>(grid: &[(&str, S)], point: usize, make: Make<'_, S>) -> Option<Box<dyn Guard>> {
    grid.get(point).map(|&(_, settings)| make(settings))
}

fn labels<S>(grid: &[(&'static str, S)]) -> Vec<&'static str> {
    grid.iter().map(|&(label, _)| label).collect()
}

/// What the points of the algorithm's grid are, the published default first. Empty: it has no knobs, or does not
/// exist.
#[must_use]
pub fn points(name: &str) -> Vec<&'static str> {
    match name {
        "fixed" => labels(&FIXED),
        "fixed-total" => labels(&TOTAL),
        "shares" => labels(&SHARES),
        "apf-count" | "apf-size" => labels(&FAIR),
        "aimd" | "aimd-lanes" => labels(&AIMD),
        "vegas" | "vegas-lanes" => labels(&VEGAS),
        "gradient2" | "gradient2-lanes" => labels(&GRADIENT2),
        "envoy-gradient" => labels(&GRADIENT),
        "envoy-admission" => labels(&SUCCESS),
        "sre" => labels(&SRE),
        "codel-lifo" => labels(&CODEL),
        "dagor" => labels(&DAGOR),
        "cinnamon" => labels(&CINNAMON),
        "oracle" => labels(&ORACLE),
        _ => Vec::new(),
    }
}

/// The competitor of that name, with the settings of a point of its grid.
#[must_use]
pub(super) fn by_name(name: &str, seed: u64) -> Option<Box<dyn Guard>> {
    let (name, point) = match name.split_once(':') {
        Some((name, point)) => (name, point.parse().ok()?),
        None => (name, 0),
    };
    let hand = |settings| (point == 0).then(|| Box::new(Hand::new(settings)) as Box<dyn Guard>);
    match name {
        "fixed" => at_point(&FIXED, point, &|sizes| Box::new(Pools::fixed(sizes))),
        "fixed-total" => at_point(&TOTAL, point, &|size| Box::new(Pools::total(size))),
        "shares" => at_point(&SHARES, point, &|total| Box::new(Pools::shares(total))),
        "apf-count" => at_point(&FAIR, point, &|shape| Box::new(Fair::new(Width::Count, shape))),
        "apf-size" => at_point(&FAIR, point, &|shape| Box::new(Fair::new(Width::Size, shape))),
        "envoy-admission" => at_point(&SUCCESS, point, &|knobs| Box::new(SuccessRate::new(knobs, seed))),
        "sre" => at_point(&SRE, point, &|knobs| Box::new(Sre::new(knobs, seed))),
        "codel-lifo" => at_point(&CODEL, point, &|knobs| Box::new(Codel::new(knobs))),
        "dagor" => at_point(&DAGOR, point, &|knobs| Box::new(Dagor::new(knobs))),
        "cinnamon" => at_point(&CINNAMON, point, &|knobs| Box::new(Cinnamon::new(knobs))),
        "oracle" => at_point(&ORACLE, point, &|places| Box::new(Oracle::new(places, seed))),
        "hand-haproxy-named" => hand(HAPROXY_NAMED),
        "hand-haproxy-unnamed" => hand(HAPROXY_UNNAMED),
        "hand-envoy-limits" => hand(ENVOY_LIMITS),
        _ => limiter(name, point, seed),
    }
}

/// The laws that move one limit, plain and with partitions by lane.
fn limiter(name: &str, point: usize, seed: u64) -> Option<Box<dyn Guard>> {
    match name {
        "aimd" => at_point(&AIMD, point, &|knobs| Box::new(Limiter::plain(Aimd::new(knobs)))),
        "aimd-lanes" => at_point(&AIMD, point, &|knobs| Box::new(Limiter::by_lane(Aimd::new(knobs)))),
        "vegas" => at_point(&VEGAS, point, &|knobs| Box::new(Limiter::plain(Vegas::new(knobs, seed)))),
        "vegas-lanes" => {
            at_point(&VEGAS, point, &|knobs| Box::new(Limiter::by_lane(Vegas::new(knobs, seed))))
        }
        "gradient2" => at_point(&GRADIENT2, point, &|knobs| Box::new(Limiter::plain(Gradient2::new(knobs)))),
        "gradient2-lanes" => {
            at_point(&GRADIENT2, point, &|knobs| Box::new(Limiter::by_lane(Gradient2::new(knobs))))
        }
        "envoy-gradient" => {
            at_point(&GRADIENT, point, &|knobs| Box::new(Limiter::plain(Gradient::new(knobs, seed))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::{Encoding, End, Key, Kind};
    use crate::policy::Lane;
    use crate::request::{DecodedPath, RequestInfo};
    use crate::sim::guard::{Call, Ended, Truth};
    use crate::units::Instant;

    pub(super) fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    /// A GET of one pod by `flow` in `lane`.
    pub(super) fn call(lane: Lane, flow: u64) -> Call {
        let path = DecodedPath::new("/api/v1/namespaces/default/pods/web-0").unwrap();
        let key = Key::of(&RequestInfo::new("GET", &path, None).unwrap(), Encoding::Json);
        Call {
            lane,
            flow,
            client: flow,
            key,
            kind: Kind::Short,
            exempt: false,
            list: false,
            write: false,
            truth: Truth { cpu_micros: 1_000.0, ..Truth::default() },
        }
    }

    /// A good end after so many milliseconds.
    pub(super) fn ended(millis: u64) -> Ended {
        Ended { end: End::Success, bytes: 100, level: 0, latency: Duration::from_millis(millis) }
    }

    #[test]
    fn every_name_and_every_point_of_its_grid_makes_a_guard_and_no_other_does() {
        for &name in NAMES {
            assert!(by_name(name, 1).is_some(), "{name}");
            let points = points(name).len();
            assert!(
                points == 0 && name.starts_with("hand-") || (3..=9).contains(&points),
                "{name}: {points}"
            );
            for point in 0..points {
                assert!(by_name(&format!("{name}:{point}"), 1).is_some(), "{name}:{point}");
            }
            assert!(by_name(&format!("{name}:{}", points.max(1)), 1).is_none());
        }
        assert!(by_name("nobody", 1).is_none() && by_name("vegas:x", 1).is_none());
    }

    #[test]
    fn health_probes_pass_every_algorithm_at_its_limit() {
        for &name in NAMES {
            let mut guard = by_name(name, 1).unwrap();
            for id in 0..5_000 {
                let _ = guard.arrive(at(0), id, &call(Lane::Telemetry, u64::from(id)));
            }
            let probe = Call { exempt: true, ..call(Lane::Unknown, 9) };
            assert_eq!(guard.arrive(at(1), 5_000, &probe), crate::sim::Answer::Admit, "{name}");
        }
    }
}
