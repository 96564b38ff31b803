//! What does the apiserver get to see?
//!
//! The client's path and query, byte for byte: they were classified on a decoded copy and are never normalised.
//! The headers were cleaned before; here the identity, the client's address and our Audit-ID are added last.

use http::header::{HOST, HeaderMap};
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::headers::{self, AUDIT_ID};
use super::resolved::Resolved;
use crate::upstream::{RequestBody, Traffic};

/// The request as it is sent on. HTTP/2 wants its authority in the URI, HTTP/1.1 in `Host`; the upstream pools
/// translate, so it is always handed over in the URI.
pub(super) fn build(
    request: Request<Incoming>,
    exchange: &Exchange,
    resolved: &Resolved,
    traffic: Traffic,
) -> Result<Request<RequestBody>, &'static str> {
    let (mut parts, body) = request.into_parts();
    parts.uri = absolute(parts.uri, &mut parts.headers)?;
    parts.version = http::Version::default();
    parts.extensions.clear();
    if let Some(assertion) = &resolved.assertion {
        assertion.apply(&mut parts.headers);
    }
    headers::set_forwarded_for(&mut parts.headers, exchange.peer.ip());
    parts.headers.insert(AUDIT_ID, exchange.audit_id.clone());
    let body = match traffic {
        Traffic::Short => RequestBody::incoming(body),
        Traffic::Watch | Traffic::Upgrade => RequestBody::streaming(body),
    };
    Ok(Request::from_parts(parts, body))
}

/// One authority only: a request whose target and `Host` disagree could mean different things to two readers.
fn absolute(uri: Uri, headers: &mut HeaderMap) -> Result<Uri, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err("several Host headers; send one");
    }
    headers.remove(HOST);
    match (uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err("Host and the request's target name different servers")
        }
        (Some(_), _) if uri.scheme().is_some() => Ok(uri),
        (Some(_), _) => with_authority(uri, None),
        (None, Some(host)) => {
            let authority = Authority::from_maybe_shared(host).map_err(|_| "Host is not a host name and port")?;
            with_authority(uri, Some(authority))
        }
        (None, None) => Err("no Host header"),
    }
}

fn with_authority(uri: Uri, authority: Option<Authority>) -> Result<Uri, &'static str> {
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = authority.or(parts.authority);
    Uri::from_parts(parts).map_err(|_| "the request's target is not a path")
}
