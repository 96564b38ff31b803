//! Which levers are in force here, and what did they do?
//!
//! The judgement is pure ([`Containment::judge`]); this is its shell. The table is swapped whole, so a request reads it
//! without a lock, and costs nothing while it is empty. What counts up (hits, the turn of a penalty) is kept by the
//! isolation's id and survives the swap. Streams that run ask again whenever the table changes: there is no register of
//! streams that could leak.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::authn::Caller;
use crate::clock;
use crate::flow::Reason;
use crate::flow::levers::{Action, Asker, Containment, Judgement, Penance};
use crate::policy::Lane;
use crate::telemetry::LeverGauges;

/// Resolves when a running stream has to end.
pub(super) type Contained = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The levers of one process.
pub struct Levers {
    table: ArcSwap<Table>,
    /// Rings when the table changed.
    changed: watch::Sender<()>,
    /// Requests refused so far, by lane: by isolation, and by lockdown.
    refused: [[AtomicU64; Lane::COUNT]; 2],
}

#[derive(Default)]
struct Table {
    force: Containment,
    /// As many as there are isolations, in their order.
    live: Vec<Arc<Live>>,
}

/// What an isolation did, and its penalty's turn.
#[derive(Debug, Default)]
struct Live {
    id: String,
    refused: AtomicU64,
    passed: AtomicU64,
    penance: Mutex<Penance>,
}

/// What an isolation did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Requests refused.
    pub refused: u64,
    /// Requests that a penalty let through.
    pub passed: u64,
}

/// A lever that touches a request, for whoever asks why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lever {
    /// It refuses; else the request is slowed down, and ranks as telemetry.
    pub stops: bool,
    /// The word for it.
    pub reason: Reason,
    /// Which one it is and why it was set.
    pub text: String,
}

/// A request under a lever.
pub(super) enum Sentence {
    /// No lever touches it.
    Pass,
    /// It is ranked as telemetry; its members share the flow, and the guard frees their turn.
    Penalty { flow: u64, turn: PenaltyTurn },
    /// It is refused.
    Refused(Refused),
}

/// Why a request is refused by a lever, and when it may come back.
pub(super) struct Refused {
    pub(super) action: RefusedBy,
    pub(super) retry_after_seconds: u32,
    pub(super) message: String,
}

/// Which lever refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusedBy {
    Isolation(Action),
    Lockdown,
}

/// The turn of a penalty, given back when it is released or dropped.
pub(super) struct PenaltyTurn {
    live: Arc<Live>,
    released: AtomicBool,
}

impl PenaltyTurn {
    /// Gives the turn back; again does nothing.
    pub(super) fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.live.penance.lock().leave();
        }
    }
}

impl Drop for PenaltyTurn {
    fn drop(&mut self) {
        self.release();
    }
}

impl Default for Levers {
    fn default() -> Self {
        Self { table: ArcSwap::default(), changed: watch::Sender::new(()), refused: Default::default() }
    }
}

impl Levers {
    /// Puts exactly this in force. What an isolation of the same id did so far is kept.
    pub fn replace(&self, force: Containment) {
        let before = self.table.load();
        let live = force.isolations.iter().map(|isolation| {
            let kept = before.live.iter().find(|live| live.id == isolation.id);
            kept.map_or_else(|| Arc::new(Live { id: isolation.id.clone(), ..Live::default() }), Arc::clone)
        });
        self.table.store(Arc::new(Table { live: live.collect(), force }));
        self.changed.send_replace(());
    }

    /// What an isolation did so far; nothing when it is not in force.
    #[must_use]
    pub fn hits(&self, id: &str) -> Hits {
        let table = self.table.load();
        table.live.iter().find(|live| live.id == id).map_or_else(Hits::default, |live| Hits {
            refused: live.refused.load(Ordering::Relaxed),
            passed: live.passed.load(Ordering::Relaxed),
        })
    }

    /// Requests of a lane refused so far, by isolation and by lockdown.
    #[must_use]
    pub fn refused(&self, lane: Lane) -> [u64; 2] {
        [0, 1].map(|kind| self.refused[kind][lane.index()].load(Ordering::Relaxed))
    }

