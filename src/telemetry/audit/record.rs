//! How does one record look?
//!
//! An `audit.k8s.io/v1` Event at level Metadata, with the fields in kube-apiserver's order and what only spillway knows as
//! annotations. A body is never in it, nor a credential. What a client chose is escaped as JSON.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

use crate::flow::Reason;
use crate::identity::Identity;
use crate::policy::Lane;
use crate::request::{DecodedPath, RequestInfo};
use crate::telemetry::{LeverMoved, PolicyChanged};

/// Microseconds, as kube-apiserver writes them.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A request that spillway answered itself.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Joins it with what the client was told.
    pub audit_id: String,
    /// When it arrived.
    pub received: SystemTime,
    /// When it was answered.
    pub answered: SystemTime,
    /// Who asked, where that was found out.
    pub identity: Option<Arc<Identity>>,
    /// It asked to act as somebody else.
    pub impersonates: bool,
    /// From where.
    pub peer: IpAddr,
    /// HTTP method.
    pub method: String,
    /// Path and query as sent, perhaps cut.
    pub uri: String,
    /// As sent, perhaps cut.
    pub user_agent: Option<String>,
    /// Status that was told.
    pub status: u16,
    /// The lane it was in.
    pub lane: Lane,
    /// The rule that chose the lane; empty where none was asked.
    pub rule: String,
    /// Why.
    pub reason: Reason,
    /// Whether spillway's own rules refused it; else it could not be understood, authenticated or forwarded.
    pub is_refusal: bool,
    /// When it may come back.
    pub retry_after_seconds: Option<u32>,
    /// How long it waited in a queue.
    pub queued_ms: u64,
    /// It came through the break-glass listener.
    pub is_break_glass: bool,
}

/// What is written.
#[derive(Debug)]
pub(super) enum Record {
    Answer(Answer),
    /// What an operator did to spillway itself.
    Change(Change),
}

/// See [`Record::Change`].
#[derive(Debug)]
pub(super) struct Change {
    at: SystemTime,
    user: String,
    /// Where a program asks for the same.
    uri: &'static str,
    verb: &'static str,
    annotations: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: User<'a>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Status<'a>>,
    request_received_timestamp: String,
    stage_timestamp: String,
    annotations: serde_json::Map<String, serde_json::Value>,
}

#[derive(Default, Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    extra: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: serde_json::Map<String, serde_json::Value>,
    code: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl Record {
    pub(super) fn lever(event: &LeverMoved<'_>, at: SystemTime) -> Self {
        let LeverMoved { action, id, target, to, seconds, reason, forced, by } = event;
        let uri = match *id {
            "lockdown" => "/v1/lockdown",
            "limit" => "/v1/limit",
            _ => "/v1/isolations",
        };
        let ends = ["release", "lockdown-off", "limit-off", "expired"].contains(action);
        let mut annotations = vec![
            ("decision", "lever".to_owned()),
            ("action", (*action).to_owned()),
            ("id", (*id).to_owned()),
            ("target", (*target).to_owned()),
            ("to", (*to).to_owned()),
            ("reason", (*reason).to_owned()),
            ("seconds", seconds.to_string()),
        ];
        if *forced {
            annotations.push(("forced", "true".to_owned()));
        }
        annotations.retain(|(_, value)| !value.is_empty());
        let verb = if ends { "delete" } else { "create" };
        let user = by.as_ref().map_or_else(|| "system:spillway".to_owned(), name_of);
        Self::Change(Change { at, user, uri, verb, annotations })
    }

    pub(super) fn policy(event: &PolicyChanged<'_>, at: SystemTime) -> Self {
        let annotations = vec![
            ("decision", "policy".to_owned()),
            ("generation", event.generation.to_string()),
            ("policy-hash", event.hash.to_owned()),
            ("file", event.file.to_owned()),
            ("by", event.by.to_owned()),
        ];
        Self::Change(Change {
            at,
            user: "system:spillway".to_owned(),
            uri: "/v1/config",
            verb: "update",
            annotations,
        })
    }

    /// About how many bytes it holds while it waits.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Answer(answer) => {
                    answer.uri.len() + answer.user_agent.as_ref().map_or(0, String::len) + answer.rule.len()
                }
                Self::Change(change) => change.annotations.iter().map(|(_, value)| value.len()).sum(),
            }
    }

    /// Appends the line, with its end.
    pub(super) fn write(&self, line: &mut Vec<u8>) {
        let before = line.len();
        let wrote = match self {
            Self::Answer(answer) => serde_json::to_writer(&mut *line, &answer.event(&answer.info())),
            Self::Change(change) => {
                let id = Uuid::new_v4().to_string();
                serde_json::to_writer(&mut *line, &change.event(&id))
            }
        };
        // Writing to memory does not fail; half a line would.
        match wrote {
            Ok(()) => line.push(b'\n'),
            Err(_) => line.truncate(before),
        }
    }
}

