//! What do operators do by hand, and what does it touch?
//!
//! A change of a lever is one event, told with who asked for it; requests it refuses are counted by what is done to
//! them. Names of clients stand in the log alone.

use std::fmt;
use std::sync::Arc;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};

use super::register::Register;
use crate::flow::levers::Action;

/// What is in force at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeverGauges {
    /// Isolations, in the order of [`Action::ALL`].
    pub isolations: [u32; 2],
    /// Whether there is a lockdown.
    pub lockdown: bool,
}

/// Who asked: on this node the kernel says it, elsewhere a certificate does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// User id of the process at the other end of the socket.
    pub uid: Option<u32>,
    /// Its process id.
    pub pid: Option<i32>,
    /// The user of a client certificate that was verified.
    pub user: Option<Arc<str>>,
}

impl fmt::Display for Asker {
    /// `uid 0`, `user alice`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.uid) {
            (Some(user), _) => write!(f, "user {user}"),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// A lever was moved, or came back by itself.
#[derive(Debug)]
pub struct LeverMoved<'a> {
    /// `isolate`, `release`, `lockdown`, `lockdown-off`, `limit`, `limit-off`, `expired` or `recalled`.
    pub action: &'static str,
    /// The id of an isolation; `lockdown`, `limit` for the others.
    pub id: &'a str,
    /// Whom or what it names.
    pub target: &'a str,
    /// What it does to them.
    pub to: &'a str,
    /// Seconds until it ends by itself.
    pub seconds: u64,
    /// Why, in the operator's words.
    pub reason: &'a str,
    /// It was done although the target is protected.
    pub forced: bool,
    /// Who asked; nobody when it moved by itself.
    pub by: Option<Asker>,
}

impl LeverMoved<'_> {
    /// One line, always a warning: somebody must be able to see later what was done.
    pub fn emit(&self) {
        let Self { action, id, target, to, seconds, reason, forced, ref by } = *self;
        let by = by.clone().unwrap_or_default();
        let (uid, pid) = (by.uid.map_or(-1, i64::from), by.pid.map_or(-1, i64::from));
        let user = by.user.as_deref().unwrap_or_default();
        tracing::warn!(
            event = "lever",
            action,
            id,
            target,
            to,
            seconds,
            reason,
            forced,
            uid,
            pid,
            user,
            "a lever moved"
        );
    }
}

/// The numbers of a scrape.
pub(super) struct Levers {
    isolated: [IntCounter; 2],
    isolations: GaugeVec,
    lockdown: Gauge,
}

impl Levers {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let isolated: IntCounterVec = register.counters(
            "isolated_requests_total",
            "requests refused because an operator isolated their client, by what is done to it: \
                 `penalty`, `deny`",
            &["action"],
        )?;
        Ok(Self {
            isolated: Action::ALL.map(|action| isolated.with_label_values(&[action.as_str()])),
            isolations: register.gauges("isolations_active", "isolations in force", &["action"])?,
            lockdown: register.gauge(
                "lockdown_active",
                "1 while a lockdown lets only break-glass, node-health, control-plane and platform in",
            )?,
        })
    }

    pub(super) fn isolated(&self, action: Action) {
        self.isolated[action as usize].inc();
    }

    pub(super) fn set(&self, levers: LeverGauges) {
        for (action, count) in Action::ALL.into_iter().zip(levers.isolations) {
            self.isolations.with_label_values(&[action.as_str()]).set(f64::from(count));
        }
        self.lockdown.set(if levers.lockdown { 1.0 } else { 0.0 });
    }
}
