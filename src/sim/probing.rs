//! What do spillway's three probes see of the modelled apiserver?
//!
//! Each goes out four times a second on a connection of its own, past the algorithm, unless its last one is still on the
//! way; one that is not answered in five seconds is lost. Every algorithm is shown them, as every algorithm could ask.

use std::time::Duration;

use super::apiserver::{Apiserver, LevelName, Order};
use super::guard::Id;
use super::plan::Plan;
use crate::flow::{Encoding, Probe, Probes};
use crate::units::Instant;

pub(super) const INTERVAL: Duration = Duration::from_millis(250);
const LOST_AFTER: Duration = Duration::from_secs(5);
/// `/livez`, a cached GET, a consistent GET.
const LINES: [&str; 3] = [
    "GET /livez?exclude=etcd",
    "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication?resourceVersion=0",
    "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
];

#[derive(Debug)]
struct One {
    plan: Option<Plan>,
    out: Option<(Id, Instant)>,
    seen: Probe,
}

/// The three probes.
#[derive(Debug)]
pub(super) struct Probing([One; 3]);

impl Probing {
    pub(super) fn new() -> Self {
        Self(LINES.map(|line| One {
            plan: Plan::parse(line, Encoding::Json).ok(),
            out: None,
            seen: Probe::Silent,
        }))
    }

    /// Sends those that are not on the way, and gives up those that are for too long.
    pub(super) fn send(&mut self, now: Instant, server: &mut Apiserver, next_id: &mut Id) {
        for one in &mut self.0 {
            match one.out {
                Some((id, sent)) if now.since(sent) >= LOST_AFTER => {
                    server.cancel(now, id);
                    (one.out, one.seen) = (None, Probe::Lost);
                }
                Some(_) => continue,
                None => {}
            }
            let Some(plan) = &one.plan else { continue };
            let id = *next_id;
            *next_id += 1;
            one.out = Some((id, now));
            let level = LevelName::Exempt;
            server.submit(now, id, &Order { plan, user: 0, level, reads: None, since_boot: 0 });
        }
    }

    /// Whether the answered request was a probe.
    pub(super) fn answered(&mut self, now: Instant, id: Id) -> bool {
        self.find(id, |sent| Probe::Answered(now.since(sent)))
    }

    /// Whether the failed request was a probe.
    pub(super) fn failed(&mut self, id: Id) -> bool {
        self.find(id, |_| Probe::Lost)
    }

    fn find(&mut self, id: Id, seen: impl Fn(Instant) -> Probe) -> bool {
        let mine = |one: &&mut One| one.out.is_some_and(|(out, _)| out == id);
        let Some(one) = self.0.iter_mut().find(mine) else { return false };
        if let Some((_, sent)) = one.out.take() {
            one.seen = seen(sent);
        }
        true
    }

    /// What they saw since the last tick.
    pub(super) fn tick(&mut self, now: Instant, ready: Option<bool>) -> Probes {
        let [livez, cached, consistent] =
            self.0.each_mut().map(|one| match (std::mem::take(&mut one.seen), one.out) {
                (Probe::Silent, Some((_, sent))) => Probe::Waiting(now.since(sent)),
                (seen, _) => seen,
            });
        Probes { livez, cached, consistent, ready }
    }
}
