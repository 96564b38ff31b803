//! What does a request's path and query ask for?
//!
//! The model's own small reading of the Kubernetes paths, on purpose not spillway's: a mistake that both sides
//! shared would not be seen.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::answer::Failure;
use super::object::Object;
use super::resources::Kind;

/// An object or a collection of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// The namespace in the path; `None` for cluster-wide kinds and for LISTs over all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    /// `status` only; others are not served.
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// What `path` names; `None` when it names nothing this server has.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status"]) => {
                (Some(*namespace), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        let kind = Kind::find(group, version, plural)?;
        let namespaced = kind.resource().namespaced;
        let fits = if namespaced { namespace.is_some() || name.is_none() } else { namespace.is_none() };
        fits.then(|| Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    /// `pods "x"`, the way error messages name things.
    pub(crate) fn describe(&self) -> String {
        let resource = self.kind.resource();
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        match &self.name {
            Some(name) => format!("{}{group} \"{name}\"", resource.plural),
            None => format!("{}{group}", resource.plural),
        }
    }
}

/// The list options that the model honours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) watch: bool,
    /// 0 asks for everything.
    pub(crate) limit: usize,
    /// Namespace and name of the last object of the page before.
    pub(crate) after: Option<(String, String)>,
    /// `None` when unset; 0 means any version.
    pub(crate) resource_version: Option<u64>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) selector: Selector,
}

/// Conditions on labels and fields; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    on: On,
    equal: bool,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    Label(String),
    Name,
    Namespace,
    Node,
    Phase,
}

impl Options {
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Failure> {
        let mut options = Self::default();
        for (key, value) in pairs(query.unwrap_or_default()) {
            match &*key {
                "watch" => options.watch = is_true(&value),
                "allowWatchBookmarks" => options.bookmarks = is_true(&value),
                "limit" => options.limit = number(&key, &value)?.unwrap_or(0),
                "timeoutSeconds" => options.timeout_seconds = number(&key, &value)?,
                "resourceVersion" => options.resource_version = number(&key, &value)?,
                "continue" if !value.is_empty() => {
                    let token =
                        value.split_once('/').ok_or_else(|| Failure::bad_request("bad continue token"))?;
                    options.after = Some((token.0.to_owned(), token.1.to_owned()));
                }
                "labelSelector" => options.selector.add(&value, |key| Some(On::Label(key.to_owned())))?,
                "fieldSelector" => options.selector.add(&value, field)?,
                _ => {}
            }
        }
        Ok(options)
    }
}

impl Selector {
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|condition| {
            let actual = match &condition.on {
                On::Label(key) => object.labels.get(key).map(String::as_str),
                On::Name => Some(object.name.as_str()),
                On::Namespace => Some(object.namespace.as_str()),
                On::Node => object.node.as_deref(),
                On::Phase => object.phase.as_deref(),
            };
            (actual == Some(condition.value.as_str())) == condition.equal
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, text: &str, on: impl Fn(&str) -> Option<On>) -> Result<(), Failure> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value, equal) = if let Some((key, value)) = part.split_once("!=") {
                (key, value, false)
            } else if let Some((key, value)) = part.split_once('=') {
                (key, value.trim_start_matches('='), true)
            } else {
                return Err(Failure::bad_request(format!(
                    "the model knows only = and != in selectors: {part}"
                )));
            };
            let on =
                on(key).ok_or_else(|| Failure::bad_request(format!("field label not supported: {key}")))?;
            self.0.push(Condition { on, equal, value: value.to_owned() });
        }
        Ok(())
    }
}

fn field(key: &str) -> Option<On> {
    match key {
        "metadata.name" => Some(On::Name),
        "metadata.namespace" => Some(On::Namespace),
        "spec.nodeName" => Some(On::Node),
        "status.phase" => Some(On::Phase),
        _ => None,
    }
}

/// Kubernetes' rule: everything but `0` and `false` is true, even nothing.
fn is_true(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// Empty counts as unset.
fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<Option<T>, Failure> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| Failure::bad_request(format!("invalid {key}: {value}")))
}

fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8().ok()?.into_owned();
        Some((percent_decode_str(key).decode_utf8().ok()?, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(Kind, Option<String>, Option<String>)> {
        Target::parse(path).map(|target| (target.kind, target.namespace, target.name))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn paths_name_objects_and_collections() {
        assert_eq!(parsed("/api/v1/pods"), Some((Kind::PODS, None, None)));
        assert_eq!(parsed("/api/v1/namespaces/a/pods/p"), Some((Kind::PODS, some("a"), some("p"))));
        assert_eq!(parsed("/api/v1/namespaces/a"), Some((Kind::NAMESPACES, None, some("a"))));
        assert_eq!(parsed("/api/v1/nodes/n1/status"), Some((Kind::NODES, None, some("n1"))));
        assert_eq!(
            parsed("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
            Some((Kind::LEASES, some("kube-node-lease"), some("n1")))
        );
        for nothing in ["/", "/api/v1", "/api/v2/pods", "/apis/apps/v1/pods", "/api/v1/pods/p", "/version"] {
            assert_eq!(parsed(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn queries_follow_the_rules_of_the_api() {
        let options = Options::parse(Some(
            "watch=&limit=5&continue=a%2Fp&resourceVersion=7&allowWatchBookmarks=true\
             &fieldSelector=metadata.name%3Dp,spec.nodeName!=n1&labelSelector=app==x",
        ))
        .expect("valid");
        assert!(options.watch && options.bookmarks);
        assert_eq!(options.limit, 5);
        assert_eq!(options.after, Some(("a".to_owned(), "p".to_owned())));
        assert_eq!(options.resource_version, Some(7));
        assert_eq!(options.selector.0.len(), 3);
        assert!(!Options::parse(Some("watch=FALSE")).expect("valid").watch);
        assert!(Options::parse(Some("limit=abc")).is_err());
        assert!(Options::parse(Some("fieldSelector=status.hostIP=x")).is_err());
    }
}
