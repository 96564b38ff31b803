//! Who takes part? Groups of a scenario become clients, each with its calls, its lane and its behaviour.
//!
//! A group that names an identity is classified by the policy, with the code that classifies in production; a group that
//! names a lane is taken at its word.

use std::str::FromStr;
use std::time::Duration;

use super::apiserver::LevelName;
use super::chance::mix;
use super::clients::{Behaviour, Leader, Lease, Looping, Operator, Policy as Retries, Reflector};
use super::plan::{self, Cost, Plan};
use super::scenario::{During, Group, Kind, Phases, Retry, Scenario};
use crate::flow::Encoding;
use crate::identity::{Credential, EXTRA_NODE_NAME, GROUP_AUTHENTICATED, Identity};
use crate::policy::{Hints, Lane, Policy};
use crate::request::{DecodedPath, RequestInfo};
use crate::units::Instant;

/// How long a try may take where a scenario does not say: the apiserver's own limit.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What all clients of a group share.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) plans: Vec<Plan>,
    pub(super) levels: Vec<LevelName>,
    pub(super) retries: Retries,
    pub(super) reads: Option<f64>,
}

/// Where policy puts one call of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lane: Lane,
    pub(super) flow: u64,
    pub(super) client: u64,
}

/// One client before it begins.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) role: usize,
    pub(super) places: Vec<Place>,
    pub(super) behaviour: Box<dyn Behaviour>,
    pub(super) starts: Instant,
    pub(super) stops: Instant,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) roles: Vec<Role>,
    pub(super) members: Vec<Member>,
}

/// A request line that turns out not to be one for some client's number.
pub(super) type CastError = super::plan::NotARequest;

impl Cast {
    pub(super) fn of(scenario: &Scenario, policy: &Policy) -> Result<Self, CastError> {
        let mut cast = Self { roles: Vec::new(), members: Vec::new() };
        for group in &scenario.clients {
            cast.add(group, &scenario.phases, policy)?;
        }
        Ok(cast)
    }

    fn add(&mut self, group: &Group, phases: &Phases, policy: &Policy) -> Result<(), CastError> {
        let encoding = if group.protobuf { Encoding::Protobuf } else { Encoding::Json };
        let lines = lines(group);
        let cost = Cost {
            cpu_micros: group.cost.cpu.map(|span| span.0.as_secs_f64() * 1e6),
            etcd_micros: group.cost.etcd.map(|span| span.0.as_secs_f64() * 1e6),
            bytes: group.cost.bytes.map(|size| size.0 as u64),
        };
        let plan = |line: &String| Ok(Plan { cost, ..Plan::parse(&numbered(line, 0), encoding)? });
        let plans = lines.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        // An operator's sequences may overlap, so several clients share the work.
        let shifts = if group.kind == Kind::Operator { super::clients::OPERATOR_SHIFTS } else { 1 };
        let count = group.count * shifts;
        let (from, to) = times(group, phases);
        let role = self.roles.len();
        for number in 0..count {
            let person = number / shifts;
            let places = places(group, &lines, person, policy)?;
            let spread = if group.kind == Kind::Operator {
                period(group).mul_f64(f64::from(number % shifts))
                    + group.ramp.0.mul_f64(f64::from(person) / f64::from(group.count))
            } else {
                group.ramp.0.mul_f64(f64::from(number) / f64::from(count.max(1)))
            };
            self.members.push(Member {
                role,
                places,
                behaviour: behaviour(group, plans.len(), shifts),
                starts: from + spread,
                stops: to,
            });
        }
        let place = self.members.last().map(|member| member.places.clone()).unwrap_or_default();
        let levels = plans.iter().zip(place).map(|(plan, place)| level(group, plan, place.lane)).collect();
        self.roles.push(Role {
            plans,
            levels,
            retries: retries(group),
            reads: group.reads.map(|size| size.0),
        });
        Ok(())
    }
}

/// The person's own period of an operator: one sequence a second, unless told otherwise.
fn period(group: &Group) -> Duration {
    group.period.map_or(Duration::from_secs(1), |span| span.0)
}

fn lines(group: &Group) -> Vec<String> {
    let usual = match group.kind {
        Kind::Kubelet => "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-{n}",
        Kind::Leader => "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/leader-{n}",
        _ => return group.calls.clone(),
    };
    if group.calls.is_empty() { vec![usual.to_owned()] } else { group.calls.clone() }
}

fn numbered(text: &str, number: u32) -> String {
    text.replace("{n}", &number.to_string())
}

fn times(group: &Group, phases: &Phases) -> (Instant, Instant) {
    let storm = Instant::ORIGIN + phases.calm.0;
    let after = storm + phases.storm.0;
    // A moment beyond the end: nobody stops at the very end of the run.
    let end = after + phases.after.0 + Duration::from_secs(1);
    let (from, to) = match group.during {
        During::Run => (Instant::ORIGIN, end),
        During::Calm => (Instant::ORIGIN, storm),
        During::Storm => (storm, after),
        During::FromStorm => (storm, end),
    };
    let at = |span: super::scenario::Span| Instant::ORIGIN + span.0;
    (group.starts.map_or(from, at), group.stops.map_or(to, at))
}

