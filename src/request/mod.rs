//! What does this request ask of Kubernetes?
//!
//! [`RequestInfo`] repeats kube-apiserver's own reading of method, path and query
//! (`staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`): a proxy that reads a request differently
//! from the server behind it can be talked into the wrong lane. The path is read after percent-decoding, as Go's
//! `URL.Path`; the bytes on the wire are forwarded unchanged and never normalised.
//!
//! That the two agree is tested with thousands of requests whose reading was written down by kube-apiserver's own
//! code (`tests/it/oracle.rs`). Nothing is allocated unless the path or the query has percent escapes.
//!
//! Left out: the body, headers, and whether the resource exists.

mod labels;
mod path;
mod query;
mod verb;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use path::{BadEscape, DecodedPath};
pub use query::{Query, ResourceVersion, Selector};
pub use verb::Verb;

/// A request as kube-apiserver's authorizer and API Priority and Fairness see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo<'a> {
    /// Whether it names an API resource; everything else is a plain path.
    pub is_resource: bool,
    /// The Kubernetes verb.
    pub verb: Verb,
    /// The decoded path.
    pub path: &'a str,
    /// API group; empty for the core group.
    pub api_group: &'a str,
    /// API version.
    pub api_version: &'a str,
    /// Namespace; empty for cluster-wide requests.
    pub namespace: &'a str,
    /// Resource, plural.
    pub resource: &'a str,
    /// Subresource, such as `status` or `exec`.
    pub subresource: &'a str,
    /// Object name, from the path or from an exact match on `metadata.name` in the field selector.
    pub name: Cow<'a, str>,
    /// What the query asks of a list or watch; the default for every other verb.
    pub query: Query,
    /// The path has empty, `.` or `..` segments where they matter, and kube-apiserver answers 404; or the query has so
    /// many parameters that its version decides whether it reads them. No rule should be fooled by either.
    pub odd: bool,
}

/// How much a request can touch, in the words of kube-apiserver's own metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One object.
    Object,
    /// Objects of one namespace.
    Namespace,
    /// Objects of the whole cluster.
    Cluster,
    /// Not a resource.
    NonResource,
}

impl Scope {
    /// The word that rules, metrics and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Namespace => "namespace",
            Self::Cluster => "cluster",
            Self::NonResource => "non_resource",
        }
    }
}

/// kube-apiserver cannot make sense of the path and answers 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unable to determine kind and namespace from url: a resource must follow the legacy proxy or watch prefix"
)]
pub struct BadPath;

/// Prefix, group, version, legacy verb, `namespaces`, namespace, resource, name, subresource: later ones are not read.
const SEGMENTS_READ: usize = 9;

/// Cluster-scoped resources that clients select by name: for these a name without a namespace is one object.
const SELECTED_BY_NAME: [&str; 2] = ["nodes", "namespaces"];

/// Long-running on any resource, as `kubeapiserver.DefaultLongRunning…` has it.
const LONG_RUNNING_SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

impl<'a> RequestInfo<'a> {
    /// Reads a request. `method` is case-sensitive, `query` is everything after the `?`.
    ///
    /// ```
    /// use spillway::request::{DecodedPath, RequestInfo, Scope, Verb};
    ///
    /// let path = DecodedPath::new("/api/v1/namespaces/shop/pods")?;
    /// let info = RequestInfo::new("GET", &path, Some("watch=1"))?;
    /// assert_eq!((info.verb, info.namespace, info.resource), (Verb::Watch, "shop", "pods"));
    /// assert_eq!(info.scope(), Scope::Namespace);
    /// assert!(info.is_long_running());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BadPath`] where kube-apiserver answers 500.
    pub fn new(method: &str, path: &'a DecodedPath<'_>, query: Option<&'a str>) -> Result<Self, BadPath> {
        let path = path.as_str();
        let mut buffer = [""; SEGMENTS_READ];
        let segments = split(path, &mut buffer);
        let mut info = Self::plain(method, path);
        match segments {
            ["api", parts @ ..] if parts.len() >= 2 => info.read_resource(method, query, parts)?,
            ["apis", group, parts @ ..] if parts.len() >= 2 => {
                info.api_group = group;
                info.odd |= is_odd(&[group]);
                info.read_resource(method, query, parts)?;
            }
            _ => info.odd |= is_odd(segments),
        }
        Ok(info)
    }

    /// What holds for a path that names no resource.
    fn plain(method: &str, path: &'a str) -> Self {
        Self {
            is_resource: false,
            verb: Verb::of_path(method),
            path,
            api_group: "",
            api_version: "",
            namespace: "",
            resource: "",
            subresource: "",
            name: Cow::Borrowed(""),
            query: Query::default(),
            odd: path.starts_with("//") || path.ends_with("//"),
        }
    }

