//! What may an operator change in an incident, and how is it kept?
//!
//! The [`Keeper`] holds what is wanted, puts it in force (in the gateway and in the scheduler) and writes it to the state
//! folder, in this order: a lever works at once, whatever the disk does. Every change is one event, with the user id
//! that the kernel tells of the other end of the socket. Ends come by the monotonic clock, in the request path itself;
//! the sweep here only tidies up and tells.

mod events;
mod explain;
mod file;
mod load;
pub(in crate::app) mod newcomers;
mod protect;
mod rates;
mod show;
mod thread;
mod wanted;
mod written;

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use self::load::Load;
use self::rates::Rates;
use self::wanted::{Origin, Wanted};
use super::state::Place;
use crate::admin::explained::{DecisionLines, Explain, Explained};
use crate::admin::tapped::{TapFilter, Tapped};
use crate::admin::wire::newcomers::{Approve, Approved, Newcomers as View};
use crate::admin::wire::{
    self, Clients, Events, HoldLimit, Isolate, Isolated, IsolationView, Kept, LeverView, Lock, Problem,
    REASON_BYTES_MAX, Release, Status, code,
};
use crate::admin::{Changes, Operations};
use crate::breakglass::Audit;
use crate::clock;
use crate::config::{nearest, show_duration};
use crate::flow::levers::{
    Action, Held, ISOLATIONS_MAX, Isolation, LimitHold, Lockdown, NotATarget, TTL_MAX, TTL_MIN, Target,
};
use crate::gateway::{Gate, Levers, Names, Newcomers, Recent, Reserve, ReserveUsage, Shared};
use crate::telemetry::{Asker, AuditTrail, LaneMetrics, Metrics};
use crate::units::{Instant, Seats};

pub(in crate::app) use self::events::Timeline;
pub(in crate::app) use self::thread::AdminThread;

/// How long an answer waits for the disk.
const KEEP_WITHIN: Duration = Duration::from_secs(2);
/// After a write that failed, the sweep tries again after so many of its rounds.
const AGAIN_ROUNDS: u32 = 10;
/// The file's name in the state folder.
const NAME: &str = "levers.json";

/// What the keeper acts on.
pub(in crate::app) struct Parts {
    pub(in crate::app) gate: Arc<Gate>,
    pub(in crate::app) levers: Arc<Levers>,
    pub(in crate::app) recent: Arc<Recent>,
    pub(in crate::app) names: Arc<Names>,
    pub(in crate::app) newcomers: Arc<Newcomers>,
    pub(in crate::app) metrics: Arc<Metrics>,
    /// Where levers are kept over a restart.
    pub(in crate::app) folder: Option<std::path::PathBuf>,
    /// Groups of the break-glass lane.
    pub(in crate::app) break_glass: Vec<String>,
    /// Bounds of L; they follow the policy.
    pub(in crate::app) limits: Arc<Mutex<(Seats, Seats)>>,
    pub(in crate::app) ready: Arc<AtomicBool>,
    /// Where the audit log's numbers are shown, if no lane does that.
    pub(in crate::app) audit_metrics: Option<Arc<LaneMetrics>>,
    /// Where levers are written in kube-apiserver's form.
    pub(in crate::app) trail: AuditTrail,
}

/// Keeps what is wanted.
pub(in crate::app) struct Keeper {
    parts: Parts,
    started: Instant,
    wanted: Mutex<Wanted>,
    rates: Mutex<Rates>,
    timeline: Arc<Timeline>,
    changes: OnceLock<Arc<dyn Changes>>,
    load: Arc<Load>,
    reserve: OnceLock<Arc<Reserve>>,
    shared: OnceLock<Arc<Shared>>,
    place: Option<Place>,
    /// One writing at a time: it moves into the thread that writes.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Something was changed since the last writing that succeeded.
    dirty: AtomicBool,
    kept: Mutex<Kept>,
    rounds: Mutex<u32>,
    /// Rounds since the start, for what is done now and then.
    swept: AtomicU32,
}

