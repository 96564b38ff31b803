//! What happens to a request on the break-glass address?
//!
//! The certificate is judged, a reason is asked for where the lane wants one, the request goes on to the gateway, and its
//! record is written before the answer leaves. Whatever is refused is answered with what to do about it. A request whose
//! client leaves has a record all the same: it may have been executed.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::arming::{ArmError, Armed, Arming, GRANT_DEFAULT, GRANT_NEEDED, Grant, Mode, Person, Wish};
use super::attempts::Attempt;
use super::authority::Bearer;
use super::check::{self, Refusal};
use super::common::{Common, actor, of_grant};
use super::desk::{self, PREFIX};
use super::metered::{self, After};
use super::present::{self, Refused};
use super::shown::{self, Shown};
use crate::clock;
use crate::request::{DecodedPath, RequestInfo};
use crate::server::{self, Connection, Handler, ServerBody};
use crate::units::Instant;

/// Why the lane is used, on the first request of a session. Never sent on.
pub(super) const REASON: &str = "spillway-reason";
/// Under which ticket.
pub(super) const TICKET: &str = "spillway-ticket";
const AUDIT_ID: &str = "audit-id";
/// Bytes of client-chosen text in a record.
const TEXT_BYTES_MAX: usize = 256;
/// Bytes of a path in a record.
const PATH_BYTES_MAX: usize = 2_048;
/// Seconds after which a throttled source may fail again.
const THROTTLED_SECONDS: u32 = 60;

/// The lane's handler.
pub(super) struct Gate {
    pub(super) inside: Arc<dyn Handler>,
    pub(super) common: Arc<Common>,
}

impl Handler for Gate {
    fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<ServerBody>> {
        let (inside, common) = (Arc::clone(&self.inside), Arc::clone(&self.common));
        serve(inside, common, connection, request).boxed()
    }
}