    /// What a scrape shows.
    #[must_use]
    pub fn gauges(&self) -> LeverGauges {
        let table = self.table.load();
        let count = |action: Action| {
            let some = table.force.isolations.iter().filter(|isolation| isolation.action == action).count();
            u32::try_from(some).unwrap_or(u32::MAX)
        };
        LeverGauges { isolations: Action::ALL.map(count), lockdown: table.force.lockdown.is_some() }
    }

    /// What becomes of a request.
    pub(super) fn judge(&self, asker: &Asker<'_>, is_watch: bool) -> Sentence {
        let table = self.table.load();
        if table.force.is_empty() {
            return Sentence::Pass;
        }
        let now = clock::now();
        let judgement = table.force.judge(now, asker);
        if let Judgement::Penalty(index) = judgement {
            let live = &table.live[index];
            if live.penance.lock().enter(now) {
                live.passed.fetch_add(1, Ordering::Relaxed);
                let turn = PenaltyTurn { live: Arc::clone(live), released: AtomicBool::new(false) };
                return Sentence::Penalty { flow: flow_of(&live.id), turn };
            }
        } else if judgement == Judgement::Pass {
            return Sentence::Pass;
        }
        let retry_after_seconds = table.force.retry_after(judgement, now, is_watch);
        let (action, message) = table.told(judgement, retry_after_seconds);
        let kind = usize::from(action == RefusedBy::Lockdown);
        self.refused[kind][asker.lane.index()].fetch_add(1, Ordering::Relaxed);
        Sentence::Refused(Refused { action, retry_after_seconds, message })
    }

    /// What would become of a request, for `explain`; it takes no turn and counts nothing.
    #[must_use]
    pub fn look(&self, asker: &Asker<'_>) -> Option<Lever> {
        let table = self.table.load();
        let judgement = table.force.judge(clock::now(), asker);
        let isolation = |index: usize| table.force.isolations.get(index);
        match judgement {
            Judgement::Pass => None,
            Judgement::Penalty(index) | Judgement::Deny(index) => isolation(index).map(|isolation| Lever {
                stops: isolation.action == Action::Deny,
                reason: Reason::Isolated,
                text: format!(
                    "isolation {} of {} ({}): {}",
                    isolation.id, isolation.target, isolation.action, isolation.reason
                ),
            }),
            Judgement::Locked => Some(Lever {
                stops: true,
                reason: Reason::Lockdown,
                text: format!(
                    "lockdown: {}",
                    table.force.lockdown.as_ref().map_or("", |lockdown| &lockdown.reason)
                ),
            }),
        }
    }

