//! What did an operator put in force by hand, and whom does it touch?
//!
//! Three levers for an incident, each with an end: an **isolation** contains one named client, a **lockdown** lets only
//! the lanes in that a cluster needs to stay alive, and a **hold** bounds or fixes the limit L. All are plain values;
//! whoever keeps them hands them over whole, and every judgement takes the time, so that an end comes by itself even
//! if nobody is there to end it.
//!
//! **429, not 403.** A contained client is told 429 with a `Retry-After`: client-go sleeps exactly that long without a
//! word to its caller, and a watch that hears anything else LISTs everything again. A 403 comes back at once, and a
//! script in a loop asks again at once. (Except kubectl, which would sleep silently in front of a person.) Watches are told to stay away longest; they have the least to gain by asking.
//!
//! What isolation never touches: health probes, because a load balancer that fails them takes everybody's way in away;
//! leases and controllers (lanes node-health and control-plane), unless it was forced; and the break-glass listener,
//! which never asks here.

mod penance;
mod target;

use std::fmt;
use std::time::Duration;

use core::net::IpAddr;

pub use penance::Penance;
pub use target::{Cidr, NotATarget, Target};

use crate::identity::Identity;
use crate::policy::Lane;
use crate::units::{Instant, Seats};

/// Isolations in force at a time. Each costs a comparison or two a request; more than some dozens are a policy.
pub const ISOLATIONS_MAX: usize = 64;
/// A lever is for an incident: what must last longer belongs into the policy.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The shortest end that makes sense: below it the clients' own back-off hides the effect.
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// A denied watch stays away for at most this long: a release must be noticed within minutes.
const WATCH_AFTER: Duration = Duration::from_secs(300);
/// Everybody else who is contained.
const AFTER: Duration = Duration::from_secs(60);

/// What happens to an isolated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// One request at a time and one a second, all its members together, ranked as telemetry.
    Penalty,
    /// Nothing goes on; running watches and sessions are ended.
    Deny,
}

impl Action {
    /// Both, in the order of severity.
    pub const ALL: [Self; 2] = [Self::Penalty, Self::Deny];

    /// The stable word for the command line, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Penalty => "penalty",
            Self::Deny => "deny",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One client, or group of clients, contained until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// What `release` and the refused client's message call it.
    pub id: String,
    /// Whom it names.
    pub target: Target,
    /// What happens to them.
    pub action: Action,
    /// When it ends.
    pub until: Instant,
    /// Why, in the operator's words. Told to the client.
    pub reason: String,
    /// It also touches leases and controllers.
    pub forced: bool,
}

/// Only the lanes that keep a cluster alive are served until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lockdown {
    /// When it ends.
    pub until: Instant,
    /// Why. Told to the clients.
    pub reason: String,
}

/// A bound on the limit L, until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitHold {
    /// What L may be.
    pub seats: Held,
    /// When it ends; L then moves on from where it is.
    pub until: Instant,
}

/// What L may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// At most this; the law may still cut it.
    AtMost(Seats),
    /// Exactly this, whatever the law says.
    Exactly(Seats),
}

/// Who asks, as far as levers look.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The caller as verified.
    pub identity: &'a Identity,
    /// The address it comes from.
    pub peer: IpAddr,
    /// The lane that policy chose.
    pub lane: Lane,
    /// A health probe.
    pub exempt: bool,
}

/// What becomes of a request; an index names the isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// No lever touches it.
    Pass,
    /// It does its penance first.
    Penalty(usize),
    /// It is refused.
    Deny(usize),
    /// It is refused because its lane is locked out.
    Locked,
}

/// Everything that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containment {
    /// At most [`ISOLATIONS_MAX`].
    pub isolations: Vec<Isolation>,
    /// The lockdown, while there is one.
    pub lockdown: Option<Lockdown>,
}

