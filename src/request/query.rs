//! What does the query ask of a list or watch?
//!
//! Decoding is Go's: `&` alone separates, a pair with a `;` or a bad escape is dropped, `+` is a space, and of
//! repeated keys the first counts. Meaning is kube-apiserver's `ListOptions`: `watch` is false only when absent, `0`
//! or `false`, so `watch=no` is a watch. One option that cannot be decoded, and a name in the field selector counts
//! for nothing.

use std::borrow::Cow;

use super::labels;
use super::path::{text, unescape};

/// Since 1.24.12 and 1.25.6 Go ignores a query of more parameters than this as a whole, older versions read it. A
/// kube-apiserver may be built with either, so such a request is taken for the costlier: a list of everything.
const PARAMETERS_MAX: usize = 10_000;

/// The part of a list's or watch's options that decides what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    /// It asks for changes rather than a list.
    pub watch: bool,
    /// Objects a page; `None` for everything at once.
    pub limit: Option<u64>,
    /// It asks for a further page.
    pub continues: bool,
    /// How fresh the answer must be.
    pub resource_version: ResourceVersion,
    /// A watch that begins with all existing objects: it costs as much as a list.
    pub send_initial_events: bool,
    /// What narrows it down.
    pub selector: Selector,
}

/// How fresh the answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceVersion {
    /// Not given: the newest state, which may need etcd.
    #[default]
    Unset,
    /// `0`: whatever the watch cache has; a page limit is ignored.
    Any,
    /// A version of its own.
    Exact,
}

/// What narrows a list down. The selection itself is done after everything was read, a name's excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Nothing.
    #[default]
    None,
    /// Labels only.
    Label,
    /// Fields, and perhaps labels.
    Field,
    /// One object's name.
    Name,
}

/// What [`read`] found: the options, and the name that an exact match on `metadata.name` gives.
#[derive(Default)]
pub(super) struct Read<'a> {
    pub(super) query: Query,
    pub(super) name: Cow<'a, str>,
    /// It has more parameters than [`PARAMETERS_MAX`].
    pub(super) overlong: bool,
}

/// First values of the keys that matter; `None` where a key is absent. Bytes, because Go orders the terms of a
/// selector by them.
#[derive(Default)]
struct Values<'a> {
    watch: Option<Cow<'a, [u8]>>,
    limit: Option<Cow<'a, [u8]>>,
    timeout_seconds: Option<Cow<'a, [u8]>>,
    continues: Option<Cow<'a, [u8]>>,
    resource_version: Option<Cow<'a, [u8]>>,
    send_initial_events: Option<Cow<'a, [u8]>>,
    field_selector: Option<Cow<'a, [u8]>>,
    label_selector: Option<Cow<'a, [u8]>>,
}

pub(super) fn read(raw: &str) -> Read<'_> {
    let parameters = |raw: &str| raw.bytes().filter(|byte| *byte == b'&').count() + 1;
    if raw.len() >= PARAMETERS_MAX && parameters(raw) > PARAMETERS_MAX {
        return Read { overlong: true, ..Read::default() };
    }
    let values = Values::of(raw);
    let given = |value: &Option<Cow<'_, [u8]>>| value.as_deref().is_some_and(|text| !text.is_empty());
    let limit = integer(values.limit.as_deref());
    let mut query = Query {
        watch: values.watches(),
        limit: limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0),
        continues: given(&values.continues),
        resource_version: match values.resource_version.as_deref() {
            None | Some(b"") => ResourceVersion::Unset,
            Some(b"0") => ResourceVersion::Any,
            Some(_) => ResourceVersion::Exact,
        },
        send_initial_events: values.send_initial_events.as_deref().is_some_and(|text| !is_false(text)),
        selector: match (given(&values.field_selector), given(&values.label_selector)) {
            (true, _) => Selector::Field,
            (false, true) => Selector::Label,
            (false, false) => Selector::None,
        },
    };
    let name = values.name().unwrap_or_default();
    if !name.is_empty() {
        query.selector = Selector::Name;
    }
    Read { query, name, overlong: false }
}

