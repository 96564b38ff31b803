//! What does a client ask, as far as the model must know?
//!
//! A plan is read once from a request line such as `GET /api/v1/pods?limit=500`, by the same code that understands
//! requests in production, and then used for every call of its group.

use crate::flow::{Encoding, Key, Kind};
use crate::request::{DecodedPath, RequestInfo, ResourceVersion, Scope, Selector, Verb};

/// One request line, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// A health probe.
    pub(super) exempt: bool,
    /// A LIST, or a watch that begins with all objects.
    pub(super) list: bool,
    pub(super) watch: bool,
    pub(super) write: bool,
    /// `pods`; empty for paths without a resource.
    pub(super) resource: String,
    pub(super) breadth: Breadth,
    pub(super) selector: Selector,
    pub(super) limit: Option<u64>,
    pub(super) version: ResourceVersion,
    pub(super) encoding: Encoding,
    /// What the scenario says about its cost.
    pub(super) cost: Cost,
}

/// How much a LIST or watch looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    One,
    Namespace,
    Cluster,
}

/// Costs that replace the model's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    pub(super) cpu_micros: Option<f64>,
    pub(super) etcd_micros: Option<f64>,
    pub(super) bytes: Option<u64>,
}

/// The request line cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{line:?} is not a request line: expected \"METHOD /path?query\", such as \"GET /api/v1/pods?limit=500\""
)]
pub struct NotARequest {
    line: String,
}

pub(super) fn not_a_request(line: &str) -> NotARequest {
    NotARequest { line: line.to_owned() }
}

/// The parts of a request line.
pub(super) fn split(line: &str) -> Result<(&str, &str, Option<&str>), NotARequest> {
    let wrong = || not_a_request(line);
    let (method, target) = line.split_once(' ').ok_or_else(wrong)?;
    if !target.starts_with('/')
        || target.contains(' ')
        || !method.bytes().all(|byte| byte.is_ascii_uppercase())
    {
        return Err(wrong());
    }
    Ok(match target.split_once('?') {
        Some((path, query)) => (method, path, Some(query)),
        None => (method, target, None),
    })
}

impl Plan {
    pub(super) fn parse(line: &str, encoding: Encoding) -> Result<Self, NotARequest> {
        let (method, path, query) = split(line)?;
        let wrong = || not_a_request(line);
        let path = DecodedPath::new(path).map_err(|_| wrong())?;
        let info = RequestInfo::new(method, &path, query).map_err(|_| wrong())?;
        Ok(Self::of(&info, encoding))
    }

    fn of(info: &RequestInfo<'_>, encoding: Encoding) -> Self {
        let watch = info.verb == Verb::Watch;
        let list = info.verb == Verb::List || (watch && info.query.send_initial_events);
        Self {
            key: Key::of(info, encoding),
            kind: if watch { Kind::Watch } else { Kind::Short },
            exempt: info.is_health_probe(),
            list,
            watch,
            write: matches!(
                info.verb,
                Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection
            ),
            resource: if info.is_resource { info.resource.to_owned() } else { String::new() },
            breadth: match info.scope() {
                Scope::Namespace => Breadth::Namespace,
                Scope::Cluster => Breadth::Cluster,
                Scope::Object | Scope::NonResource => Breadth::One,
            },
            selector: info.query.selector,
            limit: info.query.limit,
            version: info.query.resource_version,
            encoding,
            cost: Cost::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_understood_as_in_production() {
        let plan = Plan::parse("GET /api/v1/pods?watch=1&sendInitialEvents=true", Encoding::Json).unwrap();
        assert!(plan.watch && plan.list && plan.kind == Kind::Watch);
        assert_eq!((plan.resource.as_str(), plan.breadth), ("pods", Breadth::Cluster));
        let patch = "PATCH /apis/apps/v1/namespaces/obs/daemonsets/agent";
        assert!(Plan::parse(patch, Encoding::Json).unwrap().write);
        assert!(Plan::parse("GET /livez", Encoding::Json).unwrap().exempt);
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for line in ["", "GET", "GET pods", "get /api", "GET /a b"] {
            let error = Plan::parse(line, Encoding::Json).unwrap_err().to_string();
            assert!(error.contains("GET /api/v1/pods?limit=500"), "{error}");
        }
    }
}
