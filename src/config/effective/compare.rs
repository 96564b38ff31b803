//! In what do two configurations differ?
//!
//! Maps key by key, lists of what has names by name, all else by value. Where entries stand counts, because the first rule
//! that fits decides: those outside the longest order that both sides share have moved, so one rule that was pulled up is
//! one change and not one for every rule it passed.

use std::collections::HashMap;

use super::tree::{Tree, joined};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where: `lanes.telemetry.wait`, `rules[dns].lane`.
    pub path: String,
    /// What it is.
    pub what: Difference,
}

/// What a difference is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the new side has it.
    Added(Tree),
    /// Only the old side has it.
    Removed(Tree),
    /// Both have it.
    Changed(Tree, Tree),
    /// The same entry at another place: from and to, counted from 1.
    Moved(usize, usize),
}

/// Every difference, in the order of the old side, then what is new.
#[must_use]
pub fn compare(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut found = Vec::new();
    between("", old, new, &mut found);
    found
}

fn between(path: &str, old: &Tree, new: &Tree, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    if old.is_leaf() && new.is_leaf() {
        let what = Difference::Changed(old.clone(), new.clone());
        found.push(Change { path: path.to_owned(), what });
        return;
    }
    // A section against none: all of it came or went.
    let (before, after) = (old.parts(), new.parts());
    let behind: HashMap<&str, &Tree> = after.iter().map(|(part, value)| (part.as_str(), *value)).collect();
    let ahead: HashMap<&str, &Tree> = before.iter().map(|(part, value)| (part.as_str(), *value)).collect();
    for (part, value) in &before {
        match behind.get(part.as_str()) {
            Some(other) => between(&joined(path, part), value, other, found),
            None => whole(&joined(path, part), value, &Difference::Removed, found),
        }
    }
    for (part, value) in after.iter().filter(|(part, _)| !ahead.contains_key(part.as_str())) {
        whole(&joined(path, part), value, &Difference::Added, found);
    }
    if let (Tree::List(_), Tree::List(_)) = (old, new) {
        moved(path, &before, &after, found);
    }
}

/// Each value of what only one side has. What is `Null` in it is there on neither.
fn whole(path: &str, value: &Tree, what: &dyn Fn(Tree) -> Difference, found: &mut Vec<Change>) {
    for (below, leaf) in value.leaves().into_iter().filter(|(_, leaf)| **leaf != Tree::Null) {
        let part = if below.is_empty() || below.starts_with('[') { below } else { format!(".{below}") };
        found.push(Change { path: joined(path, &part), what: what(leaf.clone()) });
    }
}

/// The entries that both lists have and that do not stand in the longest order that they share.
fn moved(path: &str, before: &[(String, &Tree)], after: &[(String, &Tree)], found: &mut Vec<Change>) {
    let place: HashMap<&str, usize> =
        after.iter().enumerate().map(|(at, (part, _))| (part.as_str(), at)).collect();
    let both: Vec<(usize, &str, usize)> = before
        .iter()
        .enumerate()
        .filter_map(|(from, (part, _))| Some((from, part.as_str(), *place.get(part.as_str())?)))
        .collect();
    let kept = longest_rising(&both.iter().map(|(_, _, to)| *to).collect::<Vec<_>>());
    for ((from, part, to), _) in both.iter().zip(kept).filter(|(_, kept)| !kept) {
        found.push(Change { path: joined(path, part), what: Difference::Moved(from + 1, to + 1) });
    }
}

/// Which of these numbers are in a longest rising sequence of them. Lists have at most 128 entries: squares are cheap.
fn longest_rising(numbers: &[usize]) -> Vec<bool> {
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let before = (0..at).filter(|other| numbers[*other] < *number).max_by_key(|other| best[*other].0);
        best.push((before.map_or(1, |other| best[other].0 + 1), before));
    }
    let mut kept = vec![false; numbers.len()];
    let mut at = (0..numbers.len()).max_by_key(|at| best[*at].0);
    while let Some(here) = at {
        kept[here] = true;
        at = best[here].1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::tree::{list, map, text};
    use super::*;

    fn rules(names: &[&str]) -> Tree {
        map([("rules", list(names, |name| map([("name", text(name)), ("lane", text("workload"))])))])
    }

    fn told(old: &Tree, new: &Tree) -> Vec<String> {
        compare(old, new).into_iter().map(|change| format!("{} {:?}", change.path, change.what)).collect()
    }

    #[test]
    fn one_rule_that_was_pulled_up_is_one_change() {
        let (old, new) = (rules(&["a", "b", "c", "d"]), rules(&["d", "a", "b", "c"]));
        assert_eq!(told(&old, &new), ["rules[d] Moved(4, 1)"]);
        assert_eq!(told(&new, &old), ["rules[d] Moved(1, 4)"]);
        assert_eq!(told(&old, &old), [""; 0]);
    }

    #[test]
    fn what_came_and_went_is_told_value_by_value() {
        let changes = told(&rules(&["a", "b"]), &rules(&["b", "x"]));
        assert_eq!(
            changes,
            [
                "rules[a].name Removed(Text(\"a\"))",
                "rules[a].lane Removed(Text(\"workload\"))",
                "rules[x].name Added(Text(\"x\"))",
                "rules[x].lane Added(Text(\"workload\"))",
            ]
        );
    }

    #[test]
    fn a_section_against_none_and_a_list_of_words_are_told() {
        let section = map([("state", map([("dir", text("/x")), ("more", Tree::Null)]))]);
        let none = map([("state", Tree::Null)]);
        assert_eq!(told(&none, &section), ["state.dir Added(Text(\"/x\"))"]);
        assert_eq!(told(&section, &none), ["state.dir Removed(Text(\"/x\"))"]);
        let words = |words: &[&str]| map([("groups", list(words, text))]);
        let changes = told(&words(&["a", "b"]), &words(&["b", "a"]));
        assert_eq!(
            changes,
            ["groups Changed(List([Text(\"a\"), Text(\"b\")]), List([Text(\"b\"), Text(\"a\")]))"]
        );
    }
}