impl<'a> Values<'a> {
    fn of(raw: &'a str) -> Self {
        let mut values = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(key) = component(key) else { continue };
            let slot = match &*key {
                b"watch" => &mut values.watch,
                b"limit" => &mut values.limit,
                b"timeoutSeconds" => &mut values.timeout_seconds,
                b"continue" => &mut values.continues,
                b"resourceVersion" => &mut values.resource_version,
                b"sendInitialEvents" => &mut values.send_initial_events,
                b"fieldSelector" => &mut values.field_selector,
                b"labelSelector" => &mut values.label_selector,
                _ => continue,
            };
            if slot.is_none() {
                *slot = component(value);
            }
        }
        values
    }

    /// Whether it asks for a watch. Decoded as an option, the word `false` is compared as Unicode folds case; where
    /// any option cannot be decoded, kube-apiserver looks at `watch` alone, and as ASCII.
    fn watches(&self) -> bool {
        let Some(watch) = self.watch.as_deref() else { return false };
        let is_ascii_false = watch.is_ascii() && is_false(watch);
        !is_ascii_false && (!is_false(watch) || !self.can_be_decoded())
    }

    /// The name that the field selector demands, where every option can be decoded.
    fn name(&self) -> Option<Cow<'a, str>> {
        let name = match self.field_selector.as_ref()? {
            Cow::Borrowed(selector) => exact_name(selector)?,
            Cow::Owned(selector) => exact_name(selector)?.map(|name| Cow::Owned(name.into_owned())),
        };
        // Last, because hardly any request gets here.
        name.map(text).filter(|name| is_path_segment(name) && self.can_be_decoded())
    }

    fn can_be_decoded(&self) -> bool {
        integer(self.limit.as_deref()).is_some()
            && integer(self.timeout_seconds.as_deref()).is_some()
            && self.field_selector.as_deref().is_none_or(|selector| exact_name(selector).is_some())
            && self.label_selector.as_deref().is_none_or(labels::is_readable)
    }
}

/// One key or value; `None` when its escapes are bad.
fn component(raw: &str) -> Option<Cow<'_, [u8]>> {
    if raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return unescape(raw.as_bytes(), b' ').map(Cow::Owned);
    }
    Some(Cow::Borrowed(raw.as_bytes()))
}

/// Go's `strconv.ParseInt`; 0 where it is absent, `None` where it is no number.
fn integer(value: Option<&[u8]>) -> Option<i64> {
    value.map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse().ok())
}

/// Present is true, except for these words (`runtime.Convert_Slice_string_To_bool`). Go folds the case of all of
/// Unicode, where the long s is an s.
fn is_false(value: &[u8]) -> bool {
    const LONG_S: &[u8] = "\u{17f}".as_bytes();
    let with_long_s = || {
        let (start, end) = value.split_at_checked(3)?;
        Some(start.eq_ignore_ascii_case(b"fal") && end.strip_prefix(LONG_S)?.eq_ignore_ascii_case(b"e"))
    };
    value == b"0" || value.eq_ignore_ascii_case(b"false") || with_long_s() == Some(true)
}

/// The value that a field selector demands of `metadata.name`, by `fields.ParseSelector`: of several terms the first
/// in byte order counts, because it sorts them. `None` where kube-apiserver finds the selector invalid.
fn exact_name(selector: &[u8]) -> Option<Option<Cow<'_, [u8]>>> {
    let mut first: Option<(&[u8], Cow<'_, [u8]>)> = None;
    for term in Terms(selector).filter(|term| !term.is_empty()) {
        let (field, exact, value) = split_term(term)?;
        let value = unescaped(value)?;
        if exact && field == b"metadata.name" && first.as_ref().is_none_or(|(other, _)| term < *other) {
            first = Some((term, value));
        }
    }
    Some(first.map(|(_, value)| value))
}

/// The terms of a field selector: split at commas that no backslash escapes.
struct Terms<'a>(&'a [u8]);

impl<'a> Iterator for Terms<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let mut escaped = false;
        for (at, byte) in self.0.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b',' => {
                    let term = &self.0[..at];
                    self.0 = &self.0[at + 1..];
                    return Some(term);
                }
                _ => {}
            }
        }
        Some(std::mem::take(&mut self.0))
    }
}

/// Field, whether it must be equal, and value; `None` without an operator.
fn split_term(term: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let equals = term.iter().position(|byte| *byte == b'=')?;
    let differs = equals.checked_sub(1).filter(|before| term[*before] == b'!');
    let (field, rest) = term.split_at(differs.unwrap_or(equals));
    if let Some(value) = rest.strip_prefix(b"!=") {
        return Some((field, false, value));
    }
    rest.strip_prefix(b"==").or_else(|| rest.strip_prefix(b"=")).map(|value| (field, true, value))
}

/// A value without its backslashes; `None` for a bare `,` or `=` or an escape of anything else.
fn unescaped(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !value.iter().any(|byte| matches!(byte, b'\\' | b',' | b'=')) {
        return Some(Cow::Borrowed(value));
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => bytes.next().filter(|next| matches!(next, b'\\' | b',' | b'='))?,
            b',' | b'=' => return None,
            other => other,
        });
    }
    Some(Cow::Owned(plain))
}

/// `path.IsValidPathSegmentName`, and not empty: an empty name is no name.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}
