//! What does WeChat's DAGOR do? A cut-off in compound priorities, moved by queueing time.
//!
//! Zhou et al., *Overload Control for Scaling WeChat Microservices* (SoCC'18, arXiv 1806.04075): a request has a business
//! priority and, within it, a user priority (hash of user and hour, 128 of them). A server is overloaded when the
//! mean queueing time over a second, or 2,000 requests, exceeds 20 ms. Then it aims at 5 % fewer admitted requests than
//! in the last window, otherwise at 1 % of the arrivals more, and walks a histogram of the arrivals to the cut-off that
//! gives that. Lanes are the businesses. A proxy does not see the apiserver's queues; what a call without work takes
//! (the probe of `/livez`) is the nearest thing to a queueing time, and the algorithm is given it.

use std::time::Duration;

use crate::flow::{Probe, Probes};
use crate::policy::Lane;
use crate::sim::algorithm::PLAIN_RETRY_AFTER;
use crate::sim::chance::mix;
use crate::sim::guard::{Answer, Call, Ended, Guard, Id};
use crate::units::Instant;

/// Knobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct DagorSettings {
    pub(super) queueing: Duration,
    /// Share by which the admitted requests fall in overload.
    pub(super) alpha: f64,
    /// Share of the arrivals by which they rise otherwise.
    pub(super) beta: f64,
}

const fn dagor(millis: u64, alpha: f64, beta: f64) -> DagorSettings {
    DagorSettings { queueing: Duration::from_millis(millis), alpha, beta }
}

pub(super) const DAGOR: [(&str, DagorSettings); 6] = [
    ("20 ms, −5 %, +1 %", dagor(20, 0.05, 0.01)),
    ("20 ms, −20 %, +1 %", dagor(20, 0.2, 0.01)),
    ("20 ms, −50 %, +1 %", dagor(20, 0.5, 0.01)),
    ("50 ms, −20 %, +1 %", dagor(50, 0.2, 0.01)),
    ("50 ms, −50 %, +0.2 %", dagor(50, 0.5, 0.002)),
    ("100 ms, −50 %, +1 %", dagor(100, 0.5, 0.01)),
];

/// User priorities in each business priority.
pub(super) const USERS: usize = 128;
const LEVELS: usize = Lane::COUNT * USERS;
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_REQUESTS: u32 = 2_000;
/// User priorities are shuffled every hour, or the same users would always lose.
const SHUFFLE: u64 = 3_600;
/// What a lost probe counts.
const LOST: Duration = Duration::from_secs(1);

/// The compound priority of a request; 0 is the highest.
pub(super) fn level(now: Instant, call: &Call) -> usize {
    let hour = now.since(Instant::ORIGIN).as_secs() / SHUFFLE;
    let user = mix(call.flow ^ mix(hour)) % USERS as u64;
    call.lane.index() * USERS + user as usize
}

/// The cut-off and the histogram of one window.
#[derive(Debug)]
pub(super) struct Dagor {
    settings: DagorSettings,
    /// Levels below this pass.
    cut_off: usize,
    arrivals: Vec<u32>,
    arrived: u32,
    admitted: u32,
    queueing: Duration,
    probes: u32,
    until: Instant,
}

impl Dagor {
    pub(super) fn new(settings: DagorSettings) -> Self {
        Self {
            settings,
            cut_off: LEVELS,
            arrivals: vec![0; LEVELS],
            arrived: 0,
            admitted: 0,
            queueing: Duration::ZERO,
            probes: 0,
            until: Instant::ORIGIN + WINDOW,
        }
    }

    fn end_window(&mut self, now: Instant) {
        if self.probes > 0 {
            let overloaded = self.queueing / self.probes > self.settings.queueing;
            self.walk(overloaded);
        }
        self.arrivals.fill(0);
        (self.arrived, self.admitted, self.queueing, self.probes) = (0, 0, Duration::ZERO, 0);
        self.until = now + WINDOW;
    }

    fn walk(&mut self, overloaded: bool) {
        let (admitted, arrived) = (f64::from(self.admitted), f64::from(self.arrived));
        if overloaded {
            let wanted = admitted * (1.0 - self.settings.alpha);
            let mut passing = admitted;
            while self.cut_off > 1 && passing > wanted {
                self.cut_off -= 1;
                passing -= f64::from(self.arrivals[self.cut_off]);
            }
            return;
        }
        let wanted = admitted + arrived * self.settings.beta;
        let mut passing = admitted;
        while self.cut_off < LEVELS && passing < wanted {
            passing += f64::from(self.arrivals[self.cut_off]);
            self.cut_off += 1;
        }
        // Nobody asked in the levels above: they may open, at no cost.
        if arrived == 0.0 {
            self.cut_off = (self.cut_off + 1).min(LEVELS);
        }
    }
}

