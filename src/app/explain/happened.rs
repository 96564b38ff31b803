//! Why was this request refused?

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Read, advise, entrance, numbers, reads_as, rules, split};
use crate::admin::explained::{DecisionLine, Explained, GateStep};
use crate::flow::Reason;
use crate::gateway::Refusal;
use crate::identity::Identity;
use crate::policy::{Hints, Policy};
use crate::request::{DecodedPath, RequestInfo, Verb};
use crate::telemetry::shown;

/// The gates in their order, and the reasons for which each refuses. What stands before the gate that refused was passed.
const GATES: &[(&str, &[Reason])] = &[
    ("read", &[Reason::Malformed]),
    ("authentication", &[Reason::Unauthenticated]),
    ("levers", &[Reason::Isolated, Reason::Lockdown]),
    ("process", &[Reason::GlobalLimit, Reason::Draining]),
    ("own memory", &[Reason::OwnMemory]),
    ("lane open", &[Reason::UpstreamUnavailable]),
    ("warming", &[Reason::ResourceWarming]),
    ("identity rate", &[Reason::IdentityRate, Reason::LaneRate]),
    ("watch quota", &[Reason::WatchQuota]),
    ("early return", &[Reason::EarlyReturn]),
    ("seats", &[Reason::OverloadLevel, Reason::LaneConcurrency, Reason::MemoryBudget]),
    ("queue", &[Reason::QueueFull, Reason::QueueTimeout, Reason::Deadline]),
    ("reset", &[Reason::Cancelled]),
];

/// The explanation of a refusal.
#[must_use]
pub fn happened(refusal: &Refusal) -> Explained {
    let identity = refusal.caller.as_ref().map(|caller| &*caller.identity);
    let mut explained = Explained {
        id: Some(refusal.id().to_owned()),
        audit_id: Some(refusal.audit_id.clone()),
        at_ms: Some(milliseconds(refusal.at)),
        live: true,
        outcome: if refusal.is_refusal { "shed".to_owned() } else { "failed".to_owned() },
        reason: Some(refusal.reason.as_str().to_owned()),
        user: identity.map_or_else(|| "(nobody was proven)".to_owned(), |who| shown(&who.user).into_owned()),
        groups: identity.map(|who| who.groups.clone()).unwrap_or_default(),
        credential: identity.map_or_else(|| "none".to_owned(), |who| who.credential.as_str().to_owned()),
        verified: identity.is_some_and(|who| who.credential.is_verified()),
        peer: Some(refusal.peer.to_string()),
        entrance: entrance(refusal.is_break_glass),
        user_agent: refusal.user_agent.clone(),
        request: request(refusal),
        lane: refusal.lane.as_str().to_owned(),
        gates: gates(refusal),
        numbers: refusal.numbers.as_ref().map(numbers),
        told: Some(told(refusal)),
        ..Explained::default()
    };
    let mut verb = Verb::Other;
    if let (Some(identity), Some((policy, rule))) = (identity, &refusal.rule) {
        explained.rule = policy.rule_name(*rule).to_owned();
        if let Some(read) = walk_rules(refusal, identity, policy, &mut explained) {
            explained.reads_as = read.reads_as;
            verb = read.verb;
        }
    }
    advise(&mut explained, verb);
    if let Some(user) = identity.filter(|who| who.credential.is_verified()).map(|who| &who.user) {
        explained.next.push(format!("spillway explain --user {user}"));
    }
    explained
}

/// Walks the rules that were in force once more.
fn walk_rules(
    refusal: &Refusal,
    identity: &Identity,
    policy: &Policy,
    explained: &mut Explained,
) -> Option<Read> {
    let (path, query) = split(&refusal.target);
    let path = DecodedPath::new(path).ok()?;
    let info = RequestInfo::new(&refusal.method, &path, query).ok()?;
    let hints = Hints { user_agent: refusal.user_agent.as_deref(), impersonates: refusal.impersonates };
    let (_, steps) = policy.trace(identity, &info, &hints);
    explained.rules = rules(&steps);
    Some(Read { reads_as: reads_as(&info), verb: info.verb })
}

fn gates(refusal: &Refusal) -> Vec<GateStep> {
    let stopped = stopped_at(refusal);
    let step = |(place, (name, _)): (usize, &(&str, &[Reason]))| {
        let (answer, reason, detail) = match place.cmp(&stopped) {
            std::cmp::Ordering::Less => ("pass", None, String::new()),
            std::cmp::Ordering::Equal => ("stop", Some(refusal.reason.as_str().to_owned()), detail(refusal)),
            std::cmp::Ordering::Greater => ("not-asked", None, String::new()),
        };
        GateStep { name: (*name).to_owned(), answer: answer.to_owned(), reason, detail }
    };
    GATES.iter().enumerate().map(step).collect()
}

fn stopped_at(refusal: &Refusal) -> usize {
    let by_reason =
        GATES.iter().position(|(_, reasons)| reasons.contains(&refusal.reason)).unwrap_or(GATES.len());
    let closed = refusal.reason == Reason::OverloadLevel
        && refusal
            .numbers
            .is_some_and(|numbers| numbers.state == crate::flow::State::Red && numbers.ceiling.0 == 0);
    if closed {
        GATES.iter().position(|(name, _)| *name == "lane open").unwrap_or(by_reason)
    } else {
        by_reason
    }
}

fn detail(refusal: &Refusal) -> String {
    let mut parts = Vec::new();
    if let Some(lever) = &refusal.lever {
        parts.push(lever.clone());
    }
    if let Some(numbers) = &refusal.numbers {
        parts.push(super::numbers(numbers));
    }
    if refusal.waited_ms > 0 {
        parts.push(format!("it was here for {} ms", refusal.waited_ms));
    }
    parts.join("; ")
}

fn told(refusal: &Refusal) -> String {
    let mut told = refusal.status.to_string();
    if let Some(seconds) = refusal.retry_after_seconds {
        told += &format!(", Retry-After {seconds} s");
    }
    if refusal.held_ms > 0 {
        told +=
            &format!(", kept back for {} ms because the client came before it was told to", refusal.held_ms);
    }
    told
}

fn request(refusal: &Refusal) -> String {
    let more = if refusal.impersonates { " (impersonating)" } else { "" };
    format!("{} {}{more}", shown(&refusal.method), shown(&refusal.target))
}

/// One line of a list.
#[must_use]
pub fn line(refusal: &Refusal) -> DecisionLine {
    DecisionLine {
        id: refusal.id().to_owned(),
        at_ms: milliseconds(refusal.at),
        user: refusal
            .caller
            .as_ref()
            .map_or_else(|| "-".to_owned(), |caller| shown(&caller.identity.user).into_owned()),
        lane: refusal.lane.as_str().to_owned(),
        reason: refusal.reason.as_str().to_owned(),
        request: request(refusal),
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_gate_and_something_to_do() {
        for reason in Reason::ALL {
            let gates = GATES.iter().filter(|(_, reasons)| reasons.contains(&reason)).count();
            assert_eq!(gates, 1, "{reason}");
            let advice = super::super::advice(reason.as_str(), Verb::List).expect("there is some");
            assert!(!advice.client.is_empty() && !advice.next.is_empty(), "{reason}");
        }
    }
}