impl Keeper {
    /// A keeper with what the last process left, in force when this returns.
    pub(in crate::app) fn new(parts: Parts) -> Arc<Self> {
        let place = parts.folder.clone().map(|folder| Place { folder, name: NAME });
        let timeline = Arc::new(Timeline::new(parts.trail.clone()));
        let wanted = place.as_ref().map_or_else(Wanted::default, |place| recall(place, &timeline));
        let kept = match &place {
            Some(_) => Kept { on_disk: true, problem: String::new() },
            None => Kept { on_disk: false, problem: "there is no state.dir in the configuration".to_owned() },
        };
        let keeper = Self {
            started: clock::now(),
            timeline,
            changes: OnceLock::new(),
            load: Arc::default(),
            reserve: OnceLock::new(),
            shared: OnceLock::new(),
            rates: Mutex::default(),
            writing: Arc::default(),
            dirty: AtomicBool::new(false),
            kept: Mutex::new(kept),
            rounds: Mutex::new(0),
            swept: AtomicU32::new(0),
            wanted: Mutex::new(wanted),
            place,
            parts,
        };
        keeper.publish(&keeper.wanted.lock());
        Arc::new(keeper)
    }

    /// From now on the break-glass lane is shown, too.
    pub(in crate::app) fn show_break_glass(&self, reserve: Arc<Reserve>) {
        // There is one lane; a second call would speak of the same.
        let _ = self.reserve.set(reserve);
    }

    /// What happened, for others who have something to tell.
    pub(in crate::app) fn timeline(&self) -> Arc<Timeline> {
        Arc::clone(&self.timeline)
    }

    /// Who answers questions about the policy.
    pub(in crate::app) fn answer_with(&self, changes: Arc<dyn Changes>) {
        // There is one policy; a second call would speak of the same.
        let _ = self.changes.set(changes);
    }

    /// From now on every lever is written down there, those of the last process too.
    pub(in crate::app) fn write_down(&self, audit: Audit) {
        self.timeline.write_down(audit);
    }

    /// How everybody fares, as it was looked at last.
    pub(in crate::app) fn load(&self) -> Arc<Load> {
        Arc::clone(&self.load)
    }

    /// From now on refusals can be explained, too.
    pub(in crate::app) fn explain_with(&self, shared: Arc<Shared>) {
        // There is one request path; a second call would speak of the same.
        let _ = self.shared.set(shared);
    }

    fn reserve(&self) -> ReserveUsage {
        self.reserve.get().map_or_else(ReserveUsage::default, |reserve| reserve.usage())
    }

    /// Puts what is wanted in force.
    fn publish(&self, wanted: &Wanted) {
        self.parts.levers.replace(wanted.containment());
        let hold = wanted.hold.as_ref().map(|(hold, _)| *hold);
        if self.parts.gate.held_limit() != hold {
            self.parts.gate.hold_limit(hold);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Wanted) -> T) -> T {
        let mut wanted = self.wanted.lock();
        let changed = change(&mut wanted);
        self.publish(&wanted);
        self.dirty.store(true, Ordering::Relaxed);
        changed
    }

    /// Ends what is over, samples rates, and writes what could not be written.
    async fn sweep(&self) {
        let now = clock::now();
        let view = self.parts.gate.view();
        self.rates.lock().sample(
            now,
            rates::lanes(&view, &self.parts.levers, self.reserve()),
            &self.parts.recent,
        );
        self.timeline.look(&view, &self.parts.names);
        self.greet(view.snapshot.limit).await;
        if let Some(metrics) = &self.parts.audit_metrics {
            self.timeline.tell(metrics);
        }
        self.load.look(now, &view, self.parts.levers.gauges());
        let over = self.wanted.lock().expire(now);
        if !over.is_empty() {
            self.change(|_| ());
            self.timeline.over(&over);
        }
        let is_due = {
            let mut rounds = self.rounds.lock();
            *rounds = if over.is_empty() { *rounds + 1 } else { AGAIN_ROUNDS };
            *rounds >= AGAIN_ROUNDS && self.dirty.load(Ordering::Relaxed)
        };
        if is_due {
            *self.rounds.lock() = 0;
            self.keep().await;
        }
    }

    /// Looks at newcomers, and writes who is known, each in its rounds.
    async fn greet(&self, limit: Seats) {
        let round = self.swept.fetch_add(1, Ordering::Relaxed);
        if round.is_multiple_of(newcomers::LOOK_ROUNDS) {
            self.look_at_newcomers(limit);
        }
        let is_due = round % newcomers::WRITE_ROUNDS == newcomers::WRITE_ROUNDS - 1;
        if is_due && self.parts.folder.is_some() && self.parts.newcomers.with(|guard| guard.take_changed()) {
            self.keep_acquaintances().await;
        }
    }

