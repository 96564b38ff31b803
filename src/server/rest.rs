//! What becomes of a body whose request has been refused?
//!
//! It is still on its way. Read and thrown away before the answer, a short one leaves the connection as it was, and
//! what is wrong with it is still found; a long one is cut off, and so is one that does not come. Nothing of it can be
//! taken for a request: over HTTP/1.1 hyper closes a connection whose body was not read to its end, over HTTP/2 the
//! stream is reset. A client that waits for `100 Continue` has sent nothing, and must not be asked to.

use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// What is read at most: as much as Go's server reads of a body that its handler has left.
const BYTES_MAX: usize = 256 * 1024;
/// How long for. This holds a stream and the little that its window lets in, and no seat.
const WITHIN: Duration = Duration::from_millis(500);

/// Whether the client sends its body without being asked.
#[must_use]
pub fn is_coming(headers: &HeaderMap) -> bool {
    !headers.contains_key(EXPECT)
}

/// Reads the rest of a refused request, if it `is_coming`.
pub async fn throw_away(request: Request<Incoming>, is_coming: bool) {
    let mut body = request.into_body();
    if !is_coming || body.is_end_stream() {
        return;
    }
    let mut read = 0;
    let reading = async {
        while read < BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
    };
    // Over in time or not: dropping what is left ends it.
    let _ = tokio::time::timeout(WITHIN, reading).await;
}
