//! May this client open one more watch or session?
//!
//! A watch costs little while it lives and much while it starts; a thousand of one identity are a leak, and 10,000 that
//! reconnect at once are a herd. So live watches are counted by flow and by lane, and a lane's starts have a rate.
//! Sessions (exec, attach, port-forward, `logs -f`) are counted apart: they hold no seats and live for hours.
//! What a watch delivers at its start is priced elsewhere, as the LIST that it is.
//!
//! Whoever is refused here hears 429 and nothing else: client-go's reflector then starts the watch again where it
//! stopped, while any other status makes it LIST everything anew.

use std::num::NonZeroU32;
use std::time::Duration;

use super::clients::HashedMap;
use super::decision::{Kind, Reason};
use super::random::mix;
use super::rate::SharedRate;
use super::settings::{Settings, WatchSettings};
use crate::policy::{Lane, Rate};
use crate::units::Instant;

/// One flow has at most this part of its lane's sessions, so that one dashboard cannot lock out all others ...
const STREAMS_OF_ONE: u32 = 4;
/// ... but always this many: `kubectl logs -f -l` opens five, a terminal dashboard some.
const STREAMS_MIN: u32 = 8;

/// Why a long-running request may not begin, and how long until it may, if that is known.
pub(super) type Refused = (Reason, Option<Duration>);

/// Live watches and sessions by flow, and the rates at which watches start. An entry lives as long as what it counts,
/// so the table is bounded by the tickets.
#[derive(Debug)]
pub(super) struct Watches {
    live: HashedMap<u32>,
    starts: [Option<SharedRate>; Lane::COUNT],
}

impl Watches {
    pub(super) fn new(settings: &WatchSettings, now: Instant) -> Self {
        Self {
            // Room for the flows of an ordinary cluster: growing is rare and amortised.
            live: HashedMap::with_capacity_and_hasher(4096, Default::default()),
            starts: settings.starts.map(|rate| rate.map(|rate| SharedRate::new(rate, now))),
        }
    }

    /// Takes new rates where they differ.
    pub(super) fn reconfigure(&mut self, (old, new): (&WatchSettings, &WatchSettings), now: Instant) {
        let rates = self.starts.iter_mut().zip(old.starts.iter().zip(&new.starts));
        for (start, (_, new)) in rates.filter(|(_, (old, new))| old != new) {
            *start = new.map(|rate: Rate| SharedRate::new(rate, now));
        }
    }

    /// Whether the counts allow one more; `lane_live` is the lane's own count of this kind.
    pub(super) fn may_live(
        &self,
        settings: &Settings,
        (lane, flow, kind): (Lane, u64, Kind),
        lane_live: u32,
    ) -> Result<(), Refused> {
        let own = || self.live.get(&place(lane, flow, kind)).copied().unwrap_or(0);
        match kind {
            Kind::Short => Ok(()),
            Kind::Watch => {
                let (per_flow, per_lane) =
                    (settings.watches.per_flow, settings.watches.per_lane[lane.index()]);
                let full = per_flow > 0 && own() >= per_flow || per_lane > 0 && lane_live >= per_lane;
                if full { Err((Reason::WatchQuota, None)) } else { Ok(()) }
            }
            Kind::Streaming => {
                let per_flow = (settings.streams_per_lane / STREAMS_OF_ONE).max(STREAMS_MIN);
                let full = lane_live >= settings.streams_per_lane || own() >= per_flow;
                if full { Err((Reason::LaneConcurrency, None)) } else { Ok(()) }
            }
        }
    }

    /// Takes a watch's start from its lane's bucket. Ask last: a start that something else refuses is none.
    pub(super) fn may_start(&self, lane: Lane, now: Instant) -> Result<(), Refused> {
        match &self.starts[lane.index()] {
            Some(rate) => rate.check(NonZeroU32::MIN, now).map_err(|wait| (Reason::WatchQuota, Some(wait))),
            None => Ok(()),
        }
    }

    pub(super) fn begin(&mut self, lane: Lane, flow: u64, kind: Kind) {
        if kind != Kind::Short {
            *self.live.entry(place(lane, flow, kind)).or_default() += 1;
        }
    }

    pub(super) fn end(&mut self, lane: Lane, flow: u64, kind: Kind) {
        if kind == Kind::Short {
            return;
        }
        let place = place(lane, flow, kind);
        if let Some(live) = self.live.get_mut(&place) {
            *live -= 1;
            if *live == 0 {
                self.live.remove(&place);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

fn place(lane: Lane, flow: u64, kind: Kind) -> u64 {
    mix(flow ^ ((lane as u64) << 56) ^ ((kind as u64) << 48))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(settings: &Settings) -> Watches {
        Watches::new(&settings.watches, Instant::ORIGIN)
    }

    #[test]
    fn an_identity_and_a_lane_have_a_bound_of_live_watches() {
        let mut settings = Settings::default();
        settings.watches.per_flow = 2;
        settings.watches.per_lane[Lane::Telemetry.index()] = 5;
        let mut watches = watches(&settings);
        let one = (Lane::Telemetry, 1, Kind::Watch);
        watches.begin(one.0, one.1, one.2);
        assert_eq!(watches.may_live(&settings, one, 1), Ok(()));
        watches.begin(one.0, one.1, one.2);
        assert_eq!(watches.may_live(&settings, one, 2), Err((Reason::WatchQuota, None)));
        assert_eq!(
            watches.may_live(&settings, (Lane::Telemetry, 2, Kind::Watch), 2),
            Ok(()),
            "another identity"
        );
        assert_eq!(watches.may_live(&settings, (Lane::Platform, 1, Kind::Watch), 0), Ok(()), "another lane");
        assert!(
            watches.may_live(&settings, (Lane::Telemetry, 2, Kind::Watch), 5).is_err(),
            "the lane is full"
        );
        watches.end(one.0, one.1, one.2);
        assert_eq!(watches.may_live(&settings, one, 1), Ok(()));
        watches.end(one.0, one.1, one.2);
        assert!(watches.is_empty());
    }

    #[test]
    fn starts_have_a_rate_and_say_how_long_to_wait() {
        let watches = watches(&Settings::default());
        let burst =
            (0..100).take_while(|_| watches.may_start(Lane::Telemetry, Instant::ORIGIN).is_ok()).count();
        assert_eq!(burst, 50);
        let refused = watches.may_start(Lane::Telemetry, Instant::ORIGIN);
        assert_eq!(refused, Err((Reason::WatchQuota, Some(Duration::from_millis(100)))));
        let later = Instant::ORIGIN + Duration::from_millis(100);
        assert_eq!(watches.may_start(Lane::Telemetry, later), Ok(()));
        assert!(
            (0..10_000).all(|_| watches.may_start(Lane::NodeHealth, later).is_ok()),
            "nodes reconnect freely"
        );
    }

    #[test]
    fn one_flow_cannot_take_all_sessions_of_its_lane() {
        let settings = Settings { streams_per_lane: 100, ..Settings::default() };
        let mut watches = watches(&settings);
        let one = (Lane::Operators, 1, Kind::Streaming);
        (0..25).for_each(|_| watches.begin(one.0, one.1, one.2));
        assert!(watches.may_live(&settings, one, 25).is_err());
        assert_eq!(watches.may_live(&settings, (Lane::Operators, 2, Kind::Streaming), 25), Ok(()));
        assert!(watches.may_live(&settings, (Lane::Operators, 2, Kind::Streaming), 100).is_err());
    }
}
