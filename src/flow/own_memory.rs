//! Which lanes give way while spillway itself runs out of memory?
//!
//! A guard that the kernel kills takes everybody's access with it, so the lowest lanes are refused before that: telemetry
//! and unknown callers first, then workload, then everybody but the cluster's own health. Break-glass has no part in
//! this: it does not ask the scheduler. The steps are Envoy's (its overload manager acts at 92 and 95 % of a heap
//! limit, looking every 250 ms) with one more before them, because here lanes tell who matters less.
//!
//! A step is left only well below the percentage at which it was entered: memory that is freed goes back to the system
//! slowly, and a limit that flaps would refuse and admit the same herd in turn. Nothing latches: what is refused holds no
//! memory, so the process shrinks or the next look finds it unchanged.

use crate::policy::Lane;

/// Percent of the limit at which each step is entered.
const ENTERED_AT: [u128; 3] = [80, 90, 95];
/// Percent points below that at which it is left.
const LEFT_BELOW: u128 = 5;

/// How short of memory this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryStep {
    /// Not at all, or there is no limit.
    #[default]
    Free = 0,
    /// From 80 % on: telemetry and unknown callers are refused.
    Tight = 1,
    /// From 90 % on: workload, too.
    Short = 2,
    /// From 95 % on: only node-health and control-plane are served, and break-glass.
    Critical = 3,
}

impl MemoryStep {
    const ALL: [Self; 4] = [Self::Free, Self::Tight, Self::Short, Self::Critical];

    /// The step after `resident` bytes were found in use of `limit`; a limit of zero is none.
    ///
    /// ```
    /// use spillway::flow::MemoryStep;
    ///
    /// let tight = MemoryStep::Free.next(80, 100);
    /// assert_eq!(tight, MemoryStep::Tight);
    /// assert_eq!(tight.next(75, 100), MemoryStep::Tight, "left only below 75 %");
    /// assert_eq!(tight.next(74, 100), MemoryStep::Free);
    /// ```
    #[must_use]
    pub fn next(self, resident: u64, limit: u64) -> Self {
        if limit == 0 {
            return Self::Free;
        }
        let percent = u128::from(resident) * 100 / u128::from(limit);
        let entered = ENTERED_AT.iter().filter(|&&at| percent >= at).count();
        let kept = ENTERED_AT.iter().filter(|&&at| percent + LEFT_BELOW >= at).count();
        Self::ALL[entered.max(kept.min(self as usize))]
    }

    /// Whether a request of this lane is refused now.
    #[must_use]
    pub fn refuses(self, lane: Lane) -> bool {
        match lane {
            Lane::BreakGlass | Lane::NodeHealth | Lane::ControlPlane => false,
            Lane::Platform | Lane::Operators => self >= Self::Critical,
            Lane::Workload => self >= Self::Short,
            Lane::Unknown | Lane::Telemetry => self >= Self::Tight,
        }
    }

    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Tight => "tight",
            Self::Short => "short",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::object;
    use super::*;
    use crate::flow::{Arrival, Decision, Kind, Reason, Scheduler, Settings};
    use crate::units::Instant;

    fn refused(step: MemoryStep) -> Vec<Lane> {
        Lane::ALL.into_iter().filter(|&lane| step.refuses(lane)).collect()
    }

    #[test]
    fn d13_lanes_give_way_from_below_and_the_clusters_health_never() {
        assert_eq!(refused(MemoryStep::Free), []);
        assert_eq!(refused(MemoryStep::Tight), [Lane::Unknown, Lane::Telemetry]);
        assert_eq!(refused(MemoryStep::Short), [Lane::Workload, Lane::Unknown, Lane::Telemetry]);
        let served = [Lane::BreakGlass, Lane::NodeHealth, Lane::ControlPlane];
        let all = Lane::ALL.into_iter().filter(|lane| !served.contains(lane)).collect::<Vec<_>>();
        assert_eq!(refused(MemoryStep::Critical), all);
    }

    #[test]
    fn d13_a_step_is_entered_at_once_and_left_five_points_lower() {
        let mut step = MemoryStep::Free;
        let mut seen = Vec::new();
        for percent in [79, 80, 96, 91, 90, 89, 85, 84, 76, 75, 74, 100, 10] {
            step = step.next(percent, 100);
            seen.push(step);
        }
        use MemoryStep::{Critical, Free, Short, Tight};
        assert_eq!(
            seen,
            [
                Free, Tight, Critical, Critical, Critical, Short, Short, Tight, Tight, Tight, Free, Critical,
                Free
            ]
        );
        assert_eq!(Critical.next(u64::MAX, 0), Free, "no limit");
    }

    #[test]
    fn d13_what_is_refused_for_memory_says_so_and_is_served_again_by_itself() {
        let now = Instant::ORIGIN;
        let mut scheduler = Scheduler::new(Settings::default(), 1, now);
        let ask = |scheduler: &mut Scheduler, lane| {
            let key = object("pods");
            let arrival = Arrival { lane, flow: 1, client: 1, key, kind: Kind::Short, exempt: false };
            match scheduler.arrive(now, &arrival) {
                Decision::Shed(refusal) => {
                    assert!(refusal.retry_after_seconds >= 1);
                    Some(refusal.reason)
                }
                Decision::Admit(ticket) | Decision::Wait(ticket) => {
                    scheduler.cancel(now, ticket);
                    None
                }
            }
        };
        scheduler.own_memory(MemoryStep::Short);
        assert_eq!(ask(&mut scheduler, Lane::Telemetry), Some(Reason::OwnMemory));
        assert_eq!(ask(&mut scheduler, Lane::Workload), Some(Reason::OwnMemory));
        assert_eq!(ask(&mut scheduler, Lane::Operators), None);
        assert_eq!(ask(&mut scheduler, Lane::NodeHealth), None);
        let exempt = Arrival {
            lane: Lane::Unknown,
            flow: 1,
            client: 1,
            key: object("pods"),
            kind: Kind::Short,
            exempt: true,
        };
        assert!(
            matches!(scheduler.arrive(now, &exempt), Decision::Admit(_)),
            "health probes are not held back"
        );
        scheduler.own_memory(MemoryStep::Free);
        assert_eq!(ask(&mut scheduler, Lane::Telemetry), None);
    }

    proptest! {
        #[test]
        fn d13_more_memory_never_means_a_lower_step(from in 0..4usize, less in 0..120u64, more in 0..120u64) {
            let from = MemoryStep::ALL[from];
            let (less, more) = (less.min(more), less.max(more));
            prop_assert!(from.next(less, 100) <= from.next(more, 100));
            prop_assert!(from.next(less, 100) <= from.max(MemoryStep::Free.next(less, 100)));
        }
    }
}