    /// Reads `parts`: the version and at least one more segment.
    fn read_resource(
        &mut self,
        method: &str,
        query: Option<&'a str>,
        parts: &[&'a str],
    ) -> Result<(), BadPath> {
        self.is_resource = true;
        self.api_version = parts[0];
        let mut rest = &parts[1..];
        let legacy = match rest[0] {
            "proxy" => Some(Verb::Proxy),
            "watch" => Some(Verb::Watch),
            _ => None,
        };
        if legacy.is_some() {
            rest = &rest[1..];
            if rest.is_empty() {
                return Err(BadPath);
            }
        }
        self.verb = legacy.unwrap_or_else(|| Verb::of_resource(method));
        if let ["namespaces", name, further @ ..] = rest {
            self.namespace = name;
            if further.first().is_some_and(|next| !matches!(*next, "status" | "finalize")) {
                rest = further;
            }
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or("");
        self.resource = part(0);
        self.name = Cow::Borrowed(part(1));
        if self.verb != Verb::Proxy {
            self.subresource = part(2);
        }
        // A legacy watch of one object takes options, too.
        if self.name.is_empty() || self.verb == Verb::Watch {
            self.read_collection(query.unwrap_or(""));
        }
        self.odd |= is_odd(&parts[..parts.len() - rest.len()]) || is_odd(&rest[..rest.len().min(3)]);
        Ok(())
    }

    /// A request without a name is for a collection, and the query says the rest.
    fn read_collection(&mut self, query: &'a str) {
        if !matches!(self.verb, Verb::Get | Verb::Watch | Verb::Delete) {
            return;
        }
        let asked = query::read(query);
        self.query = asked.query;
        self.odd |= asked.overlong;
        match self.verb {
            Verb::Get => {
                self.verb = if asked.query.watch { Verb::Watch } else { Verb::List };
                self.name = asked.name;
            }
            Verb::Delete => self.verb = Verb::DeleteCollection,
            // The legacy prefix decides: neither the query's own `watch` nor a name in it is looked at.
            _ => {
                self.query.watch = true;
                if self.query.selector == Selector::Name {
                    self.query.selector = Selector::Field;
                }
            }
        }
    }

    /// How much the request can touch. A list by name counts as one object only where kube-apiserver reads one
    /// key: for a namespaced resource without a namespace it scans them all.
    #[must_use]
    pub fn scope(&self) -> Scope {
        if !self.is_resource {
            return Scope::NonResource;
        }
        let collection = matches!(self.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let by_selector = collection && self.query.selector == Selector::Name;
        let one_key = !by_selector || !self.namespace.is_empty() || SELECTED_BY_NAME.contains(&self.resource);
        if self.verb == Verb::Create || !self.name.is_empty() && one_key {
            Scope::Object
        } else if !self.namespace.is_empty() {
            Scope::Namespace
        } else {
            Scope::Cluster
        }
    }

    /// Whether kube-apiserver gives it no deadline: watches, streams, logs and proxied requests.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, Verb::Watch | Verb::Proxy)
            || self.is_resource && LONG_RUNNING_SUBRESOURCES.contains(&self.subresource)
            || !self.is_resource && self.path.starts_with("/debug/pprof/")
    }

    /// Whether it is a health check: GET of `/livez`, `/readyz`, `/healthz`, their sub-paths, or `/version`.
    #[must_use]
    pub fn is_health_probe(&self) -> bool {
        !self.is_resource && self.verb == Verb::Get && !self.odd && is_health_path(self.path)
    }

    /// Whether it reads a collection whole: no page limit, one that `resourceVersion=0` makes kube-apiserver ignore,
    /// or a watch that begins with all existing objects.
    #[must_use]
    pub fn is_unpaged(&self) -> bool {
        match self.verb {
            Verb::List => self.query.limit.is_none() || self.query.resource_version == ResourceVersion::Any,
            Verb::Watch => self.query.send_initial_events,
            _ => false,
        }
    }
}

/// Whether kube-apiserver serves a health check, or its version, under this path.
#[must_use]
pub fn is_health_path(path: &str) -> bool {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/version" || below("/livez") || below("/readyz") || below("/healthz")
}

/// The segments between the outer slashes, as Go's `strings.Split(strings.Trim(path, "/"), "/")`.
fn split<'a, 'b>(path: &'a str, buffer: &'b mut [&'a str; SEGMENTS_READ]) -> &'b [&'a str] {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return &[];
    }
    let mut count = 0;
    for (slot, segment) in buffer.iter_mut().zip(path.split('/')) {
        *slot = segment;
        count += 1;
    }
    &buffer[..count]
}

fn is_odd(segments: &[&str]) -> bool {
    segments.iter().any(|segment| matches!(*segment, "" | "." | ".."))
}
