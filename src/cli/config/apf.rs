//! What do the FlowSchemas of API Priority and Fairness become as rules?
//!
//! FlowSchemas are ordered matches like rules, but their priority levels are free while lanes are eight with a fixed order,
//! so the lane is a proposal that somebody must read. What Kubernetes itself keeps up to date is left out: the default
//! rules cover it. Whatever cannot be kept stands as a comment where it would have been.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::policy::Lane;
use crate::request::is_health_path;

/// Kubernetes keeps such objects itself; whoever changed one has set this to false.
const KEPT_BY_KUBERNETES: &str = "apf.kubernetes.io/autoupdate-spec";
/// Levels of this share and less get what is left elsewhere, too.
const FEW_SHARES: u64 = 10;

/// A TrafficPolicy with a rule for each part of each FlowSchema.
pub(super) fn policy(text: &str) -> Result<String, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("it is not YAML: {error}"))?;
    let objects: Vec<Value> = documents.into_iter().flat_map(items).collect();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let levels: BTreeMap<&str, &Value> =
        of_kind("PriorityLevelConfiguration").map(|level| (name(level), &level["spec"])).collect();
    let mut schemas: Vec<&Value> = of_kind("FlowSchema").collect();
    if schemas.is_empty() {
        return Err("there is no FlowSchema in it".to_owned());
    }
    schemas
        .sort_by_key(|schema| (schema["spec"]["matchingPrecedence"].as_u64().unwrap_or(1_000), name(schema)));
    let mut out = HEAD.to_owned();
    let (own, kept): (Vec<_>, Vec<_>) = schemas
        .into_iter()
        .partition(|schema| schema["metadata"]["annotations"][KEPT_BY_KUBERNETES].as_str() != Some("true"));
    if !kept.is_empty() {
        let names: Vec<&str> = kept.iter().map(|schema| name(schema)).collect();
        comment(
            &mut out,
            0,
            &format!("Kept by Kubernetes itself, and covered by the default rules: {}", names.join(", ")),
        );
    }
    levels_told(&mut out, &own, &levels);
    let mut rules = String::new();
    for schema in own {
        write_schema(&mut rules, schema, &levels);
    }
    let none = !rules.lines().any(|line| line.trim_start().starts_with("- name:"));
    out.push_str(if none { "rules: []\n" } else { "rules:\n" });
    out.push_str(&rules);
    Ok(out)
}

const HEAD: &str = "\
# Made by spillway config init --from-apf. Read every lane: it is a proposal. The order is that of matchingPrecedence, and
# the default rules follow after these. API Priority and Fairness stays on behind spillway.
# Check it with: spillway validate FILE; spillway explain --as … --path … --policy FILE
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: from-apf
# It begins by counting what it would refuse, and refuses nothing; break-glass, isolations and the emergency brake are in force.
# How to go on: `spillway status` after a busy day, then `spillway rollout start`; at the end `mode: Enforce` here.
enforcement:
  mode: Shadow
  steps: [1, 5, 25, 50, 100]
  stepInterval: 30m
";

fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut object) if object.get("items").is_some_and(Value::is_array) => {
            match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("unnamed")
}

fn list<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn comment(out: &mut String, indent: usize, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.len() + word.len() > 116 {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{:indent$}# {line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{:indent$}# {line}", "");
}

/// Which lane a level is like.
fn lane(level: &str, spec: Option<&&Value>) -> Lane {
    match level {
        "exempt" | "system" | "workload-high" => Lane::Platform,
        "node-high" | "leader-election" => Lane::NodeHealth,
        "workload-low" | "global-default" => Lane::Workload,
        "catch-all" => Lane::Unknown,
        _ => match spec {
            Some(spec) if spec["type"] == "Exempt" => Lane::Platform,
            Some(spec) if shares(spec).is_some_and(|shares| shares <= FEW_SHARES) => Lane::Telemetry,
            _ => Lane::Workload,
        },
    }
}

fn shares(spec: &Value) -> Option<u64> {
    spec["limited"]["nominalConcurrencyShares"].as_u64()
}

/// What of the levels in use cannot be kept.
fn levels_told(out: &mut String, schemas: &[&Value], levels: &BTreeMap<&str, &Value>) {
    let mut used: Vec<&str> = schemas
        .iter()
        .filter_map(|schema| schema["spec"]["priorityLevelConfiguration"]["name"].as_str())
        .collect();
    used.sort_unstable();
    used.dedup();
    for level in used {
        let spec = levels.get(level);
        let was = match spec {
            None => "it is not in this file".to_owned(),
            Some(spec) if spec["type"] == "Exempt" => {
                "exempt: nothing but health checks and break-glass is, here".to_owned()
            }
            Some(spec) => {
                let shares = shares(spec).map_or_else(|| "?".to_owned(), |shares| shares.to_string());
                let queue = &spec["limited"]["limitResponse"];
                let queues = match queue["queuing"]["queues"].as_u64() {
                    Some(queues) => format!("{queues} queues"),
                    None => "no queues".to_owned(),
                };
                format!("{shares} shares, {queues}: what the lane has is set in lanes:, in percent of L")
            }
        };
        comment(out, 0, &format!("Priority level {level} → lane {}; {was}", lane(level, spec)));
    }
}

fn write_schema(out: &mut String, schema: &Value, levels: &BTreeMap<&str, &Value>) {
    let spec = &schema["spec"];
    let level = spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let lane = lane(level, levels.get(level));
    let precedence = spec["matchingPrecedence"].as_u64().unwrap_or(1_000);
    comment(out, 2, &format!("FlowSchema {} (precedence {precedence}, level {level})", name(schema)));
    if spec["distinguisherMethod"]["type"] == "ByNamespace" {
        comment(
            out,
            2,
            "not kept: distinguisherMethod ByNamespace; flows are users, and nodes for tokens that name one",
        );
    }
    let mut number = 0;
    for part in spec["rules"].as_array().into_iter().flatten() {
        let who = subjects(part);
        for what in part["resourceRules"].as_array().into_iter().flatten() {
            rule(out, (name(schema), &mut number), &who, &resources(what), lane);
        }
        for what in part["nonResourceRules"].as_array().into_iter().flatten() {
            match paths(what) {
                Some(lines) => rule(out, (name(schema), &mut number), &who, &lines, lane),
                None => comment(out, 2, "left out: health checks are exempt from every lane"),
            }
        }
    }
}

/// One line of a match.
fn line(key: &str, values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| Value::from(value.as_str()).to_string()).collect();
    format!("{key}: [{}]", values.join(", "))
}

