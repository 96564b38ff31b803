//! How does a policy come into force step by step, and when does it fall back?
//!
//! Each step enforces the policy for a larger part of the identities. While a step lasts, a guard judges numbers of this
//! process, once an interval: errors of the apiserver, the time of single-object reads, refusals in lanes that must not be
//! refused, and the proxy's own overhead. A pass brings the step on; a fail counts, and enough of them in a row put everything
//! back into shadow; too few samples to say is neither, and holds. So a rollout can neither advance blind (at night, with a
//! dead metrics pipeline) nor fall back for one bad minute. (Flagger and Argo Rollouts judge by Prometheus, which is a
//! victim in the outages this is for.)
//!
//! Pure: it is told how long an interval was and what was measured in it. Left out: measuring, keeping, telling.

use std::fmt;
use std::time::Duration;

use super::{Enforcement, Lane, Mode};

/// Samples of one kind that an interval must have to be judged by them.
pub const SAMPLES_MIN: u64 = 20;
/// Steps a rollout has at most.
pub const STEPS_MAX: usize = 20;

/// How a policy is to come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// Percent of the identities, rising. Empty: by hand, in the policy's file.
    pub steps: Vec<u32>,
    /// How long each step must have been judged good.
    pub step_interval: Duration,
    /// What judges.
    pub guard: Guard,
}

/// What judges a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// How often.
    pub interval: Duration,
    /// Fails in a row that put everything back.
    pub failure_threshold: u32,
    /// All must pass.
    pub checks: Vec<Check>,
}

/// One thing to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Answers of the apiserver that are errors of its own, and calls that it did not answer: at most this part, in
    /// hundredths of a percent.
    UpstreamErrorRatio(u32),
    /// 99 of 100 reads of one object take at most this long, queue included.
    ReadObjectP99(Duration),
    /// Requests refused in these lanes in an interval: at most so many.
    ShedInLane(Vec<Lane>, u32),
    /// 99 of 100 requests spend at most this long in the proxy itself.
    ProxyOverheadP99(Duration),
}

impl Check {
    /// Its word in a policy.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UpstreamErrorRatio(_) => "UpstreamErrorRatio",
            Self::ReadObjectP99(_) => "ReadObjectP99",
            Self::ShedInLane(..) => "ShedInLane",
            Self::ProxyOverheadP99(_) => "ProxyOverheadP99",
        }
    }
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self {
            steps: vec![],
            // Long enough for hourly jobs' starts to fall into one of two steps, short enough for a working day.
            step_interval: Duration::from_secs(30 * 60),
            guard: Guard::default(),
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            failure_threshold: 3,
            checks: vec![
                Check::UpstreamErrorRatio(100),
                // The scalability SLO of Kubernetes for reads of one object.
                Check::ReadObjectP99(Duration::from_secs(1)),
                Check::ShedInLane(
                    vec![Lane::NodeHealth, Lane::ControlPlane, Lane::Platform, Lane::Operators],
                    0,
                ),
                Check::ProxyOverheadP99(Duration::from_millis(2)),
            ],
        }
    }
}

/// What was measured in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Readings {
    /// Calls that went to the apiserver.
    pub answers: u64,
    /// Those of them that failed there.
    pub errors: u64,
    /// Reads of one object, and how long 99 of 100 took at most.
    pub reads: (u64, Duration),
    /// Requests sent on, and how long 99 of 100 spent here at most.
    pub overheads: (u64, Duration),
    /// Refused, by [`Lane::index`].
    pub shed: [u64; Lane::COUNT],
}

/// What comes of judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    /// All is well.
    Pass,
    /// Too little to say.
    Inconclusive,
    /// Something is not well.
    Fail,
}

impl Judgement {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }
}

/// One check, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Which check.
    pub check: &'static str,
    /// What came of it.
    pub judgement: Judgement,
    /// What was measured, and what was allowed.
    pub text: String,
}

impl Guard {
    /// Judges an interval: each check, and the worst of them. Without checks there is nothing to say.
    #[must_use]
    pub fn judge(&self, readings: &Readings) -> (Judgement, Vec<Judged>) {
        let judged: Vec<Judged> = self.checks.iter().map(|check| check.judge(readings)).collect();
        let worst = judged.iter().map(|judged| judged.judgement).max().unwrap_or(Judgement::Inconclusive);
        (worst, judged)
    }
}

