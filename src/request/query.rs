//! What does the query ask of a list or watch?
//!
//! Decoding is Go's: `&` alone separates, a pair with a `;` or a bad escape is dropped, `+` is a space, and of
//! repeated keys the first counts. Meaning is kube-apiserver's `ListOptions`: `watch` is false only when absent, `0`
//! or `false`, so `watch=no` is a watch.

use std::borrow::Cow;

use super::path::unescape;

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
pub(super) struct Read<'a> {
    pub(super) query: Query,
    pub(super) name: Cow<'a, str>,
}

/// First values of the keys that matter; `None` where a key is absent.
#[derive(Default)]
struct Values<'a> {
    watch: Option<Cow<'a, str>>,
    limit: Option<Cow<'a, str>>,
    timeout_seconds: Option<Cow<'a, str>>,
    continues: Option<Cow<'a, str>>,
    resource_version: Option<Cow<'a, str>>,
    send_initial_events: Option<Cow<'a, str>>,
    field_selector: Option<Cow<'a, str>>,
    label_selector: Option<Cow<'a, str>>,
}

pub(super) fn read(raw: &str) -> Read<'_> {
    let values = Values::of(raw);
    let integer = |value: &Option<Cow<'_, str>>| value.as_deref().map_or(Ok(0), str::parse::<i64>);
    let truth = |value: &Option<Cow<'_, str>>| value.as_deref().is_some_and(is_true);
    let given = |value: &Option<Cow<'_, str>>| value.as_deref().is_some_and(|text| !text.is_empty());
    let limit = integer(&values.limit);
    let mut query = Query {
        watch: truth(&values.watch),
        limit: limit.as_ref().ok().and_then(|limit| u64::try_from(*limit).ok()).filter(|limit| *limit > 0),
        continues: given(&values.continues),
        resource_version: match values.resource_version.as_deref() {
            None | Some("") => ResourceVersion::Unset,
            Some("0") => ResourceVersion::Any,
            Some(_) => ResourceVersion::Exact,
        },
        send_initial_events: truth(&values.send_initial_events),
        selector: match (given(&values.field_selector), given(&values.label_selector)) {
            (true, _) => Selector::Field,
            (false, true) => Selector::Label,
            (false, false) => Selector::None,
        },
    };
    // One option that cannot be decoded, and kube-apiserver looks at `watch` alone.
    let decodes = limit.is_ok() && integer(&values.timeout_seconds).is_ok();
    let name = match values.field_selector {
        Some(selector) if decodes => match selector {
            Cow::Borrowed(text) => exact_name(text),
            Cow::Owned(text) => exact_name(&text).map(|name| Cow::Owned(name.into_owned())),
        },
        _ => None,
    };
    let name = name.filter(|name| is_path_segment(name)).unwrap_or_default();
    if !name.is_empty() {
        query.selector = Selector::Name;
    }
    Read { query, name }
}

impl<'a> Values<'a> {
    fn of(raw: &'a str) -> Self {
        let mut values = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(key) = component(key) else { continue };
            let slot = match &*key {
                "watch" => &mut values.watch,
                "limit" => &mut values.limit,
                "timeoutSeconds" => &mut values.timeout_seconds,
                "continue" => &mut values.continues,
                "resourceVersion" => &mut values.resource_version,
                "sendInitialEvents" => &mut values.send_initial_events,
                "fieldSelector" => &mut values.field_selector,
                "labelSelector" => &mut values.label_selector,
                _ => continue,
            };
            if slot.is_none() {
                *slot = component(value);
            }
        }
        values
    }
}

/// One key or value; `None` when its escapes are bad.
fn component(raw: &str) -> Option<Cow<'_, str>> {
    if raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return unescape(raw, b' ').map(Cow::Owned);
    }
    Some(Cow::Borrowed(raw))
}

/// Present is true, except for these words (`runtime.Convert_Slice_string_To_bool`).
fn is_true(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// The value that a field selector demands of `metadata.name`, by `fields.ParseSelector`: of several terms the first
/// in byte order counts, because it sorts them. `None` also where kube-apiserver finds the selector invalid.
fn exact_name(selector: &str) -> Option<Cow<'_, str>> {
    let mut first: Option<(&str, Cow<'_, str>)> = None;
    for term in Terms(selector).filter(|term| !term.is_empty()) {
        let (field, exact, value) = split_term(term)?;
        let value = unescaped(value)?;
        if exact && field == "metadata.name" && first.as_ref().is_none_or(|(other, _)| term < *other) {
            first = Some((term, value));
        }
    }
    first.map(|(_, value)| value)
}

/// The terms of a field selector: split at commas that no backslash escapes.
struct Terms<'a>(&'a str);

impl<'a> Iterator for Terms<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let mut escaped = false;
        for (at, byte) in self.0.bytes().enumerate() {
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
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let equals = term.find('=')?;
    let (field, rest) = term.split_at(term.find("!=").map_or(equals, |at| at.min(equals)));
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).map(|value| (field, true, value))
}

/// A value without its backslashes; `None` for a bare `,` or `=` or an escape of anything else.
fn unescaped(value: &str) -> Option<Cow<'_, str>> {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b',' | b'=')) {
        return Some(Cow::Borrowed(value));
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?,
            ',' | '=' => return None,
            other => other,
        });
    }
    Some(Cow::Owned(plain))
}

/// `path.IsValidPathSegmentName`, and not empty: an empty name is no name.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}
