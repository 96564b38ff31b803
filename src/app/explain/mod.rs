//! Why was this request refused, or what would become of that one?
//!
//! One walk for both, in the order of the request path: rules, levers, the scheduler's gates, what the client is told. Of a
//! refusal that happened the rules are walked again under the policy that was in force then, and the numbers are those
//! that were kept beside it. Of a request that somebody asks about every gate is asked, and nothing is taken.

mod advice;
mod happened;

use std::net::IpAddr;

use crate::admin::explained::{Explain, Explained, GateStep, RuleStep};
use crate::flow::levers::Asker;
use crate::flow::{Answer, Arrival, Encoding, Ends, Key, Kind, Numbers, Walk};
use crate::gateway::Lever;
use crate::identity::{Credential, GROUP_AUTHENTICATED, Identity};
use crate::policy::{Hints, Lane, Policy, Step, Verdict};
use crate::request::{DecodedPath, RequestInfo, Verb};

pub use self::advice::{advice, meaning};
pub use self::happened::{happened, line, milliseconds};

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// There is no such credential.
    #[error(
        "{0:?} is no credential: expected certificate, service_account_token, oidc_token, reviewed_token, unverified_token or anonymous"
    )]
    Credential(String),
    /// The path cannot be read.
    #[error("{0:?} is no path that kube-apiserver reads: {1}")]
    Target(String, &'static str),
    /// Not an address.
    #[error("{0:?} is no IP address")]
    Address(String),
}

/// What a request is, once read.
pub(super) struct Read {
    pub(super) reads_as: String,
    pub(super) verb: Verb,
}

