//! What does this YAML say, and where does each value stand?
//!
//! The only place that knows the YAML library. It reads a text into a plain tree with a byte range at every node,
//! because the readers above report *all* mistakes with their places, while deserializing straight into types ends
//! at the first. Booleans are `true` and `false` alone, so that `no` stays a word; a key that stands twice is kept
//! twice for the reader to report.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::source::{Source, Span};

/// Documents in one file. Two kinds exist, so this is generous.
const DOCUMENTS_MAX: usize = 16;
/// Nodes in one file: 128 rules of some twenty values are a twentieth of it.
const NODES_MAX: usize = 100_000;
/// Nesting: no kind needs a quarter of it.
const DEPTH_MAX: usize = 32;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    /// Its text is in the source: no setting is a fraction, but `1.2` may be a version.
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of an entry. Keys of other types than text keep their spelling.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Span,
}

/// Why a text is not YAML, and where reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Option<Span>,
}

/// The documents of `source`, empty ones left out.
pub(super) fn documents(source: &Source) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(&source.text, options).map_err(|error| {
        let location = error.location();
        let message = error.without_snippet().to_string();
        let suffix = location.map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        let message =
            suffix.and_then(|suffix| message.strip_suffix(&suffix).map(str::to_owned)).unwrap_or(message);
        SyntaxError { message, span: location.map(|at| span_of_chars(source, at)) }
    })
}

/// Errors of the parser count characters only.
fn span_of_chars(source: &Source, location: Location) -> Span {
    let start = source.byte_of_char(usize::try_from(location.span().offset()).unwrap_or(usize::MAX));
    Span { start, end: start + 1 }
}

fn span_of(location: Location) -> Span {
    let bytes = |count: Option<u64>| count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let start = bytes(location.span().byte_offset());
    Span { start, end: start + bytes(location.span().byte_len()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value, span: span_of(referenced) })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { text: value, span: span_of(referenced) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        // Out of every range that a setting has, whichever end it is cut at.
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Float)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Source, Result<Vec<Node>, SyntaxError>) {
        let source = Source::new(Path::new("test.yaml"), text.to_owned());
        let documents = documents(&source);
        (source, documents)
    }

    fn list(text: &str) -> Vec<(String, Value)> {
        let (source, documents) = read(text);
        let Value::List(nodes) = documents.unwrap().remove(0).value else { panic!("not a list: {text}") };
        nodes.into_iter().map(|node| (source.slice(node.span).to_owned(), node.value)).collect()
    }

    #[test]
    fn every_scalar_knows_its_place_and_words_stay_words() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            list("[no, true, ~, 12, 1.20, 'x', 10.0.0.1:80, 5s]"),
            [
                ("no".to_owned(), text("no")),
                ("true".to_owned(), Value::Bool(true)),
                ("~".to_owned(), Value::Null),
                ("12".to_owned(), Value::Integer(12)),
                ("1.20".to_owned(), Value::Float),
                ("'x'".to_owned(), text("x")),
                ("10.0.0.1:80".to_owned(), text("10.0.0.1:80")),
                ("5s".to_owned(), text("5s")),
            ]
        );
    }

    #[test]
    fn empty_documents_are_left_out_and_double_keys_kept() {
        let (_, documents) = read("---\n---\na: 1\na: 2\n---\n# nothing\n");
        let documents = documents.unwrap();
        assert_eq!(documents.len(), 1);
        assert!(matches!(&documents[0].value, Value::Map(entries) if entries.len() == 2));
        assert_eq!(read("").1, Ok(vec![]));
    }

    #[test]
    fn a_syntax_error_has_its_place_also_behind_umlauts() {
        let (source, documents) = read("ä: 1\nb: \"x\n");
        let error = documents.unwrap_err();
        assert_eq!(error.message, "unclosed quote");
        let place = source.place(error.span.unwrap());
        assert_eq!((place.line, place.column), (2, 4));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(read(&"[".repeat(10_000)).1.is_err());
        assert!(read(&format!("{}{}", "[".repeat(40), "]".repeat(40))).1.is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([-:?\\[\\]{}&*!|>'\"%@#, \n\t]|a|é|\\PC){0,40}") {
            let (source, documents) = read(&text);
            match documents {
                Ok(nodes) => nodes.iter().for_each(|node| { source.place(node.span); }),
                Err(error) => { error.span.map(|span| source.place(span)); }
            }
        }
    }
}