    async fn write(&self, place: &Place) -> io::Result<()> {
        let writing = async {
            let turn = Arc::clone(&self.writing).lock_owned().await;
            self.dirty.store(false, Ordering::Relaxed);
            let (bytes, place) = (file::write(&self.wanted.lock()), place.clone());
            let written = tokio::task::spawn_blocking(move || {
                let written = place.write(&bytes);
                drop(turn);
                written
            });
            written.await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
        };
        let written = tokio::time::timeout(KEEP_WITHIN, writing).await;
        let written = written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        if written.is_err() {
            self.dirty.store(true, Ordering::Relaxed);
        }
        written
    }
}

/// What the last process left, if it can be believed.
fn recall(place: &Place, timeline: &Timeline) -> Wanted {
    let shown = place.file().display().to_string();
    let bytes = match place.read(file::BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Wanted::default(),
        Err(error) => {
            tracing::warn!(file = shown, %error, code = code::STATE, "levers of before cannot be read: none is pulled");
            return Wanted::default();
        }
    };
    match file::read(&bytes, clock::wall(), clock::now()) {
        Ok(wanted) => {
            for (isolation, origin) in &wanted.isolations {
                timeline.isolation("recalled", isolation, origin, None);
            }
            if let Some((_, origin)) = &wanted.lockdown {
                timeline.lever("recalled", "lockdown", "vital lanes only", origin, None);
            }
            if let Some((hold, origin)) = &wanted.hold {
                timeline.lever("recalled", "limit", &show::hold(hold), origin, None);
            }
            wanted
        }
        Err(distrust) => {
            let aside = place.set_aside(clock::wall());
            let aside =
                aside.map_or_else(|error| format!("not moved: {error}"), |aside| aside.display().to_string());
            tracing::warn!(
                file = shown,
                reason = %distrust,
                aside,
                code = code::STATE,
                "the file of levers is not believed: it was set aside, none is pulled"
            );
            Wanted::default()
        }
    }
}

/// A reason that can be shown in a log, a terminal and an answer.
fn checked_reason(reason: &str) -> Result<String, Problem> {
    let reason = reason.trim();
    if reason.is_empty() {
        let help = "say why, in a few words: --reason \"node-agent 1.9 lists all pods\"";
        return Err(Problem::new(code::REASON, "a lever needs a reason: it is told to whom it hits", help));
    }
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let message = format!("a reason has at most {REASON_BYTES_MAX} bytes and no control characters");
        return Err(Problem::new(
            code::REASON,
            message,
            "put the details into the ticket, and its number here",
        ));
    }
    Ok(reason.to_owned())
}

fn checked_ttl(seconds: u64) -> Result<Duration, Problem> {
    let ttl = Duration::from_secs(seconds);
    if (TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Ok(ttl);
    }
    let (min, max) = (show_duration(TTL_MIN), show_duration(TTL_MAX));
    let message = format!("a lever ends after {min} to {max}, not after {}", show_duration(ttl));
    Err(Problem::new(code::TTL, message, "what must last longer belongs into the TrafficPolicy"))
}

fn checked_target(kind: &str, name: &str) -> Result<Target, Problem> {
    Target::parse(kind, name).map_err(|error| {
        let near = match &error {
            NotATarget::Kind(kind) => {
                nearest(kind, Target::KINDS).map(|near| format!("did you mean {near:?}?"))
            }
            NotATarget::Name { .. } => None,
        };
        Problem::new(
            code::TARGET,
            error.to_string(),
            near.unwrap_or_else(|| "spillway isolate --help".to_owned()),
        )
    })
}

fn origin(reason: &str, ttl: Duration, by: &Asker) -> Origin {
    let since = file::seconds(clock::wall());
    Origin { reason: reason.to_owned(), since, ends_at: since + ttl.as_secs(), by: by.to_string() }
}

/// Short enough to read out on a call, and not in use.
fn new_id(wanted: &Wanted) -> String {
    loop {
        let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
        let id = format!("iso-{:04x}", high & 0xffff);
        if wanted.isolations.iter().all(|(isolation, _)| isolation.id != id) {
            return id;
        }
    }
}

impl Operations for Keeper {
    fn status(&self) -> Status {
        show::status(self)
    }

    fn clients(&self, by: &str, like: &str) -> Clients {
        show::clients(self, by, like)
    }

    fn events(&self, after: u64) -> Events {
        self.timeline.after(after)
    }

    fn decision(&self, id: &str) -> Result<Explained, Problem> {
        explain::decision(self, id)
    }

    fn decisions(&self, user: Option<&str>) -> DecisionLines {
        explain::decisions(self, user)
    }

