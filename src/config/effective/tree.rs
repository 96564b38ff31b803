//! What does a configuration look like without its types?
//!
//! A plain tree whose maps keep their order, so that it can be written as YAML or JSON and compared key by key. What is
//! absent is `Null`: written, it reads back as absent.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::config::show_duration;

/// A value, a list or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// A word, time, size, address or path.
    Text(String),
    /// Entries in order.
    List(Vec<Tree>),
    /// Keys in order.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// The entry of a map.
    pub(super) fn entry(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What tells an entry of a list from the others, where something does.
    pub(super) fn name(&self) -> Option<&str> {
        match self.entry("name") {
            Some(Self::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether it is shown on one line: no map is in it.
    pub(super) fn is_leaf(&self) -> bool {
        match self {
            Self::Map(_) => false,
            Self::List(entries) => !entries.iter().any(|entry| matches!(entry, Self::Map(_))),
            _ => true,
        }
    }

    /// The entries of a list with the name or number that stands in a path; none of a leaf.
    pub(super) fn parts(&self) -> Vec<(String, &Tree)> {
        match self {
            Self::Map(entries) => entries.iter().map(|(key, value)| (format!(".{key}"), value)).collect(),
            Self::List(entries) if !self.is_leaf() => {
                let part = |(at, entry): (usize, _)| match Self::name(entry) {
                    Some(name) => (format!("[{name}]"), entry),
                    None => (format!("[{at}]"), entry),
                };
                entries.iter().enumerate().map(part).collect()
            }
            _ => vec![],
        }
    }

    /// Every value that is shown on one line, by its dotted path.
    #[must_use]
    pub fn leaves(&self) -> Vec<(String, &Tree)> {
        let mut found = Vec::new();
        self.gather("", &mut found);
        found
    }

    fn gather<'a>(&'a self, path: &str, found: &mut Vec<(String, &'a Tree)>) {
        if self.is_leaf() {
            found.push((path.to_owned(), self));
        }
        for (part, value) in self.parts() {
            value.gather(&joined(path, &part), found);
        }
    }
}

/// `rules` and `[dns]`, `rules[dns]` and `.lane`.
pub(super) fn joined(path: &str, part: &str) -> String {
    if path.is_empty() { part.trim_start_matches('.').to_owned() } else { format!("{path}{part}") }
}

/// A map as the writers make it.
pub(super) fn map<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A list of maps or of values.
pub(super) fn list<'a, T>(entries: &'a [T], show: impl Fn(&'a T) -> Tree) -> Tree {
    Tree::List(entries.iter().map(show).collect())
}

/// A list that may not be written empty: none is `Null`.
pub(super) fn some<'a, T>(entries: &'a [T], show: impl Fn(&'a T) -> Tree) -> Tree {
    if entries.is_empty() { Tree::Null } else { list(entries, show) }
}

/// What may be absent.
pub(super) fn maybe<T>(value: Option<T>, show: impl FnOnce(T) -> Tree) -> Tree {
    value.map_or(Tree::Null, show)
}

/// Words, names and patterns.
pub(super) fn text(text: impl fmt::Display) -> Tree {
    Tree::Text(text.to_string())
}

/// A file or folder.
pub(super) fn path(path: &Path) -> Tree {
    text(path.display())
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Tree {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<Duration> for Tree {
    fn from(value: Duration) -> Self {
        Self::Text(show_duration(value))
    }
}

impl From<SocketAddr> for Tree {
    fn from(value: SocketAddr) -> Self {
        text(value)
    }
}

impl From<&PathBuf> for Tree {
    fn from(value: &PathBuf) -> Self {
        path(value)
    }
}

impl From<&String> for Tree {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

/// On one line, for people.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("none"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(entries) => {
                let shown: Vec<_> = entries.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", shown.join(", "))
            }
            Self::Map(entries) => {
                let shown: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                write!(f, "{{{}}}", shown.join(", "))
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(entries) => serializer.collect_seq(entries),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
