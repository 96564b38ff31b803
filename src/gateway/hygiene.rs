//! What do the fuzz targets see of `headers`? The same functions, in types of their own; nothing here decides.

use http::HeaderMap;

use super::headers;
use crate::identity::Identity;

/// What a request asked of its connection, and whether it impersonates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// It asks for another protocol.
    pub upgrade: bool,
    /// It asks to be somebody else.
    pub impersonates: bool,
}

/// Removes what a client may not send on.
///
/// # Errors
/// The reason for which the request is refused.
pub fn clean_request(headers: &mut HeaderMap) -> Result<Wishes, String> {
    let wishes = headers::clean_request(headers).map_err(|error| error.to_string())?;
    Ok(Wishes { upgrade: wishes.upgrade, impersonates: wishes.impersonates })
}

/// Removes the hop-by-hop headers of an answer.
pub fn clean_response(headers: &mut HeaderMap, upgraded: bool) {
    headers::clean_response(headers, upgraded);
}

/// Tells kube-apiserver whom a verified certificate belongs to.
///
/// # Errors
/// The name that no header can carry.
pub fn assert_identity(identity: &Identity, headers: &mut HeaderMap) -> Result<(), String> {
    headers::Assertion::of(identity).map_err(|error| error.to_string())?.apply(headers);
    Ok(())
}
