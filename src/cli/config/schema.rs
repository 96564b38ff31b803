//! `spillway config schema`: the JSON Schema that editors complete and check with.

use std::io::Write;

use clap::Args as ClapArgs;

use crate::cli::Ending;
use crate::cli::isolate::ended;
use crate::config;

/// Prints the JSON Schema of both kinds.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway config schema > /etc/spillway/spillway.schema.json

Then put this first into a file, and yaml-language-server completes keys, explains and checks them, without a network:
  # yaml-language-server: $schema=./spillway.schema.json
Draft 7, made by the very code that reads the files. It sees one value at a time: spillway validate sees the whole.")]
pub(super) struct Args {}

/// Prints it.
pub(super) fn run(_: &Args, out: &mut dyn Write) -> Ending {
    ended(writeln!(out, "{:#}", config::schema()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What of draft 7 the schema uses.
    fn wrong(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(any) = schema["anyOf"].as_array() {
            let fits = |schema: &Value| {
                let mut found = Vec::new();
                wrong(schema, value, at, &mut found);
                found.is_empty()
            };
            if !any.iter().any(fits) {
                found.push(format!("{at}: {value} is none of those"));
            }
            return;
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            kinds => kinds.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        let is_kind = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
        if !kinds.is_empty() && !is_kind {
            return found.push(format!("{at}: {kind}, expected {kinds:?}"));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            found.push(format!("{at}: {value} is none of {words:?}"));
        }
        if schema.get("const").is_some_and(|only| only != value) {
            found.push(format!("{at}: {value} is not {}", schema["const"]));
        }
        if let Some(number) = value.as_f64() {
            let outside = |key: &str, is: fn(f64, f64) -> bool| {
                schema[key].as_f64().is_some_and(|bound| is(number, bound))
            };
            if outside("minimum", |number, bound| number < bound)
                || outside("maximum", |number, bound| number > bound)
            {
                found.push(format!("{at}: {number} is out of range"));
            }
        }
        if let Some(entries) = value.as_array() {
            let count = entries.len() as u64;
            let bad = schema["minItems"].as_u64().is_some_and(|least| count < least)
                || schema["maxItems"].as_u64().is_some_and(|most| count > most);
            if bad {
                found.push(format!("{at}: {count} entries"));
            }
            entries.iter().for_each(|entry| wrong(&schema["items"], entry, &format!("{at}[]"), found));
        }
        if let Some(entries) = value.as_object() {
            for (key, value) in entries {
                match schema["properties"].get(key) {
                    Some(schema) => wrong(schema, value, &format!("{at}.{key}"), found),
                    None if schema["additionalProperties"] == Value::Bool(false) => {
                        found.push(format!("{at}: no key {key}"))
                    }
                    None => {}
                }
            }
            let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            needed
                .filter(|key| !entries.contains_key(*key))
                .for_each(|key| found.push(format!("{at}: {key} is missing")));
        }
    }

    fn judged(file: &str) -> Vec<String> {
        let schema = config::schema();
        let text = std::fs::read_to_string(file).unwrap();
        let mut found = Vec::new();
        for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let part = if document["kind"] == "ProxyConfiguration" { "then" } else { "else" };
            wrong(&schema, &document, "", &mut found);
            wrong(&schema[part], &document, "", &mut found);
        }
        found
    }

    #[test]
    fn what_the_readers_take_the_schema_takes() {
        for file in ["config/spillway.yaml", "config/policy.yaml", "tests/golden/config/warnings.yaml"] {
            let found = judged(file);
            assert!(found.is_empty(), "{file}: {found:#?}");
        }
        // This one has one unknown key in every section there is, and nothing else is wrong with it.
        let found = judged("tests/golden/config/every-section.yaml");
        assert!(found.len() > 40 && found.iter().all(|found| found.ends_with(": no key x")), "{found:#?}");
    }

    #[test]
    fn what_the_readers_refuse_at_one_value_the_schema_refuses() {
        for (file, words) in [
            ("unknown-key", "no key"),
            ("bad-word", "is none of"),
            ("wrong-type", "expected"),
            ("out-of-range", "out of range"),
            ("missing", "is missing"),
            ("unknown-lane", ""),
        ] {
            let found = judged(&format!("tests/golden/config/{file}.yaml"));
            // A lane's name in a rule is a text to the schema: `validate` knows better.
            assert!(
                words.is_empty() || found.iter().any(|found| found.contains(words)),
                "{file}: {found:#?}"
            );
        }
    }

    #[test]
    fn every_key_is_explained_and_nothing_else_is() {
        let (without, stale) = config::undescribed();
        assert!(
            without.is_empty(),
            "a line in TEXTS of src/config/schema_text.rs is missing for {without:#?}"
        );
        assert!(stale.is_empty(), "src/config/schema_text.rs explains what is no key any more: {stale:#?}");
        let schema = config::schema();
        assert_eq!(
            schema["then"]["properties"]["listeners"]["items"]["required"],
            serde_json::json!(["name", "address", "tls"])
        );
        let rate =
            &schema["else"]["properties"]["lanes"]["properties"]["telemetry"]["properties"]["identityRate"];
        assert_eq!(rate["properties"]["perSecond"]["maximum"], 1_000_000, "{rate:#}");
    }
}