    fn explain(&self, request: &Explain) -> Result<Explained, Problem> {
        explain::what_if(self, request)
    }

    fn tap(&self, filter: &TapFilter) -> Tapped {
        explain::tap(self, filter)
    }

    fn isolations(&self) -> Vec<IsolationView> {
        show::isolations(self)
    }

    fn isolate(&self, request: &Isolate, by: Asker) -> Result<Isolated, Problem> {
        let target = checked_target(&request.kind, &request.name)?;
        let action = Action::parse(&request.to).ok_or_else(|| {
            let message = format!("{:?} is no action: expected penalty or deny", request.to);
            Problem::new(code::ACTION, message, "penalty slows a client down, deny stops it")
        })?;
        let ttl = checked_ttl(request.for_seconds)?;
        let reason = checked_reason(&request.reason)?;
        let matching = protect::matching(&target, &self.parts.recent);
        let protected = protect::protected(&target, &matching, &self.parts.break_glass);
        let mut preview = show::preview(self, &matching, protected);
        if matching.is_empty() {
            preview.near = protect::near(&target, &self.parts.recent);
        }
        let until = clock::now() + ttl;
        let mut isolation =
            Isolation { id: String::new(), target, action, until, reason, forced: request.force_protected };
        let origin = origin(&isolation.reason, ttl, &by);
        if request.dry_run {
            let isolation = show::isolation(self, &isolation, &origin);
            return Ok(Isolated { isolation, preview, kept: self.kept.lock().clone() });
        }
        if !preview.protected.is_empty() && !request.force_protected {
            let mut problem = Problem::new(
                code::PROTECTED,
                format!("{} is protected: without it the cluster suffers", isolation.target),
                "name the culprit more closely; if this is what you want, add --force-protected",
            );
            problem.details = preview.protected;
            return Err(problem);
        }
        self.change(|wanted| {
            let same = wanted.isolations.iter().position(|(other, _)| other.target == isolation.target);
            if same.is_none() && wanted.isolations.len() >= ISOLATIONS_MAX {
                let message = format!("{ISOLATIONS_MAX} isolations are in force already");
                let help = "isolate a group or a namespace, or make it a rule of the TrafficPolicy";
                return Err(Problem::new(code::TOO_MANY, message, help));
            }
            // One target, one isolation: pulled again, it is changed.
            isolation.id = match same {
                Some(at) => wanted.isolations.remove(at).0.id,
                None => new_id(wanted),
            };
            wanted.isolations.push((isolation.clone(), origin.clone()));
            Ok(())
        })?;
        self.timeline.isolation("isolate", &isolation, &origin, Some(by));
        let isolation = show::isolation(self, &isolation, &origin);
        Ok(Isolated { isolation, preview, kept: Kept::default() })
    }

    fn release(&self, request: &Release, by: Asker) -> Result<IsolationView, Problem> {
        let which = request.which.trim();
        let (isolation, origin, view) = {
            let mut wanted = self.wanted.lock();
            let is_meant = |isolation: &Isolation| {
                isolation.id == which
                    || isolation.target.name() == which
                    || isolation.target.to_string() == which
            };
            let meant: Vec<usize> =
                (0..wanted.isolations.len()).filter(|at| is_meant(&wanted.isolations[*at].0)).collect();
            let at = match meant[..] {
                [at] => at,
                [] => return Err(not_in_force(&wanted, which)),
                _ => return Err(ambiguous(&wanted, &meant, which)),
            };
            let view = show::isolation(self, &wanted.isolations[at].0, &wanted.isolations[at].1);
            let (isolation, origin) = wanted.isolations.remove(at);
            (isolation, origin, view)
        };
        self.change(|_| ());
        self.timeline.isolation("release", &isolation, &origin, Some(by));
        Ok(view)
    }

    fn lock(&self, request: &Lock, by: Asker) -> Result<LeverView, Problem> {
        let ttl = checked_ttl(request.for_seconds)?;
        let reason = checked_reason(&request.reason)?;
        let origin = origin(&reason, ttl, &by);
        let lockdown = Lockdown { until: clock::now() + ttl, reason };
        self.change(|wanted| wanted.lockdown = Some((lockdown.clone(), origin.clone())));
        self.timeline.lever("lockdown", "lockdown", "vital lanes only", &origin, Some(by));
        Ok(show::lockdown(&lockdown, &origin))
    }

