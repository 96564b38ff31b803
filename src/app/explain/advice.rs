//! What can be done about a refusal, by whoever runs the client and by whoever runs the cluster?

use crate::request::Verb;

/// What to do about one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The reason.
    pub reason: &'static str,
    /// What it means.
    pub means: &'static str,
    /// What whoever runs the client can do.
    pub client: &'static str,
    /// What an operator can do.
    pub operator: &'static str,
    /// Commands that go on from there.
    pub next: &'static [&'static str],
}

/// What to do about a reason; for a LIST what makes LISTs cheap.
#[must_use]
pub fn advice(reason: &str, verb: Verb) -> Option<Advice> {
    let found = TABLE.iter().find(|advice| advice.reason == reason).copied()?;
    let is_list = matches!(verb, Verb::List) && found.client == COME_BACK;
    Some(if is_list { Advice { client: CHEAPER, ..found } } else { found })
}

/// What a reason means.
#[must_use]
pub fn meaning(reason: &str) -> Option<Advice> {
    TABLE.iter().find(|advice| advice.reason == reason).copied()
}

const COME_BACK: &str = "come back when Retry-After says, not before";
const CHEAPER: &str = "watch instead of listing again, or page (limit=500), or name a namespace; come back when Retry-After says";

const fn of(
    reason: &'static str,
    means: &'static str,
    client: &'static str,
    operator: &'static str,
    next: &'static [&'static str],
) -> Advice {
    Advice { reason, means, client, operator, next }
}

const TABLE: &[Advice] = &[
    of(
        "isolated",
        "an operator contained this client by hand",
        "ask who set it: the refusal names the isolation and its reason",
        "release it when the culprit is fixed",
        &["spillway isolations", "spillway release ID"],
    ),
    of(
        "lockdown",
        "an operator lets in only what keeps the cluster alive",
        "wait, or use the break-glass lane if you are on call",
        "end the lockdown when the cluster is well",
        &["spillway status", "spillway lockdown off"],
    ),
    of(
        "identity_rate",
        "the client asks more often than one identity of its lane may",
        "ask less often: watch instead of polling, or spread the calls",
        "is it in the right lane? else raise lanes.LANE.identityRate of the TrafficPolicy",
        &["spillway top --once"],
    ),
    of(
        "lane_rate",
        "the lane as a whole asks more often than it may",
        COME_BACK,
        "look who of the lane asks most",
        &["spillway top --once"],
    ),
    of(
        "lane_concurrency",
        "the lane has no seats left, though kube-apiserver is well",
        COME_BACK,
        "look who holds the lane's seats; if all of them belong there, raise its ceilingPercent",
        &["spillway status", "spillway top --once"],
    ),
    of(
        "queue_full",
        "as many of the lane wait as may",
        COME_BACK,
        "look who fills the lane; if all of them belong there, raise its queueLimit",
        &["spillway status", "spillway top --once"],
    ),
    of(
        "queue_timeout",
        "it waited as long as its lane allows, and no seat became free",
        COME_BACK,
        "look what presses kube-apiserver",
        &["spillway status"],
    ),
    of(
        "overload_level",
        "kube-apiserver is under pressure, and this lane gives way to those above it",
        COME_BACK,
        "look who causes the pressure, and contain the culprit; if this client matters, give it a rule with a higher lane",
        &["spillway status", "spillway top --once --by refused"],
    ),
    of(
        "global_limit",
        "a bound of the whole process is reached",
        COME_BACK,
        "look who holds so many requests or watches; add memory and raise the limits only if all of them belong there",
        &["spillway status", "spillway top --once"],
    ),
    of(
        "upstream_unavailable",
        "kube-apiserver is away or coming back, and this lane is not let in again yet",
        COME_BACK,
        "look at kube-apiserver itself; lanes come back in their order by themselves",
        &["spillway status", "crictl ps -a --name kube-apiserver"],
    ),
    of(
        "deadline",
        "the request's own deadline could not be met",
        "give it a longer timeout",
        "look what presses kube-apiserver",
        &["spillway status"],
    ),
    of(
        "malformed",
        "it is no request that spillway and kube-apiserver would read alike",
        "fix the request: the message says what is wrong with it",
        "look at the client's version; kubectl and client-go send nothing of the kind",
        &["spillway explain"],
    ),
    of(
        "unauthenticated",
        "its credential was checked, and is wrong or expired",
        "renew the token or the certificate",
        "look at the dates of the certificates and at the clocks",
        &["spillway check"],
    ),
    of(
        "draining",
        "this spillway is shutting down",
        "connect again: another instance answers",
        "nothing, if somebody is restarting it",
        &["spillway status"],
    ),
    of(
        "memory_budget",
        "the answers in flight, with this one, would take more memory than kube-apiserver has to spare",
        CHEAPER,
        "look who lists so much; raise overload.memory.responseBytes only if kube-apiserver has the memory",
        &["spillway top --once"],
    ),
    of(
        "watch_quota",
        "the identity or its lane has as many watches, or starts them as fast, as it may",
        "share informers: one watch a resource and process is enough",
        "look for a leak of watches; else raise overload.watches",
        &["spillway status", "spillway top --once"],
    ),
    of(
        "resource_warming",
        "kube-apiserver still fills its cache of this resource",
        COME_BACK,
        "nothing: it ends by itself within seconds",
        &["spillway status"],
    ),
    of(
        "early_return",
        "the client came back before the time it was told, again and again",
        "obey Retry-After: client-go does by itself",
        "look which client library it uses",
        &["spillway top --once --by refused"],
    ),
    of(
        "cancelled",
        "it ran, and was reset because kube-apiserver was going under",
        CHEAPER,
        "look who lists so much",
        &["spillway status", "spillway top --once"],
    ),
    of(
        "own_memory",
        "spillway itself runs out of memory, and this lane gives way",
        COME_BACK,
        "give spillway more memory, or look who holds so many connections",
        &["spillway status"],
    ),
];