impl Containment {
    /// Whether nobody has to be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.isolations.is_empty() && self.lockdown.is_none()
    }

    /// What becomes of a request that arrives `now`. The strictest isolation counts, then the lockdown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use spillway::flow::levers::{Action, Asker, Containment, Isolation, Judgement, Target};
    /// use spillway::identity::Identity;
    /// use spillway::policy::Lane;
    /// use spillway::units::Instant;
    ///
    /// let until = Instant::ORIGIN + Duration::from_secs(60);
    /// let target = Target::parse("cidr", "10.1.0.0/16").unwrap();
    /// let isolation = Isolation {
    ///     id: "iso-1".into(), target, action: Action::Deny, until, reason: "a loop".into(), forced: false,
    /// };
    /// let force = Containment { isolations: vec![isolation], lockdown: None };
    /// let identity = Identity::anonymous();
    /// let peer = "10.1.2.3".parse().unwrap();
    /// let asker = Asker { identity: &identity, peer, lane: Lane::Workload, exempt: false };
    /// assert_eq!(force.judge(Instant::ORIGIN, &asker), Judgement::Deny(0));
    /// assert_eq!(force.judge(until, &asker), Judgement::Pass, "its end needs nobody");
    /// ```
    #[must_use]
    pub fn judge(&self, now: Instant, asker: &Asker<'_>) -> Judgement {
        if asker.exempt {
            return Judgement::Pass;
        }
        let mut found = Judgement::Pass;
        for (index, isolation) in self.isolations.iter().enumerate() {
            if !isolation.touches(now, asker) {
                continue;
            }
            if isolation.action == Action::Deny {
                return Judgement::Deny(index);
            }
            found = Judgement::Penalty(index);
        }
        let locked = self.lockdown.as_ref().is_some_and(|lockdown| now < lockdown.until);
        if locked && !passes_lockdown(asker.lane) { Judgement::Locked } else { found }
    }

    /// When a refused request may come back, in whole seconds. `now` spreads those that arrive together.
    #[must_use]
    pub fn retry_after(&self, judgement: Judgement, now: Instant, is_watch: bool) -> u32 {
        let (until, most) = match judgement {
            Judgement::Pass => return 1,
            // Its turn comes every second, but it shares that with all that the isolation names.
            Judgement::Penalty(_) => (Instant::from_nanos(u64::MAX), AFTER / 2),
            Judgement::Deny(index) => {
                let until = self.isolations.get(index).map_or(now, |isolation| isolation.until);
                (until, if is_watch { WATCH_AFTER } else { AFTER })
            }
            Judgement::Locked => (self.lockdown.as_ref().map_or(now, |lockdown| lockdown.until), AFTER),
        };
        let seconds = until.since(now).min(most).as_secs().max(1);
        let spread = now.as_nanos() % (seconds / 2 + 1);
        u32::try_from(seconds + spread).unwrap_or(u32::MAX)
    }
}

impl Isolation {
    fn touches(&self, now: Instant, asker: &Asker<'_>) -> bool {
        let spared = matches!(asker.lane, Lane::NodeHealth | Lane::ControlPlane) && !self.forced;
        now < self.until && !spared && self.target.names(asker.identity, asker.peer)
    }
}