/// What would become of a request under `policy`. `lever` is asked what operators have put in force, `walk` what the
/// scheduler says.
///
/// # Errors
/// When the question itself is none.
pub fn what_if(
    asked: &Explain,
    policy: &Policy,
    lever: impl FnOnce(&Asker<'_>) -> Option<Lever>,
    walk: impl FnOnce(&Arrival) -> Walk,
) -> Result<Explained, Unclear> {
    let identity = identity(asked)?;
    let (path, query) = split(&asked.target);
    let bad = |why| Unclear::Target(asked.target.clone(), why);
    if !path.starts_with('/') {
        return Err(bad("it begins with a slash"));
    }
    let decoded = DecodedPath::new(path).map_err(|_| bad("a malformed percent escape"))?;
    let info = RequestInfo::new(&asked.method, &decoded, query)
        .map_err(|_| bad("it ends where a resource is expected"))?;
    let hints = Hints { user_agent: asked.user_agent.as_deref(), impersonates: asked.impersonates };
    let (class, steps) = policy.trace(&identity, &info, &hints);
    let peer = match &asked.from {
        Some(text) => text.parse().map_err(|_| Unclear::Address(text.clone()))?,
        None => IpAddr::from([0, 0, 0, 0]),
    };
    let lever = lever(&Asker { identity: &identity, peer, lane: class.lane, exempt: class.exempt });
    let is_penalty = lever.as_ref().is_some_and(|lever| !lever.stops);
    let lane = if is_penalty { Lane::Telemetry } else { class.lane };
    let mut explained = Explained {
        live: true,
        user: identity.user.clone(),
        groups: identity.groups.clone(),
        credential: identity.credential.as_str().to_owned(),
        verified: identity.credential.is_verified(),
        entrance: entrance(identity.credential == Credential::BreakGlass),
        user_agent: asked.user_agent.clone(),
        request: format!("{} {}", asked.method, asked.target),
        reads_as: reads_as(&info),
        lane: lane.as_str().to_owned(),
        rule: policy.rule_name(class.rule).to_owned(),
        mode: class.mode.as_str().to_owned(),
        rules: rules(&steps),
        gates: vec![lever_gate(lever.as_ref())],
        ..Explained::default()
    };
    if lever.is_some_and(|lever| lever.stops) {
        explained.outcome = "shed".to_owned();
        explained.reason = explained.gates[0].reason.clone();
        advise(&mut explained, info.verb);
        return Ok(explained);
    }
    let kind = match (info.verb, info.is_long_running()) {
        (Verb::Watch, _) => Kind::Watch,
        (_, true) => Kind::Streaming,
        (_, false) => Kind::Short,
    };
    let key = Key::of(&info, Encoding::Json);
    let walk =
        walk(&Arrival { lane, flow: class.flow.0, client: class.client.0, key, kind, exempt: class.exempt });
    finish(&mut explained, &walk, info.verb);
    Ok(explained)
}

fn finish(explained: &mut Explained, walk: &Walk, verb: Verb) {
    explained.gates.extend(walk.gates.iter().map(|gate| {
        let (answer, reason) = match gate.answer {
            Answer::Pass => ("pass", None),
            Answer::Full(reason) => ("full", Some(reason)),
            Answer::Stop(reason) => ("stop", Some(reason)),
        };
        GateStep {
            name: gate.name.to_owned(),
            answer: answer.to_owned(),
            reason: reason.map(|reason| reason.as_str().to_owned()),
            detail: gate.detail.clone(),
        }
    }));
    explained.numbers = Some(numbers(&walk.numbers));
    match walk.ends {
        Ends::Admit => explained.outcome = "admit".to_owned(),
        Ends::Wait(most) => {
            explained.outcome = "wait".to_owned();
            explained.told = Some(format!("nothing yet: it waits for a seat, up to {} ms", most.as_millis()));
        }
        Ends::Shed(reason) => {
            explained.outcome = "shed".to_owned();
            explained.reason = Some(reason.as_str().to_owned());
        }
    }
    advise(explained, verb);
}

fn advise(explained: &mut Explained, verb: Verb) {
    let Some(reason) = &explained.reason else { return };
    if explained.told.is_none() {
        explained.told = Some("429 and a Retry-After".to_owned());
    }
    if let Some(advice) = advice(reason, verb) {
        explained.client_can = Some(advice.client.to_owned());
        explained.operator_can = Some(advice.operator.to_owned());
        explained.next = advice.next.iter().map(|next| (*next).to_owned()).collect();
    }
}

/// The state and the lane, in a few words.
pub(super) fn numbers(numbers: &Numbers) -> String {
    let Numbers { state, limit, used, lane_seats, ceiling, floor, waiting, pressure_percent } = numbers;
    format!(
        "state {}, pressure {}.{:02}; L {limit}, used {used}; the lane: {lane_seats} used, let in up to {ceiling}, \
         always {floor}; {waiting} wait",
        state.as_str(),
        pressure_percent / 100,
        pressure_percent % 100,
    )
}

pub(super) fn entrance(is_break_glass: bool) -> String {
    if is_break_glass { "break-glass".to_owned() } else { "main".to_owned() }
}

fn lever_gate(lever: Option<&Lever>) -> GateStep {
    let name = "levers".to_owned();
    match lever {
        None => {
            GateStep { name, answer: "pass".to_owned(), reason: None, detail: "none touches it".to_owned() }
        }
        Some(lever) => GateStep {
            name,
            answer: if lever.stops { "stop".to_owned() } else { "pass".to_owned() },
            reason: lever.stops.then(|| lever.reason.as_str().to_owned()),
            detail: lever.text.clone(),
        },
    }
}

/// Path and query.
pub(super) fn split(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// How kube-apiserver reads it, in one line.
pub(super) fn reads_as(info: &RequestInfo<'_>) -> String {
    if !info.is_resource {
        let probe = if info.is_health_probe() { " (a health check)" } else { "" };
        return format!("{} {}, no resource{probe}", info.verb.as_str(), info.path);
    }
    let mut text = format!("{} {}", info.verb.as_str(), info.resource);
    if !info.api_group.is_empty() {
        text += &format!(".{}", info.api_group);
    }
    if !info.subresource.is_empty() {
        text += &format!("/{}", info.subresource);
    }
    if !info.name.is_empty() {
        text += &format!(" {:?}", info.name);
    }
    text += &match info.namespace {
        "" => format!(", scope {}", info.scope().as_str()),
        namespace => format!(" in namespace {namespace}, scope {}", info.scope().as_str()),
    };
    if info.is_unpaged() {
        text += ", the whole collection at once";
    }
    text
}

/// Every rule with what became of it.
pub(super) fn rules(steps: &[Step<'_>]) -> Vec<RuleStep> {
    let step = |(place, step): (usize, &Step<'_>)| {
        let (verdict, misses) = match step.verdict {
            Verdict::Decides => ("decides", None),
            Verdict::Lowers => ("lowers", None),
            Verdict::FitsInVain => ("fits", None),
            Verdict::NotReached => ("not-reached", None),
            Verdict::Misses(part) => ("misses", Some(part.as_str().to_owned())),
        };
        RuleStep {
            number: place + 1,
            name: step.rule.name.clone(),
            lane: step.rule.lane.as_str().to_owned(),
            verdict: verdict.to_owned(),
            misses,
        }
    };
    steps.iter().enumerate().map(step).collect()
}

/// The caller that is asked about, with the groups that kube-apiserver adds.
fn identity(asked: &Explain) -> Result<Identity, Unclear> {
    const ALL: [Credential; 7] = [
        Credential::Certificate,
        Credential::BreakGlass,
        Credential::ServiceAccountToken,
        Credential::OidcToken,
        Credential::ReviewedToken,
        Credential::UnverifiedToken,
        Credential::Anonymous,
    ];
    let credential = ALL
        .into_iter()
        .find(|credential| credential.as_str() == asked.credential)
        .ok_or_else(|| Unclear::Credential(asked.credential.clone()))?;
    if credential == Credential::Anonymous {
        return Ok((*Identity::anonymous()).clone());
    }
    if credential == Credential::UnverifiedToken {
        return Ok((*Identity::unverified()).clone());
    }
    let mut identity = Identity {
        user: asked.user.clone(),
        uid: None,
        groups: asked.groups.clone(),
        extra: Vec::new(),
        credential,
    };
    let account = identity.service_account().map(|(namespace, _)| namespace.to_owned());
    let mut added = Vec::new();
    if let Some(namespace) = account {
        added = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    added.push(GROUP_AUTHENTICATED.to_owned());
    for group in added {
        if !identity.groups.contains(&group) {
            identity.groups.push(group);
        }
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::flow_settings;
    use crate::clock;
    use crate::config;
    use crate::flow::{Reason, Scheduler};

    fn asked(user: &str, method: &str, target: &str) -> Explain {
        let credential =
            if user.starts_with("system:serviceaccount:") { "service_account_token" } else { "certificate" };
        Explain {
            user: user.into(),
            credential: credential.into(),
            method: method.into(),
            target: target.into(),
            ..Explain::default()
        }
    }

    fn explained(asked: &Explain, lever: Option<Lever>) -> Result<Explained, Unclear> {
        let traffic = config::default_policy().unwrap();
        let policy = Policy::new(traffic.rules.clone(), traffic.lanes, 7).unwrap();
        let scheduler = Scheduler::new(flow_settings(&traffic), 7, clock::now());
        what_if(asked, &policy, |_| lever, |arrival| scheduler.walk(clock::now(), arrival))
    }

    #[test]
    fn the_explained_lane_is_the_decided_lane_and_every_rule_is_told() {
        let traffic = config::default_policy().unwrap();
        let policy = Policy::new(traffic.rules.clone(), traffic.lanes, 7).unwrap();
        let users = [
            "system:serviceaccount:obs:agent",
            "system:serviceaccount:kube-system:coredns",
            "system:kube-scheduler",
            "alice",
        ];
        let agents = [None, Some("kubelet/v1.34"), Some("otel-collector/1.0")];
        let targets = [
            "/api/v1/pods",
            "/api/v1/namespaces/a/pods?watch=1",
            "/livez",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            "/api/v1//pods",
        ];
        let groups = [vec![], vec!["system:nodes".to_owned()], vec!["system:masters".to_owned()]];
        let mut decided = 0;
        for (user, agent, target, groups) in users
            .iter()
            .flat_map(|user| agents.iter().map(move |agent| (user, agent)))
            .flat_map(|(user, agent)| targets.iter().map(move |target| (user, agent, target)))
            .flat_map(|(user, agent, target)| groups.iter().map(move |groups| (user, agent, target, groups)))
        {
            for impersonates in [false, true] {
                let asked = Explain {
                    groups: groups.clone(),
                    user_agent: agent.map(str::to_owned),
                    impersonates,
                    ..asked(user, "GET", target)
                };
                let who = identity(&asked).unwrap();
                let (path, query) = split(target);
                let path = DecodedPath::new(path).unwrap();
                let info = RequestInfo::new("GET", &path, query).unwrap();
                let hints = Hints { user_agent: *agent, impersonates };
                let class = policy.classify(&who, policy.subjects(&who), &info, &hints);
                let told = explained(&asked, None).unwrap();
                assert_eq!(told.lane, class.lane.as_str(), "{asked:?}");
                assert_eq!(told.rules.len(), traffic.rules.len());
                let decides = |step: &&RuleStep| ["decides", "lowers"].contains(&step.verdict.as_str());
                let by_rule = told.rules.iter().any(|step| decides(&step));
                if !told.rule.starts_with('(') {
                    // A lowering rule has the last word, whatever its place; among several the lowest wins.
                    let named = told.rules.iter().find(|step| step.name == told.rule).unwrap();
                    assert!(["decides", "lowers"].contains(&named.verdict.as_str()), "{told:?}");
                    assert_eq!(named.lane, told.lane, "{told:?}");
                    decided += 1;
                }
                assert!(by_rule || told.rule.starts_with('('), "{told:?}");
            }
        }
        assert!(decided > 100, "{decided} by a rule");
    }

    #[test]
    fn a_lever_ends_the_walk_or_moves_the_request_to_telemetry() {
        let asked = asked("alice", "GET", "/api/v1/pods");
        let lever = |stops| {
            Some(Lever { stops, reason: Reason::Isolated, text: "isolation iso-1 (deny): a loop".into() })
        };
        let denied = explained(&asked, lever(true)).unwrap();
        assert_eq!(
            (denied.outcome.as_str(), denied.reason.as_deref(), denied.gates.len()),
            ("shed", Some("isolated"), 1)
        );
        assert!(denied.next.iter().any(|next| next.starts_with("spillway isolations")), "{denied:?}");
        let slowed = explained(&asked, lever(false)).unwrap();
        assert_eq!(slowed.lane, "telemetry");
        assert!(slowed.gates.len() > 5, "{slowed:?}");
    }

    #[test]
    fn a_question_that_is_none_is_told() {
        for (bad, expected) in [
            (Explain { credential: "password".into(), ..asked("a", "GET", "/api") }, "credential"),
            (asked("a", "GET", "api/v1/pods"), "slash"),
            (asked("a", "GET", "/api/v1/%zz"), "percent"),
            (Explain { from: Some("node-1".into()), ..asked("a", "GET", "/api") }, "IP address"),
        ] {
            let error = explained(&bad, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