async fn serve(
    inside: Arc<dyn Handler>,
    common: Arc<Common>,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Response<ServerBody> {
    let (now, wall) = (clock::now(), clock::wall());
    let shown = connection.leaf.as_ref().and_then(|leaf| shown::read(leaf).ok());
    let facts = facts_of(&connection, &request, shown.as_ref());
    let judged = check::check(&connection.certificate, shown.as_ref(), &common.rules, &common.denied(), wall);
    let (bearer, shown) = match (judged, shown) {
        (Ok(bearer), Some(shown)) => (bearer, shown),
        (Ok(_), None) => return refuse(&common, &connection, facts, None, Refusal::Unacceptable, wall).await,
        (Err(why), shown) => return refuse(&common, &connection, facts, shown.as_ref(), why, wall).await,
    };
    let path = request.uri().path();
    if bearer == Bearer::Drill {
        if request.method() != Method::GET || !is_health(path) {
            return refuse(&common, &connection, facts, Some(&shown), Refusal::DrillOnly, wall).await;
        }
    } else if path.starts_with(PREFIX) {
        if !common.attempts.lock().may_ask_the_desk(now) {
            return too_many("too many people arm and disarm this lane at once; come back in a minute");
        }
        let person = person(&shown);
        return desk::serve(&common, &person, facts, request).await;
    }
    let grant = match bearer {
        Bearer::Drill => None,
        Bearer::Person => match let_in(&common, &shown, request.headers(), &facts, now) {
            Ok(grant) => grant,
            Err(Refused { reason, message }) => {
                common.metrics.refused(reason);
                // Written down as often as other failures are, and answered always: the answer says what to do.
                let attempt = common.attempts.lock().failed(connection.peer.ip(), now);
                if attempt == Attempt::Told {
                    let mut facts = facts;
                    facts.insert("event".to_owned(), "refuse".into());
                    facts.insert("outcome".to_owned(), reason.into());
                    common.audit.write(facts).await;
                }
                return unarmed(request.uri().path(), &message);
            }
        },
    };
    for name in [REASON, TICKET, present::GRANT] {
        request.headers_mut().remove(name);
    }
    let mut record = Record { facts, common: Arc::clone(&common), arrived: now, done: false };
    record.begin(bearer, &shown, grant.as_ref());
    let declared = metered::declared(request.headers());
    let response = inside.handle(connection, request).await;
    let id = response.headers().get(AUDIT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let after = After::of(&record.facts, &common.audit, bearer, (now, declared), &response, id.as_ref());
    record.end(response.status(), id).await;
    metered::follow(response, after)
}

/// The grant under which a person comes in, if one is needed; else what to tell them.
fn let_in(
    common: &Common,
    shown: &Shown,
    headers: &HeaderMap,
    facts: &Map<String, Value>,
    now: Instant,
) -> Result<Option<Grant>, Refused> {
    let unarmed = |message| Refused { reason: Refusal::Unarmed.as_str(), message };
    let open = common.arming.lock().grant(&shown.fingerprint, now).map(Option::<&Grant>::cloned);
    match (open, present::in_header(headers.get(present::GRANT))) {
        (Ok(Some(grant)), _) => return Ok(Some(grant)),
        (Ok(None), None) => return Ok(None),
        (Err(()), None) => {}
        (open, Some(token)) => match (present::present(common, &person(shown), facts, token, now), open) {
            (Ok(grant), _) => return Ok(Some(grant)),
            // Nobody is kept out by a paper that nobody asked for.
            (Err(refused), Ok(_)) => {
                common.metrics.refused(refused.reason);
                return Ok(None);
            }
            (Err(refused), Err(())) => return Err(refused),
        },
    }
    let mut arming = common.arming.lock();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (reason, ticket) = (text(REASON), text(TICKET));
    let person = person(shown);
    if reason.is_none() && ticket.is_none() {
        return Err(unarmed(how_to_arm(&arming, &person.user)));
    }
    let wish = Wish {
        reason: reason.unwrap_or_default(),
        ticket: ticket.unwrap_or_default(),
        length: GRANT_DEFAULT,
        alone: false,
    };
    let armed = arming.arm(&person, wish.clone(), now);
    drop(arming);
    match armed {
        Ok(Armed::Now(grant)) => {
            desk::tell_armed(common, facts.clone(), &grant, now);
            Ok(Some(grant))
        }
        Ok(Armed::Waiting) => {
            desk::tell_waiting(common, facts.clone(), &person, &wish);
            Err(unarmed(desk::wants_second(&person.user)))
        }
        Err(error @ (ArmError::Reason | ArmError::Ticket)) => Err(unarmed(format!(
            "the headers Spillway-Reason and Spillway-Ticket do not arm this lane: {error}"
        ))),
        Err(error) => Err(unarmed(error.to_string())),
    }
}

fn too_many(message: &str) -> Response<ServerBody> {
    let mut response = server::failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(THROTTLED_SECONDS));
    response
}

/// kubectl begins with `/api` and `/apis`, and shows nobody the words of a refusal there unless they are plain text.
fn unarmed(path: &str, message: &str) -> Response<ServerBody> {
    if !["/api", "/apis"].contains(&path) {
        return server::failure(StatusCode::FORBIDDEN, "Forbidden", message);
    }
    let body = Full::new(message.to_owned().into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn how_to_arm(arming: &Arming, user: &str) -> String {
    if arming.is_only_signed() {
        return GRANT_NEEDED.to_owned();
    }
    let mode = arming.mode();
    let second = match mode {
        Mode::TwoPerson => {
            format!(", then a second person: spillway break-glass confirm {user} --kubeconfig THEIRS")
        }
        Mode::Open | Mode::Reasoned => String::new(),
    };
    format!(
        "this lane wants a reason first (breakGlass.arming: {}): spillway break-glass arm --reason 'WHY' --ticket ID \
         --for 1h --kubeconfig FILE{second}",
        mode.as_str()
    )
}

async fn refuse(
    common: &Common,
    connection: &Connection,
    mut facts: Map<String, Value>,
    shown: Option<&Shown>,
    why: Refusal,
    wall: SystemTime,
) -> Response<ServerBody> {
    let attempt = common.attempts.lock().failed(connection.peer.ip(), clock::now());
    if attempt == Attempt::Throttled {
        common.metrics.refused(Refusal::Throttled.as_str());
        let message = check::message(Refusal::Throttled, shown, &common.rules, wall);
        return too_many(&message);
    }
    common.metrics.refused(why.as_str());
    let message = check::message(why, shown, &common.rules, wall);
    if attempt == Attempt::Told {
        facts.insert("event".to_owned(), "refuse".into());
        facts.insert("outcome".to_owned(), why.as_str().into());
        let user = shown.and_then(|shown| shown.user.as_deref()).unwrap_or_default();
        let serial = shown.map_or("", |shown| shown.serial.as_str());
        tracing::error!(
            reason = why.as_str(),
            user = cut(user, TEXT_BYTES_MAX),
            serial,
            srcIP = %connection.peer,
            "break-glass: a failed attempt to use the lane"
        );
        common.alerts.tell(&facts);
        common.audit.write(facts).await;
    }
    let (status, reason) = match why {
        Refusal::DrillOnly => (StatusCode::FORBIDDEN, "Forbidden"),
        _ => (StatusCode::UNAUTHORIZED, "Unauthorized"),
    };
    server::failure(status, reason, &format!("{reason}: {message}"))
}

/// One request on its way; its record is written when the answer's head is known, or when nobody waits for it any more.
struct Record {
    facts: Map<String, Value>,
    common: Arc<Common>,
    arrived: Instant,
    done: bool,
}

impl Record {
    fn begin(&mut self, bearer: Bearer, shown: &Shown, grant: Option<&Grant>) {
        let (event, now) = (if bearer == Bearer::Drill { "drill" } else { "use" }, self.arrived);
        if let Some(grant) = grant {
            let mut granted = of_grant(grant, now);
            granted.remove("actor");
            self.facts.append(&mut granted);
        }
        self.facts.insert("event".to_owned(), event.into());
        self.facts.insert("upstream".to_owned(), self.common.upstream.as_str().into());
        let (used, limit) = (self.common.occupancy)();
        self.facts.insert("lane_seats".to_owned(), json!({ "in_use": used, "limit": limit }));
        self.facts.insert("bypassed".to_owned(), (self.common.bypassed)());
        if bearer == Bearer::Person && self.common.begins(shown, now) {
            self.common.metrics.session();
            let source = self.facts.get("source").and_then(Value::as_str).unwrap_or_default();
            tracing::error!(
                user = shown.user.as_deref().unwrap_or_default(),
                serial = shown.serial,
                srcIP = source,
                reason = grant.map_or("", |grant| grant.reason.as_str()),
                ticket = grant.map_or("", |grant| grant.ticket.as_str()),
                "break-glass: somebody uses the lane"
            );
            self.common.alerts.tell(&self.facts);
        }
    }

    fn close(&mut self, status: Option<u16>, outcome: &str) -> Map<String, Value> {
        self.done = true;
        let mut facts = std::mem::take(&mut self.facts);
        let duration = clock::now().since(self.arrived);
        facts.insert("status".to_owned(), status.into());
        facts.insert("outcome".to_owned(), outcome.into());
        facts
            .insert("duration_us".to_owned(), u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).into());
        facts
    }

    async fn end(mut self, status: StatusCode, id: Option<String>) {
        let outcome = match status {
            StatusCode::TOO_MANY_REQUESTS => "limited",
            status if status.is_server_error() => "failed",
            status if status.is_client_error() => "denied",
            _ => "done",
        };
        self.facts.insert("request_id".to_owned(), id.into());
        let facts = self.close(Some(status.as_u16()), outcome);
        self.common.audit.write(facts).await;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.done {
            let facts = self.close(None, "client_left");
            self.common.audit.note(facts);
        }
    }
}

/// Who, from where, and what: the same for every record of a request.
fn facts_of(
    connection: &Connection,
    request: &Request<Incoming>,
    shown: Option<&Shown>,
) -> Map<String, Value> {
    let uri = request.uri();
    let raw = uri.path_and_query().map_or("", |path| path.as_str());
    let header = |name: &str| {
        let value = request.headers().get(name)?.to_str().ok()?;
        Some(Value::from(cut(value, TEXT_BYTES_MAX)))
    };
    let mut facts = Map::from_iter([
        ("time".to_owned(), shown::time_millis(clock::wall()).into()),
        ("actor".to_owned(), shown.map_or(Value::Null, actor)),
        ("source".to_owned(), connection.peer.to_string().into()),
        ("conn_id".to_owned(), connection.id.into()),
        ("tls".to_owned(), json!({ "version": connection.session.0, "cipher": connection.session.1 })),
        ("method".to_owned(), request.method().as_str().into()),
        ("path".to_owned(), cut(raw, PATH_BYTES_MAX).into()),
        ("user_agent".to_owned(), header(USER_AGENT.as_str()).unwrap_or(Value::Null)),
        ("impersonates".to_owned(), header("impersonate-user").unwrap_or(Value::Null)),
    ]);
    if let Ok(path) = DecodedPath::new(uri.path())
        && let Ok(info) = RequestInfo::new(request.method().as_str(), &path, uri.query())
    {
        let class = json!({
            "verb": info.verb.as_str(), "group": info.api_group, "resource": info.resource,
            "subresource": info.subresource, "namespace": info.namespace, "name": info.name,
        });
        facts.insert("class".to_owned(), class);
    }
    facts
}

fn person(shown: &Shown) -> Person {
    Person { user: shown.user.clone().unwrap_or_default(), fingerprint: shown.fingerprint.clone() }
}

fn is_health(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/version" || ["/livez", "/readyz", "/healthz"].into_iter().any(below)
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
