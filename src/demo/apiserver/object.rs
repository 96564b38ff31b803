//! What is one stored object?
//!
//! It is kept as the JSON bytes that are sent, with the few fields beside it that selectors, watches and tables ask
//! for, so that a LIST of thousands of objects is a concatenation.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::resources::Kind;

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Empty for cluster-wide kinds.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The store's count when this version was written.
    pub(crate) version: u64,
    pub(crate) created: SystemTime,
    pub(crate) labels: BTreeMap<String, String>,
    /// `spec.nodeName` of a pod.
    pub(crate) node: Option<String>,
    /// `status.phase` of a pod or namespace.
    pub(crate) phase: Option<String>,
    pub(crate) json: Bytes,
}

/// What the store decides about an object; everything else is the client's.
pub(crate) struct Stamp {
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) created: SystemTime,
}

/// The text is no object that could be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object needs to be a JSON object with metadata.name")]
pub(crate) struct NotAnObject;

impl Object {
    /// Fills in what the server owns (kind, namespace, uid, version, creation time) and encodes the object.
    pub(crate) fn new(
        kind: Kind,
        namespace: &str,
        mut value: Value,
        stamp: Stamp,
    ) -> Result<Self, NotAnObject> {
        let resource = kind.resource();
        let fields = value.as_object_mut().ok_or(NotAnObject)?;
        fields.insert("kind".to_owned(), resource.kind.into());
        fields.insert("apiVersion".to_owned(), resource.api_version().into());
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut).ok_or(NotAnObject)?;
        let name = metadata.get("name").and_then(Value::as_str).ok_or(NotAnObject)?.to_owned();
        if resource.namespaced {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        metadata.insert("uid".to_owned(), stamp.uid.clone().into());
        metadata.insert("resourceVersion".to_owned(), stamp.version.to_string().into());
        metadata.insert("creationTimestamp".to_owned(), timestamp(stamp.created).into());
        let labels = labels(metadata);
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let (node, phase) = (text("/spec/nodeName"), text("/status/phase"));
        Ok(Self {
            namespace: namespace.to_owned(),
            name,
            uid: stamp.uid,
            version: stamp.version,
            created: stamp.created,
            labels,
            node,
            phase,
            json: value.to_string().into(),
        })
    }

    /// The object as a tree. What the store encoded decodes again; should it not, the caller sees `null`.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// `metadata` alone, as table rows carry it.
    pub(crate) fn partial(&self) -> Value {
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": self.value()["metadata"],
        })
    }
}

fn labels(metadata: &Map<String, Value>) -> BTreeMap<String, String> {
    let Some(labels) = metadata.get("labels").and_then(Value::as_object) else { return BTreeMap::new() };
    labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// RFC 3339 with whole seconds, as Kubernetes prints times; empty when the time cannot be printed.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// RFC 3339 with microseconds: Kubernetes' `MicroTime`, for lease renewals.
pub(crate) fn timestamp_micros(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let micros = time.microsecond();
    let whole = timestamp(time.into());
    whole.trim_end_matches('Z').to_owned() + &format!(".{micros:06}Z")
}
