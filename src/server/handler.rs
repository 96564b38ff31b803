//! What does a listener hand its requests to, and what comes back?
//!
//! One narrow trait, so that the server knows no verbs and the request path knows no sockets. There is one
//! handler per shard, made on the shard's own runtime: it owns that shard's upstream connections.

use std::any::Any;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::connection::Connection;
use super::shard::ShardContext;

/// What an answer's body may fail with; the connection or stream is then reset.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type ServerBody = UnsyncBoxBody<Bytes, BodyError>;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away; a panic in it becomes a 500.
    ///
    /// For an upgrade the handler takes `hyper::upgrade::on` from the request and answers 101. The tunnel
    /// must flush what it writes (writes wait for a flush, see [`crate::io`]); the connection counts as open
    /// until the tunnel is dropped.
    fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>>;
}

/// Bytes of a tunnel so far.
#[derive(Debug, Default)]
pub struct TunnelBytes {
    /// From the client.
    pub from_client: AtomicU64,
    /// To the client.
    pub to_client: AtomicU64,
}

/// A tunnel that an answer of 101 has begun, in that answer's extensions. The tunnel keeps it until it is over.
#[derive(Default)]
pub struct Tunnel {
    /// What it carried.
    pub bytes: Arc<TunnelBytes>,
    /// Dropped when the tunnel is over.
    pub at_end: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Makes the handler of one shard, on that shard's runtime.
pub type HandlerFactory = Arc<dyn Fn(&ShardContext) -> Arc<dyn Handler> + Send + Sync>;

/// A `metav1.Status` failure as the server itself gives it: limits of the listener, a lane's wrong
/// credential.
///
/// `reason` is Kubernetes' machine-readable word, `message` what the client's user reads.
#[must_use]
pub fn failure(status: StatusCode, reason: &str, message: &str) -> Response<ServerBody> {
    let body = serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status.as_u16(),
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    response
}
