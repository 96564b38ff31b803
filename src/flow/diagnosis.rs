//! Why is the apiserver slow, in one sentence?
//!
//! A closed set of causes, so that an alert, a log line and the status page say the same word; the numbers that decided
//! stand beside it. Nothing here changes a decision: it explains them.

use std::fmt;

use super::decision::Reason;
use super::pressure::CALM;
use super::recovery::State;
use super::scheduler::Scheduler;

/// What presses the apiserver: a closed set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing presses.
    #[default]
    None,
    /// The process itself is slow: CPU, garbage collection.
    Cpu,
    /// Only what must ask etcd is slow.
    Etcd,
    /// Writes are slow while everything else is well: an admission webhook.
    Webhook,
    /// One of the apiserver's own priority levels queues or refuses.
    ApfLevel,
    /// Answers in flight take the memory that there is.
    Memory,
    /// It cannot be reached, or says that it is not ready.
    UpstreamDown,
    /// One client makes most of the work; its hash, as in [`Arrival::client`](super::Arrival::client).
    Client(u64),
}

impl Cause {
    /// The stable word for metrics and logs; a client's name is added by whoever knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cpu => "cpu",
            Self::Etcd => "etcd",
            Self::Webhook => "webhook",
            Self::ApfLevel => "apf-level",
            Self::Memory => "memory",
            Self::UpstreamDown => "upstream-down",
            Self::Client(_) => "client",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The finding and the numbers behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// What presses.
    pub cause: Cause,
    /// Slowdown of the three probes against their own calm: `/livez`, cached GET, consistent GET; 0 is not known.
    pub probes: [f64; 3],
    /// How many times slower than in calm the median call about a single object is.
    pub keys: f64,
    /// As `keys`, of writes.
    pub writes: f64,
    /// The client with the most work in the last seconds, and its share of all work, 0 to 1.
    pub heaviest: Option<(u64, f64)>,
    /// Estimated bytes of answers in flight.
    pub response_bytes: u64,
    /// Refusals by the apiserver's own priority levels since the last tick.
    pub congested: u32,
}

/// Ticks for which a finding is told after its last sign: what is true every second tick is true.
const TOLD_TICKS: u32 = 8;
/// One client that makes this share of the work is what presses.
const CLIENT_SHARE: f64 = 0.5;
/// One that makes less than this is not worth a word.
const CLIENT_WORTH_A_WORD: f64 = 0.2;
/// Times slower that are worth a word: below, it reads "1.0 times slower".
const SLOWER: f64 = 1.15;

/// What was found lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Findings {
    /// What pressed last, and the ticks since.
    pressed: (Cause, u32),
    /// Refusals for want of the apiserver's memory so far, and the ticks since the last.
    memory: u64,
    memory_age: Option<u32>,
}

impl Findings {
    fn tick(&mut self, cause: Cause, memory: u64) {
        self.pressed = match cause {
            Cause::None => (self.pressed.0, self.pressed.1.saturating_add(1)),
            _ => (cause, 0),
        };
        self.memory_age = self.memory_age.map(|age| age.saturating_add(1));
        if memory > std::mem::replace(&mut self.memory, memory) {
            self.memory_age = Some(0);
        }
    }

    fn cause(&self) -> Cause {
        match self.pressed {
            (cause, age) if age < TOLD_TICKS => cause,
            _ if self.memory_age.is_some_and(|age| age < TOLD_TICKS) => Cause::Memory,
            _ => Cause::None,
        }
    }
}

impl Scheduler {
    /// Why the apiserver is slow, as far as can be told.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        let heaviest = self.work.heaviest();
        let cause = match (self.recovery.state(), self.findings.cause()) {
            (State::Cold, _) => Cause::UpstreamDown,
            (_, Cause::Cpu) => match heaviest {
                Some((client, share)) if share >= CLIENT_SHARE => Cause::Client(client),
                _ => Cause::Cpu,
            },
            (_, cause) => cause,
        };
        let probes = [&self.pressure.livez, &self.pressure.cached, &self.pressure.consistent];
        Diagnosis {
            cause,
            probes: probes.map(|probe| probe.slowdown().unwrap_or(0.0)),
            keys: self.pressure.keys,
            writes: self.pressure.writes,
            heaviest,
            response_bytes: self.ledger.memory.in_flight(),
            congested: self.pressure.congested,
        }
    }

    /// The clients that make the work of the last seconds and their shares of it, 0 to 1, at most 64 in no order. Who
    /// makes less than a 64th may be missing, and a share may be too high by that.
    #[must_use]
    pub fn shares(&self) -> Vec<(u64, f64)> {
        self.work.shares().collect()
    }

    /// Follows what presses, once a tick.
    pub(super) fn follow_causes(&mut self) {
        let refused = self.lanes.iter().map(|lane| lane.shed[Reason::MemoryBudget.index()]).sum();
        // Cuts that helped make the pressure calm; while the limit is low, what made it low is still the cause.
        let is_pressed = self.pressure.whole() >= CALM || self.pressure.congested > 0;
        let cause = match self.pressure.cause {
            Cause::None if self.pressure.congested > 0 => Cause::ApfLevel,
            cause if is_pressed => cause,
            _ => Cause::None,
        };
        self.findings.tick(cause, refused);
    }
}

