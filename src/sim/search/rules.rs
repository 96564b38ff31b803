//! When is a run a violation, and how bad is it?
//!
//! A rule has a target of the project's, but nobody can be asked for more than what the oracle reaches under the same load
//! and seed: half of the scenarios of the space are beyond any algorithm. So the bound of a rule is the target or what the
//! oracle did, with some room, whichever is easier; **severity** is how many times that room was used, and above 1 the rule
//! is broken.

use crate::sim::Run;
use crate::sim::report::useful_work;

/// One scenario and seed, played three times.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// By the production scheduler, its needless refusals judged against `none`.
    pub spillway: &'a Run,
    /// By the guard that knows true cost and capacity.
    pub oracle: &'a Run,
    /// By nobody: APF alone.
    pub none: &'a Run,
}

/// What must hold. In the order of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// People get through.
    Operators,
    /// The server's process lives.
    Deaths,
    /// Nodes stay alive.
    Renewals,
    /// ... without their leases being slow.
    LeaseTime,
    /// Node health is well soon after a storm begins.
    Protect,
    /// Everybody protected is well soon after it ends.
    Recover,
    /// The server is used.
    Work,
    /// Nobody is refused without need.
    FalseShed,
}

/// Share of calls that may be lost beyond what the oracle loses.
const LOST: f64 = 0.01;
/// The default objective of single-object calls, in ms, and how much slower than under the oracle a lease may be.
const LEASE_MS: f64 = 260.0;
const SLOWER: f64 = 1.5;
/// Seconds to protect, and to recover, where the oracle needs none.
const PROTECT_SECONDS: f64 = 2.0;
const RECOVER_SECONDS: f64 = 3.0;
/// Share of the oracle's work that may be missing.
const WORK: f64 = 0.05;
/// The loosest of the targets for needless refusals: that of slow etcd and webhooks.
const FALSE_SHED: f64 = 0.005;

impl Rule {
    /// All rules, the most important first.
    pub const ALL: [Self; 8] = [
        Self::Operators,
        Self::Deaths,
        Self::Renewals,
        Self::LeaseTime,
        Self::Protect,
        Self::Recover,
        Self::Work,
        Self::FalseShed,
    ];

    /// Its name in tables and file names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operators => "operators",
            Self::Deaths => "deaths",
            Self::Renewals => "renewals",
            Self::LeaseTime => "lease-time",
            Self::Protect => "protect",
            Self::Recover => "recover",
            Self::Work => "work",
            Self::FalseShed => "false-shed",
        }
    }

    /// What it says, with its unit.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Operators => "operators' sequences that worked, share",
            Self::Deaths => "times the server's process died",
            Self::Renewals => "lease renewals on time, share",
            Self::LeaseTime => "p99 of lease renewals, ms",
            Self::Protect => "until node health is well in the storm, s",
            Self::Recover => "until all protected lanes are well after it, s",
            Self::Work => "useful work, cores",
            Self::FalseShed => "refused without need, share",
        }
    }

    /// The metric of a scenario's bands that says the same; work has none.
    #[must_use]
    pub const fn metric(self) -> Option<&'static str> {
        Some(match self {
            Self::Operators => "operator_ok",
            Self::Deaths => "deaths",
            Self::Renewals => "renewals_ok",
            Self::LeaseTime => "lease_p99_ms",
            Self::Protect => "protect_s",
            Self::Recover => "recover_s",
            Self::Work => return None,
            Self::FalseShed => "false_shed",
        })
    }

    /// Whether more is better.
    #[must_use]
    pub const fn wants_more(self) -> bool {
        matches!(self, Self::Operators | Self::Renewals | Self::Work)
    }

    /// This rule's number in a run.
    #[must_use]
    pub fn figure(self, run: &Run) -> Option<f64> {
        match self.metric() {
            Some(metric) => run.outcome.metric(metric),
            None => Some(useful_work(run)),
        }
    }

    /// The rule's judgement of ours beside the oracle's number. `None`: under the oracle there was nothing to measure, so
    /// nothing can be asked for.
    #[must_use]
    pub fn judge(self, ours: f64, oracle: Option<f64>) -> Option<Found> {
        let best = match self {
            // Needless refusals are counted beside `none`, and the oracle's are not.
            Self::FalseShed => 0.0,
            _ => oracle?,
        };
        let (bound, room) = match self {
            Self::Operators | Self::Renewals => (best - LOST, LOST),
            Self::Work => (best * (1.0 - WORK), best * WORK),
            Self::Deaths => (best, 1.0),
            Self::LeaseTime => (LEASE_MS.max(SLOWER * best), LEASE_MS.max(SLOWER * best)),
            Self::Protect => (best + PROTECT_SECONDS, PROTECT_SECONDS),
            Self::Recover => (best + RECOVER_SECONDS, RECOVER_SECONDS),
            Self::FalseShed => (FALSE_SHED, FALSE_SHED),
        };
        let beyond = if self.wants_more() { bound - ours } else { ours - bound };
        let severity = if room > 0.0 { 1.0 + beyond / room } else { 0.0 };
        Some(Found { ours, bound, oracle, severity })
    }
}

/// How a rule fared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Our number.
    pub ours: f64,
    /// What it should have been at most, or at least.
    pub bound: f64,
    /// The oracle's.
    pub oracle: Option<f64>,
    /// Above 1: broken.
    pub severity: f64,
}

impl Found {
    /// Whether the rule does not hold.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.severity > 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_broken_beyond_its_bound_and_not_at_it() {
        let broken = |rule: Rule, ours, oracle| rule.judge(ours, Some(oracle)).unwrap().is_broken();
        assert!(broken(Rule::Operators, 0.98, 1.0) && !broken(Rule::Operators, 0.992, 1.0));
        assert!(broken(Rule::LeaseTime, 261.0, 10.0) && !broken(Rule::LeaseTime, 259.0, 10.0));
        assert!(broken(Rule::Deaths, 2.0, 1.0) && !broken(Rule::Deaths, 1.0, 1.0));
        assert!(broken(Rule::Work, 0.9, 1.0) && !broken(Rule::Work, 0.96, 1.0));
        assert!(broken(Rule::FalseShed, 0.006, 0.0) && !broken(Rule::FalseShed, 0.0, 0.0));
        assert!(broken(Rule::Protect, 2.5, 0.0) && broken(Rule::Recover, 4.0, 0.5));
    }

    #[test]
    fn nobody_is_asked_for_more_than_the_oracle_reaches() {
        let broken = |rule: Rule, ours, oracle| rule.judge(ours, Some(oracle)).unwrap().is_broken();
        assert!(!broken(Rule::Operators, 0.5, 0.4) && !broken(Rule::Renewals, 0.3, 0.305));
        assert!(!broken(Rule::LeaseTime, 4_000.0, 3_000.0) && !broken(Rule::Protect, 30.0, 30.0));
        assert!(!broken(Rule::Work, 0.0, 0.0));
        assert_eq!(Rule::LeaseTime.judge(9_000.0, None), None);
    }

    #[test]
    fn worse_is_more_severe() {
        for rule in Rule::ALL {
            let (better, worse) = if rule.wants_more() { (0.9, 0.2) } else { (5.0, 9.0) };
            let severity = |ours| rule.judge(ours, Some(1.0)).unwrap().severity;
            assert!(severity(worse) > severity(better), "{rule:?}");
        }
    }
}
