//! What happens when somebody shows a signed grant to the lane?
//!
//! Either as a request to the lane's own desk, as `spillway break-glass arm --grant` sends it, once for a certificate; or
//! in a header of any request, which is never sent on. A good one arms the lane as a reason does, and the record names
//! the grant and who signed it. A bad one is a failed attempt: counted by its reason, written down, told with what to do.

use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::arming::{ArmError, Grant, Person};
use super::common::{ARMING_FULL, Common};
use super::desk::tell_armed;
use super::grant;
use crate::clock;
use crate::server::{self, ServerBody};
use crate::units::Instant;

/// A grant on any request. Never sent on.
pub(super) const GRANT: &str = "spillway-grant";
/// The metric's word for one person who would be two.
pub(super) const SAME_PERSON: &str = "grant_same_person";

/// The body of `POST /spillway/grant`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantRequest {
    token: String,
}

/// Why a shown grant opens nothing.
pub(super) struct Refused {
    /// The word for metrics, logs and audit.
    pub(super) reason: &'static str,
    /// What the person reads.
    pub(super) message: String,
}

/// Somebody shows a grant; a good one arms the lane for them.
pub(super) fn present(
    common: &Common,
    person: &Person,
    facts: &Map<String, Value>,
    token: &str,
    now: Instant,
) -> Result<Grant, Refused> {
    let expected = common.grants.expected();
    let good = grant::judge(token, &expected, &person.fingerprint, clock::wall())
        .map_err(|flaw| Refused { reason: flaw.as_str(), message: flaw.to_string() })?;
    let mut arming = common.arming.lock();
    let known = arming.has_signed(&person.fingerprint, &good.id, now);
    let armed = arming.arm_signed(person, good, now);
    drop(arming);
    let armed = armed.map_err(|error| {
        let reason = if error == ArmError::SamePerson { SAME_PERSON } else { ARMING_FULL };
        Refused { reason, message: error.to_string() }
    })?;
    // A client that sends it with every request arms once.
    if !known {
        tell_armed(common, facts.clone(), &armed, now);
    }
    Ok(armed)
}

/// The grant in a header, if there is one.
pub(super) fn in_header(value: Option<&HeaderValue>) -> Option<&str> {
    value.map(|value| value.to_str().unwrap_or_default())
}

/// The desk's answer to a grant.
pub(super) fn serve(
    common: &Common,
    person: &Person,
    facts: Map<String, Value>,
    request: &GrantRequest,
    now: Instant,
) -> Result<Grant, Response<ServerBody>> {
    present(common, person, &facts, &request.token, now).map_err(|refused| {
        tell_refused(common, person, facts, &refused);
        server::failure(StatusCode::FORBIDDEN, "Forbidden", &refused.message)
    })
}

/// A failed attempt, at the desk: the desk's own rate bounds how often this is written.
fn tell_refused(common: &Common, person: &Person, mut facts: Map<String, Value>, refused: &Refused) {
    common.metrics.refused(refused.reason);
    tracing::error!(
        reason = refused.reason,
        user = person.user,
        "break-glass: a grant was shown that does not open the lane"
    );
    facts.insert("event".to_owned(), "refuse".into());
    facts.insert("outcome".to_owned(), refused.reason.into());
    common.alerts.tell(&facts);
    common.audit.note_change(facts);
}
