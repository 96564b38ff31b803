//! Which kind of call is this, as far as its cost is concerned?
//!
//! A [`Key`] names the calls that should cost the same: resource, verb, scope, selector kind, limit bucket,
//! resourceVersion class and encoding. Selector *kind*, not text, because clients choose the text. A key also knows
//! its family (resource, verb, scope), from which an unknown key is priced, the prior of its shape and the objective
//! that applies to it.

use crate::request::{RequestInfo, ResourceVersion, Scope, Selector, Verb};

use super::random::mix;

/// How the answer is written: the same objects cost several times more as JSON than as protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`, also for everything that is not recognised.
    #[default]
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `as=Table`: what kubectl prints.
    Table,
    /// `as=PartialObjectMetadata` or its list.
    Metadata,
}

/// Which objective a call is held to, and which of the last-resort windows its samples go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Shape {
    /// A read of one object, or the start of a watch.
    Object = 0,
    /// A write of one object.
    Write = 1,
    /// A LIST of one namespace, or a non-resource document.
    NamespaceList = 2,
    /// A LIST of the whole cluster.
    ClusterList = 3,
    /// Answered by somebody else (kubelets, aggregated proxies): its time says nothing about the apiserver.
    Untimed = 4,
}

impl Shape {
    pub(super) const COUNT: usize = 5;
}

/// What the apiserver must ask to answer a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reach {
    /// Nobody: it answers from its watch cache, or from itself.
    #[default]
    Cached = 0,
    /// etcd, for the newest state.
    Consistent = 1,
    /// Admission webhooks, then etcd.
    Write = 2,
}

impl Reach {
    pub(super) const ALL: [Self; 3] = [Self::Cached, Self::Consistent, Self::Write];

    /// Whether etcd has a part in it.
    pub(super) fn is_etcd(self) -> bool {
        self != Self::Cached
    }
}

/// The kind of a call; cheap to copy, computed once a request.
///
/// Two calls with the same key are expected to cost the same; a LIST with `limit` and `resourceVersion=0` shares its
/// key with the full LIST, because the apiserver's watch cache ignores the limit then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Everything that changes the cost.
    pub(super) exact: u64,
    /// The resource alone, whatever is done to it.
    pub(super) resource: u64,
    /// Resource, verb and scope only. A watch with initial events belongs to the family of its LIST.
    pub(super) family: u64,
    pub(super) shape: Shape,
    pub(super) reach: Reach,
    /// Seats before anything is known: biased up for LISTs, because a first guess that is too low hurts others.
    pub(super) prior: u8,
    /// A LIST that asks for everything at once.
    pub(super) unpaged: bool,
    /// ... and gets it: no selector narrows it.
    pub(super) whole: bool,
}

/// A cluster LIST that nobody bounded.
const PRIOR_CLUSTER_LIST: u8 = 10;
/// A namespace LIST.
const PRIOR_NAMESPACE_LIST: u8 = 2;
/// A cluster LIST from the watch cache narrowed by a field selector: for pods by node the cache has an index.
const PRIOR_INDEXED_LIST: u8 = 3;
/// APF's older estimate: one seat for 100 objects.
const OBJECTS_PER_SEAT: u64 = 100;

impl Key {
    /// The key of a request whose answer will be written as `encoding`.
    #[must_use]
    pub fn of(request: &RequestInfo<'_>, encoding: Encoding) -> Self {
        let query = &request.query;
        // A watch without a resourceVersion, or with 0, begins with all existing objects, asked for or not.
        let from_now = query.resource_version != ResourceVersion::Exact;
        let initial_events = request.verb == Verb::Watch && (query.send_initial_events || from_now);
        let lists = request.verb == Verb::List || initial_events;
        // kube-apiserver serves resourceVersion=0 from its cache and ignores the limit there.
        let limit = match query.resource_version {
            ResourceVersion::Any if !query.continues => None,
            _ => query.limit.filter(|&limit| limit > 0),
        };
        let scope = request.scope();
        let shape = shape(request, lists, scope);
        let family_verb = if initial_events { Verb::List } else { request.verb };
        let resource =
            Fnv::default().text(request.api_group).text(resource(request)).text(request.subresource);
        let family = resource.byte(family_verb as u8).byte(scope as u8);
        let exact = family
            .byte(u8::from(initial_events))
            .byte(query.selector as u8)
            .byte(limit_bucket(limit))
            .byte(query.resource_version as u8)
            .byte(encoding as u8);
        let unpaged = lists && limit.is_none() && scope != Scope::Object;
        let prior = if lists || request.verb == Verb::DeleteCollection {
            list_prior(scope, limit, query.selector, query.resource_version)
        } else {
            1
        };
        let reach = reach(request, scope);
        Self {
            exact: exact.finish(),
            family: family.finish(),
            resource: resource.finish(),
            shape,
            reach,
            prior,
            unpaged,
            whole: unpaged && query.selector == Selector::None,
        }
    }
}