impl Guard for Dagor {
    fn arrive(&mut self, now: Instant, _id: Id, call: &Call) -> Answer {
        if call.exempt {
            return Answer::Admit;
        }
        let level = level(now, call);
        self.arrivals[level] += 1;
        self.arrived += 1;
        let passes = level < self.cut_off;
        self.admitted += u32::from(passes);
        // Not before a probe has told something, or thousands of refused requests would end windows without a word.
        if self.arrived >= WINDOW_REQUESTS && self.probes > 0 {
            self.end_window(now);
        }
        if passes { Answer::Admit } else { PLAIN_RETRY_AFTER }
    }

    fn first_byte(&mut self, _now: Instant, _id: Id, _level: u64) {}

    fn burst_done(&mut self, _now: Instant, _id: Id) {}

    fn finish(&mut self, _now: Instant, _id: Id, _ended: Ended) {}

    fn cancel(&mut self, _now: Instant, _id: Id) {}

    fn tick(&mut self, now: Instant, probes: &Probes) {
        let queueing = match probes.livez {
            Probe::Silent => None,
            Probe::Waiting(time) | Probe::Answered(time) => Some(time),
            Probe::Lost => Some(LOST),
        };
        if let Some(time) = queueing {
            self.queueing += time;
            self.probes += 1;
        }
        if now >= self.until {
            self.end_window(now);
        }
    }

    fn upstream_up(&mut self, _now: Instant, _up: bool) {}

    fn next_wake(&self) -> Option<Instant> {
        None
    }

    fn wake(&mut self, _now: Instant) {}

    fn verdicts(&mut self, _into: &mut Vec<(Id, Answer)>) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, call};
    use super::*;

    /// Seconds of 100 calls of 100 users in each of two lanes; gives who was refused in the last one.
    fn play(dagor: &mut Dagor, from: u64, seconds: u64, livez: u64) -> [u32; 2] {
        let mut refused = [0; 2];
        for second in from..from + seconds {
            refused = [0; 2];
            for user in 0..100 {
                for (place, lane) in [Lane::Platform, Lane::Telemetry].into_iter().enumerate() {
                    let answer = dagor.arrive(at(second * 1000 + user), 0, &call(lane, user));
                    refused[place] += u32::from(answer != Answer::Admit);
                }
            }
            let livez = Probe::Answered(Duration::from_millis(livez));
            dagor.tick(at(second * 1000 + 1000), &Probes { livez, ..Probes::default() });
        }
        refused
    }

    #[test]
    fn overload_sheds_the_lowest_business_first_a_twentieth_at_a_time() {
        let mut dagor = Dagor::new(DAGOR[0].1);
        assert_eq!(play(&mut dagor, 0, 5, 2), [0, 0]);
        play(&mut dagor, 5, 1, 50);
        let [platform, telemetry] = play(&mut dagor, 6, 1, 50);
        assert_eq!(platform, 0);
        assert!((10..=14).contains(&telemetry), "5 % of 200, in whole users: {telemetry}");
        let [platform, telemetry] = play(&mut dagor, 7, 8, 50);
        assert_eq!((platform, telemetry > 60), (0, true), "{telemetry}");
        let [platform, _] = play(&mut dagor, 15, 20, 50);
        assert!(platform > 0, "in the end the next business");
    }

    #[test]
    fn the_same_users_are_shed_again_and_calm_readmits_slowly() {
        let mut dagor = Dagor::new(DAGOR[0].1);
        play(&mut dagor, 0, 10, 50);
        let refused: Vec<u64> = (0..100)
            .filter(|&user| dagor.arrive(at(10_000), 0, &call(Lane::Telemetry, user)) != Answer::Admit)
            .collect();
        let again: Vec<u64> = (0..100)
            .filter(|&user| dagor.arrive(at(10_001), 0, &call(Lane::Telemetry, user)) != Answer::Admit)
            .collect();
        assert!(!refused.is_empty() && refused == again);
        let [_, before] = play(&mut dagor, 10, 1, 2);
        let [_, after] = play(&mut dagor, 11, 5, 2);
        assert!(after < before && before - after < 30, "{before} {after}");
    }
}
