//! How does a rollout go on in a running proxy?
//!
//! The control thread looks four times a second; once an interval of the guard is over, what was counted in it is judged.
//! What comes of it is in force at once, is one event and one line of the log, and is kept in the state folder, so that a
//! restart goes on where it was: at the same step, with the time that had passed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Current, Policies, Rolled, show};
use crate::admin::wire::{self, Problem};
use crate::admin::wire_change::{CheckView, ConfigHistory, ConfigView, RolloutOrder, RolloutView, code};
use crate::clock;
use crate::config::nearest;
use crate::policy::rollout::{Judged, Judgement, Order, Readings, Refused, Rollout, Stage, Step};
use crate::policy::{Mode, Policy};
use crate::telemetry::Asker;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// The words of orders.
const ORDERS: [&str; 5] = ["start", "pause", "resume", "promote", "abort"];

/// How the last interval was judged.
pub(super) type LastJudged = (Judgement, Vec<Judged>);

/// What others see; it never waits for a disk.
pub(super) struct Shown {
    config: ArcSwap<ConfigView>,
    history: ArcSwap<ConfigHistory>,
    rollout: ArcSwap<RolloutView>,
    /// The guard's interval while a step lasts; else 0.
    interval_ms: AtomicU64,
}

impl Shown {
    pub(super) fn new(files: &[PathBuf], current: &Current) -> Self {
        let shown = Self {
            config: ArcSwap::default(),
            history: ArcSwap::default(),
            rollout: ArcSwap::default(),
            interval_ms: AtomicU64::new(0),
        };
        shown.set(files, current);
        shown
    }

    pub(super) fn set(&self, files: &[PathBuf], current: &Current) {
        self.config.store(Arc::new(show::config(files, current)));
        let policies = current.history.entries.iter().map(|entry| show::policy(entry, show::Text::Without));
        self.history.store(Arc::new(ConfigHistory { policies: policies.collect() }));
        self.rollout.store(Arc::new(view(current)));
        let interval = current.policy.rollout.guard.interval;
        let interval = if current.rollout.is_under_way() { interval } else { Duration::ZERO };
        self.interval_ms.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn config(&self) -> ConfigView {
        ConfigView::clone(&self.config.load())
    }

    pub(super) fn history(&self) -> ConfigHistory {
        ConfigHistory::clone(&self.history.load())
    }

    pub(super) fn rollout(&self) -> RolloutView {
        RolloutView::clone(&self.rollout.load())
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed))
    }
}

fn view(current: &Current) -> RolloutView {
    let (rollout, settings) = (&current.rollout, &current.policy.rollout);
    let enforcement = rollout.enforcement(current.policy.enforcement, settings);
    let (judgement, checks) = match &current.judged {
        Some((judgement, judged)) => (judgement.as_str(), judged.as_slice()),
        None => ("", &[][..]),
    };
    let check = |judged: &Judged| CheckView {
        check: judged.check.to_owned(),
        judgement: judged.judgement.as_str().to_owned(),
        text: judged.text.clone(),
    };
    RolloutView {
        stage: rollout.stage.as_str().to_owned(),
        mode: enforcement.mode.as_str().to_owned(),
        percent: if enforcement.mode == Mode::Enforce { enforcement.percent } else { 0 },
        steps: settings.steps.clone(),
        step: if rollout.stage == Stage::Idle { 0 } else { rollout.step + 1 },
        passed_seconds: rollout.passed.as_secs(),
        step_seconds: settings.step_interval.as_secs(),
        failures: rollout.failures,
        failure_threshold: settings.guard.failure_threshold,
        judgement: judgement.to_owned(),
        checks: checks.iter().map(check).collect(),
    }
}

/// Judges for ever.
pub(in crate::app) async fn judge(policies: Arc<Policies>) {
    let mut before = (clock::now(), policies.parts.shared.metrics.guard_counts());
    loop {
        tokio::time::sleep(LOOK).await;
        let (now, interval) = (clock::now(), policies.shown.interval());
        let passed = now.since(before.0);
        if !interval.is_zero() && passed < interval {
            continue;
        }
        let counts = policies.parts.shared.metrics.guard_counts();
        let readings = counts.since(&before.1);
        before = (now, counts);
        if !interval.is_zero() {
            let policies = Arc::clone(&policies);
            // A clock that stood still for an hour must not pass a step at once.
            let passed = passed.min(2 * interval);
            // It writes to the disk. If it panics, the panic hook has said so, and the step holds.
            drop(tokio::task::spawn_blocking(move || policies.judged(passed, &readings)).await);
        }
    }
}

