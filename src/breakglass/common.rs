//! What do the lane's gate, its watch over files and its threads share?
//!
//! Who is denied, who is armed, who has used the lane lately, and the log of all that. Locks are held for a look-up, never
//! across a wait. Every table is bounded, and its keys are fingerprints of certificates that were verified.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::alert::Alerts;
use super::arming::{Arming, Grant, Kept};
use super::attempts::Attempts;
use super::audit::Audit;
use super::check::{Refusal, Rules};
use super::deny::DenyList;
use super::grant::Flaw;
use super::present;
use super::shown::{self, Shown};
use super::trust::Trust;
use super::watch::Wake;
use crate::clock;
use crate::telemetry::LaneMetrics;
use crate::units::Instant;

/// Who comes back after so long begins anew, and is announced again.
const SESSION_PAUSE: Duration = Duration::from_secs(15 * 60);
/// People who are remembered to be at work.
const SESSIONS_MAX: usize = 256;

/// The reason of who cannot be armed because too many are.
pub(super) const ARMING_FULL: &str = "arming_full";

/// Seats of the lane's ceiling that are in use, of how many.
pub type Occupancy = Arc<dyn Fn() -> (u32, u32) + Send + Sync>;

/// What the lane goes past at this moment, as it is written down.
pub type Bypassed = Arc<dyn Fn() -> Value + Send + Sync>;

/// Is told how reading changed certificates went.
pub type Reloaded = Arc<dyn Fn(bool) + Send + Sync>;

/// See the top of the file.
pub(super) struct Common {
    pub(super) rules: Rules,
    pub(super) attempts: Arc<Mutex<Attempts>>,
    pub(super) arming: Mutex<Arming>,
    pub(super) audit: Audit,
    pub(super) alerts: Alerts,
    pub(super) metrics: Arc<LaneMetrics>,
    pub(super) occupancy: Occupancy,
    pub(super) upstream: String,
    pub(super) bypassed: Bypassed,
    pub(super) reloaded: Reloaded,
    pub(super) wake: Wake,
    pub(super) grants: Trust,
    denied: ArcSwap<DenyList>,
    sessions: Mutex<HashMap<String, (Instant, Shown)>>,
}

impl Common {
    pub(super) fn new(
        rules: Rules,
        attempts: Arc<Mutex<Attempts>>,
        arming: Arming,
        grants: Trust,
        alerts: Alerts,
        wake: Wake,
        surroundings: super::Surroundings,
    ) -> Self {
        let super::Surroundings { metrics, occupancy, upstream, audit, bypassed, reloaded } = surroundings;
        for refusal in Refusal::ALL {
            metrics.may_refuse(refusal.as_str());
        }
        for reason in Flaw::REASONS.into_iter().chain([present::SAME_PERSON, ARMING_FULL]) {
            metrics.may_refuse(reason);
        }
        metrics.armed(arming.grants(clock::now()).len());
        Self {
            rules,
            attempts,
            arming: Mutex::new(arming),
            audit,
            alerts,
            metrics,
            occupancy,
            upstream,
            bypassed,
            reloaded,
            wake,
            grants,
            denied: ArcSwap::default(),
            sessions: Mutex::default(),
        }
    }

    /// The deny list in force.
    pub(super) fn denied(&self) -> Arc<DenyList> {
        self.denied.load_full()
    }

    /// Puts a deny list in force.
    pub(super) fn deny(&self, list: DenyList) {
        self.metrics.denied(list.len());
        self.denied.store(Arc::new(list));
    }

    /// Somebody uses the lane; true when that is news.
    pub(super) fn begins(&self, shown: &Shown, now: Instant) -> bool {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&shown.fingerprint) {
            sessions.retain(|_, (last, _)| now.since(*last) < SESSION_PAUSE);
            if sessions.len() >= SESSIONS_MAX {
                return true;
            }
        }
        let before = sessions.insert(shown.fingerprint.clone(), (now, shown.clone()));
        before.is_none_or(|(last, _)| now.since(last) >= SESSION_PAUSE)
    }

    /// Certificates of people who used the lane and that have not expired.
    pub(super) fn people(&self, now: SystemTime) -> Vec<Shown> {
        let sessions = self.sessions.lock();
        let mut people: Vec<Shown> = sessions
            .values()
            .filter(|(_, shown)| shown.not_after > now)
            .map(|(_, shown)| shown.clone())
            .collect();
        // The one that ends first is the last to be shown, so the gauge ends up on it.
        people.sort_by_key(|shown| std::cmp::Reverse(shown.not_after));
        people
    }

    /// Ends the grants whose time is over; true when there were any.
    pub(super) fn end_grants(&self, now: Instant) -> bool {
        let (ended, left) = {
            let mut arming = self.arming.lock();
            (arming.expired(now), arming.grants(now).len())
        };
        for grant in &ended {
            tracing::info!(
                user = grant.person.user,
                ticket = grant.ticket,
                "break-glass: disarmed, the time is over"
            );
            let mut facts = of_grant(grant, now);
            facts.insert("event".to_owned(), "expire".into());
            self.audit.note_change(facts);
        }
        self.metrics.armed(left);
        !ended.is_empty()
    }

    /// Who is armed, for the state file.
    pub(super) fn keep(&self, now: Instant, wall: SystemTime) -> Vec<Kept> {
        self.arming.lock().keep(now, wall)
    }

    /// Who is armed has changed: the metric and the state file follow.
    pub(super) fn armed_changed(&self, now: Instant) {
        self.metrics.armed(self.arming.lock().grants(now).len());
        self.wake.armed();
    }

    /// Shows the audit log's numbers.
    pub(super) fn tell_figures(&self) {
        self.metrics.turned_away(self.attempts.lock().turned_away());
        self.audit.tell(&self.metrics);
    }
}

/// A certificate as the audit log names it.
pub(super) fn actor(shown: &Shown) -> Value {
    serde_json::json!({
        "user": shown.user, "groups": shown.groups, "serial": shown.serial, "issuer": shown.issuer,
        "fingerprint": shown.fingerprint, "not_after": shown::time(shown.not_after),
    })
}

/// What a grant adds to a record.
pub(super) fn of_grant(grant: &Grant, now: Instant) -> Map<String, Value> {
    let until = clock::wall() + grant.until.since(now);
    let mut facts = Map::from_iter([
        (
            "actor".to_owned(),
            serde_json::json!({ "user": grant.person.user, "fingerprint": grant.person.fingerprint }),
        ),
        ("reason".to_owned(), grant.reason.as_str().into()),
        ("ticket".to_owned(), grant.ticket.as_str().into()),
        ("second_actor".to_owned(), grant.second.as_deref().into()),
        ("alone".to_owned(), grant.alone.into()),
        ("armed_until".to_owned(), shown::time(until).into()),
    ]);
    if let Some(signed) = &grant.signed {
        facts.insert("grant_id".to_owned(), signed.id.as_str().into());
        facts.insert("granted_by".to_owned(), signed.by.as_str().into());
    }
    facts
}