impl Check {
    fn judge(&self, readings: &Readings) -> Judged {
        let of_samples = |samples: u64, good: bool| match good {
            _ if samples < SAMPLES_MIN => Judgement::Inconclusive,
            true => Judgement::Pass,
            false => Judgement::Fail,
        };
        let (judgement, text) = match self {
            Self::UpstreamErrorRatio(most) => {
                let (errors, answers) = (readings.errors, readings.answers);
                let good = errors.saturating_mul(10_000) <= answers.saturating_mul(u64::from(*most));
                let most = f64::from(*most) / 100.0;
                (of_samples(answers, good), format!("{errors} errors of {answers}, at most {most} %"))
            }
            Self::ReadObjectP99(most) => {
                let (samples, p99) = readings.reads;
                (of_samples(samples, p99 <= *most), format!("{p99:.1?} of {samples} reads, at most {most:?}"))
            }
            Self::ProxyOverheadP99(most) => {
                let (samples, p99) = readings.overheads;
                (
                    of_samples(samples, p99 <= *most),
                    format!("{p99:.1?} of {samples} requests, at most {most:?}"),
                )
            }
            Self::ShedInLane(lanes, most) => {
                let shed: u64 = lanes.iter().map(|lane| readings.shed[lane.index()]).sum();
                let good = shed <= u64::from(*most);
                (
                    if good { Judgement::Pass } else { Judgement::Fail },
                    format!("{shed} refused, at most {most}"),
                )
            }
        };
        Judged { check: self.as_str(), judgement, text }
    }
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// None was started: what the policy's file says holds.
    #[default]
    Idle,
    /// A step lasts and is judged.
    Running,
    /// A step lasts; it is judged, and only a fall back can end it.
    Paused,
    /// The last step passed.
    Done,
    /// An operator went back to shadow.
    Aborted,
    /// The guard went back to shadow.
    FellBack,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Running, Self::Paused, Self::Done, Self::Aborted, Self::FellBack];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::FellBack => "fell-back",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator can do to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin with the first step.
    Start,
    /// Stay at this step.
    Pause,
    /// Go on from this step.
    Resume,
    /// Take the next step now; after the last one: done.
    Promote,
    /// Back to shadow.
    Abort,
}

impl Order {
    /// Reads its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "start" => Self::Start,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "promote" => Self::Promote,
            "abort" => Self::Abort,
            _ => return None,
        })
    }
}

/// Why an order cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The policy has no steps.
    #[error("the policy has no steps: enforcement.steps is empty")]
    NoSteps,
    /// Nothing to roll out.
    #[error("the policy is enforced for all identities already")]
    Enforced,
    /// There is no decision that could be enforced.
    #[error("the policy is Disabled: nothing is decided that could be enforced")]
    Disabled,
    /// One is under way.
    #[error("a rollout is under way already")]
    UnderWay,
    /// None is under way, or not at a stage in which that can be done.
    #[error("no rollout is at a stage in which that can be done: it is {0}")]
    Stage(Stage),
}

/// What came of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next step was taken, or the last one passed.
    Advanced,
    /// This step goes on.
    Held,
    /// Back to shadow.
    RolledBack,
}

impl Step {
    /// Its word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advanced => "advanced",
            Self::Held => "held",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// A rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Where it is.
    pub stage: Stage,
    /// Which step, from 0.
    pub step: usize,
    /// How much of the step was judged good.
    pub passed: Duration,
    /// Fails in a row.
    pub failures: u32,
}

