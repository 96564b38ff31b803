//! What does the model answer?
//!
//! Order as in kube-apiserver: authenticate, in-flight limits (not for health and watches), then the work, at most
//! for the request timeout. Work is waited for on the modelled machine before anything is read or changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Model;
use super::answer::{Answer, Failure, bytes, document, text, too_many_requests};
use super::capacity::Access;
use super::costs;
use super::identify::Peer;
use super::object::Object;
use super::processor::Work;
use super::resources::{self, Kind};
use super::store::{Refused, join};
use super::table;
use super::target::{Options, Target};
use super::watching::{self, Form};
use crate::clock;
use crate::identity::{Credential, Identity};

/// kube-apiserver's default `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What kube-apiserver accepts in a create, update or patch.
const BODY_BYTES_MAX: usize = 3 << 20;

/// The first bytes of a Kubernetes object in protobuf.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// One request from head to answer.
pub(crate) async fn handle(model: &Arc<Model>, peer: &Peer, request: Request<Incoming>) -> Answer {
    respond(model, peer, request).await.unwrap_or_else(|failure| failure.answer())
}

async fn respond(model: &Arc<Model>, peer: &Peer, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let caller = model.authenticator.identify(peer, &head.headers)?;
    let path = head.uri.path();
    model.faults.hold(needs_etcd(&head)).await;
    if is_probe(path) {
        model.capacity.run(costs::PROBE).await;
        return Ok(text(StatusCode::OK, "ok"));
    }
    if caller.credential == Credential::Anonymous && path != "/version" {
        return Err(Failure::forbidden(format!("User \"{}\" cannot access path \"{path}\"", caller.user)));
    }
    if head.headers.contains_key("impersonate-user") {
        return Err(Failure::forbidden("the model does not impersonate"));
    }
    let options = Options::parse(head.uri.query())?;
    let Some(target) = Target::parse(path) else { return discover(model, path).await };
    let form = if table::is_wanted(head.headers.get(ACCEPT)) { Form::Table } else { Form::Object };
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    if reads && target.name.is_none() && options.watch {
        return watching::watch(model, target.kind, target.namespace, options, form).await;
    }
    let access = if reads { Access::Read } else { Access::Write };
    let Some(_place) = model.in_flight.enter(access) else { return Ok(too_many_requests()) };
    let work = async {
        if reads {
            read(model, &target, &options, form).await
        } else {
            let body = collect(body).await?;
            write(model, &caller, &head.method, &head.headers, &target, body).await
        }
    };
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, work).await;
    answered.unwrap_or_else(|_elapsed| Err(Failure::timeout()))
}

/// Whether a request cannot be answered from memory. Without a resourceVersion a read must be fresh.
fn needs_etcd(head: &Parts) -> bool {
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    if is_probe(path) {
        return path.starts_with("/readyz");
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return true;
    }
    let from_memory = |pair: &str| pair.starts_with("watch=") || pair.starts_with("resourceVersion=");
    Target::parse(path).is_some() && !query.split('&').any(from_memory)
}

fn is_probe(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("livez" | "readyz" | "healthz"))
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let failed = |error| Failure::bad_request(format!("could not read the body: {error}"));
    Ok(collected.map_err(failed)?.to_bytes())
}

async fn discover(model: &Model, path: &str) -> Result<Answer, Failure> {
    model.capacity.run(costs::DOCUMENT).await;
    let found = resources::document(path);
    let found =
        found.ok_or_else(|| Failure::not_found("the server could not find the requested resource"))?;
    Ok(document(StatusCode::OK, &found))
}

async fn read(model: &Model, target: &Target, options: &Options, form: Form) -> Result<Answer, Failure> {
    let Some(name) = &target.name else {
        model.capacity.run(list_work(model, target, options)).await;
        return Ok(list(model, target, options, form));
    };
    model.capacity.run(costs::GET).await;
    let object = model.store.get(target.kind, namespace(target), name).ok_or_else(|| missing(target))?;
    Ok(match form {
        Form::Object => bytes(StatusCode::OK, object.json.clone()),
        Form::Table => {
            let metadata = json!({"resourceVersion": object.version.to_string()});
            let rows = std::iter::once(&*object);
            document(StatusCode::OK, &table::table(target.kind, rows, &metadata, clock::wall()))
        }
    })
}

/// A LIST reads what its namespace and limit cover; a selector is applied afterwards and saves nothing.
fn list_work(model: &Model, target: &Target, options: &Options) -> Work {
    let all = model.store.count(target.kind, target.namespace.as_deref());
    costs::list(if options.limit == 0 { all } else { all.min(options.limit) })
}