    fn unlock(&self, by: Asker) -> Result<LeverView, Problem> {
        let Some((lockdown, origin)) = self.change(|wanted| wanted.lockdown.take()) else {
            return Err(Problem::new(code::NOT_IN_FORCE, "there is no lockdown", "spillway status"));
        };
        self.timeline.lever("lockdown-off", "lockdown", "vital lanes only", &origin, Some(by));
        Ok(show::lockdown(&lockdown, &origin))
    }

    fn hold_limit(&self, request: &HoldLimit, by: Asker) -> Result<LeverView, Problem> {
        let ttl = checked_ttl(request.for_seconds)?;
        let reason = checked_reason(&request.reason)?;
        let (min, max) = *self.parts.limits.lock();
        let now = self.parts.gate.view().snapshot.limit;
        let seats = request.seats.map_or(now, Seats);
        if !(min..=max).contains(&seats) {
            let message = format!("L is held at {min} to {max} seats, not at {seats}");
            let help = "overload.limit of the TrafficPolicy has the bounds";
            return Err(Problem::new(code::SEATS, message, help));
        }
        let seats = match request.hold.as_str() {
            "at-most" => Held::AtMost(seats),
            "exactly" => Held::Exactly(seats),
            other => {
                let message = format!("{other:?} is no hold: expected at-most or exactly");
                return Err(Problem::new(code::ACTION, message, "spillway limit --help"));
            }
        };
        let hold = LimitHold { seats, until: clock::now() + ttl };
        let origin = origin(&reason, ttl, &by);
        self.change(|wanted| wanted.hold = Some((hold, origin.clone())));
        self.timeline.lever("limit", "limit", &show::hold(&hold), &origin, Some(by));
        Ok(show::held(&hold, &origin))
    }

    fn free_limit(&self, by: Asker) -> Result<LeverView, Problem> {
        let Some((hold, origin)) = self.change(|wanted| wanted.hold.take()) else {
            return Err(Problem::new(code::NOT_IN_FORCE, "L is not held", "spillway limit show"));
        };
        self.timeline.lever("limit-off", "limit", &show::hold(&hold), &origin, Some(by));
        Ok(show::held(&hold, &origin))
    }

    fn changes(&self) -> Option<Arc<dyn Changes>> {
        self.changes.get().cloned()
    }

    fn newcomers(&self) -> View {
        self.newcomers_view()
    }

    fn approve(&self, request: &Approve, doubt: bool, by: Asker) -> Result<Approved, Problem> {
        self.approve_newcomer(request, doubt, &by)
    }

    fn keep_known(&self) -> BoxFuture<'_, Kept> {
        Box::pin(self.keep_acquaintances())
    }

    fn keep(&self) -> BoxFuture<'_, Kept> {
        Box::pin(async move {
            self.timeline.settle().await;
            let Some(place) = &self.place else { return self.kept.lock().clone() };
            let written = self.write(place).await;
            let problem = written.as_ref().err().map(|error| format!("{}: {error}", place.file().display()));
            let kept = Kept { on_disk: written.is_ok(), problem: problem.unwrap_or_default() };
            let before = std::mem::replace(&mut *self.kept.lock(), kept.clone());
            if before.on_disk && !kept.on_disk {
                tracing::warn!(
                    problem = kept.problem,
                    code = code::NOT_KEPT,
                    "levers are in force, but would not survive a restart; tried again every 10 s"
                );
            } else if !before.on_disk && kept.on_disk {
                tracing::info!("levers survive a restart again");
            }
            kept
        })
    }
}

fn not_in_force(wanted: &Wanted, which: &str) -> Problem {
    let names: Vec<String> = wanted
        .isolations
        .iter()
        .flat_map(|(isolation, _)| {
            [isolation.id.clone(), isolation.target.name(), isolation.target.to_string()]
        })
        .collect();
    let near = nearest(which, names.iter().map(String::as_str));
    let help =
        near.map_or_else(|| "spillway isolations".to_owned(), |near| format!("did you mean {near:?}?"));
    Problem::new(code::NOT_IN_FORCE, format!("nothing called {:?} is isolated", cut(which)), help)
}

fn ambiguous(wanted: &Wanted, meant: &[usize], which: &str) -> Problem {
    let message = format!("{} isolations are called {:?}", meant.len(), cut(which));
    let mut problem = Problem::new(wire::code::AMBIGUOUS, message, "release one by its id");
    problem.details = meant
        .iter()
        .filter_map(|at| wanted.isolations.get(*at))
        .map(|(isolation, _)| format!("{}: {}", isolation.id, isolation.target))
        .collect();
    problem
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
