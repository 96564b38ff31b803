//! How do findings look to a code host, which shows them beside the changed lines?
//!
//! SARIF 2.1.0, the part of it that such hosts read: rules with their help, results with places.

use serde_json::{Value, json};

use super::help::code_page;
use crate::config::{Code, Diagnostic, Diagnostics, Severity};

/// The findings as one SARIF run.
pub(super) fn report(found: &Diagnostics) -> Value {
    let mut codes: Vec<Code> = found.0.iter().map(|found| found.code).collect();
    codes.sort();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| rule(*code)).collect();
    let place = |code: Code| codes.iter().position(|known| *known == code);
    let results: Vec<Value> = found.0.iter().map(|found| result(found, place(found.code))).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "spillway", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn rule(code: Code) -> Value {
    let page = code_page(code.as_str()).unwrap_or_default();
    let title = page.lines().next().unwrap_or_default();
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": title },
        "help": { "text": page },
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

fn result(found: &Diagnostic, rule: Option<usize>) -> Value {
    let mut text = found.message.clone();
    for more in found.notes.iter().chain(&found.help) {
        text += &format!("\n{more}");
    }
    let mut result = json!({
        "ruleId": found.code.as_str(),
        "ruleIndex": rule,
        "level": level(found.severity()),
        "message": { "text": text },
    });
    if let Some(place) = &found.place {
        result["locations"] = json!([{ "physicalLocation": {
            "artifactLocation": { "uri": place.file },
            "region": {
                "startLine": place.line, "startColumn": place.column,
                "endLine": place.line, "endColumn": place.end_column,
            },
        } }]);
    }
    result
}