    /// Resolves once the caller of a running stream is denied.
    pub(super) fn when_denied(self: &Arc<Self>, caller: Arc<Caller>, peer: IpAddr, lane: Lane) -> Contained {
        let (levers, mut changed) = (Arc::clone(self), self.changed.subscribe());
        Box::pin(async move {
            loop {
                changed.mark_unchanged();
                if levers.denies(&caller, peer, lane) {
                    return;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }

    fn denies(&self, caller: &Caller, peer: IpAddr, lane: Lane) -> bool {
        let table = self.table.load();
        if table.force.isolations.is_empty() {
            return false;
        }
        let asker = Asker { identity: &caller.identity, peer, lane, exempt: false };
        matches!(table.force.judge(clock::now(), &asker), Judgement::Deny(_))
    }
}

impl Table {
    /// Which lever it is, and what its client is told.
    fn told(&self, judgement: Judgement, seconds: u32) -> (RefusedBy, String) {
        let isolation = match judgement {
            Judgement::Penalty(index) | Judgement::Deny(index) => self.force.isolations.get(index),
            Judgement::Locked | Judgement::Pass => None,
        };
        if let Some((isolation, live)) = isolation.zip(self.live_of(judgement)) {
            live.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "an operator isolated this client ({}, {}): {}; it was not executed, come back in {seconds} s",
                isolation.id, isolation.action, isolation.reason,
            );
            return (RefusedBy::Isolation(isolation.action), message);
        }
        let reason = self.force.lockdown.as_ref().map_or("", |lockdown| &lockdown.reason);
        let message = format!(
            "an operator has locked this cluster down: {reason}; it was not executed, come back in {seconds} s or use break-glass"
        );
        (RefusedBy::Lockdown, message)
    }

    fn live_of(&self, judgement: Judgement) -> Option<&Arc<Live>> {
        match judgement {
            Judgement::Penalty(index) | Judgement::Deny(index) => self.live.get(index),
            Judgement::Locked | Judgement::Pass => None,
        }
    }
}

/// Members of an isolation share one queue, whoever they are.
fn flow_of(id: &str) -> u64 {
    // FNV-1a: ids are made here, so nobody can aim.
    id.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::levers::{Isolation, Lockdown, Target};
    use crate::identity::Identity;

    fn isolation(id: &str, action: Action) -> Isolation {
        Isolation {
            id: id.into(),
            target: Target::parse("cidr", "10.0.0.0/8").unwrap(),
            action,
            until: clock::now() + Duration::from_secs(600),
            reason: "a loop".into(),
            forced: false,
        }
    }

    fn judged(levers: &Levers, lane: Lane) -> Sentence {
        let identity = Identity::anonymous();
        let peer = IpAddr::from([10, 0, 0, 1]);
        levers.judge(&Asker { identity: &identity, peer, lane, exempt: false }, false)
    }

    #[test]
    fn a_denied_client_learns_who_and_why_and_is_counted_through_a_swap() {
        let levers = Levers::default();
        assert!(matches!(judged(&levers, Lane::Workload), Sentence::Pass));
        levers.replace(Containment { isolations: vec![isolation("iso-1", Action::Deny)], lockdown: None });
        let Sentence::Refused(refused) = judged(&levers, Lane::Workload) else { panic!("it is denied") };
        assert_eq!(refused.action, RefusedBy::Isolation(Action::Deny));
        assert!(
            refused.message.contains("iso-1") && refused.message.contains("a loop"),
            "{}",
            refused.message
        );
        levers.replace(Containment {
            isolations: vec![isolation("iso-2", Action::Deny), isolation("iso-1", Action::Deny)],
            lockdown: Some(Lockdown { until: clock::now() + Duration::from_secs(9), reason: "x".into() }),
        });
        assert_eq!(levers.hits("iso-1"), Hits { refused: 1, passed: 0 });
        assert_eq!(levers.refused(Lane::Workload), [1, 0]);
        assert_eq!(levers.gauges(), LeverGauges { isolations: [0, 2], lockdown: true });
    }

    #[test]
    fn a_penalty_has_one_turn_that_comes_back_when_it_is_dropped() {
        let levers = Levers::default();
        levers.replace(Containment { isolations: vec![isolation("iso-1", Action::Penalty)], lockdown: None });
        let Sentence::Penalty { turn, .. } = judged(&levers, Lane::Workload) else {
            panic!("the turn is free")
        };
        assert!(matches!(judged(&levers, Lane::Workload), Sentence::Refused(_)));
        assert!(levers.table.load().live[0].penance.lock().enter(clock::now()).eq(&false));
        turn.release();
        turn.release();
        drop(turn);
        let later = clock::now() + Duration::from_secs(1);
        assert!(levers.table.load().live[0].penance.lock().enter(later));
        assert_eq!(levers.hits("iso-1"), Hits { refused: 1, passed: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_is_denied_and_not_before() {
        let levers = Arc::new(Levers::default());
        let caller = Arc::new(Caller {
            identity: Identity::anonymous(),
            via: crate::authn::Assert::Unverified,
            not_after: None,
            token_key: None,
            memo: crate::authn::Memo::default(),
        });
        let peer = IpAddr::from([10, 0, 0, 1]);
        let ended = levers.when_denied(Arc::clone(&caller), peer, Lane::Workload);
        let stream = tokio::spawn(ended);
        levers.replace(Containment { isolations: vec![isolation("iso-1", Action::Penalty)], lockdown: None });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!stream.is_finished(), "a penalty does not end what runs");
        levers.replace(Containment { isolations: vec![isolation("iso-2", Action::Deny)], lockdown: None });
        stream.await.unwrap();
        levers.when_denied(caller, peer, Lane::Workload).await;
    }
}
