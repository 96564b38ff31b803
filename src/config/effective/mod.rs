//! What is in force once defaults are filled in, where does each value come from, and what would change?
//!
//! `policy` and `proxy` write the types back as a tree that has every key, `compare` finds the differences of two, and
//! here each value learns the place in a file that set it. Left out: what the named files contain.

mod compare;
mod credentials;
mod policy;
mod proxy;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde::ser::SerializeMap as _;

pub use compare::{Change, Difference, compare};
pub use tree::Tree;

use super::diagnostic::Diagnostics;
use super::load::{API_VERSION, DocumentKind, Loaded, PolicyText, default_policy, load_sources};
use super::source::{Place, Source};
use super::yaml::{self, Node, Value};
use tree::joined;

/// The kinds, as documents name them.
const PROXY: &str = "ProxyConfiguration";
const POLICY: &str = "TrafficPolicy";

/// One document, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `ProxyConfiguration` or `TrafficPolicy`.
    pub kind: &'static str,
    /// Every key below it.
    pub tree: Tree,
    /// By dotted path: the key that set a value. What is not here is a default.
    pub origins: BTreeMap<String, Place>,
}

impl Effective {
    /// Whether a change of it waits for a restart: policies never do, and of the plumbing nothing is hot.
    #[must_use]
    pub fn waits_for_restart(&self) -> bool {
        self.kind == PROXY
    }

    fn new(kind: &'static str, tree: Tree, sources: &[Source]) -> Self {
        let mut origins = BTreeMap::new();
        for source in sources {
            // It was read before, so it is YAML.
            for node in yaml::documents(source).unwrap_or_default() {
                if is_of(kind, &node) {
                    trace("", &tree, &node, source, &mut origins);
                }
            }
        }
        Self { kind, tree, origins }
    }
}

/// As a document that can be loaded.
impl Serialize for Effective {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", API_VERSION)?;
        map.serialize_entry("kind", self.kind)?;
        if let Tree::Map(entries) = &self.tree {
            for (key, value) in entries {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// What files say, kind by kind; a kind that none of them has is left out. Files that they name are not looked at.
///
/// # Errors
/// As [`super::load()`].
pub fn effective(paths: &[PathBuf]) -> Result<Vec<Effective>, Diagnostics> {
    let (loaded, sources) = load_sources(paths)?;
    let Loaded { proxy, policy, documents, .. } = &loaded;
    let has_policy = |kind: &DocumentKind| matches!(kind, DocumentKind::TrafficPolicy { .. });
    let mut found = Vec::new();
    if documents.iter().any(|document| has_policy(&document.kind)) {
        found.push(Effective::new(POLICY, policy::tree(policy), &sources));
    }
    found.extend(proxy.as_ref().map(|proxy| Effective::new(PROXY, proxy::tree(proxy), &sources)));
    Ok(found)
}

/// What a kept policy says; without a text it is the embedded one.
///
/// # Errors
/// As [`PolicyText::policy`].
pub fn effective_policy(text: Option<&PolicyText>) -> Result<Effective, Diagnostics> {
    let Some(text) = text else {
        return Ok(Effective::new(POLICY, policy::tree(&default_policy()?), &[]));
    };
    let source = Source::new(&PathBuf::from(&text.file), text.text.clone());
    Ok(Effective::new(POLICY, policy::tree(&text.policy()?), &[source]))
}

fn is_of(kind: &str, node: &Node) -> bool {
    matches!(entry(node, "kind"), Some((_, Node { value: Value::Text(text), .. })) if text == kind)
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<(&'a yaml::Key, &'a Node)> {
    let Value::Map(entries) = &node.value else { return None };
    let found = entries.iter().find(|(entry, node)| entry.text == key && node.value != Value::Null);
    found.map(|(key, node)| (key, node))
}

/// Notes for each value of `tree` the key that set it. A file's own rules come first, so entries have its numbers.
fn trace(path: &str, tree: &Tree, node: &Node, source: &Source, origins: &mut BTreeMap<String, Place>) {
    match (tree, &node.value) {
        (Tree::Map(entries), Value::Map(_)) => {
            for (key, value) in entries {
                // `apiGroups` are part of the resources that they complete.
                let from = entry(node, key).or_else(|| match key.as_str() {
                    "resources" => entry(node, "apiGroups"),
                    _ => None,
                });
                let Some((at, below)) = from else { continue };
                let path = joined(path, &format!(".{key}"));
                if value.is_leaf() {
                    origins.insert(path, source.place(at.span));
                } else {
                    trace(&path, value, below, source, origins);
                }
            }
        }
        (Tree::List(_), Value::List(nodes)) => {
            for ((part, value), node) in tree.parts().into_iter().zip(nodes) {
                trace(&joined(path, &part), value, node, source, origins);
            }
        }
        _ => {}
    }
}
