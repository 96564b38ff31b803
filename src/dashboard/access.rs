//! Who may look, who may act, and does the page that asks belong to us?
//!
//! There are no cookies, so a foreign page has nothing to ride on; these checks are for what is left of that idea. The
//! name in the address must be one of ours, or a foreign name was pointed at the loopback address (DNS rebinding). What
//! changes anything is POST, comes from a page of the same origin, and carries a header that no form can send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::code;
use super::roles::Roles;
use crate::admin::{self, wire::Problem};
use crate::telemetry::Asker;

/// What one may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Isolate and release, move the rollout, approve newcomers, reload the policy.
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
/// Who opened a tunnel, as the shell there knows them. It is shown to that person and decides nothing.
pub(super) const PERSON_HEADER: &str = "x-spillway-person";
/// Bytes of such a name.
pub(super) const PERSON_BYTES_MAX: usize = 64;
/// Stands in every request that changes something.
const ACT_HEADER: &str = "x-spillway-act";
/// Names under which the dashboard is asked for, whatever the port.
const HOSTS: [&str; 4] = ["127.0.0.1", "localhost", "[::1]", "spillway"];

/// A request that is refused, and why.
pub(super) type Refused = (StatusCode, Problem);

/// Whoever sent a request.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) by: Asker,
    pub(super) role: Role,
    /// Who else has which role, where certificates decide.
    pub(super) roles: Option<Arc<Roles>>,
}

impl Guest {
    /// Whoever may open the file of a socket is admin: the same person could run the command line.
    pub(super) const fn at_socket(by: Asker) -> Self {
        Self { by, role: Role::Admin, roles: None }
    }

    /// Who that is: `olga` of a certificate, `uid 0` of whoever opened the socket.
    fn name(&self) -> String {
        self.by.user.as_deref().map_or_else(|| self.by.to_string(), str::to_owned)
    }

    /// The same for the page; a tunnel adds the name of its person: `olga (uid 0)`.
    pub(super) fn shown(&self, headers: &HeaderMap) -> String {
        match text(headers, PERSON_HEADER).filter(|person| person.len() <= PERSON_BYTES_MAX) {
            // What a certificate proves needs nobody's word.
            Some(person) if self.by.user.is_none() => format!("{person} ({})", self.by),
            _ => self.name(),
        }
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    /// Names of it, beside those that are always right.
    pub(super) names: &'a [String],
    /// Its own address: nobody can point a name of theirs at a number.
    pub(super) ip: Option<IpAddr>,
    /// Whether programs may act, which say no origin. A browser says one, and a form cannot send our header.
    pub(super) programs: bool,
}

impl Place<'_> {
    fn is_called(&self, host: &str) -> bool {
        let name = name_of(host);
        let number = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_own = |ip: IpAddr| {
            number.parse::<IpAddr>().is_ok_and(|other| other.to_canonical() == ip.to_canonical())
        };
        HOSTS.contains(&name)
            || self.names.iter().any(|known| name.eq_ignore_ascii_case(known))
            || self.ip.is_some_and(is_own)
    }
}

