//! How does another policy take the place of the one in force, and which one is it?
//!
//! Files are read whole and checked whole; only then is anything changed, and all of it at once: the rules by one swap,
//! so that a request is judged by one policy from its beginning to its end, and the scheduler's settings under its own
//! lock. What cannot be used changes nothing: the last good policy stays, and log, metric, event and status say why.
//! Every policy that was in force is kept, so that an operator can go back to it; one that was gone back from does not
//! return by itself, not even over a restart, until its file says something else.
//!
//! The TrafficPolicy is hot. What changed in a ProxyConfiguration is named, and waits for a restart.

mod history;
mod offline;
mod rolling;
mod show;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use self::history::{Entry, History, Rolled, Shelf, Withdrawn, hash, seconds};
use self::rolling::{LastJudged, Shown};
use super::levers::Timeline;
use crate::admin::Changes;
use crate::admin::wire::Problem;
use crate::admin::wire_change::{
    ConfigHistory, ConfigView, ReloadProblem, Rollback, RolloutOrder, RolloutView, code,
};
use crate::clock;
use crate::config::{self, FileChecks, Loaded, PolicyText, ProxyConfiguration, TrafficPolicy};
use crate::gateway::{Gate, Shared};
use crate::policy::rollout::Rollout;
use crate::policy::{Enforcement, PolicyError};
use crate::telemetry::{Asker, PolicyChanged};
use crate::units::Seats;

pub use self::offline::{Kept, last_good};
pub(super) use self::rolling::judge;

/// Findings of a broken file that are told one by one.
const FINDINGS_MAX: usize = 8;

/// What a change acts on.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Gate>,
    pub(super) timeline: Arc<Timeline>,
    /// Bounds of L, as the levers see them.
    pub(super) limits: Arc<Mutex<(Seats, Seats)>>,
    /// The files, in the order they were named; none when there are none.
    pub(super) files: Vec<PathBuf>,
    /// What the process runs with.
    pub(super) proxy: ProxyConfiguration,
    /// Of flow keys: it stays the same for the life of a process.
    pub(super) seed: u64,
}

/// Keeps the policy in force, and those before it.
pub(super) struct Policies {
    parts: Parts,
    shelf: Shelf,
    /// Held for the whole of a change: two at a time would mix.
    current: Mutex<Current>,
    /// What `status` shows: it must not wait for a disk.
    shown: Shown,
}

struct Current {
    policy: TrafficPolicy,
    history: History,
    problem: Option<ReloadProblem>,
    restart: Vec<&'static str>,
    /// Of the policy that the files have.
    in_files: (String, Option<PolicyText>),
    rollout: Rollout,
    judged: Option<LastJudged>,
}

/// Which policy a process begins with, and what it knows of those before.
pub(super) struct Beginning {
    pub(super) policy: TrafficPolicy,
    pub(super) generation: u64,
    rollout: Rollout,
    history: History,
    in_files: (String, Option<PolicyText>),
}

/// The policy to begin with: the files', unless an operator went back from just that one.
pub(super) fn begin(
    proxy: &ProxyConfiguration,
    policy: &TrafficPolicy,
    text: Option<&PolicyText>,
) -> Beginning {
    let shelf = Shelf::new(proxy.state.as_ref().map(|state| state.dir.clone()));
    let mut history = shelf.recall();
    let in_files = (hash(policy), text.cloned());
    let withdrawn = history.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.is(&in_files.0, text));
    let kept = history.last().filter(|_| withdrawn).and_then(|last| {
        // What was once in force may be refused by a newer version: then the file's own is the better one.
        last.policy().ok().map(|policy| (policy, last.generation))
    });
    if let Some((policy, generation)) = kept {
        tracing::warn!(
            generation,
            code = code::WITHDRAWN,
            "the files still have the policy that an operator went back from: the one before stays in force"
        );
        let rollout = rollout_of(&history, &policy);
        return Beginning { policy, generation, rollout, history, in_files };
    }
    history.withdrawn = None;
    let generation = match history.last() {
        Some(last) if last.hash == in_files.0 => last.generation,
        _ => history.add(policy, text, "start"),
    };
    let rollout = rollout_of(&history, policy);
    shelf.keep(&history);
    Beginning { policy: policy.clone(), generation, rollout, history, in_files }
}

impl Beginning {
    /// Whom the policy holds from the beginning: a rollout goes on where it was.
    pub(super) fn enforcement(&self) -> Enforcement {
        self.rollout.enforcement(self.policy.enforcement, &self.policy.rollout)
    }
}