/// What a cluster needs to stay alive: nodes renew, controllers control, DNS and the network work.
#[must_use]
pub const fn passes_lockdown(lane: Lane) -> bool {
    matches!(lane, Lane::BreakGlass | Lane::NodeHealth | Lane::ControlPlane | Lane::Platform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Credential;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn agent() -> Identity {
        Identity {
            user: "system:serviceaccount:obs:agent".into(),
            groups: vec!["system:serviceaccounts".into(), "system:serviceaccounts:obs".into()],
            credential: Credential::ServiceAccountToken,
            uid: None,
            extra: vec![],
        }
    }

    fn isolation(kind: &str, name: &str, action: Action) -> Isolation {
        Isolation {
            id: format!("iso-{name}"),
            target: Target::parse(kind, name).unwrap(),
            action,
            until: at(60),
            reason: "test".into(),
            forced: false,
        }
    }

    fn asker(identity: &Identity, lane: Lane) -> Asker<'_> {
        Asker { identity, peer: IpAddr::from([10, 0, 0, 7]), lane, exempt: false }
    }

    #[test]
    fn the_strictest_isolation_counts_and_ends_by_itself() {
        let force = Containment {
            isolations: vec![
                isolation("namespace", "obs", Action::Penalty),
                isolation("user", "somebody", Action::Deny),
                isolation("serviceaccount", "obs/agent", Action::Deny),
            ],
            lockdown: None,
        };
        let agent = agent();
        let asker = asker(&agent, Lane::Telemetry);
        assert_eq!(force.judge(at(0), &asker), Judgement::Deny(2));
        assert_eq!(force.judge(at(60), &asker), Judgement::Pass);
        let penalty = Containment { isolations: force.isolations[..2].to_vec(), lockdown: None };
        assert_eq!(penalty.judge(at(0), &asker), Judgement::Penalty(0));
    }

    #[test]
    fn probes_pass_and_leases_pass_unless_forced() {
        let agent = agent();
        let mut force = Containment {
            isolations: vec![isolation("cidr", "10.0.0.0/24", Action::Deny)],
            lockdown: Some(Lockdown { until: at(60), reason: "test".into() }),
        };
        let probe = Asker { exempt: true, ..asker(&agent, Lane::Unknown) };
        assert_eq!(force.judge(at(0), &probe), Judgement::Pass);
        for lane in [Lane::NodeHealth, Lane::ControlPlane] {
            assert_eq!(force.judge(at(0), &asker(&agent, lane)), Judgement::Pass, "{lane}");
        }
        assert_eq!(force.judge(at(0), &asker(&agent, Lane::Platform)), Judgement::Deny(0));
        force.isolations[0].forced = true;
        assert_eq!(force.judge(at(0), &asker(&agent, Lane::NodeHealth)), Judgement::Deny(0));
    }

    #[test]
    fn a_lockdown_lets_what_keeps_the_cluster_alive_in_until_its_end() {
        let lockdown = Some(Lockdown { until: at(60), reason: "test".into() });
        let force = Containment { isolations: vec![], lockdown };
        let agent = agent();
        let judged = |lane, seconds| force.judge(at(seconds), &asker(&agent, lane));
        let passing = Lane::ALL.into_iter().filter(|lane| judged(*lane, 59) == Judgement::Pass);
        assert_eq!(
            passing.collect::<Vec<_>>(),
            [Lane::BreakGlass, Lane::NodeHealth, Lane::ControlPlane, Lane::Platform]
        );
        assert!(Lane::ALL.into_iter().all(|lane| judged(lane, 60) == Judgement::Pass));
    }

    #[test]
    fn a_penalty_outranks_nothing_that_a_lockdown_forbids() {
        let force = Containment {
            isolations: vec![isolation("namespace", "obs", Action::Penalty)],
            lockdown: Some(Lockdown { until: at(60), reason: "test".into() }),
        };
        let agent = agent();
        assert_eq!(force.judge(at(0), &asker(&agent, Lane::Telemetry)), Judgement::Locked);
        assert_eq!(force.judge(at(0), &asker(&agent, Lane::Platform)), Judgement::Penalty(0));
    }

    #[test]
    fn retry_after_is_an_appointment_within_the_end_and_watches_stay_away_longer() {
        let mut long = isolation("user", "a", Action::Deny);
        long.until = at(3_600);
        let force = Containment { isolations: vec![long], lockdown: None };
        let all = |watch| (0..2_000).map(move |nanos| (Instant::from_nanos(nanos), watch));
        let told = |(now, watch)| force.retry_after(Judgement::Deny(0), now, watch);
        let (short, watch): (Vec<_>, Vec<_>) =
            (all(false).map(told).collect(), all(true).map(told).collect());
        assert_eq!((short.iter().min(), short.iter().max()), (Some(&60), Some(&90)));
        assert_eq!((watch.iter().min(), watch.iter().max()), (Some(&300), Some(&450)));
        let soon = force.retry_after(Judgement::Deny(0), at(3_598), true);
        assert!((1..=3).contains(&soon), "nearly over: {soon}");
        assert!(force.retry_after(Judgement::Deny(0), at(9_999), true) >= 1);
    }
}
