//! Which keys are there, and of which type? Asked of the readers themselves.
//!
//! A reader asks its section for every key that it knows before it gives up on one, so it can be run over nothing: a
//! [`Learned`] beside the [`super::section::Reader`] notes each key with the type, the range and the words that are asked
//! for. So the schema is made by the code that reads, and neither can know a key that the other does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::section::{Reader, Section};
use super::source::{Source, Span};
use super::yaml::{Node, Value};
use super::{read_proxy, read_traffic};

/// Keys that are read only to be refused: nobody should be offered one.
const REFUSED: [&str; 3] = ["expression", "valueExpression", "userValidationRules"];

/// What stands where nothing stands.
pub(super) static NOTHING: Node = Node { value: Value::Null, span: Span { start: 0, end: 0 } };

/// What one value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number of this range.
    Integer(u32, u32),
    /// A time of this range.
    Duration(String, String),
    /// A size of this range.
    Size(u64, u64),
    /// One of these words.
    Words(Vec<String>),
    /// A text that is what the words say.
    Text(String),
    /// A list of so many.
    List(usize, usize),
    /// A mapping.
    Object,
}

/// One key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learnt {
    /// What it may be: one of these.
    pub(crate) shapes: Vec<Shape>,
    /// Whether it must be there.
    pub(crate) needed: bool,
    /// Its place among all, so that a schema keeps the readers' order.
    pub(crate) place: usize,
}

/// Every key by its way through the document: `listeners[].tls.certFile`.
#[derive(Debug, Default)]
pub(super) struct Learned(RefCell<BTreeMap<String, Learnt>>);

impl Learned {
    /// Whether a key may be asked for while nothing is read.
    pub(super) fn may_ask(key: &str) -> bool {
        !REFUSED.contains(&key)
    }

    /// A key is known.
    pub(super) fn key(&self, path: &str) {
        let mut learned = self.0.borrow_mut();
        let place = learned.len();
        learned.entry(plain(path)).or_insert_with(|| Learnt { place, ..Learnt::default() });
    }

    /// A key must be there.
    pub(super) fn needed(&self, path: &str) {
        self.key(path);
        if let Some(learnt) = self.0.borrow_mut().get_mut(&plain(path)) {
            learnt.needed = true;
        }
    }

    /// What a value may be; several where a reader asks for several.
    pub(super) fn shape(&self, path: &str, shape: Shape) {
        self.key(path);
        if let Some(learnt) = self.0.borrow_mut().get_mut(&plain(path))
            && !learnt.shapes.contains(&shape)
        {
            learnt.shapes.push(shape);
        }
    }
}

/// A way without numbers: what holds for the first entry holds for all.
fn plain(path: &str) -> String {
    path.replace("[0]", "[]")
}

/// Both kinds and what each knows.
pub(crate) fn kinds() -> [(&'static str, BTreeMap<String, Learnt>); 2] {
    let proxy = learn(|section| _ = read_proxy::read(section));
    let policy = learn(|section| _ = read_traffic::read(section));
    [("ProxyConfiguration", proxy), ("TrafficPolicy", policy)]
}

fn learn(read: impl FnOnce(&mut Section<'_>)) -> BTreeMap<String, Learnt> {
    let source = Source::new(Path::new("nothing"), String::new());
    let reader = Reader::learning(&source);
    reader.root(&NOTHING).section(|section| {
        read(section);
        None::<()>
    });
    reader.learned()
}

impl Learned {
    /// Everything.
    pub(super) fn into_inner(self) -> BTreeMap<String, Learnt> {
        self.0.into_inner()
    }
}
