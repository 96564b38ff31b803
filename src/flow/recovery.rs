//! In which state is the apiserver, and which lanes may enter?
//!
//! Normal → Brown (the limit is being cut) → Red (the brake: the probe says that the process hardly answers) and
//! back; Cold while it is away, Ramp while it comes back. Ramp exists because a fresh apiserver has cold caches and
//! everybody reconnects at once: lanes return in order, each when L has regrown to its step and calm has lasted.
//! Operators return first, with the nodes' leases: whoever must repair the cluster must not wait for it. Then the nodes'
//! and DNS's reads, controllers, workloads. Telemetry and strangers come last, and not before `/readyz` is good: until
//! then kube-apiserver has not loaded its own FlowSchemas, and what it takes in falls into `catch-all` beside leases.
//! While caches are cold a call takes twice its calm time and is well, so pressure counts half for half a minute.
//! Left out here, for later: gates for single resources whose watch cache still initialises, cold baselines.

use std::fmt;
use std::time::Duration;

use super::limit::{Demand, Limit, Step};
use super::pressure::{BROWN, CALM, Signal};
use super::probes::Probe;
use super::random::Random;
use crate::policy::Lane;
use crate::units::Instant;

/// How the apiserver is seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// All is well.
    Normal = 0,
    /// Pressed: the limit is cut and the low lanes give way.
    Brown = 1,
    /// The brake: the limit at its least, telemetry closed.
    Red = 2,
    /// The apiserver is away.
    Cold = 3,
    /// It is back, and lanes are re-admitted in order.
    Ramp = 4,
}

impl State {
    /// All states in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Brown, Self::Red, Self::Cold, Self::Ramp];