fn list(model: &Model, target: &Target, options: &Options, form: Form) -> Answer {
    let kind = target.kind;
    let everything = target.namespace.is_none() && options.limit == 0 && options.selector.is_empty();
    if everything && matches!(form, Form::Object) {
        let (version, items) = model.store.all_items(kind);
        return bytes(StatusCode::OK, list_body(kind, &list_metadata(version, None, 0), &items));
    }
    // A selected list comes in one piece: kubectl asks for 500 at a time, and the demo's cluster has few that match.
    let limit = if options.limit == 0 || !options.selector.is_empty() { usize::MAX } else { options.limit };
    let after = options.after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    let mut page = model.store.page(kind, target.namespace.as_deref(), after, limit);
    page.objects.retain(|object| options.selector.matches(object));
    let metadata = list_metadata(page.version, page.objects.last().map(|object| &**object), page.remaining);
    match form {
        Form::Object => bytes(StatusCode::OK, list_body(kind, &metadata, &join(page.objects.iter()))),
        Form::Table => {
            let rows = page.objects.iter().map(|object| &**object);
            document(StatusCode::OK, &table::table(kind, rows, &metadata, clock::wall()))
        }
    }
}

fn list_metadata(version: u64, last: Option<&Object>, remaining: usize) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(last) = last
        && remaining > 0
    {
        metadata["continue"] = format!("{}/{}", last.namespace, last.name).into();
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn list_body(kind: Kind, metadata: &Value, items: &[u8]) -> Bytes {
    let resource = kind.resource();
    let (name, version) = (resource.kind, resource.api_version());
    let head =
        format!("{{\"kind\":\"{name}List\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":[");
    let mut body = Vec::with_capacity(head.len() + items.len() + 2);
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(items);
    body.extend_from_slice(b"]}");
    body.into()
}

async fn write(
    model: &Model,
    caller: &Identity,
    method: &Method,
    headers: &HeaderMap,
    target: &Target,
    body: Bytes,
) -> Result<Answer, Failure> {
    let renewal = target.kind == Kind::LEASES && method == Method::PUT;
    model.capacity.run(if renewal { costs::LEASE_PUT } else { costs::WRITE }).await;
    let failed = |refused: Refused| explain(target, &refused);
    match (method, &target.name) {
        (&Method::POST, None) if target.kind == Kind::SELF_SUBJECT_REVIEWS => {
            Ok(document(StatusCode::CREATED, &review(caller)))
        }
        (&Method::POST, None) => {
            let created =
                model.store.create(target.kind, namespace(target), parse(&body)?).map_err(failed)?;
            Ok(bytes(StatusCode::CREATED, created.json.clone()))
        }
        (&Method::PUT, Some(name)) => {
            let value = parse(&body)?;
            let replaced =
                model.store.replace(target.kind, namespace(target), name, value).map_err(failed)?;
            Ok(bytes(StatusCode::OK, replaced.json.clone()))
        }
        (&Method::PATCH, Some(name)) => {
            let patch = merge_patch(headers, &body)?;
            let patched = model.store.modify(target.kind, namespace(target), name, |current| {
                let mut value = current.value();
                merge(&mut value, patch);
                value
            });
            Ok(bytes(StatusCode::OK, patched.map_err(failed)?.json.clone()))
        }
        (&Method::DELETE, Some(name)) => {
            let deleted = model.store.delete(target.kind, namespace(target), name).map_err(failed)?;
            Ok(document(StatusCode::OK, &deleted_status(target, &deleted)))
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn namespace(target: &Target) -> &str {
    target.namespace.as_deref().unwrap_or_default()
}

fn missing(target: &Target) -> Failure {
    Failure::not_found(format!("{} not found", target.describe()))
}

fn explain(target: &Target, refused: &Refused) -> Failure {
    let message = format!("{}: {refused}", target.describe());
    match refused {
        Refused::NotFound => missing(target),
        Refused::AlreadyExists => Failure::conflict("AlreadyExists", message),
        Refused::Conflict => Failure::conflict("Conflict", message),
        Refused::NotAnObject(_) => Failure::bad_request(message),
    }
}

/// Objects are JSON here; client-go falls back to JSON when protobuf or CBOR is answered with 415.
fn parse(body: &[u8]) -> Result<Value, Failure> {
    if body.starts_with(PROTOBUF_MAGIC) {
        return Err(Failure::unsupported("the model reads JSON only"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is no JSON object: {error}")))
}

/// The two patch types that are JSON objects. Strategic merge is treated as a plain merge: lists are replaced.
fn merge_patch(headers: &HeaderMap, body: &[u8]) -> Result<Value, Failure> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default() {
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => parse(body),
        other => Err(Failure::unsupported(format!("the model knows only merge patches, not {other:?}"))),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn deleted_status(target: &Target, deleted: &Object) -> Value {
    let resource = target.kind.resource();
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": deleted.name, "group": resource.group, "kind": resource.plural, "uid": deleted.uid},
    })
}

/// `kubectl auth whoami`.
fn review(caller: &Identity) -> Value {
    let extra: serde_json::Map<String, Value> =
        caller.extra.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {"userInfo": {
            "username": caller.user,
            "uid": caller.uid,
            "groups": caller.groups,
            "extra": extra,
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_follows_its_rfc() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        merge(&mut value, json!({"a": {"b": null, "e": {"f": 3}}, "d": [9]}));
        assert_eq!(value, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [9]}));
    }

    #[test]
    fn probes_are_the_health_paths_and_their_checks() {
        assert!(is_probe("/livez") && is_probe("/readyz/etcd"));
        assert!(!is_probe("/livezz") && !is_probe("/api/v1/livez") && !is_probe("/version"));
    }
}
