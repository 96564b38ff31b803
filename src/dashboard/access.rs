//! Who may look, who may act, and does the page that asks belong to us?
//!
//! There are no cookies, so a foreign page has nothing to ride on; these checks are for what is left of that idea. The
//! name in the address must be one of ours, or a foreign name was pointed at the loopback address (DNS rebinding). What
//! changes anything is POST, comes from a page of the same origin, and carries a header that no form can send.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::code;
use crate::admin::wire::Problem;

/// What one may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Isolate and release.
    Operator,
    /// Also what is protected, lockdown, and the limit.
    Admin,
}

impl Role {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == word)
    }
}

/// Lowers the role of one request: a tunnel says it.
pub(super) const ROLE_HEADER: &str = "x-spillway-role";
/// Stands in every request that changes something.
const ACT_HEADER: &str = "x-spillway-act";
/// Names under which the dashboard is asked for, whatever the port.
const HOSTS: [&str; 4] = ["127.0.0.1", "localhost", "[::1]", "spillway"];

/// A request that is refused, and why.
pub(super) type Refused = (StatusCode, Problem);

/// Whether a request may come in, and with which role; `role` is what the connection has.
pub(super) fn judge(head: &Parts, role: Role) -> Result<Role, Refused> {
    let host = text(&head.headers, header::HOST.as_str()).unwrap_or_default();
    if !HOSTS.contains(&name_of(host)) {
        let message = format!("{host:?} is not a name of this dashboard");
        let help = "open it under 127.0.0.1 or localhost, as spillway dashboard prints it";
        return Err((StatusCode::MISDIRECTED_REQUEST, Problem::new(code::HOST, message, help)));
    }
    let site = text(&head.headers, "sec-fetch-site").unwrap_or("none");
    if head.method == Method::GET {
        let is_link = text(&head.headers, "sec-fetch-mode") == Some("navigate");
        return if ["same-origin", "none"].contains(&site) || is_link {
            Ok(lowered(&head.headers, role))
        } else {
            Err(foreign(&format!("a page of another origin asked for {}", head.uri.path())))
        };
    }
    if head.method != Method::POST {
        let problem = Problem::new(code::ORIGIN, "only GET and POST are understood", "GET / is the page");
        return Err((StatusCode::METHOD_NOT_ALLOWED, problem));
    }
    let origin = text(&head.headers, header::ORIGIN.as_str()).unwrap_or_default();
    let of_origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if of_origin != Some(host) {
        return Err(foreign(&format!("the page that asks is {origin:?}, this is {host:?}")));
    }
    if !["same-origin", "none"].contains(&site) {
        return Err(foreign(&format!("the browser calls the request {site}")));
    }
    if !head.headers.contains_key(ACT_HEADER) {
        return Err(foreign(&format!("there is no {ACT_HEADER} header")));
    }
    Ok(lowered(&head.headers, role))
}

fn foreign(why: &str) -> Refused {
    let help = "act on the dashboard's own page, or on the command line: spillway isolate --help";
    (StatusCode::FORBIDDEN, Problem::new(code::ORIGIN, format!("not from this dashboard: {why}"), help))
}

/// Never higher than the connection's.
fn lowered(headers: &HeaderMap, role: Role) -> Role {
    let Some(word) = text(headers, ROLE_HEADER) else { return role };
    role.min(Role::parse(word).unwrap_or(Role::Viewer))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    // Two values are none: whoever reads the other one would be fooled.
    values.next().is_none().then_some(value)
}

/// The name in `name:port`.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// What the levers' API wants of a role; nothing where it is not for browsers.
pub(super) fn needed(method: &Method, path: &str, body: &[u8]) -> Option<Role> {
    match (method, path) {
        (&Method::GET, "/v1/status" | "/v1/clients" | "/v1/events" | "/v1/isolations") => Some(Role::Viewer),
        (&Method::POST, "/v1/isolations") => {
            let forced = serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body["forceProtected"].as_bool().unwrap_or_default());
            Some(if forced { Role::Admin } else { Role::Operator })
        }
        (&Method::POST, "/v1/isolations/release") => Some(Role::Operator),
        (&Method::POST, "/v1/lockdown" | "/v1/lockdown/release" | "/v1/limit" | "/v1/limit/release") => {
            Some(Role::Admin)
        }
        _ => None,
    }
}

