//! Which kinds does the model serve, and what does it tell discovery about them?
//!
//! Just enough for `kubectl get`, `describe`-free daily work and the demo's clients: the classic discovery documents
//! (`/api`, `/apis`, `/apis/GROUP/VERSION`). Aggregated discovery and OpenAPI are left out: clients fall back.

use serde_json::{Value, json};

/// One kind of object.
#[derive(Debug)]
pub(crate) struct Resource {
    /// API group, empty for the core group.
    pub(crate) group: &'static str,
    /// API version inside the group.
    pub(crate) version: &'static str,
    /// Name in paths.
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    short: &'static [&'static str],
    verbs: Verbs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verbs {
    /// Everything a stored object allows.
    Stored,
    /// Answered on the spot, never stored.
    CreateOnly,
}

/// Index into [`RESOURCES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind(usize);

const fn stored(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced, short, verbs: Verbs::Stored }
}

static RESOURCES: [Resource; 11] = [
    stored("", "nodes", "Node", false, &["no"]),
    stored("", "pods", "Pod", true, &["po"]),
    stored("", "namespaces", "Namespace", false, &["ns"]),
    stored("", "configmaps", "ConfigMap", true, &["cm"]),
    stored("", "services", "Service", true, &["svc"]),
    stored("", "serviceaccounts", "ServiceAccount", true, &["sa"]),
    stored("apps", "daemonsets", "DaemonSet", true, &["ds"]),
    stored("apps", "deployments", "Deployment", true, &["deploy"]),
    stored("coordination.k8s.io", "leases", "Lease", true, &[]),
    stored("discovery.k8s.io", "endpointslices", "EndpointSlice", true, &[]),
    Resource {
        verbs: Verbs::CreateOnly,
        ..stored("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false, &[])
    },
];

impl Kind {
    pub(crate) const NODES: Self = Self(0);
    pub(crate) const PODS: Self = Self(1);
    pub(crate) const NAMESPACES: Self = Self(2);
    pub(crate) const CONFIG_MAPS: Self = Self(3);
    pub(crate) const SERVICES: Self = Self(4);
    pub(crate) const DAEMON_SETS: Self = Self(6);
    pub(crate) const LEASES: Self = Self(8);
    pub(crate) const ENDPOINT_SLICES: Self = Self(9);
    pub(crate) const SELF_SUBJECT_REVIEWS: Self = Self(10);
    /// How many kinds there are.
    pub(crate) const COUNT: usize = RESOURCES.len();

    /// The kind that a path names.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let found = |r: &Resource| r.group == group && r.version == version && r.plural == plural;
        RESOURCES.iter().position(found).map(Self)
    }

    pub(crate) fn resource(self) -> &'static Resource {
        &RESOURCES[self.0]
    }

    /// Position in per-kind tables.
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    fn describe(&self) -> Value {
        let verbs: &[&str] = match self.verbs {
            Verbs::Stored => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Verbs::CreateOnly => &["create"],
        };
        json!({
            "name": self.plural,
            "singularName": self.kind.to_lowercase(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": verbs,
            "shortNames": self.short,
        })
    }
}

/// The document at a discovery path, if it is one.
pub(crate) fn document(path: &str) -> Option<Value> {
    match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", version] => resource_list("", version),
        ["apis", name] => groups().into_iter().find(|group| group == name).map(group),
        ["apis", group, version] => resource_list(group, version),
        ["version"] => Some(json!({
            "major": "1",
            "minor": "34",
            // The suffix says to whoever reads `kubectl version` that this is no cluster.
            "gitVersion": "v1.34.0-spillway-demo",
            "platform": "model",
        })),
        _ => None,
    }
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> = RESOURCES.iter().map(|r| r.group).filter(|group| !group.is_empty()).collect();
    groups.dedup();
    groups
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": [version],
        "preferredVersion": version,
    })
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut of_group = RESOURCES.iter().filter(|r| r.group == group && r.version == version).peekable();
    let group_version = of_group.peek()?.api_version();
    let resources: Vec<Value> = of_group.map(Resource::describe).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_kinds_are_where_they_say() {
        for (kind, plural) in [
            (Kind::NODES, "nodes"),
            (Kind::PODS, "pods"),
            (Kind::NAMESPACES, "namespaces"),
            (Kind::CONFIG_MAPS, "configmaps"),
            (Kind::SERVICES, "services"),
            (Kind::DAEMON_SETS, "daemonsets"),
            (Kind::LEASES, "leases"),
            (Kind::ENDPOINT_SLICES, "endpointslices"),
            (Kind::SELF_SUBJECT_REVIEWS, "selfsubjectreviews"),
        ] {
            assert_eq!(kind.resource().plural, plural);
            let resource = kind.resource();
            assert_eq!(Kind::find(resource.group, "v1", plural), Some(kind));
        }
    }

    #[test]
    fn discovery_leads_from_the_groups_to_the_resources() {
        let groups = document("/apis").expect("a document");
        let names: Vec<_> = groups["groups"].as_array().expect("groups").iter().map(|g| &g["name"]).collect();
        assert_eq!(names, ["apps", "coordination.k8s.io", "discovery.k8s.io", "authentication.k8s.io"]);
        let apps = document("/apis/apps/v1").expect("a document");
        assert_eq!(apps["groupVersion"], "apps/v1");
        assert_eq!(apps["resources"][0]["name"], "daemonsets");
        assert_eq!(document("/apis/apps/v2"), None);
        assert_eq!(document("/api/v1").expect("a document")["resources"][1]["shortNames"][0], "po");
    }
}
