//! How is a request addressed on the protocol it goes out with?
//!
//! HTTP/2 carries the authority beside the path, HTTP/1.1 in the Host header; the client may have used either.
//! Path and query are the client's bytes, moved and never re-encoded. The client's authority is kept, because
//! the apiserver passes it on to the applications behind `pods/proxy`.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};

use super::dial::Protocol;
use super::error::{Kind, UpstreamError};

/// Rewrites `request` for `protocol`; `own` stands in when the client named no authority.
pub(super) fn address<B>(
    request: &mut Request<B>,
    protocol: Protocol,
    own: &Authority,
) -> Result<(), UpstreamError> {
    match protocol {
        Protocol::Http2 => address_http2(request, own),
        Protocol::Http1 => address_http1(request, own),
    }
}

fn address_http2<B>(request: &mut Request<B>, own: &Authority) -> Result<(), UpstreamError> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        parts.authority = Some(match host {
            Some(host) => Authority::try_from(host.as_bytes())
                .map_err(|error| bad("the Host header is not host[:port]").with_source(error))?,
            None => own.clone(),
        });
    }
    parts.scheme = Some(Scheme::HTTPS);
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|error| bad("the request target is not a URI").with_source(error))?;
    Ok(())
}

fn address_http1<B>(request: &mut Request<B>, own: &Authority) -> Result<(), UpstreamError> {
    *request.version_mut() = Version::HTTP_11;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = None;
    let authority = parts.authority.take();
    let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    // The authority of the target wins over a Host header that repeats it.
    if authority.is_some() || !request.headers().contains_key(HOST) {
        let value = HeaderValue::from_str(authority.as_ref().unwrap_or(own).as_str())
            .map_err(|error| bad("the authority cannot be a Host header").with_source(error))?;
        request.headers_mut().insert(HOST, value);
    }
    Ok(())
}

fn bad(text: &'static str) -> UpstreamError {
    UpstreamError::new(Kind::BadRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Authority = Authority::from_static("kubernetes:443");

    fn request(uri: &str, host: Option<&str>) -> Request<()> {
        let mut builder = Request::builder().uri(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        builder.body(()).expect("a valid request")
    }

    #[test]
    fn the_clients_authority_survives_a_change_of_protocol() {
        let mut to_http2 = request("/api/v1//pods?x=%2F", Some("api.example:6443"));
        address(&mut to_http2, Protocol::Http2, &OWN).expect("addressable");
        assert_eq!(to_http2.uri().to_string(), "https://api.example:6443/api/v1//pods?x=%2F");
        assert!(!to_http2.headers().contains_key(HOST));
        assert_eq!(to_http2.version(), Version::HTTP_2);

        let mut to_http1 = request("https://api.example:6443/a%2Fb?watch", None);
        address(&mut to_http1, Protocol::Http1, &OWN).expect("addressable");
        assert_eq!(to_http1.uri().to_string(), "/a%2Fb?watch");
        assert_eq!(to_http1.headers()[HOST], "api.example:6443");
        assert_eq!(to_http1.version(), Version::HTTP_11);
    }

    #[test]
    fn without_an_authority_our_own_name_stands_in() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut nameless = request("/livez", None);
            address(&mut nameless, protocol, &OWN).expect("addressable");
            let named = nameless.uri().authority().map_or_else(
                || nameless.headers()[HOST].to_str().expect("text").to_owned(),
                |authority| authority.as_str().to_owned(),
            );
            assert_eq!(named, "kubernetes:443");
        }
    }

    #[test]
    fn a_host_that_is_no_authority_is_the_clients_fault() {
        let mut odd = request("/livez", Some("a b"));
        let error = address(&mut odd, Protocol::Http2, &OWN).expect_err("not an authority");
        assert_eq!(error.kind, Kind::BadRequest);
    }

    #[test]
    fn addressing_twice_changes_nothing() {
        let mut again = request("/api", Some("x:1"));
        address(&mut again, Protocol::Http2, &OWN).expect("addressable");
        let once = again.uri().clone();
        address(&mut again, Protocol::Http2, &OWN).expect("addressable");
        assert_eq!(*again.uri(), once);
    }
}
