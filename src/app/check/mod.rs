//! Is this installation as it should be, before it starts and while it runs?
//!
//! A list of questions with ids that never change their meaning, so that a script can pick or skip one, and help can be
//! found without a network. Each looks at files, at this machine, at kube-apiserver or at the running spillway, changes
//! nothing, and ends with what to do. A question that cannot be asked is skipped and says why: it is never green.

mod apiserver;
mod ask;
mod certificates;
mod configuration;
mod kubeadm;
mod machine;
mod running;
mod sockets;

pub use self::ask::own_page;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::admin::wire::Status;
use crate::config::{Diagnostics, Loaded, ProxyConfiguration};

/// When a question makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Before spillway is started, and also later.
    Always,
    /// Only before: afterwards the answer is different by design.
    Before,
    /// Only while it runs.
    Running,
}

/// One question.
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub group: &'static str,
    when: When,
    look: fn(&Situation) -> Found,
}

/// What there is to look at.
pub struct Situation {
    /// The configuration, or what is wrong with it.
    pub loaded: Result<Loaded, Diagnostics>,
    /// kube-apiserver's static pod, where there is one.
    pub manifest: Option<PathBuf>,
    /// What the running spillway says, or why it says nothing.
    pub status: Option<Result<Status, String>>,
    /// Where the running spillway is expected to answer.
    pub socket: PathBuf,
    /// A kubeconfig for the break-glass lane.
    pub break_glass: Option<PathBuf>,
    /// The hash that the configuration should have, as another instance shows it.
    pub expect_hash: Option<String>,
    /// The files that the configuration is made of.
    pub files: Vec<PathBuf>,
    /// What time it is.
    pub now: SystemTime,
    /// How long two counts lie apart when traffic is compared.
    pub window: Duration,
}

impl Situation {
    fn proxy(&self) -> Result<&ProxyConfiguration, Found> {
        match &self.loaded {
            Ok(loaded) => loaded
                .proxy
                .as_ref()
                .ok_or_else(|| Found::skip("no ProxyConfiguration was named", "give it with --config")),
            Err(_) => Err(self.unusable()),
        }
    }

    /// What is said where the configuration would be looked at.
    fn unusable(&self) -> Found {
        match self.is_unwritten() {
            true => Found::skip("there is no configuration yet", SEE_CONFIGURATION),
            false => Found::skip("the configuration is invalid", SEE_CONFIGURATION),
        }
    }

    /// Whether the first file of the configuration is not there.
    fn is_unwritten(&self) -> bool {
        self.files.first().is_some_and(|file| !file.exists())
    }

    /// Whether a spillway runs here.
    fn runs(&self) -> bool {
        matches!(self.status, Some(Ok(_)))
    }
}

/// The advice of whatever needs a configuration that can be used: said once is enough.
pub const SEE_CONFIGURATION: &str = "see SPW-CFG-001";

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be asked.
    Skipped,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or will harm.
    Failed,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub what: String,
    /// What to do; empty when nothing is.
    pub advice: String,
}

impl Found {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), advice: String::new() }
    }

    fn warn(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what: what.into(), advice: advice.into() }
    }

    fn fail(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, what: what.into(), advice: advice.into() }
    }

    fn skip(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, what: what.into(), advice: advice.into() }
    }
}

/// What to tell of a look that ended early.
fn either(look: Result<Found, Found>) -> Found {
    look.unwrap_or_else(|found| found)
}

const fn check(
    id: &'static str,
    group: &'static str,
    name: &'static str,
    when: When,
    look: fn(&Situation) -> Found,
) -> Check {
    Check { id, name, group, when, look }
}

/// Every question, in the order in which they are asked.
pub const CHECKS: &[Check] = &[
    check("SPW-CFG-001", "configuration", "Valid", When::Always, configuration::valid),
    check("SPW-CFG-002", "configuration", "HealthChecksExempt", When::Always, configuration::health_checks),
    check("SPW-CFG-003", "configuration", "VitalLanes", When::Always, configuration::vital_lanes),
    check("SPW-CFG-004", "configuration", "SameEverywhere", When::Always, configuration::same_everywhere),
    check("SPW-CFG-005", "configuration", "BreakGlass", When::Always, configuration::break_glass),
    check("SPW-CFG-006", "configuration", "BreakGlassAlone", When::Always, configuration::kubeconfig),
    check("SPW-TLS-001", "certificates", "ServingNames", When::Always, certificates::serving_names),
    check("SPW-TLS-002", "certificates", "NotExpiring", When::Always, certificates::expiring),
    check("SPW-TLS-003", "certificates", "KeysPrivate", When::Always, certificates::keys),
    check("SPW-TLS-004", "certificates", "CAsApart", When::Always, certificates::apart),
    check("SPW-TLS-005", "certificates", "ServingTrusted", When::Always, certificates::trusted),
    check("SPW-PRE-001", "machine", "AddressHere", When::Always, machine::address),
    check("SPW-PRE-002", "machine", "PortFree", When::Before, machine::port_free),
    check("SPW-PRE-003", "machine", "Descriptors", When::Always, machine::descriptors),
    check("SPW-PRE-004", "machine", "StateFolder", When::Always, machine::state_folder),
    check("SPW-KAD-001", "kubeadm", "AddressSplit", When::Always, kubeadm::address_split),
    check("SPW-KAD-002", "kubeadm", "ProbesOnLoopback", When::Always, kubeadm::probes),
    check("SPW-KAD-003", "kubeadm", "SameFiles", When::Always, kubeadm::same_files),
    check("SPW-KAD-004", "kubeadm", "Version", When::Always, kubeadm::version),
    check("SPW-API-001", "kube-apiserver", "Reachable", When::Always, apiserver::reachable),
    check("SPW-API-002", "kube-apiserver", "Clock", When::Always, apiserver::clock),
    check("SPW-API-003", "kube-apiserver", "BelievesFrontProxy", When::Always, apiserver::believes),
    check("SPW-API-004", "kube-apiserver", "NoWayAround", When::Always, apiserver::no_way_around),
    check("SPW-API-005", "kube-apiserver", "TrafficPasses", When::Running, apiserver::traffic),
    check("SPW-RUN-001", "running", "Answers", When::Running, running::answers),
    check("SPW-RUN-002", "running", "Ready", When::Running, running::ready),
    check("SPW-RUN-003", "running", "Calm", When::Running, running::calm),
    check("SPW-RUN-004", "running", "LeversSurvive", When::Running, running::levers_survive),
    check("SPW-RUN-005", "running", "NothingByHand", When::Running, running::nothing_by_hand),
];

impl Check {
    /// Whether it is asked before the start, or else while spillway runs.
    #[must_use]
    pub fn is_asked(&self, before: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Before => before,
            When::Running => !before,
        }
    }

    /// Looks.
    #[must_use]
    pub fn look(&self, situation: &Situation) -> Found {
        (self.look)(situation)
    }
}

#[cfg(test)]
mod tests;
