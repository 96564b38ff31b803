//! How is a YAML tree read into types, with every mistake reported?
//!
//! A [`Section`] is a mapping, a [`Field`] one value. A reader asks a section for the keys it knows; what nobody
//! asked for is an unknown key, so the list of keys and the code that obeys them cannot drift apart. A mistake is
//! reported and reading goes on with `None` or the default: the whole file is read before anything is refused.
//! `key:` with nothing behind it counts as absent, so that a section may be commented out line by line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Code, Diagnostic};
use super::files::{Content, FileUse};
use super::learn::{Learned, Learnt, NOTHING, Shape};
use super::quantity::{self, show_duration, show_size};
use super::source::{Place, Source, Span};
use super::yaml::{Key, Node, Value};
use crate::policy::Lane;

/// What reading one file has found so far.
pub(super) struct Reader<'a> {
    source: &'a Source,
    found: RefCell<Vec<Diagnostic>>,
    files: RefCell<Vec<FileUse>>,
    /// Nothing is read: the keys are learnt.
    learned: Option<Learned>,
}

/// One value and the way to it.
#[derive(Clone)]
pub(super) struct Field<'a> {
    reader: &'a Reader<'a>,
    path: String,
    /// Where findings about it point: a scalar itself, but the key of a mapping or list, which may fill a page.
    span: Span,
    node: &'a Node,
}

/// One mapping, and the keys that were asked for.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    span: Span,
    entries: &'a [(Key, Node)],
    asked: Vec<&'static str>,
    unread: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, found: RefCell::default(), files: RefCell::default(), learned: None }
    }

    /// A reader over nothing, for what it will be asked.
    pub(super) fn learning(source: &'a Source) -> Self {
        Self { learned: Some(Learned::default()), ..Self::new(source) }
    }

    /// What was asked of a learning reader.
    pub(super) fn learned(self) -> BTreeMap<String, Learnt> {
        self.learned.map(Learned::into_inner).unwrap_or_default()
    }

    pub(super) fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field { reader: self, path: String::new(), span: node.span, node }
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    pub(super) fn place(&self, span: Span) -> Place {
        self.source.place(span)
    }

    /// Everything found, and the files that are named.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Vec<FileUse>) {
        (self.found.into_inner(), self.files.into_inner())
    }
}

impl<'a> Section<'a> {
    /// The value of a key that must be there.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<T> {
        if let Some(field) = self.field(key) {
            if let Some(learned) = &self.reader.learned {
                learned.needed(&field.path);
            }
            return read(field);
        }
        let owner = if self.path.is_empty() { "the document".to_owned() } else { format!("`{}`", self.path) };
        let missing = Diagnostic::new(Code::MissingKey, format!("{owner} needs `{key}`"));
        self.report(missing.label(format!("`{key}` is missing here")));
        None
    }

    /// The value of a key that may be absent.
    pub(super) fn maybe<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<T> {
        self.field(key).and_then(read)
    }

    /// The value of a key, or its default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> T {
        self.maybe(key, read).unwrap_or(default)
    }

    /// The value of `key`, unless absent or null.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        if let Some(learned) = &self.reader.learned {
            if !Learned::may_ask(key) {
                return None;
            }
            let field = Field::named(self.reader, &self.path, key);
            learned.key(&field.path);
            return Some(field);
        }
        let (key, node) =
            self.entries.iter().find(|(entry, node)| entry.text == key && node.value != Value::Null)?;
        Some(Field::below(self.reader, &self.path, key, node))
    }

    /// Reports a finding about the section as a whole, at its first line.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.reader.report(diagnostic.at(self.reader.place(self.span)));
    }

    /// Gives up on the section: what its keys mean is not known, so none of them is reported.
    pub(super) fn leave_unread(&mut self) {
        self.unread = true;
    }

    /// Reports the keys that nobody asked for.
    fn finish(self) {
        if self.unread {
            return;
        }
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.text.as_str())) {
            let inside = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            self.reader.report(
                Diagnostic::new(Code::UnknownKey, format!("unknown key {:?}{inside}", key.text))
                    .at(self.reader.place(key.span))
                    .label("no such key")
                    .note(format!("known keys: {}", self.asked.join(", ")))
                    .did_you_mean(&key.text, self.asked.iter().copied()),
            );
        }
    }
}

impl<'a> Field<'a> {
    /// The value of one entry of the mapping at `path`.
    fn below(reader: &'a Reader<'a>, path: &str, key: &Key, node: &'a Node) -> Self {
        let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
        let span = if matches!(node.value, Value::Map(_) | Value::List(_)) { key.span } else { node.span };
        Self { reader, path, span, node }
    }

    /// A value that is not there, for what it should be.
    fn named(reader: &'a Reader<'a>, path: &str, key: &str) -> Self {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        Self { reader, path, span: NOTHING.span, node: &NOTHING }
    }

    /// Notes what the value should be; then there is nothing to read.
    fn learns(&self, shape: impl FnOnce() -> Shape) -> bool {
        let Some(learned) = &self.reader.learned else { return false };
        learned.shape(&self.path, shape());
        true
    }

