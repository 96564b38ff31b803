//! Rules, a caller and a request, drawn from the input: what a client merely claims never lifts it.

use spillway::identity::{Credential, Identity};
use spillway::policy::{
    Class, Hints, Lane, LaneSettings, Match, Pattern, Policy, ResourcePattern, Rule, ServiceAccountPattern,
};
use spillway::request::{DecodedPath, RequestInfo, Scope, Verb};

use super::Choices;

const RULES: usize = 8;
const WORDS: [&str; 14] = [
    "*",
    "ada",
    "a*",
    "*a",
    "a*a",
    "system:serviceaccount:mon:agent",
    "mon",
    "agent",
    "pods",
    "nodes",
    "kube-*",
    "system:masters",
    "",
    "**d*",
];
const RESOURCES: [&str; 7] =
    ["*", "pods", "nodes/status", "leases.coordination.k8s.io", "*.apps/scale", "pods/*", "n*"];
const CREDENTIALS: [Credential; 5] = [
    Credential::Certificate,
    Credential::BreakGlass,
    Credential::ServiceAccountToken,
    Credential::UnverifiedToken,
    Credential::Anonymous,
];
const REQUESTS: [(&str, &str, &str); 12] = [
    ("GET", "/livez", ""),
    ("GET", "/version", "x=1"),
    ("POST", "/healthz", ""),
    ("GET", "/healthz/../api/v1/pods", ""),
    ("GET", "/api/v1/pods", ""),
    ("GET", "/api/v1/pods", "watch=1"),
    ("GET", "/api//v1/pods", ""),
    ("PATCH", "/api/v1/nodes/ada/status", ""),
    ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/ada", ""),
    ("DELETE", "/api/v1/namespaces/mon/pods", ""),
    ("GET", "/api/v1/namespaces/mon/pods", "limit=5&fieldSelector=metadata.name=ada"),
    ("POST", "/apis/apps/v1/namespaces/kube-system/deployments/ada/scale", ""),
];

pub fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let identity = identity(&mut choices);
    let (method, path, query) = *choices.pick(&REQUESTS);
    let path = DecodedPath::new(path).unwrap();
    let info = RequestInfo::new(method, &path, Some(query)).unwrap();
    let user_agent = *choices.pick(&WORDS);
    let hints = Hints { user_agent: Some(user_agent), impersonates: choices.one_in(3) };
    let mut rules: Vec<Rule> = Vec::new();
    while !choices.is_over() && rules.len() < RULES {
        let name = rules.len().to_string();
        rules.push(rule(&mut choices, name));
    }
    patterns(&rules, &identity, user_agent);
    let lanes = LaneSettings::defaults();
    let decides = |rule: &Rule| rule.matches.asks_user_agent() && !rule.only_lower;
    let policy = Policy::new(rules.clone(), lanes, 7);
    assert_eq!(policy.is_err(), rules.iter().any(decides), "the user agent may only lower");
    let Ok(policy) = policy else { return };
    let class = |policy: &Policy, hints: &Hints<'_>| {
        policy.classify(&identity, policy.subjects(&identity), &info, hints)
    };
    let found = class(&policy, &hints);
    check(&found, &identity, &info, &hints);
    assert_eq!(class(&policy, &hints), found);
    assert!(!policy.rule_name(found.rule).is_empty());

    // Without any claim it would stand at least as high; without the rules that lower, too.
    let honest = class(&policy, &Hints { impersonates: false, ..hints });
    assert!(honest.lane <= found.lane, "impersonation lifted {honest:?} to {found:?}");
    let deciding: Vec<_> = rules.iter().filter(|rule| !rule.only_lower).cloned().collect();
    let bare = class(&Policy::new(deciding, lanes, 7).unwrap(), &hints);
    assert!(bare.lane <= found.lane, "a rule that lowers lifted {bare:?} to {found:?}");
    assert_eq!(
        (bare.client, bare.flow),
        (found.client, found.flow),
        "who it is does not depend on the rules"
    );
}