/// The path, decoded; `None` where it cannot be.
struct Info<'a> {
    path: Option<DecodedPath<'a>>,
    query: Option<&'a str>,
}

impl Answer {
    fn info(&self) -> Info<'_> {
        let (path, query) = match self.uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.uri.as_str(), None),
        };
        Info { path: DecodedPath::new(path).ok(), query }
    }

    fn event<'a>(&'a self, info: &'a Info<'a>) -> Event<'a> {
        let request =
            info.path.as_ref().and_then(|path| RequestInfo::new(&self.method, path, info.query).ok());
        let identity = self.identity.as_deref();
        let word = if self.is_refusal { "shed" } else { "failed" };
        let mut notes = vec![
            ("decision", word.to_owned()),
            ("decision-id", self.audit_id.split('-').next().unwrap_or_default().to_owned()),
            ("lane", self.lane.as_str().to_owned()),
            ("rule", self.rule.clone()),
            ("reason", self.reason.as_str().to_owned()),
            ("queued-ms", self.queued_ms.to_string()),
        ];
        if let Some(seconds) = self.retry_after_seconds {
            notes.push(("retry-after-seconds", seconds.to_string()));
        }
        if let Some(identity) = identity {
            notes.push(("credential", identity.credential.to_string()));
        }
        for (key, holds) in [("impersonates", self.impersonates), ("break-glass", self.is_break_glass)] {
            if holds {
                notes.push((key, "true".to_owned()));
            }
        }
        notes.retain(|(_, value)| !value.is_empty());
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: &self.audit_id,
            stage: "ResponseComplete",
            request_uri: &self.uri,
            verb: request.as_ref().map_or("", |info| info.verb.as_str()),
            user: identity.map(user_of).unwrap_or_default(),
            source_ips: vec![self.peer],
            user_agent: self.user_agent.as_deref(),
            object_ref: info.path.as_ref().and_then(|path| object_of(&self.method, path, info.query)),
            response_status: Some(Status {
                metadata: <_>::default(),
                code: self.status,
                reason: reason_of(self.status),
            }),
            request_received_timestamp: show(self.received),
            stage_timestamp: show(self.answered),
            annotations: annotations(notes),
        }
    }
}

impl Change {
    fn event<'a>(&'a self, id: &'a str) -> Event<'a> {
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: id,
            stage: "ResponseComplete",
            request_uri: self.uri,
            verb: self.verb,
            user: User { username: &self.user, ..User::default() },
            source_ips: vec![],
            user_agent: None,
            object_ref: None,
            response_status: Some(Status { metadata: <_>::default(), code: 200, reason: "" }),
            request_received_timestamp: show(self.at),
            stage_timestamp: show(self.at),
            annotations: annotations(self.annotations.clone()),
        }
    }
}

fn annotations(notes: Vec<(&'static str, String)>) -> serde_json::Map<String, serde_json::Value> {
    notes.into_iter().map(|(key, value)| (format!("spillway.dev/{key}"), value.into())).collect()
}

fn user_of(identity: &Identity) -> User<'_> {
    let extra = identity.extra.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
    User { username: &identity.user, uid: identity.uid.as_deref(), groups: &identity.groups, extra }
}

fn object_of<'a>(
    method: &'a str,
    path: &'a DecodedPath<'a>,
    query: Option<&'a str>,
) -> Option<ObjectRef<'a>> {
    let info = RequestInfo::new(method, path, query).ok()?;
    let name = match info.name {
        std::borrow::Cow::Borrowed(name) => name,
        // From a field selector: kube-apiserver's own log has none there.
        std::borrow::Cow::Owned(_) => "",
    };
    info.is_resource.then_some(ObjectRef {
        resource: info.resource,
        namespace: info.namespace,
        name,
        api_group: info.api_group,
        api_version: info.api_version,
        subresource: info.subresource,
    })
}

/// The word of `metav1.StatusReason` for the statuses that spillway gives.
const fn reason_of(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        408 | 504 => "Timeout",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        _ => "",
    }
}

/// Of a process on this node the kernel tells no more than its user id.
fn name_of(by: &crate::telemetry::Asker) -> String {
    match (&by.user, by.uid) {
        (Some(user), _) => user.to_string(),
        (None, Some(uid)) => format!("uid:{uid}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn show(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(TIME).unwrap_or_default()
}
