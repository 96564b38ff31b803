//! How many of whose requests would have been refused?

use std::collections::HashMap;
use std::time::Duration;

use super::callers::{Callers, OTHERS};
use crate::flow::Reason;
use crate::policy::{Class, Lane, Policy, RuleIndex};

/// Requests of a lane, a rule or a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Let through.
    pub admitted: u64,
    /// Of them, after waiting.
    pub waited: u64,
    /// The longest wait.
    pub longest_wait: Duration,
    /// Refused, by reason.
    pub shed: [u64; Reason::COUNT],
}

impl Count {
    /// Refused, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shed.iter().sum()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.admitted + self.refused()
    }

    /// The refused among all, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.refused() as f64 / self.all().max(1) as f64
    }

    /// The commonest reason.
    #[must_use]
    pub fn main_reason(&self) -> Option<Reason> {
        let reason = Reason::ALL.into_iter().max_by_key(|reason| self.shed[reason.index()])?;
        (self.shed[reason.index()] > 0).then_some(reason)
    }

    fn admit(&mut self, waited: Option<Duration>) {
        self.admitted += 1;
        self.waited += u64::from(waited.is_some());
        self.longest_wait = self.longest_wait.max(waited.unwrap_or_default());
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests whose fate was decided.
    pub requests: u64,
    /// Requests that kube-apiserver could not have understood either; they are not decided.
    pub not_understood: u64,
    /// From the first arrival to the last.
    pub span: Duration,
    /// When the first one arrived, in microseconds since 1970.
    pub begin: u64,
    /// In the order of lanes.
    pub lanes: Vec<(Lane, Count)>,
    /// By rule, the most refused first.
    pub rules: Vec<(String, Lane, Count)>,
    /// By user, the most refused first.
    pub users: Vec<(String, Count)>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    lanes: [Count; Lane::COUNT],
    /// Bounded by the rules of a policy, times the lanes that a lowering can lead to.
    rules: HashMap<(RuleIndex, Lane), Count>,
    /// Bounded by the callers that are told apart.
    users: HashMap<u32, Count>,
    not_understood: u64,
}

impl Tally {
    pub(super) fn admitted(&mut self, class: &Class, user: u32, waited: Option<Duration>) {
        self.each(class, user, |count| count.admit(waited));
    }

    pub(super) fn shed(&mut self, class: &Class, user: u32, reason: Reason) {
        self.each(class, user, |count| count.shed[reason.index()] += 1);
    }

    pub(super) const fn not_understood(&mut self) {
        self.not_understood += 1;
    }

    fn each(&mut self, class: &Class, user: u32, mut change: impl FnMut(&mut Count)) {
        change(&mut self.lanes[class.lane.index()]);
        change(self.rules.entry((class.rule, class.lane)).or_default());
        change(self.users.entry(user).or_default());
    }

    pub(super) fn report(
        self,
        policy: &Policy,
        callers: &Callers,
        origin: Option<u64>,
        newest: u64,
    ) -> Report {
        let names = callers.names();
        let name = |user: u32| match names.get(&user) {
            _ if user == OTHERS => "(others)",
            Some(name) if !name.is_empty() => name,
            _ => "(nobody)",
        };
        let mut rules: Vec<_> = self
            .rules
            .into_iter()
            .map(|((rule, lane), count)| (policy.rule_name(rule).to_owned(), lane, count))
            .collect();
        rules.sort_by(|(a, _, x), (b, _, y)| (y.refused(), y.all(), a).cmp(&(x.refused(), x.all(), b)));
        let mut users: Vec<_> =
            self.users.into_iter().map(|(user, count)| (name(user).to_owned(), count)).collect();
        users.sort_by(|(a, x), (b, y)| (y.refused(), y.all(), a).cmp(&(x.refused(), x.all(), b)));
        Report {
            requests: self.lanes.iter().map(Count::all).sum(),
            not_understood: self.not_understood,
            span: Duration::from_micros(newest.saturating_sub(origin.unwrap_or(newest))),
            begin: origin.unwrap_or_default(),
            lanes: Lane::ALL.into_iter().zip(self.lanes).collect(),
            rules,
            users,
        }
    }
}