    pub(super) fn place(&self) -> Place {
        self.reader.place(self.span)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Reports a finding about this value, under which `label` is shown.
    pub(super) fn report(&self, code: Code, message: impl Into<String>, label: impl Into<String>) {
        self.report_with(code, message, label, |diagnostic| diagnostic);
    }

    /// As [`Self::report`], with notes or help added.
    pub(super) fn report_with(
        &self,
        code: Code,
        message: impl Into<String>,
        label: impl Into<String>,
        complete: impl FnOnce(Diagnostic) -> Diagnostic,
    ) {
        self.reader.report(complete(Diagnostic::new(code, message).at(self.place()).label(label)));
    }

    /// Reports a finding about another place, such as this value's key.
    pub(super) fn report_at(&self, diagnostic: Diagnostic, place: Place) {
        self.reader.report(diagnostic.at(place));
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "a number",
            Value::Float => "a fraction or overlong number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        let subject =
            if self.path.is_empty() { "the document".to_owned() } else { format!("`{}`", self.path) };
        self.report(
            Code::WrongType,
            format!("{subject} must be {expected}, not {found}"),
            format!("expected {expected}"),
        );
        None
    }

    fn malformed<T>(&self, text: &str, expected: &str) -> Option<T> {
        let message = format!("`{}` cannot be {text:?}", self.path);
        self.report(Code::Malformed, message, format!("expected {expected}"));
        None
    }

    fn within<T: PartialOrd + Copy, S: Display>(
        &self,
        value: T,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> S,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let expected = format!("expected {} to {}", show(*range.start()), show(*range.end()));
        self.report(Code::OutOfRange, format!("`{}` is out of range", self.path), expected);
        None
    }

    /// The words as written; a plain number counts as its own text.
    pub(super) fn text(self) -> Option<&'a str> {
        if self.learns(|| Shape::Text("a text".to_owned())) {
            return None;
        }
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Float => Some(self.reader.source.slice(self.node.span)),
            _ => self.wrong_type("a text"),
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        if self.learns(|| Shape::Boolean) {
            return None;
        }
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong_type("true or false"),
        }
    }

    pub(super) fn integer(self, range: RangeInclusive<u32>) -> Option<u32> {
        if self.learns(|| Shape::Integer(*range.start(), *range.end())) {
            return None;
        }
        let Value::Integer(value) = self.node.value else { return self.wrong_type("a whole number") };
        let range = i128::from(*range.start())..=i128::from(*range.end());
        self.within(value, range, |value| value).and_then(|value| u32::try_from(value).ok())
    }

    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if self.learns(|| Shape::Duration(show_duration(*range.start()), show_duration(*range.end()))) {
            return None;
        }
        const EXPECTED: &str = "a time with a unit, such as 250ms, 5s or 1m30s";
        let text = match &self.node.value {
            Value::Text(text) => text,
            Value::Integer(0) => "0",
            _ => return self.wrong_type(EXPECTED),
        };
        let Some(value) = quantity::duration(text) else { return self.malformed(text, EXPECTED) };
        self.within(value, range, show_duration)
    }

    pub(super) fn size(self, range: RangeInclusive<u32>) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.bytes(range).and_then(|value| u32::try_from(value).ok())
    }

    /// As [`Self::size`], for what may be larger than 4 GiB.
    pub(super) fn bytes(self, range: RangeInclusive<u64>) -> Option<u64> {
        if self.learns(|| Shape::Size(*range.start(), *range.end())) {
            return None;
        }
        const EXPECTED: &str = "a size, such as 65536, 64KiB or 1MiB";
        let value = match &self.node.value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            Value::Text(text) => match quantity::size(text) {
                None => return self.malformed(text, EXPECTED),
                some => some,
            },
            _ => return self.wrong_type(EXPECTED),
        };
        // A negative number is as far out of range as an overlarge one.
        self.within(value.unwrap_or(u64::MAX), range, show_size)
    }

    /// Whether nothing is read, so that whatever may stand here has to be asked for.
    pub(super) fn is_learnt(&self) -> bool {
        self.reader.learned.is_some()
    }

    /// Whether letters stand here where a number or a size could: somebody meant a word.
    pub(super) fn is_word(&self) -> bool {
        matches!(&self.node.value, Value::Text(text) if text.starts_with(|c: char| c.is_ascii_alphabetic()))
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        if self.learns(|| Shape::Words(words.iter().map(|(word, _)| (*word).to_owned()).collect())) {
            return None;
        }
        let text = self.clone().text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.report_with(
                Code::UnknownWord,
                format!("`{}` cannot be {text:?}", self.path),
                format!("expected {}", alternatives(&known)),
                |diagnostic| diagnostic.did_you_mean(text, known.iter().copied()),
            );
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn address(self) -> Option<SocketAddr> {
        if self.learns(|| Shape::Text("an IP address and a port".to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        let address = text.parse().ok();
        address.or_else(|| {
            self.malformed(text, "an IP address and a port, such as 10.0.0.11:6443 or [::1]:6443")
        })
    }

    /// A name for metrics and logs.
    pub(super) fn name(self) -> Option<String> {
        if self.learns(|| Shape::Text("1 to 63 of a-z, 0-9 and -".to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits {
            return self.malformed(text, "1 to 63 of a-z, 0-9 and -");
        }
        Some(text.to_owned())
    }

    /// A file that must hold `content`, relative to the file that names it.
    pub(super) fn file(self, content: Content) -> Option<PathBuf> {
        if self.learns(|| Shape::Text("the path of a file".to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        if text.is_empty() {
            return self.malformed(text, "the path of a file");
        }
        let path = self.reader.source.resolve(text);
        let wanted = FileUse { path: path.clone(), content, key: self.path.clone(), place: self.place() };
        self.reader.files.borrow_mut().push(wanted);
        Some(path)
    }

    /// A folder, relative to the file that names it. It may be made later.
    /// The path of a file that is written, and need not be there.
    pub(super) fn new_file(self) -> Option<PathBuf> {
        const EXPECTED: &str = "the path of a file that may be written";
        if self.learns(|| Shape::Text(EXPECTED.to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        if text.is_empty() || text.ends_with('/') {
            return self.malformed(text, EXPECTED);
        }
        Some(self.reader.source.resolve(text))
    }

    pub(super) fn folder(self) -> Option<PathBuf> {
        if self.learns(|| Shape::Text("the path of a folder".to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        if text.is_empty() {
            return self.malformed(text, "the path of a folder");
        }
        Some(self.reader.source.resolve(text))
    }

    /// A text that `parse` understands, or else `expected` is.
    pub(super) fn parsed<T>(self, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if self.learns(|| Shape::Text(expected.to_owned())) {
            return None;
        }
        let text = self.clone().text()?;
        parse(text).or_else(|| self.malformed(text, expected))
    }

    /// The entries of a list, each read by `read`; `None` when one of them fails.
    pub(super) fn list<T>(
        self,
        lengths: RangeInclusive<usize>,
        mut read: impl FnMut(Field<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if self.learns(|| Shape::List(*lengths.start(), *lengths.end())) {
            let path = format!("{}[0]", self.path);
            let first = Field { path, ..self };
            if let Some(learned) = &first.reader.learned {
                learned.key(&first.path);
            }
            // What one entry may be is asked for its questions alone.
            let _ = read(first);
            return None;
        }
        let Value::List(nodes) = &self.node.value else { return self.wrong_type("a list") };
        if nodes.len() < *lengths.start() {
            self.report(Code::Empty, format!("`{}` needs an entry", self.path), "this list is empty");
            return None;
        }
        if nodes.len() > *lengths.end() {
            let message = format!("`{}` has {} entries", self.path, nodes.len());
            self.report(Code::TooMany, message, format!("at most {} are possible", lengths.end()));
            return None;
        }
        // Collected twice, so that a mistake in one entry does not hide those in the next.
        let entry = |(at, node): (usize, &'a Node)| {
            let path = format!("{}[{at}]", self.path);
            read(Field { reader: self.reader, path, span: node.span, node })
        };
        let read: Vec<_> = nodes.iter().enumerate().map(entry).collect();
        read.into_iter().collect()
    }

    /// The keys and values of a mapping whose keys are not fixed.
    pub(super) fn entries(self) -> Option<Vec<(Field<'a>, &'a str, Place)>> {
        if self.learns(|| Shape::Object) {
            let lanes = Lane::ALL.into_iter().filter(|lane| *lane != Lane::BreakGlass);
            let entry = |lane: Lane| {
                let field = Field::named(self.reader, &self.path, lane.as_str());
                field.learns(|| Shape::Object);
                (field, lane.as_str(), self.place())
            };
            // Lanes are the only keys that are not fixed by a reader.
            return Some(lanes.map(entry).collect());
        }
        let entries = self.mapping()?;
        let place = |key: &Key| self.reader.place(key.span);
        let field = |key, node| Field::below(self.reader, &self.path, key, node);
        Some(entries.iter().map(|(key, node)| (field(key, node), key.text.as_str(), place(key))).collect())
    }

    /// A mapping with fixed keys. `read` asks for all of them before it gives up on one.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut Section<'a>) -> Option<T>) -> Option<T> {
        // Of the document itself there is no key.
        let is_learnt = self.reader.learned.is_some();
        if is_learnt && !self.path.is_empty() {
            self.learns(|| Shape::Object);
        }
        let entries = if is_learnt { &[] } else { self.mapping()? };
        let Self { reader, path, span, .. } = self;
        let mut section = Section { reader, path, span, entries, asked: Vec::new(), unread: false };
        let value = read(&mut section);
        section.finish();
        value
    }

    fn mapping(&self) -> Option<&'a [(Key, Node)]> {
        let Value::Map(entries) = &self.node.value else {
            return self.wrong_type("a mapping of keys to values");
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            if entries[..at].iter().any(|(other, _)| other.text == key.text) {
                self.reader.report(
                    Diagnostic::new(Code::DuplicateKey, format!("the key {:?} stands twice", key.text))
                        .at(self.reader.place(key.span))
                        .label("keep one of the two"),
                );
            }
        }
        Some(entries)
    }
}

/// `A`, `A or B`, `A, B or C`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
