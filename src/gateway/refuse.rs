//! What is a client told that gets no answer from the apiserver?
//!
//! Always a `metav1.Status`, so that kubectl prints its message and client-go reads `retryAfterSeconds`. 429 means
//! "not executed, come back": it is only sent before anything went upstream. Watches are never told anything else,
//! because a reflector re-lists on every other status (facts: Kubernetes protocol D1 to D5). Bodies stay below
//! 2 KiB: client-go drains that much to keep the connection.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::Body;
use super::headers::AUDIT_ID;
use crate::flow::Refusal;
use crate::upstream::UpstreamError;

/// Says which decision refused a request, for `spillway explain` and the on-call's search: opaque to the client.
const DECISION: http::HeaderName = http::HeaderName::from_static("x-spillway-decision");

/// Seconds after which a client may try again when the apiserver cannot be reached: short, because a restart takes
/// about ten seconds and leases live forty.
const RETRY_WHEN_AWAY_SECONDS: u32 = 2;

/// The parts of a refusal that differ.
struct Status<'a> {
    code: StatusCode,
    reason: &'static str,
    message: &'a str,
    retry_after_seconds: Option<u32>,
}

/// 429: too much now, come back later.
pub(super) fn shed(refusal: &Refusal, audit_id: &HeaderValue) -> Response<Body> {
    let message = format!(
        "the server is protecting itself and asks this client to come back in {} s (decision {})",
        refusal.retry_after_seconds,
        decision_id(audit_id),
    );
    let status = Status {
        code: StatusCode::TOO_MANY_REQUESTS,
        reason: "TooManyRequests",
        message: &message,
        retry_after_seconds: Some(refusal.retry_after_seconds.max(1)),
    };
    respond(&status, audit_id)
}

/// 429: an operator contained this client, or all of its kind. 403, which nobody repeats, for a person at a terminal.
pub(super) fn contained(
    message: &str,
    retry_after_seconds: Option<u32>,
    audit_id: &HeaderValue,
) -> Response<Body> {
    let (code, reason) = match retry_after_seconds {
        Some(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        None => (StatusCode::FORBIDDEN, "Forbidden"),
    };
    let message = &format!("{message} (decision {})", decision_id(audit_id));
    let retry_after_seconds = retry_after_seconds.map(|seconds| seconds.max(1));
    respond(&Status { code, reason, message, retry_after_seconds }, audit_id)
}

/// The apiserver could not be reached, or did not answer as it should.
pub(super) fn upstream_failed(error: &UpstreamError, watch: bool, audit_id: &HeaderValue) -> Response<Body> {
    let message = format!("spillway could not get an answer from kube-apiserver: {error}");
    let code = error.kind.status();
    let (code, reason, retry_after_seconds) = match code {
        // Nothing was sent, so the client may repeat it, whatever it was.
        StatusCode::SERVICE_UNAVAILABLE if watch => {
            (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", Some(RETRY_WHEN_AWAY_SECONDS))
        }
        StatusCode::SERVICE_UNAVAILABLE => (code, "ServiceUnavailable", Some(RETRY_WHEN_AWAY_SECONDS)),
        // It may have been executed: without Retry-After, client-go does not repeat a write.
        StatusCode::GATEWAY_TIMEOUT => (code, "Timeout", None),
        StatusCode::BAD_REQUEST => (code, "BadRequest", None),
        _ => (code, "InternalError", None),
    };
    respond(&Status { code, reason, message: &message, retry_after_seconds }, audit_id)
}

/// 400: this request cannot be understood safely.
pub(super) fn bad_request(message: &str, audit_id: &HeaderValue) -> Response<Body> {
    let status =
        Status { code: StatusCode::BAD_REQUEST, reason: "BadRequest", message, retry_after_seconds: None };
    respond(&status, audit_id)
}

/// 401, as kube-apiserver words it.
pub(super) fn unauthorized(audit_id: &HeaderValue) -> Response<Body> {
    let status = Status {
        code: StatusCode::UNAUTHORIZED,
        reason: "Unauthorized",
        message: "Unauthorized",
        retry_after_seconds: None,
    };
    respond(&status, audit_id)
}

fn respond(status: &Status<'_>, audit_id: &HeaderValue) -> Response<Body> {
    let mut body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": status.message,
        "reason": status.reason,
        "code": status.code.as_u16(),
    });
    if let Some(seconds) = status.retry_after_seconds {
        body["details"] = json!({ "retryAfterSeconds": seconds });
    }
    let mut response = Response::new(Body::full(Bytes::from(body.to_string())));
    *response.status_mut() = status.code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(AUDIT_ID, audit_id.clone());
    if let Some(seconds) = status.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        if let Ok(id) = HeaderValue::from_str(decision_id(audit_id)) {
            headers.insert(DECISION, id);
        }
    }
    response
}

/// The first group of the audit id: short enough to read out on a call, and it finds the log line.
fn decision_id(audit_id: &HeaderValue) -> &str {
    audit_id.to_str().unwrap_or_default().split('-').next().unwrap_or_default()
}
