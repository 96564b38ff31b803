//! Which clients of the telemetry lane work now, and which wait?
//!
//! When light telemetry requests must be refused, refusing each by chance makes every client fail a part of its calls,
//! and a client of twenty calls then never finishes any work. So clients are dealt to 128 cohorts, and while the lane
//! sheds, a part φ of the cohorts works and the others wait, whole clients at a time (DAGOR, SoCC'18; Cinnamon has 128
//! as well). φ follows the refusals among those who work. The window of those who work goes round once a minute:
//! everybody works φ of every minute, so shares are even within any minute (Jain's index above 0.95, which
//! rotation by the hour could only promise over a day), and who waits is told exactly until when. Cohorts are dealt
//! anew each hour, so nobody stays beside a noisy neighbour.
//!
//! Idle seats are refused to nobody: a waiting client is served while the lane has room. LISTs are not shed by cohort:
//! they have appointments, which do the same with one client as a cohort (`retry`).

use std::time::Duration;

use super::random::mix;
use crate::units::Instant;

/// Cohorts: fine enough that one is less than a hundredth of the load.
const COHORTS: f64 = 128.0;
/// One round of the window.
const ROUND: Duration = Duration::from_secs(60);
/// After this the cohorts are dealt anew.
const DEAL: Duration = Duration::from_secs(3600);
/// How often φ adapts.
const PERIOD: Duration = Duration::from_secs(2);
/// Refused share of those who work, in a period, above which fewer work ...
const SHED_MANY: f64 = 0.1;
/// ... by this factor, never fewer than a sixteenth, and below which more work, by this much.
const FEWER: f64 = 0.9;
const PHI_MIN: f64 = 1.0 / 16.0;
const SHED_FEW: f64 = 0.02;
const MORE: f64 = 0.05;

/// The cohorts of one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cohorts {
    /// The part of the cohorts that works.
    phi: f64,
    period_began: Instant,
    /// Requests of those who work, and how many were refused, in this period.
    came: u32,
    refused: u32,
}

impl Cohorts {
    pub(super) fn new(now: Instant) -> Self {
        Self { phi: 1.0, period_began: now, came: 0, refused: 0 }
    }

    /// How long until the cohort of this flow works; zero while it does.
    pub(super) fn waits(&self, client: u64, flow: u64, now: Instant) -> Duration {
        if self.phi >= 1.0 {
            return Duration::ZERO;
        }
        let deal = now.as_nanos() / DEAL.as_nanos() as u64;
        let cohort = (mix(mix(client ^ deal) ^ flow) % COHORTS as u64) as f64;
        let round = (now.as_nanos() % ROUND.as_nanos() as u64) as f64 / ROUND.as_nanos() as f64;
        // The window ends where the clock stands and reaches back by φ: cohorts ahead of it wait for it.
        let ahead = (cohort / COHORTS - round).rem_euclid(1.0);
        if ahead > 1.0 - self.phi { Duration::ZERO } else { ROUND.mul_f64(ahead) }
    }

    /// One of those who work was let in, or was refused.
    pub(super) fn came(&mut self, is_refused: bool) {
        self.came += 1;
        self.refused += u32::from(is_refused);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if now.since(self.period_began) < PERIOD {
            return;
        }
        let share = f64::from(self.refused) / f64::from(self.came.max(1));
        if share > SHED_MANY {
            self.phi = (self.phi * FEWER).max(PHI_MIN);
        } else if share < SHED_FEW {
            self.phi = (self.phi + MORE).min(1.0);
        }
        (self.came, self.refused, self.period_began) = (0, 0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Instant {
        Instant::ORIGIN + Duration::from_secs_f64(seconds)
    }

    fn working(phi: f64) -> Cohorts {
        Cohorts { phi, ..Cohorts::new(at(0.0)) }
    }

    #[test]
    fn a_quarter_works_at_a_time_and_everybody_a_quarter_of_each_minute() {
        let cohorts = working(0.25);
        let mut worked = vec![0; 500];
        for second in 600..660 {
            let now = at(f64::from(second));
            let mut working = 0;
            for flow in 0..500u64 {
                let works = cohorts.waits(1, flow, now).is_zero();
                worked[flow as usize] += usize::from(works);
                working += usize::from(works);
            }
            assert!((80..=175).contains(&working), "{working} of 500");
        }
        assert!(worked.iter().all(|&seconds| (14..=16).contains(&seconds)), "{worked:?}");
    }

    #[test]
    fn who_waits_is_told_until_when() {
        let cohorts = working(0.25);
        for flow in 0..500 {
            let now = at(615.0);
            let wait = cohorts.waits(1, flow, now);
            assert!(wait <= ROUND);
            assert_eq!(
                cohorts.waits(1, flow, now + wait + Duration::from_millis(1)),
                Duration::ZERO,
                "{wait:?}"
            );
        }
    }

    #[test]
    fn the_part_that_works_follows_the_refusals() {
        let mut cohorts = Cohorts::new(at(0.0));
        for period in 1..40 {
            (0..100).for_each(|call| cohorts.came(call % 3 == 0));
            cohorts.tick(at(2.0 * f64::from(period)));
        }
        assert!(cohorts.phi < 0.1 && cohorts.phi >= PHI_MIN);
        for period in 40..80 {
            (0..100).for_each(|_| cohorts.came(false));
            cohorts.tick(at(2.0 * f64::from(period)));
        }
        assert_eq!(cohorts.phi, 1.0);
        assert_eq!(cohorts.waits(1, 2, at(500.0)), Duration::ZERO);
    }

    #[test]
    fn cohorts_are_dealt_anew_each_hour() {
        let cohorts = working(0.25);
        let moved = (0..500)
            .filter(|&flow| {
                cohorts.waits(1, flow, at(600.0)).is_zero() != cohorts.waits(1, flow, at(4_200.0)).is_zero()
            })
            .count();
        assert!(moved > 100, "{moved}");
    }
}