/// Where a rollout was, if it was one of this policy.
fn rollout_of(history: &History, policy: &TrafficPolicy) -> Rollout {
    history.rollout.as_ref().and_then(|rolled| rolled.of(policy)).unwrap_or_default()
}

impl Policies {
    /// Keeps what [`begin`] began with; it is in force already.
    pub(super) fn new(parts: Parts, beginning: Beginning) -> Arc<Self> {
        let shelf = Shelf::new(parts.proxy.state.as_ref().map(|state| state.dir.clone()));
        let enforcement = beginning.enforcement();
        let Beginning { policy, generation, rollout, history, in_files } = beginning;
        parts.shared.metrics.changes().in_force(&hash(&policy), generation);
        parts.shared.metrics.enforcement(enforcement);
        let (problem, restart, judged) = (None, vec![], None);
        let current = Current { policy, history, problem, restart, in_files, rollout, judged };
        let shown = Shown::new(&parts.files, &current);
        Arc::new(Self { parts, shelf, current: Mutex::new(current), shown })
    }

    /// The files that are followed.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.parts.files.clone()
    }

    /// Reads the files again. `by` says who wants it.
    pub(super) fn read_again(&self, by: &str) -> Result<(), ReloadProblem> {
        let mut current = self.current.lock();
        // Certificates and keys have watches of their own: one that is broken does not hold up a policy.
        let loaded = config::load_with(&self.parts.files, FileChecks::Off);
        let result = match loaded {
            Ok(loaded) => self.take(&mut current, loaded, by),
            Err(found) => Err(show::findings(&found)),
        };
        self.parts.shared.metrics.changes().reloaded(result.is_ok(), clock::wall());
        let result = match result {
            Ok(()) => {
                if current.problem.take().is_some() {
                    self.note("the configuration files can be used again".to_owned());
                }
                Ok(())
            }
            Err(findings) => {
                let problem = ReloadProblem { at: seconds(), findings };
                self.tell(&problem);
                current.problem = Some(problem.clone());
                Err(problem)
            }
        };
        self.show(&current);
        result
    }

    fn take(&self, current: &mut Current, loaded: Loaded, by: &str) -> Result<(), Vec<String>> {
        let Some(proxy) = &loaded.proxy else {
            return Err(vec!["error: there is no ProxyConfiguration in the files any more".to_owned()]);
        };
        self.compare(current, proxy);
        let (hash, text) = (hash(&loaded.policy), loaded.policy_text);
        current.in_files = (hash.clone(), text.clone());
        let is_withdrawn = |withdrawn: &Withdrawn| withdrawn.is(&hash, text.as_ref());
        if current.history.withdrawn.as_ref().is_some_and(is_withdrawn) {
            tracing::warn!(
                code = code::WITHDRAWN,
                "the files have the policy that an operator went back from: it stays out of force until they say something else"
            );
            return Ok(());
        }
        if loaded.policy == current.policy {
            tracing::info!("the configuration files were read: the policy says what it said before");
            current.history.withdrawn = None;
            return Ok(());
        }
        self.apply(current, loaded.policy, text.as_ref(), by).map_err(|error| vec![error.to_string()])?;
        current.history.withdrawn = None;
        self.shelf.keep(&current.history);
        Ok(())
    }

    /// Says which sections of the ProxyConfiguration wait for a restart.
    fn compare(&self, current: &mut Current, proxy: &ProxyConfiguration) {
        let restart = show::changed_sections(&self.parts.proxy, proxy);
        if restart != current.restart && !restart.is_empty() {
            let sections = restart.join(", ");
            tracing::warn!(
                sections,
                code = code::RESTART,
                "these sections of the ProxyConfiguration have changed and wait for a restart of spillway"
            );
            self.note(format!("changed in the files, waits for a restart: {sections}"));
        }
        current.restart = restart;
    }

    /// Puts a policy in force: all of it, or nothing.
    fn apply(
        &self,
        current: &mut Current,
        policy: TrafficPolicy,
        text: Option<&PolicyText>,
        by: &str,
    ) -> Result<(), PolicyError> {
        let compiled = policy.compile(self.parts.seed)?;
        let generation = current.history.add(&policy, text, by);
        let Parts { shared, gate, limits, .. } = &self.parts;
        if current.rollout != Rollout::default()
            && (&policy.enforcement, &policy.rollout)
                != (&current.policy.enforcement, &current.policy.rollout)
        {
            self.note(format!("the rollout ({}) ends: the new policy says otherwise", current.rollout.stage));
            (current.rollout, current.judged, current.history.rollout) = (Rollout::default(), None, None);
        }
        let enforcement = current.rollout.enforcement(policy.enforcement, &policy.rollout);
        shared.policy.store(Arc::new(compiled.numbered(generation).under(enforcement)));
        shared.newcomers.with(|guard| guard.reconfigure(policy.newcomers));
        gate.reconfigure(super::flow_of(&self.parts.proxy, &policy));
        shared.metrics.enforcement(enforcement);
        *limits.lock() = (Seats(policy.overload.limit.min), Seats(policy.overload.limit.max));
        let entry = current.history.last();
        if let Some(Entry { generation, hash, file, by, .. }) = entry {
            shared.metrics.changes().in_force(hash, *generation);
            let event = PolicyChanged { generation: *generation, hash, file, by };
            event.emit();
            self.parts.timeline.policy(&event);
        }
        current.policy = policy;
        Ok(())
    }

    fn tell(&self, problem: &ReloadProblem) {
        for finding in &problem.findings {
            tracing::error!(
                finding,
                code = code::NOT_RELOADED,
                "changed configuration files cannot be used: the last good policy stays in force"
            );
        }
        let first = problem.findings.first().map_or("", String::as_str);
        self.note(format!("changed files cannot be used, the last good policy stays in force: {first}"));
    }

    fn show(&self, current: &Current) {
        self.shown.set(&self.parts.files, current);
    }

    fn note(&self, text: String) {
        self.parts.timeline.add("config", text);
    }
}