    /// The stable word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Brown => "brown",
            Self::Red => "red",
            Self::Cold => "cold",
            Self::Ramp => "ramp",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A `/livez` without etcd that takes this long is a process that hardly runs.
const BRAKE_PROBE: Duration = Duration::from_secs(1);
/// Probes lost in a row that brake: one may be the network's.
const BRAKE_LOST: u32 = 2;
/// Good probes must last this long before the brake is released.
const BRAKE_RELEASE: Duration = Duration::from_secs(5);
/// Calm must last this long before Brown ends.
const BROWN_RELEASE: Duration = Duration::from_secs(2);
/// L when the apiserver is away or just back, as a share of the last L that was good.
const COLD_SHARE: f64 = 0.1;
/// How long caches are taken to be cold after the apiserver's return, and how much slower calls may be meanwhile.
const COLD_CACHES: Duration = Duration::from_secs(30);
const COLD_SLOWER: f64 = 2.0;
/// Announcements of its own end, within a while, that are taken for it: one could be of a single handler.
const CLOSING_MANY: u32 = 2;
const CLOSING_WHILE: Duration = Duration::from_secs(5);
/// Growth of L in the ramp: 15 % a second at four ticks a second.
const RAMP_GROWTH: f64 = 0.15 / 4.0;
/// When the ramp ends in any case: a server that never calms down is Brown, not coming back.
const RAMP_MAX: Duration = Duration::from_secs(60);

/// When a lane returns in the ramp: L as a share of the last good L, and how long calm has lasted.
fn returns(lane: Lane) -> (f64, Duration) {
    match lane {
        Lane::BreakGlass | Lane::NodeHealth | Lane::Operators => (0.0, Duration::ZERO),
        Lane::Platform => (0.0, Duration::from_secs(1)),
        Lane::ControlPlane => (0.25, Duration::from_secs(2)),
        Lane::Workload => (0.5, Duration::from_secs(2)),
        Lane::Unknown | Lane::Telemetry => (0.8, Duration::from_secs(10)),
    }
}

/// The state and what it takes to leave it.
#[derive(Debug)]
pub(super) struct Recovery {
    state: State,
    entered: Instant,
    /// Since when pressure is calm.
    calm_since: Option<Instant>,
    /// Since when nothing asked for the brake.
    unbraked_since: Instant,
    lost_in_row: u32,
    /// L when all was last well.
    good_limit: f64,
    /// It was away, and `/readyz` has not been good since.
    is_unready: bool,
    /// Its own announcements that it goes away: the first of a while, and how many.
    closing: (Instant, u32),
    /// It announced its end, and was not seen to be gone by anybody else: its return must be seen here, too.
    is_announced: bool,
}

impl Recovery {
    pub(super) fn new(limit: &Limit, now: Instant) -> Self {
        Self {
            state: State::Normal,
            entered: now,
            calm_since: None,
            unbraked_since: now,
            lost_in_row: 0,
            good_limit: limit.value(),
            is_unready: false,
            closing: (now, 0),
            is_announced: false,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether requests of this lane may enter at all.
    pub(super) fn is_open(&self, lane: Lane, limit: &Limit, now: Instant) -> bool {
        if self.is_unready && lane >= Lane::Unknown {
            return false;
        }
        match self.state {
            State::Normal | State::Brown => true,
            State::Red => lane != Lane::Telemetry,
            State::Cold => matches!(lane, Lane::BreakGlass | Lane::NodeHealth | Lane::Operators),
            State::Ramp => {
                let (share, calm) = returns(lane);
                let calm_for = self.calm_since.map_or(Duration::ZERO, |since| now.since(since));
                limit.value() >= share * self.good_limit && calm_for >= calm
            }
        }
    }

    /// How long a state has lasted, if it is the present one.
    pub(super) fn lasted(&self, state: State, now: Instant) -> Option<Duration> {
        (self.state == state).then(|| now.since(self.entered))
    }

    /// Whether the apiserver is coming back: LISTs then take turns, however many seats there are.
    pub(super) fn is_ramping(&self) -> bool {
        self.state == State::Ramp
    }

    /// An answer said that the apiserver is shutting down.
    pub(super) fn closing(&mut self, now: Instant, limit: &mut Limit) {
        if matches!(self.state, State::Cold | State::Ramp) {
            self.closing = (now, 0);
            return;
        }
        if now.since(self.closing.0) > CLOSING_WHILE {
            self.closing = (now, 0);
        }
        self.closing.1 += 1;
        if self.closing.1 >= CLOSING_MANY {
            self.upstream(now, false, limit);
            (self.closing, self.is_announced) = ((now, 0), true);
        }
    }

    /// The upstream part reports that the apiserver went away or came back.
    pub(super) fn upstream(&mut self, now: Instant, is_up: bool, limit: &mut Limit) {
        self.is_unready |= !is_up;
        self.is_announced = false;
        let state = match (self.state, is_up) {
            (State::Cold, true) => State::Ramp,
            (State::Cold, false) | (_, true) => return,
            (_, false) => State::Cold,
        };
        limit.set(COLD_SHARE * self.good_limit);
        (self.calm_since, self.lost_in_row, self.unbraked_since) = (None, 0, now);
        self.enter(state, now);
    }

    /// One tick: brake, ramp, or the ordinary law.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        mut signal: Signal,
        (probe, ready): (Probe, Option<bool>),
        limit: &mut Limit,
        (demand, random): (Demand, &mut Random),
    ) -> Step {
        // Where nobody asks `/readyz`, a long ramp must do.
        let is_back = self.state != State::Cold;
        let is_ready = ready.unwrap_or(is_back && now.since(self.entered) >= RAMP_MAX);
        if is_back && is_ready {
            self.is_unready = false;
        }
        if self.state == State::Cold {
            let answers = matches!(probe, Probe::Answered(_)) && ready != Some(false);
            if self.is_announced && answers && now.since(self.closing.0) > CLOSING_WHILE {
                self.upstream(now, true, limit);
            }
            return Step::Hold;
        }
        if self.lasted(State::Ramp, now).is_some_and(|since| since < COLD_CACHES) {
            signal.pressure = (signal.pressure / COLD_SLOWER).max(1.0);
        }
        let brake = self.brake(probe, signal, now);
        let pressure = signal.pressure;
        self.calm_since = (pressure < CALM).then(|| self.calm_since.unwrap_or(now));
        if brake {
            limit.set_min();
            self.enter(State::Red, now);
            return Step::Cut;
        }
        match self.state {
            State::Red if now.since(self.unbraked_since) < BRAKE_RELEASE => {
                limit.set_min();
                Step::Cut
            }
            State::Ramp => self.ramp(now, signal, limit, (demand, random)),
            _ => {
                let step = limit.step(signal, demand, random);
                self.settle(now, pressure, limit);
                step
            }
        }
    }

    fn brake(&mut self, probe: Probe, signal: Signal, now: Instant) -> bool {
        let probed = match probe {
            Probe::Silent => false,
            Probe::Waiting(time) => time > BRAKE_PROBE,
            Probe::Answered(time) => {
                self.lost_in_row = 0;
                time > BRAKE_PROBE
            }
            Probe::Lost => {
                self.lost_in_row += 1;
                self.lost_in_row >= BRAKE_LOST
            }
        };
        let brake = probed || signal.brake;
        // Silence after lost probes is not an answer.
        if brake || self.lost_in_row > 0 {
            self.unbraked_since = now;
        }
        brake
    }

    fn ramp(
        &mut self,
        now: Instant,
        signal: Signal,
        limit: &mut Limit,
        (demand, random): (Demand, &mut Random),
    ) -> Step {
        let pressure = signal.pressure;
        let returned = Lane::ALL.into_iter().all(|lane| self.is_open(lane, limit, now));
        if returned || now.since(self.entered) >= RAMP_MAX {
            self.enter(State::Brown, now);
            self.settle(now, pressure, limit);
            return Step::Hold;
        }
        if pressure < CALM && limit.value() < self.good_limit {
            limit.set((limit.value() * (1.0 + RAMP_GROWTH)).min(self.good_limit));
            return Step::Grow;
        }
        if pressure > BROWN { limit.step(signal, demand, random) } else { Step::Hold }
    }

    /// Between Normal and Brown, by pressure.
    fn settle(&mut self, now: Instant, pressure: f64, limit: &Limit) {
        let calm_for = self.calm_since.map_or(Duration::ZERO, |since| now.since(since));
        match self.state {
            State::Normal if pressure > BROWN => self.enter(State::Brown, now),
            State::Normal if pressure < CALM => self.good_limit = limit.value(),
            State::Brown if calm_for >= BROWN_RELEASE => self.enter(State::Normal, now),
            State::Red => self.enter(State::Brown, now),
            _ => {}
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            (self.state, self.entered) = (state, now);
        }
    }
}
