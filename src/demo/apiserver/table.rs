//! What does `kubectl get` print? Rows and columns, which the server decides.
//!
//! kubectl asks for `as=Table;g=meta.k8s.io;v=v1`; the columns are those of a real server for the kinds the demo shows.

use std::time::SystemTime;

use http::HeaderValue;
use serde_json::{Value, json};

use super::object::Object;
use super::resources::Kind;

/// Whether the client wants a table.
pub(crate) fn is_wanted(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else { return false };
    // The first entry is the preferred one; a plain JSON client names no table first.
    let first = accept.split(',').next().unwrap_or_default();
    first.contains("as=Table") && first.contains("v=v1") && first.contains("g=meta.k8s.io")
}

struct Column {
    name: &'static str,
    integer: bool,
    cell: fn(&Row<'_>) -> Value,
    /// 1 is shown with `-o wide` only.
    priority: u8,
}

struct Row<'a> {
    object: &'a Object,
    value: Value,
    now: SystemTime,
}

const fn text(name: &'static str, cell: fn(&Row<'_>) -> Value) -> Column {
    Column { name, integer: false, cell, priority: 0 }
}

const fn integer(name: &'static str, cell: fn(&Row<'_>) -> Value) -> Column {
    Column { name, integer: true, cell, priority: 0 }
}

const NAME: Column = text("Name", |row| row.object.name.as_str().into());
const AGE: Column = text("Age", |row| age(row.now, row.object.created).into());

static GENERIC: [Column; 2] = [NAME, AGE];
static NODES: [Column; 5] = [
    NAME,
    text("Status", |row| ready_word(row.value.pointer("/status/conditions")).into()),
    text("Roles", |_| "<none>".into()),
    AGE,
    text("Version", |row| row.value.pointer("/status/nodeInfo/kubeletVersion").cloned().unwrap_or_default()),
];
static PODS: [Column; 7] = [
    NAME,
    text("Ready", |row| ready_count(&row.value).into()),
    text("Status", |row| row.value.pointer("/status/phase").cloned().unwrap_or_default()),
    text("Restarts", |_| "0".into()),
    AGE,
    Column {
        priority: 1,
        ..text("IP", |row| row.value.pointer("/status/podIP").cloned().unwrap_or_default())
    },
    Column { priority: 1, ..text("Node", |row| row.object.node.as_deref().unwrap_or("<none>").into()) },
];
static DAEMON_SETS: [Column; 6] = [
    NAME,
    integer("Desired", |row| count(&row.value, "desiredNumberScheduled")),
    integer("Current", |row| count(&row.value, "currentNumberScheduled")),
    integer("Ready", |row| count(&row.value, "numberReady")),
    integer("Up-to-date", |row| count(&row.value, "updatedNumberScheduled")),
    AGE,
];
static LEASES: [Column; 3] =
    [NAME, text("Holder", |row| row.value.pointer("/spec/holderIdentity").cloned().unwrap_or_default()), AGE];

fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::NODES => &NODES,
        Kind::PODS => &PODS,
        Kind::DAEMON_SETS => &DAEMON_SETS,
        Kind::LEASES => &LEASES,
        _ => &GENERIC,
    }
}

/// `meta.k8s.io/v1 Table` of these objects; `metadata` is that of the LIST.
pub(crate) fn table<'a>(
    kind: Kind,
    objects: impl Iterator<Item = &'a Object>,
    metadata: &Value,
    now: SystemTime,
) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns.iter().map(Column::definition).collect();
    let rows: Vec<Value> = objects
        .map(|object| {
            let row = Row { object, value: object.value(), now };
            let cells: Vec<Value> = columns.iter().map(|column| (column.cell)(&row)).collect();
            json!({"cells": cells, "object": object.partial()})
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

impl Column {
    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": if self.integer { "integer" } else { "string" },
            "format": if self.name == "Name" { "name" } else { "" },
            "description": "",
            "priority": self.priority,
        })
    }
}

fn ready_word(conditions: Option<&Value>) -> &'static str {
    let ready = conditions.and_then(Value::as_array).into_iter().flatten().find(|c| c["type"] == "Ready");
    if ready.is_some_and(|condition| condition["status"] == "True") { "Ready" } else { "NotReady" }
}

fn ready_count(pod: &Value) -> String {
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let ready = containers.into_iter().flatten().filter(|container| container["ready"] == true).count();
    format!("{ready}/{}", containers.map_or(0, Vec::len))
}

fn count(daemon_set: &Value, field: &str) -> Value {
    daemon_set["status"][field].as_u64().unwrap_or(0).into()
}

/// `5s`, `3m`, `2h`, `40d`: kubectl's short form, a little coarser.
fn age(now: SystemTime, created: SystemTime) -> String {
    let seconds = now.duration_since(created).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ages_read_like_kubectl() {
        let start = SystemTime::UNIX_EPOCH;
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d")] {
            assert_eq!(age(start + Duration::from_secs(seconds), start), text);
        }
        assert_eq!(age(start, start + Duration::from_secs(9)), "0s", "a clock that ran back");
    }

    #[test]
    fn only_a_client_that_prefers_tables_gets_one() {
        let wants = |text: &'static str| is_wanted(Some(&HeaderValue::from_static(text)));
        assert!(wants("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"));
        assert!(!wants("application/json, application/json;as=Table;v=v1;g=meta.k8s.io"));
        assert!(!wants("*/*"));
        assert!(!is_wanted(None));
    }
}