impl Key {
    /// A LIST, or its like, over the whole cluster.
    pub(super) fn is_cluster_list(&self) -> bool {
        self.shape == Shape::ClusterList
    }

    /// It reads what the watch cache may hold.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.shape, Shape::Write | Shape::Untimed)
    }

    /// A LIST, or its like, of more than one object.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.shape, Shape::NamespaceList | Shape::ClusterList)
    }
}

/// Non-resource paths have no resource: their first segment stands in, so that hostile paths make no new keys
/// beyond it (and only calls that succeed are remembered at all).
fn resource<'a>(request: &'a RequestInfo<'_>) -> &'a str {
    if request.is_resource {
        request.resource
    } else {
        request.path.trim_start_matches('/').split('/').next().unwrap_or_default()
    }
}

fn shape(request: &RequestInfo<'_>, lists: bool, scope: Scope) -> Shape {
    if matches!(request.subresource, "exec" | "attach" | "portforward" | "log" | "proxy") {
        return Shape::Untimed;
    }
    match (request.verb, scope) {
        (Verb::Proxy, _) => Shape::Untimed,
        (_, Scope::NonResource) => Shape::NamespaceList,
        (Verb::DeleteCollection, _) => Shape::ClusterList,
        (Verb::Create | Verb::Update | Verb::Patch | Verb::Delete, _) => Shape::Write,
        (_, Scope::Namespace) if lists => Shape::NamespaceList,
        (_, Scope::Cluster) if lists => Shape::ClusterList,
        _ => Shape::Object,
    }
}

fn reach(request: &RequestInfo<'_>, scope: Scope) -> Reach {
    match request.verb {
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => Reach::Write,
        // A watch starts from the cache, whatever version it names; documents are made by the process.
        Verb::Watch | Verb::Proxy => Reach::Cached,
        _ if scope == Scope::NonResource => Reach::Cached,
        // Pages go on at the version of the first, which only etcd still has.
        _ if request.query.continues => Reach::Consistent,
        _ if request.query.resource_version == ResourceVersion::Unset => Reach::Consistent,
        _ => Reach::Cached,
    }
}

fn limit_bucket(limit: Option<u64>) -> u8 {
    match limit {
        None => 0,
        Some(..=100) => 1,
        Some(..=500) => 2,
        Some(_) => 3,
    }
}

fn selects_fields(selector: Selector) -> bool {
    matches!(selector, Selector::Field | Selector::Name)
}

fn list_prior(scope: Scope, limit: Option<u64>, selector: Selector, version: ResourceVersion) -> u8 {
    let whole = match scope {
        Scope::Object => 1,
        Scope::Namespace | Scope::NonResource => PRIOR_NAMESPACE_LIST,
        // By name, too: where that is one key, the scope is an object; here all are looked at.
        Scope::Cluster if selects_fields(selector) && version == ResourceVersion::Any => PRIOR_INDEXED_LIST,
        Scope::Cluster => PRIOR_CLUSTER_LIST,
    };
    let page = limit.map_or(u64::from(whole), |limit| limit.div_ceil(OBJECTS_PER_SEAT).max(1));
    u8::try_from(page).map_or(whole, |page| page.min(whole))
}

/// FNV-1a with SplitMix's finaliser: short inputs, no seed needed, because the table that it indexes is fixed and
/// only calls that the apiserver answered well enter it.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// The text and an end mark, so that "ab" + "c" and "a" + "bc" differ.
    fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte).byte(0xff)
    }

    /// Never 0, which the table uses for "empty".
    fn finish(self) -> u64 {
        mix(self.0).max(1)
    }
}