/// Whether `role` may do what needs `needed`.
pub(super) fn allowed(role: Role, needed: Role) -> Result<(), Refused> {
    if role >= needed {
        return Ok(());
    }
    let message = format!("you look on as {}: this needs the role {}", role.as_str(), needed.as_str());
    let help =
        "nothing was changed; ask somebody with that role, or do it on the node: spillway isolate --help";
    Err((StatusCode::FORBIDDEN, Problem::new(code::ROLE, message, help)))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn head(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/isolations");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn code_of(judged: Result<Role, Refused>) -> String {
        judged.map_or_else(|(_, problem)| problem.code, |role| role.as_str().to_owned())
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for (host, verdict) in [
            ("127.0.0.1:8700", "admin"),
            ("localhost", "admin"),
            ("[::1]:8700", "admin"),
            ("[::1]", "admin"),
            ("evil.example:8700", code::HOST),
            ("127.0.0.1.evil.example", code::HOST),
            ("", code::HOST),
        ] {
            assert_eq!(code_of(judge(&head(Method::GET, &[("host", host)]), Role::Admin)), verdict, "{host}");
        }
        let twice = head(Method::GET, &[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(code_of(judge(&twice, Role::Admin)), code::HOST);
    }

    #[test]
    fn a_change_needs_our_own_page_and_a_header_that_no_form_sends() {
        let good = [
            ("host", "127.0.0.1:8700"),
            ("origin", "http://127.0.0.1:8700"),
            ("sec-fetch-site", "same-origin"),
            ("x-spillway-act", "1"),
        ];
        assert_eq!(code_of(judge(&head(Method::POST, &good), Role::Operator)), "operator");
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8701"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let headers: Vec<_> = good
                .into_iter()
                .map(|(known, old)| (known, if known == name { value } else { old }))
                .collect();
            assert_eq!(
                code_of(judge(&head(Method::POST, &headers), Role::Admin)),
                code::ORIGIN,
                "{name} {value}"
            );
        }
        for left_out in ["origin", "x-spillway-act"] {
            let headers: Vec<_> = good.into_iter().filter(|(name, _)| *name != left_out).collect();
            assert_eq!(
                code_of(judge(&head(Method::POST, &headers), Role::Admin)),
                code::ORIGIN,
                "{left_out}"
            );
        }
        assert_eq!(code_of(judge(&head(Method::PUT, &good), Role::Admin)), code::ORIGIN);
    }

    #[test]
    fn a_foreign_page_may_link_here_and_read_nothing() {
        let get = |mode| {
            head(
                Method::GET,
                &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)],
            )
        };
        assert_eq!(code_of(judge(&get("navigate"), Role::Viewer)), "viewer");
        assert_eq!(code_of(judge(&get("no-cors"), Role::Viewer)), code::ORIGIN);
        assert_eq!(code_of(judge(&get("cors"), Role::Viewer)), code::ORIGIN);
    }

    #[test]
    fn a_role_can_be_lowered_and_never_raised() {
        let asked = |word, role| {
            judge(&head(Method::GET, &[("host", "localhost"), (ROLE_HEADER, word)]), role).unwrap()
        };
        assert_eq!(asked("viewer", Role::Admin), Role::Viewer);
        assert_eq!(asked("admin", Role::Viewer), Role::Viewer);
        assert_eq!(asked("nonsense", Role::Admin), Role::Viewer);
    }

    #[test]
    fn each_lever_has_the_role_that_it_needs() {
        let post = |path, body: &str| needed(&Method::POST, path, body.as_bytes());
        assert_eq!(post("/v1/isolations", "{}"), Some(Role::Operator));
        assert_eq!(post("/v1/isolations", r#"{"forceProtected":true}"#), Some(Role::Admin));
        assert_eq!(post("/v1/lockdown", "{}"), Some(Role::Admin));
        assert_eq!(needed(&Method::GET, "/v1/status", b""), Some(Role::Viewer));
        assert_eq!(post("/v1/something-new", "{}"), None, "what nobody judged is not for browsers");
        assert!(allowed(Role::Operator, Role::Operator).is_ok());
        let (status, problem) = allowed(Role::Viewer, Role::Operator).unwrap_err();
        assert_eq!((status, problem.code.as_str()), (StatusCode::FORBIDDEN, code::ROLE));
        assert!(problem.message.contains("viewer") && problem.message.contains("operator"));
    }
}
