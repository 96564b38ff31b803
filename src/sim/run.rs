//! How is a scenario played, once and against a run without shedding?

use super::algorithm;
use super::cast::{Cast, CastError};
use super::course::{Moment, course};
use super::figures::figures;
use super::guard::Guard;
use super::measure::Second;
use super::outcome::Outcome;
use super::scenario::Scenario;
use super::world::World;
use crate::flow::Settings;
use crate::policy::Policy;

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its numbers.
    pub outcome: Outcome,
    /// Its seconds, for [`Run::judge_sheds`].
    pub seconds: Vec<Second>,
    /// Its course, for plots.
    pub course: Vec<Moment>,
}

/// Why a scenario cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// There is no such algorithm.
    #[error("there is no algorithm {0:?}")]
    Algorithm(String),
    /// A call of a client cannot be understood.
    #[error(transparent)]
    Cast(#[from] CastError),
}

/// Plays `scenario` with the algorithm of that name.
///
/// # Errors
/// [`RunError`] when there is no such algorithm, or a client's call is not a request.
pub fn run(
    scenario: &Scenario,
    policy: &Policy,
    settings: &Settings,
    name: &str,
    seed: u64,
) -> Result<Run, RunError> {
    let mut settings = settings.clone();
    // The server's memory is what its host has: what spillway on the same host knows.
    settings.memory.server = Some(scenario.server.memory.0 as u64);
    let guard =
        algorithm::by_name(name, &settings, seed).ok_or_else(|| RunError::Algorithm(name.to_owned()))?;
    Ok(run_with(scenario, policy, guard, name, seed)?)
}

/// Plays `scenario` with an algorithm that need not have a name in the registry.
///
/// # Errors
/// When a client's call is not a request.
pub fn run_with(
    scenario: &Scenario,
    policy: &Policy,
    guard: Box<dyn Guard>,
    name: &str,
    seed: u64,
) -> Result<Run, CastError> {
    let mut world = World::new(scenario, Cast::of(scenario, policy)?, guard, seed);
    world.run();
    let metrics = figures(&world);
    let outcome = Outcome {
        scenario: scenario.name.clone(),
        algorithm: name.to_owned(),
        seed,
        trace: format!("{:016x}", world.trace),
        metrics,
    };
    let course = course(&world.measure);
    Ok(Run { outcome, seconds: world.measure.seconds, course })
}

/// A refusal was needed when harm came within this many seconds: an overload fills up before it hurts.
const AHEAD_SECONDS: usize = 5;
/// Share of the cores in use from which somebody has to wait, whatever their deadlines.
const SATURATED: f64 = 0.9;

impl Run {
    /// Adds `false_shed`: what was refused in seconds in which, and soon after which, `shadow`, the same seed without
    /// shedding, had cores to spare and no call that failed or came too late.
    pub fn judge_sheds(&mut self, shadow: &Self) {
        let attempts: u64 = self.seconds.iter().map(|second| u64::from(second.attempts)).sum();
        let is_harmless = |from: usize| {
            let seconds = shadow.seconds.get(from..).unwrap_or_default();
            seconds.iter().take(AHEAD_SECONDS).all(|second| second.bad == 0 && second.busy < SATURATED)
        };
        let needless = self.seconds.iter().enumerate().filter(|(second, _)| is_harmless(*second));
        let shed: u64 = needless.map(|(_, second)| u64::from(second.shed)).sum();
        if attempts > 0 {
            self.outcome.metrics.insert("false_shed".to_owned(), shed as f64 / attempts as f64);
        }
    }
}