/// Whether a request may come in, and with which role; `role` is what the connection has.
pub(super) fn judge(head: &Parts, role: Role, place: Place<'_>) -> Result<Role, Refused> {
    let host = text(&head.headers, header::HOST.as_str()).unwrap_or_default();
    if !place.is_called(host) {
        let message = format!("{host:?} is not a name of this dashboard");
        let help = match place.ip {
            None => "open it under 127.0.0.1 or localhost, as spillway dashboard prints it".to_owned(),
            Some(ip) => format!("open it under {ip}, or add the name to admin.https.names"),
        };
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
    let is_program =
        !head.headers.contains_key(header::ORIGIN) && !head.headers.contains_key("sec-fetch-site");
    if place.programs && is_program && head.headers.contains_key(ACT_HEADER) {
        return Ok(lowered(&head.headers, role));
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

/// Whether whoever asks reads, and does not parse.
pub(super) fn wants_text<B>(request: &axum::http::Request<B>) -> bool {
    let accept = text(request.headers(), header::ACCEPT.as_str()).unwrap_or_default();
    accept.contains("text/html") && !request.uri().path().starts_with("/v1/")
}

/// A refusal for people, or for programs.
pub(super) fn told(as_text: bool, status: StatusCode, problem: &Problem) -> Response {
    if !as_text {
        return admin::json(status, problem);
    }
    let text = format!("[{}] {}\n{}\n", problem.code, problem.message, problem.help);
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
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
        (
            &Method::GET,
            "/v1/status" | "/v1/clients" | "/v1/events" | "/v1/isolations" | "/v1/decisions"
            | "/v1/newcomers" | "/v1/rollout" | "/v1/config" | "/v1/config/history",
        ) => Some(Role::Viewer),
        (&Method::GET, path) if path.starts_with("/v1/decisions/") => Some(Role::Viewer),
        // A question, although it has a body.
        (&Method::POST, "/v1/explain") => Some(Role::Viewer),
        (&Method::POST, "/v1/isolations") => {
            let forced = serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body["forceProtected"].as_bool().unwrap_or_default());
            Some(if forced { Role::Admin } else { Role::Operator })
        }
        // What is tapped names each object that somebody asks for.
        (
            &Method::POST,
            "/v1/isolations/release"
            | "/v1/newcomers/approve"
            | "/v1/newcomers/doubt"
            | "/v1/rollout"
            | "/v1/config/reload"
            | "/v1/config/rollback"
            | "/v1/tap",
        ) => Some(Role::Operator),
        (&Method::POST, "/v1/lockdown" | "/v1/lockdown/release" | "/v1/limit" | "/v1/limit/release") => {
            Some(Role::Admin)
        }
        _ => None,
    }
}

/// Whether `guest`, who acts with `role`, may do what needs `needed`.
pub(super) fn allowed(guest: &Guest, role: Role, needed: Role) -> Result<(), Refused> {
    if role >= needed {
        return Ok(());
    }
    let (has, wants) = (role.as_str(), needed.as_str());
    let (message, who) = match &guest.roles {
        None => (format!("you look on as {has}: this needs the role {wants}"), String::new()),
        Some(roles) => (
            format!("{} is {has} here: this needs the role {wants}", guest.name()),
            format!(", which {} (admin.roles)", roles.whose(needed)),
        ),
    };
    let help = format!(
        "nothing was changed; ask somebody with that role{who}, or do it on the node: spillway isolate --help"
    );
    Err((StatusCode::FORBIDDEN, Problem::new(code::ROLE, message, help)))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const HERE: Place<'_> = Place { names: &[], ip: None, programs: false };

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
            assert_eq!(
                code_of(judge(&head(Method::GET, &[("host", host)]), Role::Admin, HERE)),
                verdict,
                "{host}"
            );
        }
        let twice = head(Method::GET, &[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(code_of(judge(&twice, Role::Admin, HERE)), code::HOST);
    }

    #[test]
    fn a_change_needs_our_own_page_and_a_header_that_no_form_sends() {
        let good = [
            ("host", "127.0.0.1:8700"),
            ("origin", "http://127.0.0.1:8700"),
            ("sec-fetch-site", "same-origin"),
            ("x-spillway-act", "1"),
        ];
        assert_eq!(code_of(judge(&head(Method::POST, &good), Role::Operator, HERE)), "operator");
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
                code_of(judge(&head(Method::POST, &headers), Role::Admin, HERE)),
                code::ORIGIN,
                "{name} {value}"
            );
        }
        for left_out in ["origin", "x-spillway-act"] {
            let headers: Vec<_> = good.into_iter().filter(|(name, _)| *name != left_out).collect();
            assert_eq!(
                code_of(judge(&head(Method::POST, &headers), Role::Admin, HERE)),
                code::ORIGIN,
                "{left_out}"
            );
        }
        assert_eq!(code_of(judge(&head(Method::PUT, &good), Role::Admin, HERE)), code::ORIGIN);
    }

    #[test]
    fn a_foreign_page_may_link_here_and_read_nothing() {
        let get = |mode| {
            head(
                Method::GET,
                &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)],
            )
        };
        assert_eq!(code_of(judge(&get("navigate"), Role::Viewer, HERE)), "viewer");
        assert_eq!(code_of(judge(&get("no-cors"), Role::Viewer, HERE)), code::ORIGIN);
        assert_eq!(code_of(judge(&get("cors"), Role::Viewer, HERE)), code::ORIGIN);
    }

    #[test]
    fn a_role_can_be_lowered_and_never_raised() {
        let asked = |word, role| {
            judge(&head(Method::GET, &[("host", "localhost"), (ROLE_HEADER, word)]), role, HERE).unwrap()
        };
        assert_eq!(asked("viewer", Role::Admin), Role::Viewer);
        assert_eq!(asked("admin", Role::Viewer), Role::Viewer);
        assert_eq!(asked("nonsense", Role::Admin), Role::Viewer);
    }

    #[test]
    fn a_certificate_is_believed_before_a_tunnel_s_word() {
        let at_socket = Guest::at_socket(Asker { uid: Some(0), ..Asker::default() });
        let by = Asker { user: Some("olga".into()), ..Asker::default() };
        let elsewhere = Guest { by, role: Role::Viewer, roles: None };
        let says = |person: &str| head(Method::GET, &[(PERSON_HEADER, person)]).headers;
        assert_eq!(at_socket.shown(&says("vera")), "vera (uid 0)");
        assert_eq!(at_socket.shown(&HeaderMap::new()), "uid 0");
        assert_eq!(at_socket.shown(&says(&"x".repeat(PERSON_BYTES_MAX + 1))), "uid 0");
        assert_eq!(elsewhere.shown(&says("adam")), "olga");
    }

    #[test]
    fn each_lever_has_the_role_that_it_needs() {
        let post = |path, body: &str| needed(&Method::POST, path, body.as_bytes());
        assert_eq!(post("/v1/isolations", "{}"), Some(Role::Operator));
        assert_eq!(post("/v1/isolations", r#"{"forceProtected":true}"#), Some(Role::Admin));
        assert_eq!(post("/v1/lockdown", "{}"), Some(Role::Admin));
        assert_eq!(needed(&Method::GET, "/v1/status", b""), Some(Role::Viewer));
        assert_eq!(post("/v1/something-new", "{}"), None, "what nobody judged is not for browsers");
        assert_eq!(post("/v1/rollout", "{}"), Some(Role::Operator));
        assert_eq!(post("/v1/tap", "{}"), Some(Role::Operator));
        assert_eq!(needed(&Method::GET, "/v1/decisions/abc", b""), Some(Role::Viewer));
        let guest = Guest::at_socket(Asker::default());
        assert!(allowed(&guest, Role::Operator, Role::Operator).is_ok());
        let (status, problem) = allowed(&guest, Role::Viewer, Role::Operator).unwrap_err();
        assert_eq!((status, problem.code.as_str()), (StatusCode::FORBIDDEN, code::ROLE));
        assert!(problem.message.contains("viewer") && problem.message.contains("operator"));
    }

    #[test]
    fn elsewhere_its_number_and_its_configured_names_are_right_and_no_other() {
        let names = ["cp-1.example.org".to_owned()];
        let place = Place { names: &names, ip: Some("10.0.0.11".parse().unwrap()), programs: true };
        for (host, is_right) in [
            ("10.0.0.11:10271", true),
            ("CP-1.example.org:10271", true),
            ("127.0.0.1:10271", true),
            ("10.0.0.12:10271", false),
            ("evil.example:10271", false),
            ("cp-1.example.org.evil.example", false),
        ] {
            let judged = judge(&head(Method::GET, &[("host", host)]), Role::Viewer, place);
            assert_eq!(judged.is_ok(), is_right, "{host}");
        }
        let (_, problem) = judge(&head(Method::GET, &[("host", "evil")]), Role::Viewer, place).unwrap_err();
        assert!(problem.help.contains("admin.https.names"), "{}", problem.help);
    }

    #[test]
    fn a_program_acts_without_an_origin_where_it_may_and_a_browser_never() {
        let place = Place { programs: true, ..HERE };
        let program = [("host", "localhost"), ("x-spillway-act", "1")];
        assert_eq!(code_of(judge(&head(Method::POST, &program), Role::Operator, place)), "operator");
        assert_eq!(code_of(judge(&head(Method::POST, &program), Role::Operator, HERE)), code::ORIGIN);
        assert_eq!(code_of(judge(&head(Method::POST, &program[..1]), Role::Operator, place)), code::ORIGIN);
        for more in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            let headers = [program[0], program[1], more];
            assert_eq!(
                code_of(judge(&head(Method::POST, &headers), Role::Admin, place)),
                code::ORIGIN,
                "{more:?}"
            );
        }
    }

    #[test]
    fn whoever_lacks_a_role_is_told_which_groups_have_it() {
        let roles =
            Roles::new([vec![], vec!["platform-oncall".to_owned()], vec!["system:masters".to_owned()]]);
        let by = Asker { user: Some("alice".into()), ..Asker::default() };
        let guest = Guest { by, role: Role::Viewer, roles: Some(Arc::new(roles)) };
        let (_, problem) = allowed(&guest, Role::Viewer, Role::Operator).unwrap_err();
        assert!(problem.message.contains("alice is viewer"), "{}", problem.message);
        for part in ["platform-oncall", "system:masters", "admin.roles", "nothing was changed"] {
            assert!(problem.help.contains(part), "{part}: {}", problem.help);
        }
    }
}