impl Policies {
    /// An interval of this length is over.
    pub(super) fn judged(&self, interval: Duration, readings: &Readings) {
        let mut current = self.current.lock();
        if !current.rollout.is_under_way() {
            return;
        }
        let settings = current.policy.rollout.clone();
        let (judgement, judged) = settings.guard.judge(readings);
        let step = current.rollout.judged(interval, judgement, &settings);
        self.parts.shared.metrics.guarded().stepped(step);
        let bad: Vec<String> = judged
            .iter()
            .filter(|judged| judged.judgement == Judgement::Fail)
            .map(|judged| format!("{}: {}", judged.check, judged.text))
            .collect();
        let bad = bad.join("; ");
        current.judged = Some((judgement, judged));
        self.put_in_force(&mut current);
        let percent = self.shown.rollout().percent;
        match step {
            Step::Advanced if current.rollout.stage == Stage::Done => {
                tracing::warn!(event = "rollout", percent, "the rollout is done");
                self.note(format!("rollout done: enforced for {percent} % of the identities"));
            }
            Step::Advanced => {
                tracing::warn!(event = "rollout", percent, "the rollout took its next step");
                self.note(format!("rollout: enforced for {percent} % of the identities"));
            }
            Step::RolledBack => {
                tracing::error!(
                    event = "rollout",
                    code = code::FELL_BACK,
                    failed = bad,
                    "the rollout's guard failed: the policy is in shadow again, nothing is refused"
                );
                self.note(format!("rollout fell back to Shadow: {bad}"));
            }
            Step::Held if judgement == Judgement::Fail => {
                let failures = format!("{}/{}", current.rollout.failures, settings.guard.failure_threshold);
                tracing::warn!(
                    event = "rollout",
                    percent,
                    failures,
                    failed = bad,
                    "the rollout's guard failed"
                );
                self.note(format!("rollout: guard failed ({failures}): {bad}"));
            }
            Step::Held => {}
        }
    }

    /// Does what an operator wants.
    pub(super) fn obey(&self, request: &RolloutOrder, by: &Asker) -> Result<RolloutView, Problem> {
        let order = Order::parse(&request.order).ok_or_else(|| {
            let near = nearest(&request.order, ORDERS).map(|near| format!("did you mean {near:?}?"));
            let message = format!("{:?} is no order: expected {}", request.order, ORDERS.join(", "));
            Problem::new(wire::code::MALFORMED, message, near.unwrap_or_default())
        })?;
        let mut current = self.current.lock();
        let (written, settings) = (current.policy.enforcement, current.policy.rollout.clone());
        current.rollout.obey(order, written, &settings).map_err(refused)?;
        if order == Order::Start {
            current.judged = None;
        }
        self.put_in_force(&mut current);
        let (view, who) = (self.shown.rollout(), by.to_string());
        let (order, stage, percent) = (&request.order, &view.stage, view.percent);
        tracing::warn!(event = "rollout", order, stage, percent, by = who, "the rollout was moved by hand");
        self.note(format!("rollout {order}: {stage}, enforced for {percent} % of the identities ({who})"));
        Ok(view)
    }

    /// Enforces for as many as the rollout says now, and keeps where it is.
    fn put_in_force(&self, current: &mut Current) {
        let enforcement = current.rollout.enforcement(current.policy.enforcement, &current.policy.rollout);
        let policy = self.parts.shared.policy.load_full();
        if policy.enforcement() != enforcement {
            self.parts.shared.policy.store(Arc::new(Policy::clone(&policy).under(enforcement)));
            self.parts.shared.metrics.enforcement(enforcement);
        }
        let rolled = Rolled::new(&current.rollout, &current.policy);
        current.history.rollout = (current.rollout != Rollout::default()).then_some(rolled);
        self.shelf.keep(&current.history);
        self.show(current);
    }
}

fn refused(refused: Refused) -> Problem {
    let (code, help) = match refused {
        Refused::NoSteps => {
            (code::NO_STEPS, "add steps: [1, 5, 25, 50, 100] to enforcement in the policy's file")
        }
        Refused::Enforced => {
            (code::NOTHING_TO_DO, "to begin anew, set enforcement.mode: Shadow in the policy's file")
        }
        Refused::Disabled => (code::NOTHING_TO_DO, "set enforcement.mode: Shadow in the policy's file first"),
        Refused::UnderWay | Refused::Stage(_) => (code::STAGE, "spillway rollout status"),
    };
    Problem::new(code, refused.to_string(), help)
}
