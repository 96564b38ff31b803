//! In what do two policies differ?
//!
//! What is written is compared, key by key, not the text: comments, order of keys and quotes are no difference. A key that
//! only one of them has stands beside its default in the other. Rules, and whatever else has a `name`, are found again by
//! it, so that one that moved is not two that changed; where the order counts, a move is told as one.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::diagnostic::Diagnostics;
use super::load::PolicyText;
use super::source::{Place, Source};
use super::yaml::{self, Key, Node, Value};

/// The key that a list's entries are found again by.
const NAME: &str = "name";

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    /// Only the new one has it.
    Added,
    /// Only the old one has it.
    Removed,
    /// Both have it, and they say different things.
    Changed,
    /// The same entry of a list, before others than it was.
    Moved,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The way to the key: `lanes.telemetry.ceilingPercent`, `rules[agents].match.users`.
    pub path: String,
    /// What became of it.
    pub became: Became,
    /// What the old one says, as YAML on one line; nothing where it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the new one says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Where it stands: in the new one, or in the old one where it was removed.
    pub place: Spot,
}

/// A place that an editor jumps to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spot {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl From<Place> for Spot {
    fn from(place: Place) -> Self {
        Self { file: place.file, line: place.line, column: place.column }
    }
}

/// The differences from one policy to another, in the order of their keys.
///
/// # Errors
/// What is wrong with one of them; of the old one first.
pub fn compare(old: &PolicyText, new: &PolicyText) -> Result<Vec<Difference>, Diagnostics> {
    old.policy()?;
    new.policy()?;
    let sources = [old, new].map(|text| Source::new(text.file.as_ref(), text.text.clone()));
    let [from, to] = [&sources[0], &sources[1]].map(|source| policy_of(source).unwrap_or(EMPTY));
    let mut found = Comparison { sources: [&sources[0], &sources[1]], found: Vec::new() };
    found.nodes("", &from, &to);
    Ok(found.found)
}

const EMPTY: Node = Node { value: Value::Map(vec![]), span: super::source::Span { start: 0, end: 0 } };

/// The document that is a policy; a policy that was read has one.
fn policy_of(source: &Source) -> Option<Node> {
    let is_policy = |node: &Node| match &node.value {
        Value::Map(entries) => entries.iter().any(|(key, node)| {
            key.text == "kind" && matches!(&node.value, Value::Text(kind) if kind == "TrafficPolicy")
        }),
        _ => false,
    };
    yaml::documents(source).ok()?.into_iter().find(is_policy)
}

struct Comparison<'a> {
    sources: [&'a Source; 2],
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn nodes(&mut self, path: &str, from: &Node, to: &Node) {
        match (&from.value, &to.value) {
            (Value::Map(from), Value::Map(to)) => self.maps(path, from, to),
            (Value::List(old), Value::List(new)) => match (named(old), named(new)) {
                (Some(old), Some(new)) => self.named_lists(path, &old, &new),
                _ => self.values(path, from, to),
            },
            _ => self.values(path, from, to),
        }
    }

    fn maps(&mut self, path: &str, from: &[(Key, Node)], to: &[(Key, Node)]) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        // `key:` with nothing behind it is a key that is not there.
        let find = |entries: &[(Key, Node)], key: &str| {
            entries
                .iter()
                .find(|(k, node)| k.text == key && node.value != Value::Null)
                .map(|(_, node)| node.clone())
        };
        for (key, old) in from.iter().filter(|(_, node)| node.value != Value::Null) {
            match find(to, &key.text) {
                Some(new) => self.nodes(&below(&key.text), old, &new),
                None => self.only(&below(&key.text), Became::Removed, old, key),
            }
        }
        for (key, new) in to.iter().filter(|(_, node)| node.value != Value::Null) {
            if find(from, &key.text).is_none() {
                self.only(&below(&key.text), Became::Added, new, key);
            }
        }
    }

    /// A key that one of them has: a mapping is told key by key, as each has a default of its own.
    fn only(&mut self, path: &str, became: Became, node: &Node, key: &Key) {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => match became {
                Became::Removed => self.maps(path, entries, &[]),
                _ => self.maps(path, &[], entries),
            },
            _ => self.one(path, became, node, key.span),
        }
    }

    fn named_lists(&mut self, path: &str, from: &[(String, &Node)], to: &[(String, &Node)]) {
        let old: BTreeMap<&str, &Node> = from.iter().map(|(name, node)| (name.as_str(), *node)).collect();
        let new: BTreeMap<&str, &Node> = to.iter().map(|(name, node)| (name.as_str(), *node)).collect();
        for (name, node) in from {
            let path = format!("{path}[{name}]");
            match new.get(name.as_str()) {
                Some(new) => self.nodes(&path, node, new),
                None => self.one(&path, Became::Removed, node, node.span),
            }
        }
        for (name, node) in to.iter().filter(|(name, _)| !old.contains_key(name.as_str())) {
            self.one(&format!("{path}[{name}]"), Became::Added, node, node.span);
        }
        self.moves(path, from, to);
    }

    /// Entries that both have and that are not in the longest order that both have.
    fn moves(&mut self, path: &str, from: &[(String, &Node)], to: &[(String, &Node)]) {
        let place = |list: &[(String, &Node)], name: &str| list.iter().position(|(other, _)| other == name);
        let common: Vec<(usize, &(String, &Node))> =
            to.iter().filter_map(|entry| Some((place(from, &entry.0)?, entry))).collect();
        let kept = longest_rise(&common.iter().map(|(at, _)| *at).collect::<Vec<_>>());
        for (at, (_, (name, node))) in common.iter().enumerate() {
            if kept.contains(&at) {
                continue;
            }
            let before =
                common.get(at + 1).map_or("the end".to_owned(), |(_, (next, _))| format!("before {next}"));
            self.found.push(Difference {
                path: format!("{path}[{name}]"),
                became: Became::Moved,
                from: None,
                to: Some(before),
                place: self.sources[1].place(node.span).into(),
            });
        }
    }

    fn values(&mut self, path: &str, from: &Node, to: &Node) {
        let (old, new) = (flow(self.sources[0], from), flow(self.sources[1], to));
        if old == new {
            return;
        }
        self.found.push(Difference {
            path: path.to_owned(),
            became: Became::Changed,
            from: Some(old),
            to: Some(new),
            place: self.sources[1].place(to.span).into(),
        });
    }

    fn one(&mut self, path: &str, became: Became, node: &Node, span: super::source::Span) {
        let source = self.sources[usize::from(became == Became::Added)];
        let text = Some(flow(source, node));
        let (from, to) = if became == Became::Added { (None, text) } else { (text, None) };
        let place = source.place(span).into();
        self.found.push(Difference { path: path.to_owned(), became, from, to, place });
    }
}

