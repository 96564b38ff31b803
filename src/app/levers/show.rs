//! How do levers and the state of things look over the admin socket?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Keeper;
use super::rates::{self, PerSecond};
use super::wanted::Origin;
use crate::admin::wire::{
    ClientView, Clients, IsolationView, LaneStatus, LeverView, PREVIEW_CLIENTS_MAX, Preview, Status,
};
use crate::admin::wire_change::{EnforcementView, ShadowLane};
use crate::app::chronicle::client_of;
use crate::clock;
use crate::flow::levers::{Held, Isolation, LimitHold, Lockdown};
use crate::flow::{Shadow, State};
use crate::gateway::Client;
use crate::policy::{ClientKey, Lane};
use crate::units::Instant;

/// Clients named in a list.
const CLIENTS_SHOWN_MAX: usize = 20;
/// Clients named in a status.
const MOST_REFUSED_MAX: usize = 3;

/// Whole seconds that are left; one that has begun counts.
fn left(until: Instant) -> u64 {
    until.since(clock::now()).as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

pub(super) fn isolation(keeper: &Keeper, isolation: &Isolation, origin: &Origin) -> IsolationView {
    let hits = keeper.parts.levers.hits(&isolation.id);
    IsolationView {
        id: isolation.id.clone(),
        kind: isolation.target.kind().to_owned(),
        name: isolation.target.name(),
        action: isolation.action.as_str().to_owned(),
        remaining_seconds: left(isolation.until),
        reason: isolation.reason.clone(),
        by: origin.by.clone(),
        since: origin.since,
        forced: isolation.forced,
        refused: hits.refused,
        passed: hits.passed,
    }
}

pub(super) fn isolations(keeper: &Keeper) -> Vec<IsolationView> {
    let wanted = keeper.wanted.lock();
    wanted.isolations.iter().map(|(one, origin)| isolation(keeper, one, origin)).collect()
}

pub(super) fn lockdown(lockdown: &Lockdown, origin: &Origin) -> LeverView {
    LeverView {
        what: "only break-glass, node-health, control-plane and platform are let in".to_owned(),
        remaining_seconds: left(lockdown.until),
        reason: origin.reason.clone(),
        by: origin.by.clone(),
    }
}

/// `at most 40 seats`.
pub(super) fn hold(hold: &LimitHold) -> String {
    match hold.seats {
        Held::AtMost(seats) => format!("at most {seats} seats"),
        Held::Exactly(seats) => format!("exactly {seats} seats"),
    }
}

pub(super) fn held(limit: &LimitHold, origin: &Origin) -> LeverView {
    LeverView {
        what: hold(limit),
        remaining_seconds: left(limit.until),
        reason: origin.reason.clone(),
        by: origin.by.clone(),
    }
}

/// Who would be affected, the busiest first.
pub(super) fn preview(
    keeper: &Keeper,
    clients: &[(ClientKey, Arc<Client>)],
    protected: Vec<String>,
) -> Preview {
    let matching = clients.len();
    let mut views = views(keeper, clients);
    let asks = |view: &ClientView| view.served_per_second + view.shed_per_second;
    views.sort_by(|one, other| asks(other).total_cmp(&asks(one)).then_with(|| one.user.cmp(&other.user)));
    views.truncate(PREVIEW_CLIENTS_MAX);
    Preview { clients: views, matching, near: None, protected }
}

fn views(keeper: &Keeper, clients: &[(ClientKey, Arc<Client>)]) -> Vec<ClientView> {
    let shares: HashMap<u64, f64> = keeper.parts.gate.shares().into_iter().collect();
    let share = |key: ClientKey| shares.get(&key.0).copied().unwrap_or(0.0);
    clients.iter().map(|(key, one)| client(keeper, *key, one, share(*key))).collect()
}

fn client(keeper: &Keeper, key: ClientKey, client: &Client, share: f64) -> ClientView {
    let now = clock::now();
    let PerSecond { served, shed } = keeper.rates.lock().client(now, key, client.counts());
    ClientView {
        user: client.identity.user.clone(),
        lanes: client.lanes().into_iter().map(|lane| lane.as_str().to_owned()).collect(),
        served_per_second: served,
        shed_per_second: shed,
        cost_percent: (share * 1_000.0).round() / 10.0,
        idle_seconds: now.since(client.seen()).as_secs(),
        addresses: client.peers().len(),
    }
}

/// Who was here lately, is meant, and comes first.
pub(super) fn clients(keeper: &Keeper, by: &str, like: &str) -> Clients {
    let mut all = keeper.parts.recent.all();
    let known = all.len();
    if !like.is_empty() {
        let like = like.to_lowercase();
        all.retain(|(_, one)| one.identity.user.to_lowercase().contains(&like));
    }
    let mut clients = views(keeper, &all);
    let asks = |view: &ClientView| view.served_per_second + view.shed_per_second;
    let rank = |view: &ClientView| match by {
        "cost" => view.cost_percent,
        "served" => view.served_per_second,
        "refused" => view.shed_per_second,
        _ => asks(view),
    };
    // Those who make no work of their own that could be counted still come by what they ask.
    clients.sort_by(|one, other| {
        let by_rank = rank(other).total_cmp(&rank(one));
        by_rank.then_with(|| asks(other).total_cmp(&asks(one))).then_with(|| one.user.cmp(&other.user))
    });
    clients.truncate(CLIENTS_SHOWN_MAX);
    Clients { clients, known }
}

/// Who is refused most, now.
fn most_refused(keeper: &Keeper) -> Vec<ClientView> {
    let mut views = clients(keeper, "refused", "").clients;
    views.retain(|view| view.shed_per_second > 0.0);
    views.truncate(MOST_REFUSED_MAX);
    views
}

pub(super) fn status(keeper: &Keeper) -> Status {
    let (view, now) = (keeper.parts.gate.view(), clock::now());
    let (snapshot, diagnosis) = (&view.snapshot, &view.diagnosis);
    let name = client_of(&view).and_then(|client| keeper.parts.names.of(client));
    let reserve = keeper.reserve();
    let counts = rates::lanes(&view, &keeper.parts.levers, reserve);
    let mut lanes: Vec<LaneStatus> = Lane::ALL
        .into_iter()
        .map(|lane| {
            let of = snapshot.lane(lane);
            let PerSecond { served, shed } = keeper.rates.lock().lane(now, lane, counts[lane.index()]);
            LaneStatus {
                name: lane.as_str().to_owned(),
                open: of.open,
                seats: of.seats.0,
                ceiling: of.ceiling.0,
                floor: of.floor.0,
                waiting: of.waiting,
                watches: of.watches,
                served_per_second: served,
                shed_per_second: shed,
            }
        })
        .collect();
    if let Some(lane) = lanes.get_mut(Lane::BreakGlass.index()) {
        // Outside L, with seats of its own.
        (lane.seats, lane.ceiling, lane.floor) = (reserve.used.0, reserve.most.0, reserve.most.0);
        (lane.watches, lane.open) = (reserve.long_running, reserve.most.0 > 0);
    }
    let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
    let (limit_min, limit_max) = *keeper.parts.limits.lock();
    let most_refused = most_refused(keeper);
    let isolations = isolations(keeper);
    let newcomers_warned =
        keeper.newcomers_view().newcomers.into_iter().filter(|one| one.warned).take(3).collect();
    let wanted = keeper.wanted.lock();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now.since(keeper.started).as_secs(),
        ready: keeper.parts.ready.load(Ordering::Relaxed),
        state: snapshot.state.as_str().to_owned(),
        cause: diagnosis.cause.as_str().to_owned(),
        diagnosis: diagnosis.sentence(name.as_deref()),
        client: name,
        limit: snapshot.limit.0,
        limit_min: limit_min.0,
        limit_max: limit_max.0,
        seats: snapshot.used.0,
        pressure: (snapshot.pressure * 100.0).round() / 100.0,
        upstream_up: snapshot.state != State::Cold,
        served_per_second: rounded(lanes.iter().map(|lane| lane.served_per_second).sum()),
        shed_per_second: rounded(lanes.iter().map(|lane| lane.shed_per_second).sum()),
        lanes,
        most_refused,
        isolations,
        lockdown: wanted.lockdown.as_ref().map(|(one, origin)| lockdown(one, origin)),
        held: wanted.hold.as_ref().map(|(one, origin)| held(one, origin)),
        kept: keeper.kept.lock().clone(),
        newcomers_warned,
        config: keeper.changes.get().map(|changes| changes.summary()).unwrap_or_default(),
        enforcement: enforcement(keeper, &snapshot.shadow),
    }
}

/// How far the policy is in force, and what it would have done.
fn enforcement(keeper: &Keeper, shadow: &Shadow) -> EnforcementView {
    let rollout = keeper.changes.get().map(|changes| changes.rollout()).unwrap_or_default();
    let lanes = Lane::ALL.into_iter().map(|lane| ShadowLane {
        lane: lane.as_str().to_owned(),
        would_shed: shadow.shed[lane.index()],
        would_wait: shadow.waited[lane.index()],
    });
    EnforcementView {
        mode: rollout.mode.clone(),
        percent: rollout.percent,
        rollout,
        shadow: lanes.filter(|lane| lane.would_shed + lane.would_wait > 0).collect(),
    }
}