/// Whom: users, groups and accounts are alternatives in a FlowSchema, so each kind becomes a rule.
fn subjects(part: &Value) -> Vec<String> {
    let (mut users, mut groups, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for subject in part["subjects"].as_array().into_iter().flatten() {
        let named = |kind: &str| subject[kind]["name"].as_str().map(str::to_owned);
        match subject["kind"].as_str() {
            Some("User") => users.extend(named("user")),
            Some("Group") => groups.extend(named("group")),
            Some("ServiceAccount") => {
                let namespace = subject["serviceAccount"]["namespace"].as_str().unwrap_or("*");
                accounts.extend(named("serviceAccount").map(|account| format!("{namespace}/{account}")));
            }
            _ => {}
        }
    }
    // Everyone is nobody in particular.
    if users.iter().any(|user| user == "*") {
        return vec![String::new()];
    }
    let kinds = [("users", users), ("groups", groups), ("serviceAccounts", accounts)];
    kinds.iter().filter(|(_, names)| !names.is_empty()).map(|(key, names)| line(key, names)).collect()
}

/// The lines of a match for resources, and comments about what cannot be kept.
fn resources(what: &Value) -> Vec<String> {
    let owned = |key: &str| list(what, key).into_iter().map(str::to_owned).collect::<Vec<String>>();
    let mut lines = Vec::new();
    let (verbs, groups, resources, namespaces) =
        (owned("verbs"), owned("apiGroups"), owned("resources"), owned("namespaces"));
    if !verbs.iter().any(|verb| verb == "*") {
        lines.push(line("verbs", &verbs));
    }
    let any_group = groups.iter().any(|group| group == "*");
    let any_resource = resources.iter().any(|resource| resource == "*");
    match (any_group, any_resource) {
        (true, true) => lines.push(line("resources", &["*".to_owned()])),
        (true, false) => {
            lines.push(line("apiGroups", &["*".to_owned()]));
            lines.push(line("resources", &resources));
        }
        (false, true) => lines.push(line("apiGroups", &groups)),
        (false, false) => {
            lines.push(line("apiGroups", &groups));
            lines.push(line("resources", &resources));
        }
    }
    let is_cluster = what["clusterScope"].as_bool().unwrap_or(false);
    let all = namespaces.iter().any(|namespace| namespace == "*");
    match (is_cluster, all, namespaces.is_empty()) {
        (true, true, _) => {}
        (true, false, true) => {
            lines.push("# clusterScope alone cannot be said: requests of namespaces fit, too".to_owned())
        }
        (true, false, false) => {
            lines.push(
                "# clusterScope beside some namespaces cannot be said: only the namespaces are".to_owned(),
            );
            lines.push(line("namespaces", &namespaces));
        }
        (false, true, _) => {
            lines.push("# namespaces only cannot be said: requests of the whole cluster fit, too".to_owned())
        }
        (false, false, _) => lines.push(line("namespaces", &namespaces)),
    }
    lines
}

/// The lines of a match for paths; nothing when only health checks are meant.
fn paths(what: &Value) -> Option<Vec<String>> {
    let verbs: Vec<String> = list(what, "verbs").into_iter().map(str::to_owned).collect();
    let paths: Vec<String> = list(what, "nonResourceURLs")
        .into_iter()
        .filter(|path| !is_health_path(path.trim_end_matches(['*', '/'])))
        .map(str::to_owned)
        .collect();
    if paths.is_empty() {
        return None;
    }
    let mut lines = Vec::new();
    if !verbs.iter().any(|verb| verb == "*") {
        lines.push(line("verbs", &verbs));
    }
    lines.push(line("paths", &paths));
    Some(lines)
}

fn rule(out: &mut String, (schema, number): (&str, &mut usize), who: &[String], what: &[String], lane: Lane) {
    for who in who {
        *number += 1;
        let plain: String = schema
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
            .take(50)
            .collect();
        // A name of 1 to 63 characters; the number tells parts apart.
        let name = if *number == 1 { format!("apf-{plain}") } else { format!("apf-{plain}-{number}") };
        let _ = writeln!(out, "  - name: {name}\n    match:");
        let mut empty = true;
        for line in std::iter::once(who).chain(what).filter(|line| !line.is_empty()) {
            empty &= line.starts_with('#');
            let _ = writeln!(out, "      {line}");
        }
        if empty {
            let _ = writeln!(out, "      {{}}");
        }
        let _ = writeln!(out, "    lane: {lane}");
    }
}