impl Changes for Policies {
    fn config(&self, generation: Option<u64>) -> Result<ConfigView, Problem> {
        let current = self.current.lock();
        let mut view = show::config(&self.parts.files, &current);
        let entry = match generation {
            Some(generation) => current.history.of(generation).ok_or_else(|| show::no_such(generation))?,
            None => match current.history.last() {
                Some(last) => last,
                None => return Ok(view),
            },
        };
        view.policy = show::policy(entry, show::Text::With);
        Ok(view)
    }

    fn summary(&self) -> ConfigView {
        self.shown.config()
    }

    fn rollout(&self) -> RolloutView {
        self.shown.rollout()
    }

    fn order(&self, request: &RolloutOrder, by: Asker) -> Result<RolloutView, Problem> {
        self.obey(request, &by)
    }

    fn history(&self) -> ConfigHistory {
        self.shown.history()
    }

    fn reload(&self, by: Asker) -> Result<ConfigView, Problem> {
        if self.parts.files.is_empty() {
            let help = "start it with spillway run --config FILE";
            return Err(Problem::new(code::NO_FILES, "this proxy was started without files", help));
        }
        let before = self.current.lock().history.last().cloned();
        self.read_again(&by.to_string()).map_err(|problem| show::not_reloaded(&problem))?;
        let current = self.current.lock();
        Ok(show::changed(&self.parts.files, &current, before.as_ref()))
    }

    fn rollback(&self, request: &Rollback, by: Asker) -> Result<ConfigView, Problem> {
        let mut current = self.current.lock();
        let Some(now) = current.history.last().cloned() else {
            return Err(Problem::new(code::NOTHING_BEFORE, "no policy was in force before", ""));
        };
        let target = match request.generation {
            Some(generation) => current.history.of(generation).ok_or_else(|| show::no_such(generation))?,
            None => {
                let before = current.history.entries.iter().rev().find(|entry| entry.hash != now.hash);
                before.ok_or_else(|| {
                    let help = "spillway config history has what was in force";
                    Problem::new(code::NOTHING_BEFORE, "no other policy was in force before this one", help)
                })?
            }
        };
        let target = target.clone();
        if target.hash == now.hash {
            let message = format!("policy {} says what is in force now", target.generation);
            return Err(Problem::new(code::NOTHING_BEFORE, message, "spillway config history"));
        }
        let policy = target.policy().map_err(|found| show::unusable(target.generation, &found))?;
        let text = target.text.clone().map(|text| PolicyText { file: target.file.clone(), text });
        let why = format!("rollback to {} by {}", target.generation, by);
        let applied = self.apply(&mut current, policy, text.as_ref(), &why);
        applied.map_err(|error| Problem::new(code::GENERATION, error.to_string(), "choose another one"))?;
        let (hash, text) = current.in_files.clone();
        let still = current.history.last().is_some_and(|last| last.hash != hash);
        current.history.withdrawn = still.then(|| Withdrawn::new(&hash, text.as_ref()));
        self.shelf.keep(&current.history);
        self.show(&current);
        Ok(show::changed(&self.parts.files, &current, Some(&now)))
    }
}

#[cfg(test)]
mod tests;