/// The entries with their names, where each has one of its own.
fn named(entries: &[Node]) -> Option<Vec<(String, &Node)>> {
    let mut all: Vec<(String, &Node)> = Vec::with_capacity(entries.len());
    for node in entries {
        let Value::Map(keys) = &node.value else { return None };
        let name = keys.iter().find(|(key, _)| key.text == NAME)?;
        let Value::Text(name) = &name.1.value else { return None };
        if all.iter().any(|(other, _)| other == name) {
            return None;
        }
        all.push((name.clone(), node));
    }
    Some(all)
}

/// Which of these form the longest rising order. At most as many as there may be rules: the plain way is quick enough.
fn longest_rise(places: &[usize]) -> Vec<usize> {
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(places.len());
    for (at, place) in places.iter().enumerate() {
        let before = (0..at)
            .filter(|other| places[*other] < *place)
            .max_by_key(|other| (best[*other].0, usize::MAX - other));
        best.push((before.map_or(1, |before| best[before].0 + 1), before));
    }
    let mut last = (0..places.len()).max_by_key(|at| (best[*at].0, usize::MAX - at));
    let mut rise = Vec::new();
    while let Some(at) = last {
        rise.push(at);
        last = best[at].1;
    }
    rise
}

/// A value on one line, as YAML.
fn flow(source: &Source, node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float => source.slice(node.span).trim().to_owned(),
        Value::Text(text) => text.clone(),
        Value::List(entries) => {
            let entries: Vec<String> = entries.iter().map(|entry| flow(source, entry)).collect();
            format!("[{}]", entries.join(", "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, node)| format!("{}: {}", key.text, flow(source, node))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: a\n";

    fn text(file: &str, body: &str) -> PolicyText {
        PolicyText { file: file.to_owned(), text: format!("{HEAD}{body}") }
    }

    fn differences(old: &str, new: &str) -> Vec<String> {
        let found = compare(&text("old.yaml", old), &text("new.yaml", new)).unwrap();
        let line = |found: &Difference| {
            let say = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            format!(
                "{:?} {} {} > {} @{}",
                found.became,
                found.path,
                say(&found.from),
                say(&found.to),
                found.place
            )
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn comments_order_of_keys_and_quotes_are_no_difference() {
        let old = "lanes:\n  telemetry: { ceilingPercent: 40, wait: 2s }\n";
        let new = "# new\nlanes:\n  telemetry:\n    wait: \"2s\"\n    ceilingPercent: 40\n";
        assert_eq!(differences(old, new), Vec::<String>::new());
    }

    #[test]
    fn each_key_is_told_with_its_place() {
        let old = "lanes:\n  telemetry: { ceilingPercent: 40 }\n  unknown: { wait: 1s }\n";
        let new =
            "lanes:\n  telemetry: { ceilingPercent: 50, floorPercent: 1 }\nenforcement: { mode: Shadow }\n";
        assert_eq!(
            differences(old, new),
            [
                "Changed lanes.telemetry.ceilingPercent 40 > 50 @new.yaml:5:32",
                "Added lanes.telemetry.floorPercent - > 1 @new.yaml:5:36",
                "Removed lanes.unknown.wait 1s > - @old.yaml:6:14",
                "Added enforcement.mode - > Shadow @new.yaml:6:16",
            ]
        );
    }

    #[test]
    fn rules_are_found_again_by_name_and_a_move_is_one_difference() {
        let rule = |name: &str, user: &str| {
            format!("  - {{ name: {name}, match: {{ users: [{user}] }}, lane: workload }}\n")
        };
        let (a, b, c, d) = (rule("a", "x"), rule("b", "y"), rule("c", "z"), rule("d", "w"));
        let old = format!("rules:\n{a}{b}{c}");
        assert_eq!(
            differences(&old, &format!("rules:\n{c}{a}{b}")),
            ["Moved rules[c] - > before a @new.yaml:5:5"]
        );
        let changed = rule("b", "v");
        assert_eq!(
            differences(&old, &format!("rules:\n{a}{d}{changed}")),
            [
                "Changed rules[b].match.users [y] > [v] @new.yaml:7:32",
                "Removed rules[c] { name: c, match: { users: [z] }, lane: workload } > - @old.yaml:7:5",
                "Added rules[d] - > { name: d, match: { users: [w] }, lane: workload } @new.yaml:6:5",
            ]
        );
    }

    #[test]
    fn a_policy_that_cannot_be_used_is_not_compared() {
        let broken = compare(&text("old.yaml", ""), &text("new.yaml", "lane: {}\n")).unwrap_err();
        assert_eq!(broken.0[0].code.as_str(), "SPW0905");
        assert_eq!(broken.0[0].place.as_ref().unwrap().file, "new.yaml");
    }
}