fn behaviour(group: &Group, plans: usize, shifts: u32) -> Box<dyn Behaviour> {
    let timeout = group.timeout.map(|span| span.0);
    match group.kind {
        Kind::Kubelet => Box::new(Lease::new()),
        Kind::Leader => Box::new(Leader::new()),
        Kind::Operator => Box::new(Operator::new(plans, period(group) * shifts)),
        Kind::Informer => Box::new(Reflector::new(timeout)),
        Kind::Loop => {
            let period = group.period.map_or(Duration::ZERO, |span| span.0);
            Box::new(Looping::new(plans, period, group.jitter, timeout.unwrap_or(TIMEOUT)))
        }
    }
}

fn retries(group: &Group) -> Retries {
    match group.retry {
        Retry::ClientGo => Retries::ClientGo,
        Retry::KubeRs => Retries::KubeRs,
        Retry::Ignorant => {
            Retries::Ignorant { pause: group.pause.map_or(super::clients::IGNORANT_PAUSE, |pause| pause.0) }
        }
        Retry::Once => Retries::Once,
    }
}

fn places(group: &Group, lines: &[String], number: u32, policy: &Policy) -> Result<Vec<Place>, CastError> {
    let Some(caller) = &group.identity else {
        // `check` has found the lane's name to be one.
        let lane = group.lane.as_deref().and_then(|lane| Lane::from_str(lane).ok()).unwrap_or(Lane::Unknown);
        let group_hash = group.name.bytes().fold(7, |hash, byte| mix(hash ^ u64::from(byte)));
        let own = mix(group_hash ^ u64::from(number));
        let place = Place { lane, flow: own, client: if group.shared { group_hash } else { own } };
        return Ok(vec![place; lines.len()]);
    };
    let user = numbered(&caller.user, number);
    let node = caller.node.as_ref().map(|node| numbered(node, number));
    let token = user.starts_with("system:serviceaccount:");
    let mut groups: Vec<String> = caller.groups.clone();
    groups.push(GROUP_AUTHENTICATED.to_owned());
    let identity = Identity {
        user,
        uid: None,
        groups,
        extra: node.map(|node| (EXTRA_NODE_NAME.to_owned(), vec![node])).into_iter().collect(),
        credential: if token { Credential::ServiceAccountToken } else { Credential::Certificate },
    };
    let subjects = policy.subjects(&identity);
    lines
        .iter()
        .map(|line| {
            let line = numbered(line, number);
            let (method, path, query) = plan::split(&line)?;
            let wrong = || plan::not_a_request(&line);
            let path = DecodedPath::new(path).map_err(|_| wrong())?;
            let info = RequestInfo::new(method, &path, query).map_err(|_| wrong())?;
            let class = policy.classify(&identity, subjects, &info, &Hints::default());
            Ok(Place { lane: class.lane, flow: class.flow.0, client: class.client.0 })
        })
        .collect()
}

/// The APF level that the bootstrap configuration gives to such a caller.
fn level(group: &Group, plan: &Plan, lane: Lane) -> LevelName {
    let named =
        |wanted: &str| LevelName::ALL.iter().find(|(name, _)| *name == wanted).map(|&(_, level)| level);
    if let Some(level) = group.apf.as_deref().and_then(named) {
        return level;
    }
    if let Some(caller) = &group.identity {
        return level_of_caller(&caller.user, &caller.groups, plan);
    }
    match lane {
        Lane::BreakGlass => LevelName::Exempt,
        Lane::NodeHealth if group.kind == Kind::Leader => LevelName::LeaderElection,
        Lane::NodeHealth => LevelName::NodeHigh,
        Lane::ControlPlane | Lane::Platform => LevelName::WorkloadHigh,
        Lane::Operators => LevelName::GlobalDefault,
        Lane::Workload | Lane::Unknown | Lane::Telemetry => LevelName::WorkloadLow,
    }
}

fn level_of_caller(user: &str, groups: &[String], plan: &Plan) -> LevelName {
    let is = |group: &str| groups.iter().any(|other| other == group);
    let system_account = user.starts_with("system:serviceaccount:kube-system:");
    let controller = matches!(user, "system:kube-controller-manager" | "system:kube-scheduler");
    if is("system:masters") || plan.exempt {
        LevelName::Exempt
    } else if (controller || system_account) && plan.resource == "leases" {
        LevelName::LeaderElection
    } else if is("system:nodes") && (plan.resource == "leases" || plan.write && plan.resource == "nodes") {
        LevelName::NodeHigh
    } else if is("system:nodes") {
        LevelName::System
    } else if controller || system_account {
        LevelName::WorkloadHigh
    } else if user.starts_with("system:serviceaccount:") {
        LevelName::WorkloadLow
    } else {
        LevelName::GlobalDefault
    }
}
