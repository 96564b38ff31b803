//! What may stand in a configuration, as a JSON Schema for editors?
//!
//! Draft 7, which yaml-language-server understands. Keys, types, ranges and words come from the readers (`learn`), the
//! sentences from the table here. A schema knows less than `spillway validate`: it sees one value at a time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::learn::{Learnt, Shape, kinds};
use super::load::API_VERSION;
use super::schema_text::TEXTS;

/// The schema of both kinds.
#[must_use]
pub fn schema() -> Value {
    let [proxy, policy] = kinds().map(|(kind, learned)| document(kind, &learned));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "spillway",
        "description": "The plumbing (ProxyConfiguration) and the policy (TrafficPolicy) of spillway, a guard in front of kube-apiserver.",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": { "kind": { "enum": ["ProxyConfiguration", "TrafficPolicy"] } },
        "if": { "properties": { "kind": { "const": "ProxyConfiguration" } } },
        "then": proxy,
        "else": policy,
    })
}

/// Keys without a sentence, and sentences without a key: both lists are empty in a finished change.
#[must_use]
pub fn undescribed() -> (Vec<String>, Vec<String>) {
    let known: Vec<String> = kinds().into_iter().flat_map(|(_, learned)| learned.into_keys()).collect();
    let is_key = |path: &String| !path.ends_with("[]");
    let without = known.iter().filter(|path| is_key(path) && text(path).is_none()).cloned().collect();
    let is_known =
        |name: &str| known.iter().any(|path| path == name || path.rsplit('.').next() == Some(name));
    let stale = TEXTS.iter().map(|(name, _)| (*name).to_owned()).filter(|name| !is_known(name)).collect();
    (without, stale)
}

/// The sentence about a key: by its whole way, or by its own name where it means the same everywhere.
fn text(path: &str) -> Option<&'static str> {
    let find = |name: &str| TEXTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    find(path).or_else(|| find(path.rsplit('.').next()?))
}

fn document(kind: &str, learned: &BTreeMap<String, Learnt>) -> Value {
    let mut schema = object("", learned);
    schema["properties"]["apiVersion"] =
        json!({ "const": API_VERSION, "description": "The version of this format." });
    schema["properties"]["kind"] = json!({ "const": kind, "description": "What this document is." });
    schema
}

/// The mapping at `path`.
fn object(path: &str, learned: &BTreeMap<String, Learnt>) -> Value {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    let mut keys: Vec<(&str, &String, &Learnt)> = learned
        .iter()
        .filter_map(|(way, learnt)| Some((way.strip_prefix(&prefix)?, way, learnt)))
        .filter(|(key, _, _)| !key.is_empty() && !key.contains(['.', '[']))
        .collect();
    keys.sort_by_key(|(_, _, learnt)| learnt.place);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, way, learnt) in keys {
        let mut value = value(way, learnt, learned);
        if let Some(text) = text(way) {
            value["description"] = text.into();
        }
        properties.insert(key.to_owned(), value);
        if learnt.needed {
            required.push(key);
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn value(path: &str, learnt: &Learnt, learned: &BTreeMap<String, Learnt>) -> Value {
    let mut all = learnt.shapes.iter().map(|shape| shaped(path, shape, learnt, learned));
    match (all.next(), all.len()) {
        (None, _) => json!({}),
        (Some(only), 0) => only,
        (Some(first), _) => json!({ "anyOf": std::iter::once(first).chain(all).collect::<Vec<_>>() }),
    }
}

fn shaped(path: &str, shape: &Shape, learnt: &Learnt, learned: &BTreeMap<String, Learnt>) -> Value {
    // `key:` with nothing behind it counts as absent, unless the key must be there.
    let or_nothing = |kinds: &[&str]| {
        let mut kinds: Vec<Value> = kinds.iter().map(|kind| (*kind).into()).collect();
        if !learnt.needed {
            kinds.push("null".into());
        }
        Value::Array(kinds)
    };
    match shape {
        Shape::Boolean => json!({ "type": or_nothing(&["boolean"]) }),
        Shape::Integer(least, most) => {
            json!({ "type": or_nothing(&["integer"]), "minimum": least, "maximum": most })
        }
        // Of numbers only 0 is a time.
        Shape::Duration(least, most) => json!({
            "type": or_nothing(&["string", "integer"]),
            "pattern": "^(0|([0-9]+(ms|s|m|h))+)$",
            "minimum": 0,
            "maximum": 0,
            "$comment": format!("{least} to {most}"),
        }),
        Shape::Size(least, most) => json!({
            "type": or_nothing(&["string", "integer"]),
            "pattern": "^[0-9]+(KiB|MiB|GiB)?$",
            "minimum": least,
            "maximum": most,
        }),
        Shape::Words(words) => {
            let mut values: Vec<Value> = words.iter().map(|word| word.as_str().into()).collect();
            // A version such as 1.2 is a number to YAML when nobody quotes it.
            values.extend(words.iter().filter_map(|word| word.parse::<f64>().ok()).map(Value::from));
            if !learnt.needed {
                values.push(Value::Null);
            }
            json!({ "enum": values })
        }
        Shape::Text(expected) => {
            json!({ "type": or_nothing(&["string", "number"]), "$comment": expected })
        }
        Shape::List(least, most) => {
            let entry = format!("{path}[]");
            let items = learned.get(&entry).map_or_else(
                || json!({}),
                |learnt| {
                    let needed = Learnt { needed: true, ..learnt.clone() };
                    value(&entry, &needed, learned)
                },
            );
            json!({ "type": or_nothing(&["array"]), "minItems": least, "maxItems": most, "items": items })
        }
        Shape::Object => {
            let mut schema = object(path, learned);
            schema["type"] = or_nothing(&["object"]);
            schema
        }
    }
}
