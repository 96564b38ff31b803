//! Does this name fit that pattern? Literal text in which `*` stands for any run of characters.
//!
//! No regular expressions: names in Kubernetes are short and regular, a policy is read by tired people, and the
//! time to match stays linear in the name.

use std::fmt;

/// Literal text with `*` for any run of characters, also an empty one.
///
/// ```
/// use spillway::policy::Pattern;
///
/// assert!(Pattern::new("*-kube-prometheus-stack-*").matches("mon-kube-prometheus-stack-operator"));
/// assert!(!Pattern::new("coredns").matches("coredns-autoscaler"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
}

impl Pattern {
    /// Every text is a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.into() }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it fits every name.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.text.is_empty() && self.text.bytes().all(|byte| byte == b'*')
    }

    /// Whether it contains a `*`.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.text.contains('*')
    }

    /// Whether `name` fits. The leftmost place for each piece is the right one, so nothing is tried twice.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.text.split_once('*') else { return *self.text == *name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            let Some(at) = name.find(piece) else { return false };
            name = &name[at + piece.len()..];
        }
        name.ends_with(last)
    }

    /// Whether every name that fits `other` fits this too; may say no where the answer is yes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // A `*` in `other` is matched as a character, which only a `*` here can absorb.
        self == other || self.matches(&other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, name, fits) in [
            ("coredns", "coredns", true),
            ("coredns", "coredns2", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("csi-*", "csi-", true),
            ("csi-*", "cs", false),
            ("*-node", "ebs-node", true),
            ("*-node", "ebs-node-2", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*otel*collector*", "my-otel-x-collector-1", true),
            ("**", "x", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern} on {name}");
        }
    }

    proptest! {
        #[test]
        fn a_covering_pattern_fits_whatever_the_other_fits(a in "[ab*]{0,6}", b in "[ab*]{0,6}", name in "[ab]{0,8}") {
            let (a, b) = (Pattern::new(&a), Pattern::new(&b));
            prop_assert!(!a.covers(&b) || !b.matches(&name) || a.matches(&name));
        }
    }
}