fn check(found: &Class, identity: &Identity, info: &RequestInfo<'_>, hints: &Hints<'_>) {
    assert_eq!(found.lane == Lane::BreakGlass, identity.credential == Credential::BreakGlass);
    if found.lane == Lane::BreakGlass {
        return;
    }
    assert_eq!(found.exempt, info.is_health_probe());
    if found.exempt {
        return;
    }
    let at_most = |lane: Lane| assert!(found.lane >= lane, "{found:?} is above {lane}");
    if !identity.credential.is_verified() || info.odd {
        at_most(Lane::Unknown);
    }
    if hints.impersonates {
        at_most(Lane::Operators);
    }
}

/// Patterns match as the shortest program that could.
fn patterns(rules: &[Rule], identity: &Identity, user_agent: &str) {
    for rule in rules {
        for pattern in rule.matches.users.iter().chain(&rule.matches.groups).chain(&rule.matches.user_agents)
        {
            for name in [identity.user.as_str(), user_agent]
                .into_iter()
                .chain(identity.groups.iter().map(String::as_str))
            {
                assert_eq!(
                    pattern.matches(name),
                    glob(pattern.as_str().as_bytes(), name.as_bytes()),
                    "{pattern} on {name}"
                );
            }
        }
    }
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => glob(rest, name),
        (Some((b'*', rest)), Some((_, behind))) => glob(rest, name) || glob(pattern, behind),
        (Some((p, rest)), Some((n, behind))) => p == n && glob(rest, behind),
        _ => false,
    }
}

fn identity(choices: &mut Choices<'_>) -> Identity {
    let word = |choices: &mut Choices<'_>| (*choices.pick(&WORDS)).to_owned();
    let groups = (0..choices.below(3)).map(|_| word(choices)).collect();
    let node =
        choices.one_in(4).then(|| ("authentication.kubernetes.io/node-name".to_owned(), vec![word(choices)]));
    Identity {
        user: word(choices),
        uid: None,
        groups,
        extra: node.into_iter().collect(),
        credential: *choices.pick(&CREDENTIALS),
    }
}

fn rule(choices: &mut Choices<'_>, name: String) -> Rule {
    // One of four lists has one or two entries.
    fn list<T>(choices: &mut Choices<'_>, make: impl Fn(&mut Choices<'_>) -> T) -> Vec<T> {
        let count = choices.below(8).saturating_sub(5);
        (0..count).map(|_| make(choices)).collect()
    }
    // A pattern of its own spelling now and then: three letters of a small alphabet.
    let pattern = |choices: &mut Choices<'_>| match choices.below(3) {
        0 => {
            Pattern::new(&(0..choices.below(6)).map(|_| *choices.pick(&['a', 'd', '*'])).collect::<String>())
        }
        _ => {
            let word: &&str = choices.pick(&WORDS);
            Pattern::new(word)
        }
    };
    let account = |choices: &mut Choices<'_>| ServiceAccountPattern {
        namespace: pattern(choices),
        name: pattern(choices),
    };
    let matches = Match {
        users: list(choices, pattern),
        groups: list(choices, pattern),
        service_accounts: list(choices, account),
        service_account_namespaces: list(choices, pattern),
        credentials: list(choices, |choices| *choices.pick(&CREDENTIALS)),
        verbs: list(choices, |choices| *choices.pick(&Verb::ALL)),
        resources: list(choices, |choices| {
            let text: &&str = choices.pick(&RESOURCES);
            ResourcePattern::parse(text).unwrap()
        }),
        namespaces: list(choices, pattern),
        paths: list(choices, pattern),
        scope: choices
            .one_in(5)
            .then(|| *choices.pick(&[Scope::Object, Scope::Namespace, Scope::Cluster, Scope::NonResource])),
        unpaged: choices.one_in(5).then(|| choices.one_in(2)),
        user_agents: list(choices, pattern),
        not_user_agents: list(choices, pattern),
    };
    Rule {
        name: format!("rule {name}"),
        matches,
        lane: *choices.pick(&Lane::ALL),
        only_lower: choices.one_in(2),
        enforcement: None,
    }
}
