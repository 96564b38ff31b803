//! What does the apiserver get to see?
//!
//! The client's path and query, byte for byte: they were classified on a decoded copy and are never normalised.
//! The headers were cleaned before; here the identity, the client's address and our Audit-ID are added last.

use http::header::{HOST, HeaderMap};
use http::{Request, Uri};
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
) -> Result<Request<RequestBody>, &'static str> {
    let (mut parts, body) = request.into_parts();
    check_authority(&parts.uri, &parts.headers)?;
    parts.extensions.clear();
    if let Some(assertion) = &resolved.assertion {
        assertion.apply(&mut parts.headers);
    }
    headers::set_forwarded_for(&mut parts.headers, &exchange.connection.peer_header);
    parts.headers.insert(AUDIT_ID, exchange.audit_id.clone());
    Ok(Request::from_parts(parts, RequestBody::from(body)))
}

/// One authority only: a request whose target and `Host` disagree could mean different things to two readers.
fn check_authority(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("several Host headers; send one");
    }
    match (uri.authority(), host) {
        (Some(authority), Some(host))
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err("Host and the request's target name different servers")
        }
        (None, None) => Err("no Host header"),
        _ => Ok(()),
    }
}