impl Diagnosis {
    /// One sentence for a person; `client` is the name of the heaviest client, if known.
    ///
    /// ```
    /// use spillway::flow::{Cause, Diagnosis};
    ///
    /// let probes = [5.1, 5.0, 4.9];
    /// let diagnosis = Diagnosis { cause: Cause::Client(7), probes, keys: 4.2, heaviest: Some((7, 0.63)), ..Diagnosis::default() };
    /// assert_eq!(
    ///     diagnosis.sentence(Some("system:serviceaccount:obs:agent")),
    ///     "kube-apiserver answers single objects 4.2 times slower than in calm because it is out of CPU; \
    ///      system:serviceaccount:obs:agent makes 63 % of the work."
    /// );
    /// assert_eq!(Diagnosis::default().sentence(None), "kube-apiserver is well.");
    /// ```
    #[must_use]
    pub fn sentence(&self, client: Option<&str>) -> String {
        let [_, cached, consistent] = self.probes;
        match self.cause {
            Cause::None => "kube-apiserver is well.".to_owned(),
            Cause::Cpu | Cause::Client(_) if self.keys < SLOWER => format!(
                "kube-apiserver is out of CPU; single objects are still as quick as in calm{}.",
                self.client_clause(client),
            ),
            Cause::Cpu | Cause::Client(_) => format!(
                "kube-apiserver answers single objects {:.1} times slower than in calm because it is out of CPU{}.",
                self.keys,
                self.client_clause(client),
            ),
            Cause::Etcd => format!(
                "etcd is slow: a read that asks it takes {consistent:.0} times as long as in calm, one from \
                 kube-apiserver's cache {cached:.1} times; shedding calls that do not reach etcd would not help."
            ),
            Cause::Webhook => format!(
                "writes take {:.*} times as long as in calm while everything else is well: an admission webhook is slow.",
                if self.writes < 10.0 { 1 } else { 0 },
                self.writes,
            ),
            Cause::ApfLevel if self.congested > 0 => format!(
                "one of kube-apiserver's own priority levels is full and refused {} requests; the others are well.",
                self.congested,
            ),
            Cause::ApfLevel => {
                "calls in one of kube-apiserver's own priority levels wait; the other levels are well."
                    .to_owned()
            }
            Cause::Memory => format!(
                "answers of {} MB are under way, as much as kube-apiserver has memory for; further large LISTs wait \
                 or come back later{}.",
                self.response_bytes / 1_000_000,
                self.client_clause(client),
            ),
            Cause::UpstreamDown => {
                "kube-apiserver cannot be reached, or says that it is not ready.".to_owned()
            }
        }
    }

    fn client_clause(&self, client: Option<&str>) -> String {
        match self.heaviest {
            Some((_, share)) if share >= CLIENT_WORTH_A_WORD => {
                let name = client.unwrap_or("one client");
                format!("; {name} makes {:.0} % of the work", share * 100.0)
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_outlives_its_last_sign_by_two_seconds() {
        let mut findings = Findings::default();
        findings.tick(Cause::Etcd, 0);
        (1..TOLD_TICKS).for_each(|_| findings.tick(Cause::None, 0));
        assert_eq!(findings.cause(), Cause::Etcd);
        findings.tick(Cause::None, 3);
        assert_eq!(findings.cause(), Cause::Memory);
        (0..TOLD_TICKS).for_each(|_| findings.tick(Cause::None, 3));
        assert_eq!(findings.cause(), Cause::None);
    }

    #[test]
    fn nobody_is_told_of_one_times_slower() {
        let diagnosis = Diagnosis { cause: Cause::Cpu, keys: 1.04, ..Diagnosis::default() };
        assert_eq!(
            diagnosis.sentence(None),
            "kube-apiserver is out of CPU; single objects are still as quick as in calm."
        );
    }

    #[test]
    fn every_cause_has_a_sentence_of_its_own() {
        let causes = [
            Cause::None,
            Cause::Cpu,
            Cause::Etcd,
            Cause::Webhook,
            Cause::ApfLevel,
            Cause::Memory,
            Cause::UpstreamDown,
        ];
        let mut sentences = causes.map(|cause| Diagnosis { cause, ..Diagnosis::default() }.sentence(None));
        assert!(sentences.iter().all(|sentence| sentence.ends_with('.') && !sentence.contains("NaN")));
        sentences.sort_unstable();
        assert!(sentences.windows(2).all(|pair| pair[0] != pair[1]), "{sentences:#?}");
    }
}
