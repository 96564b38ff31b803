//! How does a person arm the lane, confirm for somebody else, or disarm?
//!
//! By a request to the lane itself, below [`PREFIX`], with the same certificate as any other: so arming needs nothing that
//! the lane does not need. Small JSON bodies in and out. Each change is a signed record of the audit log, an error in the
//! operator's log and an alert.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::arming::{ArmError, Armed, Grant, Person, Wish};
use super::common::{ARMING_FULL, Common, of_grant};
use super::present::{self, GrantRequest};
use crate::clock;
use crate::server::{self, ServerBody};
use crate::units::Instant;

/// The paths that are the lane's own: kube-apiserver has none below it.
pub(super) const PREFIX: &str = "/spillway/";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 4 << 10;
/// How long it may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmRequest {
    reason: String,
    ticket: String,
    seconds: u64,
    #[serde(default)]
    alone: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmRequest {
    user: String,
}

/// Answers one request of somebody whose certificate was judged to be good.
pub(super) async fn serve(
    common: &Common,
    person: &Person,
    facts: Map<String, Value>,
    request: Request<Incoming>,
) -> Response<ServerBody> {
    let now = clock::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (method, &path[PREFIX.len()..]) {
        (Method::GET, "arm") => answer(StatusCode::OK, &status(common, person, now)),
        (Method::POST, "arm") => match body::<ArmRequest>(request).await {
            Ok(wish) => arm(common, person, facts, wish, now),
            Err(refusal) => refusal,
        },
        (Method::POST, "confirm") => match body::<ConfirmRequest>(request).await {
            Ok(wish) => confirm(common, person, facts, &wish.user, now),
            Err(refusal) => refusal,
        },
        (Method::POST, "grant") => match body::<GrantRequest>(request).await {
            Ok(shows) => match present::serve(common, person, facts, &shows, now) {
                Ok(grant) => answer(StatusCode::OK, &json!({ "armed": shown(&grant, now) })),
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        },
        (Method::POST, "disarm") => disarm(common, person, facts, now),
        _ => {
            let known = "GET /spillway/arm, POST /spillway/arm, /spillway/grant, /spillway/confirm and /spillway/disarm";
            server::failure(
                StatusCode::NOT_FOUND,
                "NotFound",
                &format!("there is no {path}; there is {known}"),
            )
        }
    }
}

fn arm(
    common: &Common,
    person: &Person,
    facts: Map<String, Value>,
    wish: ArmRequest,
    now: Instant,
) -> Response<ServerBody> {
    let ArmRequest { reason, ticket, seconds, alone } = wish;
    let wish = Wish { reason, ticket, length: Duration::from_secs(seconds), alone };
    let armed = common.arming.lock().arm(person, wish.clone(), now);
    match armed {
        Ok(Armed::Now(grant)) => {
            tell_armed(common, facts, &grant, now);
            answer(StatusCode::OK, &json!({ "armed": shown(&grant, now) }))
        }
        Ok(Armed::Waiting) => {
            tell_waiting(common, facts, person, &wish);
            answer(StatusCode::ACCEPTED, &json!({ "waiting": true, "message": wants_second(&person.user) }))
        }
        Err(error) => refused(common, error),
    }
}

fn confirm(
    common: &Common,
    second: &Person,
    facts: Map<String, Value>,
    user: &str,
    now: Instant,
) -> Response<ServerBody> {
    let armed = common.arming.lock().confirm(second, user, now);
    match armed {
        Ok(grant) => {
            tell_armed(common, facts, &grant, now);
            answer(StatusCode::OK, &json!({ "armed": shown(&grant, now) }))
        }
        Err(error) => refused(common, error),
    }
}

fn disarm(
    common: &Common,
    person: &Person,
    mut facts: Map<String, Value>,
    now: Instant,
) -> Response<ServerBody> {
    let ended = common.arming.lock().disarm(&person.fingerprint);
    if let Some(grant) = &ended {
        let actor = facts.remove("actor");
        facts.append(&mut of_grant(grant, now));
        facts.insert("actor".to_owned(), actor.unwrap_or(Value::Null));
        facts.insert("event".to_owned(), "disarm".into());
        common.audit.note_change(facts);
        common.armed_changed(now);
        tracing::info!(user = person.user, "break-glass: disarmed");
    }
    answer(StatusCode::OK, &json!({ "disarmed": ended.is_some() }))
}

fn status(common: &Common, person: &Person, now: Instant) -> Value {
    let arming = common.arming.lock();
    let grants: Vec<Value> = arming.grants(now).into_iter().map(|grant| shown(grant, now)).collect();
    let waiting: Vec<Value> = arming
        .wishes(now)
        .into_iter()
        .map(|(person, wish)| {
            json!({
                "user": person.user, "reason": wish.reason, "ticket": wish.ticket,
                "seconds": wish.length.as_secs(),
            })
        })
        .collect();
    json!({ "mode": arming.mode().as_str(), "grantRequired": arming.is_only_signed(), "you": person.user, "armed": grants, "waiting": waiting })
}

fn shown(grant: &Grant, now: Instant) -> Value {
    json!({
        "user": grant.person.user, "reason": grant.reason, "ticket": grant.ticket, "second": grant.second,
        "alone": grant.alone, "secondsLeft": grant.until.since(now).as_secs(),
        "grant": grant.signed.as_ref().map(|signed| &signed.id),
        "grantedBy": grant.signed.as_ref().map(|signed| &signed.by),
    })
}

/// The lane is open for somebody: everybody is told.
pub(super) fn tell_armed(common: &Common, mut facts: Map<String, Value>, grant: &Grant, now: Instant) {
    let (user, left) = (&grant.person.user, grant.until.since(now));
    let second = grant.second.as_deref().unwrap_or_default();
    let (reason, ticket, alone) = (&grant.reason, &grant.ticket, grant.alone);
    let (granted, by) = grant.signed.as_ref().map_or(("", ""), |signed| (&signed.id, &signed.by));
    tracing::error!(user, second, reason, ticket, alone, granted, by, left = ?left, "break-glass: the lane was armed");
    let own = facts.remove("actor").unwrap_or(Value::Null);
    facts.append(&mut of_grant(grant, now));
    // Who sent this request: of two people the second.
    let key = if grant.second.is_some() { "second_actor" } else { "actor" };
    facts.insert(key.to_owned(), own);
    facts.insert("event".to_owned(), "arm".into());
    common.alerts.tell(&facts);
    common.audit.note_change(facts);
    common.armed_changed(now);
}

/// Somebody waits for a second person.
pub(super) fn tell_waiting(common: &Common, mut facts: Map<String, Value>, person: &Person, wish: &Wish) {
    let (user, reason, ticket) = (&person.user, &wish.reason, &wish.ticket);
    tracing::error!(user, reason, ticket, "break-glass: somebody asks for a second person to arm the lane");
    facts.insert("reason".to_owned(), reason.as_str().into());
    facts.insert("ticket".to_owned(), ticket.as_str().into());
    facts.insert("event".to_owned(), "arm-wanted".into());
    common.alerts.tell(&facts);
    common.audit.note_change(facts);
}

/// What the first of two people reads.
pub(super) fn wants_second(user: &str) -> String {
    format!(
        "this lane wants two people (breakGlass.arming: TwoPerson): within 15m a second one runs \
         `spillway break-glass confirm {user} --kubeconfig THEIRS`; if there is nobody, arm again with --alone for at most 15m"
    )
}

fn refused(common: &Common, error: ArmError) -> Response<ServerBody> {
    if error == ArmError::Full {
        common.metrics.refused(ARMING_FULL);
    }
    let (status, reason) = match error {
        ArmError::Reason | ArmError::Ticket | ArmError::Length => (StatusCode::BAD_REQUEST, "BadRequest"),
        ArmError::NobodyWaits => (StatusCode::NOT_FOUND, "NotFound"),
        ArmError::SamePerson | ArmError::GrantNeeded => (StatusCode::FORBIDDEN, "Forbidden"),
        ArmError::Full | ArmError::NotNeeded => (StatusCode::CONFLICT, "Conflict"),
    };
    server::failure(status, reason, &error.to_string())
}

async fn body<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T, Response<ServerBody>> {
    let bad = |why: String| server::failure(StatusCode::BAD_REQUEST, "BadRequest", &why);
    let read = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(error)) => {
            return Err(bad(format!("the body cannot be read: {error}; at most 4 KiB of JSON")));
        }
        Err(_) => return Err(bad(format!("the body did not come within {BODY_WITHIN:?}"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("the body is not the JSON expected here: {error}")))
}

fn answer(status: StatusCode, value: &Value) -> Response<ServerBody> {
    let body = Full::new(value.to_string().into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
