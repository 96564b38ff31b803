//! How does the model say yes or no? Bodies and `metav1.Status` answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// The body of an answer: ready bytes, or a watch that goes on.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer of the model.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why a request failed, in the words of the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: StatusCode::NOT_FOUND, reason: "NotFound", message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, reason: "BadRequest", message: message.into() }
    }

    pub(crate) fn conflict(reason: &'static str, message: impl Into<String>) -> Self {
        Self { code: StatusCode::CONFLICT, reason, message: message.into() }
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self { code: StatusCode::GONE, reason: "Expired", message: message.into() }
    }

    pub(crate) fn unauthorized() -> Self {
        Self { code: StatusCode::UNAUTHORIZED, reason: "Unauthorized", message: "Unauthorized".to_owned() }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self { code: StatusCode::FORBIDDEN, reason: "Forbidden", message: message.into() }
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self {
            code: StatusCode::METHOD_NOT_ALLOWED,
            reason: "MethodNotAllowed",
            message: "the server does not allow this method on the requested resource".to_owned(),
        }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self {
            code: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            reason: "UnsupportedMediaType",
            message: message.into(),
        }
    }

    pub(crate) fn timeout() -> Self {
        Self {
            code: StatusCode::GATEWAY_TIMEOUT,
            reason: "Timeout",
            message: "Timeout: request did not complete within the allotted timeout".to_owned(),
        }
    }

    /// The `metav1.Status` object.
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        })
    }

    pub(crate) fn answer(&self) -> Answer {
        with_body(self.code, JSON, self.status().to_string().into())
    }
}

/// A JSON document.
pub(crate) fn document(code: StatusCode, value: &Value) -> Answer {
    bytes(code, value.to_string().into())
}

/// JSON that is encoded already.
pub(crate) fn bytes(code: StatusCode, json: Bytes) -> Answer {
    with_body(code, JSON, json)
}

/// Plain text, as the health endpoints answer.
pub(crate) fn text(code: StatusCode, text: &'static str) -> Answer {
    with_body(code, TEXT, Bytes::from_static(text.as_bytes()))
}

/// JSON that goes on: a watch.
pub(crate) fn stream(body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// What kube-apiserver answers when its in-flight limit is reached: plain text and one second.
pub(crate) fn too_many_requests() -> Answer {
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn with_body(code: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed_unsync());
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
