//! To whom is a request addressed, and can that be read in one way only?
//!
//! kube-apiserver itself does not care about its name, but what stands behind `pods/proxy` may, and two readers that
//! pick different ones of two names are two servers. So there is one name, and it is a host with perhaps a port:
//! nothing of a user, no list, nothing that some parser would cut. The TLS server name chose the certificate and says
//! nothing here: clients reach an apiserver by address, by service name and by load balancer.

use http::header::{HOST, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, Uri};

/// Checks the target of a request against its `Host`.
pub(super) fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("several Host headers; send one");
    }
    let host = host.map(|host| host.as_bytes());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (None, None) => return Err("no Host header"),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err("Host and the request's target name different servers");
        }
        _ => {}
    }
    if !authority.or(host).is_some_and(is_host_and_port) {
        return Err("Host is not host[:port]");
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err("the request target is neither http nor https");
    }
    // `*` is what OPTIONS may ask about; everything else has a path. A query alone is what `Uri::path` hides.
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if path.starts_with('/') || (path == "*" && *method == Method::OPTIONS) {
        Ok(())
    } else {
        Err("the request target is not a path")
    }
}

fn is_host_and_port(authority: &[u8]) -> bool {
    let (host, rest) = match authority {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let (address, rest) = (&rest[..end], &rest[end + 1..]);
            if !address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                return false;
            }
            (address, rest)
        }
        _ => {
            let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
            authority.split_at(end)
        }
    };
    let named = !host.is_empty()
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'));
    named && is_port(rest)
}

/// Nothing, or a colon and a number that is a port.
fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', digits @ ..] => {
            let text = std::str::from_utf8(digits).unwrap_or_default();
            digits.iter().all(u8::is_ascii_digit) && text.parse::<u16>().is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(target: &str, hosts: &[&str]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        check(&Method::GET, &target.parse().unwrap(), &headers)
    }

    #[test]
    fn a_server_has_one_name() {
        for host in
            ["kubernetes", "kubernetes:443", "10.0.0.1:6443", "[::1]:6443", "[fe80::1]", "a_b.example."]
        {
            assert_eq!(checked("/api", &[host]), Ok(()), "{host}");
        }
        assert_eq!(checked("https://a:1/api", &["A:1"]), Ok(()));
        assert_eq!(checked("https://a:1/api", &[]), Ok(()));
        assert!(checked("https://a:1/api", &["a"]).is_err());
        assert!(checked("/api", &[]).is_err());
        assert!(checked("/api", &["a", "a"]).is_err());
    }

    #[test]
    fn what_some_parser_would_cut_is_no_name() {
        for host in [
            "", " ", "a b", "a,b", "user@a", "a:65536", "a:", "a:x", "a:1:2", "[::1", "[a/b]", "[]", "a/b",
            "a%2fb", "a?b", "a#b", "a\\b", "http://a",
        ] {
            assert!(checked("/api", &[host]).is_err(), "{host:?}");
        }
        assert!(checked("https://user:pass@a/api", &[]).is_err());
        assert!(checked("https://a,b/api", &[]).is_err());
    }

    #[test]
    fn an_asterisk_is_for_options() {
        let (star, mut headers) = (Uri::from_static("*"), HeaderMap::new());
        headers.insert(HOST, HeaderValue::from_static("a"));
        assert!(check(&Method::OPTIONS, &star, &headers).is_ok());
        assert!(check(&Method::GET, &star, &headers).is_err());
        let query = PathAndQuery::try_from("?a").map(Uri::from).unwrap_or(star);
        assert!(check(&Method::GET, &query, &headers).is_err());
    }
}
