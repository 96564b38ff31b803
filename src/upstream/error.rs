//! What went wrong between us and the apiserver, whose fault is it, and may the request be repeated?
//!
//! The question that decides everything is whether the apiserver can have acted on the request. hyper and h2
//! know: a request handed back, a stream beyond GOAWAY's last id and a REFUSED_STREAM were not processed.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use http::StatusCode;

/// Whose side caused the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client that sent the request.
    Client,
    /// This proxy: a bound or a setting of ours.
    Spillway,
    /// The apiserver or the way to it.
    Upstream,
}

/// What kind of failure, and with it what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The apiserver cannot be reached or refused the stream; it has not seen the request.
    Unavailable,
    /// The pool's wait queue is full; nothing was sent.
    WaitQueueFull,
    /// No stream became free within the wait limit; nothing was sent.
    WaitTimeout,
    /// The route needs a credential that is not configured.
    NotConfigured,
    /// The request was sent and the connection or stream ended before an answer: it may have been carried out.
    ConnectionLost,
    /// The request was sent and no response head came in time: it may have been carried out.
    FirstByteTimeout,
    /// The apiserver's answer is not valid HTTP.
    Malformed,
    /// The client's request body failed or stalled while it was forwarded.
    RequestBody,
    /// The request cannot be expressed towards the apiserver, for instance an upgrade that carries a body.
    BadRequest,
}

impl Kind {
    /// Whose side caused it.
    #[must_use]
    pub const fn side(self) -> Side {
        match self {
            Self::Unavailable | Self::ConnectionLost | Self::FirstByteTimeout | Self::Malformed => {
                Side::Upstream
            }
            Self::WaitQueueFull | Self::WaitTimeout | Self::NotConfigured => Side::Spillway,
            Self::RequestBody | Self::BadRequest => Side::Client,
        }
    }

    /// The status that fits.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unavailable | Self::WaitQueueFull | Self::WaitTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotConfigured => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ConnectionLost | Self::Malformed => StatusCode::BAD_GATEWAY,
            Self::FirstByteTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody | Self::BadRequest => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether the apiserver may have acted on the request.
    #[must_use]
    pub const fn may_have_been_processed(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::FirstByteTimeout | Self::Malformed | Self::RequestBody)
    }

    /// A name for metrics and logs, from a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "upstream_unavailable",
            Self::WaitQueueFull => "upstream_wait_queue_full",
            Self::WaitTimeout => "upstream_wait_timeout",
            Self::NotConfigured => "upstream_not_configured",
            Self::ConnectionLost => "upstream_connection_lost",
            Self::FirstByteTimeout => "upstream_first_byte_timeout",
            Self::Malformed => "upstream_malformed",
            Self::RequestBody => "request_body",
            Self::BadRequest => "bad_request",
        }
    }
}

/// A request that got no response head. Cloned when several requests waited for the same connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct UpstreamError {
    /// Whose side caused it.
    pub side: Side,
    /// What kind of failure.
    pub kind: Kind,
    text: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl UpstreamError {
    /// A failure with the text for people.
    pub(super) fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { side: kind.side(), kind, text: text.into(), source: None }
    }

    pub(super) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The text with that of every cause behind it: for the log, not for clients.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// What hyper's error means for a request that had been given to a connection.
    pub(super) fn after_sending(error: hyper::Error) -> Self {
        let (kind, text) = classify(&error);
        Self::new(kind, text).with_source(error)
    }
}

fn classify(error: &hyper::Error) -> (Kind, &'static str) {
    if let Some(h2) = find_h2(error) {
        let refused = h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        if refused || (h2.is_remote() && h2.is_go_away()) {
            return (Kind::Unavailable, "the apiserver closed the connection without taking this request");
        }
        if h2.is_library() && h2.reason() == Some(h2::Reason::PROTOCOL_ERROR) {
            return (Kind::Malformed, "the apiserver's answer breaks HTTP/2 rules");
        }
        return (Kind::ConnectionLost, "the connection to the apiserver ended after the request was sent");
    }
    if error.is_parse() {
        return (Kind::Malformed, "the apiserver's answer is not valid HTTP/1.1");
    }
    if error.is_user() {
        return (Kind::BadRequest, "the request cannot be written as HTTP");
    }
    (Kind::ConnectionLost, "the connection to the apiserver ended after the request was sent")
}

fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_503_and_what_may_have_run_is_not() {
        for kind in [Kind::Unavailable, Kind::WaitQueueFull, Kind::WaitTimeout] {
            assert_eq!(kind.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!kind.may_have_been_processed());
        }
        assert_eq!(Kind::ConnectionLost.status(), StatusCode::BAD_GATEWAY);
        assert!(Kind::ConnectionLost.may_have_been_processed());
        assert_eq!(Kind::FirstByteTimeout.status(), StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn an_error_shows_its_own_level_and_keeps_the_cause() {
        let error = UpstreamError::new(Kind::Unavailable, "cannot connect to 127.0.0.1:6443")
            .with_source(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(error.to_string(), "cannot connect to 127.0.0.1:6443");
        assert_eq!(error.with_causes(), "cannot connect to 127.0.0.1:6443: connection refused");
        assert_eq!(error.side, Side::Upstream);
        assert_eq!(Error::source(&error).map(ToString::to_string), Some("connection refused".to_owned()));
    }
}
