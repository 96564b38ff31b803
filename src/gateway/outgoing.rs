//! What does the apiserver get to see?
//!
//! The client's path and query, byte for byte: they were classified on a decoded copy and are never normalised.
//! The headers were cleaned before; here the identity, the client's address and our Audit-ID are added last.

use http::Request;
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::headers::{self, AUDIT_ID};
use super::resolved::Resolved;
use crate::upstream::RequestBody;

/// The request as it is sent on; the pools word it for the protocol it leaves by.
pub(super) fn build(
    request: Request<Incoming>,
    exchange: &Exchange,
    resolved: &Resolved,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.clear();
    if let Some(assertion) = &resolved.assertion {
        assertion.apply(&mut parts.headers);
    }
    headers::set_forwarded_for(&mut parts.headers, &exchange.connection.peer_header);
    parts.headers.insert(AUDIT_ID, exchange.audit_id.clone());
    Request::from_parts(parts, RequestBody::from(body).with_trailers(headers::is_trailer))
}