impl Rollout {
    /// Whether a step lasts.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Paused)
    }

    /// Whom the policy holds now, where its file says `written`.
    #[must_use]
    pub fn enforcement(&self, written: Enforcement, settings: &RolloutSettings) -> Enforcement {
        let percent = match self.stage {
            Stage::Idle => return written,
            Stage::Aborted | Stage::FellBack => {
                return Enforcement { mode: Mode::Shadow, percent: written.percent };
            }
            Stage::Running | Stage::Paused => settings.steps.get(self.step),
            Stage::Done => settings.steps.last(),
        };
        // Steps that are gone from the policy give nobody away.
        percent.map_or(written, |percent| Enforcement { mode: Mode::Enforce, percent: *percent })
    }

    /// Does what an operator wants.
    ///
    /// # Errors
    /// Why it cannot be done; nothing is changed then.
    pub fn obey(
        &mut self,
        order: Order,
        written: Enforcement,
        settings: &RolloutSettings,
    ) -> Result<(), Refused> {
        let fresh = Self { stage: Stage::Running, ..Self::default() };
        *self = match (order, self.stage) {
            (Order::Start, Stage::Running | Stage::Paused) => return Err(Refused::UnderWay),
            (Order::Start, _) if settings.steps.is_empty() => return Err(Refused::NoSteps),
            (Order::Start, _) if written.mode == Mode::Disabled => return Err(Refused::Disabled),
            (Order::Start, Stage::Idle | Stage::Done)
                if self.enforcement(written, settings) == Enforcement::default() =>
            {
                return Err(Refused::Enforced);
            }
            (Order::Start, _) => fresh,
            (Order::Pause, Stage::Running) => Self { stage: Stage::Paused, ..*self },
            (Order::Resume, Stage::Paused) => Self { stage: Stage::Running, ..*self },
            (Order::Promote, Stage::Running | Stage::Paused) => self.next(settings),
            (Order::Abort, Stage::Running | Stage::Paused | Stage::Done) => {
                Self { stage: Stage::Aborted, ..Self::default() }
            }
            (_, stage) => return Err(Refused::Stage(stage)),
        };
        Ok(())
    }

    /// An interval of this length was judged.
    pub fn judged(&mut self, interval: Duration, judgement: Judgement, settings: &RolloutSettings) -> Step {
        if !self.is_under_way() {
            return Step::Held;
        }
        match judgement {
            Judgement::Inconclusive => return Step::Held,
            Judgement::Fail => {
                self.failures += 1;
                if self.failures >= settings.guard.failure_threshold {
                    *self = Self { stage: Stage::FellBack, step: self.step, ..Self::default() };
                    return Step::RolledBack;
                }
                return Step::Held;
            }
            Judgement::Pass => self.failures = 0,
        }
        self.passed += interval;
        if self.stage == Stage::Paused || self.passed < settings.step_interval {
            return Step::Held;
        }
        *self = self.next(settings);
        Step::Advanced
    }

    fn next(&self, settings: &RolloutSettings) -> Self {
        if self.step + 1 < settings.steps.len() {
            return Self { stage: Stage::Running, step: self.step + 1, ..Self::default() };
        }
        Self { stage: Stage::Done, step: self.step, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SHADOW: Enforcement = Enforcement { mode: Mode::Shadow, percent: 100 };

    fn settings() -> RolloutSettings {
        RolloutSettings { steps: vec![5, 50, 100], step_interval: 2 * MINUTE, guard: Guard::default() }
    }

    fn started() -> Rollout {
        let mut rollout = Rollout::default();
        rollout.obey(Order::Start, SHADOW, &settings()).unwrap();
        rollout
    }

    fn percent(rollout: &Rollout) -> u32 {
        let now = rollout.enforcement(SHADOW, &settings());
        if now.mode == Mode::Enforce { now.percent } else { 0 }
    }

    #[test]
    fn good_intervals_bring_it_to_the_end() {
        let mut rollout = started();
        let mut percents = vec![];
        for _ in 0..7 {
            percents.push((percent(&rollout), rollout.stage.as_str()));
            rollout.judged(MINUTE, Judgement::Pass, &settings());
        }
        let running = |percent| (percent, "running");
        assert_eq!(
            percents,
            [running(5), running(5), running(50), running(50), running(100), running(100), (100, "done")]
        );
    }

    #[test]
    fn fails_in_a_row_put_everything_back_and_a_pass_between_forgives() {
        let mut rollout = started();
        let judge = |rollout: &mut Rollout, judgement| rollout.judged(MINUTE, judgement, &settings());
        for judgement in [Judgement::Fail, Judgement::Fail, Judgement::Pass, Judgement::Fail, Judgement::Fail]
        {
            assert_eq!(judge(&mut rollout, judgement), Step::Held);
        }
        assert_eq!(judge(&mut rollout, Judgement::Fail), Step::RolledBack);
        assert_eq!((rollout.stage, percent(&rollout)), (Stage::FellBack, 0));
        assert_eq!(judge(&mut rollout, Judgement::Pass), Step::Held, "it does not begin again by itself");
        assert_eq!(rollout.enforcement(Enforcement::default(), &settings()).mode, Mode::Shadow);
    }

    #[test]
    fn what_cannot_be_judged_holds_for_ever() {
        let mut rollout = started();
        for _ in 0..1_000 {
            assert_eq!(rollout.judged(MINUTE, Judgement::Inconclusive, &settings()), Step::Held);
        }
        assert_eq!(rollout, started());
        let silent = Guard::default().judge(&Readings::default());
        assert_eq!(silent.0, Judgement::Inconclusive, "silence is no pass");
        assert_eq!(
            Guard { checks: vec![], ..Guard::default() }.judge(&Readings::default()).0,
            Judgement::Inconclusive
        );
    }

    #[test]
    fn a_pause_holds_and_still_falls_back() {
        let mut rollout = started();
        rollout.obey(Order::Pause, SHADOW, &settings()).unwrap();
        for _ in 0..10 {
            assert_eq!(rollout.judged(MINUTE, Judgement::Pass, &settings()), Step::Held);
        }
        rollout.obey(Order::Resume, SHADOW, &settings()).unwrap();
        assert_eq!(rollout.judged(MINUTE, Judgement::Pass, &settings()), Step::Advanced);
        rollout.obey(Order::Pause, SHADOW, &settings()).unwrap();
        let steps = [(); 3].map(|()| rollout.judged(MINUTE, Judgement::Fail, &settings()));
        assert_eq!(steps, [Step::Held, Step::Held, Step::RolledBack]);
    }

    #[test]
    fn orders_that_make_no_sense_are_refused_and_change_nothing() {
        let none = RolloutSettings::default();
        let full = Enforcement::default();
        let disabled = Enforcement { mode: Mode::Disabled, percent: 100 };
        let idle = Rollout::default();
        for (mut rollout, order, written, settings, refused) in [
            (idle, Order::Start, SHADOW, &none, Refused::NoSteps),
            (idle, Order::Start, full, &settings(), Refused::Enforced),
            (idle, Order::Start, disabled, &settings(), Refused::Disabled),
            (started(), Order::Start, SHADOW, &settings(), Refused::UnderWay),
            (idle, Order::Pause, SHADOW, &settings(), Refused::Stage(Stage::Idle)),
            (started(), Order::Resume, SHADOW, &settings(), Refused::Stage(Stage::Running)),
            (idle, Order::Promote, SHADOW, &settings(), Refused::Stage(Stage::Idle)),
            (idle, Order::Abort, SHADOW, &settings(), Refused::Stage(Stage::Idle)),
        ] {
            let before = rollout;
            assert_eq!(rollout.obey(order, written, settings), Err(refused), "{order:?}");
            assert_eq!(rollout, before);
        }
    }

    #[test]
    fn promote_takes_each_step_and_abort_goes_back_from_any() {
        let mut rollout = started();
        let mut percents = vec![percent(&rollout)];
        for _ in 0..3 {
            rollout.obey(Order::Promote, SHADOW, &settings()).unwrap();
            percents.push(percent(&rollout));
        }
        assert_eq!((percents.as_slice(), rollout.stage), ([5, 50, 100, 100].as_slice(), Stage::Done));
        rollout.obey(Order::Abort, SHADOW, &settings()).unwrap();
        assert_eq!((percent(&rollout), rollout.stage), (0, Stage::Aborted));
        rollout.obey(Order::Start, SHADOW, &settings()).unwrap();
        assert_eq!(percent(&rollout), 5);
    }

    #[test]
    fn each_check_passes_fails_and_knows_when_it_cannot_say() {
        let mut shed = [0; Lane::COUNT];
        let good = Readings {
            answers: 1_000,
            errors: 10,
            reads: (100, Duration::from_secs(1)),
            overheads: (100, Duration::from_millis(2)),
            shed,
        };
        assert_eq!(Guard::default().judge(&good).0, Judgement::Pass);
        shed[Lane::Telemetry.index()] = 9_999;
        assert_eq!(
            Guard::default().judge(&Readings { shed, ..good }).0,
            Judgement::Pass,
            "telemetry may be shed"
        );
        shed[Lane::Operators.index()] = 1;
        for bad in [
            Readings { errors: 11, ..good },
            Readings { reads: (100, Duration::from_millis(1_001)), ..good },
            Readings { overheads: (100, Duration::from_micros(2_001)), ..good },
            Readings { shed, ..good },
        ] {
            let (worst, judged) = Guard::default().judge(&bad);
            let failed = judged.iter().filter(|judged| judged.judgement == Judgement::Fail).count();
            assert_eq!((worst, failed), (Judgement::Fail, 1), "{judged:?}");
        }
        for few in [
            Readings { answers: 19, errors: 0, ..good },
            Readings { reads: (19, Duration::ZERO), ..good },
            Readings { overheads: (19, Duration::ZERO), ..good },
        ] {
            assert_eq!(Guard::default().judge(&few).0, Judgement::Inconclusive);
        }
        let mixed = Readings { answers: 19, shed, ..good };
        assert_eq!(Guard::default().judge(&mixed).0, Judgement::Fail, "what is known to be bad counts");
    }
}
